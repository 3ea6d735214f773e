"""The three hand-written backward passes: against each other, and against independent truths."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from microbn import data, handwritten
from microbn.handwritten import backward_closed, backward_paper, backward_staged, forward

FORMS = (backward_staged, backward_paper, backward_closed)
every_form = pytest.mark.parametrize("backward", FORMS)


def case(m, d, dtype=np.float64, offset=0.0, seed=0):
    """Return x, gamma, beta and dy, drawn from a normal distribution; x is shifted by offset."""
    rng = np.random.default_rng(seed)
    shapes = ((m, d), (d,), (d,), (m, d))
    x, gamma, beta, dy = (rng.standard_normal(shape) for shape in shapes)
    return tuple(array.astype(dtype) for array in (x + offset, gamma, beta, dy))


def assert_same(got, want, x, dy, cache, ulps=8):
    """Compare gradients up to roundoff, as large as the problem makes it.

    Roundoff is relative to what is added up, not to the sum; centering amplifies it by |x| / std.
    """
    epsilon = np.finfo(cache.x_hat.dtype).eps * (1 + np.abs(x).max(axis=0) * cache.inv_std)
    most, total = np.abs(dy).max(axis=0), np.abs(dy).sum(axis=0)
    sizes = np.abs(cache.gamma) * cache.inv_std * most, total, total
    for g, w, size in zip(got, want, sizes, strict=True):
        assert g.shape == w.shape
        assert (np.abs(g - w) <= ulps * epsilon * size).all()


# Against each other


@given(
    m=st.integers(2, 40),
    d=st.integers(1, 8),
    eps=st.sampled_from([0.0, 1e-8, 1e-5, 1e-3, 0.5]),
    offset=st.sampled_from([0.0, 1e4]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_forms_agree(m, d, eps, offset, dtype, seed):
    x, gamma, beta, dy = case(m, d, dtype, offset, seed)
    assume((x != x[0]).any(axis=0).all())  # float32 can round a column to a constant one
    _, cache = forward(x, gamma, beta, eps)
    staged, paper, closed = (backward(dy, cache) for backward in FORMS)
    assert_same(staged, closed, x, dy, cache)
    assert_same(paper, closed, x, dy, cache)


@every_form
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("shape", [(2, 3), (32, 64), (256, 100)])
def test_float32_is_float64_up_to_roundoff(backward, shape, offset):
    x, gamma, beta, dy = case(*shape, np.float32, offset)
    y, cache = forward(x, gamma, beta, 1e-5)
    y_wide, wide = forward(*(a.astype(np.float64) for a in (x, gamma, beta)), 1e-5)
    assert_same(backward(dy, cache), backward(dy.astype(np.float64), wide), x, dy, cache)
    # A mean near 10,000 is known to 0.001, and so is everything centered by it.
    assert_allclose(y, y_wide, rtol=0, atol=0.05 if offset else 1e-5)


# Against independent truths


@every_form
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
@pytest.mark.parametrize("shape", [(2, 1), (3, 2), (8, 5)])
def test_central_differences(backward, shape, eps, offset):
    *inputs, dy = case(*shape, offset=offset, seed=1)
    gradients = backward(dy, forward(*inputs, eps)[1])
    h = 1e-4
    for array, gradient in zip(inputs, gradients, strict=True):
        numeric = np.empty_like(array)
        for i in np.ndindex(array.shape):
            middle = array[i]
            array[i] = middle + h
            above = (forward(*inputs, eps)[0] * dy).sum()
            array[i] = middle - h
            below = (forward(*inputs, eps)[0] * dy).sum()
            array[i] = middle
            numeric[i] = (above - below) / (2 * h)
        assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-6)


@every_form
@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
def test_forty_digits(backward, eps):
    m, d = 3, 2
    x, gamma, beta, dy = case(m, d, seed=2)

    def loss(*flat):  # x row by row, then gamma, then beta, one column of the sum after another
        total = mpmath.mpf(0)
        for j in range(d):
            column, scale, shift = flat[j : m * d : d], flat[m * d + j], flat[m * d + d + j]
            mean = mpmath.fsum(column) / m
            var = mpmath.fsum((z - mean) ** 2 for z in column) / m
            for i, z in enumerate(column):
                y = scale * (z - mean) / mpmath.sqrt(var + eps) + shift
                total += y * float(dy[i, j])
        return total

    with mpmath.workdps(40):
        point = [mpmath.mpf(float(v)) for v in (*x.ravel(), *gamma, *beta)]
        units = np.eye(len(point), dtype=int).tolist()
        truth = [float(mpmath.diff(loss, point, tuple(unit))) for unit in units]
        value = float(loss(*point))

    y, cache = forward(x, gamma, beta, eps)
    got = np.concatenate([gradient.ravel() for gradient in backward(dy, cache)])
    assert_allclose((y * dy).sum(), value, rtol=1e-14)
    assert_allclose(got, truth, rtol=1e-13, atol=1e-15)


# By hand


def test_four_students_forward():
    x = data.students().features
    y, cache = forward(x, [1.0, 2.0], [0.0, 3.0], eps=0)
    steps = np.array([-0.5, 0.5, 1.5, -1.5])  # from the mean, in points of cgpa
    assert_array_equal(x - cache.centered, [[7.5, 75.0]] * 4)
    assert_array_equal(cache.centered, np.stack([steps, 10 * steps], axis=1))
    assert_array_equal(cache.var_eps, [1.25, 125.0])
    # Both columns are the same four steps in other units, so both come out the same.
    x_hat = steps / math.sqrt(1.25)
    assert_allclose(cache.x_hat, np.stack([x_hat, x_hat], axis=1), rtol=1e-15)
    assert_allclose(y, np.stack([x_hat, 2 * x_hat + 3], axis=1), rtol=1e-15)


@every_form
def test_four_students_backward(backward):
    _, cache = forward(data.students().features, [1.0, 1.0], [0.0, 0.0], eps=0)
    dy = np.zeros((4, 2))
    dy[0, 0] = 1  # how y of the first student's cgpa depends on everything
    dx, dgamma, dbeta = backward(dy, cache)
    # dgamma = x_hat[0] = -0.5 s with s = 1 / sqrt(1.25), s**2 = 0.8, so x_hat * dgamma is
    # (0.2, -0.2, -0.6, 0.6), and 4 dy - 1 is (3, -1, -1, -1): their difference times s / 4.
    s = 1 / math.sqrt(1.25)
    assert_allclose(dx[:, 0], s * np.array([0.7, -0.2, -0.1, -0.4]), rtol=1e-14)
    assert_array_equal(dx[:, 1], 0)
    assert_allclose(dgamma, [-0.5 * s, 0], rtol=1e-15)
    assert_array_equal(dbeta, [1, 0])


# At the edges


@every_form
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_row_has_nothing_to_say(backward, dtype):
    x, gamma, beta, dy = case(1, 5, dtype, offset=1e4)
    y, cache = forward(x, gamma, beta, 1e-5)
    dx, dgamma, dbeta = backward(dy, cache)
    assert_array_equal(cache.x_hat, np.zeros((1, 5)))
    assert_array_equal(y, beta[None])
    assert_array_equal(dx, np.zeros((1, 5)))
    assert_array_equal(dgamma, np.zeros(5))
    assert_array_equal(dbeta, dy[0])


@every_form
def test_two_rows_become_plus_and_minus_one(backward):
    x, gamma, beta, dy = case(2, 5)
    _, cache = forward(x, gamma, beta, 0)
    assert_allclose(cache.x_hat, np.sign(x - x[::-1]), rtol=1e-14)
    flat = np.zeros((2, 5)), dy[0] * cache.x_hat[0] + dy[1] * cache.x_hat[1], dy.sum(axis=0)
    assert_same(backward(dy, cache), flat, x, dy, cache)


@every_form
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_column(backward, dtype):
    x, gamma, beta, dy = case(6, 2, dtype)
    x[:, 0] = 3
    y, cache = forward(x, gamma, beta, 0.25)
    dx, dgamma, dbeta = backward(dy, cache)
    assert_array_equal(y[:, 0], np.full(6, beta[0]))
    assert dgamma[0] == 0
    assert dbeta[0] == dy[:, 0].sum()
    # var = 0 is a minimum, so only the route through the mean is left; 1 / sqrt(0.25) = 2
    rtol = 8 * float(np.finfo(dtype).eps)
    assert_allclose(dx[:, 0], gamma[0] * 2 * (dy[:, 0] - dy[:, 0].mean()), rtol=rtol, atol=rtol)


def test_a_constant_column_without_eps_divides_by_zero():
    with pytest.warns(RuntimeWarning) as caught:
        y, _ = forward(np.ones((4, 1)), [1.0], [0.0], eps=0)
    assert "divide by zero" in str(caught[0].message)
    assert np.isnan(y).all()


@every_form
def test_no_columns(backward):
    y, cache = forward(np.zeros((3, 0)), [], [], 1e-5)
    assert y.shape == (3, 0)
    assert [g.shape for g in backward(y, cache)] == [(3, 0), (0,), (0,)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_zero_term_of_the_paper_is_roundoff(offset, dtype):
    x, gamma, beta, _ = case(1000, 8, dtype, offset)
    _, cache = forward(x, gamma, beta, 1e-5)
    mean_deviation = np.abs(cache.centered.mean(axis=0, dtype=np.float64))
    # What is left is the rounding of the mean: a few units in the last place of x.
    assert (mean_deviation <= 16 * np.finfo(dtype).eps * np.abs(x).max(axis=0)).all()
    assert (np.abs(cache.centered).mean(axis=0) > 0.5).all()  # though each deviation is large


# dtypes, ownership, errors


@every_form
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_one_dtype_in_is_the_same_dtype_out(backward, dtype):
    x, gamma, beta, dy = case(6, 3, dtype)
    y, cache = forward(x, gamma, beta, np.float64(1e-3))  # a strong scalar must not promote
    assert {a.dtype for a in (y, *cache, *backward(dy, cache))} == {np.dtype(dtype)}


@every_form
def test_each_gradient_has_the_dtype_of_its_array(backward):
    x, gamma, beta, dy = case(6, 3)
    arrays = x.astype(np.float32), gamma, beta.astype(np.float16)
    y, cache = forward(*arrays, 1e-5)
    assert y.dtype == np.float64
    assert [g.dtype for g in backward(dy, cache)] == [np.float32, np.float64, np.float16]
    # A float64 dy is no reason to widen a float32 layer.
    _, cache = forward(*(a.astype(np.float32) for a in arrays), 1e-5)
    assert [g.dtype for g in backward(dy, cache)] == [np.float32] * 3


@every_form
def test_integers_and_lists_become_float64(backward):
    y, cache = forward([[1, 2], [3, 5], [4, 4]], [1, 2], [0, 1], 1e-5)
    gradients = backward([[1, 0], [0, 1], [2, 0]], cache)
    assert {a.dtype for a in (y, *gradients)} == {np.dtype(np.float64)}
    floats = backward(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), cache)
    for got, want in zip(gradients, floats, strict=True):
        assert_array_equal(got, want)


@every_form
def test_a_narrow_dy_does_not_overflow(backward):
    x, gamma, beta, _ = case(100, 2)
    _, cache = forward(x, gamma, beta, 1e-5)
    dy = np.full((100, 2), 3, np.uint8)  # 100 * 3 > 255
    for got, want in zip(backward(dy, cache), backward(dy * 1.0, cache), strict=True):
        assert_array_equal(got, want)


@every_form
def test_arguments_are_left_alone_and_not_shared(backward):
    arguments = x, gamma, beta, dy = case(6, 3)
    before = [a.copy() for a in arguments]
    y, cache = forward(x, gamma, beta, 1e-5)
    results = y, *backward(dy, cache)
    for argument, copy in zip(arguments, before, strict=True):
        assert_array_equal(argument, copy)
        assert not any(np.shares_memory(argument, a) for a in (*results, *cache))
    assert all(a.flags.writeable for a in results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [1.0], [0.0], 0), r"x must have shape \(m, d\) .* not \(2,\)"),
        ((np.ones((2, 3, 4)), [1.0], [0.0], 0), r"x must .* not \(2, 3, 4\)"),
        ((np.ones((0, 1)), [1.0], [0.0], 0), r"m >= 1, not \(0, 1\)"),
        ((np.ones((4, 2)), [1.0], [0.0, 0.0], 0), r"\(d,\) = \(2,\), not \(1,\) and \(2,\)"),
        ((np.ones((4, 2)), [1.0, 1.0], 0.0, 0), r"\(d,\) = \(2,\), not \(2,\) and \(\)"),
        ((np.ones((4, 1)), [1.0], [0.0], -1e-5), "eps must be finite .* not -1e-05"),
        ((np.ones((4, 1)), [1.0], [0.0], math.nan), "eps .* not nan"),
        ((np.ones((4, 1)), [1.0], [0.0], math.inf), "eps .* not inf"),
    ],
)
def test_forward_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        handwritten.forward(*arguments)


@every_form
@pytest.mark.parametrize("shape", [(4,), (1, 3), (3, 4), ()])
def test_backward_refuses_a_dy_that_is_not_shaped_like_y(backward, shape):
    x, gamma, beta, _ = case(4, 3)
    _, cache = forward(x, gamma, beta, 1e-5)
    with pytest.raises(ValueError, match=r"dy must have the shape of y, \(4, 3\)"):
        backward(np.ones(shape), cache)
