"""One step of a walk on a screen of any size: exactly so many lines, each exactly so wide."""

from __future__ import annotations

import linecache
import ntpath
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from .tables import FAINT, FIRM, MOST, STRANGE, Lines, beside, fitted, plain, wrapped

if TYPE_CHECKING:
    from ..graph.parts import Source
    from ..graph.step.event import Step
    from ..graph.step.walk import Walk

WIDE = 110  # from this width on there is a list of the ops
LIST = 34  # cells of it, at most
PHASES = {
    "forward": Style(color="#0F172A", bgcolor="#86EFAC", bold=True),
    "backward": Style(color="#0F172A", bgcolor="#C4B5FD", bold=True),
    "error": STRANGE,
}
CURRENT = Style(bold=True, color="#0F172A", bgcolor="#FDE68A")
REMARK = Style(italic=True)

KEYS = (
    ("→ ↓ l j space enter", "next step"),
    ("← ↑ h k", "previous step"),
    ("n p, Shift → ←", "next or previous step in another function"),
    ("PgDn PgUp", "ten steps"),
    ("Home, End or G", "first step, last step"),
    ("b", "backward pass, and back to where you were"),
    ("g or /", "go to a name"),
    ("u", "go on until a condition holds: x_hat: max > 3"),
    ("N", "where that name or condition is met next"),
    ("!", "first step with a NaN or an infinity"),
    ("Tab", "the rest of a step that does not fit"),
    ("q Esc Ctrl-C", "quit"),
)
FOOTER = (  # from the third last on they are left out where there is no room
    ("← →", "step"),
    ("b", "backward"),
    ("g", "go to"),
    ("n", "next function"),
    ("u", "until"),
    ("!", "NaN"),
    ("?", "help"),
    ("q", "quit"),
)


class Detail(NamedTuple):
    """How much is shown: rows of large tables, lines of source around the current one, blanks."""

    rows: int = MOST
    context: int = 3
    blanks: bool = True


DETAILS = (  # the first that fits is taken
    Detail(),
    Detail(context=1),
    Detail(context=0),
    Detail(context=0, blanks=False),
    Detail(rows=3, context=0, blanks=False),
)


# One step ----------------------------------------------------------------------------------------


def phase(walk: Walk, step: Step) -> str:
    """Say in which pass a step is: "forward" or "backward", or "error"."""
    if step.kind == "error":
        return "error"
    back = walk.backward is not None and step.index >= walk.backward
    return "backward" if back else "forward"


def body(step: Step, width: int, detail: Detail = DETAILS[0]) -> Lines:
    """Write what there is to see of a step, in lines of at most ``width`` cells."""
    parts = [
        wrapped(step.formula, width, FIRM) if step.formula else [],
        wrapped(step.sentence, width) if step.sentence else [],
        *(beside(row, width, detail.rows) for row in step.rows),
        wrapped(step.remark, width, REMARK) if step.remark else [],
        source(step.source, width, detail.context) if step.source else [],
    ]
    lines: Lines = []
    for k, part in enumerate(parts):
        if part and lines and detail.blanks and k != 1:  # the sentence belongs to the formula
            lines.append(Text())
        lines += part
    return lines


def source(where: Source, width: int, context: int) -> Lines:
    """Write a line of a program, with so many lines around it if its file still has them."""
    name = f"{plain(ntpath.basename(where.file))}:{where.line}"
    numbers = range(max(where.line - context, 1), where.line + context + 1)
    found = {n: linecache.getline(where.file, n).rstrip() for n in numbers}
    if not context or found[where.line].strip() != where.text.strip():
        return [fitted(Text.assemble((name, FAINT), "  ", plain(where.text.strip())), width)]
    for end in (min, max):  # blank lines say nothing there
        while end(found) != where.line and not found[end(found)].strip():
            del found[end(found)]
    lines = [Text(name, FAINT)]
    for number, text in found.items():
        here = number == where.line
        line = Text(f"{'>' if here else ' '} {number:4}  {plain(text.expandtabs(4))}")
        line.stylize(FIRM if here else FAINT)
        lines.append(fitted(line, width))
    return lines


# The screen --------------------------------------------------------------------------------------


class Screen:
    """Makes frames: lists of lines that fill a screen.

    ``computed`` and ``completed`` say at which step each forward node is computed, and at which
    its gradient is complete.
    """

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.computed = dict.fromkeys(walk.names, 0)  # as leaves are
        self.completed: dict[int, int] = {}
        for step in walk:
            if step.node is not None and step.kind == "forward":
                self.computed[step.node.index] = step.index
            if step.node is not None and step.final:
                self.completed[step.node.index] = step.index
        self.outline = self._outline()

    def frame(
        self, index: int, width: int, height: int, *, tab: int = 0, bottom: Lines | None = None
    ) -> Lines:
        """Show a step; the ``tab``-th part of it, if it has several at this size.

        ``bottom`` stands at the bottom instead of the keys.
        """
        step = self.walk[index]
        bottom = [footer(width)] if bottom is None else bottom[-max(height - 1, 0) :]
        room = height - 1 - len(bottom)
        aside = self._aside(step, room) if width >= WIDE else []
        inner = width - (aside[0].cell_len if aside else 0)
        extra = (
            [] if index else [line for text in self.walk.remarks for line in wrapped(text, inner)]
        )
        for detail in DETAILS:
            lines = body(step, inner, detail) + extra
            if len(lines) + 2 * detail.blanks <= room:
                break
        lines = [Text()] * detail.blanks + lines
        lines = window(lines, room, tab)
        if aside:
            lines = [a + fitted(line, inner) for a, line in zip(aside, lines, strict=True)]
        return filled([self.head(step, width), *lines, *bottom], width, height)

    def head(self, step: Step, width: int) -> Text:
        """Write the top line: the title, the pass, how far it is, and the scope."""
        now = phase(self.walk, step)
        badge, count = f" {now.upper()} ", f" step {step.index} of {len(self.walk) - 1}"
        if width < 60:
            count = f" {step.index}/{len(self.walk) - 1}"
        scope = plain(" › ".join(step.node.scope)) if step.node else ""
        title = plain(self.walk.title)
        room = width - cell_len(badge) - len(count) - 1
        free = max(room - cell_len(scope) - 2 * bool(scope), room // 2)
        named = Text(title, FIRM)
        named.truncate(max(free, 0), overflow="ellipsis")
        line = Text.assemble(named, " " * bool(title), (badge, PHASES[now]), count)
        rest = width - line.cell_len - 2
        if scope and rest > 3:
            line.append_text(Text("  ")).append_text(_ending(scope, rest))
        return line

    def _outline(self) -> list[tuple[str, int | None]]:
        """Return the lines of the list of ops: scopes, and nodes with their indexes."""
        lines: list[tuple[str, int | None]] = []
        above: tuple[str, ...] = ()
        for node in self.walk.graph.nodes:
            if node.part is not None or node.kind == "constant":
                continue
            same = 0
            while same < min(len(above), len(node.scope)) and above[same] == node.scope[same]:
                same += 1
            for depth in range(same, len(node.scope)):
                lines.append(("  " * min(depth, 4) + plain(node.scope[depth]), None))
            name = plain(self.walk.names[node.index])
            lines.append(("  " * min(len(node.scope), 4) + name, node.index))
            above = node.scope
        return lines

    def _aside(self, step: Step, height: int) -> Lines:
        """Write the list of ops, as much of it as fits, the current one in the middle."""
        places = {index: k for k, (_, index) in enumerate(self.outline)}
        here = places.get(step.node.index, 0) if step.node else 0
        first = max(0, min(here - height // 2, len(self.outline) - height))
        wide = min(LIST, max((cell_len(text) for text, _ in self.outline), default=0) + 7)
        lines = []
        for text, index in self.outline[first : first + height]:
            line = self._listed(step, text, index, wide - 3)
            lines.append(line.append(" │ ", FAINT))
        blank = Text(" " * (wide - 3)).append(" │ ", FAINT)
        return lines + [blank] * (height - len(lines))

    def _listed(self, step: Step, text: str, index: int | None, width: int) -> Text:
        """Write one line of the list: > before the current op, • before that of its gradient."""
        current = step.node is not None and index == step.node.index
        through = step.via is not None and index == step.via.index
        complete = index in self.completed and self.completed[index] <= step.index
        mark = ">" if current else "•" if through else " "
        line = fitted(Text(f"{mark} {text}"), width - 2).append(" ∂" if complete else "  ")
        if current:
            line.stylize(CURRENT)
        elif through:
            line.stylize(FIRM)
        elif index is None or self.computed[index] > step.index:
            line.stylize(FAINT)
        return line


def help_frame(width: int, height: int, tab: int = 0) -> Lines:
    """Fill the screen with what the keys do."""
    lines = [Text("Keys", FIRM), Text(), *help_lines(width)]
    last = Text("any key: back to the step", FAINT)
    return filled([*window(lines, height - 1, tab), last], width, height)


def window(lines: Lines, room: int, tab: int) -> Lines:
    """Return as many lines as there is room for, the ``tab``-th part of them; the rest is blank."""
    if len(lines) <= room:
        return lines + [Text()] * (room - len(lines))
    each = max(room - 1, 1)
    parts = -(-len(lines) // each)
    first = min(tab % parts * each, len(lines) - each)
    more = Text(f"… part {tab % parts + 1} of {parts}: Tab", FAINT)
    return [*lines[first : first + each], more][: max(room, 0)]


def filled(lines: Lines, width: int, height: int) -> Lines:
    """Make the lines fill the screen."""
    return [fitted(line, width) for line in lines[:height]] + [
        Text(" " * width) for _ in range(height - len(lines))
    ]


def footer(width: int) -> Text:
    """Write as many of the keys as fit into one line, in the order of their use."""
    shown = list(FOOTER)
    while len(shown) > 2 and sum(cell_len(key + what) + 3 for key, what in shown) - 2 > width:
        del shown[-3]
    line = Text()
    for key, what in shown:
        line.append("  " * bool(line)).append(key, FIRM).append(f" {what}", FAINT)
    return line


def help_lines(width: int) -> Lines:
    """Write what the keys do."""
    wide = max(cell_len(key) for key, _ in KEYS) + 2
    lines: Lines = []
    for key, what in KEYS:
        if width < 2 * wide:
            lines += wrapped(f"{key}: {what}", width)
            continue
        rest = wrapped(what, width - wide)
        lines.append(fitted(Text(key, FIRM), wide) + rest[0])
        lines += [Text(" " * wide) + line for line in rest[1:]]
    return lines


def _ending(text: str, width: int) -> Text:
    """Return the end of a text, faint; what is cut off before it leaves an ellipsis."""
    if cell_len(text) <= width:
        return Text(text, FAINT)
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return Text("…" + text, FAINT)
