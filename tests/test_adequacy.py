"""What a check of a gradient would notice: measured with faults, and why not where it would not."""

import copy

import numpy as np
import pytest

import microbn as mb
from microbn import ops
from microbn.check.adequacy import HIDDEN, NEVER, PASSED, adequacy
from microbn.check.gradcheck import gradcheck
from microbn.handwritten import backward_closed, forward

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 3))
ONES, ZEROS = np.ones(3), np.zeros(3)
GAMMA, BETA = RNG.normal(size=3), RNG.normal(size=3)
LOSSES = {
    "sum(y)": lambda y: np.sum(y),
    "sum(y**2)": lambda y: np.sum(y**2),
    "sum(w*y)": lambda y: np.sum(W * y),
}


def by_differences(loss, wrt=(0,), rtol=1e-3, atol=1e-8, h=1e-5):
    """Return the check that people write."""

    def check(fn, *inputs):
        leaves = [mb.Tensor(a, requires_grad=i in wrt) for i, a in enumerate(inputs)]
        found = mb.grad(loss(fn(*leaves)), [leaves[i] for i in wrt])
        for i, g in zip(wrt, found, strict=True):
            want = np.zeros_like(inputs[i])
            for k in np.ndindex(want.shape):
                old = inputs[i][k]
                values = []
                for step in (h, -h):
                    inputs[i][k] = old + step
                    values.append(loss(fn(*inputs)))
                inputs[i][k] = old
                want[k] = (values[0] - values[1]) / (2 * h)
            np.testing.assert_allclose(g.data, want, rtol=rtol, atol=atol)

    return check


def verdicts(result):
    return {row.fault: row.caught for row in result.rows}


TABLE = {  # with sum(y), sum(y**2), sum(w*y)
    "var → squared: forgotten": (False, True, True),
    "x_hat → inv_std: forgotten": (False, True, True),
    "centered → mean: forgotten": (True, False, True),
    "centered → mean: counted twice": (True, False, True),
    "scaled → x_hat: gamma left out": (False, False, False),
    "y → scaled: with the wrong sign": (False, True, True),
    "y → scaled: counted twice": (False, True, True),
    "y → scaled: forgotten": (False, True, True),
}


def test_the_table():
    results = [
        adequacy(by_differences(loss), mb.batch_norm, [X, ONES, ZEROS], wrt=[0])
        for loss in LOSSES.values()
    ]
    found = [verdicts(result) for result in results]
    assert {fault: tuple(v[fault] for v in found) for fault in TABLE} == TABLE
    assert [(len(r.caught), len(r.rows)) for r in results] == [(20, 71), (54, 71), (69, 71)]
    assert results[2].score == 1


def test_sign_factor_and_zeros_are_seen_through_a_residue_of_size_eps_only():
    check = by_differences(LOSSES["sum(y**2)"], atol=1e-3)
    result = adequacy(check, mb.batch_norm, [X, ONES, ZEROS], wrt=[0])
    why = {row.fault: row.why for row in result.missed}
    for text in ("with the wrong sign", "counted twice", "forgotten"):
        assert why[f"y → scaled: {text}"] == HIDDEN


def test_reasons():
    result = adequacy(by_differences(LOSSES["sum(y)"]), mb.batch_norm, [X, ONES, ZEROS])
    why = {row.fault: (row.why, row.visible) for row in result.missed}
    assert why["var → squared: forgotten"] == (HIDDEN, True)
    assert why["squared → centered: x in place of centered"] == (NEVER, False)
    text, visible = why["scaled → x_hat: gamma left out"]
    assert not visible
    assert "gamma is 1 everywhere; give a random gamma" in text
    text, visible = why["y → beta: forgotten"]
    assert visible
    assert text.endswith("no gradient with respect to beta")


def test_a_tolerance_that_is_too_wide_is_named():
    check = by_differences(LOSSES["sum(w*y)"], rtol=0.2, atol=0.1)
    result = adequacy(check, mb.batch_norm, [X, GAMMA, BETA], wrt=[0])
    rows = {row.fault: row for row in result.missed}
    assert rows["var → squared: divided by m - 1"].why == PASSED
    assert rows["var → squared: divided by m - 1"].change == "by 0.02"
    assert "divided by m - 1 (by 0.02)" in str(result)


def test_text():
    result = adequacy(by_differences(LOSSES["sum(y)"]), mb.batch_norm, [X, ONES, ZEROS], wrt=[0])
    lines = str(result).splitlines()
    assert lines[0] == "20 of 69 faults would be caught."
    assert max(map(len, lines)) <= 100
    assert "  y → scaled: forgotten, with the wrong sign, counted twice, halved" in lines


def test_a_check_that_cannot_fail():
    def check(fn, *inputs):
        x, *others = (mb.Tensor(a, requires_grad=True) for a in inputs)
        mb.grad(fn(x, *others), [x, *others], W)

    result = adequacy(check, mb.batch_norm, [X, GAMMA, BETA])
    assert result.score == 0 == len(result.caught)
    assert {row.why for row in result.missed} == {PASSED, NEVER}
    result = adequacy(lambda fn, *inputs: None, mb.batch_norm, [X, GAMMA, BETA])
    assert result.score == 0
    assert any("it takes no gradient with respect to x, gamma" in row.why for row in result.missed)


@pytest.mark.parametrize("raises", [True, False])
def test_a_check_that_catches_all_that_can_be_caught(raises):
    def check(fn, x, gamma, beta):
        leaves = [mb.Tensor(a, requires_grad=True) for a in (x, gamma, beta)]
        found = mb.grad(fn(*leaves), leaves, W)
        want = backward_closed(W, forward(x, gamma, beta, 1e-5)[1])
        same = all(np.allclose(g.data, h) for g, h in zip(found, want, strict=True))
        assert same or not raises
        return same

    result = adequacy(check, mb.batch_norm, [X, GAMMA, BETA])
    assert result.score == 1
    assert {row.why for row in result.missed} == {NEVER}


def test_other_errors_go_through_and_say_with_which_fault():
    def check(fn, x):
        x = mb.Tensor(x, requires_grad=True)
        if (mb.grad(fn(x), x).data == 0).all():
            raise TypeError("zeros")

    with pytest.raises(TypeError, match="zeros") as info:
        adequacy(check, lambda x: np.sum(np.tanh(x)), [X])
    assert "with a fault in fn: " in info.value.__notes__[0]
    assert info.value.__notes__[0].endswith("forgotten")


def test_the_check_must_pass():
    def check(fn, x):
        raise AssertionError("I never pass")

    with pytest.raises(ValueError, match="does not pass without a fault: I never pass; "):
        adequacy(check, np.tanh, [X])
    with pytest.raises(ValueError, match=r"wrt=\[3\]: there .* inputs are number \[0\]"):
        adequacy(check, np.tanh, [X], wrt=[3])
    with pytest.raises(ValueError, match="no rules to break"):
        adequacy(check, lambda x: x, [X])


def test_fn_must_record_the_same_each_time():
    def fn(x):
        return x * x if len(x) == 8 else x * x * x

    def check(fn, x):
        x = mb.Tensor(x[:4], requires_grad=True)
        mb.grad(fn(x), x, np.ones((4, 3)))

    with pytest.raises(ValueError, match="fn recorded 2 operations when the check called it"):
        adequacy(check, fn, [X])


def test_other_points_are_fine():
    def check(fn, x):
        for _ in range(2):
            x = mb.Tensor(x * 1.5, requires_grad=True)
            assert np.allclose(mb.grad(fn(x).sum(), x).data, 3 * x.data**2)
            x = x.data

    assert adequacy(check, lambda x: x * x * x, [X]).score == 1


def test_a_check_of_the_second_derivative():
    def check(fn, x):
        x = mb.Tensor(x, requires_grad=True)
        first = mb.grad(fn(x), x, create_graph=True)
        assert np.allclose(mb.grad(first, x, W).data, -np.sin(x.data) * W)

    result = adequacy(check, lambda x: np.sum(np.sin(x)), [X])
    assert result.score > 0.8
    assert "sin → x: forgotten" in {row.fault for row in result.caught}


def test_gradcheck_catches_all():
    assert adequacy(gradcheck, lambda x, w: np.sum(np.tanh(x @ w)), [X, W.T[:, :2]]).score == 1


def test_float32():
    def check(fn, x):
        x = mb.Tensor(x, requires_grad=True)
        assert np.abs(mb.grad(fn(x).sum(), x).data).max() < 1e-4

    result = adequacy(check, mb.batch_norm, [X.astype("float32")])
    assert {row.why for row in result.missed} == {HIDDEN, NEVER}


def test_nothing_of_the_users_is_changed():
    table, vjps = dict(ops.NUMPY), {op: op.vjps for op in ops.NUMPY.values()}
    weight = mb.Tensor(GAMMA, requires_grad=True)
    weight.grad = ONES
    x = mb.Tensor(X, requires_grad=True, name="x")

    def check(fn, x):
        fn(x).sum().backward()
        assert np.allclose(x.grad, weight.data * 2 * x.data)
        x.data = ZEROS + 0 * X

    before = copy.deepcopy(weight.grad)
    result = adequacy(check, lambda x: x**2 * weight, [x])
    assert result.score == 1
    assert x.grad is None
    assert (x.data == X).all()
    assert (weight.grad == before).all()
    assert table == ops.NUMPY
    assert vjps == {op: op.vjps for op in ops.NUMPY.values()}


def test_what_float32_cannot_tell_apart_float64_can():
    x = X.astype("float32")
    w = np.nextafter(x, np.float32(9))

    def check(fn, x, w):
        x = mb.Tensor(x, requires_grad=True)
        np.testing.assert_allclose(mb.grad(fn(x, w).sum(), x).data, w, rtol=1e-3)

    result = adequacy(check, lambda x, w: x * w, [x, w], wrt=[0])
    (row,) = (row for row in result.missed if row.fault == "× → x: x in place of w")
    assert row.why == PASSED
    assert row.visible
