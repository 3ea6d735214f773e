"""What a walk through a graph is made of: steps, and the tables that each of them shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ...kernels import Array
from ..parts import Node, Source
from .how import How

Kind = Literal["start", "forward", "seed", "edge", "sum", "end", "error"]


@dataclass(frozen=True, slots=True)
class Failure:
    """How a program failed.

    ``message`` is one paragraph: the type of the error, its text and its notes. ``source`` is the
    innermost line of the user's code that was running, None if there was none. ``traceback`` is
    that of the program. If it was a call that failed, ``operands`` are the Tensors and arrays that
    it was given; the names of some are in the notes of the trace.
    """

    message: str
    source: Source | None = None
    traceback: str = ""
    operands: tuple[Any, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A table to show: an array with a caption.

    ``node`` is the index of the node whose value it is, None if it is that of none; ``how`` says
    of each entry how it came about, None where that cannot be said.
    """

    caption: str
    value: Array
    node: int | None = None
    how: How | None = None


Row = tuple[Shown | str, ...]  # tables with signs between them


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One event: what happens, and everything that there is to see.

    ``kind`` is "start" (the leaves as given), "forward" (one op), "seed" (the gradient that the
    backward pass starts from), "edge" (what comes back along one edge), "sum" (that, summed over
    axes that were broadcast, or cast), "end" (the gradients of all leaves) or "error" (the program
    failed).

    ``node`` is the forward node that is computed, or whose gradient grows. In the backward pass
    ``via`` is the op that the gradient comes through, ``position`` that of the argument there, and
    ``gradient`` the node that holds the gradient of ``node`` from this step on; it is ``final``
    when nothing will be added to it. ``formula`` and ``latex`` have the reader's names,
    ``sentence`` says it in English, ``rows`` are tables with signs between them, the last of each
    row its result. ``source`` is the line of the program, if it was traced.
    """

    index: int
    kind: Kind
    node: Node | None = None
    via: Node | None = None
    position: int | None = None
    gradient: Node | None = None
    final: bool = False
    formula: str = ""
    latex: str = ""
    sentence: str = ""
    rows: tuple[Row, ...] = ()
    remark: str = ""
    source: Source | None = None

    @property
    def result(self) -> Shown | None:
        """The table that the step ends in: the result of its last row."""
        last = self.rows[-1][-1] if self.rows else None
        return last if isinstance(last, Shown) else None

    def __repr__(self) -> str:
        return f"<Step {self.index}, {self.kind}: {self.formula}>"
