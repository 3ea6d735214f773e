"""What all update rules have in common; a rule is one function, from a gradient to a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

import numpy as np

from ..dispatch import plain
from ..errors import OperandError, ShapeError, describe
from ..kernels import Array
from ..tensor import Tensor

Memory = dict[str, Any]  # what a rule remembers of one parameter: name -> an array, or a number


class Optimizer:
    """The base of all update rules: ``p -= lr * direction`` for every parameter with a gradient.

    A rule writes `direction`, and `start` if it remembers something from step to step, which is
    kept in ``state``, a dict per parameter. ``lr`` may be changed between steps. Raises an
    OperandError (a TypeError) for what is no Tensor, a ShapeError (a ValueError) for no
    parameters, for one that is given twice or is the result of an op, and for a negative rate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        if isinstance(params, Tensor):
            raise OperandError(f"params is {describe(params)}; give a list of parameters: [p]")
        self.params = leaves(params, "optimise")
        if len(set(self.params)) < len(self.params):
            raise ShapeError("a parameter is given twice, and would be updated twice in a step")
        self.lr = within("lr", lr)
        self.state: list[Memory] = [{} for _ in self.params]

    def start(self, p: Array) -> Memory:
        """Return what the rule remembers of a parameter before its first step."""
        return {}

    def direction(self, p: Array, g: Array, state: Memory) -> Array:
        """Return what to go against: from the values of a parameter, its gradient and its state.

        ``p`` and ``g`` are to be read only; the arrays in ``state`` are the rule's own.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs a method direction(self, p, g, state)"
        )

    def step(self) -> None:
        """Update every parameter that requires grad and has a gradient.

        New arrays take the place of the old, to which earlier graphs and detached Tensors refer.
        """
        for p, state in zip(self.params, self.state, strict=True):
            g = p.grad
            if g is not None and p.requires_grad:
                if not state:
                    state.update(self.start(p._data))
                step = self.lr * self.direction(p._data, g, state)
                p._hold((p._data - step).astype(p.dtype, copy=False))

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self.params:
            p.grad = None

    # To go on another day -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Return copies of ``lr`` and of all that is remembered: name -> array, for `mb.save`.

        ``parameters`` is how many there are.

        What is remembered of the third parameter has keys such as ``2.velocity``. The other
        arguments are not part of it: make the optimizer with the same ones, then load.
        """
        state = {"lr": np.array(self.lr), "parameters": np.array(len(self.params))}
        for i, memory in enumerate(self.state):
            state |= {f"{i}.{name}": np.array(value) for name, value in memory.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the optimizer was whose `state_dict` this is, with its ``lr``.

        Raises a ShapeError (a ValueError) that lists every key that is missing, unexpected or
        does not fit; nothing has changed then. A parameter that had made no step has no keys.

        >>> from microbn.nn import Parameter
        >>> from microbn.optim import SGD
        >>> p = Parameter([1.0, 2.0])
        >>> optimizer, other = (SGD([p], lr=lr, momentum=0.9) for lr in (0.1, 0.2))
        >>> (p * p).sum().backward()
        >>> optimizer.step()
        >>> other.load_state_dict(optimizer.state_dict())
        >>> other.lr, other.state
        (0.1, [{'step': 1, 'velocity': array([2., 4.])}])
        """
        if not isinstance(state, Mapping):
            raise OperandError(f"a state is a dict of arrays, not {describe(state)}")
        left = {str(key): np.asarray(plain(value)) for key, value in state.items()}
        wrong: list[str] = []
        lr = _take(left, "lr", self.lr, wrong)
        count = _take(left, "parameters", len(self.params), wrong)
        if not wrong and count != len(self.params):
            wrong.append(f"it is that of {count} parameters, and here are {len(self.params)}")
        taken: list[Memory] = []
        for i, p in enumerate(self.params):
            known = any(key.startswith(f"{i}.") for key in left)
            memory = self.start(p._data) if known else {}
            taken.append({k: _take(left, f"{i}.{k}", v, wrong) for k, v in memory.items()})
        wrong += [f"unexpected: {key}" for key in left]
        if wrong:
            head = f"this state does not fit {type(self).__name__}, so nothing was loaded:"
            raise ShapeError("\n  ".join([head, *wrong]))
        self.lr, self.state = within("lr", lr), taken


def _take(left: dict[str, Array], key: str, like: Any, wrong: list[str]) -> Any:
    """Take a value out of ``left``, as an array or a number as ``like`` is; say what is wrong."""
    value = left.pop(key, None)
    if value is None:
        wrong.append(f"missing: {key}")
    elif value.dtype.kind not in "biuf":
        wrong.append(f"{key} holds {value.dtype}, not numbers")
    elif value.shape != np.shape(like):
        wrong.append(f"{key} has shape {value.shape}, not {np.shape(like)}")
    elif isinstance(like, int | float):
        return type(like)(value)
    else:
        return value.astype(like.dtype)
    return None


def leaves(params: Iterable[Tensor], purpose: str) -> list[Tensor]:
    """Return the parameters as a list, or say why one cannot be one."""
    if not isinstance(params, Iterable):
        raise OperandError(f"{describe(params)} is no list of parameters; pass model.parameters()")
    found = list(params)
    if not found:
        raise ShapeError(f"there are no parameters to {purpose} (an iterator that is used up?)")
    for p in found:
        if not isinstance(p, Tensor):
            raise OperandError(
                f"cannot {purpose} {describe(p)}: it is no Parameter; pass model.parameters()"
            )
        if p.op is not None:
            raise ShapeError(
                f"cannot {purpose} {describe(p)}: it is the result of {p.op.name}, and only "
                f"leaves learn; {purpose} what it was computed from"
            )
    return found


def within(name: str, value: Any, most: float = inf, below: float = inf) -> float:
    """Return the hyperparameter as a Python number, which lets float32 stay float32.

    >>> within("momentum", 2, most=1)
    Traceback (most recent call last):
    microbn.errors.ShapeError: momentum=2 must lie in [0, 1]
    """
    if not isinstance(value, int | float | np.integer | np.floating):
        raise OperandError(f"{name}={value!r} must be a number")
    if not 0 <= value <= most or value >= below:
        allowed = "be 0 or a positive number"
        if min(most, below) < inf:
            allowed = f"lie in [0, {most}]" if most < below else f"lie in [0, {below})"
        raise ShapeError(f"{name}={value!r} must {allowed}")
    return float(value)
