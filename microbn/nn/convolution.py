"""Layers for images (m, c, h, w), or one (c, h, w): convolution and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional, kernels
from ..errors import ShapeError, describe
from .arguments import Seed, floating, integer, only, pair
from .linear import weight_and_bias
from .module import Module
from .parameter import Parameter


class Conv2d(Module):
    """Convolution (strictly, correlation) of images (m, in_channels, h, w) with learned windows.

    ``kernel_size``, ``stride``, ``padding`` (zeros around the image) and ``dilation`` are integers
    or pairs for height and width; ``padding="same"`` keeps the size of the image, with stride 1,
    and "valid" is none. With ``groups``, the channels are split into as many parts, each convolved
    by itself. ``weight`` (out_channels, in_channels / groups, kh, kw) and ``bias`` (out_channels,)
    begin as in PyTorch (`init.kaiming_uniform_` with a = sqrt(5)), drawn from ``rng``, a NumPy
    generator or a seed, the weight first.

    Raises a ShapeError (a ValueError) for sizes that do not fit together and for a padding_mode
    other than "zeros", an OperandError (a TypeError) for sizes that are not integers; when called,
    a ShapeError for an x that does not fit.

    >>> layer = Conv2d(1, 8, 3, padding=1, rng=0)
    >>> layer(np.ones((2, 1, 5, 5), np.float32)).shape
    (2, 8, 5, 5)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = np.float32,
        rng: Seed = None,
    ) -> None:
        only("Conv2d", "pad x by np.pad before", padding_mode=(padding_mode, "zeros"))
        self.in_channels = integer("Conv2d", "in_channels", in_channels)
        self.out_channels = integer("Conv2d", "out_channels", out_channels)
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size)
        self.stride = pair("Conv2d", "stride", stride)
        self.dilation = pair("Conv2d", "dilation", dilation)
        self.groups = integer("Conv2d", "groups", groups)
        self.padding = _padding(padding, self.stride)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"Conv2d: in_channels={in_channels} and out_channels={out_channels} must be "
                f"multiples of groups={groups}, so that the groups are equally large"
            )
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight, self.bias = weight_and_bias(shape, bias, floating("Conv2d", dtype), rng)

    def forward(self, x: Any) -> Any:
        """Convolve ``x``."""
        x = kernels.array(x)
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ShapeError(
                f"{self!r} was given {describe(x)}; it takes (m, c, h, w) or (c, h, w) with "
                f"{self.in_channels} channels"
            )
        return functional.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        """Return the arguments it was made with, those that have their defaults left out."""
        given = {
            "padding": (self.padding, (0, 0)),
            "dilation": (self.dilation, (1, 1)),
            "groups": (self.groups, 1),
            "bias": (self.bias is not None, True),
        }
        rest = "".join(f", {k}={v}" for k, (v, default) in given.items() if v != default)
        sizes = f"kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{self.in_channels}, {self.out_channels}, {sizes}{rest}"


def _padding(padding: Any, stride: tuple[int, int]) -> Any:
    """Return a pair, or "same" or "valid"."""
    if not isinstance(padding, str):
        return pair("Conv2d", "padding", padding, least=0)
    if padding not in ("same", "valid"):
        raise ShapeError(f"Conv2d: padding={padding!r} must be integers, 'same' or 'valid'")
    if padding == "same" and stride != (1, 1):
        raise ShapeError(
            f"Conv2d: padding='same' keeps the size of the image, which stride={stride} makes "
            "smaller; use stride=1, or give the padding as a number"
        )
    return padding


class _Pool(Module):
    """Pooling: each window of an image, in each channel by itself, becomes one number."""

    def _windows(self, kernel_size: Any, stride: Any, padding: Any) -> None:
        """Keep the arguments as they were given, once they have been checked."""
        name = type(self).__name__
        stride = kernel_size if stride is None else stride
        window, _ = pair(name, "kernel_size", kernel_size), pair(name, "stride", stride)
        for pad, size in zip(pair(name, "padding", padding, least=0), window, strict=True):
            if pad > size // 2:
                raise ShapeError(
                    f"{name}: padding={padding!r} must be at most half of "
                    f"kernel_size={kernel_size!r}, or some windows would hold padding alone"
                )
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool):
    """The largest entry of each window of images (m, c, h, w).

    Of equal ones the first gets the gradient. ``kernel_size``, ``stride`` (kernel_size, if left
    out) and ``padding`` are integers or pairs for height and width; padding is never the largest.
    Raises a ShapeError (a ValueError) for sizes that do not fit, and for other values of
    ``dilation``, ``return_indices`` and ``ceil_mode``.

    >>> MaxPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self._windows(kernel_size, stride, padding)
        given = {"return_indices": (return_indices, False), "ceil_mode": (ceil_mode, False)}
        dilations = pair("MaxPool2d", "dilation", dilation)
        only("MaxPool2d", "write it with mb.ops.windows", dilation=(dilations, (1, 1)), **given)
        self.dilation = dilation

    def forward(self, x: Any) -> Any:
        """Take the largest entry of each window of ``x``."""
        return functional.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Return the sizes, and what cannot be chosen."""
        return f"{super().extra_repr()}, dilation={self.dilation}, ceil_mode=False"


class AvgPool2d(_Pool):
    """The average of each window of images (m, c, h, w).

    Sizes as for `MaxPool2d`. Padding counts as zeros, or with ``count_include_pad=False`` not at
    all. Raises a ShapeError (a ValueError) for sizes that do not fit, and for other values of
    ``ceil_mode`` and ``divisor_override``.

    >>> AvgPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self._windows(kernel_size, stride, padding)
        given = {"ceil_mode": (ceil_mode, False), "divisor_override": (divisor_override, None)}
        only("AvgPool2d", "write it with mb.ops.windows", **given)
        self.count_include_pad = count_include_pad

    def forward(self, x: Any) -> Any:
        """Take the average of each window of ``x``."""
        return functional.avg_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            count_include_pad=self.count_include_pad,
        )
