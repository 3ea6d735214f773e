"""The steps of the forward pass: the leaves as they are given, then one op after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...kernels import Array
from ..parts import Edge, Node
from ..snapshot import number
from . import sentence
from .event import Failure, Row, Shown
from .formula import Expr, call
from .reader import Reader, equation

LEAVES = 12  # that are shown side by side
SIGNS = {"matmul": "@", "mul": "×", "div": "÷", "add": "+", "sub": "−"}


def start(reader: Reader) -> dict[str, Any]:
    """Show what is given before anything is computed."""
    leaves = [node for node in reader.forward if node.op is None]
    ops = len(reader.forward) - len(leaves)

    def called(node: Node) -> str:
        return reader.called(node.index)

    names = [called(node) for node in leaves[:LEAVES]]
    if len(leaves) > LEAVES:
        names.append(f"{len(leaves) - LEAVES} more")
    them = "it" if len(leaves) == 1 else "them"
    coming = f" {ops} op{'s' * (ops != 1)} will be computed from {them}." * bool(ops)
    return {
        "kind": "start",
        "formula": ", ".join(names),
        "latex": ", ".join(reader.names.latex(node.index).text for node in leaves[:LEAVES]),
        "sentence": f"What is given: {sentence.listed(names)}.{coming}",
        "rows": (separated([reader.shown(node.index) for node in leaves[:LEAVES]]),),
        "remark": sentence.made_before([called(n) for n in leaves if not_finite(n.value)]),
    }


def compute(reader: Reader, node: Node) -> dict[str, Any]:
    """Compute one op."""
    edges = reader.arguments[node.index]
    formula = call(node, {e.position: Expr(node=e.source) for e in edges})
    arguments = {i: number(value) for i, value in node.scalars.items()}
    arguments |= {e.position: reader.called(e.source) for e in edges}
    stretched = [
        (reader.called(e.source), reader.nodes[e.source].shape) for e in edges if e.broadcast
    ]
    name, latex = reader.called(node.index), reader.names.latex(node.index).text
    return {
        "kind": "forward",
        "node": node,
        "formula": equation(name, reader.written(formula, loud=True)),
        "latex": equation(latex, reader.typeset(formula, loud=True)),
        "sentence": sentence.forward(node, [arguments[i] for i in sorted(arguments)]),
        "rows": (call_row(reader, node, edges),),
        "remark": sentence.stretched(node, stretched),
        "source": node.source,
    }


def failed(
    reader: Reader, failure: Failure, operands: Sequence[tuple[str | None, Array]]
) -> dict[str, Any]:
    """Show where the program failed: the operands of the call, or what it had computed last."""
    last = [reader.shown(node.index) for node in reader.forward if node.kind == "output"]
    last = [_operand(reader, name, value) for name, value in operands] or last
    return {
        "kind": "error",
        "formula": failure.source.text if failure.source else "the program failed",
        "sentence": failure.message,
        "rows": (separated(last),) if last else (),
        "source": failure.source,
    }


def _operand(reader: Reader, name: str | None, value: Array) -> Shown:
    for node in reversed(reader.forward):
        if node.name == name and node.value is not None and np.array_equal(node.value, value):
            return reader.shown(node.index)
    return Shown(name or "an array", value)


def call_row(reader: Reader, node: Node, edges: list[Edge]) -> Row:
    """Show the arguments of an op, and what it makes of them."""
    arguments = {i: Shown(number(value), np.asarray(value)) for i, value in node.scalars.items()}
    arguments |= {e.position: reader.shown(e.source) for e in edges}
    tables, sign = [arguments[i] for i in sorted(arguments)], SIGNS.get(node.op or "")
    result = reader.shown(node.index)
    if sign and len(tables) == 2:
        return (tables[0], sign, tables[1], "=", result)
    only = [reader.shown(e.source) for e in edges]  # a number stands in the formula
    return (*separated(only), "→", result)


def not_finite(value: Any) -> bool:
    """Whether there is a NaN or an infinity among floats."""
    array = np.asarray(value)
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())


def separated(tables: list[Shown]) -> Row:
    """Put commas between tables."""
    row: list[Shown | str] = []
    for table in tables:
        row += [",", table] if row else [table]
    return tuple(row)
