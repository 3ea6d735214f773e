"""Conditions for stopping at a step.

- ``x_hat``: the step computes x_hat; ``d x_hat``: the gradient of x_hat is complete there
- ``isnan``, ``isinf``, ``nonfinite``: an entry of the step's result is that
- ``max > 100``: a comparison of its ``max``, ``min``, ``mean``, ``std`` or ``abs`` (the largest
  magnitude) with a number, by < <= > >= == or !=
- ``x_hat: max > 3``: a name and a test
- ``isnan or x_hat: abs > 10``: several, joined by ``and``, ``or``; ``and`` binds tighter
"""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ShapeError
from ...kernels import Array

if TYPE_CHECKING:
    from .event import Step
    from .walk import Walk

Condition = Callable[["Step"], bool]

FLAGS: dict[str, Callable[[Array], Array]] = {
    "isnan": np.isnan,
    "isinf": np.isinf,
    "nonfinite": lambda x: ~np.isfinite(x),
}
QUANTITIES: dict[str, Callable[[Array], Array]] = {
    "max": np.max,
    "min": np.min,
    "abs": lambda x: np.max(np.abs(x)),
    "mean": np.mean,
    "std": np.std,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
COMPARISON = re.compile(rf"(\w+)\s*({'|'.join(COMPARISONS)})\s*(\S+)")
SHOWN = 8  # names that a message lists
POSSIBLE = (
    "a condition is a name (x_hat, d x_hat), isnan, isinf, nonfinite, a comparison (max > 100; "
    "also min, abs, mean, std), a name and a test (x_hat: max > 3), or several joined by and, or"
)


def condition(text: str, walk: Walk) -> Condition:
    """Read a condition; return the function that says of a step of ``walk`` whether it holds.

    A test is of the step's result, without regard to NaN (but for ``isnan`` and ``nonfinite``).
    Raises a ShapeError (a ValueError) that says what is possible, or what names there are.

    >>> import microbn as mb
    >>> x = mb.Tensor([3.0, 20.0], requires_grad=True, name="x")
    >>> walk = mb.steps((x**2).named("squared").sum())
    >>> [step.index for step in walk if condition("max > 100", walk)(step)]
    [1, 2]
    >>> [step.index for step in walk if condition("squared: max > 100 or d x", walk)(step)]
    [1, 5]
    """
    return _Reader(walk).condition(text.strip())


class _Reader:
    """Reads conditions on the steps of one walk."""

    def __init__(self, walk: Walk) -> None:
        self.nodes = walk.graph.nodes
        self.names: defaultdict[str, set[int]] = defaultdict(set)  # a formula may be there twice
        for index, name in walk.names.items():
            self.names[name].add(index)
        self.gradients = {f"d {name}": indexes for name, indexes in self.names.items()}
        self.gradients |= {f"d({name})": indexes for name, indexes in self.names.items()}

    def condition(self, text: str) -> Condition:
        if text in self.names or text in self.gradients:  # whatever words it is made of
            return self.named(text)
        choices = [
            [self.term(term) for term in re.split(r"\s+and\s+", choice)]
            for choice in re.split(r"\s+or\s+", text)
        ]
        return lambda step: any(all(term(step) for term in choice) for choice in choices)

    def term(self, text: str) -> Condition:
        """Read a name, a test, or a name and a test; names may have colons in them."""
        test = _test(text)
        if test or ":" not in text or text in self.names or text in self.gradients:
            return test or self.named(text)
        name, rest = (part.strip() for part in text.rsplit(":", 1))
        named, test = self.named(name), _test(rest)
        if test is None:
            raise ShapeError(f"{rest!r} is no test; {POSSIBLE}")
        return lambda step: named(step) and test(step)

    def named(self, text: str) -> Condition:
        """Whether a step computes what is so called, or completes its gradient."""
        if text in self.gradients and text not in self.names:
            indexes = self.gradients[text]
            return lambda step: step.final and _index(step) in indexes
        if text not in self.names:
            raise ShapeError(_unknown(text, self.names))
        indexes = self.names[text]
        if all(self.nodes[index].op is None for index in indexes):  # leaves are given
            return lambda step: step.kind == "start"
        return lambda step: step.kind == "forward" and _index(step) in indexes


def _index(step: Step) -> int | None:
    return step.node.index if step.node else None


def _test(text: str) -> Condition | None:
    """Read a test of the array that a step results in; None if ``text`` is none."""
    if flag := FLAGS.get(text):
        return lambda step: (x := _result(step)) is not None and bool(flag(x).any())
    found = COMPARISON.fullmatch(text)
    if not found or found[1] not in QUANTITIES:
        return None
    quantity, holds = QUANTITIES[found[1]], COMPARISONS[found[2]]
    try:
        bound = float(found[3])
    except ValueError:
        raise ShapeError(f"{found[3]!r} in {text!r} is no number") from None

    def test(step: Step) -> bool:
        result = _result(step)
        numbers = None if result is None else result[~np.isnan(result)]
        if numbers is None or not numbers.size:
            return False
        with np.errstate(all="ignore"):
            return bool(holds(float(quantity(numbers)), bound))

    return test


def _result(step: Step) -> Array | None:
    """Return what the step results in, as numbers; None if it results in none."""
    shown = step.result
    if shown is None or np.asarray(shown.value).dtype.kind not in "biuf":
        return None
    return np.asarray(shown.value, dtype=np.float64)


def _unknown(text: str, names: Iterable[str]) -> str:
    """Say that there is no such name, and what names there are, the closest first."""
    if not text:
        return POSSIBLE
    close = get_close_matches(text.removeprefix("d "), list(names), n=SHOWN, cutoff=0.5)
    known = list(dict.fromkeys([*close, *names]))
    more = f", ... ({len(known) - SHOWN} more)" if len(known) > SHOWN else ""
    listed = ", ".join(known[:SHOWN]) or "none"
    return f"nothing is called {text!r}; the names are: {listed}{more}; {POSSIBLE}"
