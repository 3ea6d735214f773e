"""`microbn step`, used as its users use it."""

import subprocess
import sys

import pytest

import microbn as mb
from microbn import cli
from microbn.terminal import show

NEURON = """
import numpy as np, microbn as mb
x = mb.Tensor([2.0, 0.5])
w = mb.Tensor([-3.0, 1.0], requires_grad=True)
s = np.sum(x * w)
out = np.tanh(s)
"""
BROKEN = """
import numpy as np, microbn as mb
x = mb.Tensor(np.ones((4, 3)))
w = mb.Tensor(np.ones((4, 2)), requires_grad=True)
h = x * 2
y = h @ w
"""
LOGARITHM = """
import numpy as np, microbn as mb
np.seterr(all="ignore")
p = mb.Tensor([0.5, 0.0], requires_grad=True)
logp = np.log(p)
loss = (p * logp).sum()
"""


@pytest.fixture
def step(tmp_path, monkeypatch, capfd):
    """Run `microbn step` on a program; return its exit code, what it prints, and on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(program, *options, name="program.py"):
        (tmp_path / name.partition(":")[0]).write_text(program, encoding="utf-8")
        status = cli.main(["step", name, *map(str, options)])
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return run


def test_what_goes_into_a_pipe_is_every_step_with_its_line(step):
    status, out, err = step(NEURON)
    assert (status, err) == (0, "")
    steps = len(mb.steps(traced(NEURON)))
    assert [f"[{k}/{steps - 1}]" in out for k in range(steps)] == [True] * steps
    assert "out = tanh(s)" in out
    assert "program.py:6  out = np.tanh(s)" in out
    assert "d w = d(x × w) × x" in out


def traced(text):
    with mb.tracing() as trace:
        exec(text, {})
    return trace


def test_it_is_the_same_every_time(step):
    assert step(NEURON) == step(NEURON)


def test_html_is_a_page_that_holds_it_all(step, tmp_path):
    status, out, err = step(NEURON, "--html", "neuron.html")
    assert (status, err) == (0, "")
    assert out.strip() == "9 steps through program.py, saved as neuron.html"
    text = (tmp_path / "neuron.html").read_text("utf-8")
    assert "out = np.tanh(s)" in text
    assert str(tmp_path) not in text


def test_open_shows_the_page_under_the_name_of_the_program(step, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(cli.webbrowser, "open", opened.append)
    assert step(NEURON, "--open")[0] == 0
    assert opened == [(tmp_path / "program.html").as_uri()]
    assert (tmp_path / "program.html").exists()


@pytest.mark.parametrize(("place", "said"), [("there/x.html", "no folder"), (".", "is a folder")])
def test_a_page_that_cannot_be_written_is_told_before_the_program_runs(step, place, said):
    status, _out, err = step("raise SystemExit('ran')", "--html", place)
    assert status == 2
    assert said in err
    assert "Traceback" not in err


def test_until_begins_at_the_first_step_that_meets_it(step):
    status, out, err = step(LOGARITHM, "--until", "nonfinite")
    assert (status, err) == (0, "")
    assert out.startswith("[1/")
    assert "logp = log(p)" in out
    assert "program.py:5  logp = np.log(p)" in out
    assert "-inf" in out
    assert out.count("FORWARD") == 1

    status, out, err = step(LOGARITHM, "--until", "d p")
    assert out.count("BACKWARD") == 1
    assert "d p" in out


@pytest.mark.parametrize(
    ("until", "said"),
    [
        ("max > 1000", "no step of 9 is one where max > 1000 holds"),
        ("ou", "nothing is called 'ou'; the names are: out"),
        ("max > many", "'many' in 'max > many' is no number"),
    ],
)
def test_a_condition_that_no_step_meets_or_nobody_can_read_is_an_error(step, until, said):
    status, out, err = step(NEURON, "--until", until)
    assert (status, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_program_that_fails_is_shown_up_to_there(step):
    status, out, err = step(BROKEN)
    assert status == 1
    assert "h = x × 2" in out
    assert "ERROR" in out
    assert "ShapeError" in out
    assert "w (4, 2)" in " ".join(out.split())
    assert "program.py:6  y = h @ w" in out
    assert err.startswith("microbn step: error: program.py failed:\n\nTraceback")
    assert "backward" not in out.lower()


def error_step(out):
    """Return the tables that are shown at the step that failed: captions, shapes and numbers."""
    return out[out.index("ERROR") :].split("\n\n")[1]


@pytest.mark.parametrize("requires_grad", [True, False])
def test_the_operands_of_a_first_call_that_fails_are_shown(step, requires_grad):
    """Nothing was computed before it, and neither is in the graph of anything."""
    program = f"""
import numpy as np, microbn as mb
x = mb.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad={requires_grad})
w = mb.Tensor([5.0, 6.0, 7.0])
y = x @ w
"""
    status, out, err = step(program)
    assert status == 1
    assert err.startswith("microbn step: error: program.py failed:\n\nTraceback")
    assert "What is given: x and w.\n" in out
    shown = error_step(out)
    captions, _shapes, *numbers = shown.splitlines()
    assert captions.split() == ["x", "w"]
    assert " ".join(numbers).replace(",", "").split() == "1 2 5 6 7 3 4".split()


def test_operands_of_a_call_that_fails_have_their_names_whatever_they_are(step):
    program = """
import numpy as np, microbn as mb
x = mb.Tensor([1.0, 2.0], requires_grad=True)
y = (x * 3) + np.array([10.0, 20.0, 30.0])
"""
    shown = error_step(step(program)[1])
    assert shown.startswith("  x × 3")
    assert shown.splitlines()[-1].replace(",", "").split() == "3 6 10 20 30".split()
    used_before = """
import numpy as np, microbn as mb
def f():
    x = mb.Tensor([1.0, 2.0], requires_grad=True)
    h = x * 3
    y = h + 1
    return h @ mb.Tensor([[1.0, 2.0, 3.0]], name="w")
"""
    out = step(used_before, name="program.py:f")[1]
    assert error_step(out).split()[:2] == ["h", "w"]
    assert "y = h + 1" in out


def test_the_page_of_a_program_that_fails_says_so(step, tmp_path):
    status, _out, _err = step(BROKEN, "--html", "broken.html")
    assert status == 1
    assert "ShapeError: matmul(h" in (tmp_path / "broken.html").read_text("utf-8")


def test_a_function_and_a_variable_can_be_named(step):
    program = NEURON + "\ndef f():\n    return (w * w).sum()\n"
    assert "w²" in step(program + "v = (w**2).sum()\nu = v + 1\n", name="program.py:v")[1]
    assert "w × w" in step(program, name="program.py:f")[1]


def test_arguments_for_the_program_follow_two_hyphens(step):
    program = "import sys, microbn as mb\nx = mb.Tensor(float(sys.argv[1])).named('x')\ny = x * 2"
    assert "=  21\n" in step(program, "--", "10.5")[1]


@pytest.mark.parametrize("text", ["print('nothing')", "1 +"])
def test_nothing_to_step_through_is_an_error(step, text):
    status, _out, err = step(text)
    assert status == 1
    assert "program.py" in err


def test_results_that_need_no_gradient_have_no_way_back(step):
    status, out, _err = step("import microbn as mb\nx = mb.Tensor(2.0)\ny = x * x")
    assert status == 0
    assert "no backward pass" in out
    assert "BACKWARD" not in out


def test_it_is_a_command_of_its_own_process(tmp_path):
    (tmp_path / "neuron.py").write_text(NEURON)
    done = subprocess.run(
        [sys.executable, "-m", "microbn", "step", "neuron.py"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "d w" in done.stdout


# From Python -------------------------------------------------------------------------------------


def test_step_prints_the_steps_where_there_is_no_terminal(capsys):
    x = mb.Tensor(3.0, requires_grad=True)
    square = x * x
    mb.step(square)
    printed = capsys.readouterr().out
    assert "square = x × x" in printed
    assert "d x += d square × x" in printed


def test_step_shows_the_page_in_a_notebook(monkeypatch):
    class Shell:
        kernel = object()

    shown = []
    display = type(sys)("IPython.display")
    display.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(show.builtins, "get_ipython", Shell, raising=False)
    mb.step(mb.Tensor(3.0, requires_grad=True) * 2)
    (walk,) = shown
    frame = walk._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts"')
    assert 'srcdoc="&lt;!DOCTYPE html&gt;' in frame


def test_step_refuses_a_condition_that_no_step_meets():
    x = mb.Tensor(3.0, requires_grad=True, name="x")
    with pytest.raises(ValueError, match="no step of 5 is one where isnan holds"):
        mb.step(x * 2, until="isnan")


@pytest.mark.parametrize("function", [mb.step, mb.steps])
def test_what_cannot_be_stepped_through_is_refused(function):
    with pytest.raises(TypeError, match=r"takes a Tensor, a Trace or a Graph, not \[1, 2\]"):
        function([1, 2])


LOOP = """
import numpy as np, microbn as mb
np.seterr(all="ignore")
w = mb.Tensor(4.0, requires_grad=True)
for turn in range(4):
    root = np.sqrt(w - turn * 3.0 if turn < 3 else w)
    loss = root * 2
"""


def test_until_finds_what_an_earlier_round_of_a_loop_made(step):
    status, out, _err = step(LOOP, "--until", "isnan")
    assert status == 0
    assert "program.py:6  root = np.sqrt" in out
    assert "nan" in out
    assert "sqrt" in out or "√" in out


def test_until_tells_what_was_not_finite_from_the_first(step):
    text = "import numpy as np, microbn as mb\nw = mb.Tensor([np.nan, 1.0])\ny = w * 2"
    _, out, _ = step(text, "--until", "nonfinite")
    assert out.startswith("[0/")
    assert "w is not finite as it is given" in " ".join(out.split())
