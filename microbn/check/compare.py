"""Hand-written gradients, stage by stage: which are wrong, and which only inherit a fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from .. import engine, kernels
from ..apart import apart
from ..dispatch import like, plain
from ..errors import OperandError, ShapeError, check_differentiable, describe, no_direction
from ..graph.paths import title
from ..graph.snapshot import in_order
from ..graph.tracer import Trace
from ..kernels import Array
from ..tensor import Tensor
from .comparison import Comparison, Row, Verdict
from .reference import Reference, rule_of

FOLLOWS = "what follows from the gradients given above it"
MOST = 10**6  # entries that broadcasting may blow up a wrong shape to


@apart()
def compare(
    trace: Trace | Tensor, stages: Mapping[Any, Any], grad_output: Any = None
) -> Comparison:
    """Compare hand-written gradients of named values with the true ones, and find the fault.

    ``trace`` is what ``mb.trace(fn, *inputs)`` returned, or its output. ``stages`` has gradients by
    the names of values, inputs too. A path through scopes tells two of one name apart,
    ``"batch_norm/var"``; so does the Tensor itself as the key. ``grad_output`` is the gradient of
    the output; a single number needs none. Verdicts:

    - ``ok``: right, but for rounding.
    - ``origin``: wrong, and not because of the gradients given above it, or of another shape or
      dtype.
    - ``inherited``: wrong, but just what follows by the true rules from the gradients above it.
    - ``cannot fail``: right, but the true gradient is nothing but round-off.

    If all stages are given, a single fault has a single origin. Raises an OperandError (a
    TypeError) for what is no trace, no dict or no array of numbers, a ShapeError (a ValueError) for
    a name that fits no value or several, a GradientError (a RuntimeError) for what requires none.

    >>> import microbn as mb
    >>> trace = mb.trace(lambda x: (x**2).named("square") * 3, np.array([1.0, 2.0]))
    >>> dy = np.array([1.0, -1.0])
    >>> dsquare = -3 * dy  # the sign is wrong
    >>> dx = dsquare * [2.0, 4.0]
    >>> print(compare(trace, {"square": dsquare, "x": dx}, dy))
    gradient  verdict    shape  worst at  expected  found    error
    d square  origin     (2,)   [0]              3     -3  2.0e+00
    d x       inherited  (2,)   [1]            -12     12  2.0e+00
    <BLANKLINE>
    The fault is at square: d square is -1 times what follows from the gradients given above it.
    x is wrong because of it and needs no mending.
    """
    output, names = _output_of(trace)
    if grad_output is None and output.size != 1:
        raise no_direction(output)
    dy = np.ones(output.shape) if grad_output is None else plain(grad_output)
    dy = like(output, dy, True, "gradient")
    given = _stages(output, names, stages)
    if not given:
        raise ShapeError("compare: no gradients were given; give them by the names of values")
    with np.errstate(all="ignore"):
        return Comparison(_rows(output, dy, given))


def _output_of(trace: Any) -> tuple[Tensor, Mapping[int, str]]:
    """Return the only output, and names by id."""
    traced = isinstance(trace, Trace)
    if not traced and not isinstance(trace, Tensor):
        raise OperandError(
            f"compare takes what mb.trace(fn, *inputs) returned, or its output, not "
            f"{describe(trace)}"
        )
    outputs, names = (trace.outputs, trace.notes.names) if traced else ((trace,), {})
    if len(outputs) != 1:
        raise ShapeError(
            f"compare({trace!r}): a backward pass starts from one output, not from {len(outputs)}; "
            "give the Tensor that it starts from"
        )
    check_differentiable(outputs[0], Tensor, "the output")
    return outputs[0], names


# What is given ------------------------------------------------------------------------------------


class Stage:
    """A gradient as it was ``given``, and as a ``value`` of the right shape, None if it has none.

    ``misfits`` says whether it is its shape or its dtype that is not the tensor's. Rounding is
    ``coarse`` times that of the tensor's dtype.
    """

    def __init__(self, name: str, tensor: Tensor, given: Any) -> None:
        self.name, self.tensor, given = name, tensor, plain(given)
        with suppress(TypeError, ValueError):  # a list has no dtype of its own
            given = np.asarray(given, None if hasattr(given, "dtype") else tensor.dtype)
        if not isinstance(given, np.ndarray) or given.dtype.kind not in "biuf":
            raise OperandError(
                f"compare: the gradient given for {name!r}, {describe(tensor)}, is "
                f"{describe(given)}; give a real array of that shape and dtype"
            )
        self.given: Array = given
        same = {"shape": given.shape == tensor.shape, "dtype": given.dtype == tensor.dtype}
        self.misfits = {kind for kind in same if not same[kind]}
        self.value = _fitted(given.astype(np.float64), tensor.shape)
        eps = np.finfo(given.dtype).eps if given.dtype.kind == "f" else 0
        self.coarse = max(1.0, float(eps / np.finfo(tensor.dtype).eps))
        self.tiny = float(np.finfo(tensor.dtype).tiny)

    def expected(self, reference: Reference) -> tuple[Array, Array]:
        """Return the gradient there, and how far this one may be off; zeros if nothing flows."""
        zeros, t = np.zeros(self.tensor.shape), self.tensor
        tolerance = reference.tolerances.get(t, zeros)
        return reference.gradients.get(t, zeros), self.coarse * tolerance

    def agrees(self, expected: Array, tolerance: Array) -> bool:
        """Whether it is as expected; what is not finite in this dtype need only not be finite."""
        if self.value is None:
            return False
        odd = ~np.isfinite(expected.astype(self.tensor.dtype))
        near = np.abs(self.value - expected) <= tolerance
        return bool(np.where(odd, ~np.isfinite(self.value), near).all())


def _fitted(value: Array, shape: tuple[int, ...]) -> Array | None:
    """Put in or leave out axes of length 1, or sum over what broadcasting would have repeated."""
    if [n for n in value.shape if n != 1] == [n for n in shape if n != 1]:
        return value.reshape(shape)
    with suppress(ValueError):
        return np.asarray(kernels.sum_to(value, shape=shape))
    return None


def _stages(output: Tensor, names: Mapping[int, str], given: Any) -> list[Stage]:
    """Return the stages from the output back."""
    if not isinstance(given, Mapping):
        raise OperandError(
            f"compare takes gradients as a dict by name, not {describe(given)}: "
            '{"var": dvar, "x": dx}'
        )
    known: dict[Tensor, str] = {}  # their paths
    for t in in_order((output,)):
        if name := names.get(id(t)) or t.name:
            known[t] = "/".join((*t.scope, name)).replace(".", "/")
    found: dict[Tensor, Stage] = {}
    for key, gradient in given.items():
        tensor = key if isinstance(key, Tensor) else _find(key, known)
        check_differentiable(tensor, Tensor, "a stage")
        name = key if isinstance(key, str) else title(tensor, names)
        if tensor in found or name in {stage.name for stage in found.values()}:
            raise ShapeError(
                f"compare: two of the gradients are for {name!r}: give each value once, and name "
                "those that have no name, with mb.named"
            )
        found[tensor] = Stage(name, tensor, gradient)
    return sorted(found.values(), key=lambda stage: -stage.tensor.time)


def _find(key: Any, known: Mapping[Tensor, str]) -> Tensor:
    """Return the tensor of this path, or the only one whose path ends in it."""
    if not isinstance(key, str):
        raise OperandError(f"compare: gradients are by names or Tensors, not by {describe(key)}")
    end = "/" + key.replace(".", "/")
    fits = {t: path for t, path in known.items() if f"/{path}".endswith(end)}
    exact = [t for t, path in fits.items() if f"/{path}" == end]
    if len(found := exact if len(exact) == 1 else [*fits]) == 1:
        return found[0]
    paths = ", ".join(sorted(set((fits or known).values()))) or "none, see mb.named"
    if not fits:
        raise ShapeError(f"compare: no value is called {key!r}; the names are: {paths}")
    raise ShapeError(
        f"compare: {len(fits)} values are called {key!r}: {paths}; give a longer path, or the "
        "Tensor itself as the key, or compute each in an mb.scope of its own"
    )


# Judging ------------------------------------------------------------------------------------------


def _rows(output: Tensor, dy: Array, stages: Sequence[Stage]) -> Iterator[Row]:
    """Judge each stage, from the output back: by the truth, and by what is given above it."""
    truth, above = Reference(output, dy), _above(output, stages)
    follows = truth
    if any(stage.misfits or not stage.agrees(*stage.expected(truth)) for stage in stages):
        follows = _carried_on(output, dy, [stage for stage in stages if stage.tensor in above])
    wrong: set[Stage] = set()
    for stage in stages:
        given_above = above.get(stage.tensor, set())
        (right, room), (after, near) = stage.expected(truth), stage.expected(follows)
        misfits = stage.misfits.difference(*(other.misfits for other in given_above))
        fits = stage.agrees(right, room)
        verdict: Verdict = "ok"
        if misfits or not (fits or stage.agrees(after, near)):
            verdict = "origin"
        elif stage.misfits or (wrong & given_above and not fits):
            verdict = "inherited"
        elif (np.abs(right) <= room).all() and (room > 2 * stage.tiny).any():
            verdict = "cannot fail"
        if verdict == "origin":
            right = after
        if verdict in ("origin", "inherited"):
            wrong.add(stage)
        note = _fault(stage, sorted(misfits), after, near) if verdict == "origin" else ""
        yield _row(stage, verdict, right, note)


def _above(output: Tensor, stages: Sequence[Stage]) -> dict[Tensor, set[Stage]]:
    """Return the stages that a cotangent comes through last, for each tensor that it reaches."""
    at = {stage.tensor: stage for stage in stages}
    above: dict[Tensor, set[Stage]] = {output: set()}
    for t in engine.toposort(output):
        for position, x in enumerate(t.inputs):
            if t in above and rule_of(t, position) is not None:
                above.setdefault(x, set()).update({at[t]} if t in at else above[t])
    return above


def _carried_on(output: Tensor, dy: Array, stages: Sequence[Stage]) -> Reference:
    """Go on from each gradient: if its shape is wrong, as broadcasting would, as in their code.

    For a sum that is lost at one stage may be missed only later. Where the rules cannot go on so,
    the gradient is fitted to the shape; else the true one takes its place.
    """
    given = {stage.tensor: stage.given for stage in stages if "shape" not in stage.misfits}
    reference = Reference(output, dy, given)
    for stage in stages:
        for form in (stage.given, stage.value) if "shape" in stage.misfits else ():
            with suppress(ValueError, IndexError):
                if form is None or _blown_up(form, stage.tensor):
                    continue
                reference = Reference(output, dy, given | {stage.tensor: form})
                given[stage.tensor] = form
                break
    return reference


def _blown_up(form: Array, tensor: Tensor) -> bool:
    size = prod(np.broadcast_shapes(form.shape, tensor.shape))
    return bool(size > max(MOST, form.size, tensor.size))


def _row(stage: Stage, verdict: Verdict, expected: Array, note: str) -> Row:
    t, given, value = stage.tensor, stage.given, stage.value
    index, numbers = None, (np.nan, np.nan, np.nan)
    if value is not None and value.size and "shape" not in stage.misfits:
        off = np.where(value == expected, 0.0, np.abs(value - expected))
        index = tuple(map(int, np.unravel_index(np.argmax(off), off.shape)))  # NaN is the largest
        error = off[index] and off[index] / np.max(np.abs(expected))
        numbers = float(expected[index]), float(value[index]), float(error)
    shapes, dtypes = (t.shape, given.shape), (str(t.dtype), str(given.dtype))
    return Row(stage.name, verdict, *shapes, *dtypes, index, *numbers, note)


def _fault(stage: Stage, misfits: Iterable[str], expected: Array, tolerance: Array) -> str:
    """Say what is wrong with a gradient, as a predicate."""
    kinds = [(kind, getattr(stage.given, kind), getattr(stage.tensor, kind)) for kind in misfits]
    said = [f"has {kind} {given} in place of {right}" for kind, given, right in kinds]
    if stage.value is not None and not stage.agrees(expected, tolerance):
        said.append(_relation(stage.value, expected, tolerance))
    return " and ".join(said or [f"is not {FOLLOWS}"])


def _relation(value: Array, expected: Array, tolerance: Array) -> str:
    """Say by which factor a gradient is wrong, or by which ones along an axis, if by any."""
    if not np.isfinite(value).all():
        return "is not finite"
    several = [axis for axis in range(value.ndim) if value.size > value.shape[axis]]
    for axis in (None, *several):
        over = tuple(a for a in range(value.ndim) if a != axis)
        ratio, norm = (np.sum(a * expected, over, keepdims=True) for a in (value, expected))
        ratio = ratio / norm
        if (np.abs(value - ratio * expected) <= (1 + np.abs(ratio)) * tolerance).all():
            numbers = ", ".join(f"{r + 0:.6g}" for r in ratio.ravel()[:6])
            along = f"{', ...' * (ratio.size > 6)} along axis {axis}"
            return f"is {numbers}{'' if axis is None else along} times {FOLLOWS}"
    return f"is not {FOLLOWS}"
