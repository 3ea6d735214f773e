"""Taking the snapshot that is to be looked at, and what there is to remark about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import describe
from ..tensor import Tensor
from .asused import as_used
from .graph import Graph
from .snapshot import Notes


class Taken(NamedTuple):
    """A graph, what there is to remark, and the outputs and notes with the leaves as used."""

    graph: Graph
    remarks: list[str]
    outputs: tuple[Tensor, ...]
    notes: Notes


def take(
    outputs: Sequence[Tensor], notes: Notes, backward: bool, grad_output: Any, failed: bool = False
) -> Taken:
    """Take the graph of ``outputs``; raises what `Graph.from_outputs` does.

    If the program ``failed``, it is no wonder if no call was recorded.
    """
    outputs, notes, overwritten = as_used(outputs, notes)
    graph = Graph.from_outputs(*outputs, backward=backward, grad_output=grad_output, notes=notes)
    remarks = [
        f"{notes.names.get(id(x)) or describe(x)} was written into after it had been used: "
        "what is shown is not what was computed with."
        for x in overwritten
    ]
    if not failed and all(output.op is None and not output.requires_grad for output in outputs):
        remarks.append(
            "No call was recorded: nothing that this was computed from requires grad. Give a leaf "
            "requires_grad=True, or compute in mb.trace."
        )
    if backward and grad_output is None and outputs[0]._grad is None and outputs[0].size > 1:
        seed = next(node.name for node in graph.nodes if node.part == "seed")
        remarks.append(f"{seed}: random numbers, for want of a grad_output.")
    return Taken(graph, list(dict.fromkeys(remarks)), outputs, notes)
