"""Normalisation layers with running statistics: BatchNorm and InstanceNorm.

The statistics are kept beside what is differentiated: a batch is normalised by its own mean and
variance, through which gradients flow, and moves the running ones afterwards, as plain arrays.
In use the running ones are constants, and each channel is mapped by a line.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from .. import functional, kernels
from ..context import named, scope
from ..dispatch import plain
from ..errors import ShapeError, check_eps, describe
from ..kernels import Array
from ..tensor import Tensor
from .arguments import integer
from .normalisation import Normalisation, column


class _Running(Normalisation):
    """Normalisation per channel, in PyTorch's conventions, by the batch or by what was seen."""

    layouts: ClassVar[dict[int, str]]  # the inputs it takes: number of axes -> their names
    kind: ClassVar[str]  # the scope it computes in
    batch_axes: ClassVar[tuple[int, ...]]  # what is averaged over besides height and width
    few: ClassVar[str]  # what to do about a single value
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
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        self.num_features = d = integer(name, "num_features", num_features)
        self._begin((d,), affine, bias, dtype)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ShapeError(
                f"{name}: momentum={momentum!r} must lie in [0, 1], the weight of the new "
                "statistics (Keras's is 1 minus this), or be None for a cumulative average"
            )
        self.eps, self.momentum, self.affine = check_eps(name, eps), momentum, affine
        self.track_running_stats = track = track_running_stats
        self.register_buffer("running_mean", np.zeros(d, dtype) if track else None)
        self.register_buffer("running_var", np.ones(d, dtype) if track else None)
        self.register_buffer("num_batches_tracked", np.array(0) if track else None)

    def forward(self, x: Any) -> Any:
        """Normalise ``x`` with the statistics of the batch, or in use with the running ones."""
        x = self._checked(x)
        gamma, beta = self._per_channel(x)
        tracks = self.running_mean is not None
        if tracks and not self.training:
            return self._line(x, gamma, beta)
        axes = (*self.batch_axes, *range(2, x.ndim))
        count = math.prod(x.shape[a] for a in axes)
        if count < 2 or not x.size:
            self._refuse(x, count, tracks)
        axis: Any = axes if len(axes) > 1 else axes[0]
        with scope(self.kind):
            y, mean, var = functional.normalise(self.kind, x, gamma, beta, axis, self.eps)
        if tracks:
            self._track(plain(mean), plain(var), count)
        return y

    def _checked(self, x: Any) -> Any:
        """Return ``x`` as an array of a layout that the layer takes."""
        x = kernels.array(x)
        if x.ndim not in self.layouts or x.shape[1] != self.num_features:
            raise ShapeError(
                f"{self!r} was given {describe(x)}; it takes {' or '.join(self.layouts.values())} "
                f"with {self.num_features} channels on the second axis"
            )
        return x

    def _refuse(self, x: Any, count: int, tracks: bool) -> None:
        """Say why a single value cannot be normalised, and what can be done about it."""
        instead = ", or call eval() to use the running statistics" if tracks else ""
        raise ShapeError(
            f"{self!r} was given {describe(x)}: {count if x.size else 'no'} value per channel has "
            f"no variance to normalise by. {self.few}{instead}"
        )

    def _line(self, x: Any, gamma: Any, beta: Any) -> Any:
        """Normalise with the running statistics, which are constants: each channel is a line."""
        mean = Tensor(column(self.running_mean, x), name="running_mean", copy=False)
        var = Tensor(column(self.running_var, x), name="running_var", copy=False)
        with scope(self.kind):
            inv_std = named(1 / np.sqrt(var + self.eps), "inv_std")
            x_hat = named(named(x - mean, "centered") * inv_std, "x_hat")
            return functional.scale_and_shift(x_hat, gamma, beta)

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
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm(_Running):
    """Batch normalisation over all axes but the second, of any layout."""

    kind = "batch_norm"
    batch_axes = (0,)
    few = "Train on larger batches (drop a last batch of one)"


class BatchNorm1d(BatchNorm):
    """Batch normalisation of (m, d) or (m, d, l), per channel d: ``x_hat * weight + bias``.

    In training x_hat is computed from the mean and the biased variance of the batch, by
    `functional`'s composed `batch_norm`, and the running statistics follow beside it:
    ``running = (1 - momentum) * running + momentum * batch``, the variance unbiased, or with
    ``momentum=None`` the average of all batches. After ``eval()`` x_hat is computed from the
    running statistics; with ``track_running_stats=False`` there are none, and those of the batch
    are always used.
    ``weight`` (ones) and ``bias`` (zeros) are (d,), absent with ``affine=False``, the bias also
    with ``bias=False``; buffers ``running_mean`` (zeros), ``running_var`` (ones),
    ``num_batches_tracked``. Conventions and defaults are PyTorch's; Ioffe & Szegedy 2015,
    arXiv:1502.03167.

    Raises a ShapeError (a ValueError) for arguments out of range, for an x of another shape, and
    in training for a single value per channel; the running statistics are then as before.

    >>> layer = BatchNorm1d(2)
    >>> layer(np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]])).data[0].round(3)
    array([-0.447, -0.447])
    >>> layer.running_mean, layer.running_var
    (array([0.75, 7.5 ], dtype=float32), array([ 1.0666666, 17.566668 ], dtype=float32))
    """

    layouts: ClassVar = {2: "(m, d)", 3: "(m, d, l)"}


class BatchNorm2d(BatchNorm):
    """Batch normalisation of images (m, c, h, w), per channel c.

    Everything else is as for `BatchNorm1d`; a single image can be trained on if it has more than
    one pixel.

    >>> layer = BatchNorm2d(3)
    >>> layer(np.ones((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    """

    layouts: ClassVar = {4: "(m, c, h, w)"}


class _InstanceNorm(_Running):
    """Instance normalisation: of each channel of each example by itself."""

    kind = "instance_norm"
    batch_axes = ()
    few = "Give it more than one value per channel of each example"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        if momentum is None:
            raise ShapeError(
                f"{type(self).__name__}: momentum=None is for batch norm; here it must lie in "
                "[0, 1] (PyTorch takes None for 0, and the running statistics never move)"
            )
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias=bias, dtype=dtype
        )

    def forward(self, x: Any) -> Any:
        """Normalise each channel of each example, or of the one that has no axis for examples."""
        x = kernels.array(x)
        alone = x.ndim == min(self.layouts) - 1
        return super().forward(x[None])[0] if alone else super().forward(x)

    def _track(self, mean: Array, var: Array, count: int) -> None:
        """Move the running statistics towards the average of those of the examples.

        As in PyTorch, ``num_batches_tracked`` stays 0: instance norm does not count.
        """
        unbiased = var.mean(0) * (count / (count - 1))
        self.running_mean = _blend(self.running_mean, mean.mean(0), self.momentum)
        self.running_var = _blend(self.running_var, unbiased, self.momentum)


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (m, c, l) or (c, l): of each channel of each example by itself.

    There is no ``weight`` and no ``bias`` unless ``affine=True``, and no running statistics unless
    ``track_running_stats=True``; with them, `eval` uses them, as batch norm does, and in training
    they follow the average over the examples of the batch. Ulyanov, Vedaldi & Lempitsky 2016,
    arXiv:1607.08022; the conventions are PyTorch's, except that a momentum of None is refused.

    Raises a ShapeError (a ValueError) for arguments out of range, for an x of another shape, and
    for a single value per channel of each example unless running statistics are used.

    >>> InstanceNorm1d(1, eps=0)(np.array([[[1.0, 3.0]], [[10.0, 30.0]]]))
    array([[[-1.,  1.]],
           [[-1.,  1.]]])
    """

    layouts: ClassVar = {3: "(m, c, l)"}


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of images (m, c, h, w) or (c, h, w); otherwise as `InstanceNorm1d`.

    >>> InstanceNorm2d(3)(np.zeros((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    layouts: ClassVar = {4: "(m, c, h, w)"}


def _blend(old: Array, new: Array, p: Any) -> Array:
    """Return the average of two arrays, in which the new one has the weight ``p``."""
    return ((1 - p) * old + p * new.reshape(old.shape)).astype(old.dtype, copy=False)
