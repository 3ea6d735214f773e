"""The graph as data: a plain snapshot of what was recorded, independent of the engine afterwards.

Everything that looks (drawings, text, stepping) is a function of a `Graph`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import OperandError, ShapeError
from ..tensor import Tensor
from . import portable
from .asused import as_used
from .backward import Backward
from .parts import Edge, Node, Scope
from .snapshot import Notes, Snapshot
from .text import tree


@dataclass(frozen=True, slots=True, repr=False)
class Graph:
    """Nodes in order of computation, edges in order of their target and position, and scopes.

    `Node`, `Edge` and `Scope` refer to one another by index. ``str(graph)`` is a tree of it all.

    >>> import microbn as mb
    >>> x = mb.Tensor([3.0, 4.0], requires_grad=True, name="x")
    >>> graph = mb.Graph.from_outputs((x * x).mean() / 2)
    >>> graph
    <Graph: 4 nodes, 4 edges>
    >>> [node.title for node in graph.nodes]
    ['x', '×', 'mean', '÷ 2']
    >>> [(edge.source, edge.target) for edge in graph.edges]
    [(0, 1), (0, 1), (1, 2), (2, 3)]
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    scopes: tuple[Scope, ...] = ()

    def __repr__(self) -> str:
        nodes, edges = len(self.nodes), len(self.edges)
        return f"<Graph: {nodes} node{'s' * (nodes != 1)}, {edges} edge{'s' * (edges != 1)}>"

    def __str__(self) -> str:
        return tree(self)

    @classmethod
    def from_outputs(
        cls,
        *outputs: Tensor,
        backward: bool = False,
        grad_output: Any = None,
        notes: Notes | None = None,
    ) -> Graph:
        """Take a snapshot of everything recorded on the way to ``outputs``.

        Arrays among the arguments become constants; Python and NumPy scalars fold into labels.
        Leaves hold what was computed with, also if they were given other data since.
        With ``backward=True`` the backward pass of the (only) output is recorded as well, and its
        nodes follow the forward ones. It starts from ``grad_output``; without one, from the
        gradient that an earlier ``backward(dy)`` left at the output, from 1 if that is a single
        number, else from random numbers, the same every time. ``notes`` (from a trace) add names
        and lines of source.

        Raises an OperandError (a TypeError) if an output is not a Tensor, a ShapeError (a
        ValueError) for no output, several with ``backward=True``, or a ``grad_output`` of the
        wrong shape, a GradientError (a RuntimeError) if there is nothing to differentiate.

        >>> import microbn as mb
        >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
        >>> graph = mb.Graph.from_outputs((x * x).named("y"), backward=True)
        >>> [node.title for node in graph.nodes if node.part]
        ['d y', 'd x via mul', 'd x via mul', 'd x']
        """
        if not outputs:
            raise ShapeError("a graph needs at least one output; give the Tensors to look at")
        for output in outputs:
            if not isinstance(output, Tensor):
                raise OperandError(
                    f"a graph is recorded by Tensors, and an output is a {type(output).__name__}; "
                    "give the Tensor that the computation ended in"
                )
        if backward and len(outputs) > 1:
            raise ShapeError(
                f"a backward pass starts from one output, not from {len(outputs)}; "
                "give one of them, or their sum"
            )
        outputs, notes, _ = as_used(outputs, notes or Notes())
        snapshot = Snapshot(notes)
        snapshot.add_forward(outputs)
        if backward:
            snapshot.add_backward(Backward(outputs[0], grad_output))
        return cls(tuple(snapshot.nodes), tuple(snapshot.edges), tuple(snapshot.scopes))

    def to_dict(self, *, limit: int = 1000) -> dict[str, Any]:
        """Return the graph as plain lists, dicts, strings and numbers, ready for JSON.

        Arrays of at most ``limit`` entries are written out, of larger ones a digest (mean,
        standard deviation, smallest, largest, share of zeros). docs/graph.md describes the format.

        >>> import json, microbn as mb
        >>> graph = mb.Graph.from_outputs(mb.Tensor([3.0, 4.0], requires_grad=True) * 2)
        >>> mb.Graph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph
        True
        """
        return portable.to_dict(self, limit)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Graph:
        """Return the graph that `to_dict` has written; arrays of which only a digest is left: None.

        Raises a ValueError if ``state`` is no such dict, or of another version.
        """
        return cls(*portable.from_dict(state))
