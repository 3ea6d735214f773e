"""Straight columns: which argument an op is to be drawn right below, found from the graph alone.

Graphviz places each node by compromise; without such hints the main line of a graph drifts away.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from .graph import Graph
from .parts import Edge


class Columns:
    """Each op goes below the longest chain of ops that leads to it, if it is the first to.

    ``above[op]`` is the node it goes below; an op that is not in ``above`` starts a new column.
    ``alone`` holds the ops that no other is level with, counted from the leaves as well as from
    the outputs.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True)
    >>> columns = Columns(mb.Graph.from_outputs(-(-x) + x * 2))  # x, -, -, ×, +
    >>> columns.above, sorted(columns.alone)
    ({1: 0, 2: 1, 4: 2}, [4])
    """

    def __init__(self, graph: Graph) -> None:
        self.arguments: dict[int, list[Edge]] = defaultdict(list)
        for edge in graph.edges:
            self.arguments[edge.target].append(edge)
        self.above: dict[int, int] = {}
        depth = [0] * len(graph.nodes)
        free = set(range(len(graph.nodes)))
        for op, arguments in self.arguments.items():
            source = max((edge.source for edge in arguments), key=depth.__getitem__)
            depth[op] = depth[source] + 1
            if source in free:
                self.above[op] = source
                free.remove(source)
        height = [0] * len(graph.nodes)
        for edge in reversed(graph.edges):
            height[edge.source] = max(height[edge.source], height[edge.target] + 1)
        depths = Counter(depth[op] for op in self.arguments)
        heights = Counter(height[op] for op in self.arguments)
        self.alone = {op for op in self.arguments if depths[depth[op]] == heights[height[op]] == 1}
