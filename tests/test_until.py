"""Conditions for stopping at a step."""

from types import SimpleNamespace

import numpy as np
import pytest

import microbn as mb
from microbn.graph.parts import Node
from microbn.graph.step.event import Shown, Step
from microbn.graph.step.until import condition

NAMES = ["x", "x_hat", "a: b", "salt and pepper", "d", "x − mu"]


def node(index):
    kind, op, label = ("op", "mul", "×") if index else ("input", None, "")
    return Node(index, kind, op, label, None, (), None, (), "float64")


def walk(names):
    """What a condition asks a walk for: names, and which nodes are leaves (here the first)."""
    graph = SimpleNamespace(nodes=[node(index) for index in range(len(names))])
    names = dict(enumerate(names))

    def made(step):
        return [step.result.value] if step.result else []

    return SimpleNamespace(names=names, graph=graph, made=made)


WALK = walk(NAMES)


def step(*values, index=1, kind="forward", final=False, dtype=float):
    """A step that results in these numbers."""
    rows = ((Shown("in", np.full(3, 1e9)), "=", Shown("out", np.array(values, dtype))),)
    return Step(5, kind, node(index), final=final, rows=rows)


def holds(text, *values, **kwargs):
    return condition(text, WALK)(step(*values, **kwargs))


# Names -------------------------------------------------------------------------------------------


def test_a_name_holds_where_it_is_computed():
    assert holds("x_hat", 1)
    assert not holds("x_hat", 1, index=2)
    assert not holds("x_hat", 1, kind="edge")
    assert not holds("x_hat", 1, kind="edge", final=True)


def test_a_leaf_is_there_from_the_start():
    start = Step(0, "start")
    assert condition("x", WALK)(start)
    assert not condition("x_hat", WALK)(start)


def test_a_gradient_holds_where_it_is_complete():
    assert holds("d x_hat", 1, kind="edge", final=True)
    assert not holds("d x_hat", 1, kind="edge")
    assert not holds("d x_hat", 1, kind="forward")
    assert not holds("d x_hat", 1, kind="edge", final=True, index=0)
    assert holds("d d", 1, kind="sum", final=True, index=4)
    assert holds("d(x − mu)", 1, kind="edge", final=True, index=5)


@pytest.mark.parametrize("text", ["salt and pepper", "a: b", " a: b "])
def test_names_may_look_like_conditions(text):
    index = NAMES.index(text.strip())
    assert holds(text, 1, index=index)
    assert not holds(text, 1, index=0)
    assert holds("a: b: max > 3", 4, index=2)
    assert not holds("a: b: max > 3", 2, index=2)


# Tests -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("isnan", (1, np.nan), True),
        ("isnan", (1, np.inf), False),
        ("isinf", (1, -np.inf), True),
        ("isinf", (1, np.nan), False),
        ("nonfinite", (1, np.nan), True),
        ("nonfinite", (1, np.inf), True),
        ("nonfinite", (1, 2), False),
        ("max > 100", (1, 101), True),
        ("max > 100", (1, 100), False),
        ("max >= 100", (1, 100), True),
        ("max>=1e2", (1, 100), True),
        ("min < 0", (5, -1e-300), True),
        ("min <= 0", (5, 0), True),
        ("min < 0", (5, 0), False),
        ("abs > 1e3", (-1001, 5), True),
        ("abs > 1e3", (999, -5), False),
        ("mean == 2", (1, 3), True),
        ("mean != 2", (1, 3), False),
        ("std == 1", (1, 3), True),
        ("std == 0", (1, 3), False),
        ("max == inf", (1, np.inf), True),
        ("max > 3", (np.nan, 4), True),  # NaN is left out
        ("mean == 4", (np.nan, 4), True),
        ("max < 3", (np.nan,), False),
        ("max < 3", (), False),
    ],
)
def test_tests_look_at_the_result(text, values, expected):
    assert holds(text, *values) is expected


def test_integers_and_booleans_are_numbers():
    assert holds("max > 100", 101, dtype=np.int8)
    assert holds("abs == 128", -128, dtype=np.int8)
    assert holds("mean == 0.5", True, False, dtype=bool)
    assert not holds("isnan", 3, dtype=int)


def test_a_step_that_results_in_nothing_passes_no_test():
    assert not condition("max < 3", WALK)(Step(0, "end"))
    assert not condition("isnan", WALK)(Step(0, "end", rows=(("=",),)))
    assert not holds("isnan", "text", dtype=object)


def test_the_result_is_the_last_table_of_the_last_row():
    rows = ((Shown("a", np.array(1.0)),), (Shown("b", np.array(9.0)), "=", Shown("c", np.array(2))))
    found = condition("max == 2", WALK)(Step(1, "forward", node(1), rows=rows))
    assert found


# Several -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x_hat: max > 3", True),
        ("x_hat: max > 5", False),
        ("x: max > 3", False),
        ("x_hat and max > 3", True),
        ("x_hat and max > 5", False),
        ("x or max > 3", True),
        ("x or max > 5", False),
        ("max > 5 and x_hat or max > 3", True),
        ("max > 3 or max > 5 and x", True),
    ],
)
def test_names_and_tests_together(text, expected):
    assert holds(text, 4) is expected


# What is wrong -----------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_names_closest_first():
    with pytest.raises(ValueError, match=r"nothing is called 'xhat'; the names are: x_hat, "):
        condition("xhat", WALK)
    with pytest.raises(ValueError, match=r"'d xhat'; the names are: x_hat, "):
        condition("d xhat", WALK)


def test_of_many_names_only_some_are_listed():
    many = walk([f"h{k}" for k in range(100)])
    with pytest.raises(ValueError, match=r"h7.*\(92 more\)") as error:
        condition("h77x", many)
    assert str(error.value).index("h77") < 60


@pytest.mark.parametrize("text", ["", "max", "max >", "x_hat: ", "x_hat: y", "and", "max > 3 and"])
def test_bad_text_says_what_is_possible(text):
    with pytest.raises(ValueError, match=r"isnan.*max > 100.*and, or"):
        condition(text, WALK)


def test_a_bound_is_a_number():
    with pytest.raises(ValueError, match="'three' in 'max > three' is no number"):
        condition("max > three", WALK)


def test_nothing_is_evaluated():
    with pytest.raises(ValueError, match="nothing is called"):
        condition("__import__('os').system('true')", WALK)


# A walk ------------------------------------------------------------------------------------------


def test_on_a_real_walk():
    x = mb.Tensor([[7.0, 70], [8, 80], [9, 90]], requires_grad=True, name="x")
    steps = mb.steps((mb.batch_norm(x) ** 3).sum().named("loss"))

    def found(text):
        return [step for step in steps if condition(text, steps)(step)]

    assert [s.kind for s in found("x")] == ["start"]
    assert [s.node.name for s in found("x_hat")] == ["x_hat"]
    (mean,) = found("d mean")
    assert (mean.final, mean.node.name) == (True, "mean")
    assert mean.index > found("d x_hat")[0].index > steps.backward
    assert [s.node.name for s in found("max > 66.5 and max < 67")] == ["var", "var_eps"]
    assert [s.node.name for s in found("squared: max == 100")] == ["squared"]
    assert found("nonfinite") == []


def test_what_is_given_is_tested_at_the_start_each_leaf_of_it():
    w = mb.Tensor([np.nan, 1.0], requires_grad=True, name="w")
    x = mb.Tensor([2.0, 3.0], name="x")
    found = mb.steps(w * x)
    assert condition("nonfinite", found)(found[0])
    assert condition("w: isnan", found)(found[0])
    assert not condition("x: isnan", found)(found[0])
    assert "w is not finite as it is given" in found[0].remark
