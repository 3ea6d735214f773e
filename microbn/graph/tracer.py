"""Tracing: names, scopes and lines of source by themselves, from the program as it stands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OperandError, describe
from ..tensor import Tensor
from .frames import user_frame
from .graph import Graph
from .snapshot import Notes
from .step.make import walk
from .watch import Log, Session

_UNSET = object()


class Trace:
    """What a traced program did: its output, and the graph with names, scopes and lines.

    ``output`` is what the function returned. For a block (`tracing`) it is the last result that
    nothing else was computed from, until something is assigned to it. ``name`` is the function's
    name, empty for a block, and ``notes`` has the names of arrays and the lines of ops. A trace
    keeps every array that a variable of the program was bound to.
    """

    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self._log = log
        self._output: Any = _UNSET

    @property
    def output(self) -> Any:
        """What was computed; can be set, to say what a block computes."""
        if self._output is not _UNSET:
            return self._output
        return next(reversed(self._log.unused.values()), None)

    @output.setter
    def output(self, value: Any) -> None:
        self._output = value

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The Tensors in the output, or all results of a block that nothing was computed from."""
        if self._output is not _UNSET:
            return tensors_in(self._output)
        return tuple(self._log.unused.values())

    def catch(self, wanted: Callable[[Any], bool] | None) -> None:
        """From now on, look for the first result whose array passes a test: it is `caught`."""
        self._log.wanted = wanted

    @property
    def caught(self) -> Tensor | None:
        """The first result that passed the test of `catch`, None if none has."""
        return self._log.caught

    @property
    def notes(self) -> Notes:
        """Names of arrays and of parameters by id, lines of source by the time of an op."""
        return Notes(self._log.names, self._log.lines)

    @property
    def graph(self) -> Graph:
        """A snapshot of the way to all outputs, taken when it is asked for."""
        return self.take()

    def take(self, *, backward: bool = False, grad_output: Any = None) -> Graph:
        """Take a snapshot of the way to all outputs; options are those of `Graph.from_outputs`.

        Raises an OperandError (a TypeError) if there is no output.
        """
        self._check_output()
        notes = self.notes
        return Graph.from_outputs(
            *self.outputs, backward=backward, grad_output=grad_output, notes=notes
        )

    def save_html(self, path: str | os.PathLike[str], *, grad_output: Any = None) -> None:
        """Write a page that steps through it, forward and back again: one file, for any browser.

        The backward pass starts from ``grad_output``; for what it is without one see
        `Graph.from_outputs`. Raises an OperandError (a TypeError) if there is no output.

        >>> import tempfile, microbn as mb
        >>> x = mb.Tensor([3.0, 4.0], requires_grad=True)
        >>> with mb.tracing() as trace:
        ...     loss = (x * x).sum()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trace.save_html(f"{folder}/loss.html")
        """
        self._check_output()
        title = self.name or Path(path).stem
        walk(self.outputs, self.notes, title=title, grad_output=grad_output).save_html(path)

    def _check_output(self) -> None:
        if not self.outputs:
            raise OperandError(
                "this trace has no output that is a Tensor, so there is no graph; compute with "
                "Tensors inside `with mb.tracing()`, or assign one to the trace's .output"
            )

    def __repr__(self) -> str:
        count, outputs = self._log.count, ", ".join(map(describe, self.outputs)) or "nothing"
        what = self.name or "a block"
        return f"<Trace of {what}: {count} op{'s' * (count != 1)}, output {outputs}>"


def trace(fn: Any, *args: Any, **kwargs: Any) -> Trace:
    """Run ``fn(*args, **kwargs)``, and name, place and locate everything it computes.

    Each value gets the name of the first variable it is bound to, and keeps it; what `named` was
    called for keeps that name. Each function that ``fn`` calls is a scope. Float arrays among the
    arguments become Tensors that require grad, so a function written for NumPy can be traced as
    it stands. Everything is recorded, under `no_grad` too. Other threads are not traced.

    What ``fn`` raises goes through. Raises an OperandError (a TypeError) if ``fn`` cannot be
    called, or if there is no Tensor in what it returns.

    >>> import numpy as np, microbn as mb
    >>> def standardise(x):
    ...     centered = x - x.mean(axis=0)
    ...     return centered / spread(centered)
    >>> def spread(centered):
    ...     var = np.mean(centered**2, axis=0)
    ...     return np.sqrt(var)
    >>> trace = mb.trace(standardise, np.array([[1.0, 2.0], [3.0, 6.0]]))
    >>> trace
    <Trace of standardise: 6 ops, output Tensor (2, 2) float64>
    >>> [(node.name, node.op, node.scope) for node in trace.graph.nodes]
    [('x', None, ()), (None, 'mean', ()), ('centered', 'sub', ()), (None, 'pow', ('spread',)),
     ('var', 'mean', ('spread',)), (None, 'sqrt', ('spread',)), (None, 'div', ())]
    >>> trace.graph.nodes[4].source.text
    'var = np.mean(centered**2, axis=0)'
    """
    __tracebackhide__ = True  # by pytest, which shows the function that fails
    if not callable(fn):
        raise OperandError(
            f"trace calls a function, and {describe(fn)} is none; give the function and what to "
            "call it with: mb.trace(f, x), not mb.trace(f(x))"
        )
    positional = [_as_leaf(a) for a in args]
    named = {key: _as_leaf(a) for key, a in kwargs.items()}
    with calling(fn) as found:
        found.output = fn(*positional, **named)
    if not found.outputs:
        given = [*positional, *named.values()]
        remedy = "return what was computed, from float arrays or from Tensors"
        if given and not tensors_in(given):
            remedy = "call it with float arrays or Tensors, not with "
            remedy += ", ".join(map(describe, given))
        raise OperandError(
            f"{found.name} returned {describe(found.output)}, in which there is no Tensor, so "
            f"there is no graph; {remedy}"
        )
    return found


@contextlib.contextmanager
def calling(fn: Any, *, keep: bool = False) -> Iterator[Trace]:
    """Trace the call of ``fn`` that the block makes; `trace` with its parts in hand.

    If the call fails, the trace has what was recorded by then. With ``keep``, its outputs are those
    results that nothing else was computed from, in order, unless the block assigns its output.
    """
    log = Log(keep)
    log.see("", fn)  # a model has no variable in the code that it runs
    session = Session(log)
    try:
        yield Trace(str(getattr(fn, "__name__", type(fn).__name__)), log)
    finally:
        session.close()


class tracing:
    """Trace the block that follows, in the function or cell that it stands in.

    As `trace`, but of some lines in the middle: ``with mb.tracing() as trace:``. The outputs are
    those results that nothing else was computed from, in order, unless the block assigns to
    ``trace.output``. In a trace inside another one, the inner one takes notes, and hands
    them on to the outer one.

    >>> import microbn as mb
    >>> x = mb.Tensor([3.0, 4.0])
    >>> with mb.tracing() as trace:
    ...     square = x * x
    ...     total = square.sum()
    >>> [node.title for node in trace.graph.nodes]
    ['x', 'square', 'total']
    """

    def __init__(self) -> None:
        self._open: list[Session] = []

    def __enter__(self) -> Trace:
        log = Log(keep=True)
        self._open.append(Session(log, user_frame()))
        return Trace("", log)

    def __exit__(self, *exception: object) -> None:
        self._open.pop().close()


def tensors_in(output: Any) -> tuple[Tensor, ...]:
    """The Tensors in nested tuples, lists and dicts, each once, in order."""
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    pending = [output]
    while pending:
        value = pending.pop()
        kind = type(value)  # an isinstance would ask the value, which may be anything
        if issubclass(kind, Tensor):
            found.setdefault(id(value), value)
        elif issubclass(kind, tuple | list | dict) and id(value) not in seen:
            seen.add(id(value))
            pending += reversed(list(value.values() if issubclass(kind, dict) else value))
    return tuple(found.values())


def _as_leaf(value: Any) -> Any:
    """Make a Tensor that requires grad of an array of floats."""
    floats = issubclass(type(value), np.ndarray) and value.dtype.kind == "f"
    return Tensor(value, requires_grad=True) if floats else value
