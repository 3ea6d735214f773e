"""Going through a walk by keys: what each key does, and what a real terminal shows."""

import io
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pyte
import pytest
from rich.console import Console

import microbn as mb
from microbn.terminal.keys import Keys
from microbn.terminal.stepper import interactive, matching, step_through

posix = pytest.mark.skipif(os.name != "posix", reason="only POSIX has pseudo-terminals")


def program(dy=((1.0, 0), (0, 0), (0, 0), (0, 1))):
    x = mb.Tensor([[7.0, 70], [8, 80], [9, 90], [6, 60]], requires_grad=True, name="x")
    with mb.scope("model"):
        y = mb.batch_norm(x)
    walk = mb.steps((y * np.array(dy)).sum().named("loss"))
    walk.title = "program"
    return walk


@pytest.fixture(scope="module")
def walk():
    return program()


# What keys do ------------------------------------------------------------------------------------


class Typed(Keys):
    """Keys that have been typed already; then the terminal is gone."""

    def __init__(self, keys):
        self.keys = list(keys)

    def read(self, timeout):
        if not self.keys:
            raise EOFError
        return self.keys.pop(0)

    def _take(self):
        pass

    def _give_back(self):
        pass


def frames(walk, *keys, start=0, size=(80, 24)):
    """Return the step that is shown last, and the lines of all that was shown."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, no_color=True, width=size[0], height=size[1])
    index = step_through(walk, start, console=console, keys=Typed(keys))
    shown = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue()).split("\x1b[H")[1:]
    return index, [frame.split("\x1b")[0].split("\n") for frame in shown]


def index_after(walk, *keys, start=0):
    return frames(walk, *keys, start=start)[0]


def bottom_after(walk, *keys, lines=1, **kwargs):
    """Return the lowest lines after these keys, without blanks behind them."""
    last = frames(walk, *keys, **kwargs)[1][-1]
    return "\n".join(line.rstrip() for line in last[-lines:])


def line(text):
    """The keys for a line of text."""
    return ["space" if c == " " else c for c in text] + ["enter"]


@pytest.mark.parametrize("key", ["right", "l", "j", "down", "space", "enter"])
def test_keys_to_the_next_step(walk, key):
    assert index_after(walk, key, key) == 2
    assert index_after(walk, key, start=-1) == len(walk) - 1


@pytest.mark.parametrize("key", ["left", "h", "k", "up"])
def test_keys_to_the_previous_step(walk, key):
    assert index_after(walk, key, start=5) == 4
    assert index_after(walk, key) == 0


@pytest.mark.parametrize(
    ("key", "start", "index"),
    [
        ("home", 7, 0),
        ("end", 3, -1),
        ("G", 3, -1),
        ("$", 3, -1),
        ("pagedown", 3, 13),
        ("pageup", 13, 3),
        ("pageup", 3, 0),
        ("pagedown", -2, -1),
    ],
)
def test_keys_to_steps_further_away(walk, key, start, index):
    assert index_after(walk, key, start=start) == range(len(walk))[index]


@pytest.mark.parametrize("keys", ["np", ["shift-right", "shift-left"]])
def test_keys_over_a_scope(walk, keys):
    forward, back = keys
    first = next(s.index for s in walk if s.node and s.node.scope)
    after = next(s.index for s in walk if s.index > first and s.node and not s.node.scope)
    assert index_after(walk, forward) == first
    assert index_after(walk, forward, forward) == after
    assert index_after(walk, back, start=after) == after - 1
    assert index_after(walk, back, start=first) == first - 1
    assert index_after(walk, *[forward] * 99) == len(walk) - 1
    assert index_after(walk, *[back] * 99, start=9) == 0


def test_b_goes_to_the_backward_pass_and_back(walk):
    assert index_after(walk, "l", "l", "b") == walk.backward
    assert index_after(walk, "l", "l", "b", "l", "l", "b") == 2
    assert index_after(walk, "l", "l", "b", "b", "l", "b", "l", "b") == 3


def test_without_a_backward_pass_b_says_so():
    walk = mb.steps(mb.trace(lambda x: x * 2, mb.Tensor([1.0, 2.0])))
    assert walk.backward is None
    assert index_after(walk, "b") == 0
    assert "no backward pass" in bottom_after(walk, "b")
    assert "quit" in bottom_after(walk, "b", "l")


def test_the_exclamation_mark_finds_what_is_not_finite(walk):
    assert "finite" in bottom_after(walk, "!")
    with np.errstate(all="ignore"):
        x = mb.Tensor([1.0, -1.0], requires_grad=True, name="x")
        strange = mb.steps((np.log(x * 2) + 1).sum())
    assert strange[index_after(strange, "!")].node.op == "log"
    assert index_after(strange, "!", start=3) == 2


def test_other_keys_do_nothing(walk):
    assert index_after(walk, "l", "x", "é", "ctrl-a", None, "shift-up") == 1


def test_quitting(walk):
    for key in ("q", "escape"):
        assert index_after(walk, "l", key, "l", "l") == 1


def test_the_index_of_the_first_step_is_checked(walk):
    with pytest.raises(IndexError):
        index_after(walk, start=len(walk))


# Seeking -----------------------------------------------------------------------------------------


def where(walk, name, kind="forward"):
    return next(s.index for s in walk if s.node and s.node.name == name and s.kind == kind)


def complete(walk, name):
    return next(s.index for s in walk if s.node and s.node.name == name and s.final)


def test_g_goes_to_where_a_name_is_computed(walk):
    for key in "g/":
        assert index_after(walk, key, *line("var")) == where(walk, "var")
    assert index_after(walk, "g", *line("x"), start=4) == 0
    assert index_after(walk, "g", *line("x_h")) == where(walk, "x_hat")
    assert index_after(walk, "g", *line("ENTER")) == where(walk, "centered")


def test_in_the_backward_pass_g_goes_to_where_the_gradient_is_complete(walk):
    assert index_after(walk, "b", "g", *line("var")) == complete(walk, "var")
    assert index_after(walk, "g", *line("d var")) == complete(walk, "var")
    assert index_after(walk, "end", "g", *line("x")) == complete(walk, "x")


def test_subscripts_can_be_typed_as_digits():
    x = mb.Tensor([1.0, 2.0], requires_grad=True, name="x")
    twice = mb.steps(((x - 3).named("h") * (x + 3).named("h")).sum())
    assert index_after(twice, "g", *line("h")) == 1
    assert index_after(twice, "g", *line("h2")) == 2


def test_a_gradient_that_does_not_arrive():
    x, w = (mb.Tensor([1.0, 2.0], requires_grad=name == "w", name=name) for name in "xw")
    part = mb.steps((x * w).sum())
    assert "no gradient arrives at x" in bottom_after(part, "g", *line("d x"))


def test_capital_n_goes_on(walk):
    assert index_after(walk, "g", *line("var"), "N") == complete(walk, "var")
    assert index_after(walk, "g", *line("var"), "N", "N") == where(walk, "var")
    assert "from the start" in bottom_after(walk, "g", *line("var"), "N", "N")
    assert "nothing was sought" in bottom_after(walk, "N")


def test_names_are_suggested(walk):
    bottom = bottom_after(walk, "g", "v", "a", lines=2)
    assert bottom == "var  var_eps\ngo to: va"
    assert bottom_after(walk, "g", "v", "x", "backspace", lines=2) == "var  var_eps\ngo to: v"
    assert bottom_after(walk, "g", "c", "tab") == "go to: centered"
    assert bottom_after(walk, "g", "z", "tab") == "go to: z"
    assert bottom_after(walk, "g", "c", "ctrl-u") == "go to:"
    assert "mean" in bottom_after(walk, "g", lines=2)


def test_escape_leaves_the_prompt_only(walk):
    assert index_after(walk, "g", "v", "escape", "l") == 1
    assert index_after(walk, "g", "enter", "l") == 1


def test_an_unknown_name_lists_those_that_there_are(walk):
    text = " ".join(bottom_after(walk, "g", *line("vra"), lines=4).split())
    assert "nothing is called 'vra'; the names are: var" in text
    assert index_after(walk, "g", *line("vra"), "l") == 1


def test_u_goes_on_until_a_condition_holds(walk):
    assert index_after(walk, "u", *line("max > 100")) == where(walk, "squared")
    assert index_after(walk, "u", *line("squared: max > 100"), start=4) == where(walk, "squared")
    assert index_after(walk, "u", *line("min < 0 and centered")) == where(walk, "centered")
    assert index_after(walk, "u", *line("max > 100"), "N") == where(walk, "var")
    assert "there is no such step" in bottom_after(walk, "u", *line("isnan"))
    assert "only here" in bottom_after(walk, "u", *line("squared"), "N")


def test_a_bad_condition_says_what_is_possible(walk):
    text = bottom_after(walk, "u", *line("max > many"), lines=4)
    assert "'many' in 'max > many' is no number" in text
    assert "max > 100" in " ".join(bottom_after(walk, "u", *line("foo"), lines=4).split())


@pytest.mark.parametrize(
    ("text", "found"), [("a", [0]), ("A", [0, 2]), ("b", [1]), ("c", [2]), ("z", [])]
)
def test_matching_prefers_the_whole_name_then_its_beginning(text, found):
    assert matching({0: "a", 1: "b.a", 2: "abc"}, text) == found


# Frames ------------------------------------------------------------------------------------------


def test_one_frame_for_each_key(walk):
    _, shown = frames(walk, "l", "l")
    assert [frame[0].split()[3] for frame in shown] == ["0", "1", "2"]
    assert all(len(frame) == 24 and {len(row) for row in frame} == {80} for frame in shown)


def test_help(walk):
    _, shown = frames(walk, "l", "?", "x", "l")
    assert any("next step" in row for row in shown[2])
    assert "step 1 of" in shown[3][0]
    assert "step 2 of" in shown[4][0]


def test_tab_shows_the_rest_of_a_step(walk):
    _, shown = frames(walk, "tab", "l", "h", start=2, size=(40, 10))
    assert "part 1 of" in shown[0][-2]
    assert "part 2 of" in shown[1][-2]
    assert shown[0][1:-2] != shown[1][1:-2]
    assert "part 1 of" in shown[3][-2]


# A real terminal ---------------------------------------------------------------------------------

PROGRAM = """
import sys; sys.path.insert(0, {folder!r})
from test_stepper import program
from microbn.terminal import keys, stepper
walk = program()
{extra}
stepper.step_through(walk)
print("after")
"""
OWN = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""  # makes the terminal that of the session, so that Ctrl-C and Ctrl-Z are signals


class Session:
    """A program in a terminal of its own, of which the screen can be read."""

    def __init__(self, *command, extra="", size=(80, 24), **environment):
        import pty
        import termios

        self.ours, theirs = pty.openpty()
        self.theirs = theirs
        self.screen = pyte.Screen(*size)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(*size)
        self.before = termios.tcgetattr(theirs)
        script = PROGRAM.format(folder=os.path.dirname(__file__), extra=extra)
        python = [sys.executable, "-c", script]
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        kept |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN, *(command or python), *(python if command else [])],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=kept,
        )

    def resize(self, width, height):
        import fcntl
        import termios

        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.screen.resize(height, width)

    def type(self, data):
        os.write(self.ours, data)

    def read(self, timeout):
        if select.select([self.ours], [], [], timeout)[0]:
            with suppress(OSError):
                data = os.read(self.ours, 65536)
                self.raw += data
                self.stream.feed(data)

    def wait(self, what, last="quit"):
        """Wait until one text is on the screen and another in the line written last."""
        end = time.monotonic() + 60
        while what not in "\n".join(rows := self.screen.display) or last not in rows[-1]:
            assert time.monotonic() < end, f"{what!r} did not come:\n{self.raw.decode()[-3000:]}"
            self.read(0.1)
        return [row.rstrip() for row in self.screen.display]

    def end(self):
        """Wait for the end of the process; return its exit code."""
        end = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < end, self.screen.display
            self.read(0.05)
        while select.select([self.ours], [], [], 0.1)[0]:
            self.read(0)
        return self.process.returncode

    def check_restored(self):
        """The terminal is in the mode and on the screen that it was in before."""
        import termios

        assert termios.tcgetattr(self.theirs) == self.before
        assert self.raw.rindex(b"\x1b[?1049l") > self.raw.rindex(b"\x1b[?1049h")
        assert self.raw.rindex(b"\x1b[?25h") > self.raw.rindex(b"\x1b[?25l")
        assert self.raw.rindex(b"\x1b[?7h") > self.raw.rindex(b"\x1b[?7l")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@posix
def test_a_session(walk):
    last = len(walk) - 1
    with Session(extra="keys.AFTER_ESCAPE = 10") as terminal:  # the machine may be busy
        rows = terminal.wait(f"step 0 of {last}")
        assert rows[-1].endswith("q quit")
        terminal.type(b"\x1b[C\x1bOC")
        rows = terminal.wait(f"step 2 of {last}")
        assert rows[0] == f"program  FORWARD  step 2 of {last}  model › batch_norm"
        assert rows[2] == walk[2].formula
        assert any(row.split()[:2] == ["x", "mean"] for row in rows)
        assert sum("-0.5" in row and "70" in row for row in rows) == 1
        for byte in b"\x1b[1;2D":
            terminal.type(bytes([byte]))
            time.sleep(0.05)
        terminal.wait(f"step 0 of {last}")
        terminal.type(b"gx_hat")
        assert terminal.wait("go to: x_hat", "x_hat")[-2] == "x_hat"
        terminal.type(b"\r")
        terminal.wait(f"step {where(walk, 'x_hat')} of {last}")
        terminal.type(b"b")
        rows = terminal.wait(f"step {walk.backward} of {last}")
        assert "BACKWARD" in rows[0]
        terminal.type(b"q")
        assert terminal.end() == 0
        terminal.check_restored()
        assert terminal.raw.endswith(b"\x1b[?1049lafter\r\n")


@posix
@pytest.mark.parametrize("size", [(120, 40), (60, 20), (40, 10), (20, 4)])
def test_sizes(walk, size):
    with Session() as terminal:
        terminal.wait("step 0 of")
        terminal.resize(*size)
        terminal.wait("0 of" if size[0] >= 60 else "0/")
        terminal.type(b"l")
        rows = terminal.wait("1 of" if size[0] >= 60 else "1/")
        assert rows[-1].endswith("quit")
        assert rows[0].lstrip().startswith("program" if size[0] >= 40 else "")
        assert sum("FORWARD" in row for row in rows) == 1
        terminal.type(b"q")
        assert terminal.end() == 0


@posix
@pytest.mark.parametrize("data", [b"\x03", b"\x1b", b"q", b"gx\x03"])
def test_ways_to_quit(data):
    with Session() as terminal:
        terminal.wait("step 0 of")
        terminal.type(data)
        assert terminal.end() == 0
        terminal.check_restored()
        assert b"Traceback" not in terminal.raw


@posix
def test_keys_typed_ahead_are_kept():
    with Session() as terminal:
        terminal.type(b"ll")
        terminal.wait("step 2 of")
        terminal.type(b"q")
        assert terminal.end() == 0


@posix
def test_after_an_exception_the_terminal_is_as_it_was():
    extra = "stepper.Stepper._turn = lambda self: 1 / 0"
    with Session(extra=extra) as terminal:
        terminal.wait("step 0 of")
        terminal.type(b"b")
        assert terminal.end() == 1
        terminal.check_restored()
        assert b"ZeroDivisionError" in terminal.raw.split(b"\x1b[?1049l")[-1]


@posix
def test_after_sigterm_the_terminal_is_as_it_was():
    with Session() as terminal:
        terminal.wait("step 0 of")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 143
        terminal.check_restored()


@posix
def test_ctrl_z_and_fg():
    script = 'set -m; "$@"; echo "stopped: $(stty -a | grep -o "[-]*icanon")"; read line; fg'
    with Session("/bin/sh", "-c", script, "sh") as terminal:
        terminal.wait("step 0 of")
        terminal.type(b"l\x1a")
        terminal.wait("stopped: icanon", "")
        terminal.check_restored()
        assert terminal.process.poll() is None
        terminal.type(b"\r")
        terminal.wait("step 1 of")
        terminal.type(b"lq")
        assert terminal.end() == 0
        terminal.check_restored()
        assert b"step 2 of" in terminal.raw


@posix
def test_a_console_without_colours_is_a_screen_all_the_same():
    extra = "from rich.console import Console; plain = Console(force_terminal=False)"
    extra += "\nstepper.Console = lambda **_: plain"
    with Session(extra=extra) as terminal:
        terminal.wait("step 0 of")
        terminal.type(b"l")
        terminal.wait("step 1 of")
        assert b"m" not in {code[-1:] for code in re.findall(rb"\x1b\[[\d;]*\w", terminal.raw)}


@posix
def test_colours_and_none():
    with Session(COLORTERM="truecolor") as terminal:
        terminal.wait("step 0 of")
        assert b"48;2;" in terminal.raw
    with Session(NO_COLOR="1") as terminal:
        terminal.wait("step 0 of")
        assert not re.search(rb"\x1b\[[\d;]*[34]8;", terminal.raw)


@posix
@pytest.mark.parametrize("name", ["dumb", "unknown"])
def test_on_a_dumb_terminal_the_transcript_is_printed(walk, name):
    with Session(TERM=name) as terminal:
        assert terminal.end() == 0
        assert b"\x1b" not in terminal.raw
        assert f"[{len(walk) - 1}/{len(walk) - 1}] ".encode() in terminal.raw
        assert terminal.raw.endswith(b"after\r\n")


def test_a_file_is_no_screen_even_if_colours_are_forced(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert not interactive(Console(file=io.StringIO(), force_terminal=True))


@pytest.mark.parametrize("stdin", [None, io.StringIO("q")])
def test_where_nobody_presses_keys_the_transcript_is_printed(walk, capsys, monkeypatch, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    assert step_through(walk) == len(walk) - 1
    assert capsys.readouterr().out.startswith("program\n\n[0/")
