"""Convolution and pooling: what looks at an image through windows.

`ops.windows` cuts them out, and its transpose `ops.fold` carries gradients back; what is done with
a window is ordinary array code. As everything that `functional` offers, it is plain NumPy code:
given Tensors it is recorded, given arrays it just computes. The conventions are PyTorch's.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from . import kernels, ops
from .context import scope, value
from .errors import OperandError, ShapeError, describe
from .kernels import Pair

Size = int | tuple[int, int]


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Any:
    """Slide filters over images, and take the inner product with each window.

    That is the sum of ``x[n, c, row + i, column + j] * weight[o, c, i, j]`` over c, i and j, plus
    ``bias[o]``. ``x`` has shape (n, c, h, w) or (c, h, w), ``weight`` (o, c / groups, kh, kw),
    ``bias`` (o,), and the result (n, o, oh, ow) or (o, oh, ow).

    Rows and columns go by ``stride``, i and j by ``dilation``. ``padding`` zeros surround the
    images: an int, a pair, "valid" (none) or "same" (the result as large as ``x``, stride 1). The o
    filters and the c channels fall into ``groups`` that have nothing to do with one another. Raises
    a ShapeError (a ValueError) for what does not fit, an OperandError (a TypeError) for arguments
    of other types.

    All windows are the columns of one matrix, so that one product does the work. Images come last
    in it: then runs of memory are as long as the batch, not as short as a row of pixels.

    >>> image, edges = np.array([[[1.0, 1.0, 5.0, 5.0]]]), np.array([[[[-1.0, 1.0]]]])
    >>> conv2d(image, edges)
    array([[[0., 4., 0.]]])
    """
    x, weight = _images("conv2d", x), kernels.array(weight)
    _check_filters(x, weight, bias, groups)
    o, channels, kh, kw = weight.shape
    step, apart = _pair("conv2d", "stride", stride, 1), _pair("conv2d", "dilation", dilation, 1)
    margins = _margins(padding, (kh, kw), step, apart)
    _check_fit("conv2d", x, margins, (kh, kw), apart)
    with scope("conv2d"):
        images = _padded(x[None] if x.ndim == 3 else x, margins)
        windows = ops.windows(images, size=(kh, kw), stride=step, dilation=apart)
        n, _, oh, ow, *_ = windows.shape
        columns = np.transpose(windows, (1, 4, 5, 2, 3, 0))
        columns = columns.reshape(groups, channels * kh * kw, oh * ow * n)
        y = weight.reshape(groups, o // groups, channels * kh * kw) @ columns
        y = np.transpose(y.reshape(o, oh, ow, n), (3, 0, 1, 2))
        y = y if bias is None else y + np.reshape(bias, (o, 1, 1))
        return y[0] if x.ndim == 3 else y


def max_pool2d(x: Any, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Any:
    """Keep the largest entry of each window: (..., h, w) -> (..., oh, ow).

    Windows are ``kernel_size`` large and ``stride`` apart (the same, if it is None). The gradient
    goes to the first of the largest entries, row by row; NaN counts as largest. ``padding``, at
    most half of ``kernel_size``, is never kept. ``x`` is (n, c, h, w) or (c, h, w). Errors as for
    `conv2d`.

    >>> max_pool2d(np.array([[[1.0, 7.0, 2.0, 2.0], [3.0, 0.0, 2.0, 1.0]]]), 2)
    array([[[7., 2.]]])
    """
    x, size, step, margins = _pooling("max_pool2d", x, kernel_size, stride, padding)
    windows = ops.windows(_padded(value(x), margins, -np.inf), size=size, stride=step)
    first = windows.reshape(*windows.shape[:-2], size[0] * size[1]).argmax(axis=-1)
    # Where the windows begin, and in each the first of the largest. Only a window that holds
    # nothing above -inf may have found it in the padding: then it takes an entry beside that.
    row, column = np.ogrid[: first.shape[-2], : first.shape[-1]]
    rows = np.maximum(row * step[0] - margins[0][0] + first // size[1], 0)
    columns = np.maximum(column * step[1] - margins[1][0] + first % size[1], 0)
    image = (i[..., None, None] for i in np.indices(x.shape[:-2], sparse=True))
    with scope("max_pool2d"):
        return x[*image, rows, columns]


def avg_pool2d(
    x: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    *,
    count_include_pad: bool = True,
) -> Any:
    """Average each window: (..., h, w) -> (..., oh, ow).

    Windows are as in `max_pool2d`. The zeros of the padding are averaged with the rest, unless
    ``count_include_pad=False``. Errors as for `conv2d`.

    >>> avg_pool2d(np.array([[[1.0, 7.0, 2.0, 2.0], [3.0, 1.0, 2.0, 0.0]]]), 2)
    array([[[3. , 1.5]]])
    """
    x, size, step, margins = _pooling("avg_pool2d", x, kernel_size, stride, padding)

    def average(images: Any) -> Any:
        return ops.windows(_padded(images, margins), size=size, stride=step).mean(axis=(-2, -1))

    with scope("avg_pool2d"):
        y = average(x)
        return y if count_include_pad else y / average(np.ones(x.shape[-2:], x.dtype))


def _pooling(op: str, x: Any, kernel_size: Any, stride: Any, padding: Any) -> tuple[Any, ...]:
    """Check the arguments of a pooling; return x, the size, the stride and the margins."""
    x, size = _images(op, x), _pair(op, "kernel_size", kernel_size, 1)
    stride = size if stride is None else _pair(op, "stride", stride, 1)
    both = _pair(op, "padding", padding, 0)
    if any(2 * p > k for p, k in zip(both, size, strict=True)):
        raise ShapeError(
            f"{op}: padding={padding!r} must be at most half of kernel_size={kernel_size!r}, or a "
            "window could hold nothing else"
        )
    margins = [(p, p) for p in both]
    _check_fit(op, x, margins, size, (1, 1))
    return x, size, stride, margins


def _images(op: str, x: Any) -> Any:
    x = kernels.floating(x)
    if x.ndim not in (3, 4) or 0 in x.shape[-3:]:
        raise ShapeError(f"{op}({describe(x)}): x must be images (n, c, h, w), or one (c, h, w)")
    return x


def _pair(op: str, name: str, given: Any, least: int) -> Pair:
    """Return a number for each of two axes; one stands for both."""
    both = given if isinstance(given, tuple | list) else (given, given)
    try:
        first, second = (operator.index(n) for n in both)
    except (TypeError, ValueError):
        raise OperandError(f"{op}: {name}={given!r} must be an int or a pair of ints") from None
    if min(first, second) < least:
        raise ShapeError(f"{op}: {name}={given!r} must be at least {least}")
    return first, second


def _margins(padding: Any, size: Pair, stride: Pair, dilation: Pair) -> list[Pair]:
    """Return the padding (before, after) of the rows and of the columns."""
    if padding == "valid":
        padding = 0
    if padding != "same":
        if isinstance(padding, str):
            raise ShapeError(f"conv2d: padding={padding!r} must be 'same', 'valid', or an int")
        return [(p, p) for p in _pair("conv2d", "padding", padding, 0)]
    if stride != (1, 1):
        raise ShapeError(f"conv2d: padding='same' needs stride=1, not {stride}")
    total = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
    return [(t // 2, t - t // 2) for t in total]  # an odd one goes after, as in PyTorch


def _padded(x: Any, margins: list[Pair], entry: float = 0) -> Any:
    """Surround the images in ``x`` with ``entry``."""
    if not any(map(any, margins)):
        return x
    return ops.pad(x, pad_width=((0, 0),) * (x.ndim - 2) + tuple(margins), constant_values=entry)


def _check_fit(op: str, x: Any, margins: list[Pair], size: Pair, dilation: Pair) -> None:
    """Refuse windows that are larger than the padded images."""
    lengths = [n + sum(m) for n, m in zip(x.shape[-2:], margins, strict=True)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]
    if any(r > n for r, n in zip(reach, lengths, strict=True)):
        raise ShapeError(
            f"{op}({describe(x)}): windows that reach over {reach[0]} by {reach[1]} entries do not "
            f"fit into {lengths[0]} by {lengths[1]}; use a smaller kernel, or more padding"
        )


def _check_filters(x: Any, weight: Any, bias: Any, groups: Any) -> None:
    """Refuse filters that do not match the channels of ``x``, or one another."""
    given = f"conv2d({describe(x)}, {describe(weight)}): "
    if isinstance(groups, bool) or not isinstance(groups, int | np.integer):
        raise OperandError(f"{given}groups={groups!r} must be an int")
    if weight.ndim != 4 or 0 in weight.shape:
        raise ShapeError(f"{given}weight must have shape (o, c / groups, kh, kw)")
    o, c = weight.shape[0], x.shape[-3]
    if groups < 1 or o % groups or weight.shape[1] * groups != c:
        raise ShapeError(
            f"{given}weight must have shape (o, c / groups, kh, kw); here c = {c} and groups = "
            f"{groups}, which must divide o as well"
        )
    if bias is not None and np.shape(bias) != (o,):
        raise ShapeError(f"{given}bias has shape {np.shape(bias)}, and must have ({o},)")
