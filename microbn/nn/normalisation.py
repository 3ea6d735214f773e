"""Normalisation layers: one computation, over other axes.

Each layer maps x to ``x_hat * weight + bias`` by `functional`'s composed normalisation, and differs
from the others in what it takes the mean and the variance over. Of images (m, c, h, w):

=============  ===================  ==========================  ================
layer          one mean per         averages over               weight and bias
=============  ===================  ==========================  ================
BatchNorm      channel              examples, height, width     per channel
InstanceNorm   example and channel  height, width               per channel
GroupNorm      example and group    the group, height, width    per channel
LayerNorm      example              the last axes, as given     per entry
RMSNorm        example              the same; no mean is taken  per entry
=============  ===================  ==========================  ================

Those with running statistics, BatchNorm and InstanceNorm, are in `running`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional, kernels
from ..errors import ShapeError, check_eps, describe
from .arguments import floating, integer, sizes
from .module import Module
from .parameter import Parameter


class Normalisation(Module):
    """What normalisation layers share: a weight of ones and a bias of zeros, or neither."""

    weight: Parameter | None
    bias: Parameter | None

    def _begin(self, shape: tuple[int, ...], affine: bool, bias: bool, dtype: Any) -> None:
        """Make the parameters."""
        dtype = floating(type(self).__name__, dtype)
        self.weight = Parameter(np.ones(shape, dtype)) if affine else None
        self.bias = Parameter(np.zeros(shape, dtype)) if affine and bias else None

    def _per_channel(self, x: Any) -> tuple[Any, Any]:
        """Shape the weight and the bias (c,) so that they broadcast against ``x``, (m, c, ...)."""
        return column(self.weight, x), column(self.bias, x)


def column(value: Any, x: Any) -> Any:
    """Shape one value per channel so that it broadcasts against ``x``, (m, c, ...)."""
    if value is None or x.ndim == 2:
        return value
    return value.reshape((-1,) + (1,) * (x.ndim - 2))


class _Trailing(Normalisation):
    """Normalisation of each example by itself, over the last axes, of the lengths given."""

    normalized_shape: tuple[int, ...]

    def _checked(self, x: Any) -> tuple[Any, tuple[int, ...]]:
        """Return ``x`` as an array, and its axes to average over."""
        x = kernels.array(x)
        shape = self.normalized_shape
        if tuple(x.shape[max(x.ndim - len(shape), 0) :]) != shape:
            raise ShapeError(
                f"{self!r} was given {describe(x)}, whose last axes must be {shape}; reshape x, "
                "or make the layer with normalized_shape to match"
            )
        return x, tuple(range(-len(shape), 0))


class LayerNorm(_Trailing):
    """Normalise each example over its last axes, which are ``normalized_shape`` long.

    An integer means the last axis alone. ``weight`` (ones) and ``bias`` (zeros) have the shape
    ``normalized_shape``; there is neither with ``elementwise_affine=False``, and no bias with
    ``bias=False``. Training and use are the same. Ba, Kiros & Hinton 2016, arXiv:1607.06450.

    Raises a ShapeError (a ValueError) for lengths below 1 and a wrong eps, and when called for an
    x with other last axes.

    >>> LayerNorm(2, eps=0)(np.array([[1.0, 3.0], [10.0, 30.0]])).data
    array([[-1.,  1.],
           [-1.,  1.]])
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        self.normalized_shape = sizes("LayerNorm", "normalized_shape", normalized_shape)
        self.elementwise_affine = elementwise_affine
        self.eps = check_eps("LayerNorm", eps)
        self._begin(self.normalized_shape, elementwise_affine, bias, dtype)

    def forward(self, x: Any) -> Any:
        """Normalise each example of ``x``."""
        x, axis = self._checked(x)
        return functional.layer_norm(x, self.weight, self.bias, axis=axis, eps=self.eps)

    def extra_repr(self) -> str:
        """Return the arguments it was made with."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(_Trailing):
    """Divide each example by the root of its mean square, over its last axes; no mean is taken.

    ``normalized_shape`` and ``elementwise_affine`` as for `LayerNorm`; there is no bias. An eps of
    None is the machine epsilon of x's dtype. Zhang & Sennrich 2019, arXiv:1910.07467. Raises what
    `LayerNorm` does.

    >>> RMSNorm(2, eps=0)(np.array([[1.0, 7.0]])).data
    array([[0.2, 1.4]])
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        self.normalized_shape = sizes("RMSNorm", "normalized_shape", normalized_shape)
        self.elementwise_affine = elementwise_affine
        self.eps = None if eps is None else check_eps("RMSNorm", eps)
        self._begin(self.normalized_shape, elementwise_affine, False, dtype)

    def forward(self, x: Any) -> Any:
        """Normalise each example of ``x``."""
        x, axis = self._checked(x)
        return functional.rms_norm(x, self.weight, axis=axis, eps=self.eps)

    def extra_repr(self) -> str:
        """Return the arguments it was made with."""
        affine = self.elementwise_affine
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"


class GroupNorm(Normalisation):
    """Normalise each example over groups of channels: x is (m, num_channels, ...).

    The channels are split into ``num_groups`` of neighbours, and each group is normalised over its
    channels and all axes behind. ``weight`` (ones) and ``bias`` (zeros) are (num_channels,), absent
    with ``affine=False``. Training and use are the same. Wu & He 2018, arXiv:1803.08494.

    Raises a ShapeError (a ValueError) for channels that do not divide into the groups, a wrong eps,
    and when called for an x with other channels, or with a single value to normalise, as PyTorch.

    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> GroupNorm(2, 4, eps=0)(x).data
    array([[-1.,  1., -1.,  1.]])
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        self.num_groups = integer("GroupNorm", "num_groups", num_groups)
        self.num_channels = integer("GroupNorm", "num_channels", num_channels)
        if num_channels % num_groups:
            raise ShapeError(
                f"GroupNorm: num_channels={num_channels} must be a multiple of "
                f"num_groups={num_groups}, so that the groups are equally large"
            )
        self.eps, self.affine = check_eps("GroupNorm", eps), affine
        self._begin((self.num_channels,), affine, bias, dtype)

    def forward(self, x: Any) -> Any:
        """Normalise each group of each example of ``x``."""
        x = kernels.array(x)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(
                f"{self!r} was given {describe(x)}; it takes (m, {self.num_channels}, ...), the "
                "channels on the second axis"
            )
        if x.size == self.num_groups:
            raise ShapeError(
                f"{self!r} was given {describe(x)}: one value per group has no variance to "
                "normalise by. Use fewer groups"
            )
        gamma, beta = self._per_channel(x)
        return functional.group_norm(x, self.num_groups, gamma, beta, eps=self.eps)

    def extra_repr(self) -> str:
        """Return the arguments it was made with."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
