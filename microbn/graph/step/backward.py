"""The steps of the backward pass: where it starts, what comes back along each edge, and the end.

The rule of an op is read from the backward graph: it is what the engine computed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..parts import Edge, Node
from . import sentence
from .estimate import Estimate, estimate
from .event import Row, Shown
from .formula import ONE, Expr, call, evaluate, factor
from .forward import LEAVES, SIGNS
from .reader import Reader, equation
from .rules import Rules

Route = tuple[int | None, int | None]  # an op, and the position of an argument


class Backward:
    """The backward pass, edge by edge: what has come to each node so far, and what is to come."""

    def __init__(self, reader: Reader, given: str) -> None:
        self.reader, self.nodes, self.names = reader, reader.nodes, reader.names
        self.given = given  # says what it starts from, if that is not 1
        self.inside: dict[Route, set[int]] = defaultdict(set)  # the steps of each rule
        self.sums: dict[Route, Node] = {}  # where what comes along an edge meets what came before
        for node in reader.nodes:
            if node.part == "rule":
                self.inside[node.via, node.route].add(node.index)
            elif node.part == "accumulation":
                self.sums[node.via, node.route] = node
        edges = [e for e in reader.graph.edges if e.contribution is not None]
        self.rules = Rules(reader)
        self.uses = Counter(edge.source for edge in edges)
        self.came: Counter[int] = Counter()
        self.so_far: dict[int, Node] = {}  # the gradient of each forward node
        self.estimates: dict[int, Estimate | None] = {}

    def steps(self) -> Iterator[dict[str, Any]]:
        """Yield what each step is made of; nothing if there is no backward pass."""
        # Where the first op passes it on as it is, the seed is the gradient of several nodes.
        output = next((n for n in reversed(self.reader.forward) if self._is_seeded(n)), None)
        if output is None:
            return
        yield self.seed(output)
        for node in reversed(self.reader.forward):
            for edge in self.reader.arguments[node.index]:
                if edge.contribution is not None:
                    yield from self.pull_back(edge, edge.contribution)
        yield self.end()

    def _is_seeded(self, node: Node) -> bool:
        return node.twin is not None and self.nodes[node.twin].part == "seed"

    def seed(self, output: Node) -> dict[str, Any]:
        """Start the backward pass."""
        assert output.twin is not None
        gradient = self.so_far[output.index] = self.nodes[output.twin]
        name, d = self.reader.called(output.index), self.names.gradient(output.index)
        one = gradient.shape == () and gradient.value is not None and gradient.value == 1
        told = f"how much {name} changes with itself: 1" if one else self.given
        value = "1" if one else self.given
        latex = value if one else rf"\text{{{value}}}"
        return {
            "kind": "seed",
            "node": output,
            "gradient": gradient,
            "final": True,
            "formula": f"{d} = {value}",
            "latex": equation(self.names.gradient_latex(output.index), latex),
            "sentence": f"Now backward. It starts from {d}: {told}. The gradient of anything says "
            "how much the result changes with each of its entries.",
            "rows": ((self.reader.shown(output.twin, d),),),
            "source": output.source,
        }

    # Along one edge ------------------------------------------------------------------------------

    def pull_back(self, edge: Edge, contribution: int) -> Iterator[dict[str, Any]]:
        """Follow one edge back: the rule, then the sum over what was broadcast."""
        via, x = self.nodes[edge.target], self.nodes[edge.source]
        assert via.twin is not None
        self.names.gradients[via.twin] = via.index
        route, before, sums = (edge.target, edge.position), contribution, list[int]()
        while self._is_unbroadcast(before, route):
            sums.insert(0, before)
            before = self.reader.arguments[before][0].source
        inside = self.inside[route]
        rule = self.rules.rule(before, inside, via, edge.position)
        row = self.rule_row(rule, via, before, inside)
        facts = {"node": x, "via": via, "position": edge.position, "source": via.source}
        op = self.reader.called(via.index) if via.name else via.label or "array"
        entries = int(np.prod(x.shape, dtype=int)) // max(int(np.prod(via.shape, dtype=int)), 1)
        name = self.reader.called(x.index)
        said = f"Back through {op} to {name}. "
        said += sentence.backward(via, edge.position, entries)
        if before == contribution:
            yield {**facts, "kind": "edge", **self.arrive(edge, row, rule, said)}
            return
        yield {
            **facts,
            "kind": "edge",
            "gradient": self.so_far.get(x.index),
            "formula": equation("contribution", self.reader.written(rule)),
            "latex": equation(r"\text{contribution}", self.reader.typeset(rule)),
            "sentence": f"{said} {sentence.unfit(self.nodes[before], x, name)}",
            "rows": (row,),
        }
        for k in sums:
            rule = call(self.nodes[k], {0: rule})
        said = " ".join(sentence.summed(self.nodes[k], name) for k in sums)
        after = self.shown(contribution, self.nodes[sums[0]].label, {*sums})
        row = (self.shown(before, "contribution", inside), "→", after)
        yield {**facts, "kind": "sum", **self.arrive(edge, row, rule, said)}

    def _is_unbroadcast(self, index: int, route: Route) -> bool:
        node = self.nodes[index]
        return node.part == "unbroadcast" and (node.via, node.route) == route

    def shown(self, index: int, caption: str, inside: set[int] | None = None) -> Shown:
        """Show a node of the backward graph."""
        return self.reader.shown(index, caption, inside or ())

    def rule_row(self, rule: Expr, via: Node, before: int, inside: set[int]) -> Row:
        """Show the rule: the gradient that arrives, times how the op changes if it is a product."""
        g = via.twin
        assert g is not None
        result = self.shown(before, "contribution", inside)
        incoming = self.shown(g, self.names.gradient(via.index))
        local = factor(rule, g)
        if local == ONE:
            how = self.reader.explainer.together("{0}", [(before, incoming.caption)])
            return (incoming, "→", replace(result, how=how))
        if local is not None and (table := self.table(local)):
            return (incoming, "×", table, "=", result)
        if len(rule.args) == 2 and rule.op in SIGNS:
            tables = [self.table(a) for a in rule.args]
            if tables[0] and tables[1]:
                return (tables[0], SIGNS[rule.op], tables[1], "=", result)
        return (incoming, "→", result)

    def table(self, expr: Expr) -> Shown | None:
        """Show what an expression comes to, if that can be computed."""
        if expr.node is not None:
            return self.reader.shown(expr.node)
        value = evaluate(expr, lambda k: self.nodes[k].value)
        return None if value is None else Shown(self.reader.written(expr), np.asarray(value))

    def arrive(self, edge: Edge, row: Row, rule: Expr, said: str) -> dict[str, Any]:
        """Add a contribution to what has come to a node."""
        x, earlier = self.nodes[edge.source], self.so_far.get(edge.source)
        came, uses = self.came[x.index], self.uses[x.index]
        self.came[x.index] += 1
        final = came + 1 == uses
        d = self.names.gradient(x.index)
        caption = d if final else f"{d} so far"
        contribution = edge.contribution
        assert contribution is not None
        total, rows, last = self.nodes[contribution], [row], row[-1]
        assert isinstance(last, Shown)
        if earlier is None:
            rows = [(*row[:-1], replace(last, caption=caption))]
        else:
            total = self.sums[edge.target, edge.position]
            before = self.shown(earlier.index, f"{d} so far")
            both = [(earlier.index, before.caption), (contribution, "contribution")]
            after = Shown(
                caption, total.value, total.index, self.reader.explainer.together("{0} + {1}", both)
            )
            rows.append((before, "+", replace(last, caption="contribution"), "=", after))
        self.so_far[x.index] = total
        sign, tex_sign = ("=", "=") if earlier is None else ("+=", r"\mathrel{+}=")
        tex = self.names.gradient_latex(x.index)
        return {
            "gradient": total,
            "final": final,
            "formula": f"{d} {sign} {self.reader.written(rule)}",
            "latex": f"{tex} {tex_sign} {self.reader.typeset(rule)}",
            "sentence": f"{said} {sentence.arrival(self.reader.called(x.index), d, came, uses)}",
            "rows": tuple(rows),
            "remark": str(self.estimate(x) or "") if final and x.op is None else "",
        }

    # The end -------------------------------------------------------------------------------------

    def estimate(self, leaf: Node) -> Estimate | None:
        """Return what finite differences say of the gradient of ``leaf``."""
        if leaf.index not in self.estimates:
            self.estimates[leaf.index] = estimate(self.reader.graph, self.reader.arguments, leaf)
        return self.estimates[leaf.index]

    def end(self) -> dict[str, Any]:
        """Show the gradients of all leaves, beside what finite differences say of them."""
        leaves = [n for n in self.reader.forward if n.op is None and n.index in self.so_far]
        rows: list[Row] = []
        for leaf in leaves[:LEAVES]:
            d = self.names.gradient(leaf.index)
            table, found = self.shown(self.so_far[leaf.index].index, d), self.estimate(leaf)
            if found and found.value is not None:
                rows.append((table, "≈", Shown("finite differences", found.value)))
            else:
                rows.append((table,))
        names = [self.names.gradient(leaf.index) for leaf in leaves[:LEAVES]]
        if len(leaves) > LEAVES:
            names.append(f"{len(leaves) - LEAVES} more")
        known = [found for found in self.estimates.values() if found]
        worst = max((found.distance for found in known if found.value is not None), default=None)
        remark = "" if worst is None else f"Finite differences are at most {worst:.1e} away."
        return {
            "kind": "end",
            "formula": ", ".join(names),
            "latex": ", ".join(self.names.gradient_latex(n.index) for n in leaves[:LEAVES]),
            "sentence": "Backward is done. These are the gradients of what was given: "
            f"{sentence.listed(names)}.",
            "rows": tuple(rows),
            "remark": remark,
        }
