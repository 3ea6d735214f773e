"""`microbn draw`, used as its users use it: scripts, functions, and programs that fail."""

import gc
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from xml.etree import ElementTree

import pytest

from microbn import cli
from microbn.graph import Source, layout
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

def two():
    y = example()
    return y, [y.sum()]

if __name__ == "__main__":
    y = example()
    loss = (y ** 2).sum()
    print("arguments", sys.argv[1:], beside.NUMBER)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "beside.py").write_text("NUMBER = 7\n")
    (tmp_path / "picture.svg").write_text('<?xml version="1.0"?><svg/>\n')
    (tmp_path / "picture").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "notes.ipynb").write_text('{"outputs": null}\n')
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


def microbn(*args):
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "microbn", *args],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def names(ran):
    return [node.title for node in ran.trace.graph.nodes]


def program(folder, text, name="program.py"):
    (folder / name).write_text(f"import sys, microbn as mb\n{text}\n")
    return name


def test_a_script_is_run_as_python_would_run_it(folder, capsys):
    before = list(sys.argv), list(sys.path)
    ran = run("model.py")
    assert capsys.readouterr().out == "arguments [] 7\n"
    assert names(ran)[:3] == ["x", "mu", "centered"]
    assert names(ran)[-1] == "loss"
    assert {node.scope for node in ran.trace.graph.nodes if node.name == "mu"} == {
        ("example", "standardise")
    }
    assert (sys.argv, sys.path) == before


def test_a_function_is_called_and_the_script_is_not_run(folder, capsys):
    ran = run("model.py:example")
    assert capsys.readouterr().out == ""
    assert (ran.trace.name, names(ran)[-1]) == ("example", "y")
    assert ran.trace.graph.nodes[1].source.text == "mu = x.mean(axis=0)"


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
        (["model.py:needs"], "needs in model.py takes a, b, and microbn has nothing to give it"),
        (
            ["model.py:returns_nothing"],
            "error: returns_nothing in model.py returned None, .*; let it return what",
        ),
        (["."], "'.' is a folder; give a Python program, FILE.py"),
        (["./:step"], "'.' is a folder"),
        (["picture.svg"], "error: picture.svg is no Python program$"),
        (["picture"], "error: picture is no Python program$"),
        (["notes.ipynb"], "error: notes.ipynb is no Python program; .* use mb.draw$"),
        (["beside.py"], "beside.py computed nothing with Tensors"),
        (["model.py", "-o", "a.jpg"], "format of 'a.jpg'"),
        (["model.py", "--collapse", "nowhere"], "no scope is called 'nowhere'"),
        (["model.py", "--collapse", "0"], "error: --collapse 0: levels count from 1"),
        (["model.py", "--highlight", "nobody"], "called 'nobody'"),
        (["model.py", "--limit", "2"], r"\(model.py:name\), .* functions, or give --limit 3 to"),
        (["model.py:two", "--backward"], r"name one .*\(model.py:name\), or let the function"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(folder, capsys, args, message):
    assert draw(*args) == 1
    error = capsys.readouterr().err
    assert error.startswith("microbn draw: error: ")
    assert error.count("\n") == 1
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
    done = microbn("draw", "fails.py")
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


# Which result is drawn ---------------------------------------------------------------------------

TRAINING = """
w = mb.Tensor([1.0, 2.0], requires_grad=True)
losses = []
for step in range(int(sys.argv[1]) if sys.argv[1:] else 300):
    loss = (w * w).sum()
    losses.append(loss)
    loss.backward()
    w.data = w.data - 0.1 * w.grad
    w.grad = None
"""


def test_the_result_that_was_computed_last_is_drawn(folder, capsys):
    train = program(folder, TRAINING)
    ran = run(train)
    assert names(ran) == ["w", "×", "loss"]
    (output,) = ran.trace.outputs
    assert output.data == pytest.approx(5 * 0.8 ** (2 * 299))
    assert draw(train, "--backward") == 0
    assert len(run(f"{train}:losses", ["3"]).trace.outputs) == 3


def test_a_function_that_returns_several_shows_them_all(folder):
    assert len(run("model.py:two").trace.outputs) == 2


def test_arguments_follow_two_dashes(folder, capsys):
    assert draw("model.py", "--dark", "--", "--epochs", "3", "--", "-o") == 0
    assert capsys.readouterr().out.startswith("arguments ['--epochs', '3', '--', '-o'] 7\n")
    program(folder, "def f():\n    return mb.Tensor(1.0) * float(sys.argv[1])", "scale.py")
    assert run("scale.py:f", ["7"]).trace.output.item() == 7
    assert draw("model.py", "--epochs", "3") == 2
    assert "no option --epochs; what is for the program follows --: " in capsys.readouterr().err


def test_a_program_may_go_elsewhere(folder, capsys):
    (folder / "elsewhere").mkdir()
    name = program(folder, "import os\nos.chdir('elsewhere')\ny = mb.Tensor(1.0) + 1")
    assert draw(name) == 0
    assert (folder / "program.svg").is_file()


def test_what_a_program_is_called_does_not_stay_imported(folder):
    before = sys.modules["__main__"]
    run("model.py")
    run("model.py:example")
    assert sys.modules["__main__"] is before
    assert "model" not in sys.modules


# Messages in the words of the command ------------------------------------------------------------


def test_limit_is_what_a_picture_may_have(folder, capsys):
    name = program(folder, "y = mb.Tensor(1.0, requires_grad=True)\nfor _ in range(200): y = -y")
    assert draw(name) == 1
    needed = re.search(r"give (--limit) (\d+) to draw it anyway", capsys.readouterr().err)
    assert draw(name, *needed.groups()) == 0
    assert "201 nodes" in capsys.readouterr().out
    assert draw(name, "--limit", "0") == 2


def test_data_that_was_overwritten_has_a_remedy(folder, capsys):
    text = "w = mb.Tensor([1.0], requires_grad=True)\ny = (w * w).sum()\ny.backward()\n{}"
    name = program(folder, text.format("w.data -= w.grad"))
    assert draw(name, "--backward") == 1
    error = capsys.readouterr().err
    assert "w (1,) float64 was given new data after mul had used it; draw a function" in error
    assert "(program.py:function), or let the script stop before the update\n" in error
    assert draw(program(folder, text.format("sys.exit()\nw.data -= w.grad")), "--backward") == 0


def test_a_result_without_gradient_has_a_remedy(folder, capsys):
    text = "y = mb.Tensor(1.0, requires_grad=True) * 2\nwith mb.no_grad(): z = y + 1"
    name = program(folder, text)
    assert draw(name, "--backward") == 1
    assert "requires no gradient" in (error := capsys.readouterr().err)
    assert error.endswith("or name another result: program.py:name\n")
    assert draw(f"{name}:y", "--backward") == 0


def test_a_broken_dot_has_a_remedy(folder, monkeypatch, capsys):
    monkeypatch.setattr(layout.shutil, "which", lambda name: sys.executable)
    assert draw("model.py") == 1
    assert "mend that installation of Graphviz, or take it off PATH" in capsys.readouterr().err


def test_what_a_program_says_itself_is_left_alone(folder, capsys):
    name = program(folder, "raise ValueError('give limit=3')")
    assert draw(name) == 1
    assert "ValueError: give limit=3\n" in capsys.readouterr().err


# Where the picture goes --------------------------------------------------------------------------


def test_a_name_without_ending_is_one_of_svg(folder, capsys):
    assert draw("model.py", "-o", "there") == 0
    assert capsys.readouterr().out.endswith("saved as there.svg, since 'there' has no ending\n")
    assert (folder / "there.svg").is_file()
    program(folder, "y = mb.Tensor(1.0) + 1", "model.v2.py")
    assert draw("model.v2.py") == 0
    assert capsys.readouterr().out.endswith("saved as model.v2.svg\n")


@pytest.mark.parametrize("name", ["there", "there.svg", "."])
def test_a_folder_is_no_place_for_a_picture(folder, capsys, name):
    Path(name).mkdir(exist_ok=True)
    assert draw("model.py", "-o", name) == 2
    printed = capsys.readouterr()
    example = str(Path(name) / "model.svg")
    assert (printed.out, printed.err) == (
        "",
        f"microbn draw: error: cannot write {name!r}: "
        f"it is a folder; give a file, such as {example!r}\n",
    )


posix = pytest.mark.skipif(os.name != "posix", reason="only POSIX has devices with a path")


@pytest.mark.parametrize("out", ["-", pytest.param("/dev/stdout", marks=posix)])
def test_standard_output_gets_the_picture_alone(folder, out):
    text = "import os\nprint('one')\nos.system('echo two')\ny = mb.Tensor(1.0) + 1\nsys.exit(3)"
    done = microbn("draw", program(folder, text), "-o", out)
    assert done.returncode == 3
    assert ElementTree.fromstring(done.stdout).tag.endswith("svg")
    *printed, stopped, saved = done.stderr.splitlines()
    assert sorted(printed) == ["one", "two"]
    assert stopped == "microbn draw: program.py stopped with 3"
    assert saved == "<Drawing: 2 nodes, 1 edge> of program.py, written to standard output"
    assert sorted(folder.glob("*.svg")) == [folder / "picture.svg"]


def test_standard_output_cannot_be_opened(folder, capsys):
    assert draw("model.py", "-o", "-", "--open") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "microbn draw: error: --open shows a file, and -o - writes none\n"


@posix
def test_a_device_keeps_its_name(folder, capsys):
    assert draw("model.py", "-o", "/dev/null") == 0
    assert capsys.readouterr().out.endswith("saved as /dev/null\n")


def test_a_reader_who_has_seen_enough_ends_it(folder):
    name = program(folder, "input()\nprint('one', flush=True)\ny = mb.Tensor(1.0) + 1")
    with subprocess.Popen(
        [sys.executable, "-m", "microbn", "draw", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


# Programs that exit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "stopped"),
    [("", 0, ""), ("0", 0, ""), ("3", 3, "3"), ("'no data'", 1, "'no data'")],
)
def test_a_program_may_exit(folder, capsys, code, status, stopped):
    name = program(folder, f"y = mb.Tensor(1.0) + 1\nz = y * 2\nsys.exit({code})")
    assert names(run(name))[-1] == "z"
    assert draw(f"{name}:y") == status
    printed = capsys.readouterr()
    assert printed.out == "<Drawing: 2 nodes, 1 edge> of program.py:y, saved as program.svg\n"
    assert printed.err == f"microbn draw: program.py stopped with {stopped}\n" * bool(stopped)


def test_a_program_that_exits_before_it_computes(folder, capsys):
    assert draw(program(folder, "sys.exit(3)")) == 3
    assert "is nothing to look at; it stopped with 3\n" in capsys.readouterr().err
    for code, status in (3, 3), (0, 1):
        assert draw(program(folder, f"def f(): sys.exit({code})") + ":f") == status
        assert f"program.py stopped with {code} before f had returned" in capsys.readouterr().err


def test_a_program_that_raises_is_not_drawn(folder, capsys):
    assert draw(program(folder, "y = mb.Tensor(1.0) + 1\nraise KeyError('a')")) == 1
    assert "line 3, in <module>" in (error := capsys.readouterr().err)
    assert error.endswith("KeyError: 'a'\n")
    assert not (folder / "program.svg").exists()


# Programs that fail, up to where they failed ------------------------------------------------------

BROKEN = """
def spread(centered):
    var = (centered ** 2).mean(axis=0)
    weights = mb.Tensor([1.0, 2.0, 3.0])
    return (var + 1) @ weights

def standardise(x):
    mu = x.mean(axis=0)
    centered = x - mu
    shifted = x + 1
    return centered / spread(centered)

def example():
    x = mb.Tensor([[1.0, 2.0], [3.0, 6.0]], requires_grad=True)
    return standardise(x)
"""


def partial(target):
    """Run a program that fails after it has computed something."""
    ran = run(target, partial=True)
    assert ran.stopped is None
    assert ran.failed is not None
    return ran


def outputs(ran):
    return [tensor.name for tensor in ran.trace.outputs]


@pytest.mark.parametrize("form", ["script", "function", "name"])
def test_what_was_computed_before_an_op_failed_is_kept(folder, form):
    name = program(folder, BROKEN + ("" if form == "function" else "\ny = example()"))
    target = {"script": name, "function": f"{name}:example", "name": f"{name}:y"}[form]
    with pytest.raises(ProgramError, match="ShapeError: matmul"):
        run(target)
    ran = partial(target)
    assert names(ran) == ["x", "mu", "centered", "shifted", "** 2", "var", "+ 1"]
    assert outputs(ran) == ["shifted", None]
    assert ran.trace.output is ran.trace.outputs[-1]
    assert ran.trace.output.data.tolist() == [2.0, 5.0]
    around = () if form == "function" else ("example",)
    assert [node.scope for node in ran.trace.graph.nodes[1:]] == [
        *[(*around, "standardise")] * 3,
        *[(*around, "standardise", "spread")] * 3,
    ]
    assert ran.trace.graph.nodes[4].source.text == "var = (centered ** 2).mean(axis=0)"
    assert ran.trace.name == ("example" if form == "function" else "")


def test_a_failed_function_is_traced_as_one_that_returns(folder):
    text = "def f():\n    x = mb.Tensor([1.0, 2.0])\n    y = g(x)\n    {}\n    return y\n"
    text += "def g(a):\n    b = a * 2\n    return b + 1"
    fails = run(program(folder, text.format("1 / 0"), "fails.py") + ":f", partial=True)
    works = run(program(folder, text.format("pass"), "works.py") + ":f", partial=True)
    assert fails.failed.message == "ZeroDivisionError: division by zero"
    assert works.failed is None
    fails, works = (
        [
            (node.title, node.op, node.kind, node.scope, node.source and node.source.line)
            for node in ran.trace.graph.nodes
        ]
        for ran in (fails, works)
    )
    assert fails == works


def test_the_failure_says_what_happened_and_where(folder):
    name = program(folder, BROKEN)
    with pytest.raises(ProgramError) as raised:
        run(f"{name}:example")
    failed = partial(f"{name}:example").failed
    assert failed == raised.value.failure
    assert failed.message.startswith("ShapeError: matmul(Tensor (2,) float64, weights (3,) float64")
    assert "\n" not in failed.message
    assert failed.source == Source(name, 6, "return (var + 1) @ weights")
    assert str(raised.value) == f"{name} failed:\n\n{failed.traceback}"
    assert re.findall(r", line (\d+), in (\w+)", failed.traceback) == [
        ("16", "example"),
        ("12", "standardise"),
        ("6", "spread"),
    ]


def test_a_loop_that_fails_in_its_third_turn(folder):
    text = """
def train():
    w = mb.Tensor([1.0, 2.0], requires_grad=True)
    for step in range(5):
        loss = (w * w).sum()
        weights = [1.0, 2.0][step]
    return loss
"""
    ran = partial(program(folder, text) + ":train")
    assert outputs(ran) == ["loss"] * 3
    assert names(ran) == ["w", *["×", "loss"] * 3]
    assert ran.failed.message == "IndexError: list index out of range"
    assert ran.failed.source.text == "weights = [1.0, 2.0][step]"


def test_gradients_that_were_there_before_the_failure_are_kept(folder):
    text = """
w = mb.Tensor([1.0, 2.0], requires_grad=True)
loss = (w * w).sum()
loss.backward()
(w * 2).backward()
"""
    ran = partial(program(folder, text))
    assert ran.failed.message.startswith("GradientError: Tensor (2,) float64 is not a single")
    assert names(ran) == ["w", "×", "loss", "× 2"]
    assert ran.trace.graph.nodes[0].cotangent.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("raise ValueError('one\\n  two.')", "ValueError: one two"),
        ("raise ValueError", "ValueError"),
        ("assert not True", "AssertionError"),
        ("{}['a']", "KeyError: 'a'"),
        ("import json; json.loads('[')", "JSONDecodeError: Expecting value: line 1 .*"),
        ("eval('1 +')", r"SyntaxError: invalid syntax \(<string>, line 1\)"),
        (
            "e = TypeError('one.'); e.add_note('two\\n'); e.add_note('three'); raise e",
            "TypeError: one; two; three",
        ),
        ("e = TypeError('one'); e.__notes__ = 2; raise e", "TypeError: one"),
        (
            "class Odd(Exception):\n    def __str__(self): return 1 / 0\nraise Odd",
            r"Odd: <exception str\(\) failed>",
        ),
    ],
)
def test_errors_of_any_kind_in_one_paragraph(folder, fails, message):
    failed = partial(program(folder, f"y = mb.Tensor(1.0) + 1\n{fails}")).failed
    assert re.fullmatch(message, failed.message)
    assert "\n" not in failed.message
    assert failed.source.file == "program.py"
    assert failed.source.text == fails.splitlines()[-1]


def test_the_line_of_a_failure_is_the_innermost_of_the_users(folder):
    (folder / "beside.py").write_text("import numpy as np\ndef f(): np.zeros(2).reshape(3)\n")
    failed = partial(program(folder, "import beside\ny = mb.Tensor(1.0) + 1\nbeside.f()")).failed
    assert Path(failed.source.file).name == "beside.py"
    assert failed.source == Source(failed.source.file, 2, "def f(): np.zeros(2).reshape(3)")


def test_a_program_that_went_elsewhere_is_still_quoted(folder, monkeypatch):
    (folder / "sub").mkdir()
    text = "import os\nos.chdir('sub')\ny = mb.Tensor(1.0) + 1\n1 / 0"
    ran = partial(str(Path("sub") / program(folder / "sub", text)))
    assert ran.failed.source.text == "1 / 0"
    assert "    1 / 0\n" in ran.failed.traceback
    assert ran.trace.graph.nodes[-1].source.text == "y = mb.Tensor(1.0) + 1"
    program(folder / "sub", f"# new\n{text}")
    assert partial(str(Path("sub") / "program.py")).failed.source.line == 6


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("mb.Tensor([1.0]).backward()", "", "GradientError"),
        ("def f():\n    {}['a']", ":f", "KeyError: 'a'"),
        ("y = mb.Tensor(1.0) + 1\n1 / 0\ndef f(): return y", ":f", "ZeroDivisionError"),
        ("def f():\n    y = mb.Tensor(1.0) + 1", ":f", "f in program.py returned None"),
        ("def f(a):\n    return a", ":f", "f in program.py takes a, and microbn has nothing"),
        ("def f():\n    y = mb.Tensor(1.0) + 1\n    sys.exit(3)", ":f", "3 before f had returned"),
        ("y = mb.Tensor(1.0) + 1", ":z", "no function and leaves no Tensor called 'z'"),
        ("print(1", "", "program.py failed:"),
    ],
)
def test_where_nothing_can_be_kept_a_partial_run_is_as_any_other(folder, text, name, message):
    target = program(folder, text) + name
    said = []
    for kind in False, True:
        with pytest.raises(ProgramError, match=message) as raised:
            run(target, partial=kind)
        said.append((str(raised.value), raised.value.status))
    assert said[0] == said[1]


def test_what_a_call_that_fails_was_given_is_kept_even_if_it_was_the_first(folder):
    ran = partial(program(folder, "x, w = mb.Tensor([1.0]), mb.Tensor([1.0, 2.0])\nx @ w"))
    assert ran.trace.outputs == ()
    assert [(x.name, x.data.tolist()) for x in ran.failed.operands] == [("x", [1]), ("w", [1, 2])]


@pytest.mark.parametrize("text", ["", "def f(): "])
def test_an_interrupt_is_not_kept(folder, text):
    name = program(folder, f"{text}mb.Tensor(1.0) + 1; raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        run(name + (":f" if text else ""), partial=True)


def test_a_partial_run_of_what_does_not_fail_is_as_any_other(folder):
    for target in "model.py", "model.py:y", "model.py:example", "model.py:two":
        whole, kept = run(target), run(target, partial=True)
        assert kept.failed is None
        assert kept.trace.graph == whole.trace.graph
        assert len(kept.trace.outputs) == len(whole.trace.outputs) == 1 + (target[-3:] == "two")
    ran = run(program(folder, "y = mb.Tensor(1.0) + 1\nsys.exit(3)"), partial=True)
    assert (ran.stopped, ran.failed, names(ran)[-1]) == (3, None, "y")


def test_a_failure_does_not_keep_the_program_alive(folder):
    text = """
class Big: pass
def f():
    big = sys.big = Big()
    y = mb.Tensor(1.0) + 1
    1 / 0
"""
    ran = partial(program(folder, text) + ":f")
    alive = weakref.ref(sys.big)
    del sys.big
    gc.collect()
    assert alive() is None
    assert outputs(ran) == ["y"]


def test_a_run_that_is_not_partial_keeps_nothing_that_was_dropped(folder):
    text = """
import weakref
def f():
    sys.dropped = weakref.ref(mb.Tensor(1.0) + 1)
    return mb.Tensor(1.0) + 2
"""
    ran = run(program(folder, text) + ":f")
    dropped = sys.dropped
    del sys.dropped
    gc.collect()
    assert dropped() is None
    assert outputs(ran) == [None]
