"""Tensor: an array that remembers the call that made it.

A Tensor behaves like a NumPy array: operators, methods, and NumPy's own functions. Whichever of
these it meets, the call is recorded in one place, `_record`, as ``(op, inputs, params)``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import kernels, ops, statistics, sweep
from .context import state
from .dispatch import NumpyProtocols, as_data, as_key, as_operand, like
from .errors import explain, refused
from .kernels import Array, Axis
from .node import NUMBERS, Node, clock
from .ops import Op

_new = object.__new__
_NOTHING: dict[str, Any] = {}
_PLAIN = NUMBERS | {float, int, bool}  # types of operands that need no second look


def _record(op: Op, args: tuple[Any, ...], params: dict[str, Any] = _NOTHING) -> Tensor:
    """Compute ``op(*args, **params)`` on the values of ``args``, as a Tensor."""
    requires_grad = False
    values: list[Any] = []
    for a in args:
        if isinstance(a, Tensor):
            requires_grad = requires_grad or a._requires_grad
            a = a._data
        elif type(a) not in _PLAIN:
            given, a = a, as_operand(a, op, args)
            if a is not given:
                args = (*args[: len(values)], a, *args[len(values) + 1 :])
        values.append(a)
    try:
        data = op.kernel(*values, **params) if params else op.kernel(*values)
    except (TypeError, ValueError, IndexError) as error:
        raise explain(op.name, args, params, error) from error
    return _result(data, requires_grad, op, args, values, params)


def _result(
    data: Array, requires_grad: bool, op: Op, args: Any, values: Any, params: Any
) -> Tensor:
    """Wrap what a call has computed, and remember the call if it is to be differentiated."""
    out = _new(Tensor)
    out._data = data
    out._grad = out.name = None
    recording, out.scope, _ = state.get()
    out.time = next(clock)
    if requires_grad and recording is True:
        out._requires_grad = True
        out.op, out.inputs = op, args
        out.values, out.params = values, params
    else:
        out._requires_grad, out.op, out.inputs, out.values = False, None, (), ()
        out.params = _NOTHING
        if recording and recording is not True:
            recording.record(out, op, args, values, params, requires_grad)
    return out


def _binary(op: Op) -> Any:
    """Return the operator, and the one that Python calls when the Tensor is on the right."""
    kernel = op.kernel

    def forward(x: Tensor, y: Any) -> Tensor:  # what _record does, for two operands
        requires_grad, value = x._requires_grad, y
        if type(y) not in _PLAIN:
            if not isinstance(y, Tensor):
                return _record(op, (x, y))
            requires_grad, value = requires_grad or y._requires_grad, y._data
        try:
            data = kernel(x._data, value)
        except (TypeError, ValueError):
            return _record(op, (x, y))  # which says what is wrong
        return _result(data, requires_grad, op, (x, y), (x._data, value), _NOTHING)

    return forward, lambda x, y: _record(op, (y, x))


def _unary(op: Op) -> Any:
    return _named(lambda x: _record(op, (x,)), op.name, f"`numpy.{op.name}` of each entry.")


def _reduction(op: Op, doc: str) -> Any:
    def reduce(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return _record(op, (x,), {"axis": axis, "keepdims": keepdims})

    return _named(reduce, op.name, f"{doc}, over ``axis``: None (all), an int or a tuple.")


def _named(function: Any, name: str, doc: str) -> Any:
    function.__name__, function.__qualname__, function.__doc__ = name, f"Tensor.{name}", doc
    return function


class Tensor(NumpyProtocols, Node):
    """An array, differentiable with respect to what it was computed from.

    ``data`` is anything that `numpy.array` takes and that is boolean, integer or floating; it is
    copied unless ``copy=False``; arrays of other libraries that speak NumPy's protocols stay what
    they are. Integers with ``requires_grad=True`` become float64. Do not write into an array that
    a computation has used: its backward pass needs the old values, and cannot notice. A Tensor,
    complex, string or object data raise an OperandError (a TypeError).

    >>> x = Tensor([[7.0, 70.0], [8.0, 80.0]], requires_grad=True, name="x")
    >>> y = (x**2).sum()
    >>> y.backward()
    >>> y.item(), x.grad
    (11413.0, array([[ 14., 140.],
           [ 16., 160.]]))
    """

    __slots__ = ("__weakref__",)
    kind = "input"  # how a leaf of this class is drawn
    _record = staticmethod(_record)

    def __init__(
        self,
        data: Any,
        *,
        requires_grad: bool = False,
        dtype: Any = None,
        name: str | None = None,
        copy: bool = True,
    ) -> None:
        value = as_data(data, dtype, copy)
        if requires_grad and value.dtype.kind != "f":
            value = value.astype(np.float64)
        self._data, self._grad, self._requires_grad = value, None, bool(requires_grad)
        self.op, self.inputs, self.values, self.params = None, (), (), {}
        self.scope, self.name, self.time = state.get()[1], name, next(clock)

    def _constant(self, value: Array, requires_grad: bool = False) -> Tensor:
        return Tensor(value, requires_grad=requires_grad, copy=False)

    shape = property(operator.attrgetter("_data.shape"), doc="The length of each axis.")
    ndim = property(operator.attrgetter("_data.ndim"), doc="The number of axes.")
    size = property(operator.attrgetter("_data.size"), doc="The number of entries.")
    dtype = property(operator.attrgetter("_data.dtype"), doc="The type of the entries.")

    @property
    def data(self) -> Array:
        """The values; a leaf may be given others of its shape, and keeps its dtype."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        if self.op is not None and self._requires_grad:
            raise refused(self, "new data")
        self._hold(like(self, value, value is not self._data, "data"))

    @property
    def grad(self) -> Array | None:
        """The gradient that `backward` left here: an array, or None."""
        if type(self._grad) in NUMBERS:
            self._grad = np.array(self._grad)
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        self._grad = None if value is None else like(self, value, True, "gradient")

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow back to it; can be set on leaves."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        if (self.op is not None and self._requires_grad) or (on and self.dtype.kind != "f"):
            raise refused(self, "requires_grad" if self._requires_grad else "integers")
        self._become_leaf()
        self._requires_grad = bool(on)

    def item(self) -> bool | int | float:
        """Return the single entry as a Python number."""
        if self.size != 1:
            raise refused(self, "item")
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

        ``grad`` is the cotangent to start from, of this shape; a single number needs none. Leaves
        accumulate over calls; results are set anew, to None with ``retain_grad=False``. Raises a
        GradientError if nothing requires grad, a ShapeError for a ``grad`` of the wrong shape;
        after an error every ``.grad`` is what it was.

        >>> x = Tensor(-4.0, requires_grad=True)
        >>> (x.relu() + 2 * x).backward()
        >>> x.grad
        array(2.)
        """
        seen: set[int] = set()
        for tensor, g in sweep.cotangents(self, grad, retain_grad).items():
            if type(g) not in NUMBERS and g is not None:
                g = kernels.own(g, seen)
            if tensor.op is None and tensor._grad is not None:
                g = tensor._grad + g
            tensor._grad = g

    # Operators and methods, as arrays have them --------------------------------------------------

    __add__, __radd__ = _binary(ops.add)
    __sub__, __rsub__ = _binary(ops.sub)
    __mul__, __rmul__ = _binary(ops.mul)
    __truediv__, __rtruediv__ = _binary(ops.div)
    __pow__, __rpow__ = _binary(ops.pow)
    __matmul__, __rmatmul__ = _binary(ops.matmul)
    __neg__ = _unary(ops.neg)
    __abs__ = _unary(ops.abs)

    sum = _reduction(ops.sum, "Sum")
    mean = _reduction(ops.mean, "Average")
    max = _reduction(ops.max, "Take the largest entry (ties share the gradient)")
    min = _reduction(ops.min, "Take the smallest entry (ties share the gradient)")
    var, std = statistics.var, statistics.std
    exp = _unary(ops.exp)
    log = _unary(ops.log)
    sqrt = _unary(ops.sqrt)
    tanh = _unary(ops.tanh)
    relu = _unary(ops.relu)
    clip = _named(lambda x, min=None, max=None: np.clip(x, min, max), "clip", "Bound each entry.")
    ravel = flatten = _named(lambda x: x.reshape(-1), "ravel", "All entries along one axis.")
    swapaxes = _named(lambda x, i, j: np.swapaxes(x, i, j), "swapaxes", "Exchange two axes.")
    T = property(lambda self: self.transpose(), doc="The axes in reverse order.")

    def reshape(self, *shape: Any) -> Tensor:
        """Arrange the same entries in another shape; one length may be -1."""
        return _record(ops.reshape, (self,), {"shape": shape[0] if len(shape) == 1 else shape})

    def transpose(self, *axes: Any) -> Tensor:
        """Reorder the axes: reverse them, or put them in the order given."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
        return _record(ops.transpose, (self,), {"axes": order})

    def squeeze(self, axis: Axis = None) -> Tensor:
        """Remove axes of length 1."""
        return _record(ops.squeeze, (self,), {"axis": axis})

    def astype(self, dtype: Any) -> Tensor:
        """Cast to ``dtype``; a cast to integers or booleans is a constant."""
        dtype = np.dtype(dtype)
        if dtype.kind != "f":
            return self._constant(as_data(self._data, dtype, copy=True))
        return _record(ops.astype, (self,), {"dtype": dtype})

    def __pos__(self) -> Tensor:
        return self

    def __getitem__(self, key: Any) -> Tensor:
        return _record(ops.index, (self,), {"key": as_key(key)})

    def __setitem__(self, key: Any, value: Any) -> None:
        raise refused(self, "assignment")

    def __len__(self) -> int:
        if not self.ndim:
            raise refused(self, "length")
        return len(self._data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise refused(self, "truth")
        return bool(self._data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        text = np.array2string(np.asarray(self._data), separator=", ", prefix="Tensor(")
        text += f", dtype={self.dtype}" * (self.dtype not in (float, int, bool))
        text += f", name={self.name!r}" if self.name else ""
        made = f", op={self.op.name}" if self.op else ", requires_grad=True" * self._requires_grad
        return f"Tensor({text}{made})"
