"""Batch norm by hand: a forward pass, and its backward pass in the three forms people write it.

x is (m, d): m examples in rows, d features in columns. Statistics are taken down each column, and
the variance divides by m. `d<stage>` is the gradient of the loss with respect to `<stage>`.
It is all plain NumPy and knows nothing of the engine, so that each can check the other.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[Any]
Gradients: TypeAlias = tuple[Array, Array, Array]


class Cache(NamedTuple):
    """What the forward pass keeps for the backward pass."""

    gamma: Array  # (d,)
    beta: Array  # (d,), for its dtype: no gradient depends on its value
    centered: Array  # (m, d)
    var_eps: Array  # (d,)
    std: Array  # (d,)
    inv_std: Array  # (d,)
    x_hat: Array  # (m, d)


def forward(x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: float) -> tuple[Array, Cache]:
    """Normalize each column of x, scale it by gamma and shift it by beta: `(y, cache)`.

    x and y are (m, d), gamma and beta (d,). dtypes promote as in NumPy: float32 stays float32,
    integers become float64. Raises ValueError for any other shape, for m = 0, and for an eps that
    is negative or not finite. With eps = 0 a constant column divides by zero.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1.

    >>> y, cache = forward([[7, 70], [8, 80], [9, 90], [6, 60]], gamma=[1, 1], beta=[0, 5], eps=0)
    >>> y.round(3)
    array([[-0.447,  4.553],
           [ 0.447,  5.447],
           [ 1.342,  6.342],
           [-1.342,  3.658]])
    """
    x, eps = np.asarray(x), float(eps)
    gamma, beta = np.asarray(gamma) * 1.0, np.asarray(beta) * 1.0  # floating-point copies
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x must have shape (m, d) with m >= 1, not {x.shape}")
    if not gamma.shape == beta.shape == x.shape[1:]:
        shapes = f"{gamma.shape} and {beta.shape}"
        raise ValueError(f"gamma and beta must have shape (d,) = {x.shape[1:]}, not {shapes}")
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps must be finite and not negative, not {eps}")

    mean = x.mean(axis=0)
    centered = x - mean
    squared = centered**2
    var = squared.mean(axis=0)
    var_eps = var + eps
    std = np.sqrt(var_eps)
    inv_std = std**-1
    x_hat = centered * inv_std
    scaled = x_hat * gamma
    y = scaled + beta
    return y, Cache(gamma, beta, centered, var_eps, std, inv_std, x_hat)


def backward_staged(dy: ArrayLike, cache: Cache) -> Gradients:
    """Walk the graph of `forward` backwards, node by node: `(dx, dgamma, dbeta)`.

    dy and dx are (m, d), dgamma and dbeta (d,). A gradient has the dtype of its array. Raises
    ValueError if dy does not have the shape of y.
    Source: after the graph in Kratzert 2016, "Understanding the backward pass through Batch
    Normalization Layer".

    >>> y, cache = forward([[1], [1], [3], [3]], gamma=[2], beta=[0], eps=0)
    >>> dx, dgamma, dbeta = backward_staged([[1], [0], [0], [0]], cache)
    >>> dx.ravel(), dgamma, dbeta
    (array([ 1., -1.,  0.,  0.]), array([-1.]), array([1.]))
    """
    gamma, centered, std = cache.gamma, cache.centered, cache.std
    inv_std, x_hat = cache.inv_std, cache.x_hat
    dy = _check(dy, cache)
    m = len(dy)

    # Each line answers the forward line in its comment. What was broadcast to every row collects
    # from every row; what had two readers adds what both send back.
    dscaled = dy  # y = scaled + beta
    dbeta = dy.sum(axis=0)
    dx_hat = dscaled * gamma  # scaled = x_hat * gamma
    dgamma = (dscaled * x_hat).sum(axis=0)
    dinv_std = (dx_hat * centered).sum(axis=0)  # x_hat = centered * inv_std
    dstd = -dinv_std * std**-2  # inv_std = std**-1
    dvar_eps = dstd / (2 * std)  # std = sqrt(var_eps)
    dvar = dvar_eps  # var_eps = var + eps
    dsquared = np.broadcast_to(dvar / m, dy.shape)  # var = mean(squared): equal shares
    dcentered = dx_hat * inv_std + dsquared * 2 * centered  # read by x_hat and by squared
    dmean = -dcentered.sum(axis=0)  # centered = x - mean
    dx = dcentered + dmean / m  # read by centered and by mean
    return _cast(dx, dgamma, dbeta, cache)


def backward_paper(dy: ArrayLike, cache: Cache) -> Gradients:
    """Follow the equations of the 2015 paper: `(dx, dgamma, dbeta)`, as in `backward_staged`.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.

    >>> y, cache = forward([[1], [1], [3], [3]], gamma=[2], beta=[0], eps=0)
    >>> backward_paper([[1], [0], [0], [0]], cache)[0].ravel()
    array([ 1., -1.,  0.,  0.])
    """
    gamma, centered, var_eps = cache.gamma, cache.centered, cache.var_eps
    inv_std, x_hat = cache.inv_std, cache.x_hat
    dy = _check(dy, cache)
    m = len(dy)

    dx_hat = dy * gamma
    dvar = (dx_hat * centered).sum(axis=0) * -0.5 * var_eps**-1.5
    # The second term is zero up to rounding, because deviations from the mean sum to zero.
    dmean = (dx_hat * -inv_std).sum(axis=0) + dvar * (-2 * centered).sum(axis=0) / m
    dx = dx_hat * inv_std + dvar * 2 * centered / m + dmean / m
    dgamma = (dy * x_hat).sum(axis=0)
    dbeta = dy.sum(axis=0)
    return _cast(dx, dgamma, dbeta, cache)


def backward_closed(dy: ArrayLike, cache: Cache) -> Gradients:
    """Put it all on one line, exact for any eps: `(dx, dgamma, dbeta)`, as in `backward_staged`.

    Source: Zakka 2016, "Deriving the Gradient for the Backward Pass of Batch Normalization".

    >>> y, cache = forward([[1], [1], [3], [3]], gamma=[2], beta=[0], eps=0)
    >>> backward_closed([[1], [0], [0], [0]], cache)[0].ravel()
    array([ 1., -1.,  0.,  0.])
    """
    gamma, inv_std, x_hat = cache.gamma, cache.inv_std, cache.x_hat
    dy = _check(dy, cache)
    m = len(dy)

    dbeta = dy.sum(axis=0)
    dgamma = (dy * x_hat).sum(axis=0)
    dx = gamma * inv_std / m * (m * dy - dbeta - x_hat * dgamma)
    return _cast(dx, dgamma, dbeta, cache)


def _check(dy: ArrayLike, cache: Cache) -> Array:
    """Return dy as an array of y's dtype, or raise if it does not have y's shape."""
    dy = np.asarray(dy, dtype=np.result_type(cache.x_hat, cache.gamma, cache.beta))
    if dy.shape != cache.x_hat.shape:
        raise ValueError(f"dy must have the shape of y, {cache.x_hat.shape}, not {dy.shape}")
    return dy


def _cast(dx: Array, dgamma: Array, dbeta: Array, cache: Cache) -> Gradients:
    """Give each gradient its array's dtype; they differ only if those of x, gamma, beta do."""
    dtypes = cache.x_hat.dtype, cache.gamma.dtype, cache.beta.dtype
    return dx.astype(dtypes[0]), dgamma.astype(dtypes[1]), dbeta.astype(dtypes[2])
