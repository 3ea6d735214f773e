"""The examples run by themselves, and what they print is so.

Each runs as a process of its own in an empty folder. The numbers that it prints are compared with
computations that do not use microbn: NumPy alone, finite differences, values by hand.
"""

import ast
import functools
import io
import itertools
import re
import tempfile
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from lessonrun import files_in, run_example

from microbn.program import run as run_traced

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "examples").glob("0[1-8]_*.py"))
NAMES = [file.stem for file in FILES]
DIGITS = (
    "08_digits"  # trains a network, with the option --quick; the others are to be stepped through
)
STEPPED = [name for name in NAMES if name != DIGITS]
STUDENTS = np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]])
CGPA = STUDENTS[:, 0]
SLOPE = "07_second_derivative.py:slope"  # as the README has it
COMING = np.array([0.0, 0.0, 9.0, 0.0])  # what comes to x_hat in the fifth and sixth example


def run(name, folder):
    """Run an example in a folder; return its text and its files."""
    return run_example(name, folder, *["--quick"] * (name == DIGITS)), files_in(folder)


@functools.cache
def example(name):
    """Run an example once, however many tests look at it."""
    with tempfile.TemporaryDirectory() as folder:
        return run(name, folder)


def untimed(text):
    """Return what an example prints without the lines that say how long something took."""
    return re.sub(r"^time .*\n", "", text, flags=re.M)


def printed(text, label):
    """Return the number or the array that follows ``label``, which the text has once."""
    assert text.count(label) == 1, f"{label!r} is there {text.count(label)} times in\n{text}"
    after = text.split(label)[1].lstrip()
    if not after.startswith("["):
        return float(re.match(r"[-+.\de]+", after).group().rstrip("."))
    end = "]]" if after.startswith("[[") else "]"
    rows = after.split(end)[0].replace("[", "").split("]")
    array = np.array([[float(number) for number in row.split()] for row in rows])
    return array if end == "]]" else array[0]


def close(found, wanted, tolerance=1e-6):
    """Compare printed numbers, which have six digits after the point."""
    assert np.shape(found) == np.shape(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def slope(function, at, h=1e-5):
    """Return the gradient of a function of an array, by central differences."""
    at = np.asarray(at, float)
    units = np.eye(at.size).reshape(at.size, *at.shape)
    steps = [(function(at + h * unit) - function(at - h * unit)) / (2 * h) for unit in units]
    return np.reshape(steps, at.shape)


def normalised(x, eps=1.0):
    """Batch norm of each column, by NumPy's own mean and variance."""
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)


def docstring(name):
    """Return the docstring of an example, which is not run for it."""
    return ast.get_docstring(ast.parse((ROOT / "examples" / f"{name}.py").read_text("utf-8")))


# All of them -------------------------------------------------------------------------------------


def test_they_are_numbered_and_the_readme_has_each():
    assert [int(name[:2]) for name in NAMES] == [1, 2, 3, 4, 5, 6, 7, 8]
    text = (ROOT / "examples" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| \[(\w+\.py)\]\((\w+\.py)\) \| (.*?) \| (.*?) \|$", text, re.M)
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row[1] for row in rows] == [row[2] for row in rows] == [file.name for file in FILES]
    assert f"`microbn step examples/{SLOPE}`" in text
    questions = [docstring(name).splitlines()[0] for name in NAMES]
    assert [row[3] for row in rows] == questions


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_and_begins_with_its_question(name):
    source = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
    assert len(source.splitlines()) < (100 if name == DIGITS else 80)
    question, *rest = docstring(name).splitlines()
    assert question.endswith("?")
    assert re.search(r"\bLook\b", " ".join(rest))


@pytest.mark.parametrize("name", STEPPED)
def test_it_writes_its_page_and_its_picture_and_says_so(name):
    text, files = example(name)
    page, picture = f"{name}.html", f"{name}.svg"
    assert sorted(files) == [page, picture]
    assert files[page].lstrip()[:14].lower() == b"<!doctype html"
    assert ElementTree.fromstring(files[picture]).tag == "{http://www.w3.org/2000/svg}svg"
    *_, first, second = text.splitlines()
    assert page in first
    assert picture in second


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_the_same_bytes_each_time_and_no_path_of_this_machine(name, tmp_path):
    text, files = run(name, tmp_path)
    assert (untimed(text), files) == (untimed(example(name)[0]), example(name)[1])
    assert text.isascii()  # so that any screen can show it
    for content in (text.encode(), *files.values()):
        assert str(ROOT).encode() not in content
        assert str(tmp_path).encode() not in content


LAST = ("loss", "out", "loss", "y", "x_hat", "y", "g")  # what `microbn step` goes through


@pytest.mark.parametrize(
    ("target", "result"),
    [*((f"{n}.py", last) for n, last in zip(STEPPED, LAST, strict=True)), (SLOPE, "slope")],
)
def test_stepping_through_it_takes_its_own_last_result(target, result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trace = run_traced(f"{ROOT / 'examples' / target}").trace
    (output,) = trace.outputs
    assert trace.graph.nodes[-1].title == result
    assert output.grad is not None  # backward starts where it does in the program


def by_hand(text):
    """Yield the computations that are written out in numbers, and what stands after their =."""
    for line in text.splitlines():
        for before, after in itertools.pairwise(line.split(" = ")):
            written = re.search(r"[-\[(\d][-\[\]()\d\s.,+*/]*$", before)
            result = re.match(r" *(\[[^\]]+\]|-?[\d.]*\d)", after)
            if written and result and re.search(r"\d [-+*/] ", written[0]):
                yield written[0], np.array(result[1].strip("[]").split(), float)


COMPUTATIONS = {1: 9, 2: 7, 3: 4, 4: 1, 5: 6, 6: 0, 7: 4}


@pytest.mark.parametrize("name", STEPPED)
def test_what_is_computed_by_hand_gives_what_is_printed(name):
    found = list(by_hand(example(name)[0]))
    assert len(found) == COMPUTATIONS[int(name[:2])], found
    for written, result in found:
        value = eval(compile(written.strip(), name, "eval"), {"__builtins__": {}})
        close(np.atleast_1d(value), result, tolerance=1e-3)  # for what is written is rounded


# One by one --------------------------------------------------------------------------------------


def test_scalar():
    text, _ = example("01_scalar")

    def loss(ab):
        return (ab[0] * ab[1] + 10) * ab[0] * ab[1]

    assert printed(text, "= 2 * -3 =") == -6
    assert printed(text, "= -6 + 10 =") == 4
    assert printed(text, "= 4 * -6 =") == loss([2, -3]) == -24
    da, db = slope(loss, [2, -3])
    dp = slope(lambda p: (p + 10) * p, -6.0)
    assert printed(text, "= -6 * 1 =") == -6
    close(printed(text, "= 4 * 1 + -6 ="), dp)
    close(printed(text, "= -3 * -2 ="), da)
    close(printed(text, "= 2 * -2 ="), db)
    found = re.findall(r"(?:a|b): \((.+) - (.+)\) / 0.002 = (.+)", text)
    close(np.array(found, float)[:, 2], np.array([da, db]))
    for up, down, result in np.array(found, float):
        close((up - down) / 0.002, result, tolerance=1e-3)  # of printed numbers


def test_neuron():
    text, _ = example("02_neuron")
    x, w, b = np.array([2.0, 0.5]), np.array([-3.0, 1.0]), 5.5 + np.log(2)

    def out(x=x, w=w, b=b):
        return np.tanh(x @ w + b)

    close(printed(text, "products = x * w ="), x * w)
    close(printed(text, "-6 + 0.5 ="), -5.5)
    close(printed(text, "-5.5 + 5.5 + ln 2 ="), np.log(2))
    close(printed(text, "tanh(ln 2) ="), 0.6)
    db = slope(lambda b: out(b=b), b)
    close(printed(text, "1 - 0.36 ="), db)
    close(printed(text, "d b        = d s ="), db)
    close(printed(text, "d total    = d s ="), db)
    close(printed(text, "\n  d products ="), np.array([db, db]))
    dw = slope(lambda w: out(w=w), w)
    close(printed(text, "[2 * 0.64, 0.5 * 0.64] ="), dw)
    close(printed(text, "[-3 * 0.64, 1 * 0.64] ="), slope(lambda x: out(x=x), x))
    close(printed(text, "[-3 - 0.0128, 1 - 0.0032] ="), w - 0.01 * dw)
    close(printed(text, "(1.28**2 + 0.32**2) ="), -0.01 * 0.64**2 * (2**2 + 0.5**2))
    close(printed(text, "does change by"), out(w=w - 0.01 * dw))
    close(printed(text, "- 0.6 ="), out(w=w - 0.01 * dw) - out())

    found = re.search(r"a hundredth of what it was:\n *(\S+) and (\S+)", text)
    predicted, happened = found.groups()
    close(float(predicted), -0.001 * 0.64**2 * (2**2 + 0.5**2), tolerance=1e-8)
    close(float(happened), out(w=w - 0.001 * dw) - out(), tolerance=1e-8)
    gap = printed(text, "(1.28**2 + 0.32**2) =") - printed(text, "- 0.6 =")
    assert 0.009 < (float(predicted) - float(happened)) / gap < 0.011


def test_broadcasting():
    text, _ = example("03_broadcasting")
    x, w, b = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([10.0, 20]), np.array([1.0, 2])
    importance = np.array([[1.0], [2], [4]])

    def loss(w=w, b=b, importance=importance):
        return sum(importance[i, 0] * (x[i, j] * w[j] + b[j]) for i in range(3) for j in (0, 1))

    y = np.array([[x[i, j] * w[j] + b[j] for j in (0, 1)] for i in range(3)])
    close(printed(text, "y = x * w + b\n"), y)
    close(printed(text, "weighted = y * importance\n"), y * importance)
    assert printed(text, "+ 204 + 488 =") == loss() == 971
    close(printed(text, "of its example\n"), np.column_stack([importance, importance]))
    close(printed(text, "[1 + 2 + 4, 1 + 2 + 4] ="), slope(lambda b: loss(b=b), b))
    close(printed(text, "2*1 + 4*2 + 6*4] ="), slope(lambda w: loss(w=w), w))
    dimportance = slope(lambda i: loss(importance=i), importance)
    close(printed(text, "[51 + 122]] =\n"), dimportance)
    for name, shape in {"w": "(2,)", "b": "(2,)", "importance": "(3, 1)"}.items():
        assert f"{name} has shape {shape}, d {name} has shape {shape}\n" in text
    close(printed(text, "all share b[0]\n"), np.array([[1.0, 0]] * 3))
    assert printed(text, "in the loss: 978 - 971 =") == loss(b=b + np.array([1, 0])) - loss()


def test_batch_norm():
    text, _ = example("04_batch_norm")
    mean, var, x_hat = STUDENTS.mean(axis=0), STUDENTS.var(axis=0), normalised(STUDENTS, 1e-5)
    y = x_hat * [1, 2] + [0, 3]
    close(printed(text, "cgpa and iq\n"), STUDENTS)
    close(printed(text, "90 + 60) / 4] ="), mean)
    close(printed(text, "centered = x - mean\n"), STUDENTS - mean)
    close(printed(text, "100 times that] ="), var)
    close(printed(text, "sqrt(125.00001)] ="), np.sqrt(var + 1e-5))
    close(printed(text, "1.5 / 1.118 is 1.342\n"), x_hat)
    close(printed(text, "y = [1, 2] * x_hat + [0, 3]\n"), y)
    close(printed(text, "mean of x_hat"), np.zeros(2))
    close(printed(text, "its variance"), x_hat.var(axis=0), tolerance=1e-8)
    close(printed(text, "by hand ["), 1.25 / 1.25001, tolerance=1e-8)
    close(printed(text, "mean of y"), np.array([0.0, 3]))
    close(printed(text, "its std"), y.std(axis=0))
    assert "mb.batch_norm gives the same, to the last bit: True\n" in text


def test_backward():
    text, _ = example("05_backward")
    assert "mean 7.5, var 1.25, std 1.5, centered [-0.5  0.5  1.5 -1.5]\n" in text
    inv_std = 1 / np.sqrt(CGPA.var() + 1)
    centered = CGPA - CGPA.mean()
    dvar = slope(lambda var: COMING @ centered / np.sqrt(var + 1), CGPA.var())
    close(printed(text, "9 * 1.5 ="), COMING @ centered)
    close(printed(text, "-13.5 / 2.25 ="), slope(lambda std: COMING @ centered / std, 1.5))
    close(printed(text, "-6 / 3 ="), dvar)

    # One route lets x through in one place of the formula, and holds the others.
    def loss(x, mean, var, mean_in_var=None):
        if mean_in_var is not None:
            var = ((CGPA - mean_in_var) ** 2).mean()
        return COMING @ (x - mean) / np.sqrt(var + 1)

    mean, var = CGPA.mean(), CGPA.var()
    routes = {
        "x_hat -> centered -> x\n": lambda x: loss(x, mean, var),
        "x_hat -> centered -> mean -> x\n": lambda x: loss(CGPA, x.mean(), var),
        "squared -> centered -> x\n": lambda x: loss(CGPA, mean, ((x - mean) ** 2).mean()),
        "squared -> centered -> mean -> x\n": lambda x: loss(CGPA, mean, var, x.mean()),
    }
    parts = [slope(route, CGPA) for route in routes.values()]
    for label, part in zip(routes, parts, strict=True):
        close(printed(text, label), part)
    assert np.abs(parts[3]).max() < 1e-9
    close(parts[0], COMING * inv_std)

    dx = slope(lambda x: COMING @ normalised(x), CGPA)
    for label in ("Their sum", "x.grad", "in plain NumPy:"):
        close(printed(text, label), dx)
        close(printed(text, label), sum(parts))
    assert printed(text, "-0.5 + 0.5 + 1.5 - 1.5 =") == 0
    assert "1 null path" in text
    assert (
        "var -> squared -> centered -> mean: what flows along it is a multiple of centered" in text
    )

    by_mean, directly = abs(parts[1] + parts[3]).sum(), abs(parts[0] + parts[2]).sum()
    close(printed(text, "4 * 1.5 ="), by_mean)
    close(printed(text, "0.5 + 0.5 + 4.5 + 1.5 ="), directly)
    assert f"6 + 7, that is {100 * by_mean / (by_mean + directly):.1f} %\n" in text


def test_the_picture_of_backward_shows_the_share_and_the_route_that_brings_nothing():
    picture = example("05_backward")[1]["05_backward.svg"].decode()
    assert "46.2 %" in picture
    assert "Contributes nothing: var → squared → centered → mean" in " ".join(
        ElementTree.fromstring(picture).itertext()
    )


def stages(text, part):
    """Return verdict, expected and found of each stage in a part of the sixth example."""
    body = text.split(f"\n{part}. " if part > 1 else f"{part}. ")[1].split("\n\n")[0]
    pattern = r"^d (\w+) +(ok|origin|inherited) .*\] +(\S+) +(\S+) +\S+$"
    rows = re.findall(pattern, body, re.M)
    return {name: (verdict, float(a), float(b)) for name, verdict, a, b in rows}


def test_by_hand():
    text, _ = example("06_by_hand")
    centered, std = CGPA - CGPA.mean(), 1.5
    right = stages(text, 1)
    assert len(right) == 12
    assert all(verdict == "ok" and a == b for verdict, a, b in right.values())
    assert [right[name][2] for name in ("inv_std", "std", "var", "mean")] == [13.5, -6, -2, -6]

    dx = slope(lambda x: (9 * normalised(x) + 1)[2], CGPA)
    for name in ("microbn  d x", "above    d x", "staged   d x", "paper    d x", "closed   d x"):
        close(printed(text, name), dx)
    assert text.count(", d gamma [1.], d beta [1.]\n") == 5  # the third x_hat, and 1
    assert normalised(CGPA)[2] == 1

    wrong = stages(text, 3)
    verdicts = {name: verdict for name, (verdict, _, _) in wrong.items()}
    assert [name for name in verdicts if verdicts[name] == "origin"] == ["var_eps"]
    inherited = {name for name in verdicts if verdicts[name] == "inherited"}
    assert inherited == {"var", "squared", "centered", "x"}
    dvar = 2 * slope(lambda var: COMING @ centered / np.sqrt(var + 1), CGPA.var())
    close(wrong["var_eps"][2], dvar)
    dcentered = COMING / std + dvar * 2 * centered / 4
    close(wrong["x"][2], (dcentered - dcentered.mean())[2])
    close(wrong["mean"][2], -dcentered.sum())  # right all the same
    message = " ".join(text.split("\n\nThe same from d x alone")[1].split())
    assert "d x is wrong: at [2, 0] it is 1.5, and should be 3." in message
    assert (
        "The path through var counts twice. Usual causes: the 1/2 of d sqrt(var_eps) lost"
        in message
    )


def test_newton():
    text, _ = example("07_second_derivative")
    x = Fraction(4)
    assert printed(text, "64 - 48 =") == x**3 - 12 * x
    assert printed(text, "3 * 16 - 12 =") == 3 * x**2 - 12
    assert printed(text, "6 * 4 =") == 6 * x
    row = r"f' +(\S+) +f'' +(\S+) +next x +(\S+) +by hand +(\S+)"
    rows = np.array(re.findall(row, text), float)
    assert len(rows) == 5
    for first, second, found, by_hand in rows:
        close([first, second], [float(3 * x**2 - 12), float(6 * x)], tolerance=1e-9)
        x = (x + 4 / x) / 2
        close([found, by_hand], [float(x)] * 2, tolerance=1e-9)
    assert abs(x - 2) < 1e-12


def test_hessian():
    text, _ = example("07_second_derivative")
    v = np.array([1.0, 2, 0, -1])

    def gradient(x):
        """The closed form, times 54 / 9."""
        x_hat, std = normalised(x), np.sqrt(x.var() + 1)
        return 6 * (COMING - COMING.mean() - x_hat * (COMING @ x_hat) / 4) / std

    close(printed(text, "\ng    "), gradient(CGPA))
    close(printed(text, "\nv    "), v)
    units = np.eye(4)
    h = 1e-4
    columns = [(gradient(CGPA + h * u) - gradient(CGPA - h * u)) / (2 * h) for u in units]
    hessian = printed(text, "for each entry of g\n")
    close(hessian, np.array(columns).T)
    close(hessian, hessian.T)
    close(printed(text, "of its rows are"), np.zeros(4))
    close(printed(text, "\nH v  "), hessian @ v)
    by_differences = (gradient(CGPA + 0.001 * v) - gradient(CGPA - 0.001 * v)) / 0.002
    close(printed(text, "by g.backward(v)\n"), by_differences)
    close(printed(text, "3 * 0 + 1 * -1 ="), hessian[0] @ v)


def digits_to_test_on():
    """Return the images and their labels from the file itself."""
    with np.load(ROOT / "microbn" / "data" / "digits.npz") as stored:
        test = stored["test"]
        return stored["images"][test].reshape(-1, 1, 8, 8) / 16, stored["labels"][test]


def reads(state, x, training=False):
    """Compute the network of the eighth example in NumPy, from what it saved."""

    def norm(x, at):
        over = (0, 2, 3)[: x.ndim - 1]
        mean, var = (state[f"{at}.{name}"] for name in ("running_mean", "running_var"))
        mean, var = (x.mean(over), x.var(over)) if training else (mean, var)
        scale = state[f"{at}.weight"] / np.sqrt(var + 1e-5)
        shift = state[f"{at}.bias"] - mean * scale
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        return np.maximum(x * scale.reshape(per_channel) + shift.reshape(per_channel), 0)

    def conv(x, at):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        y = np.tensordot(windows, state[f"{at}.weight"], axes=((1, 4, 5), (1, 2, 3)))
        return np.moveaxis(y + state[f"{at}.bias"], 3, 1)

    def pool(x):
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))

    def linear(x, at):
        return x @ state[f"{at}.weight"].T + state[f"{at}.bias"]

    x = pool(norm(conv(norm(conv(x, 0), 1), 3), 4))
    x = pool(norm(conv(x, 7), 8)).reshape(len(x), -1)
    return linear(norm(linear(x, 12), 13), 15)


def test_digits():
    text, files = example(DIGITS)
    assert sorted(files) == [f"{DIGITS}.npz", f"{DIGITS}.svg"]
    assert all(file in text.splitlines()[-2 + i] for i, file in enumerate(sorted(files)))
    with np.load(io.BytesIO(files[f"{DIGITS}.npz"])) as stored:
        state = {name: np.asarray(stored[name], np.float64) for name in stored.files}
    assert text.startswith("1442 images to train on, 355 to test on\n")

    x, y = digits_to_test_on()
    outputs = reads(state, x)
    right = np.sum(outputs.argmax(axis=1) == y)
    in_use = np.array(re.findall(r"^batches of (1|355) +(\d+) of 355, ", text, re.M), int)
    assert in_use[:, 0].tolist() == [1, 355, 355]  # the last time folded
    assert (in_use[:, 1] == in_use[0, 1]).all()
    assert abs(in_use[0, 1] - right) <= 1  # for the example computes in float32
    assert right / 355 > 0.9
    close(printed(text, "outputs          up to"), np.abs(outputs).max(), tolerance=0.01)
    assert 0 < printed(text, ", at most ") < 1e-4

    by_digit = np.argsort(y, kind="stable")
    whole = np.arange(355)
    for label, size, order in (
        ("\nbatches of 2 ", 2, whole),
        ("\nbatches of 8 ", 8, whole),
        ("  of one digit ", 8, by_digit),
    ):
        order = order[: 355 // size * size]
        guesses = [
            reads(state, x[rows], training=True).argmax(axis=1) for rows in order.reshape(-1, size)
        ]
        found = np.sum(np.concatenate(guesses) == y[order])
        assert abs(printed(text, label) - found) <= 3
        line = text.split(label)[1].splitlines()[0]
        assert line.endswith(f" of {len(order)}, {100 * printed(text, label) / len(order):.2f} %")
    assert printed(text, "  of one digit ") < 0.5 * printed(text, "\nbatches of 8 ")
    refusal = " ".join(text.split("\nbatches of 1     ")[1].split("\nbatches")[0].split())
    assert refusal.startswith("refused: BatchNorm1d(64, ")
    assert "1 value per channel has no variance to normalise by." in refusal

    assert len(re.findall(r"^time of one +[\d.]+ ms instead of [\d.]+, ", text, re.M)) == 1
    picture = " ".join(ElementTree.fromstring(files[f"{DIGITS}.svg"]).itertext())
    assert [picture.count(f"{name} (") for name in ("Conv2d", "BatchNorm2d", "Linear")] == [3, 3, 2]
