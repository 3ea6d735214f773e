"""`microbn draw`, used as its users use it: scripts, functions, and programs that fail."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from microbn import cli
from microbn.program import ProgramError, run

MODEL = """
import sys
import numpy as np
import microbn as mb
import beside

def standardise(x, eps=1e-5):
    mu = x.mean(axis=0)
    centered = x - mu
    var = (centered ** 2).mean(axis=0)
    return centered / np.sqrt(var + eps)

def example():
    x = mb.Tensor([[7., 70.], [8., 80.], [9., 90.]], requires_grad=True)
    y = standardise(x)
    return y

def needs(a, *, b, c=1):
    return a

def returns_nothing():
    pass

if __name__ == "__main__":
    y = example()
    loss = (y ** 2).sum()
    print("arguments", sys.argv[1:], beside.NUMBER)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "beside.py").write_text("NUMBER = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in "model", "beside":
        sys.modules.pop(name, None)


def draw(*args):
    """Run the command in this process, and return its exit code."""
    try:
        return cli.main(["draw", *map(str, args)])
    except SystemExit as stop:
        return stop.code


def names(trace):
    return [node.title for node in trace.graph.nodes]


def test_a_script_is_run_as_python_would_run_it(folder, capsys):
    before = list(sys.argv), list(sys.path)
    trace = run("model.py")
    assert capsys.readouterr().out == "arguments [] 7\n"
    assert names(trace)[:3] == ["x", "mu", "centered"]
    assert names(trace)[-1] == "loss"
    assert {node.scope for node in trace.graph.nodes if node.name == "mu"} == {
        ("example", "standardise")
    }
    assert (sys.argv, sys.path) == before


def test_a_function_is_called_and_the_script_is_not_run(folder, capsys):
    trace = run("model.py:example")
    assert capsys.readouterr().out == ""
    assert (trace.name, names(trace)[-1]) == ("example", "y")
    assert trace.graph.nodes[1].source.text == "mu = x.mean(axis=0)"


def test_a_tensor_that_the_script_leaves(folder):
    assert names(run("model.py:y"))[-1] == "y"


def test_the_picture_is_saved_where_it_is_asked_for(folder, capsys):
    assert draw("model.py", "--no-values", "--backward") == 0
    assert "saved as model.svg" in capsys.readouterr().out
    texts = [t.text for t in ElementTree.parse("model.svg").iter() if t.tag.endswith("text")]
    assert {"d standardise", "loss = Σ", "mu = mean axis 0"} <= set(texts)
    options = ("--collapse", "standardise", "--collapse", "2", "--dark", "--sideways")
    assert (
        draw("model.py:example", *options, "-o", "a.dot", "--title", "T", "--highlight", "x") == 0
    )
    source = (folder / "a.dot").read_text()
    assert "standardise" in source
    assert "rankdir=LR" in source
    assert "label=T" in source


def test_open_shows_it(folder, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    assert draw("model.py", "--open") == 0
    assert shown == [(folder / "model.svg").resolve().as_uri()]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.py"], "there is no file 'none.py'"),
        (["model.py:zz"], "no function and leaves no Tensor called 'zz'; .* are: y, loss"),
        (["model.py:needs"], "needs takes a, b, and microbn has nothing to give it"),
        (["model.py:returns_nothing"], "returned None"),
        (["beside.py"], "beside.py computed nothing with Tensors"),
        (["model.py", "-o", "a.jpg"], "format of 'a.jpg'"),
        (["model.py", "--collapse", "nowhere"], "no scope is called 'nowhere'"),
        (["model.py", "--highlight", "nobody"], "called 'nobody'"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(folder, capsys, args, message):
    assert draw(*args) == 1
    error = capsys.readouterr().err
    assert error.startswith("microbn draw: error: ")
    assert re.search(message, error)
    assert "tracer.py" not in error


def test_a_wrong_place_is_known_before_the_program_runs(folder, capsys):
    assert draw("model.py", "-o", "nowhere/a.svg") == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (
        "",
        "microbn draw: error: cannot write 'nowhere/a.svg': there is no folder 'nowhere'\n",
    )


FAILS = """import microbn as mb

def inner(x):
    return x @ mb.Tensor([1.0, 2.0, 3.0])

x = mb.Tensor([1.0, 2.0], requires_grad=True)
y = inner(x)
"""


def test_a_program_that_fails_shows_its_own_traceback(folder):
    (folder / "fails.py").write_text(FAILS)
    done = subprocess.run(
        [sys.executable, "-m", "microbn", "draw", "fails.py"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    files = re.findall(r'File "(.*?)", line (\d+)', done.stderr)
    assert files == [("fails.py", "7"), ("fails.py", "4")]
    assert "ShapeError: matmul(x (2,) float64, Tensor (3,) float64)" in done.stderr
    assert "direct cause" not in done.stderr


def test_errors_of_the_program_itself_keep_their_causes(folder):
    (folder / "fails.py").write_text(
        "try:\n    {}['a']\nexcept KeyError as error:\n    raise ValueError('b') from error\n"
    )
    with pytest.raises(ProgramError, match=r"(?s)KeyError: 'a'.*direct cause.*ValueError: b"):
        run("fails.py")


def test_a_syntax_error_points_at_the_place(folder):
    (folder / "fails.py").write_text("print(1\n")
    with pytest.raises(ProgramError, match=r"fails.py failed:\n\n  File .*line 1\n    print\(1"):
        run("fails.py")


@pytest.mark.parametrize(("code", "ends"), [("0", None), ("", None), ("3", "stopped with 3")])
def test_a_program_may_exit(folder, code, ends):
    text = f"import sys, microbn as mb\ny = mb.Tensor(1.0) + 1\nsys.exit({code})\n"
    (folder / "ends.py").write_text(text)
    if ends is None:
        assert names(run("ends.py"))[-1] == "y"
    else:
        with pytest.raises(ProgramError, match=ends):
            run("ends.py")
