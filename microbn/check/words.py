"""Numbers in words: what a coefficient is likely to stand for, and what people do to get it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .. import ops
from ..graph.paths import Link, title
from ..kernels import Array
from ..tensor import Tensor
from .faults import summed

CONSTANTS = {"0": 0.0, "-1": -1.0, "1/2": 0.5, "2": 2.0, "-1/2": -0.5, "-2": -2.0}
CONSTANTS |= {"1/4": 0.25, "4": 4.0, "1/3": 1 / 3, "3": 3.0}
NEAR = 1e-12  # two numbers as near as this, relatively, are one in float64


def snap(
    found: Array, off: Array | float, counts: Sequence[int], known: Mapping[str, Array]
) -> str | None:
    """Say what a coefficient is: ``1/2``, ``m/(m-1)``, ``1/gamma``; None if it is nothing known.

    ``found`` may have one entry for each channel, each off by at most ``off``. ``counts`` are what
    m may be, ``known`` the values that may be multiplied by, which broadcast against ``found``.

    >>> snap(np.array([0.5, 2.0]), 1e-9, [8], {"gamma": np.array([2.0, 0.5])})
    '1/gamma'
    >>> snap(np.array(8 / 7), 1e-9, [8], {}), snap(np.array(0.7), 1e-9, [8], {})
    ('m/(m-1)', None)
    """
    for text, number in _vocabulary(counts, known):
        value = np.asarray(number)
        if value.ndim and np.broadcast_shapes(value.shape, found.shape) != found.shape:
            continue
        if (np.abs(found - value) <= off + NEAR * np.abs(value)).all():
            return text
    return None


def _vocabulary(
    counts: Sequence[int], known: Mapping[str, Array]
) -> Iterator[tuple[str, Array | float]]:
    yield from CONSTANTS.items()
    for m in counts:
        yield from {"m": m, "1/m": 1 / m, "m/(m-1)": m / (m - 1), "(m-1)/m": (m - 1) / m}.items()
    for name, value in known.items():
        with np.errstate(all="ignore"):  # not around a yield: it would hold for the caller as well
            inverse = 1 / value
        yield from {f"1/{name}": inverse, name: value}.items()
    for name, value in known.items():
        with np.errstate(all="ignore"):
            squares = {f"{name}**2": value**2, f"1/{name}**2": value**-2.0}
        yield from squares.items()


# How a path counts, how several do, and how the whole gradient compares.
COUNTS_AS = {
    "0": ("is missing", "are missing", "is missing: it is all zeros"),
    "-1": ("has the wrong sign", "have the wrong sign", "has the wrong sign"),
    "1/2": ("counts half", "count half", "is half of what it should be"),
    "2": ("counts twice", "count twice", "is twice what it should be"),
}


def counting(factor: str, *, several: bool = False, whole: bool = False) -> str:
    """Say how a path counts: ``counts half``, ``counts m/(m-1) times``."""
    if factor in COUNTS_AS:
        return COUNTS_AS[factor][2 if whole else several]
    return (
        f"is {factor} times what it should be"
        if whole
        else f"count{'s' * (not several)} {factor} times"
    )


def causes(link: Link, factor: str) -> Iterator[str]:
    """Say what people do that makes an edge count so many times, if there is something usual."""
    call, x = link.consumer, link.input
    exponent = call.inputs[1] if call.op is ops.pow and len(call.inputs) == 2 else None
    if call.op is ops.pow and exponent == 2 and factor in ("1/2", "2"):
        yield f"the 2 of d({title(x)}**2) {'lost' if factor == '1/2' else 'taken twice'}"
    if call.op is ops.sqrt and factor in ("2", "1/2"):
        yield f"the 1/2 of d sqrt({title(x)}) {'lost' if factor == '2' else 'taken twice'}"
    if factor == "-1" and _is_minus(link, exponent):
        yield f"the minus of d({_formula(link)}) lost"
    if call.op is ops.mean:
        yield from _of_mean(title(call), factor)
    if summed(link) > 1 and factor in ("1/m", "m"):
        yield f"d {title(x)} " + (
            "averaged, not summed" if factor == "1/m" else "summed up m times"
        )
    for i, other in enumerate(call.inputs):
        if isinstance(other, int | float | np.number) and call.op in (ops.mul, ops.div):
            c = f"{other:.4g}"
            if factor == (c if call.op is ops.div else f"1/{c}") and i == 1 - link.position:
                yield f"the {call.op.label} {c} left out"
        if isinstance(other, Tensor) and i != link.position and call.op in (ops.mul, ops.div):
            name = title(other)
            left_out = f"1/{name}" if call.op is ops.mul else name
            if factor == left_out and link.position == 0:
                yield f"{name} left out"
            elif factor == (name if call.op is ops.mul else f"1/{name}") and link.position == 0:
                yield f"{name} taken twice"
            elif factor == f"1/{name}**2" and call.op is ops.mul:
                yield f"divided by {name} in place of multiplied"


def _is_minus(link: Link, exponent: object) -> bool:
    call = link.consumer
    return (
        (call.op is ops.sub and link.position == 1)
        or call.op is ops.neg
        or (isinstance(exponent, int | float) and exponent < 0)
        or (call.op is ops.div and link.position == 1)
    )


def _formula(link: Link) -> str:
    call = link.consumer
    names = [title(a) if isinstance(a, Tensor) else str(a) for a in call.inputs]
    assert call.op is not None
    return f"{names[0]}{call.op.label}{names[1]}" if len(names) == 2 else f"-{names[0]}"


def _of_mean(name: str, factor: str) -> Iterator[str]:
    if factor == "m":
        yield f"the 1/m of {name} lost"
    elif factor == "1/m":
        yield f"the 1/m of {name} taken twice"
    elif factor == "m/(m-1)":
        yield f"{name} divided by m - 1 in the backward pass, by m in the forward pass"
