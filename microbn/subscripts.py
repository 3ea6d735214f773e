"""What the subscripts of `numpy.einsum` say, and what those of its derivatives are.

An einsum multiplies its operands and sums over the letters that its output lacks. The result and
an operand may change places: the cotangent of an operand is an einsum of the cotangent of the
result with the other operands. Where that lacks something, a constant supplies it: ones for a
letter that nothing else has at its full length, an identity where a letter is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters

import numpy as np

from .kernels import Array


def einsum(*arrays: Array, subscripts: str, optimize: bool | str = False) -> Array:
    """`numpy.einsum`, the subscripts by keyword."""
    return np.einsum(subscripts, *arrays, optimize=optimize)


def spelled_out(subscripts: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the output, with some for the ellipses.

    ``ndims`` are the numbers of axes of the operands.

    >>> spelled_out("...ij, jk", [3, 2])
    (['Zij', 'jk'], 'Zik')
    """
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    hidden = [n - len(t) + 3 if "..." in t else 0 for t, n in zip(terms, ndims, strict=True)]
    dots = _unused(subscripts)[: max(hidden)]
    if not arrow:  # the letters that occur once, in the order of the alphabet
        output = "..." + "".join(sorted(c for c in {*inputs} - {*".,"} if inputs.count(c) == 1))
    terms = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, hidden, strict=True)]
    return terms, output.replace("...", dots)


def transposed(
    subscripts: str, i: int, arrays: Sequence[Array], g: Array
) -> tuple[str, list[Array]]:
    """Return the subscripts that give the i-th cotangent, and the constants that they take.

    Their operands are ``g``, the arrays but the i-th, and these constants. Axes of length 1 that
    broadcasting stretched come out at their full length.

    >>> x, y = np.ones((2, 3)), np.ones((3, 4))
    >>> transposed("ij,jk", 0, [x, y], x @ y)
    ('ik,jk->ij', [])
    >>> transposed("ii", 0, [np.ones((2, 2))], np.array(2.0))
    (',iZ->iZ', [array([[1., 0.],
           [0., 1.]])])
    """
    terms, output = spelled_out(subscripts, [x.ndim for x in arrays])
    others = [output, *terms[:i], *terms[i + 1 :]]
    longest: dict[str, int] = {}
    for term, x in zip(others, (g, *arrays[:i], *arrays[i + 1 :]), strict=True):
        for letter, n in zip(term, x.shape, strict=True):
            longest[letter] = max(n, longest.get(letter, 0))
    target, spare, constants = "", iter(_unused(output + "".join(terms))), list[Array]()
    for letter, n in zip(terms[i], arrays[i].shape, strict=True):
        fresh = letter
        if letter in target:
            fresh = next(spare)
            others.append(letter + fresh)
            constants.append(np.eye(n))
        elif longest.get(letter, -1) < n and terms[i].count(letter) == 1:
            others.append(letter)
            constants.append(np.ones(n))
        target += fresh
    return f"{','.join(others)}->{target}", constants


def _unused(subscripts: str) -> str:
    return "".join(c for c in reversed(ascii_letters) if c not in subscripts)
