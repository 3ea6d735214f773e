"""Keys, read one at a time from a terminal: on POSIX, and on the console of Windows.

A key is a name ("left", "enter", "shift-right", "ctrl-l") or the character that was typed.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# How long to wait for more, in seconds. A lone ESC is the key Escape unless something follows soon;
# a sequence that has begun may come in pieces over a slow line.
AFTER_ESCAPE, WITHIN = 0.25, 1.0
POLL = 0.01  # on Windows, where nothing waits for a key with a timeout

CHARACTERS = {"\r": "enter", "\n": "enter", "\t": "tab", " ": "space", "\x1b": "escape"}
CHARACTERS |= {"\x7f": "backspace", "\x08": "backspace"}
LETTERS = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
LETTERS |= {"M": "enter"}  # of a keypad in application mode
SHIFTED = {
    "C": "shift-right",
    "D": "shift-left",
}  # or with Ctrl: not all send Shift
LOWER = {"a": "up", "b": "down", "c": "shift-right", "d": "shift-left"}  # rxvt, shifted
NUMBERS = {"1": "home", "4": "end", "5": "pageup", "6": "pagedown", "7": "home", "8": "end"}
WINDOWS = {"H": "up", "P": "down", "K": "left", "M": "right", "G": "home", "O": "end"}
WINDOWS |= {"I": "pageup", "Q": "pagedown", "s": "shift-left", "t": "shift-right"}


class Keys(ABC):
    """The keyboard, as a context manager: inside it keys come at once and are not echoed.

    Whatever ends the block, SIGTERM included, the terminal is as it was before. Ctrl-C raises a
    KeyboardInterrupt.
    """

    def __enter__(self) -> Keys:
        self._take()
        self._handler: Any = None
        with suppress(ValueError):  # only the main thread may set a handler
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                self._handler = signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)

    @abstractmethod
    def read(self, timeout: float) -> str | None:
        """Wait for a key, at most so many seconds; None if there was none, or none with a name.

        Raises an EOFError when the terminal is gone.
        """

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give the terminal back for the length of a block."""
        self._give_back()
        try:
            yield
        finally:
            self._take()

    @abstractmethod
    def _take(self) -> None:
        """Make the terminal give keys one at a time."""

    @abstractmethod
    def _give_back(self) -> None:
        """Make the terminal what it was."""


def keyboard() -> Keys:
    """Return the keyboard of this process's terminal."""
    return WindowsKeys() if os.name == "nt" else PosixKeys(sys.stdin.fileno())


def suspend() -> None:
    """Stop this job, as Ctrl-Z does, and return when it is continued."""
    if sys.platform != "win32":
        os.kill(0, signal.SIGTSTP)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # as shells count it


def _named(character: str) -> str:
    r"""Return what a key is called.

    >>> [_named(character) for character in ("\r", "\x7f", "\x0c", "x", "é")]
    ['enter', 'backspace', 'ctrl-l', 'x', 'é']
    """
    if character in CHARACTERS:
        return CHARACTERS[character]
    return character if character >= " " else f"ctrl-{chr(ord(character) + 96)}"


# POSIX -------------------------------------------------------------------------------------------


class PosixKeys(Keys):
    """Keys from a file descriptor that is a terminal."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = bytearray()

    def read(self, timeout: float) -> str | None:
        """Wait for a key."""
        if not self._filled(1, timeout):
            return None
        return self._sequence() if self.buffer[0] == 0x1B else _named(self._character())

    def _filled(self, size: int, timeout: float) -> bool:
        """Wait until ``size`` bytes are there; give up when nothing came for so long."""
        while len(self.buffer) < size:
            if not select.select([self.descriptor], [], [], timeout)[0]:
                return False
            data = b""
            with suppress(OSError):  # what Linux says when the other end has been closed
                data = os.read(self.descriptor, 1024)
            if not data:
                raise EOFError("the terminal is gone")
            self.buffer += data
        return True

    def _taken(self, size: int) -> str:
        text = self.buffer[:size].decode(errors="replace")
        del self.buffer[:size]
        return text

    def _character(self) -> str:
        first = self.buffer[0]
        size = 1 + (first >= 0xC0) + (first >= 0xE0) + (first >= 0xF0)  # as UTF-8 has it
        self._filled(size, WITHIN)
        return self._taken(size)[0]

    def _sequence(self) -> str | None:
        """Read ESC, and what belongs to it: ESC [ ... or ESC O ... up to a letter or ~."""
        while self._filled(2, AFTER_ESCAPE) and self.buffer[1] == 0x1B:
            self._taken(1)  # rxvt puts an ESC before a sequence to say Alt
        if self.buffer[1:2] != b"[" and self.buffer[1:2] != b"O":
            return _named(self._taken(1))
        size = 3
        while self._filled(size, WITHIN) and not _ends(self.buffer[1:size]):
            size += 1
        return _meaning(self._taken(size)[1:])

    def _take(self) -> None:
        import termios  # neither is there on Windows
        import tty

        self._mode = termios.tcgetattr(self.descriptor)
        tty.setcbreak(self.descriptor, termios.TCSADRAIN)  # keeps what was typed before
        mode = termios.tcgetattr(self.descriptor)
        off = os.fpathconf(self.descriptor, "PC_VDISABLE")
        mode[6][termios.VSUSP] = bytes([off])  # Ctrl-Z is a key: see `suspend`
        termios.tcsetattr(self.descriptor, termios.TCSADRAIN, mode)

    def _give_back(self) -> None:
        import termios

        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, self._mode)


def _ends(sequence: bytearray) -> bool:
    """Whether a sequence is complete; the one that begins with two brackets is Linux's for F1."""
    return sequence != b"[[" and (sequence[-1] >= 0x40 or sequence[-1:] == b"$")


def _meaning(sequence: str) -> str | None:
    """Return the key of what follows ESC.

    >>> [_meaning(text) for text in ("[D", "OD", "[1;2D", "[d", "[5~", "[6;5~", "[[A", "[99~")]
    ['left', 'left', 'shift-left', 'shift-left', 'pageup', 'pagedown', None, None]
    """
    last, (number, _, modifier) = sequence[-1], sequence[1:-1].partition(";")
    if last in "~$^@":  # the last three are rxvt's, with Shift, Ctrl or both
        return NUMBERS.get(number)
    if number.startswith("["):
        return None
    return (SHIFTED if modifier else {}).get(last) or (LETTERS | LOWER).get(last)


# Windows -----------------------------------------------------------------------------------------


class WindowsKeys(Keys):
    """Keys from the console of Windows, which is left as it is."""

    def __init__(self) -> None:
        self.console: Any = importlib.import_module("msvcrt")

    def read(self, timeout: float) -> str | None:
        """Wait for a key."""
        end = time.monotonic() + timeout
        while not self.console.kbhit():
            if time.monotonic() >= end:
                return None
            time.sleep(POLL)
        first: str = self.console.getwch()
        if first in "\0\xe0" and self.console.kbhit():  # else it is an à that was typed
            return WINDOWS.get(self.console.getwch())
        if "\ud800" <= first < "\udc00":  # a character in two parts
            pair = first + self.console.getwch()
            whole: str = pair.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return whole
        if first == "\x03":
            raise KeyboardInterrupt
        return _named(first)

    def _take(self) -> None:
        pass

    def _give_back(self) -> None:
        pass
