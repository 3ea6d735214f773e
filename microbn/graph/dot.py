"""The graph as DOT, Graphviz's language: what the picture shows and how it looks, but not where.

Labels are plain text, since not every layout engine draws HTML-like ones. `id` and `class` come
out in the SVG, where scripts and style sheets can address them. Equal graphs give equal text.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal
from unicodedata import east_asian_width

import graphviz  # type: ignore[import-untyped]

from .columns import Columns
from .graph import Graph
from .heatmap import Table, fits, measure
from .highlight import Marks
from .labels import beneath, called, heading, shape, short, summary
from .parts import Edge, Node
from .theme import CLUSTER, EDGE, FONT, GRAPH, NODE, PALETTES, Theme

STRAIGHT = 100  # times more weight for an edge in a column, so that the others bend around it
LINE = 100  # characters shown of a line of source
SHARED = 3  # a leaf with more uses is drawn once per use: shared, it costs minutes of layout


@dataclass(frozen=True)
class Style:
    """What a picture shows besides the graph, and how."""

    title: str | None = None
    caption: Sequence[str] = ()
    values: bool = False
    direction: Literal["TB", "LR"] = "TB"
    theme: Theme = "light"
    marks: Marks = field(default_factory=Marks)


def to_dot(graph: Graph, style: Style | None = None) -> tuple[str, dict[str, list[Table]]]:
    r"""Write ``graph`` as DOT; return it with the tables of values to paint into its nodes, by id.

    >>> import microbn as mb
    >>> x = mb.Tensor([3.0, 4.0], requires_grad=True, name="x")
    >>> source, tables = to_dot(mb.Graph.from_outputs(x + 1))
    >>> [line.split(" class=")[0].strip() for line in source.splitlines() if "label=" in line]
    ['n1 [label="+ 1\\n2"', 'n0 [label="x\\n2"']
    """
    page = _Page(graph, style or Style())
    for node in graph.nodes:
        if node.op is None and node.kind != "scope" and node.index not in page.uses:
            page.add_node(node, f"n{node.index}")
        elif node.part is None and (node.op is not None or node.kind == "scope"):
            page.add_op(node)
    page.add_backward()
    return page.finish(), page.tables


class _Page:
    """The drawing so far."""

    def __init__(self, graph: Graph, style: Style) -> None:
        self.graph, self.nodes, self.style = graph, graph.nodes, style
        self.palette = PALETTES[style.theme]
        self.columns = Columns([e for e in graph.edges if self.nodes[e.target].part is None])
        self.back = Columns([e for e in graph.edges if self.nodes[e.source].part is not None])
        self.arguments: dict[int, list[Edge]] = defaultdict(list)
        for edge in graph.edges:
            self.arguments[edge.target].append(edge)
        pairs = {(e.source, e.target) for e in graph.edges if self.nodes[e.target].part is None}
        self.uses = Counter(source for source, _ in pairs)
        self.uses.update(e.source for e in graph.edges if self.nodes[e.source].part is not None)
        self.drawn: set[str] = set()
        self.beside: set[str] = set()
        self.tables: dict[str, list[Table]] = {}
        self.root = graphviz.Digraph("microbn", node_attr=NODE | self.look("op"))
        self.root.graph_attr |= GRAPH | {"bgcolor": self.palette.background}
        self.root.graph_attr |= {"fontcolor": self.palette.title}
        if style.direction == "LR":
            self.root.graph_attr["rankdir"] = "LR"
        self.root.edge_attr |= EDGE | {"color": self.palette.edge, "fontcolor": self.palette.muted}
        self.edges = graphviz.Digraph()  # for last: inside a cluster they would pull nodes into it
        self.clusters: dict[int, graphviz.Digraph] = {}
        sides = ("forward", "backward") if any(node.part for node in graph.nodes) else ()
        self.sides = [graphviz.Digraph(f"cluster_{name}") for name in sides]
        for side, name in zip(self.sides, sides, strict=True):
            side.graph_attr |= {"label": name, "fontsize": "11", "penwidth": "0"}

    def look(self, kind: str) -> dict[str, str]:
        """Return the shape and the colours of a kind of node."""
        fill, border, text = self.palette.kinds[kind]
        style = "rounded,filled" if kind in ("op", "output", "scope", "backward") else "filled"
        return {"style": style, "fillcolor": fill, "color": border, "fontcolor": text}

    def cluster(self, place: int | None, back: bool = False) -> graphviz.Digraph:
        """Return the cluster of a scope; around it all, that of one side, or the page itself."""
        if place is None:
            return self.sides[back] if self.sides else self.root
        if place not in self.clusters:
            fill, border, text = self.palette.scope
            look = {"fillcolor": fill, "color": border, "fontcolor": text}
            attributes = CLUSTER | look | {"id": f"s{place}", "class": "scope"}
            attributes["label"] = escaped(short(self.graph.scopes[place].title))
            self.cluster(self.graph.scopes[place].parent, back)
            self.clusters[place] = graphviz.Digraph(f"cluster_{place}", graph_attr=attributes)
        return self.clusters[place]

    def finish(self) -> str:
        """Put each cluster into the one around it, the innermost first; add what is written."""
        mirrors = {node.place for node in self.nodes if node.part is not None}
        for place, cluster in reversed(self.clusters.items()):
            parent = self.graph.scopes[place].parent
            mirrors |= {parent} if place in mirrors else set()
            self.cluster(parent, place in mirrors).subgraph(cluster)
        for side in self.sides:
            self.root.subgraph(side)
        self.root.body += self.edges.body
        self.write_around()
        return str(self.root.source)

    def write_around(self) -> None:
        """Add title and caption, last of all, so that no cluster inherits them."""
        title = {"labelloc": "t", "labeljust": "c", "fontsize": "13", "penwidth": "0"}
        title["label"] = escaped(short(self.style.title or "", 120))
        caption = {"labelloc": "b", "labeljust": "l", "fontsize": "9"}
        # Wider than Graphviz thinks the letters are, for where another font is shown.
        padded = [line + len(line) // 6 * "\u00a0" for line in self.style.caption]
        caption["label"] = graphviz.nohtml("".join(escaped(line) + r"\l" for line in padded))
        if self.style.caption and self.style.title:
            # A graph has one label, so the title is that of a cluster around everything.
            page = graphviz.Digraph("cluster_page")
            page.body, self.root.body = self.root.body, []
            page.attr(**title)
            self.root.subgraph(page)
        if self.style.caption or self.style.title:
            self.root.attr(**(caption if self.style.caption else title))

    # Forward -------------------------------------------------------------------------------------

    def add_op(self, node: Node) -> None:
        """Draw an op, those of its arguments that are leaves, and the edges from them all."""
        self.add_node(node, f"n{node.index}")
        beside = []
        for edge in self.columns.arguments[node.index]:
            source, name = self.nodes[edge.source], self.name(edge)
            if source.op is None and source.kind != "scope" and name not in self.drawn:
                self.add_node(source, name)
                if self.stands_beside(edge):
                    beside.append(name)
            self.add_edge(edge, name)
        if beside:
            self.beside.update(beside)
            # Without an edge: an invisible one beside one with a label is too much for dot.
            self.edges.body.append(f"\t{{rank=same n{node.index} {' '.join(beside)}}}\n")

    def stands_beside(self, edge: Edge) -> bool:
        """Whether a leaf goes on a level with its op: if that is its only one, alone on its level.

        Among several ops on a level, Graphviz may put the leaf beside the wrong one.
        """
        own = self.uses[edge.source] == 1 or self.uses[edge.source] > SHARED
        return own and not self.columns.straight(edge) and edge.target in self.columns.alone

    def name(self, edge: Edge) -> str:
        """Name the source of ``edge``: its index, and its target's if it is drawn for each use."""
        source = self.nodes[edge.source]
        leaf = source.op is None and source.kind != "scope"
        copied = leaf and self.uses[edge.source] > SHARED
        return f"n{edge.source}_{edge.target}" if copied else f"n{edge.source}"

    def add_edge(self, edge: Edge, name: str) -> None:
        """Draw ``edge`` from the node ``name``, with both shapes if it broadcasts."""
        source, target = self.nodes[edge.source], self.nodes[edge.target]
        weight = (1 if source.op is None else 8) * (STRAIGHT if self.columns.straight(edge) else 1)
        attributes = {"weight": str(weight), "class": source.kind}
        if edge.broadcast:
            # The spaces keep the label off the edge; being no-break, they survive in the SVG.
            attributes["label"] = f"\u00a0\u00a0{shape(source.shape)} → {shape(target.shape)}"
            color = self.palette.broadcast
            attributes |= {"style": "dashed", "color": color, "fontcolor": color}
            attributes["class"] += " broadcast"
        self.connect(name, f"n{edge.target}", edge, attributes)

    # Backward ------------------------------------------------------------------------------------

    def add_backward(self) -> None:
        """Draw the backward graph beside the forward one, upside down, each cotangent level with
        the value that it belongs to.
        """
        steps = [node for node in self.nodes if node.part not in (None, "constant")]
        for node in steps:
            self.add_node(node, f"n{node.index}")
        self.align()
        for edge in self.graph.edges:
            if self.nodes[edge.target].part is None:
                continue
            if self.nodes[edge.source].part in (None, "constant"):
                if self.nodes[edge.target].kind != "scope":  # there they are inside
                    self.add_saved(edge)
            else:
                weight = 8 * (STRAIGHT if self.back.straight(edge) else 1)
                attributes = {"weight": str(weight), "class": "backward", "dir": "back"}
                attributes["color"] = self.palette.kinds["backward"][1]
                self.connect(f"n{edge.target}", f"n{edge.source}", edge, attributes)

    def align(self) -> None:
        """Put each cotangent level with its value: with the first, if it is that of several.

        A leaf beside its op is on the level of that, and a collapsed scope on that of its mirror.
        """
        mirrors = {k: b.index for b in self.nodes if b.kind == "scope" for k in b.of}
        taken: set[int] = set()
        for node in self.nodes:
            name = f"n{node.index}"
            twin = node.twin if node.kind != "scope" else mirrors.get(node.index, node.twin)
            free = name in self.drawn and name not in self.beside and twin not in taken
            free = free and f"n{twin}" in self.drawn  # a constant is not
            if node.part is None and twin is not None and free:
                taken.add(twin)
                pair = [name, f"n{twin}"]
                row = " -> ".join(pair if self.style.direction == "TB" else reversed(pair))
                self.edges.body.append(f"\t{{rank=same {row} [style=invis]}}\n")

    def add_saved(self, edge: Edge) -> None:
        """Draw a value that the backward pass has from the forward one as a tag beside its user.

        An edge from where it was computed would run through half the picture.
        """
        tag, user, source = f"t{edge.target}_{edge.position}", f"n{edge.target}", edge.source
        node = self.nodes[source]
        fill, _, text = self.palette.kinds["op" if node.kind == "output" else node.kind]
        look = {"style": "filled", "fillcolor": fill, "color": fill, "fontcolor": text}
        size = {"fontsize": "8", "height": "0.2", "margin": "0.06,0.02", "penwidth": "0.6"}
        label = graphviz.nohtml(escaped(self.title(node)))
        classes = f"saved of-n{source}"
        cluster = self.cluster(self.nodes[edge.target].place, back=True)
        cluster.node(tag, label, **look, **size, **{"id": tag, "class": classes})
        thin = {"class": "saved", "dir": "back", "penwidth": "0.6", "arrowsize": "0.4"}
        self.connect(user, tag, edge, thin | {"color": self.palette.edge, "weight": "20"})

    # Both ----------------------------------------------------------------------------------------

    def title(self, node: Node) -> str:
        """Call a node something, even if it has no name that can be read."""
        return short(called(node) or "") or short(node.label) or "array"

    def add_node(self, node: Node, name: str) -> None:
        """Draw ``node``: what it is called and how it is computed, its shape, its values."""
        head = heading(self.graph, node, self.arguments[node.index]) or self.title(node)
        lines = [head, *beneath(node)]
        kind = node.kind if node.part is None else "backward"
        output = "output" if node.kind == "scope" and node.params.get("output") else None
        attributes = {"id": name, "class": " ".join(filter(None, (kind, node.part, output)))}
        if kind != "op":
            attributes |= self.look(output or kind)
        if wide := sum(east_asian_width(c) in "WF" for c in head):
            attributes["width"] = f"{(len(head) + wide) * 0.09 + 0.3:.2f}"
        if self.style.values and node.value is not None:
            self.show_values(node, name, lines, attributes)
        if node.source:  # seen when the mouse rests there
            file = PurePath(node.source.file).name
            line = f"{file}:{node.source.line}  {node.source.text}"
            attributes["tooltip"] = escaped(short(line, LINE))
        if node.index in self.style.marks.nodes:
            attributes |= {"color": self.palette.accent, "penwidth": "3"}
            attributes["class"] += " marked"
        label = graphviz.nohtml(r"\n".join(escaped(line) for line in lines if line))
        place = node.place
        if node.part == "seed":  # with those that it is for: outside, it would be far away
            users = (e.target for e in self.graph.edges if e.source == node.index)
            place = next((self.nodes[k].place for k in users), place)
        self.cluster(place, node.part is not None).node(name, label, **attributes)
        self.drawn.add(name)

    def show_values(
        self, node: Node, name: str, lines: list[str], attributes: dict[str, str]
    ) -> None:
        """Make room for the tables of a small array; say what is in a large one."""
        tables = [Table("", node.value)] if fits(node.value) else []
        if not tables:
            lines += summary(node.value)
        elif node.part is None and node.twin is None and node.cotangent is not None:
            tables = [Table("value", node.value), Table("gradient", node.cotangent)]
        if tables:
            width, height = measure(tables)
            text = 0.09 * max(map(len, lines)) + 0.3
            attributes["width"] = f"{max(width + 0.2, text):.2f}"
            attributes["height"] = f"{height + 0.2 * len(lines) + 0.16:.2f}"
            attributes["labelloc"] = "t"
            self.tables[name] = tables

    def connect(self, tail: str, head: str, edge: Edge, attributes: dict[str, str]) -> None:
        """Draw an edge, pointing at it if it is marked."""
        attributes = {"id": f"e{edge.target}_{edge.position}"} | attributes
        if self.nodes[edge.target].kind == "scope":  # positions are those of the ops inside
            attributes["id"] += f"_{edge.source}"
        if edge in self.style.marks.edges:
            attributes |= {"color": self.palette.accent, "penwidth": "2.6"}
            attributes["class"] += " marked"
        if edge in self.style.marks.shares:
            share = 100 * self.style.marks.shares[edge]
            attributes |= {"label": f"\u00a0{share:.1f} %", "fontcolor": self.palette.accent}
        self.edges.edge(tail, head, **attributes)


def escaped(text: str) -> str:
    r"""Make ``text`` mean itself in a DOT label: no entities, escapes or HTML.

    >>> print(escaped(r"&amp; \N"))
    &amp;amp; \\N
    """
    safe: str = graphviz.escape(text.replace("&", "&amp;"))  # a str that is never taken for HTML
    return safe


__all__ = ["FONT", "Style", "escaped", "to_dot"]
