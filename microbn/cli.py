"""The command `microbn`: what its commands do, and what they say when that cannot be done."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from .check.report import report
from .demo import demo
from .graph import Drawing, Trace, Walk, draw
from .graph.drawing import check_ending
from .graph.layout import LayoutError
from .graph.step.make import walk
from .graph.step.until import FLAGS, condition
from .graph.tracer import tensors_in
from .options import level_or_name, parsers
from .program import ProgramError, Ran, parts, run, status_of
from .terminal.stepper import interactive, step_through
from .terminal.transcript import transcript

INTERRUPTED = 130  # as shells count it: 128 + SIGINT
LATEST = 8  # results of a program that failed which are shown
STANDARD_OUTPUT = (Path("-"), Path("/dev/stdout"))

FORESEEN = (ProgramError, LayoutError, ValueError, TypeError, RuntimeError, OSError)

IN_OPTIONS = {  # what the library says in words of Python -> how the command says it
    r"draw an earlier Tensor of it": "draw an earlier result (FILE.py:name)",
    r"put parts of it into scopes": "put parts of it into functions",
    r"\blimit=": "--limit ",
    r"\bcollapse=": "--collapse ",
    r", or draw with engine='wasi'": ", or take it off PATH",
    r"give one of them, or their sum": "name one that the script leaves "
    "(FILE.py:name), or let the function return one of them, or their sum",
    r"(requires no gradient.*)": r"\1; or name another result: FILE.py:name",
    r"(was given new data[^;]*);.*": r"\1; draw a function that computes the loss alone "
    "(FILE.py:function), or let the script stop before the update",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv``, by default that of the process; return its exit code."""
    for stream in sys.stdout, sys.stderr:  # a terminal that lacks a character shows "?" for it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser, commands = parsers()
    argv, arguments = split(sys.argv[1:] if argv is None else argv)
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        kind = "option" if unknown[0][0] == "-" else "argument"
        hint = f"; what is for the program follows --: FILE.py -- {unknown[0]}"
        hint *= options.command in WITH_ARGUMENTS
        commands.get(options.command, parser).error(f"there is no {kind} {unknown[0]}{hint}")
    if options.command is None:
        parser.print_help()
        return 0
    try:
        if options.command in WITH_ARGUMENTS:
            status, problem = WITH_ARGUMENTS[options.command](options, arguments)
        else:
            status, problem = (run_demo if options.command == "demo" else run_check)(options)
        print(end="", flush=True)
    except KeyboardInterrupt:
        start = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C where the cursor is
        print(f"{start}microbn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads this, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if problem:
        print(f"microbn {options.command}: error: {problem}", file=sys.stderr)
    return status


def split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Split off the arguments of the program that is run, which follow --."""
    if "--" not in argv or argv[0] not in WITH_ARGUMENTS:
        return argv, ()
    end = argv.index("--")
    return argv[:end], argv[end + 1 :]


def run_demo(options: argparse.Namespace) -> tuple[int, str]:
    """Run `microbn demo`; return its exit code, and what went wrong, or nothing."""
    try:
        make_writable(options.out)
        demo(console(), options.seed, options.epochs, options.out, quiet=options.quiet)
    except LayoutError as error:
        return 1, str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return 2, f"cannot write into {str(options.out)!r}: {error.strerror or error}"
    return 0, ""


def run_draw(options: argparse.Namespace, arguments: Sequence[str]) -> tuple[int, str]:
    """Run `microbn draw`; return its exit code, and what went wrong, or nothing."""
    path, out = Path(options.target), options.out
    try:
        path, _ = parts(options.target)
        out = place(out, path)
        if out in STANDARD_OUTPUT and options.open:
            return 2, f"--open shows a file, and -o {out} writes none"
        stream = taken_output() if out in STANDARD_OUTPUT else None
        ran = run(options.target, arguments)
        if ran.stopped is not None:
            print(end="", flush=True)
            print(f"microbn draw: {path.name} stopped with {ran.stopped!r}", file=sys.stderr)
        drawing = drawn(ran.trace, options)
        write(drawing, out, stream)
    except FORESEEN as error:
        return told(error, path, out)
    added = "" if options.out in (None, out) else f", since {str(options.out)!r} has no ending"
    where = "written to standard output" if stream else f"saved as {out}{added}"
    print(f"{drawing!r} of {options.target}, {where}")
    if options.open:
        webbrowser.open(out.resolve().as_uri())
    return status_of(ran.stopped), ""


def run_step(options: argparse.Namespace, arguments: Sequence[str]) -> tuple[int, str]:
    """Run `microbn step`; return its exit code, and what went wrong, or nothing."""
    path = Path(options.target)
    try:
        path, _ = parts(options.target)
        page = page_of(options, path)
        ran = run(options.target, arguments, partial=True, catch=FLAGS.get(options.until))
        steps = steps_of(ran, options)
        start = first_that_holds(steps, options.until)
        if page:
            steps.save_html(page)
            print(f"{len(steps)} steps through {options.target}, saved as {page}")
        elif start is not None:
            show_steps(steps, start, options.until is not None)
    except FORESEEN as error:
        return told(error, path, options.html)
    if page and options.open:
        webbrowser.open(page.resolve().as_uri())
    if start is None:
        return 1, f"no step of {len(steps)} is one where {options.until} holds"
    if ran.failed:
        return 1, f"{path.name} failed:\n\n{ran.failed.traceback}"
    return status_of(ran.stopped), ""


def told(error: Exception, program: Path, out: Path | None) -> tuple[int, str]:
    """Return the exit code for an error of a command that runs a program, and what to say."""
    if isinstance(error, ProgramError):
        return error.status, str(error)
    if isinstance(error, BrokenPipeError):
        raise error
    if isinstance(error, OSError):
        return 2, f"cannot write {str(out)!r}: {error.strerror or error}"
    return 1, in_options(str(error), program)


def steps_of(ran: Ran, options: argparse.Namespace) -> Walk:
    """Return the steps of a program: those to its result, or to its latest ones if it failed.

    If the first number is wanted that is not finite, those that led there, in whatever round of
    a loop that was.
    """
    title, trace = Path(options.target).name, ran.trace
    if trace.caught is not None:
        said = f"These are the steps to the first result in which {options.until} holds."
        return walk((trace.caught,), trace.notes, title=title, forward_only=said)
    if ran.failed is None:
        return walk(trace.outputs, trace.notes, title=title)
    operands = tensors_in(ran.failed.operands)  # a leaf of them may not have been used before
    leaves = (operand for operand in operands if operand.op is None)
    outputs = tuple(dict.fromkeys([*trace.outputs[-LATEST:], *leaves])) or operands
    return walk(outputs, trace.notes, title=title, failure=ran.failed)


def first_that_holds(steps: Walk, until: str | None) -> int | None:
    """Return the first step at which a condition holds; without one, the first or the failure."""
    if until is None:
        return next((step.index for step in steps if step.kind == "error"), 0)
    holds = condition(until, steps)
    return next((step.index for step in steps if holds(step)), None)


def show_steps(steps: Walk, start: int, only: bool) -> None:
    """Let the user go through the steps; where that is impossible, print them all, or one."""
    screen = console()
    if interactive(screen):
        step_through(steps, start, console=screen)
    else:
        transcript(steps, screen, steps=[start] if only else None)


def page_of(options: argparse.Namespace, program: Path) -> Path | None:
    """Return where the page goes, if one is wanted."""
    if options.html is None and not options.open:
        return None
    page: Path = options.html or Path(f"{program.stem}.html")
    if page.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"it is a folder; give a file in it, {page}/x.html")
    if not page.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"there is no folder {str(page.parent)!r}")
    return page


def run_check(options: argparse.Namespace) -> tuple[int, str]:
    """Run `microbn check`; return its exit code, and what went wrong, or nothing."""
    try:
        parts(options.target)
    except ProgramError as error:
        return 2, str(error)
    seeds = range(options.seed, options.seed + options.seeds)
    try:
        right = report(options.target, console(), seeds, quiet=options.quiet)
    except ProgramError as error:
        return error.status, str(error)
    return int(not right), ""


def place(out: Path | None, program: Path) -> Path:
    """Return where the picture goes, by its full name; raise an OSError if it cannot go there."""
    if out in STANDARD_OUTPUT:
        return out
    if out is None:
        out = Path(f"{program.stem}.svg")
    elif not out.suffix and (out.is_file() or not out.exists()):  # a device stays what it is
        out = out.with_suffix(".svg")
    if out.is_dir():
        example = str(out / f"{program.stem}.svg")
        raise IsADirectoryError(errno.EISDIR, f"it is a folder; give a file, such as {example!r}")
    if not out.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"there is no folder {str(out.parent)!r}")
    if out.suffix:
        check_ending(out)
    return out


def taken_output() -> BinaryIO:
    """Take standard output for the picture alone: all that is printed goes to standard error."""
    print(end="", flush=True)
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # of the process, so that programs that the script calls print there, too
    return stream


def drawn(trace: Trace, options: argparse.Namespace) -> Drawing:
    """Draw as the options say."""
    return draw(
        trace,
        backward=options.backward,
        values=options.values,
        collapse=[level_or_name(text) for text in options.collapse],
        highlight=options.highlight,
        direction="LR" if options.sideways else "TB",
        theme="dark" if options.dark else "light",
        title=options.title,
        limit=options.limit,
    )


def write(drawing: Drawing, out: Path, stream: BinaryIO | None) -> None:
    """Write the picture to ``stream`` if there is one, else to a file; without ending, as SVG."""
    if stream:
        with stream:
            stream.write(drawing.svg().encode())
    elif out.suffix:
        drawing.save(out)
    else:
        out.write_bytes(drawing.svg().encode())


def in_options(message: str, program: Path) -> str:
    """Say in the words of the command what a message says in those of Python."""
    for pattern, words in IN_OPTIONS.items():
        message = re.sub(pattern, words.replace("FILE.py", program.name), message)
    return message


def make_writable(folder: Path) -> None:
    """Make ``folder`` unless it is there; raise an OSError if no file can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from None
    with tempfile.TemporaryFile(dir=folder):
        pass


def console() -> Console:
    """Return the standard output: plain text if it is no terminal, or if NO_COLOR asks for it."""
    terminal = False if os.environ.get("NO_COLOR") else None
    return Console(force_terminal=terminal, markup=False, highlight=False, emoji=False)


WITH_ARGUMENTS = {"draw": run_draw, "step": run_step}  # of the program that they run
