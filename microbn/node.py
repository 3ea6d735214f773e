"""The record that everything else reads: a value, and the call that made it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np

from .kernels import Array
from .ops import Op

NUMBERS = frozenset(t for t in np.sctypeDict.values() if issubclass(t, np.number | np.bool_))
clock = count(1)  # ticks whenever a value comes into being


class Node:
    """A value, and how it was made: the call ``op(*inputs, **params)``, or nothing for a leaf.

    ``values`` are the arrays in ``inputs``, not copies of them: who writes into an array that a
    call has used changes what its backward pass computes. ``time`` orders the calls: inputs
    are older than results. Nothing points from an input to its results and there are no
    closures, so a graph has no cycles, and its memory is free as soon as its output is.
    """

    __slots__ = tuple("_data _grad _requires_grad op inputs values params scope name time".split())
    _data: Array
    _grad: Array | None
    _requires_grad: bool
    op: Op | None
    inputs: Sequence[Any]
    values: Sequence[Any]
    params: dict[str, Any]
    scope: tuple[str, ...]
    name: str | None
    time: int

    def _constant(self, value: Array, requires_grad: bool = False) -> Any:
        """Wrap ``value`` as a leaf."""
        raise NotImplementedError

    def _hold(self, value: Array) -> None:
        """Take ``value`` for the data: from now on it is younger than what was computed before."""
        self._become_leaf()
        self._data, self.time = value, next(clock)

    def _become_leaf(self) -> None:
        """Forget the call that made it, which only a trace records if nothing requires grad."""
        self.op, self.inputs, self.values, self.params = None, (), (), {}

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        """Come into being when copied or unpickled, which may be in a process of another time."""
        for name, value in state[1].items():
            setattr(self, name, value)
        self.time = next(clock)
