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
from functools import partial
from typing import Any

import numpy as np

from .. import engine, kernels, ops
from ..dispatch import like, plain
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
    >>> reference.gradients[x], bool((reference.tolerances[x] < 1e-5).all())
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
        self._eps = {new: float(np.finfo(old.dtype).eps) for new, old in twins.items()}
        exact = self._run(None)
        moved = {t: np.zeros(t.shape) for t in exact}
        for run in range(RUNS):
            for t, g in self._run(np.random.default_rng(run)).items():
                np.maximum(moved[t], np.abs(g - exact[t]), out=moved[t])
        self.gradients = {twins[t]: np.asarray(g) for t, g in exact.items()}
        self.tolerances = {
            twins[t]: ROOM * moved[t] + 2 * self._eps[t] * np.abs(g) for t, g in exact.items()
        }

    def _run(self, rng: np.random.Generator | None) -> dict[Tensor, Array]:
        """Compute forward and backward; with ``rng``, each result moved as rounding might."""
        values: dict[Tensor, Array] = {}
        for t in self._order:
            if t.op is None or rng is None:
                values[t] = t.data
                continue
            args = _arguments(t, values)
            out = t.op.kernel(*args, **t.params)
            values[t] = _moved(out, self._eps[t] * _rounding_of_call(t, args, out), rng)
        found: dict[Tensor, Array] = {}
        arrived = {self.output: self.seed}
        for t in reversed(self._order):
            if t in arrived:
                g = found[t] = arrived.pop(t)
                self._send(t, self._given.get(t, g), values, arrived, rng)
        return found

    def _send(
        self,
        t: Tensor,
        g: Array,
        values: dict[Tensor, Array],
        arrived: dict[Tensor, Array],
        rng: np.random.Generator | None,
    ) -> None:
        """Pull the cotangent of ``t`` back along each edge, and add it to what has arrived."""
        args, out = _arguments(t, values), values[t]
        for position, x in enumerate(t.inputs):
            rule = rule_of(t, position)
            if rule is None:
                continue
            flow = np.asarray(rule(g, out, *args, **t.params))
            if rng is not None:
                flow = _moved(flow, self._eps[x] * _rounding_of_rule(t, rule, g, out, args), rng)
            terms, flow = flow, np.asarray(kernels.sum_to(flow, shape=x.shape))
            if rng is not None and terms.shape != x.shape:
                flow = _moved(flow, self._eps[x] * _rounding_of_sum(terms, x.shape), rng)
            if x in arrived:
                flow = arrived[x] + flow
                flow = flow if rng is None else _moved(flow, self._eps[x] * np.abs(flow), rng)
            arrived[x] = flow


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


def _moved(value: Array, amount: Array, rng: np.random.Generator) -> Array:
    return value + amount * rng.standard_normal(np.shape(value))


# How large rounding is, in units of the precision -------------------------------------------------


def _rounding_of_call(t: Tensor, args: Sequence[Any], out: Array) -> Array:
    if t.op is ops.sum or t.op is ops.mean:
        n = np.size(args[0]) / max(np.size(out), 1)
        keepdims = t.op.fn(args[0], axis=t.params["axis"], keepdims=True).shape
        total = _rounding_of_sum(args[0], keepdims).reshape(np.shape(out))
        return total / n if t.op is ops.mean else total
    if t.op is ops.matmul:
        return np.asarray(t.op.kernel(*map(np.abs, args)))
    return np.abs(out)


def _rounding_of_rule(t: Tensor, rule: Rule, g: Array, out: Array, args: Sequence[Any]) -> Array:
    if t.op is ops.matmul:  # a sum of products again
        return np.asarray(rule(np.abs(g), np.abs(out), *map(np.abs, args)))
    return np.abs(rule(g, out, *args, **t.params))


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
