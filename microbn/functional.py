"""Batch norm, its relatives, and losses, each composed of primitives.

Everything here is plain NumPy code: given Tensors it is recorded, given arrays it just computes.
Nothing has a backward pass of its own: each follows from the primitives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import errors, kernels, ops
from .context import named, scope, value
from .kernels import Axis

relu = ops.relu
tanh = ops.tanh


def batch_norm(
    x: Any, gamma: Any = None, beta: Any = None, *, axis: Axis = 0, eps: float = 1e-5
) -> Any:
    """Normalise ``x`` over ``axis`` to mean 0 and variance near 1; scale by gamma, shift by beta.

    Each stage is an op with the name that it has below, in the scope ``batch_norm``; the variance
    is the biased one. For a 2-d ``x`` and ``axis=0`` the statistics have shape (d,), otherwise
    they keep the reduced axes with length 1. gamma and beta must broadcast against ``x`` as
    given; left out, their op is absent. Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.

    Raises a ShapeError (a ValueError) for a wrong axis or eps and for a gamma or beta that does
    not broadcast, an OperandError (a TypeError) for an eps that is not a number.

    >>> batch_norm(np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]])).T.round(2)
    array([[-0.45,  0.45,  1.34, -1.34],
           [-0.45,  0.45,  1.34, -1.34]])
    """
    with scope("batch_norm"):
        return normalise("batch_norm", x, gamma, beta, axis, eps)[0]


def layer_norm(
    x: Any, gamma: Any = None, beta: Any = None, *, axis: Axis = -1, eps: float = 1e-5
) -> Any:
    """Normalise each example over its own features: `batch_norm` along other axes.

    Stages and errors as there, the scope is ``layer_norm``. Ba, Kiros & Hinton 2016,
    arXiv:1607.06450.

    >>> layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    with scope("layer_norm"):
        return normalise("layer_norm", x, gamma, beta, axis, eps)[0]


def normalise(op: str, x: Any, gamma: Any, beta: Any, axis: Any, eps: Any) -> tuple[Any, Any, Any]:
    """Do the work of `batch_norm`; return the mean and the variance with the result."""
    x = kernels.floating(x)
    axis, eps = errors.check_axis(op, x, axis), errors.check_eps(op, eps)
    errors.check_weights(op, x, gamma=gamma, beta=beta)
    keepdims = x.ndim != 2 or axis != 0

    mean = named(x.mean(axis=axis, keepdims=keepdims), "mean")
    centered = named(x - mean, "centered")
    squared = named(centered**2, "squared")
    var = named(squared.mean(axis=axis, keepdims=keepdims), "var")
    var_eps = named(var + eps, "var_eps")
    std = named(np.sqrt(var_eps), "std")
    inv_std = named(std**-1, "inv_std")
    y = named(centered * inv_std, "x_hat")
    if gamma is not None:
        y = named(y * gamma, "scaled")
    if beta is not None:
        y = named(y + beta, "y")
    return y, mean, var


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


def sigmoid(x: Any) -> Any:
    """Return ``1 / (1 + exp(-x))``, computed without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    x = kernels.floating(x)
    positive = x >= 0
    z = np.exp(np.where(positive, -x, x))  # at most 1
    return np.where(positive, 1, z) / (1 + z)


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
