"""What goes wrong, in words: each message names the operation, its operands and the remedy."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


class OfCall:
    """An error of a call: ``operands`` are what it was given, as far as that is known."""

    operands: tuple[Any, ...] = ()


class ShapeError(OfCall, ValueError):
    """A shape, an axis, an eps or another value that an operation cannot work with."""


class OperandError(OfCall, TypeError):
    """An operand, a dtype or an option of a kind that microbn does not differentiate."""


class IndexingError(OfCall, IndexError):
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
    "einsum": "each operand needs as many letters as axes, and a letter the same length "
    "everywhere, or 1",
    "pad": "widths are integers from 0: one, a pair (before, after), or a pair for each axis",
    "windows": "windows must fit into the last two axes: give pairs such as size=(3, 3), "
    "stride=(2, 2), a smaller size, or np.pad first",
    "fold": "shape must be that of the images from which the windows were cut",
}


def describe(operand: Any) -> str:
    """Say what an operand is: its name if it has one, its shape and dtype, or its Python value.

    >>> import numpy as np
    >>> describe(np.zeros((2, 3))), describe(1e-5), describe("a")
    ('array (2, 3) float64', '1e-05', "'a' (str)")
    """
    if hasattr(operand, "shape") and hasattr(operand, "dtype") and not isinstance(operand, type):
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
    kind: type[ShapeError | OperandError | IndexingError] = ShapeError
    if op == "matmul" and any(_is_number(a) for a in args):
        remedy = "each operand of @ needs an axis; single numbers are multiplied by *"
    elif isinstance(error, TypeError):
        kind = OperandError
        remedy = "operands are Tensors, real arrays (bool, int, float) and Python numbers"
    elif isinstance(error, IndexError) and not isinstance(error, ValueError):
        kind, remedy = IndexingError, REMEDIES["index"]
    else:
        remedy = REMEDIES.get(op) or _remedy(said)
    explained = kind(f"{op}({given}{options}): {said}; {remedy}")
    explained.operands = tuple(args)
    return explained


def _is_number(operand: Any) -> bool:
    return isinstance(operand, bool | int | float) or getattr(operand, "shape", None) == ()


def _remedy(said: str) -> str:
    if "axis" in said or "axes" in said:
        return "each axis must lie in [-ndim, ndim) and appear once"
    if "negative integer powers" in said:
        return "make the base floating: .astype(float)"
    return "aligned from the right, each pair of sizes must be equal, or one of them 1"


# What a Tensor refuses ---------------------------------------------------------------------------

REFUSED: dict[str, tuple[type[Exception], str]] = {
    "array": (
        OperandError,
        "requires grad, and an array cannot: turning it into one would cut it off from the graph; "
        "use .numpy() or .detach() if that is meant, np.stack to put Tensors together",
    ),
    "assignment": (
        OperandError,
        "cannot be changed in place, since the backward pass needs the old values; build a new "
        "tensor, for instance with np.where(mask, value, t)",
    ),
    "in place": (
        GradientError,
        "is a leaf, and in mb.no_grad() this would make another Tensor and leave the leaf as it "
        "is; write p.data -= ...",
    ),
    "integers": (OperandError, "holds no floats, so it cannot require grad; use .astype(float)"),
    "item": (ShapeError, "has more or fewer than one entry, so it has no item(); index it first"),
    "length": (OperandError, "has no axes, and so neither length nor entries to go through"),
    "new data": (
        GradientError,
        "is a result: only a leaf can be given new data; .detach() makes a leaf of it",
    ),
    "requires_grad": (
        GradientError,
        "is a result: whether it requires grad follows from its inputs; .detach() makes a leaf "
        "of it that does not",
    ),
    "truth": (ShapeError, "has no single truth value; use .data.any() or .data.all()"),
    "ufunc method": (
        OperandError,
        "on a Tensor has no derivative rule; use np.sum, np.max or another function of its own",
    ),
}


def refused(subject: Any, what: str) -> Exception:
    """Say what cannot be done with ``subject``, why, and what can be done instead."""
    kind, why = REFUSED[what]
    name = subject if isinstance(subject, str) else describe(subject)
    made = getattr(subject, "op", None)
    return kind(f"{name}{f', made by {made.name},' if made else ''} {why}")


SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def check_returns(function: Any) -> None:
    """Refuse to decorate with a context what goes on after the call to it has returned."""
    code = getattr(function, "__code__", None)
    if code and code.co_flags & SUSPENDS:
        raise OperandError(
            f"{function.__name__} runs after the call to it has returned, outside this context; "
            "write `with` inside it, around code that does not yield or await"
        )


# What the engine refuses --------------------------------------------------------------------------


def check_differentiable(tensor: Any, kind: type, role: str) -> None:
    """Refuse what is no Tensor, or requires no gradient."""
    if not isinstance(tensor, kind):
        raise OperandError(f"{role} of a derivative must be a Tensor, not {describe(tensor)}")
    if not tensor._requires_grad:  # type: ignore[attr-defined]
        raise GradientError(
            f"{describe(tensor)} requires no gradient: there is nothing to differentiate. Make "
            "a leaf with requires_grad=True, and compute outside mb.no_grad()"
        )


def no_direction(output: Any) -> GradientError:
    """Say that a cotangent is needed."""
    return GradientError(
        f"{describe(output)} is not a single number, so its gradient needs a direction: pass an "
        "array of its shape, or reduce it first, with .sum() or .mean()"
    )


def bad_rule(op: str, position: int, x: Any, g: Any) -> Exception:
    """Say that a vjp returned what cannot be the cotangent of its argument."""
    kind = ShapeError if hasattr(g, "shape") else OperandError
    return kind(
        f"the vjp of {op} for argument {position} returned {describe(g)}, which is no cotangent "
        f"of {describe(x)}: return an array of its shape, or of the shape it broadcasts to "
        "(where nothing flows, give None in place of the rule)"
    )


def changed(x: Any, op: str) -> GradientError:
    """Say that a value that a backward pass needs is gone."""
    return GradientError(
        f"{describe(x)} was given new data after {op} had used it; run the forward pass again "
        "before this backward pass"
    )


# What functions check before they start --------------------------------------------------------


def check_axis(op: str, x: Any, axis: Any) -> int | tuple[int, ...]:
    """Return the axes to reduce, counted from the front; a tuple of one is that axis."""
    if x.dtype.kind not in "biuf":
        raise OperandError(f"{op}({describe(x)}): x must be real: booleans, integers or floats")
    if x.size == 0:
        raise ShapeError(f"{op}({describe(x)}): x is empty; there is nothing to average or compare")
    if type(axis) is int and 0 <= axis < x.ndim:
        return axis
    given = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(a, int | np.integer) for a in given):
        raise OperandError(f"{op}({describe(x)}): axis={axis!r} must be an int or a tuple of ints")
    axes = tuple(sorted(int(a) % x.ndim if -x.ndim <= a < x.ndim else -1 for a in given))
    if not axes or -1 in axes or len(set(axes)) < len(axes):
        raise ShapeError(
            f"{op}({describe(x)}): axis={axis!r} must name one or more of its {x.ndim} axes; each "
            f"axis must lie in [{-x.ndim}, {x.ndim}) and appear once"
        )
    return axes if len(axes) > 1 else axes[0]


def check_eps(op: str, eps: Any) -> float:
    """Return ``eps`` as a Python number, so that float32 stays float32."""
    if isinstance(eps, bool) or not isinstance(eps, int | float | np.integer | np.floating):
        raise OperandError(f"{op}: eps={eps!r} must be a number, such as 1e-5")
    if not 0 <= eps < math.inf:
        raise ShapeError(f"{op}: eps={eps!r} must be 0 or a positive number, such as 1e-5")
    return float(eps)


def check_weights(op: str, x: Any, **weights: Any) -> None:
    """Refuse weights that do not broadcast against ``x`` as they are."""
    for name, weight in weights.items():
        if weight is None:
            continue
        shape = weight.shape if hasattr(weight, "shape") else np.shape(weight)
        if shape == x.shape[x.ndim - len(shape) :]:
            continue
        try:
            fits = np.broadcast_shapes(x.shape, shape) == x.shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(
                f"{op}({describe(x)}): {name} has shape {shape}, which does not broadcast "
                "against x; it holds one number per feature, in the place of that axis (for "
                "images (n, c, h, w), reshape it to (c, 1, 1))"
            )


def check_classes(logits: Any, targets: Any) -> Any:
    """Return ``targets`` as an array of class numbers, one for each row of ``logits``."""
    classes = np.asarray(targets)
    kind: type[Exception] = ShapeError
    if classes.dtype.kind not in "iu":
        kind, why = OperandError, "targets are class numbers, integers; use .astype(int)"
    elif logits.ndim != 2 or classes.shape != logits.shape[:1] or not classes.size:
        why = "logits have shape (n, classes) and targets (n,), with n at least 1"
    elif classes.min() < 0 or classes.max() >= logits.shape[1]:
        why = f"targets must lie in 0 to {logits.shape[1] - 1}"
    else:
        return classes
    raise kind(f"cross_entropy({describe(logits)}, targets {classes.shape} {classes.dtype}): {why}")


def check_ddof(op: str, x: Any, ddof: int, n: int) -> None:
    """Refuse to divide a sum of ``n`` squares by zero or less."""
    if not 0 <= ddof < n:
        raise ShapeError(f"{op}({describe(x)}): ddof={ddof!r} must be less than the count, {n}")


def check_same_shape(op: str, x: Any, y: Any) -> None:
    """Refuse what broadcasting would stretch unasked."""
    if np.shape(x) != np.shape(y):
        raise ShapeError(
            f"{op}({describe(x)}, {describe(y)}): the shapes must be equal, or broadcasting would "
            "compare every pair"
        )
