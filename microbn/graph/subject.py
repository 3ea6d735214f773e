"""What is to be looked at: a Tensor as it is called in the program, or a trace."""

from __future__ import annotations

from typing import Any

from ..errors import OperandError, describe
from ..tensor import Tensor
from .frames import names_in, user_frame
from .snapshot import Notes
from .tracer import Trace


def subject(looked_at: Any, verb: str) -> tuple[tuple[Tensor, ...], Notes]:
    """Return the Tensors that a Tensor or a `Trace` stands for, and the names that are known.

    A Tensor without a name is called after the variable of the user's code that holds it. Raises an
    OperandError (a TypeError), which says what ``verb`` takes, for anything else.
    """
    if isinstance(looked_at, Tensor):
        frame = user_frame()
        return (looked_at,), Notes(names_in(frame) if frame else {})
    if isinstance(looked_at, Trace):
        return looked_at.outputs, looked_at.notes
    raise OperandError(
        f"{verb} takes a Tensor, a Trace or a Graph, not {describe(looked_at)}; "
        "give the Tensor that the computation ended in"
    )
