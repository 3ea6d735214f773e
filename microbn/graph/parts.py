"""What a graph is made of: nodes, edges, scopes and lines of source, all of them plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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
    """One entering of a scope: two calls of one function are two scopes with the same name."""

    index: int
    name: str
    parent: int | None


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


@dataclass(frozen=True, slots=True)
class Edge:
    """The use of node ``source`` as the argument at ``position`` of the op that made ``target``."""

    source: int
    target: int
    position: int
    broadcast: bool
