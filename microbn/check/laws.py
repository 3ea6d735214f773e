"""Laws that every right backward pass of a normalisation obeys: checks that need no reference.

They use x, the cotangent dy, and statistics of x in float64; no other gradient, no differences.
What is allowed follows from rounding. Adding up n terms, in any order, costs at most n/2 * eps
times the sum of their sizes (Higham 2002, "Accuracy and Stability of Numerical Algorithms", 4.2).
A pass adds up at most four times in a row: for mean, variance, d variance, d mean. With eight
roundings around each, and as much again for what is computed here, this makes 4 * (n + 8) * eps,
times the sizes that `_Norm.bounds` puts together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np

from .. import errors
from ..apart import apart
from ..kernels import Array, Axis, sum_to

GROUP, LOSS = "group_norm", "softmax_cross_entropy"
AXIS = {"batch_norm": 0, "layer_norm": -1, "rms_norm": -1, GROUP: 1}
WIDTH = 100  # of the table
A, B = 2.0, -3.0  # of a combination of two cotangents: with any sum but 1
SALT = 1510  # so that dy is not the very x that somebody drew from default_rng(seed)
WEAK = 0.01  # a factor that is closer to 1 need not be seen
BLIND = """a factor on the part of dx that is orthogonal to 1 and x_hat in each group, nor that
another function was meant (batch statistics in place of running ones)"""
HINT = """Hint: eps = {:g} is so small against the variance that the law with eps hardly sees a
factor on all of dx, be it 0. Test with eps about 0.5 and x of variance about 1: the laws of sums
then reject 71 of 72 single faults; with eps = 1e-05 in float32, or at a tolerance of 1e-3, 55."""


class Row(NamedTuple):
    """A law, and the place where the deviation is largest compared to what is allowed there."""

    law: str
    holds: bool
    where: str = ""
    deviation: float = np.nan
    allowed: float = np.nan


class Laws(NamedTuple):
    """What `laws` found: true if every law holds. ``str`` makes a table of it."""

    rows: tuple[Row, ...]
    blind: str  # what no law sees
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether every law holds."""
        return all(row.holds for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        table = [("law", "holds", "worst at", "deviation", "allowed")]
        for law, holds, where, *sizes in self.rows:
            deviation, allowed = ("-" if np.isnan(n) else f"{n:.2g}" for n in sizes)
            table.append((law, "yes" if holds else "NO", where, deviation, allowed))
        a, b, c, d, e = (max(map(len, column)) for column in zip(*table, strict=True))
        c = min(c, WIDTH - a - b - d - e - 8)
        lines = [f"{r[0]:{a}}  {r[1]:{b}}  {r[2][:c]:{c}}  {r[3]:>{d}}  {r[4]:>{e}}" for r in table]
        said = f"Necessary, not sufficient: no law sees {self.blind}."
        return "\n".join([*lines, *wrap(said, WIDTH), *wrap(self.hint, WIDTH)])


@apart()
def laws(
    hand_backward: Callable[..., Any],
    *inputs: Array,
    kind: str = "batch_norm",
    axis: Axis = None,
    eps: float = 1e-5,
    groups: int | None = None,
    seed: int = 0,
) -> Laws:
    """Check laws that any backward pass of this kind of normalisation obeys.

    ``hand_backward(dy, *inputs)`` returns a tuple: one gradient for each floating input, of its
    shape and dtype; else a law is broken. It is called at random dy and moved inputs; ``eps`` is
    what it uses. The inputs are x, and perhaps gamma and beta, of a ``batch_norm`` (axis 0),
    ``layer_norm``, ``rms_norm`` (axis -1) or ``group_norm`` (``groups`` of channels, on axis 1).
    A gamma of one axis belongs to the channels of a group norm, or to the axis that a batch norm
    keeps; else it broadcasts as in NumPy. For ``softmax_cross_entropy`` they are logits and
    targets, and dy is a number. Raises a ShapeError (a ValueError) for an unknown kind and for
    inputs that do not fit it, an OperandError (a TypeError) for inputs that are not floating.

    >>> def forgets_the_mean(dy, x):
    ...     inv_std = (x.var(axis=0) + 0.5) ** -0.5
    ...     x_hat = (x - x.mean(axis=0)) * inv_std
    ...     return ((dy - x_hat * (dy * x_hat).mean(axis=0)) * inv_std,)
    >>> found = laws(forgets_the_mean, np.array([[1.0, 4.0], [2.0, -1.0], [4.0, 0.5]]), eps=0.5)
    >>> found.ok, [row.law for row in found.rows if not row.holds]
    (False, ['sum dx = 0'])
    """
    _check_inputs(kind, inputs, axis, groups)
    rng, case = np.random.default_rng((seed, SALT)), _Case(hand_backward, inputs)
    try:
        if kind == LOSS:
            return Laws(
                tuple(_loss(case, rng)),
                "a positive factor on dlogits, or 0, nor a wrong temperature",
            )
        norm = _Norm(case, kind, axis, errors.check_eps(kind, eps), groups or 0)
        return Laws(tuple(norm.rows(rng)), BLIND, norm.hint)
    except _NoGradientsError as broken:
        return Laws((Row("shape", False, str(broken)),), "more than the shape of such a result")


def _check_inputs(kind: str, inputs: Sequence[Array], axis: Axis, groups: int | None) -> None:
    """Refuse inputs that are not those of this kind."""
    sort: type[Exception] = errors.ShapeError
    floating, least = inputs[: 1 if kind == LOSS else None], 1 + (kind in ("batch_norm", GROUP))
    if kind not in (*AXIS, LOSS):
        why = f"kind must be one of {', '.join((*AXIS, LOSS))}"
    elif not (len(inputs) == 2 if kind == LOSS else 1 <= len(inputs) <= 3):
        why = f"give {'logits, targets' if kind == LOSS else 'x; x, gamma; or x, gamma, beta'}"
    elif not all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in floating):
        sort, why = errors.OperandError, "the inputs must be floating arrays; use .astype(float)"
    elif not all(np.isfinite(a).all() for a in floating):
        why = "the inputs must be finite; look for inf and NaN"
    elif kind != LOSS and inputs[0].ndim < least:
        why = f"x must have {least} axes or more; use x.reshape"
    elif (kind == GROUP) != (groups is not None) or (kind in (GROUP, LOSS) and axis is not None):
        why = f"axis={axis}, groups={groups}: {GROUP} needs groups, {LOSS} neither, others axis"
    elif groups is not None and (groups < 1 or inputs[0].shape[1] % groups):
        why = f"groups={groups} must divide the {inputs[0].shape[1]} channels"
    else:
        return
    raise sort(f"laws({', '.join(map(errors.describe, inputs))}, kind={kind!r}): {why}")


class _NoGradientsError(Exception):
    """What was returned is not one gradient for each input; says what it is."""


class _Case:
    """A backward pass, its inputs and their roundoff; the laws of any backward pass."""

    def __init__(self, hand_backward: Callable[..., Any], inputs: Sequence[Array]) -> None:
        self.hand_backward, self.inputs, self.changed = hand_backward, inputs, set[str]()
        self.floating = [a for a in inputs if np.asarray(a).dtype.kind == "f"]
        self.names = ("x", "gamma", "beta") if len(inputs) == len(self.floating) else ("logits",)
        infos = [np.finfo(dtype) for dtype in (float, *(a.dtype for a in self.floating))]
        self.eps = max(float(info.eps) for info in infos)
        self.tiny = max(float(info.tiny) for info in infos)

    def call(self, dy: Any, *inputs: Array) -> list[Array]:
        """Return the gradients in float64; note which arguments have changed."""
        given = [np.array(a) if isinstance(a, np.ndarray) else a for a in (dy, *inputs)]
        found, wanted = self.hand_backward(*given), self.floating
        if isinstance(found, tuple) and len(found) == len(inputs) > len(wanted):
            found = tuple(g for g in found if g is not None)  # of what is not floating
        every = zip(("dy", *self.names, "targets"), given, (dy, *inputs), strict=False)
        self.changed |= {name for name, a, b in every if not np.array_equal(a, b)}
        if not isinstance(found, tuple) or len(found) != len(wanted):
            what = f"{len(found)} in a tuple" if isinstance(found, tuple) else type(found).__name__
            raise _NoGradientsError(f"{what}, not a tuple of {len(wanted)}")
        for name, g, a in zip(self.names, found, wanted, strict=False):
            if (np.shape(g), getattr(g, "dtype", None)) != (a.shape, a.dtype):
                raise _NoGradientsError(f"d{name}: {errors.describe(g)}, not {a.shape} {a.dtype}")
        return [np.array(g, np.float64) for g in found]

    def general(self, dy: Any, other: Any, got: list[Array], bounds: Any) -> Iterator[Row]:
        """The laws of any backward pass, which has returned ``got`` for ``dy``."""
        again, second = (self.call(d, *self.inputs) for d in (dy, other))
        both = self.call(A * dy + B * other, *self.inputs)
        parts = [A * g + B * h for g, h in zip(got, second, strict=True)]
        yield self.equal("linear in dy", both, parts, bounds(abs(A * dy) + abs(B * other)))
        yield self.equal("the same when called again", again, got, bounds(abs(dy)))
        law, names = "dy and the inputs are left as they were", sorted(self.changed)
        yield Row(law, not names, ", ".join(names))

    def equal(self, law: str, got: Any, want: Any, bounds: Any) -> Row:
        """Compare the gradients of two calls, each of which rounds; the row is of the worst."""
        every = zip(self.names, got, want, bounds, strict=False)
        rows = [self.row(law, f"d{name}", abs(a - b), 2 * bound) for name, a, b, bound in every]
        return max(rows, key=lambda row: (not row.holds, row.deviation / row.allowed))

    def row(self, law: str, name: str, deviation: Array, allowed: Array) -> Row:
        """Find the entry that deviates most, compared to what is allowed."""
        allowed = allowed + self.tiny
        ratio = np.asarray(deviation / allowed)
        i = np.unravel_index(np.argmax(ratio), ratio.shape)  # NaN comes first
        where = f"{name}[{','.join(map(str, i))}]" if i else name
        return Row(law, bool(ratio[i] <= 1), where, float(deviation[i]), float(allowed[i]))


class _Norm:
    """A normalisation: what is normalised together, its statistics in float64, and its laws.

    ``views`` are shapes for the inputs in which they broadcast; in that of x, the channels of a
    group have an axis of their own. ``offset`` is how far centering magnifies roundoff.
    """

    def __init__(self, case: _Case, kind: str, axis: Any, eps: float, groups: int) -> None:
        self.case, self.eps, self.hint, x = case, eps, "", case.inputs[0]
        axis = errors.check_axis(kind, x, AXIS[kind] if axis is None else axis)
        axes = axis if isinstance(axis, tuple) else (axis,)
        kept = [i for i in range(x.ndim) if i not in axes]
        channel = (
            1 if groups else kept[0] if kind == "batch_norm" and len(kept) == 1 else x.ndim - 1
        )
        self.axes = tuple(range(2, x.ndim + 1)) if groups else axes
        self.views = [_view(kind, x, a, channel, groups) for a in case.inputs]
        views = zip(case.inputs, self.views, strict=True)
        wide, self.gamma, *_ = *(a.astype(float).reshape(v) for a, v in views), np.ones(())
        self.centers = kind != "rms_norm"
        centered = wide - self._mean(wide) * self.centers
        self.var_eps = self._mean(centered**2) + eps
        if not self.var_eps.all():
            given = f"{kind}({errors.describe(x)}, eps={eps})"
            raise errors.ShapeError(f"{given}: a group has variance 0; use an eps above 0")
        self.inv_std = self.var_eps**-0.5
        self.x_hat = centered * self.inv_std
        self.offset = 1 + self._mean(abs(wide)) * self.inv_std

    def _mean(self, a: Array) -> Array:
        return np.mean(a, axis=self.axes, keepdims=True)

    def _sum_to(self, a: Array, i: int) -> Array:
        """Sum over the axes along which input i was broadcast."""
        return sum_to(a, self.views[i]).reshape(self.case.inputs[i].shape)

    def bounds(self, dy: Array) -> list[Array]:
        """How far rounding may move each gradient, for a dy of this absolute size.

        dx is inv_std * (g - mean(g) - x_hat * mean(g * x_hat)), with g = dy * gamma. The sizes are
        those of all that is added up. What centering lost is ``offset`` times as large.
        """
        dy, h = dy.reshape(self.views[0]), 1 + abs(self.x_hat)
        g, m = dy * abs(self.gamma), dy.size // self.inv_std.size
        sizes = [self.inv_std * self.offset * (g + h * self._mean(g * h)), dy * self.offset * h, dy]
        unit, terms = 4 * self.case.eps, [m, *(m + dy.size // a.size for a in self.case.inputs[1:])]
        return [unit * (n + 8) * self._sum_to(sizes[i], i) for i, n in enumerate(terms)]

    def rows(self, rng: np.random.Generator) -> Iterator[Row]:
        """All laws."""
        shape, dtype = self.case.inputs[0].shape, np.result_type(*self.case.inputs)
        dy, other = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        got = self.case.call(dy, *self.case.inputs)
        yield Row("shape", True)
        yield from self._sums(dy.astype(float).reshape(self.views[0]), got)
        yield from self.case.general(dy, other, got, self.bounds)
        yield from self._symmetries(rng, dy, got)

    def _sums(self, dy: Array, got: list[Array]) -> Iterator[Row]:
        """The laws of sums over a group, and what dgamma and dbeta are by definition."""
        row, axes, bounds = self.case.row, self.axes, self.bounds(abs(dy))
        dx, bound = (a.reshape(self.views[0]) for a in (got[0], bounds[0]))
        law = "sum dx x_hat = sum(g x_hat) inv_std eps / (var + eps)"
        if self.centers:
            yield row("sum dx = 0", "group", abs(dx.sum(axes)), bound.sum(axes))
        else:
            law = law.replace("inv_std", "inv_rms").replace("var", "ms")
        share = dy * self.gamma * self.x_hat * self.inv_std * self.eps / self.var_eps
        along, allowed = share.sum(axes), (bound * (1 + abs(self.x_hat))).sum(axes)
        yield row(law, "group", abs((dx * self.x_hat).sum(axes) - along), allowed)
        if (WEAK * abs(along) < allowed).all():
            self.hint = HINT.format(self.eps)
        weights = ("dgamma = sum dy x_hat", dy * self.x_hat), ("dbeta = sum dy", dy)
        for i, (law, terms) in enumerate(weights[: len(got) - 1], 1):
            yield row(law, law.split()[0], abs(got[i] - self._sum_to(terms, i)), bounds[i])

    def _symmetries(self, rng: np.random.Generator, dy: Array, got: list[Array]) -> Iterator[Row]:
        """What moves dx in a known way: the order of x, a constant, gamma in place of dy."""
        case, (x, *weights), bounds = self.case, self.case.inputs, self.bounds(abs(dy))
        view, orders = self.views[0], [rng.permutation(n) for n in self.views[0]]

        def every(arrays: Sequence[Array]) -> Iterator[Array]:
            for a, v in zip(arrays, self.views, strict=False):
                order = (o if n == len(o) else [0] for n, o in zip(v, orders, strict=True))
                yield a.reshape(v)[np.ix_(*order)].reshape(a.shape)

        moved = case.call(*every([dy]), *every(case.inputs))
        yield case.equal("x in another order: dx in that order", moved, every(got), every(bounds))
        if self.centers:
            steps = (rng.uniform(1, 2, self.inv_std.shape) / self.inv_std).astype(x.dtype)
            moved = case.call(dy, (x.reshape(view) + steps).reshape(x.shape), *weights)
            sizes = [3 * b for b in bounds]  # offset was 1 at least, and has grown by 2 at most
            yield case.equal("x + a constant in each group: the same", moved, got, sizes)
        if weights:
            g = (dy.reshape(view) * weights[0].reshape(self.views[1])).reshape(x.shape)
            moved = case.call(g, x, np.ones_like(weights[0]), *weights[1:])
            yield case.equal("dy * gamma for dy, 1 for gamma: dx the same", moved[:1], got, bounds)


def _view(kind: str, x: Array, a: Array, channel: int, groups: int) -> tuple[int, ...]:
    """Return the shape in which an input broadcasts against x."""
    shape = (*a.shape, *(1,) * (x.ndim - 1 - channel if a.ndim == 1 < x.ndim else 0))
    errors.check_weights(kind, x, weight=a.reshape(shape))
    shape = (*(1,) * (x.ndim - len(shape)), *shape)
    n = groups if groups and shape[1] > 1 else 1
    return (shape[0], n, shape[1] // n, *shape[2:]) if groups else shape


def _loss(case: _Case, rng: np.random.Generator) -> Iterator[Row]:
    """The laws of softmax cross-entropy: dlogits is a multiple of softmax(logits) - one_hot.

    A softmax has sum 1 up to rounding, which exp magnifies by the size of its argument.
    """
    logits, targets = case.inputs[0].astype(float), errors.check_classes(*case.inputs)
    shifted = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    one_hot = np.arange(p.shape[1]) == targets[:, None]
    dy, other = (float(a) for a in rng.uniform(1, 2, 2).astype(case.inputs[0].dtype))
    got = case.call(dy, *case.inputs)
    yield Row("shape", True)
    # The factor is 1/n for a mean over the rows, 1 for a sum; the result tells which.
    total, size = abs(got[0]).sum() / dy, abs(p - one_hot).sum()
    factor = max(1 / len(p), total / size) if np.isfinite(total) and size else 1.0
    sizes = 4 * (p.shape[1] + 8) * case.eps * factor * (p * (1 + abs(shifted)) + one_hot)
    yield case.row("sum of each row = 0", "row", abs(got[0].sum(axis=1)), dy * sizes.sum(axis=1))
    wrong = np.maximum(np.where(one_hot, got[0], -got[0]), 0)
    yield case.row("target <= 0, all others >= 0", "dlogits", wrong, dy * sizes)
    yield from case.general(dy, other, got, lambda dy: [dy * sizes])
