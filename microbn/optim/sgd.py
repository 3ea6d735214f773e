"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import ShapeError
from ..kernels import Array
from ..tensor import Tensor
from .optimizer import Memory, Optimizer, within


class SGD(Optimizer):
    """Gradient descent with momentum (Polyak's or Nesterov's) and weight decay, as PyTorch has it.

    For each parameter p with gradient g, velocity v (g itself at the first step)::

        g = g + weight_decay * p
        v = momentum * v + (1 - dampening) * g
        p = p - lr * v                            or, with nesterov, lr * (g + momentum * v)

    The learning rate multiplies the velocity as a whole, unlike in Sutskever et al. 2013, "On the
    importance of initialization and momentum in deep learning"; the two agree while it is
    constant. Raises a ShapeError (a ValueError) for a negative lr or weight_decay, a momentum
    outside [0, 1], and for nesterov without momentum or with dampening.

    >>> from microbn.nn import Parameter
    >>> p = Parameter([1.0, 2.0])
    >>> optimizer = SGD([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p.data
    array([0.8, 1.6])
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.momentum = within("momentum", momentum, most=1)
        self.dampening = float(dampening)
        self.weight_decay = within("weight_decay", weight_decay)
        self.nesterov = nesterov
        if nesterov and (not momentum or dampening):
            raise ShapeError("nesterov needs a momentum above 0 and no dampening")

    def start(self, p: Array) -> Memory:
        """Remember how many steps there were, and the velocity."""
        return {"step": 0, "velocity": np.zeros_like(p)} if self.momentum else {}

    def direction(self, p: Array, g: Array, state: Memory) -> Array:
        """Return the velocity, with nesterov one step ahead."""
        if self.weight_decay:
            g = g + self.weight_decay * p
        if not self.momentum:
            return g
        spared = not state["step"] or not self.dampening  # the first gradient counts in full
        state["step"] += 1
        state["velocity"] *= self.momentum
        state["velocity"] += g if spared else (1 - self.dampening) * g
        v = state["velocity"]
        return g + self.momentum * v if self.nesterov else v
