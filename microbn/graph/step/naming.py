"""What to call each node: by the reader's names, each meaning one node, or by how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..graph import Graph
from ..labels import short
from ..parts import Edge, Node
from ..snapshot import number
from .formula import ATOM, SUBSCRIPTS, Expr, Written, call, latex, plain_latex, symbol, text

LONGEST = 28  # characters of a formula that stands for a name
MOST_SCALAR = 1  # entries of an unnamed constant that is called by its number


class Names:
    """The names of the nodes of a graph, as text and as LaTeX.

    Where several forward nodes have one name, as in a loop, they are counted: ``h₁``, ``h₂``. What
    has no name is called by its formula if that is short, ``(x − mu)²``, or else by its op and its
    index, ``add#12``. The gradient of ``x`` is ``d x``.
    """

    def __init__(self, graph: Graph, arguments: Mapping[int, list[Edge]]) -> None:
        self.nodes, self.arguments = graph.nodes, arguments
        self.own: set[int] = set()  # those that have a name of their own
        self.taken: set[str] = set()  # formulas that are names
        self.texts: dict[int, Written] = {}
        self.latexes: dict[int, Written] = {}
        forward = [node for node in graph.nodes if node.part is None]
        self._name(forward)
        self.result = next((n for n in forward if n.kind == "output"), forward[-1])
        # What a node of the backward graph is the gradient of. It can be that of several, where an
        # op passes it on as it is; the one that counts is set where it matters.
        self.gradients: dict[int, int] = {}
        self.constants: dict[int, Written] = {}  # of rules, where it is known how they were made
        for node in forward:
            if node.twin is not None:
                self.gradients.setdefault(node.twin, node.index)

    def _name(self, forward: list[Node]) -> None:
        bases = {n.index: base for n in forward if (base := _base(n)) is not None}
        counts, taken = Counter(bases.values()), set(bases.values())
        seen: Counter[str] = Counter()
        for node in forward:
            base = bases.get(node.index)
            if base is None:
                self._write_out(node)
                continue
            self.own.add(node.index)
            name = base
            if counts[base] > 1:
                name = _numbered(base, seen, taken)
            self.texts[node.index] = Written(name)
            self.latexes[node.index] = Written(symbol(name) if node.name else plain(name))

    def _write_out(self, node: Node) -> None:
        """Call a node by its formula if that is short."""
        if value := _number(node):
            self.texts[node.index] = self.latexes[node.index] = Written(value)
            return
        formula = call(node, {e.position: Expr(node=e.source) for e in self.arguments[node.index]})
        written = text(formula, self.texts.__getitem__, loud=True) if node.op else Written("")
        if 0 < len(written.text) <= LONGEST and written.text not in self.taken:
            self.taken.add(written.text)
            self.texts[node.index] = written
            self.latexes[node.index] = latex(formula, self.latexes.__getitem__, loud=True)
        else:
            name = f"{node.op or 'array'}#{node.index}"
            self.own.add(node.index)
            self.texts[node.index] = Written(name)
            self.latexes[node.index] = Written(plain(name))

    def text(self, index: int) -> Written:
        """Call a node something: a forward one, a gradient, or what is on the way to one."""
        if index in self.texts:
            return self.texts[index]
        if index in self.gradients:
            return Written(self.gradient(self.gradients[index]))
        if index in self.constants:
            return self.constants[index]
        node = self.nodes[index]
        if value := _number(node):
            return Written(value)
        if node.op is None and node.part == "constant":
            return Written("mask" if node.dtype == "bool" else "constant")
        return Written(short(node.name or node.op or "array", LONGEST))

    def latex(self, index: int) -> Written:
        """Write the same as LaTeX."""
        if index in self.latexes:
            return self.latexes[index]
        if index in self.gradients:
            return Written(self.gradient_latex(self.gradients[index]))
        name = self.text(index).text
        if index in self.constants and self.nodes[index].dtype == "bool":  # Iverson's bracket
            return Written(rf"\left[\text{{{plain_latex(name)}}}\right]")
        return Written(name if _number(self.nodes[index]) else plain(name))

    def gradient(self, index: int) -> str:
        """Name the gradient of a forward node: ``d x``, ``d(x − mu)``."""
        name = self.texts[index].text
        return f"d {name}" if index in self.own else f"d({name})"

    def gradient_latex(self, index: int) -> str:
        r"""Write it as a derivative of the output, which is called L unless it is a number."""
        number_like = self.nodes[self.result.index].shape == ()
        top = self.latexes[self.result.index].at_least(ATOM) if number_like else "L"
        return rf"\frac{{\partial {top}}}{{\partial {self.latexes[index].at_least(ATOM)}}}"


def _base(node: Node) -> str | None:
    """Return the name of a node, or what kind of leaf it is; None if its formula is to be tried."""
    if node.name:
        return short(node.name, LONGEST)
    if node.op is not None or _number(node):
        return None
    return "array" if node.kind == "constant" else node.kind


def _number(node: Node) -> str:
    """Write a nameless constant that is a single number."""
    small = node.op is None and node.kind == "constant" and not node.name
    if not small or node.value is None or node.value.size != MOST_SCALAR:
        return ""
    return number(node.value.ravel()[0])


def _numbered(base: str, seen: Counter[str], taken: set[str]) -> str:
    """Count a name up until it is nobody else's."""
    while True:
        seen[base] += 1
        name = f"{base}{str(seen[base]).translate(SUBSCRIPTS)}"
        if name not in taken:
            return name


def typed(name: str) -> str:
    """Write a name as somebody may type it: without subscripts.

    >>> typed("h₁₂")
    'h12'
    """
    return name.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))


def plain(name: str) -> str:
    """Write as LaTeX what is no variable."""
    return rf"\mathrm{{{plain_latex(name)}}}"
