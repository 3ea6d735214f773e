"""Functions that compute the same, and record one wrong rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from .. import engine
from ..dispatch import plain
from ..errors import ShapeError, check_differentiable
from ..graph.paths import Link
from ..graph.tracer import tensors_in
from ..graph.wide import in_float64
from ..kernels import Array
from ..node import clock
from ..tensor import Tensor
from .diagnose import recorded
from .faults import Fault, faults, faulty
from .reference import Reference, rule_of

Function = Callable[..., Any]
Seen = Sequence[tuple["Call", Array]]  # calls, each with a cotangent that came to its output

SEED = 20150211  # not 0, which people draw their data with: the cotangent would be x itself


class Place(NamedTuple):
    """A fault, and where: the step, its argument, which of the faults of this edge."""

    step: int
    position: int
    number: int
    fault: Fault


class Call(NamedTuple):
    """What was recorded: ``steps``, oldest first, from the floating ``args``, by position.

    ``asked`` are the positions of those that the caller can ask for gradients of.
    """

    output: Tensor
    args: dict[int, Tensor]
    asked: set[int]
    steps: list[Tensor]

    def faults(self, k: int, position: int) -> list[Fault]:
        """List the faults of one edge, made with the values at hand."""
        return [*faults(Link(self.steps[k], position))]

    def structure(self) -> list[Any]:
        """List of each edge the step, its operation, where it leads to, how many faults it has."""
        number = {t: k for k, t in enumerate(self.steps)}
        return [
            (k, t.op and t.op.name, isinstance(x, Tensor) and number.get(x), len(self.faults(k, p)))
            for k, t in enumerate(self.steps)
            for p, x in enumerate(t.inputs)
        ]

    def places(self, wanted: set[int]) -> Iterator[Place]:
        """Yield every fault of every edge that leads to these arguments."""
        leads = {self.args[i] for i in wanted}
        for k, step in enumerate(self.steps):
            for position, x in enumerate(step.inputs):
                if isinstance(x, Tensor) and x in leads and rule_of(step, position):
                    leads.add(step)
                    for number, fault in enumerate(self.faults(k, position)):
                        yield Place(k, position, number, fault)

    def mutate(self, place: Place) -> None:
        """Make one rule wrong."""
        step, fault = self.steps[place.step], self.faults(*place[:2])[place.number]
        assert step.op is not None
        step.op = faulty(step.op, place.position, fault.rule)

    def changes(self, place: Place, seed: Array) -> dict[int, tuple[Array, Array]]:
        """Return each gradient, and the size of what the fault changes in it."""
        step, args = self.steps[place.step], [*self.args.values()]
        right, op = engine.grad(self.output, args, seed), step.op
        self.mutate(place)
        try:
            wrong = engine.grad(self.output, args, seed)
        finally:
            step.op = op
        pairs = zip(self.args, right, wrong, strict=True)
        return {i: (a.data, np.nan_to_num(abs(b - a).data, nan=np.inf)) for i, a, b in pairs}

    def visible(self, place: Place, wanted: set[int]) -> dict[int, float]:
        """Return the largest change of those gradients that change, by more than rounding does.

        The cotangent is random, with a norm of 1.
        """
        seed = np.random.default_rng(SEED).standard_normal(self.output.shape)
        seed /= np.linalg.norm(seed)
        rounding = Reference(self.output, seed).tolerances
        changes = {i: c for i, (_, c) in self.changes(place, seed).items() if i in wanted}
        return {i: np.max(c) for i, c in changes.items() if (c > rounding[self.args[i]]).any()}

    def wide(self) -> Call:
        """Return the same in float64."""
        output, twins = in_float64(self.output)
        new = {old: new for new, old in twins.items()}
        args = {i: new[t] for i, t in self.args.items() if t in new}
        return Call(output, args, self.asked, [new[t] for t in self.steps])


def call_of(output: Tensor, args: dict[int, Tensor], asked: set[int], since: int) -> Call:
    order = engine.toposort(output)[::-1]
    return Call(output, args, asked, [t for t in order if t.op and t.time > since])


def first_call(fn: Function, inputs: Sequence[Any]) -> Call:
    since = next(clock)
    output, leaves = recorded(fn, inputs)
    check_differentiable(output, Tensor, "the output")
    args = {i: a for i, a in enumerate(leaves) if isinstance(a, Tensor)}
    return call_of(output, args, {*args}, since)


def watched(fn: Function, first: Call, see: Callable[[Call], None]) -> Function:
    """Return ``fn``, with ``see`` called for each call that a gradient can be asked of.

    All its floating arguments are recorded, so that the steps are the same each time.
    """

    @wraps(fn)
    def watched(*args: Any, **kwargs: Any) -> Any:
        floating = {i: args[i] for i in first.args if i < len(args)}
        asked = {i for i, a in floating.items() if isinstance(a, Tensor) and a.requires_grad}
        if not asked:
            return fn(*args, **kwargs)
        for i in floating.keys() - asked:
            floating[i] = Tensor(plain(args[i]), requires_grad=True, copy=False)
        since = next(clock)
        result = fn(*(floating.get(i, a) for i, a in enumerate(args)), **kwargs)
        for output in tensors_in(result):
            if output.requires_grad:  # which nothing does under no_grad
                call = call_of(output, floating, asked, since)
                if call.structure() != first.structure():
                    raise ShapeError(
                        f"adequacy: fn recorded {len(call.steps)} operations when the check called "
                        f"it, and other ones, {len(first.steps)}, for the inputs given; let it "
                        "compute the same, with the same shapes, whenever it is called"
                    )
                see(call)
        return result

    return watched


def note_cotangents(seen: list[tuple[Call, Array]], ops: dict[Tensor, Any], call: Call) -> None:
    """Have each cotangent of the output added to ``seen``; put the right op into ``ops``."""
    output, op, wide = call.output, call.output.op, call.wide()
    rules = ((p, rule_of(output, p)) for p in range(len(output.inputs)))
    position, right = next((p, rule) for p, rule in rules if rule)

    def rule(g: Any, *values: Any, **params: Any) -> Any:
        seen.append((wide, np.array(plain(g), np.float64)))
        return right(g, *values, **params)

    assert op is not None
    ops[output], output.op = op, faulty(op, position, rule)
