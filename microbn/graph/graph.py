"""The graph as data: a plain snapshot of what was recorded, independent of the engine afterwards.

A node's index is its place in the order of computation, with each leaf right before its first
use. So the same program gives the same graph, whatever else the process has computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from ..ops import Op
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
    ['x', '×', 'mean', '÷ 2']
    >>> [(edge.source, edge.target) for edge in graph.edges]
    [(0, 1), (0, 1), (1, 2), (2, 3)]
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def __repr__(self) -> str:
        nodes, edges = len(self.nodes), len(self.edges)
        return f"<Graph: {nodes} node{'s' * (nodes != 1)}, {edges} edge{'s' * (edges != 1)}>"

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
        results = {id(output) for output in outputs}
        for tensor in _in_order(outputs):
            if tensor.op is not None:
                snapshot.add_op(tensor, tensor.op, "output" if id(tensor) in results else "op")
        for output in outputs:
            snapshot.index_of(output, output.scope)
        return cls(tuple(snapshot.nodes), tuple(snapshot.edges))


class _Snapshot:
    """Nodes and edges so far, and the index that each Tensor or array has got."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.index: dict[int, int] = {}  # by id(): the outputs keep everything here alive

    def add_op(self, tensor: Tensor, op: Op, kind: Kind) -> None:
        """Add the call that made ``tensor``: first those arguments that are leaves, then itself."""
        values = [(i, a) for i, a in enumerate(tensor.inputs) if _is_node(a)]
        sources = [self.index_of(a, tensor.scope) for _, a in values]
        target = self._add(tensor, kind, tensor.scope, op.name, _label(op, tensor.inputs))
        shapes = [self.nodes[source].shape for source in sources]
        stretches = _stretches(op, shapes, self.nodes[target].shape)
        for (i, _), source, stretch in zip(values, sources, stretches, strict=True):
            self.edges.append(Edge(source, target, i, stretch))

    def index_of(self, value: Any, scope: tuple[str, ...]) -> int:
        """Return the index of ``value``; if it has none yet, it is a leaf, and is added.

        An array has no scope of its own: it gets that of its first use.
        """
        if id(value) in self.index:
            return self.index[id(value)]
        if not isinstance(value, Tensor):
            return self._add(value, "constant", scope)
        return self._add(value, "parameter" if value.kind == "parameter" else "input", value.scope)

    def _add(
        self, value: Any, kind: Kind, scope: tuple[str, ...], op: str | None = None, label: str = ""
    ) -> int:
        index = self.index[id(value)] = len(self.nodes)
        name = value.name if isinstance(value, Tensor) else None
        shape = tuple(value.shape)
        self.nodes.append(Node(index, kind, op, label, name, scope, shape, str(value.dtype)))
        return index


def _in_order(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Every Tensor that the outputs depend on, in order of creation, which is topological."""
    found = {id(output): output for output in outputs}
    pending = list(found.values())
    while pending:
        for a in pending.pop().inputs:
            if isinstance(a, Tensor) and id(a) not in found:
                found[id(a)] = a
                pending.append(a)
    return sorted(found.values(), key=attrgetter("time"))


def _is_node(argument: Any) -> bool:
    """Tensors and arrays (of any library) are nodes; scalars are not."""
    return isinstance(argument, Tensor) or (
        hasattr(argument, "shape") and not isinstance(argument, np.generic)
    )


def _label(op: Op, inputs: Sequence[Any]) -> str:
    """The op with its scalar arguments in place: ``+ 1e-05``, ``2 −``, ``where(·, ·, 0)``."""
    scalars = ["·" if _is_node(a) else _scalar(a) for a in inputs]
    if all(scalar == "·" for scalar in scalars):
        return op.label
    if len(inputs) == 2 and not op.label.isidentifier():
        return f"{scalars[0]} {op.label} {scalars[1]}".replace("·", "").strip()
    return f"{op.label}({', '.join(scalars)})"


def _scalar(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def _stretches(
    op: Op, shapes: Sequence[tuple[int, ...]], result: tuple[int, ...]
) -> Sequence[bool]:
    """Say of each argument whether the op broadcast it to the shape of its result.

    Broadcasting is what happened if the result has the shape that all arguments broadcast to;
    not so for ufuncs with a signature, such as matmul, where axes have roles of their own.
    """
    stretches = [shape != result for shape in shapes]
    if not any(stretches):
        return stretches
    try:
        broadcast = not getattr(op.fn, "signature", None) and np.broadcast_shapes(*shapes) == result
    except ValueError:  # these shapes do not broadcast, so the op is of another kind
        broadcast = False
    return stretches if broadcast else [False] * len(shapes)
