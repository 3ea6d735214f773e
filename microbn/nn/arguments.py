"""The arguments of layers: each is checked when the layer is made, in words that name it."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..errors import OperandError, ShapeError

Seed = np.random.Generator | int | None


def integer(layer: str, name: str, n: Any, least: int | None = 1) -> int:
    """Return ``n`` as an int; raise if it is not one, or below ``least``."""
    try:
        n = operator.index(n)
    except TypeError as error:
        raise OperandError(f"{layer}: {name}={n!r} must be an integer") from error
    if least is not None and n < least:
        raise ShapeError(f"{layer}: {name}={n!r} must be at least {least}")
    return int(n)


def pair(layer: str, name: str, n: Any, least: int = 1) -> tuple[int, int]:
    """Return ``n`` for height and width: an integer stands for both.

    >>> pair("Conv2d", "stride", 2), pair("Conv2d", "padding", (0, 1), least=0)
    ((2, 2), (0, 1))
    """
    both = n if isinstance(n, tuple | list) else (n, n)
    if len(both) != 2:
        raise ShapeError(f"{layer}: {name}={n!r} must be an integer or two, for height and width")
    return integer(layer, name, both[0], least), integer(layer, name, both[1], least)


def sizes(layer: str, name: str, shape: Any) -> tuple[int, ...]:
    """Return ``shape`` as a tuple of at least one length; an integer stands for itself alone."""
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not shape:
        raise ShapeError(f"{layer}: {name}=() must name at least one axis")
    return tuple(integer(layer, name, n) for n in shape)


def floating(layer: str, dtype: Any) -> np.dtype[Any]:
    """Return ``dtype`` as a NumPy dtype; raise if its numbers are no floats."""
    result: np.dtype[Any] = np.dtype(dtype)
    if result.kind != "f":
        raise OperandError(f"{layer}: parameters are floats, so dtype cannot be {result}")
    return result


def only(layer: str, why: str, **given: tuple[Any, Any]) -> None:
    """Refuse an argument of PyTorch's that has one value here: ``name=(given, the one value)``."""
    for name, (value, one) in given.items():
        if value != one:
            raise ShapeError(f"{layer}: {name}={value!r} is not available, only {one!r}: {why}")
