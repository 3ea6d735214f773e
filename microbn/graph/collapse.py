"""Collapsing: a scope drawn as one box, for pictures of what is too large to be shown in full."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import OperandError, ShapeError
from .graph import Graph
from .parts import Edge, Node, Scope
from .snapshot import prefix

Collapse = int | str | Iterable[int | str]
LIMIT = 150  # nodes in a picture that can still be read


def collapsed(graph: Graph, which: Collapse) -> Graph:
    """Return ``graph`` with some scopes replaced by one node each, of the kind "scope".

    ``which`` is the name of scopes, or a level: 1 for the outermost scopes, 2 for those inside
    them; or several of these. The mirrored scopes of the backward pass go the same way. Raises a
    ShapeError (a ValueError) for a name that no scope has, an OperandError (a TypeError) for
    anything else.

    A box shows the value that comes out of it. If several do, each is a node below it, with the op
    "result"; so is what is the cotangent of a node outside. Parameters and nameless constants that
    only boxes of one name use are inside each of these; a box lists the gradients of those inside.
    Sums of what comes from several boxes are outside them all. In ``params`` of a box, ``ops``
    counts its ops; ``result`` names the value that comes out: "" if it has no name, None if no
    value does, or several; ``output`` says whether that is an output; ``gradients`` are pairs of
    name and shape.

    >>> import microbn as mb
    >>> x = mb.Tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True, name="x")
    >>> graph = mb.Graph.from_outputs(mb.batch_norm(x) * 2)
    >>> [(node.kind, node.title) for node in collapsed(graph, "batch_norm").nodes]
    [('input', 'x'), ('scope', 'batch_norm'), ('output', '× 2')]
    """
    return boxed(graph, _chosen(graph, which)).graph


@dataclass(frozen=True, slots=True)
class Boxed:
    """A collapsed graph, and what its parts stand for, by index in the whole graph.

    Each of ``nodes`` stands for itself, or if it is a box, for all inside that is not a node of its
    own; a leaf may be in several. ``places`` has the scope that a box is, None for other nodes;
    ``scopes`` are those that are left.
    """

    graph: Graph
    nodes: tuple[tuple[int, ...], ...]
    places: tuple[int | None, ...]
    scopes: tuple[int, ...]


def boxed(graph: Graph, chosen: Collection[int]) -> Boxed:
    """Collapse the scopes with these indexes."""
    owner = [_outermost(graph, node.place, chosen) for node in graph.nodes]
    if any(o is not None for o in owner):
        return _Boxes(graph, owner).boxed()
    nodes = tuple((node.index,) for node in graph.nodes)
    return Boxed(graph, nodes, (None,) * len(nodes), tuple(range(len(graph.scopes))))


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


def _outermost(graph: Graph, place: int | None, chosen: Collection[int]) -> int | None:
    """Return the outermost of the chosen scopes around a place."""
    found = None
    while place is not None:
        found = place if place in chosen else found
        place = graph.scopes[place].parent
    return found


class _Boxes:
    """What is inside which box, and what comes out of it.

    ``owner`` has the collapsed scope around each node, ``box`` the one whose box it is part of.
    ``homes`` are the boxes of a leaf that is inside of some. ``sums`` are the sums taken out of
    their box, ``out`` the values that are nodes of their own below it. ``result`` is the value
    that a box shows itself. ``members`` are the ops of each box, with those that are in ``out``.
    """

    def __init__(self, graph: Graph, owner: list[int | None]) -> None:
        self.whole, self.nodes, self.owner = graph, graph.nodes, owner
        self.box = [None if _is_leaf(n) else o for n, o in zip(graph.nodes, owner, strict=True)]
        self.sources: dict[int, list[int]] = defaultdict(list)
        self.users: dict[int, list[int]] = defaultdict(list)
        for edge in graph.edges:
            self.sources[edge.target].append(edge.source)
            if not self._is_saved_in_box(edge):
                self.users[edge.source].append(edge.target)
        self.homes = self._fold_leaves()
        self.sums = self._take_out_sums()
        self.out: set[int] = set()
        self.result: dict[int, int] = {}
        self.members: dict[int, list[int]] = defaultdict(list)
        self._find_results()

    def _is_saved_in_box(self, edge: Edge) -> bool:
        """Whether a value of the forward pass is used by a box of the backward pass."""
        source, target = self.nodes[edge.source], self.nodes[edge.target]
        saved = source.part is None and target.part is not None
        return saved and self.box[edge.target] is not None

    # What is inside ------------------------------------------------------------------------------

    def _fold_leaves(self) -> dict[int, list[int]]:
        """Find the leaves that are inside boxes: nothing else uses them."""
        twins = {node.twin for node in self.nodes}
        homes = {}
        for leaf in filter(_is_leaf, self.nodes):
            boxes = list(dict.fromkeys(self.box[k] for k in self.users[leaf.index]))
            kind = leaf.part if leaf.part else leaf.kind
            nameless = kind == "constant" and (not leaf.name or leaf.part is not None)
            shared = kind == "parameter" or (nameless and leaf.index not in twins)
            within = self.owner[leaf.index] in boxes and len(boxes) == 1
            places = [place for place in boxes if place is not None]
            titles = {self.whole.scopes[place].title for place in places}
            if len(places) == len(boxes) and (within or (shared and len(titles) == 1)):
                homes[leaf.index] = places
        return homes

    def _take_out_sums(self) -> set[int]:
        """Take those sums out of a box where what comes from elsewhere joins what leaves it."""
        joined: set[int] = set()
        for k, box in enumerate(self.box):
            is_sum = box is not None and self.nodes[k].part == "accumulation"
            if is_sum and any(self.box[s] != box or s in joined for s in self.sources[k]):
                joined.add(k)
        sums = set()
        for k in sorted(joined, reverse=True):
            if all(self.box[user] != self.box[k] for user in self.users[k]):
                self.box[k] = None
                sums.add(k)
        return sums

    # What comes out ------------------------------------------------------------------------------

    def _find_results(self) -> None:
        """Say of each box which value it shows itself, and which are nodes of their own."""
        alone = [n for n in self.nodes if self.box[n.index] is None and n.index not in self.homes]
        pinned = {node.twin for node in alone}
        for k, box in enumerate(self.box):
            if box is not None:
                self.members[box].append(k)
        for box, inside in self.members.items():
            self.out |= {k for k in inside if k in pinned}
            rest = [k for k in inside if k not in pinned and self._leaves(k)]
            final = [k for k in rest if not self._is_summand(k)]
            if len(final or rest) == 1:
                self.result[box] = (final or rest)[0]
            else:
                self.out.update(final)
                pinned |= {self.nodes[k].twin for k in final}

    def _leaves(self, k: int) -> bool:
        """Whether a value is used outside of its box."""
        outside = any(self.box[user] != self.box[k] for user in self.users[k])
        return outside or self.nodes[k].kind == "output"

    def _is_summand(self, k: int) -> bool:
        """Whether all that leaves the box is a contribution to sums outside."""
        users = {user for user in self.users[k] if self.box[user] != self.box[k]}
        return users <= self.sums and self.nodes[k].kind != "output"

    # The new graph -------------------------------------------------------------------------------

    def boxed(self) -> Boxed:
        """Put it together: each box at the place of its last op, then what comes out of it."""
        last = {o: k for k, o in enumerate(self.owner) if not _is_leaf(self.nodes[k])}
        order: list[tuple[int, int, int]] = []  # place, place below a box, node or scope
        for k, box in enumerate(self.box):
            if k in self.out or k in self.sums:
                order.append((last[self.owner[k]], k + 1, k))
            elif box is None and k not in self.homes:
                order.append((k, 0, k))
        order += [(last[box], 0, -1 - box) for box in self.members]
        order.sort()
        self.index = {k: i for i, (*_, k) in enumerate(order)}
        gone = {o for o in self.owner if o is not None}
        left = [s for s in self.whole.scopes if _outermost(self.whole, s.index, gone) is None]
        self.places = {scope.index: i for i, scope in enumerate(left)}
        nodes = [self._node(k) if k >= 0 else self._box(-1 - k) for *_, k in order]
        scopes = [
            replace(s, index=i, parent=None if s.parent is None else self.places[s.parent])
            for i, s in enumerate(left)
        ]
        nodes = [replace(node, index=i) for i, node in enumerate(nodes)]
        small = Graph(tuple(nodes), self._edges(), tuple(scopes))
        inside = self._contents()
        return Boxed(
            small,
            tuple((k,) if k >= 0 else tuple(inside[-1 - k]) for *_, k in order),
            tuple(None if k >= 0 else -1 - k for *_, k in order),
            tuple(self.places),
        )

    def _contents(self) -> dict[int, list[int]]:
        """Return what is inside of each box and nowhere else to be seen."""
        contents: dict[int, list[int]] = defaultdict(list)
        for k, box in enumerate(self.box):
            own = [] if box is None or k in self.out else [box]
            for place in self.homes.get(k, own):
                contents[place].append(k)
        return contents

    def _at(self, k: int) -> int:
        """Return the index of the node that stands for an op or a leaf that is not inside."""
        box = self.box[k]
        return self.index[k] if box is None or k in self.out else self.index[-1 - box]

    def _edges(self) -> tuple[Edge, ...]:
        """Connect what is left; the edges into a box say from where, and no more."""
        edges: dict[tuple[int, ...], Edge] = {}
        for e in self.whole.edges:
            box = self.box[e.target]
            if e.source in self.homes or (box is not None and self.box[e.source] == box):
                continue
            source = self._at(e.source)
            if box is None:
                target = self.index[e.target]
                edges[source, target, e.position] = Edge(source, target, e.position, e.broadcast)
            else:
                target = self.index[-1 - box]
                edges.setdefault((source, target), Edge(source, target, e.position, False))
        for k in self.out:
            source, target = self.index[-1 - self.box[k]], self.index[k]  # type: ignore[operator]
            edges[source, target] = Edge(source, target, 0, False)
        return tuple(sorted(edges.values(), key=lambda e: (e.target, e.position, e.source)))

    def _node(self, k: int) -> Node:
        """Return a node that is left, its links changed; what comes out of a box as a result."""
        node = self.nodes[k]
        if k in self.out:
            node = replace(node, op="result", label="result", scalars={}, params={})
            node = replace(node, part="rule" if node.part else None)
        alone = all(i in self.index for i in self._twins(k))
        name = node.name if alone else self._cotangent(k) or node.name
        owner, place, scope = self.owner[k], node.place, node.scope
        if owner is not None:
            place = self.whole.scopes[owner].parent
            scope = scope[: _depth(self.whole, self.whole.scopes[owner]) - 1]
        return replace(
            node,
            name=name,
            scope=scope,
            place=None if place is None else self.places[place],
            of=self._of(node.of),
            via=None if node.via is None else self._at(node.via),
            twin=self._twin(node),
        )

    def _box(self, place: int) -> Node:
        """Return the node that stands for a scope."""
        inside = [self.nodes[k] for k in self.members[place]]
        ops = sum(node.params.get("ops", 1) for node in inside if node.op != "result")
        scope, last, k = self.whole.scopes[place], inside[-1], self.result.get(place)
        result = replace(last, shape=(), value=None, cotangent=None) if k is None else self.nodes[k]
        of = [node.via if node.via is not None else i for node in inside for i in node.of]
        return replace(
            result,
            kind="scope",
            op=None,
            label=f"{ops} op{'s' * (ops != 1)}",
            name=scope.title,
            scope=last.scope[: _depth(self.whole, scope) - 1],
            place=None if scope.parent is None else self.places[scope.parent],
            scalars={},
            params={
                "ops": ops,
                "result": None if k is None else self._name(k),
                "output": result.kind == "output" and k is not None,
                "gradients": self._gradients(inside, k),
            },
            part="rule" if last.part else None,
            of=self._of(of) if last.part else (),
            via=None,
            route=None,
            twin=None if k is None else self._twin(result),
        )

    def _of(self, of: Iterable[int]) -> tuple[int, ...]:
        """Return what stands for forward nodes: for a leaf that is inside, each of its boxes."""
        found = []
        for k in of:
            places = self.homes.get(k)
            found += [self._at(k)] if places is None else [self.index[-1 - p] for p in places]
        return tuple(dict.fromkeys(found))

    def _twin(self, node: Node) -> int | None:
        """Return the node that shows the cotangent of a node, if one does."""
        if node.twin is None or node.twin in self.index:
            return None if node.twin is None else self.index[node.twin]
        box = self.box[node.twin]
        shown = box is not None and self.result.get(box) == node.twin
        return self._at(node.twin) if shown else None

    # Names ---------------------------------------------------------------------------------------

    def _gradients(self, inside: list[Node], result: int | None) -> tuple[tuple[Any, ...], ...]:
        """Return name and shape of the cotangents of leaves that are in a box, and stay there."""
        found = []
        for node in inside:
            if node.kind == "scope":
                found += node.params.get("gradients", ())
            if node.index != result and node.index not in self.out:
                leaves = [k for k in self._twins(node.index) if k in self.homes]
                found += [(f"{prefix(node)} {self._full_name(k)}", node.shape) for k in leaves]
        return tuple(found)

    def _twins(self, k: int) -> list[int]:
        """Return the forward nodes that a node is the cotangent of."""
        node = self.nodes[k]
        return [i for i in node.of if self.nodes[i].twin == k] if node.part else []

    def _name(self, k: int) -> str:
        """Name the value that a box shows; a contribution, after the sum that it goes into."""
        node = self.nodes[k]
        if self._is_summand(k) and node.name and node.via is not None:
            twin, via = self.nodes[node.of[0]].twin, self.nodes[node.via]
            if twin in self.sums and via.op and not self._twins(k):
                return f"{self._cotangent(twin)} via {via.op}"
        return self._cotangent(k) or node.name or ""

    def _cotangent(self, k: int) -> str:
        """Name a cotangent after all that can be seen, or else after the box that it is of."""
        names, boxes, d = [], [], prefix(self.nodes[k])
        for i in self._twins(k):
            node, box = self.nodes[i], self.box[i]
            if i in self.homes:
                names.append(f"{d} {self._full_name(i)}")
            elif box is None or i in self.out or self.result.get(box) == i:
                names += [f"{d} {node.name}"] * bool(node.name)
                boxes.append(node.title if box is None else self.whole.scopes[box].title)
        return " = ".join(dict.fromkeys(names)) or "".join(f"{d} ({title})" for title in boxes[:1])

    def _full_name(self, k: int) -> str:
        """Name a leaf as it is called from outside, ``0.weight``, if it is not yet."""
        name = self.nodes[k].name or self.nodes[k].kind
        return name if "." in name else ".".join([*self.nodes[k].scope, name])


def _is_leaf(node: Node) -> bool:
    return node.op is None and node.kind != "scope"
