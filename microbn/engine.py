"""Reverse-mode differentiation: order the recorded calls, and pull cotangents back through them.

`backprop` walks from an output to the leaves and yields every tensor with its cotangent;
`pullback` says what one recorded call sends along each of its edges. Everything else (`grad`,
``Tensor.backward``, stepping, checking, drawing) is a loop over these two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from operator import attrgetter
from typing import Any

import numpy as np

from . import ops
from .context import recording
from .errors import GradientError, OperandError, ShapeError, describe
from .kernels import Array

NUMBERS = frozenset(np.sctypeDict.values())  # the types of NumPy scalars
clock = count(1)  # ticks whenever a value comes into being


class Node:
    """A value and how it was made: the call ``op(*inputs, **params)``, or nothing for a leaf.

    ``values`` are the inputs as plain arrays, as the call saw them. ``time`` orders the calls: an
    input is older than its result. No closures and no references from input to result: a graph
    has no cycles, so it is freed as soon as its output is.
    """

    __slots__ = (
        "_data",
        "_grad",
        "_requires_grad",
        "inputs",
        "name",
        "op",
        "params",
        "scope",
        "time",
        "values",
    )
    _data: Array
    _grad: Array | None
    _requires_grad: bool
    name: str | None
    op: ops.Op | None
    inputs: tuple[Any, ...]
    params: dict[str, Any]
    scope: tuple[str, ...]
    time: int
    values: Sequence[Any]

    def _constant(self, value: Array, requires_grad: bool = False) -> Any:
        """Wrap ``value`` as a leaf."""
        raise NotImplementedError


Edge = tuple[int, Any, Any, Any]
Pullback = Callable[[Any, Any], Iterator[Edge]]


def toposort(output: Node) -> list[Any]:
    """Return the tensors that ``output`` depends on and that require grad, newest first."""
    reached = {output}
    stack = [output]
    while stack:
        for x in stack.pop().inputs:
            if isinstance(x, Node) and x._requires_grad and x not in reached:
                reached.add(x)
                stack.append(x)
    return sorted(reached, key=attrgetter("time"), reverse=True)


def pullback(tensor: Any, g: Any) -> Iterator[Edge]:
    """Yield what the cotangent ``g`` of ``tensor`` sends along each edge to an input.

    An edge is ``(position, input, before, after)``: the rule's value before the sum over
    broadcast axes, and after it, with the input's shape and dtype. If ``g`` is a Tensor, so are
    these, and how they were made is recorded.
    """
    op, inputs = tensor.op, tensor.inputs
    symbolic = isinstance(g, Node)
    out, args = (tensor, inputs) if symbolic else (tensor._data, tensor.values)
    for position, x in enumerate(inputs):
        if not (isinstance(x, Node) and x._requires_grad):
            continue
        if x.time > tensor.time:
            raise GradientError(
                f"{describe(x)} was given new data after {op.name} had used it, so its old value "
                "is gone; run the forward pass again before this backward pass"
            )
        rule = op.vjps[position] if not op.variadic else op.vjp(position)
        if rule is None:
            continue
        try:
            before = rule(g, out, *args, **tensor.params)
        except Exception as error:
            error.add_note(f"in the vjp of {op.name} for argument {position}, {describe(x)}")
            raise
        if type(before) is type(x._data) and type(before) in NUMBERS:
            yield position, x, before, before
        else:
            yield position, x, before, _fit(before, x, op, position, symbolic)
        del before  # not kept alive while the next edge is computed


def _fit(g: Any, x: Node, op: ops.Op, position: int, symbolic: bool) -> Any:
    """Sum ``g`` over the axes that broadcasting repeated, and cast it to the dtype of ``x``."""
    value = x._data
    if not hasattr(g, "shape"):
        if not isinstance(g, bool | int | float):
            raise OperandError(
                f"the vjp of {op.name} for argument {position} returned {describe(g)}; "
                "it must return an array"
            )
        g = np.asarray(g, value.dtype)
    if g.shape != value.shape:
        try:
            g = ops.sum_to(g, shape=value.shape)
        except ValueError as error:
            raise ShapeError(
                f"the vjp of {op.name} for argument {position} returned shape {tuple(g.shape)}, "
                f"which does not reduce to that of {describe(x)}"
            ) from error
    if g.dtype != value.dtype:
        g = ops.astype(g, dtype=value.dtype)
    return x._constant(g) if symbolic and not isinstance(g, Node) else g


def backprop(
    output: Any,
    grad_output: Any = None,
    *,
    create_graph: bool = False,
    pullback: Pullback = pullback,
) -> Iterator[tuple[Any, Any]]:
    """Yield ``(tensor, cotangent)`` from ``output`` back to the leaves, each cotangent final.

    Every tensor that ``output`` depends on and that requires grad comes once, the output first.
    Cotangents are arrays, to be read and not written; with ``create_graph=True`` they are
    Tensors, recorded even under `no_grad`. ``grad_output`` is the cotangent of the output, of its
    shape; it may be left out for a single number. ``pullback`` may be replaced, to stop or change
    what flows along an edge. Raises a GradientError if there is nothing to differentiate, a
    ShapeError for a gradient of the wrong shape.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> y = (x * x).named("y")
    >>> [(t.name, float(g)) for t, g in mb.backprop(y)]
    [('y', 1.0), ('x', 6.0)]
    """
    _differentiable(output, "backprop")
    return _walk(output, _seed(output, grad_output, create_graph), create_graph, pullback)


def _walk(
    output: Any, seed: Any, create_graph: bool, pullback: Pullback
) -> Iterator[tuple[Any, Any]]:
    cotangents = {output: seed}
    sums: set[Any] = set()
    del seed
    for tensor in toposort(output):
        g = cotangents.pop(tensor, None)
        if g is None:  # reached only along edges that carry nothing
            continue
        yield tensor, g
        if tensor.op is None:
            continue
        if not create_graph:
            _collect(pullback(tensor, g), cotangents, sums)
        else:
            with recording(True):  # closed before the next yield
                _collect(pullback(tensor, g), cotangents, sums)


def _collect(edges: Iterator[Edge], cotangents: dict[Any, Any], sums: set[Any]) -> None:
    """Add what arrives along ``edges`` to the cotangents of their inputs, in order.

    ``sums`` holds the tensors whose cotangent is a sum made here: an array that nobody else has
    seen, so the next contribution is added in place.
    """
    for _, x, before, after in edges:
        pending = cotangents.get(x)
        if pending is None:
            cotangents[x] = after
        elif x in sums:
            np.add(pending, after, out=pending)
        else:
            cotangents[x] = total = pending + after
            if type(total) is np.ndarray:
                sums.add(x)
            del total
        del pending, before, after  # not kept alive while the next edge is computed


def _differentiable(output: Any, caller: str) -> None:
    if not isinstance(output, Node):
        raise OperandError(f"{caller} starts from a Tensor, not from {describe(output)}")
    if not output._requires_grad:
        raise GradientError(
            f"{describe(output)} requires no gradient: there is nothing to differentiate. Make "
            "an input with requires_grad=True, and compute outside mb.no_grad()"
        )


def _seed(output: Any, grad_output: Any, create_graph: bool) -> Any:
    """Check the cotangent that backprop starts from, and own it: one for a single number."""
    value = output._data
    if grad_output is None:
        if value.size != 1:
            raise GradientError(
                f"{describe(output)} is not a single number, so its gradient needs a direction: "
                "pass an array of its shape, or reduce it first, with .sum() or .mean()"
            )
        seed = np.ones_like(value)
    elif create_graph and isinstance(grad_output, Node):
        seed = grad_output
    else:
        seed = grad_output._data if isinstance(grad_output, Node) else grad_output
        if not hasattr(seed, "__array_function__"):
            seed = np.asarray(seed)
        if seed.dtype.kind not in "biuf":
            raise OperandError(f"a gradient is real, not {describe(seed)}")
        seed = seed.astype(value.dtype)  # a copy: what the caller does to his does not matter
    if tuple(seed.shape) != tuple(value.shape):
        raise ShapeError(
            f"the gradient given for {describe(output)} has shape {tuple(seed.shape)}; "
            "it must have the shape of the output"
        )
    if type(seed) is np.ndarray and not seed.shape:
        seed = seed[()]  # a NumPy scalar, as all results without axes are
    return output._constant(seed) if create_graph and not isinstance(seed, Node) else seed


def own(g: Array, seen: set[int]) -> Array:
    """Return ``g``, or a copy of it if it shares memory with something else that was given out."""
    if getattr(g, "base", None) is not None or id(g) in seen:
        g = g.copy()
    seen.add(id(g))
    return g


def grad(output: Any, inputs: Any, grad_output: Any = None, *, create_graph: bool = False) -> Any:
    """Return the gradient of ``output`` with respect to ``inputs``, as Tensors.

    A Tensor for a Tensor, a tuple for a sequence; an input that ``output`` does not depend on
    gets zeros. With ``create_graph=True`` the result can be differentiated again, to any order.
    Raises a GradientError for an output or input that does not require grad.

    >>> import microbn as mb
    >>> x = mb.Tensor(2.0, requires_grad=True)
    >>> first = mb.grad(x**3, x, create_graph=True)
    >>> first.item(), mb.grad(first, x).item()
    (12.0, 12.0)
    """
    single = isinstance(inputs, Node)
    wanted = (inputs,) if single else tuple(inputs)
    _differentiable(output, "grad")
    for x in wanted:
        _differentiable(x, "grad with respect to an input")
    found: dict[Any, Any] = {}
    missing, seen = set(wanted), set[int]()
    for tensor, g in backprop(output, grad_output, create_graph=create_graph):
        if tensor in missing:
            found[tensor] = g if create_graph else tensor._constant(own(g, seen))
            missing.discard(tensor)
            if not missing:
                break
    for x in missing:
        found[x] = x._constant(np.zeros_like(x._data))
    if create_graph:  # a gradient that is constant can be differentiated as well, to zero
        found = {x: g if g._requires_grad else g._constant(g._data, True) for x, g in found.items()}
    gradients = tuple(found[x] for x in wanted)
    return gradients[0] if single else gradients
