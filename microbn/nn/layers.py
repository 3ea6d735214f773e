"""The layers: each keeps parameters and buffers, and leaves the mathematics to `functional`."""

from __future__ import annotations

import math
import operator
from typing import Any, ClassVar

import numpy as np

from .. import functional, kernels
from ..context import named, scope
from ..dispatch import plain
from ..errors import OperandError, ShapeError, check_eps, describe
from ..kernels import Array
from ..tensor import Tensor
from .module import Module
from .parameter import Parameter

Seed = np.random.Generator | int | None


class Linear(Module):
    """``x @ weight.T + bias``: x is (..., in_features), the result (..., out_features).

    ``weight`` (out_features, in_features) and ``bias`` (out_features,) begin uniform in plus or
    minus ``1 / sqrt(in_features)``, as in PyTorch (the bound of He et al. 2015, arXiv:1502.01852,
    with a = sqrt(5)). ``rng``, a NumPy generator or a seed, makes that reproducible: the weight is
    drawn first, then the bias. Raises a ShapeError for sizes below 1, an OperandError for sizes or
    a dtype of the wrong type; when called, a ShapeError for an x that does not fit.

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
        self.in_features = _size("Linear", "in_features", in_features)
        self.out_features = _size("Linear", "out_features", out_features)
        dtype, rng = _floating("Linear", dtype), np.random.default_rng(rng)
        bound = 1 / math.sqrt(in_features)
        shape = (self.out_features, self.in_features)
        self.weight = Parameter(rng.uniform(-bound, bound, shape), dtype=dtype)
        self.bias = Parameter(rng.uniform(-bound, bound, shape[0]), dtype=dtype) if bias else None

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


class ReLU(Module):
    """``max(x, 0)``; the derivative at 0 is 0.

    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def forward(self, x: Any) -> Any:
        """Replace negative entries by 0."""
        return functional.relu(kernels.array(x))


class _BatchNorm(Module):
    """Batch normalisation over all axes but the second (the channels), in PyTorch's conventions."""

    layouts: ClassVar[dict[int, str]]  # the inputs it takes: number of axes -> their names
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Array  # (d,), or None, as the other buffers
    running_var: Array
    num_batches_tracked: Array

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        self.num_features = d = _size(name, "num_features", num_features)
        dtype = _floating(name, dtype)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ShapeError(
                f"{name}: momentum={momentum!r} must lie in [0, 1], the weight of the new "
                "statistics (Keras's is 1 minus this), or be None for a cumulative average"
            )
        self.eps, self.momentum = check_eps(name, eps), momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(d, dtype)) if affine else None
        self.bias = Parameter(np.zeros(d, dtype)) if affine else None
        track = track_running_stats
        self.register_buffer("running_mean", np.zeros(d, dtype) if track else None)
        self.register_buffer("running_var", np.ones(d, dtype) if track else None)
        self.register_buffer("num_batches_tracked", np.array(0) if track else None)

    def forward(self, x: Any) -> Any:
        """Normalise ``x`` with the statistics of the batch, or in use with the running ones."""
        x = kernels.array(x)
        if x.ndim not in self.layouts or x.shape[1] != self.num_features:
            raise ShapeError(
                f"{self!r} was given {describe(x)}; it takes {' or '.join(self.layouts.values())} "
                f"with {self.num_features} channels on the second axis"
            )
        axis: Any = 0 if x.ndim == 2 else (0, *range(2, x.ndim))
        gamma, beta = self._column(self.weight, x), self._column(self.bias, x)
        tracks = self.running_mean is not None
        if tracks and not self.training:
            return self._affine(x, gamma, beta)
        count = x.size // self.num_features
        if count < 2:
            instead = ", or call eval() to use the running statistics" if tracks else ""
            raise ShapeError(
                f"{self!r} was given {describe(x)}: {count or 'no'} value per channel has no "
                "variance to normalise by. Train on larger batches (drop a last batch of one)"
                + instead
            )
        with scope("batch_norm"):
            y, mean, var = functional.normalise("batch_norm", x, gamma, beta, axis, self.eps)
        if tracks:
            self._track(plain(mean), plain(var), count)
        return y

    def _column(self, value: Any, x: Any) -> Any:
        """Shape one value per channel so that it broadcasts against ``x``."""
        if value is None or x.ndim == 2:
            return value
        return value.reshape((self.num_features,) + (1,) * (x.ndim - 2))

    def _affine(self, x: Any, gamma: Any, beta: Any) -> Any:
        """Normalise with the running statistics, which are constants: each channel is a line."""
        mean = Tensor(self._column(self.running_mean, x), name="running_mean", copy=False)
        var = Tensor(self._column(self.running_var, x), name="running_var", copy=False)
        with scope("batch_norm"):
            inv_std = named(1 / np.sqrt(var + self.eps), "inv_std")
            y = named(named(x - mean, "centered") * inv_std, "x_hat")
            if gamma is not None:
                y = named(y * gamma, "scaled")
            return y if beta is None else named(y + beta, "y")

    def _track(self, mean: Array, var: Array, count: int) -> None:
        """Move the running statistics towards those of the batch, beside what is differentiated.

        New arrays take the place of the old, which a graph made in eval mode may still hold.
        """
        batches = self.num_batches_tracked + 1
        p = 1 / int(batches) if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1))
        self.running_mean = _blend(self.running_mean, mean, p)
        self.running_var = _blend(self.running_var, unbiased, p)
        self.num_batches_tracked = np.asarray(batches)

    def extra_repr(self) -> str:
        """Return the arguments it was made with."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (m, d) or (m, d, l), per channel d: ``x_hat * weight + bias``.

    In training x_hat is computed from the mean and the biased variance of the batch, by
    `functional`'s composed `batch_norm`, and the running statistics follow beside it:
    ``running = (1 - momentum) * running + momentum * batch``, the variance unbiased, or with
    ``momentum=None`` the average of all batches. After ``eval()`` x_hat is computed from the
    running statistics; with ``track_running_stats=False`` there are none, and those of the batch
    are always used.
    ``weight`` (ones) and ``bias`` (zeros) are (d,), absent with ``affine=False``; buffers
    ``running_mean`` (zeros), ``running_var`` (ones), ``num_batches_tracked``. Conventions and
    defaults are PyTorch's; Ioffe & Szegedy 2015, arXiv:1502.03167.

    Raises a ShapeError (a ValueError) for arguments out of range, for an x of another shape, and
    in training for a single value per channel; the running statistics are then as before.

    >>> layer = BatchNorm1d(2)
    >>> layer(np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]])).data[0].round(3)
    array([-0.447, -0.447])
    >>> layer.running_mean, layer.running_var
    (array([0.75, 7.5 ], dtype=float32), array([ 1.0666666, 17.566668 ], dtype=float32))
    """

    layouts: ClassVar = {2: "(m, d)", 3: "(m, d, l)"}


def _blend(old: Array, new: Array, p: float) -> Array:
    """Return the average of two arrays, in which the new one has the weight ``p``."""
    return ((1 - p) * old + p * new.reshape(old.shape)).astype(old.dtype, copy=False)


def _size(layer: str, name: str, n: Any) -> int:
    try:
        n = operator.index(n)
    except TypeError as error:
        raise OperandError(f"{layer}: {name}={n!r} must be an integer") from error
    if n < 1:
        raise ShapeError(f"{layer}: {name}={n!r} must be at least 1")
    return int(n)


def _floating(layer: str, dtype: Any) -> np.dtype[Any]:
    result: np.dtype[Any] = np.dtype(dtype)
    if result.kind != "f":
        raise OperandError(f"{layer}: parameters are floats, so dtype cannot be {result}")
    return result
