"""The border with NumPy: what comes in as data, and which function is answered how.

NumPy hands a call such as ``np.mean(t, axis=0)`` to the Tensor, which looks here: a function is
recorded as the primitive that has its rule, answered with plain arrays if it has no derivative,
or refused by name.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from . import ops, statistics
from .context import state
from .errors import OperandError, ShapeError, describe, explain, refused
from .kernels import Array
from .node import Node
from .ops import NUMPY, Op

# Functions without a derivative, or whose derivative is zero.
CONSTANT: frozenset[Any] = frozenset(
    getattr(np, name)
    for name in (
        "all allclose any argmax argmin argpartition argsort argwhere array_equal array_repr "
        "array_str array2string bincount can_cast ceil count_nonzero digitize empty_like equal "
        "flatnonzero floor floor_divide full_like greater greater_equal isclose isfinite isinf "
        "isnan less less_equal logical_and logical_not logical_or logical_xor may_share_memory "
        "ndim nonzero not_equal ones_like result_type rint round searchsorted shape "
        "shares_memory sign signbit size trunc unique zeros_like"
    ).split()
)


def _dot(x: Any, y: Any) -> Any:
    if not 0 < np.ndim(x) <= 2 or not 0 < np.ndim(y) <= 2:
        raise ShapeError(
            f"np.dot({describe(x)}, {describe(y)}): on Tensors it is for 1 or 2 axes, where it is "
            "the same as @; use * for scalars, @ for stacks of matrices"
        )
    return x @ y


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    return ops.clip(a, min=_metadata("np.clip", low), max=_metadata("np.clip", high))


def _einsum(subscripts: Any, *operands: Any, optimize: Any = False) -> Any:
    if not isinstance(subscripts, str):
        raise OperandError(
            f"np.einsum({describe(subscripts)}, ...): on Tensors the subscripts come first, as a "
            'string such as "ij,jk->ik"'
        )
    return ops.einsum(*operands, subscripts=subscripts, optimize=optimize)


def _pad(array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    if mode != "constant":
        raise OperandError(
            f"np.pad({describe(array)}, mode={mode!r}): on Tensors only mode='constant' has a "
            "derivative rule; index with repeated or reversed positions instead"
        )
    if isinstance(pad_width, dict):  # by axis
        widths = {axis % np.ndim(array): width for axis, width in pad_width.items()}
        pad_width = [np.broadcast_to(widths.get(i, 0), 2) for i in range(np.ndim(array))]
    entry = _metadata("np.pad", constant_values)
    return ops.pad(array, pad_width=np.array(pad_width).tolist(), constant_values=entry)


def _split(ary: Any, indices_or_sections: Any, axis: int = 0, *, by: Any = np.split) -> list[Any]:
    try:
        parts = by(np.arange(ary.shape[axis]), indices_or_sections)
    except (TypeError, ValueError, IndexError) as error:
        kind = OperandError if isinstance(error, TypeError) else ShapeError
        raise kind(
            f"np.{by.__name__}({describe(ary)}, {indices_or_sections!r}, axis={axis!r}): {error}; "
            "give the number of equal parts (np.array_split allows others), or the indices to cut "
            "at, and one of its axes"
        ) from error
    before = (slice(None),) * (axis % ary.ndim)
    bounds = [(int(p[0]), int(p[-1]) + 1) if len(p) else (0, 0) for p in parts]
    return [ary[(*before, slice(start, stop))] for start, stop in bounds]


def _metadata(function: str, value: Any) -> Any:
    """Take a Tensor among the options as an array, unless a gradient should flow to it."""
    if isinstance(value, Node) and value._requires_grad:
        raise OperandError(
            f"{function} takes {describe(value)} as a constant, through which no gradient flows: "
            "use np.minimum, np.maximum or np.concatenate, or .detach() if that is meant"
        )
    return plain(value)


# Functions that are composed of others, or called differently.
COMPOSED: dict[Any, Callable[..., Any]] = {
    np.clip: _clip,
    np.einsum: _einsum,
    np.pad: _pad,
    np.split: _split,
    np.array_split: partial(_split, by=np.array_split),
    np.ravel: lambda a: a.reshape(-1),
    np.var: statistics.var,
    np.std: statistics.std,
    np.square: lambda x: x**2,
    np.reciprocal: lambda x: 1 / x,
    np.positive: lambda x: x,
    np.dot: _dot,
}

signature = lru_cache(maxsize=None)(inspect.signature)  # looking one up takes longer than the op

REASONS = {
    "out": "it would overwrite values that the backward pass needs; assign the result instead",
    "where": "what it leaves out has no value; use np.where on the result instead",
    "dtype": "use .astype on the operand or on the result instead",
}


def bind(
    op: Op, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split a call in NumPy's way into an op's values and its metadata: ``(x, 0)`` is ``axis=0``.

    Raises an OperandError for an option that the op does not have (``out=``, ``where=``, ...).
    """
    n = 1 if op.variadic else len(op.vjps)
    if len(args) != n and not isinstance(function, np.ufunc):
        try:
            given = signature(function).bind(*args, **kwargs).arguments
        except ValueError:  # np.concatenate says how it is called from NumPy 2.4 on
            given = dict(zip(("arrays", "axis", "out"), args, strict=False)) | kwargs
        args, kwargs = tuple(given.values())[:n], dict(tuple(given.items())[n:])
    if not kwargs.keys() <= op.params.keys():
        raise refuse_option(function, args, kwargs, op.params)
    return tuple(args[0]) if op.variadic else tuple(args), {**op.params, **kwargs}


def refuse_option(
    function: Callable[..., Any], args: Sequence[Any], given: Iterable[str], known: Iterable[str]
) -> OperandError:
    """Say which option a function does not have on Tensors, and why."""
    option = min(set(given) - set(known))
    reason = REASONS.get(option, f"it takes {', '.join(known) or 'no options'}")
    operands = ", ".join(describe(a) for a in args)
    return OperandError(f"np.{function.__name__}({operands}) does not take {option}=: {reason}")


def refuse(function: Callable[..., Any]) -> OperandError:
    """Say that ``function`` has no rule, and how it gets one."""
    name = function.__name__
    module = getattr(function, "__module__", None) or "numpy"
    path = f"{'np' if module == 'numpy' else module.replace('numpy', 'np', 1)}.{name}"
    return OperandError(
        f"{path} has no derivative rule. Add one: "
        f'mb.ops.Op("{name}", {path}, lambda g, out, x: ...), one vjp per argument; '
        f"or use .numpy() if nothing is to be differentiated through it"
    )


def _comparison(compare: Callable[[Any, Any], Any]) -> Any:
    return lambda x, y: compare(x._data, plain(y))


def _in_place(self: Any, other: Any) -> Any:
    """Let ``t += u`` mean ``t = t + u``, as for numbers, except where that cannot be meant.

    Under `no_grad` who writes so of a leaf that learns wants the leaf itself to change.
    """
    on = state.get()[0]
    if self._requires_grad and self.op is None and not getattr(on, "grad", on):  # or a tracer
        raise refused(self, "in place")
    return NotImplemented


class NumpyProtocols:
    """What NumPy calls when it meets a Tensor, and comparisons, which give plain booleans."""

    __slots__ = ()
    _record: Any
    _data: Array
    _requires_grad: bool

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise refused(f"np.{ufunc.__name__}.{method}", "ufunc method")
        return self.__array_function__(ufunc, (), inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.where and len(args) == 1:
            function = np.nonzero
        op = NUMPY.get(function)
        if op is not None:
            return self._record(op, *bind(op, function, args, kwargs))
        if function in COMPOSED:
            known = signature(COMPOSED[function]).parameters
            if not kwargs.keys() <= known.keys():
                raise refuse_option(function, args, kwargs, [*known][1:])
            return COMPOSED[function](*args, **kwargs)
        if function in CONSTANT:
            return function(*plain(args), **plain(kwargs))
        raise refuse(function)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self._requires_grad:
            raise refused(self, "array")
        return np.array(self._data, dtype=dtype, copy=copy)

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _in_place

    __eq__ = _comparison(operator.eq)
    __ne__ = _comparison(operator.ne)
    __lt__ = _comparison(operator.lt)
    __le__ = _comparison(operator.le)
    __gt__ = _comparison(operator.gt)
    __ge__ = _comparison(operator.ge)
    __hash__ = object.__hash__


def as_data(data: Any, dtype: Any, copy: bool) -> Array:
    """Make ``data`` what a Tensor holds: a real array, or a NumPy scalar if it has no axes."""
    if type(data) is np.ndarray and data.dtype.kind == "f" and not copy and dtype is None:
        return data  # as most are
    if isinstance(data, Node):
        raise OperandError(
            f"{describe(data)} is a Tensor already; use it as it is, or .detach() for a leaf"
        )
    foreign = hasattr(data, "__array_function__") and not isinstance(data, np.ndarray)
    try:
        value = data if foreign else np.array(_unmasked(data), copy=copy or None)
        _check_real(value.dtype)
        if dtype is not None and value.dtype != dtype:
            _check_real(np.dtype(dtype))
            value = value.astype(dtype)
    except (TypeError, ValueError) as error:
        raise OperandError(f"Tensor({describe(data)}): {error}") from error
    scalar = type(value) is np.ndarray and not value.shape and value is not data
    return value[()] if scalar else value


def _check_real(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise TypeError(f"a Tensor holds booleans, integers or floats, not {dtype}")


def like(tensor: Any, value: Any, copy: bool, role: str) -> Array:
    """Make ``value`` data or a gradient of ``tensor``: of its dtype, and its shape or refused."""
    given, value = value, as_data(value, tensor.dtype, copy)
    if copy and value is given and hasattr(value, "copy"):
        value = value.copy()  # a foreign array, which as_data leaves alone
    if value.shape != tensor.shape:
        raise ShapeError(
            f"the {role} given for {describe(tensor)} is {describe(value)}; it must have the same "
            f"shape, {tuple(tensor.shape)}"
        )
    return value


def as_operand(a: Any, op: Op, args: Sequence[Any]) -> Any:
    """Take an operand that is no Tensor as an array: a list becomes one, a real array is one."""
    if type(a) is np.ndarray and a.dtype.kind in "biuf":
        return a
    try:
        if isinstance(a, list | tuple | float | int | np.generic | np.ndarray):
            a = np.asarray(_unmasked(a))
        if a.dtype.kind in "biuf" and hasattr(a, "__array_function__"):
            return a
    except (AttributeError, TypeError, ValueError):
        pass
    raise explain(op.name, args, {}, TypeError(f"cannot work with {describe(a)}"))


def _unmasked(a: Any) -> Any:
    if isinstance(a, np.ndarray) and hasattr(a, "mask"):
        raise TypeError("a masked array would lose its mask; use .filled(value)")
    return a


def as_key(key: Any) -> Any:
    """Take the Tensors in an index as arrays, and copy its arrays: a call must not change."""
    return tuple(_as_index(k) for k in key) if isinstance(key, tuple) else _as_index(key)


def _as_index(key: Any) -> Any:
    if isinstance(key, Node):
        return np.array(key._data)
    if not isinstance(key, list | tuple | np.ndarray):
        return key
    index = np.array(key)
    return index if index.size or isinstance(key, np.ndarray) else index.astype(np.intp)


def plain(value: Any) -> Any:
    """Replace Tensors by their data, in nested lists, tuples and dicts too."""
    if isinstance(value, Node):
        return value._data
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value
