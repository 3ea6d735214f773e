"""Convolution and pooling, against their definitions entry by entry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import functional as F
from microbn.testing import check_op

rng = np.random.default_rng(0)
normal = rng.standard_normal


def leaf(data):
    return mb.Tensor(data, requires_grad=True)


def padded(x, margins, entry=0.0):
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + list(margins), constant_values=entry)


def conv_by_definition(x, weight, bias, stride, margins, dilation, groups):
    """Sum over c, i and j, one entry of the result after another."""
    x = padded(x, margins)
    n, _, h, w = x.shape
    o, c, kh, kw = weight.shape
    oh = (h - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (w - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, o, oh, ow))
    for image, f, p, q in np.ndindex(y.shape):
        first = f // (o // groups) * c  # the channels of its group
        for k, i, j in np.ndindex(c, kh, kw):
            row, column = p * stride[0] + i * dilation[0], q * stride[1] + j * dilation[1]
            y[image, f, p, q] += x[image, first + k, row, column] * weight[f, k, i, j]
    return y + bias[:, None, None]


pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))


@given(
    size=pairs, stride=pairs, dilation=pairs, margin=pairs, groups=st.integers(1, 2),
    extra=pairs, seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_conv2d_is_its_definition(size, stride, dilation, margin, groups, extra, seed):
    draw = np.random.default_rng(seed)
    h, w = (d * (k - 1) + e for d, k, e in zip(dilation, size, extra, strict=True))
    x, weight = draw.normal(size=(2, 2 * groups, h, w)), draw.normal(size=(groups * 2, 2, *size))
    bias, margins = draw.normal(size=len(weight)), [(p, p) for p in margin]
    expected = conv_by_definition(x, weight, bias, stride, margins, dilation, groups)
    got = F.conv2d(x, weight, bias, stride, margin, dilation, groups)
    assert_allclose(got, expected, rtol=1e-12, atol=1e-13)
    check_op(F.conv2d, x, weight, bias, stride, margin, dilation, groups, order=1)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": (2, 1)}, {"padding": (0, 2)}],
)
def test_conv2d_has_derivatives_of_every_order(options, groups):
    x, weight, bias = normal((2, 3, 5, 4)), normal((3, 3 // groups, 3, 2)), normal(3)
    check_op(F.conv2d, x, weight, bias, groups=groups, **options)
    check_op(F.conv2d, x.astype(np.float32), weight.astype(np.float32), groups=groups, **options)


def test_one_image_is_a_batch_of_one():
    x, weight, bias = normal((3, 5, 4)), normal((2, 3, 2, 2)), normal(2)
    assert_array_equal(F.conv2d(x, weight, bias), F.conv2d(x[None], weight, bias)[0], strict=True)
    check_op(F.conv2d, x, weight, bias)
    for pool in F.max_pool2d, F.avg_pool2d:
        assert_array_equal(pool(x, 2), pool(x[None], 2)[0], strict=True)


def test_a_batch_of_none_gives_none():
    x = leaf(np.zeros((0, 3, 5, 4)))
    assert F.conv2d(x, leaf(normal((2, 3, 2, 2)))).shape == (0, 2, 4, 3)
    assert F.max_pool2d(x, 2).shape == F.avg_pool2d(x, 2).shape == (0, 3, 2, 2)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 2), (4, 4)])
def test_same_padding_keeps_the_size_and_puts_an_odd_one_after(size):
    x, weight = normal((2, 1, 5, 6)), normal((1, 1, *size))
    margins = [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in size]
    expected = conv_by_definition(x, weight, np.zeros(1), (1, 1), margins, (1, 1), 1)
    assert expected.shape == x.shape
    assert_allclose(F.conv2d(x, weight, padding="same"), expected, rtol=1e-12, atol=1e-14)
    assert_array_equal(F.conv2d(x, weight, padding="valid"), F.conv2d(x, weight))


def test_conv2d_over_the_whole_image_is_a_matrix_product():
    x, weight, bias = leaf(normal((5, 3, 2, 4))), leaf(normal((6, 3, 2, 4))), leaf(normal(6))
    y, g = F.conv2d(x, weight, bias), normal((5, 6))
    flat = [leaf(a.data.reshape(len(a.data), -1)) for a in (x, weight)]
    z = flat[0] @ flat[1].T + bias
    assert_allclose(y.data[:, :, 0, 0], z.data, rtol=1e-12, atol=1e-13)
    for a, b in zip(mb.grad(y, [x, weight], g[:, :, None, None]), mb.grad(z, flat, g), strict=True):
        assert_allclose(a.data.reshape(b.shape), b.data, rtol=1e-12, atol=1e-13)


def test_convolution_lies_in_a_scope_of_its_own():
    y = F.conv2d(leaf(normal((2, 3, 4, 4))), leaf(normal((2, 3, 2, 2))), padding=1)
    made = [tensor for tensor, _ in mb.backprop(y, np.ones(y.shape)) if tensor.op is not None]
    assert {tensor.scope for tensor in made} == {("conv2d",)}
    assert [t.op.name for t in made][::-1] == (
        "pad windows transpose reshape reshape matmul reshape transpose".split()
    )


# Pooling


def windows_of(x, size, stride, margin, entry):
    """Yield where a window is in the result, and the windows of all images and channels."""
    x = padded(x, [(p, p) for p in margin], entry)
    oh, ow = ((n - k) // s + 1 for n, k, s in zip(x.shape[-2:], size, stride, strict=True))
    for p, q in np.ndindex(oh, ow):
        row, column = p * stride[0], q * stride[1]
        yield (p, q), x[..., row : row + size[0], column : column + size[1]]


@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)), stride=pairs, data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_pools_are_their_definitions(size, stride, data, seed):
    margin = tuple(data.draw(st.integers(0, k // 2)) for k in size)
    x = np.random.default_rng(seed).permutation(2 * 2 * 4 * 5).reshape(2, 2, 4, 5) - 40.0
    largest = F.max_pool2d(x, size, stride, margin)
    average = F.avg_pool2d(x, size, stride, margin)
    inside = F.avg_pool2d(x, size, stride, margin, count_include_pad=False)
    for (p, q), window in windows_of(x, size, stride, margin, np.nan):
        assert_array_equal(largest[..., p, q], np.nanmax(window, axis=(-2, -1)))
        assert_allclose(inside[..., p, q], np.nanmean(window, axis=(-2, -1)), rtol=1e-12)
        total = np.nansum(window, axis=(-2, -1))
        assert_allclose(average[..., p, q], total / (size[0] * size[1]), rtol=1e-12, atol=1e-13)
    check_op(F.max_pool2d, x / 80, size, stride, margin, order=1)
    check_op(F.avg_pool2d, x / 80, size, stride, margin, count_include_pad=False, order=1)


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
def test_pools_have_derivatives_of_every_order(pool):
    for dtype in np.float64, np.float32:
        check_op(pool, normal((2, 3, 5, 4)).astype(dtype), 3, 2, 1)


def test_the_first_of_the_largest_gets_the_gradient():
    x = leaf([[[1.0, 2.0, 2.0, 0.0], [2.0, 0.0, 0.0, 0.0]]])
    y = F.max_pool2d(x, 2)
    y.backward([[[1.0, 10.0]]])
    assert_array_equal(x.grad, [[[0, 1, 10, 0], [0, 0, 0, 0]]])


def test_an_entry_of_overlapping_windows_gets_the_gradient_of_each():
    x = leaf([[[1.0, 5.0, 2.0]]])
    F.max_pool2d(x, (1, 2), 1).backward([[[1.0, 10.0]]])
    assert_array_equal(x.grad, [[[0, 11, 0]]])


def test_padding_is_never_the_largest():
    x = leaf([[[-5.0, -7.0], [-6.0, -8.0]]])
    y = F.max_pool2d(x, 2, 1, 1)
    assert_array_equal(y.data, [[[-5, -5, -7], [-5, -5, -7], [-6, -6, -8]]])
    y.backward(np.ones(y.shape))
    assert_array_equal(x.grad, [[[4, 2], [2, 1]]])


def test_minus_infinity_and_nan_are_found_where_they_are():
    x = leaf(np.full((1, 1, 3, 3), -np.inf))
    y = F.max_pool2d(x, 2, 2, 1)
    y.backward(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert_array_equal(y.data, np.full((1, 1, 2, 2), -np.inf))
    assert_array_equal(x.grad[0, 0], [[1, 2, 0], [3, 4, 0], [0, 0, 0]])
    x = leaf([[[1.0, np.nan], [3.0, 2.0]]])
    y = F.max_pool2d(x, 2)
    y.backward(np.ones((1, 1, 1)))
    assert np.isnan(y.item())
    assert_array_equal(x.grad, [[[0, 1], [0, 0]]])


def test_small_integers_do_not_wrap():
    x = np.array([[[200, 100], [7, 9]]], np.uint8)
    assert F.avg_pool2d(x, 2) == 79
    assert F.max_pool2d(x, 2) == 200
    assert F.conv2d(x, np.full((1, 1, 2, 2), 2.0)) == 632


# Bad input

x = mb.Tensor(normal((2, 3, 5, 4)), name="x")
w = mb.Tensor(normal((4, 3, 3, 2)), name="w")
REFUSED = [
    (lambda: F.conv2d(x.data[0, 0], w), ValueError, r"conv2d\(array \(5, 4\).*\(n, c, h, w\)"),
    (lambda: F.conv2d(np.ones((2, 0, 5, 4)), w), ValueError, "must be images"),
    (lambda: F.conv2d(x, w[0]), ValueError, r"weight must have shape \(o, c / groups"),
    (lambda: F.conv2d(x, w[:, :2]), ValueError, r"x \(2, 3, 5, 4\).*c = 3"),
    (lambda: F.conv2d(x, w, groups=3), ValueError, "groups = 3"),
    (lambda: F.conv2d(x, w[:, :1], groups=3), ValueError, "groups = 3, which must divide o"),
    (lambda: F.conv2d(x, w, groups=0), ValueError, "groups = 0"),
    (lambda: F.conv2d(x, w, groups=1.0), TypeError, "groups=1.0 must be an int"),
    (lambda: F.conv2d(x, w, np.ones(3)), ValueError, r"bias has shape \(3,\).*\(4,\)"),
    (lambda: F.conv2d(x, w, stride=0), ValueError, "conv2d: stride=0 must be at least 1"),
    (lambda: F.conv2d(x, w, stride=1.5), TypeError, "stride=1.5 must be an int or a pair"),
    (lambda: F.conv2d(x, w, stride=(1, 1, 1)), TypeError, r"stride=\(1, 1, 1\) must be"),
    (lambda: F.conv2d(x, w, dilation=0), ValueError, "dilation=0"),
    (lambda: F.conv2d(x, w, padding=-1), ValueError, "padding=-1"),
    (lambda: F.conv2d(x, w, padding="full"), ValueError, "padding='full' must be 'same'"),
    (lambda: F.conv2d(x, w, padding="same", stride=2), ValueError, "'same' needs stride=1"),
    (lambda: F.conv2d(x, w, dilation=3), ValueError, "7 by 4 entries do not fit into 5 by 4"),
    (lambda: F.max_pool2d(x, 6), ValueError, r"max_pool2d\(x.*6 by 6.*do not fit into 5 by 4"),
    (lambda: F.max_pool2d(x, 2, padding=2), ValueError, "max_pool2d: padding=2.*half"),
    (lambda: F.avg_pool2d(x, 3, padding=(1, 2)), ValueError, r"avg_pool2d: padding=\(1, 2\).*half"),
    (lambda: F.avg_pool2d(x, 0), ValueError, "kernel_size=0"),
    (lambda: F.avg_pool2d(x, "2"), TypeError, "kernel_size='2'"),
    (lambda: F.avg_pool2d(x[0, 0], 2), ValueError, "images"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_what_does_not_fit_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
    assert mb.Tensor(1.0).scope == ()
