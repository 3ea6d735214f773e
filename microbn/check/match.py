"""One line in a test: a hand-written backward pass against the composed function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..apart import apart
from ..dispatch import like, plain
from ..errors import OperandError, describe
from ..graph.backward import SALT
from ..kernels import Array
from ..tensor import Tensor
from .diagnose import examined, recorded
from .reference import Reference


class GradientMismatch(AssertionError):
    """A hand-written backward pass is wrong; the message is the diagnosis."""


@apart()
def assert_gradients_match(
    composed: Callable[..., Any],
    hand_backward: Callable[..., Any],
    *inputs: Any,
    grad_output: Any = None,
    seed: int = 0,
) -> None:
    """Assert that ``hand_backward`` is the backward pass of ``composed`` at ``inputs``.

    ``composed`` computes one Tensor from ``inputs``, with what microbn records.
    ``hand_backward(dy, *inputs)`` gets arrays and returns a tuple with the gradient of each input:
    of its shape and dtype; None for one that is not floating. The cotangent ``dy`` is
    ``grad_output``, or random, 1 if the output is a single number. Gradients are compared within
    what rounding may do (`Reference`); besides, the pass must be linear in ``dy``, give the same
    when called again, and leave its arguments alone.

    Raises a GradientMismatch (an AssertionError) whose message says what is wrong with which
    gradient; a TypeError or ValueError for inputs that do not fit ``composed``.

    >>> import numpy as np, microbn as mb
    >>> def forward(x, w):
    ...     return np.tanh(x @ w)
    >>> def backward(dy, x, w):
    ...     dz = dy * (1 - np.tanh(x @ w) ** 2)
    ...     return dz @ w.T, x.T @ dz
    >>> rng = np.random.default_rng(0)
    >>> assert_gradients_match(forward, backward, rng.normal(size=(5, 3)), rng.normal(size=(3, 2)))
    """
    __tracebackhide__ = True
    if not callable(hand_backward):
        raise OperandError(
            "assert_gradients_match(composed, hand_backward, *inputs) needs a second function, "
            f"the backward pass, not {describe(hand_backward)}"
        )
    output, leaves = recorded(composed, inputs)
    arrays = [np.array(a.data) if isinstance(a, Tensor) else a for a in leaves]
    dy = cotangent_for(output, grad_output, seed)
    found = gradients_of(hand_backward, dy, arrays)
    reference = Reference(output, dy)
    of_calls = complaints_of_calls(hand_backward, dy, arrays, found, reference, leaves)
    wrong = list(filter(None, of_calls))
    swapped = _swapped(reference, leaves, found)
    wrong += filter(None, swapped.values())
    for x, g, text in zip(leaves, found, of_calls, strict=True):
        if not text and isinstance(x, Tensor) and x not in swapped:
            diagnosis = examined(reference, x, g)
            wrong += [str(diagnosis)] * (not diagnosis.ok)
    if wrong:
        name = getattr(hand_backward, "__name__", repr(hand_backward))
        raise GradientMismatch("\n\n".join([f"{name} is wrong.", *wrong]))


def cotangent_for(output: Tensor, grad_output: Any, seed: int) -> Array:
    """Return what the pass starts from: what is given, 1 for a single number, or random numbers."""
    if grad_output is not None:
        return np.asarray(like(output, plain(grad_output), True, "grad_output"))
    if output.size == 1:
        return np.ones(output.shape, output.dtype)
    rng = np.random.default_rng((seed, SALT))
    return rng.standard_normal(output.shape).astype(output.dtype)


def gradients_of(hand_backward: Callable[..., Any], dy: Array, arrays: Sequence[Any]) -> list[Any]:
    """Call it with copies; check how many gradients come back, and that the copies are the same."""
    __tracebackhide__ = True
    given = [np.array(a) if isinstance(a, np.ndarray) else a for a in (dy, *arrays)]
    found = hand_backward(*given)
    if found is None:
        raise GradientMismatch("the backward pass returned None; return the gradients, as a tuple")
    found = list(found) if isinstance(found, tuple | list) else [found]
    found = [a.copy() if isinstance(a, np.ndarray) else a for a in found]  # a buffer may be kept
    if len(found) != len(arrays):
        raise GradientMismatch(
            f"gradients came back: {len(found)}, and inputs there are {len(arrays)}; return a "
            "tuple with one for each, None for what is not floating"
        )
    names = ["dy", *(f"input {i}" for i in range(len(arrays)))]
    for name, a, before in zip(names, given, (dy, *arrays), strict=True):
        if isinstance(a, np.ndarray) and not np.array_equal(
            a, before, equal_nan=a.dtype.kind == "f"
        ):
            raise GradientMismatch(f"the backward pass wrote into {name}; work on a copy")
    return found


def _swapped(
    reference: Reference, leaves: Sequence[Any], found: Sequence[Any]
) -> dict[Tensor, str]:
    """Find gradients that came back in one another's place."""
    texts: dict[Tensor, str] = {}
    given = {
        x: np.asarray(g)
        for x, g in zip(leaves, found, strict=True)
        if isinstance(x, Tensor) and x in reference.gradients and g is not None
    }

    def fits(x: Tensor, g: Array) -> bool:
        off = g.shape == x.shape and np.abs(g - reference.gradients[x]) <= reference.tolerances[x]
        return bool(np.all(off))

    for a, b in combinations(given, 2):
        right = fits(a, given[a]) or fits(b, given[b])
        if not right and fits(a, given[b]) and fits(b, given[a]):
            texts[a] = f"d {a.name} and d {b.name} came back in each other's place."
            texts[b] = ""
    return texts


def complaints_of_calls(
    hand_backward: Callable[..., Any],
    dy: Array,
    arrays: Sequence[Any],
    found: Sequence[Any],
    reference: Reference,
    leaves: Sequence[Any],
) -> list[str]:
    """Call it again, with the same cotangent and with twice that, and say what does not fit."""
    __tracebackhide__ = True
    again = gradients_of(hand_backward, dy, arrays)
    twice = gradients_of(hand_backward, 2 * dy, arrays)
    wrong = []
    for x, first, second, double in zip(leaves, found, again, twice, strict=True):
        text = ""
        if isinstance(x, Tensor) and first is not None and np.shape(first) == x.shape:
            a, b, c = (np.asarray(g, np.float64) for g in (first, second, double))
            room = 4 * reference.tolerances.get(x, np.zeros(x.shape)) + 1e-6 * np.abs(a)
            if (np.abs(b - a) > room).any():
                how = "the sum of both" if (np.abs(b - 2 * a) <= room).all() else "something else"
                text = f"called again with the same arguments, it returns {how}. {FRESH}"
            elif (np.abs(c - 2 * a) > room).any():
                text = (
                    f"for twice the dy it is not twice as large: it is not linear in dy. {LINEAR}"
                )
        wrong.append(f"d {x.name} is wrong: {text}" if text else "")
    return wrong


FRESH = "Start every call from fresh zeros, not from a buffer that is kept."
LINEAR = "A term lacks dy, or has it twice, or is clipped."
