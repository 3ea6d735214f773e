"""Linear: a matrix product and a shift."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernels
from ..errors import ShapeError, describe
from . import init
from .arguments import Seed, floating, integer
from .module import Module
from .parameter import Parameter


class Linear(Module):
    """``x @ weight.T + bias``: x is (..., in_features), the result (..., out_features).

    ``weight`` (out_features, in_features) and ``bias`` (out_features,) begin uniform in plus or
    minus ``1 / sqrt(in_features)``, as in PyTorch (`init.kaiming_uniform_` with a = sqrt(5)).
    ``rng``, a NumPy generator or a seed, makes that reproducible: the weight is drawn first, then
    the bias. Raises a ShapeError for sizes below 1, an OperandError for sizes or a dtype of the
    wrong type; when called, a ShapeError for an x that does not fit.

    >>> layer = Linear(2, 3, rng=0)
    >>> layer(np.ones((4, 2), np.float32)).shape
    (4, 3)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
        rng: Seed = None,
    ) -> None:
        self.in_features = integer("Linear", "in_features", in_features)
        self.out_features = integer("Linear", "out_features", out_features)
        shape = (self.out_features, self.in_features)
        self.weight, self.bias = weight_and_bias(shape, bias, floating("Linear", dtype), rng)

    def forward(self, x: Any) -> Any:
        """Map the last axis of ``x`` from ``in_features`` to ``out_features``."""
        x = kernels.array(x)
        if x.shape[-1:] != (self.in_features,):
            raise ShapeError(
                f"{self!r} was given {describe(x)}, whose last axis must be {self.in_features} "
                "long; reshape x, or make the layer with in_features to match"
            )
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Return the sizes."""
        has_bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={has_bias}"


def weight_and_bias(
    shape: tuple[int, ...], bias: bool, dtype: Any, rng: Seed
) -> tuple[Parameter, Parameter | None]:
    """Draw a weight (out, in, ...) and a bias (out,) as PyTorch does, the weight first."""
    rng = np.random.default_rng(rng)
    weight = init.kaiming_uniform_(Parameter(np.empty(shape, dtype)), math.sqrt(5), rng=rng)
    if not bias:
        return weight, None
    bound = 1 / math.sqrt(init.fan_in(weight))
    return weight, init.uniform_(Parameter(np.empty(shape[0], dtype)), -bound, bound, rng=rng)
