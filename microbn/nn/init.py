"""How parameters begin: each function gives one new values, with PyTorch's bounds.

They take a Parameter and return it; where numbers are drawn, ``rng`` is a NumPy generator or a
seed. Raise an OperandError (a TypeError) for anything but a Tensor, a ShapeError (a ValueError) for
a tensor with too few axes and for a mode or nonlinearity that is not known.

>>> import numpy as np, microbn as mb
>>> layer = mb.nn.Linear(64, 128)
>>> mb.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", rng=0).shape
(128, 64)
>>> np.abs(mb.nn.init.zeros_(layer.bias).data).max()
np.float32(0.0)
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from ..errors import OperandError, ShapeError, describe
from ..kernels import Array
from ..tensor import Tensor
from .arguments import Seed

P = TypeVar("P", bound=Tensor)

_LINEAR = "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d sigmoid"
_GAINS = dict.fromkeys(_LINEAR.split(), 1.0)
_GAINS |= {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which a layer's weights make up for what its nonlinearity takes away.

    ``param`` is the slope of "leaky_relu" below zero, 0.01 if left out. He et al. 2015,
    arXiv:1502.01852, for the ReLUs; the others are PyTorch's conventions.

    >>> calculate_gain("tanh"), calculate_gain("leaky_relu", 1.0)
    (1.6666666666666667, 1.0)
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise ShapeError(f"calculate_gain: the slope {param!r} of leaky_relu must be a number")
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        known = ", ".join(["leaky_relu", *_GAINS])
        raise ShapeError(f"calculate_gain: nonlinearity={nonlinearity!r} must be one of {known}")
    return _GAINS[nonlinearity]


def constant_(p: P, val: float) -> P:
    """Fill ``p`` with ``val``."""
    return _fill(p, np.full(_shape("constant_", p), val))


def zeros_(p: P) -> P:
    """Fill ``p`` with zeros."""
    return constant_(p, 0.0)


def ones_(p: P) -> P:
    """Fill ``p`` with ones."""
    return constant_(p, 1.0)


def uniform_(p: P, a: float = 0.0, b: float = 1.0, *, rng: Seed = None) -> P:
    """Draw ``p`` evenly from ``a`` to ``b``."""
    shape = _shape("uniform_", p)
    return _fill(p, np.random.default_rng(rng).uniform(a, b, shape))


def normal_(p: P, mean: float = 0.0, std: float = 1.0, *, rng: Seed = None) -> P:
    """Draw ``p`` from a normal distribution."""
    shape = _shape("normal_", p)
    return _fill(p, np.random.default_rng(rng).normal(mean, std, shape))


def xavier_uniform_(p: P, gain: float = 1.0, *, rng: Seed = None) -> P:
    """Draw ``p`` evenly, with variance ``gain**2 * 2 / (fan_in + fan_out)``.

    Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", equation 16.
    """
    bound = math.sqrt(3) * _xavier("xavier_uniform_", p, gain)
    return uniform_(p, -bound, bound, rng=rng)


def xavier_normal_(p: P, gain: float = 1.0, *, rng: Seed = None) -> P:
    """Draw ``p`` from a normal distribution, with the variance of `xavier_uniform_`."""
    return normal_(p, 0.0, _xavier("xavier_normal_", p, gain), rng=rng)


def kaiming_uniform_(
    p: P,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: Seed = None,
) -> P:
    """Draw ``p`` evenly, with variance ``gain**2 / fan``: ``a`` is the slope of leaky_relu.

    The fan is the one that ``mode`` names, "fan_in" or "fan_out"; the gain `calculate_gain`'s.
    He et al. 2015, arXiv:1502.01852, section 2.2.

    >>> from microbn.nn import Parameter
    >>> p = kaiming_uniform_(Parameter(np.zeros((1000, 6))), rng=0)  # at most sqrt(3 * 2 / 6)
    >>> float(np.abs(p.data).max()) <= 1, float(p.data.std().round(2))
    (True, 0.58)
    """
    bound = math.sqrt(3) * _kaiming("kaiming_uniform_", p, a, mode, nonlinearity)
    return uniform_(p, -bound, bound, rng=rng)


def kaiming_normal_(
    p: P,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: Seed = None,
) -> P:
    """Draw ``p`` from a normal distribution, with the variance of `kaiming_uniform_`."""
    return normal_(p, 0.0, _kaiming("kaiming_normal_", p, a, mode, nonlinearity), rng=rng)


def orthogonal_(p: P, gain: float = 1, *, rng: Seed = None) -> P:
    """Draw ``p``, as a matrix of ``len(p)`` rows, with orthonormal rows or columns times ``gain``.

    Each such matrix is equally likely: the signs of the QR decomposition are set as in Mezzadri
    2007, arXiv:math-ph/0609050, section 5. Saxe, McClelland & Ganguli 2014, arXiv:1312.6120.
    """
    rows, columns = _fans("orthogonal_", p)[1:]
    tall = max(rows, columns), min(rows, columns)
    q, r = np.linalg.qr(np.random.default_rng(rng).standard_normal(tall))
    q *= np.sign(np.diag(r))
    return _fill(p, gain * (q if rows >= columns else q.T).reshape(p.shape))


def fan_in(p: Tensor) -> int:
    """Return how many numbers each output of a layer with the weight ``p`` is summed from."""
    return _fans("fan_in", p)[2]


def _fans(op: str, p: Tensor) -> tuple[int, int, int]:
    """Return fan_out, the number of rows and fan_in of a weight (out, in, ...)."""
    shape = _shape(op, p)
    if len(shape) < 2 or 0 in shape:
        raise ShapeError(
            f"{op}({describe(p)}): a weight (out, in, ...) has two axes or more, none of length 0; "
            "for a bias use zeros_ or uniform_"
        )
    field = math.prod(shape[2:])  # the entries of a convolution's window
    return shape[0] * field, shape[0], shape[1] * field


def _xavier(op: str, p: Tensor, gain: float) -> float:
    fan_out, _, fan_in = _fans(op, p)
    return gain * math.sqrt(2 / (fan_in + fan_out))


def _kaiming(op: str, p: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fan_out, _, fan_in = _fans(op, p)
    fans = {"fan_in": fan_in, "fan_out": fan_out}
    if not isinstance(mode, str) or mode not in fans:
        raise ShapeError(f"{op}({describe(p)}): mode={mode!r} must be 'fan_in' or 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans[mode])


def _shape(op: str, p: Tensor) -> tuple[int, ...]:
    if not isinstance(p, Tensor):
        raise OperandError(f"{op} gives a Parameter new values; {describe(p)} is none")
    return tuple(p.shape)


def _fill(p: P, values: Array) -> P:
    p.data = values
    return p
