"""Testing a rule against what it claims to be: the derivative of its function, to any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .check.differences import Case, Point, points
from .check.gradcheck import check_precision, mismatch
from .check.match import assert_gradients_match
from .engine import grad
from .errors import OperandError, describe
from .kernels import Array
from .tensor import Tensor

Function = Callable[..., Tensor]

__all__ = ["assert_gradients_match", "check_op"]


def check_op(op_or_fn: Function, *args: Any, order: int = 2, seed: int = 0, **params: Any) -> None:
    """Assert that the derivatives of ``op_or_fn(*args, **params)`` are right, up to ``order``.

    It is an Op, a NumPy function that has a rule, or anything that computes a Tensor from
    Tensors. It is differentiated with respect to each floating array among ``args``; all else is
    handed on as it is. For a random cotangent, the gradient along a random direction must be what
    central differences in float64 say. Besides, gradients must be finite, have the shape and
    dtype of their argument, share no memory, and come out alike from arrays and from Tensors
    (``create_graph=True``). At order 2 all this is asked of the gradients, as functions of the
    cotangent and the arguments, and so on. Raises an AssertionError that says what is wrong and
    where, an OperandError (a TypeError) if nothing can be differentiated.

    >>> x = np.array([1.0, -2.0, 3.0])
    >>> check_op(np.multiply, x, np.array([[2.0], [5.0]]))

    A wrong rule is caught. This one remembers a number instead of computing it, and is right until
    somebody differentiates it:

    >>> from microbn.ops import Op
    >>> def cube(x):
    ...     cube.slope = 3 * x**2
    ...     return x**3
    >>> check_op(Op("cube", cube, lambda g, out, x: g * cube.slope), x)
    Traceback (most recent call last):
    AssertionError: cube, order 2, argument 0 and then argument 0 (3,) float64: the rule gives 0.0,
    central differences ..., relative error 1
    """
    floating = [i for i, a in enumerate(args) if _is_floating(a)]
    if not floating:
        raise OperandError(f"check_op needs a floating array, not {', '.join(map(describe, args))}")
    name = getattr(op_or_fn, "name", None) or getattr(op_or_fn, "__name__", repr(op_or_fn))

    def fn(*xs: Any) -> Tensor:
        values = dict(enumerate(args)) | dict(zip(floating, xs, strict=True))
        return op_or_fn(*values.values(), **params)

    case = Case(fn, {f"argument {i}": np.asarray(args[i]) for i in floating})
    rng = np.random.default_rng(seed)
    for n, point in points(case, order, rng):
        _check(f"{name}, order {n}, {point.case.path}", point, rng)


def _check(where: str, point: Point, rng: np.random.Generator) -> None:
    """Check the gradient in each argument."""
    args, g = point.case.args, point.g
    results = point.given.gradients
    recorded = [t.data for t in grad(point.out, point.inputs, g, create_graph=True)]
    for i, (label, a) in enumerate(args.items()):
        what, result = f"{where}{label} {a.shape} {a.dtype}", results[i]
        if (result.shape, result.dtype) != (a.shape, a.dtype):
            raise AssertionError(f"{what}: the gradient is {describe(result)}")
        if not np.isfinite(result).all():
            raise AssertionError(f"{what}: the gradient is not finite: {result}")
        if any(
            np.shares_memory(result, b)
            for b in (*results[:i], *args.values(), g, point.given.out.data)
        ):
            raise AssertionError(f"{what}: the gradient shares memory with another array")
        if not _close(recorded[i], point.gradients[i]):
            raise AssertionError(f"{what}: Tensors give {recorded[i]}, arrays {point.gradients[i]}")
        if wrong := mismatch(point, i, rng, directions=1):
            rule, numeric = wrong.rule, wrong.rule + wrong.excess
            raise AssertionError(
                f"{what}: the rule gives {rule:.8}, central differences {numeric:.8}, "
                f"relative error {abs(rule - numeric) / max(abs(rule), abs(numeric)):.2g}"
            )
    check_precision(where, point, rng)


def _close(a: Array, b: Array) -> bool:
    return bool(np.max(np.abs(a - b), initial=0) <= 1e-12 * np.max(np.abs(b), initial=0))


def _is_floating(a: Any) -> bool:
    return isinstance(a, np.ndarray | np.generic) and a.dtype.kind == "f"
