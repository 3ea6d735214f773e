"""The reference: what a name in a docstring refers to, and tables made of the program itself."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import microbn as mb
from microbn.cli import main


def resolve(app: Sphinx, env: Any, node: pending_xref, content: nodes.Element) -> Any:
    """Find what ends in a name, such as `backprop`, wherever it is documented."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removeprefix("mb.")
    objects = env.get_domain("py").objects
    found = [name for name in objects if name == target or name.endswith(f".{target}")]
    if not found:
        return None
    name = min(found, key=lambda name: (name.count("."), name))
    entry = objects[name]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


class Primitives(SphinxDirective):
    """All primitives: the name, the formula, the NumPy function that is recorded as it."""

    def run(self) -> list[nodes.Node]:
        """Write the table as Markdown and read that."""
        functions: dict[str, list[str]] = {}
        for function, op in mb.ops.NUMPY.items():
            functions.setdefault(op.name, []).append(f"`np.{function.__name__}`")
        ops = [op for op in vars(mb.ops).values() if isinstance(op, mb.ops.Op)]
        lines = ["| op | drawn as | formula | recorded for |", "|---|---|---|---|"]
        for op in ops:
            arguments = "xyz" if not op.variadic else "x" * 3
            with contextlib.suppress(IndexError):
                formula = op.latex.format(*arguments)
            label = op.label.replace("|", r"\|")
            lines.append(
                f"| `{op.name}` | {label.replace('*', chr(92) + '*').replace('[', chr(92) + '[')} "
                f"| ${formula}$ | {', '.join(functions.get(op.name, []))} |"
            )
        return self.parse_text_to_nodes("\n".join(lines))


class Help(SphinxDirective):
    """What the command says of itself, with ``--help``."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Ask it."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([*self.arguments, "--help"])
        text = said.getvalue().rstrip()
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the directives and the way to find names."""
    app.connect("missing-reference", resolve)
    app.add_directive("primitives", Primitives)
    app.add_directive("command-help", Help)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
