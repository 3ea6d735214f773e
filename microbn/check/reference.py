"""The gradients as they should be, and how far rounding alone may move each of their entries.

How much of a difference is rounding cannot be guessed: it depends on the data. Here it is tried:
the computation is run in float64, forward and backward, and then a few more times with every result
moved by a random amount of the size that rounding to the dtype in question has. What the gradients
move by then, they may differ by. This is Monte Carlo arithmetic (Parker, Pierce & Eggert 2000,
"Monte Carlo arithmetic: how to gamble with floating point and win", Computing in Science &
Engineering 2(4)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from .. import engine, kernels, ops
from ..dispatch import like, plain
from ..graph.paths import Pass
from ..graph.wide import in_float64
from ..kernels import Array
from ..ops import Rule
from ..tensor import Tensor

RUNS = 8  # of the whole computation, each with other random numbers
# The tolerance is so many times the largest movement seen. Of eight normal numbers the largest is
# below a quarter of the standard deviation once in 400,000; four of these are left even then, and a
# formula of another form may round a few times more often.
ROOM = 16


class Reference:
    """A backward pass in float64, and a tolerance for every cotangent.

    ``output`` is that of a recorded computation, ``grad_output`` where the pass starts. Where
    ``given`` has a cotangent for a tensor, the pass goes on from that, as from a number that is
    exact. ``gradients`` and ``tolerances`` are by the recorded tensors that require grad, arrays of
    their shape in float64: of a right gradient in their dtype, each entry differs by at most the
    tolerance. ``wide`` has the tensor in float64 that stands for each.

    >>> import microbn as mb
    >>> x = mb.Tensor([3.0, 1.0], requires_grad=True, dtype="float32", name="x")
    >>> reference = Reference((x * x).sum(), 1.0)
    >>> reference.gradients[x], bool((reference.tolerances[x] < 1e-4).all())
    (array([6., 2.]), True)
    """

    def __init__(
        self, output: Tensor, grad_output: Any, given: Mapping[Tensor, Array] | None = None
    ) -> None:
        self.output, twins = in_float64(output)
        for new, old in twins.items():
            new.name = old.name
        self.wide = {old: new for new, old in twins.items()}
        self.seed = like(self.output, plain(grad_output), True, "gradient")
        self._given = {self.wide[t]: np.asarray(g, np.float64) for t, g in (given or {}).items()}
        self._order = engine.toposort(self.output)[::-1]
        self._dtypes = {new: old.dtype for new, old in twins.items()}
        self._eps = {t: float(np.finfo(dtype).eps) for t, dtype in self._dtypes.items()}
        (exact,) = self._pull_back([{t: t.data for t in self._order}], None)
        rng = np.random.default_rng(0)
        runs = self._pull_back([self._compute(rng) for _ in range(RUNS)], rng)
        self.gradients = {twins[t]: np.asarray(g) for t, g in exact.items()}
        self.tolerances = {
            twins[t]: self._tolerance(t, [np.abs(run[t] - g) for run in runs], g)
            for t, g in exact.items()
        }

    @cached_property
    def back(self) -> Pass:
        """The backward pass in float64 from ``grad_output``, with what flows along every edge."""
        return Pass(self.output, self.seed)

    def is_rounding(self, x: Tensor) -> bool:
        """Whether the gradient of ``x`` is nothing but rounding."""
        return bool((np.abs(self.gradients[x]) <= self.tolerances[x]).all())

    def _tolerance(self, t: Tensor, moved: Sequence[Array], g: Array) -> Array:
        # What is smaller than any number of the dtype may have become 0 on the way.
        tiny = float(np.finfo(self._dtypes[t]).tiny)
        return np.asarray(ROOM * np.max(moved, axis=0) + 2 * self._eps[t] * np.abs(g) + tiny)

    def _compute(self, rng: np.random.Generator) -> dict[Tensor, Array]:
        """Compute forward, each result moved as rounding might."""
        values: dict[Tensor, Array] = {}
        for t in self._order:
            if t.op is None:
                values[t] = t.data
                continue
            args = _arguments(t, values)
            out = t.op.kernel(*args, **t.params)
            values[t] = _moved(out, self._eps[t] * _rounding_of_call(t, args, out), rng)
        return values

    def _pull_back(
        self, runs: Sequence[dict[Tensor, Array]], rng: np.random.Generator | None
    ) -> list[dict[Tensor, Array]]:
        """Compute backward through the values of each run; with ``rng``, as rounding might have it.

        Then at each edge the runs are shuffled: where its cotangent comes from one, its operands
        come from another. In one run, errors may cancel between paths, as that of a mean does in
        batch norm; a formula that leaves out a path because it is zero does not have them cancel.
        """
        found: list[dict[Tensor, Array]] = [{} for _ in runs]
        arrived = {self.output: [self.seed for _ in runs]}
        for t in reversed(self._order):
            if t not in arrived:
                continue
            cotangents = arrived.pop(t)
            for place, g in zip(found, cotangents, strict=True):
                place[t] = g
            if t in self._given:
                cotangents = [self._given[t]] * len(runs)
            for position, x in enumerate(t.inputs):
                if not (rule := rule_of(t, position)):
                    continue
                values, gs = (_shuffled(items, rng) for items in (runs, cotangents))
                flows = [self._flow(t, x, rule, g, v, rng) for g, v in zip(gs, values, strict=True)]
                if x in arrived:
                    flows = [a + b for a, b in zip(arrived[x], flows, strict=True)]
                    flows = [_moved(f, self._eps[x] * np.abs(f), rng) for f in flows]
                arrived[x] = flows
        return found

    def _flow(
        self,
        t: Tensor,
        x: Tensor,
        rule: Rule,
        g: Array,
        values: dict[Tensor, Array],
        rng: np.random.Generator | None,
    ) -> Array:
        """Pull the cotangent of ``t`` back along one edge."""
        args, out = _arguments(t, values), values[t]
        if rng is not None and t.op in CHOICES:
            args = _untied(args, self._eps[t], rng)
            out = t.op.kernel(*args, **t.params)
        flow = np.asarray(rule(g, out, *args, **t.params))
        if rng is not None:
            flow = _moved(flow, self._eps[x] * _rounding_of_rule(t, rule, g, flow, args), rng)
        terms, flow = flow, np.asarray(kernels.sum_to(flow, shape=x.shape))
        if rng is not None and terms.shape != x.shape:
            flow = _moved(flow, self._eps[x] * _rounding_of_sum(terms, x.shape), rng)
        return flow


def rule_of(t: Tensor, position: int) -> Rule | None:
    """Return the rule that pulls a cotangent of ``t`` back to an argument, if anything flows."""
    x, op = t.inputs[position], t.op
    if op is None or not isinstance(x, Tensor) or not x.requires_grad:
        return None
    return partial(op.vjps[0], position) if op.variadic and op.vjps[0] else op.vjps[position]


def _arguments(t: Tensor, values: Mapping[Tensor, Array]) -> list[Any]:
    return [
        values.get(a, v) if isinstance(a, Tensor) else v
        for a, v in zip(t.inputs, t.values, strict=True)
    ]


def _moved(value: Array, amount: Array | float, rng: np.random.Generator | None) -> Array:
    return value if rng is None else value + amount * rng.standard_normal(np.shape(value))


def _shuffled(items: Sequence[Any], rng: np.random.Generator | None) -> list[Any]:
    order = range(len(items)) if rng is None else rng.permutation(len(items))
    return [items[k] for k in order]


# How large rounding is, in units of the precision -------------------------------------------------


def _rounding_of_call(t: Tensor, args: Sequence[Any], out: Array) -> Array:
    if t.op is ops.sum or t.op is ops.mean:
        n = np.size(args[0]) / max(np.size(out), 1)
        keepdims = t.op.fn(args[0], axis=t.params["axis"], keepdims=True).shape
        total = _rounding_of_sum(args[0], keepdims).reshape(np.shape(out))
        return total / n if t.op is ops.mean else total
    if t.op in (ops.matmul, ops.einsum, ops.fold):
        return np.asarray(t.op.kernel(*map(np.abs, args), **t.params))
    return np.abs(out)


def _rounding_of_rule(t: Tensor, rule: Rule, g: Array, flow: Array, args: Sequence[Any]) -> Array:
    if t.op in (ops.matmul, ops.einsum, ops.windows):  # a sum again, of products or of overlaps
        return np.asarray(rule(np.abs(g), np.abs(t.data), *map(np.abs, args), **t.params))
    if t.op in (ops.add, ops.sub) and any(np.ndim(a) == 0 for a in args):
        # From 1 + z, which people compute with, z is known only so well: so s * (1 - s) is off.
        z = next((a for a in args if np.ndim(a)), args[0])
        return np.asarray(np.abs(g) * np.clip(np.abs(t.data) / (np.abs(z) + TINY), 1, 1 / TINY))
    return np.abs(flow)


CHOICES = (ops.maximum, ops.minimum, ops.max, ops.min, ops.relu, ops.abs, ops.clip)
TINY = 1e-290


def _untied(args: Sequence[Any], eps: float, rng: np.random.Generator) -> list[Any]:
    """Move arguments a little, so that those that tie no longer do: either may win."""
    return [
        _moved(a, eps * np.abs(a) + TINY, rng) if getattr(a, "dtype", None) == np.float64 else a
        for a in args
    ]


def _rounding_of_sum(terms: Array, shape: tuple[int, ...]) -> Array:
    """Add up the roundings of all partial sums, as independent errors add up: by their squares.

    ``shape`` is what the terms are summed to. Pairwise or blocked sums have fewer and smaller
    ones (Higham 1993, "The accuracy of floating point summation").
    """
    extra = terms.ndim - len(shape)
    gone = [a for a in range(terms.ndim) if a < extra or shape[a - extra] != terms.shape[a]]
    kept = [a for a in range(terms.ndim) if a not in gone]
    rows = np.transpose(terms, (*kept, *gone)).reshape(*(terms.shape[a] for a in kept), -1)
    return np.sqrt(np.sum(np.cumsum(rows, -1) ** 2, -1)).reshape(shape)
