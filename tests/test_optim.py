"""Update rules: against numbers by hand, and the rule unrolled independently of the code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn.nn import Linear, Parameter
from microbn.optim import SGD, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm_

RULES = [SGD, RMSprop, Adam, AdamW]


def run(gradients, start, rule=SGD, **options):
    """Apply the gradients one after the other, and return where the parameter was after each."""
    p = Parameter(start)
    optimizer = rule([p], **options)
    path = []
    for g in gradients:
        p.grad = g
        optimizer.step()
        path.append(p.numpy())
    return path


def test_by_hand():
    # p = 1, g = 2 each time. Plain: 1 - 0.1 * 2.
    assert_allclose(run([2.0, 2.0], 1.0, lr=0.1), [0.8, 0.6])
    # Velocity 2, then 0.5 * 2 + 2 = 3.
    assert_allclose(run([2.0, 2.0], 1.0, lr=0.1, momentum=0.5), [0.8, 0.5])
    # Nesterov: 2 + 0.5 * 2 = 3, then 2 + 0.5 * 3 = 3.5.
    path = run([2.0, 2.0], 1.0, lr=0.1, momentum=0.5, nesterov=True)
    assert_allclose(path, [0.7, 0.35])
    # Weight decay: 2 + 0.5 * 1 = 2.5, then 2 + 0.5 * 0.75 = 2.375.
    assert_allclose(run([2.0, 2.0], 1.0, lr=0.1, weight_decay=0.5), [0.75, 0.5125])
    # Dampening spares the first gradient: 2, then 0.5 * 2 + 0.75 * 2 = 2.5.
    path = run([2.0, 2.0], 1.0, lr=0.1, momentum=0.5, dampening=0.25)
    assert_allclose(path, [0.8, 0.55])


@given(
    momentum=st.floats(0, 1),
    dampening=st.floats(0, 1),
    weight_decay=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_velocity_is_a_weighted_sum_of_gradients(momentum, dampening, weight_decay, seed):
    rng = np.random.default_rng(seed)
    gradients, start = rng.normal(size=(5, 3)), rng.normal(size=3)
    options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
    path = run(gradients, start, lr=0.2, **options)
    seen = [g + weight_decay * p for g, p in zip(gradients, [start, *path], strict=False)]
    for k, p in enumerate(path):
        before = path[k - 1] if k else start
        weights = [momentum ** (k - i) * (1 - dampening if i else 1) for i in range(k + 1)]
        step = sum(w * g for w, g in zip(weights, seen, strict=False)) if momentum else seen[k]
        assert_allclose(p, before - 0.2 * step, rtol=1e-12, atol=1e-12)


def test_descends_to_the_minimum():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(50, 3)), rng.normal(size=(2, 3))
    layer = Linear(3, 2, dtype=np.float64, rng=0)
    optimizer = SGD(layer.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(300):
        optimizer.zero_grad()
        mb.functional.mse(layer(x), x @ w.T + 1).backward()
        optimizer.step()
    assert_allclose(layer.weight.data, w, atol=1e-8)
    assert_allclose(layer.bias.data, [1, 1], atol=1e-8)


def test_parameters_without_a_gradient_stay():
    p, q = Parameter([1.0]), Parameter([1.0])
    q.requires_grad = False
    optimizer = SGD([p, q], lr=1, momentum=0.5, weight_decay=0.5)
    optimizer.step()
    assert (p.data, q.data) == (1, 1)
    (p * q).sum().backward()
    optimizer.step()
    assert (p.data, q.data) == (-0.5, 1)
    optimizer.zero_grad()
    assert p.grad is None
    optimizer.step()
    assert p.data == -0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 3)])
@pytest.mark.parametrize(
    "options", [{"momentum": 0.0}, {"momentum": np.float64(0.5), "weight_decay": 0.5}]
)
def test_dtype_and_gradients_are_kept(dtype, shape, options):
    p = Parameter(np.ones(shape, dtype))
    optimizer = SGD([p], lr=np.float64(0.1), **options)
    assert type(optimizer.lr) is type(optimizer.momentum) is float
    for rate in np.float64(0.1), 0.1:
        optimizer.lr = rate
        p.grad = np.full(shape, 2, dtype)
        g = p.grad
        optimizer.step()
        assert p.grad is g
        assert_array_equal(g, np.full(shape, 2))
        assert (p.data.dtype, p.data.shape) == (dtype, shape)


def test_the_velocity_is_not_the_gradient():
    p = Parameter([1.0])
    optimizer = SGD([p], lr=0.1, momentum=0.5)
    p.grad = [2.0]
    optimizer.step()
    p.grad[:] = 100  # the reader's to do with as he likes
    p.grad = [2.0]
    optimizer.step()
    assert_allclose(p.data, [0.5])


def test_a_graph_notices_the_step():
    p = Parameter([2.0])
    y = (p * p).sum()
    y.backward()
    SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="new data"):
        y.backward()


def test_a_state_dict_taken_before_does_not_change():
    layer = Linear(2, 2, rng=0)
    state = layer.state_dict()
    layer(np.ones((1, 2), np.float32)).sum().backward()
    SGD(layer.parameters(), lr=0.1).step()
    assert_array_equal(state["bias"], Linear(2, 2, rng=0).bias.data)
    assert not np.array_equal(state["bias"], layer.bias.data)


def test_defaults():
    optimizer = SGD([Parameter([1.0])])
    assert (optimizer.lr, optimizer.momentum, optimizer.dampening) == (1e-3, 0, 0)
    assert (optimizer.weight_decay, optimizer.nesterov) == (0, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.1}, "lr=-0.1 must be 0 or a positive number"),
        ({"lr": np.nan}, "lr=nan"),
        ({"lr": np.inf}, "lr=inf"),
        ({"lr": 1, "momentum": -0.1}, r"momentum=-0.1 must lie in \[0, 1\]"),
        ({"lr": 1, "momentum": 1.1}, r"momentum=1.1 must lie in \[0, 1\]"),
        ({"lr": 1, "weight_decay": -1}, "weight_decay=-1"),
        ({"lr": 1, "nesterov": True}, "nesterov needs a momentum"),
        ({"lr": 1, "nesterov": True, "momentum": 0.9, "dampening": 0.1}, "no dampening"),
    ],
)
def test_refuses_values(options, message):
    with pytest.raises(ValueError, match=message):
        SGD([Parameter([1.0])], **options)


@pytest.mark.parametrize("lr", ["0.1", None, [0.1]])
def test_refuses_what_is_no_number(lr):
    with pytest.raises(TypeError, match=r"lr=.*must be a number"):
        SGD([Parameter([1.0])], lr=lr)


def test_refuses_what_cannot_learn():
    p = Parameter([1.0])
    with pytest.raises(ValueError, match="no parameters"):
        SGD([], lr=0.1)
    with pytest.raises(ValueError, match="given twice"):
        SGD([p, p], lr=0.1)
    with pytest.raises(TypeError, match=r"give a list of parameters: \[p\]"):
        SGD(p, lr=0.1)
    with pytest.raises(TypeError, match=r"array \(1,\) float64: it is no Parameter"):
        SGD([np.ones(1)], lr=0.1)
    with pytest.raises(TypeError, match=r"it is no Parameter; pass model.parameters\(\)"):
        SGD(Linear(2, 2).named_parameters(), lr=0.1)
    with pytest.raises(ValueError, match="result of mul, and only leaves learn"):
        SGD([p * 2], lr=0.1)


def test_a_rule_is_one_method():
    class Sign(Optimizer):
        def direction(self, p, g, state):
            state["steps"] = state.get("steps", 0) + 1
            return np.sign(g)

    p = mb.Tensor([1.0, 1.0], requires_grad=True)
    optimizer = Sign([p], lr=0.5)
    p.grad = [3.0, -3.0]
    optimizer.step()
    assert_array_equal(p.data, [0.5, 1.5])
    assert optimizer.state == [{"steps": 1}]
    bare = Optimizer([p], lr=0.1)
    with pytest.raises(NotImplementedError, match="needs a method direction"):
        bare.step()


# RMSprop, Adam, AdamW: as published ---------------------------------------------------------------


def averages(values, beta):
    """Return the exponential averages that begin at 0, each from all values so far."""
    powers = [beta ** np.arange(t, -1, -1) for t in range(len(values))]
    return [
        (1 - beta) * np.tensordot(w, values[: t + 1], axes=(0, 0)) for t, w in enumerate(powers)
    ]


def trajectory(seed, steps=100, shape=(4,)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, *shape)), rng.normal(size=shape)


def test_the_adaptive_rules_by_hand():
    # Adam and RMSprop, betas 0.5: g = 2, then 4. m = 1, 2.5; v = 2, 9.
    by_hand = {"lr": 1, "eps": 0}
    path = run([2.0, 4.0], 0.0, Adam, betas=(0.5, 0.5), **by_hand)
    assert_allclose(path, [-1, -1 - (2.5 / 0.75) / np.sqrt(9 / 0.75)])
    path = run([2.0, 4.0], 0.0, RMSprop, alpha=0.5, **by_hand)
    assert_allclose(path, [-np.sqrt(2), -np.sqrt(2) - 4 / 3])
    # The mean of the squares less the square of the mean: 2 - 1, 9 - 6.25.
    path = run([2.0, 4.0], 0.0, RMSprop, alpha=0.5, centered=True, **by_hand)
    assert_allclose(path, [-2, -2 - 4 / np.sqrt(2.75)])
    # With momentum 0.5 half of the last step comes again.
    path = run([2.0, 4.0], 0.0, RMSprop, alpha=0.5, momentum=0.5, **by_hand)
    assert_allclose(path, [-np.sqrt(2), -np.sqrt(2) - np.sqrt(2) / 2 - 4 / 3])
    # eps stands beside the root: 2 / (2 + 2).
    assert_allclose(run([2.0], 0.0, Adam, lr=1, eps=2), [-0.5])
    assert_allclose(run([2.0], 0.0, RMSprop, lr=1, eps=2, alpha=0), [-0.5])
    # Decay within the gradient: g = 0.5 * 4, of which Adam sees the sign alone.
    assert_allclose(run([0.0], 4.0, Adam, weight_decay=0.5, **by_hand), [3])
    # Decoupled: p shrinks by lr * weight_decay = 1/8, then Adam's step of lr.
    assert_allclose(run([3.0], 4.0, AdamW, lr=0.25, eps=0, weight_decay=0.5), [4 * 7 / 8 - 0.25])
    # The largest v so far, 8, stays: the average falls to 4.5.
    path = run([4.0, 1.0], 0.0, Adam, betas=(0, 0.5), amsgrad=True, **by_hand)
    assert_allclose(path, [-1, -1 - 1 / np.sqrt(8 / 0.75)])


@given(
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0.5, 0.999),
    eps=st.floats(1e-10, 0.1),
    amsgrad=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_adam_is_algorithm_1(beta1, beta2, eps, amsgrad, seed):
    gradients, start = trajectory(seed)
    m, v = averages(gradients, beta1), averages(gradients**2, beta2)
    if amsgrad:
        v = np.maximum.accumulate(v)
    options = {"betas": (beta1, beta2), "eps": eps, "amsgrad": amsgrad}
    path = run(gradients, start, Adam, lr=0.01, **options)
    p = start
    for t, got in enumerate(path, start=1):
        m_hat, v_hat = m[t - 1] / (1 - beta1**t), v[t - 1] / (1 - beta2**t)
        p = p - 0.01 * m_hat / (np.sqrt(v_hat) + eps)
        assert_allclose(got, p, rtol=1e-11, atol=1e-12)


@given(weight_decay=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_adamw_is_algorithm_2(weight_decay, seed):
    gradients, start = trajectory(seed)
    path = run(gradients, start, AdamW, lr=0.01, weight_decay=weight_decay)
    m, v = averages(gradients, 0.9), averages(gradients**2, 0.999)
    p = start
    for t, got in enumerate(path, start=1):
        m_hat, v_hat = m[t - 1] / (1 - 0.9**t), v[t - 1] / (1 - 0.999**t)
        p = (1 - 0.01 * weight_decay) * p - 0.01 * m_hat / (np.sqrt(v_hat) + 1e-8)
        assert_allclose(got, p, rtol=1e-11, atol=1e-12)


@given(
    alpha=st.floats(0.5, 0.999),
    momentum=st.floats(0, 1),
    weight_decay=st.floats(0, 1),
    centered=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_rmsprop_is_the_rule_of_the_lecture(alpha, momentum, weight_decay, centered, seed):
    gradients, start = trajectory(seed, steps=40)
    options = {"alpha": alpha, "momentum": momentum, "centered": centered, "eps": 1e-3}
    path = run(gradients, start, RMSprop, lr=1e-3, weight_decay=weight_decay, **options)
    seen = np.array([g + weight_decay * p for g, p in zip(gradients, [start, *path], strict=False)])
    mean_square = np.array(averages(seen**2, alpha))
    if centered:
        mean_square -= np.array(averages(seen, alpha)) ** 2
    scaled = seen / (np.sqrt(mean_square) + 1e-3)
    for t, p in enumerate(path):
        steps = momentum ** np.arange(t, -1, -1.0) @ scaled[: t + 1]
        before = path[t - 1] if t else start
        assert_allclose(p, before - 1e-3 * steps, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centered_stays_finite_where_rounding_makes_the_variance_negative(dtype):
    p = Parameter(dtype(0))
    optimizer = RMSprop([p], lr=1e-9, alpha=0.5, centered=True, eps=1)
    negative = False
    for _ in range(100):
        p.grad = dtype(3.3)  # the same gradient again and again: no variance
        optimizer.step()
        state = optimizer.state[0]
        negative = negative or state["square_avg"] - state["grad_avg"] ** 2 < 0
    assert negative
    assert np.isfinite(p.data)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns(rule):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(50, 3)), rng.normal(size=(2, 3))
    layer = Linear(3, 2, dtype=np.float64, rng=0)
    optimizer = rule(layer.parameters(), lr=0.1, weight_decay=0)
    for k in range(400):
        optimizer.lr = 0.1 * 0.98**k if rule is not SGD else 0.3
        optimizer.zero_grad()
        mb.functional.mse(layer(x), x @ w.T + 1).backward()
        optimizer.step()
    assert_allclose(layer.weight.data, w, atol=1e-2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (2, 3), (0, 3)])
@pytest.mark.parametrize("rule", RULES[1:])
def test_what_a_rule_computes_and_remembers_has_the_dtype_of_the_parameter(rule, dtype, shape):
    p = Parameter(np.ones(shape, dtype))
    switches = {"momentum": 0.5, "centered": True} if rule is RMSprop else {"amsgrad": True}
    optimizer = rule([p], lr=np.float64(0.1), eps=1e-3, weight_decay=np.float64(0.1), **switches)
    for _ in range(3):
        p.grad = np.full(shape, 2, dtype)
        g = p.grad
        optimizer.step()
        assert_array_equal(g, np.full(shape, 2))
        assert (p.data.dtype, p.data.shape) == (dtype, shape)
    for name, value in optimizer.state[0].items():
        assert name == "step" or (value.dtype, value.shape) == (dtype, shape)


@pytest.mark.parametrize("rule", RULES)
def test_frozen_and_unreached_parameters_stay(rule):
    learns, frozen, unreached = (Parameter([1.0]) for _ in range(3))
    optimizer = rule([learns, frozen, unreached], lr=0.1, weight_decay=0.1)
    learns.grad = frozen.grad = [1.0]
    frozen.requires_grad = False
    optimizer.step()
    assert learns.data != 1
    assert_array_equal([frozen.data, unreached.data], [[1], [1]])
    assert optimizer.state[1:] == [{}, {}]


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (RMSprop, {"lr": -1}, "lr=-1 must be 0 or a positive number"),
        (RMSprop, {"alpha": 1.5}, r"alpha=1.5 must lie in \[0, 1\]"),
        (RMSprop, {"momentum": -0.5}, r"momentum=-0.5 must lie in \[0, 1\]"),
        (RMSprop, {"eps": -1e-8}, "eps=-1e-08 must be 0 or a positive number"),
        (RMSprop, {"weight_decay": np.nan}, "weight_decay=nan"),
        (Adam, {"lr": np.inf}, "lr=inf must be 0 or a positive number"),
        (Adam, {"betas": (1.0, 0.9)}, r"betas\[0\]=1.0 must lie in \[0, 1\)"),
        (Adam, {"betas": (0.9, -0.1)}, r"betas\[1\]=-0.1 must lie in \[0, 1\)"),
        (Adam, {"betas": (0.9, np.nan)}, r"betas\[1\]=nan"),
        (AdamW, {"eps": -1}, "eps=-1"),
        (AdamW, {"weight_decay": -1}, "weight_decay=-1"),
    ],
)
def test_the_adaptive_rules_refuse_values(rule, options, message):
    with pytest.raises(ValueError, match=message):
        rule([Parameter([1.0])], **options)


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 0.9, 0.9), ("0.9", 0.9), None])
def test_betas_are_two_numbers(betas):
    with pytest.raises(TypeError, match=r"betas.*must be (two numbers|a number)"):
        Adam([Parameter([1.0])], betas=betas)


# To go on another day -----------------------------------------------------------------------------

ARGUMENTS = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (RMSprop, {"momentum": 0.5, "centered": True}),
    (Adam, {"amsgrad": True}),
    (AdamW, {}),
]


@pytest.mark.parametrize(("rule", "options"), ARGUMENTS)
def test_an_optimizer_goes_on_where_another_was(rule, options):
    def steps(optimizer, gradients):
        for g in gradients:
            for p in optimizer.params[:2]:
                p.grad = np.resize(g, p.shape)
            optimizer.step()

    def copies(params):
        return [Parameter(p.data) for p in params]

    gradients, _ = trajectory(0, steps=10)
    params = [Parameter(np.ones(4)), Parameter(1.0), Parameter([1.0])]
    optimizer = rule(params, **options)
    steps(optimizer, gradients[:5])
    optimizer.lr = 0.05
    state, later = optimizer.state_dict(), rule(copies(params), **options)
    before = {key: value.copy() for key, value in state.items()}
    later.load_state_dict(state)
    steps(optimizer, gradients[5:])
    steps(later, gradients[5:])
    for p, q in zip(params, later.params, strict=True):
        assert_array_equal(p.data, q.data)
    assert later.lr == 0.05
    for key, value in before.items():  # a state dict is a copy, and stays what it was
        assert_array_equal(state[key], value)
    assert not any(key.startswith("2.") for key in state)  # it has made no step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.exp_avg": None}, "missing: 0.exp_avg$"),
        ({"lr": None}, "missing: lr$"),
        ({"lr": -1.0}, "lr=-1.0 must be 0 or a positive number"),
        ({"0.exp_avg": np.ones(3)}, r"0.exp_avg has shape \(3,\), not \(2,\)"),
        ({"0.exp_avg": ["a", "b"]}, "0.exp_avg holds <U1, not numbers"),
        ({"0.velocity": np.ones(2)}, "unexpected: 0.velocity"),
        ({"1.step": 3}, "unexpected: 1.step"),
        ({0: 3}, "unexpected: 0"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    p = Parameter([1.0, 2.0])
    optimizer = Adam([p])
    p.grad = [1.0, 2.0]
    optimizer.step()
    state = optimizer.state_dict() | change
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict({k: v for k, v in state.items() if v is not None})
    for key, value in optimizer.state_dict().items():
        assert_array_equal(value, before[key])
    with pytest.raises(TypeError, match="a state is a dict of arrays, not"):
        optimizer.load_state_dict([1])


# Clipping -----------------------------------------------------------------------------------------


def with_gradients(*gradients):
    found = []
    for g in gradients:
        found.append(Parameter(np.zeros(np.shape(g))))
        found[-1].grad = g
    return found


def test_clipping_by_hand():
    p, q = with_gradients([3.0], 4.0)
    first = p.grad
    assert clip_grad_norm_((p, q), 1.0) == 5
    assert p.grad is first  # scaled in place
    assert_allclose([*p.grad, q.grad], [0.6, 0.8], rtol=1e-6)
    assert clip_grad_norm_(iter([p, q]), 2.0) == pytest.approx(1, rel=1e-6)  # short enough
    assert_allclose([*p.grad, q.grad], [0.6, 0.8], rtol=1e-6)
    for order, norm in ((1, 7), (np.inf, 4), ("inf", 4), (0.5, (3**0.5 + 2) ** 2)):
        p, q = with_gradients([3.0], 4.0)
        assert clip_grad_norm_([p, q], np.inf, float(order)) == pytest.approx(norm)
        assert (p.grad, q.grad) == (3, 4)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_the_norm_neither_overflows_nor_vanishes(size):
    p = with_gradients([3 * size, 4 * size])
    assert clip_grad_norm_(p, np.inf) == pytest.approx(5 * size, rel=1e-14)
    small = Parameter(np.ones(2, np.float32))
    small.grad = [3e30, 4e30]
    assert clip_grad_norm_(small, 1.0) == pytest.approx(5e30, rel=1e-6)
    assert small.grad.dtype == np.float32
    assert_allclose(small.grad, [0.6, 0.8], rtol=1e-6)


def test_what_has_no_gradient_or_is_frozen_is_not_clipped_and_nothing_counts_twice():
    p, frozen, empty = with_gradients([3.0, 4.0], [100.0], np.ones(0))
    frozen.requires_grad = False
    unreached = Parameter([1.0])
    assert clip_grad_norm_([p, p, frozen, unreached, empty], 2.5) == 5
    assert_allclose(p.grad, [1.5, 2], rtol=1e-6)
    assert_array_equal(frozen.grad, [100])
    assert unreached.grad is None
    assert clip_grad_norm_(unreached, 1.0) == 0
    assert clip_grad_norm_(with_gradients([0.0]), 0.0) == 0


def test_clipping_with_max_norm_0_leaves_no_gradient():
    (p,) = with_gradients([3.0, 4.0])
    assert clip_grad_norm_(p, 0) == 5
    assert_array_equal(p.grad, [0, 0])


def test_clipping_refuses():
    p, q = with_gradients([3.0], [np.inf])
    for bad in -1.0, np.nan:
        with pytest.raises(ValueError, match=r"max_norm=.* must be 0 or a positive number"):
            clip_grad_norm_(p, bad)
    for bad in 0, -1, -np.inf, np.nan:
        with pytest.raises(ValueError, match=r"norm_type=.* must be positive"):
            clip_grad_norm_(p, 1.0, bad)
    with pytest.raises(TypeError, match="max_norm='1' must be a number"):
        clip_grad_norm_(p, "1")
    with pytest.raises(ValueError, match="no parameters to clip"):
        clip_grad_norm_(iter([]), 1.0)
    with pytest.raises(TypeError, match=r"cannot clip array \(1,\) float64: it is no Parameter"):
        clip_grad_norm_([np.ones(1)], 1.0)
    with pytest.raises(ValueError, match="result of mul"):
        clip_grad_norm_(p * 2, 1.0)
    with pytest.raises(RuntimeError, match="the norm of the gradients is inf"):
        clip_grad_norm_([p, q], 1.0, error_if_nonfinite=True)
    assert p.grad == 3
