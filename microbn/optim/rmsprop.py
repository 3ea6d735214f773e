"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..kernels import Array
from ..tensor import Tensor
from .optimizer import Memory, Optimizer, within


class RMSprop(Optimizer):
    """Steps of about ``lr`` in every coordinate: the gradient divided by its root mean square.

    For each parameter p with gradient g, and averages that begin at 0::

        g = g + weight_decay * p
        square_avg = alpha * square_avg + (1 - alpha) * g**2
        grad_avg = alpha * grad_avg + (1 - alpha) * g                    with centered
        rms = sqrt(square_avg)                    or, with centered, sqrt(square_avg - grad_avg**2)
        buffer = momentum * buffer + g / (rms + eps)
        p = p - lr * buffer

    Tieleman & Hinton 2012, "Neural Networks for Machine Learning", lecture 6.5e; ``centered`` and
    ``momentum`` are from Graves 2013, arXiv:1308.0850, section 4.2, with eps outside the root as
    in PyTorch. Where rounding makes the centered variance negative it counts as 0 (in PyTorch p
    becomes NaN). Raises a ShapeError (a ValueError) for a negative lr, eps or weight_decay, and
    for an alpha or a momentum outside [0, 1].

    >>> from microbn.nn import Parameter
    >>> p = Parameter([1.0, 200.0])
    >>> optimizer = RMSprop([p], lr=0.01)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p.data.round(3)
    array([  0.9, 199.9])
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.alpha = within("alpha", alpha, most=1)
        self.eps = within("eps", eps)
        self.weight_decay = within("weight_decay", weight_decay)
        self.momentum = within("momentum", momentum, most=1)
        self.centered = centered

    def start(self, p: Array) -> Memory:
        """Remember the averages, and with momentum the buffer."""
        used = {"square_avg": True, "grad_avg": self.centered, "momentum_buffer": self.momentum}
        return {name: np.zeros_like(p) for name, on in used.items() if on}

    def direction(self, p: Array, g: Array, state: Memory) -> Array:
        """Return the gradient divided by its root mean square, with momentum summed up."""
        if self.weight_decay:
            g = g + self.weight_decay * p
        state["square_avg"] *= self.alpha
        state["square_avg"] += (1 - self.alpha) * g * g
        mean_square = state["square_avg"]
        if self.centered:
            state["grad_avg"] *= self.alpha
            state["grad_avg"] += (1 - self.alpha) * g
            mean_square = np.maximum(mean_square - state["grad_avg"] ** 2, 0)
        scaled = g / (np.sqrt(mean_square) + self.eps)
        if not self.momentum:
            return scaled
        state["momentum_buffer"] *= self.momentum
        state["momentum_buffer"] += scaled
        return state["momentum_buffer"]
