"""Precise statistics: what batch norm uses after training, measured anew.

The running statistics are averages over the last batches, while the weights were still changing.
Here the weights stand still, and the statistics are those of all the examples given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..context import no_grad
from ..errors import OperandError, ShapeError, describe
from ..kernels import Array
from .module import Module
from .running import BatchNorm


class Moments:
    """How many numbers were seen, their mean, and the sum of the squared distances from it."""

    def __init__(self) -> None:
        self.count = self.batches = 0
        self.mean: Array = 0.0
        self.squares: Array = 0.0

    def add(self, mean: Array, var: Array, count: int) -> None:
        """Join a batch of ``count`` numbers with this mean and biased variance.

        Exact, and without the cancellation of E[x^2] - E[x]^2: Chan, Golub & LeVeque 1979,
        "Updating formulae and a pairwise algorithm for computing sample variances".
        """
        total = self.count + count
        apart = np.asarray(mean, np.float64).ravel() - self.mean
        squares = np.asarray(var, np.float64).ravel() * count
        self.squares = self.squares + squares + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count, self.batches = total, self.batches + 1


def update_batch_norm(model: Module, batches: Iterable[Any]) -> None:
    """Set the running statistics of every batch norm in ``model`` to those of the batches.

    Each batch is an input of the model, or a tuple or list that begins with one. The batch norms
    normalise each batch by itself, as in training, and everything else behaves as in use: dropout
    drops nothing. Then ``running_mean`` and ``running_var`` are the mean and the unbiased variance
    of all that a layer was given in all batches (the variance of the batch means is in it, and
    larger batches count more), and ``num_batches_tracked`` the number of batches. Wu & Johnson
    2021, arXiv:2105.07576, section 3 ("PreciseBN"), aggregated as by the population variance
    estimator of its authors' library fvcore, times ``n / (n - 1)``, so that one batch gives what
    training with momentum 1 does.

    Nothing else changes: no weight, no momentum, no mode; and if a batch fails, nothing at all. A
    batch norm without running statistics, or that the batches do not reach, stays as it is. Raises
    an OperandError (a TypeError) for anything but a Module, a ShapeError (a ValueError) if there
    are no batches, and whatever the model raises.

    >>> from microbn.nn import BatchNorm1d
    >>> layer = BatchNorm1d(1)
    >>> update_batch_norm(layer, [np.array([[1.0], [3.0]]), np.array([[5.0], [7.0]])])
    >>> layer.running_mean, layer.running_var, layer.num_batches_tracked
    (array([4.], dtype=float32), array([6.6666665], dtype=float32), array(2))
    """
    if not isinstance(model, Module):
        raise OperandError(f"update_batch_norm takes a Module, not {describe(model)}")
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.running_mean is not None]
    moments = [Moments() for _ in norms]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for norm, seen in zip(norms, moments, strict=True):
            norm.train()
            vars(norm)["_track"] = seen.add  # it tells these, and leaves its own as they are
        _run(model, batches)
    finally:
        for norm in norms:
            vars(norm).pop("_track", None)
        for module, mode in modes:
            module.training = mode
    for norm, seen in zip(norms, moments, strict=True):
        if seen.batches:
            _adopt(norm, seen)


def _run(model: Module, batches: Iterable[Any]) -> None:
    """Give the model every batch; what it returns is not needed."""
    none = True
    with no_grad():
        for batch in batches:
            model(batch[0] if isinstance(batch, tuple | list) else batch)
            none = False
    if none:
        raise ShapeError("update_batch_norm: there are no batches to take statistics of")


def _adopt(norm: BatchNorm, seen: Moments) -> None:
    """Give a batch norm the statistics of what it has seen."""
    kept = norm.running_mean.dtype
    norm.running_mean = seen.mean.astype(kept)
    norm.running_var = (seen.squares / (seen.count - 1)).astype(kept)
    norm.num_batches_tracked = np.array(seen.batches)
