"""Making a walk from what was computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...apart import apart
from ...context import value
from ...tensor import Tensor
from ..frames import own_name
from ..snapshot import Notes
from ..taken import take
from .event import Failure
from .walk import Walk


@apart()
def walk(
    outputs: Sequence[Tensor],
    notes: Notes,
    *,
    title: str = "",
    grad_output: Any = None,
    failure: Failure | None = None,
    forward_only: str = "",
) -> Walk:
    """Return the steps to ``outputs``, and back again if there is one that requires grad.

    The backward pass starts from ``grad_output``; for what it is without one see
    `Graph.from_outputs`. A ``failure`` is where the program ended; ``forward_only`` says why the
    way back is not to be shown.
    """
    remark = forward_only or ("" if failure else no_way_back(outputs))
    with np.errstate(all="ignore"):  # what is not finite is shown, and warned of in the program
        graph, remarks, *_ = take(
            outputs, notes, not (remark or failure), grad_output, bool(failure)
        )
    random = any("random numbers" in said for said in remarks)
    given = "random numbers, for want of a gradient" if random else "what is given"
    remarks = [*remarks, *[remark] * bool(remark)]
    operands = failure.operands if failure else ()
    named = [(notes.names.get(id(a)) or own_name(a), np.asarray(value(a))) for a in operands]
    return Walk(graph, title, tuple(remarks), failure, given, named)


def no_way_back(outputs: Sequence[Tensor]) -> str:
    """Say why there is no backward pass from ``outputs``, if there is none."""
    if len(outputs) > 1:
        return (
            f"There are {len(outputs)} results, and a backward pass starts from one: "
            "name one of them to see it."
        )
    if not outputs[0].requires_grad:
        return "Nothing that this was computed from requires grad, so there is no backward pass."
    return ""
