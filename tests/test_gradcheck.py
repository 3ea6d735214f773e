"""gradcheck: what it passes, what it catches and how it says why; its numbers and error bars."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as npst

import microbn as mb
from microbn import functional as F
from microbn.check.differences import AGREES, Case, sizes, slope_error
from microbn.check.gradcheck import gradcheck
from microbn.ops import Op

X = np.array([[1.0, 4.0], [2.0, -1.0], [4.0, 0.5]])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def cube(rule):
    return Op("cube", lambda x: x**3, rule)


def message(fn, *inputs, **options):
    with pytest.raises(AssertionError) as e:
        gradcheck(fn, *inputs, **options)
    return str(e.value)


# The numbers, against derivatives in closed form

DERIVATIVES = {  # a function, a point, and its derivative there, by the standard library
    "exp": (np.exp, 2.0, math.exp(2)),
    "exp far out": (np.exp, -300.0, math.exp(-300)),
    "log": (np.log, 1e-6, 1e6),
    "tanh": (np.tanh, 0.3, 1 - math.tanh(0.3) ** 2),
    "sqrt": (np.sqrt, 1e6, 5e-4),
    "sin": (np.sin, 1e3, math.cos(1e3)),
    "fast": (lambda x: np.sin(1e4 * x), 1.0, 1e4 * math.cos(1e4)),
    "cancelling": (lambda x: ((x + 1e6) - 1e6) ** 2, 3.0, 6.0),
    "a root of high order": (lambda x: x**0.1, 2.0, 0.1 * 2**-0.9),
    "at zero": (lambda x: x**2 + x, 0.0, 1.0),
}


@pytest.mark.parametrize(("fn", "x", "expected"), DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.parametrize("fault", [0, 1e-3])
def test_the_error_bar_covers_the_error_and_no_more_than_it_must(fn, x, expected, fault):
    case = Case(fn, {"x": np.array(x)})
    point = case.evaluate(np.random.default_rng(0), np.array(1.0))
    point.gradients[0] = np.array(
        expected * (1 + fault)
    )  # so that the table is built up to the end
    found = slope_error(point, 0, sizes(point.args[0]))
    unit = float(sizes(point.args[0]))
    assert abs((found.rule + found.excess) / unit - expected) <= found.error / unit
    assert found.error / unit <= 1e-7 * abs(expected)
    assert found.is_wrong == bool(fault)


def test_extrapolation_gains_digits():
    case = Case(np.exp, {"x": np.array(2.0)})
    point = case.evaluate(np.random.default_rng(0), np.array(1.0))
    point.gradients[0] = np.array(0.0)
    found = slope_error(point, 0, np.array(1.0))
    assert found.error <= 1e-11 * math.exp(2)  # the best single difference is good to 1e-10


def test_a_step_is_relative_to_each_entry_and_to_the_spread_of_all():
    assert sizes(np.array([1e-6, -2.0]))[0] == 1e-6
    np.testing.assert_allclose(sizes(1e3 + np.array([1.0, -1.0])), [1, 1])
    np.testing.assert_array_equal(sizes(np.zeros(2)), [1, 1])
    np.testing.assert_array_equal(sizes(np.full(2, 5.0)), [5, 5])
    assert sizes(np.zeros((0, 3))).shape == (0, 3)
    assert sizes(np.array(-3.0)) == 3


# What is right passes

RIGHT = {
    "batch norm": (mb.batch_norm, normal(8, 3), normal(3, seed=1), normal(3, seed=2)),
    "layer norm": (F.layer_norm, normal(8, 3)),
    "cross entropy": (F.cross_entropy, normal(4, 3), np.array([0, 2, 1, 1])),
    "far from zero": (mb.batch_norm, 1e3 + 1e-3 * normal(8, 3)),
    "large and small": (np.log, np.array([1e-6, 1.0, 1e6])),
    "nearly a kink, far from 0": (lambda x: np.maximum(x, 1 - 1e-8), np.array([1.0])),
    "steep": (lambda x: np.tanh((x - 1000.0) * 1e4), np.array([1000.00003])),
    "noisy inside": (
        Op("square", lambda x: ((x + 1e6) - 1e6) ** 2, lambda g, out, x: 2 * g * x),
        normal(4),
    ),
    "nearly a kink": (F.relu, np.array([1e-7, -1e-7, 1.0])),
    "a number": (np.tanh, np.float64(0.3)),
    "no axes": (np.exp, np.array(0.3)),
    "no entries": (np.exp, np.zeros((0, 3))),
    "no entries left": (lambda x: x[:0], X),
    "constant": (lambda x: x * 0 + 3.0, X),
    "an input unused": (lambda x, y: x * 2, X, X),
    "a cast on the way": (lambda x: np.exp(x.astype(np.float32)), X),
    "a cast and back": (lambda x: np.exp(x.astype(np.float32)).astype(float), X),
    "a float32 constant": (lambda x: np.float32(2.0) ** x, X),
    "a stop of what is constant": (lambda x, y: x * mb.stop_gradient(y), X, np.array(2)),
    "handed on": (lambda x, axis, keep: np.sum(x, axis=axis, keepdims=keep), X, 1, True),
    "a bias that batch norm removes, in a mean": (
        lambda b: np.mean(
            np.tanh(mb.batch_norm(normal(7, 3) * np.arange(1, 4) + b)) @ normal(3, 2)
        ),
        normal(3, seed=1),
    ),
    "a bias that batch norm removes": (lambda b: mb.batch_norm(X + b), normal(2)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass(name, dtype):
    if dtype != np.float64 and name in (
        "far from zero",
        "large and small",
        "steep",
        "noisy inside",
    ):
        return  # no such numbers in float16 and float32
    fn, *inputs = RIGHT[name]
    floating = lambda a: isinstance(a, np.ndarray) and a.dtype.kind == "f"  # noqa: E731
    gradcheck(fn, *(a.astype(dtype) if floating(a) else a for a in inputs), order=2)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_orders_of_batch_norm(order):
    gradcheck(lambda x: mb.batch_norm(x, eps=0.5), normal(5, 2), order=order)


def random_case(seed):
    """Return a function with right gradients and its inputs, of any scale."""
    rng = np.random.default_rng(seed)
    scale, n, d = 10 ** rng.uniform(-6, 6), rng.integers(2, 7), rng.integers(1, 5)
    x = (rng.standard_normal((n, d)) + rng.choice([0, 1, 1e3])) * scale
    targets = rng.integers(0, d, n)
    fns = [
        lambda x, w: mb.batch_norm(x, w),
        lambda x, w: F.layer_norm(x, w),
        lambda x, w: F.cross_entropy(x / scale * w, targets),
        lambda x, w: np.log(1 + np.exp(np.tanh(x / scale))) * w,
        lambda x, w: np.tanh(x @ (w[:, None] * w) / scale).mean(),
    ]
    return fns[rng.integers(len(fns))], x, rng.standard_normal(d)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_false_alarm_in_random_cases(dtype):
    for seed in range(150):
        fn, *inputs = random_case(seed)
        gradcheck(fn, *(a.astype(dtype) for a in inputs), seed=seed, order=1 + (seed % 5 == 0))


@settings(max_examples=60)
@given(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3))
def test_any_shapes(drawn):
    x, y = (normal(*shape) for shape in drawn.input_shapes)
    gradcheck(lambda x, y: np.tanh(x) * np.exp(y), x, y)


# What is wrong is caught

FAULTS = {  # a wrong rule for the cube of X, and what is said of it
    "a factor": (lambda g, out, x: g * 6 * x**2, "it is 2 times what it should be, everywhere"),
    "a sign": (lambda g, out, x: -g * 3 * x**2, "it is -1 times what it should be, everywhere"),
    "a millionth": (lambda g, out, x: g * 3.000003 * x**2, "it is 1.000001 times"),
    "g left out": (lambda g, out, x: 3 * x**2, "not proportional to the cotangent"),
    "g squared": (lambda g, out, x: g * g * 3 * x**2, "not proportional to the cotangent"),
    "cut off": (None, "nothing flows back although fn changes"),
    "a channel": (
        lambda g, out, x: g * 3 * x**2 * np.array([1.0, 5.0]),
        "wrong by a factor per index of axis 1: 1, 5",
    ),
    "an example": (
        lambda g, out, x: g * 3 * x**2 * np.array([[1.0], [2.0], [-1.0]]),
        "wrong by a factor per index of axis 0: 1, 2, -1",
    ),
    "an entry": (
        lambda g, out, x: g * 3 * x**2 * np.array([[1, 1], [1, 1.01], [1, 1]]),
        "worst at index (1, 1), the rule gives",
    ),
    "an entry cut off": (
        lambda g, out, x: g * 3 * x**2 * (x != 4.0),
        "2 of 6 entries, (0, 1), (2, 0) nothing flows back",
    ),
    "another function": (lambda g, out, x: g * 3 * x**3, "by no common factor"),
    "infinite": (
        lambda g, out, x: g * 3 * x**2 / (x != 4.0),
        "the gradient is not finite where fn is: ",
    ),
}


@pytest.mark.parametrize(("rule", "words"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_faults_and_their_likely_reasons(rule, words, dtype):
    said = message(cube(rule), X.astype(dtype))
    assert said.startswith(f"order 1, argument 0 (3, 2) {np.dtype(dtype)}: ")
    assert words in said


def test_the_message_has_the_numbers():
    said = message(cube(lambda g, out, x: g * 6 * x**2), X, grad_output=np.ones_like(X))
    assert "worst at index (0, 1), the rule gives 96, central differences 48, relative err" in said


def test_the_message_has_the_name():
    x, y = mb.Tensor(X, name="images"), mb.Tensor(X, requires_grad=True, name="weights")
    said = message(lambda x, y: np.exp(x) * mb.stop_gradient(y), x, y)
    assert said.startswith("order 1, argument 1 'weights' (3, 2) float64: ")


@pytest.mark.parametrize("share", [0.5, 0.01])
def test_a_millionth_in_one_of_several_terms_is_caught(share):
    wrong = Op("id", lambda x: x * 1.0, lambda g, out, x: g * (1 + 1e-6))
    gradcheck(lambda x: (1 - share) * np.sin(x) + share * np.cos(x), X)
    said = message(lambda x: (1 - share) * np.sin(x) + share * np.cos(wrong(x)), X)
    assert "central differences" in said


@pytest.mark.parametrize("position", range(2))
@pytest.mark.parametrize("name", ["mul", "sub", "div"])
def test_a_millionth_in_a_primitive_under_batch_norm_is_caught(monkeypatch, name, position):
    op = getattr(mb.ops, name)
    by_division = lambda x, g: (x - np.mean(x, 0)) / np.std(x, 0) * g  # noqa: E731
    norm = by_division if name == "div" else mb.batch_norm
    gradcheck(norm, normal(8, 3), normal(3))
    rule = op.vjps[position]
    rules = list(op.vjps)
    rules[position] = lambda *args: rule(*args) * (1 + 1e-6)
    monkeypatch.setattr(op, "vjps", tuple(rules))
    assert "relative error" in message(norm, normal(8, 3), normal(3))


def test_a_fault_that_only_float32_has():
    rule = lambda g, out, x: g * (3 + 3e-4 * (x.dtype == np.float32)) * x**2  # noqa: E731
    gradcheck(cube(rule), X)
    said = message(cube(rule), X.astype(np.float32))
    assert "computed in float32, the gradient at index" in said
    assert "does a rule depend on the dtype, or lose digits" in said


def test_an_overflow_that_only_float32_has():
    fn = lambda x: 1 / (1 + np.exp(x))  # noqa: E731
    gradcheck(fn, np.array([89.0]))
    said = message(fn, np.array([89.0], np.float32))
    assert "computed in float32, the gradient is nan at index (0,); in float64 it is finite" in said


def test_a_loss_that_tests_nothing_is_not_the_default():
    wrong = Op("norm", lambda x: mb.batch_norm(x), lambda g, out, x: 0 * g)
    gradcheck(wrong, X, grad_output=np.ones_like(X))  # the sum of y, whose gradient is 0
    assert "nothing flows back" in message(wrong, X)


def test_a_number_kept_from_the_forward_pass_is_caught_at_order_2():
    def forward(x):
        forward.slope = 3 * x**2
        return x**3

    stash = Op("stash", forward, lambda g, out, x: g * forward.slope)
    gradcheck(stash, X, order=1)
    said = message(stash, X, order=2)
    assert said.startswith("order 2, argument 0 and then argument 0 (3, 2) float64: ")
    assert "nothing flows back" in said


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x.detach() ** 2,
        lambda x: mb.Tensor(x.data**2),
        lambda x: x * 0 + float(x.sum()),
        lambda x: mb.stop_gradient(x) * 3,
    ],
)
def test_what_is_cut_off_is_called_so(cut):
    assert "nothing flows back although fn changes: it is cut off, by float()" in message(cut, X)


def test_of_a_large_input_the_entries_with_the_largest_gradient_are_looked_at():
    x = np.linspace(1.0, 2.0, 2500)
    wrong = cube(lambda g, out, x: g * 3 * x**2 * (1 + (x == 2.0)))
    said = message(wrong, x, grad_output=np.ones(2500))
    assert "(2499,) (of the 2000 entries with the largest gradient), the rule gives 24" in said
    assert "right but for 1 of 2000 entries, (2499,)" in said
    said = message(
        cube(lambda g, out, x: g * 3 * x**2 * (1 + 0.1 * (x == 1.0))), x, grad_output=x**0
    )
    assert "single entries (of the 2000 entries with the largest gradient) do not show" in said


# Where there is no derivative

KINKS = {
    "relu": (F.relu, np.array([1.0, 0.0, -1.0]), 1, "0 on the left and 1 on the right"),
    "abs": (np.abs, np.array([1.0, 0.0]), 1, "-1 on the left and 1 on the right"),
    "abs alone": (np.abs, np.array([0.0]), 0, "-1 on the left and 1 on the right"),
    "maximum": (lambda x: np.maximum(x, 2.0), np.array([1.0, 2.0]), 1, "0 on the left and 1 on"),
    "a tie of max": (np.max, np.array([1.0, 3.0, 3.0]), 1, "0 on the left and 1 on the right"),
    "a jump": (lambda x: np.where(x > 0, x + 1, x), np.array([0.0, 1.0]), 0, "on the right"),
}


@pytest.mark.parametrize(("fn", "x", "index", "slopes"), KINKS.values(), ids=KINKS)
def test_a_kink_is_not_called_a_wrong_rule(fn, x, index, slopes):
    said = message(fn, x, grad_output=np.ones_like(fn(x)))
    assert slopes in said
    assert f"at index ({index},)" in said or "tie" in slopes or fn is np.max
    assert "fn is not differentiable there; move the input away from it" in said
    gradcheck(fn, x + 0.1 * np.arange(1, len(x) + 1))


def test_a_power_looks_like_a_kink_from_far():
    gradcheck(lambda x: np.abs(x - 1) * np.sqrt(1e-30 + np.abs(x - 1)), np.array([1 + 1e-5, 2.0]))


def test_a_kink_in_one_of_many_entries_is_seen_even_if_the_rule_happens_to_agree():
    x = normal(30, 30)
    x[3, 4] = 0
    assert "at index (3, 4)" in message(lambda x: np.abs(x) + np.sin(x), x)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_values_that_are_nan(value):
    said = message(np.log, np.array([2.0, value]))
    assert "fn gives nan at index (1,) of its result Tensor (2,) float64: move the inputs" in said


def test_the_end_of_a_domain():
    gradcheck(lambda x: np.log(x - 1), np.array([1 + 1e-6]))
    assert "not finite" in message(np.sqrt, np.array([0.0, 1.0]))


# What cannot be checked


def test_a_function_that_is_none():
    rng = np.random.default_rng(0)
    said = message(lambda x: x * rng.random(), X)
    assert said.startswith("fn is not deterministic: two calls with the same inputs differ")


def test_a_function_that_changes_its_inputs():
    def fn(x, k):
        x.data[0] = 0
        return x * 2

    def fn2(x, k):
        k[0] = 0
        return x * 2

    assert "fn changes argument 0 (3, 2) float64, which" in message(fn, X, np.arange(1, 3))
    assert "fn changes argument 1 (2,) int64, which" in message(fn2, X, np.arange(1, 3))


@pytest.mark.parametrize(
    ("fn", "inputs", "words"),
    [
        (np.exp, (), r"floating array .* was given nothing; use"),
        (np.add, (2.0, np.arange(3)), r"was given 2.0, array \(3,\) int64; use .astype\(float\)"),
        (lambda x: x.data, (X,), r"fn returned array \(3, 2\) float64, .* one floating Tensor"),
        (lambda x: float(x.sum()), (X,), "fn returned 10.5, which cannot"),
        (lambda x: (x, x), (X,), r"\(tuple\), which cannot"),
        (lambda x: x.astype(int), (X,), r"Tensor \(3, 2\) int64, which cannot"),
    ],
)
def test_operands_that_do_not_fit(fn, inputs, words):
    with pytest.raises(mb.errors.OperandError, match=words):
        gradcheck(fn, *inputs)


# What it leaves alone


def test_nothing_is_changed():
    data = X.copy()
    x, k = mb.Tensor(data, requires_grad=True, copy=False), np.arange(2)
    x.grad = np.ones_like(X)
    array, state = X.copy(), np.random.get_state()  # noqa: NPY002
    gradcheck(lambda x, y, k: np.tanh(x * y) * k, x, array, k, order=2)
    assert x.data is data
    for value, before in ((data, X), (array, X), (x.grad, np.ones_like(X)), (k, [0, 1])):
        np.testing.assert_array_equal(value, before)
    after = np.random.get_state()  # noqa: NPY002
    assert after[2:] == state[2:]
    np.testing.assert_array_equal(after[1], state[1])


def test_it_checks_under_no_grad_too():
    with mb.no_grad():
        gradcheck(np.exp, X)
        assert "-1 times" in message(cube(lambda g, out, x: -3 * g * x**2), X)
        assert not (mb.Tensor(1.0, requires_grad=True) * 2).requires_grad


def test_each_input_is_followed_in_two_directions():
    calls = []
    gradcheck(lambda x: calls.append(x) or x * 2, X)
    assert len(calls) == 2 + 1 + 2 * 2  # is it a function; its gradient; both ways along each


def test_the_cotangent_given_is_that_of_the_first_order():
    gradcheck(lambda x: np.sum(x**3), X, grad_output=2.0, order=2)


def test_the_seed_decides():
    wrong = cube(lambda g, out, x: g * 6 * x**2)
    assert message(wrong, X) == message(wrong, X) != message(wrong, X, seed=1)


def test_a_fast_yes_takes_ten_digits():
    assert AGREES <= 1e-10
    said = message(cube(lambda g, out, x: g * 3 * (1 + 1e-8) * x**2), X)
    assert "relative error 1e-08" in said
