"""The backward pass in one go against its definition, `engine.backprop`: the same to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import microbn as mb
from microbn import sweep

SHAPES = [(), (3,), (4, 1), (4, 3)]
second = mb.ops.Op("second", lambda x, y: y + 0 * x, None, lambda g, out, x, y: g)
total = mb.ops.Op("total", lambda *xs: sum(xs), lambda i, g, out, *xs: g, variadic=True)
clipped = mb.ops.Op(
    "clipped", lambda *a: np.clip(*a), lambda g, out, x, low, high: g * (out == x), None, None
)
CALLS = [
    lambda x, y: x + y,
    lambda x, y: x - 0.5 * y,
    lambda x, y: x * y,
    lambda x, y: 1 - x * x,
    lambda x, y: -x / 4,
    lambda x, y: abs(x) ** 2,
    lambda x, y: np.tanh(x),
    lambda x, y: mb.functional.relu(x + y),
    lambda x, y: x.mean() - y.sum(),
    lambda x, y: np.where(x.data > 0, x, y),
    lambda x, y: np.broadcast_to(x + y, (2, 4, 3))[1],
    lambda x, y: np.concatenate([(x + y).reshape(-1), x.reshape(-1)])[:1],
    lambda x, y: x.astype(np.float32) * y,
    lambda x, y: x * np.arange(3.0) + mb.Tensor(2.0),
    second,
    total,
    lambda x, y: total(x),
    lambda x, y: clipped(x, -1.0, 1.0),
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 99)] * 3), min_size=1, max_size=12), st.booleans())
def test_it_finds_what_backprop_yields(program, retain):
    rng = np.random.default_rng(len(program))
    made = [mb.Tensor(rng.normal(size=s), requires_grad=True) for s in SHAPES]
    leaves = list(made)
    for call, i, j in program:
        made.append(CALLS[call % len(CALLS)](made[-1 - i % len(made)], made[-1 - j % len(made)]))
    y = sum((0.5 * t).sum() for t in made)
    expected = {t: np.array(g) for t, g in mb.backprop(y)}
    y.backward(retain_grad=retain)
    for tensor, g in expected.items():
        if retain or tensor.op is None:
            assert_array_equal(tensor.grad, g, strict=True)
        else:
            assert tensor.grad is None
    gradients = [t.grad for t in expected if t.grad is not None]
    values = [np.asarray(t.data) for t in expected]
    for k, g in enumerate(gradients):
        assert g.flags.writeable
        assert not any(np.shares_memory(g, other) for other in gradients[:k] + values)
    assert all(leaf in expected for leaf in leaves)


def test_it_does_without_the_definition(monkeypatch):
    x, gamma, beta = (mb.Tensor(a, requires_grad=True) for a in (np.eye(3), np.ones(3), np.ones(3)))
    loss = mb.functional.cross_entropy(mb.batch_norm(x, gamma, beta) @ x.T, [0, 2, 1])
    monkeypatch.setattr(sweep, "backprop", None)
    monkeypatch.setattr(sweep, "pullback", None)
    loss.backward()
    assert x.grad.any()


def failing(g, out, x, y):
    raise ZeroDivisionError("no rule")


BAD = {
    "a rule that fails": mb.ops.Op("bad", lambda x, y: x + y, lambda g, out, x, y: g, failing),
    "no cotangent": mb.ops.Op(
        "bad", lambda x, y: x + y, lambda g, out, x, y: g, lambda g, out, x, y: "g"
    ),
    "a wrong shape": mb.ops.Op(
        "bad", lambda x, y: x + y, lambda g, out, x, y: g[1:], lambda *a: a[0]
    ),
}


@pytest.mark.parametrize("op", [*BAD.values(), None], ids=[*BAD, "new data"])
def test_errors_are_those_of_backprop_and_leave_every_gradient_alone(op):
    x, y = (mb.Tensor(np.ones(3), requires_grad=True) for _ in range(2))
    z = ((x * y) if op is None else op(x, x * y)).sum()
    if op is None:
        y.data = np.zeros(3)
    with pytest.raises(Exception) as plain:  # noqa: PT011
        list(mb.backprop(z))
    with pytest.raises(type(plain.value)) as error:
        z.backward()
    assert str(error.value) == str(plain.value)
    assert getattr(error.value, "__notes__", None) == getattr(plain.value, "__notes__", None)
    assert error.value.__context__ is plain.value.__context__ or error.value.__cause__ is not None
    assert x.grad is y.grad is z.grad is None


def test_new_data_of_a_constant_is_noticed_too():
    x, c = mb.Tensor(2.0, requires_grad=True), mb.Tensor(3.0)
    for y in (x * c, c * x):
        c.data = 4.0
        with pytest.raises(RuntimeError, match="new data after mul"):
            y.backward()
