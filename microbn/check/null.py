"""Paths that contribute exactly nothing, of a trace."""

from __future__ import annotations

from typing import Any

from ..apart import apart
from ..errors import OperandError, ShapeError, describe
from ..graph import nullpaths
from ..graph.nullpaths import NullPaths
from ..graph.tracer import Trace
from ..tensor import Tensor


@apart()
def null_paths(
    trace: Trace | Tensor, grad_output: Any = None, *, limit: int = 100_000
) -> NullPaths:
    """Find the paths along which exactly nothing flows back, whatever the cotangent, and say why.

    ``trace`` is a `trace` with one output, or that output. The best known is the path of batch norm
    through the variance to the mean, which many who compare derivations miss a term for. With a
    ``grad_output`` it is of that cotangent only. Raises an OperandError (a TypeError) for anything
    else, a ShapeError (a ValueError) for several outputs or a wrong shape. What is covered, and
    how what is nothing is told from what is small, `microbn.graph.nullpaths` says.

    >>> import numpy as np, microbn as mb
    >>> x = np.random.default_rng(0).normal(size=(4, 2))
    >>> print(null_paths(mb.trace(mb.batch_norm, x)))
    1 null path, with two random cotangents
      var → squared → centered → mean: what flows along it is, in each column, a multiple of
      centered, whose sum over axis 0 is 0
    """
    if isinstance(trace, Tensor):
        return nullpaths.null_paths(trace, grad_output, limit=limit)
    if not isinstance(trace, Trace):
        raise OperandError(f"null_paths takes a Trace or a Tensor, not {describe(trace)}")
    if len(trace.outputs) != 1:
        found = ", ".join(map(describe, trace.outputs)) or "nothing"
        raise ShapeError(
            f"null_paths needs one output, and {trace.name or 'the block'} has {found}"
        )
    (output,) = trace.outputs
    return nullpaths.null_paths(output, grad_output, limit=limit, names=trace.notes.names)
