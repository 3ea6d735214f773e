"""What all update rules have in common; a rule is one function, from a gradient to a step."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

import numpy as np

from ..errors import OperandError, ShapeError, describe
from ..kernels import Array
from ..tensor import Tensor


class Optimizer:
    """The base of all update rules: ``p -= lr * direction`` for every parameter with a gradient.

    A rule writes `direction`, and puts what it must remember from step to step into ``state``, a
    dict per parameter. ``lr`` may be changed between steps. Raises an OperandError (a TypeError)
    for what is no Tensor, a ShapeError (a ValueError) for no parameters, for one that is given
    twice or is the result of an op, and for a negative rate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        if isinstance(params, Tensor):
            raise OperandError(f"params is {describe(params)}; give a list of parameters: [p]")
        self.params = list(params)
        if not self.params:
            raise ShapeError("there are no parameters to optimise (an iterator that is used up?)")
        for p in self.params:
            if not isinstance(p, Tensor):
                raise OperandError(
                    f"cannot optimise {describe(p)}: it is no Parameter; pass model.parameters()"
                )
            if p.op is not None:
                raise ShapeError(
                    f"cannot optimise {describe(p)}: it is the result of {p.op.name}, and only "
                    "leaves learn; optimise what it was computed from"
                )
        if len(set(self.params)) < len(self.params):
            raise ShapeError("a parameter is given twice, and would be updated twice in a step")
        self.lr = within("lr", lr)
        self.state: list[dict[str, Any]] = [{} for _ in self.params]

    def direction(self, p: Array, g: Array, state: dict[str, Any]) -> Array:
        """Return what to go against: from the values of a parameter, its gradient and its state.

        ``p`` and ``g`` are to be read only; the arrays in ``state`` are the rule's own.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs a method direction(self, p, g, state)"
        )

    def step(self) -> None:
        """Update every parameter whose gradient is not None.

        New arrays take the place of the old, to which earlier graphs and detached Tensors refer.
        """
        for p, state in zip(self.params, self.state, strict=True):
            g = p.grad
            if g is not None:
                step = self.lr * self.direction(p._data, g, state)
                p._hold((p._data - step).astype(p.dtype, copy=False))

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self.params:
            p.grad = None


def within(name: str, value: Any, most: float = inf) -> float:
    """Return the hyperparameter as a Python number, which lets float32 stay float32.

    >>> within("momentum", 2, most=1)
    Traceback (most recent call last):
    microbn.errors.ShapeError: momentum=2 must lie in [0, 1]
    """
    if not isinstance(value, int | float | np.integer | np.floating):
        raise OperandError(f"{name}={value!r} must be a number")
    if not 0 <= value <= most or value == inf:
        allowed = f"lie in [0, {most}]" if most < inf else "be 0 or a positive number"
        raise ShapeError(f"{name}={value!r} must {allowed}")
    return float(value)
