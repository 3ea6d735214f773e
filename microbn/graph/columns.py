"""Straight columns: which argument an op is to be drawn right below, found from the edges alone.

Graphviz places each node by compromise; without such hints the main line of a graph drifts away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from .parts import Edge


class Columns:
    """Each op goes below the longest chain of ops that leads to it, if it has the most to follow.

    ``above[op]`` is the node it goes below; an op that is not in ``above`` starts a new column.
    ``alone`` holds the ops that no other is level with, counted from the leaves as well as from
    the outputs.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True)
    >>> columns = Columns(mb.Graph.from_outputs(-(-x) + x * 2).edges)  # x, -, -, ×, +
    >>> columns.above, sorted(columns.alone)
    ({1: 0, 2: 1, 4: 2}, [4])
    """

    def __init__(self, edges: Sequence[Edge]) -> None:
        self.arguments: dict[int, list[Edge]] = defaultdict(list)
        for edge in edges:
            self.arguments[edge.target].append(edge)
        height: Counter[int] = Counter()
        for edge in reversed(edges):
            height[edge.source] = max(height[edge.source], height[edge.target] + 1)
        depth: Counter[int] = Counter()
        below: dict[int, int] = {}
        for op, arguments in self.arguments.items():
            source = max((edge.source for edge in arguments), key=depth.__getitem__)
            depth[op] = depth[source] + 1
            if source not in below or height[below[source]] < height[op]:
                below[source] = op
        self.above = {op: source for source, op in below.items()}
        depths = Counter(depth[op] for op in self.arguments)
        heights = Counter(height[op] for op in self.arguments)
        self.alone = {op for op in self.arguments if depths[depth[op]] == heights[height[op]] == 1}

    def straight(self, edge: Edge) -> bool:
        """Whether ``edge`` is part of a column."""
        return self.above.get(edge.target) == edge.source
