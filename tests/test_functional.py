"""What is composed of primitives: batch norm to the letter, its relatives by their formulas."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import functional as F
from microbn import handwritten
from microbn.testing import check_op

rng = np.random.default_rng(0)
normal = rng.standard_normal


def leaf(data):
    return mb.Tensor(data, requires_grad=True)


# Batch norm, stage by stage

STAGES = [
    ("mean", "mean"), ("sub", "centered"), ("pow", "squared"), ("mean", "var"), ("add", "var_eps"),
    ("sqrt", "std"), ("pow", "inv_std"), ("mul", "x_hat"), ("mul", "scaled"), ("add", "y"),
]  # fmt: skip


def stages(y):
    """Return the recorded tensors from first to last."""
    return [tensor for tensor, _ in mb.backprop(y, np.ones(y.shape)) if tensor.op is not None][::-1]


@pytest.mark.parametrize(
    ("gamma", "beta", "dropped"),
    [
        (True, True, []),
        (True, False, ["y"]),
        (False, True, ["scaled"]),
        (False, False, ["scaled", "y"]),
    ],
)
def test_the_ops_of_batch_norm_are_those_of_the_contract(gamma, beta, dropped):
    weights = {"gamma": leaf(normal(3))} if gamma else {}
    weights |= {"beta": leaf(normal(3))} if beta else {}
    made = stages(mb.batch_norm(leaf(normal((4, 3))), **weights))
    assert [(t.op.name, t.name) for t in made] == [s for s in STAGES if s[1] not in dropped]
    assert {t.scope for t in made} == {("batch_norm",)}


def test_the_stages_hold_what_their_names_say():
    array, scale, shift = normal((4, 3)), normal(3), normal(3)
    x, gamma, beta = leaf(array), leaf(scale), leaf(shift)
    with mb.scope("layers.1"):
        made = stages(mb.batch_norm(x, gamma, beta, eps=0.25))
    mean, centered, squared, var, var_eps, std, inv_std, x_hat, scaled, y = made
    assert all(t.scope == ("layers.1", "batch_norm") for t in made)
    for tensor, expected in {
        mean: array.mean(0), centered: array - array.mean(0), squared: (array - array.mean(0)) ** 2,
        var: array.var(0), var_eps: array.var(0) + 0.25, std: np.sqrt(array.var(0) + 0.25),
        inv_std: 1 / np.sqrt(array.var(0) + 0.25),
        x_hat: (array - array.mean(0)) / np.sqrt(array.var(0) + 0.25),
        scaled: (array - array.mean(0)) / np.sqrt(array.var(0) + 0.25) * scale,
        y: (array - array.mean(0)) / np.sqrt(array.var(0) + 0.25) * scale + shift,
    }.items():  # fmt: skip
        assert_allclose(tensor.data, expected, rtol=1e-12, atol=1e-14, strict=True)
    assert [t.inputs for t in made] == [
        (x,), (x, mean), (centered, 2), (squared,), (var, 0.25), (var_eps,), (std, -1),
        (centered, inv_std), (x_hat, gamma), (scaled, beta),
    ]  # fmt: skip
    assert mean.params == var.params == {"axis": 0, "keepdims": False}


@pytest.mark.parametrize(
    ("shape", "axis", "statistics", "recorded"),
    [
        ((4, 3), 0, (3,), 0),
        ((4, 3), -2, (3,), 0),
        ((4, 3), (0,), (3,), 0),
        ((4, 3), 1, (4, 1), 1),
        ((4, 3), -1, (4, 1), 1),
        ((4, 3), (0, 1), (1, 1), (0, 1)),
        ((4,), 0, (1,), 0),
        ((4, 3, 2), 0, (1, 3, 2), 0),
        ((4, 3, 2, 2), (0, 2, 3), (1, 3, 1, 1), (0, 2, 3)),
        ((4, 3, 2, 2), (-1, -2, 0), (1, 3, 1, 1), (0, 2, 3)),
    ],
)
def test_statistics_keep_their_reduced_axes_except_over_the_rows_of_a_matrix(
    shape, axis, statistics, recorded
):
    x = normal(shape)
    made = stages(mb.batch_norm(leaf(x), axis=axis, eps=0.5))
    mean, var = made[0], made[3]
    assert mean.shape == var.shape == statistics
    assert mean.params == {"axis": recorded, "keepdims": statistics != (3,)}
    spread = np.sqrt(x.var(axis=axis, keepdims=True) + 0.5)
    assert_allclose(made[-1].data, (x - x.mean(axis=axis, keepdims=True)) / spread, rtol=1e-12)
    check_op(mb.batch_norm, x, axis=axis, eps=0.5)


def test_eps_0_is_recorded_too():
    made = stages(mb.batch_norm(leaf(normal((4, 3))), eps=0))
    assert [(t.op.name, t.name) for t in made] == STAGES[:8]
    assert made[4].inputs[1] == 0
    assert_allclose(made[-1].data.var(axis=0), 1, rtol=1e-12)


def test_images_are_normalised_like_the_matrix_of_their_pixels():
    x, gamma, beta, g = normal((4, 3, 5, 2)), normal(3), normal(3), normal((4, 3, 5, 2))
    flat = lambda a: np.moveaxis(a, 1, -1).reshape(-1, 3)  # noqa: E731
    pixels, images = [leaf(a) for a in (flat(x), gamma, beta)], [leaf(a) for a in (x, gamma, beta)]
    weights = (w.reshape(3, 1, 1) for w in images[1:])
    mb.batch_norm(*pixels).backward(flat(g))
    mb.batch_norm(images[0], *weights, axis=(0, 2, 3)).backward(g)
    assert_allclose(flat(images[0].grad), pixels[0].grad, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(images[1:], pixels[1:], strict=True):
        assert_allclose(ours.grad, theirs.grad, rtol=1e-12, strict=True)


# Batch norm against the hand-written passes

SHAPES = (1, 1), (1, 4), (2, 1), (2, 3), (3, 2), (8, 5), (32, 64), (257, 31), (1000, 3)
FORMS = handwritten.backward_staged, handwritten.backward_paper, handwritten.backward_closed


def assert_composed_is_handwritten(x, eps, dtype):
    m, d = x.shape
    x, gamma, beta, dy = (a.astype(dtype) for a in (x, normal(d), normal(d), normal((m, d))))
    inputs = [leaf(a) for a in (x, gamma, beta)]
    y = mb.batch_norm(*inputs, eps=eps)
    y.backward(dy)
    expected, cache = handwritten.forward(x, gamma, beta, eps)
    # Roundoff is that of what is added up. Centering loses as many digits as |x| / std has.
    unit = 16 * np.finfo(dtype).eps * (1 + np.abs(x).max(axis=0) * cache.inv_std)
    total = np.abs(dy).sum(axis=0)
    sizes = np.abs(gamma) * cache.inv_std * np.abs(dy).max(axis=0), total, total
    assert y.dtype == dtype
    assert (np.abs(y.data - expected) <= unit * (np.abs(expected) + np.abs(gamma))).all()
    for backward in FORMS:
        for t, want, size in zip(inputs, backward(dy, cache), sizes, strict=True):
            assert t.grad.shape == want.shape
            assert t.grad.dtype == want.dtype == dtype
            assert (np.abs(t.grad - want) <= unit * size).all()


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_composed_is_handwritten(shape, dtype, offset):
    assert_composed_is_handwritten(normal(shape) + offset, 1e-5, dtype)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_composed_is_handwritten_on_constant_columns(dtype, value):
    x = normal((12, 3))
    x[:, 1] = value
    assert_composed_is_handwritten(x, 1e-5, dtype)


@given(
    m=st.integers(1, 40),
    d=st.integers(1, 8),
    eps=st.sampled_from([1e-8, 1e-5, 1e-3, 0.5]),
    offset=st.sampled_from([0.0, -3.0, 100.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_composed_is_handwritten_for_any_size(m, d, eps, offset, dtype, seed):
    x = np.random.default_rng(seed).standard_normal((m, d)) + offset
    assert_composed_is_handwritten(x, eps, dtype)


def test_a_single_example_is_its_own_mean():
    x, gamma, beta = leaf(normal((1, 3))), leaf(normal(3)), leaf(normal(3))
    y, dy = mb.batch_norm(x, gamma, beta), normal((1, 3))
    y.backward(dy)
    assert_array_equal(y.data, beta.data[None])
    assert_array_equal(x.grad, np.zeros((1, 3)))
    assert_array_equal(gamma.grad, np.zeros(3))
    assert_array_equal(beta.grad, dy[0])


# A batch norm that is no composition: kept as a warning


def fused_batch_norm():
    """Return batch norm as one Op, with the closed form as its rule, and its inverse std stashed.

    That is how a kernel is usually wrapped. The rule takes the stashed number for a constant.
    """
    stash = {}

    def forward(x):
        stash["inv_std"] = (x.var(axis=0) + 1e-5) ** -0.5
        return (x - x.mean(axis=0)) * stash["inv_std"]

    def rule(g, out, x):
        x_hat = (x - np.mean(x, axis=0)) * stash["inv_std"]
        return stash["inv_std"] * (g - np.mean(g, axis=0) - x_hat * np.mean(g * x_hat, axis=0))

    return mb.ops.Op("fused_batch_norm", forward, rule)


def test_a_stash_is_right_at_order_1_and_wrong_at_order_2():
    array, g, v = normal((8, 3)), normal((8, 3)), normal((8, 3))
    firsts, seconds = [], []
    for norm in (mb.batch_norm, fused_batch_norm()):
        x = leaf(array)
        first = mb.grad(norm(x), x, g, create_graph=True)
        firsts.append(first.data)
        seconds.append(mb.grad(first, x, v).data)
    assert_allclose(firsts[1], firsts[0], rtol=1e-12, atol=1e-14)
    error = np.linalg.norm(seconds[1] - seconds[0]) / np.linalg.norm(seconds[0])
    assert error > 0.1


def test_check_op_tells_the_stash_from_the_composition():
    x = normal((8, 3))
    check_op(mb.batch_norm, x, order=3)
    check_op(fused_batch_norm(), x, order=1)
    with pytest.raises(AssertionError, match="fused_batch_norm, order 2, argument 0"):
        check_op(fused_batch_norm(), x, order=2)


# The others, against their formulas in multiple precision

ROWS = np.array(
    [[0.5, -1.0, 2.0], [1000.0, 999.0, -1000.0], [-1e4, -1e4, -1e4], [0.0, 800.0, 1e-300]]
)
PEAKED = np.array([[0.0, 1e6, -1e6], [3e4, 3e4, 0.0]])


def exactly(formula, *arrays):
    """Apply a formula for a row of exact numbers to each row."""
    with mpmath.workdps(60):
        rows = [
            formula(*([mpmath.mpf(v) for v in row] for row in rows))
            for rows in zip(*arrays, strict=True)
        ]
        return np.array([[float(v) for v in row] for row in rows])


def exact_softmax(x):
    total = mpmath.fsum(mpmath.exp(v) for v in x)
    return [mpmath.exp(v) / total for v in x]


def exact_log_softmax(x):
    total = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in x))
    return [v - total for v in x]


FORMULAS = {  # the function, its formula on a row, and the pullback of g
    "sigmoid": (
        F.sigmoid,
        lambda x: [1 / (1 + mpmath.exp(-v)) for v in x],
        lambda x, g: [c / (2 + mpmath.exp(-v) + mpmath.exp(v)) for v, c in zip(x, g, strict=True)],
    ),
    "tanh": (
        F.tanh,
        lambda x: [mpmath.tanh(v) for v in x],
        lambda x, g: [c * mpmath.sech(v) ** 2 for v, c in zip(x, g, strict=True)],
    ),
    "softmax": (
        F.softmax,
        exact_softmax,
        lambda x, g: [
            p * (c - mpmath.fdot(exact_softmax(x), g))
            for p, c in zip(exact_softmax(x), g, strict=True)
        ],
    ),
    "log_softmax": (
        F.log_softmax,
        exact_log_softmax,
        lambda x, g: [c - p * mpmath.fsum(g) for p, c in zip(exact_softmax(x), g, strict=True)],
    ),
    "logsumexp": (
        lambda x: F.logsumexp(x, keepdims=True),
        lambda x: [mpmath.log(mpmath.fsum(mpmath.exp(v) for v in x))],
        lambda x, g: [p * g[0] for p in exact_softmax(x)],
    ),
}


@pytest.mark.parametrize("rows", [normal((5, 4)), normal((5, 4)) * 30, ROWS, PEAKED])
@pytest.mark.parametrize("name", FORMULAS)
def test_functions_equal_their_formulas_also_at_extreme_values(name, rows):
    fn, formula, formula_back = FORMULAS[name]
    x = leaf(rows)
    y = fn(x)
    assert_allclose(y.data, exactly(formula, rows), rtol=1e-12, atol=1e-15)
    g = normal(y.shape)
    y.backward(g)
    assert_allclose(x.grad, exactly(formula_back, rows, g), rtol=1e-11, atol=1e-14)
    assert fn(rows.astype(np.float32)).dtype == np.float32


def test_log_softmax_is_as_precise_as_its_result_not_as_its_logits():
    logits = np.array([30000, 30000, 29999], np.float32)
    expected = exactly(exact_log_softmax, [logits.tolist()])[0]
    assert_allclose(F.log_softmax(logits), expected, rtol=1e-6)
    assert_allclose(F.cross_entropy(logits[None], [2]), -expected[2], rtol=1e-6)


def test_entries_of_minus_infinity_are_left_out():
    x = leaf([0.5, -np.inf, 2.0])
    for fn in (F.softmax, F.logsumexp):
        y, kept = fn(x), fn(x.data[::2])
        assert_allclose(y.data.sum(), kept.sum(), rtol=1e-15)
        assert mb.grad(y, x, np.ones(y.shape)).data[1] == 0


def test_logsumexp_of_infinities():
    assert F.logsumexp(np.array([np.inf, 0.0])) == np.inf
    with np.errstate(divide="ignore"):  # NumPy's word on log(0)
        assert F.logsumexp(np.array([-np.inf, -np.inf])) == -np.inf


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("fn", [F.softmax, F.log_softmax, F.logsumexp])
def test_axes_are_moved_to_be_the_last(fn, axis):
    x = normal((3, 4, 2))
    last = fn(np.moveaxis(x, axis, -1))
    expected = last if fn is F.logsumexp else np.moveaxis(last, -1, axis)
    assert_allclose(fn(x, axis=axis), expected, rtol=1e-13, strict=True)
    check_op(fn, x, axis=axis)


def test_logsumexp_over_several_axes():
    x = normal((3, 4, 2))
    assert_allclose(F.logsumexp(x, axis=(0, 2)), np.log(np.exp(x).sum(axis=(0, 2))), rtol=1e-13)
    assert_allclose(F.logsumexp(x, axis=None), np.log(np.exp(x).sum()), rtol=1e-13)
    check_op(F.logsumexp, x, axis=None)


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("wrap", [np.array, np.uint8, mb.Tensor, list])
def test_cross_entropy_and_its_gradient(wrap, scale):
    rows, targets = normal((4, 3)) * scale, [0, 2, 1, 2]
    logits = leaf(rows)
    loss = F.cross_entropy(logits, wrap(targets))
    loss.backward()
    picked = exactly(exact_log_softmax, rows)[range(4), targets]
    assert_allclose(loss.data, -picked.mean(), rtol=1e-12)
    assert_allclose(
        logits.grad, (exactly(exact_softmax, rows) - np.eye(3)[targets]) / 4, atol=1e-15
    )


def test_cross_entropy_of_a_hopeless_guess_is_finite():
    logits = leaf([[1e6, 0.0]])
    loss = F.cross_entropy(logits, [1])
    loss.backward()
    assert loss.item() == 1e6
    assert_array_equal(logits.grad, [[1, -1]])


def test_mse_and_its_gradients():
    x, y = normal((4, 3)), normal((4, 3))
    p, t = leaf(x), leaf(y)
    loss = F.mse(p, t)
    loss.backward()
    assert_allclose(loss.data, ((x - y) ** 2).sum() / 12, rtol=1e-14)
    assert_allclose(p.grad, (x - y) / 6, rtol=1e-14)
    assert_allclose(t.grad, (y - x) / 6, rtol=1e-14)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (2, 1), np.int64(1)])
@pytest.mark.parametrize(
    "options", [{}, {"keepdims": True}, {"ddof": 1}, {"ddof": 1, "keepdims": True}]
)
def test_var_and_std_are_numpys(axis, options):
    x = normal((3, 4, 2)) + 5
    t = leaf(x)
    for expected, *ways in (
        (np.var(x, axis=axis, **options), np.var, mb.Tensor.var, F.var),
        (np.std(x, axis=axis, **options), np.std, mb.Tensor.std, F.std),
    ):
        for way in ways:
            assert_allclose(way(t, axis=axis, **options).data, expected, rtol=1e-12, strict=True)
    centered = x - x.mean(axis=axis, keepdims=True)
    n = centered.size / np.var(x, axis=axis).size
    slope = mb.grad(t.var(axis=axis, **options).sum(), t).data
    assert_allclose(slope, 2 * centered / (n - options.get("ddof", 0)), rtol=1e-11)
    check_op(np.std, x, axis=axis, **options)


def test_layer_norm_is_batch_norm_of_the_transpose():
    x, gamma, beta = leaf(normal((4, 3))), leaf(normal(3)), leaf(normal(3))
    made = stages(mb.functional.layer_norm(x, gamma, beta))
    assert [(t.op.name, t.name) for t in made] == STAGES
    assert {t.scope for t in made} == {("layer_norm",)}
    expected = handwritten.forward(x.data.T, np.ones(4), np.zeros(4), 1e-5)[0].T
    assert_allclose(made[-1].data, expected * gamma.data + beta.data, rtol=1e-12, atol=1e-14)
    check_op(F.layer_norm, normal((2, 3, 4)), normal(4), normal((3, 1)), eps=0.1)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (2, 6, 3, 2)])
def test_group_norm_is_layer_norm_of_groups(shape, groups):
    x, gamma = leaf(normal(shape)), leaf(normal((6,) + (1,) * (len(shape) - 2)))
    beta = leaf(normal(gamma.shape))
    y = F.group_norm(x, groups, gamma, beta, eps=0.01)
    rows = x.data.reshape(shape[0], groups, -1)
    expected = F.layer_norm(rows, eps=0.01).reshape(shape) * gamma.data + beta.data
    assert_allclose(y.data, expected, rtol=1e-12, atol=1e-13, strict=True)
    made = stages(y)
    assert [(t.op.name, t.name) for t in made if t.op.name != "reshape"] == STAGES
    assert [t.op.name for t in made if t.name is None] == ["reshape", "reshape"]
    assert {t.scope for t in made} == {("group_norm",)}
    check_op(F.group_norm, x.data, groups, gamma.data, beta.data, eps=0.01, order=1)


def test_groups_of_one_channel_are_normalised_per_image_and_channel():
    x = normal((3, 4, 5, 2))
    expected = mb.batch_norm(x, axis=(2, 3), eps=0.1)
    assert_allclose(F.group_norm(x, 4, eps=0.1), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("axis", [-1, 0, (1, 2)])
def test_rms_norm_divides_by_the_root_mean_square(axis):
    x, gamma = leaf(normal((2, 3, 4)) + 1), leaf(normal(4))
    y = F.rms_norm(x, gamma, axis=axis, eps=0.01)
    size = np.sqrt((x.data**2).mean(axis=axis, keepdims=True) + 0.01)
    assert_allclose(y.data, x.data / size * gamma.data, rtol=1e-13)
    made = stages(y)
    assert [(t.op.name, t.name) for t in made] == [
        ("pow", "squared"), ("mean", "mean_square"), ("add", "mean_square_eps"), ("sqrt", "rms"),
        ("pow", "inv_rms"), ("mul", "x_hat"), ("mul", "scaled"),
    ]  # fmt: skip
    assert {t.scope for t in made} == {("rms_norm",)}
    check_op(F.rms_norm, x.data, gamma.data, axis=axis, eps=0.01)


def test_rms_norm_of_what_is_centered_is_layer_norm():
    x = normal((4, 6))
    x -= x.mean(axis=1, keepdims=True)
    assert_allclose(F.rms_norm(x, eps=0.1), F.layer_norm(x, eps=0.1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rms_norm_knows_the_eps_of_a_dtype(dtype):
    x = leaf(np.zeros((2, 3), dtype))
    y = F.rms_norm(x)
    assert y.dtype == dtype
    assert stages(y)[2].inputs[1] == np.finfo(dtype).eps
    y.backward(np.ones((2, 3)))
    assert np.isfinite(x.grad).all()


def test_scale_and_shift_leaves_out_what_is_not_there():
    x, gamma, beta = leaf(normal((4, 3))), leaf(normal(3)), leaf(normal(3))
    assert F.scale_and_shift(x, None, None) is x
    assert F.scale_and_shift(x, gamma, None).name == "scaled"
    y = F.scale_and_shift(x, gamma, beta)
    assert (y.name, y.op.name, y.inputs[0].name) == ("y", "add", "scaled")
    assert_array_equal(y.data, x.data * gamma.data + beta.data)


@pytest.mark.parametrize(
    ("num_groups", "error"),
    [(4, ValueError), (0, ValueError), (-1, ValueError), (2.0, TypeError), (None, TypeError)],
)
def test_group_norm_refuses_groups_that_do_not_divide(num_groups, error):
    with pytest.raises(error):
        F.group_norm(leaf(normal((2, 6, 3))), num_groups)
    with pytest.raises(ValueError, match=r"group_norm\(x \(4, 3\).*num_groups=2.*channels"):
        F.group_norm(x43, 2)
    with pytest.raises(ValueError, match="num_groups=1"):
        F.group_norm(np.ones(3), 1)


def test_group_norm_refuses_weights_that_do_not_broadcast_against_x():
    with pytest.raises(ValueError, match=r"group_norm\(.*gamma has shape \(6,\).*reshape it"):
        F.group_norm(normal((2, 6, 3)), 2, normal(6))


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (mb.batch_norm, [normal((4, 3)), normal(3), normal(3)]),
        (F.layer_norm, [normal((4, 3)), normal(3), normal(3)]),
        (F.group_norm, [normal((4, 3)), 3, normal(3), normal(3)]),
        (F.rms_norm, [normal((4, 3)), normal(3)]),
        (F.gelu, [normal((4, 3))]),
        (F.conv2d, [normal((2, 3, 4, 4)), normal((2, 3, 2, 2)), normal(2)]),
        (F.max_pool2d, [normal((2, 3, 4, 4)), 2]),
        (F.avg_pool2d, [normal((2, 3, 4, 4)), 2]),
        *((fn, [normal((4, 3))]) for fn in (F.relu, F.sigmoid, F.tanh, F.softmax, F.log_softmax)),
        *((fn, [normal((4, 3))]) for fn in (F.logsumexp, F.var, F.std)),
        (F.cross_entropy, [normal((4, 3)), np.array([0, 1, 2, 0])]),
        (F.mse, [normal((4, 3)), normal((4, 3))]),
    ],
)
def test_plain_arrays_and_tensors_alike(fn, args):
    plain = fn(*args)
    traced = fn(*(leaf(a) if np.asarray(a).dtype == float else a for a in args))
    assert isinstance(plain, np.ndarray | np.generic)
    assert traced.requires_grad
    assert_allclose(traced.data, plain, rtol=1e-13, atol=1e-15, strict=True)
    if all(np.asarray(a).dtype == float for a in args):
        assert not fn(*(mb.Tensor(a) for a in args)).requires_grad


# Bad input

x43 = mb.Tensor(normal((4, 3)), requires_grad=True, name="x")


@pytest.mark.parametrize("norm", [mb.batch_norm, F.layer_norm])
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"axis": 2}, ValueError, "axis=2.*2 axes"),
        ({"axis": -3}, ValueError, "axis=-3.*2 axes"),
        ({"axis": (0, 0)}, ValueError, r"axis=\(0, 0\).*once"),
        ({"axis": (1, -1)}, ValueError, r"axis=\(1, -1\).*once"),
        ({"axis": ()}, ValueError, r"axis=\(\)"),
        ({"axis": None}, TypeError, "axis=None"),
        ({"axis": 0.5}, TypeError, "axis=0.5"),
        ({"axis": "rows"}, TypeError, "axis='rows'"),
        ({"eps": float("nan")}, ValueError, "eps=nan.*positive"),
        ({"eps": -1e-5}, ValueError, "eps=-1e-05.*positive"),
        ({"eps": float("inf")}, ValueError, "eps=inf.*positive"),
        ({"eps": "small"}, TypeError, "eps='small'.*number"),
        ({"eps": None}, TypeError, "eps=None.*number"),
        ({"eps": 1j}, TypeError, "eps=1j.*number"),
        ({"eps": True}, TypeError, "eps=True.*number"),
        ({"eps": np.complex64(1)}, TypeError, "eps=.*number"),
        ({"gamma": np.ones(4)}, ValueError, r"x \(4, 3\).*gamma has shape \(4,\).*broadcast"),
        ({"gamma": np.ones((2, 4, 3))}, ValueError, r"gamma has shape \(2, 4, 3\)"),
        ({"beta": np.ones((3, 1))}, ValueError, r"beta has shape \(3, 1\)"),
        ({"beta": mb.Tensor([1.0, 2.0])}, ValueError, r"beta has shape \(2,\)"),
    ],
)
def test_norms_refuse_what_they_cannot_use(norm, options, error, words):
    with pytest.raises(error, match=words) as raised:
        norm(x43, **options)
    assert norm.__name__ in str(raised.value)
    assert mb.Tensor(1.0).scope == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"axis": 2}, "2 axes"), ({"eps": -1.0}, "positive"), ({"gamma": np.ones(4)}, "broadcast")],
)
def test_rms_norm_refuses_the_same(options, words):
    with pytest.raises(ValueError, match=rf"rms_norm.*{words}"):
        F.rms_norm(x43, **options)
    with pytest.raises(TypeError, match=r"rms_norm: eps='small'"):
        F.rms_norm(x43, eps="small")


@pytest.mark.parametrize(
    ("targets", "error", "words"),
    [
        ([0, 1, 2], ValueError, r"\(n, classes\).*targets \(n,\)"),
        ([[0, 1, 2, 0]], ValueError, r"targets \(1, 4\)"),
        ([0, 1, 2, 3], ValueError, "0 to 2"),
        ([0, 1, -1, 0], ValueError, "0 to 2"),
        ([0.0, 1.0, 2.0, 0.0], TypeError, "integers"),
        ([True, False, True, False], TypeError, "integers"),
        (["a", "b", "c", "d"], TypeError, "integers"),
    ],
)
def test_cross_entropy_refuses_bad_targets(targets, error, words):
    with pytest.raises(error, match=words) as raised:
        F.cross_entropy(x43, targets)
    assert "cross_entropy(x (4, 3)" in str(raised.value)


@pytest.mark.parametrize("logits", [normal(3), normal((2, 4, 3)), np.ones((0, 3))])
def test_cross_entropy_refuses_bad_logits(logits):
    with pytest.raises(ValueError, match=r"cross_entropy.*\(n, classes\)"):
        F.cross_entropy(mb.Tensor(logits), np.zeros(len(logits), int))


def test_mse_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r"mse\(x \(4, 3\).*array \(3,\).*broadcast"):
        F.mse(x43, np.ones(3))


@pytest.mark.parametrize("fn", [F.var, F.std])
@pytest.mark.parametrize("ddof", [4, 5, -1])
def test_var_refuses_to_divide_by_nothing(fn, ddof):
    with pytest.raises(ValueError, match=rf"ddof={ddof}.*4"):
        fn(x43, 0, ddof=ddof)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "sigmoid", "batch_norm"])
def test_small_integers_do_not_wrap(name):
    fn, x = getattr(F, name), np.array([[1, 2, 200], [0, 7, 9]], np.uint8)
    expected = fn(x.astype(float))
    assert_allclose(fn(x), expected, rtol=1e-14)
    assert_allclose(fn(mb.Tensor(x)).data, expected, rtol=1e-14)
    assert_allclose(fn(x.tolist()), expected, rtol=1e-14)


def test_mse_of_small_integers_does_not_wrap():
    x = np.array([1, 2, 200], np.uint8)
    assert F.mse(x, x[::-1]) == pytest.approx(2 * 199**2 / 3)


# Constant columns --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constant", [0.1, 12345.678, 1e6 + 1 / 3, -7.7e-3])
@pytest.mark.parametrize("m", [2, 3, 7, 31, 100])
def test_a_constant_column_is_normalised_to_zero(m, constant, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(m, 5)).astype(dtype)
    x[:, 2] = constant
    images = rng.normal(size=(m, 3, 4, 2)).astype(dtype)
    images[:, 1] = constant
    examples = np.ascontiguousarray(x.T)
    batch = mb.batch_norm(mb.Tensor(x)).data
    assert (batch[:, 2] == 0).all()
    assert (np.abs(batch[:, [0, 1, 3, 4]]).max(0) > 0.5).all()
    assert (mb.batch_norm(mb.Tensor(images), axis=(0, 2, 3)).data[:, 1] == 0).all()
    assert (F.layer_norm(mb.Tensor(examples)).data[2] == 0).all()
