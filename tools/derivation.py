"""A derivation that typesets and checks itself, for docs/explanation/derivation.md.

A line is given once, as NumPy. It is evaluated, and compared with what the engine computed; as
LaTeX it is written by the templates in the table of primitives, from the graph that evaluating it
records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import microbn as mb
from microbn.graph.step.formula import Expr, Written, call, latex, symbol
from microbn.graph.step.walk import Walk

try:
    from latex2mathml.converter import convert
except ImportError:
    convert = None

CLOSE = 1e-12
STYLES = (
    "text-align: right; padding: 0.5em 0.2em",
    "text-align: left; padding: 0.5em 0.2em; white-space: nowrap",
    "text-align: left; padding: 0.5em 1.5em; white-space: nowrap; opacity: 0.6",
)


@dataclass(frozen=True)
class Line:
    """One line: both sides and the sign between as LaTeX, the whole as text.

    ``off`` is by how much the two sides differ, None if they were not compared.
    """

    left: str
    sign: str
    right: str
    text: str
    off: float | None = None


class Lines(list[Line]):
    """Lines to show below one another, each with what the check of it has found."""

    def _repr_html_(self) -> str | None:
        """Return a table with MathML, which browsers show without any script."""
        if convert is None:
            return None  # a notebook shows the LaTeX then
        rows = []
        for line in self:
            formulas = [_mathml(part) for part in (line.left, f"{line.sign} {line.right}")]
            found = "" if line.off is None else f"<small>{self.found(line)}</small>"
            cells = zip(STYLES, (*formulas, found), strict=True)
            rows.append("".join(f'<td style="{style}">{cell}</td>' for style, cell in cells))
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f'<div style="overflow-x: auto"><table style="border: 0">{body}</table></div>'

    def _repr_latex_(self) -> str:
        lines = " \\\\ ".join(f"{line.left} &{line.sign} {line.right}" for line in self)
        return rf"$$\begin{{aligned}}{lines}\end{{aligned}}$$"

    @staticmethod
    def found(line: Line) -> str:
        """Say by how much the two sides of a line differ."""
        return f"differs by {line.off:.0e}" if line.off else "the same to the bit"

    def __repr__(self) -> str:
        return "\n".join(
            line.text if line.off is None else f"{line.text}   ({self.found(line)})"
            for line in self
        )


class Derivation:
    """The lines of a derivation about a walk; ``known`` are further values that lines may use.

    A line may use every named value of the walk, and its gradient as ``d`` before the name, such
    as ``dx_hat``. A line whose sides differ by more than 1e-12 is an AssertionError.
    """

    def __init__(self, walk: Walk, **known: float) -> None:
        self.walk = walk
        self.values: dict[str, Any] = dict(known)
        self.symbols = {name: symbol(name) for name in known}
        gradients = walk.state(-1).gradients
        for k, value in walk.state(-1).values.items():
            if (name := walk.names[k]).isidentifier():
                self.values[name], self.symbols[name] = value, symbol(name)
                if k in gradients:
                    self.values["d" + name] = gradients[k]
                    self.symbols["d" + name] = rf"\frac{{\partial L}}{{\partial {symbol(name)}}}"

    def forward(self) -> Lines:
        """Show the ops of the forward pass."""
        return Lines(Line(*_split(s.latex), s.formula) for s in self.walk if s.kind == "forward")

    def rule(self, name: str, *codes: str) -> Lines:
        """Show what comes back to ``name``, as the engine has recorded it, and check it.

        ``codes`` are NumPy expressions, one for each contribution in the order of arrival.
        """
        arrivals = [
            s
            for s in self.walk
            if s.kind in ("edge", "sum")
            and self.walk.names[s.node.index] == name
            and not s.formula.startswith("contribution")
        ]
        assert len(arrivals) == len(codes), f"{len(arrivals)} contributions come to {name}"
        lines = Lines()
        for step, code in zip(arrivals, codes, strict=True):
            (edge,) = (
                e
                for e in self.walk.graph.edges
                if (e.target, e.position) == (step.via.index, step.position)
            )
            came = self.walk.graph.nodes[edge.contribution].value
            lines.append(Line(*_split(step.latex), step.formula, self._off(code, came)))
        return lines

    def equal(self, first: str, *others: str) -> Lines:
        """Show ``first`` = the second = the third and so on, and check each against the first."""
        value, left = self._evaluated(first), self._typeset(first)
        lines = Lines()
        for code in others:
            text = f"{'' if lines else first} = {code}"
            lines.append(Line(left, "=", self._typeset(code), text, self._off(code, value)))
            left = ""
        return lines

    def _off(self, code: str, value: Any) -> float:
        found = np.broadcast_to(self._evaluated(code), np.shape(value))
        off = float(np.max(np.abs(found - value)))
        assert off < CLOSE, f"{code} is wrong, by up to {off:.1e}"
        return off

    def _evaluated(self, code: str) -> Any:
        return eval(code, {"np": np}, self.values)

    def _typeset(self, code: str) -> str:
        """Write an expression as LaTeX, from the graph that it records."""
        if code in self.symbols:
            return self.symbols[code]
        leaves = {
            name: mb.Tensor(self.values[name], requires_grad=True, name=name, dtype=np.float64)
            for name in compile(code, "", "eval").co_names
            if name in self.values
        }
        result = eval(code, {"np": np}, leaves)
        if not isinstance(result, mb.Tensor):
            return latex(Expr(number=result), lambda k: Written("")).text
        graph = mb.Graph.from_outputs(result)

        def expr(k: int) -> Expr:
            if graph.nodes[k].op is None:
                return Expr(node=k)
            edges = [e for e in graph.edges if e.target == k]
            return call(graph.nodes[k], {e.position: expr(e.source) for e in edges})

        end = next(n.index for n in graph.nodes if n.kind == "output")
        return latex(expr(end), lambda k: Written(self.symbols[graph.nodes[k].name])).text


def _split(formula: str) -> tuple[str, str, str]:
    """Split LaTeX at its first sign of equality."""
    sign = r"\mathrel{+}=" if r"\mathrel{+}=" in formula else "="
    left, _, right = formula.partition(f" {sign} ")
    return left, sign, right


def _mathml(formula: str) -> str:
    if not formula:
        return ""
    text = convert(formula.replace(r"\mathrel{+}=", r"\operatorname{+=}"), display="inline")
    assert "\\" not in text, f"{formula} has a command that is not known"
    return text.replace("<math ", '<math displaystyle="true" ', 1)
