"""Formulas as MathML, made when the site is built: browsers show it without any script."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _mathml(node: Any, display: str) -> str:
    latex = node.astext().strip()
    try:
        text = convert(latex, display=display)
    except Exception as error:  # the package has errors of many kinds
        logger.warning("this formula cannot be read: %s: %r", latex, error, location=node)
        return f"<code>{nodes.unescape(latex)}</code>"
    if "\\" in text:  # what it does not know stays as it is
        logger.warning("there is a command in this formula that is not known: %s", latex)
    return text


def _inline(self: Any, node: Any) -> None:
    self.body.append(f'<span class="math">{_mathml(node, "inline")}</span>')
    raise nodes.SkipNode


def _block(self: Any, node: Any) -> None:
    anchor = "".join(f' id="{name}"' for name in node["ids"][:1])
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    self.body.append(f'<div class="math"{anchor}>{_mathml(node, "block")}{number}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
