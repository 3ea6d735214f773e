"""Paths of the gradient along which exactly nothing gets through, and why.

Best known is the path of batch norm that leads through the variance to the mean: it is there in
every derivation, and it is zero. `null_paths` finds such paths in whatever was recorded.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from .. import engine, ops
from ..dispatch import like, plain
from ..errors import check_differentiable
from ..kernels import Array
from ..mirror import recorded
from ..node import clock
from ..tensor import Tensor
from .backward import SALT
from .paths import Link, Path, title, written
from .snapshot import axes_in_words, label_of
from .vanish import SUSPECT, Vanished, vanishing
from .wide import in_float64

LONGEST = 100  # edges of a null path


@dataclass(frozen=True, slots=True)
class NullPath:
    """A path along which exactly nothing gets through, whichever cotangent enters it.

    It is in the direction of the cotangent, and part of a path from the output, or of many. What
    flows into its last link is not 0, what comes out is. ``largest`` is the largest entry, in
    magnitude, of what is added up there, ``total`` the largest of what is left, which is rounding.
    ``text`` is the path in words.
    """

    path: Path
    reason: str
    largest: float
    total: float
    text: str

    @property
    def where(self) -> Link:
        """The edge where it vanishes."""
        return self.path[-1]

    def __str__(self) -> str:
        return f"{self.text}: {self.reason}"


@dataclass(frozen=True, slots=True)
class NullPaths(Sequence[NullPath]):
    """What `null_paths` has found, with which ``seed``; ``note`` says if it stopped early."""

    found: tuple[NullPath, ...]
    seed: str
    note: str = ""

    def __getitem__(self, index: Any) -> Any:
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    def __str__(self) -> str:
        head = f"{len(self) or 'no'} null path{'s' * (len(self) != 1)}, with {self.seed}"
        counts = Counter(f"  {null}" for null in self.found)  # in each of several layers, say
        lines = [f"{line} ({n} times)" if n > 1 else line for line, n in counts.items()]
        return "\n".join([head, *lines, *filter(None, [self.note])])


def null_paths(
    output: Tensor,
    grad_output: Any = None,
    *,
    limit: int = 100_000,
    names: Mapping[int, str] | None = None,
) -> NullPaths:
    """Find the paths that contribute exactly nothing to any gradient of ``output``, and say why.

    A null path ends with the edge where its flow vanishes, and begins as late as possible: with the
    first tensor from which any cotangent whatever would vanish there. So all paths that contain it
    contribute nothing. Only from the output itself it need not be any cotangent: without
    ``grad_output`` two random ones, always the same; with a given one, such as ones, more
    may cancel. ``names`` are names by the id of a tensor, for texts.

    Covered: flows are followed one by one from each tensor that has several ways in, through those
    that have one, to the next that has several, where they merge. If only a part of what merged
    there vanishes later, it is missed; and so is a path of more than `LONGEST` edges, or that
    begins beyond a second tensor with several ways in. At most ``limit`` edges are followed (about
    as many as edges times ways in are needed); ``note`` says if more were left. What a flow that
    is zero reaches is not reported again. Paths that only cancel each other are none of these.

    Exactly nothing: everything narrower is computed anew in float64. There, what is left of a sum
    counts as 0 if it is at most a millionth of what went in, and no more than its own rounding
    can explain, for which vanish.py derives a bound. Data so ill-conditioned that the
    bound is above a millionth decide nothing.

    >>> import numpy as np, microbn as mb
    >>> x = mb.Tensor(np.random.default_rng(0).normal(size=(4, 2)), requires_grad=True, name="x")
    >>> print(null_paths(mb.batch_norm(x)))
    1 null path, with two random cotangents
      var → squared → centered → mean: what flows along it is, in each column, a multiple of
      centered, whose sum over axis 0 is 0
    """
    check_differentiable(output, Tensor, "the output")
    with np.errstate(all="ignore"):
        wide, twins = in_float64(output)
        text, seeds = _seeds(wide, grad_output)
        first, *others = [_Search(wide, seed, limit) for seed in seeds]
        found = [
            _described(path, vanished, twins, names or {})
            for end, vanished in first.found.items()
            if all(end in other.found for other in others)
            for path in first.begun(*end)
        ]
    stopped = any(search.left < 0 for search in (first, *others))
    note = f"not all was looked at: there are more than limit={limit} edges to follow"
    return NullPaths(tuple(found), text, note * stopped)


def _seeds(output: Tensor, grad_output: Any) -> tuple[str, list[Tensor]]:
    """Return the cotangents to start from, and what they are in words."""
    if grad_output is not None:
        text, values = "the cotangent given", [plain(grad_output)]
    elif output.size == 1:  # all others are multiples of it
        text, values = "a cotangent of 1", [np.ones(output.shape)]
    else:
        text = "two random cotangents"
        values = [np.random.default_rng(SALT + k).standard_normal(output.shape) for k in range(2)]
    return text, [output._constant(like(output, g, True, "gradient"), True) for g in values]


class _Flow(NamedTuple):
    """A cotangent, and by which edge it came to the last tensor with several ways in, if any."""

    entry: Link | None
    g: Tensor


class _Search:
    """One recorded backward pass, in which flows that split are followed one by one.

    ``found`` has what vanished: at which edge, and by which it had entered, if only that flow did;
    ``left`` is how many more edges may be followed.
    """

    def __init__(self, output: Tensor, seed: Tensor, limit: int) -> None:
        self.add, self.edges = recorded(engine.pullback)
        self.arrived: dict[Tensor, dict[Link, list[_Flow]]] = defaultdict(dict)
        self.found: dict[tuple[Link | None, Link], Vanished] = {}
        self.output, self.seed, self.left = output, seed, limit
        for tensor in engine.toposort(output):
            if self.left < 0:
                break  # what comes to the others is not complete
            flows = [_Flow(None, seed)] if tensor is output else self._flows(tensor)
            if tensor.op is not None:
                self._follow(tensor, flows)

    def _flows(self, tensor: Tensor) -> list[_Flow]:
        """Return what came to ``tensor``; if along several edges, merged to one flow for each."""
        ways = self.arrived.get(tensor, {})
        if len(ways) < 2:
            return [flow for flows in ways.values() for flow in flows]
        return [
            _Flow(link, reduce(self.add, (flow.g for flow in flows)))
            for link, flows in ways.items()
        ]

    def _follow(self, tensor: Tensor, flows: list[_Flow]) -> None:
        """Send each flow on along every edge, and take out what vanishes."""
        gone: dict[Link, list[tuple[Link | None, Vanished]]] = {}
        for entry, g in flows:
            if not g.data.any():
                continue
            start = next(clock)
            for position, x, _, after in self.edges(tensor, g):
                self.left -= 1
                link = Link(tensor, position)
                after = after if isinstance(after, Tensor) else x._constant(after)
                if vanished := vanishing(after, g, start):
                    gone.setdefault(link, []).append((entry, vanished))
                else:
                    self.arrived[x].setdefault(link, []).append(_Flow(entry, after))
        for link, cases in gone.items():
            if len(cases) == len(flows):  # whichever way the flow came
                cases = [(None, cases[0][1])]
            self.found |= {(entry, link): vanished for entry, vanished in cases}

    def begun(self, entry: Link | None, link: Link) -> Iterator[Path]:
        """Yield the null paths that end with ``link``, and contain ``entry`` if there is one."""
        path: Path = (link,)
        while entry is not None and path[0] != entry:
            # between the two, tensors have one way in; the entry is one of several
            ways = self.arrived[path[0].consumer]
            path = (entry if entry in ways else next(iter(ways)), *path)
        pending = [(path, False)]
        while pending:
            path, forked = pending.pop()
            if self._is_null(path):
                yield path
                continue
            ways = self.arrived.get(path[0].consumer, {})
            if len(path) < LONGEST and not (forked and len(ways) > 1):
                forked = forked or len(ways) > 1
                pending += [((way, *path), forked) for way in reversed(ways)]

    def _is_null(self, path: Path) -> bool:
        """Whether a random cotangent at the start of ``path`` vanishes at its end, and not before.

        What is random vanishes only where any would. At the output it is the one asked for.
        """
        start = path[0].consumer
        random = like(
            start, np.random.default_rng(2).standard_normal(start.shape), True, "gradient"
        )
        g = self.seed if start is self.output else start._constant(random, True)
        for link in path:
            time = next(clock)
            flows = self.edges(link.consumer, g)
            after = next(after for position, _, _, after in flows if position == link.position)
            after = after if isinstance(after, Tensor) else link.input._constant(after)
            if vanishing(after, g, time):
                return link == path[-1]
            g = after
        return False


# What vanishes, in words -------------------------------------------------------------------------


def _described(
    path: Path, vanished: Vanished, twins: Mapping[Tensor, Tensor], names: Mapping[int, str]
) -> NullPath:
    """Put it in words; ``twins`` are the tensors that those of the search stand for."""
    own = tuple(Link(twins[link.consumer], link.position) for link in path)
    step, largest, total = vanished
    rule = f"the rule of {label_of(own[-1].consumer, own[-1].consumer.op)}"  # type: ignore[arg-type]
    if step is None:
        reason = f"{rule} gives 0 everywhere"
        if total:
            reason = f"{rule} makes {total:.1g} of {largest:.2g}, which is rounding"
    elif (axes := _summed_axes(step)) is None:
        reason = f"its entries cancel in {rule}: {largest:.2g} is added up, {total:.1g} is left"
    elif (multiple := _multiple(step.values[0], axes, _used(step, twins))) is None:
        reason = f"its entries cancel in the sum over {axes_in_words(axes)}: "
        reason += f"the largest is {largest:.2g}, their sum {total:.1g}"
    else:
        each, of = _each(axes, step.values[0].ndim), twins[multiple]
        name = of.name or names.get(id(of)) or f"the result of {title(of)}"
        reason = f"what flows along it is{each} a multiple of {name}, "
        reason += f"whose sum over {axes_in_words(axes)} is 0"
    return NullPath(own, reason, largest, total, written(own, names))


def _summed_axes(step: Tensor) -> tuple[int, ...] | None:
    """Return the axes of its argument that ``step`` sums over; None for a product of matrices."""
    before = step.values[0].shape
    if step.op is ops.sum_to:
        extra = len(before) - step.ndim
        return tuple(a for a, n in enumerate(before) if a < extra or step.shape[a - extra] != n)
    if step.op not in (ops.sum, ops.mean):
        return None
    axis = step.params["axis"]
    axes = range(len(before)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(a % len(before) for a in axes))


def _used(step: Tensor, forward: Container[Tensor]) -> Iterator[Tensor]:
    """Yield the forward values with which ``step`` was computed, those that came in last first."""
    pending, seen = deque([step]), {step}
    while pending:
        tensor = pending.popleft()
        if tensor in forward:
            yield tensor
            continue
        for x in tensor.inputs:
            if isinstance(x, Tensor) and x not in seen:
                seen.add(x)
                pending.append(x)


def _multiple(terms: Array, axes: tuple[int, ...], known: Iterable[Tensor]) -> Tensor | None:
    """Find what sums to 0 over ``axes``, and of which ``terms`` are a multiple along these."""
    for tensor in known:
        v = tensor.data
        if v.shape != terms.shape:
            continue
        amount = np.sum(np.abs(v), axis=axes, keepdims=True)
        sums_to_zero = np.abs(np.sum(v, axis=axes, keepdims=True)) <= SUSPECT * amount
        if not amount.any() or not sums_to_zero.all():
            continue
        squares = np.sum(v * v, axis=axes, keepdims=True)
        factor = np.sum(terms * v, axis=axes, keepdims=True) / np.where(squares, squares, 1)
        rest = np.abs(terms - factor * v)
        if (rest <= SUSPECT * np.max(np.abs(terms), axis=axes, keepdims=True)).all():
            return tensor
    return None


def _each(axes: tuple[int, ...], ndim: int) -> str:
    """Say for what the axes are summed over: ``in each column`` of a matrix, for instance.

    >>> _each((0,), 2), _each((1,), 2), _each((0, 2, 3), 4), _each((0,), 1)
    (', in each column,', ', in each row,', ', for each index of axis 1,', '')
    """
    rest = tuple(a for a in range(ndim) if a not in axes)
    if ndim == 2 and rest:
        return ", in each column," if axes == (0,) else ", in each row,"
    return f", for each index of {axes_in_words(rest)}," if rest else ""
