"""Why a gradient and finite differences disagree: found out by a few more of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..kernels import Array
from .differences import Estimate, Point, sizes, slope_error

MOST = 2000  # entries that are looked at one by one, when a check has failed


class Entries(NamedTuple):
    """What the rule says of single entries, what differences say, and their error bars."""

    index: Array
    rule: Array
    numeric: Array
    error: Array
    kink: Array

    @property
    def wrong(self) -> Array:
        """Where the rule is outside the error bar."""
        return np.abs(self.rule - self.numeric) > self.error


def explain(point: Point, i: int, found: Estimate) -> str:
    """Say where gradient ``i`` is wrong, by how much, and why."""
    if not found.error < np.inf:
        return "fn is not finite around it, however small the step; move the input to where it is"
    entries, n = _entries(point, i, found.noise), point.args[i].size
    scope = f" (of the {MOST} entries with the largest gradient)" if n > MOST else ""
    if found.kink:
        k = int(np.argmax(np.abs(entries.kink)))
        sides = entries.numeric[k] + entries.kink[k] * np.array([-0.5, 0.5])
        left, right = np.where(np.abs(sides) > 1e-6 * np.max(np.abs(sides)), sides, 0)
        return (
            f"at index {_index(point, i, entries.index[k])}{scope} the slope is {left:.6g} on the "
            f"left and {right:.6g} on the right: fn is not differentiable there; move the input "
            "away from it"
        )
    if not entries.wrong.any():
        numbers = _numbers(found.rule, found.rule + found.excess)
        return f"along a random direction {numbers}; single entries{scope} do not show where"
    k = int(np.argmax(np.where(entries.wrong, np.abs(entries.rule - entries.numeric), 0)))
    numbers = _numbers(entries.rule[k], entries.numeric[k])
    where = f"worst at index {_index(point, i, entries.index[k])}{scope}"
    return f"{where}, {numbers}: {_reason(point, i, entries)}"


def _numbers(rule: float, numeric: float) -> str:
    error = abs(rule - numeric) / max(abs(rule), abs(numeric))
    return (
        f"the rule gives {rule:.9g}, central differences {numeric:.9g}, relative error {error:.2g}"
    )


def _index(point: Point, i: int, k: int) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(k, point.args[i].shape)))


def _entries(point: Point, i: int, noise: float) -> Entries:
    gradient, size = point.gradients[i], sizes(point.args[i])
    largest = np.argsort(-np.abs(gradient), axis=None, kind="stable")[:MOST]
    rows = []
    for k in np.sort(largest):
        v = np.zeros_like(size)
        v.flat[k] = unit = size.flat[k]
        found = slope_error(point, i, v, noise)
        rule, numeric = found.rule, found.rule + found.excess
        rows.append((k, rule / unit, numeric / unit, found.error / unit, found.kink / unit))
    return Entries(*map(np.array, zip(*rows, strict=True)))


def _reason(point: Point, i: int, entries: Entries) -> str:
    """Find out by experiment what is wrong with gradient ``i``."""
    _, rule, numeric, _, _ = entries
    wrong, n = entries.wrong, point.args[i].size
    if not rule[wrong].any():
        some = "" if wrong.all() or not rule.any() else f"at {_some(point, i, entries)} "
        return (
            f"{some}nothing flows back although fn changes: it is cut off, by float(), .data, "
            "stop_gradient or a rule that is None or has kept a number"
        )
    doubled = Point(point.case, point.args, 2 * point.g, point.out, point.inputs).gradients[i]
    if not np.allclose(doubled, 2 * point.gradients[i], rtol=1e-6, atol=0):
        return "it is not proportional to the cotangent: a rule leaves g out, or uses it twice"
    if (ratio := _ratio(rule, numeric)) is not None:
        return f"it is {ratio:.7g} times what it should be, everywhere"
    if len(rule) == n:
        for axis, length in enumerate(point.args[i].shape):
            parts = [np.moveaxis(a.reshape(point.args[i].shape), axis, 0) for a in (rule, numeric)]
            ratios = [_ratio(r.ravel(), m.ravel()) for r, m in zip(*parts, strict=True)]
            if 1 < length < n and None not in ratios:
                return f"it is wrong by a factor per index of axis {axis}: {_list(ratios)}"
    if wrong.sum() <= max(1, len(rule) // 10):
        return f"it is right but for {_some(point, i, entries)}"
    return f"it is wrong at {_some(point, i, entries)}, by no common factor"


def _ratio(rule: Array, numeric: Array) -> float | None:
    """Return the factor between the two, if one factor explains all but a thousandth."""
    off, square = np.max(np.abs(rule - numeric)), np.sum(numeric * numeric)
    if off <= 1e-8 * np.max(np.abs(numeric)):
        return 1.0
    ratio = float(np.sum(rule * numeric) / square) if square else np.inf
    return ratio if np.max(np.abs(rule - ratio * numeric)) <= 1e-3 * off else None


def _some(point: Point, i: int, entries: Entries) -> str:
    found = [str(_index(point, i, k)) for k in entries.index[entries.wrong]]
    return f"{len(found)} of {len(entries.rule)} entries, {_list(found)}"


def _list(items: Sequence[Any]) -> str:
    shown = [item if isinstance(item, str) else f"{item:.7g}" for item in items[:5]]
    return ", ".join(shown) + ", ..." * (len(items) > 5)
