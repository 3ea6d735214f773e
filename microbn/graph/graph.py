"""The graph as data: a plain snapshot of what was recorded, independent of the engine afterwards.

A node's index is its place in the order of computation, with each leaf right before its first
use. So the same program gives the same graph, whatever else the process has computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..tensor import Tensor

Kind = Literal["input", "parameter", "constant", "op", "output"]


@dataclass(frozen=True, slots=True)
class Node:
    """A value in the graph: a leaf, or the result of an op.

    ``op`` is the op's name, None for a leaf. ``label`` is the op as a reader writes it, with the
    scalars among its arguments folded in (``+ 1e-05``); it is empty for a leaf.
    """

    index: int
    kind: Kind
    op: str | None
    label: str
    name: str | None
    scope: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Edge:
    """The use of node ``source`` as the argument at ``position`` of the op that made ``target``."""

    source: int
    target: int
    position: int
    broadcast: bool


@dataclass(frozen=True, slots=True, repr=False)
class Graph:
    """Nodes in order of computation, and edges in order of their target and position.

    >>> import microbn as mb
    >>> x = mb.Tensor([3.0, 4.0], requires_grad=True, name="x")
    >>> graph = mb.Graph.from_outputs((x * x).mean() / 2)
    >>> graph
    <Graph: 4 nodes, 4 edges>
    >>> [node.name or node.label for node in graph.nodes]
    ['x', '×', 'mean', '/ 2']
    >>> [(edge.source, edge.target) for edge in graph.edges]
    [(0, 1), (0, 1), (1, 2), (2, 3)]
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def __repr__(self) -> str:
        return f"<Graph: {len(self.nodes)} nodes, {len(self.edges)} edges>"

    @classmethod
    def from_outputs(cls, *outputs: Tensor) -> Graph:
        """Take a snapshot of everything recorded on the way to ``outputs``.

        Arrays among the arguments become constants; Python and NumPy scalars fold into labels.
        Raises a TypeError if an output is not a Tensor, a ValueError if there is none.
        """
        if not outputs:
            raise ValueError("a graph needs at least one output; give the Tensors to look at")
        for output in outputs:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"a graph is recorded by Tensors, and an output is a {type(output).__name__}; "
                    "give the Tensor that the computation ended in"
                )
        snapshot = _Snapshot()
        for tensor in _in_order(outputs):
            kind: Kind = "output" if any(tensor is output for output in outputs) else "op"
            if tensor.op is not None:
                snapshot.add_op(tensor, kind)
        for output in outputs:
            snapshot.index_of(output, ())
        return cls(tuple(snapshot.nodes), tuple(snapshot.edges))


class _Snapshot:
    """Nodes and edges so far, and the index that each Tensor or array has got."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.index: dict[int, int] = {}  # by id(): the graph being read keeps them all alive

    def add_op(self, tensor: Tensor, kind: Kind) -> None:
        """Add the call that made ``tensor``: first those arguments that are leaves, then itself."""
        values = [(i, a) for i, a in enumerate(tensor.inputs) if _is_node(a)]
        sources = [self.index_of(a, tensor.scope) for _, a in values]
        broadcast = _broadcasts(tensor, [tuple(a.shape) for _, a in values])
        target = self._add(tensor, kind, tensor.op.name, _label(tensor), tensor.scope)
        for (position, _), source in zip(values, sources, strict=True):
            stretched = broadcast and self.nodes[source].shape != self.nodes[target].shape
            self.edges.append(Edge(source, target, position, stretched))

    def index_of(self, value: Any, scope: tuple[str, ...]) -> int:
        """Return the index of ``value``, which is a leaf if it has none yet.

        An array knows no scope: it belongs where it is first used.
        """
        if id(value) in self.index:
            return self.index[id(value)]
        if not isinstance(value, Tensor):
            return self._add(value, "constant", None, "", scope)
        kind: Kind = "parameter" if getattr(value, "kind", "") == "parameter" else "input"
        return self._add(value, kind, None, "", value.scope)

    def _add(
        self, value: Any, kind: Kind, op: str | None, label: str, scope: tuple[str, ...]
    ) -> int:
        index = self.index[id(value)] = len(self.nodes)
        name = value.name if isinstance(value, Tensor) else None
        shape = tuple(value.shape)
        self.nodes.append(Node(index, kind, op, label, name, scope, shape, str(value.dtype)))
        return index


def _in_order(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Every Tensor that ``outputs`` depend on, in order of creation, which is topological."""
    found = {id(output): output for output in outputs}
    pending = list(found.values())
    while pending:
        for a in pending.pop().inputs:
            if isinstance(a, Tensor) and id(a) not in found:
                found[id(a)] = a
                pending.append(a)
    return sorted(found.values(), key=lambda tensor: tensor.time)


def _is_node(argument: Any) -> bool:
    """Tensors and arrays (of any library) are nodes, scalars are not."""
    if isinstance(argument, Tensor):
        return True
    return hasattr(argument, "shape") and not isinstance(argument, np.generic)


def _label(tensor: Tensor) -> str:
    """The op with its scalar arguments in their places: ``+ 1e-05``, ``2 −``, ``clip(·, 0, 1)``."""
    label, inputs = tensor.op.label, tensor.inputs
    if all(_is_node(a) for a in inputs):
        return str(label)
    infix = len(inputs) == 2 and not label.isidentifier()
    words = ["" if infix and _is_node(a) else _scalar(a) for a in inputs]
    return f"{words[0]} {label} {words[1]}".strip() if infix else f"{label}({', '.join(words)})"


def _scalar(argument: Any) -> str:
    if _is_node(argument):
        return "·"
    return f"{argument:.6g}" if isinstance(argument, float | np.floating) else str(argument)


def _broadcasts(tensor: Tensor, shapes: list[tuple[int, ...]]) -> bool:
    """Whether the op stretched an argument: its result has the shape they broadcast to together.

    A ufunc with a signature (matmul) has axes of its own, so there shapes prove nothing.
    """
    if all(shape == tensor.shape for shape in shapes) or getattr(tensor.op.fn, "signature", None):
        return False
    try:
        return np.broadcast_shapes(*shapes) == tuple(tensor.shape)
    except ValueError:  # they do not broadcast
        return False
