"""Looking at what was recorded: a plain snapshot of the graph, and pictures of it."""

from .drawing import Drawing, draw
from .graph import Graph

__all__ = ["Drawing", "Graph", "draw"]
