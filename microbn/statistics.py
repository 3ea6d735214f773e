"""Variance and standard deviation, composed as batch norm composes its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import errors, kernels
from .kernels import Axis


def var(x: Any, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    """Return the mean squared distance from the mean, over ``axis``.

    With ``ddof=1`` it is divided by one less than the count (the unbiased estimate).

    >>> var(np.array([6.0, 7.0, 8.0, 9.0])), var(np.array([6.0, 7.0, 8.0, 9.0]), ddof=1).round(3)
    (np.float64(1.25), np.float64(1.667))
    """
    squared = (x - np.mean(x, axis=axis, keepdims=True)) ** 2
    biased = np.mean(squared, axis=axis, keepdims=keepdims)
    n = kernels.count(x, axis)
    errors.check_ddof("var", x, ddof, n)
    return biased * (n / (n - ddof)) if ddof else biased


def std(x: Any, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    """Return the square root of `var`."""
    return np.sqrt(var(x, axis, ddof=ddof, keepdims=keepdims))
