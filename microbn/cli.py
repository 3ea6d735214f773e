"""The command `microbn`: its options, and what it says when they are wrong."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from . import __version__
from .demo import demo
from .graph import Drawing, draw
from .graph.drawing import check_ending
from .graph.layout import LayoutError
from .program import ProgramError, run

INTERRUPTED = 130  # as shells count it: 128 + SIGINT

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

FILE.py is run as a script. FILE.py:name calls a function that takes no
arguments, or draws a Tensor that the script leaves in a variable."""

DRAW_EXAMPLES = """\
examples:
  microbn draw model.py
  microbn draw model.py:loss --backward -o loss.svg --open
  microbn draw train.py:step --collapse 1 --no-values -o step.pdf"""

EXAMPLES = """\
examples:
  microbn demo
  microbn demo --seed 3 --epochs 5
  microbn demo --quiet --out pictures"""


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
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        mistaken = commands.get(options.command, parser)
        mistaken.error(
            f"there is no {'option' if unknown[0][0] == '-' else 'argument'} {unknown[0]}"
        )
    if options.command is None:
        parser.print_help()
        return 0
    try:
        problem = run_demo(options) if options.command == "demo" else run_draw(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        start = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C where the cursor is
        print(f"{start}microbn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads this, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if problem:
        print(f"microbn {options.command}: error: {problem}", file=sys.stderr)
    return 2 if problem.startswith("cannot write") else int(bool(problem))


def run_demo(options: argparse.Namespace) -> str:
    """Run `microbn demo`, and return what went wrong, or nothing."""
    try:
        make_writable(options.out)
        demo(console(), options.seed, options.epochs, options.out, quiet=options.quiet)
    except LayoutError as error:
        return str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return f"cannot write into {str(options.out)!r}: {error.strerror or error}"
    return ""


def run_draw(options: argparse.Namespace) -> str:
    """Run `microbn draw`, and return what went wrong, or nothing."""
    out = options.out or Path(Path(options.target.rpartition(":")[0] or options.target).stem)
    out = out if out.suffix else out.with_suffix(".svg")
    try:
        check_ending(out)
        if not out.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"there is no folder {str(out.parent)!r}")
        found = run(options.target)
        drawing: Drawing = draw(
            found,
            backward=options.backward,
            values=options.values,
            collapse=[level_or_name(text) for text in options.collapse],
            highlight=options.highlight,
            direction="LR" if options.sideways else "TB",
            theme="dark" if options.dark else "light",
            title=options.title,
        )
        drawing.save(out)
    except (ProgramError, LayoutError, ValueError, TypeError, RuntimeError) as error:
        return str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return f"cannot write {str(out)!r}: {error.strerror or error}"
    print(f"{drawing!r} of {options.target}, saved as {out}")
    if options.open:
        webbrowser.open(out.resolve().as_uri())
    return ""


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
    demo_parser = commands.add_parser(
        "demo",
        help="show what microbn does, in under a minute",
        description=ABOUT_DEMO,
        epilog=EXAMPLES,
        formatter_class=style,
        allow_abbrev=False,
    )
    add = demo_parser.add_argument
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
    draw_parser = commands.add_parser(
        "draw",
        help="run a program and draw what it computed",
        description=ABOUT_DRAW,
        epilog=DRAW_EXAMPLES,
        formatter_class=style,
        allow_abbrev=False,
    )
    add_draw_options(draw_parser)
    return parser, {"demo": demo_parser, "draw": draw_parser}


def add_draw_options(parser: Parser) -> None:
    """Add what `microbn draw` takes."""
    add = parser.add_argument
    add("target", metavar="FILE.py[:name]", help="the program, and what to draw of it")
    add(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="where the picture goes: .svg, .png, .pdf or .dot (default: the program's name, .svg)",
    )
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
    add("--open", action="store_true", help="show the picture when it is made")


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
