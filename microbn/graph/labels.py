"""What is written on a node: its name and how it is computed, its shape, its values in short."""

from __future__ import annotations

from textwrap import wrap

import numpy as np

from ..kernels import Array
from .graph import Graph
from .parts import Edge, Node
from .portable import digest
from .snapshot import axes_in_words, number, prefix

LONGEST = 40  # characters shown of a name
FORMULA = 24  # characters of a formula that is written out with the names of its operands
ORDERED = ("sub", "div", "matmul", "pow")  # whose operands cannot change places


def heading(graph: Graph, node: Node, arguments: list[Edge]) -> str:
    """Return the first line: ``x_hat = ×``, ``centered = x − mean``, ``d x += via mean``."""
    name = node.name
    if node.kind == "scope":
        return short(f"{name}  ({node.label})")
    of = [graph.nodes[k] for k in node.of]
    inside = any(n.kind == "scope" for n in of)  # then its name says what of
    if node.part is not None and of and of[0].twin == node.index and not inside:
        name = _cotangent(graph, node)
    if node.op == "result":  # of a box above
        return short(name or "")
    if node.part == "accumulation":
        return short(f"{name} {node.label}" if name else node.label)
    formula = _formula(graph, node, arguments)
    if name and f"{formula} ".startswith(f"{name} "):  # a mean that is called mean
        return short(formula)
    return " = ".join(short(text) for text in (name, formula) if text)


def _cotangent(graph: Graph, node: Node) -> str:
    """Say whose cotangent it is: ``d y = d scaled``, or ``d (** 2)`` where that has no name."""
    of = [graph.nodes[k] for k in node.of]
    d = prefix(node)
    names = [f"{d} {n.name}" for n in of if n.name]
    return " = ".join(dict.fromkeys(names)) or f"{d} ({of[0].title or 'array'})"


def _formula(graph: Graph, node: Node, arguments: list[Edge]) -> str:
    """Return how the node is computed; along which axis, and with operands in their order."""
    if node.params.get("axis") is not None and len(arguments) == 1:
        return f"{node.label} {axes_in_words(node.params['axis'])}"
    if node.op == "transpose":
        name = called(graph.nodes[arguments[0].source])
        return f"{name}ᵀ" if name else "transpose"
    if node.op not in ORDERED or len(arguments) != 2:
        return node.label
    names = [called(graph.nodes[edge.source]) for edge in arguments]
    text = f" {node.label} ".join(name or "" for name in names)
    return text if all(names) and len(text) <= FORMULA else node.label


def called(node: Node) -> str | None:
    """Return the name of a value; of a box, that of the value that comes out."""
    return (node.kind == "scope" and node.params.get("result")) or node.name


def shape(lengths: tuple[int, ...]) -> str:
    """Write a shape as ``4×2``."""
    return "×".join(map(str, lengths)) or "scalar"


def beneath(node: Node) -> list[str]:
    """Return the lines below the first: the shape; on a box, what comes out and its gradients."""
    if node.kind != "scope":
        return [shape(node.shape)]
    result = node.params.get("result", "")
    lines = [] if result is None else [f"{short(result)} {shape(node.shape)}".strip()]
    listed = [f"{short(name)} {shape(s)}" for name, s in node.params.get("gradients", ())]
    unbroken = ", ".join(text.replace(" ", "\u00a0") for text in listed).replace(",\u00a0", ", ")
    return lines + wrap(unbroken, LONGEST, break_long_words=False, break_on_hyphens=False)


def summary(array: Array) -> list[str]:
    """Say in two lines what is in an array that is too large to be shown.

    >>> summary(np.arange(100.0))
    ['0 … 99', 'mean 49.5 ± 28.9, 1 % zeros']
    """
    if not array.size or array.dtype.kind not in "biuf":
        return []
    found = digest(np.asarray(array))
    low, high, mean, std = (f"{found[k]:.3g}" for k in ("min", "max", "mean", "std"))
    zeros = f", {100 * found['zeros']:.0f} % zeros" if found["zeros"] else ""
    return [f"{low} … {high}", f"mean {mean} ± {std}{zeros}"]


def short(text: str, longest: int = LONGEST) -> str:
    r"""One line of at most ``longest`` characters, and only such as XML and a reader can take.

    >>> short("a" * 50), short("two\nlines"), short("bell: \a")
    ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…', 'two lines', 'bell: �')
    """
    text = " ".join(text[: 4 * longest].split())
    text = "".join(c if c.isprintable() or c == "\u200d" else "�" for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


__all__ = ["beneath", "called", "heading", "number", "shape", "short", "summary"]
