"""A gradient against finite differences: the check that trusts no rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..apart import apart
from ..context import recording
from ..errors import OperandError, ShapeError, describe
from ..graph.backward import SALT
from ..kernels import Array
from ..tensor import Tensor
from .differences import (
    Case,
    Estimate,
    Function,
    Point,
    points,
    random,
    returned,
    sizes,
    slope_error,
)
from .reasons import explain


@apart()
def gradcheck(
    fn: Function, *inputs: Any, order: int = 1, grad_output: Any = None, seed: int = 0
) -> None:
    """Assert that ``mb.grad`` gives the derivatives of ``fn(*inputs)``, up to ``order``.

    ``fn`` computes one Tensor from Tensors. Each floating array or Tensor among ``inputs`` is
    widened to float64, and differentiated by; all else is handed on as it is. The cotangent is
    random unless given. Along two random directions through each input the slope must be what
    central differences say, within the error that `slope_error` derives; inputs of another dtype
    must give the gradient that float64 gives, but for rounding (`check_precision`). At order 2
    all this is asked of the gradients, as functions of the cotangent and the inputs, and so on.

    Raises an AssertionError that names the input, its worst entry and the likely reason, found by
    experiment; also if ``fn`` changes its inputs, or gives another result when called again.
    Raises an OperandError (a TypeError) if there is nothing to differentiate, a ShapeError (a
    ValueError) for an order below 1.

    >>> import microbn as mb
    >>> x = np.array([[1.0, 4.0], [2.0, -1.0], [4.0, 0.5]])
    >>> gradcheck(mb.batch_norm, x, order=2)
    >>> gradcheck(lambda x: np.tanh(x) * x.data, x)
    Traceback (most recent call last):
    AssertionError: order 1, argument 0 (3, 2) float64: ...
    """
    names = {i: _label(i, a) for i, a in enumerate(inputs) if _is_floating(a)}
    if not names:
        given = ", ".join(map(describe, inputs)) or "nothing"
        raise OperandError(
            f"gradcheck needs a floating array to differentiate by, and was given {given}; use "
            ".astype(float), or np.array(0.5) for a number"
        )
    if not isinstance(order, int) or order < 1:
        raise ShapeError(f"gradcheck: order={order!r} must be 1 or more, an int")
    values = [a.data if i in names and isinstance(a, Tensor) else a for i, a in enumerate(inputs)]
    arrays = {name: np.array(values[i]) for i, name in names.items()}

    def by_floating(*xs: Any) -> Any:
        return fn(*(dict(enumerate(values)) | dict(zip(names, xs, strict=True))).values())

    with recording(True), np.errstate(all="ignore"):
        _check_purity(fn, values, names)
        rng = np.random.default_rng((seed, SALT))
        for n, point in points(Case(by_floating, arrays), order, rng, grad_output):
            _check(f"order {n}, {point.case.path}", point, rng)


def _label(i: int, a: Any) -> str:
    return f"argument {i}" + (f" '{a.name}'" if getattr(a, "name", None) else "")


def _is_floating(a: Any) -> bool:
    return isinstance(a, np.ndarray | np.generic | Tensor) and a.dtype.kind == "f"


def _check_purity(fn: Function, values: Sequence[Any], floating: Any) -> None:
    """Refuse a function that changes its inputs, or that is not one: two calls differ."""
    results = []
    for _ in range(2):
        copies = [np.array(a) if isinstance(a, np.ndarray | np.generic) else a for a in values]
        given = [
            Tensor(a, requires_grad=True) if i in floating else a for i, a in enumerate(copies)
        ]
        results.append(returned(fn(*given)).data)
        for i, (a, before) in enumerate(zip(given, values, strict=True)):
            after = a.data if isinstance(a, Tensor) else a
            if isinstance(before, np.ndarray) and not np.array_equal(after, before, equal_nan=True):
                raise AssertionError(
                    f"fn changes argument {i} {before.shape} {before.dtype}, which its backward "
                    "pass may need as it was: compute a new array instead"
                )
    first, second = results
    # Rounding may depend on where an array lies in memory; nothing else may differ.
    tolerance = 1e3 * np.finfo(first.dtype).eps * np.max(np.abs(first), initial=0)
    if first.shape != second.shape or np.max(np.abs(first - second), initial=0) > tolerance:
        raise AssertionError(
            "fn is not deterministic: two calls with the same inputs differ, so differences say "
            "nothing; draw random numbers (a dropout mask) before, and hand them in"
        )


# The check ---------------------------------------------------------------------------------------


def _check(where: str, point: Point, rng: np.random.Generator) -> None:
    if not np.isfinite(point.out.data).all():
        raise AssertionError(
            f"{where}fn gives {_first_odd(point.out.data)} of its result "
            f"{describe(point.out)}: move the inputs to where it is finite"
        )
    for i, (label, a) in enumerate(point.case.args.items()):
        what = f"{where}{label} {a.shape} {a.dtype}"
        if not np.isfinite(point.gradients[i]).all():
            raise AssertionError(
                f"{what}: the gradient is not finite where fn is: {_first_odd(point.gradients[i])}"
            )
        if wrong := mismatch(point, i, rng, directions=2):
            raise AssertionError(f"{what}: {explain(point, i, wrong)}")
    check_precision(where, point, rng)


def _first_odd(x: Array) -> str:
    index = tuple(map(int, np.argwhere(~np.isfinite(x))[0]))
    return f"{x[index]} at index {index}"


def mismatch(point: Point, i: int, rng: np.random.Generator, directions: int) -> Estimate | None:
    """Return what contradicts gradient ``i``, along random directions, if anything does.

    The gradient has rounding errors of its own, which only matter if all else agrees.
    """
    size = sizes(point.args[i])
    for _ in range(directions):
        v = size * random(rng, size.shape)
        found = slope_error(point, i, v)
        if found.is_wrong and not found.kink and found.error < np.inf:
            found = found._replace(error=found.error + point.eps * point.blur(i, v))
        if found.is_wrong:
            return found
    return None


def _near(point: Point, rng: np.random.Generator) -> Iterator[Point]:
    """Evaluate where the arguments differ in the last digit, so that all rounding differs."""
    for _ in range(4):
        moved = (1 + np.finfo(a.dtype).eps * random(rng, a.shape) for a in point.args)
        yield point.elsewhere(
            [(a * m).astype(a.dtype) for a, m in zip(point.args, moved, strict=True)]
        )


def check_precision(where: str, point: Point, rng: np.random.Generator) -> None:
    """Assert that gradients in the dtypes given are what float64 gives, but for rounding.

    What rounding explains is the bound of `Point.blur`, and ten times what gradients change by
    where the arguments differ in their last digit, which tells of the inside of operations (as
    Monte Carlo arithmetic does: Parker 1997, UCLA CSD-970002).
    """
    given = point.given
    if given is point:
        return
    moved: list[list[Array]] = []
    for i, (label, a) in enumerate(point.case.args.items()):
        exact, result = point.gradients[i], given.gradients[i]
        what = f"{where}{label} {a.shape} {a.dtype}: computed in {given.out.dtype}, the gradient"
        if not np.isfinite(result).all():
            raise AssertionError(f"{what} is {_first_odd(result)}; in float64 it is finite")
        tiny = float(np.finfo(a.dtype).tiny)
        if (np.abs(result - exact) <= 10 * given.eps * np.abs(exact) + tiny).all():
            continue
        size = sizes(point.args[i])
        error, least = np.abs(result - exact) * size, tiny * np.sum(size)
        total = np.sum(error)
        moved = moved or [p.gradients for p in _near(given, rng)]
        scatter = max(np.sum(np.abs(m[i] - result) * size) for m in moved)
        rounding = 10 * scatter + given.eps * point.blur(i, size * np.sign(result - exact))
        if not total <= rounding + least:
            k = np.unravel_index(np.argmax(error), a.shape)
            explained = rounding / total
            raise AssertionError(
                f"{what} at index {tuple(map(int, k))} is {result[k]:.9g}, in float64 "
                f"{exact[k]:.9g}, and rounding explains {explained:.2g} of the difference: does a "
                "rule depend on the dtype, or lose digits?"
            )
