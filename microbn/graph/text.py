"""The graph as text, for terminals: one line a node, indented by scope."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Graph


def tree(graph: Graph) -> str:
    """Write one line for each node."""
    return "\n".join(node.title for node in graph.nodes)
