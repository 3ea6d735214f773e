"""Diagnosing a wrong gradient: which of its terms are missing, doubled, or of the wrong sign.

A gradient is a sum over paths. A wrong one is compared with what it would be if one edge of the
graph counted differently, or one rule had the wrong operand; and it is written as a combination of
the paths' contributions, whose coefficients are all 1 if it is right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from textwrap import fill
from typing import Any

import numpy as np

from .. import engine
from ..apart import apart
from ..dispatch import plain
from ..errors import GradientError, OperandError, ShapeError, describe
from ..graph.paths import written
from ..graph.tracer import trace as traced
from ..kernels import Array
from ..tensor import Tensor
from . import explain
from .explain import Explanation
from .reference import Reference
from .terms import Term, Terms

LOST = 1000  # eps: what is off by less is no fault that could be named


@dataclass(frozen=True)
class PathCoefficient:
    """How a path counts: ``expected`` 1, ``found`` something else, which ``meaning`` puts in words.

    ``found`` is a number, or an array with one for each channel; None if it cannot be told.
    """

    name: str
    label: str
    found: Array | None
    meaning: str
    expected: float = 1.0


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a gradient, if anything.

    ``paths`` say how each path counts. ``residual`` is what no explanation accounts for, an array
    of the gradient's shape: all of the error if there is none. ``explanations`` are all that fit,
    the likeliest first. ``notes`` say what could not be told.
    """

    ok: bool
    what: str
    paths: tuple[PathCoefficient, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    residual: Array | None = None
    error: str = ""
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:
            return " ".join([f"{self.what} is right.", *self.notes])
        return "\n".join(fill(text, 96) for text in self.paragraphs())

    def paragraphs(self) -> Iterator[str]:
        """Yield what is wrong, sentence by sentence, each in one line."""
        yield f"{self.what} is wrong: {self.error}."
        for i, explanation in enumerate(self.explanations[:4]):
            yield f"As well possible: {explanation}" if i else str(explanation)
        if (more := len(self.explanations) - 4) > 0:
            yield f"{more} more explanation{'s fit' if more > 1 else ' fits'}."
        yield from self.notes


@apart()
def diagnose(
    fn: Callable[..., Any],
    inputs: Sequence[Any],
    gradient: Any,
    *,
    wrt: int | str = 0,
    grad_output: Any = None,
) -> Diagnosis:
    """Say whether ``gradient`` is that of ``fn`` at ``inputs``, and if not, what is wrong with it.

    ``fn`` is composed of what microbn records, and returns one Tensor; ``gradient`` is the
    hand-written one with respect to one input, ``wrt``, its position or its name. ``grad_output``
    is the cotangent that it starts from, which only a single number can do without. Take a random
    one: ones hide most faults. Raises an OperandError (a TypeError) for what cannot be
    differentiated, a ShapeError (a ValueError) for a ``grad_output`` of the wrong shape.

    >>> import numpy as np, microbn as mb
    >>> rng = np.random.default_rng(0)
    >>> x, dy = rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    >>> y, cache = mb.handwritten.forward(x, np.ones(3), np.zeros(3), 1e-5)
    >>> dx, _, _ = mb.handwritten.backward_closed(dy, cache)
    >>> print(diagnose(mb.batch_norm, [x], dx, grad_output=dy))
    d x is right.
    >>> print(diagnose(mb.batch_norm, [x], dx + cache.inv_std * dy.mean(0), grad_output=dy))
    d x is wrong: at [0, 2] it is -1.013, and should be -1.915.
    The path through mean is missing. Usual causes: mean taken for a constant; = in place of +=
    where gradients meet, at x. d x alone cannot tell which: give the staged gradients to compare.
    """
    output, leaves = recorded(fn, inputs)
    x = _input(leaves, wrt)
    if not hasattr(gradient, "shape") and not isinstance(gradient, float | int):
        raise OperandError(
            f"diagnose looks at one gradient, an array, not {describe(gradient)}: that of "
            f"{x.name}; wrt= says of which input it is"
        )
    return examined(Reference(output, _cotangent(output, grad_output)), x, gradient)


def examined(reference: Reference, x: Tensor, given: Any) -> Diagnosis:
    """Diagnose what came back as the gradient of an input, if anything did."""
    what, reached = f"d {x.name}", x in reference.gradients
    if given is None:
        return Diagnosis(not reached, what, error=f"None came back for {describe(x)}")
    found = np.asarray(plain(given))
    if found.shape != x.shape:  # which broadcasting might hide
        why = explain.of_shape(found.shape, x.shape)
        error = f"it has shape {found.shape}, and {x.name} has {tuple(x.shape)}"
        return Diagnosis(False, what, explanations=(why,), error=error)
    if not reached:
        return Diagnosis(not found.any(), what, error=f"nothing depends on {x.name}: it is 0")
    diagnosis = judged(Terms(reference, x), found.astype(x.dtype).astype(np.float64), what)
    if found.dtype == x.dtype:
        return diagnosis
    error = f"it is {found.dtype}, and {x.name} is {x.dtype}"
    if diagnosis.ok:
        why = explain.of_dtype(found.dtype, x.dtype)
        return Diagnosis(False, what, explanations=(why,), error=error)
    return replace(diagnosis, notes=(*diagnosis.notes, f"Besides, {error}."))


def judged(terms: Terms, found: Array, what: str) -> Diagnosis:
    """Diagnose a gradient of the right shape and dtype."""
    if not np.isfinite(terms.total).all():
        at = [*map(int, np.argwhere(~np.isfinite(terms.total))[0])]
        raise GradientError(
            f"{what} cannot be checked: the true gradient is not finite at {at}; give other inputs"
        )
    off = found - terms.total
    notes = tuple(_notes(terms))
    if (np.abs(off) <= terms.tolerance).all():
        paths = [_counted(term, np.array(1.0), "1") for term in terms.paths]
        return Diagnosis(True, what, tuple(paths), residual=np.zeros_like(off), notes=notes)
    if not np.isfinite(found).all():
        bad = np.argwhere(~np.isfinite(found))
        error = f"{len(bad)} of {found.size} entries are not finite, the first at "
        return Diagnosis(False, what, error=error + str([*map(int, bad[0])]))
    excess = np.where(np.abs(off) <= terms.tolerance, 0, np.abs(off))
    worst = np.unravel_index(np.argmax(excess), off.shape)
    error = f"at {[*map(int, worst)]} " * bool(off.ndim) + "it is {}, and should be {}"
    error = error.format(*_apart(found[worst], terms.total[worst]))
    lost = float(np.max(np.abs(off)) / max(np.max(terms.size), np.finfo(float).tiny))
    if lost <= LOST * terms.eps:
        text = (
            f"It differs by {lost:.1g} of the largest terms only: a formula that loses digits here."
        )
        return Diagnosis(False, what, (), (Explanation("rounding", text),), off, error, notes)
    explanations = explain.all_that_fit(terms, found)
    coefficients = explain.coefficients(terms, off, explanations)
    paths = [
        _counted(t, c, meaning) for t, (c, meaning) in zip(terms.paths, coefficients, strict=True)
    ]
    residual = explanations[0].residual if explanations else off
    notes = (*notes, *explain.remarks(terms, off, explanations))
    return Diagnosis(False, what, tuple(paths), tuple(explanations), residual, error, notes)


def _apart(found: float, wanted: float) -> tuple[str, str]:
    """Write two numbers with as many digits as tell them apart."""
    texts = ((f"{found:.{n}g}", f"{wanted:.{n}g}") for n in range(4, 18))
    return next((pair for pair in texts if pair[0] != pair[1]), (str(found), str(wanted)))


def _counted(term: Term, found: Array | None, meaning: str) -> PathCoefficient:
    return PathCoefficient(written(term.path), term.label, found, meaning)


def _notes(terms: Terms) -> Iterator[str]:
    if terms.is_rounding and terms.total.size:
        yield (
            "The true gradient is nothing but rounding here, so this proves little: give another "
            "grad_output."
        )


def recorded(fn: Callable[..., Any], inputs: Sequence[Any]) -> tuple[Tensor, list[Any]]:
    """Return the output of ``fn``, everything on the way named, and what it was called with.

    Floating inputs become leaves of their own, named as ``fn`` names its arguments.
    """
    __tracebackhide__ = True  # by pytest, which shows the function that fails
    if not callable(fn) or hasattr(inputs, "shape") or not isinstance(inputs, Sequence):
        raise OperandError(
            f"a function and a sequence of its inputs are needed, as in (forward, [x, w]), not "
            f"{describe(fn)} and {describe(inputs)}"
        )
    leaves = [_leaf(a, name) for a, name in zip(inputs, _names(fn, len(inputs)), strict=True)]
    if not any(isinstance(a, Tensor) for a in leaves):
        raise OperandError(
            f"nothing to differentiate by: the inputs are {', '.join(map(describe, inputs))}; "
            "give floating arrays, or Tensors"
        )
    trace = traced(fn, *leaves)
    if len(trace.outputs) != 1:
        found = ", ".join(map(describe, trace.outputs))
        raise ShapeError(f"{trace.name} returned {found}; a gradient is that of one output")
    output = trace.outputs[0]
    if not output.size:
        raise ShapeError(f"there is nothing to check: {trace.name} returned {describe(output)}")
    if output.requires_grad:
        for t in engine.toposort(output):
            if t.op is not None and t.name is None:
                t.name = trace.notes.names.get(id(t))
    return output, leaves


def _leaf(value: Any, name: str) -> Any:
    data = plain(value)
    floats = getattr(getattr(data, "dtype", None), "kind", "") == "f"
    return (
        Tensor(data, requires_grad=True, name=getattr(value, "name", None) or name)
        if floats
        else data
    )


def _names(fn: Callable[..., Any], n: int) -> list[str]:
    """Return the names of the first arguments of ``fn``."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some functions written in C do not say
        parameters = ()  # type: ignore[assignment]
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return (names + [f"input {i}" for i in range(len(names), n)])[:n]


def _input(leaves: Sequence[Any], wrt: int | str) -> Tensor:
    """Return the input that is meant."""
    names = [getattr(a, "name", None) for a in leaves]
    if isinstance(wrt, str):
        if wrt not in names:
            known = ", ".join(filter(None, names))
            raise ShapeError(f"wrt={wrt!r}: the inputs that can be differentiated by are {known}")
        wrt = names.index(wrt)
    if not -len(leaves) <= wrt < len(leaves):
        raise ShapeError(f"wrt={wrt}: there are {len(leaves)} inputs, counted from 0")
    x = leaves[wrt]
    if not isinstance(x, Tensor):
        raise OperandError(f"wrt={wrt} is {describe(x)}, which nothing is differentiated by")
    return x


def _cotangent(output: Tensor, grad_output: Any) -> Any:
    if grad_output is None:
        if output.size != 1:
            raise ShapeError(
                f"the output, {describe(output)}, is not a single number: give the grad_output "
                "that the gradient was computed with"
            )
        return np.ones(output.shape)
    return grad_output
