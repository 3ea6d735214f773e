"""Staged comparison: one origin for one fault, at the step that was broken, and no false alarms."""

from itertools import product

import handmade
import numpy as np
import pytest
from faults import FAULTS as REPORTED

import microbn as mb
from microbn import handwritten
from microbn.check.compare import compare
from microbn.context import named
from microbn.errors import GradientError, OperandError, ShapeError

EPS = 1e-5
# What each step of the backward pass reads: independent of the engine, by the lines below.
READS = {
    "y": [],
    "scaled": ["y"],
    "beta": ["y"],
    "x_hat": ["scaled"],
    "gamma": ["scaled"],
    "inv_std": ["x_hat"],
    "std": ["inv_std"],
    "var_eps": ["std"],
    "var": ["var_eps"],
    "squared": ["var"],
    "centered": ["x_hat", "squared"],
    "mean": ["centered"],
    "x": ["centered", "mean"],
}
ANYWHERE = {
    "zero": lambda g: 0 * g,
    "sign": lambda g: -g,
    "twice": lambda g: 2 * g,
    "half": lambda g: g / 2,
    "shape": lambda g: g[None],
    "dtype": lambda g: g.astype(np.float64 if g.dtype == np.float32 else np.float32),
    "per channel": lambda g: g * np.arange(2, 2 + g.shape[-1]).astype(g.dtype),
    "one entry": lambda g: g + g.std() * (np.arange(g.size) == 1).reshape(g.shape),
    "nan": lambda g: np.where(np.arange(g.size).reshape(g.shape) == 1, np.nan, g).astype(g.dtype),
}

FOUND = [fault for fault in REPORTED if fault.effect != "accumulates"]  # by the first call


def staged(dy, x, gamma, beta, at=None, fault=None):
    """`handwritten.backward_staged` with all its stages; the step `at` may have a fault.

    A step is its right value, and wrong ones of its own by the name of the fault.
    """
    _, cache = handwritten.forward(x, gamma, beta, EPS)
    _, _, centered, _, std, inv_std, x_hat = cache
    m, d = len(x), {}

    def step(name, right, **wrong):
        d[name] = right
        if name == at:
            d[name] = wrong[fault] if fault in wrong else ANYWHERE[fault](right)

    step("y", dy)
    step("scaled", d["y"], operand=d["y"] * inv_std)
    step("beta", d["y"].sum(0), lost=d["y"] * 1, mean=d["y"].mean(0), scalar=d["y"].sum())
    step("x_hat", d["scaled"] * gamma, operand=d["scaled"] * inv_std)
    terms = d["scaled"] * x_hat
    wrong = {"operand": (d["scaled"] * centered).sum(0), "mean": terms.mean(0)}
    step("gamma", terms.sum(0), lost=terms, **wrong)
    terms = d["x_hat"] * centered
    wrong = {"operand": (d["x_hat"] * x_hat).sum(0), "scalar": terms.sum()}
    step("inv_std", terms.sum(0), lost=terms, **wrong)
    step("std", -d["inv_std"] * std**-2, operand=-d["inv_std"] * std**-1)
    step("var_eps", d["std"] / (2 * std), operand=d["std"] / (2 * inv_std))
    step("var", d["var_eps"], operand=d["var_eps"] * std)
    squared = np.broadcast_to(d["var"] / m, x.shape)
    step(
        "squared", squared, bessel=squared * m / (m - 1), lost=squared * m, unrepeated=d["var"] / m
    )
    direct = d["x_hat"] * inv_std
    wrong = {"operand": direct + d["squared"] * 2 * x_hat, "mean": d["squared"] * 2 * centered}
    step("centered", direct + d["squared"] * 2 * centered, **wrong)
    wrong = {
        "operand": -(d["centered"] * x_hat).sum(0),
        "lost": -d["centered"],
        "bessel": -d["centered"].mean(0),
    }
    step("mean", -d["centered"].sum(0), **wrong)
    wrong = {"bessel": d["centered"] + d["mean"] / (m - 1), "mean": d["centered"] * 1}
    step("x", d["centered"] + d["mean"] / m, operand=direct + d["mean"] / m, **wrong)
    return d


OWN = {
    "operand": "scaled x_hat gamma inv_std std var_eps var centered mean x",
    "lost": "beta gamma inv_std squared mean",
    "mean": "beta gamma centered x",
    "scalar": "beta inv_std",
    "bessel": "squared mean x",
    "unrepeated": "squared",
}
FAULTS = list(product(READS, ANYWHERE))
FAULTS += [(at, fault) for fault, where in OWN.items() for at in where.split()]


def drawn(seed, shape=(8, 3), dtype=np.float64, **sizes):
    """A cotangent and the inputs of a batch norm."""
    rng = np.random.default_rng(seed)
    inputs = handmade.columns(rng, dtype, shape=shape, **sizes)
    return rng.standard_normal(shape).astype(dtype), *inputs


def traced(*inputs, fn=handmade.batch_norm):
    return mb.trace(fn, *inputs)


def below(at):
    """Every step that depends on this one."""
    found = {at}
    for name, reads in READS.items():
        if found & set(reads):
            found.add(name)
    return found - {at}


# One fault ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(8, 3), (32, 64)])
@pytest.mark.parametrize(("at", "fault"), FAULTS)
def test_one_fault_has_one_origin(at, fault, shape, dtype):
    dy, *inputs = drawn(1, shape, dtype)
    found = compare(traced(*inputs), staged(dy, *inputs, at, fault), dy)
    assert found.origins == (at,), f"{at} {fault}\n{found}"
    wrong = {name for name, verdict in found.verdict.items() if verdict != "ok"}
    assert wrong <= {at} | below(at), f"{at} {fault}\n{found}"
    assert not found


def test_the_null_path_may_be_left_out():
    """-d x_hat * inv_std in place of -d centered: what else is summed up is zero."""
    dy, x, gamma, beta = drawn(1)
    d = staged(dy, x, gamma, beta)
    _, cache = handwritten.forward(x, gamma, beta, EPS)
    assert compare(traced(x, gamma, beta), d | {"mean": -(d["x_hat"] * cache.inv_std).sum(0)}, dy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_faults_have_two_origins(dtype):
    """The lower one is no excuse of the upper one: it is wrong by more than it inherits."""
    dy, *inputs = drawn(2, dtype=dtype)
    d = staged(dy, *inputs, "std", "twice")
    d["mean"] = -d["mean"]
    d["x"] = d["centered"] + d["mean"] / len(dy)
    found = compare(traced(*inputs), d, dy)
    assert found.origins == ("std", "mean")
    assert found.verdict["var"] == found.verdict["x"] == "inherited"
    assert "A fault is at std: d std is 2 times what follows" in str(found)
    assert "are wrong because of them and need no mending." in " ".join(str(found).split())


def test_where_the_faulty_stage_is_not_given_it_is_the_one_below():
    dy, *inputs = drawn(3)
    d = staged(dy, *inputs, "var_eps", "operand")
    given = {name: d[name] for name in ("gamma", "beta", "std", "squared", "x")}
    found = compare(traced(*inputs), given, dy)
    assert found.verdict == {
        "std": "ok",
        "squared": "origin",
        "beta": "ok",
        "gamma": "ok",
        "x": "inherited",
    }


@pytest.mark.parametrize("fault", ["sign", "nan"])
def test_what_is_computed_another_way_is_right_below_a_fault(fault):
    dy, *inputs = drawn(4)
    dx, _, _ = handmade.of_columns(handwritten.backward_closed)(dy, *inputs)
    d = staged(dy, *inputs, "var", fault) | {"x": dx}
    found = compare(traced(*inputs), d, dy)
    assert found.origins == ("var",)
    assert (found.verdict["centered"], found.verdict["x"]) == ("inherited", "ok")


@pytest.mark.parametrize("fault", FOUND, ids=lambda fault: fault.name)
def test_faults_that_were_reported(fault):
    """Given nothing but gradients of the inputs, those that are wrong are the origins."""
    rng = np.random.default_rng(13)
    inputs = fault.inputs(rng, np.float32 if fault.effect == "dtype" else np.float64)
    names = [f"input{i}" for i in range(len(inputs))]
    leaves = [mb.Tensor(a, requires_grad=True, name=n) for n, a in zip(names, inputs, strict=True)]
    output = fault.composed(*leaves)
    dy = rng.standard_normal(output.shape).astype(output.dtype)
    gradients = fault.backward(dy, *inputs)
    found = compare(output, dict(zip(names, gradients, strict=True)), dy)
    assert set(found.origins) == {names[i] for i in (fault.wrt, *fault.also)}, found


# Right ones --------------------------------------------------------------------------------------

FORMS = [handwritten.backward_paper, handwritten.backward_closed]
LAYERS = [handmade.layer_norm_staged, handmade.layer_norm_closed]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_right_ones_are_right(dtype):
    """Of every size and form, near zero and 1000 standard deviations away from it."""
    rng = np.random.default_rng(5)
    for seed in range(300):
        form = seed % 6
        shape = tuple(map(int, rng.integers([2, 2], [20, 8])))
        sizes = {"scale": 10 ** rng.uniform(-3, 3), "offset": rng.choice([0, 1, -30, 1000])}
        dy, *inputs = drawn(seed, shape, dtype, **sizes)
        dy *= dtype(10 ** rng.uniform(-3, 3))
        fn, d = handmade.batch_norm, staged(dy, *inputs)
        if form in (2, 3):
            fn, gradients = handmade.layer_norm, LAYERS[form - 2](dy, *inputs)
            d = dict(zip(("x", "gamma", "beta"), gradients, strict=True))
        elif form in (4, 5):
            d["x"], _, _ = handmade.of_columns(FORMS[form - 4])(dy, *inputs)
        found = compare(traced(*inputs, fn=fn), d, dy)
        assert found, f"{seed} {shape} {sizes}\n{found}"


def test_another_order_of_the_stages_changes_nothing():
    dy, *inputs = drawn(6)
    d = staged(dy, *inputs, "var", "half")
    texts = {str(compare(traced(*inputs), given, dy)) for given in (d, dict(reversed(d.items())))}
    assert len(texts) == 1


# Cannot fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bias_before_batch_norm_cannot_fail(dtype):
    dy, x, gamma, beta = drawn(7, dtype=dtype)
    bias = np.ones(3, dtype)

    def biased(x, bias):
        return handmade.batch_norm(named(x + bias, "before"), gamma, beta)

    dx, _, _ = handmade.of_columns(handwritten.backward_closed)(dy, x + bias, gamma, beta)
    for dbias in (dx.sum(0), 0 * bias, -dx.sum(0)):
        found = compare(traced(x, bias, fn=biased), {"x": dx, "bias": dbias}, dy)
        assert found.verdict == {"x": "ok", "bias": "cannot fail"}
        assert found.ok
        assert "bias proves nothing: its true gradient is nothing but round-off here." in str(found)
    found = compare(traced(x, bias, fn=biased), {"x": dx, "bias": dy.sum(0)}, dy)
    assert found.origins == ("bias",)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dx_cannot_fail_if_dy_is_ones(dtype):
    _, x, gamma, beta = drawn(8, dtype=dtype)
    ones = np.ones_like(x)
    found = compare(traced(x, gamma, beta), staged(ones, x, gamma, beta), ones)
    assert found.ok
    cannot = {name for name, verdict in found.verdict.items() if verdict == "cannot fail"}
    assert cannot == {"inv_std", "std", "var_eps", "var", "squared", "gamma", "x"}


def test_a_zero_that_is_no_sum_can_fail():
    x = np.array([-1.0, 2.0, -3.0])
    trace = mb.trace(lambda x: np.maximum(x, 0)[:1].sum(), x)
    assert compare(trace, {"x": np.zeros(3)}).verdict == {"x": "ok"}
    assert compare(trace, {"x": np.array([0, 1e-300, 0])}).verdict == {"x": "origin"}


# Where nothing flows, shapes, dtypes, what is not finite -----------------------------------------


def test_where_nothing_flows_the_gradient_is_zero():
    x, other = (mb.Tensor([1.0, 2.0], requires_grad=True, name=name) for name in ("x", "other"))
    y = np.where(other.named("condition") * 1 > 0, x, 0 * x.data).sum()
    assert compare(y, {"x": np.ones(2), other: np.zeros(2)}).verdict == {
        "x": "ok",
        "condition": "ok",
    }
    assert compare(y, {"x": np.ones(2), other: np.ones(2)}).origins == ("condition",)


def test_a_shape_that_nothing_can_be_made_of():
    """The true gradient takes its place, for what is below it."""
    dy, *inputs = drawn(9)
    d = staged(dy, *inputs)
    found = compare(traced(*inputs), d | {"squared": d["squared"].T}, dy)
    assert "d squared has shape (3, 8) in place of (8, 3)." in str(found)
    found = compare(traced(*inputs), d | {"squared": np.ones((5, 7))}, dy)
    assert found.origins == ("squared",)
    assert "d squared has shape (5, 7) in place of (8, 3)." in str(found)
    row = next(row for row in found.rows if row.name == "squared")
    assert (row.shape, row.given_shape, row.index) == ((8, 3), (5, 7), None)
    assert np.isnan([row.expected, row.found, row.error]).all()


def test_a_column_against_a_vector_is_not_blown_up():
    """Broadcasting (n,) against (n, 1) would make 10**10 numbers."""
    x = mb.Tensor(np.ones((10**5, 1)), requires_grad=True, name="x")
    y = (x * np.full(x.shape, 2.0)).named("twice").sum()
    found = compare(y, {"twice": np.ones(10**5), "x": np.full((10**5, 1), 2.0)})
    assert found.verdict == {"twice": "origin", "x": "ok"}
    found = compare(y, {"twice": np.full(10**5, 3.0), "x": np.full((10**5, 1), 6.0)})
    assert found.verdict == {"twice": "origin", "x": "inherited"}
    assert "in place of (100000, 1) and is 3 times what" in str(found)


def test_a_shape_is_handed_down_by_the_stage_right_above():
    dy, *inputs = drawn(15)
    d = staged(dy, *inputs, "inv_std", "shape")
    assert compare(traced(*inputs), d, dy).origins == ("inv_std",)
    d["std"] = d["std"][0]
    assert compare(traced(*inputs), d, dy).origins == ("inv_std", "var_eps")


def test_not_a_number_is_not_an_excuse_for_a_number():
    dy, *inputs = drawn(14)
    d = staged(dy, *inputs, "var", "nan")
    d["squared"] = np.nan_to_num(d["squared"], nan=7.0)
    assert compare(traced(*inputs), d, dy).origins[:2] == ("var", "squared")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (np.full(3, 2), "has dtype int64 in place of float64."),
        (np.full(3, 2.0, np.float32), "has dtype float32 in place of float64."),
        (np.full((1, 3), 2.0), "has shape (1, 3) in place of (3,)."),
        (
            np.full((1, 3), 3, int),
            "dtype int64 in place of float64 and has shape (1, 3) in place of (3,)",
        ),
        (np.full((1, 3), 3.0), "in place of (3,) and is 1.5 times what follows from the gradients"),
        (np.array([2.0, np.inf, 2.0]), "is not finite."),
        (np.array([2.0, 2.0, 1.0]), "d x is not what follows from the gradients given above it."),
    ],
)
def test_an_origin_says_what_is_wrong(given, text):
    trace = mb.trace(lambda x: (2 * x).sum(), np.ones(3))
    found = compare(trace, {"x": given})
    assert found.origins == ("x",)
    assert text in " ".join(str(found).split())


def test_lists_and_numbers_have_no_dtype_to_get_wrong():
    x = np.ones(2, np.float32)
    assert compare(mb.trace(lambda x: (2 * x).sum(), x), {"x": [2, 2.0]})
    assert compare(
        mb.trace(lambda x: 3 * x.mean(), x), {"x": mb.Tensor([1.5, 1.5], dtype="float32")}
    )


def test_the_factor_is_found_per_channel():
    dy, x, gamma, beta = drawn(10)
    gamma = np.array([2.0, 4.0, -5.0])
    found = compare(traced(x, gamma, beta), staged(dy, x, gamma, beta) | {"x_hat": dy}, dy)
    text = "d x_hat is 0.5, 0.25, -0.2 along axis 1 times what follows from the gradients given"
    assert text in " ".join(str(found).split())


# The report --------------------------------------------------------------------------------------


def test_the_report():
    x = np.array([[1.0, 2.0], [3.0, 5.0], [2.0, 8.0]])
    dy = np.array([[1.0, 0.0], [0.0, -1.0], [0.5, 0.0]])
    d = staged(dy, x, np.ones(2), np.zeros(2), "var", "half")
    found = compare(traced(x, np.ones(2), np.zeros(2)), d, dy)
    head, *lines = str(found).splitlines()
    assert head == "gradient    verdict    shape   worst at    expected    found    error"
    assert lines[0].split() == ["d", "y", "ok", "(3,", "2)", "[0,", "0]", "1", "1", "0.0e+00"]
    assert [line[2:12].strip() for line in lines[:13]] == [
        *"y scaled x_hat inv_std std var_eps var squared centered mean beta gamma x".split()
    ]
    assert (
        lines[6] == "d var       origin     (2,)    [0]           0.9185   0.4593  5.0e-01"
    )  # of 1.5 / 2 std
    assert lines[13:] == [
        "",
        "The fault is at var: d var is 0.5 times what follows from the gradients given above it.",
        "squared, centered, x are wrong because of it and need no mending.",
    ]
    assert repr(found) == "<Comparison: 13 stages, origins var>"


def test_a_report_is_at_most_100_columns_wide():
    long = "x" * 200
    x = mb.Tensor(np.full((10, 10, 10, 10, 10), 1e300), requires_grad=True, name=long)
    y = (x * -1.234567e-300).named("y")
    found = compare(y, {long: x.data, "y": x.data}, x.data)
    assert max(map(len, str(found).splitlines())) <= 100
    dy, *inputs = drawn(1, (32, 64))
    for fault in ("per channel", "nan", "shape", "one entry"):
        found = compare(traced(*inputs), staged(dy, *inputs, "x_hat", fault), dy)
        assert max(map(len, str(found).splitlines())) <= 100


def test_a_single_number_has_neither_index_nor_need_of_a_cotangent():
    x = mb.Tensor(3.0, requires_grad=True, name="x")
    found = compare(x * x, {"x": 6.0})
    assert found.rows[0].index == ()
    assert str(found).splitlines()[1].split() == "d x ok () 6 6 0.0e+00".split()
    assert "No gradient is wrong, of 1 compared." in str(found)


# Names -------------------------------------------------------------------------------------------


def twice(x):
    """Two batch norms in scopes of their own, two values of one name outside."""
    with mb.scope("first"):
        x = mb.batch_norm(x)
    with mb.scope("second"):
        return mb.batch_norm(x**2)


@pytest.mark.parametrize(
    "path", ["first/batch_norm/var", "first.batch_norm.var", "first.batch_norm/var"]
)
def test_a_path_tells_two_of_one_name_apart(path):
    dy, x, *_ = drawn(11)
    other = path.replace("first", "second")
    found = compare(mb.trace(twice, x), {path: np.zeros(3), other: np.zeros(3)}, dy)
    assert list(found.verdict) == [other, path]


def test_a_name_without_a_scope_is_that_of_the_value_without_one():
    x = mb.Tensor([1.0, 2.0], requires_grad=True, name="x")
    with mb.scope("inner"):
        inner = (2 * x).named("y")
    y = (3 * inner).named("y")
    ones = np.ones(2)
    assert compare(y, {"y": ones, "inner/y": 3 * ones, "x": 6 * ones}, ones).ok
    assert compare(y, {y: ones}, ones).verdict == {"y": "ok"}


def test_variables_of_a_traced_function_are_names():
    def cube(x):
        square = x * x
        return square * x

    x = np.array([1.0, 2.0])
    found = compare(mb.trace(cube, x), {"square": x, "x": 3 * x**2}, np.ones(2))
    assert found.verdict == {"square": "ok", "x": "ok"}


def test_parameters_have_the_names_that_their_module_has_for_them():
    model, x = mb.nn.Linear(2, 1), np.array([[1.0, 2.0], [3.0, 5.0]])
    found = compare(mb.trace(model, x), {"weight": [[4.0, 7.0]], "bias": [2.0]}, np.ones((2, 1)))
    assert found.ok
    assert set(found.verdict) == {"weight", "bias"}


def errors():
    dy, x, gamma, beta = drawn(12)
    trace = traced(x, gamma, beta)
    both, plain = mb.trace(twice, x), mb.Tensor(x, name="plain")
    pair = mb.trace(lambda x: (2 * x, 3 * x), x)
    y = trace.output
    yield (
        trace,
        {"vra": dy},
        dy,
        ShapeError,
        "no value is called 'vra'; the names are: batch_norm/cen",
    )
    yield (
        both,
        {"var": dy},
        dy,
        ShapeError,
        "2 values are called 'var': first/batch_norm/var, second/",
    )
    yield both, {"batch_norm/var": dy}, dy, ShapeError, "give a longer path, or the Tensor itself"
    yield trace, [dy], dy, OperandError, "as a dict by name, not [array(["
    yield trace, {3: dy}, dy, OperandError, "by names or Tensors, not by 3"
    yield trace, {"y": dy, y: dy}, dy, ShapeError, "two of the gradients are for 'y'"
    two = {"y": dy, "batch_norm/y": dy}
    yield trace, two, dy, ShapeError, "two of the gradients are for 'batch_norm/y'"
    yield (
        trace,
        {"x": "dx"},
        dy,
        OperandError,
        "given for 'x', x (8, 3) float64, is 'dx' (str); give a real",
    )
    yield (
        trace,
        {"x": dy * 1j},
        dy,
        OperandError,
        "is array (8, 3) complex128; give a real array of that",
    )
    yield trace, {"x": [[1], [1, 2]]}, dy, OperandError, "is [[1], [1, 2]] (list)"
    yield trace, {"x": dy}, None, GradientError, "y (8, 3) float64 is not a single number"
    yield trace, {"x": dy}, dy[0], ShapeError, "must have the same shape, (8, 3)"
    yield trace, {plain: dy}, dy, GradientError, "plain (8, 3) float64 requires no gradient"
    yield pair, {"x": dy}, dy, ShapeError, "starts from one output, not from 2"
    yield x, {"x": dy}, dy, OperandError, "or its output, not array (8, 3) float64"
    yield plain, {"plain": dy}, dy, GradientError, "requires no gradient"


@pytest.mark.parametrize(("trace", "stages", "dy", "kind", "text"), list(errors()))
def test_errors_say_what_to_do(trace, stages, dy, kind, text):
    with pytest.raises(kind) as error:
        compare(trace, stages, dy)
    assert text in str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_leaf_that_has_changed_since_is_refused(dtype):
    x = mb.Tensor(np.ones(2, dtype), requires_grad=True, name="x")
    y = (x * x).sum()
    x.data = np.zeros(2, dtype)
    with pytest.raises(GradientError, match="was given new data after mul"):
        compare(y, {"x": np.ones(2, dtype)})
