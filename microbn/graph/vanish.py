"""Whether a cotangent is exactly nothing: zero but for rounding, with a bound that is derived.

A sum whose terms cancel is hardly ever 0.0 in floating point. What is left may be rounding, or a
small number that means something; `vanishing` tells the two apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .. import engine, ops
from ..kernels import Array
from ..tensor import Tensor

SUSPECT = 1e-6  # what is left of a sum, by what went in, for its rounding to be looked into


class Vanished(NamedTuple):
    """What went in and what is left, and the ``step`` that summed it up, if it cancelled there."""

    step: Tensor | None
    largest: float
    total: float


def vanishing(after: Tensor, g: Tensor, start: int) -> Vanished | None:
    """Say how ``after``, made of ``g`` since the time ``start``, is exactly nothing, if it is."""
    for step in _steps(after, start):
        if step.op not in COUNTS:
            continue
        amount = _amount(step)
        cancels = bool(amount.any() and (np.abs(step.data) <= SUSPECT * amount).all())
        if cancels and _is_rounding(step, amount):
            terms = amount if step.op is ops.matmul else np.abs(step.values[0])
            return Vanished(step, float(np.max(terms)), float(np.abs(step.data).max()))
    largest, total = (float(np.abs(t.data).max(initial=0)) for t in (g, after))
    small = total <= SUSPECT * largest < math.inf
    if after.size and small and _is_rounding(after, largest):
        return Vanished(None, largest, total)
    return None


def _steps(after: Tensor, start: int) -> Iterator[Tensor]:
    """Yield the calls since the time ``start`` that led to ``after``, the last one first."""
    pending, seen = [after], {after}
    while pending:
        step = pending.pop()
        if step.time > start and step.op is not None:
            yield step
            inputs = [a for a in step.inputs if isinstance(a, Tensor) and a not in seen]
            seen.update(inputs)
            pending += inputs


# How many numbers each entry of a result was added up from.
COUNTS: dict[ops.Op, Callable[[Tensor], int]] = {
    ops.sum: lambda t: t.values[0].size // max(t.size, 1),
    ops.mean: lambda t: t.values[0].size // max(t.size, 1),
    ops.sum_to: lambda t: t.values[0].size // max(t.size, 1),
    ops.matmul: lambda t: t.values[0].shape[-1],
    ops.scatter: lambda t: t.values[0].size,
}


def _amount(step: Tensor) -> Array:
    """Add up the magnitudes of what a sum adds up."""
    assert step.op is not None
    return step.op.kernel(*map(np.abs, step.values), **step.params)


def _is_rounding(step: Tensor, amount: Array | float) -> bool:
    """Whether rounding explains all of ``step``, where it is 0 in exact arithmetic.

    Every earlier result ``v`` is off by ``n * eps * |v|`` at most, where ``n = 1``; for the sum of
    n numbers, by ``n * eps`` times the sum of their magnitudes. To first order, each error counts
    as much as the derivative of ``step`` by ``v`` says: it is differentiated once more, through
    its backward and forward pass (so Linnainmaa, 1976, came to invent backprop). Entries of
    ``step`` are weighted by ``amount``, what would be there without cancelling, and the
    walk ends as soon as the errors explain them, or are too large for that to mean anything,
    or NaN.
    """
    weight = np.sign(step.data) / np.where(np.equal(amount, 0), 1, amount)
    total, bound = float(np.sum(weight * step.data)), 0.0
    if total == 0 or not step.requires_grad:
        return total == 0
    for v, sensitivity in engine.backprop(step, weight):
        if v.op is not None:
            error = COUNTS[v.op](v) * _amount(v) if v.op in COUNTS else np.abs(v.data)
            bound += float(np.sum(np.abs(sensitivity) * error)) * float(np.finfo(v.dtype).eps)
        if not bound <= SUSPECT * step.size:
            return False
        if total <= bound:
            return True
    return False
