"""Slopes from finite differences, each with an error bar that is derived from the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..engine import backprop, grad, toposort
from ..errors import OperandError, describe
from ..kernels import Array
from ..tensor import Tensor

Function = Callable[..., Any]

EPS = float(np.finfo(np.float64).eps)
AGREES = 1e-10  # relative; two numbers that know nothing of one another do not agree so by chance


# The function, evaluated -------------------------------------------------------------------------


class Case(NamedTuple):
    """A function of arrays to check, how it came from the first, the coarsest eps on the way."""

    fn: Function
    args: dict[str, Array]
    path: str = ""
    eps: float = EPS

    def evaluate(self, rng: np.random.Generator, grad_output: Any = None) -> Point:
        """Evaluate it in float64, with a random cotangent that the given dtype can hold."""
        given = [*self.args.values()]
        wide = [a.astype(np.float64, copy=False) for a in given]
        out, inputs = call(self.fn, wide)
        g = random(rng, out.shape) if grad_output is None else np.asarray(grad_output)
        if all(a.dtype == np.float64 for a in given):
            return Point(self, wide, g.astype(out.dtype), out, inputs)
        narrow, narrow_inputs = call(self.fn, given)
        point = Point(self, wide, g.astype(narrow.dtype), out, inputs)
        point.given = Point(self, given, point.g, narrow, narrow_inputs)
        return point


class Point:
    """A case evaluated somewhere: the value, weighted by a cotangent, and the gradients.

    ``eps`` is of the coarsest dtype on the way, and ``given`` the point in the dtypes given.
    """

    def __init__(
        self, case: Case, args: Sequence[Array], g: Array, out: Tensor, inputs: list[Tensor]
    ) -> None:
        self.case, self.args, self.g, self.out, self.inputs = case, args, g, out, inputs
        self.weighted = g * out.data
        self.gradients = [np.zeros_like(a) for a in args]
        self.eps, self.given = case.eps, self
        if out.requires_grad:
            self.gradients = [t.data for t in grad(out, inputs, g)]
            self.eps = max(case.eps, coarsest(toposort(out)))

    def elsewhere(self, args: Sequence[Array]) -> Point:
        """Evaluate with the same cotangent at other arguments."""
        return Point(self.case, args, self.g, *call(self.case.fn, args))

    def rounding(self) -> float:
        """Bound the rounding error of the weighted sum of the result; see `amplified`."""
        return self.eps * amplified(self.out, self.g)

    def blur(self, i: int, v: Array) -> float:
        """Bound that of the slope along ``v`` that gradient ``i`` gives, for an eps of 1."""
        if not self.out.requires_grad:
            return 0.0
        g = Tensor(self.g, requires_grad=True)  # so that what is made of it is recorded as well
        return amplified(grad(self.out, self.inputs[i], g, create_graph=True), v)

    def derivatives(self) -> Iterator[Case]:
        """Yield the gradients as functions of the cotangent and the arguments."""
        fn, args, path, _ = self.case
        for i, label in enumerate(args):

            def gradient(g: Tensor, *xs: Tensor, i: int = i) -> Any:
                return grad(fn(*xs), xs[i], g, create_graph=True)

            if self.out.requires_grad:
                by = {f"the cotangent of {path}{label}": self.g, **args}
                yield Case(gradient, by, f"{path}{label} and then ", self.eps)


def points(
    case: Case, order: int, rng: np.random.Generator, grad_output: Any = None
) -> Iterator[tuple[int, Point]]:
    """Yield a case evaluated, then its gradients as functions, theirs, ..., each with its order."""
    cases = [case]
    for n in range(1, order + 1):
        found = []
        for case in cases:
            found.append(case.evaluate(rng, grad_output if n == 1 else None))
            yield n, found[-1]
        cases = [then for point in found for then in point.derivatives()]


def returned(out: Any) -> Tensor:
    if isinstance(out, Tensor) and out.dtype.kind == "f":
        return out
    raise OperandError(
        f"fn returned {describe(out)}, which cannot be differentiated: return one floating Tensor, "
        "computed by operators and NumPy functions (float(), .data and .numpy() cut the graph)"
    )


def call(fn: Function, args: Iterable[Array]) -> tuple[Tensor, list[Tensor]]:
    """Return the result of ``fn`` and the leaves that it was given."""
    inputs = [Tensor(a, requires_grad=True, copy=False) for a in args]
    return returned(fn(*inputs)), inputs


def amplified(out: Tensor, g: Array) -> float:
    """Return how much rounding can change ``sum(g * out)``, for an eps of 1.

    Each result is off by eps times its magnitude, which counts as much as the derivative by it
    says: so Linnainmaa (1976, BIT 16, 146-160) came to invent the backward pass.
    """
    if not out.requires_grad:
        return float(np.sum(np.abs(g * out.data)))
    return float(sum(np.sum(np.abs(dt * t.data)) for t, dt in backprop(out, g)))


def coarsest(values: Iterable[Any]) -> float:
    """Return the largest eps of the floats among ``values``, that of float64 at least."""
    dtypes = {v.dtype for v in values if hasattr(v, "dtype")}
    return max([EPS, *(float(np.finfo(d).eps) for d in dtypes if d.kind == "f")])


def random(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return numbers of both signs and similar size: no entry counts for nothing."""
    x = np.asarray(rng.uniform(-1.0, 1.0, shape))
    return x + np.copysign(0.5, x)


def sizes(x: Array) -> Array:
    """Return over what distance to expect a change: the magnitude of each entry, or the spread.

    The smaller counts, if it is more than rounding. For zeros it is the mean of the others, or 1.
    """
    size = np.abs(x)
    if not size.all():
        size = np.where(size > 0, size, np.mean(size, where=size > 0) if size.any() else 1.0)
    spread = float(np.std(x)) if x.size > 1 else 0.0
    if spread <= 4 * EPS * np.max(size, initial=0):
        return size
    return np.minimum(size, np.maximum(spread, EPS**0.5 * size))


# Differences -------------------------------------------------------------------------------------


class Row(NamedTuple):
    """For a step: by how much the slope exceeds what the rule says, extrapolated once, twice, ...

    ``jump`` is the slope on the right less that on the left.
    """

    step: float
    excess: list[float]
    jump: float


class Estimate(NamedTuple):
    """What the rule says of a slope, and by how much differences exceed it, give or take ``error``.

    ``kink`` is by how much the slopes on the right and the left differ, where that is no rounding.
    """

    rule: float
    excess: float
    error: float
    kink: float = 0.0
    noise: float = 0.0

    @property
    def is_wrong(self) -> bool:
        """Whether the rule is outside the error bar."""
        return self.kink != 0 or not abs(self.excess) <= self.error < np.inf


def slope_error(point: Point, i: int, v: Array, noise: float | None = None) -> Estimate:
    """Compare the slope along ``v``, through argument ``i``, with what its gradient says.

    Central differences have an error in even powers of the step h. Ridders (1982, Advances in
    Engineering Software 4(2), 75-76; Press et al., Numerical Recipes, 5.7) takes them for a
    sequence of steps, here each a quarter of the one before, and extrapolates to h = 0 by
    Neville's scheme. Steps are relative to the size of each entry, if ``v`` is. With the rounding
    unit eps, two terms of the scheme are best for h near eps**(1/7), so the first is eps**(1/8);
    the last, eps**(3/4), is mostly rounding, which shows how large that is.

    As soon as a row agrees with the rule to ten digits, and left and right slope with each other,
    they settle it: neither knows of the other. Else the whole table is judged, by `_best`. Where
    the noise of the function is known already, four steps in the middle will do.
    """
    gradient = point.gradients[i]
    rule, size = float(np.sum(gradient * v)), float(np.sum(np.abs(gradient * v)))
    table: list[Row] = []
    first, last = (round(math.log2(point.eps) * p) for p in (1 / 8, 3 / 4))
    powers = range(first, last - 1, -2)
    if noise is not None:
        powers = powers[len(powers) // 5 :][:4]
    for k in powers:
        row = _row(point, i, v, 2.0**k, table)
        if not math.isfinite(row.excess[0]):  # the step led out of the domain of the function
            table.clear()
            continue
        jump = (4 * row.jump - table[-1].jump) / 3 if table else row.jump
        table.append(row)
        best = min(row.excess, key=abs)
        if abs(best) <= AGREES * size and abs(jump) <= 1e-6 * size:
            return Estimate(rule, best, AGREES * size)
    noise = _noise(table, point.rounding()) if noise is None else noise
    excess, error, kink = _best(table, noise)
    # A float32 constant leaves results in float64, but a rule may take the logarithm of it.
    coarse = coarsest(v for t in toposort(point.out) for v in t.values)
    return Estimate(rule, excess, error + (coarse > EPS) * coarse * size, kink, noise)


def _row(point: Point, i: int, v: Array, h: float, table: list[Row]) -> Row:
    """Evaluate at ``x + h v`` and ``x - h v``, and extrapolate from the last row of the table."""
    x, others = point.args[i], point.args
    up, down = x + h * v, x - h * v
    with np.errstate(all="ignore"):
        ahead, behind = (
            point.g * call(point.case.fn, [*others[:i], z, *others[i + 1 :]])[0].data
            for z in (up, down)
        )
        # The step is what rounding has left of it.
        expected = np.sum(point.gradients[i] * ((up - down) / (2 * h)))
        excess = [float(np.sum(ahead - behind) / (2 * h) - expected)]
        jump = float(np.sum((ahead - point.weighted) + (behind - point.weighted)) / h)
    for n, before in enumerate(table[-1].excess[:4] if table else (), 1):
        excess.append(excess[-1] + (excess[-1] - before) / (16**n - 1))
    return Row(h, excess, jump)


def _noise(table: list[Row], rounding: float) -> float:
    """Return by how much the function may be off: ``rounding``, a bound, unless there is more.

    An operation may have an inside. Ten times the median of what values a tiny step apart differ
    by, too little for the function itself to have changed, is beyond chance. But what is the same
    every time is no noise: the function jumps.
    """
    tail = table[-max(len(table) // 3, 3) :]
    scatter = [abs(row.jump) * row.step for row in tail]
    if len(tail) > 2 and min(scatter) > 0.9 * max(scatter):
        return rounding
    scatter += [abs(b.excess[0] - a.excess[0]) * b.step for a, b in pairwise(tail)]
    return rounding + 10 * float(np.median(scatter or [0.0]))


def _best(table: list[Row], noise: float) -> tuple[float, float, float]:
    """Return the best entry of the table, its error, and the size of the kink, if there is one.

    An entry is off by no more than it differs from its neighbours, which are less precise (that is
    Ridders' estimate), and from all later rows, as far as their rounding does not explain it; and
    by its own rounding, ``noise`` by the step, which extrapolation multiplies by 1.2 at most.
    """
    best = (np.nan, np.inf)
    for j, row in enumerate(table[1:], 1):
        for n, value in enumerate(row.excess):
            near = [row.excess[max(n - 1, 0)], table[j - 1].excess[max(n - 1, 0)]]
            later = [abs(value - r.excess[n]) - 1.2 * noise / r.step for r in table[j + 1 :]]
            error = max(*(abs(value - e) for e in near), *later, 0.0) + 1.2 * noise / row.step
            best = min(best, (value, error), key=lambda entry: entry[1])
    return *best, _kink(table, noise)


def _kink(table: list[Row], noise: float) -> float:
    """Return how far left and right slope stay apart, down to the smallest step that tells.

    Where a function is smooth, they come together in proportion to the step.
    """
    seen = [j for j, row in enumerate(table) if abs(row.jump) > 4 * noise / row.step]
    j = seen[-1] if seen else 0
    stays = j >= 3 and abs(table[j].jump) >= abs(table[j - 3].jump) / 2
    if stays and j + 1 < len(table):  # would it be seen at the next step, if it were there?
        stays = abs(table[j].jump) <= 8 * noise / table[j + 1].step
    return table[j].jump if stays else 0.0
