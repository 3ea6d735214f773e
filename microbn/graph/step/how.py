"""Why this number? How each entry of an array comes from entries of others.

A `How` is a formula with places for numbers, and for each place where the number is found. For an
op that works entry by entry it is the op itself: ``{0} − {1}``; a sum or a mean is one over many
terms. What only moves entries about (a transpose, a broadcast) moves the places.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...kernels import Array
from ..parts import Edge, Node
from .formula import Expr, Written, call, op_called, text

Wrap = Literal["", "sum", "mean", "max", "min", "pick"]
MOVES = "broadcast_to expand_dims squeeze reshape transpose swapaxes index windows astype".split()
REDUCTIONS: dict[str | None, Wrap] = {
    "sum": "sum",
    "sum_to": "sum",
    "mean": "mean",
    "max": "max",
    "min": "min",
}
PICKS = ("concatenate", "stack", "scatter")
SHOWN = 12  # terms that are written out
WHOLE, CORNER = 1024, 6  # an array of more entries is looked into at its first ones along each axis
LARGEST = 2**20  # entries of what is looked into at all


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """Where the numbers for one place of a formula are.

    For the entry at ``i`` of the result and the term ``t`` of it, that is the entry of ``value``
    with the flat index ``offset + sum(i * strides) + sum(t * steps)``, where the terms ``t`` count
    up to ``lengths``. Where no such rule holds, ``at`` lists the flat indices for all entries of
    the result in order; -1 says that this operand is not the one.
    """

    name: str
    value: Array
    node: int | None
    offset: int = 0
    strides: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    at: tuple[int, ...] | None = None

    def places(self, index: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
        """Return the flat indices of the terms for the entry at ``index`` of the result."""
        if self.at is not None:
            return [self.at[int(np.ravel_multi_index(index, shape))] if shape else self.at[0]]
        start = self.offset + sum(i * s for i, s in zip(index, self.strides, strict=True))
        grid = [
            sum(t * s for t, s in zip(term, self.steps, strict=True))
            for term in np.ndindex(self.lengths)
        ]
        return [start + term for term in grid]


@dataclass(frozen=True, slots=True, eq=False)
class How:
    """How each entry of an array of ``shape`` comes about; see the head of this module.

    With a ``wrap`` the entry is the sum, mean, largest or smallest of the terms; "pick" is the one
    operand that an entry was taken from, or 0 if there is none.
    """

    template: str
    operands: tuple[Operand, ...]
    shape: tuple[int, ...]
    wrap: Wrap = ""

    def entry(self, index: tuple[int, ...] = ()) -> str:
        """Write with numbers how the entry at ``index`` comes about.

        >>> import microbn as mb
        >>> x = mb.Tensor([[7.0, 70.0], [9.0, 90.0]], requires_grad=True, name="x")
        >>> how = mb.steps(x.mean(axis=0))[1].result.how
        >>> how.entry((1,))
        '(70 + 90) ÷ 2'
        """
        places = [operand.places(index, self.shape) for operand in self.operands]
        if self.wrap == "pick":
            found = [(o, p[0]) for o, p in zip(self.operands, places, strict=True) if p[0] >= 0]
            return found[0][0].name + self._number(*found[0]) if found else "0"
        if not places:
            return self.template
        terms = [
            filled(
                self.template,
                [self._number(o, k) for o, k in zip(self.operands, term, strict=True)],
            )
            for term in zip(*places, strict=True)
        ]
        return wrapped(terms, self.wrap)

    def _number(self, operand: Operand, place: int) -> str:
        if self.wrap == "pick":
            index = ", ".join(map(str, np.unravel_index(place, operand.value.shape)))
            return f"[{index}]" if index else ""
        return written(np.asarray(operand.value).ravel()[place])


def written(value: Any) -> str:
    """Write a number to five digits, with a minus sign that is one.

    >>> written(-0.44721359), written(np.float32(70)), written(np.True_)
    ('−0.44721', '70', '1')
    """
    value = float(value)
    return (f"{value:.5g}" if value else "0").replace("-", "−", 1 if value < 0 else 0)


def filled(template: str, numbers: list[str]) -> str:
    """Put numbers into a formula, negative ones in parentheses unless they come first.

    >>> filled("{0} − {1}", ["−1", "−2"]), filled("{0}²", ["−1"]), filled("exp({0})", ["−1"])
    ('−1 − (−2)', '(−1)²', 'exp(−1)')
    """
    for i, number in enumerate(numbers):
        before, place, after = template.partition(f"{{{i}}}")
        alone = before[-1:] in ("", "(") or before.endswith(", ")
        alone = alone and (after[:1] in ("", ")", ",", " ") and not after.startswith(" **"))
        loose = number.startswith("−") and not alone
        template = before + (f"({number})" if loose else number if place else "") + after
    return template


def wrapped(terms: list[str], wrap: Wrap) -> str:
    """Write many terms as their sum, their mean, the largest or the smallest."""
    if not wrap:
        return terms[0]
    count, shown = len(terms), terms[:SHOWN]
    if wrap in ("max", "min"):
        more = [f"… {count - SHOWN} more"] * (count > SHOWN)
        return f"{wrap}({', '.join(shown + more)})"
    shown = [f"({t})" if k and t.startswith("−") else t for k, t in enumerate(shown)]
    total = " + ".join(shown + [f"… {count - SHOWN} more"] * (count > SHOWN))
    if wrap == "mean":
        return f"({total}) ÷ {count}"
    return total


# Finding it --------------------------------------------------------------------------------------


class _Lost(Exception):
    """It cannot be said how an entry came about."""


class Explainer:
    """Says of nodes how their entries come about, in terms of nodes that have a name."""

    def __init__(
        self,
        nodes: tuple[Node, ...],
        arguments: Mapping[int, list[Edge]],
        names: Callable[[int], Written],
    ) -> None:
        self.nodes, self.arguments, self.names = nodes, arguments, names

    def how(self, root: int, inside: Container[int] = ()) -> How | None:
        """Return how the entries of ``root`` come about, or None if that cannot be said.

        Those of its arguments that are ``inside`` are written out in turn.
        """
        node = self.nodes[root]
        value = node.value
        if value is None or node.op is None or node.kind == "scope":
            return None
        try:
            if node.op in PICKS:
                return self._pick(node, value.size)
            return _Formula(self, node, inside).how()
        except _Lost:
            return None

    def together(self, template: str, named: Sequence[tuple[int, str]]) -> How:
        """Say that each entry is made of those at the same place in nodes of one shape.

        ``named`` are their indices, and what to call them here.
        """
        shape = self.nodes[named[0][0]].shape
        strides = tuple(int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape)))
        values = [(name, self.nodes[index].value, index) for index, name in named]
        return How(
            template,
            tuple(
                Operand(name, np.zeros(0) if value is None else value, index, strides=strides)
                for name, value, index in values
            ),
            shape,
        )

    def _pick(self, node: Node, size: int) -> How:
        """Say of each of ``size`` entries which argument it was taken from."""
        op, places = op_called(node.op), list[Operand]()
        edges = self.arguments[node.index]
        sizes = [int(np.prod(self.nodes[e.source].shape, dtype=int)) for e in edges]
        if op is None or node.scalars or size > WHOLE:
            raise _Lost
        for k, edge in enumerate(edges):
            marks = [
                np.arange(1, size + 1).reshape(self.nodes[e.source].shape) * (e is edge)
                for e, size in zip(edges, sizes, strict=True)
            ]
            out = op.fn(*marks, **node.params)
            if out.max(initial=0) > sizes[k]:  # several were added up
                raise _Lost
            at = tuple(int(i) - 1 for i in out.ravel())
            places.append(self._operand(edge.source, at=at))
        return How("{0}", tuple(places), node.shape, "pick")

    def _operand(self, index: int, **where: Any) -> Operand:
        value = self.nodes[index].value
        if value is None:
            raise _Lost
        return Operand(self.names(index).text, value, index, **where)

    def operand(self, index: int, places: Array, whole: tuple[int, ...]) -> Operand:
        """Describe flat indices by a rule, or list them if they are for the ``whole`` result."""
        outer = len(whole)
        if found := affine(places):
            offset, strides = found
            return self._operand(
                index,
                offset=offset,
                strides=strides[:outer],
                lengths=places.shape[outer:],
                steps=strides[outer:],
            )
        if places.shape != whole:
            raise _Lost
        return self._operand(index, at=tuple(map(int, places.ravel())))


class _Formula:
    """One formula in the making: which numbers it takes, and where they are found."""

    def __init__(self, within: Explainer, node: Node, inside: Container[int]) -> None:
        self.within, self.node, self.inside = within, node, inside
        self.operands: list[Operand] = []
        self.wrap: Wrap = ""

    def how(self) -> How:
        """Go back from the node, first through what adds up entries of others, if it does so."""
        node, places = self.node, _counted(self.node.shape)
        if places.size > WHOLE:
            places = places[(slice(CORNER),) * places.ndim]  # by a rule only: see `operand`
        while node.op in MOVES and not self._is_end(node):
            node, places = self._moved(node, places)
        if node.op in REDUCTIONS and not self._is_end(node):
            self.wrap = REDUCTIONS[node.op]
            (edge,) = self.within.arguments[node.index]
            source = self.within.nodes[edge.source]
            places = _terms(node, source.shape, places)
            body = self._expr(source, places)
        elif node.op == "matmul" and not self._is_end(node):
            self.wrap, body = "sum", self._product(node, places)
        else:
            body = self._expr(node, places)
        template = text(body, lambda k: Written(f"{{{k}}}")).text
        return How(template, tuple(self.operands), self.node.shape, self.wrap)

    def _is_end(self, node: Node) -> bool:
        return node.index != self.node.index and node.index not in self.inside

    def _place(self, node: Node, places: Array) -> Expr:
        self.operands.append(self.within.operand(node.index, places, self.node.shape))
        return Expr(node=len(self.operands) - 1)

    def _expr(self, node: Node, places: Array) -> Expr:
        """Write ``node`` out as far as it is entry by entry."""
        op = op_called(node.op)
        edges = self.within.arguments[node.index]
        if self._is_end(node) or op is None:
            if node.index == self.node.index:
                raise _Lost
            return self._place(node, places)
        if node.op in MOVES:
            return self._expr(*self._moved(node, places))
        each = node.op in ("where", "relu", "clip", "erf") or (
            isinstance(op.fn, np.ufunc) and not op.fn.signature
        )
        if not each:
            if node.index == self.node.index:
                raise _Lost
            return self._place(node, places)
        args = {}
        for edge in edges:
            source = self.within.nodes[edge.source]
            try:
                own = np.broadcast_to(_counted(source.shape), node.shape)
            except ValueError:
                raise _Lost from None
            args[edge.position] = self._expr(source, own.ravel()[places])
        return call(node, args)

    def _moved(self, node: Node, places: Array) -> tuple[Node, Array]:
        """Follow what only moves entries about to where they were."""
        (edge,) = self.within.arguments[node.index]
        source, op = self.within.nodes[edge.source], op_called(node.op)
        own = _counted(source.shape)
        if node.op != "astype" and op is not None:
            own = np.asarray(op.fn(own, **node.params))
        return source, own.ravel()[places]

    def _product(self, node: Node, places: Array) -> Expr:
        """Write an entry of a matrix product: a row times a column."""
        left, right = (self.within.nodes[e.source] for e in self.within.arguments[node.index])
        parts = _rows_and_columns(left.shape, right.shape, places)
        args = [self._expr(n, p) for n, p in zip((left, right), parts, strict=True)]
        return Expr(op="mul", label="×", args=tuple(args))


def _rows_and_columns(x: tuple[int, ...], y: tuple[int, ...], places: Array) -> tuple[Array, Array]:
    """Say which entries of two arrays of these shapes meet in entries of their matrix product."""
    x, y = ((1, *x) if len(x) == 1 else x), ((*y, 1) if len(y) == 1 else y)
    lead = np.broadcast_shapes(x[:-2], y[:-2])
    shape = (int(np.prod(lead, dtype=int)), x[-2], y[-1])
    stacked, row, column = map(np.asarray, np.unravel_index(places, shape))
    first, second = (np.broadcast_to(_counted(s[:-2]), lead).ravel()[stacked] for s in (x, y))
    k, n = np.arange(x[-1]), y[-1]
    rows = (first * x[-2] + row)[..., None] * x[-1] + k
    columns = ((second * x[-1])[..., None] + k) * n + column[..., None]
    return rows, columns


def _counted(shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape, dtype=int))
    if not 0 < size <= LARGEST:
        raise _Lost
    return np.arange(size).reshape(shape)


def _terms(node: Node, shape: tuple[int, ...], places: Array) -> Array:
    """Say for each entry of a reduction which entries of its argument go into it."""
    if node.op == "sum_to":
        extra = len(shape) - len(node.shape)
        axes = [i for i, n in enumerate(shape) if i < extra or node.shape[i - extra] != n]
    else:
        axis = node.params.get("axis")
        axes = [*range(len(shape))] if axis is None else [*np.atleast_1d(axis) % len(shape)]
    own = np.moveaxis(_counted(shape), axes, range(-len(axes), 0)) if axes else _counted(shape)
    lengths = tuple(shape[a] for a in axes)
    return np.asarray(own.reshape((-1, *lengths))[places])


def affine(places: Array) -> tuple[int, tuple[int, ...]] | None:
    """Return offset and strides if the entries of ``places`` grow evenly along every axis.

    >>> affine(np.array([[1, 3], [5, 7]])), affine(np.array([0, 1, 3]))
    ((1, (4, 2)), None)
    """
    if not places.size:
        return 0, (0,) * places.ndim
    offset = int(places.flat[0])
    strides, grown = [], np.array(offset)
    for axis, length in enumerate(places.shape):
        second = [0] * places.ndim
        second[axis] = 1 if length > 1 else 0
        stride = int(places[tuple(second)]) - offset
        strides.append(stride)
        grown = np.expand_dims(grown, -1) + stride * np.arange(length)
    return (offset, tuple(strides)) if np.array_equal(grown, places) else None
