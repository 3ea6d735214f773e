"""A graph as its reader sees it: with names, tables, and the way each number came about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container

import numpy as np

from ..graph import Graph
from ..parts import Edge
from .event import Shown
from .formula import Expr, Written, latex, text
from .how import Explainer
from .naming import Names


class Reader:
    """What both halves of a walk share: the graph, its edges by target, and the names.

    ``arguments`` are the edges into each node, ``forward`` the nodes of the forward pass.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes = graph, graph.nodes
        self.arguments: dict[int, list[Edge]] = defaultdict(list)
        for edge in graph.edges:
            self.arguments[edge.target].append(edge)
        self.forward = [node for node in graph.nodes if node.part is None]
        self.names = Names(graph, self.arguments)
        self.explainer = Explainer(graph.nodes, self.arguments, self._within)
        self.tables: dict[int, Shown] = {}  # of forward values, each of which is shown many times

    def _within(self, index: int) -> Written:
        """Call a node something inside of a formula; a step of a rule is what comes back."""
        rule = self.nodes[index].part == "rule" and index not in self.names.gradients
        return Written("contribution") if rule else self.names.text(index)

    def called(self, index: int) -> str:
        """Return the name of a node."""
        return self.names.text(index).text

    def shown(self, index: int, caption: str = "", inside: Container[int] = ()) -> Shown:
        """Show the value of a node; how it came about is written out over what is ``inside``."""
        if index in self.tables and not caption:
            return self.tables[index]
        value = self.nodes[index].value
        how = self.explainer.how(index, inside)
        table = Shown(
            caption or self.called(index), np.zeros(0) if value is None else value, index, how
        )
        if self.nodes[index].part is None and not caption:
            self.tables[index] = table
        return table

    def written(self, expr: Expr, *, loud: bool = False) -> str:
        """Write a formula as text."""
        return text(expr, self.names.text, loud=loud).text

    def typeset(self, expr: Expr, *, loud: bool = False) -> str:
        """Write a formula as LaTeX."""
        return latex(expr, self.names.latex, loud=loud).text


def equation(left: str, right: str, sign: str = "=") -> str:
    """Join two sides, unless they are the same.

    >>> equation("y", "x²"), equation("x²", "x²")
    ('y = x²', 'x²')
    """
    return right if left == right else f"{left} {sign} {right}"
