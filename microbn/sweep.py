"""The backward pass in one go, for `Tensor.backward`: what `engine.backprop` yields, as a dict.

`engine.backprop` and `engine.pullback` are the definition. They stop at every tensor and at every
edge, for those who look on; here nobody does. Calls of one or two operands, which most are, are
pulled back in place, their rules called with just that many arguments, which Python does twice as
fast as ``rule(*arguments)``. The definition serves all other calls, and if anything goes wrong it
starts anew, to say what.
"""

from __future__ import annotations

from typing import Any

from . import kernels
from .engine import _fit, _seed, backprop, pullback, toposort
from .errors import changed, check_differentiable
from .node import NUMBERS, Node


def cotangents(output: Any, grad_output: Any, retain: bool) -> dict[Any, Any]:
    """Return the cotangent of each tensor that `backprop` yields; None for results not retained."""
    check_differentiable(output, Node, "the output")
    kind = type(output._data)
    is_number = grad_output is None and kind in NUMBERS
    try:
        found = {output: kind(1) if is_number else _seed(output, grad_output, False)}
        return _sweep(output, found, retain)
    except Exception:  # nothing has been published yet
        steps = backprop(output, grad_output)
    return {tensor: g if retain or tensor.op is None else None for tensor, g in steps}


def _sweep(output: Any, found: dict[Any, Any], retain: bool) -> dict[Any, Any]:
    """Do the work of `cotangents`, from the output's on; what it raises is not to be read."""
    take, add = found.pop, kernels.add

    def send(x: Any, g: Any) -> None:
        if type(g) in NUMBERS and type(g) is type(x._data):
            found[x] = found[x] + g if x in found else g
            return
        g = _fit(g, x, x.op, 0, False)
        found[x] = add(take(x), g) if x in found else g

    for tensor in toposort(output):
        op = tensor.op
        if op is None or tensor not in found:
            continue
        g = found[tensor]
        if not retain:
            found[tensor] = None
        rules = op.vjps
        inputs = tensor.inputs
        n = len(inputs)
        if n == 2 == len(rules) and not tensor.params:
            (x, y), (u, v) = inputs, tensor.values
            rule_x, rule_y = rules
            if isinstance(x, Node):
                if x.time > tensor.time:
                    raise changed(x, op.name)
                if x._requires_grad and rule_x is not None:
                    send(x, rule_x(g, tensor._data, u, v))
            if isinstance(y, Node):
                if y.time > tensor.time:
                    raise changed(y, op.name)
                if y._requires_grad and rule_y is not None:
                    send(y, rule_y(g, tensor._data, u, v))
        elif n == 1 == len(rules) and not op.variadic:
            (x,), (rule,) = inputs, rules
            if x.time > tensor.time:
                raise changed(x, op.name)
            if rule is not None:
                send(x, rule(g, tensor._data, x._data, **tensor.params))
        else:
            for _, x, before, after in pullback(tensor, g):
                send(x, after)
                del before, after  # freed before the next edge is computed
    return found
