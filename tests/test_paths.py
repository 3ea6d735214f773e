"""Paths of the gradient: what flows along edges, sums over paths, paths that contribute nothing.

That a path is null is known from the formulas: with the mean taken out, deviations sum to 0.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microbn as mb
from microbn import functional, nn
from microbn.errors import GradientError, OperandError, ShapeError
from microbn.graph import Graph
from microbn.graph.nullpaths import null_paths
from microbn.graph.paths import Link, Pass, along, edges_of, paths, written

TABLE = np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]])
MEAN_PATH = "var → squared → centered → mean"
IN_COLUMN = (
    "what flows along it is, in each column, a multiple of centered, whose sum over axis 0 is 0"
)


def leaf(*shape, name=None, seed=0, dtype=np.float64, offset=0.0):
    data = np.random.default_rng(seed).normal(size=shape) + offset
    return mb.Tensor(data.astype(dtype), requires_grad=True, name=name)


def batch_norm(x, axis=0):
    shape = x.shape[1:] if axis == 0 else x.shape[-1:]
    gamma = leaf(*shape, name="gamma", seed=1, dtype=x.dtype)
    beta = leaf(*shape, name="beta", seed=2, dtype=x.dtype)
    return (mb.batch_norm if axis == 0 else functional.layer_norm)(x, gamma, beta, axis=axis)


def paper(x, gamma, beta):
    """As the paper has it, the deviations computed twice."""
    mu = x.mean(0).named("mu")
    var = ((x - mu) ** 2).mean(0).named("var")
    return gamma * (x - mu) / np.sqrt(var + 1e-5) + beta


def texts(*arguments, **options):
    return [null.text for null in null_paths(*arguments, **options)]


@st.composite
def programs(draw):
    """A random computation on 3 × 2 arrays: leaves, and an output that depends on the first."""
    tensors = [leaf(3, 2, seed=k) for k in range(2)]
    binary = [
        np.add,
        np.subtract,
        np.multiply,
        lambda a, b: a - b.mean(0),
        lambda a, b: a * b.sum(),
    ]
    unary = [np.tanh, np.negative, functional.relu, lambda a: a[::-1], lambda a: a @ np.eye(2)]
    for _ in range(draw(st.integers(1, 7))):
        a, b = (tensors[-1 - draw(st.integers(0, len(tensors) - 1))] for _ in range(2))
        made = draw(st.sampled_from(binary))(a, b) if draw(st.booleans()) else None
        tensors.append(draw(st.sampled_from(unary))(a) if made is None else made)
    return tensors[0], tensors[-1] + tensors[0]


def sum_over_paths(output, x, dy):
    return sum(along(path, dy) for path in paths(output, x, limit=10_000))


def gradient(output, x, dy):
    return mb.grad(output, x, dy).data


# Flows -------------------------------------------------------------------------------------------


@given(programs(), st.sampled_from([np.float32, np.float64]))
def test_the_flows_into_a_tensor_add_up_to_its_cotangent(program, dtype):
    back = Pass(program[1].astype(dtype))
    expected = dict(mb.backprop(program[1].astype(dtype), back.seed))
    assert set(back.flows) == {link for ways in back.ways.values() for link in ways}
    for ways in back.ways.values():
        tensor = ways[0].input
        added = sum(back.flows[link] for link in ways)
        np.testing.assert_allclose(added, expected[tensor], rtol=1e-12, atol=1e-12)


# Paths -------------------------------------------------------------------------------------------


def test_batch_norm_has_four_paths():
    x = mb.Tensor(TABLE, requires_grad=True, name="x")
    y = batch_norm(x)
    rest = "y → scaled → x_hat → "
    var = "inv_std → std → var_eps → var → squared → "
    assert [written(path) for path in paths(y, x)] == [
        rest + way for way in ("centered → x", "centered → mean → x")
    ] + [rest + var + way for way in ("centered → x", "centered → mean → x")]


@pytest.mark.parametrize("axis", [0, -1])
def test_the_gradient_is_the_sum_over_paths(axis):
    x, dy = leaf(5, 4, name="x"), leaf(5, 4, seed=3).data
    for y in (batch_norm(x, axis), functional.softmax(x), functional.log_softmax(x)):
        np.testing.assert_allclose(sum_over_paths(y, x, dy), gradient(y, x, dy), atol=1e-12)


def test_the_fourth_path_of_batch_norm_is_zero_and_the_others_are_not():
    x, dy = leaf(6, 3, name="x"), leaf(6, 3, seed=3).data
    sizes = [np.abs(along(path, dy)).max() for path in paths(batch_norm(x), x)]
    assert min(sizes[:3]) > 0.01
    assert sizes[3] < 1e-15


@given(programs())
def test_the_gradient_of_any_program_is_the_sum_over_paths(program):
    x, y = program
    dy = leaf(3, 2, seed=9).data
    np.testing.assert_allclose(sum_over_paths(y, x, dy), gradient(y, x, dy), rtol=1e-9, atol=1e-9)


def test_there_is_one_path_of_no_links_from_a_tensor_to_itself():
    x = leaf(2)
    assert paths(x, x) == [()]
    assert paths(x * 1, leaf(2)) == []


def test_too_many_paths_are_counted_and_refused():
    y = x = leaf(2, name="x")
    for _ in range(40):
        y = y + y
    with pytest.raises(ShapeError, match=f"{2**40} paths from . to x, more than limit=1000"):
        paths(y, x)
    assert len(paths(y.inputs[0].inputs[0], y.inputs[0].inputs[0].inputs[0])) == 2


def test_long_chains():
    y = x = leaf(2, name="x")
    for _ in range(20_000):
        y = -y
    (path,) = paths(y, x)
    assert len(path) == 20_000
    np.testing.assert_array_equal(along(path, [1.0, 2.0]), [1.0, 2.0])
    assert not null_paths(y)


def test_a_path_must_hang_together():
    x = leaf(2, name="x")
    y = (x * 2).named("y")
    z = np.where(y.data > 0, y, 0).named("z")
    for path in [(), (Link(z, 1), Link(z, 1))]:
        with pytest.raises(ShapeError, match="is no path"):
            along(path)
    with pytest.raises(ShapeError, match="nothing flows along"):
        along((Link(mb.Tensor([1.0]) * x, 0),))
    with pytest.raises(OperandError, match="the output of a derivative"):
        paths(np.ones(2), x)
    with pytest.raises(GradientError, match="requires no gradient"):
        paths(y, mb.Tensor([1.0]))


def test_links_are_equal_if_they_are_the_same_edge():
    x = leaf(2, name="x")
    y = (x * x).named("y")
    assert Link(y, 0) == Link(y, 0) != Link(y, 1)
    assert Link(y, 0) != Link(x * x, 0)
    assert Link(y, 0) != (y, 0)
    assert {Link(y, 0): 1}[Link(y, 0)] == 1
    assert repr(Link(y, 0)) == "<Link: y → x>"


def test_links_are_found_in_a_graph():
    y = batch_norm(leaf(4, 2, name="x"))
    graph = Graph.from_outputs(y, backward=True)
    there = {(edge.source, edge.target, edge.position) for edge in graph.edges}
    (null,) = null_paths(y)
    found = edges_of(null.path, y)
    assert set(found) <= there
    titles = [(graph.nodes[source].title, graph.nodes[target].title) for source, target, _ in found]
    assert titles == [("squared", "var"), ("centered", "squared"), ("mean", "centered")]


# Null paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("x", [TABLE, leaf(32, 5).data, leaf(2, 1).data], ids=["table", "32", "2"])
def test_batch_norm_has_one_null_path(x, offset, dtype):
    y = batch_norm(mb.Tensor((x + offset).astype(dtype), requires_grad=True, name="x"))
    (null,) = found = null_paths(y)
    assert str(null) == f"{MEAN_PATH}: {IN_COLUMN}"
    assert (found.seed, found.note) == ("two random cotangents", "")
    assert written(null.path) == null.text
    assert (null.where.consumer.name, null.where.input.name) == ("centered", "mean")
    assert null.path[0].consumer is y.inputs[0].inputs[0].inputs[1].inputs[0].inputs[0].inputs[0]
    assert null.total <= 1e-9 * null.largest


def test_only_the_path_found_is_zero():
    x, dy = leaf(32, 5, name="x", offset=1e3), leaf(32, 5, seed=3).data
    y = batch_norm(x)
    (null,) = null_paths(y)
    for path in paths(y, x):
        contains = any(path[k:][: len(null.path)] == null.path for k in range(len(path)))
        assert (np.abs(along(path, dy)).max() < 1e-9) == contains


@given(programs())
def test_every_path_that_contains_a_null_path_is_zero(program):
    x, y = program
    dy = leaf(3, 2, seed=9).data
    nulls = [null.path for null in null_paths(y)]
    whole = paths(y, x, limit=10_000)
    sizes = [np.abs(along(path, dy)).max() for path in whole]
    for path, size in zip(whole, sizes, strict=True):
        if any(path[k:][: len(null)] == null for null in nulls for k in range(len(path))):
            assert size <= 1e-12 * max(sizes)


def test_layer_norm_and_images():
    (null,) = null_paths(batch_norm(leaf(4, 6, dtype=np.float32, offset=1e3), axis=-1))
    assert null.text == MEAN_PATH
    assert "in each row, a multiple of centered, whose sum over axis 1 is 0" in null.reason
    (null,) = null_paths(mb.batch_norm(leaf(4, 3, 2, 2), axis=(0, 2, 3)))
    assert "for each index of axis 1, a multiple of centered" in null.reason
    (null,) = null_paths(mb.batch_norm(leaf(8)))
    assert "along it is a multiple of centered, whose sum over axis 0 is 0" in null.reason


def test_batch_norm_as_the_paper_writes_it():
    x, gamma, beta = leaf(6, 3, name="x"), leaf(3), leaf(3)
    (null,) = null_paths(paper(x, gamma, beta))
    assert null.text == "var → ** 2 → − → mu"
    assert "in each column, a multiple of the result of −, whose" in null.reason
    y = paper(x, gamma, beta)
    deviation = null_paths(y)[0].where.consumer
    (null,) = null_paths(y, names={id(deviation): "deviation"})
    assert null.text == "var → ** 2 → deviation → mu"
    assert "a multiple of deviation, whose" in null.reason


def test_a_square_written_as_a_product_has_the_path_twice():
    x = leaf(6, 3, name="x")
    centered = (x - x.mean(0).named("mean")).named("centered")
    var = (centered * centered).named("squared").mean(0).named("var")
    found = null_paths(centered / np.sqrt(var))
    assert [null.text for null in found] == [MEAN_PATH] * 2
    assert {null.path[1].position for null in found} == {0, 1}
    assert str(found).count(MEAN_PATH) == 1
    assert "(2 times)" in str(found)


def test_the_mean_as_a_product_of_matrices():
    x, average = leaf(6, 3, name="x"), np.full((1, 6), 1 / 6)
    centered = (x - average @ x).named("centered")
    found = null_paths(centered / np.sqrt((average @ centered**2).named("var")))
    assert [null.text for null in found] == ["var → ** 2 → centered → @"]


def test_a_sum_that_a_product_of_matrices_makes():
    x, w = leaf(6, 1, name="x"), leaf(1, 6, name="w")
    centered = (x - x.mean(0)).named("centered")
    rows = (np.ones((6, 1)) @ w).named("rows")  # its cotangent goes through ones.T @ g
    (null,) = null_paths((rows * centered).named("y").sum().named("loss"))
    assert null.text == "loss → y → rows → w"
    assert null.reason.startswith("its entries cancel in the rule of @")


def test_what_cancels_without_a_reason_that_is_known():
    x = leaf(3, name="x")
    (null,) = null_paths((leaf(3, seed=1) + x.sum()).named("y"), [0.5, -0.25, -0.25])
    assert null.reason == (
        "its entries cancel in the sum over axis 0: the largest is 0.5, their sum 0"
    )


def test_a_multiple_is_told_from_what_only_sums_to_zero():
    x = leaf(3, name="x")
    centered = (x - x.mean(0)).named("centered")
    y = (centered * (leaf(3, seed=1) + leaf(seed=2, name="shift")).named("shifted")).named("y")
    shift = null_paths(y, [0.5, 0.5, 0.5])[0]
    assert "a multiple of centered" in shift.reason
    shift = null_paths(y, np.array([0.5, -0.25, -0.25]) / centered.data)[0]
    assert (shift.text, shift.reason[:20]) == ("y → shifted → shift", "its entries cancel i")

    half = mb.Tensor([[1.0, 1.0], [-1.0, 1.0]], requires_grad=True, name="half")
    y = (half * (leaf(2, 2, seed=1) + leaf(2, seed=2, name="shift")).named("shifted")).named("y")
    (shift,) = null_paths(
        y, [[0.5, 0.0], [0.5, 0.0]]
    )  # only the first column comes in, and cancels
    assert (shift.text, shift.reason[:20]) == ("y → shifted → shift", "its entries cancel i")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_without_null_paths(dtype, offset):
    x = leaf(32, 5, name="x", dtype=dtype, offset=offset)
    center = mb.Tensor(np.full(5, offset + 0.5, dtype))
    deviation = x - x.mean(0)
    assert not texts(deviation / np.sqrt(((x - center) ** 2).mean(0) + 1e-5))
    assert not texts(x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5))
    assert not texts(functional.softmax(x))
    assert not texts(functional.cross_entropy(x, np.arange(32) % 5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [1e-4, 1e-8, 1e-10])
def test_small_is_not_nothing(shift, dtype):
    x = leaf(32, 5, name="x", dtype=dtype)
    mean = x.mean(0)
    near = ((x - mean - shift) ** 2).mean(0)  # its deviations do not quite sum to 0
    assert not texts((x - mean) / np.sqrt(near))
    assert not texts(x * 1e-12 + x.mean(0) * 1e-30)
    assert texts((x - mean) / np.sqrt(((x - mean) ** 2).mean(0)))


@pytest.mark.parametrize(("offset", "found"), [(1e7, [MEAN_PATH]), (1e9, []), (1e12, [])])
def test_rounding_of_data_that_is_too_ill_conditioned_decides_nothing(offset, found):
    x = leaf(32, 5, name="x", offset=offset)
    assert texts(mb.batch_norm(x, eps=1.0)) == found


def test_the_bound_counts_how_much_was_added_and_how_often():
    dy = np.ones((11, 1, 2))
    dy[0], dy[9], dy[10] = 1e16, -1e16, -8  # added up in order, all eight ones are rounded off
    assert dy.sum(0).tolist() == [[-8, -8]]
    y = (leaf(11, 1, 2) + leaf(1, 2, name="shift")).named("y")
    (null,) = null_paths(y, dy)
    assert (null.text, null.largest, null.total) == ("y → shift", 1e16, 8)
    dy[10] = -8e4
    assert not null_paths(y, dy)


def test_a_cast_on_the_way_is_computed_in_float64_too():
    x = leaf(32, 5, offset=1e3).astype(np.float32)
    (null,) = null_paths(mb.batch_norm(x))
    assert null.text == MEAN_PATH
    assert null.total < 1e-9 * null.largest


def test_a_rule_that_lets_nothing_through():
    x, g = leaf(3, 2, name="x"), leaf(2, name="g")
    (dead, weight) = sorted(null_paths((functional.relu(-x * x) * g).named("y")), key=str)
    assert [str(dead), str(weight)] == [
        "relu → ×: the rule of relu gives 0 everywhere",
        "y → g: the rule of × gives 0 everywhere",
    ]
    assert dead.total == 0 < dead.largest
    assert texts(np.where(np.zeros(2, bool), x, g).named("y")) == ["y → x"]
    assert texts((x * np.zeros(2) + x).named("y")) == ["× → x"]


def test_only_one_of_the_ways_to_a_tensor_ends_there():
    x = leaf(4, name="x")
    both = np.concatenate([x[:2].named("a"), x[2:].named("b")]).named("both")
    y = both[:2].named("first") * both[2:].named("last")
    assert sorted(texts(y)) == ["first → both → b", "last → both → a"]


def test_whichever_way_it_comes():
    x, g = leaf(4, name="x"), leaf(4, name="g")
    dead = functional.relu(-x * x).named("dead")
    assert sorted(texts(dead * g + dead)) == ["dead → ×", "× → g"]


def test_ways_that_cancel_each_other_bring_nothing():
    both = np.concatenate([leaf(2, name="a"), leaf(2, name="b")]).named("both")
    twice = (both * 2).named("twice")
    nothing = twice * 0.1 + twice * 0.2 - twice * 0.3
    found = texts((both[:2].named("first") + nothing[2:]).named("y"))
    assert [text for text in found if text.endswith("b")] == ["first → both → b"]


def test_a_null_path_begins_where_any_cotangent_would_vanish():
    x = leaf(6, 3, name="x")
    centered = (x - x.mean(0).named("mean")).named("centered")
    squared = (centered**2).named("squared")
    var, other = squared.mean(0).named("var"), squared.mean(0).named("other")
    ways = sorted(texts(centered / np.sqrt(var) + other * leaf(6, 3, seed=1)))
    assert ways == ["other → squared → centered → mean", MEAN_PATH]


@pytest.mark.parametrize(
    ("between", "more"),
    [
        (lambda h: h, ["mean → x_hat → inv_std"]),
        (lambda h: h @ leaf(3, 3, name="W"), ["mean → @ → W", "mean → @ → x_hat → inv_std"]),
    ],
)
def test_paths_that_only_cancel_each_other_are_not_null(between, more):
    first = mb.batch_norm(leaf(6, 3, name="x"))
    y, mean = mb.batch_norm(between(first)), first.inputs[0].inputs[1]
    # What comes back from the second batch norm sums to 0, so no gradient reaches the first mean.
    assert mean.name == "mean"
    assert np.abs(mb.grad(y, mean, leaf(6, 3, seed=3).data).data).max() < 1e-12
    # That is the doing of two paths together. What the second mean sends back is null by itself:
    # the same for all rows, it meets the deviations of the first, which sum to 0.
    assert sorted(texts(y)) == [*more, MEAN_PATH, MEAN_PATH]


def test_a_null_path_is_not_longer_than_100_edges():
    x = leaf(6, 3, name="x")
    centered = (x - x.mean(0).named("mean")).named("centered")
    for length, found in [(97, 1), (98, 0)]:
        h = (centered**2).named("squared")
        for _ in range(length):
            h = -h
        assert len(null_paths(centered + h.mean(0))) == found


def test_a_part_that_vanishes_after_merging_is_missed():
    x = leaf(6, 3, name="x")
    centered = (x - x.mean(0).named("mean")).named("centered")
    squared = (centered**2).named("squared")
    assert not texts(centered / np.sqrt(squared.mean(0)) + squared)  # as null_paths says


def test_a_path_is_not_null_for_what_ended_before():
    inner = np.concatenate([leaf(1, name="c"), leaf(1, name="d")]).named("inner")
    outer = np.concatenate([leaf(2, name="a"), inner]).named("outer")
    y = outer[:2].named("first") * outer[2:3].named("third")
    expected = ["first → outer → inner", "third → outer → a", "third → outer → inner → d"]
    assert sorted(texts(y)) == expected


def test_a_factor_that_is_zero_up_to_rounding():
    x, g = leaf(7, 3, name="x"), leaf(3, name="g")
    (null,) = null_paths(((x - x.mean(0)).mean(0) * g).named("y"))
    assert null.text == "y → g"
    assert "which is rounding" in null.reason
    assert 0 < null.total < 1e-15 < null.largest


def test_what_cancels_for_one_cotangent_only():
    y = batch_norm(leaf(6, 3, name="x"))
    found = null_paths(y, np.ones((6, 3)))
    assert found.seed == "the cotangent given"
    assert [null.text for null in found] == ["y → scaled → gamma", "y → scaled → x_hat → inv_std"]
    assert "a multiple of x_hat, whose sum" in found[0].reason
    assert "a multiple of centered, whose sum" in found[1].reason
    assert not null_paths(y, np.zeros((6, 3)))
    total = null_paths(y.sum().named("loss"))
    assert total.seed == "a cotangent of 1"
    assert [null.text for null in total] == [
        "loss → y → scaled → gamma",
        "loss → y → scaled → x_hat → inv_std",
    ]


def test_both_cotangents_count(monkeypatch):
    y = batch_norm(leaf(6, 3, name="x"))
    ones, other = (y.detach()._constant(g, True) for g in (np.ones((6, 3)), leaf(6, 3).data))
    monkeypatch.setattr(
        "microbn.graph.nullpaths._seeds", lambda *_: ("ones, and others", [ones, other])
    )
    assert str(null_paths(y)) == "no null paths, with ones, and others"


def test_the_bias_before_batch_norm_has_paths_that_only_cancel_each_other():
    bias = leaf(3, name="bias")
    assert texts(mb.batch_norm(leaf(6, 3) + bias)) == [MEAN_PATH]


def test_a_network_has_one_for_each_batch_norm():
    layers = [nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4), nn.BatchNorm1d(4)]
    out = nn.Sequential(*layers)(mb.Tensor(leaf(16, 5).data.astype(np.float32)))
    found = null_paths(functional.cross_entropy(out, np.arange(16) % 4))
    assert [null.text for null in found] == [MEAN_PATH] * 2
    assert len({null.where.consumer.scope for null in found}) == 2
    assert all(null.reason == IN_COLUMN for null in found)


def test_a_limit_is_kept_and_said():
    y = batch_norm(leaf(6, 3, name="x"))
    found = null_paths(y, limit=5)
    assert not found
    assert found.note in str(found)
    assert "more than limit=5 edges" in found.note
    assert len(null_paths(y, limit=20)) == 1


def test_nothing_is_changed_by_looking():
    x = leaf(6, 3, name="x", dtype=np.float32)
    y = batch_norm(x)
    before = (y.data.copy(), x.data.copy())
    with mb.no_grad():
        assert len(null_paths(y)) == 1
    null_paths(y)
    Pass(y)
    assert x.grad is None
    assert y.grad is None
    np.testing.assert_array_equal(y.data, before[0])
    np.testing.assert_array_equal(x.data, before[1])


def test_data_that_changed_since_is_refused():
    x = leaf(6, 3, name="x", dtype=np.float32)
    y = mb.batch_norm(x)
    x.data = x.data * 2
    for look in (null_paths, Pass):
        with pytest.raises(GradientError, match="was given new data"):
            look(y)


def test_values_that_are_not_finite_are_not_zero():
    x = mb.Tensor([[np.inf, 1.0], [2.0, np.nan]], requires_grad=True, name="x")
    assert null_paths(x * x).note == ""
    with np.errstate(divide="ignore"):
        y = np.log(mb.Tensor([0.0, 1.0], requires_grad=True))
    assert not null_paths(y)
    y = np.where(np.array([False, True]), leaf(2), 0)
    assert not null_paths(y, [np.inf, 1.0])


def test_wrong_arguments():
    with pytest.raises(OperandError, match="the output of a derivative"):
        null_paths(np.ones(3))
    with pytest.raises(ShapeError):
        null_paths(leaf(3) * 2, np.ones(4))
