"""Diagnosis of wrong gradients: every single fault of batch norm, real faults, and right passes.

What is expected of each fault was written down from what it does to the true gradient (faults.py,
and the table below), and is compared path by path, in numbers.
"""

import re

import handmade
import numpy as np
import pytest
from faults import EQUIVALENT, FAULTS
from numpy.testing import assert_allclose

import microbn as mb
from microbn import engine, functional, kernels
from microbn.check.diagnose import diagnose, recorded
from microbn.check.faults import faults
from microbn.check.match import assert_gradients_match
from microbn.check.reference import Reference
from microbn.check.terms import Terms
from microbn.errors import OperandError, ShapeError
from microbn.graph.paths import Pass, title

NAMES = ("x", "gamma", "beta")


def batch(m, d, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    gamma = rng.uniform(0.5, 2, d) * rng.choice([-1, 1], d)
    arrays = rng.normal(size=(m, d)), gamma, rng.normal(size=d), rng.normal(size=(m, d))
    return tuple(a.astype(dtype) for a in arrays)


def normalise(x, gamma, beta):
    return mb.batch_norm(x, gamma, beta)


# Every single fault of batch norm ----------------------------------------------------------------

# What an edge's gradient of x, gamma or beta is made of: paths that a factor there multiplies.
REACHES = {
    "y → scaled": "everything",
    "y → beta": "everything",
    "scaled → x_hat": "everything",
    "scaled → gamma": "everything",
    "x_hat → centered": "direct and mean",
    "x_hat → inv_std": "var",
    "inv_std → std": "var",
    "std → var_eps": "var",
    "var_eps → var": "var",
    "var → squared": "var",
    "squared → centered": "var",
    "centered → x": "direct and var",
    "centered → mean": "mean",
    "mean → x": "mean",
}
FACTORS = {
    "forgotten": "0",
    "with the wrong sign": "-1",
    "counted twice": "2",
    "halved": "1/2",
    "the 1/m of the mean lost": "m",
    "divided by m - 1": "m/(m-1)",
    "times (m - 1) / m": "(m-1)/m",
    "divided by m twice": "1/m",
    "a mean in place of the sum": "1/m",
    "summed up m times": "m",
}
# A wrong operand multiplies what flows by a known value, or it does not just multiply: then the
# explanation must say what was taken for what.
OPERANDS = {
    "scaled → x_hat: gamma left out": "1/gamma",
    "scaled → gamma: centered in place of x_hat": "std",
    "x_hat → centered: std in place of inv_std": "var_eps",
    "x_hat → centered: inv_std left out": "std",
    "x_hat → inv_std: x_hat in place of centered": "1/std",
    "inv_std → std: inv_std in place of std": "var_eps**2",
    "inv_std → std: var_eps in place of std": "1/var_eps",
    "std → var_eps: var_eps in place of std": "1/std",
}
NO_FACTOR = {
    "scaled → gamma: scaled in place of x_hat": "operand: scaled in place of x_hat",
    "scaled → gamma: x_hat left out": "gamma × 1/x_hat",
    "x_hat → inv_std: x in place of centered": "operand: x in place of centered",
    "x_hat → inv_std: centered left out": "inv_std × 1/centered",
    "squared → centered: squared in place of centered": "operand: squared in place of centered",
}
RIGHT_ALL_THE_SAME = "squared → centered: x in place of centered"  # a multiple of 1 more: see null


def expected(fault):
    """What the first explanation is to say of a fault."""
    edge = f"{title(fault.link.consumer)} → {title(fault.link.input)}"
    if str(fault) in NO_FACTOR:
        return NO_FACTOR[str(fault)]
    factor = OPERANDS.get(str(fault)) or FACTORS[fault.text]
    return " and ".join(f"{label} × {factor}" for label in REACHES[edge].split(" and "))


def gradients_of_mutants(m, d, dtype=np.float64):
    """Yield every single fault, the inputs, and the gradients that it gives."""
    *inputs, dy = batch(m, d, dtype)
    output, leaves = recorded(normalise, inputs)
    for fault in faults(*Pass(output, dy).flows):

        def pullback(tensor, g, fault=fault):
            for position, x, before, after in engine.pullback(tensor, g):
                if tensor is fault.link.consumer and position == fault.link.position:
                    flow = fault.rule(g, tensor.data, *tensor.values, **tensor.params)
                    after = kernels.sum_to(np.asarray(flow), shape=x.shape).astype(x.dtype)
                yield position, x, before, after

        found = dict(engine.backprop(output, dy, pullback=pullback))
        yield fault, inputs, dy, [np.asarray(found[leaf]) for leaf in leaves]


def wrong_one(fault):
    """Which of x, gamma and beta an edge leads to, of those that are wrong."""
    edge = f"{title(fault.link.consumer)} → {title(fault.link.input)}"
    return {"y → beta": 2, "scaled → gamma": 1}.get(edge, 0)


@pytest.mark.parametrize(("m", "d", "dtype"), [(8, 3, "f8"), (32, 64, "f8"), (8, 3, "f4")])
def test_every_single_fault_is_diagnosed(m, d, dtype):
    count = 0
    for fault, inputs, dy, gradients in gradients_of_mutants(m, d, np.dtype(dtype)):
        count += 1
        k = wrong_one(fault)
        found = diagnose(normalise, inputs, gradients[k], wrt=k, grad_output=dy)
        if str(fault) == RIGHT_ALL_THE_SAME:
            assert found.ok
            continue
        assert not found.ok, fault
        effect = found.explanations[0].effect
        if dtype == "f4":  # in which an eps of 1e-5 is not felt
            assert effect in (expected(fault), expected(fault).replace("var_eps", "var")), fault
        else:
            assert effect == expected(fault), fault
        assert np.abs(found.residual).max() <= 1e-4 * np.abs(gradients[k]).max() + 1e-6
    assert count == 86


def test_what_a_fault_leaves_alone_is_not_accused():
    for fault, inputs, dy, gradients in gradients_of_mutants(8, 3):
        edge = f"{title(fault.link.consumer)} → {title(fault.link.input)}"
        for k in {1, 2} - {wrong_one(fault)} if edge != "y → scaled" else {2}:
            assert diagnose(normalise, inputs, gradients[k], wrt=k, grad_output=dy).ok, fault


def test_paths_have_coefficients():
    *inputs, dy = batch(8, 3)
    for fault, inputs, dy, gradients in gradients_of_mutants(8, 3):
        if str(fault) == "std → var_eps: halved":
            found = diagnose(normalise, inputs, gradients[0], grad_output=dy)
    by_label = {path.label: path for path in found.paths}
    assert [*by_label] == ["direct", "mean", "var"]
    assert {label: path.meaning for label, path in by_label.items()} == {
        "direct": "1",
        "mean": "1",
        "var": "1/2",
    }
    assert_allclose(by_label["var"].found, 0.5)
    assert by_label["mean"].name == "y → scaled → x_hat → centered → mean → x"
    assert all(path.expected == 1 for path in found.paths)
    assert str(found).splitlines()[1].startswith("The path through var counts half.")
    assert "the 2 of d(centered**2) lost" in str(found).replace("\n", " ")


# Real faults -------------------------------------------------------------------------------------

# What one gradient alone does not show.
CALLS = {"not linear in dy": "not linear in dy", "accumulates": "it returns the sum of both"}
OTHER_WORDS = {  # the same effect in other words
    "var × std**2": "var × var_eps",
    "everything × std**2": "everything × var_eps",
    "rms × 0": "mean_square × 0",
    "operand: dx.T in place of dx": "operand: d x.T in place of d x",
    "eps: (var + eps)**2 in place of (var + eps)**0.5": (
        "eps: (var + eps)**2 in place of sqrt(var + eps)"
    ),
    "eps: rms + eps in place of (mean_square + eps)**0.5": (
        "eps: sqrt(mean_square) + eps in place of sqrt(mean_square + eps)"
    ),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
@pytest.mark.parametrize("seed", range(3))
def test_real_faults(fault, seed):
    rng = np.random.default_rng(seed)
    dtype = np.float32 if fault.effect == "dtype" else np.float64
    inputs = fault.inputs(rng, dtype)
    dy = rng.standard_normal(np.shape(fault.composed(*inputs))).astype(dtype)
    gradients = fault.fresh()(dy, *inputs)
    found = diagnose(fault.composed, inputs, gradients[fault.wrt], wrt=fault.wrt, grad_output=dy)
    assert found.ok == (fault.effect == "accumulates")  # that shows in the second call
    if fault.effect in CALLS:
        with pytest.raises(AssertionError, match=CALLS[fault.effect]):
            assert_gradients_match(fault.composed, fault.fresh(), *inputs)
    elif fault.effect != "accumulates":
        assert found.explanations[0].effect == OTHER_WORDS.get(fault.effect, fault.effect)
    with pytest.raises(AssertionError, match="is wrong"):
        assert_gradients_match(fault.composed, fault.fresh(), *inputs)


# Right ones --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("right", handmade.RIGHT + EQUIVALENT, ids=lambda r: r.name)
def test_no_right_pass_is_accused(right, dtype):
    """A sixth of the 1,000 cases for each dtype; `python tests/test_diagnose.py` runs them all."""
    for seed in range(10):
        assert_right(right, dtype, seed)


def assert_right(right, dtype, seed):
    rng = np.random.default_rng(seed)
    options = [{}, {"scale": 10.0 ** rng.integers(-3, 4)}, {"offset": rng.choice([1, 30, 1000.0])}]
    inputs = right.inputs(rng, np.dtype(dtype), **options[seed % 3])
    assert_gradients_match(right.composed, right.backward, *inputs, seed=seed)


@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e-6), (np.float32, 1e-3)])
def test_small_faults_are_caught(dtype, size):
    for right in handmade.RIGHT:
        for seed in range(3):
            rng = np.random.default_rng(seed)
            inputs = right.inputs(rng, np.dtype(dtype))

            def backward(dy, *inputs, right=right):
                gradients = right.backward(dy, *inputs)
                return tuple((g * (1 + size)).astype(g.dtype) for g in gradients)

            with pytest.raises(AssertionError, match="The whole gradient is"):
                assert_gradients_match(right.composed, backward, *inputs)


@pytest.mark.parametrize(("m", "d"), [(8, 3), (32, 64)])
@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e-6), (np.float32, 1e-3)])
def test_small_faults_of_single_edges_are_caught(m, d, dtype, size):
    *inputs, dy = batch(m, d, dtype)
    output, leaves = recorded(normalise, inputs)
    links = [*Pass(output, dy).flows]
    assert len(links) == 14
    for link in links:

        def pullback(tensor, g, link=link):
            for position, x, before, after in engine.pullback(tensor, g):
                if tensor is link.consumer and position == link.position:
                    after = (after * (1 + size)).astype(x.dtype)
                yield position, x, before, after

        found = dict(engine.backprop(output, dy, pullback=pullback))
        wrong = [
            not diagnose(normalise, inputs, np.asarray(found[leaf]), wrt=k, grad_output=dy).ok
            for k, leaf in enumerate(leaves)
        ]
        assert any(wrong), link


def test_the_tolerance_is_what_rounding_needs():
    *inputs, dy = batch(32, 64)
    output, leaves = recorded(normalise, inputs)
    reference = Reference(output, dy)
    hand = mb.handwritten.backward_closed(dy, mb.handwritten.forward(*inputs, 1e-5)[1])
    for leaf, g in zip(leaves, hand, strict=True):
        ratio = np.abs(g - reference.gradients[leaf]) / reference.tolerances[leaf]
        assert ratio.max() < 0.2
        relative = reference.tolerances[leaf] / np.abs(reference.gradients[leaf])
        assert np.median(relative) < 1e-12


# What cannot be told -----------------------------------------------------------------------------


def test_small_batches_say_that_paths_cannot_be_told_apart():
    *inputs, dy = batch(2, 3)
    wrong = np.random.default_rng(1).normal(size=(2, 3))
    found = diagnose(normalise, inputs, wrong, grad_output=dy)
    assert "give a larger batch" in str(found) or not found.explanations
    output, leaves = recorded(normalise, inputs)
    terms = Terms(Reference(output, dy), leaves[0])
    assert [t.label for t in terms.paths] == ["direct", "mean", "var"]


def test_what_nothing_explains_is_located():
    *inputs, dy = batch(8, 3)
    dx = mb.handwritten.backward_closed(dy, mb.handwritten.forward(*inputs, 1e-5)[1])[0]
    dx[3, 1] += 1
    found = diagnose(normalise, inputs, dx, grad_output=dy)
    assert not found.ok
    assert not found.explanations
    assert np.argwhere(np.abs(found.residual) > 0.5).tolist() == [[3, 1]]
    text = " ".join(str(found).split())
    assert re.search(r"1 of 24 entries .*axis 0 only at 3; along axis 1 only at 1", text)


def test_a_gradient_that_is_nothing_but_rounding_proves_nothing():
    x, gamma, beta, _ = batch(8, 3)
    found = diagnose(normalise, (x, gamma, beta), np.zeros((8, 3)), grad_output=np.ones((8, 3)))
    assert found.ok
    assert "nothing but rounding" in str(found)


def test_what_is_not_finite():
    *inputs, dy = batch(8, 3)
    found = diagnose(normalise, inputs, np.full((8, 3), np.nan), grad_output=dy)
    assert not found
    assert "24 of 24 entries are not finite" in str(found)


def test_wrong_arguments():
    *inputs, dy = batch(8, 3)
    with pytest.raises(ShapeError, match="is not a single number: give the grad_output"):
        diagnose(normalise, inputs, dy)
    with pytest.raises(ShapeError, match=r"wrt='z': the inputs .* are x, gamma, beta"):
        diagnose(normalise, inputs, dy, wrt="z", grad_output=dy)
    with pytest.raises(ShapeError, match="wrt=3: there are 3 inputs"):
        diagnose(normalise, inputs, dy, wrt=3, grad_output=dy)
    with pytest.raises(ShapeError):
        diagnose(normalise, inputs, dy, grad_output=dy[:3])
    with pytest.raises(OperandError, match="nothing to differentiate by"):
        diagnose(lambda k: k, [3], dy)
    assert diagnose(normalise, inputs, dy.sum(0), wrt="beta", grad_output=dy).ok


# What newcomers wrote ----------------------------------------------------------------------------

X = np.random.default_rng(7).normal(size=(6, 3))


def sigmoid(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: np.maximum(x, 0),
        lambda x: np.maximum(x, 0.1 * x),
        lambda x: np.minimum(x, 1.0),
        lambda x: x.max(axis=0),
        lambda x: x.min(axis=1),
        lambda x: abs(x),
        functional.relu,
        lambda x: functional.relu(x @ np.ones((3, 2))),
    ],
)
def test_a_choice_has_a_gradient_that_can_be_wrong(fn):
    with pytest.raises(AssertionError, match="The whole gradient is missing"):
        assert_gradients_match(fn, lambda dy, x: (0 * x,), X)


@pytest.mark.parametrize("compare", [np.greater, np.greater_equal])
@pytest.mark.parametrize("fn", [functional.relu, lambda x: np.maximum(x, 0)])
def test_where_two_tie_either_may_win(fn, compare):
    def backward(dy, x):
        return (dy * compare(x, 0),)

    assert_gradients_match(fn, backward, np.array([0.0, 1.0, -1.0, 0.0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 2, 5, 10, 40])
def test_a_formula_of_the_result_is_right_where_it_saturates(dtype, scale):
    def backward(dy, x):
        return (dy * sigmoid(x) * (1 - sigmoid(x)),)

    for seed in range(5):
        x = (scale * np.random.default_rng(seed).normal(size=(32, 16))).astype(dtype)
        assert_gradients_match(functional.sigmoid, backward, x)
        if scale < 40:
            assert_gradients_match(lambda x: 1 / (1 + np.exp(-x)), backward, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy(dtype):
    def loss(x, w):
        return -np.log(functional.sigmoid(x @ w)).mean()

    def backward(dy, x, w):
        dz = dy * (sigmoid(x @ w) - 1) / np.asarray(len(x), x.dtype)
        return np.outer(dz, w), x.T @ dz

    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, w = rng.normal(size=(20, 3)).astype(dtype), (3 * rng.normal(size=3)).astype(dtype)
        assert_gradients_match(loss, backward, x, w)


@pytest.mark.parametrize(
    ("fn", "backward", "cause"),
    [
        (np.tanh, lambda dy, x: dy, "1 in place of the derivative of tanh"),
        (np.tanh, lambda dy, x: dy * (1 - np.tanh(x)), "1 - tanh in place of the derivative"),
        (np.exp, lambda dy, x: dy, "1 in place of the derivative of exp"),
        (functional.relu, lambda dy, x: dy, "1 in place of the derivative of relu"),
        (functional.relu, lambda dy, x: dy * (x < 0), "< 0) in place of the derivative of relu"),
        (lambda x: (x @ x.T) / np.sqrt(5.0), lambda dy, x: (dy + dy.T) @ x, "÷ 2.236 left out"),
        (lambda x: x.mean(0), lambda dy, x: dy + 0 * x, "the 1/m of mean lost"),
    ],
)
def test_first_mistakes(fn, backward, cause):
    with pytest.raises(AssertionError) as error:
        assert_gradients_match(fn, lambda dy, x: (backward(dy, x),), X)
    assert cause in " ".join(str(error.value).split())


def test_a_factor_that_is_taken_twice():
    *inputs, dy = batch(8, 3)
    right = mb.handwritten.backward_closed(dy, mb.handwritten.forward(*inputs, 1e-5)[1])[0]
    found = diagnose(normalise, inputs, right * inputs[1], grad_output=dy)
    assert found.explanations[0].effect == "everything × gamma"
    assert found.explanations[0].causes == ("gamma taken twice",)


def test_another_dtype_does_not_hide_wrong_values():
    inputs = [a.astype(np.float32) for a in batch(8, 3)[:3]]
    for factor, cause in ((1, "promoted to"), (2, "is twice what it should be")):

        def backward(dy, *inputs, factor=factor):
            cache = mb.handwritten.forward(*inputs, 1e-5)[1]
            dx, *rest = mb.handwritten.backward_closed(dy, cache)
            return factor * dx.astype(np.float64), *rest

        with pytest.raises(AssertionError, match="it is float64, and x is float32") as error:
            assert_gradients_match(normalise, backward, *inputs)
        assert cause in str(error.value).replace("\n", " ")


def test_what_nothing_depends_on_needs_no_gradient():
    assert_gradients_match(lambda x, y: x * 2, lambda dy, x, y: (2 * dy, None), X, X)
    assert_gradients_match(lambda x, y: x * 2, lambda dy, x, y: (2 * dy, 0 * y), X, X)
    with pytest.raises(AssertionError, match="d y is wrong: nothing depends on y: it is 0"):
        assert_gradients_match(lambda x, y: x * 2, lambda dy, x, y: (2 * dy, dy), X, X)


def test_gradients_in_the_wrong_order():
    def backward(dy, x, gamma, beta):
        cache = mb.handwritten.forward(x, gamma, beta, 1e-5)[1]
        dx, dgamma, dbeta = mb.handwritten.backward_closed(dy, cache)
        return dx, dbeta, dgamma

    *inputs, _ = batch(8, 3)
    with pytest.raises(AssertionError) as error:
        assert_gradients_match(normalise, backward, *inputs)
    assert str(error.value) == (
        "backward is wrong.\n\nd gamma and d beta came back in each other's place."
    )


def test_a_formula_that_loses_digits_is_not_said_to_be_a_fault():
    def one_pass(dy, x):
        mean = x.mean(0)
        std = np.sqrt((x * x).mean(0) - mean * mean + 1e-5)
        x_hat = (x - mean) / std
        return ((dy - dy.mean(0) - x_hat * (dy * x_hat).mean(0)) / std,)

    x = np.random.default_rng(0).normal(size=(64, 5)) + 10
    with pytest.raises(AssertionError, match=r"loses digits here") as error:
        assert_gradients_match(lambda x: mb.batch_norm(x), one_pass, x)
    assert "cause" not in str(error.value)


def test_a_loss_is_linear_in_dy_as_well():
    for wrong in (lambda dy, x: (2 * x / 18,), lambda dy, x: (dy**2 * 2 * x / 18,)):
        with pytest.raises(AssertionError, match="not linear in dy"):
            assert_gradients_match(lambda x: (x**2).mean(), wrong, X)


def test_what_is_not_finite_by_itself_cannot_be_checked():
    x = np.array([1.0, np.nan])
    with pytest.raises(RuntimeError, match=r"true gradient is not finite at \[1\]"):
        assert_gradients_match(np.tanh, lambda dy, x: (dy * (1 - np.tanh(x) ** 2),), x)


def test_more_paths_than_can_be_told_apart():
    def five(x):
        for _ in range(5):
            x = np.tanh(mb.batch_norm(x))
        return x

    x, dy = np.random.default_rng(1).normal(size=(2, 8, 3))
    right = mb.grad(five(t := mb.Tensor(x, requires_grad=True)), t, dy).data
    found = diagnose(five, [x], right + x, grad_output=dy)
    assert "more than 24 paths" in str(found)
    assert not found.explanations
    assert diagnose(five, [x], -right, grad_output=dy).explanations[0].effect == "everything × -1"


# In a test ---------------------------------------------------------------------------------------


def test_what_the_engineer_reads():
    def backward(dy, x, gamma, beta):
        _, cache = mb.handwritten.forward(x, gamma, beta, 1e-5)
        dx, dgamma, dbeta = mb.handwritten.backward_staged(dy, cache)
        return dx + 0.1 * dx, dgamma[None], dbeta

    *inputs, _ = batch(8, 3)
    with pytest.raises(AssertionError) as error:
        assert_gradients_match(normalise, backward, *inputs)
    text = str(error.value)
    assert text.startswith("backward is wrong.\n\nd x is wrong: at [")
    assert "The whole gradient is 1.1 times what it should be." in text
    assert "d gamma is wrong: it has shape (1, 3), and gamma has (3,)." in text
    assert "beta" not in text


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        (lambda dy, x: None, "returned None; return the gradients"),
        (lambda dy, x: (), "came back: 0, and inputs there are 1"),
        (lambda dy, x: (dy, dy), "came back: 2, and inputs there are 1"),
        (lambda dy, x: (None,), "d x is wrong: None came back"),
        (lambda dy, x: (x.fill(0), dy)[1:], "wrote into input 0; work on a copy"),
        (lambda dy, x: (dy.__imul__(2),), "wrote into dy"),
        (lambda dy, x: (2 * x + 0 * dy,), "not linear in dy"),
    ],
)
def test_what_is_no_backward_pass(backward, message):
    with pytest.raises(AssertionError, match=message):
        assert_gradients_match(lambda x: x * x, backward, np.arange(1.0, 4.0))


def test_integers_need_no_gradient():
    logits, targets = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 2, 1, 1])

    def backward(dy, logits, targets):
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        p[np.arange(4), targets] -= 1
        return dy * p / 4, None

    assert_gradients_match(mb.functional.cross_entropy, backward, logits, targets)


def test_wrong_calls_name_the_remedy():
    *inputs, dy = batch(8, 3)
    with pytest.raises(ShapeError, match=r"grad_output given for .* same shape"):
        assert_gradients_match(normalise, normalise, *inputs, grad_output=np.ones(4))
    with pytest.raises(OperandError, match=r"second function, the backward pass, not array"):
        assert_gradients_match(normalise, *inputs)
    with pytest.raises(OperandError, match=r"a sequence of its inputs are needed, as in"):
        diagnose(normalise, inputs[0], dy, grad_output=dy)
    with pytest.raises(OperandError, match=r"one gradient, an array, not"):
        diagnose(normalise, inputs, tuple(inputs), grad_output=dy)
    with pytest.raises(ShapeError, match=r"nothing to check: .* returned Tensor \(0, 3\)"):
        diagnose(lambda x: x * 2, [np.ones((0, 3))], np.ones((0, 3)), grad_output=dy)
    with pytest.raises(OperandError, match=r"compare takes what mb\.trace"):
        mb.check.compare(normalise, {"x": dy}, dy)
    with pytest.raises(ShapeError, match=r"no gradients were given"):
        mb.check.compare(mb.trace(normalise, *inputs), {}, dy)
    with pytest.raises(ShapeError, match=r"order=0 must be 1 or more"):
        mb.check.gradcheck(np.tanh, inputs[0], order=0)
    assert mb.check.adequacy(mb.check.gradcheck, np.tanh, [inputs[2]], wrt=0).score == 1


def test_nothing_of_the_users_changes():
    *inputs, dy = batch(8, 3)
    x = mb.Tensor(inputs[0], requires_grad=True)
    before = [a.copy() for a in inputs]
    diagnose(normalise, [x, *inputs[1:]], dy, grad_output=dy)
    assert x.name is None
    assert x.grad is None
    for a, b in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(a, b)


if __name__ == "__main__":
    for dtype in (np.float32, np.float64):
        for right in handmade.RIGHT + EQUIVALENT:
            for seed in range(56):
                assert_right(right, dtype, seed)
        print(
            f"{np.dtype(dtype)}: {56 * len(handmade.RIGHT + EQUIVALENT)} right passes, none accused"
        )
