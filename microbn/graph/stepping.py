"""Stepping through what was computed: `steps` gives the steps, `step` shows them."""

from __future__ import annotations

from typing import Any

from ..errors import OperandError
from ..tensor import Tensor
from .graph import Graph
from .step.make import walk
from .step.walk import Walk
from .subject import subject
from .tracer import Trace


def steps(looked_at: Tensor | Trace | Graph, *, grad_output: Any = None) -> Walk:
    """Return every step to a Tensor, a `trace` or through a `Graph`: forward, and back again.

    First the leaves as they are given, then one op after another; then the gradient that the
    backward pass starts from, what comes back along each edge, each sum over axes that were
    broadcast, and at the end the gradients of all leaves. It is a list of `Step`, each with its
    formula, as text and as LaTeX, a sentence, tables of values and the line of source if it was
    traced. The backward pass starts from ``grad_output``; for what it is without one see
    `Graph.from_outputs`. A Graph has one if it was taken with ``backward=True``.

    Raises an OperandError (a TypeError) for what is none of the three.

    >>> import microbn as mb
    >>> a = mb.Tensor(2.0, requires_grad=True)
    >>> b = mb.Tensor(-3.0, requires_grad=True)
    >>> loss = a * b + a
    >>> for step in mb.steps(loss):
    ...     print(step.formula)
    a, b
    a × b
    loss = a × b + a
    d loss = 1
    d(a × b) = d loss
    d a = d loss
    d a += d(a × b) × b
    d b = d(a × b) × a
    d a, d b
    """
    if isinstance(looked_at, Graph):
        if grad_output is not None:
            raise OperandError("a Graph has its backward pass already; grad_output is for Tensors")
        return Walk(looked_at)
    outputs, notes = subject(looked_at, "steps")
    title = looked_at.name or ""
    return walk(outputs, notes, title=title, grad_output=grad_output)
