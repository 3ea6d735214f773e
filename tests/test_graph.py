"""The graph as data: what is in it, that it is complete, and that it survives JSON.

Complete means that every value in it, forward and backward, can be computed again from the nodes
that its edges come from; `recomputed` does so, and knows nothing of Tensors.
"""

import copy
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microbn as mb
from microbn.functional import cross_entropy, layer_norm, sigmoid


class Weight(mb.Tensor):
    """A leaf of the kind that layers own."""

    kind = "parameter"


def leaf(*shape, name=None, dtype=None, seed=0, cls=mb.Tensor):
    data = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return cls(data, dtype=dtype, requires_grad=True, name=name)


# Programs: each returns an output -----------------------------------------------------------------


def batch_norm(dtype=None):
    x = leaf(4, 2, name="x", dtype=dtype)
    gamma, beta = leaf(2, name="gamma", dtype=dtype), leaf(2, name="beta", dtype=dtype, seed=1)
    return mb.batch_norm(x, gamma, beta)


def batch_norm_32():
    return batch_norm(np.float32)


def normalised_layer():
    return layer_norm(leaf(3, 5, name="x"), leaf(5, name="gamma"), leaf(5, name="beta"))


def entropy():
    return cross_entropy(leaf(4, 3, name="logits"), np.array([0, 2, 1, 1])).named("loss")


def square():
    x = leaf(3, name="x")
    return (x * x).named("y")


def fan_out():
    """One leaf is used three times, the last cotangent passes through a broadcast."""
    x = leaf(name="x")
    return (np.sin(x) * np.exp(x) + leaf(3, name="b") * x).named("y")


def doubled():
    x = leaf(3, name="x")
    return (x + x).named("y")


def chain():
    return np.tanh(np.sin(leaf(name="x") * 2) + 1).named("y")


def network():
    rng = np.random.default_rng(0)
    model = mb.nn.Sequential(
        mb.nn.Linear(4, 6, rng=rng), mb.nn.BatchNorm1d(6), mb.nn.ReLU(), mb.nn.Linear(6, 3, rng=rng)
    )
    x = rng.standard_normal((8, 4), np.float32)
    return cross_entropy(model(x), rng.integers(0, 3, 8)).named("loss")


def shapes():
    """Ops that move values about, with slices, arrays, masks and new axes as indices."""
    x = leaf(4, 3, name="x")
    parts = [x[1:3], x[np.array([0, 0, 3])], x.reshape(6, 2).T[:, 3:], x[x.data[:, 0] > -9]]
    joined = np.concatenate([*parts, x[None, -1]]).transpose(1, 0)
    return np.stack([joined, joined * 2]).squeeze().max(axis=(0, 2)).named("y")


def choices():
    x, y = leaf(2, 3, name="x"), leaf(3, name="y")
    z = np.where(x.data > 0, np.maximum(x, y), np.minimum(x, 0) ** 2) + np.abs(x) / (2 + y**2)
    return (sigmoid(z) @ leaf(3, name="v") - z.min(axis=1)).named("out")


def mixed():
    """Dtypes that differ, integers, and a constant on the way."""
    x, n = leaf(3, name="x", dtype=np.float32), np.array([1, 2, 3])
    return (x * np.float32(0.1) * n + mb.stop_gradient(x) * (x * mb.Tensor(n, name="n"))).named("y")


def second():
    """A gradient, to be differentiated again."""
    x = leaf(3, name="x")
    return mb.grad((np.sin(x) * x**3).sum().named("y"), x, create_graph=True)


PROGRAMS = [
    batch_norm,
    batch_norm_32,
    normalised_layer,
    entropy,
    square,
    fan_out,
    doubled,
    chain,
    network,
    shapes,
    choices,
    mixed,
    second,
]
programs = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)


def graph_of(*outputs, **options):
    return mb.Graph.from_outputs(*outputs, **options)


def both(program):
    return graph_of(program(), backward=True)


def tensors_of(output):
    """Every Tensor that an output depends on, in order of creation."""
    found, pending = {output}, [output]
    while pending:
        for a in pending.pop().inputs:
            if isinstance(a, mb.Tensor) and a not in found:
                found.add(a)
                pending.append(a)
    return sorted(found, key=lambda t: t.time)


def node_of(graph, output):
    """The forward node of every Tensor, found by order and by arguments."""
    ops = [t for t in tensors_of(output) if t.op is not None]
    nodes = [node for node in graph.nodes if node.op and node.part is None]
    found = dict(zip(ops, nodes, strict=True))
    sources = {(e.target, e.position): graph.nodes[e.source] for e in graph.edges}
    for tensor, node in [*found.items()]:
        for i, a in enumerate(tensor.inputs):
            if isinstance(a, mb.Tensor):
                assert found.setdefault(a, sources[node.index, i]) is sources[node.index, i]
    return found or {output: graph.nodes[0]}


def named(graph, name, part=False):
    """The only node of a name, in the forward graph or the backward one."""
    (node,) = [n for n in graph.nodes if n.name == name and bool(n.part) == part]
    return node


def recomputed(graph):
    """The value of every op, from the values of its arguments."""
    arguments = {node.index: dict(node.scalars) for node in graph.nodes}
    for edge in graph.edges:
        value = graph.nodes[edge.source].value
        arguments[edge.target][edge.position] = value if value.ndim else value[()]
    for node in graph.nodes:
        if node.op is not None:
            given = [arguments[node.index][i] for i in range(len(arguments[node.index]))]
            yield node, np.asarray(getattr(mb.ops, node.op).kernel(*given, **node.params))


def assert_same(a, b):
    """To the bit; NaN is NaN."""
    a, b = np.asarray(a), np.asarray(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    np.testing.assert_array_equal(a, b, strict=True)
    if a.dtype.kind == "f":
        assert (np.signbit(a) == np.signbit(b))[~np.isnan(a)].all()


# What is in it -----------------------------------------------------------------------------------


def test_nodes_kinds_and_edges():
    x, w, c = leaf(4, 3, name="x"), leaf(3, name="w", cls=Weight), np.ones((4, 1))
    graph = graph_of(((x * w - c) * x).named("y"))
    assert [(n.index, n.kind, n.op, n.title, n.shape) for n in graph.nodes] == [
        (0, "input", None, "x", (4, 3)),
        (1, "parameter", None, "w", (3,)),
        (2, "op", "mul", "×", (4, 3)),
        (3, "constant", None, "", (4, 1)),
        (4, "op", "sub", "−", (4, 3)),
        (5, "output", "mul", "y", (4, 3)),
    ]
    assert [(e.source, e.target, e.position, e.broadcast) for e in graph.edges] == [
        (0, 2, 0, False),
        (1, 2, 1, True),
        (2, 4, 0, False),
        (3, 4, 1, True),
        (4, 5, 0, False),
        (0, 5, 1, False),
    ]
    assert {n.part for n in graph.nodes} == {None}
    assert (str(graph.nodes[0].dtype), graph.scopes) == ("float64", ())


def test_an_argument_used_twice_has_two_edges():
    edges = graph_of(square()).edges
    assert [(e.source, e.target, e.position) for e in edges] == [(0, 1, 0), (0, 1, 1)]


def test_scalars_and_params_are_kept():
    x = leaf(4, 3, name="x")
    nodes = graph_of(2 - x.mean(axis=0, keepdims=True)[..., 1:]).nodes
    assert nodes[1].params == {"axis": 0, "keepdims": True}
    assert nodes[2].params == {"key": (..., slice(1, None))}
    assert nodes[3].scalars == {0: 2}
    assert nodes[3].label == "2 −"


def test_two_calls_of_one_function_are_two_scopes():
    x = leaf(4, 2, name="x")
    with mb.scope("net"):
        graph = graph_of(mb.batch_norm(mb.batch_norm(x)), backward=True)
    assert [(s.index, s.name, s.parent) for s in graph.scopes] == [
        (0, "net", None),
        (1, "batch_norm", 0),
        (2, "batch_norm", 0),
        (3, "d net", None),
        (4, "d batch_norm", 3),
        (5, "d batch_norm", 3),
    ]
    first, second = (n for n in graph.nodes if n.name == "centered")
    assert (first.place, second.place) == (1, 2)
    assert first.scope == second.scope == ("net", "batch_norm")
    assert (graph.nodes[first.twin].place, graph.nodes[second.twin].place) == (5, 4)


def test_one_scope_entered_twice_is_two_scopes():
    x, block = leaf(3), mb.scope("block")
    with block:
        y = np.sin(x)
    with block:
        y = np.sin(y)
    assert [n.place for n in graph_of(y).nodes] == [None, 0, 1]


def test_in_a_scope_nested_in_itself():
    x = leaf(3)
    with mb.scope("a"):
        y = np.sin(x)
        with mb.scope("a"):
            y = np.sin(y)
        y = np.sin(y)
    graph = graph_of(y)
    assert [n.place for n in graph.nodes] == [None, 0, 1, 0]
    assert [s.parent for s in graph.scopes] == [None, 0]


def test_values_and_names_are_of_the_time_it_was_taken():
    x = leaf(3, name="x")
    y = (x * np.ones(3)).named("y")
    y.backward(np.ones(3))
    graph = graph_of(y)
    before = copy.deepcopy([(n.name, n.value, n.cotangent) for n in graph.nodes])
    x.data[:] = 7
    x.grad[:] = 7
    y.data[:] = 7
    y.grad[:] = 7
    y.inputs[1][:] = 7
    x.named("z"), y.named("z")
    for node, (name, value, cotangent) in zip(graph.nodes, before, strict=True):
        assert node.name == name
        assert_same(node.value, value)
        assert (node.cotangent is None) == (cotangent is None)
        if cotangent is not None:
            assert_same(node.cotangent, cotangent)
    assert [n.cotangent is None for n in graph.nodes] == [False, True, False]


def test_several_outputs():
    x = leaf(3, name="x")
    a = np.sin(x).named("a")
    b = (a * 2).named("b")
    unrelated = leaf(2, name="u")
    graph = graph_of(b, a, unrelated, a)
    assert [(n.name, n.kind) for n in graph.nodes] == [
        ("x", "input"),
        ("a", "output"),
        ("b", "output"),
        ("u", "input"),
    ]


def test_through_stop_gradient_nothing_is_seen():
    x = leaf(3, name="x")
    graph = graph_of(x * mb.stop_gradient(np.exp(x)).named("stopped"))
    assert [(n.title, n.kind) for n in graph.nodes] == [
        ("x", "input"),
        ("stopped", "input"),
        ("×", "output"),
    ]


def test_integers_stay_integers():
    graph = graph_of(mixed(), backward=True)
    assert named(graph, "n").dtype == "int64" == named(graph, "n").value.dtype
    assert named(graph, "n").twin is None
    assert named(graph, "d x", part=True).dtype == "float32"


def test_a_name_is_text():
    assert graph_of(leaf(name=np.str_("x"))).nodes[0].name == "x"
    assert graph_of(leaf(name=3)).nodes[0].name == "3"


def test_graphs_are_compared_by_what_they_are():
    assert graph_of(entropy()) == graph_of(entropy())  # there are arrays in its params
    assert both(shapes) == both(shapes)
    x = leaf(3)
    assert graph_of(x * math.nan) == graph_of(x * float("nan"))
    assert graph_of(x * math.nan) != graph_of(x * 2)
    assert graph_of(x[np.array([0, 1])]) != graph_of(x[np.array([0, 2])])
    assert graph_of(x[[0, 1]]).nodes[1] != 3


def test_the_representation_counts():
    assert repr(graph_of(leaf())) == "<Graph: 1 node, 0 edges>"
    assert repr(graph_of(-leaf())) == "<Graph: 2 nodes, 1 edge>"


@pytest.mark.parametrize("wrong", [np.ones(3), 3.0, None, [leaf()], mb.Tensor])
def test_only_tensors_are_outputs(wrong):
    with pytest.raises(TypeError, match="an output is a"):
        graph_of(leaf(), wrong)


def test_errors_name_the_remedy():
    x = leaf(3)
    with pytest.raises(ValueError, match="at least one output"):
        graph_of()
    with pytest.raises(ValueError, match="one output, not from 2; give one of them, or their sum"):
        graph_of(x * 2, x * 3, backward=True)
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        graph_of(mb.Tensor([1.0, 2.0]), backward=True)
    with pytest.raises(ValueError, match=r"must have the same shape, \(3,\)"):
        graph_of(x * 2, backward=True, grad_output=np.ones(2))
    with pytest.raises(TypeError):
        graph_of(x * 2, backward=True, grad_output="ones")


def test_a_chain_of_100000_needs_no_recursion():
    start = time.process_time()
    x = leaf(name="x")
    for _ in range(50_000):
        x = x * 1.0001 + 0.0001
    graph = graph_of(x, backward=True)
    assert [n.part for n in graph.nodes].count(None) == 100_001
    assert graph.nodes[graph.nodes[0].twin].name == "d x"
    assert len(str(graph).splitlines()) < 210
    assert time.process_time() - start < 60  # it takes 4 s here


def test_scopes_as_deep_as_can_be():
    x = leaf(name="x")
    entered = [mb.scope(f"s{i}") for i in range(2000)]
    for scope in entered:
        scope.__enter__()
    y = np.sin(x)
    for scope in reversed(entered):
        scope.__exit__()
    graph = graph_of(y, backward=True)
    assert len(graph.scopes) == 4000
    assert max(map(len, str(graph).splitlines())) <= 100


# That it is complete -----------------------------------------------------------------------------


@programs
def test_every_value_follows_from_the_nodes_before_it(program):
    for node, value in recomputed(both(program)):
        assert_same(value, node.value)


@programs
def test_every_value_is_that_of_its_tensor(program):
    output = program()
    for tensor, node in node_of(graph_of(output), output).items():
        assert_same(node.value, tensor.data)
        assert node.name == tensor.name


@programs
def test_the_forward_part_is_as_without_backward(program):
    output = program()
    forward, graph = graph_of(output), graph_of(output, backward=True)
    upper = [n for n in graph.nodes if n.part is None]
    assert graph.nodes[: len(upper)] == tuple(upper)
    assert len(forward.nodes) == len(upper)
    bare = [replace(edge, contribution=None) for edge in graph.edges[: len(forward.edges)]]
    assert bare == [*forward.edges]
    assert graph.scopes[: len(forward.scopes)] == forward.scopes
    for a, b in zip(forward.nodes, upper, strict=True):
        assert (a.title, a.kind, a.place, a.twin) == (b.title, b.kind, b.place, None)


@programs
def test_indices_are_in_order(program):
    graph = both(program)
    assert [n.index for n in graph.nodes] == [*range(len(graph.nodes))]
    assert [s.index for s in graph.scopes] == [*range(len(graph.scopes))]
    assert all(edge.source < edge.target for edge in graph.edges)
    order = [(edge.target, edge.position) for edge in graph.edges]
    assert order == sorted(set(order))


# The backward part -------------------------------------------------------------------------------


@programs
def test_every_twin_has_the_value_of_the_gradient(program):
    output = program()
    graph = graph_of(output, backward=True)
    (seed,) = [n for n in graph.nodes if n.part == "seed"]
    cotangents = dict(mb.backprop(output, seed.value))
    pairs = node_of(graph, output)
    for tensor, node in pairs.items():
        assert (node.twin is not None) == (tensor in cotangents) == tensor.requires_grad
        if node.twin is not None:
            twin = graph.nodes[node.twin]
            assert node.index in twin.of
            assert_same(twin.value, np.asarray(cotangents[tensor]))
            assert_same(node.cotangent, twin.value)
    output.backward(seed.value)
    for tensor, node in pairs.items():
        if tensor.requires_grad:
            assert_same(graph.nodes[node.twin].value, tensor.grad)


@programs
def test_every_backward_node_says_what_it_is_for(program):
    graph = both(program)
    sources = {(e.target, e.position): e.source for e in graph.edges}
    first = min(n.index for n in graph.nodes if n.part)
    for node in graph.nodes[first:]:
        assert node.part in ("seed", "rule", "unbroadcast", "accumulation", "constant")
        if node.part == "constant":
            assert node.op is None
            continue
        assert node.of
        assert all(k < first for k in node.of)
        if node.part == "seed":
            assert (node.via, node.route) == (None, None)
            continue
        # `via` is an op that takes the node's own, or one that shares the cotangent, at `route`
        assert sources[node.via, node.route] in node.of
        assert node.shape == graph.nodes[node.of[0]].shape or node.part == "rule"


@programs
def test_taking_a_graph_leaves_the_tensors_alone(program):
    output = program()
    tensors = tensors_of(output)
    before = [(t.name, t.grad, t.scope, t.time) for t in tensors]
    graph_of(output, backward=True)
    assert [(t.name, t.grad, t.scope, t.time) for t in tensors] == before


def test_the_steps_of_batch_norm_and_their_names():
    graph = both(batch_norm)
    steps = [n for n in graph.nodes if n.part]
    assert [(n.name, n.label) for n in steps if n.name] == [
        ("d y", ""),
        ("d beta", "Σ axis 0"),
        ("d x_hat", "×"),
        ("d gamma", "Σ axis 0"),
        ("d centered via mul", "×"),
        ("d inv_std", "Σ axis 0"),
        ("d std", "×"),
        ("d var_eps", "÷"),
        ("d squared", "repeat"),
        ("d centered via pow", "× 2"),
        ("d centered", "+= via pow"),
        ("d mean", "Σ axis 0"),
        ("d x via mean", "repeat"),
        ("d x", "+= via mean"),
    ]
    assert {n.name: n.part for n in steps if n.part not in ("rule", "constant")} == {
        "d y": "seed",
        "d beta": "unbroadcast",
        "d gamma": "unbroadcast",
        "d inv_std": "unbroadcast",
        "d mean": "unbroadcast",
        "d centered": "accumulation",
        "d x": "accumulation",
    }
    mean = named(graph, "d mean", part=True)
    centered = named(graph, "centered")
    assert (mean.via, mean.route) == (centered.index, 1)
    assert {n.scope for n in steps[1:]} == {("d batch_norm",)}


def test_one_cotangent_of_several():
    graph = both(batch_norm)
    y, scaled = named(graph, "y"), named(graph, "scaled")
    assert y.twin == scaled.twin
    assert graph.nodes[y.twin].of == (y.index, scaled.index)
    names = [graph.nodes[k].name for k in named(graph, "d var_eps", part=True).of]
    assert names == ["var_eps", "var"]


def test_three_contributions_meet_in_two_sums():
    graph = both(fan_out)
    x = named(graph, "x").index
    sums = [n for n in graph.nodes if n.part == "accumulation"]
    assert [(n.name, n.label, n.of, n.op) for n in sums] == [
        (None, "d x += via exp", (x,), "add"),
        ("d x", "+= via sin", (x,), "add"),
    ]
    arguments = [graph.nodes[e.source].name for e in graph.edges if e.target == sums[0].index]
    assert arguments == ["d x via mul", "d x via exp"]


def test_the_same_cotangent_twice():
    graph = both(doubled)
    (total,) = [n for n in graph.nodes if n.part == "accumulation"]
    seed = named(graph, "d y", part=True).index
    assert [e.source for e in graph.edges if e.target == total.index] == [seed, seed]
    assert (total.name, total.label) == ("d x", "+= via add")


def test_unbroadcasting_says_over_what():
    x, y = leaf(5, 4, 3, name="x"), leaf(1, 3, name="y")
    summed = named(graph_of(x * y, backward=True), "d y", part=True)
    assert (summed.label, summed.part, summed.route) == ("Σ axes 0, 1", "unbroadcast", 1)


def test_a_cast_is_an_unbroadcast():
    x = leaf(3, name="x", dtype=np.float32)
    cast = named(graph_of(x * leaf(3, name="w"), backward=True), "d x", part=True)
    assert (cast.op, cast.part, cast.dtype) == ("astype", "unbroadcast", "float32")


def seed_of(output, **options):
    (seed,) = [n for n in graph_of(output, backward=True, **options).nodes if n.part == "seed"]
    return seed.value


def test_where_the_backward_pass_starts():
    y = (leaf(2, 3, dtype=np.float32) * 2).named("y")
    drawn = seed_of(y)
    assert_same(seed_of(y), drawn)
    assert drawn.dtype == np.float32
    assert len(np.unique(drawn)) > 1
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert_same(seed_of(y, grad_output=given), given)
    assert_same(seed_of(y, grad_output=mb.Tensor(given)), given)
    assert_same(seed_of(y, grad_output=given.tolist()), given)
    y.backward(given + 1)
    assert_same(seed_of(y), given + 1)
    assert_same(seed_of(y, grad_output=given), given)
    given[:] = 9
    assert_same(seed_of(y.sum()), np.float32(1))
    assert_same(seed_of(leaf(1, 1) * 2), np.ones((1, 1)))


def test_of_a_leaf_alone():
    graph = graph_of(leaf(3, name="x"), backward=True)
    assert [(n.name, n.part, n.of, n.twin) for n in graph.nodes] == [
        ("x", None, (), 1),
        ("d x", "seed", (0,), None),
    ]


def test_it_is_recorded_even_without_grad():
    y = batch_norm()
    with mb.no_grad():
        assert graph_of(y, backward=True) == graph_of(y, backward=True)


def test_a_rule_that_gives_a_constant():
    """What flows is a new array, or the argument itself: a node all the same."""
    zero = mb.ops.Op("zero", lambda x: x * 0, lambda g, out, x: np.zeros(x.shape))
    own = mb.ops.Op("half_square", lambda x: x * x / 2, lambda g, out, x: x)
    for op, expected in ((zero, 0), (own, 3)):
        x = mb.Tensor(3.0, requires_grad=True, name="x")
        h = (x * 1).named("h")
        graph = graph_of(op(h).named("y"), backward=True)
        for name in ("h", "x"):
            node = named(graph, name)
            assert graph.nodes[node.twin].value == expected
            assert graph.nodes[node.twin].part
            assert node.cotangent == expected
        assert named(graph, "d x", part=True).op == "mul"  # recorded, though of a constant


def test_second_derivatives():
    x = mb.Tensor(0.7, requires_grad=True, name="x")
    dx = mb.grad((x**4).named("y"), x, create_graph=True)
    graph = graph_of(dx, backward=True)
    assert dx.name == "d x"
    np.testing.assert_allclose(graph.nodes[named(graph, "x").twin].value, 12 * 0.7**2)
    assert graph.nodes[named(graph, "d x").twin].name == "d′ d x"
    assert graph.nodes[graph.nodes[0].twin].name == "d′ x"
    assert "d y" in {n.name for n in graph.nodes if n.part is None}


# As JSON -----------------------------------------------------------------------------------------


def through_json(graph, **options):
    return mb.Graph.from_dict(json.loads(json.dumps(graph.to_dict(**options), allow_nan=False)))


def assert_same_graphs(a, b):
    assert a == b
    for one, other in zip(a.nodes, b.nodes, strict=True):
        assert_same(one.value, other.value)
        assert (one.cotangent is None) == (other.cotangent is None)
        if one.cotangent is not None:
            assert_same(one.cotangent, other.cotangent)
        for k, scalar in one.scalars.items():
            kinds = [getattr(v, "dtype", type(v)) for v in (scalar, other.scalars[k])]
            assert kinds[0] == kinds[1]


@programs
def test_json_gives_the_same_graph(program):
    graph = both(program)
    again = through_json(graph)
    assert_same_graphs(again, graph)
    assert str(again) == str(graph)
    assert again.to_dict() == graph.to_dict()


@programs
def test_what_came_from_json_is_complete(program):
    for node, value in recomputed(through_json(both(program))):
        assert (value.dtype, value.shape) == (node.dtype, node.shape)
        few = 16 * np.finfo(value.dtype).eps  # the order in memory, which BLAS minds, is not kept
        np.testing.assert_allclose(value, node.value, rtol=few, atol=few)


ODD = [0.1, -0.0, math.inf, -math.inf, math.nan, 1e-39, 3.4e38, 1 / 3]


@pytest.mark.parametrize(
    "array",
    [
        *(np.array(ODD, dtype) for dtype in ("f8", "f4", ">f8", ">f4")),
        np.array([5e-324, 1.7976931348623157e308]),
        np.array([0.1, -0.0, math.inf, math.nan, 6e-8, 65504], np.float16),
        np.array(ODD[:5], np.longdouble) / 3,
        np.array(0.1),
        np.array(math.nan, np.float32),
        np.zeros((0, 3)),
        np.zeros((2, 0), np.float16),
        np.array([True, False]),
        np.array([2**63 - 1, -(2**63)]),
        np.array([2**64 - 1, 0], np.uint64),
        np.array([-128, 127], np.int8),
        np.arange(24.0).reshape(2, 3, 4)[:, ::-1].T,
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_arrays_come_back_to_the_bit(array):
    x = mb.Tensor(array, copy=False)
    if array.dtype.kind == "f":
        x.requires_grad = True
        with np.errstate(all="ignore"):
            output = x * 1
            output.backward(np.ones(x.shape))
        x.grad = array
        graph = graph_of(output)
        assert_same(graph.nodes[0].cotangent, array)
    else:
        graph = graph_of(x)
    assert_same(graph.nodes[0].value, array)
    assert_same_graphs(through_json(graph), graph)


@pytest.mark.parametrize(
    "key",
    [
        slice(None, None, -1),
        (slice(1, None), ..., None),
        (0, slice(np.int64(1), 3)),
        (np.int64(-1), 2),
        np.array([[0, 1], [3, 3]]),
        (np.array([0, 1], np.int8), [2, 2]),
        np.array([True, False, True, True]),
        np.zeros(0, int),
        (),
        (None, np.array([], np.intp)),
    ],
    ids=repr,
)
def test_indices_come_back(key):
    graph = graph_of(leaf(4, 3, name="x")[key], backward=True)
    again = through_json(graph)
    assert_same_graphs(again, graph)
    for node, value in recomputed(again):
        assert_same(value, node.value)


def test_numbers_of_numpy_keep_their_dtype():
    x = leaf(3, dtype=np.float32)
    for scalar in (np.float64(0.1), np.float32(0.1), np.int64(3), np.longdouble(1) / 3, True, 2):
        graph = graph_of(x * scalar)
        assert_same_graphs(through_json(graph), graph)


def test_of_large_arrays_a_digest_is_left():
    x = mb.Tensor(np.array([0.0, 1.0, 2.0, math.nan]), requires_grad=True, name="x")
    graph = graph_of(x[np.array([0, 1, 2, 0])] * 2)
    state = graph.to_dict(limit=3)
    assert state["nodes"][0]["value"] == {
        "shape": [4],
        "dtype": "float64",
        "digest": {key: {"float": "nan"} for key in ("mean", "std", "min", "max")}
        | {"zeros": 0.25},
    }
    again = through_json(graph, limit=3)
    assert [n.value for n in again.nodes] == [None, None, None]
    assert again.nodes[1].params == {"key": "int64 array of shape (4,)"}  # None would be an axis
    assert [(n.title, n.shape, n.dtype) for n in again.nodes] == [
        (n.title, n.shape, n.dtype) for n in graph.nodes
    ]
    assert "[int64 array of shape (4,)]" in str(again)
    assert all(n.value is not None for n in through_json(graph, limit=4).nodes)


def test_the_format_is_as_documented():
    state = graph_of((leaf(2, name="x") * 0.5).named("y")).to_dict()
    assert state["format"] == "microbn.graph"
    assert state["version"] == 2
    (edge,) = state["edges"]
    facts = {"from": 0, "to": 1, "position": 0, "broadcast": False, "contribution": None}
    assert edge == facts
    assert state["nodes"][1] | {"value": None} == {
        "index": 1,
        "kind": "output",
        "op": "mul",
        "label": "× 0.5",
        "name": "y",
        "scope": [],
        "place": None,
        "shape": [2],
        "dtype": "float64",
        "scalars": [[1, 0.5]],
        "params": {},
        "value": None,
        "cotangent": None,
        "source": None,
        "part": None,
        "of": [],
        "via": None,
        "route": None,
        "twin": None,
    }


@pytest.mark.parametrize("state", [None, [], {}, {"format": "onnx"}, {"version": 2}])
def test_what_is_no_graph_is_refused(state):
    with pytest.raises(ValueError, match="this is no graph: it lacks the entry 'format'"):
        mb.Graph.from_dict(state)


@pytest.mark.parametrize("version", [0, 1, None, "1", [1]])
def test_another_version_is_refused(version):
    state = graph_of(leaf()).to_dict() | {"version": version}
    with pytest.raises(ValueError, match="this microbn reads version 2"):
        mb.Graph.from_dict(state)


DAMAGES = [
    (("edges", 0, "from"), 99),
    (("edges", 0, "to"), 99),
    (("edges", 0, "from"), -1),
    (("edges", 0, "from"), 12),
    (("edges", 0, "position"), 1),
    (("edges", 0, "broadcast"), None),
    (("nodes", 0, "index"), 1),
    (("nodes", 0, "twin"), 99),
    (("nodes", 13, "of"), [99]),
    (("nodes", 13, "of"), {"tuple": [0]}),
    (("nodes", 14, "via"), -1),
    (("nodes", 14, "route"), 0.5),
    (("nodes", 1, "place"), 2),
    (("nodes", 0, "kind"), "leaf"),
    (("nodes", 0, "part"), "first"),
    (("nodes", 0, "shape"), [4, -2]),
    (("nodes", 0, "shape"), [2, 4]),
    (("nodes", 0, "value", "dtype"), "O"),
    (("nodes", 0, "value", "dtype"), "M8[s]"),
    (("nodes", 0, "value", "dtype"), "int7"),
    (("nodes", 0, "value", "entries"), [1]),
    (("nodes", 0, "value", "shape"), [10**30, 8]),
    (("nodes", 0, "value"), {"shape": [4, 2], "dtype": "int8", "entries": [10**30] * 8}),
    (("nodes", 0, "name"), 3),
    (("nodes", 0, "label"), None),
    (("nodes", 0, "surprise"), None),
    (("nodes", 3, "scalars"), [[2, 2]]),
    (("nodes", 3, "scalars"), [[[], 2]]),
    (("nodes", 3, "params"), {"key": {"unknown": 1}}),
    (("nodes", 3, "source"), {"file": "a.py", "line": "1", "text": ""}),
    (("scopes", 0, "parent"), 0),
    (("scopes", 0, "index"), 1),
    (("scopes", 0, "name"), None),
    (("scopes", 0, "owner"), None),
    (("nodes", 0, "shape"), "42"),
    (("nodes", 3, "dtype"), "complexx"),
    (("nodes", 3, "twin"), 1),
    (("edges", 0, "surprise"), None),
    (("nodes", 0, "scope"), {"tuple": []}),
    (("nodes", 0, "value"), {}),
    (("nodes", 3, "params"), []),
    (("nodes", 3, "source"), ["a.py", 1, ""]),
    (("nodes",), {}),
    (("nodes",), []),
    (("edges",), []),
    (("scopes",), []),
]


def replaced(state, path, value):
    state = copy.deepcopy(state)
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return state


SOUND = graph_of(batch_norm(), backward=True).to_dict()


@pytest.mark.parametrize(("path", "value"), DAMAGES, ids=str)
def test_damage_is_refused(path, value):
    with pytest.raises(ValueError, match=r"this graph is damaged: .*; write it anew"):
        mb.Graph.from_dict(replaced(SOUND, path, value))


def test_an_op_that_lacks_an_argument_is_refused():
    for k, edge in enumerate(SOUND["edges"]):
        state = SOUND | {"edges": SOUND["edges"][:k] + SOUND["edges"][k + 1 :]}
        with pytest.raises(ValueError, match=f"node {edge['to']} cannot be"):
            mb.Graph.from_dict(state)


def test_text_is_to_be_parsed_first():
    with pytest.raises(ValueError, match=r"use json\.loads first"):
        mb.Graph.from_dict(json.dumps(SOUND))


def test_depth_is_refused():
    deep = None
    for _ in range(100_000):
        deep = {"tuple": [deep]}
    state = replaced(graph_of(leaf()).to_dict(), ("nodes", 0, "params"), {"key": deep})
    with pytest.raises(ValueError, match="this graph is damaged: RecursionError"):
        mb.Graph.from_dict(state)


def places(state):
    """Every path in nested lists and dicts."""
    pending = [((), state)]
    while pending:
        path, value = pending.pop()
        if path:
            yield path
        items = value.items() if isinstance(value, dict) else enumerate(value)
        pending += [((*path, k), v) for k, v in items if isinstance(v, dict | list)]
        yield from ((*path, k) for k, v in items if not isinstance(v, dict | list))


SAMPLES = [
    graph_of(program(), backward=True).to_dict() for program in (entropy, fan_out, shapes, mixed)
]
PLACES = [[*places(sample)] for sample in SAMPLES]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 60),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["float64", "int8", ">f4", "datetime64[s]", "input", "op", "rule", "nan"]),
    st.sampled_from(
        ["tuple", "slice", "float", "scalar", "dtype", "array", "file", "digest"]
    ).flatmap(
        lambda kind: st.builds(
            lambda content: {kind: content},
            st.lists(st.integers(-3, 60) | st.text(max_size=3) | st.none(), max_size=4),
        )
    ),
    st.lists(st.integers(-3, 60), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.data())
@settings(max_examples=1500)
def test_any_damage_is_harmless_or_refused(data):
    """Either it reads, and what was read can be shown and written, or there is a ValueError."""
    which = data.draw(st.integers(0, len(SAMPLES) - 1))
    state = copy.deepcopy(SAMPLES[which])
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(PLACES[which]))
        inner = state
        try:
            for key in path[:-1]:
                inner = inner[key]
            if data.draw(st.booleans()):
                del inner[path[-1]]
            else:
                inner[path[-1]] = data.draw(JUNK)
        except (LookupError, TypeError):  # gone with what was changed before
            pass
    try:
        graph = mb.Graph.from_dict(state)
    except ValueError:
        return
    assert str(graph)
    json.dumps(graph.to_dict(), allow_nan=False)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_process_writes_the_same(seed):
    code = "import test_graph as t, json; print(json.dumps(t.both(t.network).to_dict()))"
    folders = [str(Path(__file__).parent), *sys.path]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(folders)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert json.loads(run.stdout) == both(network).to_dict()
