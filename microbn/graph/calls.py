"""How a call is written in a line of text: an op among its arguments, an index in brackets."""

from __future__ import annotations

from typing import Any

import numpy as np

from .parts import Node
from .snapshot import number

ENTRIES = 6  # of an array of indices that is written out


def written(node: Node, operands: list[str]) -> str:
    """Write an op with its arguments: between, before, behind or around them."""
    label, params = node.label, _params(node)
    if node.op == "index" and len(operands) == 1:
        return f"{_whole(operands[0])}[{key_in_brackets(node.params.get('key'))}]"
    if node.op == "scatter" and len(operands) == 1:
        return f"{label}({operands[0]} at {key_in_brackets(node.params.get('key'))})"
    if node.op == "sum_to":
        return f"{label} of {', '.join(operands)}"
    if label.count("·") == len(operands) and not params:
        parts = label.split("·")
        return parts[0] + "".join(a + part for a, part in zip(operands, parts[1:], strict=True))
    if len(operands) == 1 and label == "ᵀ" and not params:
        return f"{_whole(operands[0])}{label}"
    if len(operands) <= 2 and not label.isidentifier() and not params and "·" not in label:
        if len(operands) == 2:
            return f" {label} ".join(operands)
        return " ".join([*operands, label] if 1 in node.scalars else [label, *operands])
    return f"{label}({', '.join([*operands, *params])})"


def _whole(operand: str) -> str:
    return f"({operand})" if " " in operand else operand


def _params(node: Node) -> list[str]:
    """Write the parameters that the shape of the result does not tell."""
    return [
        f"{key}={_param(value)}"
        for key, value in node.params.items()
        if key not in ("shape", "keepdims", "key") and value is not None
    ]


def _param(value: Any) -> str:
    return number(value) if np.isscalar(value) else " ".join(str(value).split())


def key_in_brackets(key: Any) -> str:
    """Write an index as it is between brackets.

    >>> key_in_brackets((slice(1, None), ..., np.arange(9), None, -1))
    '1:, ..., [0 1 2 … 8], None, -1'
    """
    if isinstance(key, tuple):
        return ", ".join(map(key_in_brackets, key)) if key else "()"
    if isinstance(key, slice):
        ends = ["" if end is None else str(end) for end in (key.start, key.stop, key.step)]
        return ":".join(ends if ends[2] else ends[:2])
    if key is ...:
        return "..."
    if hasattr(key, "shape") and key.shape:
        return _indices(key)
    return str(key)


def _indices(key: Any) -> str:
    if key.dtype == bool:
        return f"mask of {int(key.sum())}"
    if len(key.shape) > 1:
        return f"{'×'.join(map(str, key.shape))} indices"
    entries = [str(entry) for entry in (key if key.size <= ENTRIES else key[[0, 1, 2, -1]])]
    if key.size > ENTRIES:
        entries[3:3] = "…"
    return f"[{' '.join(entries)}]"
