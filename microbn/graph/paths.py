"""Paths of the gradient: what flows along each edge, along one path alone, and what cancels.

The gradient of an output with respect to ``x`` is a sum over all paths from the output back to
``x``. `shares` says how much of a cotangent came along each edge, `paths` and `along` take the sum
apart, `null_paths` finds the terms that are exactly nothing. Everything works on what any
computation recorded, before a snapshot is taken of it; `edges_of` finds the edges in a `Graph`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .. import engine, ops
from ..context import recording
from ..dispatch import like, plain
from ..errors import ShapeError, changed, check_differentiable
from ..kernels import Array
from ..mirror import Edge, recorded
from ..node import clock
from ..tensor import Tensor
from .backward import seed_of
from .snapshot import Notes, Snapshot, label_of


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """An edge of what was recorded: the argument at ``position`` of the call made ``consumer``.

    A cotangent takes it from the consumer to the ``input``. Links are equal if they are the same
    edge.
    """

    consumer: Tensor
    position: int

    @property
    def input(self) -> Tensor:
        """The tensor that the edge leads back to."""
        tensor: Tensor = self.consumer.inputs[self.position]
        return tensor

    def __eq__(self, other: object) -> bool:
        # Tensors compare entry by entry, so the comparison of a tuple or dataclass would not do.
        if not isinstance(other, Link):
            return NotImplemented
        return self.consumer is other.consumer and self.position == other.position

    def __hash__(self) -> int:
        return hash((id(self.consumer), self.position))

    def __repr__(self) -> str:
        return f"<Link: {title(self.consumer)} → {title(self.input)}>"


Path = tuple[Link, ...]  # in the direction of the cotangent: from the output back


def title(tensor: Tensor, names: Mapping[int, str] | None = None) -> str:
    """What to call a tensor: its name, also by its id in ``names``, else its op."""
    label = label_of(tensor, tensor.op) if tensor.op else "an input"
    return tensor.name or (names or {}).get(id(tensor)) or label


# What flows along each edge ----------------------------------------------------------------------


class Pass:
    """A backward pass that keeps what flowed along every edge.

    It starts from ``seed``: ``grad_output``, or what a backward graph starts from without one.
    ``flows[link]`` has the shape of the input that the link leads to, and ``ways[x]`` are the
    links that lead to ``x``; the flows along them add up to ``cotangents[x]``.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> back = Pass(x * x + 4 * x)
    >>> [(link, float(back.flows[link])) for link in back.ways[x]]
    [(<Link: 4 × → x>, 4.0), (<Link: × → x>, 3.0), (<Link: × → x>, 3.0)]
    """

    def __init__(self, output: Tensor, grad_output: Any = None) -> None:
        self.flows: dict[Link, Array] = {}
        self.ways: dict[Tensor, list[Link]] = {}
        self.seed = seed_of(output, grad_output).data
        self.cotangents = dict(engine.backprop(output, self.seed, pullback=self._edges))

    def _edges(self, tensor: Any, g: Any) -> Iterator[Edge]:
        for position, x, before, after in engine.pullback(tensor, g):
            link = Link(tensor, position)
            self.flows[link] = after
            self.ways.setdefault(x, []).append(link)
            yield position, x, before, after


def shares(output: Tensor, grad_output: Any = None) -> dict[Link, float]:
    """Return for each edge its share of the cotangent that it leads to.

    If several edges lead to ``x``, the share of one is ``<flow, d x> / <d x, d x>``, computed in
    float64: how long its flow is along ``d x``, in units of ``d x``. They sum to 1; one below 0
    works against the others. The only edge to a tensor has the share 1.0. NaN where there is
    nothing to share: ``d x`` is not finite, or it is 0, also up to the rounding of its sum.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> y = (x**2).named("square") - x
    >>> for link, share in shares(y.named("y")).items():
    ...     print(link, round(share, 3))
    <Link: y → square> 1.0
    <Link: y → x> -0.2
    <Link: square → x> 1.2
    """
    back = Pass(output, grad_output)
    found = dict.fromkeys(back.flows, math.nan)
    for ways in back.ways.values():
        parts = [back.flows[link] for link in ways]
        found |= dict(zip(ways, _shares(parts), strict=True))
    return found


def _shares(flows: Sequence[Array]) -> list[float]:
    with np.errstate(all="ignore"):
        largest = max(float(np.abs(flow).max(initial=0)) for flow in flows)
        if not 0 < largest < math.inf:
            return [math.nan] * len(flows)
        if len(flows) == 1:
            return [1.0]
        parts = np.stack([np.asarray(flow, np.float64).ravel() for flow in flows])
        parts /= largest  # or squares might overflow
        whole = parts.sum(0)
        if np.abs(whole).max() <= len(flows) * np.finfo(flows[0].dtype).eps:
            return [math.nan] * len(flows)
        shares: list[float] = (parts @ whole / (whole @ whole)).tolist()
        return shares


# Paths, one by one -------------------------------------------------------------------------------


def paths(output: Tensor, x: Tensor, *, limit: int = 1000) -> list[Path]:
    """Return every path along which a cotangent gets from ``output`` back to ``x``.

    They are in the order of positions: first those by the first argument of the output. Raises a
    ShapeError (a ValueError), which says how many there are, for more than ``limit``: each tensor
    that is used twice may double their number.

    >>> import microbn as mb
    >>> x = mb.Tensor([[7.0, 70.0], [8.0, 80.0]], requires_grad=True, name="x")
    >>> for path in paths(mb.batch_norm(x), x):
    ...     print(written(path))
    x_hat → centered → x
    x_hat → centered → mean → x
    x_hat → inv_std → std → var_eps → var → squared → centered → x
    x_hat → inv_std → std → var_eps → var → squared → centered → mean → x
    """
    check_differentiable(output, Tensor, "the output")
    check_differentiable(x, Tensor, "the end of a path")
    number = {x: 1}  # of paths from a tensor to x, for those that have any
    for tensor in reversed(engine.toposort(output)):
        if tensor is not x and (n := sum(number.get(link.input, 0) for link in _links(tensor))):
            number[tensor] = n
    if number.get(output, 0) > limit:
        raise ShapeError(
            f"there are {number[output]} paths from {title(output)} to {title(x)}, more than "
            f"limit={limit}; ask for those to a tensor in between, or look at shares of edges"
        )
    return [*_paths(output, x, number)] if output in number else []


def _paths(output: Tensor, x: Tensor, leads: Mapping[Tensor, int]) -> Iterator[Path]:
    if output is x:
        yield ()
        return
    path: list[Link] = []
    pending = [_links(output)]  # what is left to try at the start, and after each link
    while pending:
        if not pending[-1]:
            pending.pop()
            del path[-1:]
            continue
        link = pending[-1].pop(0)
        if link.input is x:
            yield (*path, link)
        elif link.input in leads:
            path.append(link)
            pending.append(_links(link.input))


def _links(tensor: Tensor) -> list[Link]:
    """Return the edges along which a cotangent flows on from ``tensor``."""
    op = tensor.op
    return [
        Link(tensor, position)
        for position, x in enumerate(tensor.inputs)
        if isinstance(x, Tensor)
        and x.requires_grad
        and op is not None
        and (op.variadic or op.vjps[position] is not None)
    ]


def along(path: Path, grad_output: Any = None) -> Array:
    """Return what flows along ``path`` alone: a cotangent of the tensor that it ends in.

    The sum over all `paths` to a tensor is its gradient. It starts from ``grad_output``, or what
    a backward graph starts from without one. Raises a ShapeError (a ValueError) for links that do
    not follow one another, or none.

    >>> import numpy as np, microbn as mb
    >>> x = mb.Tensor([[7.0], [8.0], [9.0]], requires_grad=True, name="x")
    >>> direct, via_mean, via_var, via_both = paths(mb.batch_norm(x), x)
    >>> dy = np.array([[1.0], [0.0], [0.0]])
    >>> along(via_mean, dy).round(3).ravel(), np.abs(along(via_both, dy)).max() < 1e-15
    (array([-0.408, -0.408, -0.408]), np.True_)
    """
    if not path or any(a.input is not b.consumer for a, b in pairwise(path)):
        raise ShapeError(f"{path!r} is no path: each link starts where the one before it ends")
    g = seed_of(path[0].consumer, grad_output).data
    for link in path:
        flows = engine.pullback(link.consumer, g)
        g = next((after for position, _, _, after in flows if position == link.position), None)
        if g is None:
            raise ShapeError(f"nothing flows along {link!r}: it has no rule, or needs no gradient")
    return g


def written(path: Path, names: Mapping[int, str] | None = None) -> str:
    """Write a path in the direction of the cotangent; ``names`` are names by the id of a tensor."""
    ends = [*(link.consumer for link in path), *(link.input for link in path[-1:])]
    return " → ".join(title(tensor, names) for tensor in ends)


def edges_of(path: Iterable[Link], *outputs: Tensor) -> list[tuple[int, int, int]]:
    """Return ``(source, target, position)`` of each link in ``Graph.from_outputs(*outputs)``.

    A forward edge in a graph leads from the source to the target, against the cotangent.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> y = x**2 - x
    >>> [edges_of(path, y) for path in paths(y, x)]
    [[(1, 2, 0), (0, 1, 0)], [(0, 2, 1)]]
    """
    snapshot = Snapshot(Notes())  # indexes are places in the order of computation: always the same
    snapshot.add_forward(outputs)
    index = snapshot.index
    return [(index[id(a.input)], index[id(a.consumer)], a.position) for a in path]


# Paths that contribute nothing -------------------------------------------------------------------

LONGEST = 100  # edges of a null path
SUSPECT = 1e-6  # what is left of a sum, by what went in, for its rounding to be looked into


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
    can explain, for which `_is_rounding` derives a bound. Data so ill-conditioned that the
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
        wide, twins = _in_float64(output)
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


def _in_float64(output: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """Return the output computed in float64, and which tensor each one there stands for."""
    tensors = engine.toposort(output)[::-1]
    if not any(_is_narrow(tensor.dtype) for tensor in tensors):
        return output, {tensor: tensor for tensor in tensors}
    wide: dict[Tensor, Tensor] = {}
    with recording(True):
        for tensor in tensors:
            if tensor.op is None:
                wide[tensor] = tensor._constant(_widened(tensor.data), True)
                continue
            for x in tensor.inputs:
                if isinstance(x, Tensor) and x.time > tensor.time:
                    raise changed(x, tensor.op.name)
            args = [wide.get(x, x) if isinstance(x, Tensor) else x for x in tensor.inputs]
            params = {k: _widened(v) for k, v in tensor.params.items()}
            wide[tensor] = tensor.op(*args, **params)
    return wide[output], {new: old for old, new in wide.items()}


def _is_narrow(dtype: Any) -> bool:
    return bool(dtype.kind == "f" and dtype.itemsize < 8)


def _widened(value: Any) -> Any:
    """Return float64 for a narrower array, number or dtype; anything else as it is."""
    if isinstance(value, np.dtype):
        return np.dtype(np.float64) if _is_narrow(value) else value
    narrow = hasattr(value, "astype") and _is_narrow(value.dtype)
    return value.astype(np.float64) if narrow else value


def _seeds(output: Tensor, grad_output: Any) -> tuple[str, list[Tensor]]:
    """Return the cotangents to start from, and what they are in words."""
    if grad_output is not None:
        text, values = "the cotangent given", [plain(grad_output)]
    elif output.size == 1:  # all others are multiples of it
        text, values = "a cotangent of 1", [np.ones(output.shape)]
    else:
        text = "two random cotangents"
        values = [np.random.default_rng(k).standard_normal(output.shape) for k in range(2)]
    return text, [output._constant(like(output, g, True, "gradient"), True) for g in values]


class _Flow(NamedTuple):
    """A cotangent, and by which edge it came to the last tensor with several ways in, if any."""

    entry: Link | None
    g: Tensor


class _Vanished(NamedTuple):
    """What went in and what is left, and the ``step`` that summed it up, if it cancelled there."""

    step: Tensor | None
    largest: float
    total: float


class _Search:
    """One recorded backward pass, in which flows that split are followed one by one.

    ``found`` has what vanished: at which edge, and by which it had entered, if only that flow did;
    ``left`` is how many more edges may be followed.
    """

    def __init__(self, output: Tensor, seed: Tensor, limit: int) -> None:
        self.add, self.edges = recorded(engine.pullback)
        self.arrived: dict[Tensor, dict[Link, list[_Flow]]] = defaultdict(dict)
        self.found: dict[tuple[Link | None, Link], _Vanished] = {}
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
        gone: dict[Link, list[tuple[Link | None, _Vanished]]] = {}
        for entry, g in flows:
            if not g.data.any():
                continue
            start = next(clock)
            for position, x, _, after in self.edges(tensor, g):
                self.left -= 1
                link = Link(tensor, position)
                after = after if isinstance(after, Tensor) else x._constant(after)
                if vanished := _vanished(after, g, start):
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
            if _vanished(after, g, time):
                return link == path[-1]
            g = after
        return False


def _vanished(after: Tensor, g: Tensor, start: int) -> _Vanished | None:
    """Say how ``after``, made of ``g`` since the time ``start``, is exactly nothing, if it is."""
    for step in _steps(after, start):
        if step.op not in COUNTS:
            continue
        amount = _amount(step)
        cancels = bool(amount.any() and (np.abs(step.data) <= SUSPECT * amount).all())
        if cancels and _is_rounding(step, amount):
            terms = amount if step.op is ops.matmul else np.abs(step.values[0])
            return _Vanished(step, float(np.max(terms)), float(np.abs(step.data).max()))
    largest, total = (float(np.abs(t.data).max(initial=0)) for t in (g, after))
    small = total <= SUSPECT * largest < math.inf
    if after.size and small and _is_rounding(after, largest):
        return _Vanished(None, largest, total)
    return None


def _steps(after: Tensor, start: int) -> Iterator[Tensor]:
    """Yield the calls since the time ``start`` that led to ``after``, the last one first."""
    pending, seen = [after], {after}
    while pending:
        step = pending.pop()
        if step.time > start and step.op is not None:
            yield step
            inputs = [a for a in step.inputs if isinstance(a, Tensor) and a not in seen]
            seen.update(inputs)
            pending += inputs


# How many numbers each entry of a result was added up from.
COUNTS: dict[ops.Op, Callable[[Tensor], int]] = {
    ops.sum: lambda t: t.values[0].size // max(t.size, 1),
    ops.mean: lambda t: t.values[0].size // max(t.size, 1),
    ops.sum_to: lambda t: t.values[0].size // max(t.size, 1),
    ops.matmul: lambda t: t.values[0].shape[-1],
    ops.scatter: lambda t: t.values[0].size,
}


def _amount(step: Tensor) -> Array:
    """Add up the magnitudes of what a sum adds up."""
    assert step.op is not None
    return step.op.kernel(*map(np.abs, step.values), **step.params)


def _is_rounding(step: Tensor, amount: Array | float) -> bool:
    """Whether rounding explains all of ``step``, where it is 0 in exact arithmetic.

    Every earlier result ``v`` is off by ``n * eps * |v|`` at most, where ``n = 1``; for the sum of
    n numbers, by ``n * eps`` times the sum of their magnitudes. To first order, each error counts
    as much as the derivative of ``step`` by ``v`` says: it is differentiated once more, through
    its backward and forward pass (so Linnainmaa, 1976, came to invent backprop). Entries of
    ``step`` are weighted by ``amount``, what would be there without cancelling, and the
    walk ends as soon as the errors explain them, or are too large for that to mean anything,
    or NaN.
    """
    weight = np.sign(step.data) / np.where(np.equal(amount, 0), 1, amount)
    total, bound = float(np.sum(weight * step.data)), 0.0
    if total == 0 or not step.requires_grad:
        return total == 0
    for v, sensitivity in engine.backprop(step, weight):
        if v.op is not None:
            error = COUNTS[v.op](v) * _amount(v) if v.op in COUNTS else np.abs(v.data)
            bound += float(np.sum(np.abs(sensitivity) * error)) * float(np.finfo(v.dtype).eps)
        if not bound <= SUSPECT * step.size:
            return False
        if total <= bound:
            return True
    return False


# What vanishes, in words -------------------------------------------------------------------------


def _described(
    path: Path, vanished: _Vanished, twins: Mapping[Tensor, Tensor], names: Mapping[int, str]
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
        reason = f"its entries cancel in the sum over {_over(axes)}: "
        reason += f"the largest is {largest:.2g}, their sum {total:.1g}"
    else:
        each, of = _each(axes, step.values[0].ndim), twins[multiple]
        name = of.name or names.get(id(of)) or f"the result of {title(of)}"
        reason = f"what flows along it is{each} a multiple of {name}, "
        reason += f"whose sum over {_over(axes)} is 0"
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
    return f", for each index of {_over(rest)}," if rest else ""


def _over(axes: tuple[int, ...]) -> str:
    return f"ax{'i' if len(axes) == 1 else 'e'}s {', '.join(map(str, axes))}"
