"""Data: the two sets that ship with the package, and rows in batches or split in two.

The sets are four students to follow by hand, and digits to train on. Every call returns fresh
arrays, so writing into them harms nobody else.
"""

from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .rows import batches, split

__all__ = ["Digits", "Students", "batches", "digits", "split", "students"]


class Students(NamedTuple):
    """Four students, two features each, and whether each was placed."""

    features: NDArray[np.float64]  # (4, 2)
    labels: NDArray[np.int64]  # (4,), 1 if placed
    names: tuple[str, str]  # of the columns of features
    target: str  # what labels say


class Digits(NamedTuple):
    """Handwritten digits, split into images to train on and images to test on."""

    x_train: NDArray[np.float32]  # (1442, 64), from 0 (paper) to 1 (ink)
    y_train: NDArray[np.int64]  # (1442,), 0 to 9
    x_test: NDArray[np.float32]  # (355, 64)
    y_test: NDArray[np.int64]  # (355,)


def students() -> Students:
    """Return the worked example: a mini-batch of four students, small enough to follow by hand.

    >>> cgpa, iq = students().features.T
    >>> cgpa.mean(), iq.mean(), cgpa.var(), iq.var()
    (np.float64(7.5), np.float64(75.0), np.float64(1.25), np.float64(125.0))
    """
    return Students(
        features=np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]]),
        labels=np.array([1, 0, 1, 0], dtype=np.int64),
        names=("cgpa", "iq"),
        target="placed",
    )


def digits() -> Digits:
    """Return 1,797 handwritten digits of 8 x 8 pixels, each image a row of 64 numbers from 0 to 1.

    The split is stored with the images: every fifth image of each class is for testing, so it is
    stratified and never depends on a random generator. README.md beside this file has the source
    (UCI, Alpaydin & Kaynak 1998, CC BY 4.0) and what was changed.

    >>> x_train, y_train, x_test, y_test = digits()
    >>> x_train.shape, x_test.shape, x_train.dtype
    ((1442, 64), (355, 64), dtype('float32'))
    >>> print((16 * x_train[0]).astype(int).reshape(8, 8), y_train[0])
    [[ 0  0  5 13  9  1  0  0]
     [ 0  0 13 15 10 15  5  0]
     [ 0  3 15  2  0 11  8  0]
     [ 0  4 12  0  0  8  8  0]
     [ 0  5  8  0  0  9  8  0]
     [ 0  4 11  0  1 12  7  0]
     [ 0  2 14  5 10 12  0  0]
     [ 0  0  6 13 10  0  0  0]] 0
    """
    file = files(__name__).joinpath("digits.npz")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        images, labels, test = stored["images"], stored["labels"], stored["test"]
    x = images.astype(np.float32) / 16
    y = labels.astype(np.int64)
    return Digits(x[~test], y[~test], x[test], y[test])
