"""Tensor: an array that remembers the call that made it.

A Tensor behaves like a NumPy array: operators, methods, and NumPy's own functions. Whatever of
these it meets, the call is recorded in one place, `Tensor._record`, as ``(op, inputs, params)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import dispatch, engine, functional, ops
from .context import state
from .engine import NUMBERS, Node, clock
from .errors import GradientError, OperandError, ShapeError, describe, explain
from .kernels import Array, Axis

_NOTHING: dict[str, Any] = {}
_PLAIN = NUMBERS | {float, int, bool}  # types of operands that need no second look


class Tensor(Node):
    """An array, differentiable with respect to what it was computed from.

    ``data`` is anything that `numpy.array` takes and that is boolean, integer or floating; it is
    copied unless ``copy=False``. Integers with ``requires_grad=True`` become float64. Arrays of
    other libraries that speak NumPy's protocols are kept as they are. Raises an OperandError (a
    TypeError) for a Tensor, complex, string or object data.

    >>> x = Tensor([[7.0, 70.0], [8.0, 80.0]], requires_grad=True, name="x")
    >>> y = (x**2).sum()
    >>> y.backward()
    >>> y.item(), x.grad
    (11413.0, array([[ 14., 140.],
           [ 16., 160.]]))
    """

    __slots__ = ("__weakref__",)
    kind = "input"  # how a leaf of this class is drawn

    def __init__(
        self,
        data: Any,
        *,
        requires_grad: bool = False,
        dtype: Any = None,
        name: str | None = None,
        copy: bool = True,
    ) -> None:
        value = _as_data(data, dtype, copy)
        if requires_grad and value.dtype.kind != "f":
            value = value.astype(np.float64)
        self._data, self._grad, self._requires_grad = value, None, bool(requires_grad)
        self.op, self.inputs, self.values, self.params = None, (), (), {}
        self.scope, self.name, self.time = state.get().scope, name, next(clock)

    def _constant(self, value: Array, requires_grad: bool = False) -> Tensor:
        return Tensor(value, requires_grad=requires_grad, copy=False)

    # Recording -----------------------------------------------------------------------------------

    @staticmethod
    def _record(op: ops.Op, args: tuple[Any, ...], params: dict[str, Any] = _NOTHING) -> Tensor:
        """Compute ``op(*args, **params)``, and remember the call if a gradient may be asked for."""
        requires_grad = False
        values = []
        for a in args:
            if isinstance(a, Tensor):
                values.append(a._data)
                if a._requires_grad:
                    requires_grad = True
            elif type(a) in _PLAIN:
                values.append(a)
            else:
                at = len(values)
                values.append(_as_operand(a, op, args))
                args = (*args[:at], values[at], *args[at + 1 :])
        try:
            data = op.kernel(*values, **params) if params else op.kernel(*values)
        except (TypeError, ValueError, IndexError) as error:
            raise explain(op.name, args, params, error) from error
        out = _new(Tensor)
        out._data = data
        out._grad = out.name = None
        recording, out.scope, _ = state.get()
        if requires_grad and recording:
            out._requires_grad = True
            out.op, out.inputs, out.values, out.params = op, args, values, params
        else:
            out._requires_grad = False
            out.op, out.inputs, out.values, out.params = None, (), (), _NOTHING
        out.time = next(clock)
        return out

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise OperandError(
                f"np.{ufunc.__name__}.{method} on a Tensor has no derivative rule; use np.sum, "
                "np.max or another function of its own"
            )
        return self._dispatch(ufunc, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self._dispatch(function, args, kwargs)

    def _dispatch(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        op = ops.NUMPY.get(function)
        if op is ops.where and len(args) == 1:
            function, op = np.nonzero, None
        if op is not None:
            return self._record(op, *dispatch.bind(op, function, args, kwargs))
        if function in functional.COMPOSED:
            return functional.COMPOSED[function](*args, **kwargs)
        if function in dispatch.CONSTANT:
            return function(*_plain(args), **_plain(kwargs))
        raise dispatch.refuse(function)

    # What it holds -------------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        """The values: an array, or a NumPy scalar if there are no axes.

        A leaf may be given new data of its shape, which keep its dtype (``p.data -= step``).
        """
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        if self.op is not None:
            raise GradientError(
                f"{describe(self)} is the result of {self.op.name}; only a leaf can be given new "
                "data. Make a leaf of it with .detach()"
            )
        value = _as_data(value, self._data.dtype, copy=value is not self._data)
        if value.shape != self._data.shape:
            raise ShapeError(f"{describe(self)} cannot be given data of shape {value.shape}")
        self._data, self.time = value, next(clock)

    @property
    def grad(self) -> Array | None:
        """The gradient that `backward` left here: an array, or None."""
        if type(self._grad) in NUMBERS:
            self._grad = np.array(self._grad)
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            value = _as_data(value, self._data.dtype, copy=True)
            if value.shape not in (self.shape, ()):
                raise ShapeError(f"{describe(self)} cannot have a gradient of shape {value.shape}")
            value = np.broadcast_to(value, self.shape).copy()
        self._grad = value

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow back to it; can be set on leaves."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        if self.op is not None:
            raise GradientError(
                f"{describe(self)} is the result of {self.op.name}, so whether it requires grad "
                "follows from its inputs; use .detach() for its value alone"
            )
        if on and self._data.dtype.kind != "f":
            raise OperandError(f"{describe(self)} holds no floats, so it cannot require grad")
        self._requires_grad = bool(on)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._data.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._data.size  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the entries."""
        return self._data.dtype  # type: ignore[no-any-return]

    def item(self) -> bool | int | float:
        """Return the single entry as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() takes a single entry; {describe(self)} has {self.size}")
        return self._data.item()  # type: ignore[no-any-return]

    def numpy(self) -> Array:
        """Return a copy of the values as an array, cut off from the graph."""
        return np.array(self._data)

    def detach(self) -> Tensor:
        """Return a leaf that shares the data and requires no gradient."""
        return self._constant(self._data)

    def named(self, name: str) -> Tensor:
        """Set the name, which drawings and messages use, and return the tensor itself."""
        self.name = name
        return self

    def backward(self, grad: Any = None, *, retain_grad: bool = True) -> None:
        """Fill ``.grad`` of every tensor that this one was computed from and that requires grad.

        ``grad`` is the cotangent to start from, of this shape; a single number needs none.
        Leaves accumulate over calls, results are set anew; with ``retain_grad=False`` results
        get None. Raises a GradientError if nothing requires grad, a ShapeError for a ``grad`` of
        the wrong shape; after an error every ``.grad`` is what it was.

        >>> x = Tensor(-4.0, requires_grad=True)
        >>> (x.relu() + 2 * x).backward()
        >>> x.grad
        array(2.)
        """
        found: list[tuple[Tensor, Array | None]] = []
        seen: set[int] = set()
        for tensor, g in engine.backprop(self, grad):
            if tensor.op is None or retain_grad:
                if type(g) not in NUMBERS:
                    g = engine.own(g, seen)
                found.append((tensor, g))
            else:
                found.append((tensor, None))
        for tensor, g in found:
            old = tensor._grad if tensor.op is None else None
            tensor._grad = g if old is None else old + g

    # Operators -----------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return self._record(ops.add, (self, other))

    def __radd__(self, other: Any) -> Tensor:
        return self._record(ops.add, (other, self))

    def __sub__(self, other: Any) -> Tensor:
        return self._record(ops.sub, (self, other))

    def __rsub__(self, other: Any) -> Tensor:
        return self._record(ops.sub, (other, self))

    def __mul__(self, other: Any) -> Tensor:
        return self._record(ops.mul, (self, other))

    def __rmul__(self, other: Any) -> Tensor:
        return self._record(ops.mul, (other, self))

    def __truediv__(self, other: Any) -> Tensor:
        return self._record(ops.div, (self, other))

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._record(ops.div, (other, self))

    def __pow__(self, other: Any) -> Tensor:
        return self._record(ops.pow, (self, other))

    def __rpow__(self, other: Any) -> Tensor:
        return self._record(ops.pow, (other, self))

    def __matmul__(self, other: Any) -> Tensor:
        return self._record(ops.matmul, (self, other))

    def __rmatmul__(self, other: Any) -> Tensor:
        return self._record(ops.matmul, (other, self))

    def __neg__(self) -> Tensor:
        return self._record(ops.neg, (self,))

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return self._record(ops.abs, (self,))

    # Comparisons are elementwise and give plain arrays of booleans.

    def __eq__(self, other: object) -> Any:
        return self._data == _plain(other)

    def __ne__(self, other: object) -> Any:
        return self._data != _plain(other)

    def __lt__(self, other: Any) -> Any:
        return self._data < _plain(other)

    def __le__(self, other: Any) -> Any:
        return self._data <= _plain(other)

    def __gt__(self, other: Any) -> Any:
        return self._data > _plain(other)

    def __ge__(self, other: Any) -> Any:
        return self._data >= _plain(other)

    __hash__ = object.__hash__

    # Methods, as arrays have them ----------------------------------------------------------------

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Sum over ``axis``: all entries, one axis, or a tuple of axes."""
        return self._record(ops.sum, (self,), {"axis": axis, "keepdims": keepdims})

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Average over ``axis``."""
        return self._record(ops.mean, (self,), {"axis": axis, "keepdims": keepdims})

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Take the largest entry along ``axis``; ties share the gradient equally."""
        return self._record(ops.max, (self,), {"axis": axis, "keepdims": keepdims})

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Take the smallest entry along ``axis``; ties share the gradient equally."""
        return self._record(ops.min, (self,), {"axis": axis, "keepdims": keepdims})

    def var(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """Variance over ``axis``, composed of means; divides by the count minus ``ddof``."""
        return functional.var(self, axis, ddof=ddof, keepdims=keepdims)  # type: ignore[no-any-return]

    def std(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """Take the square root of `var`."""
        return functional.std(self, axis, ddof=ddof, keepdims=keepdims)  # type: ignore[no-any-return]

    def exp(self) -> Tensor:
        """Take e to the power of each entry."""
        return self._record(ops.exp, (self,))

    def log(self) -> Tensor:
        """Take the natural logarithm of each entry."""
        return self._record(ops.log, (self,))

    def sqrt(self) -> Tensor:
        """Take the square root of each entry."""
        return self._record(ops.sqrt, (self,))

    def tanh(self) -> Tensor:
        """Take the hyperbolic tangent of each entry."""
        return self._record(ops.tanh, (self,))

    def relu(self) -> Tensor:
        """Replace negative entries by 0; the derivative at 0 is 0."""
        return self._record(ops.relu, (self,))

    def sigmoid(self) -> Tensor:
        """Take ``1 / (1 + exp(-x))`` of each entry."""
        return functional.sigmoid(self)  # type: ignore[no-any-return]

    def reshape(self, *shape: Any) -> Tensor:
        """Arrange the same entries in another shape; one length may be -1."""
        new = shape[0] if len(shape) == 1 else shape
        return self._record(ops.reshape, (self,), {"shape": new})

    def transpose(self, *axes: Any) -> Tensor:
        """Reorder the axes: reverse them, or put them in the order given."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
        return self._record(ops.transpose, (self,), {"axes": order})

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self._record(ops.transpose, (self,), {"axes": None})

    def squeeze(self, axis: Axis = None) -> Tensor:
        """Remove axes of length 1."""
        return self._record(ops.squeeze, (self,), {"axis": axis})

    def astype(self, dtype: Any) -> Tensor:
        """Cast to ``dtype``; a cast to integers or booleans is a constant."""
        dtype = np.dtype(dtype)
        if dtype.kind != "f":
            return self._constant(_as_data(self._data, dtype, copy=True))
        return self._record(ops.astype, (self,), {"dtype": dtype})

    def __getitem__(self, key: Any) -> Tensor:
        return self._record(ops.index, (self,), {"key": _as_key(key)})

    def __setitem__(self, key: Any, value: Any) -> None:
        raise OperandError(
            f"{describe(self)} cannot be changed in place: the backward pass needs the old "
            "values. Build a new tensor, for instance np.where(mask, value, t)"
        )

    # Protocols -----------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self._requires_grad:
            raise OperandError(
                f"{describe(self)} requires grad, and an array cannot: turning it into one would "
                "cut it off from the graph. Use .numpy() or .detach() if that is meant, and "
                "np.stack to put Tensors together"
            )
        return np.array(self._data, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        if not self.ndim:
            raise OperandError(f"{describe(self)} has no axes, and so no length")
        return len(self._data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                f"the truth value of {describe(self)} is ambiguous; use .data.any() or .data.all()"
            )
        return bool(self._data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        values = np.array2string(np.asarray(self._data), separator=", ", prefix="Tensor(")
        notes = [values]
        if self._data.dtype not in (np.float64, np.int64, np.bool_):
            notes.append(f"dtype={self._data.dtype}")
        if self.name:
            notes.append(f"name={self.name!r}")
        if self.op is not None:
            notes.append(f"op={self.op.name}")
        elif self._requires_grad:
            notes.append("requires_grad=True")
        return f"Tensor({', '.join(notes)})"


_new = Tensor.__new__


def _as_data(data: Any, dtype: Any, copy: bool) -> Array:
    """Make ``data`` what a Tensor holds: a real array, or a NumPy scalar if it has no axes."""
    if isinstance(data, Node):
        raise OperandError(
            f"{describe(data)} is a Tensor already; use it as it is, or .detach() for a leaf"
        )
    foreign = hasattr(data, "__array_function__") and not isinstance(data, np.ndarray)
    if foreign:
        value = data if dtype is None else data.astype(dtype)
    else:
        try:
            value = np.array(data, dtype=dtype, copy=True if copy else None)
        except (TypeError, ValueError) as error:
            raise OperandError(f"Tensor({describe(data)}): {error}") from error
    if value.dtype.kind not in "biuf":
        raise OperandError(
            f"Tensor({describe(data)}): a Tensor holds booleans, integers or floats, not "
            f"{value.dtype}"
        )
    return value[()] if copy and type(value) is np.ndarray and not value.shape else value


def _as_operand(a: Any, op: ops.Op, args: Sequence[Any]) -> Any:
    """Take an operand that is no Tensor as it is if it is a real array, as an array if a list."""
    if not hasattr(a, "__array_function__"):
        if not isinstance(a, list | tuple | np.generic | float | int):
            raise explain(op.name, args, {}, TypeError(f"cannot work with {describe(a)}"))
        a = np.asarray(a)
    if a.dtype.kind not in "biuf":
        raise explain(op.name, args, {}, TypeError(f"cannot work with {describe(a)}"))
    return a


def _as_key(key: Any) -> Any:
    """Take the Tensors in an index as arrays, and a copy of its arrays: the call must not change."""
    if isinstance(key, tuple):
        return tuple(_as_key(k) for k in key)
    if isinstance(key, Node):
        return np.array(key._data)
    return np.array(key) if isinstance(key, list | np.ndarray) else key


def _plain(value: Any) -> Any:
    """Replace Tensors by their data, in nested lists, tuples and dicts too."""
    if isinstance(value, Node):
        return value._data
    if isinstance(value, list | tuple):
        return type(value)(_plain(v) for v in value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
