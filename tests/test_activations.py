"""erf, gelu and dropout: against multiple precision, and what they promise."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import functional as F
from microbn import ops
from microbn.testing import check_op

rng = np.random.default_rng(0)
POINTS = np.concatenate(
    [rng.uniform(-7, 7, 2000), rng.uniform(0.46, 0.49, 3000), np.geomspace(1e-300, 7, 500)]
)


def exactly(fn, x):
    with mpmath.workdps(60):
        return np.array([float(fn(mpmath.mpf(float(v)))) for v in x])


@pytest.mark.parametrize(("dtype", "units"), [(np.float64, 2), (np.float32, 0.5001)])
def test_erf_is_right_to_its_last_places(dtype, units):
    x = POINTS.astype(dtype)
    got, want = ops.erf(x), exactly(mpmath.erf, x)
    assert got.dtype == dtype
    assert (np.abs(got - want) / np.spacing(np.abs(want.astype(dtype)))).max() <= units


def test_erf_at_the_ends():
    x = np.array([0.0, -0.0, 5e-324, np.inf, -np.inf, np.nan, 1e300])
    with np.errstate(all="raise", under="ignore"):
        got = ops.erf(x)
    assert_array_equal(got, [0, -0.0, 5e-324, 1, -1, np.nan, 1])
    assert_array_equal(np.signbit(got[:2]), [False, True])
    assert ops.erf(mb.Tensor(2)).dtype == np.float64
    assert type(ops.erf(np.float32(1))) is np.float32


def test_erf_is_the_integral_of_its_slope():
    x = mb.Tensor(POINTS, requires_grad=True)
    slope = mb.grad(ops.erf(x), x, np.ones(x.shape)).data
    assert_allclose(slope, exactly(lambda v: mpmath.diff(mpmath.erf, v), POINTS), rtol=1e-13)


def test_gelu_is_its_formula():
    x = mb.Tensor(POINTS, requires_grad=True)
    y = F.gelu(x)
    y.backward(np.ones(y.shape))
    assert_allclose(y.data, exactly(lambda v: v * mpmath.ncdf(v), POINTS), rtol=1e-14, atol=1e-15)
    slope = exactly(lambda v: mpmath.ncdf(v) + v * mpmath.npdf(v), POINTS)
    assert_allclose(x.grad, slope, rtol=1e-13, atol=1e-15)

    def by_tanh(v):
        return v / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (v + 0.044715 * v**3)))

    assert_allclose(F.gelu(POINTS, "tanh"), exactly(by_tanh, POINTS), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_has_derivatives_of_every_order(approximate):
    for dtype in np.float64, np.float32:
        check_op(F.gelu, rng.normal(size=(3, 4)).astype(dtype), approximate)
        assert F.gelu(np.ones(3, dtype), approximate).dtype == dtype
    assert F.gelu(mb.Tensor(rng.normal(size=3), requires_grad=True), approximate).scope == ("gelu",)


def test_gelu_knows_two_formulas():
    with pytest.raises(ValueError, match=r"gelu\(array \(3,\).*approximate='erf'.*'tanh'"):
        F.gelu(np.ones(3), "erf")


def test_dropout_keeps_the_expectation_and_gives_each_gradient_to_what_it_kept():
    x = mb.Tensor(np.full((200, 50), 3.0), requires_grad=True)
    y = F.dropout(x, 0.25, rng=0)
    kept = y.data != 0
    assert_array_equal(y.data, np.where(kept, 3 / 0.75, 0))
    assert abs(kept.mean() - 0.75) < 0.02  # 4.6 standard deviations
    y.backward(np.ones(y.shape))
    assert_array_equal(x.grad, kept / 0.75)
    assert y.scope == ("dropout",)
    check_op(lambda x: F.dropout(x, 0.5, rng=1), rng.normal(size=(3, 4)))


def test_dropout_can_be_repeated_and_goes_on():
    x, generator = np.ones((20, 20)), np.random.default_rng(3)
    first, second = (F.dropout(x, rng=generator) for _ in range(2))
    assert_array_equal(F.dropout(x, rng=3), first)
    assert (first != second).any()
    assert (F.dropout(x) != F.dropout(x)).any()


def test_dropout_in_use_does_nothing():
    x = mb.Tensor(rng.normal(size=(3, 4)), requires_grad=True)
    assert F.dropout(x, training=False) is x
    assert F.dropout(x, 0.0) is x


def test_dropout_of_everything_is_zero():
    x = mb.Tensor(rng.normal(size=(3, 4)), requires_grad=True)
    y = F.dropout(x, 1)
    y.backward(np.ones(y.shape))
    assert_array_equal(y.data, np.zeros((3, 4)))
    assert_array_equal(x.grad, np.zeros((3, 4)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_keeps_the_dtype(dtype):
    assert F.dropout(np.ones(8, dtype), np.float64(0.5), rng=0).dtype == dtype


@pytest.mark.parametrize(
    ("p", "error"),
    [(-0.1, ValueError), (1.1, ValueError), (float("nan"), ValueError), ("half", TypeError),
     (None, TypeError), (True, TypeError)],
)  # fmt: skip
def test_dropout_refuses_what_is_no_probability(p, error):
    with pytest.raises(error, match=f"dropout.*p={p!r}"):
        F.dropout(np.ones(3), p)
    with pytest.raises(error, match=f"dropout.*p={p!r}"):
        F.dropout(np.ones(3), p, training=False)
