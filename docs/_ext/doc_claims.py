"""The table of claims: what they say, and what was found of them in ``results/*.json``.

``{claims}`` puts the whole table into a page. Lessons and tests are found by their names.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from doc_findings import CLAIMS, SECTIONS, escape, read_results, verdict
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Claims(SphinxDirective):
    """All claims with what was found, a table for each section."""

    def run(self) -> list[nodes.Node]:
        """Write the tables as Markdown and read that."""
        docs = Path(self.env.srcdir)
        self.env.note_reread()  # results may have come since
        rows = defaultdict(dict)
        for path in sorted((docs / "results").glob("*.json")):
            for found in read_results(docs, path.stem):
                rows[found["claim"]].setdefault(path.stem, []).append(found)
        lines = []
        for letter, title in SECTIONS.items():
            names = [n for n in {**CLAIMS, **rows} if section(n) == letter]
            if names:
                head = ["| | claim | what was measured | where |", "|---|---|---|---|"]
                lines += ["", f"## {title}", "", "```{rst-class} claims", "```", "", *head]
                lines += [row(docs, name, rows.get(name, {})) for name in names]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def section(name: str) -> str:
    """Return the letter of a claim, such as A of A10, or "" if it has none."""
    letter, number = name[:1], name[1:]
    return letter if letter in SECTIONS and number.isdigit() else ""


def row(docs: Path, name: str, found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the row of one claim."""
    claim = escape(CLAIMS.get(name, ""))
    head = f"| {escape(name)} | {claim} "
    if found:
        facts = [f for several in found.values() for f in several]
        lines = (f"{verdict(f)} <br>{escape(f['measured'])}" for f in facts)
        measured = "<br>".join(lines)
        where = "<br>".join(place(docs, lesson, tests(docs, lesson)) for lesson in found)
    else:
        measured, where = verdict({"verdict": "not yet"}), ""
    return f"{head}| {measured} | {where} |"


def place(docs: Path, page: str, names: list[str]) -> str:
    """Return a link to a page of the tutorial, if there is one, and the names of the tests."""
    (number, _, title) = page.partition("_")
    exists = any((docs / "tutorial" / f"{page}.{form}").exists() for form in ("md", "ipynb"))
    text = f"{number} {title.replace('_', ' ')}"
    link = f"{{doc}}`{text} </tutorial/{page}>`" if exists else text
    return "<br>".join([link, *(f"`{name}`" for name in names)])


def tests(docs: Path, lesson: str) -> list[str]:
    """Return the names of the files that test a lesson: those that mention it."""
    files = sorted((docs.parent / "tests").glob("test_lesson*.py"))
    return [path.name for path in files if lesson in path.read_text("utf-8")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the directive."""
    app.add_directive("claims", Claims)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
