"""Collapsing: a scope drawn as one box, for pictures of what is too large to be shown in full."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..errors import OperandError, ShapeError
from .graph import Graph
from .parts import Edge, Node, Scope

Collapse = int | str | Iterable[int | str]


def collapsed(graph: Graph, which: Collapse) -> Graph:
    """Return ``graph`` with some scopes replaced by one node each, of the kind "scope".

    ``which`` is the name of scopes, or a level: 1 for the outermost scopes, 2 for those inside
    them; or several of these. The mirrored scopes of the backward pass go the same way. Parameters
    and nameless constants that nothing outside uses are collapsed with the scope. Raises a
    ShapeError (a ValueError) for a name that no scope has, an OperandError (a TypeError) for
    anything else.

    >>> import microbn as mb
    >>> x = mb.Tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True, name="x")
    >>> graph = mb.Graph.from_outputs(mb.batch_norm(x) * 2)
    >>> [(node.kind, node.title) for node in collapsed(graph, "batch_norm").nodes]
    [('input', 'x'), ('scope', 'batch_norm'), ('output', '× 2')]
    """
    chosen = _chosen(graph, which)
    owner = [_outermost(graph, node.place, chosen) for node in graph.nodes]
    _absorb_leaves(graph, owner)
    return _merge(graph, owner) if any(place is not None for place in owner) else graph


def fit(graph: Graph, limit: int) -> tuple[Graph, int]:
    """Collapse as little as brings ``graph`` down to ``limit`` nodes; say which level it was.

    If not even the outermost scopes do, that is what is returned; level 0 is no collapse.
    """
    if len(graph.nodes) <= limit:
        return graph, 0
    for level in range(max(map(len, _paths(graph)), default=0), 0, -1):
        smaller = collapsed(graph, level)
        if len(smaller.nodes) <= limit or level == 1:
            return smaller, level
    return graph, 0


def _paths(graph: Graph) -> list[tuple[str, ...]]:
    return [node.scope for node in graph.nodes]


def _chosen(graph: Graph, which: Collapse) -> set[int]:
    """Return the scopes that are meant."""
    several = not isinstance(which, int | str) and isinstance(which, Iterable)
    items = list(which) if several else [which]  # type: ignore[arg-type]
    chosen: set[int] = set()
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | str):
            raise OperandError(f"collapse takes names of scopes and levels, not {item!r}")
        if isinstance(item, int) and item < 1:
            raise ShapeError(f"collapse={item}: levels count from 1, the outermost scopes")
        found = {s.index for s in graph.scopes if _is_meant(graph, s, item)}
        if isinstance(item, str) and not found:
            known = ", ".join(sorted({s.name for s in graph.scopes})) or "none"
            raise ShapeError(f"no scope is called {item!r}; there are: {known}")
        chosen |= found
    return chosen


def _is_meant(graph: Graph, scope: Scope, item: int | str) -> bool:
    if isinstance(item, int):
        return _depth(graph, scope) == item
    return item in (scope.name, scope.name.removeprefix("d "))


def _depth(graph: Graph, scope: Scope) -> int:
    depth = 1
    while scope.parent is not None:
        scope, depth = graph.scopes[scope.parent], depth + 1
    return depth


def _outermost(graph: Graph, place: int | None, chosen: set[int]) -> int | None:
    """Return the outermost of the chosen scopes around a place."""
    found = None
    while place is not None:
        found = place if place in chosen else found
        place = graph.scopes[place].parent
    return found


def _absorb_leaves(graph: Graph, owner: list[int | None]) -> None:
    """Let parameters and constants that only one scope uses go with it."""
    users: dict[int, set[int | None]] = {}
    for edge in graph.edges:
        if graph.nodes[edge.target].part is None or graph.nodes[edge.source].part is not None:
            users.setdefault(edge.source, set()).add(owner[edge.target])
    for node in graph.nodes:
        nameless = node.kind == "constant" and not node.name
        if (node.kind == "parameter" or nameless) and len(users.get(node.index, ())) == 1:
            (owner[node.index],) = users[node.index]


def _merge(graph: Graph, owner: list[int | None]) -> Graph:
    """Put the nodes of each owner together, at the place of the last one."""
    last = {place: k for k, place in enumerate(owner) if place is not None}
    kept = [k for k, place in enumerate(owner) if place is None or last[place] == k]
    new = {k: i for i, k in enumerate(kept)}
    index = [new[k if place is None else last[place]] for k, place in enumerate(owner)]
    places = _renumber(graph, {place for place in owner if place is not None})
    nodes = []
    for k in kept:
        place = owner[k]
        node = graph.nodes[k] if place is None else _box(graph, owner, place)
        twin = None if node.twin is None else index[node.twin]
        via = None if node.via is None else index[node.via]
        of = tuple(dict.fromkeys(index[i] for i in node.of))
        where = None if node.place is None else places[node.place]
        nodes.append(replace(node, index=new[k], twin=twin, via=via, of=of, place=where))
    edges = dict.fromkeys(
        Edge(index[e.source], index[e.target], e.position, e.broadcast)
        for e in graph.edges
        if index[e.source] != index[e.target]
    )
    boxes = {new[k] for k in kept if owner[k] is not None}
    once = {(e.source, e.target, -1 if e.target in boxes else e.position): e for e in edges}
    scopes = tuple(
        replace(s, index=i, parent=None if s.parent is None else places[s.parent])
        for s, i in ((graph.scopes[k], i) for k, i in places.items())
    )
    ordered = sorted(once.values(), key=lambda e: (e.target, e.position, e.source))
    return Graph(tuple(nodes), tuple(ordered), scopes)


def _renumber(graph: Graph, gone: set[int]) -> dict[int, int]:
    """Number the scopes that are left: those that are not inside a collapsed one."""
    left = [s.index for s in graph.scopes if _outermost(graph, s.index, gone) is None]
    return {place: i for i, place in enumerate(left)}


def _box(graph: Graph, owner: list[int | None], place: int) -> Node:
    """Return the node that stands for a scope: what comes out of it, and what it has swallowed."""
    inside = [node for node, o in zip(graph.nodes, owner, strict=True) if o == place]
    ops = [node for node in inside if node.op is not None]
    scope, result = graph.scopes[place], inside[-1]
    exits = {e.source for e in graph.edges if owner[e.source] == place != owner[e.target]}
    exits |= {node.index for node in inside if node.kind == "output"}
    if len(exits) == 1:
        result = graph.nodes[exits.pop()]
    of = [node.via if node.via is not None else k for node in ops for k in node.of]
    return replace(
        result,
        kind="scope",
        op=None,
        label=f"{len(ops)} op{'s' * (len(ops) != 1)}",
        name=scope.title,
        scope=graph.nodes[inside[0].index].scope[: _depth(graph, scope) - 1],
        place=scope.parent,
        scalars={},
        params={},
        of=tuple(dict.fromkeys(of)) if result.part else (),
        part="rule" if result.part else None,
        via=None,
        twin=result.twin,
    )
