"""Draw one batch norm with microbn and with other tools, and count what is in the pictures.

    python -m venv compare
    compare/bin/python -m pip install -e . torch==2.13.0 torchviz torchview torchlens micrograd
    compare/bin/python tools/compare_drawings.py

The pictures go to docs/comparison, the counts into docs/comparison.md. Other tools need the program
`dot`, and so it lays out all of them. With `--out DIR` pictures and page go elsewhere.
"""

import argparse
import functools
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from xml.etree import ElementTree

import graphviz
import numpy as np
import torch
import torchlens
import torchview
from micrograd.engine import Value
from torchviz import make_dot

import microbn as mb
from microbn.data import students

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import geometry  # noqa: E402 (it lies beside the tests)

TABLE = np.asarray(students().features, dtype=float)
GAMMA = np.array([1.0, 2.0])
BETA = np.array([0.0, 3.0])
DY = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, 1.0]])
EPS = 1e-5

START, END = "<!-- counts: start -->\n", "<!-- counts: end -->\n"
ADDRESS = re.compile(r"\b(grad_fn_)?(\d{12,})\b")
TOOLS = "microbn torch torchviz torchview torchlens micrograd".split()
DRAWING = "microbn.graph torchviz torchview torchlens.visualization".split()


# microbn -----------------------------------------------------------------------------------------


def microbn_output():
    """The result of `mb.batch_norm`, recorded."""
    x = mb.Tensor(TABLE, requires_grad=True, name="x")
    gamma = mb.nn.Parameter(GAMMA, name="gamma")
    beta = mb.nn.Parameter(BETA, name="beta")
    return mb.batch_norm(x, gamma, beta, eps=EPS)


def microbn_values():
    """draw(y)"""
    y = microbn_output()
    y.backward(DY)
    return mb.draw(y, engine="dot").svg()


def microbn_backward():
    """draw(y, backward=True, values=False)"""
    y = microbn_output()
    return mb.draw(y, backward=True, grad_output=DY, values=False, engine="dot").svg()


# PyTorch -----------------------------------------------------------------------------------------


class BatchNorm(torch.nn.Module):
    """The ops of `mb.batch_norm`, one by one."""

    def __init__(self):
        super().__init__()
        self.gamma = torch.nn.Parameter(torch.tensor(GAMMA))
        self.beta = torch.nn.Parameter(torch.tensor(BETA))

    def forward(self, x):
        mean = x.mean(0)
        centered = x - mean
        squared = centered**2
        var = squared.mean(0)
        var_eps = var + EPS
        std = var_eps.sqrt()
        inv_std = std**-1
        x_hat = centered * inv_std
        scaled = x_hat * self.gamma
        return scaled + self.beta


def torch_program():
    """The module, its input, its result."""
    module = BatchNorm()
    x = torch.tensor(TABLE, requires_grad=True)
    y = module(x)
    expected = microbn_output().data
    assert np.allclose(y.detach().numpy(), expected, rtol=1e-12, atol=0)
    return module, x, y


def torchviz():
    """make_dot(y, params)"""
    module, x, y = torch_program()
    return laid_out(make_dot(y, {"x": x, "y": y, **dict(module.named_parameters())}))


def torchviz_saved():
    """make_dot(y, params, show_attrs=True, show_saved=True)"""
    module, x, y = torch_program()
    names = {"x": x, "y": y, **dict(module.named_parameters())}
    return laid_out(make_dot(y, names, show_attrs=True, show_saved=True))


def torchviz_gradient():
    """make_dot(dx, params), dx taken with create_graph=True"""
    module, x, y = torch_program()
    (dx,) = torch.autograd.grad(y, x, torch.tensor(DY), create_graph=True)
    return laid_out(make_dot(dx, {"x": x, "dx": dx, **dict(module.named_parameters())}))


def torchviz_fused():
    """make_dot(y, params), y of torch.nn.functional.batch_norm"""
    module, x, _ = torch_program()
    weights = dict(module.named_parameters())
    y = torch.nn.functional.batch_norm(x, None, None, *weights.values(), training=True, eps=EPS)
    return laid_out(make_dot(y, {"x": x, "y": y, **weights}))


def torchview_default():
    """draw_graph(module, x)"""
    module, x, _ = torch_program()
    return laid_out(torchview.draw_graph(module, x).visual_graph)


def torchview_functions():
    """draw_graph(Sequential(module), x, expand_nested=True, hide_module_functions=False)"""
    module, x, _ = torch_program()
    options = {"expand_nested": True, "hide_module_functions": False}
    return laid_out(torchview.draw_graph(torch.nn.Sequential(module), x, **options).visual_graph)


def torchlens_trace():
    """What TorchLens has recorded, forward and backward."""
    module, x, _ = torch_program()
    trace = torchlens.trace(module, x)
    (output,) = trace.output_layers
    trace.log_backward((trace[output].out * torch.tensor(DY)).sum())
    return trace


def torchlens_forward():
    """trace(module, x).draw(show_saved_for_backward=True)"""
    draw = torchlens_trace().draw
    return drawn_by(draw, direction="topdown", show_saved_for_backward=True)


def torchlens_backward():
    """trace(module, x), log_backward(loss), draw_backward()"""
    return drawn_by(torchlens_trace().draw_backward)


def torchlens_combined():
    """trace(module, x), log_backward(loss), draw_combined()"""
    return drawn_by(torchlens_trace().draw_combined, vis_direction="topdown")


def drawn_by(draw, **options):
    """The DOT text that a method of TorchLens returns, laid out; the file that it writes goes."""
    with tempfile.TemporaryDirectory() as folder:
        where = {"vis_outpath": f"{folder}/graph", "vis_fileformat": "svg", "vis_save_only": True}
        return laid_out(draw(**where, **options))


# micrograd ---------------------------------------------------------------------------------------


def micrograd():
    """The picture of its notebook, of the first column"""
    x = [labelled(f"x{i}", Value(v)) for i, v in enumerate(TABLE[:, 0])]
    gamma, beta = labelled("gamma", Value(GAMMA[0])), labelled("beta", Value(BETA[0]))
    mean = labelled("mean", sum(x[1:], x[0]) * (1 / len(x)))
    centered = [labelled(f"centered{i}", v - mean) for i, v in enumerate(x)]
    squared = [labelled(f"squared{i}", v**2) for i, v in enumerate(centered)]
    var = labelled("var", sum(squared[1:], squared[0]) * (1 / len(x)))
    std = labelled("std", labelled("var_eps", var + EPS) ** 0.5)
    inv_std = labelled("inv_std", std**-1)
    x_hat = [labelled(f"x_hat{i}", v * inv_std) for i, v in enumerate(centered)]
    scaled = [labelled(f"scaled{i}", v * gamma) for i, v in enumerate(x_hat)]
    y = [labelled(f"y{i}", v + beta) for i, v in enumerate(scaled)]
    assert np.allclose([v.data for v in y], microbn_output().data[:, 0], rtol=1e-12, atol=0)
    weighted = [v * w for v, w in zip(y, DY[:, 0], strict=True)]
    functools.reduce(lambda a, b: a + b, weighted).backward()
    return laid_out(records(y))


def labelled(name, value):
    """A micrograd Value that knows what it is called, as in the lectures."""
    value.label = name
    return value


def records(outputs):
    """Micrograd's picture, in our own code: a record box for each value, an oval for each op."""
    graph, names = graphviz.Digraph(graph_attr={"rankdir": "LR"}), {}

    def place(value):
        """Where a value comes in an order that does not change from run to run."""
        label = getattr(value, "label", "")
        return label, value._op, value.data, value.grad, sorted(map(place, value._prev))

    def add(value):
        if value in names:
            return names[value]
        names[value] = name = f"value{len(names)}"
        facts = f"data {value.data:.4f} | grad {value.grad:.4f}"
        graph.node(name, f"{{ {getattr(value, 'label', '')} | {facts} }}", shape="record")
        if value._op:
            graph.node(f"{name}_op", value._op)
            graph.edge(f"{name}_op", name)
        for child in sorted(value._prev, key=place):
            graph.edge(add(child), f"{name}_op")
        return name

    for output in outputs:
        add(output)
    return graph


# Layout and counts -------------------------------------------------------------------------------


def laid_out(graph):
    """The SVG of a graph; addresses in memory become numbers that are the same in every run."""
    seen = {}

    def number(match):
        return (match[1] or "") + str(seen.setdefault(match[2], len(seen)))

    source = ADDRESS.sub(number, getattr(graph, "source", graph))
    command = ["dot", "-Tsvg"]
    done = subprocess.run(command, input=source.encode(), capture_output=True, check=True)
    return done.stdout.decode()


class Measured(geometry.Picture):
    """The same measures for the SVG of any tool: nodes are known by their titles."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg)
        self.boxes, self.lines, self.ends = {}, {}, {}
        for group in self.root.iter(geometry.SVG + "g"):
            kinds = (group.get("class") or "").split()
            title = group.findtext(geometry.SVG + "title")
            if "node" in kinds:
                self.boxes[title] = geometry.box(np.concatenate([*corners(group)]))
            elif "edge" in kinds:
                path = group.find(f".//{geometry.SVG}path")
                self.lines[group.get("id")] = geometry.curve(geometry.points(path.get("d")))
                self.ends[group.get("id")] = [re.sub(r":.*", "", t) for t in title.split("->")]


def corners(group):
    """The corners of all shapes of a node, and of its text, should it have no shape."""
    for element in group.iter():
        match element.tag.removeprefix(geometry.SVG):
            case "polygon" | "polyline":
                yield geometry.points(element.get("points"))
            case "path":
                yield geometry.points(element.get("d"))
            case "ellipse":
                x, y, a, b = (float(element.get(key)) for key in ("cx", "cy", "rx", "ry"))
                yield np.array([[x - a, y - b], [x + a, y + b]])
            case "text":
                yield np.array([[float(element.get("x")), float(element.get("y"))]])


PICTURES = (
    *(microbn_values, microbn_backward),
    *(torchviz, torchviz_saved, torchviz_gradient, torchviz_fused),
    *(torchview_default, torchview_functions),
    *(torchlens_forward, torchlens_backward, torchlens_combined),
    micrograd,
)


def row(make, svg):
    """One line of the table."""
    picture = Measured(svg)
    tool = make.__name__.partition("_")[0]
    size = " × ".join(picture.root.get(key).removesuffix("pt") for key in ("width", "height"))
    counts = [len(picture.boxes), len(picture.lines), len(picture.crossings())]
    cells = [tool, f"[{make.__doc__}](comparison/{make.__name__}.svg)", *counts, size]
    return "| " + " | ".join(map(str, [*cells, f"{len(svg) / 1000:.0f}"])) + " |"


def versions():
    """What the pictures were made with."""
    names = [f"{tool} {importlib.metadata.version(tool).partition('+')[0]}" for tool in TOOLS]
    dot = subprocess.run(["dot", "-V"], capture_output=True, text=True, check=True).stderr
    return ", ".join([*names, f"Graphviz {re.search(r'[0-9.]+', dot)[0]}"])


def lengths():
    """How many lines of Python, blank ones and comments included, each package draws with."""
    for name in DRAWING:
        files = Path(sys.modules[name].__file__).parent.rglob("*.py")
        yield f"{name} {sum(len(f.read_text('utf-8').splitlines()) for f in files):,}"


def main():
    """Make the pictures, print the counts, and put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    out = parser.parse_args().out
    (out / "comparison").mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    lines = [
        f"Made by `python tools/compare_drawings.py` with\n{versions()}.\n",
        "| tool | picture | nodes | edges | crossings | points | kB |",
        "|---|---|---|---|---|---|---|",
    ]
    for make in PICTURES:
        svg = re.sub(r"<!--.*?-->\n?", "", make(), flags=re.DOTALL)
        (out / "comparison" / f"{make.__name__}.svg").write_text(svg, encoding="utf-8")
        lines.append(row(make, svg))
    lines.append(f"\nLines of Python in the packages that draw:\n{', '.join(lengths())}.")
    table = "\n".join(lines) + "\n"
    print(table, end="")
    page = out / "comparison.md"
    if page.exists():
        before, _, rest = page.read_text(encoding="utf-8").partition(START)
        text = f"{before}{START}\n{table}\n{END}{rest.partition(END)[2]}"
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
