"""Scopes drawn as one box: what is inside, what comes out, and that no arrow says too much.

What must hold of every program is tested on random ones, with nested scopes and shared leaves.
"""

import json
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from test_twin import network

import microbn as mb
from microbn.data import students
from microbn.graph.collapse import collapsed, fit

DY = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, 1.0]])


def leaf(value, name):
    return mb.Tensor(np.array(value), requires_grad=True, name=name)


def batch_norm(kind=mb.nn.Parameter):
    """Batch norm whose weights are parameters, or leaves like any other."""
    weights = [kind(np.array(w), name=n) for w, n in (([1.0, 2.0], "gamma"), ([0.0, 3.0], "beta"))]
    for weight in weights:
        weight.requires_grad = True
    return mb.batch_norm(leaf(students().features, "x"), *weights).named("y")


def twice():
    """One layer with two inputs; both ways to the loss."""
    net = mb.nn.Sequential(mb.nn.Linear(2, 2, rng=np.random.default_rng(0)))
    p, q = leaf([[1.0, 2.0]], "p"), leaf([[3.0, 4.0]], "q")
    return (net(p) - net(q)).sum().named("loss")


def both(y, which, grad_output=None):
    """The graph of ``y`` forward and backward, with scopes collapsed."""
    return collapsed(mb.Graph.from_outputs(y, backward=True, grad_output=grad_output), which)


def arrows(graph):
    """The edges that are drawn, as names: not those of values saved for the backward pass."""
    drawn = [
        (graph.nodes[e.source], graph.nodes[e.target])
        for e in graph.edges
        if (graph.nodes[e.source].part is None) == (graph.nodes[e.target].part is None)
    ]
    return [(a.title, b.title) for a, b in drawn]


def node(graph, name):
    """The only node of that name."""
    (found,) = [n for n in graph.nodes if n.name == name]
    return found


def boxes(graph):
    return [n for n in graph.nodes if n.kind == "scope"]


def gradients(graph):
    """Names of the cotangents that are listed in boxes."""
    return [name for box in boxes(graph) for name, _ in box.params["gradients"]]


def label(drawing, index):
    """The lines written on a node."""
    (line,) = [s for s in drawing.source.splitlines() if s.strip().startswith(f"n{index} [")]
    return line.split('"')[1].replace("\u00a0", " ").split(r"\n")


# One box -----------------------------------------------------------------------------------------


def test_a_scope_as_one_box():
    graph = both((batch_norm() * 2).named("z"), "batch_norm", DY)
    assert [(n.name, n.label) for n in boxes(graph)] == [
        ("batch_norm", "10 ops"),
        ("d batch_norm", "22 ops"),
    ]
    assert [n.title for n in graph.nodes if n.part is None] == ["x", "batch_norm", "z"]
    box, mirror = boxes(graph)
    assert mirror.of == (box.index,)
    assert_allclose(box.value * 2, node(graph, "z").value)
    assert graph.nodes[box.twin] is node(graph, "d y")


def test_a_box_says_what_comes_out_of_it():
    drawing = mb.draw(batch_norm(), backward=True, grad_output=DY, collapse=1, values=False)
    box, mirror = boxes(drawing.graph)
    assert label(drawing, box.index) == ["batch_norm (10 ops)", "y 4×2"]
    assert label(drawing, mirror.index) == ["d batch_norm (22 ops)", "d beta 2, d gamma 2"]
    plain = mb.draw(batch_norm() * 2, collapse=1, values=False)
    red = 'fillcolor="#FEE2E2"'
    look = [line for line in drawing.source.splitlines() if "batch_norm (10 ops)" in line]
    other = [line for line in plain.source.splitlines() if "batch_norm (10 ops)" in line]
    assert (red in look[0], red in other[0]) == (True, False)


def test_a_box_with_several_results_has_them_below_it():
    x = leaf([1.0, 2.0], "x")
    with mb.scope("two"):
        a = (x * 2).named("a")
        b = (a + 1).named("b")
    graph = both((a * b).sum(), "two")
    (box, _) = boxes(graph)
    assert (box.value, box.params["result"]) == (None, None)
    assert {("x", "two"), ("two", "a"), ("two", "b"), ("a", "×")} < set(arrows(graph))
    for name in "ab":
        found = node(graph, name)
        assert_array_equal(graph.nodes[found.twin].value, found.cotangent)


def test_what_is_computed_from_a_box_is_named_after_its_value():
    y = batch_norm()
    drawing = mb.draw((y - leaf(1.0, "c")).named("z"), collapse=1, values=False)
    assert label(drawing, node(drawing.graph, "z").index)[0] == "z = y − c"


def test_arrows_into_a_box_do_not_broadcast():
    graph = collapsed(mb.Graph.from_outputs(batch_norm(mb.Tensor) * leaf([1.0, 2.0], "w")), 1)
    found = [(graph.nodes[e.source].title, e.broadcast) for e in graph.edges]
    assert found == [
        ("x", False),
        ("gamma", False),
        ("beta", False),
        ("batch_norm", False),
        ("w", True),
    ]


# Gradients ---------------------------------------------------------------------------------------


def test_gradients_of_leaves_outside_are_nodes_of_their_own():
    y = batch_norm(mb.Tensor)
    open_, graph = mb.Graph.from_outputs(y, backward=True, grad_output=DY), both(y, 1, DY)
    assert [n.title for n in graph.nodes if n.part == "seed"] == ["d y"]
    for name in ("x", "gamma", "beta"):
        found = graph.nodes[node(graph, name).twin]
        assert found.name == f"d {name}"
        assert ("d batch_norm", f"d {name}") in arrows(graph)
        assert_array_equal(found.value, open_.nodes[node(open_, name).twin].value)


def test_boxes_of_a_network_list_the_gradients_of_their_parameters():
    graph = both(network(), 1)
    assert not [n for n in graph.nodes if n.kind == "parameter"]
    assert sorted(gradients(graph)) == [
        f"d {k}.{name}" for k in (0, 1, 3) for name in ("bias", "weight")
    ]
    results = [box.params["result"] for box in boxes(graph) if box.part]
    assert results == ["d (3 · Linear)", "d (2 · ReLU)", "d y", "d (0 · Linear)", None]
    assert boxes(graph)[-1].value is None


def test_cotangents_are_named_after_the_value_that_comes_out_of_a_box():
    drawing = mb.draw(twice(), backward=True, collapse=1, values=False)
    inner, p, q = (
        next(n for n in drawing.graph.nodes if n.name == name) for name in ("d (−)", *"pq")
    )
    assert label(drawing, inner.index)[0] == "d (−) = repeat"
    (passed,) = [n for n in drawing.graph.nodes if n.name == "d (0 · Linear)"]
    assert label(drawing, passed.index)[0] == "d (0 · Linear) = −"
    assert [label(drawing, n.twin) for n in (p, q)] == [["d p", "1×2"], ["d q", "1×2"]]
    y = mb.draw(batch_norm() * 2, backward=True, grad_output=DY, collapse=1, values=False)
    assert label(y, node(y.graph, "d y").index)[0] == "d y = × 2"


def test_one_cotangent_of_two_leaves_has_both_names():
    x, b = leaf([1.0, 2.0], "x"), mb.nn.Parameter(np.array([1.0, 3.0]), name="b")
    with mb.scope("layer"):
        y = x + b
    (seed,) = [n for n in both((y).named("y"), 1, [1.0, 2.0]).nodes if n.part]
    assert set(seed.name.split(" = ")) == {"d y", "d x", "d b"}


def test_a_box_has_no_twin_if_the_cotangent_of_its_value_is_not_shown():
    v, w = (mb.nn.Parameter(np.array([1.0, 2.0]), name=name) for name in "vw")
    with mb.scope("sum"):
        s = v + w  # whose own rule is the identity
    with mb.scope("use"):
        y = np.tanh(s)
    graph = both(y, 1, [1.0, 1.0])
    first, _, mirror = boxes(graph)
    assert first.twin is None
    assert sorted(gradients(graph)) == ["d v", "d w"]
    assert (mirror.name, mirror.value) == ("d use", None)


def test_a_cotangent_that_is_a_constant_stays_outside():
    zero = mb.ops.Op("zero", lambda x: x * 0, lambda g, out, x: np.zeros(x.shape))
    with mb.scope("inside"):
        h = (leaf(3.0, "x") * 2).named("h")
    graph = both(zero(h), 1)
    assert graph.nodes[boxes(graph)[0].twin] is node(graph, "d h")


def test_a_skip_connection_is_seen_on_the_way_back():
    h = leaf([[1.0, 2.0], [3.0, 5.0]], "h")
    with mb.scope("branch"):
        b = np.tanh(h)
    graph = both((h + b).named("y"), 1)
    assert {("d y", "d h"), ("d branch", "d h"), ("d y", "d branch")} == set(arrows(graph)[-3:])
    (mirror,) = [n for n in boxes(graph) if n.part]
    assert mirror.params["result"] == "d h via tanh"


def test_a_sum_that_is_used_inside_the_box_stays_there():
    h = leaf([[1.0, 2.0], [3.0, 5.0]], "h")
    with mb.scope("layer"):
        u = np.tanh(h).named("u")
        v = (u * u).named("v")
    graph = both((u + v).named("y"), 1)
    assert [e for e in arrows(graph) if e[0].startswith("d ")] == [
        ("d y", "d layer"),
        ("d layer", "d u"),
        ("d layer", "d h"),
    ]


def test_contributions_are_named_after_what_can_be_seen():
    h = leaf([[1.0, 2.0], [3.0, 5.0]], "h")
    graph = both((mb.functional.log_softmax(h * 2)).sum().named("y"), "log_softmax")
    (mirror,) = [n for n in boxes(graph) if n.part]
    assert mirror.params["result"] == "d (× 2) via exp"


# Shared leaves -----------------------------------------------------------------------------------


def test_two_uses_of_one_layer_do_not_feed_each_other():
    graph = collapsed(mb.Graph.from_outputs(twice()), 1)
    layer = "0 · Linear"
    assert [n.title for n in graph.nodes] == ["p", layer, "q", layer, "−", "loss"]
    assert [(e.source, e.target) for e in graph.edges] == [(0, 1), (2, 3), (1, 4), (3, 4), (4, 5)]
    assert not any(e.broadcast for e in graph.edges)


def test_gradients_of_a_shared_layer_meet_outside_its_boxes():
    graph = both(twice(), 1)
    mirrors = [n.index for n in boxes(graph) if n.part]
    assert len(mirrors) == 2
    for name, shape in (("d 0.weight", (2, 2)), ("d 0.bias", (2,))):
        found = node(graph, name)
        assert [e.source for e in graph.edges if e.target == found.index] == mirrors
        assert found.value.shape == shape
    for name in "pq":
        assert graph.nodes[node(graph, name).twin].name == f"d {name}"


def test_parameters_are_inside_unless_others_use_them():
    assert not [n for n in both(network(), 1).nodes if n.kind == "parameter"]
    w = mb.nn.Parameter(2.0, name="w")
    with mb.scope("inside"):
        y = w * 3
    assert arrows(collapsed(mb.Graph.from_outputs(y * w), 1)) == [
        ("w", "inside"),
        ("inside", "×"),
        ("w", "×"),
    ]
    with mb.scope("elsewhere"):
        z = y * w
    graph = collapsed(mb.Graph.from_outputs(z), 1)
    assert ("w", "elsewhere") in arrows(graph)


def test_a_leaf_made_in_a_scope_and_used_by_others_is_outside():
    with mb.scope("maker"):
        made = leaf(2.0, "made")
        y = made * 3
    with mb.scope("user"):
        z = y * made
    graph = both(z, 1)
    assert {("made", "maker"), ("made", "user"), ("maker", "user")} <= set(arrows(graph))
    assert node(graph, "made").place is None
    assert graph.nodes[node(graph, "made").twin].name == "d made"


# Which scopes ------------------------------------------------------------------------------------


def test_levels_count_from_the_outermost():
    graph = mb.Graph.from_outputs(network())
    assert [n.title for n in collapsed(graph, 1).nodes] == [
        "0 · Linear",
        "1 · BatchNorm1d",
        "2 · ReLU",
        "3 · Linear",
        "cross_entropy",
    ]
    second = collapsed(graph, 2)
    assert {s.name for s in second.scopes} == {"0", "1", "2", "3", "cross_entropy"}
    assert [n.name for n in boxes(second)] == ["batch_norm", "log_softmax"]
    assert collapsed(graph, 3) is graph
    assert collapsed(graph, ["0", 2]) == collapsed(collapsed(graph, "0"), 2)


def test_boxes_inside_boxes_count_and_list_what_is_in_them():
    open_ = mb.Graph.from_outputs(network(), backward=True)
    once, again = collapsed(open_, 1), collapsed(collapsed(open_, 2), 1)
    assert [(n.name, n.label) for n in boxes(again)] == [(n.name, n.label) for n in boxes(once)]
    assert sorted(gradients(again)) == sorted(gradients(once))


def test_two_calls_in_a_row_are_two_boxes():
    x = leaf(students().features, "x")
    y = mb.batch_norm(mb.batch_norm(x))
    graph = collapsed(mb.Graph.from_outputs(y), "batch_norm")
    assert [n.title for n in graph.nodes] == ["x", "batch_norm", "batch_norm"]
    svg = ElementTree.fromstring(mb.draw(y, values=False, engine="wasi").svg())
    clusters = [g for g in svg.iter("{http://www.w3.org/2000/svg}g") if g.get("id") in ("s0", "s1")]
    assert len(clusters) == 2


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("nowhere", ValueError, "no scope is called 'nowhere'; there are: batch_norm"),
        (0, ValueError, "levels count from 1"),
        (True, TypeError, "not True"),
        (2.5, TypeError, "not 2.5"),
        ([None], TypeError, "not None"),
    ],
)
def test_what_is_no_scope_cannot_be_collapsed(which, error, message):
    with pytest.raises(error, match=message):
        mb.draw(batch_norm(), collapse=which)


def test_too_large_a_picture_collapses_by_itself_and_says_so():
    graph = mb.Graph.from_outputs(network())
    whole = len(graph.nodes)
    assert fit(graph, whole) == (graph, 0)
    middle = len(collapsed(graph, 2).nodes)
    assert 5 < middle < whole - 1
    assert [fit(graph, n)[1] for n in (whole - 1, middle, middle - 1, 5, 1)] == [2, 2, 1, 1, 1]
    drawing = mb.draw(graph, limit=10, values=False)
    assert f"{whole} nodes, so scopes are collapsed from level 1 on" in drawing.source
    assert len(drawing.graph.nodes) == 5
    with pytest.raises(ValueError, match=r"5 nodes with all scopes collapsed.*limit=5"):
        mb.draw(graph, limit=4)


# Whatever the program ----------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 9)), max_size=4)
PROGRAMS = st.lists(
    st.tuples(st.sampled_from(["", "a", "a", "b", "ab", "ba"]), STEPS), min_size=1, max_size=5
)
OPS = (np.add, np.multiply, np.subtract, lambda a, _: np.tanh(a), lambda a, b: a.sum(axis=0) * b)


def program(blocks):
    """Run random steps in scopes, or scopes in scopes, with leaves and values from anywhere."""
    values = [leaf([[1.0, 2.0], [3.0, -1.0]], "x"), mb.nn.Parameter(np.array([0.5, 2.0]), name="w")]
    for path, steps in blocks:
        with ExitStack() as stack:
            for name in path:
                stack.enter_context(mb.scope(name))
            for step, i, j in steps:
                if step < len(OPS):
                    values.append(OPS[step](values[-1 - i % len(values)], values[j % len(values)]))
                else:
                    kind = (mb.nn.Parameter, mb.Tensor)[step - len(OPS)]
                    values.append(kind(np.array([i / 5, 1.0]), name=f"leaf{len(values)}"))
                    values[-1].requires_grad = True
    return (values[-1] * values[len(values) // 2] + values[0]).sum().named("loss")


def group_of(graph, place, which):
    """The outermost scope around a place that is meant."""
    found = None
    while place is not None:
        scope = graph.scopes[place]
        meant = scope.parent is None if which == 1 else scope.name.removeprefix("d ") == which
        found, place = place if meant else found, scope.parent
    return found


class Pair:
    """The open graph of a program and the collapsed one, with what came from where.

    Each node carries its index in the open graph in the line of source; a box that of a node
    inside. ``shown`` has the nodes that are not boxes by that index, ``group`` the scope that each
    op of the open graph would be collapsed with.
    """

    def __init__(self, blocks, which):
        graph = mb.Graph.from_outputs(program(blocks), backward=True)
        which = which if which in {s.name for s in graph.scopes} else 1
        tagged = tuple(replace(n, source=mb.graph.Source("", n.index, "")) for n in graph.nodes)
        self.open = replace(graph, nodes=tagged)
        self.small = collapsed(self.open, which)
        self.shown = {n.source.line: n for n in self.small.nodes if n.kind != "scope"}
        self.group = [group_of(graph, n.place, which) if n.op else None for n in graph.nodes]
        self.boxes = {self.group[n.source.line]: n for n in boxes(self.small)}

    def at(self, k):
        """Where in the collapsed graph a value of the open one is; None if it is a leaf inside."""
        shown = self.shown.get(k, self.boxes.get(self.group[k]))
        return None if shown is None else shown.index

    def within(self, k):
        """The node that contains an op of the open graph."""
        shown = self.shown.get(k)
        inside = shown is None or shown.op == "result"
        return self.boxes[self.group[k]].index if inside else shown.index


PAIRS = st.builds(Pair, PROGRAMS, st.sampled_from([1, 1, "a", "b"]))


@given(PAIRS)
def test_every_arrow_stands_for_a_use_and_every_use_has_one(pair):
    expected = {(pair.within(k), n.index) for k, n in pair.shown.items() if n.op == "result"}
    broadcast = {}
    for e in pair.open.edges:
        source, target = pair.at(e.source), pair.within(e.target)
        # What one box uses inside is no arrow, even if it is shown below it as well.
        same = pair.within(e.source) if pair.open.nodes[e.source].op else source
        if source is not None and same != target:
            expected.add((source, target))
            broadcast[source, target, e.position] = e.broadcast
    found = [(e.source, e.target) for e in pair.small.edges]
    assert set(found) == expected
    for e in pair.small.edges:
        to = pair.small.nodes[e.target]
        plain = to.kind == "scope" or to.op == "result"
        assert e.broadcast == (not plain and broadcast[e.source, e.target, e.position])


@given(PAIRS)
def test_a_leaf_is_inside_only_if_nothing_else_uses_it(pair):
    for n in pair.open.nodes:
        if n.op is None and n.index not in pair.shown:
            users = {e.target for e in pair.open.edges if e.source == n.index}
            homes = {pair.within(k) for k in users if n.part or pair.open.nodes[k].part is None}
            assert len({pair.small.nodes[k].title for k in homes}) == 1
            assert {pair.small.nodes[k].kind for k in homes} == {"scope"}


@given(PAIRS)
def test_every_gradient_can_be_found(pair):
    for n in pair.open.nodes:
        if n.twin is None or n.part is not None:
            continue
        if n.index in pair.shown:
            assert pair.small.nodes[pair.shown[n.index].twin] is pair.shown[n.twin]
        elif n.op is None:
            name = f"d {'.'.join([*n.scope, n.name])}"
            box = pair.small.nodes[pair.at(n.twin)]
            names = f"{box.name} = {box.params.get('result')}".split(" = ")
            assert name in names or (name, n.shape) in box.params["gradients"]


@given(PAIRS)
def test_a_box_shows_the_value_that_comes_out_or_none(pair):
    leaving = defaultdict(set)
    for e in pair.open.edges:
        source, target = pair.open.nodes[e.source], pair.open.nodes[e.target]
        if source.op and pair.within(e.source) != pair.within(e.target):
            box = pair.small.nodes[pair.within(e.target)].kind == "scope"
            if source.part or not target.part or not box:
                leaving[pair.within(e.source)].add(e.source)
    for box in boxes(pair.small):
        if box.params["result"] is None:
            assert box.value is None
        else:
            k = box.source.line
            assert_array_equal(box.value, pair.open.nodes[k].value)
            assert k in leaving[box.index] or pair.open.nodes[k].kind == "output"
            assert k not in pair.shown


@given(PAIRS)
def test_a_collapsed_graph_is_a_graph(pair):
    small = pair.small
    assert [n.index for n in small.nodes] == list(range(len(small.nodes)))
    assert all(e.source < e.target for e in small.edges)
    assert mb.Graph.from_dict(json.loads(json.dumps(small.to_dict()))) == small
    for n in small.nodes:
        if n.twin is not None:
            assert_array_equal(small.nodes[n.twin].value, n.cotangent)
    again = mb.Graph.from_dict(small.to_dict())
    assert mb.draw(small, limit=1000).source == mb.draw(again, limit=1000).source
    assert str(small) == str(again)
