"""What goes wrong in a backward pass, one fault at a time: every edge, with every usual mistake.

A fault replaces the rule of one edge. It is what `adequacy` breaks a right pass with, and what
`diagnose` knows to look for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..dispatch import plain
from ..graph.paths import Link, title
from ..kernels import count
from ..ops import Op, Rule
from ..tensor import Tensor
from .reference import rule_of

FACTORS = {"forgotten": 0.0, "with the wrong sign": -1.0, "counted twice": 2.0, "halved": 0.5}


@dataclass(frozen=True)
class Fault:
    """A wrong rule for the edge ``link``; ``text`` says what was done.

    ``factor`` is by how much it multiplies what flows along the edge, None if it does not just
    multiply; ``operand`` are the names of what was used and of what should have been.
    """

    link: Link
    text: str
    rule: Rule
    factor: float | None = None
    operand: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"{title(self.link.consumer)} → {title(self.link.input)}: {self.text}"


def faults(*links: Link, among: Sequence[Tensor] = ()) -> Iterator[Fault]:
    """Yield every single fault of these edges; ``among`` are more values to be mistaken for others.

    >>> import microbn as mb
    >>> from microbn.graph.paths import paths
    >>> x = mb.Tensor([3.0, 4.0], requires_grad=True, name="x")
    >>> (path,) = paths(x.mean().named("mean"), x)
    >>> for fault in faults(*path):
    ...     print(fault)
    mean → x: forgotten
    mean → x: with the wrong sign
    mean → x: counted twice
    mean → x: halved
    mean → x: the 1/m of the mean lost
    mean → x: divided by m - 1
    mean → x: times (m - 1) / m
    mean → x: divided by m twice
    """
    for link in links:
        rule = rule_of(link.consumer, link.position)
        if rule is None:
            continue
        for text, factor in [*FACTORS.items(), *_of_reductions(link)]:
            yield Fault(link, text, _scaled(rule, factor), factor)
        yield from _of_operands(link, rule, among)


def _scaled(rule: Rule, factor: float) -> Rule:
    return lambda g, out, *args, **params: factor * rule(g, out, *args, **params)


def _of_reductions(link: Link) -> Iterator[tuple[str, float]]:
    """Yield what goes wrong with the number of values that are averaged, or summed up."""
    call, x = link.consumer, link.input
    if call.op is ops.mean and (m := count(x.data, call.params["axis"])) > 1:
        yield "the 1/m of the mean lost", float(m)
        yield "divided by m - 1", m / (m - 1)
        yield "times (m - 1) / m", (m - 1) / m
        yield "divided by m twice", 1 / m
    if (m := summed(link)) > 1:
        yield "a mean in place of the sum", 1 / m
        yield "summed up m times", float(m)


def summed(link: Link) -> int:
    """Count how many numbers a cotangent is summed up from, because its value was broadcast."""
    return max(link.consumer.size // max(link.input.size, 1), 1) if _is_broadcast(link) else 1


def _is_broadcast(link: Link) -> bool:
    elementwise = isinstance(link.consumer.op.fn, np.ufunc) if link.consumer.op else False
    return elementwise and link.consumer.op is not ops.matmul


def _of_operands(link: Link, rule: Rule, among: Sequence[Tensor]) -> Iterator[Fault]:
    """Yield the rule with another value in the place of an operand, or without one."""
    call = link.consumer
    assert call.op is not None
    values = [call, *call.inputs]
    for i, operand in enumerate(values):
        if not isinstance(operand, Tensor) or not _matters(call.op, link.position, i):
            continue
        others = [v for v in values if isinstance(v, Tensor)]
        others += [v for v in operand.inputs if isinstance(v, Tensor)] + [*among]
        for other in dict.fromkeys(others):
            if other is not operand and other.shape == operand.shape:
                used = title(other), title(operand)
                text = f"{used[0]} in place of {used[1]}"
                yield Fault(link, text, _with(rule, i, other), operand=used)
        if call.op in (ops.mul, ops.div):
            text = f"{title(operand)} left out"
            yield Fault(link, text, _with(rule, i, 1.0), operand=("1", title(operand)))


UNARY = (ops.tanh, ops.exp, ops.log, ops.sqrt, ops.relu, ops.sin, ops.cos, ops.abs)


def lookalikes(link: Link) -> Iterator[Fault]:
    """Yield what is taken for the derivative of a function of one value, and is not."""
    call = link.consumer
    if call.op not in UNARY:
        return
    f, x = title(call), title(link.input)
    derivative = f"the derivative of {call.op.name}"
    wrong: dict[str, Rule] = {
        "1": lambda g, out, x: g,
        f: lambda g, out, x: g * out,
        x: lambda g, out, x: g * x,
        f"{f}**2": lambda g, out, x: g * out * out,
        f"1 - {f}": lambda g, out, x: g * (1 - out),
        f"{f} * (1 - {f})": lambda g, out, x: g * out * (1 - out),
    }
    if call.op in (ops.relu, ops.abs):  # nobody takes the root for a mask
        wrong[f"({x} > 0)"] = lambda g, out, x: g * (x > 0)
        wrong[f"({x} < 0)"] = lambda g, out, x: g * (x < 0)
    for used, rule in wrong.items():
        yield Fault(link, f"{used} in place of {derivative}", rule, operand=(used, derivative))


def _with(rule: Rule, i: int, value: Any) -> Rule:
    """Return the rule with ``value`` for the result (0) or for an argument (from 1 on)."""

    def wrong(g: Any, *values: Any, **params: Any) -> Any:
        used = value if isinstance(g, Tensor) else plain(value)
        return rule(g, *values[:i], used, *values[i + 1 :], **params)

    return wrong


# Which values the rules read: 0 is the result, 1 and 2 are the arguments.
READ: dict[tuple[Op, int], tuple[int, ...]] = {
    (ops.mul, 0): (2,),
    (ops.mul, 1): (1,),
    (ops.div, 0): (2,),
    (ops.div, 1): (0, 2),
    (ops.pow, 0): (1,),
    (ops.sqrt, 0): (0,),
    (ops.exp, 0): (0,),
    (ops.log, 0): (1,),
    (ops.tanh, 0): (0,),
    (ops.matmul, 0): (2,),
    (ops.matmul, 1): (1,),
    (ops.sin, 0): (1,),
    (ops.cos, 0): (1,),
    (ops.relu, 0): (0,),
    (ops.abs, 0): (1,),
}


def _matters(op: Op, position: int, i: int) -> bool:
    return i in READ.get((op, position), ())


def faulty(op: Op, position: int, rule: Rule) -> Op:
    """Return a copy of ``op`` with another rule for one of its arguments."""
    wrong: Callable[..., Any]
    if op.variadic:
        right = op.vjps[0]
        assert right is not None

        def wrong(i: int, *values: Any, **params: Any) -> Any:
            return rule(*values, **params) if i == position else right(i, *values, **params)

        rules: tuple[Rule | None, ...] = (wrong,)
    else:
        rules = (*op.vjps[:position], rule, *op.vjps[position + 1 :])
    made = Op(op.name, op.fn, *rules, params=op.params, variadic=op.variadic)
    return made.show(op.label, op.latex)
