"""Batch norm and its relatives: one idea along other axes, composed of primitives.

A norm divides by the root of a mean square, less the mean before that; then gamma and beta set the
size and the place. They differ in what the mean goes over: batch norm the examples, layer norm the
features of each example, group norm some of them; RMS norm is a layer norm that keeps the mean.

Everything here and in the modules that it imports from is plain NumPy code: given Tensors it is
recorded, given arrays it just computes. Nothing has a backward pass of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import errors, kernels, ops
from .activations import dropout, gelu, relu, sigmoid, tanh
from .context import named, scope
from .convolution import avg_pool2d, conv2d, max_pool2d
from .kernels import Axis
from .losses import cross_entropy, log_softmax, logsumexp, mse, softmax
from .statistics import std, var

__all__ = [
    "avg_pool2d", "batch_norm", "conv2d", "cross_entropy", "dropout", "gelu", "group_norm",
    "layer_norm", "log_softmax", "logsumexp", "max_pool2d", "mse", "relu", "rms_norm", "sigmoid",
    "softmax", "std", "tanh", "var",
]  # fmt: skip


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


def group_norm(
    x: Any, num_groups: int, gamma: Any = None, beta: Any = None, *, eps: float = 1e-5
) -> Any:
    """Normalise each example (c, ...) of ``x`` over groups of its c channels, between reshapes.

    gamma and beta broadcast against ``x`` as given: for images, (c, 1, 1). The scope is
    ``group_norm``; a ShapeError, too, if c is no multiple of ``num_groups``. Wu & He 2018,
    arXiv:1803.08494.

    >>> group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0)
    array([[-1.,  1., -1.,  1.]])
    """
    x = kernels.floating(x)
    errors.check_weights("group_norm", x, gamma=gamma, beta=beta)
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise errors.ShapeError(
            f"group_norm({errors.describe(x)}): num_groups={num_groups!r} must divide the number "
            "of channels, the length of the second axis of (m, c, ...)"
        )
    with scope("group_norm"):
        groups = x.reshape(len(x), num_groups, -1)
        x_hat = normalise("group_norm", groups, None, None, -1, eps)[0]
        return scale_and_shift(x_hat.reshape(x.shape), gamma, beta)


def rms_norm(x: Any, gamma: Any = None, *, axis: Axis = -1, eps: float | None = None) -> Any:
    """Divide each example by the root mean square of its features: `layer_norm` less the mean.

    ``eps=None`` is that of the dtype. The scope is ``rms_norm``, in which ``mean_square`` and
    ``rms`` stand for var and std. Zhang & Sennrich 2019, arXiv:1910.07467, equation 4.

    >>> rms_norm(np.array([[1.0, 7.0]]))
    array([[0.2, 1.4]])
    """
    eps = np.finfo(kernels.floating(x).dtype).eps if eps is None else eps
    with scope("rms_norm"):
        return normalise("rms_norm", x, gamma, None, axis, eps, center=False)[0]


def normalise(
    op: str, x: Any, gamma: Any, beta: Any, axis: Any, eps: Any, center: bool = True
) -> tuple[Any, Any, Any]:
    """Do the work of every norm; return the mean and the variance with the result.

    Without ``center``, nothing is subtracted: the mean is 0, the variance the mean square.
    """
    x = kernels.floating(x)
    axis, eps = errors.check_axis(op, x, axis), errors.check_eps(op, eps)
    errors.check_weights(op, x, gamma=gamma, beta=beta)
    keepdims = x.ndim != 2 or axis != 0

    mean, centered, names = 0, x, ("mean_square", "mean_square_eps", "rms", "inv_rms")
    if center:
        mean = named(ops.mean(x, axis=axis, keepdims=keepdims), "mean")
        centered = named(x - mean, "centered")
        names = "var", "var_eps", "std", "inv_std"
    squared = named(centered**2, "squared")
    var = named(ops.mean(squared, axis=axis, keepdims=keepdims), names[0])
    var_eps = named(var + eps, names[1])
    std = named(np.sqrt(var_eps), names[2])
    inv_std = named(std**-1, names[3])
    return scale_and_shift(named(centered * inv_std, "x_hat"), gamma, beta), mean, var


def scale_and_shift(x_hat: Any, gamma: Any, beta: Any) -> Any:
    """Return ``x_hat * gamma + beta``, as every norm ends; None leaves that op out."""
    y = x_hat if gamma is None else named(x_hat * gamma, "scaled")
    return y if beta is None else named(y + beta, "y")
