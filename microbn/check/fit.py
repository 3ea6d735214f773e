"""Fitting the terms of a gradient to a wrong one, within what rounding allows."""

from __future__ import annotations

import numpy as np

from .. import engine, ops
from ..kernels import Array
from .faults import summed
from .terms import Terms

ROOM = 4  # times the tolerance that a fitting explanation may leave


def factor_of(value: Array, off: Array, axes: tuple[int, ...], terms: Terms) -> tuple[Array, Array]:
    """Find how often ``value`` counts, in each channel, and by how much that may be off."""
    rest = tuple(a for a in range(off.ndim) if a not in axes)
    square = np.sum(value * value, axis=rest, keepdims=True)
    safe = np.where(square == 0, 1, square)
    factor = 1 + np.sum(off * value, axis=rest, keepdims=True) / safe
    loose = np.sum(np.abs(value) * allowed(terms, np.abs(value)), axis=rest, keepdims=True) / safe
    return factor, loose


def allowed(terms: Terms, change: Array) -> Array:
    """Return what may be left: rounding of the gradient, and of so much that was changed."""
    size = terms.size + np.abs(terms.total)
    relative = np.max(terms.tolerance, initial=0) / max(np.max(size, initial=0), 1e-300)
    return np.asarray(ROOM * (terms.tolerance + relative * (change + np.max(change, initial=0))))


def fits(left: Array, terms: Terms, change: Array) -> bool:
    return bool((np.abs(left) <= allowed(terms, change)).all())


def channels(terms: Terms) -> list[tuple[int, ...]]:
    """Return the axes along which a coefficient may vary: none first, then those of statistics."""
    x, found = terms.x, dict[tuple[int, ...], None]({(): None})
    for link in terms.links:
        for t in (link.consumer, link.input, *link.consumer.inputs):
            shape = getattr(t, "shape", ())
            if not shape or len(shape) > x.ndim or shape == x.shape:
                continue
            full = (1,) * (x.ndim - len(shape)) + tuple(shape)
            if all(n in (1, m) for n, m in zip(full, x.shape, strict=True)):
                axes = tuple(a for a, n in enumerate(full) if n > 1)
                found |= {axes: None} if axes and len(axes) < x.ndim else {}
    if x.ndim == 1:
        found |= {(0,): None}
    return list(found)


def counts(terms: Terms) -> list[int]:
    """Return what m may be: of how many values averages and sums on the way are taken."""
    found: dict[int, None] = {}
    for link in terms.links:
        call, x = link.consumer, link.input
        sizes = [summed(link)]
        if call.op in (ops.mean, ops.sum):
            sizes.append(x.size // max(call.size, 1))
        if call.op is ops.matmul and link.position == 1 and call.ndim > 1:
            sizes.append(call.shape[-2])  # of so many rows, the gradient of a weight is the sum
        found |= dict.fromkeys(n for n in sizes if n > 1)
    return list(found)


def values(terms: Terms, shape: tuple[int, ...]) -> dict[str, Array]:
    """Return the named values that a coefficient of this shape may contain."""
    found: dict[str, Array] = {}
    order = engine.toposort(terms.output)
    order.sort(key=lambda t: (t.op is not None, t.time))  # inputs first
    for t in order:
        if t.name and t is not terms.x and t.ndim <= len(shape):
            full = (1,) * (len(shape) - t.ndim) + t.shape
            if full == shape or t.size == 1:
                found.setdefault(t.name, t.data.reshape(full))
        for c in t.inputs if t.op in (ops.mul, ops.div) else ():
            if isinstance(c, int | float | np.number) and c not in (0, 1, -1):
                found.setdefault(f"{c:.4g}", np.asarray(float(c)))
    return found


def solve(
    terms: Terms, off: Array, axes: tuple[int, ...]
) -> tuple[list[Array], list[Array]] | None:
    """Find how often each path counts, by least squares; None where that cannot be told."""
    if not terms.paths:
        return None
    columns = [_by_channel(t.value, axes) for t in terms.paths]
    matrix = np.stack(columns, -1)  # channels, entries, paths
    scale = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not scale.all() or matrix.shape[1] <= matrix.shape[2]:  # or anything would fit
        return None
    inverse = np.linalg.pinv(matrix / scale, rcond=1e-9)
    if (np.linalg.matrix_rank(matrix / scale, tol=1e-9) < matrix.shape[2]).any():
        return None
    ratio = inverse / np.swapaxes(scale, 1, 2)
    solution = (ratio @ _by_channel(off, axes)[..., None])[..., 0]
    loose = np.abs(ratio) @ _by_channel(terms.tolerance, axes)[..., None]
    kept = tuple(n if a in axes else 1 for a, n in enumerate(off.shape))
    factors = [1 + solution[:, k].reshape(kept) for k in range(len(columns))]
    return factors, [ROOM * loose[:, k, 0].reshape(kept) for k in range(len(columns))]


def _by_channel(value: Array, axes: tuple[int, ...]) -> Array:
    """Arrange an array as channels × entries."""
    rest = [a for a in range(value.ndim) if a not in axes]
    channel = int(np.prod([value.shape[a] for a in axes]))
    return np.transpose(value, (*axes, *rest)).reshape(channel, -1)
