"""The engine and Tensor: the decisions of the design, row by row, and higher derivatives."""

import copy
import gc
import pickle
import threading
import weakref

import mpmath
import numpy as np
import pytest
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import kernels
from microbn.engine import pullback

rng = np.random.default_rng(0)
normal = rng.standard_normal


def leaf(data, **options):
    return mb.Tensor(data, requires_grad=True, **options)


def leaves(*shapes):
    return [leaf(normal(shape)) for shape in shapes]


# Known numbers


def test_the_example_of_micrograds_readme():
    a, b = leaf(-4.0), leaf(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert [f"{v:.4f}" for v in (g.data, a.grad, b.grad)] == ["24.7041", "138.8338", "645.5773"]


def test_the_third_derivative_of_a_square_is_zero():
    x = leaf([3.0, -1.0])
    first = mb.grad(x**2, x, np.ones(2), create_graph=True)
    second = mb.grad(first, x, np.ones(2), create_graph=True)
    third = mb.grad(second, x, np.ones(2), create_graph=True)
    fourth = mb.grad(third, x, np.ones(2))
    assert [t.data.tolist() for t in (first, second, third, fourth)] == [
        [6, -2],
        [2, 2],
        [0, 0],
        [0, 0],
    ]


@pytest.mark.parametrize(
    ("fn", "truth"),
    [
        (np.tanh, mpmath.tanh),
        (mb.functional.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x))),
        (np.sqrt, mpmath.sqrt),
        (np.log, mpmath.log),
        (lambda x: 1 / x, lambda x: 1 / x),
        (lambda x: x**2.5, lambda x: x ** mpmath.mpf(2.5)),
        (lambda x: x**x, lambda x: x**x),
        (
            lambda x: np.sin(x) * np.exp(x) - np.cos(x * x),
            lambda x: mpmath.sin(x) * mpmath.exp(x) - mpmath.cos(x * x),
        ),
    ],
)
def test_derivatives_to_order_5(fn, truth):
    x = leaf(0.7)
    derivative = fn(x)
    for order in range(1, 6):
        derivative = mb.grad(derivative, x, create_graph=True)
        assert derivative.item() == pytest.approx(float(mpmath.diff(truth, 0.7, order)), rel=1e-12)


def exact_loss(x, gamma, beta, w, eps):
    """Return sum(w * batch_norm(x)) in multiple precision, by definition."""
    total = mpmath.mpf(0)
    for column, scale, shift, weights in zip(
        np.transpose(x), gamma, beta, np.transpose(w), strict=True
    ):
        mean = mpmath.fsum(column) / len(column)
        var = mpmath.fsum((v - mean) ** 2 for v in column) / len(column)
        for v, weight in zip(column, weights, strict=True):
            total += weight * ((v - mean) / mpmath.sqrt(var + eps) * scale + shift)
    return total


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("x", "eps"),
    [
        (normal((4, 2)), 1e-5),
        (normal((4, 2)), 0.0),
        (np.array([[1.0, -1.0], [2.0, 1.0], [3.0, 0.0]]), 1e-3),  # centered values of exactly 0
        (np.array([[5.0, 1.0], [5.0, 3.0], [5.0, 2.0]]), 0.1),  # a constant column: all are 0
        (normal((2, 2)) + 1000.0, 0.5),
    ],
)
def test_derivatives_of_batch_norm_are_exact(x, eps, order):
    m, d = x.shape
    w, point = normal((m, d)), [x, normal(d), normal(d)]
    directions = [normal(a.shape) for a in point]

    inputs = [leaf(a) for a in point]
    slope = (mb.batch_norm(*inputs, eps=eps) * w).sum()
    for _ in range(order - 1):
        gradients = mb.grad(slope, inputs, create_graph=True)
        slope = sum((g * u).sum() for g, u in zip(gradients, directions, strict=True))
    got = np.concatenate([g.data.ravel() for g in mb.grad(slope, inputs)])

    theta = np.concatenate([a.ravel() for a in point])
    along = np.concatenate([u.ravel() for u in directions])

    def moved(i):
        def loss(s, t):
            at = [mpmath.mpf(v) + t * u for v, u in zip(theta, along, strict=True)]
            at[i] += s
            x, gamma, beta = at[: m * d], at[m * d : m * d + d], at[m * d + d :]
            return exact_loss([x[r * d : r * d + d] for r in range(m)], gamma, beta, w, eps)

        return loss

    with mpmath.workdps(40):
        exact = [float(mpmath.diff(moved(i), (0, 0), (1, order - 1))) for i in range(len(theta))]
    assert_allclose(got, exact, rtol=1e-8, atol=1e-9 * np.max(np.abs(exact)))


# Tensors


def test_results_carry_the_call_that_made_them():
    x = leaf([[1.0, 2.0]], name="x")
    with mb.scope("outer"), mb.scope("inner"):
        y = np.mean(x, axis=0)
    assert (y.op.name, y.inputs, y.scope) == ("mean", (x,), ("outer", "inner"))
    assert y.params == {"axis": 0, "keepdims": False}
    assert (x.op, x.inputs, x.params, x.name) == (None, (), {}, "x")
    stacked = np.stack([x, y[None], x.data])
    assert stacked.inputs[0] is x
    assert stacked.inputs[2] is x.data
    assert (x * 2).inputs == (x, 2)
    assert y.named("mu") is y
    assert y.name == "mu"


def test_only_what_needs_a_gradient_is_recorded():
    constant, x = mb.Tensor([1.0]), leaf([1.0])
    for y in (constant * 2, x.detach() * 2, mb.stop_gradient(x) * 2):
        assert (y.op, y.inputs, y.requires_grad) == (None, (), False)
    assert (x * constant).requires_grad
    assert mb.stop_gradient(3.0) == 3.0


def test_construction_copies_unless_told_otherwise():
    array = np.ones(3)
    copied, shared = mb.Tensor(array), mb.Tensor(array, copy=False)
    array[0] = 7
    assert_array_equal(copied.data, [1, 1, 1])
    assert shared.data is array
    assert not np.shares_memory(copied.numpy(), copied.data)
    with pytest.raises(TypeError, match="detach"):
        mb.Tensor(copied)


def test_new_data_for_a_leaf_is_cast_and_its_old_graph_refused():
    x = leaf(np.ones(3, np.float32), name="weight")
    y = (x * x).sum()
    x.data = x.data - 0.5
    assert x.dtype == np.float32
    with pytest.raises(RuntimeError, match=r"weight.*new data.*mul"):
        y.backward()
    (x * x).sum().backward()
    assert_array_equal(x.grad, [1, 1, 1])


def test_comparisons_are_plain_arrays_and_hashes_are_identities():
    x, y = leaf([1.0, 2.0, 3.0]), leaf([2.0, 2.0, 2.0])
    for mask, expected in [
        (x == y, [0, 1, 0]), (x != y, [1, 0, 1]), (x < y, [1, 0, 0]), (x <= y, [1, 1, 0]),
        (x > y, [0, 0, 1]), (x >= y, [0, 1, 1]), (x > 2, [0, 0, 1]), (x < 2.5, [1, 1, 0]),
        (y.data == x, [0, 1, 0]), (np.greater(x, y.data), [0, 0, 1]),
    ]:  # fmt: skip
        assert type(mask) is np.ndarray
        assert_array_equal(mask, np.array(expected, bool), strict=True)
    same = leaf([1.0, 2.0, 3.0])
    assert len({x, same, x}) == 2
    assert {x: "x", same: "same"}[same] == "same"


def test_rebinding_operators_leave_the_old_tensor_alone():
    x = leaf([1.0, 2.0])
    y = x
    y += 1
    y *= x
    assert y is not x
    assert_array_equal(x.data, [1, 2])
    assert_array_equal(mb.grad(y, x, np.ones(2)).data, [3, 5])


def test_python_reads_tensors_as_numbers_and_sequences():
    x = leaf([[1.5, 2.0]])
    assert len(x) == 1
    assert [row.shape for row in x] == [(2,)]
    assert (float(x[0, 0]), int(x[0, 1]), bool(x[0, 0]), f"{x[0, 0]:.2f}") == (1.5, 2, True, "1.50")
    assert x[0, 0].item() == 1.5
    assert (x.shape, x.ndim, x.size, x.T.shape) == ((1, 2), 2, 2, (2, 1))


# dtypes


@pytest.mark.parametrize("number", [2, 2.5, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_python_scalars_are_weak(dtype, number):
    x = leaf(np.array([1.0, 2.0], dtype))
    for y in (
        x + number, number - x, x * number, number / x, x**number, number**x,
        np.maximum(x, number), np.where(x > 1, x, number), np.mean(x * x),
    ):  # fmt: skip
        assert y.dtype == dtype
        assert mb.grad(y, x, np.ones(y.shape)).dtype == dtype
        assert mb.grad(y, x, np.ones(y.shape), create_graph=True).dtype == dtype


def test_gradients_have_the_dtype_of_their_tensor():
    single, double = leaf(np.ones((2, 3), np.float32)), leaf(np.ones(3))
    y = single * double
    assert y.dtype == np.float64
    for create_graph in (False, True):
        gradients = mb.grad(y.sum(), (single, double), create_graph=create_graph)
        assert [g.dtype for g in gradients] == [np.float32, np.float64]
    for create_graph in (False, True):
        seed = mb.Tensor(np.ones((2, 3), np.float32))
        assert mb.grad(y, y, seed, create_graph=create_graph).dtype == np.float64
    y.backward(np.ones((2, 3), int))
    assert [t.grad.dtype for t in (single, double, y)] == [np.float32, np.float64, np.float64]
    batch = mb.batch_norm(single)
    assert batch.dtype == mb.grad(batch, single, np.ones((2, 3))).dtype == np.float32


def test_integers_become_float64_when_they_require_grad():
    assert leaf([7, 8]).dtype == leaf(True).dtype == np.float64
    assert mb.Tensor([7, 8]).dtype == np.int64
    assert leaf(np.ones(2, np.float32)).dtype == np.float32
    assert leaf([7, 8], dtype=np.float32).dtype == np.float32


# backward and grad


def test_a_second_backward_adds_to_leaves_and_sets_the_rest_anew():
    x = leaf([1.0, 2.0])
    y = x * x
    z = (y * 3).sum()
    for times in (1, 2, 3):
        z.backward()
        assert_array_equal(x.grad, times * np.array([6.0, 12.0]))
        assert_array_equal(y.grad, [3, 3])
        assert_array_equal(z.grad, 1)
    z.backward(retain_grad=False)
    assert_array_equal(x.grad, [24, 48])
    assert (y.grad, z.grad) == (None, None)
    x.grad = None
    z.backward(-1.0)
    assert_array_equal(x.grad, [-6, -12])


def test_inputs_that_are_not_reached_get_zeros():
    x, y = leaf(np.ones((2, 3), np.float32)), leaf([1.0, 2.0])
    zeros, dy = mb.grad(y.sum(), (x, y))
    assert_array_equal(zeros.data, np.zeros((2, 3), np.float32), strict=True)
    assert_array_equal(dy.data, [1, 1])
    (y.sum() + x.detach().sum()).backward()
    assert x.grad is None


def test_a_tensor_gives_a_tensor_and_a_sequence_a_tuple():
    x, y = leaves(3, 3)
    loss = (x * y).sum()
    assert isinstance(mb.grad(loss, x), mb.Tensor)
    assert isinstance(mb.grad(loss, [x]), tuple)
    assert mb.grad(loss, []) == ()
    dy, dx, again = mb.grad(loss, (y, x, y))
    assert_array_equal(dx.data, y.data)
    assert_array_equal(dy.data, x.data)
    assert_array_equal(again.data, x.data)
    assert not dx.requires_grad
    assert (x.grad, y.grad) == (None, None)
    assert_array_equal(mb.grad(loss, loss).data, 1)


ALIASES = {
    "add": lambda p, q: p + q,
    "add itself": lambda p, q: p + p,
    "sub": lambda p, q: p - q,
    "sum": lambda p, q: p.sum() + q.sum(),
    "mean": lambda p, q: p.mean(axis=0) + q.mean(axis=1),
    "reshape": lambda p, q: p.reshape(9) + q.reshape(-1),
    "transpose": lambda p, q: p.T + q,
    "index": lambda p, q: p[1:] + q[:2],
    "stack": lambda p, q: np.stack([p, q]),
    "concatenate": lambda p, q: np.concatenate([p, q, p]),
    "squeeze": lambda p, q: np.squeeze(p[None], 0) + q,
    "broadcast": lambda p, q: np.broadcast_to(p, (2, 3, 3)) + q,
    "cast": lambda p, q: p.astype(np.float64) + q,
    "the output itself": lambda p, q: p,
}


@pytest.mark.parametrize("fn", ALIASES.values(), ids=ALIASES)
def test_published_gradients_are_writable_and_share_no_memory(fn):
    p, q = leaves((3, 3), (3, 3))
    y = fn(p, q)
    seed = normal(y.shape)
    loss = fn(p, q).sum()
    loss.backward()
    y.backward(seed)
    interior = [t for t, _ in mb.backprop(loss)]
    published = [t.grad for t in {p, q, y, *interior} if t.grad is not None]
    published += [g.data for g in mb.grad(y, (p, q), seed)]
    published = [a for a in published if isinstance(a, np.ndarray) and a.ndim]
    owned = [seed, p.data, q.data, y.data]
    for i, gradient in enumerate(published):
        assert gradient.flags.writeable
        assert not any(np.shares_memory(gradient, other) for other in (*published[:i], *owned))
        gradient += 1


def test_scalar_gradients_are_writable_arrays():
    x = leaf(3.0)
    (x * x).backward()
    x.grad += 1
    assert_array_equal(x.grad, 7)
    assert isinstance(x.grad, np.ndarray)


# backprop


def diamond():
    """Return a graph where cotangents meet: x is used four times, twice by one op."""
    x, w = leaf(normal((3, 2)), name="x"), leaf(normal(2), name="w")
    a = (x * w).named("a")
    b = (a + x).named("b")
    c = (b * b).named("c")
    return (c * x + a + x).named("y"), x, w


def test_backprop_goes_from_output_to_leaves_each_once():
    y, x, w = diamond()
    g = normal(y.shape)
    seen = [tensor for tensor, _ in mb.backprop(y, g)]
    assert seen[0] is y
    assert len(seen) == len(set(seen)) == 8
    assert {x, w} <= set(seen)
    place = {tensor: i for i, tensor in enumerate(seen)}
    for tensor in seen:
        assert all(place[t] > place[tensor] for t in tensor.inputs if isinstance(t, mb.Tensor))


def test_cotangents_are_final_when_they_are_yielded():
    y, *_ = diamond()
    g = normal(y.shape)
    yielded = [(tensor, cotangent, cotangent.copy()) for tensor, cotangent in mb.backprop(y, g)]
    y.backward(g)
    for tensor, cotangent, then in yielded:
        assert_array_equal(cotangent, then)
        assert_array_equal(cotangent, tensor.grad)


def test_the_seed_is_copied():
    y, x, _ = diamond()
    seed = np.ones(y.shape)
    steps = mb.backprop(y, seed)
    expected = mb.grad(y, x, seed).data
    seed *= 0
    assert_array_equal(dict(steps)[x], expected)


def test_backprop_holds_no_context_open():
    y, x, _ = diamond()
    with mb.no_grad():
        steps = mb.backprop(y, np.ones(y.shape), create_graph=True)
        next(steps)
        assert not (x * 2).requires_grad
        next(steps)
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    with mb.scope("elsewhere"):
        next(steps)
        assert (x * 2).scope == ("elsewhere",)
    assert (x * 2).scope == ()
    steps.close()
    assert (x * 2).requires_grad


def test_create_graph_records_even_under_no_grad():
    x = leaf(2.0)
    y = x**3
    with mb.no_grad():
        first = mb.grad(y, x, create_graph=True)
        assert all(g.requires_grad for t, g in mb.backprop(y, create_graph=True) if t is x)
    assert mb.grad(first, x).item() == 12.0


def test_edges_tell_the_contribution_before_and_after_the_sum():
    x, w = leaf(np.ones((4, 3), np.float32)), leaf(np.arange(3.0))
    left, right = pullback(x * w, np.ones((4, 3)))
    assert [edge[0] for edge in (left, right)] == [0, 1]
    assert left[1] is x
    assert right[1] is w
    assert (left[2].shape, left[3].shape, left[3].dtype) == ((4, 3), (4, 3), np.float32)
    assert (right[2].shape, right[3].shape) == ((4, 3), (3,))
    assert_array_equal(right[3], [4, 4, 4])


def listed(tensor, g):
    return [(i, x, b, -a if tensor.op.name == "tanh" else a) for i, x, b, a in pullback(tensor, g)]


def yielded(tensor, g):
    yield from listed(tensor, g)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("mutated", [listed, yielded])
def test_pullback_may_be_replaced(mutated, create_graph):
    x = leaf(normal(3))
    y = np.tanh(x) + x * x
    found = dict(mb.backprop(y, np.ones(3), create_graph=create_graph, pullback=mutated))
    gradient = found[x].data if create_graph else found[x]
    assert_allclose(gradient, 2 * x.data - (1 - np.tanh(x.data) ** 2), rtol=1e-14)


def test_an_edge_may_be_stopped():
    x = leaf(normal(3))
    mean = np.mean(x).named("mean")
    y = (x - mean) * x
    stop = lambda tensor, g: [edge for edge in pullback(tensor, g) if edge[1] is not mean]  # noqa: E731
    found = dict(mb.backprop(y, np.ones(3), pullback=stop))
    assert mean not in found
    assert_allclose(found[x], 2 * x.data - mean.data, rtol=1e-14)


def test_a_rule_that_fails_says_where():
    bad = mb.ops.Op("halve", lambda x: x / 2, lambda g, out, x: g / undefined)  # noqa: F821
    with pytest.raises(NameError) as raised:
        bad(leaf(1.0, name="weight")).backward()
    assert "halve" in raised.value.__notes__[0]
    assert "weight" in raised.value.__notes__[0]


@pytest.mark.parametrize("wrong", [np.ones((2, 2)), np.ones(4), "text", None])
def test_a_rule_must_return_what_fits(wrong):
    bad = mb.ops.Op("halve", lambda x: x / 2, lambda g, out, x: wrong)
    with pytest.raises((ValueError, TypeError), match=r"vjp of halve.*argument 0"):
        bad(leaf(np.ones(3))).sum().backward()


def test_a_rule_may_return_a_number():
    flat = mb.ops.Op("flat", lambda x: x * 0, lambda g, out, x: 0)
    x = leaf(np.float32(3))
    assert_array_equal(mb.grad(flat(x), x).data, np.float32(0), strict=True)


# Contexts


def records():
    return (leaf(1.0) * 2).requires_grad


def test_no_grad_nests_and_is_used_again():
    off = mb.no_grad()
    for _ in range(2):
        with off:
            with off:
                assert not records()
            assert not records()
        assert records()
    with pytest.raises(KeyError), off:
        raise KeyError
    assert records()


def test_contexts_are_decorators():
    @mb.no_grad()
    @mb.scope("f")
    def f(depth):
        y = leaf(1.0) * 2
        return [(y.requires_grad, y.scope), *(f(depth - 1) if depth else [])]

    assert f(2) == [(False, ("f",)), (False, ("f", "f")), (False, ("f", "f", "f"))]
    assert f.__name__ == "f"
    assert records()
    with pytest.raises(TypeError, match="lazy"):

        @mb.no_grad()
        def lazy():
            yield


def test_scopes_nest_and_are_left_after_errors():
    layer = mb.scope("layer")
    with layer, mb.no_grad(), layer:
        assert mb.Tensor(1.0).scope == ("layer", "layer")
    with pytest.raises(KeyError), layer:
        raise KeyError
    assert mb.Tensor(1.0).scope == ()


@pytest.mark.parametrize(("name", "error"), [(3, TypeError), (None, TypeError), ("", ValueError)])
def test_a_scope_needs_a_name(name, error):
    with pytest.raises(error, match="name"):
        mb.scope(name)


def test_threads_have_contexts_of_their_own():
    both_inside, seen = threading.Barrier(3, timeout=10), {}

    def work(name, context):
        with context:
            both_inside.wait()
            y = leaf(1.0) * 2
            seen[name] = (y.requires_grad, y.scope)
            both_inside.wait()

    contexts = {"off": mb.no_grad(), "named": mb.scope("thread")}
    threads = [threading.Thread(target=work, args=item) for item in contexts.items()]
    for thread in threads:
        thread.start()
    both_inside.wait()
    seen["main"] = (records(), mb.Tensor(1.0).scope)
    both_inside.wait()
    for thread in threads:
        thread.join()
    assert seen == {"off": (False, ()), "named": (True, ("thread",)), "main": (True, ())}


# Limits


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_million_nodes_without_recursion():
    x = leaf(3.0)
    y = x
    for _ in range(500_000):
        y = 1 - y * 1.0
    middle = weakref.ref(y.inputs[1])
    assert y.item() == 3.0
    y.backward(retain_grad=False)
    assert x.grad == 1.0
    del y
    assert middle() is None


def loss_of(x, gamma, beta):
    hidden = np.tanh(mb.batch_norm(x, gamma, beta) @ x.T)
    return np.mean(mb.functional.log_softmax(np.concatenate([hidden, hidden * 2])) ** 2)


def graph_of(output):
    return [weakref.ref(tensor) for tensor, _ in mb.backprop(output) if tensor.op is not None]


@pytest.mark.usefixtures("no_collector")
def test_memory_is_freed_by_reference_counting_alone():
    inputs = leaves((5, 3), 3, 3)
    loss = loss_of(*inputs)
    alive = graph_of(loss)
    loss.backward()
    first = mb.grad(loss, inputs, create_graph=True)
    second = sum((g * g).sum() for g in first)
    alive += graph_of(second)
    second.backward()
    steps = mb.backprop(loss)
    next(steps)
    assert len(alive) > 50
    assert all(ref() is not None for ref in alive)
    del loss, first, second, steps
    assert not any(ref() is not None for ref in alive)


@pytest.mark.usefixtures("no_collector")
def test_errors_keep_nothing_alive():
    x = leaf(np.ones((2, 3)), name="x")
    y = x * 2
    alive = weakref.ref(y)
    with pytest.raises(ValueError, match="matmul"):
        y @ y
    with pytest.raises(RuntimeError, match="direction"):
        y.backward()
    with pytest.raises(IndexError, match="index"):
        y[5]
    with pytest.raises(ValueError, match="shape"):
        mb.grad(y, x, np.ones(2))
    del y
    assert alive() is None


def test_gradients_are_the_same_to_the_bit():
    arrays = [normal(shape) * 10.0 ** rng.integers(-8, 8, shape) for shape in ((5, 3), (3,), (3,))]
    results, clutter = set(), []
    for repetition in range(10):
        clutter.append([leaf(0.0) for _ in range(repetition * 7)])
        inputs = [leaf(a) for a in arrays]
        loss_of(*inputs).backward()
        results.add(b"".join(t.grad.tobytes() for t in inputs))
    assert len(results) == 1


# Arrays of other libraries


class Foreign(NDArrayOperatorsMixin):
    """An array that speaks NumPy's protocols and refuses to become one of NumPy's."""

    def __init__(self, array):
        self.array = array

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    dtype = property(lambda self: self.array.dtype)
    T = property(lambda self: Foreign(self.array.T))

    def __array__(self, *args, **kwargs):
        raise AssertionError("made a NumPy array of a foreign one")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return wrap(getattr(ufunc, method)(*unwrap(inputs), **unwrap(options)))

    def __array_function__(self, function, types, args, options):
        return wrap(function(*unwrap(args), **unwrap(options)))

    def __getitem__(self, key):
        return Foreign(self.array[key])

    def __setitem__(self, key, value):
        self.array[unwrap(key)] = unwrap(value)

    def astype(self, dtype):
        return Foreign(self.array.astype(dtype))

    def copy(self):
        return Foreign(self.array.copy())

    def reshape(self, *shape):
        return Foreign(self.array.reshape(*shape))


def wrap(value):
    return Foreign(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def unwrap(value):
    if isinstance(value, list | tuple):
        return type(value)(unwrap(v) for v in value)
    if isinstance(value, dict):
        return {k: unwrap(v) for k, v in value.items()}
    return value.array if isinstance(value, Foreign) else value


@pytest.mark.parametrize(
    "fn",
    [
        mb.batch_norm,
        lambda x, gamma, beta: mb.batch_norm(x, gamma, beta).relu() @ x.T,
        lambda x, gamma, beta: np.concatenate([x[1:], np.maximum(x, gamma)]) / (2 + abs(beta)),
        lambda x, gamma, beta: np.max(x, axis=0) + np.mean(x * beta) - gamma**2,
        lambda x, gamma, beta: mb.functional.softmax(x) * gamma + x[np.array([0, 0, 1, 2])] * beta,
    ],
)
def test_foreign_arrays_stay_what_they_are(fn):
    arrays = [normal(shape) for shape in ((4, 3), (3,), (3,))]
    ours, theirs = [leaf(a) for a in arrays], [leaf(Foreign(a)) for a in arrays]
    y, z = fn(*ours), fn(*theirs)
    assert isinstance(z.data, Foreign)
    assert_allclose(z.data.array, y.data, rtol=1e-14)
    seed = normal(y.shape)
    y.backward(seed)
    z.backward(Foreign(seed))
    for t, u in zip(ours, theirs, strict=True):
        assert isinstance(u.grad, Foreign)
        assert_allclose(u.grad.array, t.grad, rtol=1e-12, atol=1e-14)


def test_the_gradient_of_a_transposed_weight_lies_in_memory_as_the_weight_does():
    weight = mb.Tensor(rng.normal(size=(3, 4)), requires_grad=True)
    x, g = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    (mb.Tensor(x) @ weight.T).backward(g, retain_grad=False)
    assert_allclose(weight.grad, g.T @ x, rtol=1e-13)
    assert weight.grad.flags.c_contiguous
    assert weight.grad.flags.writeable


def test_a_view_is_given_out_only_if_nothing_else_refers_to_what_it_shows():
    whole = rng.normal(size=(3, 4))
    shared, alone = whole.T, rng.normal(size=(3, 4)).T
    half, repeated = rng.normal(size=(6, 4))[:3], np.broadcast_to(rng.normal(size=4), (3, 4))
    locked = rng.normal(size=(3, 4))[:]
    locked.flags.writeable = False
    assert kernels.own(alone, set()) is alone
    for view in (shared, half, repeated, locked):
        owned = kernels.own(view, set())
        assert owned.base is None
        assert owned.flags.writeable
        assert_array_equal(owned, view)


def test_an_optimiser_leaves_the_values_of_earlier_graphs_alone():
    weight = mb.Tensor([2.0, 3.0], requires_grad=True)
    frozen, x = weight.detach(), mb.Tensor([1.0, 1.0], requires_grad=True)
    y = (x * frozen).sum()
    (weight * weight).sum().backward()
    mb.optim.SGD([weight], lr=0.1).step()
    assert_array_equal(weight.data, [1.6, 2.4])
    y.backward()
    assert_array_equal(x.grad, [2.0, 3.0])


def test_new_data_of_a_constant_is_noticed_too():
    weight, x = mb.Tensor([2.0, 3.0]), mb.Tensor([1.0, 1.0], requires_grad=True)
    y = (x * weight).sum()
    weight.data -= 1
    with pytest.raises(RuntimeError, match=r"Tensor \(2,\) float64 was given new data after mul"):
        y.backward()
    assert x.grad is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda t: pickle.loads(unborn(t))])
def test_a_copy_comes_into_being_when_it_is_made(copied):
    x = copied(mb.Tensor([1.0, 2.0], requires_grad=True, name="x"))
    assert (x.name, x.requires_grad) == ("x", True)
    (x * x).sum().backward()
    assert_array_equal(x.grad, [2.0, 4.0])


def unborn(tensor):
    """Pickle ``tensor`` as a process would whose clock is far ahead of ours."""
    tensor.time += 10**9
    return pickle.dumps(tensor)
