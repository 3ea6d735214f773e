"""Forward and backward in one picture, and what it points at.

Nothing here looks at Graphviz's coordinates but the tests that count crossings, which do it with
the engine that comes with microbn, so that they say the same everywhere.
"""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from geometry import Picture
from numpy.testing import assert_allclose

import microbn as mb
from microbn.data import students
from microbn.graph.highlight import mark

DY = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, 1.0]])


def batch_norm():
    x = mb.Tensor(students().features, requires_grad=True, name="x")
    gamma = mb.nn.Parameter(np.array([1.0, 2.0]), name="gamma")
    return mb.batch_norm(x, gamma, mb.nn.Parameter(np.zeros(2), name="beta"))


def layer_norm():
    return mb.functional.layer_norm(mb.Tensor(students().features, requires_grad=True, name="x"))


def neuron():
    x, w = (mb.Tensor([1.0, 2.0], requires_grad=True, name=n) for n in "xw")
    return np.tanh(np.sum(x * w) + 1).named("out")


def network():
    rng = np.random.default_rng(0)
    model = mb.nn.Sequential(
        mb.nn.Linear(3, 4, rng=rng), mb.nn.BatchNorm1d(4), mb.nn.ReLU(), mb.nn.Linear(4, 2, rng=rng)
    )
    x = rng.standard_normal((5, 3)).astype(np.float32)
    return mb.functional.cross_entropy(model(x), np.array([0, 1, 1, 0, 1]))


def twin(y, **options):
    return mb.draw(y, backward=True, values=False, engine="wasi", **options)


def node(graph, name):
    """The only node of that name."""
    (found,) = [n for n in graph.nodes if n.name == name]
    return found


def lines_of(svg, kind):
    """The texts in the groups of a class, one string each."""
    groups = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
    texts = [
        " ".join(t.text or "" for t in g.iter("{http://www.w3.org/2000/svg}text"))
        for g in groups
        if kind in (g.get("class") or "").split()
    ]
    return sorted(texts)


# The picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [batch_norm, layer_norm, neuron])
@pytest.mark.parametrize("values", [False, True])
def test_nothing_crosses_and_nothing_lies_over_anything(program, values):
    picture = Picture(mb.draw(program(), backward=True, values=values, engine="wasi").svg())
    assert len(picture.boxes) > 10
    assert picture.crossings() == picture.overruns() == picture.overlaps() == []


def test_the_measures_can_fail():
    crossed = "digraph {a -> d [id=x]; b -> c [id=y]; {rank=same a -> b} {rank=same c -> d}}"
    assert mb.graph.layout.layout(crossed, engine="wasi")
    svg = """<svg xmlns="http://www.w3.org/2000/svg"><g class="edge" id="a"><title>p-&gt;q</title>
    <path d="M0,0C1,1 2,2 9,9"/></g><g class="edge" id="b"><title>r-&gt;s</title>
    <path d="M0,9C1,8 2,7 9,0"/></g><g class="node" id="n"><polygon points="1,1 8,1 8,8 1,8"/></g>
    <g class="node" id="m"><polygon points="7,7 9,7 9,9 7,9"/></g></svg>"""
    picture = Picture(svg)
    assert picture.crossings() == [("a", "b")]
    assert ("a", "n") in picture.overruns()
    assert picture.overlaps() == [("n", "m")]


@pytest.mark.parametrize("program", [batch_norm, neuron])
def test_each_cotangent_is_level_with_its_value_forward_left_backward_right(program):
    drawing = twin(program())
    boxes = Picture(drawing.svg()).boxes
    pairs = 0
    taken = set()
    for n in drawing.graph.nodes:
        if n.part is None and n.op is not None and n.twin not in taken:
            taken.add(n.twin)
            (_, top), (right, bottom) = boxes[f"n{n.index}"]
            (other, high), (_, low) = boxes[f"n{n.twin}"]
            assert right < other
            assert (top + bottom) / 2 == pytest.approx((high + low) / 2, abs=0.1)
            pairs += 1
    assert pairs > 2


def test_sideways_the_levels_are_columns():
    drawing = twin(neuron(), direction="LR")
    boxes = Picture(drawing.svg()).boxes
    out = node(drawing.graph, "out")
    a, b = boxes[f"n{out.index}"], boxes[f"n{out.twin}"]
    assert (a[0][0] + a[1][0]) / 2 == pytest.approx((b[0][0] + b[1][0]) / 2, abs=0.1)
    assert boxes["n0"][0][0] < a[0][0]


def test_both_sides_are_told_apart_and_named():
    drawing = twin(batch_norm())
    svg = drawing.svg()
    assert lines_of(svg, "cluster")[-2:] != []
    texts = " ".join(lines_of(svg, "graph"))
    assert "forward" in texts
    assert "backward" in texts
    assert len(lines_of(svg, "backward")) >= 23
    assert "d centered += via pow 4×2" in lines_of(svg, "accumulation")
    assert "d mean = Σ axis 0 2" in lines_of(svg, "unbroadcast")
    assert "d y = d scaled 4×2" in lines_of(svg, "seed")


def test_what_the_backward_pass_needs_is_drawn_where_it_is_used_by_a_thin_edge():
    drawing = twin(batch_norm())
    tags = re.findall(r'class="saved (of-n\d+)"', drawing.source)
    forward = [drawing.graph.nodes[int(tag.removeprefix("of-n"))].name for tag in tags]
    assert sorted(forward) == sorted(
        ["gamma", "x_hat", "inv_std", "centered", "std", "std", "centered"]
    )
    edges = [line for line in drawing.source.splitlines() if "class=saved" in line]
    assert len(edges) == len(tags)
    assert all("penwidth=0.6" in edge for edge in edges)


def test_paths_that_contribute_nothing_are_named_with_the_reason():
    text = " ".join(lines_of(twin(batch_norm()).svg(), "graph"))
    assert "Contributes nothing: var → squared → centered → mean:" in text.replace("\u00a0", "")
    assert "whose sum over axis 0 is 0" in text
    assert "Contributes nothing" not in " ".join(lines_of(twin(neuron()).svg(), "graph"))


def test_title_and_caption_do_not_hide_the_names_of_scopes():
    svg = twin(batch_norm(), title="The title").svg()
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    found = [t.text for t in texts]
    for text in ("The title", "forward", "backward", "batch_norm", "d batch_norm"):
        assert found.count(text) == 1


def test_a_graph_without_its_backward_pass_cannot_be_drawn_with_it():
    with pytest.raises(TypeError, match=r"Graph.from_outputs\(y, backward=True\)"):
        mb.draw(mb.Graph.from_outputs(neuron()), backward=True)
    graph = mb.Graph.from_outputs(neuron(), backward=True)
    assert "d out" in mb.draw(graph, backward=True, values=False).source


def test_the_graph_of_a_gradient_of_a_gradient():
    x = mb.Tensor(0.5, requires_grad=True, name="x")
    first = mb.grad(np.tanh(x).named("y"), x, create_graph=True).named("first")
    second = mb.grad(first, x, create_graph=True).named("second")
    graph = twin(second).graph
    t = np.tanh(0.5)
    assert_allclose(node(graph, "second").value, -2 * t * (1 - t**2))
    third = graph.nodes[graph.nodes[0].twin].value
    assert_allclose(third, -2 * (1 - t**2) * (1 - 3 * t**2))


# Variables of the caller -------------------------------------------------------------------------


def test_tensors_are_called_after_the_variables_of_the_caller():
    weights = mb.Tensor([1.0, 2.0], requires_grad=True)
    data = np.array([3.0, 4.0])
    total = (weights * data).sum()
    drawing = mb.draw(total, engine="wasi")
    assert [n.title for n in drawing.graph.nodes] == ["weights", "data", "×", "total"]
    assert weights.name is None


# Pointing at things ------------------------------------------------------------------------------


def test_a_path_is_marked_forward_and_back_with_the_shares_of_the_gradient():
    y = batch_norm()
    graph = mb.Graph.from_outputs(y, backward=True, grad_output=DY)
    marks = mark(graph, "x -> mean -> centered -> squared")
    names = {graph.nodes[k].name for k in marks.nodes}
    assert {"x", "mean", "centered", "squared", "d x", "d mean", "d centered"} <= names
    assert "d x_hat" not in names
    assert len(marks.shares) == 2
    via_var = node(graph, "d centered via pow").value
    direct = node(graph, "d centered via mul").value
    expected = np.abs(via_var).sum() / (np.abs(via_var).sum() + np.abs(direct).sum())
    shares = {graph.nodes[e.source].name: share for e, share in marks.shares.items()}
    assert_allclose(shares["d centered via pow"], expected)
    direct_way = mark(graph, "x -> centered -> x_hat").shares
    together = {graph.nodes[e.target].name: share for e, share in marks.shares.items()}
    for edge, share in direct_way.items():
        assert_allclose(share + together[graph.nodes[edge.target].name], 1)
    picture = mb.draw(graph, highlight="x -> mean -> centered -> squared", values=False)
    assert f"{100 * expected:.1f} %" in picture.source


def test_shares_of_a_value_that_is_used_several_times():
    x = mb.Tensor(3.0, requires_grad=True, name="x")
    y = ((2 * x).named("a") + (3 * x).named("b") - (5 * x).named("c")).named("y")
    graph = mb.Graph.from_outputs(y, backward=True)
    shares = [sum(mark(graph, f"x -> {name}").shares.values()) for name in "abc"]
    assert_allclose(shares, [0.2, 0.3, 0.5])


def test_all_paths_of_these_names_are_marked():
    x = mb.Tensor(3.0, requires_grad=True, name="x")
    square = mark(mb.Graph.from_outputs(x * x, backward=True), "x -> ×")
    assert sorted(square.shares.values()) == [0.5, 0.5]  # all of it came along the two
    y = (((x * 3) * (x * 3)).named("b") + (x * 3).named("c")).named("y")
    graph = mb.Graph.from_outputs(y, backward=True)
    marks = mark(graph, "x -> × 3 -> b")
    forward = [(e.source, e.target) for e in marks.edges if graph.nodes[e.target].part is None]
    b = node(graph, "b").index
    assert sorted(forward) == [(0, 1), (0, 2), (1, b), (2, b)]
    for text in ("", "x ->", "-> b", "x -> -> b"):
        with pytest.raises(ValueError, match=r"names nothing|lacks a name"):
            mark(graph, text)


def test_nodes_are_found_by_name_label_op_and_index():
    graph = mb.Graph.from_outputs(neuron())
    assert {graph.nodes[k].op for k in mark(graph, ["out", "+ 1", "mul", 0]).nodes} == {
        "tanh",
        "add",
        "mul",
        None,
    }
    source = mb.draw(graph, highlight="out", values=False).source
    assert source.count("penwidth=3") == 1


@pytest.mark.parametrize(
    ("highlight", "error", "message"),
    [
        ("nothing", ValueError, r"called 'nothing'; the names are: x, w, ×, Σ, \+ 1, out"),
        ("x -> out", ValueError, r"no edge leads to 'out' .* only to: ×"),
        ("out -> x", ValueError, "only to: nowhere"),
        (99, ValueError, "the nodes are 0 to 5"),
        (1.5, TypeError, "not 1.5"),
        ([None], TypeError, "not None"),
    ],
)
def test_what_is_not_there_cannot_be_pointed_at(highlight, error, message):
    with pytest.raises(error, match=message):
        mb.draw(neuron(), highlight=highlight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "RL"}, "direction is 'TB'"),
        ({"theme": "pink"}, "theme is 'light' or 'dark'"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        mb.draw(neuron(), **options)
