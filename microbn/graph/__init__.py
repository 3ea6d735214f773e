"""Looking at what was recorded: a plain snapshot of the graph, and pictures of it."""

from .drawing import Drawing, draw
from .graph import Graph
from .parts import Edge, Node, Scope, Source
from .step.event import Shown, Step
from .step.walk import Walk
from .stepping import steps
from .tracer import Trace, trace, tracing

__all__ = [
    "Drawing",
    "Edge",
    "Graph",
    "Node",
    "Scope",
    "Shown",
    "Source",
    "Step",
    "Trace",
    "Walk",
    "draw",
    "steps",
    "trace",
    "tracing",
]
