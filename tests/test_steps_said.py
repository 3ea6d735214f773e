"""What a walk says: names, formulas, sentences, estimates, and what it remarks on."""

import json
import re

import numpy as np
import pytest

import microbn as mb
from microbn.graph import Graph
from microbn.graph.step.estimate import EACH


def leaf(value, name, **options):
    return mb.Tensor(value, requires_grad=True, name=name, **options)


def formulas(walk, *kinds):
    return [step.formula for step in walk if not kinds or step.kind in kinds]


# Names -------------------------------------------------------------------------------------------


def test_a_name_that_several_values_have_is_counted():
    h = mb.Tensor(0.5, requires_grad=True)
    with mb.tracing() as trace:
        for _ in range(3):
            h = np.tanh(h * 2)
    walk = mb.steps(trace)
    assert formulas(walk, "forward") == [
        "h₁ × 2",
        "h₂ = tanh(h₁ × 2)",
        "h₂ × 2",
        "h₃ = tanh(h₂ × 2)",
        "h₃ × 2",
        "h₄ = tanh(h₃ × 2)",
    ]
    assert len(set(walk.names.values())) == len(walk.names)


def test_a_counted_name_is_nobody_elses():
    a, b, c = (leaf(float(k), name) for k, name in enumerate(("h", "h", "h₁")))
    names = [name for name in mb.steps(a * b + c).names.values() if " " not in name]
    assert sorted(names) == ["h₁", "h₂", "h₃"]  # h₁ is taken


def test_a_formula_is_the_name_of_one_value():
    x = leaf(2.0, "x")
    names = [*mb.steps((x + 1) * (x + 1)).names.values()]
    assert names == ["x", "x + 1", "add#2", "(x + 1) × add#2"]


def test_what_has_no_name_goes_by_its_formula_or_else_by_its_op_and_index():
    x, y = leaf(2.0, "x"), leaf(3.0, "a_name_that_is_rather_long")
    walk = mb.steps((x - 1) ** 2 * y + x * y)
    assert list(walk.names.values()) == [
        "x",
        "x − 1",
        "(x − 1)²",
        "a_name_that_is_rather_long",
        "mul#4",
        "mul#5",
        "mul#4 + mul#5",
    ]
    assert "d(x − 1) = d((x − 1)²) × (x − 1) × 2" in formulas(walk)


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (lambda x, y: x - (y - 1), "x − (y − 1)"),
        (lambda x, y: x + (y + 1), "x + y + 1"),
        (lambda x, y: x / (y * 2), "x ÷ (y × 2)"),
        (lambda x, y: x * 2 / y, "x × 2 ÷ y"),
        (lambda x, y: -(x + y), "−(x + y)"),
        (lambda x, y: (-x) ** 2, "(−x)²"),
        (lambda x, y: -(x**2), "−x²"),
        (lambda x, y: np.sqrt(x) ** -1, "(√x)⁻¹"),
        (lambda x, y: np.sqrt(x * y), "√(x × y)"),
        (lambda x, y: x * -2.5, "x × (−2.5)"),
        (lambda x, y: 2**x, "2 ** x"),
        (lambda x, y: abs(x - y), "|x − y|"),
        (lambda x, y: np.maximum(x, y), "max(x, y)"),
        (lambda x, y: np.exp(-x) ** 0.5, "exp(−x) ** 0.5"),
    ],
)
def test_formulas_have_the_parentheses_that_they_need_and_no_others(formula, text):
    walk = mb.steps(formula(leaf(2.0, "x"), leaf(3.0, "y")))
    assert formulas(walk, "forward")[-1] == text


# LaTeX -------------------------------------------------------------------------------------------


def test_the_latex_of_batch_norm_is_as_in_a_book():
    x, gamma, beta = leaf([[1.0], [2.0]], "x"), leaf([2.0], "gamma"), leaf([0.0], "beta")
    walk = mb.steps(mb.batch_norm(x, gamma, beta), grad_output=np.array([[1.0], [3.0]]))
    latex = [step.latex for step in walk]
    assert latex[1] == r"\mathrm{mean} = \operatorname{mean}_{\text{axis 0}} x"
    assert latex[5] == r"\mathrm{var\_eps} = \mathrm{var} + 10^{-5}"
    assert latex[6] == r"\mathrm{std} = \sqrt{\mathrm{var\_eps}}"
    assert latex[7] == r"\mathrm{inv\_std} = {\mathrm{std}}^{-1}"
    assert latex[8] == r"\hat{x} = \mathrm{centered} \cdot \mathrm{inv\_std}"
    assert latex[10] == r"y = \mathrm{scaled} + \beta"
    back = next(step for step in walk if step.formula == "d x_hat = d scaled × gamma")
    scaled = r"\frac{\partial L}{\partial \mathrm{scaled}}"
    assert back.latex == rf"\frac{{\partial L}}{{\partial \hat{{x}}}} = {scaled} \cdot \gamma"


def test_latex_is_balanced_whatever_the_names():
    x = leaf([[1.0, 2.0]], r"a{b}_c\d$ %&#~^")
    for step in mb.steps((x[0, 1:] ** 2).sum() / x.sum()):
        bare = re.sub(r"\\[{}]", "", step.latex)
        assert bare.count("{") == bare.count("}")
        assert len(re.findall(r"\\left\b", bare)) == len(re.findall(r"\\right\b", bare))


# Sentences ---------------------------------------------------------------------------------------


def test_broadcasting_is_said_forward_and_its_sum_backward():
    x, b = leaf(np.ones((3, 2)), "x"), leaf([1.0, 2.0], "b")
    walk = mb.steps((x + b).named("y").sum())
    assert walk[1].remark == "b (2) is repeated along axis 0 to the shape 3×2."
    total = next(step for step in walk if step.kind == "sum")
    assert total.sentence.startswith("b was repeated along axis 0")
    assert [t if isinstance(t, str) else t.caption for t in total.rows[0]] == [
        "contribution",
        "→",
        "d b",
    ]


def test_several_uses_are_counted_as_they_arrive():
    x = leaf(3.0, "x")
    walk = mb.steps(x * x + x)
    said = [step.sentence for step in walk if step.node and step.node.name == "x"]
    assert "the first of 3 contributions to d x: x is used 3 times" in said[0]
    assert "as the second of 3 contributions; 1 to come" in said[1]
    assert "as the third of 3 contributions; with it d x is complete" in said[2]
    assert [step.final for step in walk if step.node and step.node.name == "x"][-1]


def test_a_float32_contribution_is_cast():
    x = mb.Tensor(np.float32([1.0, 2.0]), requires_grad=True, name="x")
    y = leaf([3.0, 4.0], "y")
    walk = mb.steps((x * y).sum())
    cast = next(step for step in walk if step.kind == "sum")
    assert cast.sentence.startswith("A gradient has the dtype of what it is of: float32.")
    assert cast.result.value.dtype == np.float32


def test_an_op_that_nobody_knows_is_applied():
    cube = mb.ops.Op("cube", lambda x: x * x * x, lambda g, out, x: g * 3 * x * x)
    walk = mb.steps(cube(leaf(2.0, "x")))
    assert walk[1].sentence == "Apply cube to x."
    assert walk[3].sentence.startswith("Back through cube to x. The rule of cube gives")
    assert walk[3].formula == "d x = d(cube(x)) × 3 × x × x"
    assert walk[3].remark == ""  # an op without a NumPy function cannot be computed again


# Finite differences ------------------------------------------------------------------------------


def distance(remark):
    return float(re.search(r"at most (\S+) away", remark)[1])


def test_finite_differences_stand_beside_the_gradient_of_a_leaf():
    x = leaf([0.3, 0.7], "x")
    walk = mb.steps(np.sum(np.sin(x) * x))
    done = next(step for step in walk if step.final and step.node.name == "x" and step.via)
    assert distance(done.remark) < 1e-9
    gradient, _, differences = walk[-1].rows[0]
    expected = np.cos(x.data) * x.data + np.sin(x.data)
    np.testing.assert_allclose(gradient.value, expected, rtol=1e-15)
    np.testing.assert_allclose(differences.value, expected, rtol=1e-8)


def test_a_wrong_rule_is_seen_in_them():
    wrong = mb.ops.Op("arctan", np.arctan, lambda g, out, x: g * 0.5 / (1 + x * x))
    try:
        walk = mb.steps(wrong(leaf(1.0, "x")))
        assert distance(walk[-1].remark) == pytest.approx(0.25, rel=1e-3)
    finally:
        del mb.ops.NUMPY[np.arctan]


def test_of_a_large_leaf_they_are_taken_along_a_direction():
    x = leaf(np.linspace(0, 1, EACH + 1), "x")
    walk = mb.steps((x**3).sum())
    slope, claimed = (float(n) for n in re.findall(r"-?\d+\.\d+", walk[-2].remark))
    assert slope == pytest.approx(claimed, rel=1e-5)
    assert len(walk[-1].rows[0]) == 1


def test_in_float32_they_are_taken_in_float64():
    x = mb.Tensor(np.float32([0.1, 0.2]), requires_grad=True, name="x")
    walk = mb.steps(np.exp(x).sum())
    differences = walk[-1].rows[0][2].value
    np.testing.assert_allclose(differences, np.exp(np.float64(x.data)), rtol=1e-9)


# What it remarks on ------------------------------------------------------------------------------


def test_the_first_number_that_is_not_finite_is_found():
    p = leaf([0.5, 0.0], "p")
    with np.errstate(all="ignore"):
        loss = (p * np.log(p)).sum()
    walk = mb.steps(loss)
    assert walk.strange().formula == "log(p)"
    assert mb.steps(leaf(1.0, "x") * 2).strange() is None
    assert mb.steps(leaf(np.inf, "x") * 2).strange().kind == "start"


def test_a_gradient_alone_may_be_what_is_not_finite():
    x = leaf(0.0, "x")
    walk = mb.steps(np.sqrt(x))
    assert (walk.strange().kind, walk.strange().node.name) == ("edge", "x")


def test_without_a_gradient_or_with_several_results_there_is_no_way_back():
    trace = mb.trace(lambda x: (x * 2, x * 3), np.ones(2))
    walk = mb.steps(trace)
    assert walk.backward is None
    assert "There are 2 results" in walk.remarks[0]
    assert {step.kind for step in walk} == {"start", "forward"}
    still = mb.trace(lambda: mb.Tensor(2.0) * 3)
    assert "requires grad" in mb.steps(still).remarks[-1]


def test_a_random_gradient_to_start_from_is_told():
    walk = mb.steps(leaf([1.0, 2.0], "x") * 3)
    assert "random numbers" in walk.remarks[0]
    given = mb.steps(leaf([1.0, 2.0], "x") * 3, grad_output=[1.0, 0.0])
    assert given.remarks == ()
    assert given[given.backward].result.value.tolist() == [1.0, 0.0]


def test_a_graph_can_be_walked_through_also_one_from_json():
    x = leaf([1.0, 2.0], "x")
    graph = Graph.from_outputs((x * x).sum().named("loss"), backward=True)
    again = Graph.from_dict(json.loads(json.dumps(graph.to_dict())))
    assert formulas(mb.steps(again)) == formulas(mb.steps(graph))
    assert mb.steps(Graph.from_outputs(x * x)).backward is None
    with pytest.raises(TypeError, match="has its backward pass already"):
        mb.steps(graph, grad_output=1.0)


def test_looking_is_no_part_of_the_program():
    with mb.tracing() as trace:
        x = mb.Tensor([1.0, 2.0], requires_grad=True)
        y = (x * x).sum()
        mb.steps(y).html()
        mb.check.gradcheck(lambda x: x * x, x)
        mb.draw(y, backward=True)
    assert trace.output is y


# What readers have stumbled over ------------------------------------------------------------------


def test_a_gradient_that_is_summed_and_cast_is_told_to_be_both():
    b = mb.Tensor(np.ones(1, np.float32), requires_grad=True, name="b")
    walk = mb.steps((leaf(np.ones((3, 1)), "x") * b).sum())
    total = next(step for step in walk if step.kind == "sum")
    assert total.formula == "d b = sum(d(x × b) × x, axis 0)"
    assert "b was repeated along axis 0" in total.sentence
    assert "A gradient has the dtype of what it is of: float32." in total.sentence
    assert total.result.how.entry((0,)) == "1 + 1 + 1"
    assert total.result.value.dtype == np.float32


@pytest.mark.parametrize(
    ("formula", "text", "latex"),
    [
        (lambda a, b, c: a * (b @ c), "a × (b @ c)", r"a \cdot \left(b c\right)"),
        (lambda a, b, c: (a * b) @ c, "(a × b) @ c", r"\left(a \cdot b\right) c"),
        (lambda a, b, c: a @ b @ c, "a @ b @ c", "a b c"),
        (lambda a, b, c: a @ (b @ c), "a @ (b @ c)", r"a \left(b c\right)"),
        (lambda a, b, c: a @ b + c, "a @ b + c", "a b + c"),
        (lambda a, b, c: -(a @ b), "−(a @ b)", None),
        (lambda a, b, c: a.sum(axis=1) * b, "sum(a, axis 1) × b", None),
        (lambda a, b, c: a.sum(axis=1, keepdims=True), "sum(a, axis 1, keepdims)", None),
    ],
)
def test_products_of_matrices_are_kept_apart_from_others(formula, text, latex):
    names = "abc"
    last = mb.steps(formula(*(leaf(np.eye(2) + k, n) for k, n in enumerate(names))))
    step = [step for step in last if step.kind == "forward"][-1]
    assert step.formula == text
    assert latex in (None, step.latex)


def test_the_rules_of_products_with_vectors_are_those_of_books():
    X, w, v = leaf(np.ones((3, 2)), "X"), leaf([1.0, 2.0], "w"), leaf([1.0, 2.0, 3.0], "v")
    back = formulas(mb.steps((X @ w).sum()), "edge")
    assert back[1:] == ["d X = outer(d(X @ w), w)", "d w = Xᵀ @ d(X @ w)"]
    back = formulas(mb.steps((v @ X).sum()), "edge")
    assert back[1:] == ["d v = d(v @ X) @ Xᵀ", "d X = outer(v, d(v @ X))"]
    back = formulas(mb.steps(w @ (w * 2)), "edge")
    assert back[:2] == ["d w = d(w @ (w × 2)) × w × 2", "d(w × 2) = d(w @ (w × 2)) × w"]


def test_masks_are_called_by_what_they_say():
    a, b = leaf([1.0, 2.0], "a"), leaf([3.0, 0.0], "b")
    back = formulas(mb.steps(np.maximum(a, b).sum()), "edge")
    assert back[1:] == [
        "d a = d(max(a, b)) × (a = max(a, b))",
        "d b = d(max(a, b)) × (b = max(a, b))",
    ]
    assert (
        formulas(mb.steps(mb.functional.relu(a).sum()), "edge")[1] == "d a = d(relu(a)) × (a > 0)"
    )
    assert formulas(mb.steps(abs(a).sum()), "edge")[1] == "d a = d(|a|) × sign(a)"
    a, c = leaf([1.0, 2.0, 9.0], "a"), leaf([1.0, 5.0, 0.0], "c")
    tied = formulas(mb.steps(np.maximum(a, c).sum()), "edge")
    assert tied[1].startswith("d a = where(a = c, 0.5 × d(max(a, c)), d(max(a, c)) × (a = max(")


def test_why_a_sum_of_contributions_names_the_tables_that_are_shown():
    x = leaf(3.0, "x")
    walk = mb.steps(x * x * x)
    total = [step for step in walk if step.node and step.node.name == "x"][-1].result.how
    assert [operand.name for operand in total.operands] == ["d x so far", "contribution"]


def test_empty_arrays_are_walked_through():
    x = leaf(np.zeros((0, 3)), "x")
    walk = mb.steps((x * 2).sum())
    assert walk[-1].kind == "end"
    assert walk.html()


def test_negative_numbers_stand_alone_without_parentheses():
    x = leaf([-3.0], "x")
    assert mb.steps(np.exp(x))[1].result.how.entry((0,)) == "exp(−3)"
    assert mb.steps(x**2)[1].result.how.entry((0,)) == "(−3)²"
    assert mb.steps(x[0] * 1)[1].result.how.entry() == "−3"


def test_a_parameter_is_drawn_in_the_module_that_uses_it():
    class Net(mb.nn.Module):
        def __init__(self):
            self.fc = mb.nn.Linear(2, 1, rng=0)

        def forward(self, x):
            return self.fc(x)

    with mb.tracing() as trace:
        y = Net()(np.ones((3, 2), np.float32)).sum()
    assert trace.output is y
    scopes = {node.name: node.scope for node in trace.graph.nodes if node.kind == "parameter"}
    assert {name.rpartition(".")[2] for name in scopes} == {"weight", "bias"}
    assert all(scope[-1:] == ("fc",) for scope in scopes.values())
