"""Layers without parameters: nonlinearities, Dropout, Flatten and Identity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional, kernels
from ..errors import ShapeError, describe
from .arguments import Seed, integer, only
from .module import Module

_INPLACE = "what is overwritten would be missing in the backward pass"


class ReLU(Module):
    """``max(x, 0)``; the derivative at 0 is 0.

    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def __init__(self, inplace: bool = False) -> None:
        only("ReLU", _INPLACE, inplace=(inplace, False))

    def forward(self, x: Any) -> Any:
        """Replace negative entries by 0."""
        return functional.relu(kernels.array(x))


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``.

    >>> Sigmoid()(np.array([0.0, 1000.0]))
    array([0.5, 1. ])
    """

    def forward(self, x: Any) -> Any:
        """Map every entry between 0 and 1."""
        return functional.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent.

    >>> Tanh()(np.array([0.0, 1000.0]))
    array([0., 1.])
    """

    def forward(self, x: Any) -> Any:
        """Map every entry between -1 and 1."""
        return functional.tanh(kernels.array(x))


class GELU(Module):
    """``x * P(a standard normal number is below x)``, or with "tanh" an approximation of it.

    Raises a ShapeError for an ``approximate`` that is neither "none" nor "tanh".

    >>> GELU()(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ShapeError(f"GELU: approximate={approximate!r} must be 'none' or 'tanh'")
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        """Weigh every entry by how likely a normal number is to be smaller."""
        return functional.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """Return which of the two it is."""
        return f"approximate={self.approximate!r}"


class Dropout(Module):
    """In training, replace each entry by 0 with probability ``p`` and divide the rest by 1 - p.

    In use it changes nothing. ``rng``, a NumPy generator or a seed, makes what is dropped
    reproducible; the layer draws from it at every call. Srivastava et al. 2014, Journal of Machine
    Learning Research 15. Raises a ShapeError (a ValueError) for a p outside [0, 1], an OperandError
    (a TypeError) if it is no number.

    >>> Dropout(0.25, rng=0)(np.ones(8)).round(2)
    array([1.33, 1.33, 0.  , 0.  , 1.33, 1.33, 1.33, 1.33])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: Seed = None) -> None:
        functional.dropout(0.0, p, training=False)  # which says what is wrong with p
        only("Dropout", _INPLACE, inplace=(inplace, False))
        self.p, self.rng = p, np.random.default_rng(rng)

    def forward(self, x: Any) -> Any:
        """Drop entries of ``x`` at random, or in use return it as it is."""
        return functional.dropout(x, self.p, training=self.training, rng=self.rng)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}, inplace=False"


class Flatten(Module):
    """Make one axis of the axes from ``start_dim`` to ``end_dim``: (m, c, h, w) -> (m, c * h * w).

    Raises a ShapeError when called with an x that lacks these axes, or has them in the other order.

    >>> Flatten()(np.zeros((5, 3, 2, 2))).shape, Flatten(0, 1)(np.zeros((5, 3, 2))).shape
    ((5, 12), (15, 2))
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = integer("Flatten", "start_dim", start_dim, least=None)
        self.end_dim = integer("Flatten", "end_dim", end_dim, least=None)

    def forward(self, x: Any) -> Any:
        """Reshape ``x``; the order of its entries stays."""
        x = kernels.array(x)
        dims = self.start_dim, self.end_dim
        if any(not -x.ndim <= d < x.ndim for d in dims) or dims[0] % x.ndim > dims[1] % x.ndim:
            raise ShapeError(
                f"{self!r} was given {describe(x)}; both axes must lie in [{-x.ndim}, {x.ndim}), "
                "and the first must not come after the last"
            )
        start, stop = dims[0] % x.ndim, dims[1] % x.ndim + 1
        shape = tuple(x.shape)
        return x.reshape((*shape[:start], math.prod(shape[start:stop]), *shape[stop:]))

    def extra_repr(self) -> str:
        """Return the axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Return what it is given; it holds the place of a layer that was taken out."""

    def forward(self, x: Any) -> Any:
        """Return ``x``."""
        return x
