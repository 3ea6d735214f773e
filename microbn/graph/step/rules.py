"""Writing out the rule of an op: from the steps that the engine took to a formula as in a book.

What is written is what was computed. Only what serves NumPy's bookkeeping is tidied away: axes of
length 1 that make a matrix of a vector, and choices in which all entries go the same way.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from ...kernels import Array
from ..parts import Node
from .formula import SUM, Expr, Written, call, transposed
from .reader import Reader


class Rules:
    """Writes the rules of the ops of one graph."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.nodes = reader, reader.nodes

    def rule(self, index: int, inside: Container[int], via: Node, position: int) -> Expr:
        """Write out the rule of ``via`` for an argument; the node at ``index`` is its result."""
        edges = self.reader.arguments[via.index]
        if via.op == "matmul" and all(len(self.nodes[e.source].shape) == 1 for e in edges):
            (other,) = (e.source for e in edges if e.position != position)
            return Expr(op="mul", label="×", args=(Expr(node=via.twin), Expr(node=other)))
        return self.written_out(index, inside, via)

    def written_out(self, index: int, inside: Container[int], via: Node) -> Expr:
        """Write out the rule of ``via`` that made a node, down to what is not ``inside`` of it."""
        if index not in inside:
            return self.recognised(index, via)
        args = {
            e.position: self.written_out(e.source, inside, via)
            for e in self.reader.arguments[index]
        }
        return self.tidied(call(self.nodes[index], args), self.nodes[index])

    def tidied(self, formula: Expr, node: Node) -> Expr:
        """Leave out what is bookkeeping."""
        if formula.op == "transpose" and len(node.shape) == 2:
            return transposed(formula.args[0])
        if formula.op == "where" and (same := self._same_everywhere(formula.args[0])) is not None:
            return formula.args[1] if same else formula.args[2]
        if formula.op == "matmul" and _is_column(formula.args[0]) and _is_row(formula.args[1]):
            vectors = tuple(_vector(a) for a in formula.args)
            return Expr(op="outer", label="outer", args=vectors)
        if formula.op == "index" and formula.args[0].op == "matmul":
            return _without_axis(formula, formula.args[0])
        return formula

    def _same_everywhere(self, expr: Expr) -> bool | None:
        """Return what all entries of a mask are, None if they are not all the same."""
        mask = self._constant(expr)
        if mask is None or mask.dtype != bool or not mask.size or mask.all() != mask.any():
            return None
        return bool(mask.all())

    def _constant(self, expr: Expr) -> Array | None:
        found = None if expr.node is None else self.nodes[expr.node]
        return found.value if found is not None and found.part == "constant" else None

    def recognised(self, index: int, via: Node) -> Expr:
        """Tell what a constant of a rule is, if it is an argument of the op, or made from one.

        A rule that transposes or compares what requires no gradient is not recorded as doing so.
        """
        value = self._constant(Expr(node=index))
        if value is None:
            return Expr(node=index)
        for edge in self.reader.arguments[via.index]:
            argument, it = self.nodes[edge.source].value, Expr(node=edge.source)
            if argument is not None and np.array_equal(value, argument):
                return it
            if argument is not None and np.array_equal(value, argument.T):
                return transposed(it)
        if name := self._made_from(value, via):
            self.reader.names.constants[index] = name
        return Expr(node=index)

    def _made_from(self, value: Array, via: Node) -> Written | None:
        """Say how a constant was made from the arguments and the result of the op."""
        called = self.reader.called
        edges = self.reader.arguments[via.index]
        arguments = [(called(e.source), self.nodes[e.source].value) for e in edges]
        arguments += [(str(number), np.asarray(number)) for number in via.scalars.values()]
        out = via.value
        if via.op in ("max", "min") and value.dtype != bool:
            return Written("ties")
        for name, x in arguments:
            if x is None or out is None:
                continue
            with np.errstate(all="ignore"):
                if value.dtype != bool:
                    if via.op == "abs" and np.array_equal(value, np.sign(x)):
                        return Written(f"sign({name})")
                    if via.op == "pow" and np.array_equal(value, x - 1):
                        return Written(f"{name} − 1", SUM)
                    continue
                if via.op == "relu" and np.array_equal(value, out > 0):
                    return Written(f"{name} > 0", SUM)
                if via.op in ("max", "min") and value.shape == x.shape:
                    return Written(f"{name} = {called(via.index)}", SUM)
                if via.op in ("maximum", "minimum"):
                    return self._compared(value, arguments, called(via.index), out)
        return None

    def _compared(
        self, value: Array, arguments: list[tuple[str, Array | None]], name: str, out: Array
    ) -> Written | None:
        """Name the mask of a choice between two: where they tie, or where one of them has won."""
        (a, x), (b, y) = arguments[:2]
        if x is not None and y is not None and np.array_equal(value, np.equal(x, y)):
            return Written(f"{a} = {b}", SUM)
        for argument, z in arguments:
            if z is not None and np.array_equal(value, np.equal(z, out)):
                return Written(f"{argument} = {name}", SUM)
        return None


def _is_column(expr: Expr) -> bool:
    """Whether it is a vector that was made a matrix with one column."""
    if expr.op == "transpose":
        return _is_row(expr.args[0])
    return expr.op == "expand_dims" and (expr.params or {}).get("axis") in (1, -1)


def _is_row(expr: Expr) -> bool:
    """Whether it is a vector that was made a matrix with one row."""
    if expr.op == "transpose":
        return _is_column(expr.args[0])
    return expr.op == "expand_dims" and (expr.params or {}).get("axis") in (0, -2)


def _vector(expr: Expr) -> Expr:
    """Return the vector that a matrix with one row or one column was made of."""
    return _vector(expr.args[0]) if expr.op == "transpose" else expr.args[0]


def _without_axis(formula: Expr, product: Expr) -> Expr:
    """Write ``(A @ column)[..., 0]`` as ``A @ vector``, and the same for a row."""
    key, (a, b) = (formula.params or {}).get("key"), product.args
    if key == (..., 0) and _is_column(b):
        return Expr(op="matmul", label="@", args=(a, _vector(b)))
    if isinstance(key, tuple) and key[:2] == (..., 0) and len(key) == 3 and _is_row(a):
        return Expr(op="matmul", label="@", args=(_vector(a), b))
    return formula
