"""The pictures of a page, laid out beforehand: boxes, paths and texts as plain numbers.

A view is the forward graph with some scopes closed, each drawn as one box. The page builds its SVG
from the numbers, so whatever text there is stays data.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from math import dist, hypot
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..collapse import LIMIT, Boxed, boxed
from ..dot import Style, to_dot
from ..graph import Graph
from ..heatmap import NUMBER
from ..layout import SVG, LayoutError, layout

MOST = 600  # nodes in a picture, if there is none that can be read
VIEWS, TOTAL = 16, 1000  # about as many views, and nodes in all of them
TIMEOUT = 10.0  # seconds for one layout
SPACES = 2.2  # points: half of the two spaces before a label, which keep it off its edge
FLAT = 0.3  # points that a curve may differ from a line to be written as one

Use = tuple[int, int]  # an edge: its target, and the position of the argument
Point = tuple[float, float]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Box:
    """A drawn node: the forward node ``i``, or ``p``, a closed scope, with all nodes ``of`` it.

    A leaf with many uses is drawn several times. What comes out of a closed scope may be a node
    below its box, and is then not among those of the box, of which there may be none left.
    """

    i: int | None
    p: int | None
    x: float
    y: float
    w: float
    h: float
    kind: str
    text: tuple[str, ...]
    of: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Arrow:
    """A drawn path ``d`` from border to border, without its tip, and the edges that it stands for.

    Each is the index of a forward node and the position of the argument. The ``label`` of one that
    broadcasts is a text, and where it stands: its middle, and its baseline.
    """

    of: tuple[Use, ...]
    d: str
    kind: str
    label: tuple[str, float, float] | None


@dataclass(frozen=True, slots=True)
class Region:
    """The rectangle around an open scope ``p``."""

    p: int
    x: float
    y: float
    w: float
    h: float
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """The forward graph with the scopes ``closed``, in points; the origin is the top left."""

    closed: tuple[int, ...]
    w: float
    h: float
    nodes: tuple[Box, ...]
    edges: tuple[Arrow, ...]
    scopes: tuple[Region, ...]

    def as_data(self) -> dict[str, Any]:
        """Return the same as plain containers, ready for JSON."""
        return asdict(self)


def views(graph: Graph, *, limit: int = LIMIT) -> list[View]:
    """Lay out the forward nodes of ``graph``, with some of its scopes closed in each view.

    First all are open, then all closed, then each by itself. If there are more than ``limit``
    nodes, first all are closed; then each is open, with those around it, and all others closed, if
    that leaves at most ``limit`` nodes. There are about 16 views at most, and none of what is too
    large for a picture, or what no engine could lay out.

    >>> import microbn as mb
    >>> x = mb.Tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True, name="x")
    >>> graph = mb.Graph.from_outputs(mb.batch_norm(x), backward=True)
    >>> [(view.closed, len(view.nodes)) for view in views(graph)]
    [((), 9), ((0,), 2)]
    """
    graph = _forward(graph)
    scopes = _Scopes(graph)
    top = scopes.around(None)
    if len(graph.nodes) <= limit:
        return _drawn(graph, [(), top, *((place,) for place in scopes.order)], limit)
    found = _drawn(graph, scopes.openings(limit), limit)
    return found if len(found) > 1 else _drawn(graph, [top, ()], MOST)


def _forward(graph: Graph) -> Graph:
    """Return the forward part, which comes first, so that indexes stay as they are."""
    nodes = [replace(n, twin=None, cotangent=None) for n in graph.nodes if n.part is None]
    edges = [e for e in graph.edges if e.target < len(nodes)]
    return Graph(tuple(nodes), tuple(edges), graph.scopes)


# Which views -------------------------------------------------------------------------------------


class _Scopes:
    """The scopes in which something is computed: what is in each, and all from the outermost on."""

    def __init__(self, graph: Graph) -> None:
        self.parent = {scope.index: scope.parent for scope in graph.scopes}
        self.ops: Counter[int | None] = Counter()  # in each, and in those inside of it
        for node in graph.nodes:
            if node.op is not None:
                self.ops.update(self.path(node.place))
        self.children: dict[int | None, list[int]] = defaultdict(list)
        for place in sorted(place for place in self.ops if place is not None):
            self.children[self.parent[place]].append(place)
        self.order = list(self.children[None])
        for place in self.order:  # which grows
            self.order += self.children[place]

    def path(self, place: int | None) -> list[int | None]:
        """Go from a scope outwards; None is the whole."""
        path = [place]
        while place is not None:
            place = self.parent[place]
            path.append(place)
        return path

    def around(self, place: int | None) -> tuple[int, ...]:
        """Return what is closed if only one scope is open, with those that it is in."""
        opened = self.path(place)
        inside = {child for outer in opened for child in self.children[outer]}
        return tuple(sorted(inside.difference(opened)))

    def openings(self, most: int) -> Iterator[tuple[int, ...]]:
        """Return what is closed with none open, then with each, as far as ``most`` nodes suffice.

        Where they do not, they do not for the scopes inside either.
        """
        places: list[int | None] = [None]
        for place in places:  # which grows
            closed = self.around(place)
            if self.at_least(closed) <= most:
                places += self.children[place]
                yield closed

    def at_least(self, closed: Collection[int]) -> int:
        """Count ops and boxes, which is quick: how many leaves there are is known only later."""
        return self.ops[None] - sum(self.ops[place] for place in closed) + len(closed)


def _drawn(graph: Graph, choices: Iterable[tuple[int, ...]], most: int) -> list[View]:
    """Lay out the graph with each choice of closed scopes, if it has at most ``most`` nodes then.

    Where a layout fails, others of that size are not tried: they may take as long to fail.
    """
    found: dict[tuple[int, ...], View] = {}
    total = 0
    for closed in choices:
        if closed in found:
            continue
        small = boxed(graph, set(closed))
        size = len(small.graph.nodes)
        if size > most:
            continue
        if len(found) == VIEWS or total + size > TOTAL:
            break
        try:
            found[closed] = _view(graph, small, closed)
            total += size
        except LayoutError:
            most = size - 1
    return list(found.values())


# From the layout to numbers ----------------------------------------------------------------------


def _view(graph: Graph, small: Boxed, closed: tuple[int, ...]) -> View:
    source, _ = to_dot(small.graph, Style())
    svg = layout(source, "svg", timeout=TIMEOUT)
    return _Reader(svg, small, _carried(graph, small)).view(closed)


class _Reader:
    """Reads the SVG of a graph with boxes; ``carried`` has the edges that paths stand for."""

    def __init__(self, svg: bytes, small: Boxed, carried: dict[tuple[int, int], list[Use]]) -> None:
        self.small, self.nodes, self.carried = small, small.graph.nodes, carried
        self.svg = ElementTree.fromstring(svg)
        self.groups: dict[str, list[Element]] = defaultdict(list)
        for group in self.svg.iter(SVG + "g"):
            self.groups[(group.get("class") or "").partition(" ")[0]].append(group)
        (page,) = self.groups["graph"]
        self.shift = _floats(page.get("transform"))[-2:]
        self.where = {_title(group): self.rectangle(group) for group in self.groups["node"]}

    def view(self, closed: tuple[int, ...]) -> View:
        """Return it all as numbers."""
        *_, w, h = _floats(self.svg.get("viewBox"))
        return View(
            closed,
            _rounded(w),
            _rounded(h),
            tuple(map(self.box, self.groups["node"])),
            tuple(map(self.arrow, self.groups["edge"])),
            tuple(map(self.region, self.groups["cluster"])),
        )

    def box(self, group: Element) -> Box:
        """Read a node: n3, or n3_7 for the copy of leaf 3 that op 7 uses."""
        k = _indexes(group)[0]
        place, of = self.small.places[k], self.small.nodes[k]
        alone = of[0] if place is None else None
        return Box(alone, place, *self.frame(group), self.nodes[k].kind, _texts(group), of)

    def region(self, group: Element) -> Region:
        """Read the cluster of a scope: s2."""
        place = self.small.scopes[_indexes(group)[0]]
        return Region(place, *self.frame(group), " ".join(_texts(group)))

    def arrow(self, group: Element) -> Arrow:
        """Read an edge: e7_0, or e7_0_3 if node 7 is a box."""
        target, position, *_ = _indexes(group)
        tail, head = _title(group).split("->")
        source = int(tail.removeprefix("n").partition("_")[0])
        if self.small.places[target] is not None or self.nodes[target].op == "result":
            of = tuple(self.carried[source, target])  # as many as there are, or none
        else:
            of = ((self.small.nodes[target][0], position),)
        d = self.path(group, self.where[tail], self.where[head])
        return Arrow(of, d, self.nodes[source].kind, self.label(group))

    def path(self, group: Element, source: Rectangle, target: Rectangle) -> str:
        """Write the line up to the tip of its arrow, both ends moved to the borders.

        Graphviz stops earlier, by the width of the lines.
        """
        curve = self.points(group, "path")
        tip = max(self.points(group, "polygon"), key=lambda point: dist(point, curve[-1]))
        start, end = _nearest(curve[0], source), _nearest(tip, target)
        if all(_distance(point, start, end) < FLAT for point in curve):
            return f"M{_written(start)}L{_written(end)}"
        return f"M{_written(start)}C{' '.join(map(_written, curve[1:]))}L{_written(end)}"

    def label(self, group: Element) -> tuple[str, float, float] | None:
        """Read what is written beside an edge."""
        text = group.find(f".//{SVG}text")
        if text is None:
            return None
        x, y = (float(text.get(key, "0")) + by for key, by in zip("xy", self.shift, strict=True))
        return (text.text or "").strip(), _rounded(x + SPACES), _rounded(y)

    def frame(self, group: Element) -> Rectangle:
        """Return left, top, width and height."""
        left, top, right, bottom = self.rectangle(group)
        return _rounded(left), _rounded(top), _rounded(right - left), _rounded(bottom - top)

    def rectangle(self, group: Element) -> Rectangle:
        """Return left, top, right and bottom; corners may be round, but do not reach outside."""
        across, down = zip(*self.points(group, "polygon", "path"), strict=True)
        return min(across), min(down), max(across), max(down)

    def points(self, group: Element, *tags: str) -> list[Point]:
        """Return the corners of the first polygon, or the ends and control points of a path."""
        shape = next(e for e in group.iter() if e.tag.removeprefix(SVG) in tags)
        numbers = _floats(shape.get("points") or shape.get("d"))
        dx, dy = self.shift
        return [(x + dx, y + dy) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def _carried(graph: Graph, small: Boxed) -> dict[tuple[int, int], list[Use]]:
    """Sort the edges of the whole graph by the nodes, from and to, whose path stands for them.

    What an op below its box has from outside goes into the box; the path from the box down to it
    stands for what it has from inside, and for its own use there.
    """
    shown: dict[int, set[int]] = defaultdict(set)
    for k, inside in enumerate(small.nodes):
        for old in inside:
            shown[old].add(k)
    results = {node.index for node in small.graph.nodes if node.op == "result"}
    above = {e.target: e.source for e in small.graph.edges if e.target in results}
    carried: dict[tuple[int, int], list[Use]] = defaultdict(list)
    for e in graph.edges:
        (target,) = shown[e.target]
        box = above.get(target, target)
        source = box if box in shown[e.source] else min(shown[e.source])  # of several, its own
        if above.get(source, source) == box:
            ends = box, target if target != box else source
        else:
            ends = source, box
        carried[ends].append((e.target, e.position))
    return carried


def _indexes(group: Element) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", group.get("id", ""))]


def _title(group: Element) -> str:
    return group.findtext(SVG + "title") or ""


def _texts(group: Element) -> tuple[str, ...]:
    return tuple(t.text or "" for t in group.iter(SVG + "text"))


def _floats(text: str | None) -> list[float]:
    return [float(number) for number in NUMBER.findall(text or "")]


def _rounded(length: float) -> float:
    return round(length, 1) + 0.0  # no -0.0


def _written(point: Point) -> str:
    return ",".join(f"{_rounded(length):g}" for length in point)


def _nearest(point: Point, border: Rectangle) -> Point:
    """Return the nearest point of a rectangle, which is on its border if ``point`` is outside."""
    (x, y), (left, top, right, bottom) = point, border
    return min(max(x, left), right), min(max(y, top), bottom)


def _distance(point: Point, a: Point, b: Point) -> float:
    """Return the distance from the line through two points."""
    across, down = b[0] - a[0], b[1] - a[1]
    area = across * (point[1] - a[1]) - down * (point[0] - a[0])
    return abs(area) / (hypot(across, down) or 1)
