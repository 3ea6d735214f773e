"""Softmax and its logarithm, and the losses.

As everything that `functional` offers, it is plain NumPy code: given Tensors it is recorded, given
arrays it just computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import errors, kernels
from .context import scope, value
from .kernels import Axis


def logsumexp(x: Any, axis: Axis = -1, keepdims: bool = False) -> Any:
    """Return ``log(sum(exp(x)))`` over ``axis``, computed without overflow.

    >>> logsumexp(np.array([1000.0, 1000.0])).round(3)
    np.float64(1000.693)
    """
    shifted, peak = _shifted("logsumexp", x, axis)
    total = np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True)) + peak
    return total if keepdims else np.squeeze(total, axis)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """Return the logarithm of `softmax`, as precise as it is and without overflow."""
    with scope("log_softmax"):
        shifted, _ = _shifted("log_softmax", x, axis)
        return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def softmax(x: Any, axis: int = -1) -> Any:
    """Return ``exp(x) / sum(exp(x))`` over ``axis``: positive, with sum 1.

    >>> softmax(np.array([0.0, np.log(3.0)])).round(2)
    array([0.25, 0.75])
    """
    with scope("softmax"):
        z = np.exp(_shifted("softmax", x, axis)[0])
        return z / np.sum(z, axis=axis, keepdims=True)


def _shifted(op: str, x: Any, axis: Any) -> tuple[Any, Any]:
    """Return x less its largest entries, so that exp does not overflow, and these, as constants."""
    x = kernels.floating(x)
    axis = None if axis is None else errors.check_axis(op, x, axis)
    peak = np.max(value(x), axis=axis, keepdims=True)
    peak = np.where(np.isinf(peak), 0, peak)
    return x - peak, peak


def cross_entropy(logits: Any, targets: Any) -> Any:
    """Return the mean over a batch of ``-log softmax(logits)`` at the target classes.

    ``logits`` has shape (n, classes); ``targets`` are n integers from 0 to classes - 1. Raises a
    ShapeError for shapes or classes that do not fit, an OperandError for targets that are not
    integers.

    >>> cross_entropy(np.array([[0.0, np.log(3.0)]]), np.array([1])).round(4)
    np.float64(0.2877)
    """
    classes = errors.check_classes(logits, value(targets))
    with scope("cross_entropy"):
        picked = log_softmax(logits)[np.arange(len(classes)), classes]
        return -np.mean(picked)


def mse(prediction: Any, target: Any) -> Any:
    """Return the mean squared difference; both have the same shape.

    >>> mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    np.float64(2.0)
    """
    errors.check_same_shape("mse", prediction, target)
    with scope("mse"):
        return np.mean((kernels.floating(prediction) - kernels.floating(target)) ** 2)
