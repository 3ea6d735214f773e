"""Update rules: against numbers by hand, and the rule unrolled independently of the code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn.nn import Linear, Parameter
from microbn.optim import SGD, Optimizer


def run(gradients, start, **options):
    """Apply the gradients one after the other, and return where the parameter was after each."""
    p = Parameter(start)
    optimizer = SGD([p], **options)
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
