"""Arrays of equal length whose rows belong together: in batches, and split in two."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dispatch import plain
from ..errors import OperandError, ShapeError, describe
from ..kernels import Array

Seed = np.random.Generator | int | None
Rows = tuple[Any, ...]  # the same rows of every array


class batches:
    """The rows of ``arrays``, ``batch_size`` at a time, in a fresh order each time.

    Go through it with ``for``, as often as there are epochs: each batch is a tuple with one array
    for each of ``arrays``, copies that share nothing with them. All rows come once; the last batch
    may be smaller, or is left out with ``drop_last``. ``shuffle=False`` keeps the order. ``rng``,
    a NumPy generator or a seed, makes the orders reproducible. ``len`` is the number of batches.

    The arrays have the same length along their first axis; lists become arrays, Tensors and
    arrays of other libraries stay what they are. Warns if the last of several batches would have
    a single row, which a batch norm cannot be trained on. Raises a ShapeError (a ValueError) for
    no arrays, for lengths that differ or are 0, for a batch_size below 1, and if drop_last would
    leave no batch; an OperandError (a TypeError) for what is no array, and a batch_size that is no
    integer.

    >>> x, y = np.arange(10).reshape(5, 2), np.arange(5)
    >>> for x_batch, y_batch in batches(x, y, batch_size=3, rng=0):
    ...     print(x_batch.shape, y_batch)
    (3, 2) [2 4 3]
    (2, 2) [0 1]
    """

    def __init__(
        self,
        *arrays: Any,
        batch_size: int = 32,
        shuffle: bool = True,
        drop_last: bool = False,
        rng: Seed = None,
    ) -> None:
        self.arrays, rows = _check("batches", arrays)
        try:
            self.batch_size = operator.index(batch_size)
        except TypeError as error:
            raise OperandError(f"batches: batch_size={batch_size!r} must be an integer") from error
        if self.batch_size < 1:
            raise ShapeError(f"batches: batch_size={batch_size!r} must be at least 1")
        if drop_last and rows < self.batch_size:
            raise ShapeError(
                f"batches: drop_last would leave no batch, since there are {rows} rows and "
                f"batch_size={batch_size!r}; make it smaller"
            )
        if rows % self.batch_size == 1 and rows > 1 and not drop_last:
            warnings.warn(
                f"the last of {rows // self.batch_size + 1} batches has one row, on which a batch "
                "norm cannot be trained; leave it out with drop_last=True, or change batch_size",
                stacklevel=2,
            )
        self.shuffle, self.drop_last = shuffle, drop_last
        self._rows, self._rng = rows, np.random.default_rng(rng)

    def __len__(self) -> int:
        rest = 0 if self.drop_last else self.batch_size - 1
        return (self._rows + rest) // self.batch_size

    def __iter__(self) -> Iterator[Rows]:
        """Draw the order now, and take the rows when they are asked for."""
        order = self._rng.permutation(self._rows) if self.shuffle else np.arange(self._rows)
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return (_take(self.arrays, order[k : k + self.batch_size]) for k in starts)


def split(
    *arrays: Any, test: float = 0.2, rng: Seed = None, stratify: Any = None
) -> tuple[Rows, Rows]:
    """Draw rows to test on, and return the others and these: two tuples, one entry per array.

    ``test`` is a share between 0 and 1, rounded to whole rows, or a number of rows. Both parts
    keep the order of their rows, and are copies. With ``stratify``, labels (n,), each class has
    its share of the rows to test on, up to less than one row. ``rng``, a NumPy generator or a
    seed, makes it reproducible. The arrays are as in `batches`.

    Raises a ShapeError (a ValueError) for no arrays, for lengths that differ or are 0, for a
    ``test`` that leaves one part empty, for labels of another shape and for a class of one row;
    an OperandError (a TypeError) for what is no array, and a ``test`` that is no number.

    >>> x, y = np.arange(10), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    >>> (x_train, y_train), (x_test, y_test) = split(x, y, test=0.5, rng=0, stratify=y)
    >>> x_test, y_test
    (array([1, 2, 5, 7, 8]), array([0, 0, 0, 1, 1]))
    """
    arrays, rows = _check("split", arrays)
    count, rng = _count(test, rows), np.random.default_rng(rng)
    order = rng.permutation(rows)
    if stratify is not None:  # class after class, each in random order
        order = order[np.argsort(_classes(stratify, rows)[order], kind="stable")]
    # Positions at equal distances: as many of them in a class as its length asks for.
    positions = (np.arange(count) * rows + rng.integers(rows)) // count
    chosen = np.zeros(rows, bool)
    chosen[order[positions]] = True
    return _take(arrays, ~chosen), _take(arrays, chosen)


def _take(arrays: Rows, rows: Array) -> Rows:
    return tuple(a[rows] for a in arrays)


def _check(name: str, arrays: Rows) -> tuple[Rows, int]:
    """Return ``arrays`` as arrays, and how many rows they have, or say what is wrong with them."""
    if not arrays:
        raise ShapeError(f"{name}() needs arrays whose rows belong together, such as x and y")
    given, arrays = arrays, tuple(_as_array(name, a) for a in arrays)
    what = f"{name}({', '.join(describe(a) for a in arrays)})"
    for original, a in zip(given, arrays, strict=True):
        if not a.shape:
            raise OperandError(
                f"{name}: {describe(original)} is no array with rows (options are given by name, "
                "such as rng=0)"
            )
    lengths = {int(a.shape[0]) for a in arrays}
    if len(lengths) > 1:
        raise ShapeError(f"{what}: the first axes must be equally long, one row for each example")
    if lengths == {0}:
        raise ShapeError(f"{what}: there are no rows")
    return arrays, lengths.pop()


def _as_array(name: str, given: Any) -> Array:
    if hasattr(given, "__array_function__"):
        return given
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OperandError(f"{name}: {describe(given)} is no array: {error}") from error


def _count(test: Any, rows: int) -> int:
    """Return how many rows to test on."""
    if isinstance(test, bool) or not isinstance(test, int | float | np.integer | np.floating):
        raise OperandError(f"split: test={test!r} must be a number")
    share = isinstance(test, float | np.floating)
    if share and not 0 < test < 1:
        raise ShapeError(
            f"split: test={test!r} must lie between 0 and 1 as a share, or be an integer, a "
            "number of rows"
        )
    count = round(test * rows) if share else int(test)
    if not 0 < count < rows:
        raise ShapeError(
            f"split: test={test!r} of {rows} rows leaves {'all' if count > 0 else 'none'} to test "
            "on; both parts need at least one"
        )
    return count


def _classes(labels: Any, rows: int) -> Array:
    """Return the labels as the numbers 0, 1, ... of their classes."""
    labels = np.asarray(plain(labels))
    if labels.shape != (rows,):
        raise ShapeError(
            f"split: stratify is {describe(labels)}; it must be one label for each row, ({rows},)"
        )
    classes, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise ShapeError(
            f"split: class {classes[counts.argmin()].item()!r} has one row, which cannot be on "
            "both sides; leave it out, or do not stratify"
        )
    return numbers
