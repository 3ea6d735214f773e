"""Paths of the gradient: what flows along each edge, and along one path alone.

The gradient of an output with respect to ``x`` is a sum over all paths from the output back to
``x``: `paths` and `along` take the sum apart. Everything works on what any computation recorded,
before a snapshot is taken of it; `edges_of` finds the edges in a `Graph`. Paths that contribute
nothing are found in nullpaths.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .. import engine
from ..apart import apart
from ..errors import ShapeError, check_differentiable
from ..kernels import Array
from ..mirror import Edge
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


# Paths, one by one -------------------------------------------------------------------------------


@apart()
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


@apart()
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
