"""The command `microbn`: its options, and what it says when they are wrong."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from . import __version__
from .demo import demo
from .graph.layout import LayoutError

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
    parser, demo_parser = parsers()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        mistaken = demo_parser if options.command else parser
        mistaken.error(
            f"there is no {'option' if unknown[0][0] == '-' else 'argument'} {unknown[0]}"
        )
    if options.command is None:
        parser.print_help()
        return 0
    try:
        make_writable(options.out)
        demo(console(), options.seed, options.epochs, options.out, quiet=options.quiet)
        sys.stdout.flush()
    except KeyboardInterrupt:
        start = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C where the cursor is
        print(f"{start}microbn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads this, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, LayoutError) as error:
        problem = str(error)
        if isinstance(error, OSError):
            problem = f"cannot write into {str(options.out)!r}: {error.strerror or error}"
        print(f"microbn demo: error: {problem}", file=sys.stderr)
        return 2 if isinstance(error, OSError) else 1
    return 0


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


def parsers() -> tuple[Parser, Parser]:
    """Return the parser of `microbn`, and that of `microbn demo` within it."""
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
    return parser, demo_parser


def whole(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number, {least} or more, not {text!r}"
            )
        return int(text)

    return number
