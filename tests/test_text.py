"""The graph as text: three programs word for word, and what holds for all of them."""

import os
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microbn as mb


def leaf(data, name=None, **options):
    return mb.Tensor(np.array(data, np.float64), requires_grad=True, name=name, **options)


def show(*outputs, **options):
    return str(mb.Graph.from_outputs(*outputs, **options))


def lines(*outputs, **options):
    return show(*outputs, **options).splitlines()


def cells(text):
    """The width in a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    none = sum(unicodedata.category(c) in ("Mn", "Me") or c == "\u200d" for c in text)
    return len(text) + wide - none


def batch_norm():
    x = leaf([[7, 70], [8, 80], [9, 90], [6, 60]], "x")
    return mb.batch_norm(x, leaf([1, 1], "gamma"), leaf([0, 0], "beta"))


BATCH_NORM = """
13 nodes, float64               shape  value, or mean ± std, min..max
x (input)                       4×2    41.2 ± 34.7, 6..90
gamma (input)                   2      [1 1]
beta (input)                    2      [0 0]
batch_norm
├─ mean = mean(x, axis=0)       2      [7.5 75]
├─ centered = x − mean          4×2    0 ± 7.95, -15..15
├─ squared = centered ** 2      4×2    63.1 ± 94, 0.25..225
├─ var = mean(squared, axis=0)  2      [1.25 125]
├─ var_eps = var + 1e-05        2      [1.25 125]
├─ std = √ var_eps              2      [1.118 11.18]
├─ inv_std = std ** -1          2      [0.8944 0.08944]
├─ x_hat = centered × inv_std   4×2    0 ± 1, -1.34..1.34
├─ scaled = x_hat × gamma       4×2    0 ± 1, -1.34..1.34
└─ y = scaled + beta (output)   4×2    0 ± 1, -1.34..1.34
"""


def chain():
    x = leaf(0.5, "x")
    return np.tanh((x * 2 - x**2).named("h")).named("y")


CHAIN = """
5 nodes, float64                 shape   value
x (input)                        scalar  0.5
%1 = x × 2                       scalar  1
%2 = x ** 2                      scalar  0.25
h = %1 − %2                      scalar  0.75
y = tanh(h) (output)             scalar  0.635149

backward: 9 nodes                shape   value
d y (seed)                       scalar  1
%6 = y × y                       scalar  0.403414
%7 = 1 − %6                      scalar  0.596586
d h = d %1 = d y × %7            scalar  0.596586
d %2 = − d h                     scalar  -0.596586
%10 = d %2 × x                   scalar  -0.298293
d x via pow = %10 × 2            scalar  -0.596586
d x via mul = d h × 2            scalar  1.19317
d x = d x via pow + d x via mul  scalar  0.596586
"""


def entropy():
    logits = leaf([[0, 1, 2], [1, 1, 1]], "logits")
    loss = mb.functional.cross_entropy(logits, np.array([2, 1])).named("loss")
    loss.backward()
    return loss


ENTROPY = """
10 nodes, float64          shape   value, or mean ± std, min..max  grad
logits (input)             2×3     [[0 1 2] [1 1 1]]               0 ± 0.188, -0.333..0.167
cross_entropy
├─ log_softmax
│  ├─ %1 (constant)        2×1     [[2] [1]]
│  ├─ %2 = logits − %1     2×3     [[-2 -1 0] [0 0 0]]             0 ± 0.188, -0.333..0.167
│  ├─ %3 = exp(%2)         2×3     [[0.1353 0.3679 1] [1 1 1]]     0.25 ± 0.083, 0.167..0.333
│  ├─ %4 = Σ(%3, axis=-1)  2×1     [[1.503] [3]]                   [[0.3326] [0.1667]]
│  ├─ %5 = log(%4)         2×1     [[0.4076] [1.099]]              [[0.5] [0.5]]
│  └─ %6 = %2 − %5         2×3     -1.25 ± 0.598, -2.41..-0.408    [[0 0 -0.5] [0 -0.5 0]]
├─ %7 = %6[[0 1], [2 1]]   2       [-0.4076 -1.099]                [-0.5 -0.5]
├─ %8 = mean(%7)           scalar  -0.753109                       -1
└─ loss = − %8 (output)    scalar  0.753109                        1
"""


@pytest.mark.parametrize(
    ("program", "options", "expected"),
    [
        (batch_norm, {}, BATCH_NORM),
        (chain, {"backward": True}, CHAIN),
        (entropy, {}, ENTROPY),
    ],
)
def test_word_for_word(program, options, expected):
    assert show(program(), **options) == expected.strip("\n")


# Formulas ----------------------------------------------------------------------------------------


def formula(output):
    """What the last line says before its columns."""
    return lines(output)[-1].split("  ")[0].removesuffix(" (output)")


X, Y = leaf([[1, 2], [3, 4]], "x"), leaf([5, 6], "y")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (lambda: X - Y, "%2 = x − y"),
        (lambda: Y - X, "%2 = y − x"),
        (lambda: 2 - X, "%1 = 2 − x"),
        (lambda: X - 2, "%1 = x − 2"),
        (lambda: X**2, "%1 = x ** 2"),
        (lambda: 2**X, "%1 = 2 ** x"),
        (lambda: -X, "%1 = − x"),
        (lambda: np.sqrt(X), "%1 = √ x"),
        (lambda: np.abs(X), "%1 = |x|"),
        (lambda: X @ Y, "%2 = x @ y"),
        (lambda: X.T, "%1 = xᵀ"),
        (lambda: X.transpose(1, 0), "%1 = ᵀ(x, axes=(1, 0))"),
        (lambda: X.sum(), "%1 = Σ(x)"),
        (lambda: X.mean(axis=0), "%1 = mean(x, axis=0)"),
        (lambda: X.max(axis=(0, 1), keepdims=True), "%1 = max(x, axis=(0, 1))"),
        (lambda: np.maximum(X, 0), "%1 = max(x, 0)"),
        (lambda: np.maximum(X, Y), "%2 = max(x, y)"),
        (lambda: np.where(X.data > 1, 0.1, X), "%2 = where(%0, 0.1, x)"),
        (lambda: X.reshape(4), "%1 = reshape(x)"),
        (lambda: X.astype(np.float32), "%1 = cast(x, dtype=float32)"),
        (lambda: np.concatenate([X, X], axis=1), "%1 = concatenate(x, x, axis=1)"),
        (lambda: X[0], "%1 = x[0]"),
        (lambda: X[:, ::-1], "%1 = x[:, ::-1]"),
        (lambda: X[..., None, 1:], "%1 = x[..., None, 1:]"),
        (lambda: X[np.array([1, 0, 0])], "%1 = x[[1 0 0]]"),
        (lambda: X[np.arange(2).repeat(9)], "%1 = x[[0 0 0 … 1]]"),
        (lambda: X[np.array([[1, 0]])], "%1 = x[1×2 indices]"),
        (lambda: X[X.data > 1], "%1 = x[mask of 3]"),
    ],
)
def test_formulas(program, expected):
    assert formula(program()) == expected


def test_ops_of_ones_own():
    def op(name, label):
        return mb.ops.Op(name, lambda *a: a[0] * 1, *[lambda g, *a: g] * 3).show(label, "")

    assert formula(op("plus", "⊕")(X, 2)) == "%1 = x ⊕ 2"
    assert formula(op("plus", "⊕")(X, Y)) == "%2 = x ⊕ y"
    assert formula(op("norm", "‖·‖")(X)) == "%1 = ‖x‖"
    assert formula(op("clip", "clip")(X, 0, Y)) == "%2 = clip(x, 0, y)"
    assert formula(op("pair", "<·, ·>")(X, Y)) == "%2 = <x, y>"
    assert formula(op("odd", "<·, ·>")(X)) == "%1 = <·, ·>(x)"


def test_a_scatter_and_a_sum_say_where():
    text = show((X[np.array([0, 0])] * Y).sum(), backward=True)
    assert "= scatter(d %1 at [0 0])" in text
    assert "d y = Σ axis 0 of %" in text


def test_a_name_that_is_used_twice_is_told_apart_where_it_matters():
    a, b = leaf(1, "x"), leaf(2, "x")
    assert [line.split("  ")[0] for line in lines((a * b).named("x") + a)[1:]] == [
        "x%0 (input)",
        "x (input)",
        "x = x%0 × x",
        "%3 = x + x%0 (output)",
    ]
    assert "%0" not in show((a * 2).named("x") * 2)


def test_cotangents_of_what_has_no_name_go_by_its_index():
    text = show(np.exp(np.sin(leaf(1, "x"))), backward=True)
    assert [line.split("  ")[0] for line in text.split("\n\n")[1].splitlines()[1:]] == [
        "d %2 (seed)",
        "d %1 = d %2 × %2",
        "%5 = cos(x)",
        "d x = d %1 × %5",
    ]


# Scopes ------------------------------------------------------------------------------------------


def test_scopes_nest_and_leaves_stand_before_the_scope_that_uses_them():
    x, w, b = leaf(1, "x"), leaf(2, "w"), leaf(3, "b")
    with mb.scope("outer"):
        h = np.sin(x)
        for name in ("first", "second"):
            with mb.scope(name):
                h = np.exp(h) * w
        h = h + b
    assert [line.split("  ")[0] for line in lines(h)[1:4]] == [
        "x (input)",
        "w (input)",
        "b (input)",
    ]
    assert [line[:14].rstrip() for line in lines(h)[4:]] == [
        "outer",
        "├─ %1 = sin(x)",
        "├─ first",
        "│  ├─ %2 = exp",
        "│  └─ %4 = %2",
        "├─ second",
        "│  ├─ %5 = exp",
        "│  └─ %6 = %5",
        "└─ %8 = %6 + b",
    ]


def test_a_leaf_goes_by_its_first_use():
    x, w = leaf(1, "x"), leaf(2, "w")
    with mb.scope("f"):
        h = np.sin(x)
    with mb.scope("g"):
        inside = leaf(3, "inside")
        h = np.exp(h * w + inside)
    starts = [line.split("  ")[0].split(" = ")[0] for line in lines(h)[1:]]
    assert starts == [
        "x (input)",
        "f",
        "└─ %1",
        "w (input)",
        "g",
        *(f"├─ {i}" for i in ("%3",)),
        "├─ inside (input)",
        "├─ %5",
        "└─ %6",
    ]


def test_a_scope_that_goes_on():
    """The backward pass leaves scopes and comes back: a + b is accumulated outside."""
    x = leaf([1, 2], "x")
    with mb.scope("f"):
        a = np.exp(x)
    b = np.sin(x)
    with mb.scope("g"):
        c = np.tanh(a * b)
    text = show(c, backward=True)
    assert text.count("\nd g\n") == 1
    order = [line for line in text.splitlines() if "  " not in line.strip()]
    assert order == ["f", "g", "", "d g", "d f"]


def test_it_comes_back_to_a_scope():
    nodes = mb.Graph.from_outputs(np.exp(np.sin(np.cos(leaf(1, "x"))))).nodes
    scopes = (mb.graph.Scope(0, "s", None),)
    places = [None, 0, None, 0]
    moved = [replace(n, place=p) for n, p in zip(nodes, places, strict=True)]
    edges = mb.Graph.from_outputs(np.exp(np.sin(np.cos(leaf(1, "x"))))).edges
    text = str(mb.Graph(tuple(moved), edges, scopes))
    assert [line.split("  ")[0] for line in text.splitlines()] == [
        "4 nodes, float64",
        "x (input)",
        "s",
        "└─ %1 = cos(x)",
        "%2 = sin(%1)",
        "s, continued",
        "└─ %3 = exp(%2) (output)",
    ]


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (np.nan, "nan"),
        (-0.0, "0"),
        (np.pi, "3.14159"),
        (1e-20, "1e-20"),
        (np.zeros((0, 3)), "empty"),
        ([1.0, np.nan], "[1 nan]"),
        ([[1.0, 2.0], [3.0, 1e6 / 3]], "[[1 2] [3 3.333e+05]]"),
        (np.arange(7), "3 ± 2, 0..6"),
        (np.full(9, 0.1), "all 0.1"),
        (np.arange(8) % 3 == 0, "3 of 8 True"),
        ([True, False], "[True False]"),
        ([2**40, 1], "[1.1e+12 1]"),
        ([np.nan] * 7, "7 nan"),
        ([1, 2, 3, np.nan, np.inf, -np.inf, 2], "2 ± 0.707, 1..3, 1 nan, 2 inf"),
        (np.float32([0.1, -0.1, 1e-9] * 9), "0 ± 0.0816, -0.1..0.1"),
        (np.float16([60000] * 4 + [-60000] * 3), "8.57e+03 ± 5.94e+04, -6e+04..6e+04"),
    ],
)
def test_values(data, expected):
    x = mb.Tensor(data, name="x")
    assert lines(x)[1].split("  ")[-1].strip() == expected


def test_dtypes_are_shown_where_they_differ():
    x = mb.Tensor(np.ones(3, np.float32), requires_grad=True, name="x")
    rows = [" ".join(line.split()) for line in lines((x * 2 + np.array([1, 2, 3])).named("y"))]
    assert rows == [
        "4 nodes, mostly float32 shape value",
        "x (input) 3 [1 1 1]",
        "%1 = x × 2 3 [2 2 2]",
        "%2 (constant) 3 int64 [1 2 3]",
        "y = %1 + %2 (output) 3 float64 [3 4 5]",
    ]


def test_kinds_are_shown():
    layer = mb.nn.Linear(2, 2, rng=0)
    text = show(layer(np.ones((1, 2), np.float32)))
    assert [text.count(f"({kind})") for kind in ("parameter", "constant", "output")] == [2, 1, 1]


def test_gradients_are_shown_beside_values_unless_there_is_a_backward_part():
    y = chain()
    y.backward()
    assert lines(y)[0].endswith("value     grad")
    assert lines(y)[1].split() == ["x", "(input)", "scalar", "0.5", "0.596586"]
    assert "grad" not in show(y, backward=True)


# Any name, any size ------------------------------------------------------------------------------


def check(text):
    """What holds of every text."""
    assert all(c.isprintable() or c in "\n\u200d" for c in text)
    assert all(cells(line) <= 100 for line in text.split("\n"))
    assert all(line == line.rstrip() for line in text.split("\n"))
    assert text.encode()


def program(name):
    with mb.scope(name or "empty"):
        x = leaf([1.5, 2.5], name)
        y = (x * x).named(name)
    return (np.sin(y) + x).named(name)


@given(st.text())
@settings(max_examples=300)
def test_no_name_breaks_the_page(name):
    for backward in (False, True):
        text = show(program(name), backward=backward)
        check(text)
        assert len(text.split("\n")) == (16 if backward else 6)


@given(st.text("ab均値ａ｡\u0302👍", min_size=1, max_size=50))
@settings(max_examples=200)
def test_columns_stand_below_one_another(name):
    """Measured in cells: every shape but that of scope headings begins at the same one."""
    table = show(leaf([1, 2], name) * 2, leaf([3, 4], "x"))
    columns = {cells(line[: line.rindex("[")]) for line in table.splitlines()[1:]}
    assert len(columns) == 1


HOSTILE = ["\x1b[31mred\x1b[0m", "two\nlines", "\u202eright to left", "\ud800", "\x9b2J", "a\0b"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_made_harmless(name):
    graph = mb.Graph.from_outputs(program(name))
    check(str(graph))
    labelled = [replace(node, label=name, op=name and node.op) for node in graph.nodes]
    check(str(mb.Graph(tuple(labelled), graph.edges, graph.scopes)))


def test_long_names_are_shortened():
    text = show(program("very " * 50), backward=True)
    check(text)
    assert "very very very very very very v…" in text


def test_of_a_long_program_the_rest_is_counted():
    x = leaf(0.5, "x")
    for _ in range(1000):
        x = x * 1.001
    rows = lines(x)
    assert len(rows) == 202
    assert rows[-1] == "… 801 more nodes; graph.nodes has them all"
    rows = lines(x, backward=True)
    assert len(rows) <= 206
    assert [row for row in rows if row.startswith("…")] == [
        "… 901 more nodes; graph.nodes has them all",
        "… 901 more nodes; graph.nodes has them all",
    ]
    check("\n".join(rows))


def test_one_node_too_many():
    x = leaf(0.5, "x")
    for _ in range(200):
        x = x * 1.001
    assert lines(x)[-1] == "… 1 more node; graph.nodes has them all"


def test_many_arguments_and_axes():
    wide = np.stack([leaf([1, 2], f"argument {i}") for i in range(50)])
    deep = leaf(np.ones((1,) * 30), "deep") * 2
    check(show(wide, deep))


def test_an_empty_graph():
    assert str(mb.Graph((), ())) == "0 nodes"


def test_it_does_not_depend_on_print_options():
    before = show(entropy())
    with np.printoptions(precision=1, threshold=2, linewidth=10, suppress=True, sign="+"):
        assert show(entropy()) == before


@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_process_writes_the_same(seed):
    code = "import test_text as t, sys; sys.stdout.buffer.write(t.show(t.batch_norm()).encode())"
    folders = [str(Path(__file__).parent), *sys.path]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(folders)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert run.stdout.decode() == show(batch_norm())
