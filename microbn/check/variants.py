"""Right gradients of another function: the same computation with one stage made differently."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import engine, ops
from ..context import recording, stop_gradient
from ..graph.paths import title
from ..kernels import Array
from ..tensor import Tensor

EPS = (1e-5, 0.0, 1e-3)  # that are usual
STAGES = 12  # that are tried in one another's place


class Variant(NamedTuple):
    """Another way to make the stage ``at`` from the arguments of its call."""

    at: Tensor
    effect: str
    text: str
    make: Callable[..., Any]


def variants(output: Tensor) -> Iterator[Variant]:
    """Yield what else may have been differentiated: eps elsewhere, one stage taken for another."""
    order = engine.toposort(output)[::-1]
    for t in order:
        yield from _of_root(t)
        yield from _of_statistics(t)
    stages = [t for t in order if t.name and t is not output and t.op is not None]
    for taken in stages[:STAGES]:
        for used in [t for t in order if t.name and t is not output][: 2 * STAGES]:
            if used is not taken and used.shape == taken.shape:
                names = title(used), title(taken)
                yield Variant(
                    taken,
                    f"operand: {names[0]} in place of {names[1]}",
                    f"{names[0]} was taken for {names[1]}, also by what is computed from it.",
                    _constantly(used, taken),
                )


def _constantly(used: Tensor, taken: Tensor) -> Callable[..., Any]:
    """Have the value of ``used``, and the derivative of ``taken``."""

    def make(*args: Any, **params: Any) -> Any:
        assert taken.op is not None
        right = taken.op(*args, **params)
        return right + stop_gradient(used.data - right)

    return make


def _of_root(t: Tensor) -> Iterator[Variant]:
    """Yield what is done to ``sqrt(var + eps)``."""
    inner = t.inputs[0] if t.op is ops.sqrt else None
    if not isinstance(inner, Tensor) or inner.op is not ops.add:
        return
    var, eps = inner.inputs
    if not isinstance(var, Tensor) or not isinstance(eps, int | float):
        return
    right, name = f"sqrt({title(var)} + eps)", title(var)
    wrong: dict[str, Callable[..., Any]] = {
        f"sqrt({name})": lambda _: np.sqrt(var),
        f"sqrt({name}) + eps": lambda _: np.sqrt(var) + eps,
        f"({name} + eps)**2": lambda v: v**2,
        f"{name} + eps": lambda v: v,
    }
    for text, make in wrong.items():
        said = f"{text} has been differentiated in place of {right}."
        yield Variant(t, f"eps: {text} in place of {right}", said, make)


def _of_statistics(t: Tensor) -> Iterator[Variant]:
    """Yield batch statistics for the constants in ``(x - mean) * inv_std``, or ``/ std``."""
    centered = t.inputs[0] if t.op in (ops.mul, ops.div) else None
    if not isinstance(centered, Tensor) or centered.op is not ops.sub:
        return
    x, mean = centered.inputs
    constant = not getattr(t.inputs[1], "requires_grad", False)
    if not isinstance(x, Tensor) or getattr(mean, "requires_grad", False) or not constant:
        return
    shape = (1,) * (x.ndim - np.ndim(mean)) + np.shape(mean)
    axes = tuple(a for a in range(x.ndim) if shape[a] == 1 and x.shape[a] > 1)
    said = "The statistics of the batch were taken for the constants that x is normalised with."
    effect = "statistics: batch in place of running"
    for eps in EPS:

        def make(*_: Any, eps: float = eps) -> Any:
            off = x - x.mean(axis=axes, keepdims=True)
            return off / np.sqrt((off**2).mean(axis=axes, keepdims=True) + eps)

        yield Variant(t, effect, said, make)


def gradient(output: Tensor, x: Tensor, seed: Array, variant: Variant) -> Array:
    """Compute everything from the variant's stage on anew, and return the gradient of ``x``."""
    made: dict[Tensor, Any] = {}
    with recording(True), np.errstate(all="ignore"):
        for t in engine.toposort(output)[::-1]:
            if t is not variant.at and not any(
                isinstance(a, Tensor) and a in made for a in t.inputs
            ):
                continue
            args = [made.get(a, a) if isinstance(a, Tensor) else a for a in t.inputs]
            made[t] = (variant.make if t is variant.at else t.op)(*args, **t.params)
        found: Array = engine.grad(made[output], x, seed).data
    return found
