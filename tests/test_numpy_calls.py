"""NumPy's functions on Tensors: called as on arrays, with its values, or refused with a reason."""

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_array_equal

import microbn as mb
from microbn import ops
from microbn.testing import check_op

rng = np.random.default_rng(0)
normal = rng.standard_normal
seeds = st.integers(0, 2**32 - 1)
A, B, C = normal((2, 3)), normal((3, 4)), normal((2, 3, 4))

CALLS = {  # what to call, and the arrays that it is called with
    "clip": (lambda x: np.clip(x, -0.5, 0.5), A),
    "clip, one bound": (lambda x: np.clip(x, None, 0.5), A),
    "clip, a_max": (lambda x: np.clip(x, a_min=-1, a_max=0.5), A),
    "clip, max": (lambda x: np.clip(x, min=-1, max=0.5), A),
    "clip, arrays": (lambda x: np.clip(x, np.zeros(3), [[0.1], [0.2]]), A),
    "clip, constants": (lambda x: np.clip(x, mb.Tensor(-0.5), mb.Tensor([0.1, 0.2, 0.3])), A),
    "clip, method": (lambda x: x.clip(-0.5, 0.5), A),
    "clip, method, max": (lambda x: x.clip(max=0.5), A),
    "einsum": (lambda x, y: np.einsum("ij,jk", x, y), A, B),
    "einsum, output": (lambda x, y: np.einsum("ij, jk -> ki", x, y), A, B),
    "einsum, optimize": (lambda x, y: np.einsum("ij,jk", x, y, optimize=True), A, B),
    "einsum, a list": (lambda x: np.einsum("ij,j", x, [1.0, 2.0, 3.0]), A),
    "einsum, ellipsis": (lambda x, y: np.einsum("...ij,...j->...i", x, y), C, B[0]),
    "pad": (lambda x: np.pad(x, 1), A),
    "pad, a pair": (lambda x: np.pad(x, (1, 0), "constant", constant_values=2), A),
    "pad, pairs": (lambda x: np.pad(x, ((1, 0), (0, 2)), mode="constant"), A),
    "pad, an array": (lambda x: np.pad(x, np.array([[1, 0], [0, 2]])), A),
    "pad, entries": (lambda x: np.pad(x, [(1, 0), (0, 2)], constant_values=(3, 4)), A),
    "split": (lambda x: np.split(x, 3, axis=1), A),
    "split, places": (lambda x: np.split(x, [1, 2], 2), C),
    "split, odd places": (lambda x: np.split(x, [3, 1, 9], -1), C),
    "split, rows": (lambda x: np.split(x, 2), A),
    "array_split": (lambda x: np.array_split(x, 2, axis=-1), A),
    "array_split, empty": (lambda x: np.array_split(x, 3), A),
    "swapaxes": (lambda x: np.swapaxes(x, 0, 1), A),
    "swapaxes, axis2": (lambda x: np.swapaxes(x, 0, axis2=-1), C),
    "swapaxes, method": (lambda x: x.swapaxes(0, -1), C),
    "ravel": (np.ravel, C),
    "ravel, method": (lambda x: x.ravel(), C),
    "flatten, method": (lambda x: x.flatten(), C),
    "log1p": (np.log1p, np.abs(A)),
    "logaddexp": (np.logaddexp, A, C[..., :3, 0]),
    "logaddexp, a number": (lambda x: np.logaddexp(0, x), A),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_give_what_numpy_gives_and_have_derivatives(name):
    call, *arrays = CALLS[name]
    constant = "constants" in name  # NumPy itself cannot work with these
    expected = call(*(mb.Tensor(a) for a in arrays)) if constant else call(*arrays)
    results = call(*(mb.Tensor(a, requires_grad=True) for a in arrays))
    assert isinstance(results, list) == isinstance(expected, list)
    if not isinstance(results, list):
        results, expected = [results], [expected]
    assert len(results) == len(expected)
    for i, (result, array) in enumerate(zip(results, expected, strict=True)):
        assert isinstance(result, mb.Tensor)
        assert result.requires_grad
        assert_array_equal(result.data, getattr(array, "data", array) if constant else array)
        if result.size:
            check_op(lambda *xs, i=i: [*call(*xs)][i] if len(results) > 1 else call(*xs), *arrays)


def test_pad_takes_widths_by_axis_as_later_versions_of_numpy_do():
    padded = np.pad(mb.Tensor(C), {-1: 2, 0: (1, 0)})
    assert_array_equal(padded.data, np.pad(C, ((1, 0), (0, 0), (2, 2))))
    check_op(np.pad, C, {-1: 2, 0: (1, 0)})


def test_widths_that_change_later_do_not_change_the_gradient():
    x, widths = mb.Tensor(A, requires_grad=True), np.array([[1, 0], [0, 2]])
    y = np.pad(x, widths)
    widths[...] = 0
    y.backward(np.ones(y.shape))
    assert_array_equal(x.grad, np.ones((2, 3)))


def test_ops_of_these_calls():
    x = mb.Tensor(A, requires_grad=True)
    for y, name, params in (
        (np.clip(x, 0, 1), "clip", {"min": 0, "max": 1}),
        (np.einsum("ij->j", x), "einsum", {"subscripts": "ij->j", "optimize": False}),
        (np.pad(x, 2), "pad", {"pad_width": 2, "constant_values": 0}),
        (np.swapaxes(x, 0, 1), "swapaxes", {"axis1": 0, "axis2": 1}),
        (np.split(x, 3, 1)[1], "index", {"key": (slice(None), slice(1, 2))}),
        (np.ravel(x), "reshape", {"shape": -1}),
    ):
        assert (y.op.name, y.params) == (name, params)
        assert y.inputs == (x,)


t = mb.Tensor(A, requires_grad=True, name="t")
u = mb.Tensor(0.5, requires_grad=True, name="u")
REFUSED = {
    "clip, bound": (lambda: np.clip(t, 0, u), TypeError, "np.clip takes u .*constant.*np.minimum"),
    "clip of an array": (lambda: np.clip(A, u, 1), TypeError, "np.clip takes u .*np.maximum"),
    "clip, out": (lambda: np.clip(t, 0, 1, out=A), TypeError, "np.clip.*does not take out="),
    "clip, shapes": (lambda: np.clip(t, np.ones(2), 3), ValueError, r"clip\(t \(2, 3\).*broadcast"),
    "einsum, lists": (lambda: np.einsum(t, [0, 1], [0]), TypeError, "np.einsum.*string such as"),
    "einsum, out": (lambda: np.einsum("ij", t, out=A), TypeError, "np.einsum.*does not take out="),
    "einsum, lengths": (lambda: np.einsum("ij,ij", t, B), ValueError, r"einsum\(t \(2, 3\).*array"),
    "einsum, axes": (lambda: np.einsum("ijk", t), ValueError, r"einsum\(t \(2, 3\).*'ijk'"),
    "einsum, letters": (lambda: np.einsum("ij->k", t), ValueError, r"einsum\(t \(2, 3\).*'ij->k'"),
    "einsum, operands": (lambda: np.einsum("i,j", t), ValueError, r"einsum\(t \(2, 3\)"),
    "pad, mode": (lambda: np.pad(t, 1, "edge"), TypeError, r"np.pad\(t .*mode='edge'.*'constant'"),
    "pad, option": (lambda: np.pad(t, 1, stat_length=1), TypeError, "does not take stat_length="),
    "pad, entry": (lambda: np.pad(t, 1, constant_values=u), TypeError, "np.pad takes u .*constant"),
    "pad, negative": (lambda: np.pad(t, -1), ValueError, r"pad\(t \(2, 3\).*negative"),
    "pad, axes": (lambda: np.pad(t, ((1, 1),) * 3), ValueError, r"pad\(t \(2, 3\)"),
    "pad, fractions": (lambda: np.pad(t, 0.5), TypeError, r"pad\(t \(2, 3\).*integral"),
    "split, unequal": (lambda: np.split(t, 2, 1), ValueError, r"split\(t \(2, 3\).*equal division"),
    "split, text": (lambda: np.split(t, "ab"), TypeError, r"np.split\(t \(2, 3\).*'ab'.*number"),
    "array_split, none": (lambda: np.array_split(t, 0), ValueError, r"array_split\(t .*larger"),
    "swapaxes, axis": (lambda: np.swapaxes(t, 0, 2), ValueError, r"swapaxes\(t .*axis.*\[-ndim"),
    "ravel, order": (lambda: np.ravel(t, order="F"), TypeError, "np.ravel.*does not take order="),
    "windows": (
        lambda: ops.windows(t, size=(3, 1)), ValueError, r"windows\(t \(2, 3\).*larger than",
    ),
    "windows, axes": (lambda: ops.windows(u, size=(1, 1)), ValueError, r"windows\(u \(\).*axis"),
    "fold": (
        lambda: ops.fold(mb.Tensor(normal((2, 2, 2, 2))), shape=(4, 3)), ValueError,
        "fold.*images of 4 by 3 do not have 2 by 2 such windows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_with_a_reason(name):
    call, error, words = REFUSED[name]
    before = A.copy()
    with pytest.raises(error, match=words):
        call()
    assert_array_equal(A, before)


# Where the derivative jumps


def slopes(fn, *arrays):
    """The gradient of the sum of ``fn`` in each argument, and of the sum of these gradients."""
    xs = [mb.Tensor(a, requires_grad=True) for a in arrays]
    first = mb.grad(fn(*xs), xs, np.ones(np.shape(fn(*arrays))), create_graph=True)
    second = [mb.grad(f, x, np.ones(x.shape)).data for f, x in zip(first, xs, strict=True)]
    return [f.data for f in first], second


def test_clip_passes_the_gradient_at_its_bounds():
    x = np.array([-2.0, -1.0, -0.5, 1.0, 3.0, np.inf, -np.inf, np.nan])
    (first,), (second,) = slopes(lambda x: np.clip(x, -1, 1), x)
    assert_array_equal(first, [0, 1, 1, 1, 0, 0, 0, 1])
    assert_array_equal(second, np.zeros(8))


def test_logaddexp_shares_equally_between_equal_arguments_also_if_they_are_infinite():
    inf = np.inf
    x = np.array([0.0, 700.0, -700.0, inf, -inf, inf, -inf, 3.0, 0.0, 1000.0, -1000.0])
    y = np.array([0.0, 700.0, -700.0, inf, -inf, 0.0, 0.0, inf, -inf, -1000.0, 1000.0])
    (dx, dy), (dxx, dyy) = slopes(np.logaddexp, x, y)
    assert_array_equal(dx, [0.5, 0.5, 0.5, 0.5, 0.5, 1, 0, 0, 1, 1, 0])
    assert_array_equal(dy, [0.5, 0.5, 0.5, 0.5, 0.5, 0, 1, 1, 0, 0, 1])
    for second in (dxx, dyy):  # where it is infinite, it does not curve
        assert_array_equal(second, [0.25, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0, 0])


def test_the_share_of_a_small_argument_is_as_precise_as_it_is_small():
    (dx, dy), _ = slopes(np.logaddexp, np.array([0.0, 1e6]), np.array([-600.0, 1e6 - 3]))
    np.testing.assert_allclose(dy, [np.exp(-600.0), 1 / (1 + np.exp(3.0))], rtol=1e-13)
    np.testing.assert_allclose(dx, [1.0, 1 / (1 + np.exp(-3.0))], rtol=1e-15)


# Shapes and subscripts, drawn


@st.composite
def contractions(draw):
    """Draw subscripts and shapes that fit them, some axes of length 1 among them."""
    letters = draw(st.integers(1, 4))
    sizes = [draw(st.integers(1, 3)) for _ in range(letters)]
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        term = draw(st.lists(st.integers(0, letters - 1), max_size=3))
        stretched = draw(st.sampled_from(sorted({*term}))) if term and draw(st.booleans()) else None
        shapes.append(tuple(1 if i == stretched else sizes[i] for i in term))
        terms.append("".join(string.ascii_lowercase[i] for i in term))
    used = sorted({c for term in terms for c in term})
    output = draw(st.none() | st.lists(st.sampled_from(used or ["a"]), unique=True, max_size=3))
    given = ",".join(terms)
    if output is None or not {*output} <= {*used}:
        return given, shapes
    return f"{given}->{''.join(output)}", shapes


@given(drawn=contractions(), seed=seeds)
def test_einsum_of_any_subscripts(drawn, seed):
    subscripts, shapes = drawn
    arrays = [np.asarray(np.random.default_rng(seed).standard_normal(shape)) for shape in shapes]
    result = np.einsum(subscripts, *(mb.Tensor(a) for a in arrays))
    assert_array_equal(result.data, np.einsum(subscripts, *arrays))
    check_op(lambda *xs: np.einsum(subscripts, *xs), *arrays, order=1)


@given(data=st.data(), shape=npst.array_shapes(max_dims=3, max_side=3), seed=seeds)
def test_pad_of_any_widths(data, shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    n = st.integers(0, 3)
    pair = st.tuples(n, n)
    widths = data.draw(n | pair | st.tuples(pair) | st.tuples(*[pair] * x.ndim))
    assert_array_equal(np.pad(mb.Tensor(x), widths).data, np.pad(x, widths))
    check_op(np.pad, x, widths, order=1)


@given(data=st.data(), seed=seeds)
def test_fold_is_the_transpose_of_windows(data, seed):
    draw = np.random.default_rng(seed)
    size, stride, dilation = (tuple(data.draw(st.integers(1, 3)) for _ in "hw") for _ in range(3))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]
    shape = tuple(r + data.draw(st.integers(0, 4)) for r in reach)
    how = {"stride": stride, "dilation": dilation}
    x = draw.integers(-9, 9, (2, *shape))
    cut = ops.windows(x, size=size, **how)
    for p, q, i, j in np.ndindex(cut.shape[1:]):
        row, column = p * stride[0] + i * dilation[0], q * stride[1] + j * dilation[1]
        assert_array_equal(cut[:, p, q, i, j], x[:, row, column])
    g = draw.integers(-9, 9, cut.shape)
    assert (cut * g).sum() == (x * ops.fold(g, shape=shape, **how)).sum()
    assert not cut.flags.writeable
    assert np.shares_memory(cut, x)
