"""What the command `microbn` can be asked for: its commands, their options and their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from . import __version__
from .check.report import ABOUT as ABOUT_CHECK
from .check.report import EXAMPLES as CHECK_EXAMPLES
from .graph.collapse import LIMIT

ABOUT = """\
A tiny autograd engine over NumPy, in which batch normalization is nothing
special: it is composed of mean, sub, pow, sqrt, mul and add, and its backward
pass follows from theirs."""

ABOUT_DEMO = """\
Show what microbn does, in under a minute:

  1  four students through composed batch norm, every stage with its values
  2  its backward pass against three that were derived by hand
  3  its graph, saved as SVG and as DOT
  4  a network that reads handwritten digits, with batch norm and without
  5  a page in which to step through the first, forward and backward"""

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

ABOUT_STEP = """\
Run a program and go through what it computed: every op forward, then back along
every edge, with all values, and why each is what it is.

FILE.py is run as a script, FILE.py:name as by `microbn draw`. In a terminal the
keys lead through it (? for help); what goes elsewhere is all steps as text. A
program that fails is shown up to where it failed."""

STEP_EXAMPLES = """\
examples:
  microbn step model.py
  microbn step model.py:loss --html loss.html --open
  microbn step train.py --until nonfinite -- --epochs 3
  microbn step model.py --until "x_hat: max > 3"
  microbn step model.py > steps.txt"""

EXAMPLES = """\
examples:
  microbn demo
  microbn demo --seed 3 --epochs 5
  microbn demo --quiet --out pictures"""


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line instead of the usage and a line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


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
        ("step", "run a program and step through it", ABOUT_STEP, STEP_EXAMPLES),
        ("check", "check backward passes that are written by hand", ABOUT_CHECK, CHECK_EXAMPLES),
    ):
        made[name] = commands.add_parser(
            name, help=purpose, description=about, formatter_class=style, allow_abbrev=False
        )
        made[name].epilog = examples
    add_demo_options(made["demo"])
    add_draw_options(made["draw"])
    add_step_options(made["step"])
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


def add_step_options(parser: Parser) -> None:
    """Add what `microbn step` takes."""
    add = parser.add_argument
    add(
        "target",
        metavar="FILE.py[:name]",
        help="the program, and what to step through of it; its arguments follow --",
    )
    add("--html", type=Path, metavar="FILE", help="write all steps as one HTML page instead")
    add("--open", action="store_true", help="show that page (default: the program's name, .html)")
    add(
        "--until",
        metavar="CONDITION",
        help="begin where it first holds: a name (x_hat, d x_hat), isnan, isinf, nonfinite, "
        "max > 100 (or min, abs, mean, std), x_hat: max > 3, or several joined by and, or",
    )


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
