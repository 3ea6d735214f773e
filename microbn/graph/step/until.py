"""Conditions for stopping at a step.

- ``x_hat``: the step computes x_hat; ``d x_hat``: the gradient of x_hat is complete there
- ``isnan``, ``isinf``, ``nonfinite``: an entry of what the step makes is that
- ``max > 100``: a comparison of its ``max``, ``min``, ``mean``, ``std`` or ``abs`` (the largest
  magnitude) with a number, by < <= > >= == or !=
- ``x_hat: max > 3``: a name and a test
- ``isnan or x_hat: abs > 10``: several, joined by ``and``, ``or``; ``and`` binds tighter
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ShapeError
from ...kernels import Array
from .naming import typed

if TYPE_CHECKING:
    from .event import Step
    from .walk import Walk

Condition = Callable[["Step"], bool]
Test = Callable[[Array], bool]

FLAGS: dict[str | None, Callable[[Array], bool]] = {
    "isnan": lambda x: bool(np.isnan(x).any()),
    "isinf": lambda x: bool(np.isinf(x).any()),
    "nonfinite": lambda x: not np.isfinite(x).all(),
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
        self.walk, self.nodes = walk, walk.graph.nodes
        self.names = {typed(name): index for index, name in walk.names.items()}
        self.names |= {name: index for index, name in walk.names.items()}
        self.gradients = {f"d {name}": index for name, index in self.names.items()}
        self.gradients |= {f"d({name})": index for name, index in self.names.items()}

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
        if test:
            return lambda step: any(test(x) for x in self.walk.made(step))
        if ":" not in text or text in self.names or text in self.gradients:
            return self.named(text)
        name, rest = (part.strip() for part in text.rsplit(":", 1))
        named, inner = self.named(name), _test(rest)
        if inner is None:
            raise ShapeError(f"{rest!r} is no test; {POSSIBLE}")
        leaf = self.leaf(name)
        return lambda step: (
            named(step)
            and any(inner(x) for x in ([leaf] if leaf is not None else self.walk.made(step)))
        )

    def leaf(self, name: str) -> Array | None:
        """Return the value of a leaf."""
        node = self.nodes[self.names[name]] if name in self.names else None
        return node.value if node is not None and node.op is None else None

    def named(self, text: str) -> Condition:
        """Whether a step computes what is so called, or completes its gradient."""
        index = self.names.get(text, self.gradients.get(text))
        if index is None:
            raise ShapeError(_unknown(text, self.walk.names.values()))
        if text not in self.names:
            return lambda step: step.final and _is_at(step, index)
        if self.nodes[index].op is None:  # a leaf is given
            return lambda step: step.kind == "start"
        return lambda step: step.kind == "forward" and _is_at(step, index)


def _is_at(step: Step, index: int) -> bool:
    return step.node is not None and step.node.index == index


def _test(text: str) -> Test | None:
    """Read a test of an array; None if ``text`` is none."""
    if flag := FLAGS.get(text):
        return lambda x: (numbers := _numbers(x)) is not None and flag(numbers)
    found = COMPARISON.fullmatch(text)
    if not found or found[1] not in QUANTITIES:
        return None
    quantity, holds = QUANTITIES[found[1]], COMPARISONS[found[2]]
    try:
        bound = float(found[3])
    except ValueError:
        raise ShapeError(f"{found[3]!r} in {text!r} is no number") from None

    def test(x: Array) -> bool:
        numbers = _numbers(x)
        numbers = None if numbers is None else numbers[~np.isnan(numbers)]
        if numbers is None or not numbers.size:
            return False
        with np.errstate(all="ignore"):
            return bool(holds(float(quantity(numbers)), bound))

    return test


def _numbers(x: Array) -> Array | None:
    """Return real numbers as float64; None for anything else."""
    array = np.asarray(x)
    return np.asarray(array, dtype=np.float64) if array.dtype.kind in "biuf" else None


def _unknown(text: str, names: Iterable[str]) -> str:
    """Say that there is no such name, and what names there are, the closest first."""
    if not text:
        return POSSIBLE
    close = get_close_matches(text.removeprefix("d "), list(names), n=SHOWN, cutoff=0.5)
    known = list(dict.fromkeys([*close, *names]))
    more = f", ... ({len(known) - SHOWN} more)" if len(known) > SHOWN else ""
    listed = ", ".join(known[:SHOWN]) or "none"
    return f"nothing is called {text!r}; the names are: {listed}{more}; {POSSIBLE}"
