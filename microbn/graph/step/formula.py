"""Formulas with the reader's names: an op with its arguments as one line of text, or as LaTeX.

An `Expr` is a tree: the nodes of a graph that a reader has a name for are its leaves, those in
between are written out. The rule of an op is taken from the backward graph in this way, so what is
shown is what was computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ... import ops
from ...ops import NUMPY, Op
from ..calls import key_in_brackets
from ..labels import shape, short
from ..parts import Node
from ..snapshot import axes_in_words, number

SUM, PRODUCT, MATRIX, PREFIX, POWER, ATOM = range(6)  # how tightly a formula holds together
RANKS = {"add": SUM, "sub": SUM, "mul": PRODUCT, "div": PRODUCT, "matmul": MATRIX}
RANKS |= {"neg": PREFIX, "sqrt": PREFIX, "pow": POWER}
SILENT = ("broadcast_to", "expand_dims", "squeeze", "astype")  # only the shape or the dtype changes
TOLD = ("clip", "einsum", "windows", "swapaxes", "pad")  # whose parameters are told by name
WHOLE = ("matmul", "index")  # but to these the shape matters
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
).split()
ACCENTS = {"hat": "hat", "bar": "bar", "tilde": "tilde"}


class Written(NamedTuple):
    """A formula, and how tightly it holds together: what is looser goes into parentheses."""

    text: str
    rank: int = ATOM

    def at_least(self, rank: int) -> str:
        """The text, in parentheses if it is looser than ``rank``."""
        return self.text if self.rank >= rank else f"({self.text})"


@dataclass(frozen=True, slots=True)
class Expr:
    """A node of the graph by its index, or a number, or an op on other expressions."""

    node: int | None = None
    number: Any = None
    op: str | None = None
    args: tuple[Expr, ...] = ()
    label: str = ""
    params: Mapping[str, Any] | None = None


ONE = Expr(number=1)


def op_called(name: str | None) -> Op | None:
    """Return the primitive of this name, or the user's own one on a NumPy function.

    >>> op_called("sqrt"), op_called("nothing")
    (Op('sqrt'), None)
    """
    found = getattr(ops, name or "", None)
    if isinstance(found, Op):
        return found
    return next((op for op in NUMPY.values() if op.name == name), None)


def text(expr: Expr, names: Callable[[int], Written], *, loud: bool = False) -> Written:
    """Write ``expr`` in one line; ``names`` says what to call the nodes.

    What changes only the shape or the dtype is not written, unless it is to be ``loud``.

    >>> difference = Expr(op="sub", label="−", args=(Expr(node=0), Expr(node=1)))
    >>> square = Expr(op="pow", label="**", args=(difference, Expr(number=2)))
    >>> text(square, lambda k: Written("xy"[k])).text
    '(x − y)²'
    """
    if expr.node is not None:
        return names(expr.node)
    if expr.op is None:
        return _number(expr.number)
    loud = loud or expr.op in WHOLE
    args = [text(a, names, loud=loud) for a in expr.args]
    if expr.op in SILENT and not loud:
        return args[0]
    return _call(expr, args)


def _number(value: Any) -> Written:
    written = number(value).replace("-", "−", 1) if _is_negative(value) else number(value)
    return Written(written, PREFIX if _is_negative(value) else ATOM)


def _is_negative(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(value < 0)


def _call(expr: Expr, args: list[Written]) -> Written:
    """Write an op: between its arguments, before, behind or around them."""
    label, params, op = expr.label, expr.params or {}, expr.op or ""
    rank = RANKS.get(op, ATOM)
    if op == "pow":
        return Written(args[0].at_least(ATOM) + _exponent(expr.args[1], args[1]), POWER)
    if rank == PRODUCT:  # no product of matrices among numbers, or the other way round
        args = [Written(f"({a.text})") if a.rank == MATRIX else a for a in args]
    if len(args) == 2 and rank in (SUM, PRODUCT, MATRIX):
        looser = op in ("add", "mul")  # a + (b + c) needs no parentheses
        right = args[1].at_least(rank if looser else rank + 1)
        if right[0] == "−":  # no two signs side by side
            right = f"({right})"
        return Written(f"{args[0].at_least(rank)} {label} {right}", rank)
    if op in ("neg", "sqrt"):
        return Written(label + args[0].at_least(POWER if op == "neg" else ATOM), PREFIX)
    if op == "abs":
        return Written(f"|{args[0].text}|")
    if op == "transpose" and params.get("axes") is None:
        twice = args[0].rank == ATOM and args[0].text.endswith("ᵀ")
        return Written(args[0].text[:-1] if twice else args[0].at_least(ATOM) + "ᵀ")
    if op == "index":
        return Written(f"{args[0].at_least(ATOM)}[{key_in_brackets(params.get('key'))}]")
    inside = [a.text for a in args]
    if op == "transpose":
        inside.append(f"axes {', '.join(map(str, params['axes']))}")
    elif op == "sum_to":
        inside.append(label.removeprefix("Σ "))
    elif params.get("axis") is not None:
        inside.append(axes_in_words(params["axis"]))
        inside += ["keepdims"] * bool(params.get("keepdims"))
    elif "shape" in params:
        inside.append(shape(tuple(np.atleast_1d(params["shape"]))))
    elif op in TOLD:
        known = {key: value for key, value in params.items() if value not in (None, (1, 1), False)}
        inside += [f"{key} {value}" for key, value in known.items()]
    own = op in ("sum", "sum_to", "transpose") or not label.isidentifier()
    name = op.removesuffix("_to") if own else label
    return Written(f"{name}({', '.join(inside)})")


def _exponent(expr: Expr, written: Written) -> str:
    """Write an exponent: small whole numbers as superscripts."""
    value = expr.number
    if isinstance(value, int | float) and value == int(value) and abs(value) < 100:
        return str(int(value)).translate(SUPERSCRIPTS)
    return f" ** {written.at_least(ATOM)}"


# LaTeX -------------------------------------------------------------------------------------------

# How tightly each argument has to hold together, and what comes out; else nothing is needed.
NEEDS = {"add": (SUM, SUM), "sub": (SUM, PRODUCT), "mul": (PRODUCT, PRODUCT), "neg": (PRODUCT,)}
NEEDS |= {"matmul": (MATRIX, POWER), "pow": (ATOM, SUM)}
NEEDS |= dict.fromkeys("log tanh sin cos sum mean max min sum_to scatter".split(), (POWER,))
NEEDS |= dict.fromkeys("transpose index".split(), (ATOM,))
FORMED = RANKS | {"div": POWER, "sqrt": ATOM, "exp": POWER}
FORMED |= dict.fromkeys("log tanh sin cos".split(), PRODUCT)
FORMED |= dict.fromkeys("sum mean max min sum_to scatter".split(), SUM)


def latex(expr: Expr, names: Callable[[int], Written], *, loud: bool = False) -> Written:
    r"""Write ``expr`` as LaTeX, by the templates in the table of primitives.

    >>> half = Expr(op="div", label="÷", args=(Expr(node=0), Expr(number=2)))
    >>> latex(half, lambda k: Written("x")).text
    '\\frac{x}{2}'
    """
    if expr.node is not None:
        return names(expr.node)
    if expr.op is None:
        return Written(_digits(expr.number), PREFIX if _is_negative(expr.number) else ATOM)
    loud = loud or expr.op in WHOLE
    args = [latex(a, names, loud=loud) for a in expr.args]
    if expr.op in SILENT and not loud:
        return args[0]
    template = _template(expr, loud)
    needs = NEEDS.get(expr.op, ())
    if expr.op == "mul":
        args = [Written(rf"\left({a.text}\right)") if a.rank == MATRIX else a for a in args]
    inside = [_enclosed(a, needs[i] if i < len(needs) else SUM) for i, a in enumerate(args)]
    if "{1}" not in template and len(inside) > 1:
        inside = [", ".join(inside)]
    return Written(template.format(*inside), FORMED.get(expr.op, ATOM))


def _template(expr: Expr, loud: bool) -> str:
    """Return how an op is typeset, with the axis or the index that it goes by."""
    op, params = op_called(expr.op), expr.params or {}
    if op is None or (op.latex == "{0}" and loud):
        return rf"\operatorname{{{{{plain_latex(expr.op or '')}}}}}\left({{0}}\right)"
    if expr.op == "index":
        key = plain_latex(key_in_brackets(params.get("key"))).replace("{", "{{").replace("}", "}}")
        return rf"{{{{{{0}}}}}}_{{{{\left[\text{{{{{key}}}}}\right]}}}}"
    over = expr.label.removeprefix("Σ ") if expr.op == "sum_to" else ""
    if params.get("axis") is not None and op.latex.endswith(" {0}"):
        over = axes_in_words(params["axis"])
    return op.latex.replace(" {0}", rf"_{{{{\text{{{{{over}}}}}}}}} {{0}}") if over else op.latex


def _digits(value: Any) -> str:
    """Write a number, an exponent as a power of ten."""
    mantissa, e, exponent = number(value).partition("e")
    if not e or not exponent.lstrip("+-").isdecimal():
        return number(value)
    power = f"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else rf"{mantissa} \cdot {power}"


def _enclosed(written: Written, rank: int) -> str:
    if written.rank >= rank and not (written.rank == PREFIX and rank == PRODUCT):
        return written.text
    return rf"\left({written.text}\right)"


def plain_latex(name: str) -> str:
    r"""Make ``name`` mean itself in LaTeX.

    >>> print(plain_latex("x_1 & \\input"))
    x\_1 \& \textbackslash{}input
    """
    special = {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
    special |= {c: f"\\{c}" for c in "_{}$&#%"}
    return "".join(special.get(c, c) for c in name)


def symbol(name: str) -> str:
    r"""Write a variable's name as mathematics.

    >>> [symbol(name) for name in ("x", "mu", "x_hat", "w1", "inv_std", "h₂")]
    ['x', '\\mu', '\\hat{x}', 'w_{1}', '\\mathrm{inv\\_std}', 'h_{2}']
    """
    stem, _, end = name.rpartition("_")
    if stem and end in ACCENTS:
        return rf"\{ACCENTS[end]}{{{symbol(stem)}}}"
    if found := re.fullmatch(r"(.*[^\W\d_])_?(\d+)", name):
        return f"{symbol(found[1])}_{{{found[2]}}}"
    if found := re.fullmatch(r"(.+?)([₀-₉]+)", name):
        digits = "".join(str("₀₁₂₃₄₅₆₇₈₉".index(c)) for c in found[2])
        return f"{symbol(found[1])}_{{{digits}}}"
    if name in GREEK:
        return f"\\{name}"
    return name if len(name) == 1 and name.isalpha() else rf"\mathrm{{{plain_latex(name)}}}"


# Calculus on expressions -------------------------------------------------------------------------


def factor(expr: Expr, g: int) -> Expr | None:
    """Return what ``g`` is multiplied by in ``expr``, or None if that is no product with it.

    >>> product = Expr(op="mul", label="×", args=(Expr(node=7), Expr(node=1)))
    >>> factor(product, 7) == Expr(node=1), factor(Expr(node=7), 7) == ONE
    (True, True)
    """
    if expr.node == g:
        return ONE
    inside = [i for i, a in enumerate(expr.args) if contains(a, g)]
    if len(inside) != 1:
        return None
    (i,) = inside
    rest = factor(expr.args[i], g)
    if rest is None:
        return None
    others = [a for k, a in enumerate(expr.args) if k != i]
    if expr.op in SILENT:
        return rest
    if expr.op == "neg":
        return Expr(number=-1) if rest == ONE else replace(expr, args=(rest,))
    if expr.op == "mul" and rest == ONE:
        return others[0]
    if expr.op == "mul" or (expr.op == "div" and i == 0):
        args = (rest, others[0]) if i == 0 else (others[0], rest)
        return replace(expr, args=args)
    if expr.op == "where" and i > 0:
        return replace(expr, args=tuple(rest if k == i else a for k, a in enumerate(expr.args)))
    return None


def transposed(expr: Expr) -> Expr:
    """Return the transpose of a matrix, that of a product as the product of the transposes.

    >>> product = Expr(op="matmul", label="@", args=(Expr(node=0), transposed(Expr(node=1))))
    >>> text(transposed(product), lambda k: Written("gx"[k])).text
    'x @ gᵀ'
    """
    if expr.op == "transpose" and (expr.params or {}).get("axes") is None:
        return expr.args[0]
    if expr.op == "matmul":
        return replace(expr, args=tuple(transposed(a) for a in reversed(expr.args)))
    return Expr(op="transpose", label="ᵀ", args=(expr,), params={"axes": None})


def contains(expr: Expr, node: int) -> bool:
    """Whether ``node`` is in ``expr``."""
    return expr.node == node or any(contains(a, node) for a in expr.args)


def evaluate(expr: Expr, value: Callable[[int], Any]) -> Any:
    """Compute ``expr`` from the values of the nodes in it; None if an op is not known."""
    if expr.node is not None:
        return value(expr.node)
    if expr.op is None:
        return expr.number
    op, args = op_called(expr.op), [evaluate(a, value) for a in expr.args]
    if op is None or any(a is None for a in args):
        return None
    with np.errstate(all="ignore"):
        return op.fn(*args, **(expr.params or {}))


def call(node: Node, args: Mapping[int, Expr]) -> Expr:
    """Return the call that made ``node``; ``args`` are those that are nodes, by position."""
    scalars = {i: Expr(number=value) for i, value in node.scalars.items()}
    every = scalars | dict(args)
    label = op.label if (op := op_called(node.op)) and node.op != "sum_to" else node.label
    ordered = tuple(every[i] for i in sorted(every))
    return Expr(op=node.op, args=ordered, label=short(label), params=node.params)
