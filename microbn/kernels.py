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
    """`numpy.mean`; the columns of a float matrix are summed by BLAS."""
    total = _column_sum(x, axis) if x.size else None
    if total is None:
        return np.mean(x, axis=axis, keepdims=keepdims)
    total /= len(x)
    return total[None] if keepdims else total


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
