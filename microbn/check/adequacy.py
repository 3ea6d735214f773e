"""Would a check notice a fault? Every single one is tried, and what goes unnoticed is explained.

A mutant of a function computes the same values, and one rule of what it records is wrong. Why a
check lets it pass is measured, in float64: by what the fault changes in the gradients, with the
cotangents that the check used and with a random one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import partial
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np

from .. import engine
from ..apart import apart
from ..errors import ShapeError
from ..kernels import Array
from ..tensor import Tensor
from .mutants import SEED, Call, Function, Place, Seen, first_call, note_cotangents, watched

Others = Sequence[tuple[int, Call]]  # calls, each with one input that is another

RESIDUE = 1e-3  # of what a random cotangent of the same size lets a fault change: next to nothing
NEVER = "no check can see it: with any cotangent, and other inputs too, the gradients stay right"
HERE = "no check can see it with these inputs: {}"
HIDDEN = (
    "the cotangent hides it: with the loss of this check, what flows along this edge cancels; use "
    "a random cotangent, (w * y).sum() with random w"
)
PASSED = (
    "the tolerance is too wide, or nothing is compared: a gradient changes, by the part of its "
    "largest entry that is named, and the check lets it pass"
)
UNASKED = "the check does not look: it takes no gradient with respect to {}"


class Row(NamedTuple):
    """A fault, and whether the check caught it; if not, why, and by how much a gradient changes."""

    fault: str
    caught: bool
    why: str = ""
    change: str = ""
    visible: bool = True


class Adequacy(NamedTuple):
    """What a check would notice; ``str`` says what it is blind to, and why."""

    rows: tuple[Row, ...]

    @property
    def caught(self) -> list[Row]:
        """The faults that the check caught."""
        return [row for row in self.rows if row.caught]

    @property
    def missed(self) -> list[Row]:
        """The faults that it let pass, among them those that no check can see."""
        return [row for row in self.rows if not row.caught]

    @property
    def score(self) -> float:
        """How much it caught of what can be caught, from 0 to 1; NaN if nothing can."""
        possible = sum(row.visible for row in self.rows)
        return len(self.caught) / possible if possible else float("nan")

    def __str__(self) -> str:
        possible = sum(row.visible for row in self.rows)
        lines = [f"{len(self.caught)} of {possible} faults would be caught."]
        spots: dict[str, dict[str, list[str]]] = {}
        for row in sorted(self.missed, key=lambda row: not row.visible):
            edge, _, text = row.fault.partition(": ")
            text += f" ({row.change})" * bool(row.change)
            spots.setdefault(row.why, {}).setdefault(edge, []).append(text)
        for why, edges in spots.items():
            lines.append(fill(f"{sum(map(len, edges.values()))} missed, {why}:", 100))
            for edge, texts in edges.items():
                text = f"{edge}: {', '.join(texts)}"
                lines.append(fill(text, 100, initial_indent="  ", subsequent_indent="    "))
        return "\n".join(lines)


@np.errstate(all="ignore")  # mutants may divide by zero
@apart()
def adequacy(
    check: Function, fn: Function, inputs: Sequence[Any], *, wrt: int | Sequence[int] | None = None
) -> Adequacy:
    """Say which faults in the backward pass of ``fn`` a check of it would notice, and which not.

    ``check(fn, *inputs)`` computes gradients of ``fn`` with microbn, and raises an AssertionError
    or returns False if it does not like them. It must pass as it is. It is run again for each
    single fault (see `faults`), with a mutant of ``fn`` and copies of the inputs. ``wrt`` are the
    inputs whose gradients it looks at, by default all that are floating. Calls with arrays, for
    finite differences, are left alone. Raises a ShapeError (a ValueError) if the check does not
    pass, or if ``fn`` does not record the same operations in each call, or none. What else the
    check raises goes through.

    >>> import microbn as mb
    >>> def check(fn, x):
    ...     x = mb.Tensor(x, requires_grad=True)
    ...     assert np.allclose(mb.grad(fn(x).sum(), x).data, 0, atol=1e-3)
    >>> print(adequacy(check, mb.batch_norm, [np.array([[1.0], [2.0], [4.0]])]))
    20 of 61 faults would be caught. ...
    """
    first = first_call(fn, inputs)
    only = [wrt] if isinstance(wrt, int) else wrt
    wanted = {*first.args} if only is None else {*only}
    places = [*first.places(wanted & first.args.keys())]
    if not wanted <= first.args.keys() or not places:
        raise ShapeError(
            f"adequacy: wrt={wrt}: there are no rules to break; the floating inputs are number "
            f"{[*first.args]}, and fn must compute something from them"
        )
    seen, rows = _without_fault(check, fn, inputs, first), []
    here, others = first.wide(), [*_elsewhere(fn, inputs, first)]
    for place in places:
        mutant = watched(fn, first, partial(Call.mutate, place=place))
        try:
            caught = _complaint(check, mutant, inputs, first) is not None
        except Exception as error:
            error.add_note(f"in adequacy, with a fault in fn: {place.fault}")
            raise
        row = Row(str(place.fault), True)
        rows.append(row if caught else _missed(place, wanted, here, others, seen))
    return Adequacy(tuple(rows))


def _without_fault(check: Function, fn: Function, inputs: Sequence[Any], first: Call) -> Seen:
    """Run the check as it is; return the cotangents that it uses."""
    seen: list[tuple[Call, Array]] = []
    ops: dict[Tensor, Any] = {}
    complaint = _complaint(
        check, watched(fn, first, partial(note_cotangents, seen, ops)), inputs, first
    )
    if complaint is not None:
        raise ShapeError(
            f"adequacy: the check does not pass without a fault: {complaint}; correct it, or fn, "
            "before asking what it would notice"
        )
    for output, op in ops.items():
        output.op = op
    return seen


def _complaint(check: Function, fn: Function, inputs: Sequence[Any], first: Call) -> str | None:
    """Run the check with copies of the inputs; where fn has parameters, leave their .grad as is."""
    leaves = [t for t in engine.toposort(first.output) if t.op is None]
    before = [t._grad for t in leaves]
    try:
        result = check(fn, *deepcopy([*inputs]))
    except AssertionError as error:
        return str(error) or "AssertionError"
    finally:
        for t, g in zip(leaves, before, strict=True):
            t._grad = g
    return "it returns False" if isinstance(result, bool | np.bool_) and not result else None


# Why a fault goes unnoticed ----------------------------------------------------------------------


def _missed(place: Place, wanted: set[int], here: Call, others: Others, seen: Seen) -> Row:
    """Measure why a fault went unnoticed."""
    fault, usual = str(place.fault), here.visible(place, wanted)
    if not usual:
        remedies = (_remedy(here.args[i]) for i, call in others if call.visible(place, wanted))
        return Row(fault, False, next(remedies, NEVER), visible=False)
    if not any(call.asked & usual.keys() for call, _ in seen):
        names = ", ".join(str(here.args[i].name) for i in usual)
        return Row(fault, False, UNASKED.format(names))
    parts = [0.0]
    for call, g in seen:
        for i, (right, change) in call.changes(place, g).items():
            least = RESIDUE * np.linalg.norm(g) * usual.get(i, np.inf)
            if i in call.asked and np.max(change, initial=0) > least:
                parts.append(float(np.max(change) / np.max(np.abs(right))))
    if not parts[1:]:
        return Row(fault, False, HIDDEN)
    return Row(fault, False, PASSED, f"by {max(parts):.1g}")


def _remedy(x: Tensor) -> str:
    value = f"{x.data.flat[0]:g} everywhere" if np.ptp(x.data) == 0 else "special"
    return HERE.format(f"{x.name} is {value}; give a random {x.name}")


def _elsewhere(fn: Function, inputs: Sequence[Any], first: Call) -> Iterator[tuple[int, Call]]:
    """Yield what fn records with one input multiplied at random, in the end with either sign."""
    rng = np.random.default_rng(SEED)
    for sign in (1, -1):
        for i, x in first.args.items():
            factor = rng.uniform(0.5, 1.5, x.shape) * rng.choice([1, sign], x.shape)
            moved = np.where(x.data == 0, factor, x.data * factor).astype(x.dtype)
            try:
                call = first_call(fn, [moved if k == i else a for k, a in enumerate(inputs)])
            except Exception:  # this is not where the caller wanted it to work
                continue
            if call.structure() == first.structure():
                yield i, call.wide()
