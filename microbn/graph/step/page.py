"""A walk as one HTML file: the graph on the left, what happens at a step on the right.

The page needs no network and no other file. What comes from a program (names, source, values) is
in it as JSON only, and the script makes text of it, never markup; the page's own policy forbids
everything but its own script and style.
"""

from __future__ import annotations

import json
import linecache
import math
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from html import escape
from importlib import resources
from os import PathLike
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import __version__
from ...kernels import Array
from ..heatmap import SCALES, WARNING, short
from ..parts import Source
from ..theme import PALETTES, Theme
from .event import Row, Shown, Step
from .how import How
from .views import views

if TYPE_CHECKING:
    from .walk import Walk  # which writes itself through this module

SCRIPTS = ("tables.js", "picture.js", "explain.js", "search.js", "page.js")
LIMITS = (1024, 512, 256, 144, 64, 36)  # entries of an array that are stored
MOST = 30_000  # entries of all arrays
CORNER = 6  # rows and columns of an array that has more entries
DIGITS = 8
AROUND = 3  # lines of source before the first that is used, and after the last


def page(walk: Walk) -> str:
    """Return an HTML page that steps through ``walk``; it works without a network.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True, name="x")
    >>> page(mb.steps(x * x))[:15]
    '<!DOCTYPE html>'
    """
    content = data(walk)
    return _html(content["title"], content)


def _html(title: str, content: Mapping[str, Any]) -> str:
    style = _colours() + _asset("page.css")
    script = '"use strict";\n' + "".join(_asset(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": escape(title),
        "version": escape(__version__),
        "policy": policy,
        "style": style,
        "script": script,
        "walk": _json(content),
    }
    before, *places = _asset("page.html").split("{{")
    return before + "".join(
        parts[key] + after for key, after in (place.split("}}", 1) for place in places)
    )


def write(walk: Walk, path: str | PathLike[str]) -> None:
    """Write the page to a file, once its text is complete."""
    text = page(walk)
    Path(path).write_text(text, encoding="utf-8", newline="\n")


def data(walk: Walk) -> dict[str, Any]:
    """Return what the page shows as plain containers, ready for JSON."""
    arrays = _Arrays()
    sources = _Sources(step.source for step in walk)
    steps = [_step(step, arrays, sources) for step in walk]
    strange = walk.strange()
    final = {step.node.index: step.index for step in walk if step.final and step.node}
    return {
        "title": walk.title or "microbn",
        "remarks": list(walk.remarks),
        "backward": walk.backward,
        "strange": None if strange is None else strange.index,
        "failed": next((step.index for step in walk if step.kind == "error"), None),
        "nodes": _nodes(walk, final),
        "scopes": [{"i": s.index, "title": s.title, "parent": s.parent} for s in walk.graph.scopes],
        "how": [json.loads(how) for how in arrays.hows],
        "arrays": arrays.data(),
        "steps": steps,
        "sources": sources.data(),
        "views": [view.as_data() for view in views(walk.graph)],
    }


def _nodes(walk: Walk, final: Mapping[int, int]) -> list[dict[str, Any]]:
    computed = {
        step.node.index: step.index
        for step in walk
        if step.kind in ("forward", "error") and step.node
    }
    return [
        {
            "i": node.index,
            "name": walk.names.get(node.index, node.title),
            "kind": node.kind,
            # What goes by its formula need not be told again how it was made.
            "label": node.label if node.name or node.op is None else "",
            "shape": list(node.shape),
            "scope": list(node.scope),
            "place": node.place,
            "step": computed.get(node.index, 0),
            "final": final.get(node.index),
        }
        for node in walk.graph.nodes
        if node.part is None
    ]


def _step(step: Step, arrays: _Arrays, sources: _Sources) -> dict[str, Any]:
    """Describe a step, without what is empty."""
    found = {
        "k": step.kind,
        "n": None if step.node is None else step.node.index,
        "v": None if step.via is None else step.via.index,
        "p": step.position,
        "f": step.formula,
        "x": step.latex,
        "t": step.sentence,
        "r": [_row(row, arrays) for row in step.rows],
        "m": step.remark or None,
        "l": None if step.source is None else sources.place(step.source),
        "e": step.final or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _row(row: Row, arrays: _Arrays) -> list[Any]:
    return [arrays.shown(item) if isinstance(item, Shown) else item for item in row]


# Arrays ------------------------------------------------------------------------------------------


class _Arrays:
    """The arrays of all steps, each once, and what is known of how their entries came about."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}  # by identity: the arrays are kept alive below
        self.arrays: list[Array] = []
        self.hows: dict[str, int] = {}  # as JSON, in the order of their places

    def shown(self, shown: Shown) -> dict[str, Any]:
        """Describe a table: its caption, the places of its array and of how that came about."""
        found = {"c": shown.caption, "a": self.place(shown.value)}
        if shown.how is None:
            return found
        how = json.dumps(self.explained(shown.how), ensure_ascii=False)
        return found | {"h": self.hows.setdefault(how, len(self.hows))}

    def place(self, array: Array) -> int:
        """Return the place of an array."""
        place = self.places.setdefault(id(array), len(self.arrays))
        if place == len(self.arrays):
            self.arrays.append(array)
        return place

    def explained(self, how: How) -> dict[str, Any]:
        """Describe how the entries of an array came about, by places of the operands."""
        operands = [
            {"n": o.name, "a": self.place(o.value)}
            | (
                {"f": o.offset, "s": list(o.strides), "d": list(o.steps), "l": list(o.lengths)}
                if o.at is None
                else {"at": list(o.at), "l": []}
            )
            for o in how.operands
        ]
        return {"t": how.template, "w": how.wrap, "o": operands}

    def data(self) -> list[dict[str, Any]]:
        """Describe all arrays: as many entries of each as there is room for."""
        sizes = [np.size(array) for array in self.arrays]

        def stored(limit: int) -> int:
            return sum(size if size <= limit else CORNER**2 for size in sizes)

        limit = next((limit for limit in LIMITS if stored(limit) < MOST), LIMITS[-1])
        return [_array(np.asarray(array), limit) for array in self.arrays]


def _array(array: Array, limit: int) -> dict[str, Any]:
    found: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.size <= limit:
        return found | {"e": _entries(array)}
    matrix = array[(0,) * max(0, array.ndim - 2)]
    corner = np.atleast_2d(matrix)[:CORNER, :CORNER]
    rows, cols = corner.shape
    return found | {"rows": rows, "cols": cols, "e": _entries(corner), "digest": _summary(array)}


def _entries(array: Array) -> list[Any]:
    return [_entry(value) for value in array.ravel().tolist()]


def _entry(value: Any) -> Any:
    """Write a number with few digits, one that JSON has no word for as text."""
    if isinstance(value, bool):
        return value
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    number = float(f"{number:.{DIGITS}g}")
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _summary(array: Array) -> str:
    """Say in few words what is in a large array."""
    if array.dtype.kind not in "biuf":
        return f"{array.size} entries"
    with np.errstate(all="ignore"):
        values = array.astype(np.float64)
        good = values[np.isfinite(values)]
        strange = values.size - good.size
        tail = f", {strange} not finite" if strange else ""
        if not good.size:
            return "nothing finite"
        mean, std, low, high = map(short, (good.mean(), good.std(), good.min(), good.max()))
    return f"mean {mean} ± {std}, from {low} to {high}{tail}".replace("-", "−")


# Source ------------------------------------------------------------------------------------------


class _Sources:
    """The files of a program, from a little before the first used line to after the last."""

    def __init__(self, used: Iterable[Source | None]) -> None:
        self.lines: dict[str, dict[int, str]] = defaultdict(dict)
        for source in used:
            if source is not None:
                self.lines[source.file][source.line] = source.text
        self.places = {file: place for place, file in enumerate(self.lines)}

    def place(self, source: Source) -> list[int]:
        """Return the place of the file, and the line."""
        return [self.places[source.file], source.line]

    def data(self) -> list[dict[str, Any]]:
        """Describe all files, by their base names."""
        return [self.listing(file, known) for file, known in self.lines.items()]

    def listing(self, file: str, known: dict[int, str]) -> dict[str, Any]:
        """Read the lines of a file; where it cannot be read, only those that are known."""
        first, last = max(1, min(known) - AROUND), max(known) + AROUND
        lines = [line.rstrip("\r\n") for line in linecache.getlines(file)]
        if len(lines) < max(known):
            first, last = min(known), max(known)
            lines = [known.get(n, "") for n in range(1, last + 1)]
        return {
            "file": PurePath(file.replace("\\", "/")).name,
            "first": first,
            "lines": lines[first - 1 : last],
        }


# The file ----------------------------------------------------------------------------------------


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _json(content: Any) -> str:
    """Write JSON that ends no element and begins none, wherever it stands in HTML."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _colours() -> str:
    """Write the colours of the pictures and of their tables as CSS variables."""
    light, dark = (_variables(theme) for theme in ("light", "dark"))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


def _variables(theme: Theme) -> str:
    palette, scale = PALETTES[theme], SCALES[theme == "dark"]
    found = {
        name: getattr(palette, name) for name in "background title muted edge broadcast".split()
    }
    kinds = dict(palette.kinds) | {"area": palette.scope}
    for kind, colours in kinds.items():
        for part, colour in zip(("fill", "border", "text"), colours, strict=True):
            found[f"{kind}-{part}"] = colour
    found |= {"negative": scale.negative, "zero": scale.zero, "positive": scale.positive}
    found |= {"cell-text": scale.text, "warning": WARNING[0], "on-warning": WARNING[1]}
    return " ".join(f"--{name}: {colour};" for name, colour in found.items())
