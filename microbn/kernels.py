"""Faster equivalents of some NumPy functions, each with the same values up to rounding.

Nothing here knows about gradients, and the table of primitives reads the same without this module:
``FASTER`` maps a NumPy function to what an `Op` calls in its place. Two facts are behind all of it.
Python's operators are ten times as fast as ufuncs on NumPy scalars, and a product with a vector of
ones (BLAS) sums the columns of a matrix in half the time of `numpy.sum`. Where a shortcut does not
apply, NumPy's own function does the work, so that foreign arrays and odd layouts are served too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import lru_cache
from sys import getrefcount
from typing import Any

import numpy as np

Array = Any  # a NumPy array or scalar, or a foreign array that speaks NumPy's protocols
Axis = int | tuple[int, ...] | None
Pair = tuple[int, int]


@lru_cache(maxsize=64)
def _row(entry: int, n: int, char: str) -> Array:
    row = np.full(n, entry, char)
    row.flags.writeable = False
    return row


def _column_sum(x: Array, axis: Axis) -> Array | None:
    """Sum the columns of ``x`` by BLAS if it takes ``x`` as it is, a contiguous float matrix."""
    if axis != 0 or type(axis) is not int or type(x) is not np.ndarray or x.ndim != 2:
        return None
    char = x.dtype.char
    return _row(1, len(x), char).dot(x) if char in "fd" and x.flags.forc else None


def sum(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """`numpy.sum`; the columns of a float matrix are summed by BLAS."""
    total = _column_sum(x, axis)
    if total is not None:
        return total[None] if keepdims else total
    if type(x) is np.ndarray:
        return np.add.reduce(x, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]
    return np.sum(x, axis=axis, keepdims=keepdims)


def mean(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """`numpy.mean`; the columns of a float matrix are summed by BLAS.

    Along an axis the mean of equal numbers is that number: what batch norm makes of a constant
    column is then 0, and not what the sum's rounding is over the root of eps.

    >>> float(mean(np.full((3, 1), 0.1), axis=0)[0]), float(np.full(3, 0.1).sum() / 3)
    (0.1, 0.10000000000000002)
    """
    total = _column_sum(x, axis) if x.size else None
    if total is None:
        total = np.mean(x, axis=axis, keepdims=keepdims)
        if axis is not None and type(x) is np.ndarray and x.size and x.dtype.kind == "f":
            return _of_equals(x, axis, keepdims, total)
        return total
    total /= len(x)
    if np.count_nonzero(x[0] == x[-1]):  # seldom
        total = np.where((x == x[0]).all(0), x[0], total)
    return total[None] if keepdims else total


def _of_equals(x: Array, axis: Any, keepdims: bool, mean: Array) -> Array:
    """Replace the mean by the number itself wherever all that it was taken of are equal."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    ends = [[slice(None)] * x.ndim, [slice(None)] * x.ndim]
    for a in axes:
        ends[0][a], ends[1][a] = slice(0, 1), slice(-1, None)
    first = x[tuple(ends[0])]
    if not np.count_nonzero(first == x[tuple(ends[1])]):
        return mean
    equal = (x == first).all(axis=axes, keepdims=keepdims)
    value = first if keepdims else first.reshape(np.shape(mean))
    return np.where(equal, value, mean)[()]


def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """`numpy.broadcast_to`: a read-only view, whose repeated axes have stride 0."""
    if isinstance(x, np.generic):
        x = np.asarray(x)
    if type(x) is not np.ndarray or type(shape) is not tuple:
        return np.broadcast_to(x, shape)
    missing = len(shape) - x.ndim
    if x.shape != shape[missing:] or not x.flags.c_contiguous or not x.size:
        return np.broadcast_to(x, shape)
    view: Array = np.ndarray(shape, x.dtype, x, 0, (0,) * missing + x.strides)
    view.flags.writeable = False
    return view


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum ``x`` over the axes along which an array of ``shape`` was repeated: broadcast, reversed.

    >>> sum_to(np.ones((4, 3)), (3,)), sum_to(np.ones((4, 3)), (4, 1)).shape
    (array([4., 4., 4.]), (4, 1))
    """
    if x.shape[1:] == shape:  # the commonest: repeated along one new axis in front
        return sum(x, 0)
    extra = x.ndim - len(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, x.shape[extra:], strict=True)):
        raise ValueError(f"{tuple(x.shape)} is not what an array of shape {shape} broadcasts to")
    stretched = [a + extra for a, n in enumerate(shape) if n == 1 != x.shape[a + extra]]
    return np.sum(x, axis=(*range(extra), *stretched), keepdims=True).reshape(shape)


def array(x: Any) -> Array:
    """Return ``x`` as an array if it is a list or a number, and as it is if it has axes."""
    return x if hasattr(x, "ndim") else np.asarray(x)


def floating(x: Any) -> Array:
    """Return `array` of ``x``, with floats for integers, which would wrap."""
    x = array(x)
    return x.astype(np.float64) if x.dtype.kind in "biu" else x


def relu(x: Array) -> Array:
    """``max(x, 0)``, NaN where ``x`` is NaN; twice as fast with a row of zeros as with one."""
    if type(x) is np.ndarray and x.ndim and x.dtype.char in "fd":
        return np.maximum(x, _row(0, x.shape[-1], x.dtype.char))
    if isinstance(x, np.floating):  # for numbers, Python compares faster
        return type(x)(0) if x <= 0 else x
    return np.maximum(x, 0)


def take(x: Array, key: Any) -> Array:
    """``x[key]``."""
    return x[key]


def scatter(x: Array, key: Any, shape: tuple[int, ...]) -> Array:
    """Zeros of ``shape`` with ``x`` added at ``key``; an index that is repeated adds repeatedly.

    >>> scatter(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 2]), (4,))
    array([3., 0., 3., 0.])
    """
    out = np.zeros_like(x, shape=shape)
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, np.ndarray) and k.dtype.kind != "b" for k in parts):
        np.add.at(out, key, x)
    else:  # slices, integers and masks meet each element once
        out[key] = x
    return out


def windows(x: Array, size: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Array:
    """Every window over the last two axes, (..., h, w) -> (..., oh, ow, kh, kw), without copying.

    Windows begin ``stride`` apart, and their entries lie ``dilation`` apart. The view is read-only.

    >>> windows(np.arange(12).reshape(3, 4), (2, 2), stride=(1, 2))[0, 1]
    array([[2, 3],
           [6, 7]])
    """
    if any(len(pair) != 2 or min(pair) < 1 for pair in (size, stride, dilation)):
        raise ValueError("size, stride and dilation are pairs of integers from 1")
    (sh, sw), (dh, dw) = stride, dilation
    reach = dh * (size[0] - 1) + 1, dw * (size[1] - 1) + 1
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(-2, -1))
    return view[..., ::sh, ::sw, ::dh, ::dw]


def fold(x: Array, shape: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Array:
    """Add windows up where they lie in images of ``shape``: `windows`, reversed.

    >>> fold(np.ones((2, 2, 2, 2)), (3, 3))
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    oh, ow, kh, kw = x.shape[-4:]
    (h, w), (sh, sw), (dh, dw) = shape, stride, dilation
    if (oh, ow) != ((h - dh * (kh - 1) - 1) // sh + 1, (w - dw * (kw - 1) - 1) // sw + 1):
        raise ValueError(f"images of {h} by {w} do not have {oh} by {ow} such windows")
    out = np.zeros_like(x[..., 0, 0], shape=(*x.shape[:-4], h, w))  # laid out in memory as x is
    for i, j in np.ndindex(kh, kw):
        rows, columns = slice(i * dh, i * dh + sh * oh, sh), slice(j * dw, j * dw + sw * ow, sw)
        out[..., rows, columns] += x[..., i, j]
    return out


def clip(x: Array, min: Any = None, max: Any = None) -> Array:
    """`numpy.clip`, each bound under one name."""
    return np.clip(x, min, max)


def pad(x: Array, pad_width: Any, constant_values: Any = 0) -> Array:
    """`numpy.pad` with constants."""
    return np.pad(x, pad_width, constant_values=constant_values)


def concatenate(*arrays: Array, axis: int = 0) -> Array:
    """`numpy.concatenate`, the arrays as arguments of their own."""
    return np.concatenate(arrays, axis=axis)


def stack(*arrays: Array, axis: int = 0) -> Array:
    """`numpy.stack`, the arrays as arguments of their own."""
    return np.stack(arrays, axis=axis)


def astype(x: Array, dtype: Any) -> Array:
    """`numpy.astype` for arrays and scalars."""
    return x.astype(dtype)


def count(x: Array, axis: Axis = None) -> int:
    """How many entries of ``x`` are reduced into one along ``axis``."""
    if axis is None:
        return int(x.size)
    return math.prod(x.shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))


def add(a: Array, b: Array) -> Array:
    """``a + b``, in the memory of ``a`` if the caller has handed over the only reference to it.

    A fresh 16 MiB array costs more than adding up its entries. CPython counts references, so an
    array that is used anywhere else (in a dict, a frame, as the base of a view) counts more than
    one that only came in as an argument; NumPy tells the temporaries of an expression in the same
    way. ``b`` has the shape and dtype of ``a``.
    """
    if type(a) is np.ndarray and a.base is None and getrefcount(a) == _ALONE:
        return np.add(a, b, out=a)
    return a + b


def _references(a: Array) -> int:
    return getrefcount(a)


_ALONE = _references(np.empty(1))  # differs between versions of Python


def is_transposed(x: Array) -> bool:
    """Whether ``x`` lies in memory column by column; then so should its gradient."""
    x = getattr(x, "_data", x)  # of a Tensor as well, so that a rule computes the same with it
    return type(x) is np.ndarray and x.flags.fnc


def own(g: Array, seen: set[int]) -> Array:
    """Return ``g``, or a copy if it shares memory with anything else; ``seen`` was given out."""
    is_view = getattr(g, "base", None) is not None
    if id(g) in seen or (is_view and not _is_only_view(g)):
        g = g.copy()
    seen.add(id(g))
    return g


def _is_only_view(g: Array) -> bool:
    """Whether ``g`` shows, each entry once, all of an array to which nothing else refers."""
    return (
        type(g.base) is np.ndarray
        and _references_to_base(g) == _ALONE_AS_BASE
        and g.size == g.base.size
        and g.flags.writeable
    )


def _references_to_base(g: Array) -> int:
    return getrefcount(g.base)


_ALONE_AS_BASE = _references_to_base(np.empty(1)[:])


FASTER: dict[Any, Callable[..., Array]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.negative: operator.neg,
    np.power: operator.pow,
    np.absolute: operator.abs,
    np.matmul: operator.matmul,
    np.sum: sum,
    np.mean: mean,
}
