"""Views: the forward graph laid out for the page, with scopes open and closed.

Nothing here looks at where exactly an engine puts things, only at what must hold of any layout.
"""

import json
import re
import shutil
from collections import Counter
from itertools import product

import numpy as np
import pytest
from geometry import curve, points
from hypothesis import given, settings
from test_collapse import PROGRAMS, program
from test_twin import network

import microbn as mb
from microbn.data import students
from microbn.graph.layout import LayoutError, layout
from microbn.graph.step import views as module
from microbn.graph.step.views import views

NEAR = 2.0  # points
ROUNDED = 0.11


@pytest.fixture(params=["dot", "wasi"])
def engine(request):
    """Each of the engines, which a view takes as it finds them."""
    if request.param == "wasi":
        request.getfixturevalue("no_dot")
    elif not shutil.which("dot"):
        pytest.skip("dot is not on PATH")
    return request.param


def leaf(value, name=None):
    return mb.Tensor(np.array(value), requires_grad=True, name=name)


def batch_norm():
    gamma = mb.nn.Parameter(np.array([1.0, 2.0]), name="gamma")
    return mb.batch_norm(leaf(students().features, "x"), gamma) * 2


def two_results():
    """A scope of which two values come out, one of them computed from the other one."""
    x = leaf([1.0, 2.0], "x")
    with mb.scope("two"):
        inside = x * 2
        a = (inside + x).named("a")
        b = (np.tanh(a) * inside).named("b")
    return a * b


def only_results():
    """A scope from which everything inside comes out."""
    x = leaf([1.0, 2.0], "x")
    with mb.scope("two"):
        a, b = x * 2, np.tanh(x)
    return a * b


def shared_leaf():
    """A leaf with so many uses that it is drawn once for each."""
    y = x = leaf([1.0, 2.0], "x")
    for _ in range(5):
        y = y * x
    return y


def chain(n, scopes=0, name="step"):
    """A row of ops, the first of them in scopes of two."""
    y = leaf([1.0, 2.0], "x")
    for _ in range(scopes):
        with mb.scope(name):
            y = np.tanh(y) * 2
    for _ in range(n - 2 * scopes):
        y = np.tanh(y)
    return y


def forward(y):
    return mb.Graph.from_outputs(y)


def closed(y, **options):
    return [view.closed for view in views(forward(y), **options)]


# What must hold of every view --------------------------------------------------------------------


def path_of(graph, place):
    """A scope and those around it."""
    path = []
    while place is not None:
        path.append(place)
        place = graph.scopes[place].parent
    return path


def check(graph, view):
    check_nodes(graph, view)
    check_edges(graph, view)
    check_scopes(graph, view)
    check_inside(view)


def check_nodes(graph, view):
    shown = Counter(k for node in view.nodes for k in node.of)
    assert set(shown) == {n.index for n in graph.nodes if n.part is None}
    assert all(graph.nodes[k].op is None for k, times in shown.items() if times > 1)
    assert sorted(n.p for n in view.nodes if n.p is not None) == sorted(view.closed)
    for node in view.nodes:
        if node.p is None:
            assert node.of == (node.i,)
            assert node.kind == graph.nodes[node.i].kind
        else:
            assert (node.i, node.kind) == (None, "scope")
            ops = [graph.nodes[k] for k in node.of if graph.nodes[k].op]
            assert all(node.p in path_of(graph, op.place) for op in ops)
        assert all(node.text)


def check_edges(graph, view):
    edges = {(e.target, e.position): e for e in graph.edges if graph.nodes[e.target].part is None}
    together = {pair for node in view.nodes for pair in product(node.of, node.of)}
    expected = [use for use, e in edges.items() if (e.source, e.target) not in together]
    assert sorted(use for arrow in view.edges for use in arrow.of) == sorted(expected)
    for arrow in view.edges:
        start, *_, end = points(arrow.d)
        tails = [node for node in view.nodes if is_on_border(start, node)]
        heads = [node for node in view.nodes if is_on_border(end, node)]
        for use in arrow.of:
            source, target = edges[use].source, edges[use].target
            along = belongs(graph, source, tails) and belongs(graph, target, heads)
            back = belongs(graph, target, tails) and belongs(graph, source, heads)
            assert along or (back and source in {node.i for node in heads})
        if not arrow.of:  # to what comes out of a box, computed from what is outside
            assert any(belongs(graph, node.i, tails) for node in heads if node.p is None)
        broadcast = [shapes(graph, edges[use]) for use in arrow.of if edges[use].broadcast]
        if arrow.label:
            assert broadcast == [arrow.label[0]]
        elif not view.closed:
            assert broadcast == []


def is_on_border(point, node):
    x, y = point
    depth = min(x - node.x, node.x + node.w - x, y - node.y, node.y + node.h - y)
    return abs(depth) <= NEAR


def belongs(graph, k, nodes):
    """Whether one of the nodes shows ``k``, or is the box that it comes out of."""
    around = path_of(graph, graph.nodes[k].place)
    return any(k in node.of or node.p in around for node in nodes)


def shapes(graph, edge):
    both = (graph.nodes[k].shape for k in (edge.source, edge.target))
    return " → ".join("×".join(map(str, shape)) or "scalar" for shape in both)


def check_scopes(graph, view):
    regions = {region.p: region for region in view.scopes}
    assert len(regions) == len(view.scopes)
    needed = set()
    for node in view.nodes:
        place = graph.nodes[node.i].place if node.p is None else graph.scopes[node.p].parent
        around = path_of(graph, place)
        out = [k for k, p in enumerate(around) if p in view.closed]
        around = around[out[-1] + 1 :] if out else around
        needed |= set(around)
        for p, region in regions.items():
            assert contains(region, node) if p in around else not overlap(region, node)
    assert set(regions) == needed


def contains(outer, inner):
    return (
        outer.x - ROUNDED <= inner.x
        and outer.y - ROUNDED <= inner.y
        and inner.x + inner.w <= outer.x + outer.w + ROUNDED
        and inner.y + inner.h <= outer.y + outer.h + ROUNDED
    )


def overlap(a, b):
    across = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    down = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    return across > ROUNDED and down > ROUNDED


def check_inside(view):
    for box in (*view.nodes, *view.scopes):
        assert min(box.x, box.y, box.w, box.h) >= 0
        assert box.x + box.w <= view.w + ROUNDED
        assert box.y + box.h <= view.h + ROUNDED
    for arrow in view.edges:
        line = points(arrow.d)
        label = [arrow.label[1:]] if arrow.label else np.empty((0, 2))
        where = np.concatenate([curve(line[:-1]) if "C" in arrow.d else line, line[-1:], label])
        assert (where >= 0).all()
        assert (where <= [view.w + ROUNDED, view.h + ROUNDED]).all()


@pytest.mark.parametrize("make", [batch_norm, two_results, only_results, shared_leaf, network])
def test_a_view_shows_every_node_and_every_edge_once(make, engine):
    graph = forward(make())
    found = views(graph)
    assert found[0].closed == ()
    for view in found:
        check(graph, view)


@settings(max_examples=100)
@given(PROGRAMS)
def test_so_it_does_whatever_the_program(blocks):
    graph = mb.Graph.from_outputs(program(blocks), backward=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # the engine that is there without a process is quicker
        found = views(graph) + views(graph, limit=8)
    for view in found:
        check(graph, view)


def test_a_large_graph_is_shown_part_by_part(engine):
    graph = forward(chain(200, scopes=90))
    assert len(graph.nodes) > 150
    found = views(graph)
    assert len(found) > 5
    for view in found:
        check(graph, view)
        assert len(view.nodes) <= 150


# What is in it -----------------------------------------------------------------------------------


def test_the_page_gets_plain_data():
    view = views(forward(batch_norm()))[0]
    data = json.loads(json.dumps(view.as_data()))
    assert set(data) == {"closed", "w", "h", "nodes", "edges", "scopes"}
    assert {tuple(node) for node in data["nodes"]} == {tuple("i p x y w h kind text of".split())}
    assert {tuple(edge) for edge in data["edges"]} == {("of", "d", "kind", "label")}
    (scope,) = data["scopes"]
    assert (set(scope), scope["text"]) == (set("p x y w h text".split()), "batch_norm")
    assert {"i": 0, "p": None, "kind": "input", "text": ["x", "4×2"], "of": [0]}.items() <= next(
        node for node in data["nodes"] if node["i"] == 0
    ).items()
    lengths = [box[key] for box in (*data["nodes"], scope) for key in "xywh"]
    assert all(length == round(length, 1) for length in lengths)


def test_paths_end_where_the_tip_was(engine):
    """A straight edge from one op down to the next is written as a line."""
    (view,) = views(forward(chain(2)))
    above, below = (next(node for node in view.nodes if node.i == i) for i in (1, 2))
    (arrow,) = [arrow for arrow in view.edges if arrow.of == ((2, 0),)]
    start, end = re.fullmatch(r"M([\d.,]+)L([\d.,]+)", arrow.d).groups()
    assert float(start.split(",")[1]) == pytest.approx(above.y + above.h, abs=ROUNDED)
    assert float(end.split(",")[1]) == pytest.approx(below.y, abs=ROUNDED)


def test_all_that_broadcasts_is_labelled(engine):
    view = views(forward(batch_norm()))[0]
    labels = sorted(arrow.label[0] for arrow in view.edges if arrow.label)
    assert labels == ["2 → 4×2"] * 3
    copied = {arrow.kind for arrow in view.edges}
    assert copied == {"input", "op", "parameter"}


def test_a_leaf_with_many_uses_is_drawn_beside_each():
    view = views(forward(shared_leaf()))[0]
    copies = [node for node in view.nodes if node.i == 0]
    assert len(copies) == 5
    assert len({(node.x, node.y) for node in copies}) == 5


def test_what_comes_out_of_a_box_keeps_its_index():
    graph = forward(two_results())
    index = {node.name: node.index for node in graph.nodes}
    view = next(view for view in views(graph) if view.closed)
    (box,) = [node for node in view.nodes if node.p == 0]
    assert {node.i for node in view.nodes} == {None, 0, index["a"], index["b"], 5}
    assert {graph.nodes[k].op for k in box.of} == {"mul", "tanh"}
    (into_a,) = [arrow for arrow in view.edges if (index["a"], 0) in arrow.of]
    tanh = next(node.index for node in graph.nodes if node.op == "tanh")
    assert (tanh, 0) in into_a.of  # what is used again inside goes back on the same path


def test_indexes_are_those_of_the_graph_with_its_backward_pass():
    y = network()
    assert views(mb.Graph.from_outputs(y, backward=True)) == views(forward(y))


def test_names_are_text(engine):
    names = ["</svg><script>", "<b>&amp;", r"\N \n", '"; a -> b']
    leaves = [leaf(1.0, name) for name in names]
    with mb.scope("<i>&lt;]]>"):
        y = sum(leaves).named("<!--")
    for view in views(forward(y)):
        check(forward(y), view)
        texts = {line for node in view.nodes for line in node.text}
        assert set(names) <= texts
    opened, box = views(forward(y))
    assert [scope.text for scope in opened.scopes] == ["<i>&lt;]]>"]
    assert ("<i>&lt;]]> (4 ops)", "<!-- scalar") in {node.text for node in box.nodes}


def test_the_same_program_gives_the_same_views(engine):
    assert views(forward(network())) == views(forward(network()))


# Which views there are ---------------------------------------------------------------------------


def nested():
    """Scope 0 around 1 and 2, then scope 3."""
    y = leaf([1.0, 2.0], "x")
    with mb.scope("outer"):
        for _ in range(2):
            with mb.scope("inner"):
                y = np.tanh(y) * 2 + 1
    with mb.scope("last"):
        return np.exp(y)


def test_all_open_then_all_closed_then_each():
    assert closed(nested()) == [(), (0, 3), (0,), (3,), (1,), (2,)]
    assert closed(batch_norm()) == [(), (0,)]
    assert closed(chain(3)) == [()]


def test_a_graph_above_the_limit_has_one_scope_open_at_a_time():
    assert closed(nested(), limit=7) == [(0, 3), (1, 2, 3), (0,), (2, 3), (1, 3)]
    assert closed(nested(), limit=5) == [(0, 3), (1, 2, 3), (0,)]


def test_what_has_no_scopes_to_close_is_shown_if_it_can_be():
    assert closed(chain(200)) == [()]
    with mb.scope("main"):
        y = chain(200)
    assert closed(y) == [(0,), ()]
    assert closed(chain(700)) == []


def test_hundreds_of_scopes_are_shown_closed_thousands_not_at_all():
    (view,) = views(forward(chain(700, scopes=350)))
    assert len(view.closed) == 350
    assert list(map(len, closed(chain(400, scopes=200)))) == [200, 0]
    assert closed(chain(5000, scopes=2500)) == []


def test_there_are_not_too_many_views():
    found = views(forward(chain(140, scopes=70)))
    assert 5 < len(found) <= 16
    assert sum(len(view.nodes) for view in found) <= 1500
    assert len(views(forward(chain(40, scopes=20)))) == 16
    size = len(json.dumps([view.as_data() for view in views(forward(chain(200, scopes=30)))]))
    assert size < 600_000


def test_leaves_alone_make_no_box():
    with mb.scope("data"):
        x = leaf([1.0, 2.0], "x")
    y = np.tanh(x)
    (view,) = views(forward(y))
    assert [scope.text for scope in view.scopes] == ["data"]
    check(forward(y), view)
    (view,) = views(forward(x))
    assert [node.i for node in view.nodes] == [0]


def test_what_cannot_be_laid_out_is_left_out(monkeypatch):
    """Nor are others tried that are as large; and nothing is laid out twice."""
    tried = []

    def choosy(source, *options, **more):
        tried.append(source.count("id=n"))
        if tried[-1] > 5:
            raise LayoutError("too large")
        return layout(source, *options, **more)

    monkeypatch.setattr(module, "layout", choosy)
    assert closed(nested()) == [(0, 3), (0,)]
    assert tried == [8, 3, 3, 6]
    tried.clear()
    assert closed(chain(3)) == [()]
    assert tried == [4]
