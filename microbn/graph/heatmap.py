"""Small arrays as tables inside the nodes of a picture: numbers on colours that say their size.

Not every engine draws tables, so the DOT only makes room for them (`measure`); the cells are
painted into the SVG afterwards, where the engine has put the node (`paint`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from ..kernels import Array
from .theme import FONT, PALETTES

SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", SVG)  # to be written as <svg>, not <ns0:svg>
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")

MOST = 6  # rows and columns
LONGEST = 8  # characters of a number
# Lengths are in points, the unit of Graphviz's SVG.
SIZE, CAPTION = 8.0, 7.0  # of the text
ROW, NARROWEST, GAP, BETWEEN = 12.5, 26.0, 1.0, 9.0
ABOVE = 10.0  # for a caption
BELOW = 6.0  # between the tables and the bottom of the node
LOWER = 3.0  # how far a node's label is moved away from the top, where Graphviz glues it

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Scale:
    """The fills of a cell and the colour of its text; any fill between the three is possible."""

    negative: str
    zero: str
    positive: str
    text: str


SCALES = {
    False: Scale("#60A5FA", "#FFFFFF", "#FB923C", "#0F172A"),
    True: Scale("#1D4ED8", "#0F172A", "#B45309", "#F8FAFC"),  # for dark pictures
}
WARNING = ("#B91C1C", "#FFFFFF")  # fill and text of what is not finite


@dataclass(frozen=True, eq=False)
class Table:
    """An array of at most two dimensions and six by six entries, with a caption ("" for none).

    >>> Table("value", np.array([1.0, -2.5])).rows
    [['1', '-2.5']]
    """

    caption: str
    values: Array

    @cached_property
    def grid(self) -> Array:
        """The array with two dimensions: a number is one cell, a vector a row."""
        return np.atleast_2d(np.asarray(self.values))

    @cached_property
    def rows(self) -> list[list[str]]:
        """The texts of the cells."""
        return [[short(value) for value in row] for row in self.grid]

    @cached_property
    def column(self) -> float:
        """The width of a cell, the same for all."""
        return max(NARROWEST, max(_width(text, SIZE) for row in self.rows for text in row) + 6)

    @property
    def cells(self) -> float:
        """The width of all cells together."""
        return len(self.rows[0]) * (self.column + GAP) - GAP

    @property
    def width(self) -> float:
        """The width of the table."""
        return max(self.cells, _width(self.caption, CAPTION))

    @property
    def height(self) -> float:
        """The height of the table, with its caption."""
        return len(self.rows) * (ROW + GAP) - GAP + (ABOVE if self.caption else 0)


def fits(array: Array) -> bool:
    """Whether ``array`` can be shown as a table: numbers, at most two dimensions, six by six.

    >>> fits(np.eye(6)), fits(np.eye(7)), fits(np.ones((2, 2, 2))), fits(np.ones(0))
    (True, False, False, False)
    """
    return (
        isinstance(array, np.ndarray | np.generic)
        and array.dtype.kind in "biuf"
        and array.ndim <= 2
        and array.size > 0
        and max(array.shape, default=1) <= MOST
    )


def measure(tables: Sequence[Table]) -> tuple[float, float]:
    """Return the width and the height of ``tables`` side by side, in inches.

    >>> measure([Table("", np.ones(3))])
    (1.1111111111111112, 0.1736111111111111)
    """
    width = sum(table.width for table in tables) + BETWEEN * (len(tables) - 1)
    return width / 72, max(table.height for table in tables) / 72


def short(value: object) -> str:
    """Write a number in at most 8 characters, to 3 digits, or to the unit up to five digits.

    >>> [short(v) for v in (1.3416, -0.44721, 1e-5, -1.234e-5, 0.0, 70, 12345.6, np.inf, True)]
    ['1.34', '-0.447', '1e-05', '-1.23e-5', '0', '70', '12346', 'inf', 'True']

    There is room for fewer digits of a negative number below 1e-9, and if the exponent has three:

    >>> short(-1.234e-17), short(-1.234e-100)
    ('-1.2e-17', '-1e-100')
    """
    if isinstance(value, bool | np.bool):
        return str(value)
    number = float(value)  # type: ignore[arg-type]
    size = abs(number)
    if size == 0 or not isfinite(number):
        return "0" if size == 0 else str(number)
    if 0.001 <= size < 99999.5:
        return f"{number:.3g}" if size < 999.5 else f"{number:.0f}"
    return next(text for text in _scientific(number) if len(text) <= LONGEST)


def _scientific(number: float) -> Iterator[str]:
    """Write ``number`` with an exponent, in shorter and shorter ways."""
    for digits in (2, 1, 0):
        mantissa, exponent = f"{number:.{digits}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if digits else mantissa
        yield f"{mantissa}e{exponent}"
        yield f"{mantissa}e{int(exponent)}"


def paint(svg: str, blocks: Mapping[str, Sequence[Table]], *, dark: bool = False) -> str:
    """Paint tables into the nodes of a picture: for each id in ``blocks`` side by side, below.

    The label of such a node is moved down a little. Each cell has a title, shown by browsers under
    the mouse, with the whole number and its index.

    >>> node = '<g id="n1" class="node"><polygon points="0,-40 90,-40 90,0 0,0 0,-40"/></g>'
    >>> svg = f'<svg xmlns="http://www.w3.org/2000/svg">{node}</svg>'
    >>> "<title>[0] = 0.30000000000000004</title>" in paint(
    ...     svg, {"n1": [Table("", np.array([0.1 + 0.2, 1]))]}
    ... )
    True
    """
    root = ElementTree.fromstring(svg)
    for node in root.iter(f"{{{SVG}}}g"):
        tables = blocks.get(node.get("id", ""))
        if tables and "node" in node.get("class", "").split():
            for text in node.iter(f"{{{SVG}}}text"):
                text.set("y", _length(float(text.get("y", "0")) + LOWER))
            _Painter(node, dark).paint_block(tables)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


class _Painter:
    """Paints into one node."""

    def __init__(self, node: Element, dark: bool) -> None:
        self.node, self.scale = node, SCALES[dark]
        self.muted = PALETTES["dark" if dark else "light"].muted

    def paint_block(self, tables: Sequence[Table]) -> None:
        """Paint tables side by side."""
        width, height = (72 * inches for inches in measure(tables))
        middle, bottom = self._place()
        block = SubElement(self.node, f"{{{SVG}}}g", {"class": "tables"})
        x = middle - width / 2
        for table in tables:
            self._paint_table(block, table, x, bottom - BELOW - height)
            x += table.width + BETWEEN

    def _place(self) -> tuple[float, float]:
        """Return the middle (x) and the bottom (y) of the node's shape.

        Its corners may be rounded, but no control point of a curve lies outside of its box.
        """
        tags = [f"{{{SVG}}}{tag}" for tag in ("polygon", "path", "ellipse")]
        shape = next(element for element in self.node.iter() if element.tag in tags)
        if shape.tag == tags[2]:
            x, y, ry = (float(shape.get(key, "0")) for key in ("cx", "cy", "ry"))
            return x, y + ry
        numbers = [float(n) for n in NUMBER.findall(shape.get("points") or shape.get("d") or "")]
        across, down = numbers[::2], numbers[1::2]
        return (min(across) + max(across)) / 2, max(down)

    def _paint_table(self, block: Element, table: Table, x: float, y: float) -> None:
        group = SubElement(block, f"{{{SVG}}}g", {"class": "table"})
        if table.caption:
            middle = x + table.width / 2
            caption = self._text(group, table.caption, middle, y + CAPTION, CAPTION, self.muted)
            caption.set("class", "caption")
            y += ABOVE
        x += (table.width - table.cells) / 2
        fills = self._fills(table.grid)
        for index, value in np.ndenumerate(table.grid):
            i, j = index
            own = index[len(index) - table.values.ndim :]
            cell = SubElement(group, f"{{{SVG}}}g", {"class": "cell"})
            SubElement(cell, f"{{{SVG}}}title").text = (
                f"{list(own)} = {value!s}" if own else str(value)
            )
            left, top = x + j * (table.column + GAP), y + i * (ROW + GAP)
            self._paint_cell(cell, table.rows[i][j], left, top, table.column, fills[i][j])

    def _paint_cell(
        self, cell: Element, text: str, x: float, y: float, width: float, colors: tuple[str, str]
    ) -> None:
        box = {"x": x, "y": y, "width": width, "height": ROW}
        attributes = {key: _length(value) for key, value in box.items()} | {"fill": colors[0]}
        SubElement(cell, f"{{{SVG}}}rect", attributes)
        # Where the baseline goes is said in numbers: not every program knows dominant-baseline.
        self._text(cell, text, x + width / 2, y + ROW / 2 + 0.36 * SIZE, SIZE, colors[1])

    def _text(
        self, parent: Element, text: str, x: float, y: float, size: float, color: str
    ) -> Element:
        attributes = {"text-anchor": "middle", "x": _length(x), "y": _length(y)}
        attributes |= {"font-family": f"{FONT},sans-serif", "font-size": _length(size)}
        element = SubElement(parent, f"{{{SVG}}}text", attributes | {"fill": color})
        element.text = text
        return element

    def _fills(self, grid: Array) -> list[list[tuple[str, str]]]:
        """Return the fill and the colour of the text for each cell."""
        with np.errstate(all="ignore"):  # a long double may be too large
            sizes = grid.astype(np.float64)
        finite = np.abs(sizes[np.isfinite(sizes)])
        peak = finite.max() if finite.size else 0.0
        return [[self._fill(size, peak) for size in row] for row in sizes.tolist()]

    def _fill(self, size: float, peak: float) -> tuple[str, str]:
        if not isfinite(size):
            return WARNING
        end = self.scale.negative if size < 0 else self.scale.positive
        return _mix(self.scale.zero, end, abs(size) / peak if peak else 0.0), self.scale.text


def _mix(zero: str, end: str, share: float) -> str:
    """Mix two colours.

    >>> _mix("#FFFFFF", "#FF0000", 0.5)
    '#FF8080'
    """
    channels = [(int(zero[k : k + 2], 16), int(end[k : k + 2], 16)) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02X}" for a, b in channels)


def _width(text: str, size: float) -> float:
    """Guess how wide a text is; wide rather than narrow, since fonts differ."""
    return size * sum({".": 0.32, "-": 0.38, "+": 0.84}.get(char, 0.64) for char in text)


def _length(value: float) -> str:
    return f"{value:.2f}"
