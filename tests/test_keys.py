"""Keys as terminals send them: over a pseudo-terminal, and from a console of Windows made here."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from microbn.terminal import keys
from microbn.terminal.keys import PosixKeys, WindowsKeys

posix = pytest.mark.skipif(os.name != "posix", reason="only POSIX has pseudo-terminals")


@pytest.fixture
def terminal():
    """Both ends of a pseudo-terminal: what a keyboard writes into, and what a program reads."""
    import pty

    ours, theirs = pty.openpty()
    yield ours, theirs
    for descriptor in (ours, theirs):
        with suppress(OSError):
            os.close(descriptor)


def typed(terminal, *parts, pause=0.0):
    """Return the keys that a program reads when these parts are typed, with pauses between."""
    ours, theirs = terminal
    found = []
    with PosixKeys(theirs) as board:

        def send():
            for part in parts:
                os.write(ours, part)
                time.sleep(pause)

        thread = threading.Thread(target=send)
        thread.start()
        ended = False
        while not ended:
            ended = not thread.is_alive()
            while (key := board.read(0.4)) is not None:
                found.append(key)
        thread.join()
    return found


# POSIX -------------------------------------------------------------------------------------------

SEQUENCES = {
    "xterm": {
        b"\x1b[A": "up",
        b"\x1b[B": "down",
        b"\x1b[C": "right",
        b"\x1b[D": "left",
        b"\x1b[H": "home",
        b"\x1b[F": "end",
        b"\x1b[5~": "pageup",
        b"\x1b[6~": "pagedown",
        b"\x1b[1;2C": "shift-right",
        b"\x1b[1;2D": "shift-left",
        b"\x1b[1;5C": "shift-right",
        b"\x1b[1;2A": "up",
        b"\x1b[1;3H": "home",
        b"\x1b[5;5~": "pageup",
    },
    "application mode": {
        b"\x1bOA": "up",
        b"\x1bOB": "down",
        b"\x1bOC": "right",
        b"\x1bOD": "left",
        b"\x1bOH": "home",
        b"\x1bOF": "end",
        b"\x1bOM": "enter",
    },
    "tmux, Linux console": {b"\x1b[1~": "home", b"\x1b[4~": "end", b"\x1b[[A": None},
    "rxvt": {
        b"\x1b[7~": "home",
        b"\x1b[8~": "end",
        b"\x1b[7$": "home",
        b"\x1b[6^": "pagedown",
        b"\x1b[c": "shift-right",
        b"\x1b[d": "shift-left",
        b"\x1bOc": "shift-right",
        b"\x1b\x1b[C": "right",
    },
    "characters": {
        b"\r": "enter",
        b"\n": "enter",
        b"\t": "tab",
        b" ": "space",
        b"\x7f": "backspace",
        b"\x08": "backspace",
        b"q": "q",
        b"$": "$",
        b"\x0c": "ctrl-l",
        b"\x1a": "ctrl-z",
        "é".encode(): "é",
        "均".encode(): "均",
        "🎉".encode(): "🎉",
    },
    "others": {b"\x1b[3~": None, b"\x1b[200~": None, b"\x1b[15;2~": None, b"\x1bOP": None},
}
CASES = [
    pytest.param(data, key, id=f"{kind} {data!r}")
    for kind, table in SEQUENCES.items()
    for data, key in table.items()
]


@posix
@pytest.mark.parametrize(("data", "key"), CASES)
def test_keys_have_names(terminal, data, key):
    ours, theirs = terminal
    with PosixKeys(theirs) as board:
        os.write(ours, data + b"x")
        assert [board.read(2), board.read(2)] == [key, "x"]
        assert board.read(0) is None


@posix
def test_many_keys_at_once(terminal):
    assert typed(terminal, b"\x1b[C\x1b[1;2Dqn \x1bOA\xc3\xa9") == (
        ["right", "shift-left", "q", "n", "space", "up", "é"]
    )


@posix
@pytest.mark.parametrize("data", [b"\x1b[1;2C", b"\x1b[6~", b"\x1bOC", b"\x1b[C", "均".encode()])
def test_keys_that_arrive_in_pieces(terminal, data, monkeypatch):
    monkeypatch.setattr(keys, "AFTER_ESCAPE", 10)  # this machine may be busy
    monkeypatch.setattr(keys, "WITHIN", 10)
    whole = typed(terminal, data)
    assert len(whole) == 1
    assert typed(terminal, *(data[k : k + 1] for k in range(len(data))), pause=0.05) == whole


@posix
def test_a_lone_escape_is_a_key(terminal):
    assert typed(terminal, b"\x1b") == ["escape"]
    assert typed(terminal, b"\x1bq") == ["escape", "q"]
    assert typed(terminal, b"\x1b\x1b") == ["escape"]


@posix
def test_thousands_of_escapes(terminal):
    assert typed(terminal, *[b"\x1b" * 1000] * 3)[-1] == "escape"


@posix
def test_garbage_is_no_key_and_not_the_end(terminal, monkeypatch):
    monkeypatch.setattr(keys, "WITHIN", 0.1)
    assert typed(terminal, b"\x1b[1;", b"q", pause=0.3)[-1] == "q"
    assert typed(terminal, b"\xbfq") == ["�", "q"]


@posix
def test_no_key_within_the_time(terminal):
    with PosixKeys(terminal[1]) as board:
        assert board.read(0.01) is None


@posix
def test_the_terminal_is_restored_after_anything(terminal):
    import termios

    before = termios.tcgetattr(terminal[1])
    for error in (KeyboardInterrupt, ValueError, SystemExit):
        with suppress(error), PosixKeys(terminal[1]):
            inside = termios.tcgetattr(terminal[1])
            assert not inside[3] & (termios.ICANON | termios.ECHO)
            raise error
        assert termios.tcgetattr(terminal[1]) == before


@posix
def test_a_terminal_can_be_lent(terminal):
    import termios

    before = termios.tcgetattr(terminal[1])
    with PosixKeys(terminal[1]) as board:
        inside = termios.tcgetattr(terminal[1])
        with board.lent():
            assert termios.tcgetattr(terminal[1]) == before
        assert termios.tcgetattr(terminal[1]) == inside != before


@posix
def test_a_terminal_that_is_gone(terminal):
    ours, theirs = terminal
    with PosixKeys(theirs) as board:
        os.close(ours)
        with pytest.raises(EOFError, match="gone"):
            board.read(2)


@posix
def test_sigterm_ends_the_block(terminal):
    import termios

    before = termios.tcgetattr(terminal[1])

    def wait():
        with PosixKeys(terminal[1]) as board:
            os.kill(os.getpid(), signal.SIGTERM)
            board.read(5)

    with pytest.raises(SystemExit) as stop:
        wait()
    assert stop.value.code == 143
    assert termios.tcgetattr(terminal[1]) == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@posix
def test_a_handler_of_the_program_stays(terminal):
    def handler(*_):
        pass

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        with PosixKeys(terminal[1]):
            assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, previous)


@posix
def test_outside_of_the_main_thread(terminal):
    found = []

    def read():
        with PosixKeys(terminal[1]) as board:
            os.write(terminal[0], b"q")
            found.append(board.read(2))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found == ["q"]


# Windows -----------------------------------------------------------------------------------------


@pytest.fixture
def console(monkeypatch):
    """A console of Windows: what is in the list has been typed."""
    typed = []
    module = SimpleNamespace(kbhit=lambda: bool(typed), getwch=lambda: typed.pop(0))
    monkeypatch.setitem(sys.modules, "msvcrt", module)
    return typed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\xe0K\xe0M\xe0H\xe0P", ["left", "right", "up", "down"]),
        ("\xe0G\xe0O\xe0I\xe0Q", ["home", "end", "pageup", "pagedown"]),
        ("\0K\0M", ["left", "right"]),  # of the keypad
        ("\xe0s\xe0t", ["shift-left", "shift-right"]),
        ("\r\x1b\x08 q\t", ["enter", "escape", "backspace", "space", "q", "tab"]),
        ("\xe0S\0;", [None, None]),
        ("均é", ["均", "é"]),
        ("\ud83c\udf89q", ["🎉", "q"]),
        ("q\xe0", ["q", "à"]),
        ("\x0c", ["ctrl-l"]),
    ],
)
def test_the_console_of_windows(console, text, expected):
    console += text
    with WindowsKeys() as board:
        assert [board.read(1) for _ in expected] == expected
        assert board.read(0) is None
        assert board.read(0.02) is None


def test_ctrl_c_in_the_console_of_windows(console):
    console.append("\x03")
    with pytest.raises(KeyboardInterrupt), WindowsKeys() as board:
        board.read(1)


def test_the_keyboard_of_this_machine(console, monkeypatch):
    monkeypatch.setattr(keys.os, "name", "nt")
    assert isinstance(keys.keyboard(), WindowsKeys)
