"""What acts on each entry by itself: activations, and dropout.

As everything that `functional` offers, it is plain NumPy code: given Tensors it is recorded, given
arrays it just computes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import kernels, ops
from .context import scope
from .errors import OperandError, ShapeError, describe

relu = ops.relu
tanh = ops.tanh


def sigmoid(x: Any) -> Any:
    """Return ``1 / (1 + exp(-x))``, computed without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    x = kernels.floating(x)
    positive = x >= 0
    z = np.exp(np.where(positive, -x, x))  # at most 1
    return np.where(positive, 1, z) / (1 + z)


def gelu(x: Any, approximate: str = "none") -> Any:
    """Return ``x * P(Z <= x)`` for a standard normal Z: half of ``x * (1 + erf(x / sqrt(2)))``.

    With ``approximate="tanh"`` tanh of a cubic takes the place of erf. Hendrycks & Gimpel 2016,
    arXiv:1606.08415, section 2. Raises a ShapeError (a ValueError) for another ``approximate``.

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    >>> gelu(np.array([-1.0, 0.0, 1.0]), "tanh").round(4)
    array([-0.1588,  0.    ,  0.8412])
    """
    x = kernels.floating(x)
    if approximate not in ("none", "tanh"):
        raise ShapeError(
            f"gelu({describe(x)}): approximate={approximate!r} must be 'none' or 'tanh'"
        )
    with scope("gelu"):
        if approximate == "none":
            return 0.5 * x * (1 + ops.erf(x / math.sqrt(2)))
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def dropout(
    x: Any,
    p: float = 0.5,
    *,
    training: bool = True,
    rng: np.random.Generator | int | None = None,
) -> Any:
    """Set each entry to 0 with probability ``p``, and divide the others by ``1 - p``.

    So every entry keeps its expectation, and in use (``training=False``) ``x`` is returned as it
    is. ``rng``, a NumPy generator or a seed, makes it reproducible; a generator goes on from call
    to call. Srivastava et al. 2014, Journal of Machine Learning Research 15, section 10. Raises a
    ShapeError (a ValueError) for a ``p`` outside [0, 1], an OperandError if it is no number.

    >>> dropout(np.ones(8), p=0.25, rng=0).round(2)
    array([1.33, 1.33, 0.  , 0.  , 1.33, 1.33, 1.33, 1.33])
    """
    x = kernels.floating(x)
    if isinstance(p, bool) or not isinstance(p, int | float | np.integer | np.floating):
        raise OperandError(f"dropout({describe(x)}): p={p!r} must be a number, such as 0.5")
    if not 0 <= p <= 1:
        raise ShapeError(f"dropout({describe(x)}): p={p!r}, a probability, must lie in [0, 1]")
    if not training or p == 0:
        return x
    kept = np.random.default_rng(rng).random(x.shape) >= p
    with scope("dropout"):
        return x * (kept / (1 - p if p < 1 else 1)).astype(x.dtype)
