"""What happens while a program is traced: who looks on, and what is written down.

Python tells a `Log` of every call in the user's code (`sys.settrace`), and a `Watch` of its lines
and its return; every op tells the `Tracer` that stands in `context.state`. Without a trace none
of them is there.
"""

from __future__ import annotations

import gc
import linecache
import sys
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import Any

from ..context import Entry, State, state
from ..ops import Op
from ..tensor import Tensor
from .frames import (
    is_better,
    is_users,
    is_wrapper,
    named_by,
    own_name,
    scope_name,
    source_of,
    user_frame,
    variables,
)
from .parts import Source


class Log:
    """What one trace writes down, and what Python and the ops tell it.

    ``names`` are of arrays and parameters, by id, and ``lines`` of ops, by time. ``unused`` are the
    results that nothing was computed from yet, if they are to be kept.
    """

    def __init__(self, keep: bool) -> None:
        self.names: dict[int, str] = {}
        self.lines: dict[int, Source] = {}
        self.unused: dict[int, Tensor] = {}
        self.count = 0
        self.wanted: Callable[[Any], bool] | None = None  # a test of results; the first to pass it
        self.caught: Tensor | None = None
        self.open = True
        self.outer: Log | None = None
        self.depth = 0  # how many calls of the user's code we are in
        self.collecting = False  # whether the garbage collector is at work
        self._keep = keep
        self._alive: list[Any] = []  # what is named by its id, so that the id stays its own
        self._read: dict[str, dict[int, Source]] = {}  # by file and line

    def note(self, out: Tensor, args: tuple[Any, ...]) -> None:
        """Take down the line of an op that was just recorded."""
        frame = user_frame()
        if frame is None:
            return
        self.look(frame)  # at what this line has bound so far, and may bind anew
        source, log = self._source(frame), self
        while log is not None:
            log.count += 1
            log.lines[out.time] = source
            if log.wanted and log.caught is None and log.wanted(out._data):
                log.caught = out
            if log._keep:
                for a in args:
                    log.unused.pop(id(a), None)
                log.unused[id(out)] = out
            log = log.outer  # type: ignore[assignment]

    def _source(self, frame: FrameType) -> Source:
        """The line that a frame is at, read once."""
        file, line = frame.f_code.co_filename, frame.f_lineno
        if file not in self._read:
            linecache.checkcache(file)  # it may have been edited since
        lines = self._read.setdefault(file, {})
        if line not in lines:
            lines[line] = source_of(frame)
        return lines[line]

    def see(self, variable: str, value: Any) -> None:
        """Give what a variable holds its name, unless it has one."""
        for held, name in named_by(variable, value):
            old = self.names.get(id(held)) or own_name(held)
            if not is_better(name, old):
                continue
            if old is None and issubclass(type(held), Tensor):
                held.name = name
            else:
                self._call(held, name)

    def look(self, frame: FrameType) -> None:
        """Look at the variables of a frame now, if it is being watched."""
        if isinstance(frame.f_trace, Watch) and frame.f_trace.log is self:
            frame.f_trace.look(frame)

    def _call(self, value: Any, name: str) -> None:
        self._alive.append(value)
        self.names[id(value)] = name
        if self.outer is not None:
            self.outer._call(value, name)

    def called(self, frame: FrameType, event: str, arg: Any) -> Watch | None:
        """Look on at a call, if it is one of the user's code and part of this trace.

        Another task of the same thread is not: it does not have this trace in its state. Nor is
        what the garbage collector calls. It may have interrupted a change of the state, in C, and
        to change it here, too, would break that.
        """
        if self.collecting:
            return None
        on = state.get()[0]
        if not is_users(frame.f_code.co_filename) or not isinstance(on, Tracer):
            return None
        if on.log is not self or is_wrapper(frame):
            return None
        if frame.f_back is not None:
            self.look(frame.f_back)  # a comprehension or := has bound what is now an argument
        watch = Watch(self)
        for name in frame.f_code.co_names:
            if name in frame.f_globals:
                self.see(name, frame.f_globals[name])
        watch.look(frame)
        scope = scope_name(frame) if self.depth else None
        self.depth += 1
        if scope:
            now = state.get()
            # In the place of the state that is, not on top of it: code that leaves a context
            # which it has not entered, as a method `__exit__` does, must meet that context.
            watch.scope = (now[0], (*now[1], Entry(scope)), now[2]), now
            state.set(watch.scope[0])
        return watch


class Watch:
    """Looks on while one frame runs: its variables at every line, its scope when it returns."""

    __slots__ = ("log", "scope", "seen")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.seen: dict[str, Any] = {}
        self.scope: tuple[State, State] | None = None

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Watch | None:
        if not self.log.open:  # a generator that has outlived the trace
            return None
        self.look(frame)
        if event == "return":
            self.log.depth -= 1
            if self.scope:
                leave(*self.scope)
        return self

    def look(self, frame: FrameType) -> None:
        """Give names to what has been bound to variables since the last time."""
        for name, value in variables(frame):
            if name not in self.seen or self.seen[name] is not value:
                self.seen[name] = value
                self.log.see(name, value)


class Tracer:
    """What stands in the state in the place of True or False: records everything, with notes."""

    __slots__ = ("grad", "log")

    def __init__(self, log: Log, grad: bool) -> None:
        self.log, self.grad = log, grad

    def switch(self, on: bool) -> Tracer:
        """The same trace, in which results require grad, or do not."""
        return Tracer(self.log, on)

    def record(
        self,
        out: Tensor,
        op: Op,
        args: tuple[Any, ...],
        values: list[Any],
        params: dict[str, Any],
        requires_grad: bool,
    ) -> None:
        """Record a call that was just computed."""
        requires_grad = requires_grad and self.grad
        if self.log.open or requires_grad:  # in a task that outlives the trace, all is as usual
            out._requires_grad = requires_grad
            out.op, out.inputs, out.values, out.params = op, args, values, params
        if self.log.open:
            self.log.note(out, args)


class Session:
    """The time in which a log is written: from now on, until it is closed."""

    def __init__(self, log: Log, frame: FrameType | None = None) -> None:
        self.log, self.frame = log, frame
        self.before = on, path, outer = state.get()
        if isinstance(on, Tracer):
            log.outer = on.log if on.log.open else None
            on = on.grad
        self.state: State = (Tracer(log, on), path, outer)
        state.set(self.state)
        self.previous, self.thread = sys.gettrace(), get_ident()
        gc.callbacks.insert(0, self._collection)  # before all others, which are not to be traced
        gc.callbacks.append(self._collected)
        if frame is not None:
            self.watch, self.f_trace = Watch(log), frame.f_trace
            log.depth = 1
            frame.f_trace = self.watch
        sys.settrace(log.called)

    def _collection(self, phase: str, info: dict[str, int]) -> None:
        self.log.collecting = get_ident() == self.thread

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            self.log.collecting = False

    def close(self) -> None:
        """Put everything back as it was; what the block has opened and left open stays open."""
        sys.settrace(self.previous)
        gc.callbacks.remove(self._collection)
        gc.callbacks.remove(self._collected)
        if self.frame is not None:
            self.watch.look(self.frame)
            self.frame.f_trace = self.f_trace
            self.frame = None
        self.log.open = False
        leave(self.state, self.before)
        on = state.get()[0]
        if isinstance(on, Tracer) and on.log is self.log:  # endless recursion has ended the trace
            state.set(self.before)


def leave(inner: State, before: State) -> None:
    """Put ``before`` back in the place of ``inner``, below what was opened since and still is.

    If ``inner`` is not there any more, a context around it was left, and all is well.
    """
    opened = []
    now: Any = state.get()
    while now is not None and now is not inner:
        opened.append(now)
        now = now[2]
    if now is None:
        return
    added = {id(entry) for entry in inner[1][len(before[1]) :]}
    now = before
    for on, path, _ in reversed(opened):
        on = on.grad if isinstance(on, Tracer) else on
        on = now[0].switch(on) if isinstance(now[0], Tracer) else on
        now = (on, tuple(entry for entry in path if id(entry) not in added), now)
    state.set(now)
