"""`step`: the steps to a result, wherever one is: a terminal, a notebook, a pipe."""

from __future__ import annotations

import builtins
import sys
from typing import Any

from rich.console import Console

from ..errors import ShapeError
from ..graph.graph import Graph
from ..graph.step.until import condition
from ..graph.stepping import steps
from ..graph.tracer import Trace
from ..tensor import Tensor
from .stepper import step_through


def step(
    looked_at: Tensor | Trace | Graph, *, grad_output: Any = None, until: str | None = None
) -> None:
    """Step through what was computed: forward, and back again.

    In a terminal the keys lead through it (``?`` for help); a notebook shows the page that
    `Walk.save_html` writes; anywhere else all steps are printed. What is stepped through, and
    ``grad_output``, are as for `steps`. ``until`` is where to begin: the name of a value, or a
    condition such as ``"isnan"`` or ``"x_hat: max > 3"``.

    Raises what `steps` does, a ShapeError (a ValueError) for a condition that cannot be read, or
    that no step meets.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> mb.step((x * x).named("y"))
    y
    <BLANKLINE>
    [0/5] ...
    [5/5] BACKWARD
      d x
    ...
    """
    walk = steps(looked_at, grad_output=grad_output)
    start = 0
    if until is not None:
        holds = condition(until, walk)
        found = [step.index for step in walk if holds(step)]
        if not found:
            raise ShapeError(f"no step of {len(walk)} is one where {until} holds")
        start = found[0]
    display = _display_of_notebook()
    if display is not None:
        display(walk)
    else:
        step_through(walk, start, console=Console(markup=False, highlight=False, emoji=False))


def _display_of_notebook() -> Any:
    """Return what shows things in a notebook, if this is one."""
    shell = getattr(builtins, "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return getattr(sys.modules.get("IPython.display"), "display", None)
