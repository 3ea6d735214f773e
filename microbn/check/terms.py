"""What a gradient is made of: its terms by path, and by edge, each an array of its shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .. import engine, ops
from ..errors import ShapeError
from ..graph.paths import Link, Path, along, paths, title
from ..kernels import Array
from ..tensor import Tensor
from .reference import Reference

MOST = 24  # paths that are told apart
NOTHING = 1e-9  # a term so much smaller than the sum of all is rounding: a path that is null
SUMS = (ops.mean, ops.sum, ops.max, ops.min)


@dataclass
class Term:
    """What flows to the input along one path."""

    path: Path
    value: Array
    label: str = ""


@dataclass
class Branch:
    """Edges in series: what flows along any of them reaches the input as the same ``value``."""

    value: Array
    links: list[Link] = field(default_factory=list)


class Terms:
    """The terms of one gradient of a `Reference`, all of them in float64.

    ``paths`` are those along which something flows, if there are at most `MOST`, else none;
    ``branches`` are the edges on the way, those together that cannot be told apart.
    """

    def __init__(self, reference: Reference, x: Tensor) -> None:
        self.output, self.seed, self.back = reference.output, reference.seed, reference.back
        self.x, self.total = reference.wide[x], reference.gradients[x]
        self.tolerance, self.eps = reference.tolerances[x], float(np.finfo(x.dtype).eps)
        self.flows, self.is_rounding = self.back.flows, reference.is_rounding(x)

    def pull(self, link: Link, flow: Array) -> Array:
        """Pull what flows along ``link`` back to the input."""
        if link.input is self.x:
            return flow
        gradient: Array = engine.grad(link.input, self.x, flow).data
        return gradient

    def pull_by_paths(self, link: Link, flow: Array) -> Array:
        """Pull a flow back along those paths only that are not null, as people do."""
        ways = {t.path[t.path.index(link) :]: None for t in self.paths if link in t.path}
        found = np.zeros(self.x.shape)
        for way in ways:
            found = found + (along(way[1:], flow) if way[1:] else flow)
        return found

    @cached_property
    def links(self) -> list[Link]:
        """The edges from which a way leads to the input, from the output on."""
        leads, found = {self.x}, list[Link]()
        for tensor in engine.toposort(self.output)[::-1]:
            onward = [link for link in self._from(tensor) if link.input in leads]
            if onward and tensor is not self.x:
                leads.add(tensor)
                found += onward
        return found[::-1]

    def _from(self, tensor: Tensor) -> Iterator[Link]:
        links = (Link(tensor, position) for position in range(len(tensor.inputs)))
        return (link for link in links if link in self.flows)

    @cached_property
    def size(self) -> Array:
        """How large the terms are that add up to the gradient, entry by entry."""
        terms = [self.pull(link, self.flows[link]) for link in self.links if link.input is self.x]
        return np.asarray(sum(np.abs(term) for term in terms) if terms else np.abs(self.total))

    @cached_property
    def branches(self) -> list[Branch]:
        """The edges, grouped by what they bring."""
        found: list[Branch] = []
        for link in self.links:
            value = self.pull(link, self.flows[link])
            for branch in found:
                if np.abs(branch.value - value).max() <= NOTHING * np.abs(value).max():
                    branch.links.append(link)
                    break
            else:
                found.append(Branch(value, [link]))
        return found

    @cached_property
    def paths(self) -> list[Term]:
        """The terms by path, named after what only they lead through."""
        try:
            found = paths(self.output, self.x, limit=4 * MOST)
        except ShapeError:
            return []
        terms = [Term(path, along(path, self.seed)) for path in found if path]
        largest = np.max(self.size, initial=0)
        terms = [t for t in terms if np.abs(t.value).max() > NOTHING * largest]
        for term in terms if len(terms) <= MOST else ():
            term.label = _label(term.path, [t.path for t in terms])
        return terms if len(terms) <= MOST else []


def _label(path: Path, every: list[Path]) -> str:
    """Name a path after the statistics on it, or else after the values, that not all lead through.

    One that has none of its own is ``direct``.
    """
    if len(every) == 1:
        return "everything"
    common = set.intersection(*({link.input for link in other} for other in every))
    own = [link.input for link in path if link.input not in common]
    others = [{link.input for link in other} for other in every if other is not path]
    if not own or any(set(own) < other for other in others):
        return "direct"
    named = [t for t in own if t.name]
    statistics = [t for t in named if t.op in SUMS]
    alone = [t for t in statistics or named or own if all(t not in o for o in others)]
    return " → ".join(title(t) for t in alone[:1] or statistics or named[:1] or own[:1])
