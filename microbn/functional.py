"""Batch norm, its relatives, and losses, each composed of primitives.

Everything here is plain NumPy text: given Tensors it is recorded, given arrays it just computes.
No function has a backward pass of its own; each follows from the primitives it is made of.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import kernels, ops
from .context import named, scope, stop_gradient
from .errors import OperandError, ShapeError, describe
from .kernels import Array, Axis

relu = ops.relu


def batch_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    axis: int | tuple[int, ...] = 0,
    eps: float = 1e-5,
) -> Any:
    """Normalise ``x`` over ``axis`` to mean 0 and variance near 1; scale by gamma, shift by beta.

    ``mean``, ``centered = x - mean``, ``squared``, ``var`` (biased), ``var_eps = var + eps``,
    ``std``, ``inv_std = std ** -1``, ``x_hat = centered * inv_std``, ``scaled = x_hat * gamma``,
    ``y = scaled + beta``: each is an op with that name, in the scope ``batch_norm``. For a 2-d
    ``x`` and ``axis=0`` the statistics have shape (d,), otherwise they keep the reduced axes
    with length 1. gamma and beta must broadcast against ``x`` as given; left out, their op is
    absent. Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.

    Raises a ShapeError (a ValueError) for a wrong axis or eps and for a gamma or beta that does
    not broadcast, an OperandError (a TypeError) for an eps that is not a number.

    >>> y = batch_norm(np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]]), eps=0.0)
    >>> y.round(3)
    array([[-0.447, -0.447],
           [ 0.447,  0.447],
           [ 1.342,  1.342],
           [-1.342, -1.342]])
    """
    with scope("batch_norm"):
        return _normalise("batch_norm", x, gamma, beta, axis, eps)


def layer_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
) -> Any:
    """Normalise each example over its own features: `batch_norm` along other axes.

    Stages and errors as there, the scope is ``layer_norm``. Ba, Kiros & Hinton 2016,
    arXiv:1607.06450.

    >>> layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    with scope("layer_norm"):
        return _normalise("layer_norm", x, gamma, beta, axis, eps)


def _normalise(op: str, x: Any, gamma: Any, beta: Any, axis: Any, eps: Any) -> Any:
    x = _array(x)
    axis = _axes(op, x, axis)
    eps = _eps(op, eps)
    for name, weight in ("gamma", gamma), ("beta", beta):
        _check_weight(op, name, weight, x)
    keepdims = x.ndim != 2 or axis != 0

    mean = named(np.mean(x, axis=axis, keepdims=keepdims), "mean")
    centered = named(x - mean, "centered")
    squared = named(centered**2, "squared")
    var = named(np.mean(squared, axis=axis, keepdims=keepdims), "var")
    var_eps = named(var + eps, "var_eps")
    std = named(np.sqrt(var_eps), "std")
    inv_std = named(std**-1, "inv_std")
    y = named(centered * inv_std, "x_hat")
    if gamma is not None:
        y = named(y * gamma, "scaled")
    if beta is not None:
        y = named(y + beta, "y")
    return y


def _array(x: Any) -> Any:
    return x if hasattr(x, "ndim") else np.asarray(x)


def _axes(op: str, x: Any, axis: Any) -> int | tuple[int, ...]:
    """Count axes from the front; a tuple of one is that axis."""
    given = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(a, int | np.integer) for a in given):
        raise OperandError(f"{op}({describe(x)}): axis={axis!r} must be an int or a tuple of ints")
    axes = tuple(sorted(int(a) % x.ndim if -x.ndim <= a < x.ndim else -1 for a in given))
    if not axes or -1 in axes or len(set(axes)) < len(axes):
        raise ShapeError(
            f"{op}({describe(x)}): axis={axis!r} must name one or more of its {x.ndim} axes, each "
            "once"
        )
    return axes if len(axes) > 1 else axes[0]


def _eps(op: str, eps: Any) -> float:
    if isinstance(eps, bool) or not isinstance(eps, int | float | np.number):
        raise OperandError(f"{op}: eps={eps!r} must be a number, such as 1e-5")
    if not 0 <= eps < math.inf:
        raise ShapeError(f"{op}: eps={eps!r} must be 0 or a positive number, such as 1e-5")
    return float(eps)  # a Python number, so that float32 stays float32


def _check_weight(op: str, name: str, weight: Any, x: Any) -> None:
    if weight is None:
        return
    try:
        fits = np.broadcast_shapes(x.shape, _array(weight).shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"{op}({describe(x)}): {name} has shape {_array(weight).shape}, which does not "
            "broadcast against x; it holds one number per feature, in the place of that axis "
            "(reshape it, for instance to (c, 1, 1) for images)"
        )


def var(x: Any, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    """Return the mean squared distance from the mean, over ``axis``.

    With ``ddof=1`` it is divided by one less than the count (the unbiased estimate).

    >>> var(np.array([6.0, 7.0, 8.0, 9.0])), var(np.array([6.0, 7.0, 8.0, 9.0]), ddof=1).round(3)
    (np.float64(1.25), np.float64(1.667))
    """
    squared = (x - np.mean(x, axis=axis, keepdims=True)) ** 2
    biased = np.mean(squared, axis=axis, keepdims=keepdims)
    n = kernels.count(x, axis)
    if not 0 <= ddof < n:
        raise ShapeError(f"var({describe(x)}): ddof={ddof!r} must be less than the count, {n}")
    return biased * (n / (n - ddof)) if ddof else biased


def std(x: Any, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    """Return the square root of `var`."""
    return np.sqrt(var(x, axis, ddof=ddof, keepdims=keepdims))


def sigmoid(x: Any) -> Any:
    """Return ``1 / (1 + exp(-x))``, computed without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    positive = x >= 0
    z = np.exp(np.where(positive, -x, x))  # at most 1
    return np.where(positive, 1, z) / (1 + z)


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""
    return np.tanh(x)


def logsumexp(x: Any, axis: Axis = -1, keepdims: bool = False) -> Any:
    """Return ``log(sum(exp(x)))`` over ``axis``, computed without overflow.

    >>> logsumexp(np.array([1000.0, 1000.0]))
    np.float64(1000.6931471805599)
    """
    peak = stop_gradient(np.max(x, axis=axis, keepdims=True))
    peak = np.where(np.isfinite(peak), peak, 0)  # subtracting and adding it changes nothing
    total = np.log(np.sum(np.exp(x - peak), axis=axis, keepdims=True)) + peak
    return total if keepdims else np.squeeze(total, axis)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """Return the logarithm of `softmax`, computed without overflow."""
    with scope("log_softmax"):
        return x - logsumexp(x, axis, keepdims=True)


def softmax(x: Any, axis: int = -1) -> Any:
    """Return ``exp(x) / sum(exp(x))`` over ``axis``: positive, with sum 1.

    >>> softmax(np.array([0.0, np.log(3.0)])).round(2)
    array([0.25, 0.75])
    """
    with scope("softmax"):
        z = np.exp(x - stop_gradient(np.max(x, axis=axis, keepdims=True)))
        return z / np.sum(z, axis=axis, keepdims=True)


def cross_entropy(logits: Any, targets: Any) -> Any:
    """Return the mean over a batch of ``-log softmax(logits)`` at the target classes.

    ``logits`` has shape (n, classes); ``targets`` are n integers from 0 to classes - 1. Raises a
    ShapeError for shapes or classes that do not fit, an OperandError for targets that are not
    integers.

    >>> cross_entropy(np.array([[0.0, np.log(3.0)]]), np.array([1])).round(4)
    np.float64(0.2877)
    """
    classes = np.asarray(stop_gradient(targets))
    what = f"cross_entropy({describe(logits)}, targets {classes.shape} {classes.dtype})"
    if classes.dtype.kind not in "iu":
        raise OperandError(f"{what}: targets are class numbers, integers; use .astype(int)")
    if logits.ndim != 2 or classes.shape != logits.shape[:1] or not classes.size:
        raise ShapeError(f"{what}: logits have shape (n, classes) and targets (n,), n at least 1")
    if classes.min() < 0 or classes.max() >= logits.shape[1]:
        raise ShapeError(f"{what}: targets must lie in 0 to {logits.shape[1] - 1}")
    with scope("cross_entropy"):
        picked = log_softmax(logits)[np.arange(len(classes)), classes]
        return -np.mean(picked)


def mse(prediction: Any, target: Any) -> Any:
    """Return the mean squared difference; both have the same shape.

    >>> mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    np.float64(2.0)
    """
    if np.shape(prediction) != np.shape(target):
        raise ShapeError(
            f"mse({describe(prediction)}, {describe(target)}): the shapes must be equal, or "
            "broadcasting would compare every pair"
        )
    with scope("mse"):
        return np.mean((prediction - target) ** 2)


# NumPy functions that are composed rather than primitive, when they are called on Tensors.
COMPOSED = {
    np.var: var,
    np.std: std,
    np.square: lambda x: x**2,
    np.reciprocal: lambda x: 1 / x,
    np.positive: lambda x: x,
    np.dot: lambda x, y: x @ y,
}
