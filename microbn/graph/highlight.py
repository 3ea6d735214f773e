"""What a picture points at: nodes, paths, and the share of the gradient that each edge carries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import OperandError, ShapeError
from .graph import Graph
from .parts import Edge, Node

Highlight = int | str | Iterable[int | str]


@dataclass
class Marks:
    """Indexes of the nodes to point at, the edges, and the shares to write on edges."""

    nodes: set[int] = field(default_factory=set)
    edges: set[Edge] = field(default_factory=set)
    shares: dict[Edge, float] = field(default_factory=dict)


def mark(graph: Graph, highlight: Highlight) -> Marks:
    """Find what ``highlight`` names: nodes by name or index, paths as ``"x -> mean -> centered"``.

    With a backward graph, the way of the cotangent back along a path is marked as well, with its
    share of the gradient wherever it meets others. Raises a ShapeError (a ValueError) for what is
    not in the graph, an OperandError (a TypeError) for what is no name and no index.

    >>> import microbn as mb
    >>> x = mb.Tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True, name="x")
    >>> sorted(mark(mb.Graph.from_outputs(mb.batch_norm(x)), "x -> mean -> centered").nodes)
    [0, 1, 2]
    """
    marks = Marks()
    if highlight == "":
        raise ShapeError("highlight='' names nothing; give the name of a node, or a path")
    several = not isinstance(highlight, int | str) and isinstance(highlight, Iterable)
    for item in highlight if several else [highlight]:  # type: ignore[union-attr]
        if isinstance(item, str) and ("->" in item or "→" in item):
            for edge in _path(graph, item):
                marks.nodes |= {edge.source, edge.target}
                marks.edges.add(edge)
                _mark_back(graph, edge, marks)
        else:
            marks.nodes |= set(_find(graph, item))
    return marks


def _find(graph: Graph, item: Any) -> list[int]:
    """Return the nodes of a name; if there are none, those with such a label or op."""
    if isinstance(item, bool) or not isinstance(item, int | str):
        raise OperandError(f"highlight takes names, paths and indexes of nodes, not {item!r}")
    if isinstance(item, int):
        if not 0 <= item < len(graph.nodes):
            raise ShapeError(f"highlight={item}: the nodes are 0 to {len(graph.nodes) - 1}")
        return [item]
    for key in ("name", "label", "op"):
        if found := [n.index for n in graph.nodes if getattr(n, key) == item]:
            return found
    known = ", ".join(dict.fromkeys(n.title for n in graph.nodes if n.title)) or "none"
    raise ShapeError(f"nothing in the graph is called {item!r}; the names are: {known}")


def _path(graph: Graph, text: str) -> list[Edge]:
    """Return the edges of a path; of all such paths, where names fit several nodes."""
    names = [name.strip() for name in text.replace("→", "->").split("->")]
    if not all(names):
        raise ShapeError(f"the path {text!r} lacks a name; a path is 'x -> mean -> centered'")
    steps = [set(_find(graph, name)) for name in names]
    ways: list[list[Edge]] = []
    reached = steps[0]
    for name, ends in zip(names[1:], steps[1:], strict=True):
        onward = [e for e in graph.edges if e.source in reached]
        if not (way := [e for e in onward if e.target in ends]):
            there = ", ".join(dict.fromkeys(graph.nodes[e.target].title for e in onward))
            raise ShapeError(
                f"no edge leads to {name!r} on the path {text!r}, only to: {there or 'nowhere'}"
            )
        ways.append(way)
        reached = {e.target for e in way}
    for k in range(len(ways) - 1, 0, -1):  # without those that lead nowhere
        used = {e.source for e in ways[k]}
        ways[k - 1] = [e for e in ways[k - 1] if e.target in used]
    return [e for way in ways for e in way]


def _mark_back(graph: Graph, edge: Edge, marks: Marks) -> None:
    """Mark the way of the cotangent back along ``edge``, up to where it is final."""
    source, target = graph.nodes[edge.source], graph.nodes[edge.target]
    if source.twin is None or target.twin is None:
        return
    steps = {n.index for n in graph.nodes if _belongs(n, edge) and n.part != "accumulation"}
    sums = [n.index for n in graph.nodes if n.part == "accumulation" and edge.source in n.of]
    inside = {target.twin} | steps
    entered = False
    for e in graph.edges:
        if e.target in steps and e.source in inside:
            marks.edges.add(e)
        if e.target in sums:
            arriving = e.source in inside and _arrives(graph, e, edge)
            if arriving or (entered and e.source in sums):
                marks.edges.add(e)
                entered = True
                inside.add(e.target)
            if arriving:
                marks.shares[e] = _share(graph, graph.nodes[e.source], edge.source)
    marks.nodes |= inside


def _belongs(node: Node, edge: Edge) -> bool:
    return edge.source in node.of and node.via == edge.target and node.route == edge.position


def _arrives(graph: Graph, e: Edge, edge: Edge) -> bool:
    """Whether what enters a sum along ``e`` is what came back along ``edge``."""
    into = graph.nodes[e.target]
    if e.position == 1:  # the later one, which the sum is named after
        return _belongs(into, edge)
    first = graph.nodes[e.source]
    alone = first.part != "accumulation" or edge.source not in first.of
    return alone and (_belongs(first, edge) or edge.target in first.of)


def _share(graph: Graph, part: Node, source: int) -> float:
    """Return how large ``part`` is among all that comes to the cotangent of ``source``.

    Sizes are sums of absolute values, so that the shares sum to 1. (Lengths along the sum would,
    too, but in batch norm what comes through the variance is at right angles to it.)
    """
    sums = {n.index for n in graph.nodes if n.part == "accumulation" and source in n.of}
    arriving = [e.source for e in graph.edges if e.target in sums and e.source not in sums]
    sizes = [_size(graph.nodes[k]) for k in arriving]
    with np.errstate(all="ignore"):
        return float(np.divide(_size(part), np.sum(sizes)))


def _size(node: Node) -> float:
    return np.nan if node.value is None else float(np.abs(node.value).sum(dtype=np.float64))
