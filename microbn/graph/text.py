"""The graph as text, for terminals: one line a node, indented by scope.

Lines are in order of computation, except that a leaf stands before the scope that first uses it.
As in a program, a name means the latest line above that has it; where an earlier one is meant,
its index is added, as in ``mean%3``. What has no name goes by its index alone.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .calls import written
from .parts import Node
from .portable import digest
from .snapshot import prefix

if TYPE_CHECKING:
    from .graph import Graph

WIDTH, LINES = 100, 200  # of all the text, about
NAME = 32  # cells that a name may take, among others in a formula
INDENT = 30  # cells that the lines of the tree may take
SHAPE, VALUE, BESIDE = 20, 38, 30  # cells for a shape, a value, and a value beside a gradient
ENTRIES = 6  # of an array that is written out
ALIASES = 3  # that a cotangent is called by


def tree(graph: Graph) -> str:
    """Write one line for each node: its formula, shape and value; below them the backward part.

    >>> import microbn as mb
    >>> x = mb.Tensor([3.0, 4.0], requires_grad=True, name="x")
    >>> with mb.scope("length"):
    ...     y = np.sqrt((x**2).named("squared").sum()).named("y")
    >>> print(tree(mb.Graph.from_outputs(y)))
    4 nodes, float64            shape   value
    x (input)                   2       [3 4]
    length
    ├─ squared = x ** 2         2       [9 16]
    ├─ %2 = Σ(squared)          scalar  25
    └─ y = √ %2 (output)        scalar  5
    """
    return "\n".join(_Page(graph).lines())


# Where each line goes ----------------------------------------------------------------------------


class _Block:
    """What is shown of a scope without interruption: nodes, and the blocks of scopes inside."""

    def __init__(self, place: int | None) -> None:
        self.place = place
        self.items: list[Node | _Block] = []


def _arrange(graph: Graph, nodes: Sequence[Node]) -> _Block:
    """Put nodes into blocks, in their order; leaves before the blocks that first use them."""
    root = _Block(None)
    path: list[int] = []
    blocks = [root]  # those that are open, one more than there are scopes on the path
    leaves: list[Node] = []
    for node in nodes:
        leaves.append(node)
        if node.op is None and node.kind != "scope" and node is not nodes[-1]:
            continue
        wanted = _path(graph, node.place)
        kept = _common(path, wanted)
        path = wanted
        del blocks[kept + 1 :]
        for place in path[kept:]:
            blocks.append(_Block(place))
            blocks[-2].items.append(blocks[-1])
        for leaf in leaves:  # the op that uses them is the last of them
            _place(leaf, _path(graph, leaf.place), path, blocks)
        leaves.clear()
    return root


def _place(node: Node, wanted: list[int], path: list[int], blocks: list[_Block]) -> None:
    """Add a node at the end of what is open; if it lies further out, before the block there."""
    shared = _common(wanted, path)
    block = blocks[shared]
    before = len(block.items) - (shared < len(path))
    for place in wanted[shared:]:  # a leaf from a scope that is over
        block.items.insert(before, _Block(place))
        block, before = block.items[before], 0  # type: ignore[assignment]
    block.items.insert(before, node)


def _path(graph: Graph, place: int | None) -> list[int]:
    path = []
    while place is not None:
        path.append(place)
        place = graph.scopes[place].parent
    return path[::-1]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Count how many scopes two paths have in common."""
    return next(
        (i for i, (p, q) in enumerate(zip(a, b, strict=False)) if p != q), min(len(a), len(b))
    )


def _branches(root: _Block) -> Iterator[tuple[str, Node | _Block]]:
    """Yield what is in the root, each with the lines of the tree that lead to it."""
    stack = [("", "", item) for item in reversed(root.items)]
    while stack:
        lead, below, item = stack.pop()
        yield lead, item
        if isinstance(item, _Block):
            corner, bar = "└─ ", "   "
            for child in reversed(item.items):
                stack.append((below + corner, below + bar, child))
                corner, bar = "├─ ", "│  "


# What each line says -----------------------------------------------------------------------------


class _Page:
    """The rows to show, each of them columns: the tree with a formula, shape, value, gradient."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes = graph, graph.nodes
        self.arguments: dict[int, list[int]] = defaultdict(list)
        for edge in graph.edges:
            self.arguments[edge.target].append(edge.source)
        self.dtypes = Counter(node.dtype for node in graph.nodes)
        self.forward = [node for node in graph.nodes if node.part is None]
        self.backward = [node for node in graph.nodes if node.part is not None]
        room = max(LINES // 2, LINES - len(self.backward))
        upper = self.shown(self.forward, room)
        lower = self.shown(self.backward, LINES - len(upper))
        self.parts = [(self.forward, upper), (self.backward, lower)]
        self.ambiguous: set[int] = set()
        self.find_ambiguous([item for _, item in upper + lower if isinstance(item, Node)])
        self.entered: set[int | None] = set()
        alone = self.backward or all(node.cotangent is None for node in graph.nodes)
        self.room = VALUE if alone else BESIDE

    def shown(self, nodes: list[Node], room: int) -> list[tuple[str, Node | _Block]]:
        """Return the lines of the tree, as many as there is room for."""
        branches = _branches(_arrange(self.graph, nodes[:room]))
        return [branch for branch, _ in zip(branches, range(room), strict=False)]

    def find_ambiguous(self, order: list[Node]) -> None:
        """Note the nodes that are used where their name, read from above, means another one."""
        latest: dict[str, int] = {}
        for node in order:
            for source in self.arguments[node.index]:
                if latest.get(self.name(self.nodes[source])) != source:
                    self.ambiguous.add(source)
            latest[self.name(node)] = node.index

    def lines(self) -> list[str]:
        """Write everything, in columns."""
        tables = [self.table(nodes, rows) for nodes, rows in self.parts]
        if not self.nodes:
            return ["0 nodes"]
        widths = [max(map(_cells, column)) for column in zip(*tables[0], *tables[1], strict=True)]
        widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * sum(w > 0 for w in widths[1:]))
        texts: list[str] = []
        for (nodes, rows), table in zip(self.parts, tables, strict=True):
            texts += [""] * bool(texts and table)
            texts += ["  ".join(map(_fitted, row, widths)).rstrip() for row in table]
            more = len(nodes) - sum(isinstance(item, Node) for _, item in rows)
            if more:
                texts.append(f"… {more:,} more node{'s' * (more > 1)}; graph.nodes has them all")
        return texts

    def table(
        self, nodes: list[Node], rows: list[tuple[str, Node | _Block]]
    ) -> list[tuple[str, ...]]:
        """Return the cells of one part, with a line above that says what they are."""
        if not rows:
            return []
        cells = [self.row(lead, item) for lead, item in rows]
        value = "value" + ", or mean ± std, min..max" * any(
            " ± " in "".join(row[2:]) for row in cells
        )
        head = f"{len(nodes):,} node{'s' * (len(nodes) > 1)}"
        if nodes is self.forward:
            head += ", " + "mostly " * (len(self.dtypes) > 1) + self.common
        else:
            head = f"backward: {head}"
        grad = "grad" if any(row[3] for row in cells) else ""
        return [(head, "shape", value, grad), *cells]

    @property
    def common(self) -> str:
        """The dtype that most nodes have, the first of them if several do."""
        return self.dtypes.most_common(1)[0][0] if self.dtypes else ""

    def row(self, lead: str, item: Node | _Block) -> tuple[str, str, str, str]:
        """Return the cells of a line."""
        if len(lead) > INDENT:
            lead = "… " + lead[2 - INDENT :]
        if isinstance(item, _Block):
            again = ", continued" if item.place in self.entered else ""
            self.entered.add(item.place)
            return lead + self.scope(item) + again, "", "", ""
        shape = "×".join(map(str, item.shape)) or "scalar"
        if item.kind == "scope" and item.params.get("result") is None:
            shape = ""  # several values come out, each with a line of its own
        if item.dtype != self.common:
            shape = f"{shape} {item.dtype}".strip()
        grad = None if self.backward else item.cotangent
        value, grad = (_cut(_value(v, self.room), self.room) for v in (item.value, grad))
        return lead + self.equation(item), _cut(_clean(shape), SHAPE), value, grad

    def scope(self, block: _Block) -> str:
        """Name a scope."""
        return _cut(_clean(self.graph.scopes[block.place].title), NAME)  # type: ignore[index]

    def name(self, node: Node) -> str:
        """Return what to call a node: its name, or its index, also as ``d %3``."""
        name = _clean(node.name or "")
        if node.part is not None and node.of:
            of = self.nodes[node.of[0]]
            d = prefix(node)
            # what a snapshot calls the cotangent of a value unnamed
            stand_in = f"{d} ({of.title or 'array'})"
            if of.name is None and (node.name or "").startswith(stand_in):
                name = f"{d} %{of.index}" + _clean(f".{(node.name or '')[len(stand_in) :]}")[1:]
        if not name:
            return f"%{node.index}"
        return _cut(name, NAME)

    def title(self, index: int) -> str:
        """Return what to call a node so that it is not confused with another."""
        name = self.name(self.nodes[index])
        return f"{name}%{index}" if index in self.ambiguous and name != f"%{index}" else name

    def equation(self, node: Node) -> str:
        """Write how a node is computed, all its names first."""
        twins = [self.nodes[k] for k in node.of if self.nodes[k].twin == node.index]
        aliases = [
            f"{prefix(node)} {self.name(twin)}" for twin in twins[:ALIASES]
        ]  # it can be of several
        others = [alias for alias in aliases if alias != self.name(node)]
        names = [self.title(node.index), *dict.fromkeys(others)]
        if node.op is None and node.kind != "scope":
            return f"{' = '.join(names)} ({node.part or node.kind})"
        end = " (output)" if node.kind == "output" else ""
        return " = ".join([*names, _clean(self.formula(node))]) + end

    def formula(self, node: Node) -> str:
        """Write the call that made a node."""
        operands = [self.title(source) for source in self.arguments[node.index]]
        if node.op == "add" and node.part == "accumulation":
            return " + ".join(operands)
        if node.kind == "scope":
            return f"{node.label} of {', '.join(dict.fromkeys(operands))}"
        return written(node, operands)


# Numbers -----------------------------------------------------------------------------------------


def _value(value: Any, room: int) -> str:
    """Write an array: all of it if it is small, or else what is in it."""
    if value is None:
        return ""
    array = np.asarray(value)
    if not array.size:
        return "empty"
    if not array.ndim:
        return _entry(array[()], 6)
    if array.size <= ENTRIES:
        text = np.array2string(array, separator=" ", formatter={"all": _entry}, threshold=ENTRIES)
        text = " ".join(text.split())
        if len(text) <= room:
            return text
    texts = [_digest(array, digits) for digits in (3, 2)]
    return texts[len(texts[0]) > room]


def _entry(x: Any, digits: int = 4) -> str:
    """Write one number, and -0.0 as 0.

    >>> [_entry(x) for x in (-0.0, 2 / 3, 1e-7, np.float32(70), np.int8(-3), np.True_, np.nan)]
    ['0', '0.6667', '1e-07', '70', '-3', 'True', 'nan']
    """
    if isinstance(x, bool | np.bool_):
        return str(bool(x))
    if isinstance(x, int | np.integer) and abs(int(x)) < 10**9:
        return str(int(x))
    return f"{x:.{digits}g}" if x else "0"


def _digest(array: Any, digits: int) -> str:
    """Write mean, standard deviation and range of the finite entries, and how many are not."""
    if array.dtype == bool:
        return f"{int(array.sum()):,} of {array.size:,} True"
    finite = array[np.isfinite(array)]
    counts = {"nan": np.isnan(array).sum(), "inf": np.isinf(array).sum()}
    strange = [f"{n:,} {what}" for what, n in counts.items() if n]
    if not finite.size:
        return ", ".join(strange)
    d = digest(finite)
    mean, std, low, high = (_entry(d[key], digits) for key in ("mean", "std", "min", "max"))
    eps = float(np.finfo(finite.dtype).eps) if finite.dtype.kind == "f" else 0
    rounding = 8 * eps * max(abs(d["min"]), abs(d["max"]))
    if d["max"] - d["min"] <= rounding:
        return ", ".join([f"all {low}", *strange])
    if abs(d["mean"]) <= rounding:  # what is left by rounding is no digit
        mean = "0"
    return ", ".join([f"{mean} ± {std}", f"{low}..{high}", *strange])


# Characters --------------------------------------------------------------------------------------


def _clean(text: str) -> str:
    r"""Make ``text`` one line of what can be printed.

    >>> _clean("two\nlines"), _clean("\x1b[31mred")
    ('two lines', '�[31mred')
    """
    text = " ".join(text[: 4 * WIDTH].split())
    return "".join(c if c.isprintable() or c == "\u200d" else "�" for c in text)


def _cells(text: str) -> int:
    """Count the cells that ``text`` takes in a terminal.

    >>> _cells("mean"), _cells("平均"), _cells("x\u0302")
    (4, 4, 1)
    """
    return sum(map(_cell, text)) if not text.isascii() else len(text)


def _cell(c: str) -> int:
    if c == "\u200d" or unicodedata.category(c) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def _cut(text: str, width: int) -> str:
    """Shorten ``text`` to ``width`` cells, the last of them an ellipsis.

    >>> _cut("a long name", 7), _cut("平均値", 6), _cut("平均値", 5)
    ('a long…', '平均値', '平均…')
    """
    if _cells(text) <= width:
        return text
    taken = 0
    for i, c in enumerate(text):
        taken += _cell(c)
        if taken >= width:
            return text[:i] + "…"
    return text


def _fitted(text: str, width: int) -> str:
    """Make ``text`` exactly ``width`` cells wide."""
    text = _cut(text, width)
    return text + " " * (width - _cells(text))
