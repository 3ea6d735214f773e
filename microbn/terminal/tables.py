"""Arrays as tables of coloured numbers, side by side, with the signs between them.

Everything is a list of lines; all lines of a block have the same width. Colours are fixed ones on
fixed backgrounds, so that they can be read on dark and on light terminals; where there are none,
the numbers say the same.
"""

from __future__ import annotations

from functools import cache
from io import StringIO
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from ..kernels import Array

if TYPE_CHECKING:
    from ..graph.step.event import Row, Shown

Lines = list[Text]

MOST = 6  # rows and columns of a table
FEWER = (4, 3)  # columns of a table that is cut anyway, to make room for those beside it
CAPTION = 20  # cells that a caption may take if its table is narrower
ABOVE = 2  # lines above the numbers: the caption, the shape

NEGATIVE, ZERO, POSITIVE, INK = (96, 165, 250), (214, 217, 222), (251, 146, 60), "#0F172A"
STRANGE = Style(color="#FFFFFF", bgcolor="#B91C1C", bold=True)  # of what is not finite
LEVELS = 8  # of colour; the same styles again and again are quick to write
FIRM, FAINT = Style(bold=True), Style(dim=True)
RULER = Console(file=StringIO(), width=80)  # that rich asks for to break lines


def plain(text: str) -> str:
    r"""Make ``text`` one line of what can be printed; it may come from anywhere.

    >>> plain("two\nlines"), plain("\x1b[31mred")
    ('two lines', '�[31mred')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def entry(value: Any) -> str:
    """Write a number to 4 significant digits.

    >>> [entry(v) for v in (2 / 3, -0.0, 12345678, 1e-07, np.float32(70), np.True_, np.nan)]
    ['0.6667', '0', '12345678', '1e-07', '70', 'True', 'nan']
    """
    if isinstance(value, int | np.integer | np.bool_):
        return str(value)
    return f"{value:.4g}" if value else "0"


def digest(array: Array) -> list[str]:
    """Say what is in an array: mean and standard deviation, the range, and what is not finite.

    >>> digest(np.array([1.0, 3.0, np.nan]))
    ['2 ± 1', '1 … 3', '1 nan']
    """
    numbers = array.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    words = []
    if finite.size:
        with np.errstate(all="ignore"):
            words.append(f"{entry(finite.mean())} ± {entry(finite.std())}")
        words.append(f"{entry(finite.min())} … {entry(finite.max())}")
    strange = {"nan": np.isnan(numbers).sum(), "inf": np.isinf(numbers).sum()}
    return words + [f"{count} {what}" for what, count in strange.items() if count]


# Lines -------------------------------------------------------------------------------------------


def wrapped(text: str, width: int, style: Style | str = "") -> Lines:
    """Break a text into lines between words; words that are too long also within."""
    line = Text(plain(text), style)
    return [line] if line.cell_len <= width else list(line.wrap(RULER, max(width, 2)))


def padded(lines: Lines, width: int) -> Lines:
    """Make all lines as wide as the widest of them, but at most ``width``."""
    wide = min(max((line.cell_len for line in lines), default=0), width)
    return [fitted(line, wide) for line in lines]


def fitted(line: Text, width: int) -> Text:
    """Make a line exactly so wide; what is cut off leaves an ellipsis.

    >>> fitted(Text("平均値"), 5), fitted(Text("x"), 3)
    (<text '平均…' [] ''>, <text 'x  ' [] ''>)
    """
    missing = width - line.cell_len
    if not missing:
        return line
    line = line.copy()
    if missing > 0:
        line.append(" " * missing)
    else:
        line.truncate(max(width, 0), overflow="ellipsis", pad=True)
    return line


# One table ---------------------------------------------------------------------------------------


def table(shown: Shown, width: int, rows: int = MOST, columns: int = MOST) -> Lines:
    """Write an array with its caption and shape, in at most ``width`` cells.

    At most 6 rows and columns are shown, of what has more only ``rows`` and ``columns``. If
    something is left out, a digest of all entries follows.

    >>> from microbn.graph.step.event import Shown
    >>> for line in table(Shown("x", np.array([[7.0, -70.5], [8.0, 80.0]])), 40):
    ...     print(line.plain.rstrip())
    x
    2×2 float64
         7  -70.5
         8     80
    """
    array = np.asarray(shown.value)
    place = ""
    below: list[str] = []
    if array.dtype.kind not in "biuf" or not array.size:
        body = [Text("empty" if not array.size else "not numbers", FAINT)]
    else:
        grid, place = _grid(array)
        if max(grid.shape) <= MOST:
            rows = columns = MOST
        body, complete = _body(grid, _peak(array), width, rows, columns)
        below = [] if complete and not place else digest(array)
    shape = "×".join(map(str, array.shape)) or "scalar"
    head = Text(f"{shape} {array.dtype}{place and ', '}{place}", FAINT)
    wide = max(*(line.cell_len for line in body), head.cell_len, CAPTION)
    caption = Text(plain(shown.caption), FIRM)
    caption.truncate(wide, overflow="ellipsis")
    if len(together := ", ".join(below)) <= wide:
        below = [together] if together else []
    body += [Text(words, FAINT) for words in below]
    return padded([caption, head, *body], width)


def _grid(array: Array) -> tuple[Array, str]:
    """Return a matrix to show of an array, and where in the array it is if it is not all.

    >>> _grid(np.ones(3))[0].shape, _grid(np.ones((1, 2, 1, 4)))[0].shape
    ((1, 3), (2, 4))
    >>> _grid(np.ones((2, 3, 4)))[1]
    '[0]'
    """
    if array.ndim > 2 and sum(length > 1 for length in array.shape) <= 2:
        array = array.squeeze()
    place = [0] * (array.ndim - 2)
    return np.atleast_2d(array[tuple(place)]), str(place) if place else ""


def _body(grid: Array, peak: float, width: int, rows: int, columns: int) -> tuple[Lines, bool]:
    """Write the numbers, as many as there is room for; return also whether these are all."""
    texts = _aligned([[entry(value) for value in row[:columns]] for row in grid[:rows]])
    cell = max(len(text) for row in texts for text in row) + 2
    if grid.shape[1] > min(columns, width // cell):
        columns = max(min(columns, (width - 2) // cell), 1)
    with np.errstate(all="ignore"):  # a long double may be too large
        sizes = grid[:rows, :columns].astype(np.float64).tolist()
    lines = []
    for words, numbers in zip(texts, sizes, strict=True):
        line = Text()
        for word, number in zip(words, numbers, strict=False):
            line.append(f"{word} ".rjust(cell), _style(number, peak))
        if grid.shape[1] > columns:
            line.append(" …", FAINT)
        lines.append(line)
    if grid.shape[0] > rows:
        lines.append(Text(f"{'… ':>{cell}}" * len(sizes[0]), FAINT))
    return lines, grid.shape[0] <= rows and grid.shape[1] <= columns


def _aligned(texts: list[list[str]]) -> list[list[str]]:
    """Fill up the texts of each column behind, so that their points are in line.

    >>> _aligned([["-1.5", "7"], ["0.25", "8"]])
    [['-1.5 ', '7'], ['0.25', '8']]
    """
    behind = [[len(text) - (text + ".").index(".") for text in row] for row in texts]
    most = [max(column) for column in zip(*behind, strict=True)]
    return [
        [text + " " * (all_ - own) for text, own, all_ in zip(row, owns, most, strict=True)]
        for row, owns in zip(texts, behind, strict=True)
    ]


def _peak(array: Array) -> float:
    """Return the largest magnitude of what is finite."""
    with np.errstate(all="ignore"):
        sizes = np.abs(array.astype(np.float64))
    return float(sizes.max(initial=0.0, where=np.isfinite(sizes)))


def _style(number: float, peak: float) -> Style:
    if not isfinite(number):
        return STRANGE
    level = round(abs(number) / peak * LEVELS) if peak else 0
    return _shade(-level if number < 0 else level)


@cache
def _shade(level: int) -> Style:
    """Return the colours for -LEVELS to LEVELS."""
    share, end = abs(level) / LEVELS, NEGATIVE if level < 0 else POSITIVE
    mixed = (round(a + (b - a) * share) for a, b in zip(ZERO, end, strict=True))
    return Style(color=INK, bgcolor="#" + "".join(f"{channel:02X}" for channel in mixed))


# Several -----------------------------------------------------------------------------------------


def beside(row: Row, width: int, rows: int = MOST) -> Lines:
    """Write tables side by side with signs between them, in several tiers if there is no room.

    >>> from microbn.graph.step.event import Shown
    >>> a, b = (Shown(name, np.array([1.0, 2.0])) for name in "ab")
    >>> for line in beside((a, "×", b), 40):
    ...     print(line.plain.rstrip())
    a               b
    2 float64       2 float64
      1  2      ×     1  2
    """
    first = _units(row, width, rows, MOST)
    large = any(max(np.shape(x.value), default=1) > MOST for x in row if not isinstance(x, str))
    narrower = (_units(row, width, rows, columns) for columns in FEWER if large)
    for units in chain([first], narrower):
        if sum(unit[0].cell_len for unit in units) <= width:
            return _joined(units)
    tiers: list[list[Lines]] = []
    room = 0
    for unit in first:
        if unit[0].cell_len > room:
            tiers.append([])
            room = width
        tiers[-1].append(unit)
        room -= unit[0].cell_len
    return [line for tier in tiers for line in _joined(tier)]


def _units(row: Row, width: int, rows: int, columns: int) -> list[Lines]:
    """Write the tables, each together with the sign before it."""
    units: list[Lines] = []
    sign = ""
    for item in row:
        if isinstance(item, str):
            sign += f" {plain(item)} "
        else:
            lead = _sign(sign or "  " * bool(units))
            units.append(_joined([lead, table(item, width - lead[0].cell_len, rows, columns)]))
            sign = ""
    return [*units, _sign(sign)] if sign else units


def _sign(sign: str) -> Lines:
    """Write a sign in line with the first numbers of the tables beside it."""
    return padded([*[Text()] * ABOVE, Text(sign, FIRM)], cell_len(sign))


def _joined(blocks: list[Lines]) -> Lines:
    """Put blocks side by side."""
    height = max(map(len, blocks), default=0)
    lines = [Text() for _ in range(height)]
    for block in blocks:
        blank = Text(" " * block[0].cell_len)
        for line, part in zip(lines, block + [blank] * (height - len(block)), strict=True):
            line.append_text(part)
    return lines
