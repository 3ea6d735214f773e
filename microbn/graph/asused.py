"""Leaves as they were when they were used: an optimizer may have given them other data since."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ..tensor import Tensor
from .snapshot import Notes, in_order


def as_used(
    outputs: Sequence[Tensor], notes: Notes
) -> tuple[tuple[Tensor, ...], Notes, tuple[Tensor, ...]]:
    """Return the outputs as they were computed, notes that fit, and the leaves overwritten since.

    A call remembers the arrays that it was given. Where a leaf holds another one by now, a copy
    that holds the old one takes its place, and copies of what was computed from it follow. An
    array that was written into has no old one: it stays, and its leaf is among the overwritten.
    """
    order = in_order(outputs)
    if not any(_changed(t, x) for t in order for x in t.inputs):
        return tuple(outputs), notes, ()
    copies: dict[int, Tensor] = {}  # of results, by id
    versions: dict[tuple[int, int], Tensor] = {}  # of leaves, by their id and that of the array
    names, overwritten = dict(notes.names), dict[int, Tensor]()

    def then(tensor: Tensor, position: int) -> Any:
        """Return an argument of ``tensor`` as it was then."""
        x, value = tensor.inputs[position], tensor.values[position]
        if not _changed(tensor, x):
            return copies.get(id(x), x)
        if value is x._data:
            overwritten[id(x)] = x
            return x
        key = (id(x), id(value))
        if key not in versions:
            versions[key] = leaf = copy.copy(x)
            leaf._data, leaf.time = value, 0
            if id(x) in names:
                names[id(leaf)] = names[id(x)]
        return versions[key]

    for tensor in order:
        inputs = tuple(then(tensor, position) for position in range(len(tensor.inputs)))
        if any(a is not b for a, b in zip(inputs, tensor.inputs, strict=True)):
            copies[id(tensor)] = result = copy.copy(tensor)
            result.inputs, result.time = inputs, tensor.time
            if id(tensor) in names:
                names[id(result)] = names[id(tensor)]
    found = tuple(copies.get(id(output), output) for output in outputs)
    return found, Notes(names, notes.lines), tuple(overwritten.values())


def _changed(tensor: Tensor, x: Any) -> bool:
    return isinstance(x, Tensor) and x.time > tensor.time
