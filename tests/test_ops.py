"""The primitives: derivatives over shapes, layouts and dtypes; ties; the ways to call each."""

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import kernels, ops
from microbn.testing import check_op

rng = np.random.default_rng(0)


def any_(*shape):
    """Return numbers of both signs, none near 0, where several functions have a kink."""
    return rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)


def pos(*shape):
    """Return positive numbers, none near 0."""
    return np.asarray(rng.uniform(0.5, 2, shape))


def case(op, *args, **params):
    sizes = " ".join(str(getattr(a, "shape", a)) for a in args)
    options = " ".join(f"{k}={v}" for k, v in params.items())
    return pytest.param(
        op, args, params, id=f"{op.__name__ if op is pick else op.name} {sizes} {options}"
    )


def pick(x, key):
    return x[key]


UNARY = {
    ops.neg: any_, ops.abs: any_, ops.relu: any_, ops.exp: any_, ops.tanh: any_, ops.sin: any_,
    ops.cos: any_, ops.sqrt: pos, ops.log: pos, ops.log1p: pos, ops.erf: any_, ops.clip: any_,
}  # fmt: skip
BINARY = {
    ops.add: any_, ops.sub: any_, ops.mul: any_, ops.div: any_, ops.pow: pos, ops.maximum: any_,
    ops.minimum: any_, ops.logaddexp: any_,
}  # fmt: skip
REDUCTIONS = ops.sum, ops.mean, ops.max, ops.min
SHAPES = (3, 4), (1,), (), (0, 3)
PAIRS = (
    ((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (3, 4)), ((3, 1), (1, 4)), ((3, 1), (2, 1, 4)),
    ((), (3,)), ((3,), ()), ((), ()), ((1, 1), ()), ((0, 3), (3,)), ((1,), (2, 0)),
)  # fmt: skip
AXES = None, 0, -1, (0, 2), (-1, 1), (0, 1, 2), ()
STEPS = {"stride": (2, 1), "dilation": (1, 2)}
rows, pairs = np.array([0, 0, 2]), np.array([[0, 1], [1, -1]])

CASES = [
    *(case(op, draw(*shape)) for op, draw in UNARY.items() for shape in SHAPES),
    *(case(op, draw(*a), draw(*b)) for op, draw in BINARY.items() for a, b in PAIRS),
    *(case(op, 3.0, draw(2, 3)) for op, draw in BINARY.items()),
    *(case(op, draw(2, 3), 3) for op, draw in BINARY.items()),
    *(case(op, draw(2, 3), np.array([1, 2, 3])) for op, draw in BINARY.items()),
    case(ops.pow, any_(3), 2),
    case(ops.pow, any_(3), 0),
    case(ops.pow, any_(3), 1),
    case(ops.pow, any_(3), -1),
    case(ops.pow, any_(3), np.array([2, -3, 0])),
    case(ops.pow, pos(3), 0.5),
    case(ops.pow, pos(3), np.float64(-1.5)),
    case(ops.where, np.array([True, False, True]), any_(3), any_(3)),
    case(ops.where, np.array([[True], [False]]), any_(3), any_()),
    case(ops.where, np.array(True), any_(2, 3), any_(3)),
    case(ops.where, np.array([1, 0]), any_(2, 1), 0),
    case(ops.matmul, any_(3), any_(3)),
    case(ops.matmul, any_(2, 3), any_(3)),
    case(ops.matmul, any_(3), any_(3, 4)),
    case(ops.matmul, any_(2, 3), any_(3, 4)),
    case(ops.matmul, any_(5, 2, 3), any_(3)),
    case(ops.matmul, any_(3), any_(5, 3, 4)),
    case(ops.matmul, any_(5, 2, 3), any_(3, 4)),
    case(ops.matmul, any_(2, 3), any_(5, 3, 4)),
    case(ops.matmul, any_(5, 2, 3), any_(5, 3, 4)),
    case(ops.matmul, any_(5, 1, 2, 3), any_(4, 3, 2)),
    case(ops.matmul, any_(1, 2, 3), any_(5, 3, 2)),
    case(ops.matmul, any_(0, 3), any_(3, 2)),
    case(ops.matmul, any_(2, 0), any_(0, 3)),
    case(ops.matmul, any_(3), np.ones((3, 2), int)),
    *(case(op, any_(3, 2, 4), axis=axis) for op in REDUCTIONS for axis in AXES),
    *(case(op, any_(3, 2, 4), axis=axis, keepdims=True) for op in REDUCTIONS for axis in AXES),
    *(case(op, any_(3, 4), axis=np.int64(1)) for op in REDUCTIONS),
    *(case(op, any_()) for op in REDUCTIONS),
    *(case(op, any_(), axis=(), keepdims=True) for op in REDUCTIONS),
    *(case(op, any_(0, 3), axis=1) for op in REDUCTIONS),
    *(case(op, any_(0, 3), axis=-1, keepdims=True) for op in REDUCTIONS),
    case(ops.sum, any_(0, 3), axis=0),
    case(ops.sum, any_(0, 3)),
    case(ops.reshape, any_(3, 4), shape=(2, 6)),
    case(ops.reshape, any_(3, 4), shape=(2, -1, 3)),
    case(ops.reshape, any_(3, 4), shape=-1),
    case(ops.reshape, any_(1, 1), shape=()),
    case(ops.reshape, any_(), shape=(1, 1)),
    case(ops.reshape, any_(0, 3), shape=(3, 0, 2)),
    case(ops.transpose, any_(3, 4)),
    case(ops.transpose, any_(3, 4, 2)),
    case(ops.transpose, any_(3, 4, 2), axes=(1, 2, 0)),
    case(ops.transpose, any_(3, 4, 2), axes=(-1, 0, 1)),
    case(ops.transpose, any_(2)),
    case(ops.transpose, any_()),
    case(ops.transpose, any_(0, 3)),
    case(ops.squeeze, any_(1, 3, 1)),
    case(ops.squeeze, any_(1, 3, 1), axis=0),
    case(ops.squeeze, any_(1, 3, 1), axis=-1),
    case(ops.squeeze, any_(1, 3, 1), axis=(0, 2)),
    case(ops.expand_dims, any_(3, 4), axis=0),
    case(ops.expand_dims, any_(3, 4), axis=-1),
    case(ops.expand_dims, any_(3, 4), axis=(0, 2)),
    case(ops.expand_dims, any_(), axis=0),
    case(ops.broadcast_to, any_(4), shape=(3, 4)),
    case(ops.broadcast_to, any_(3, 1), shape=(2, 3, 4)),
    case(ops.broadcast_to, any_(), shape=(2, 3)),
    case(ops.broadcast_to, any_(3, 4), shape=(3, 4)),
    case(ops.broadcast_to, any_(1), shape=(0,)),
    case(ops.sum_to, any_(3, 4), shape=(4,)),
    case(ops.sum_to, any_(3, 4), shape=(3, 1)),
    case(ops.sum_to, any_(2, 3, 4), shape=(1, 4)),
    case(ops.sum_to, any_(3, 4), shape=()),
    case(ops.sum_to, any_(3, 4), shape=(3, 4)),
    case(ops.sum_to, any_(0, 4), shape=(4,)),
    case(ops.sum_to, any_(), shape=()),
    case(ops.index, any_(4), key=1),
    case(ops.index, any_(4), key=slice(None, None, -2)),
    case(ops.index, any_(3, 4), key=(-1, slice(1, 3))),
    case(ops.index, any_(3, 4), key=(Ellipsis, 0)),
    case(ops.index, any_(3, 4), key=(slice(None), None, 1)),
    case(ops.index, any_(3, 4), key=(slice(3, None), 0)),
    case(ops.index, any_(3, 4), key=rows),
    case(ops.index, any_(3, 4), key=pairs),
    case(ops.index, any_(3, 4), key=(rows, rows)),
    case(ops.index, any_(3, 4), key=(slice(None), rows)),
    case(ops.index, any_(3, 4, 3), key=(rows, slice(None), rows)),
    case(ops.index, any_(3, 4), key=np.array([0, -3])),
    case(ops.index, any_(3, 4), key=np.array([], int)),
    case(ops.index, any_(3), key=np.array([True, False, True])),
    case(ops.index, any_(2, 2), key=np.array([[True, False], [True, True]])),
    case(ops.index, any_(3, 4), key=(np.array([True, False, True]), np.array([1, 1]))),
    case(ops.index, any_(), key=()),
    case(ops.index, any_(), key=None),
    case(pick, any_(3, 4), [0, 0, 1]),
    case(pick, any_(3, 4), ([0, 0], 1)),
    case(pick, any_(3, 4), np.int64(1)),
    case(pick, any_(3, 4), mb.Tensor([0, 0])),
    case(ops.scatter, any_(3), key=rows, shape=(4,)),
    case(ops.scatter, any_(3, 2), key=rows, shape=(4, 2)),
    case(ops.scatter, any_(2, 2), key=(slice(1, 3), slice(None, None, 2)), shape=(4, 3)),
    case(ops.scatter, any_(), key=1, shape=(4,)),
    case(ops.scatter, any_(2), key=np.array([True, False, True]), shape=(3,)),
    case(ops.concatenate, any_(2, 3), any_(1, 3)),
    case(ops.concatenate, any_(2, 3), any_(2, 1), any_(2, 2), axis=1),
    case(ops.concatenate, any_(2, 3), any_(2, 1), axis=-1),
    case(ops.concatenate, any_(2, 3), any_(0, 3)),
    case(ops.concatenate, any_(2)),
    case(ops.concatenate, any_(2), np.array([1, 2])),
    case(ops.concatenate, any_(2, 3), any_(2), axis=None),
    case(ops.stack, any_(3), any_(3)),
    case(ops.stack, any_(2, 3), any_(2, 3), any_(2, 3), axis=1),
    case(ops.stack, any_(2, 3), any_(2, 3), axis=-1),
    case(ops.stack, any_(), any_()),
    case(ops.stack, any_(0), any_(0), axis=1),
    case(ops.clip, any_(3, 4), min=-1, max=1.5),
    case(ops.clip, any_(3, 4), min=-1.25),
    case(ops.clip, any_(2, 3), max=np.array([[1.0], [0.25], [-1.0]])[:, None]),
    case(ops.swapaxes, any_(3, 4, 2), axis1=0, axis2=-1),
    case(ops.swapaxes, any_(3, 4), axis1=1, axis2=1),
    case(ops.pad, any_(2, 3), pad_width=1),
    case(ops.pad, any_(2, 3), pad_width=(0, 2), constant_values=-1.5),
    case(ops.pad, any_(2, 3), pad_width=((1, 2), (0, 3)), constant_values=((1, 2), (3, 4))),
    case(ops.pad, any_(2, 3), pad_width=[[1], [2]]),
    case(ops.pad, any_(2, 0, 1), pad_width=((1, 2),)),
    case(ops.windows, any_(4, 5), size=(2, 3)),
    case(ops.windows, any_(2, 1, 4, 5), size=(2, 2), stride=(3, 2)),
    case(ops.windows, any_(2, 5, 6), size=(2, 3), **STEPS),
    case(ops.windows, any_(3, 3), size=(3, 3)),
    case(ops.windows, any_(0, 3, 3), size=(1, 2)),
    case(ops.fold, any_(3, 3, 2, 3), shape=(4, 5)),
    case(ops.fold, any_(2, 1, 1, 2, 2, 2), shape=(4, 5), stride=(3, 2)),
    case(ops.fold, any_(2, 2, 2, 2, 3), shape=(5, 6), **STEPS),
    case(ops.fold, any_(0, 3, 2, 1, 2), shape=(3, 3)),
    *(
        case(ops.einsum, *(any_(*shape) for shape in shapes), subscripts=subscripts)
        for subscripts, *shapes in (
            ("ij,jk", (2, 3), (3, 4)),
            ("ij,jk->ki", (2, 3), (3, 4)),
            ("ij->ji", (2, 3)),
            ("ba", (2, 3)),
            ("ij->", (2, 3)),
            ("ij->j", (2, 3)),
            ("i,j", (2,), (3,)),
            ("i,i->", (3,), (3,)),
            ("ii", (3, 3)),
            ("ii->i", (3, 3)),
            ("iij->ij", (2, 2, 3)),
            ("iji,iii->j", (2, 3, 2), (2, 2, 2)),
            ("ij,kl->il", (2, 3), (4, 2)),
            ("i,ij,j->", (2,), (2, 3), (3,)),
            ("...ij,jk", (2, 2, 3), (3, 4)),
            ("...ij,...jk->...ik", (2, 1, 2, 3), (4, 3, 2)),
            ("i...->...", (2, 3, 2)),
            ("...,...", (2, 3), (3,)),
            ("b...,bj->j...", (2, 3), (2, 2)),
            ("ij,jk", (2, 1), (3, 4)),
            ("ij,ij->ij", (1, 3), (2, 1)),
            ("ij,ij->i", (1, 3), (2, 1)),
            ("ii,i", (1, 1), (3,)),
            (",ij", (), (2, 3)),
            ("", ()),
            ("ij,jk", (0, 3), (3, 2)),
            ("ij,jk", (2, 0), (0, 2)),
        )
    ),
    case(ops.einsum, any_(2, 3), any_(3, 2), any_(2), subscripts="ij,jk,k", optimize=True),
    case(ops.einsum, any_(2, 1), any_(3, 2), subscripts="ij,jk->ki", optimize=True),
    case(ops.einsum, any_(2, 3), np.array([1, 2, 3]), subscripts="ij,j->i"),
    case(ops.astype, any_(2, 3), dtype=np.float32),
    case(ops.astype, any_(2, 3), dtype=np.float64),
    case(ops.astype, any_(), dtype=np.float32),
]  # fmt: skip


def spread(a):
    """Return ``a`` with strides: every third element along each axis, backwards."""
    wide = np.ones([3 * n for n in a.shape], a.dtype)
    view = wide[tuple(slice(None, None, -3) for _ in a.shape)] if a.ndim else a
    view[...] = a
    return view


FORMS = {
    "float64": lambda a: a,
    "float32": lambda a: a.astype(np.float32),
    "fortran": np.asfortranarray,
    "strided": spread,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("op", "args", "params"), CASES)
def test_derivatives_at_order_1_and_2(op, args, params, form):
    floating = lambda a: isinstance(a, np.ndarray) and a.dtype.kind == "f"  # noqa: E731
    check_op(op, *(FORMS[form](a) if floating(a) else a for a in args), **params)


WRONG = {  # a rule for cube(x) = x**3, the order at which it fails, and what is said
    "a coefficient": (lambda g, out, x: g * 3.0001 * x**2, 1, "central differences"),
    "a sign": (lambda g, out, x: -g * 3 * x**2, 1, "central differences"),
    "no cotangent": (lambda g, out, x: 3 * x**2, 1, "central differences"),
    "nothing flows": (None, 1, "rule gives 0.0"),
    "summed too early": (lambda g, out, x: np.sum(g * 3 * x**2), 0, "returned"),
    "not finite": (lambda g, out, x: g * 3 * x**2 / (x != x[1]), 1, "not finite"),
    "a constant": (lambda g, out, x: g * 3 * mb.stop_gradient(x) ** 2, 2, "central differences"),
    "two modes": (lambda g, out, x: g * (3 + 1e-9 * hasattr(x, "op")) * x**2, 1, "arrays"),
    "a coarse float32": (lambda g, out, x: g * (3 + 1e-3 * (x.dtype == "f")) * x**2, 1, "float64"),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "order", "words"), WRONG.values(), ids=WRONG)
def test_check_op_refuses_wrong_rules(rule, order, words):
    cube = ops.Op("cube", lambda x: x**3, rule)
    x = np.array([0.5, 1.0, 2.0], np.float32)
    with (
        np.errstate(divide="ignore"),
        pytest.raises((AssertionError, ValueError), match=words) as e,
    ):
        check_op(cube, x, order=2)
    assert ("cube" if order == 0 else f"cube, order {order}, argument 0") in str(e.value)
    if order == 2:
        check_op(cube, x, order=1)


def test_check_op_needs_something_to_differentiate_by():
    with pytest.raises(TypeError, match=r"floating array, not 2.0, array \(2,\) int64"):
        check_op(ops.add, 2.0, np.array([1, 2]))


def test_every_primitive_has_a_case():
    primitives = {op for op in vars(ops).values() if isinstance(op, ops.Op)}
    assert primitives - {case.values[0] for case in CASES} == set()
    names = """add sub mul div neg pow sqrt exp log tanh sin cos abs relu maximum minimum where
        matmul sum mean max min reshape transpose squeeze expand_dims broadcast_to index
        concatenate stack astype"""
    assert {*names.split()} <= {op.name for op in primitives}


# Shapes and axes, drawn

shapes = npst.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=3)
seeds = st.integers(0, 2**32 - 1)


@given(data=st.data(), shape=shapes, op=st.sampled_from(REDUCTIONS), keepdims=st.booleans())
def test_reductions_over_any_axes(data, shape, op, keepdims):
    axis = data.draw(st.none() | npst.valid_tuple_axes(len(shape)))
    check_op(op, any_(*shape), axis=axis, keepdims=keepdims, order=1)


@given(
    drawn=npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3),
    op=st.sampled_from([*BINARY]),
)
def test_broadcasting_of_any_shapes(drawn, op):
    check_op(op, *(BINARY[op](*shape) for shape in drawn.input_shapes), order=1)


@given(drawn=npst.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2))
def test_matmul_of_any_shapes(drawn):
    check_op(np.matmul, *(any_(*shape) for shape in drawn.input_shapes), order=1)


@given(
    data=st.data(),
    shape=npst.array_shapes(min_dims=1, max_dims=3, max_side=4),
    advanced=st.booleans(),
)
def test_indexing_adds_up_where_entries_came_from(data, shape, advanced):
    every = (
        npst.integer_array_indices(shape)
        if advanced
        else npst.basic_indices(shape, allow_newaxis=True)
    )
    key = data.draw(every)
    x = mb.Tensor(any_(*shape), requires_grad=True)
    y = x[key]
    g = any_(*y.shape)
    came_from = np.arange(x.size).reshape(shape)[key]
    expected = np.bincount(came_from.ravel(), g.ravel(), minlength=x.size).reshape(shape)
    assert_array_equal(y.data, x.data[key])
    assert_allclose(mb.grad(y, x, g).data, expected, rtol=1e-14)


# Where the derivative jumps


@pytest.mark.parametrize(
    ("fn", "x", "expected"),
    [
        (np.max, [1, 3, 3, 0], [0, 1 / 2, 1 / 2, 0]),
        (np.min, [1, 3, 1, 1], [1 / 3, 0, 1 / 3, 1 / 3]),
        (np.max, [[2, 2], [2, 2]], [[1 / 4] * 2] * 2),
        (lambda t: np.max(t, axis=0).sum(), [[1, 5], [1, 4]], [[1 / 2, 1], [1 / 2, 0]]),
        (lambda t: np.min(t, axis=(-1,)).sum(), [[1, 5], [4, 4]], [[1, 0], [1 / 2, 1 / 2]]),
        (lambda t: np.maximum(t, 0.0).sum(), [-1, 0, 2], [0, 1 / 2, 1]),
        (lambda t: np.minimum(0.0, t).sum(), [-1, 0, 2], [1, 1 / 2, 0]),
        (lambda t: np.maximum(t, t).sum(), [-1, 0, 2], [1, 1, 1]),
        (lambda t: t.relu().sum(), [-1, 0, -0.0, 2], [0, 0, 0, 1]),
        (lambda t: abs(t).sum(), [-1, 0, 2], [-1, 0, 1]),
    ],
)  # fmt: skip
def test_ties_share_equally_and_kinks_choose(fn, x, expected):
    x = mb.Tensor(x, requires_grad=True)
    gradient = mb.grad(fn(x), x, create_graph=True)
    assert_array_equal(gradient.data, expected)
    assert_array_equal(mb.grad(gradient, x, np.ones(x.shape)).data, np.zeros(x.shape))


@pytest.mark.parametrize("fn", [np.maximum, np.minimum])
def test_equal_arguments_get_half_each(fn):
    x, y = (mb.Tensor(v, requires_grad=True) for v in ([1.0, 2.0, 4.0], [1.0, 3.0, 2.0]))
    dx, dy = mb.grad(fn(x, y).sum(), (x, y))
    assert dx.data[0] == dy.data[0] == 0.5
    assert_array_equal(dx.data + dy.data, [1, 1, 1])


@pytest.mark.parametrize("as_type", [int, float, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("exponent", [0, 1, 2, 3])
def test_scalar_powers_are_polynomials_at_0_to_order_4(exponent, as_type):
    x = mb.Tensor([0.0, -0.0, 1.0, -2.0], requires_grad=True)
    derivative = x ** as_type(exponent)
    polynomial = np.polynomial.Polynomial([0] * exponent + [1])
    for order in range(1, 5):
        derivative = mb.grad(derivative, x, np.ones(4), create_graph=True)
        assert_array_equal(derivative.data, polynomial.deriv(order)(x.data))


@pytest.mark.parametrize(
    "wrap", [np.asarray, mb.Tensor, lambda y: mb.Tensor(y, requires_grad=True)]
)
def test_array_powers_are_guarded_at_0(wrap):
    x = mb.Tensor(np.zeros(4), requires_grad=True)
    y = wrap(np.array([0.0, 1.0, 2.0, 3.0]))
    first = mb.grad(x**y, x, np.ones(4), create_graph=True)
    second = mb.grad(first, x, np.ones(4), create_graph=True)
    assert_array_equal(first.data, [0, 1, 0, 0])
    assert_array_equal(second.data, [0, 0, 2, 0])


def test_the_exponent_has_gradient_0_where_the_base_is_0():
    y = mb.Tensor([0.0, 0.5, 2.0], requires_grad=True)
    assert_array_equal(mb.grad(np.zeros(3) ** y, y, np.ones(3)).data, [0, 0, 0])


# One meaning, several ways to say it

WAYS = [
    (ops.add, np.add, operator.add),
    (ops.sub, np.subtract, operator.sub),
    (ops.mul, np.multiply, operator.mul),
    (ops.div, np.divide, operator.truediv),
    (ops.pow, np.power, operator.pow),
    (ops.matmul, np.matmul, operator.matmul),
    (ops.maximum, np.maximum),
    (ops.minimum, np.minimum),
    (lambda x, y: ops.where(x.data > y.data, x, y), lambda x, y: np.where(x > y, x, y)),
    (ops.concatenate, lambda x, y: np.concatenate([x, y]), lambda x, y: np.concatenate((x, y), 0)),
    (ops.stack, lambda x, y: np.stack([x, y]), lambda x, y: np.stack((x, y), axis=0)),
    (ops.neg, np.negative, operator.neg),
    (ops.abs, np.abs, operator.abs),
    (ops.sqrt, np.sqrt, lambda x: x.sqrt()),
    (ops.exp, np.exp, lambda x: x.exp()),
    (ops.log, np.log, lambda x: x.log()),
    (ops.tanh, np.tanh, lambda x: x.tanh()),
    (ops.sin, np.sin),
    (ops.cos, np.cos),
    (ops.relu, mb.functional.relu, lambda x: x.relu()),
    (ops.sum, np.sum, lambda x: x.sum()),
    (ops.mean, np.mean, lambda x: x.mean()),
    (ops.max, np.max, np.amax, lambda x: x.max()),
    (ops.min, np.min, np.amin, lambda x: x.min()),
    (lambda x: ops.sum(x, axis=0, keepdims=True), lambda x: x.sum(0, keepdims=True),
     lambda x: np.sum(x, 0, keepdims=True)),
    (lambda x: ops.mean(x, axis=(0, 1)), lambda x: x.mean((0, 1)), lambda x: np.mean(x, (0, 1))),
    (lambda x: ops.max(x, axis=-1), lambda x: x.max(axis=-1), lambda x: np.max(x, axis=-1)),
    (lambda x: ops.reshape(x, shape=(9,)), lambda x: x.reshape(-1), lambda x: np.reshape(x, 9)),
    (lambda x: ops.reshape(x, shape=(1, 9)), lambda x: x.reshape(1, 9),
     lambda x: x.reshape((1, 9))),
    (ops.transpose, np.transpose, lambda x: x.T, lambda x: x.transpose(),
     lambda x: x.transpose(1, 0), lambda x: x.transpose((1, 0)), lambda x: np.transpose(x, (1, 0))),
    (lambda x: ops.squeeze(x[None], axis=0), lambda x: x[None].squeeze(0),
     lambda x: np.squeeze(x[None], 0), lambda x: np.squeeze(x[None])),
    (lambda x: ops.expand_dims(x, axis=1), lambda x: np.expand_dims(x, 1), lambda x: x[:, None]),
    (lambda x: ops.broadcast_to(x, shape=(2, 3, 3)), lambda x: np.broadcast_to(x, (2, 3, 3))),
    (lambda x: ops.astype(x, dtype=np.float32), lambda x: x.astype(np.float32),
     lambda x: x.astype("float32")),
    (lambda x: ops.index(x, key=(0, slice(1, None))), lambda x: x[0, 1:]),
]  # fmt: skip


@pytest.mark.parametrize("ways", WAYS)
def test_operator_function_and_op_are_one(ways):
    arity = 2 if ways[0] in {way[0] for way in WAYS[:11]} else 1
    arrays = [pos(3, 3) for _ in range(arity)]
    results = []
    for way in ways:
        inputs = [mb.Tensor(a, requires_grad=True) for a in arrays]
        y = way(*inputs)
        g = np.linspace(-1, 1, y.size).reshape(y.shape)
        results.append([y.data, *(t.data for t in mb.grad(y, inputs, g))])
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            assert_array_equal(a, b, strict=True)


OPERATORS = operator.add, operator.sub, operator.mul, operator.truediv, operator.pow
NUMBERS = np.float64(2), np.float32(2), np.int64(2), 2, 2.5, True, np.array(3)
SQUARE = pos(3, 3)


@pytest.mark.parametrize(
    ("op", "other"),
    [(op, number) for op in OPERATORS for number in NUMBERS]
    + [(op, array) for op in (*OPERATORS, operator.matmul) for array in (SQUARE, SQUARE.tolist())],
)
def test_anything_on_either_side_of_an_operator(op, other):
    x = pos(3, 3)
    t = mb.Tensor(x, requires_grad=True)
    for y, expected in (
        (op(other, t), op(np.asarray(other), x)),
        (op(t, other), op(x, np.asarray(other))),
    ):
        assert isinstance(y, mb.Tensor)
        assert_allclose(y.data, expected, rtol=1e-14, strict=True)
    check_op(lambda x: op(other, x), x)
    check_op(lambda x: op(x, other), x)


def test_an_op_on_arrays_is_its_numpy_function():
    for op, fn in [(ops.add, np.add), (ops.maximum, np.maximum)]:
        x, y = any_(3), any_(3)
        assert type(op(x, y)) is np.ndarray
        assert_array_equal(op(x, y), fn(x, y))
    assert type(ops.sum(any_(3, 4), axis=0)) is np.ndarray


def test_a_new_op_works_everywhere():
    cbrt = ops.Op("cbrt", np.cbrt, lambda g, out, x: g / (3 * out * out))
    try:
        check_op(cbrt, pos(3))
        check_op(np.cbrt, pos(2, 3))
    finally:
        ops.NUMPY.pop(np.cbrt)
    with pytest.raises(TypeError, match="cbrt"):
        np.cbrt(mb.Tensor(1.0))


@pytest.mark.parametrize("rules", [(), ("g",), (lambda g, out, x: g, 3)])
def test_an_op_needs_functions_for_rules(rules):
    with pytest.raises(TypeError, match="cube"):
        ops.Op("cube", lambda x: x**3, *rules)


t = mb.Tensor(pos(3, 3), requires_grad=True)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: np.spacing(t), "np.spacing"),
        (lambda: np.unwrap(t), "np.unwrap"),
        (lambda: np.linalg.eigvals(t), "np.linalg.eigvals"),
        (lambda: np.fft.fft(t), "np.fft.fft"),
        (lambda: np.interp(t, [0, 1], [0, 1]), "np.interp"),
        (lambda: np.modf(t), "np.modf"),
    ],
)
def test_a_function_without_rule_is_named_with_the_remedy(call, words):
    with pytest.raises(TypeError, match=words) as raised:
        call()
    assert "mb.ops.Op(" in str(raised.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: np.add(t, 1, out=np.empty((3, 3))), "add.*out=.*overwrite"),
        (lambda: np.sum(t, out=np.empty(())), "sum.*out=.*overwrite"),
        (lambda: np.exp(t, where=t.data > 1), r"exp.*where=.*np\.where"),
        (lambda: np.sum(t, where=t.data > 1), r"sum.*where=.*np\.where"),
        (lambda: np.mean(t, axis=0, where=t.data > 1), r"mean.*where=.*np\.where"),
        (lambda: np.sum(t, dtype=np.float32), r"sum.*dtype=.*astype"),
        (lambda: np.max(t, initial=0.0), "max.*initial="),
        (lambda: np.concatenate([t, t], out=np.empty((6, 3))), "concatenate.*out=.*overwrite"),
        (lambda: np.add.reduce(t), r"add\.reduce"),
        (lambda: np.multiply.outer(t, t), r"multiply\.outer"),
        (lambda: np.add.at(t, 0, 1), r"add\.at"),
    ],
)
def test_options_that_cannot_be_recorded_say_why(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_functions_without_derivative_give_plain_arrays():
    x = mb.Tensor([[3.0, 1.0], [-2.0, 5.0]], requires_grad=True)
    for fn in (
        np.argmax,
        np.sign,
        np.floor,
        np.isfinite,
        np.shape,
        np.zeros_like,
        np.ones_like,
        np.ndim,
    ):
        result = fn(x)
        assert not isinstance(result, mb.Tensor)
        assert_array_equal(result, fn(x.data))


def test_where_with_one_argument_finds_indices():
    found = np.where(mb.Tensor([0.0, 2.0, 3.0], requires_grad=True))
    assert type(found) is tuple
    assert_array_equal(found[0], [1, 2])


@pytest.mark.parametrize(
    ("x", "y"), [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4))]
)
def test_dot_is_matmul_up_to_two_axes(x, y):
    x, y = any_(*x), any_(*y)
    assert_allclose(np.dot(mb.Tensor(x), y).data, np.dot(x, y), rtol=1e-14)
    check_op(np.dot, x, y)


def test_dot_of_more_axes_is_not_matmul_and_is_refused():
    with pytest.raises((TypeError, ValueError), match="dot"):
        np.dot(mb.Tensor(any_(2, 3, 4)), any_(2, 4, 5))


# The faster kernels are NumPy's functions

LAYOUTS = (lambda a: a, np.asfortranarray, spread)
dtypes = st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, bool])


def draw_array(data, shape, seed):
    values = np.random.default_rng(seed).uniform(0, 5, shape)
    return data.draw(st.sampled_from(LAYOUTS))(np.asarray(values).astype(data.draw(dtypes)))


def assert_equals_numpy(fn, *args, **params):
    with np.errstate(all="ignore"):
        try:
            expected = fn(*args, **params)
        except TypeError:  # such as -array of booleans
            with pytest.raises(TypeError):
                kernels.FASTER[fn](*args, **params)
            return
        got = kernels.FASTER[fn](*args, **params)
    tolerance = (
        1e-2 if expected.dtype == np.float16 else 2e-6 if expected.dtype == np.float32 else 1e-14
    )
    assert_allclose(got, expected, rtol=tolerance, strict=True)
    assert isinstance(got, np.generic) == isinstance(expected, np.generic)


UFUNCS = [fn for fn in kernels.FASTER if isinstance(fn, np.ufunc)]
ENTRYWISE = [fn for fn in UFUNCS if fn.nin == 2 and fn.signature is None]


def test_every_fast_function_is_tested_below():
    tested = {*ENTRYWISE, np.negative, np.absolute, np.matmul, np.sum, np.mean}
    assert kernels.FASTER.keys() == tested


@given(
    data=st.data(),
    shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7),
    keepdims=st.booleans(),
    seed=seeds,
)
def test_fast_reductions_equal_numpy(data, shape, keepdims, seed):
    x = draw_array(data, shape, seed)
    one = st.integers(-x.ndim, x.ndim - 1) if x.ndim else st.none()
    axis = data.draw(st.none() | one | npst.valid_tuple_axes(x.ndim))
    assert_equals_numpy(np.sum, x, axis=axis, keepdims=keepdims)
    if x.size:
        assert_equals_numpy(np.mean, x, axis=axis, keepdims=keepdims)


@given(
    data=st.data(),
    drawn=npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4),
    fn=st.sampled_from(ENTRYWISE),
    seed=seeds,
)
def test_fast_binary_functions_equal_numpy(data, drawn, fn, seed):
    x, y = (draw_array(data, shape, seed + i) for i, shape in enumerate(drawn.input_shapes))
    assert_equals_numpy(fn, x, y)
    assert_equals_numpy(fn, x[()], y[()])  # NumPy scalars where there are no axes


@given(data=st.data(), shape=shapes, fn=st.sampled_from([np.negative, np.absolute]), seed=seeds)
def test_fast_unary_functions_equal_numpy(data, shape, fn, seed):
    x = draw_array(data, shape, seed)
    assert_equals_numpy(fn, x)
    assert_equals_numpy(fn, x[()])


@given(drawn=npst.mutually_broadcastable_shapes(signature=np.matmul.signature), seed=seeds)
def test_fast_matmul_equals_numpy(drawn, seed):
    x, y = (np.random.default_rng(seed).uniform(0, 1, shape) for shape in drawn.input_shapes)
    assert_equals_numpy(np.matmul, spread(x), np.asfortranarray(y))
    assert_equals_numpy(np.matmul, x.astype(np.float32), y.astype(np.float32))


@given(data=st.data(), shape=shapes, seed=seeds)
def test_broadcast_to_equals_numpy(data, shape, seed):
    x = draw_array(data, shape, seed)
    longer = (*data.draw(npst.array_shapes(max_dims=2, max_side=3)), *shape)
    got = ops.broadcast_to(mb.Tensor(x, copy=False), shape=longer).data
    assert_array_equal(got, np.broadcast_to(x, longer), strict=True)


@pytest.mark.parametrize(
    ("fn", "args"),
    [(fn, (np.ones(3), np.ones(2))) for fn in (*ENTRYWISE, np.matmul)]
    + [(fn, (np.ones((2, 3)), axis)) for fn in (np.sum, np.mean) for axis in (2, -3, (0, 0))],
)
def test_fast_functions_refuse_what_numpy_refuses(fn, args):
    for function in (fn, kernels.FASTER[fn]):
        with pytest.raises(ValueError, match=r"broadcast|core dimension|axis|axes|dimension"):
            function(*args)


@pytest.mark.parametrize("key", [(slice(None), (0, 0, 1)), ((0, 0),), [0, 0], ((0, 1, 0), 1)])
def test_repeated_indices_add_up_however_they_are_written(key):
    x = mb.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    x[key].sum().backward()
    expected = np.zeros((2, 3))
    np.add.at(expected, tuple(map(as_array, key)) if isinstance(key, tuple) else as_array(key), 1)
    assert_array_equal(x.grad, expected)


def as_array(key):
    return key if isinstance(key, slice) else np.array(key)


@pytest.mark.parametrize("key", [[], (slice(None), [])])
def test_an_empty_list_takes_nothing(key):
    x = mb.Tensor(np.ones((2, 3)), requires_grad=True)
    assert x[key].shape == np.ones((2, 3))[key].shape
    x[key].sum().backward()
    assert_array_equal(x.grad, np.zeros((2, 3)))


def test_mixed_second_derivatives_of_a_power_agree_where_the_exponent_is_zero():
    x, y = (mb.Tensor(v, requires_grad=True) for v in (2.0, 0.0))
    by_x, by_y = mb.grad(x**y, [x, y], create_graph=True)
    assert mb.grad(by_x, y).item() == pytest.approx(0.5)  # 1 / x
    assert mb.grad(by_y, x).item() == pytest.approx(0.5)


@pytest.mark.parametrize("fn", [np.maximum, np.minimum])
def test_nan_takes_the_gradient_of_what_it_became(fn):
    x = mb.Tensor([np.nan, 1.0], requires_grad=True)
    fn(x, 1.0 if fn is np.minimum else 0.5).sum().backward()
    assert_array_equal(x.grad, [1.0, 0.5 if fn is np.minimum else 1.0])


def test_defaults_of_an_op_hold_for_arrays_as_for_tensors():
    def rule(g, out, x, k):
        return g * k

    scale = mb.ops.Op("scale", lambda x, k: x * k, rule, params={"k": 2})
    assert scale(np.array(3.0)) == scale(mb.Tensor(3.0)).item() == 6.0
    assert scale(np.array(3.0), k=5) == scale(mb.Tensor(3.0), k=5).item() == 15.0


def test_a_missing_rule_is_named():
    op = mb.ops.Op("product", lambda x, y: x * y, lambda g, out, x, y: g * y)
    x = mb.Tensor(2.0, requires_grad=True)
    with pytest.raises(IndexError) as raised:
        op(x, x).backward()
    assert "in the vjp of product for argument 1" in raised.value.__notes__[0]
