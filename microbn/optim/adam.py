"""Adam, and AdamW, whose weight decay is no part of the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..errors import OperandError
from ..kernels import Array
from ..tensor import Tensor
from .optimizer import Memory, Optimizer, within


class Adam(Optimizer):
    """Steps of at most about ``lr``: the average gradient over its root mean square.

    For each parameter p with gradient g, at its step t = 1, 2, ..., and averages that begin at 0,
    which the divisions by ``1 - beta**t`` make up for::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        p = p - lr * m_hat / (sqrt(v_hat) + eps)

    Kingma & Ba 2015, arXiv:1412.6980, algorithm 1. With ``amsgrad`` the largest v so far takes the
    place of v in v_hat: Reddi et al. 2018, "On the convergence of Adam and beyond", algorithm 2,
    with the division as in PyTorch. ``state`` holds PyTorch's names: ``step`` (t), ``exp_avg``
    (m), ``exp_avg_sq`` (v), ``max_exp_avg_sq``. Raises a ShapeError (a ValueError) for a negative
    lr, eps or weight_decay and for betas outside [0, 1), an OperandError (a TypeError) for betas
    that are not two numbers.

    >>> from microbn.nn import Parameter
    >>> p = Parameter([1.0, 200.0])
    >>> optimizer = Adam([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p.data.round(3)
    array([  0.9, 199.9])
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise OperandError(f"betas={betas!r} must be two numbers, such as (0.9, 0.999)")
        self.betas = (within("betas[0]", betas[0], below=1), within("betas[1]", betas[1], below=1))
        self.eps = within("eps", eps)
        self.weight_decay = within("weight_decay", weight_decay)
        self.amsgrad = amsgrad

    def start(self, p: Array) -> Memory:
        """Remember how many steps there were, and the averages."""
        names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * self.amsgrad
        return {"step": 0, **{name: np.zeros_like(p) for name in names}}

    def direction(self, p: Array, g: Array, state: Memory) -> Array:
        """Return the average gradient over its root mean square."""
        if self.weight_decay:
            g = g + self.weight_decay * p
        return self._scaled(g, state)

    def _scaled(self, g: Array, state: Memory) -> Array:
        beta1, beta2 = self.betas
        state["step"] += 1
        state["exp_avg"] *= beta1
        state["exp_avg"] += (1 - beta1) * g
        state["exp_avg_sq"] *= beta2
        state["exp_avg_sq"] += (1 - beta2) * g * g
        v = state["exp_avg_sq"]
        if self.amsgrad:
            v = state["max_exp_avg_sq"] = np.maximum(state["max_exp_avg_sq"], v)
        # The corrections are Python numbers; two roots, since v / (1 - beta2**t) could overflow.
        m_hat = state["exp_avg"] / (1 - beta1 ** state["step"])
        root = np.sqrt(v) / math.sqrt(1 - beta2 ** state["step"])
        return m_hat / (root + self.eps)


class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by itself, whatever the gradient's size.

    As `Adam`, but weight_decay is no part of g. In its place::

        p = p - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * p)

    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2, with lr in front of both terms as in
    PyTorch (the paper's schedule multiplier is 1, its lambda is lr * weight_decay here). Raises
    what `Adam` raises.

    >>> from microbn.nn import Parameter
    >>> p = Parameter([1.0, 200.0])
    >>> optimizer = AdamW([p], lr=0.1, weight_decay=0.5)
    >>> (p * 0).sum().backward()
    >>> optimizer.step()
    >>> p.data
    array([  0.95, 190.  ])
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)

    def direction(self, p: Array, g: Array, state: Memory) -> Array:
        """Return Adam's direction without decay, and the parameter's own share beside it."""
        return self._scaled(g, state) + self.weight_decay * p
