"""What was recorded, computed anew in float64: there, rounding is small enough to be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import engine
from ..context import recording
from ..errors import changed
from ..tensor import Tensor


def in_float64(output: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """Return the output computed in float64, and which tensor each one there stands for.

    Raises a GradientError (a RuntimeError) if a leaf was given new data since it was used.
    """
    tensors = engine.toposort(output)[::-1]
    for tensor in tensors:
        for x in tensor.inputs:
            if isinstance(x, Tensor) and x.time > tensor.time:
                raise changed(x, tensor.op.name if tensor.op else "")
    if not any(is_narrow(tensor.dtype) for tensor in tensors):
        return output, {tensor: tensor for tensor in tensors}
    wide: dict[Tensor, Tensor] = {}
    with recording(True):
        for tensor in tensors:
            if tensor.op is None:
                wide[tensor] = tensor._constant(widened(tensor.data), True)
                continue
            args = [wide.get(x, x) if isinstance(x, Tensor) else x for x in tensor.inputs]
            params = {k: widened(v) for k, v in tensor.params.items()}
            wide[tensor] = tensor.op(*args, **params)
    return wide[output], {new: old for old, new in wide.items()}


def is_narrow(dtype: Any) -> bool:
    """Whether it has fewer digits than float64."""
    return bool(dtype.kind == "f" and dtype.itemsize < 8)


def widened(value: Any) -> Any:
    """Return float64 for a narrower array, number or dtype; anything else as it is."""
    if isinstance(value, np.dtype):
        return np.dtype(np.float64) if is_narrow(value) else value
    narrow = hasattr(value, "astype") and is_narrow(value.dtype)
    return value.astype(np.float64) if narrow else value
