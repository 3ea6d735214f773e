"""The primitives: what each computes, and the calculus of each, one entry apiece.

A rule is a vector-Jacobian product, ``vjp(g, out, *args, **params)``: from the cotangent ``g`` of
the result it makes the cotangent of one argument. The words are the same everywhere: ``g``
cotangent, ``out`` result, ``x, y`` arguments; values are positional, metadata is keyword. Rules
are pure functions of plain NumPy text. Given arrays they compute; given Tensors the same text
records the backward graph. They are calculus only: summing over broadcast axes, casting to the
argument's dtype and adding up at a fan-out are the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import kernels
from .kernels import Array

Rule = Callable[..., Any]

NUMPY: dict[Any, Op] = {}  # the NumPy functions that have a rule, filled by Op


class Op:
    """A primitive: a function on arrays, and one vjp for each of its arguments.

    ``fn`` takes the values by position and its metadata, if any, by keyword; ``params`` names the
    metadata and their defaults. ``vjps[i](g, out, *args, **params)`` gives the cotangent of
    argument ``i``; None means that nothing flows to it. With ``variadic=True`` there is one
    ``vjp(i, g, out, *args, **params)`` for any number of arguments. Raises a TypeError for a vjp
    that is not a function.

    An Op works on arrays and Tensors alike. If ``fn`` is a NumPy function that has no rule yet,
    that function, called on a Tensor, is recorded as this Op:

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
        self.show(name, rf"\operatorname{{{{{name}}}}}\left({{0}}\right)")
        if isinstance(fn, np.ufunc) or getattr(fn, "__module__", None) == "numpy":
            NUMPY.setdefault(fn, self)

    def show(self, label: str, latex: str) -> None:
        """Set how the op is drawn and typeset: ``{0}``, ``{1}`` in ``latex`` are its arguments."""
        self.label, self.latex = label, latex

    def __repr__(self) -> str:
        return f"Op({self.name!r})"

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Compute on arrays; if an argument can record the call, let it."""
        for a in args:
            if hasattr(a, "_record"):
                return a._record(self, args, {**self.params, **params})
        return self.fn(*args, **params)

    def vjp(self, position: int) -> Rule | None:
        """Return the rule for the argument at ``position``."""
        if self.variadic and (rule := self.vjps[0]):
            return lambda g, out, *args, **params: rule(position, g, out, *args, **params)
        return self.vjps[position]


# Pieces that rules share -------------------------------------------------------------------------


def _kept(g: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    """Give a reduced ``g`` the axes back that it lost, with length 1."""
    leading = axis is None or axis == 0 or x.ndim == 0  # these, broadcasting puts back by itself
    return g if keepdims or leading else np.expand_dims(g, axis)


def _repeat(g: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    """Spread a reduced ``g`` over the entries of ``x`` that it was reduced from."""
    return broadcast_to(_kept(g, x, axis, keepdims), shape=x.shape)


def _extremum(g: Array, out: Array, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Share ``g`` equally among the entries that attain the extremum (NaN attains NaN)."""
    hit = (x == _kept(out, x, axis, keepdims)) | (x != x)
    ties = np.sum(hit, axis=axis, keepdims=True).astype(x.dtype)
    return np.where(hit, _kept(g, x, axis, keepdims) / ties, 0)


def _power(g: Array, out: Array, x: Array, y: Array) -> Array:
    """``y * x ** (y - 1)``, finite at ``x = 0`` where it should be: 0 * inf never occurs."""
    if not isinstance(y, int | float | np.generic):
        return g * (y * x ** np.where(y != 0, y - 1, 1))
    if y == 2:
        return g * x * 2
    return g * (y * x ** (y - 1)) if y not in (0, 1) else g * y


def _exponent(g: Array, out: Array, x: Array, y: Array) -> Array:
    """``out * log(x)``, which tends to 0 at ``x = 0`` unless ``y`` is negative."""
    return g * (out * np.log(np.where((x == 0) & (y >= 0), 1, x)))


def _swap(x: Array) -> Array:
    """Transpose each matrix in ``x``: its last two axes change places."""
    return x.T if x.ndim == 2 else np.transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _outer(x: Array, y: Array, g: Array) -> tuple[Array, Array, Array]:
    """Read a 1-d ``x`` as a row and a 1-d ``y`` as a column, and ``g`` to match."""
    if x.ndim == 1:
        x, g = np.expand_dims(x, 0), np.expand_dims(g, -1 if y.ndim == 1 else -2)
    if y.ndim == 1:
        y, g = np.expand_dims(y, 1), np.expand_dims(g, -1)
    return x, y, g


def _matmul_x(g: Array, out: Array, x: Array, y: Array) -> Array:
    _, Y, G = _outer(x, y, g)
    return G @ _swap(Y) if x.ndim > 1 else np.squeeze(G @ _swap(Y), -2)


def _matmul_y(g: Array, out: Array, x: Array, y: Array) -> Array:
    X, _, G = _outer(x, y, g)
    return _swap(X) @ G if y.ndim > 1 else np.squeeze(_swap(X) @ G, -1)


def _inverse(axes: Any) -> tuple[int, ...] | None:
    """Return the permutation that undoes ``axes``."""
    return axes and tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))


def _slice(i: int, g: Array, out: Array, *arrays: Array, axis: int = 0) -> Array:
    """Take the slice of ``g`` along ``axis`` where the i-th array went."""
    start = int(np.sum([array.shape[axis] for array in arrays[:i]]))
    part = slice(start, start + arrays[i].shape[axis])
    return g[(slice(None),) * (axis % out.ndim) + (part,)]


def _layer(i: int, g: Array, out: Array, *arrays: Array, axis: int = 0) -> Array:
    """Take the i-th layer of ``g`` along ``axis``."""
    return g[(slice(None),) * (axis % out.ndim) + (i,)]


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
neg = Op("neg", np.negative, lambda g, out, x: -g)
neg.show("−", "-{0}")

sqrt = Op("sqrt", np.sqrt, lambda g, out, x: g / (2 * out))
sqrt.show("√", r"\sqrt{{{0}}}")
exp = Op("exp", np.exp, lambda g, out, x: g * out)
exp.show("exp", "e^{{{0}}}")
log = Op("log", np.log, lambda g, out, x: g / x)
log.show("log", r"\log {0}")
tanh = Op("tanh", np.tanh, lambda g, out, x: g * (1 - out * out))
tanh.show("tanh", r"\tanh {0}")
sin = Op("sin", np.sin, lambda g, out, x: g * np.cos(x))
sin.show("sin", r"\sin {0}")
cos = Op("cos", np.cos, lambda g, out, x: -g * np.sin(x))
cos.show("cos", r"\cos {0}")
abs = Op("abs", np.absolute, lambda g, out, x: g * np.sign(x))
abs.show("|·|", r"\left|{0}\right|")
relu = Op("relu", kernels.relu, lambda g, out, x: g * (out > 0))
relu.show("relu", r"\max({0}, 0)")

maximum = Op(
    "maximum",
    np.maximum,  # where the two are equal, half to each
    lambda g, out, x, y: 0.5 * g * (x >= y) + 0.5 * g * (x > y),
    lambda g, out, x, y: 0.5 * g * (y >= x) + 0.5 * g * (y > x),
)
maximum.show("max", r"\max({0}, {1})")
minimum = Op(
    "minimum",
    np.minimum,
    lambda g, out, x, y: 0.5 * g * (x <= y) + 0.5 * g * (x < y),
    lambda g, out, x, y: 0.5 * g * (y <= x) + 0.5 * g * (y < x),
)
minimum.show("min", r"\min({0}, {1})")
where = Op(
    "where",
    np.where,
    None,
    lambda g, out, c, x, y: np.where(c, g, 0),
    lambda g, out, c, x, y: np.where(c, 0, g),
)
where.show("where", r"\begin{{cases}} {1} & {0} \\ {2} & \text{{else}} \end{{cases}}")
matmul = Op("matmul", np.matmul, _matmul_x, _matmul_y)
matmul.show("@", "{0} {1}")

_REDUCED = {"axis": None, "keepdims": False}
sum = Op("sum", np.sum, lambda g, out, x, **how: _repeat(g, x, **how), params=_REDUCED)
sum.show("Σ", r"\sum {0}")
mean = Op(
    "mean",
    np.mean,
    lambda g, out, x, **how: _repeat(g / kernels.count(x, how["axis"]), x, **how),
    params=_REDUCED,
)
mean.show("mean", r"\operatorname{{mean}} {0}")
max = Op("max", np.max, _extremum, params=_REDUCED)
max.show("max", r"\max {0}")
min = Op("min", np.min, _extremum, params=_REDUCED)
min.show("min", r"\min {0}")

# Moving values about. The linear ones come in pairs, each the transpose of the other.

reshape = Op(
    "reshape",
    np.reshape,
    lambda g, out, x, shape: np.reshape(g, x.shape),
    params={"shape": None},
)
reshape.show("reshape", "{0}")
transpose = Op(
    "transpose",
    np.transpose,
    lambda g, out, x, axes: np.transpose(g, _inverse(axes)),
    params={"axes": None},
)
transpose.show("ᵀ", "{{{0}}}^T")
squeeze = Op(
    "squeeze",
    np.squeeze,
    lambda g, out, x, axis: np.reshape(g, x.shape),
    params={"axis": None},
)
expand_dims = Op(
    "expand_dims",
    np.expand_dims,
    lambda g, out, x, axis: np.reshape(g, x.shape),
    params={"axis": None},
)
broadcast_to = Op(
    "broadcast_to",
    np.broadcast_to,
    lambda g, out, x, shape: g,  # the engine sums it to the shape of x
    params={"shape": None},
)
broadcast_to.show("repeat", "{0}")
sum_to = Op(
    "sum_to",
    kernels.sum_to,
    lambda g, out, x, shape: broadcast_to(g, shape=x.shape),
    params={"shape": None},
)
sum_to.show("Σ broadcast", r"\sum {0}")
index = Op(
    "index",
    kernels.take,
    lambda g, out, x, key: scatter(g, key=key, shape=x.shape),
    params={"key": None},
)
index.show("[ ]", "{{{0}}}_i")
scatter = Op(
    "scatter",
    kernels.scatter,
    lambda g, out, x, key, shape: index(g, key=key),
    params={"key": None, "shape": None},
)
concatenate = Op("concatenate", kernels.concatenate, _slice, params={"axis": 0}, variadic=True)
stack = Op("stack", kernels.stack, _layer, params={"axis": 0}, variadic=True)
astype = Op("astype", kernels.astype, lambda g, out, x, dtype: g, params={"dtype": None})
astype.show("astype", "{0}")
NUMPY |= {np.concatenate: concatenate, np.stack: stack, np.amax: max, np.amin: min}
