"""The primitives: what each computes, and the calculus of each, one entry apiece.

A rule is a vector-Jacobian product, ``vjp(g, out, *args, **params)``: from the cotangent ``g`` of
the result it makes the cotangent of one argument. The words are the same everywhere: ``g``
cotangent, ``out`` result, ``x, y`` arguments; values are positional, metadata is keyword. Rules
are pure functions in plain NumPy code. Given arrays they compute; given Tensors the same text
records the backward graph. They are calculus only: summing over broadcast axes, casting to the
argument's dtype and adding up at a fan-out are the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import cody, kernels, subscripts
from .kernels import Array

Rule = Callable[..., Any]
NUMPY: dict[Any, Op] = {}  # the NumPy functions that have a rule, filled by Op


class Op:
    """A primitive: a function on arrays, and one vjp for each of its arguments.

    ``fn`` takes the values by position and its metadata, if any, by keyword; ``params`` names the
    metadata and their defaults. ``vjps[i](g, out, *args, **params)`` gives the cotangent of
    argument ``i``; None means that nothing flows to it. With ``variadic=True`` there is one
    ``vjp(i, g, out, *args, **params)`` for any number. Raises a TypeError if one is no function.

    An Op works on arrays and Tensors alike. A NumPy function that had no rule is from now on
    recorded as this Op:

    >>> import numpy as np, microbn as mb
    >>> cbrt = mb.ops.Op("cbrt", np.cbrt, lambda g, out, x: g / (3 * out * out))
    >>> x = mb.Tensor(8.0, requires_grad=True)
    >>> np.cbrt(x).backward()
    >>> x.grad
    array(0.08333333)
    """

    __slots__ = ("fn", "kernel", "label", "latex", "name", "params", "variadic", "vjps")

    def __init__(
        self,
        name: str,
        fn: Callable[..., Array],
        *vjps: Rule | None,
        params: dict[str, Any] | None = None,
        variadic: bool = False,
    ) -> None:
        if not vjps or not all(vjp is None or callable(vjp) for vjp in vjps):
            raise TypeError(f"Op {name!r} needs a vjp for each argument: a function, or None")
        self.name, self.fn, self.vjps = name, fn, vjps
        self.params, self.variadic = params or {}, variadic
        self.kernel = kernels.FASTER.get(fn, fn)
        self.show(name, r"\operatorname{{" + name.replace("_", r"\_") + r"}}\left({0}\right)")
        if isinstance(fn, np.ufunc) or getattr(fn, "__module__", None) == "numpy":
            NUMPY.setdefault(fn, self)

    def show(self, label: str, latex: str) -> Op:
        """Set how it is drawn and typeset: ``{0}``, ``{1}`` in ``latex`` are its arguments."""
        self.label, self.latex = label, latex
        return self

    def __repr__(self) -> str:
        return f"Op({self.name!r})"

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Compute on arrays; if an argument can record the call, let it."""
        params = {**self.params, **params}
        for a in args:
            if hasattr(a, "_record"):
                return a._record(self, args, params)
        return self.kernel(*args, **params)


# Helpers of the rules in the table below ---------------------------------------------------------


def _kept(g: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    """Give a reduced ``g`` the axes back that it lost, with length 1."""
    leading = axis is None or axis == 0 or x.ndim == 0  # these, broadcasting puts back by itself
    return g if keepdims or leading else np.expand_dims(g, axis)


def _repeat(g: Array, out: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    return broadcast_to(_kept(g, x, axis, keepdims), shape=x.shape)


def _repeat_mean(g: Array, out: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    return _repeat(g / kernels.count(x, axis), out, x, axis, keepdims)


def _extremum(g: Array, out: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    """Share ``g`` equally among the entries that attain the extremum (NaN attains NaN)."""
    hit = (x == _kept(out, x, axis, keepdims)) | (x != x)
    ties = np.sum(hit, axis=axis, keepdims=True).astype(x.dtype)
    return np.where(hit, _kept(g, x, axis, keepdims) / ties, 0)


def _won(g: Array, out: Array, x: Array, y: Array) -> Array:
    """Give ``g`` to ``x`` where it is the larger or smaller of the two, half where they tie."""
    return np.where(x == y, 0.5 * g, g * ((x == out) | (x != x)))


def _power(g: Array, out: Array, x: Array, y: Array) -> Array:
    """``y * x ** (y - 1)``, finite at ``x = 0`` where it should be: 0 * inf never occurs."""
    if not isinstance(y, (int, float, np.number)):  # faster than with |
        return g * (y * x ** np.where((x == 0) & (y == 0), 1, y - 1))
    if y == 2:
        dx = g * x
        dx *= 2  # in the same memory, if it is an array
        return dx
    return g * y if y in (0, 1) else g * (y * x ** (y - 1))


def _exponent(g: Array, out: Array, x: Array, y: Array) -> Array:
    """``out * log(x)``, which tends to 0 at ``x = 0`` unless ``y`` is negative."""
    return g * (out * np.log(np.where((x == 0) & (y >= 0), 1, x)))


def _matmul(position: int, g: Array, x: Array, y: Array) -> Array:
    """``g @ y.T`` or ``x.T @ g``, a 1-d ``x`` read as a row and a 1-d ``y`` as a column."""
    if y.ndim == 1:
        y, g = np.expand_dims(y, 1), np.expand_dims(g, -1)
        return _matmul(position, g, x, y) if position == 0 else _matmul(1, g, x, y)[..., 0]
    if x.ndim == 1:
        x, g = np.expand_dims(x, 0), np.expand_dims(g, -2)
        return _matmul(position, g, x, y) if position == 1 else _matmul(0, g, x, y)[..., 0, :]
    if position == 0:
        return g @ _swap(y)
    return _swap(_swap(g) @ x) if kernels.is_transposed(y) else _swap(x) @ g


def _swap(x: Array) -> Array:
    """Transpose each matrix in ``x``: its last two axes change places."""
    return x.T if x.ndim == 2 else np.transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _transpose_back(g: Array, out: Array, x: Array, axes: Any) -> Array:
    return np.transpose(g, axes and sorted(range(x.ndim), key=lambda i: axes[i] % x.ndim))


def _part(i: int, g: Array, out: Array, *arrays: Array, axis: Any) -> Array:
    """Take the part of ``g`` along ``axis`` where the i-th array went; without, they lay flat."""
    lengths = [x.size if axis is None else x.shape[axis] for x in arrays]
    start = int(np.sum(lengths[:i]))
    part = _along(g, axis or 0, slice(start, start + lengths[i]))
    return part if axis is not None else np.reshape(part, arrays[i].shape)


def _along(g: Array, axis: int, key: Any) -> Array:
    return g[(slice(None),) * (axis % g.ndim) + (key,)]


def _share(g: Array, out: Array, x: Array, y: Array) -> Array:
    """``exp(x) / (exp(x) + exp(y))``, which does not overflow; half where both are infinite."""
    same = (x == y) & np.isinf(x)
    return g * np.exp(-np.logaddexp(0, np.where(same, 0, y) - np.where(same, 0, x)))


def _unpad(g: Array, out: Array, x: Array, pad_width: Any, constant_values: Any) -> Array:
    before = np.broadcast_to(pad_width, (x.ndim, 2))[:, 0].tolist()
    return g[tuple(slice(b, b + n) for b, n in zip(before, x.shape, strict=True))]


def _einsum(i: int, g: Array, out: Array, *arrays: Array, **how: Any) -> Array:
    """Let ``g`` and the i-th array change places."""
    back, constants = subscripts.transposed(how["subscripts"], i, arrays, g)
    others = *arrays[:i], *arrays[i + 1 :], *(c.astype(g.dtype) for c in constants)
    return einsum(g, *others, **how | {"subscripts": back})


_true = lambda g, out, condition, x, y: np.where(condition, g, 0)
_false = lambda g, out, condition, x, y: np.where(condition, 0, g)
_reshape_back = lambda g, out, x, **how: np.reshape(g, x.shape)
_matmul_x = lambda g, out, x, y: _matmul(0, g, x, y)
_matmul_y = lambda g, out, x, y: _matmul(1, g, x, y)
_broadcast_back = lambda g, out, x, shape: broadcast_to(g, shape=x.shape)
_fold_back = lambda g, out, x, size, **steps: fold(g, shape=x.shape[-2:], **steps)
_windows_back = lambda g, out, x, shape, **steps: windows(g, size=x.shape[-2:], **steps)
_layer = lambda i, g, out, *arrays, axis: _along(g, axis, i)

# The table ---------------------------------------------------------------------------------------
# An entry is an op and, below it, how it is shown. Some names shadow builtins (sum, pow, max, min,
# abs): reach them as ops.sum.

add = Op("add", np.add, lambda g, out, x, y: g, lambda g, out, x, y: g)
add.show("+", "{0} + {1}")
sub = Op("sub", np.subtract, lambda g, out, x, y: g, lambda g, out, x, y: -g)
sub.show("−", "{0} - {1}")
mul = Op("mul", np.multiply, lambda g, out, x, y: g * y, lambda g, out, x, y: g * x)
mul.show("×", r"{0} \cdot {1}")
div = Op("div", np.divide, lambda g, out, x, y: g / y, lambda g, out, x, y: -g * out / y)
div.show("÷", r"\frac{{{0}}}{{{1}}}")
pow = Op("pow", np.power, _power, _exponent)
pow.show("**", "{{{0}}}^{{{1}}}")
neg = Op("neg", np.negative, lambda g, out, x: -g).show("−", "-{0}")

sqrt = Op("sqrt", np.sqrt, lambda g, out, x: g / (2 * out)).show("√", r"\sqrt{{{0}}}")
exp = Op("exp", np.exp, lambda g, out, x: g * out).show("exp", "e^{{{0}}}")
log = Op("log", np.log, lambda g, out, x: g / x).show("log", r"\log {0}")
log1p = Op("log1p", np.log1p, lambda g, out, x: g / (1 + x)).show("log1p", r"\log(1 + {0})")
tanh = Op("tanh", np.tanh, lambda g, out, x: g * (1 - out * out)).show("tanh", r"\tanh {0}")
sin = Op("sin", np.sin, lambda g, out, x: g * np.cos(x)).show("sin", r"\sin {0}")
cos = Op("cos", np.cos, lambda g, out, x: -g * np.sin(x)).show("cos", r"\cos {0}")
abs = Op("abs", np.absolute, lambda g, out, x: g * np.sign(x)).show("|·|", r"\left|{0}\right|")
relu = Op("relu", kernels.relu, lambda g, out, x: g * ~(out <= 0)).show("relu", r"\max({0}, 0)")
_CLIP = {"min": None, "max": None}
clip = Op("clip", kernels.clip, lambda g, out, x, **_: g * ((x == out) | (x != x)), params=_CLIP)
erf = Op("erf", cody.erf, lambda g, out, x: g * (cody.SLOPE_AT_0 * np.exp(-x * x)))

maximum = Op("maximum", np.maximum, _won, lambda g, out, x, y: _won(g, out, y, x))
maximum.show("max", r"\max({0}, {1})")
minimum = Op("minimum", np.minimum, _won, lambda g, out, x, y: _won(g, out, y, x))
minimum.show("min", r"\min({0}, {1})")
logaddexp = Op("logaddexp", np.logaddexp, _share, lambda g, out, x, y: _share(g, out, y, x))
logaddexp.show("logaddexp", r"\log(e^{{{0}}} + e^{{{1}}})")
where = Op("where", np.where, None, _true, _false)
where.show("where", r"\begin{{cases}} {1} & {0} \\ {2} & \text{{else}} \end{{cases}}")
matmul = Op("matmul", np.matmul, _matmul_x, _matmul_y).show("@", "{0} {1}")
_EINSUM = {"subscripts": None, "optimize": False}
einsum: Op = Op("einsum", subscripts.einsum, _einsum, params=_EINSUM, variadic=True)

_REDUCED: dict[str, Any] = {"axis": None, "keepdims": False}
sum = Op("sum", np.sum, _repeat, params=_REDUCED).show("Σ", r"\sum {0}")
mean = Op("mean", np.mean, _repeat_mean, params=_REDUCED)
mean.show("mean", r"\operatorname{{mean}} {0}")
max = Op("max", np.max, _extremum, params=_REDUCED).show("max", r"\max {0}")
min = Op("min", np.min, _extremum, params=_REDUCED).show("min", r"\min {0}")

# Moving values about, each with its transpose (broadcast_to and sum_to, index and scatter,
# windows and fold).

reshape = Op("reshape", np.reshape, _reshape_back, params={"shape": None}).show("reshape", "{0}")
squeeze = Op("squeeze", np.squeeze, _reshape_back, params={"axis": None})
expand_dims = Op("expand_dims", np.expand_dims, _reshape_back, params={"axis": None})
transpose = Op("transpose", np.transpose, _transpose_back, params={"axes": None})
transpose.show("ᵀ", "{{{0}}}^T")
_swapped = lambda g, out, x, axis1, axis2: np.swapaxes(g, axis1, axis2)
swapaxes = Op("swapaxes", np.swapaxes, _swapped, params={"axis1": None, "axis2": None})
_SHAPE, _KEY = {"shape": None}, {"key": None}
broadcast_to: Op = Op(
    "broadcast_to", kernels.broadcast_to, lambda g, out, x, shape: g, params=_SHAPE
)
broadcast_to.show("repeat", "{0}")  # its transpose, the sum, is what the engine does to every g
sum_to = Op("sum_to", kernels.sum_to, _broadcast_back, params=_SHAPE)
sum_to.show("Σ", r"\sum {0}")
index = Op(
    "index", kernels.take, lambda g, out, x, key: scatter(g, key=key, shape=x.shape), params=_KEY
)
index.show("[ ]", "{{{0}}}_i")
scatter: Op = Op(
    "scatter", kernels.scatter, lambda g, out, x, key, shape: g[key], params=_KEY | _SHAPE
)
scatter.show("scatter", r"\operatorname{{scatter}} {0}")
_STEPS = {"stride": (1, 1), "dilation": (1, 1)}
windows: Op = Op("windows", kernels.windows, _fold_back, params={"size": None} | _STEPS)
fold: Op = Op("fold", kernels.fold, _windows_back, params=_SHAPE | _STEPS)
pad = Op("pad", kernels.pad, _unpad, params={"pad_width": None, "constant_values": 0})
concatenate = Op("concatenate", kernels.concatenate, _part, params={"axis": 0}, variadic=True)
stack = Op("stack", kernels.stack, _layer, params={"axis": 0}, variadic=True)
astype = Op("astype", kernels.astype, lambda g, out, x, dtype: g, params={"dtype": None})
astype.show("cast", "{0}")
NUMPY |= {np.concatenate: concatenate, np.stack: stack, np.broadcast_to: broadcast_to}
NUMPY |= {np.amax: max, np.amin: min}
