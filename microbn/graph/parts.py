"""What a graph is made of: nodes, edges, scopes and lines of source, all of them plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from ..kernels import Array

Kind = Literal["input", "parameter", "constant", "op", "output", "scope"]
Part = Literal["seed", "rule", "unbroadcast", "accumulation", "constant"]


@dataclass(frozen=True, slots=True)
class Source:
    """A line of a program."""

    file: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Scope:
    """One entering of a scope: two calls of one function are two scopes with the same name.

    ``owner`` is the class of the module whose scope it is, such as "Linear"; else "".
    """

    index: int
    name: str
    parent: int | None
    owner: str = ""

    @property
    def title(self) -> str:
        """What to call it: its name, and what it is."""
        return f"{self.name} · {self.owner}" if self.owner else self.name


@dataclass(frozen=True, slots=True)
class Node:
    """A value in the graph: a leaf, or the result of an op.

    ``op`` is the op's name, None for a leaf; ``label`` is the op as a reader writes it, with the
    scalars among its arguments folded in (``+ 1e-05``), empty for a leaf. ``scalars`` are those
    arguments, by position, and ``params`` the call's metadata. ``scope`` is a path of names,
    ``place`` the index of its innermost `Scope`. ``value`` and ``cotangent`` are copies.

    In the backward graph, ``part`` says what the node does there: the seed that it starts from,
    a step of a rule, the sum over axes that were broadcast (or the cast of a dtype), the
    accumulation where cotangents meet, or a constant that only the backward pass has. ``of`` are
    the forward nodes whose cotangent the node is, or helps to compute; ``via`` is the forward op
    whose rule it belongs to, ``route`` the position of the argument there. The ``twin`` of a
    forward node is the node that ends up as its cotangent. In the forward graph ``part`` is None.
    """

    index: int
    kind: Kind
    op: str | None
    label: str
    name: str | None
    scope: tuple[str, ...]
    place: int | None
    shape: tuple[int, ...]
    dtype: str
    scalars: dict[int, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    value: Array | None = field(default=None, compare=False)
    cotangent: Array | None = field(default=None, compare=False)
    source: Source | None = None
    part: Part | None = None
    of: tuple[int, ...] = ()
    via: int | None = None
    route: int | None = None
    twin: int | None = None

    @property
    def title(self) -> str:
        """What to call it: its name, else its op as a reader writes it."""
        return self.name or self.label

    def __eq__(self, other: object) -> bool:
        """Compare everything but the values; among scalars and params, NaN is equal to itself."""
        if not isinstance(other, Node):
            return NotImplemented
        return bool(_facts(self) == _facts(other)) and _same(
            (self.scalars, self.params), (other.scalars, other.params)
        )


_facts = attrgetter(
    *"index kind op label name scope place shape dtype source part of via route twin".split()
)


def _same(a: Any, b: Any) -> bool:
    """Compare as ``==`` does, but arrays in containers by their entries, and NaN with itself."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and type(a) is type(b):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (a != a and b != b)


@dataclass(frozen=True, slots=True)
class Edge:
    """The use of node ``source`` as the argument at ``position`` of the op that made ``target``.

    ``contribution`` is the node of the backward graph that came back along this edge, already
    summed over axes that were broadcast; None if nothing did.
    """

    source: int
    target: int
    position: int
    broadcast: bool
    contribution: int | None = None
