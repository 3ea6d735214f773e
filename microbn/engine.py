"""Reverse-mode differentiation: order the recorded calls, pull cotangents back through them.

`backprop` walks from an output to the leaves and yields every tensor with its cotangent;
`pullback` says what one recorded call sends along each of its edges. Everything else (`grad`,
``Tensor.backward``, stepping, checking, drawing) is a loop over these two.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from . import kernels, ops
from .context import recording
from .dispatch import like, plain
from .errors import bad_rule, changed, check_differentiable, describe, no_direction
from .mirror import Edge, Pullback, recorded
from .node import NUMBERS, Node


def toposort(output: Any) -> list[Any]:
    """Return the tensors that ``output`` depends on and that require grad, newest first."""
    order, reached = [output], {output}
    for tensor in order:  # which grows on the way
        for x in tensor.inputs:
            if isinstance(x, Node) and x._requires_grad and x not in reached:
                reached.add(x)
                order.append(x)
    order.sort(key=operator.attrgetter("time"), reverse=True)
    return order


def pullback(tensor: Any, g: Any) -> Iterator[Edge]:
    """Yield what the cotangent ``g`` of ``tensor`` sends along each edge to an input.

    An edge is ``(position, input, before, after)``: what the rule gives, and that summed over
    broadcast axes and cast, so that it has the input's shape and dtype. If ``g`` is a Tensor, so
    are these, and how they were made is recorded.
    """
    op, params, time = tensor.op, tensor.params, tensor.time
    symbolic = isinstance(g, Node)
    out, args = (tensor, tensor.inputs) if symbolic else (tensor._data, tensor.values)
    for position, x in enumerate(tensor.inputs):
        if not isinstance(x, Node):
            continue
        if x.time > time:
            raise changed(x, op.name)
        if not x._requires_grad:
            continue
        try:
            rule = partial(op.vjps[0], position) if op.variadic else op.vjps[position]
            if rule is None:
                continue
            before = rule(g, out, *args, **params) if params else rule(g, out, *args)
        except Exception as error:
            error.add_note(f"in the vjp of {op.name} for argument {position}, {describe(x)}")
            raise
        after = before
        if type(before) not in NUMBERS or type(before) is not type(x._data):
            after = _fit(before, x, op, position, symbolic)
        yield position, x, before, after
        del before, after  # freed before the next edge is computed


def _fit(g: Any, x: Node, op: ops.Op, position: int, symbolic: bool) -> Any:
    """Sum ``g`` over the axes that broadcasting repeated, and cast it to the dtype of ``x``."""
    value = x._data
    if type(g) is type(value) and g.shape == value.shape and g.dtype == value.dtype:
        return g
    if not hasattr(g, "shape"):
        if not isinstance(g, bool | int | float):
            raise bad_rule(op.name, position, x, g)
        g = np.asarray(g)
    if g.shape != value.shape:
        try:
            g = (ops.sum_to if symbolic else kernels.sum_to)(g, shape=value.shape)
        except ValueError as error:
            raise bad_rule(op.name, position, x, g) from error
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
    Cotangents are arrays, to be read and not written; with ``create_graph=True``, Tensors that are
    recorded even under `no_grad`. ``grad_output`` is the cotangent of the output, of its shape; a
    single number needs none. ``pullback`` may be replaced, to stop or change what flows along an
    edge. Raises a GradientError if nothing requires grad, a ShapeError for a wrong shape.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> y = (x * x).named("y")
    >>> [(t.name, float(g)) for t, g in mb.backprop(y)]
    [('y', 1.0), ('x', 6.0)]
    """
    check_differentiable(output, Node, "the output")
    return _walk(output, _seed(output, grad_output, create_graph), create_graph, pullback)


def _walk(
    output: Any, seed: Any, create_graph: bool, pullback: Pullback
) -> Iterator[tuple[Any, Any]]:
    add, pullback = recorded(pullback) if create_graph else (kernels.add, pullback)
    cotangents = {output: seed}
    del seed
    for tensor in toposort(output):
        g = cotangents.pop(tensor, None)
        if g is None:  # reached only along edges that carry nothing
            continue
        if create_graph and g.name is None and tensor.name:
            g.name = f"d {tensor.name}"
        yield tensor, g
        if tensor.op is None:
            continue
        for _, x, before, after in pullback(tensor, g):
            cotangents[x] = add(cotangents.pop(x), after) if x in cotangents else after
            del before, after  # free what nothing else holds


def _seed(output: Any, grad_output: Any, create_graph: bool) -> Any:
    """Check the cotangent that backprop starts from, and own it; one for a single number."""
    if grad_output is None:
        if output.size != 1:
            raise no_direction(output)
        grad_output = np.ones_like(output._data) if output.ndim else output.dtype.type(1)
    seed = like(output, plain(grad_output), True, "gradient")
    if not create_graph:
        return seed
    if not isinstance(grad_output, Node):
        return output._constant(seed)
    if grad_output._data.dtype == output.dtype:
        return grad_output
    return recording(True)(ops.astype)(grad_output, dtype=output.dtype)


def grad(output: Any, inputs: Any, grad_output: Any = None, *, create_graph: bool = False) -> Any:
    """Return the gradient of ``output`` with respect to ``inputs``, as Tensors.

    A Tensor for a Tensor, a tuple for a sequence; zeros for an input that ``output`` does not
    depend on. With ``create_graph=True`` they are recorded (and may share data), to be
    differentiated again. Raises a GradientError for what does not require grad.

    >>> import microbn as mb
    >>> x = mb.Tensor(2.0, requires_grad=True)
    >>> first = mb.grad(x**3, x, create_graph=True)
    >>> first.item(), mb.grad(first, x).item()
    (12.0, 12.0)
    """
    wanted = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    check_differentiable(output, Node, "the output")
    for x in wanted:
        check_differentiable(x, Node, "an input")
    found: dict[Any, Any] = {}
    missing, seen = set(wanted), set[int]()
    for tensor, g in backprop(output, grad_output, create_graph=create_graph):
        if tensor in missing:
            found[tensor] = g if create_graph else tensor._constant(kernels.own(g, seen))
            missing.discard(tensor)
            if not missing:
                break
    found |= {x: x._constant(np.zeros_like(x._data)) for x in missing}
    if create_graph:  # a gradient that is constant can be differentiated as well, to zero
        found = {x: g if g._requires_grad else g._constant(g._data, True) for x, g in found.items()}
    gradients = tuple(found[x] for x in wanted)
    return gradients if isinstance(inputs, (list, tuple)) else gradients[0]
