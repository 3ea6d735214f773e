"""A walk through a graph: every op forward, then every edge backward, as a list of steps."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...kernels import Array
from ..graph import Graph
from .backward import Backward
from .event import Failure, Step
from .forward import compute, failed, not_finite, start
from .page import page, write
from .reader import Reader


class State(NamedTuple):
    """What is known after a step: values, and gradients as far as they have arrived.

    Both are by the index of a forward node.
    """

    values: dict[int, Array]
    gradients: dict[int, Array]


class Walk(list[Step]):
    """The steps through a graph, in order.

    ``graph`` is what they go through, ``title`` what to call it, ``remarks`` what there is to say
    of it all, ``names`` what each forward node is called. ``backward`` is the index of the step at
    which the backward pass starts, None if there is none. Where there is a ``failure``,
    ``operands`` are what the call was given: names, as far as there are any, and values.
    """

    def __init__(
        self,
        graph: Graph,
        title: str = "",
        remarks: tuple[str, ...] = (),
        failure: Failure | None = None,
        given: str = "what is given",
        operands: Sequence[tuple[str | None, Array]] = (),
    ) -> None:
        reader = Reader(graph)
        events = _events(reader, failure, given, operands)
        super().__init__(Step(index, **event) for index, event in enumerate(events))
        self.graph, self.title, self.remarks = graph, title, remarks
        self.names = {k: name.text for k, name in reader.names.texts.items()}
        self.backward = next((step.index for step in self if step.kind == "seed"), None)

    def state(self, k: int) -> State:
        """Return the values and the gradients that are there after step ``k``.

        >>> import microbn as mb
        >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
        >>> walk = mb.steps((x * x).named("y"))
        >>> walk.state(1).values, walk.state(3).gradients  # x is 0, y is 1; one of two ways back
        ({0: array(3.), 1: array(9.)}, {1: array(1.), 0: array(3.)})
        """
        leaves = (n for n in self.graph.nodes if n.part is None and n.op is None)
        values = {n.index: n.value for n in leaves if n.value is not None}
        gradients: dict[int, Array] = {}
        for step in self[: range(len(self))[k] + 1]:
            if step.node is None:
                continue
            if step.kind == "forward" and step.node.value is not None:
                values[step.node.index] = step.node.value
            if step.gradient is not None and step.gradient.value is not None:
                gradients[step.node.index] = step.gradient.value
        return State(values, gradients)

    def strange(self) -> Step | None:
        """Return the first step that has a number which is not finite, if there is one."""
        for step in self:
            if any(not_finite(array) for array in self.made(step)):
                return step
        return None

    def made(self, step: Step) -> list[Array]:
        """Return the arrays that come into being at a step: at the start all that is given."""
        if step.kind == "start":
            leaves = (n for n in self.graph.nodes if n.part is None and n.op is None)
            return [n.value for n in leaves if n.value is not None]
        return [] if step.result is None or step.kind == "error" else [step.result.value]

    def html(self) -> str:
        """Return one HTML page that shows all steps, and needs nothing else."""
        return page(self)

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write that page to a file, which is touched only once the page is made."""
        write(self, path)

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame of its own."""
        text = html.escape(self.html(), quote=True)
        style = "width:100%;height:720px;border:1px solid #94a3b8;border-radius:8px"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{text}"></iframe>'

    def __repr__(self) -> str:
        return f"<Walk through {self.title or 'a graph'}: {len(self)} steps>"


def _events(
    reader: Reader,
    failure: Failure | None,
    given: str,
    operands: Sequence[tuple[str | None, Array]],
) -> Iterator[dict[str, Any]]:
    """Yield what the steps are made of."""
    yield start(reader)
    yield from (compute(reader, node) for node in reader.forward if node.op is not None)
    if failure:
        yield failed(reader, failure, operands)
    yield from Backward(reader, given).steps()
