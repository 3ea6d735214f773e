"""How calls of NumPy functions on Tensors find their rule.

NumPy hands a call such as ``np.mean(t, axis=0)`` to the Tensor, which looks here: a function is
recorded as the primitive that has its rule, answered with plain arrays if it has no derivative,
or refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .errors import OperandError
from .ops import Op

# Functions without a derivative, or whose derivative is zero.
CONSTANT: frozenset[Any] = frozenset(
    getattr(np, name)
    for name in (
        "all allclose any argmax argmin argpartition argsort argwhere array_equal array_repr "
        "array_str array2string bincount can_cast ceil count_nonzero digitize empty_like equal "
        "flatnonzero floor floor_divide full_like greater greater_equal isclose isfinite isinf "
        "isnan less less_equal logical_and logical_not logical_or logical_xor may_share_memory "
        "ndim nonzero not_equal ones_like result_type rint round searchsorted shape "
        "shares_memory sign signbit size trunc unique zeros_like"
    ).split()
)

REASONS = {
    "out": "it would overwrite values that the backward pass needs; assign the result instead",
    "where": "what it leaves out has no value; use np.where on the result instead",
    "dtype": "use .astype on the operand or on the result instead",
}


def bind(
    op: Op, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split a call in NumPy's way into an op's values and its metadata: ``(x, 0)`` is ``axis=0``.

    Raises an OperandError for an option that the op does not have (``out=``, ``where=``, ...).
    """
    n = 1 if op.variadic else len(op.vjps)
    if len(args) != n and not isinstance(function, np.ufunc):
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        args, kwargs = tuple(given.values())[:n], dict(tuple(given.items())[n:])
    if not kwargs.keys() <= op.params.keys():
        option = min(kwargs.keys() - op.params.keys())
        reason = REASONS.get(option, f"it takes {', '.join(op.params) or 'no options'}")
        raise OperandError(f"{function.__name__} on a Tensor does not take {option}=: {reason}")
    return tuple(args[0]) if op.variadic else tuple(args), {**op.params, **kwargs}


def refuse(function: Callable[..., Any]) -> OperandError:
    """Say that ``function`` has no rule, and how it gets one."""
    name = function.__name__
    module = getattr(function, "__module__", None) or "numpy"
    path = f"{'np' if module == 'numpy' else module.replace('numpy', 'np', 1)}.{name}"
    return OperandError(
        f"{path} has no derivative rule. Add one: "
        f'mb.ops.Op("{name}", {path}, lambda g, out, x: ...), one vjp per argument; '
        f"or use .numpy() if nothing is to be differentiated through it"
    )
