"""The derivation and the pages for readers of a course, as far as doctests do not show it.

The cells of the derivation are run, and no line of it holds by chance. A character changed in the
backward pass of a page gives the diagnosis that the page prints for it.
"""

import contextlib
import doctest
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import microbn as mb

ROOT = Path(__file__).parent.parent
DERIVATION = ROOT / "docs" / "explanation" / "derivation.md"
COMPANIONS = ROOT / "docs" / "companions"


@pytest.fixture(autouse=True)
def path(monkeypatch):
    """Keep what the derivation puts on the path from other tests."""
    monkeypatch.setattr(sys, "path", [*sys.path])


# The derivation ----------------------------------------------------------------------------------


def cells():
    text = DERIVATION.read_text(encoding="utf-8")
    return re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture
def line():
    """What the first cell of the page leaves in ``line``."""
    space = {}
    exec(cells()[0], space)
    return space["line"]


def test_every_line_of_the_derivation_holds(line):
    shown = [eval(cell.strip(), {"line": line}) for cell in cells()[1:]]
    assert len(shown) == 25
    lines = [each for found in shown for each in found]
    assert len(lines) == 40
    assert max(each.off for each in lines) < 1e-12


def test_each_rule_uses_what_was_shown_before(line):
    """All gradients are derived, in an order that only looks back."""
    shown = {"dy"}
    for cell in cells()[1:]:
        if cell.startswith("line.rule"):
            name, *codes = re.findall(r'"(.*?)"', cell)
            used = set(re.findall(r"\bd\w+", " ".join(codes)))
            assert used <= shown, name
            shown.add("d" + name)
    assert shown == {name for name in line.values if name[0] == "d"}


def test_rules_are_those_of_the_walk(line):
    (found,) = line.rule("var_eps", "dstd / (2 * std)")
    (step,) = (s for s in line.walk if s.kind == "edge" and s.node.name == "var_eps")
    assert f"{found.left} {found.sign} {found.right}" == step.latex
    assert found.right == r"\frac{\frac{\partial L}{\partial \mathrm{std}}}{2 \cdot \mathrm{std}}"
    assert [each.sign for each in line.rule("z", "dcentered", "dmu / m")] == ["=", r"\mathrel{+}="]


def test_expressions_are_typeset_by_the_table_of_primitives(line):
    (found,) = line.equal("dz", "dcentered + dmu / m")
    assert found.left == r"\frac{\partial L}{\partial z}"
    assert found.right == (
        r"\frac{\partial L}{\partial \mathrm{centered}} + "
        r"\frac{\frac{\partial L}{\partial \mu}}{m}"
    )


@pytest.mark.parametrize(
    "cell",
    [
        'line.rule("var_eps", "dstd / (1 * std)")',
        'line.rule("mu", "dcentered.sum(axis=0)")',
        'line.rule("z", "dmu / m", "dcentered")',
        'line.equal("dz", "dcentered - dmu / m")',
        'line.equal("z_hat.sum(axis=0)", "1e-11")',
        'line.rule("centered", "dz_hat * inv_std")',
    ],
)
def test_a_line_that_does_not_hold_is_not_shown(line, cell):
    with pytest.raises(AssertionError):
        eval(cell, {"line": line})


def test_the_closed_form_holds_for_other_data():
    """Independently of the page: hand-written forms, other numbers, several eps."""
    rng = np.random.default_rng(1)
    z, gamma, dy = rng.normal(3, 5, (6, 2)), rng.normal(size=2), rng.normal(size=(6, 2))
    for eps in (0.0, 1e-5, 1.0):
        leaf = mb.Tensor(z, requires_grad=True)
        mb.batch_norm(leaf, gamma, np.zeros(2), eps=eps).backward(dy)
        std = np.sqrt(z.var(0) + eps)
        z_hat = (z - z.mean(0)) / std
        dz = gamma / (6 * std) * (6 * dy - dy.sum(0) - z_hat * (dy * z_hat).sum(0))
        np.testing.assert_allclose(leaf.grad, dz, rtol=0, atol=1e-12)


def test_lines_as_html_latex_and_text(line):
    found = line.equal("dz", "dcentered + dmu / m")
    assert repr(found).startswith("dz = dcentered + dmu / m   (")
    assert found._repr_latex_().startswith(r"$$\begin{aligned}\frac{\partial L}{\partial z} &= ")
    html = found._repr_html_()
    if html is not None:  # latex2mathml is there
        assert html.count("<math ") == 2
        assert "\\" not in html


# The companions ----------------------------------------------------------------------------------


def examples(name):
    return doctest.DocTestParser().get_examples((COMPANIONS / name).read_text(encoding="utf-8"))


def complaints(name, old="", new=""):
    """Run the code of a page, with ``old`` replaced by ``new``; return what each example says.

    That is the text of an assertion or of a comparison that finds something wrong, on one line,
    or nothing.
    """
    space, found = {}, []
    for example in examples(name):
        text = ""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(example.source.replace(old, new), name, "single"), space)
        except AssertionError as error:
            text = str(error)
        if not text and "report = " in example.source and "report" in space:
            text = "" if space["report"] else str(space["report"])
        found.append(" ".join(text.split()))
    return found


def broken(name, old, new):
    """Return the first complaint about a page that it does not have without the fault."""
    count = sum(example.source.count(old) for example in examples(name))
    assert count == 1, f"{old!r} is there {count} times"
    pairs = zip(complaints(name), complaints(name, old, new), strict=True)
    return next(after for before, after in pairs if after != before)


def said(name):
    """Return all that a page says is printed or raised, as one line."""
    found = (example.want + " " + (example.exc_msg or "") for example in examples(name))
    return " ".join(" ".join(found).split())


FAULTS = [
    (
        "cs231n.md",
        "dvar * 2 * centered",
        "dvar * 1 * centered",
        "The path through var counts half. Usual causes: the 1/2 of d sqrt(+ 1e-05) taken twice; "
        "the 2 of d(centered**2) lost. d x alone cannot tell which: give the staged gradients to "
        "compare.",
    ),
    (
        "cs231n.md",
        "dstd = -(dx_hat",
        "dstd = +(dx_hat",
        "The path through var has the wrong sign. Usual cause: the minus of d(centered÷std) lost.",
    ),
    (
        "cs231n.md",
        "2 * centered / N ",
        "2 * centered / (N - 1) ",
        "The path through var counts m/(m-1) times. Usual cause: var divided by m - 1 in the "
        "backward pass, by m in the forward pass.",
    ),
    (
        "cs231n.md",
        "dout - dbeta - x_hat",
        "dout - dbeta + x_hat",
        "The path through var has the wrong sign. Usual cause: the minus of d(centered÷std) lost.",
    ),
    (
        "makemore.md",
        'd["bnvar"] / rows',
        'd["bnvar"] / (rows + 1)',
        "The fault is at bndiff2: d bndiff2 is 0.96875 times what follows from the gradients given "
        "above it. bndiff, hprebn, W1, embcat are wrong because of it and need no mending.",
    ),
    (
        "makemore.md",
        "all_at_once(n / (n - 1))",
        "all_at_once(n / (n - 0))",
        "d hprebn is wrong: at [28, 2] it is 0.1004, and should be 0.09247. The path through "
        "bnvar counts (m-1)/m times.",
    ),
    (
        "lecture.md",
        "(two * std)",
        "(1 * std)",
        "The fault is at var_eps: d var_eps is 2 times what follows from the gradients given above "
        "it. var, squared, centered, z are wrong because of it and need no mending.",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "diagnosis"), FAULTS)
def test_a_fault_is_diagnosed_as_the_page_says(name, old, new, diagnosis):
    assert diagnosis in broken(name, old, new)
    assert diagnosis in said(name)


@pytest.mark.parametrize("stage", ["bnvar_inv", "bnvar", "bndiff", "bnmeani", "hprebn", "bngain"])
def test_a_fault_in_any_stage_of_makemore_has_its_origin_there(stage):
    """A line of exercise 1 that is 1 % off, and those after it computed from it."""
    line = f'd["{stage}"] = '
    assert f"The fault is at {stage}: " in broken("makemore.md", line, f"{line}1.01 * ")


FAULTS_AI = [
    ("+ sign * along", "- sign * along", "Z1"),
    ('mean(d["Z1_norm"]) + sign', '0 * mean(d["Z1_norm"]) + sign', "Z1"),
    ("Y) / m", "Y) * m", "Z2"),
    ("(Z1_tilde > 0)", "(Z1_tilde < 0)", "Z1_tilde"),
    ("gamma1 * d[", "beta1 * d[", "Z1_norm"),
    ('d["Z1_tilde"] * Z1_norm)', 'd["Z1_tilde"] * Z1)', "gamma1"),
]


@pytest.mark.parametrize(("old", "new", "origin"), FAULTS_AI)
def test_a_fault_in_any_stage_of_the_deeplearning_page(old, new, origin):
    space = {}
    for example in examples("deeplearning_ai.md"):
        source = example.source.replace(old, new).replace("range(20)", "range(1)")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, "page", "single"), space)
        if "train(first, backward)" in source:
            break
    (report,) = space["reports"]
    assert report.origins == (origin,)
