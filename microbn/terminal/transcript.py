"""All steps of a walk as text, for pipes, files and terminals without a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from .screen import PHASES, Detail, body, phase
from .tables import FAINT, FIRM, Lines, plain, wrapped

if TYPE_CHECKING:
    from ..graph.step.event import Step
    from ..graph.step.walk import Walk

WIDTH = 80  # of what goes nowhere near a terminal
INDENT = 2
SHOWN = Detail(context=0)


def transcript(walk: Walk, console: Console, *, steps: Iterable[int] | None = None) -> None:
    """Print all steps, or those with the indexes ``steps``, one after another.

    What does not go to a terminal is 80 columns wide and without colours; it is the same every
    time. Raises an IndexError for an index that there is none of.

    >>> import sys, microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> transcript(mb.steps((x * x).named("y")), Console(file=sys.stdout), steps=[1])
    [1/5] FORWARD
      y = x × x
    ...
    """
    width = console.width if console.is_terminal else WIDTH
    if steps is None:
        title = wrapped(walk.title, width, FIRM) if walk.title else []
        remarks = [line for remark in walk.remarks for line in wrapped(remark, width)]
        if title or remarks:
            _print(console, [*title, *remarks, Text()])
    for index in range(len(walk)) if steps is None else steps:
        _print(console, _step(walk, walk[index], width))


def _step(walk: Walk, step: Step, width: int) -> Lines:
    """Write one step: a heading, what there is to see, indented, and a blank line."""
    now = phase(walk, step)
    head = Text.assemble((f"[{step.index}/{len(walk) - 1}] ", FIRM), (now.upper(), PHASES[now]))
    if step.node and step.node.scope:
        head.append(f"  {plain(' › '.join(step.node.scope))}", FAINT)
    inside = body(step, width - INDENT, SHOWN)
    return [head, *(Text(" " * INDENT).append_text(line) for line in inside), Text()]


def _print(console: Console, lines: Lines) -> None:
    if console.is_terminal:
        console.print(*lines, sep="\n", no_wrap=True, overflow="ellipsis")
    else:  # without what tables are filled up with; many lines are written faster so
        console.out("\n".join(line.plain.rstrip() for line in lines), highlight=False)
