"""What happens at a step, in plain English."""

from __future__ import annotations

from collections.abc import Sequence

from ..calls import key_in_brackets
from ..labels import shape
from ..parts import Node
from ..snapshot import axes_in_words, number, summed_axes

EACH = ", entry by entry"
FORWARD = {
    "add": "Add {0} and {1}{each}.",
    "sub": "Subtract {1} from {0}{each}.",
    "mul": "Multiply {0} by {1}{each}.",
    "div": "Divide {0} by {1}{each}.",
    "neg": "Change the sign of {0}.",
    "sqrt": "Take the square root of {0}{each}.",
    "exp": "Raise e to the power of {0}{each}.",
    "log": "Take the natural logarithm of {0}{each}.",
    "tanh": "Take the hyperbolic tangent of {0}{each}: it lies between −1 and 1.",
    "sin": "Take the sine of {0}{each}.",
    "cos": "Take the cosine of {0}{each}.",
    "abs": "Take the absolute value of {0}{each}.",
    "relu": "Keep what is positive in {0}, and put 0 in the place of the rest.",
    "maximum": "Take the larger of {0} and {1}{each}.",
    "minimum": "Take the smaller of {0} and {1}{each}.",
    "where": "Take {1} where {0} is true, and {2} elsewhere.",
    "matmul": "Multiply {0} and {1} as matrices: an entry is a row of {0} times a column of {1}.",
    "sum": "Add up {0} {over}.",
    "mean": "Average {0} {over}.",
    "max": "Take the largest entry of {0} {over}.",
    "min": "Take the smallest entry of {0} {over}.",
    "reshape": "Arrange the entries of {0} anew, as {shape}.",
    "squeeze": "Drop the axes of length 1 from {0}.",
    "expand_dims": "Give {0} an axis of length 1.",
    "transpose": "Swap the axes of {0}: rows become columns.",
    "broadcast_to": "Repeat {0} to the shape {shape}.",
    "sum_to": "Add up {0} to the shape {shape}.",
    "index": "Take {0}[{key}].",
    "scatter": "Put {0} at [{key}] among zeros.",
    "concatenate": "Join {all} {over}.",
    "stack": "Stack {all} along a new axis.",
    "astype": "Convert {0} to {dtype}.",
    "log1p": "Take the natural logarithm of 1 + {0}{each}.",
    "logaddexp": "Add the exponentials of {0} and {1}, and take the logarithm of that{each}.",
    "erf": "Take the error function of {0}{each}: it lies between −1 and 1.",
    "clip": "Keep {0} within bounds{each}.",
    "einsum": "Multiply {all} and add up, as the letters say.",
    "swapaxes": "Let two axes of {0} change places.",
    "pad": "Put a border around {0}.",
    "windows": "Cut {0} into windows, which may overlap.",
    "fold": "Put windows back in their places, adding where they overlap.",
}
BACKWARD = {
    "add": "A sum changes as much as each of its terms: the gradient comes back as it is.",
    "sub": "A difference changes as much as its first term: the gradient comes back as it is.",
    "mul": "How a product changes with one factor is the other factor.",
    "div": "How a quotient changes with its numerator is 1 over the denominator.",
    "pow": "How a power changes is the exponent times the power one lower.",
    "neg": "The sign that was changed on the way there is changed on the way back.",
    "sqrt": "How a square root changes is 1 over twice the root: the smaller the root, the more.",
    "exp": "How e to a power changes is that value itself.",
    "log": "How a logarithm changes is 1 over its argument.",
    "tanh": "How tanh changes is 1 minus its square: little, where it is close to −1 or 1.",
    "sin": "How a sine changes is the cosine.",
    "cos": "How a cosine changes is minus the sine.",
    "abs": "The gradient keeps its sign where the argument is positive, and changes it elsewhere.",
    "relu": "The gradient passes where the value was positive, and is 0 elsewhere.",
    "maximum": "The gradient goes to the larger of the two; where they are equal, half to each.",
    "minimum": "The gradient goes to the smaller of the two; where they are equal, half to each.",
    "where": "The gradient goes to the entries that were taken.",
    "matmul": "Each entry took part in a whole row or column of the product: its effects add up.",
    "sum": "Each entry that was added up gets the gradient of the sum.",
    "mean": "Each of the {count} entries that were averaged has a {count}th of the effect.",
    "max": "The gradient goes to the entries that are the largest; those that are equal share it.",
    "min": "The gradient goes to the entries that are the smallest; those that are equal share it.",
    "index": "The gradient goes back to the entries that were taken (an entry that was taken "
    "several times gets the sum); the others get 0.",
    "scatter": "Each entry gets the gradient of the place that it was put at.",
    "concatenate": "Each part gets the gradient of where it went.",
    "stack": "Each part gets the gradient of where it went.",
    "broadcast_to": "Each copy passes the gradient on as it is.",
    "astype": "The gradient is converted back.",
    "log1p": "How the logarithm of 1 + x changes is 1 over 1 + x.",
    "logaddexp": "Each of the two gets its share of the sum of exponentials.",
    "erf": "How the error function changes is a bell curve.",
    "clip": "The gradient passes where the value was within the bounds, and is 0 elsewhere.",
    "einsum": "The gradient takes the place of this factor, and the letters change accordingly.",
    "swapaxes": "The axes change places once more.",
    "pad": "The gradient of the border is dropped.",
    "windows": "An entry that is in several windows gets the sum of its gradients there.",
    "fold": "Each window gets the gradient of its place.",
}
SECOND = {  # for the argument at position 1
    "sub": "A difference falls as its second term rises: the gradient changes its sign.",
    "div": "How a quotient changes with its denominator is minus the quotient over it.",
    "pow": "How a power changes with its exponent is that power times the logarithm of the base.",
}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
FRACTIONS = {1: "all", 2: "half", 3: "a third", 4: "a quarter"}


def forward(node: Node, names: Sequence[str]) -> str:
    """Say what an op does with its arguments, whose ``names`` (or numbers) are in their order."""
    if node.op == "pow" and 1 in node.scalars:
        return _power(names[0], node.scalars[1], _each(node))
    if node.op == "pow":
        return f"Raise {names[0]} to the power of {names[1]}{_each(node)}."
    template = FORWARD.get(node.op or "", "Apply {op} to {all}.")
    return template.format(
        *names,
        *[""] * 3,
        each=_each(node),
        over=over(node),
        shape=shape(node.shape),
        key=key_in_brackets(node.params.get("key")),
        dtype=node.dtype,
        op=node.op,
        all=listed(names),
    )


def _power(base: str, exponent: object, each: str) -> str:
    words = {2: f"Square {base}", 3: f"Cube {base}", 0.5: f"Take the square root of {base}"}
    words |= {-1: f"Take 1 over {base}"}
    known = words.get(exponent) if isinstance(exponent, int | float) else None
    return f"{known or f'Raise {base} to the power of {number(exponent)}'}{each}."


def _each(node: Node) -> str:
    return EACH if node.shape else ""


def over(node: Node) -> str:
    """Say along which axes a reduction goes: ``over axis 0``, ``over all entries``."""
    axis = node.params.get("axis")
    return "over all entries" if axis is None else f"over {axes_in_words(axis)}"


def listed(names: Sequence[str]) -> str:
    """Join names: ``a, b and c``.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def stretched(node: Node, arguments: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    """Say which arguments were repeated to the shape of the result."""
    said = [
        f"{name} ({shape(lengths)}) is repeated along {summed_axes(node.shape, lengths)}"
        for name, lengths in arguments
    ]
    return f"{listed(said)} to the shape {shape(node.shape)}." if said else ""


def backward(op: Node, position: int, count: int) -> str:
    """Say what the rule of ``op`` does for an argument; ``count`` entries went into each result."""
    if op.op == "pow" and position == 0 and op.scalars.get(1) == 2:
        return "How a square changes is twice its base."
    if op.op == "mean" and count in FRACTIONS:
        return (
            f"Each of the {count} entries that were averaged has {FRACTIONS[count]} of the effect."
        )
    found = SECOND.get(op.op or "") if position == 1 else None
    found = found or BACKWARD.get(op.op or "", "The entries go back to where they came from.")
    if op.op not in BACKWARD and op.op not in ("reshape", "squeeze", "expand_dims", "transpose"):
        found = f"The rule of {op.op} gives this argument its share."
    return found.format(count=count)


def arrival(name: str, gradient: str, before: int, uses: int) -> str:
    """Say what becomes of a contribution to a gradient; ``before`` of ``uses`` came earlier."""
    if uses == 1:
        return f"{name} has no other effect, so {gradient} is complete."
    if before == 0:
        return (
            f"It is the first of {uses} contributions to {gradient}: {name} is used {times(uses)}."
        )
    nth = ORDINALS[before] if before < len(ORDINALS) else f"{before + 1}th"
    end = f"{uses - before - 1} to come" if before + 1 < uses else f"with it {gradient} is complete"
    return f"It is added to what has arrived, as the {nth} of {uses} contributions; {end}."


def times(count: int) -> str:
    """Say how often: ``twice``, ``5 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def unfit(contribution: Node, x: Node, name: str) -> str:
    """Say why a contribution is not a gradient yet."""
    if contribution.shape != x.shape:
        return f"It has the shape {shape(contribution.shape)}, and {name} has {shape(x.shape)}."
    return f"It is {contribution.dtype}, and {name} is {x.dtype}."


def summed(node: Node, name: str) -> str:
    """Say why a contribution is summed, or cast."""
    if node.op != "sum_to":
        return f"A gradient has the dtype of what it is of: {node.dtype}."
    axes = node.label.removeprefix("Σ ")
    return (
        f"{name} was repeated along {axes}, so each of its entries had several effects: add them."
    )


def made_before(names: Sequence[str]) -> str:
    """Say of leaves that they are not finite from the first."""
    if not names:
        return ""
    one = len(names) == 1
    return (
        f"{listed(names)} {'is' if one else 'are'} not finite as {'it is' if one else 'they are'} "
        "given: that was made before, in an earlier round if this is a loop."
    )
