"""Gradients by finite differences, from the graph alone: what the backward pass is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels import Array
from ..graph import Graph
from ..parts import Edge, Node
from ..wide import widened
from .formula import op_called

STEP = float(np.finfo(np.float64).eps) ** (1 / 3)  # balances rounding and curvature
EACH = 64  # entries that are moved one by one; more are moved all together
WORK = 20_000_000  # entries that may be computed for one leaf


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What finite differences say of a gradient, in float64.

    ``value`` has one number per entry; where there are too many of them it is None, and what is
    estimated is the derivative along a random direction: ``slope``, beside ``claimed``, which the
    gradient has for it. ``distance`` is the largest difference.
    """

    value: Array | None
    slope: float
    claimed: float
    distance: float

    def __str__(self) -> str:
        if self.value is not None:
            return f"Finite differences are at most {self.distance:.1e} away from it."
        return (
            f"Along a random direction finite differences give {self.slope:.6g}, "
            f"the gradient {self.claimed:.6g}."
        )


def estimate(graph: Graph, arguments: Mapping[int, list[Edge]], leaf: Node) -> Estimate | None:
    """Estimate the gradient of ``leaf`` by central differences of the output times its seed.

    None if an op on the way cannot be computed again, if it would take long, or if a value on
    the way is not finite.
    """
    output = next((n for n in graph.nodes if n.kind == "output" and n.twin is not None), None)
    if output is None or leaf.twin is None or leaf.value is None or not leaf.value.size:
        return None
    gradient, seed = graph.nodes[leaf.twin].value, graph.nodes[output.twin or 0].value
    again = _Again(graph, arguments, leaf)
    if gradient is None or seed is None or not again.possible:
        return None

    def along(v: Array) -> float:
        h = STEP * max(1.0, float(np.abs(x[v != 0]).max(initial=0)))
        difference = again.output(x + h * v) - again.output(x - h * v)
        return float(np.sum(seed * difference) / (2 * h))

    x, g = widened(leaf.value), widened(gradient)
    with np.errstate(all="ignore"):
        if x.size <= EACH and again.work * x.size <= WORK:
            units = np.eye(x.size).reshape((x.size, *x.shape))
            value = np.array([along(v) for v in units]).reshape(x.shape)
            found = Estimate(value, 0.0, 0.0, float(np.abs(value - g).max()))
        elif again.work <= WORK:
            v = np.random.default_rng(0).standard_normal(x.shape)
            slope, claimed = along(v), float(np.sum(v * g))
            found = Estimate(None, slope, claimed, abs(slope - claimed))
        else:
            return None
    return found if np.isfinite(found.distance) else None


class _Again:
    """Computes the output again with another value for one leaf, in float64."""

    def __init__(self, graph: Graph, arguments: Mapping[int, list[Edge]], leaf: Node) -> None:
        self.leaf, self.arguments = leaf, arguments
        self.values: dict[int, Any] = {n.index: widened(n.value) for n in graph.nodes if not n.part}
        moved = {leaf.index}
        self.order = []
        for node in graph.nodes:
            if node.part is None and any(e.source in moved for e in arguments[node.index]):
                moved.add(node.index)
                self.order.append(node)
        self.end = next(n.index for n in graph.nodes if n.kind == "output")
        self.work = sum(max(int(np.prod(n.shape)), 100) for n in self.order)
        needed = {e.source for n in self.order for e in arguments[n.index]}
        known = all(op_called(n.op) and n.kind != "scope" for n in self.order)
        self.possible = known and all(self.values[k] is not None for k in needed)

    def output(self, value: Array) -> Any:
        """Return the output for ``value``."""
        values = dict(self.values)
        values[self.leaf.index] = value
        for node in self.order:
            args = dict(node.scalars) | {
                e.position: values[e.source] for e in self.arguments[node.index]
            }
            op = op_called(node.op)
            assert op is not None
            params = {key: widened(p) for key, p in node.params.items()}
            values[node.index] = op.fn(*(args[i] for i in sorted(args)), **params)
        return values[self.end]
