"""The error function, which NumPy lacks: ``2 / sqrt(pi)`` times the integral of ``exp(-t * t)``.

W. J. Cody, Rational Chebyshev approximations for the error function, Mathematics of Computation
23 (1969), 631-637: a quotient of polynomials for erf near 0, one for ``1 - erf`` away from it.
"""

from __future__ import annotations

import math

import numpy as np

from .kernels import Array, floating

# Coefficients from the highest power down.
NEAR = (  # of x * x, for erf(x) / x
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3),
)  # fmt: skip
FAR = (  # of |x|, for (1 - erf(x)) * exp(x * x)
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3),
)  # fmt: skip
# erf(x) / x - 1 is near 0, so that its roundoff is not seen in x + x * (erf(x) / x - 1).
NEAR_LESS_ONE = tuple(a - b for a, b in zip(*NEAR, strict=True)), NEAR[1]
JOINT = 0.477  # where one takes over from the other: from here on, erf is larger than 1 - erf
SLOPE_AT_0 = 2 / math.sqrt(math.pi)
ONE = 6.0  # from here on erf is 1 in float64


def erf(x: Array) -> Array:
    """Return the error function of each entry, in its dtype; integers become float64.

    In float64 it is right to within 2 units in the last place. Narrower floats are computed in
    float64, and rounded once.

    >>> erf(np.array([0.0, 0.5, -np.inf]))
    array([ 0.        ,  0.52049988, -1.        ])
    """
    given = floating(x)
    x = given.astype(np.float64)
    size = np.minimum(np.abs(x), ONE)
    near, far = np.minimum(size, JOINT), np.maximum(size, JOINT)
    value = np.where(
        size <= JOINT,
        near + near * _quotient(NEAR_LESS_ONE, near * near),
        1 - np.exp(-far * far) * _quotient(FAR, far),
    )
    return np.copysign(value, x).astype(given.dtype)


def _quotient(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    """Evaluate a quotient of polynomials by Horner's rule."""
    above, below = (np.full_like(x, c[0]) for c in coefficients)
    for a, b in zip(*(c[1:] for c in coefficients), strict=True):
        for value, c in (above, a), (below, b):  # in the same memory, which is twice as fast
            value *= x
            value += c
    return above / below
