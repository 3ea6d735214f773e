"""Going through a walk by keys, on the whole screen of a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ..graph.step.naming import typed
from ..graph.step.until import condition
from .keys import Keys, keyboard, suspend
from .screen import Screen, help_frame
from .tables import FAINT, FIRM, Lines, plain, wrapped
from .transcript import transcript

if TYPE_CHECKING:
    from ..graph.step.event import Step
    from ..graph.step.walk import Walk

# The other screen of the terminal, without cursor and without breaking lines; and back again.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
DUMB = ("dumb", "unknown")  # what TERM says of terminals that cannot
TICK = 0.2  # seconds after which to see whether the window has another size
MESSAGE = 5  # lines of a message, at most
SUGGESTIONS = 30  # names below a prompt, at most; as many are shown as fit into a line

NEXT = ("right", "l", "j", "down", "space", "enter")
PREVIOUS = ("left", "h", "k", "up", "backspace")


def step_through(
    walk: Walk, start: int = 0, *, console: Console | None = None, keys: Keys | None = None
) -> int:
    """Show the steps of ``walk`` one at a time, beginning with ``start``, until the user quits.

    Returns the index of the step that was shown last. Where nobody can press keys, or the terminal
    is a dumb one, the `transcript` is printed instead. Raises an IndexError if there is no such
    step.

    >>> import io, microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> walk = mb.steps((x * x).named("y"))
    >>> step_through(walk, console=Console(file=io.StringIO())) == len(walk) - 1
    True
    """
    start = range(len(walk))[start]
    console = console or Console(markup=False, highlight=False, emoji=False)
    if keys is None and not interactive(console):
        transcript(walk, console)
        return len(walk) - 1
    stepper = Stepper(walk, start, console, keys or keyboard())
    stepper.run()
    return stepper.index


def interactive(console: Console) -> bool:
    """Whether somebody can press keys, and see what ``console`` writes on a whole screen.

    >>> import io
    >>> interactive(Console(file=io.StringIO(), force_terminal=True))
    False
    """
    if console.legacy_windows or os.environ.get("TERM") in DUMB:
        return False
    with suppress(AttributeError, ValueError):  # standard input may be missing, or closed
        return sys.stdin.isatty() and console.file.isatty()
    return False


def matching(names: Mapping[int, str], text: str) -> list[int]:
    """Return the nodes of a name; or else those whose name begins so; or else contains it.

    Subscripts may be typed as digits.

    >>> matching({0: "x", 1: "x_hat", 2: "h₂"}, "x"), matching({0: "x", 1: "x_hat"}, "HAT")
    ([0], [1])
    >>> matching({0: "x", 1: "x_hat", 2: "h₂"}, "h2")
    [2]
    """
    low = text.lower()
    tests: list[Callable[[str], bool]] = [
        lambda name: text in (name, typed(name)),
        lambda name: typed(name).lower().startswith(typed(low)),
        lambda name: typed(low) in typed(name).lower(),
    ]
    found = ([k for k, name in names.items() if test(name)] for test in tests)
    return next(filter(None, found), [])


class Stepper:
    """The loop: a frame, a key, what it does."""

    def __init__(self, walk: Walk, start: int, console: Console, keys: Keys) -> None:
        self.walk, self.index, self.console, self.keys = walk, start, console, keys
        self.screen = Screen(walk)
        self.tab = 0  # the part of the step that is shown, if it has several
        self.message = ""  # shown until the next key
        self.forward = 0  # the step that b goes back to
        self.sought = ""
        self.search: Callable[[Step], bool] | None = None
        self.actions = self._actions()

    def run(self) -> None:
        """Show steps until the user quits."""
        with suppress(KeyboardInterrupt, EOFError), self.keys, self._other_screen():
            while (key := self._key(self._frame)) not in ("q", "escape"):
                self.message = ""
                if action := self.actions.get(key):
                    action()

    # What keys do ----------------------------------------------------------------------------

    def _actions(self) -> dict[str, Callable[[], None]]:
        moves: dict[str, Callable[[], int]] = {}
        moves |= dict.fromkeys(NEXT, lambda: self.index + 1)
        moves |= dict.fromkeys(PREVIOUS, lambda: self.index - 1)
        moves |= dict.fromkeys(("n", "shift-right"), lambda: self._elsewhere(1))
        moves |= dict.fromkeys(("p", "shift-left"), lambda: self._elsewhere(-1))
        moves |= dict.fromkeys(("home", "0", "^"), lambda: 0)
        moves |= dict.fromkeys(("end", "G", "$"), lambda: len(self.walk))
        moves |= {"pagedown": lambda: self.index + 10, "pageup": lambda: self.index - 10}
        actions = {key: self._mover(where) for key, where in moves.items()}
        actions |= {"b": self._turn, "!": self._strange, "tab": self._more, "?": self._help}
        return actions | {"g": self._go, "/": self._go, "u": self._until, "N": self._again}

    def _mover(self, where: Callable[[], int]) -> Callable[[], None]:
        return lambda: self._show(where())

    def _show(self, index: int) -> None:
        """Make a step the current one, or the nearest to it that there is."""
        self.index, self.tab = max(0, min(index, len(self.walk) - 1)), 0

    def _elsewhere(self, direction: int) -> int:
        """Return the nearest step in another innermost scope, or what is past the last one."""
        index, here = self.index, _place(self.walk[self.index])
        while 0 <= index < len(self.walk) and _place(self.walk[index]) == here:
            index += direction
        return index

    def _turn(self) -> None:
        """Go to the first step of the backward pass, or back to where one was before."""
        if self.walk.backward is None:
            self.message = "there is no backward pass: nothing requires a gradient"
        elif self.index >= self.walk.backward:
            self._show(self.forward)
        else:
            self.forward = self.index
            self._show(self.walk.backward)

    def _strange(self) -> None:
        """Go to the first step with a number that is not finite."""
        if step := self.walk.strange():
            self._show(step.index)
        else:
            self.message = "all values and gradients are finite"

    def _more(self) -> None:
        self.tab += 1

    def _help(self) -> None:
        """Show what the keys do until another one is pressed."""
        parts = count()
        while self._key(partial(help_frame, tab=next(parts))) == "tab":
            pass

    # Seeking ---------------------------------------------------------------------------------

    def _go(self) -> None:
        """Ask for a name; go to where it is computed, or in the backward pass its gradient is."""
        text = self._ask("go to", self._suggested)
        of_gradient = text.startswith("d ") and text not in self.walk.names.values()
        found = matching(self.walk.names, text.removeprefix("d ") if of_gradient else text)
        if not text:
            return
        if not found:
            self._seek(text)
            return
        name = self.walk.names[found[0]]
        same = [k for k in found if self.walk.names[k] == name]  # (x - mu) may be computed twice
        computed = [self.screen.computed[k] for k in same]
        completed = [self.screen.completed[k] for k in same if k in self.screen.completed]
        if of_gradient and not completed:
            self.message = f"no gradient arrives at {name}"
            return
        backward = self.walk.backward is not None and self.index >= self.walk.backward
        self.sought, self.search = name, lambda step: step.index in computed + completed
        places = completed if completed and (backward or of_gradient) else computed
        self._show(min((k for k in places if k > self.index), default=min(places)))

    def _suggested(self, text: str) -> list[str]:
        found = matching(self.walk.names, text) if text else list(self.walk.names)
        return [self.walk.names[k] for k in found[:SUGGESTIONS]]

    def _until(self) -> None:
        """Ask for a condition; go to the next step where it holds."""
        if text := self._ask("until", lambda text: self._suggested(text) if text else []):
            self._seek(text)

    def _seek(self, text: str) -> None:
        try:
            self.sought, self.search = text, condition(text, self.walk)
        except ValueError as error:
            self.message = str(error)
        else:
            self._again()

    def _again(self) -> None:
        """Go to the next step where what was sought last is met, from the start if need be."""
        if self.search is None:
            self.message = "nothing was sought yet: g seeks a name, u a condition"
            return
        later, earlier = self.walk[self.index + 1 :], self.walk[: self.index + 1]
        if step := next(filter(self.search, later), None):
            self._show(step.index)
        elif step := next(filter(self.search, earlier), None):
            only = "only" if step.index == self.index else "no later step; from the start"
            self._show(step.index)
            self.message = f"{only} here: {self.sought}"
        else:
            self.message = f"there is no such step: {self.sought}"

    def _ask(self, question: str, suggest: Callable[[str], list[str]]) -> str:
        """Let the user type a line; return it, "" if there is none."""
        text = ""

        def frame(width: int, height: int) -> Lines:
            names = Text("  ".join(map(plain, suggest(text))), FAINT)
            line = Text(f"{question}: ", FIRM).append(plain(text), "not bold")
            return self._frame(width, height, [names, line.append(" ", "reverse")])

        while (key := self._key(frame)) not in ("enter", "escape"):
            if key == "tab":
                text = next(iter(suggest(text)), text)
            elif key == "backspace":
                text = text[:-1]
            elif key == "ctrl-u":
                text = ""
            elif key == "space" or len(key) == 1:
                text += " " if key == "space" else key
        return text.strip() if key == "enter" else ""

    # The terminal ----------------------------------------------------------------------------

    def _frame(self, width: int, height: int, bottom: Lines | None = None) -> Lines:
        if self.message:
            bottom = wrapped(self.message, width, FIRM)[:MESSAGE]
        return self.screen.frame(self.index, width, height, tab=self.tab, bottom=bottom)

    def _key(self, frame: Callable[[int, int], Lines]) -> str:
        """Show a frame until a key is pressed, anew whenever the window gets another size."""
        size = None
        while True:
            if size != (size := self._size()):
                self._draw(frame(*size))
            key = self.keys.read(TICK)
            if key == "ctrl-z":
                self._suspend()
            if key is not None:  # also if it does nothing: what is drawn next is all of the screen
                return key

    def _size(self) -> tuple[int, int]:
        """Return the width and the height of the window as they are now."""
        with suppress(OSError, ValueError):  # what rich says does not change if COLUMNS is set
            width, height = os.get_terminal_size(self.console.file.fileno())
            if width and height:
                return width, height
        return self.console.size

    def _draw(self, lines: Lines) -> None:
        """Fill the screen in one go, so that nothing flickers."""
        with self.console.capture() as capture:
            self.console.print(*lines, sep="\n", end="", soft_wrap=True)
        self._write("\x1b[H" + capture.get())

    def _write(self, text: str) -> None:
        encoding = self.console.encoding
        self.console.file.write(text.encode(encoding, "replace").decode(encoding))
        self.console.file.flush()

    @contextmanager
    def _other_screen(self) -> Iterator[None]:
        self._write(ENTER)
        try:
            yield
        finally:
            self._write(LEAVE)

    def _suspend(self) -> None:
        """Give the terminal back to the shell until it lets this job go on."""
        self._write(LEAVE)
        with self.keys.lent():
            suspend()
        self._write(ENTER)


def _place(step: Step) -> int | None:
    return step.node.place if step.node else None
