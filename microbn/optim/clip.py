"""Clipping: gradients that are too long together are made shorter, in the same direction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import GradientError, OperandError, ShapeError
from ..kernels import Array
from ..tensor import Tensor
from .optimizer import leaves


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients by one number, so that their norm is at most ``max_norm``; return it.

    The norm, of order ``norm_type``, is that of all the entries of all gradients taken together,
    before scaling; ``max_norm=math.inf`` only measures it. The gradients are multiplied, in place,
    by ``min(1, max_norm / (norm + 1e-6))``, as by PyTorch's `torch.nn.utils.clip_grad_norm_`
    (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1). A parameter is skipped if it has no
    gradient or does not require one, and counts once. Where a gradient is not finite, all become
    NaN or 0, or with ``error_if_nonfinite`` a GradientError (a RuntimeError) is raised and none
    has changed. Raises a ShapeError (a ValueError) for a max_norm that is negative or NaN, for an
    order that is not positive, and for no parameters; an OperandError (a TypeError) for what is no
    Tensor or no number.

    >>> from microbn.nn import Parameter
    >>> p, q = Parameter([1.0]), Parameter([1.0])
    >>> (3 * p + 4 * q).sum().backward()
    >>> clip_grad_norm_([p, q], max_norm=1.0), p.grad.round(3), q.grad.round(3)
    (5.0, array([0.6]), array([0.8]))
    """
    given = leaves([parameters] if isinstance(parameters, Tensor) else parameters, "clip")
    for name, value in (("max_norm", max_norm), ("norm_type", norm_type)):
        if not isinstance(value, int | float | np.integer | np.floating):
            raise OperandError(f"clip_grad_norm_: {name}={value!r} must be a number")
    if not max_norm >= 0:
        raise ShapeError(f"clip_grad_norm_: max_norm={max_norm!r} must be 0 or a positive number")
    if not norm_type > 0:
        raise ShapeError(
            f"clip_grad_norm_: norm_type={norm_type!r} must be positive, such as 1, 2 or math.inf"
        )
    reached = [p for p in dict.fromkeys(given) if p.requires_grad and p.grad is not None]
    norm = _norm([p.grad for p in reached], float(norm_type))
    if error_if_nonfinite and not math.isfinite(norm):
        raise GradientError(
            f"the norm of the gradients is {norm}, so they cannot be clipped; look for the "
            "gradient that is not finite, or lower the learning rate"
        )
    scale = float(max_norm) / (norm + 1e-6)
    if not scale >= 1:
        with np.errstate(invalid="ignore"):  # infinity times 0, as announced
            for p in reached:
                p._grad *= scale  # type: ignore[operator]
    return norm


def _norm(gradients: Sequence[Array], order: float) -> float:
    """Return the norm of all entries, which neither overflows nor vanishes before it must.

    The sum is of entries divided by the largest, in float64.
    """
    largest = np.max([np.float64(np.max(np.abs(g), initial=0)) for g in gradients], initial=0)
    if order == math.inf or not 0 < largest < math.inf:
        return float(largest)
    with np.errstate(over="ignore"):
        total = np.sum([np.sum(np.abs(g / largest) ** order) for g in gradients])
        return float(largest * total ** (1 / order))
