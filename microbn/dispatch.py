"""The border with NumPy: what comes in as data, and which function is answered how.

NumPy hands a call such as ``np.mean(t, axis=0)`` to the Tensor, which looks here: a function is
recorded as the primitive that has its rule, answered with plain arrays if it has no derivative,
or refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import functional
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

# Functions that are composed of others.
COMPOSED: dict[Any, Callable[..., Any]] = {
    np.var: functional.var,
    np.std: functional.std,
    np.square: lambda x: x**2,
    np.reciprocal: lambda x: 1 / x,
    np.positive: lambda x: x,
    np.dot: lambda x, y: x @ y,
}

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
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        args, kwargs = tuple(given.values())[:n], dict(tuple(given.items())[n:])
    if not kwargs.keys() <= op.params.keys():
        option = min(kwargs.keys() - op.params.keys())
        reason = REASONS.get(option, f"it takes {', '.join(op.params) or 'no options'}")
        raise OperandError(f"{function.__name__} on a Tensor does not take {option}=: {reason}")
    return tuple(args[0]) if op.variadic else tuple(args), {**op.params, **kwargs}


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


class NumpyProtocols:
    """What NumPy calls when it meets a Tensor: in a ufunc, in another function, as an array."""

    __slots__ = ()
    _record: Any
    _data: Array
    _requires_grad: bool

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise refused(f"np.{ufunc.__name__}.{method}", "ufunc method")
        return self.__array_function__(ufunc, (), inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        op = NUMPY.get(function)
        if op is not None:
            return self._record(op, *bind(op, function, args, kwargs))
        if function in COMPOSED:
            return COMPOSED[function](*args, **kwargs)
        if function in CONSTANT:
            return function(*plain(args), **plain(kwargs))
        raise refuse(function)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self._requires_grad:
            raise refused(self, "array")
        return np.array(self._data, dtype=dtype, copy=copy)


def as_data(data: Any, dtype: Any, copy: bool) -> Array:
    """Make ``data`` what a Tensor holds: a real array, or a NumPy scalar if it has no axes."""
    if isinstance(data, Node):
        raise OperandError(
            f"{describe(data)} is a Tensor already; use it as it is, or .detach() for a leaf"
        )
    try:
        if type(data) is np.ndarray:
            value = np.array(data, dtype=dtype, copy=copy or None)
        elif hasattr(data, "__array_function__") and not isinstance(data, np.ndarray):
            value = data if dtype is None else data.astype(dtype)  # a foreign array stays one
        else:
            value = np.array(_unmasked(data), dtype=dtype, copy=copy or None)
    except (TypeError, ValueError) as error:
        raise OperandError(f"Tensor({describe(data)}): {error}") from error
    if value.dtype.kind not in "biuf":
        raise OperandError(
            f"Tensor({describe(data)}): a Tensor holds booleans, integers or floats, not "
            f"{value.dtype}"
        )
    scalar = type(value) is np.ndarray and not value.shape and value is not data
    return value[()] if scalar else value


def like(tensor: Any, value: Any, copy: bool) -> Array:
    """Make ``value`` data for ``tensor``: of its dtype, and of its shape or refused."""
    value = as_data(value, tensor.dtype, copy)
    if value.shape != tensor.shape:
        raise ShapeError(
            f"{describe(tensor)} cannot be given {describe(value)}: the shapes must agree"
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
    if isinstance(key, tuple):
        return tuple(as_key(k) for k in key)
    if isinstance(key, Node):
        return np.array(key._data)
    return np.array(key) if isinstance(key, list | np.ndarray) else key


def plain(value: Any) -> Any:
    """Replace Tensors by their data, in nested lists, tuples and dicts too."""
    if isinstance(value, Node):
        return value._data
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value
