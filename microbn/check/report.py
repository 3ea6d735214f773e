"""What `microbn check` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from textwrap import fill, indent
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..program import Imported, ProgramError, imported, own_traceback
from .marked import Gradient, Outcome, RaisedError, checked, marked_in, marks

ABOUT = """\
Check backward passes that are written by hand. FILE.py is imported, and each
function in it that is marked is compared with what it is the backward pass of:

  import numpy as np
  import microbn as mb

  def forward(x, gamma, beta):
      return mb.batch_norm(x, gamma, beta)

  rng = np.random.default_rng(0)

  @mb.check.backward_of(
      forward, rng.normal(size=(8, 3)), rng.normal(size=3), rng.normal(size=3)
  )
  def backward(dy, x, gamma, beta):
      ...
      return dx, dgamma, dbeta

The forward function is composed of what microbn records. The backward one gets
arrays: a random dy, and the inputs that the mark gives. It returns one gradient
for each, None for what is not floating. In place of the inputs, the mark may
have a function that draws them: inputs=lambda rng: (rng.normal(size=(8, 3)),).
With kind="batch_norm", layer_norm, rms_norm, group_norm or
softmax_cross_entropy, the laws that every such backward pass obeys are checked
as well; axis=, eps= and groups= belong to them.

For each gradient there is a verdict, its relative error (the worst entry's, over
the largest entry), and, if it is wrong, what is wrong with it. It must also be
linear in dy, be the same when called again, and leave its arguments alone."""

EXAMPLES = """\
examples:
  microbn check grads.py
  microbn check grads.py:backward --seeds 10
  microbn check grads.py --quiet

The exit status is 0 if all are right, 1 if one is wrong or raises, 2 for wrong
use. What stands under if __name__ == "__main__" is not run."""

HOW = """\
put a mark above each backward pass:

  @mb.check.backward_of(forward, x, w)
  def backward(dy, x, w):
      return dx, dw

What forward, x and w are, microbn check --help shows."""

STYLE = {"right": "green", "proves nothing": "yellow"}
STYLE |= dict.fromkeys(("wrong", "raised", "not checked"), "bold red")
WIDEST = 100  # columns of text
MOST = 3  # null paths that are told of


def report(target: str, console: Console, seeds: Sequence[int], *, quiet: bool = False) -> bool:
    """Check what is marked in ``FILE.py`` or ``FILE.py:name``; print it; return if all is right.

    If ``quiet``, only what is not right is printed, and the count. Raises a ProgramError if the
    program cannot be imported, or if nothing is marked in it.
    """
    verdicts, told = list[str](), set[str]()
    with imported(target) as program:
        for name, function in _chosen(program).items():
            if name in program.twice:
                text = f"{name} is defined more than once: only the last one is checked."
                _say(console, [text], "yellow")
            for mark in marks(function):
                outcome = checked(name, function, mark, seeds)
                verdicts.append(outcome.verdict)
                if not quiet or outcome.verdict != "right":
                    _show(console, outcome, seeds, told)
    right, total = verdicts.count("right"), len(verdicts)
    console.print(f"{right} of {total} {'is' if total == 1 else 'are'} right.")
    return right == total


def _chosen(program: Imported) -> dict[str, Callable[..., Any]]:
    """Return the function that is asked for, or all that are marked."""
    found, file, name = marked_in(program.namespace), program.path.name, program.name
    if not found:
        raise ProgramError(f"no function in {file} is marked; {HOW}", 2)
    if not name:
        return found
    if marks(program.namespace.get(name)):
        return {name: program.namespace[name]}
    why = f"{name} in {file} is not marked"
    if name not in program.namespace:
        why = f"there is no function {name} in {file}"
    raise ProgramError(f"{why}; marked are: {', '.join(found)}", 2)


def _show(console: Console, outcome: Outcome, seeds: Sequence[int], told: set[str]) -> None:
    """Print what came out for one mark; of remarks, those that are not yet ``told``."""
    of = "" if outcome.composed == "<lambda>" else f" of {outcome.composed}"
    heading = Text.assemble((outcome.name, "bold"), f"{of}: ")
    heading.append(outcome.verdict, STYLE[outcome.verdict])
    if outcome.verdict != "right" and outcome.seed not in (None, seeds[0]):
        heading.append(f" (with --seed {outcome.seed}, not before)")
    console.print(heading)
    if outcome.raised:
        _show_raised(console, outcome.raised)
    if outcome.gradients:
        console.print(Padding.indent(_table(outcome.gradients), 1))  # as all text is
    for texts in filter(None, (*(g.texts for g in outcome.gradients), outcome.texts)):
        _say(console, texts)
    nulls = [text for text in _nulls(outcome) if text not in told]
    told |= {*nulls}
    if remarks := [*_remarks(outcome), *nulls]:
        _say(console, remarks, "dim")


def _show_raised(console: Console, raised: RaisedError) -> None:
    """Print the traceback of the user's own code; the message if there is none of that."""
    if lines := own_traceback(raised.error):
        console.print(indent(f"{raised.what} raised:\n\n{lines}\n", "  "), soft_wrap=True)
        return
    texts = [f"{raised.what}: {raised.error}".rstrip(".") + "."]
    if raised.backward and isinstance(raised.error, TypeError):
        texts.append("It is called with dy and the inputs that the mark gives.")
    _say(console, texts)


def _table(gradients: Sequence[Gradient]) -> Table:
    """Make a table of the gradients, narrow enough for 60 columns."""
    table = Table("gradient", "verdict", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("relative error", justify="right")
    for g in gradients:
        verdict = ("right" if g.proves else "proves nothing") if g.right else "wrong"
        error = "-" if np.isnan(g.error) else f"{g.error:.1e}" if g.error else "0"
        error = "not finite" if np.isinf(g.error) else error
        table.add_row(g.name, Text(verdict, STYLE[verdict]), error)
    return table


def _remarks(outcome: Outcome) -> Iterator[str]:
    """Yield what is good to know of a backward pass, and not wrong."""
    for g in outcome.gradients:
        if g.right and not g.proves:
            yield f"{g.name} should be 0 here, up to rounding: almost any formula gives that."
    if outcome.kind and outcome.verdict == "right":
        yield f"It obeys the laws of {outcome.kind}, too."


def _nulls(outcome: Outcome) -> Iterator[str]:
    """Yield the paths of the composed function that no term is missing for."""
    for null in outcome.nulls[:MOST]:
        yield (
            f"The path {null.text} contributes nothing at these inputs: a term for it is not "
            f"missing. Why: {null.reason}."
        )
    if (more := len(outcome.nulls) - MOST) > 0:
        yield f"{more} more path{'s contribute' if more > 1 else ' contributes'} nothing."


def _say(console: Console, texts: Sequence[str], style: str = "") -> None:
    """Print paragraphs, indented, and an empty line."""
    width = min(console.width, WIDEST)
    for text in texts:
        lines = fill(text, width, initial_indent="  ", subsequent_indent="  ")
        console.print(lines, style=style, soft_wrap=True)
    console.print()
