"""What goes wrong, in words: each message names the operation, its operands and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["GradientError", "IndexingError", "OperandError", "ShapeError"]


class ShapeError(ValueError):
    """A shape, an axis, an eps or another value that an operation cannot work with."""


class OperandError(TypeError):
    """An operand, a dtype or an option of a kind that microbn does not differentiate."""


class IndexingError(IndexError):
    """An index outside its axis."""


class GradientError(RuntimeError):
    """A backward pass that has nothing to work on, or whose tensors have changed since."""


REMEDIES = {
    "matmul": "the last axis of the left operand must be as long as the last but one of the right "
    "(the only one of a 1-d operand); perhaps one needs .T",
    "reshape": "the sizes of the new shape must multiply to the number of elements; one may be -1",
    "index": "give integers, slices, None, ... or arrays of integers or booleans, within the shape",
    "concatenate": "all arrays need the same shape, except along the axis that joins them",
    "stack": "all arrays need the same shape; use np.concatenate along an existing axis instead",
    "squeeze": "only axes of length 1 can be removed",
}


def describe(operand: Any) -> str:
    """Say what an operand is: its name if it has one, its shape and dtype, or its Python value.

    >>> import numpy as np
    >>> describe(np.zeros((2, 3))), describe(1e-5), describe("a")
    ('array (2, 3) float64', '1e-05', "'a' (str)")
    """
    if hasattr(operand, "shape") and hasattr(operand, "dtype"):
        name = getattr(operand, "name", None) or type(operand).__name__.removeprefix("nd")
        return f"{name} {tuple(operand.shape)} {operand.dtype}"
    if isinstance(operand, bool | int | float):
        return repr(operand)
    text = repr(operand)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(operand).__name__})"


def explain(op: str, args: Sequence[Any], params: dict[str, Any], error: Exception) -> Exception:
    """Turn NumPy's complaint about a call into one that a beginner can act on."""
    given = ", ".join(describe(a) for a in args)
    options = "".join(f", {k}={v!r}" for k, v in params.items() if v is not None and k != "key")
    said = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "refused"
    if isinstance(error, TypeError):
        kind: type[Exception] = OperandError
        remedy = "operands are Tensors, real arrays (bool, int, float) and Python numbers"
    elif isinstance(error, IndexError) and not isinstance(error, ValueError):
        kind, remedy = IndexingError, REMEDIES["index"]
    else:
        kind = ShapeError
        remedy = REMEDIES.get(op) or _remedy(said)
    return kind(f"{op}({given}{options}): {said}; {remedy}")


def _remedy(said: str) -> str:
    if "axis" in said or "axes" in said:
        return "each axis must lie in [-ndim, ndim) and appear once"
    if "negative integer powers" in said:
        return "make the base floating: .astype(float)"
    return "aligned from the right, each pair of sizes must be equal, or one of them 1"
