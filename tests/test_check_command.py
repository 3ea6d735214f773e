"""`microbn check`, used as its users use it: files of marked functions, right, wrong and broken."""

import functools
import os
import subprocess
import sys

import handmade
import numpy as np
import pytest
from faults import FAULTS

from microbn import cli
from microbn.check.marked import Marked, backward_of, checked, marked_in, marks
from microbn.errors import OperandError, ShapeError

HEAD = """
import numpy as np
import microbn as mb
from microbn.check.marked import backward_of

rng = np.random.default_rng(0)
X, GAMMA, BETA = rng.normal(size=(8, 3)), rng.normal(size=3), rng.normal(size=3)

def forward(x, gamma, beta):
    return mb.batch_norm(x, gamma, beta, eps=1e-5)

def square(x):
    return x * x

def by_hand(dy, x, gamma, beta):
    y, cache = mb.handwritten.forward(x, gamma, beta, 1e-5)
    return mb.handwritten.backward_closed(dy, cache)
"""
RIGHT = """
@backward_of(forward, X, GAMMA, BETA, kind="batch_norm")
def backward(dy, x, gamma, beta):
    return by_hand(dy, x, gamma, beta)
"""
WRONG = """
@backward_of(forward, X, GAMMA, BETA)
def forgets_mean(dy, x, gamma, beta):
    dx, dgamma, dbeta = by_hand(dy, x, gamma, beta)
    return dx + gamma * (x.var(0) + 1e-5) ** -0.5 * dy.mean(0), dgamma, dbeta
"""
RAISES = """
@backward_of(square, X)
def raises(dy, x):
    return helper(dy)

def helper(a):
    return a.reshape(5)
"""
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
} | {"PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Write a program, and run the command on it: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(text, *options, name="grads.py"):
        file = tmp_path / name.partition(":")[0]
        file.write_text(HEAD + text)
        try:
            status = cli.main(["check", name, *map(str, options)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def one_line(text):
    return " ".join(text.split())


def headings(out):
    return [line for line in out.splitlines() if line.strip() and not line.startswith(" ")]


def table(out):
    """Read the tables: (gradient, verdict) -> relative error."""
    rows = [line.split() for line in out.splitlines() if line.startswith("  d ")]
    return {(row[1], " ".join(row[2:-1])): row[-1] for row in rows if len(row) < 6}


# Marks -------------------------------------------------------------------------------------------


def test_a_marked_function_is_the_function_it_was():
    def backward(dy, x):
        return (dy,)

    before = backward
    x = np.ones(3)
    marked = backward_of(np.negative, x, kind="layer_norm", axis=0)(backward)
    assert marked is before
    assert marked("dy", "x") == ("dy",)
    (mark,) = marks(marked)
    assert (mark.composed, mark.kind, mark.options) == (np.negative, "layer_norm", {"axis": 0})
    assert mark.drawn(5)[0] is x
    with pytest.raises(AttributeError):
        mark.kind = "other"


def test_marks_are_kept_from_top_to_bottom_and_found_once_each():
    @backward_of(np.sin, np.ones(1))
    @backward_of(np.cos, np.ones(1))
    def first(dy, x):
        return (dy,)

    second = functools.partial(first, 1)
    backward_of(np.tan, np.ones(1))(second)
    assert [mark.composed for mark in marks(first)] == [np.sin, np.cos]
    found = marked_in({"a": 1, "second": second, "np": np, "first": first, "again": first})
    assert [*found] == ["second", "first"]


def test_inputs_may_be_drawn():
    mark = Marked(np.sin, lambda rng: [rng.normal(size=2)])
    assert isinstance(mark.drawn(1), tuple)
    np.testing.assert_array_equal(mark.drawn(1)[0], mark.drawn(1)[0])
    assert (mark.drawn(1)[0] != mark.drawn(2)[0]).all()
    for returned in np.ones(2), (), None:
        with pytest.raises(OperandError, match=r"it returned .*; let it return a tuple"):
            Marked(np.sin, lambda rng, returned=returned: returned).drawn(0)


@pytest.mark.parametrize(
    ("args", "options", "kind", "message"),
    [
        ((np.ones(3),), {}, OperandError, "give the composed function first"),
        ((np.sin,), {}, OperandError, r"backward_of\(sin, ...\): there are no inputs"),
        ((np.sin,), {"inputs": ()}, OperandError, "there are no inputs"),
        ((np.sin, 1.0), {"inputs": [1.0]}, OperandError, "one by one and as inputs=; give"),
        ((np.sin, lambda rng: 1), {}, OperandError, r"by name: inputs=lambda rng"),
        ((np.sin,), {"inputs": np.ones(2)}, OperandError, r"or a tuple, not array \(2,\)"),
        ((np.sin, 1.0), {"kind": "norm"}, ShapeError, "kind='norm' must be one of batch_norm, "),
        ((np.sin, 1.0), {"kind": "batch_norm", "tol": 1}, ShapeError, "no option tol; .*: axis, e"),
        ((np.sin, 1.0), {"eps": 1}, ShapeError, "eps= is for laws; give kind='batch_norm' too"),
    ],
)
def test_wrong_marks(args, options, kind, message):
    with pytest.raises(kind, match=message):
        backward_of(*args, **options)


@pytest.mark.parametrize("thing", [np.ones(2), dict, None])
def test_only_functions_are_marked(thing):
    with pytest.raises(OperandError, match=r"marks a function, not .* on the line above its def"):
        backward_of(np.sin, 1.0)(thing)
    with pytest.raises(OperandError, match="cannot be marked; mark a function of your own"):
        backward_of(np.sin, 1.0)(len)


# Verdicts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_of_the_collection_is_wrong(fault):
    dtype = np.float32 if fault.effect == "dtype" else np.float64
    mark = Marked(fault.composed, functools.partial(fault.inputs, dtype=dtype))
    outcome = checked("b", fault.fresh(), mark, range(3))
    assert outcome.verdict == "wrong"
    names = [g.name for g in outcome.gradients]
    wrong = {names.index(g.name) for g in outcome.gradients if not g.right}
    assert wrong == {fault.wrt, *fault.also}
    assert all(bool(g.texts) != g.right for g in outcome.gradients)


@pytest.mark.parametrize("case", handmade.RIGHT, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_right_pass_is_right(case, dtype):
    mark = Marked(case.composed, functools.partial(case.inputs, dtype=dtype))
    outcome = checked("b", case.backward, mark, range(3))
    assert outcome.verdict == "right", outcome
    assert all(g.error < 1e4 * np.finfo(dtype).eps for g in outcome.gradients if g.proves)


def test_the_error_is_the_worst_over_all_seeds():
    calls = []

    def backward(dy, x):
        calls.append(dy)
        return (dy * (1 + 1e-15 * (len(calls) == 4)),)  # the first call of the second seed

    outcome = checked("b", backward, Marked(lambda x: x * 1, (np.ones(3),)), range(3))
    assert outcome.verdict == "right"
    assert 5e-16 < outcome.gradients[0].error < 2e-15
    assert len({dy.tobytes() for dy in calls}) == 6


def test_dy_is_not_what_somebody_draws_with_the_same_seed():
    seen = []
    x = np.random.default_rng(0).standard_normal((4, 2))
    checked("b", lambda dy, x: seen.append(dy) or (dy,), Marked(lambda x: x * 1, (x,)), [0])
    assert not (seen[0] == x).any()


def test_a_kept_buffer_that_is_returned_itself_is_seen():
    total = np.zeros(3)

    def backward(dy, x):
        np.add(total, dy, out=total)
        return (total,)

    outcome = checked("b", backward, Marked(lambda x: x * 1, (np.ones(3),)), range(3))
    assert "returns the sum of both" in outcome.gradients[0].texts[0]


# What is printed ---------------------------------------------------------------------------------


def test_a_right_one(check):
    status, out, err = check(RIGHT)
    assert (status, err) == (0, "")
    assert headings(out) == ["backward of forward: right", "1 of 1 is right."]
    errors = table(out)
    assert [*errors] == [("x", "right"), ("gamma", "right"), ("beta", "right")]
    assert all(float(error) < 1e-14 for error in errors.values())
    text = one_line(out)
    assert "path var → squared → centered → mean contributes nothing at these inputs" in text
    assert "a term for it is not missing. Why: what flows along it is, in each column" in text
    assert "It obeys the laws of batch_norm, too." in text


def test_a_wrong_one(check):
    status, out, err = check(RIGHT + WRONG)
    assert (status, err) == (1, "")
    assert headings(out) == [
        "backward of forward: right",
        "forgets_mean of forward: wrong",
        "1 of 2 are right.",
    ]
    errors = table(out)
    assert float(errors["x", "wrong"]) > 0.01
    assert ("gamma", "wrong") not in errors
    text = one_line(out)
    assert "The path through mean is missing. Usual causes: mean taken for a constant" in text
    assert text.count("a term for it is not missing") == 1
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[-1] == "1 of 2 are right."


def test_quiet_prints_what_is_wrong_alone(check):
    status, out, _ = check(RIGHT + WRONG, "--quiet")
    assert status == 1
    assert headings(out) == ["forgets_mean of forward: wrong", "1 of 2 are right."]
    assert check(RIGHT, "-q") == (0, "1 of 1 is right.\n", "")


def test_one_function_by_name(check):
    assert check(RIGHT + WRONG, name="grads.py:backward")[0] == 0
    status, out, _ = check(RIGHT + WRONG, name="grads.py:forgets_mean")
    assert (status, headings(out)[-1]) == (1, "0 of 1 is right.")


def test_one_that_raises_and_the_others_go_on(check):
    status, out, _ = check(RAISES + RIGHT)
    assert status == 1
    assert headings(out) == [
        "raises of square: raised",
        "backward of forward: right",
        "1 of 2 are right.",
    ]
    text = out.partition("backward of")[0]
    assert "Traceback (most recent call last):" in text
    assert "in raises" in text
    assert "in helper" in text
    assert "ValueError: cannot reshape array of size 24 into shape (5,)" in text
    assert "match.py" not in text
    assert "marked.py" not in text


def test_what_it_raises_from_something_else_is_shown(check):
    text = """
@backward_of(square, X)
def chained(dy, x):
    raise KeyError("own") from ValueError("cause")
"""
    out = check(text)[1]
    assert "ValueError: cause" in out
    assert "KeyError: 'own'" in out


def test_exiting_is_raising(check):
    text = "import sys\n@backward_of(square, X)\ndef exits(dy, x):\n    sys.exit(0)\n"
    status, out, _ = check(text)
    assert (status, headings(out)[0]) == (1, "exits of square: raised")
    assert "SystemExit: 0" in out


@pytest.mark.parametrize(
    ("code", "verdict", "message"),
    [
        ("@backward_of(square, X)\ndef b(dy): return dy", "raised", "dy and the inputs that the m"),
        ("@backward_of(square, X)\ndef b(dy, x): return dy, x", "wrong", "Gradients came back: 2"),
        ("@backward_of(square, X)\ndef b(dy, x): x *= 2; return dy", "wrong", "wrote into input 0"),
        ("@backward_of(square, X)\ndef b(dy, x): return None", "wrong", "None came back"),
        ("@backward_of(square, X)\ndef b(dy, x): return dy.sum()", "wrong", "it has shape ()"),
        ("@backward_of(square, X)\ndef b(dy, x): return [[1], [1, 2]],", "raised", "inhomogeneous"),
        (
            "@backward_of(square, X)\ndef b(dy, x): return 2 * x * dy.clip(-2, 2)",
            "wrong",
            "is not linear in dy",
        ),
        (
            "@backward_of(square, X)\ndef b(dy, x): return x * dy * np.nan",
            "wrong",
            "24 of 24 entries are not finite",
        ),
        (
            "@backward_of(square, X.astype('f'))\ndef b(dy, x): return 2 * x.astype(float) * dy",
            "wrong",
            "it is float64, and x is float32",
        ),
        (
            "@backward_of(square, np.arange(3))\ndef b(dy, x): return dy",
            "not checked",
            "square: nothing to differentiate by: the inputs are array (3,) int64; give floating",
        ),
        (
            "@backward_of(lambda x: 1 / x.foo, X)\ndef b(dy, x): return dy",
            "not checked",
            "The composed function raised: Traceback (most recent call last): File",
        ),
        (
            "@backward_of(lambda x: mb.Tensor(X), X)\ndef b(dy, x): return dy",
            "not checked",
            "The composed function: what it returns depends on none of its floating inputs.",
        ),
        (
            "@backward_of(square, inputs=lambda rng: X)\ndef b(dy, x): return dy",
            "not checked",
            "The function that draws the inputs: it returned array (8, 3) float64; let it return",
        ),
        (
            "@backward_of(lambda x: forward(x, 1.0, 0.0), X, kind='batch_norm', groups=2)\n"
            "def b(dy, x): return by_hand(dy, x, np.ones(3), BETA)[0]",
            "not checked",
            "The laws of batch_norm: ",
        ),
    ],
)
def test_what_may_go_wrong(check, code, verdict, message):
    status, out, err = check(code + "\n")
    assert (status, err) == (1, "")
    of = " of square" * ("square" in code)
    assert headings(out) == [f"b{of}: {verdict}", "0 of 1 is right."]
    assert message in one_line(out)
    assert "microbn/check" not in out


def test_a_law_that_is_broken_though_the_gradients_are_right(check):
    text = """
@backward_of(lambda x: mb.batch_norm(x, eps=0.5), X, kind="batch_norm"{})
def b(dy, x):
    y, cache = mb.handwritten.forward(x, np.ones(3), np.zeros(3), 0.5)
    return mb.handwritten.backward_closed(dy, cache)[0],
"""
    status, out, _ = check(text.format(""))
    assert (status, headings(out)[0], [*table(out)]) == (1, "b: wrong", [("x", "right")])
    assert "of batch_norm broken: sum dx x_hat = " in one_line(out)
    assert "the mark lacks its axis=, eps= or groups=." in one_line(out)
    assert check(text.format(", eps=0.5"))[0] == 0


def test_targets_get_no_gradient(check):
    text = """
@backward_of(mb.functional.cross_entropy, X, np.arange(8) % 3, kind="softmax_cross_entropy")
def b(dy, logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p[np.arange(8), targets] -= 1
    return dy * p / 8, None
"""
    status, out, _ = check(text)
    assert (status, [*table(out)]) == (0, [("logits", "right")])
    assert "It obeys the laws of softmax_cross_entropy, too." in out


def test_a_gradient_that_any_formula_gets_right(check):
    text = """
@backward_of(lambda x, b: mb.batch_norm(x + b), X, BETA)
def backward(dy, x, b):
    dx = by_hand(dy, x + b, np.ones(3), BETA)[0]
    return dx, dx.sum(0)
"""
    status, out, _ = check(text)
    assert status == 0
    assert table(out)["b", "proves nothing"] == "-"
    assert "d b should be 0 here, up to rounding: almost any formula gives that." in out


def test_every_mark_of_a_function_is_checked(check):
    text = """
@backward_of(square, X)
@backward_of(lambda x: x * x * x, X)
def twice(dy, x):
    return 2 * x * dy
"""
    status, out, _ = check(text)
    assert status == 1
    assert headings(out) == ["twice of square: right", "twice: wrong", "1 of 2 are right."]


def test_seeds_draw_other_inputs(check):
    text = """
@backward_of(square, inputs=lambda rng: (np.array([float(rng.random() > 0.7)]),))
def b(dy, x):
    return 3 * x * dy  # which is right at 0
"""
    first = next(s for s in range(99) if np.random.default_rng(s).random() > 0.7)
    assert check(text, "--seeds", first)[0] == 0
    status, out, _ = check(text, "--seeds", first + 1)
    assert (status, headings(out)[0]) == (
        1,
        f"b of square: wrong (with --seed {first}, not before)",
    )
    status, out, _ = check(text, "--seed", first, "--seeds", 1)
    assert (status, headings(out)[0]) == (1, "b of square: wrong")


def test_a_name_that_is_given_twice(check):
    status, out, _ = check(WRONG.replace("forgets_mean", "backward") + RIGHT)
    assert status == 0
    assert "backward is defined more than once: only the last one is checked." in out


def test_the_functions_may_need_what_lies_beside_the_file(check, tmp_path):
    (tmp_path / "beside_the_file.py").write_text("FACTOR = 2\n")
    text = """
@backward_of(square, X)
def b(dy, x):
    from beside_the_file import FACTOR
    return FACTOR * x * dy

if __name__ == "__main__":
    raise SystemExit("this is not run")
"""
    try:
        assert check(text)[0] == 0
    finally:
        sys.modules.pop("beside_the_file", None)


# Wrong use ---------------------------------------------------------------------------------------


def test_nothing_is_marked(check):
    status, out, err = check("")
    assert (status, out) == (2, "")
    assert err.startswith("microbn check: error: no function in grads.py is marked; put a mark")
    assert "\n  @mb.check.backward_of(forward, x, w)\n  def backward(dy, x, w):\n" in err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grads.py:zz", (), "there is no function zz in grads.py; marked are: backward"),
        ("grads.py:by_hand", (), "by_hand in grads.py is not marked; marked are: backward"),
        ("grads.py", ("--seeds", 0), "must be a whole number, 1 or more, not '0'"),
        ("grads.py", ("--foo",), "there is no option --foo (see"),
        ("grads.py", ("a",), "there is no argument a (see"),
    ],
)
def test_wrong_use(check, name, options, message):
    status, out, err = check(RIGHT, *options, name=name)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("target", ["none.py", "none.py:b", ".", "a.ipynb"])
def test_no_such_file(target, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ipynb").write_text("{}")
    assert cli.main(["check", target]) == 2
    assert capsys.readouterr().err.startswith("microbn check: error: ")


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("1 / 0", 1, "in <module>\n    1 / 0\n"),
        ("def f(:", 1, "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", 3, "stopped with 3 before all of it had been read"),
        ("raise SystemExit", 1, "stopped with None before all of it had been read"),
        ("@backward_of(square)\ndef b(dy, x): pass", 1, "OperandError: backward_of(square, ...)"),
    ],
)
def test_a_file_that_fails(check, text, status, message):
    found, out, err = check(text)
    assert (found, out) == (status, "")
    assert message in err
    assert "marked.py" not in err
    assert "program.py" not in err


# Where it is printed -----------------------------------------------------------------------------


def microbn(folder, *args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "microbn", "check", *args],
        env=ENVIRONMENT | environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_in_a_pipe_it_is_plain_and_colors_are_asked_for(tmp_path):
    (tmp_path / "grads.py").write_text(HEAD + WRONG)
    done = microbn(tmp_path, "grads.py")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    assert "\x1b[1;31mwrong" in microbn(tmp_path, "grads.py", FORCE_COLOR="1").stdout
    assert microbn(tmp_path, "grads.py", FORCE_COLOR="1", NO_COLOR="1").stdout == done.stdout


def test_the_help_shows_how_to_mark(capsys):
    with pytest.raises(SystemExit):
        cli.main(["check", "--help"])
    text = capsys.readouterr().out
    assert "@mb.check.backward_of(" in text
    assert "def backward(dy, x, gamma, beta):" in text
    assert "The exit status is 0 if all are right" in text


def test_a_function_written_with_microbn_may_be_checked(check):
    text = """
@backward_of(square, mb.Tensor(X))
def b(dy, x):
    return mb.Tensor(2 * x * dy)
"""
    assert check(text)[0] == 0


def test_of_many_null_paths_some_are_told_of_and_none_that_other_inputs_open(check):
    spreads = "".join(
        f"    m{i} = x.mean(0)\n    c{i} = x - m{i}\n    v{i} = (c{i} ** 2).mean(0)\n"
        for i in range(5)
    )
    text = f"""
def spread(x):
{spreads}    return v0 + v1 + v2 + v3 + v4

@backward_of(spread, X)
def d_spread(dy, x):
    return 10 * dy * (x - x.mean(0)) / len(x)

@backward_of(lambda x: x * np.maximum(x, 0), -np.abs(X))
def off(dy, x):
    return 0 * dy
"""
    status, out, _ = check(text)
    many, _, off = out.partition("off: ")
    assert status == 0
    assert one_line(many).count("a term for it is not missing") == 3
    assert "2 more paths contribute nothing." in many
    assert "contributes nothing" not in off
