"""The backward pass as a graph: run it recorded, and note what each recorded step is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import engine
from ..apart import apart
from ..dispatch import like, plain
from ..errors import check_differentiable
from ..mirror import Edge
from ..node import clock
from ..tensor import Tensor
from .parts import Part

SALT = 1502  # for random cotangents: from default_rng(0) people draw their data, which one would be


class Role(NamedTuple):
    """What a tensor does in the backward pass; see `microbn.graph.Node`."""

    part: Part
    of: Tensor
    via: Tensor | None
    route: int | None


class Contribution(NamedTuple):
    """What ``cotangent`` comes to a tensor along one edge: through ``via``, at ``route``."""

    via: Tensor
    route: int
    cotangent: Tensor


class Backward:
    """A recorded backward pass from ``output``.

    ``cotangents`` has the cotangent of every forward tensor that was reached, ``roles`` what each
    step was for, by the id of its result, ``contributions`` what came to a tensor along each edge.
    """

    @apart()
    def __init__(self, output: Tensor, grad_output: Any = None) -> None:
        self.cotangents: dict[Tensor, Tensor] = {}
        self.roles: dict[int, Role] = {}
        self.contributions: dict[Tensor, list[Contribution]] = {}
        self.merging: set[Tensor] = set()  # the contributions that are one of several
        seed = seed_of(output, grad_output)
        for tensor, g in engine.backprop(output, seed, create_graph=True, pullback=self._edges):
            if not self.cotangents:
                self.roles[id(g)] = Role("seed", tensor, None, None)
            self.cotangents[tensor] = g
            self._note_sums(tensor, g)

    def _edges(self, tensor: Tensor, g: Any) -> Iterator[Edge]:
        start = next(clock)
        for position, x, before, after in engine.pullback(tensor, g):
            ruled = before.time if isinstance(before, Tensor) else next(clock)
            if (after.op is None or after.time <= start) and id(after) not in self.roles:
                # A constant, or a forward value as it is. A leaf of its own stands for it, which
                # requires grad, so that what is computed from it is recorded.
                after = x._constant(after._data, True)
                self.roles[id(after)] = Role("constant", x, tensor, position)
            self._note_steps(after, start, ruled, x, tensor, position)
            arrived = Contribution(tensor, position, after)
            self.contributions.setdefault(x, []).append(arrived)
            yield position, x, before, after
            start = next(clock)

    def _note_steps(
        self, after: Tensor, start: int, ruled: int, x: Tensor, via: Tensor, position: int
    ) -> None:
        """Note every step since ``start``; the rule's own were done at ``ruled``."""
        pending = [after]
        while pending:
            step = pending.pop()
            if step.time > start and step.op is not None and id(step) not in self.roles:
                part: Part = "unbroadcast" if step.time > ruled else "rule"
                self.roles[id(step)] = Role(part, x, via, position)
                pending += [a for a in step.inputs if isinstance(a, Tensor)]

    def _note_sums(self, tensor: Tensor, g: Tensor) -> None:
        """Follow the sums in which contributions met, from the last to the first."""
        contributions = self.contributions.get(tensor, [])
        self.merging |= {c.cotangent for c in contributions if len(contributions) > 1}
        for arrived in reversed(contributions[1:]):
            self.roles[id(g)] = Role("accumulation", tensor, arrived.via, arrived.route)
            g = g.inputs[0]


def seed_of(output: Tensor, grad_output: Any) -> Tensor:
    """Return the cotangent to start from, as a leaf that requires grad, so that all is recorded.

    Where none is given it is what an earlier ``backward(dy)`` started from, or 1 for a single
    number. For anything larger it is random, the same every time: ones would hide what cancels.
    """
    check_differentiable(output, Tensor, "the output")
    value = plain(output._grad if grad_output is None else grad_output)
    if value is None:
        random = np.random.default_rng(SALT).standard_normal(output.shape).round(2)
        value = np.ones(output.shape) if output.size == 1 else random
        value = value.astype(output.dtype)
    return output._constant(like(output, value, True, "gradient"), True)
