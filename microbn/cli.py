"""The command `microbn`: its options, and what it says when they are wrong."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

from rich.console import Console

from . import __version__
from .check.report import ABOUT as ABOUT_CHECK
from .check.report import EXAMPLES as CHECK_EXAMPLES
from .check.report import report
from .demo import demo
from .graph import Drawing, Trace, draw
from .graph.drawing import LIMIT, check_ending
from .graph.layout import LayoutError
from .program import ProgramError, parts, run, status_of

INTERRUPTED = 130  # as shells count it: 128 + SIGINT
STANDARD_OUTPUT = (Path("-"), Path("/dev/stdout"))

ABOUT = """\
A tiny autograd engine over NumPy, in which batch normalization is nothing
special: it is composed of mean, sub, pow, sqrt, mul and add, and its backward
pass follows from theirs."""

ABOUT_DEMO = """\
Show what microbn does, in under a minute:

  1  four students through composed batch norm, every stage with its values
  2  its backward pass against three that were derived by hand
  3  its graph, saved as SVG and as DOT
  4  a network that reads handwritten digits, with batch norm and without"""

ABOUT_DRAW = """\
Run a program and draw what it computed: the graph of the result that was
computed last, with the names of the program's own variables.

FILE.py is run as a script. FILE.py:name draws what the script leaves in a
variable instead, or calls a function that takes no arguments and draws all that
it returns. What follows -- are arguments for the program."""

DRAW_EXAMPLES = """\
examples:
  microbn draw model.py
  microbn draw model.py:loss --backward -o loss.svg --open
  microbn draw train.py:step --collapse 1 --no-values -o step.pdf
  microbn draw train.py -o - -- --epochs 3 > train.svg"""

EXAMPLES = """\
examples:
  microbn demo
  microbn demo --seed 3 --epochs 5
  microbn demo --quiet --out pictures"""


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


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line instead of the usage and a line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


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
        hint *= options.command == "draw"
        commands.get(options.command, parser).error(f"there is no {kind} {unknown[0]}{hint}")
    if options.command is None:
        parser.print_help()
        return 0
    try:
        if options.command == "draw":
            status, problem = run_draw(options, arguments)
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
    """Split off the arguments of the program that is drawn, which follow --."""
    if "--" not in argv or argv[0] != "draw":
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
    out = options.out
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
    except ProgramError as error:
        return error.status, str(error)
    except (LayoutError, ValueError, TypeError, RuntimeError) as error:
        return 1, in_options(str(error), path)
    except BrokenPipeError:
        raise
    except OSError as error:
        return 2, f"cannot write {str(out)!r}: {error.strerror or error}"
    added = "" if options.out in (None, out) else f", since {str(options.out)!r} has no ending"
    where = "written to standard output" if stream else f"saved as {out}{added}"
    print(f"{drawing!r} of {options.target}, {where}")
    if options.open:
        webbrowser.open(out.resolve().as_uri())
    return status_of(ran.stopped), ""


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


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of `microbn`, and those of its commands within it."""
    style = argparse.RawDescriptionHelpFormatter
    parser = Parser("microbn", description=ABOUT, formatter_class=style, allow_abbrev=False)
    parser.epilog = "Each command has a help of its own: microbn demo --help"
    parser.add_argument("-V", "--version", action="version", version=f"microbn {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    made = {}
    for name, purpose, about, examples in (
        ("demo", "show what microbn does, in under a minute", ABOUT_DEMO, EXAMPLES),
        ("draw", "run a program and draw what it computed", ABOUT_DRAW, DRAW_EXAMPLES),
        ("check", "check backward passes that are written by hand", ABOUT_CHECK, CHECK_EXAMPLES),
    ):
        made[name] = commands.add_parser(
            name, help=purpose, description=about, formatter_class=style, allow_abbrev=False
        )
        made[name].epilog = examples
    add_demo_options(made["demo"])
    add_draw_options(made["draw"])
    add_check_options(made["check"])
    return parser, made


def add_demo_options(parser: Parser) -> None:
    """Add what `microbn demo` takes."""
    add = parser.add_argument
    add("--seed", type=whole(0), default=0, metavar="N", help="of all that is random (default: 0)")
    add(
        "--epochs",
        type=whole(1),
        default=20,
        metavar="N",
        help="times the network sees every training image (default: 20)",
    )
    add(
        "--out",
        type=Path,
        default=Path("microbn-demo"),
        metavar="DIR",
        help="where the pictures go; made if need be (default: microbn-demo)",
    )
    add("-q", "--quiet", action="store_true", help="print the results alone, one a line")


def add_check_options(parser: Parser) -> None:
    """Add what `microbn check` takes."""
    add = parser.add_argument
    add("target", metavar="FILE.py[:name]", help="the program, and one function in it")
    add("--seed", type=whole(0), default=0, metavar="N", help="the first seed (default: 0)")
    add(
        "--seeds",
        type=whole(1),
        default=3,
        metavar="N",
        help="how many random dy, each with inputs of its own if the mark draws them (default: 3)",
    )
    add("-q", "--quiet", action="store_true", help="print what is wrong alone, and the count")


def add_draw_options(parser: Parser) -> None:
    """Add what `microbn draw` takes."""
    add = parser.add_argument
    add(
        "target",
        metavar="FILE.py[:name]",
        help="the program, and what to draw of it; its arguments follow --",
    )
    add(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="where the picture goes: .svg, .png, .pdf or .dot, or - for SVG to standard output "
        "(default: the program's name, .svg)",
    )
    add(
        "--limit",
        type=whole(1),
        default=LIMIT,
        metavar="N",
        help=f"the most nodes in a picture; above, scopes are collapsed (default: {LIMIT})",
    )
    add("--open", action="store_true", help="show the picture when it is made")
    add_looks(parser)


def add_looks(parser: Parser) -> None:
    """Add what changes how the picture looks."""
    add = parser.add_argument
    add("--backward", action="store_true", help="draw the backward pass beside the forward one")
    add(
        "--values",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the values of small arrays, a digest of large ones (default: yes)",
    )
    add(
        "--collapse",
        action="append",
        default=[],
        metavar="SCOPE",
        help="draw a scope as one box: its name, or a level, 1 for the outermost; repeatable",
    )
    add(
        "--highlight",
        action="append",
        default=[],
        metavar="NAME",
        help="point at a node, or at a path such as 'x -> mean'; repeatable",
    )
    add("--sideways", action="store_true", help="from left to right instead of top to bottom")
    add("--dark", action="store_true", help="for dark backgrounds")
    add("--title", metavar="TEXT", help="to write above the picture")


def level_or_name(text: str) -> int | str:
    """Read a level of scopes if it is a number, else a name."""
    return int(text) if text.isdecimal() else text


def whole(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number, {least} or more, not {text!r}"
            )
        return int(text)

    return number
