"""What a staged comparison found, as a table and in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import fill
from typing import Literal

from ..graph.labels import short

Verdict = Literal["ok", "origin", "inherited", "cannot fail"]


@dataclass(frozen=True)
class Row:
    """A stage: its verdict, and the entry at ``index``, where its gradient is furthest off.

    ``expected`` is of the true gradient; at an origin, of what follows from the gradients given
    above it. ``error`` is relative to the largest entry expected. Where the shapes differ, there is
    no index, and these are NaN. ``note`` says what is wrong at an origin.
    """

    name: str
    verdict: Verdict
    shape: tuple[int, ...]
    given_shape: tuple[int, ...]
    dtype: str
    given_dtype: str
    index: tuple[int, ...] | None
    expected: float
    found: float
    error: float
    note: str


class Comparison:
    """What `compare` found: a `Row` for each stage, from the output back. True if it is all right.

    ``str()`` is a table, and what it means in words.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)
        self.verdict = {row.name: row.verdict for row in self.rows}
        self.origins = self._all("origin")
        self.ok = not self.origins

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"<Comparison: {len(self.rows)} stages, origins {', '.join(self.origins) or 'none'}>"

    def __str__(self) -> str:
        table = [("gradient", "verdict", "shape", "worst at", "expected", "found", "error")]
        table += map(_cells, self.rows)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        sides = [f"<{w}" for w in widths[:4]] + [f">{w}" for w in widths[4:]]
        lines = ["  ".join(map(format, cells, sides)).rstrip() for cells in table]
        return "\n".join([*lines, "", *(fill(sentence, 100) for sentence in self._sentences())])

    def _all(self, verdict: Verdict) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows if row.verdict == verdict)

    def _sentences(self) -> Iterable[str]:
        the, it = ("The", "it") if len(self.origins) == 1 else ("A", "them")
        for row in self.rows:
            if row.verdict == "origin":
                yield f"{the} fault is at {row.name}: d {row.name} {row.note}."
        if names := self._all("inherited"):
            are, need = ("is", "needs") if len(names) == 1 else ("are", "need")
            yield f"{', '.join(names)} {are} wrong because of {it} and {need} no mending."
        if names := self._all("cannot fail"):
            prove = "proves nothing: its" if len(names) == 1 else "prove nothing: their"
            yield f"{', '.join(names)} {prove} true gradient is nothing but round-off here."
        if self.ok:
            yield f"No gradient is wrong, of {len(self.rows)} compared."


def _cells(row: Row) -> tuple[str, str, str, str, str, str, str]:
    head = f"d {short(row.name, 24)}", row.verdict, short(str(row.given_shape), 16)
    if row.index is None:
        return *head, "", "", "", ""
    at = short(f"[{', '.join(map(str, row.index))}]", 14) if row.index else ""
    error = "" if row.verdict == "cannot fail" else f"{row.error:.1e}"
    return *head, at, f"{row.expected:.4g}", f"{row.found:.4g}", error
