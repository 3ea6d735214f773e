"""The command `microbn`, used as its users use it: what it shows, and what it says when wrong."""

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import cli, demo, handwritten
from microbn.data import digits, students
from microbn.graph.layout import LayoutError

ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
} | {"PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}  # threads only hinder so small a network
COMMAND = [sys.executable, "-m", "microbn"]
posix = pytest.mark.skipif(os.name != "posix", reason="only POSIX sends signals and has ptys")


def microbn(*args, **environment):
    """Run the command in a process of its own, with its output going into a pipe."""
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def call(*args):
    """Run the command in this process, and return its exit code."""
    try:
        return cli.main([*map(str, args)])
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What `microbn demo` prints, in short: two epochs, seed 3."""
    out = tmp_path_factory.mktemp("a folder") / "of pictures"
    done = microbn("demo", "--epochs", 2, "--seed", 3, "--out", out)
    assert done.returncode == 0
    assert done.stderr == ""
    return done.stdout, out


def section(text, number):
    """Return the lines of a section, without its heading."""
    parts = re.split(r"^\d\. .*\n", text, flags=re.MULTILINE)
    assert len(parts) == 6
    return parts[number].splitlines()


def table(lines):
    """Return the rows below a table's rule, split into cells at two or more spaces."""
    start = next(i for i, line in enumerate(lines) if "──" in line)
    return [re.split(r"\s{2,}", line.strip()) for line in lines[start + 1 :] if line.strip()]


# What it shows -----------------------------------------------------------------------------------


def stages(lines):
    """Read the table of stages: name -> (op, inputs, shape, values)."""
    found = {}
    for line in lines[next(i for i, line in enumerate(lines) if "──" in line) + 1 :]:
        head, _, values = line.partition("[")
        if not values:
            continue
        if head[1] != " ":  # else the row goes on
            name, op, inputs, shape = re.split(r"\s{2,}", head.strip(), maxsplit=3)
            found[name] = op, inputs, shape, []
        found[name][3].append([float(number) for number in values.strip(" ]").split()])
    return found


def test_every_stage_of_the_four_students_is_shown_as_computed_by_hand(shown):
    found = stages(section(shown[0], 1))
    assert [(name, *row[:3]) for name, row in found.items()] == [
        ("x", "leaf", "input", "(4, 2)"),
        ("gamma", "leaf", "parameter", "(2,)"),
        ("beta", "leaf", "parameter", "(2,)"),
        ("mean", "mean", "x", "(2,)"),
        ("centered", "sub", "x, mean", "(4, 2)"),
        ("squared", "pow", "centered, 2", "(4, 2)"),
        ("var", "mean", "squared", "(2,)"),
        ("var_eps", "add", "var, 1e-05", "(2,)"),
        ("std", "sqrt", "var_eps", "(2,)"),
        ("inv_std", "pow", "std, -1", "(2,)"),
        ("x_hat", "mul", "centered, inv_std", "(4, 2)"),
        ("scaled", "mul", "x_hat, gamma", "(4, 2)"),
        ("y", "add", "scaled, beta", "(4, 2)"),
    ]
    steps = np.array([-0.5, 0.5, 1.5, -1.5])  # from the mean, in points of cgpa
    s, t = 1.25001**0.5, 125.00001**0.5
    by_hand = {
        "x": [[7, 70], [8, 80], [9, 90], [6, 60]],
        "gamma": [[1, 2]],
        "beta": [[0, 3]],
        "mean": [[7.5, 75]],
        "centered": np.outer(steps, [1, 10]),
        "squared": [[0.25, 25], [0.25, 25], [2.25, 225], [2.25, 225]],
        "var": [[1.25, 125]],
        "var_eps": [[1.25001, 125.00001]],
        "std": [[s, t]],
        "inv_std": [[1 / s, 1 / t]],
        "x_hat": np.outer(steps, [1 / s, 10 / t]),
        "scaled": np.outer(steps, [1 / s, 20 / t]),
        "y": np.outer(steps, [1 / s, 20 / t]) + np.array([0, 3]),
    }
    for name, values in by_hand.items():
        assert_allclose(found[name][3], values, rtol=0, atol=0.6e-5, err_msg=name)


def test_the_gradients_shown_are_those_derived_by_hand(shown):
    rows = table(section(shown[0], 2))
    assert [row[0] for row in rows] == ["dx", "dgamma", "dbeta"]
    for _, largest, *forms in rows:
        assert float(largest) > 0.01
        assert len(forms) == 3
        assert max(map(float, forms)) < 1e-12


@pytest.mark.parametrize("seed", range(10))
def test_the_comparison_is_one_of_numbers_that_matter(seed):
    for _, largest, forms in demo.differences(seed):
        assert largest > 1e-3
        assert max(forms) < 1e-13


def test_the_comparison_can_fail(monkeypatch):
    def forgets_the_variance(dy, cache):
        dx, dgamma, dbeta = handwritten.backward_closed(dy, cache)
        return dx + cache.gamma * cache.inv_std * cache.x_hat * dgamma / len(dy), dgamma, dbeta

    monkeypatch.setitem(demo.FORMS, "wrong", forgets_the_variance)
    dx, dgamma, dbeta = demo.differences(0)
    assert dx.forms[3] > 1e-2 > 1e-12 > max(dx.forms[:3])
    assert max(*dgamma.forms, *dbeta.forms) < 1e-12


def test_the_graph_is_saved_and_its_paths_are_printed_whole(shown):
    text, out = shown
    paths = [line.strip().rpartition("  (")[0] for line in section(text, 3) if line]
    assert paths == [str(out / "batch_norm.svg"), str(out / "batch_norm.dot")]
    names = {t.name for t in demo.stages(demo.students_through_batch_norm())}
    svg = ElementTree.parse(paths[0])
    labels = [node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    for name in names:
        assert any(f"{label} ".startswith(f"{name} ") for label in labels), name
    assert Path(paths[1]).read_text("utf-8").startswith("digraph")
    assert sorted(os.listdir(out)) == ["batch_norm.dot", "batch_norm.html", "batch_norm.svg"]


def test_it_ends_with_a_page_to_step_through_and_how_to_open_it(shown):
    text, out = shown
    page = out / "batch_norm.html"
    lines = section(text, 5)
    assert f"-m webbrowser {page}" in "\n".join(lines)
    assert "x_hat" in page.read_text("utf-8")


def test_the_digits_are_scored(shown):
    (with_bn, *numbers), (without, *others) = table(section(shown[0], 4))
    assert (with_bn, without) == ("with batch norm", "without")
    weights = 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    sizes = [int(row[0].replace(",", "")) for row in (numbers, others)]
    assert sizes == [weights + 4 * 128, weights]
    first, last = (float(cell.removesuffix(" %")) for cell in numbers[1:3])
    worse = float(others[2].removesuffix(" %"))
    assert 85 < first <= last < 100
    assert worse < last


def test_quiet_prints_the_same_results_alone(shown, tmp_path):
    done = microbn("demo", "--epochs", 2, "--seed", 3, "--quiet", "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    gradients, svg, dot, with_bn, without, page = done.stdout.splitlines()
    assert float(re.search(r"at most (\S+)", gradients)[1]) < 1e-12
    assert svg == f"graph: {tmp_path / 'batch_norm.svg'}"
    assert dot == f"graph: {tmp_path / 'batch_norm.dot'}"
    assert page == f"page: {tmp_path / 'batch_norm.html'}"
    for line, row in zip((with_bn, without), table(section(shown[0], 4)), strict=True):
        name, accuracy = re.fullmatch(r"digits (.*): (.* %), [\d.]+ s", line).groups()
        assert (name, accuracy) == (row[0], row[3])


def test_equal_seeds_print_equal_text_but_for_the_times(shown):
    text, out = shown
    again = microbn("demo", "--epochs", 2, "--seed", 3, "--out", out).stdout
    assert re.sub(r"[\d.]+ s", "", again).split() == re.sub(r"[\d.]+ s", "", text).split()


def test_both_networks_start_from_the_same_weights():
    def weights(batch_norm, seed):
        model = demo.network(batch_norm, seed)
        return [p.data for p in model.parameters() if p.ndim == 2]

    for a, b in zip(weights(True, 3), weights(False, 3), strict=True):
        assert_array_equal(a, b)
    assert (weights(True, 3)[0] != weights(True, 4)[0]).any()


def test_the_accuracies_are_those_that_the_readme_reports():
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    medians = {}
    for batch_norm, label in (True, "with batch norm"), (False, "without"):
        runs = [
            list(demo.train(demo.network(batch_norm, seed), digits(), seed, epochs=20))
            for seed in range(5)
        ]
        medians[batch_norm] = np.median(runs, axis=0)[[0, -1]]
        reported = re.search(rf"^\| {label} \| ([\d.]+) \| ([\d.]+) \|", readme, re.MULTILINE)
        # Other BLAS libraries round otherwise, and after hundreds of steps it shows.
        assert_allclose(medians[batch_norm], [float(n) for n in reported.groups()], atol=2)
    assert medians[True][1] >= 97
    assert medians[True][0] > medians[False][0] + 10


# Where it shows it -------------------------------------------------------------------------------


def test_a_pipe_gets_plain_text(shown):
    text, out = shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert max(len(line) for line in text.splitlines() if str(out) not in line) <= 80
    assert len(text.splitlines()) < 80


def test_sixty_columns_are_enough(tmp_path):
    text = microbn("demo", "--epochs", 1, "--out", tmp_path, COLUMNS="60").stdout
    assert "…" not in text
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 60
    assert_allclose(stages(section(text, 1))["var_eps"][3], [[1.25001, 125.00001]])


def test_a_terminal_without_boxes_gets_dashes(tmp_path):
    out = tmp_path / "Bilder für später"
    done = microbn("demo", "--epochs", 1, "--out", out, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "-----" in done.stdout


def test_a_reader_who_has_seen_enough_ends_it(tmp_path):
    args = [*COMMAND, "demo", "--epochs", "1", "--out", str(tmp_path)]
    with subprocess.Popen(
        args, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


def on_terminal(*args, until, **environment):
    """Run the command on a terminal, interrupt it once it shows ``until``: its code, its text."""
    import fcntl  # there are none of these on Windows
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *map(str, args)],
        env=ENVIRONMENT | {"TERM": "xterm-256color"} | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        text = b""
        try:
            while block := os.read(ours, 4096):
                text += block
                if until and until in text:
                    process.send_signal(signal.SIGINT)
                    until = b""
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(ours)
        return process.wait(timeout=60), text.decode()


@posix
def test_control_c_leaves_a_clean_terminal(tmp_path):
    code, text = on_terminal("demo", "--epochs", 500, "--out", tmp_path, until=b"/500")
    assert code == 130
    assert "Traceback" not in text
    assert text.endswith("\r\nmicrobn: interrupted\r\n")
    assert "\x1b[?25l" in text  # the cursor was hidden for the progress bar
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    last = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text[text.rindex("\x1b[?25h") :])
    assert last.split() == ["microbn:", "interrupted"]


@posix
def test_no_color_means_plain_text_on_a_terminal_too(tmp_path):
    code, text = on_terminal("demo", "--epochs", 1, "--out", tmp_path, until=b"", NO_COLOR="1")
    assert code == 0
    assert "\x1b" not in text
    assert "with batch norm" in text


@posix
def test_control_c_in_a_pipe(tmp_path):
    args = [*COMMAND, "demo", "--epochs", "500", "--out", str(tmp_path)]
    with subprocess.Popen(
        args, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while "4. Reading digits" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "microbn: interrupted\n"


# Options and mistakes ----------------------------------------------------------------------------


def test_the_command_is_installed():
    (script,) = entry_points(group="console_scripts", name="microbn")
    assert script.load() is cli.main


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option, capsys):
    assert call(option) == 0
    assert capsys.readouterr().out == f"microbn {mb.__version__}\n"


def test_help_is_what_one_gets_without_arguments():
    done, bare = microbn("--help"), microbn()
    assert (done.returncode, done.stderr) == (bare.returncode, bare.stderr) == (0, "")
    assert done.stdout == bare.stdout
    assert "demo" in bare.stdout


def test_help_of_the_demo_names_every_option_and_its_default(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert call("demo", "--help") == 0
    text = capsys.readouterr().out
    for word in "--seed N", "--epochs N", "--out DIR", "--quiet", "0)", "20)", "microbn-demo)":
        assert word in text
    assert max(map(len, text.splitlines())) <= 80


def test_help_of_draw_names_every_option_and_says_what_is_drawn(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert call("draw", "--help") == 0
    text = capsys.readouterr().out
    for word in "--limit N", "150)", "--out FILE", "--backward", "standard output", "-- --epochs 3":
        assert word in text
    assert "the result that was\ncomputed last" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["dmeo"], ["invalid choice", "'dmeo'", "demo"]),
        (["--sede"], ["there is no option --sede", "microbn --help"]),
        (["demo", "--sede", "3"], ["there is no option --sede", "microbn demo --help"]),
        (["demo", "--epoch", "3"], ["there is no option --epoch"]),  # no guessing
        (["demo", "digits"], ["there is no argument digits"]),
        (["demo", "--seed"], ["--seed", "expected one argument"]),
        (["demo", "--seed", "-1"], ["--seed", "a whole number, 0 or more, not '-1'"]),
        (["demo", "--seed", "1.5"], ["--seed", "'1.5'"]),
        (["demo", "--epochs", "0"], ["--epochs", "a whole number, 1 or more, not '0'"]),
        (["demo", "--epochs", "-3"], ["--epochs", "not '-3'"]),
        (["demo", "--epochs", "ten"], ["--epochs", "not 'ten'"]),
    ],
)
def test_a_wrong_option_gets_one_clear_line(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(*args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    for word in words:
        assert word in printed.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_cannot_be_is_refused_before_the_work_starts(below, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    done = microbn("demo", "--out", file / below)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "cannot write into" in done.stderr
    assert str(file / below) in done.stderr
    assert "Not a directory" in done.stderr


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch, capsys):
    def refuse(dir):  # root may write anywhere, so that chmod would prove nothing
        raise PermissionError(13, "Permission denied", f"{dir}/tmp123")

    monkeypatch.setattr(cli.tempfile, "TemporaryFile", refuse)
    assert call("demo", "--out", tmp_path) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"microbn demo: error: cannot write into {str(tmp_path)!r}: Permission denied\n"
    )


def test_a_picture_that_cannot_be_written_ends_it_before_the_training(tmp_path):
    (tmp_path / "batch_norm.dot").mkdir()
    done = microbn("demo", "--out", tmp_path, "--epochs", 500)
    assert done.returncode == 2
    assert done.stderr.startswith("microbn demo: error: cannot write into")
    assert done.stderr.count("\n") == 1
    assert "4. Reading digits" not in done.stdout


def test_a_broken_dot_ends_it_with_its_remedy(tmp_path, monkeypatch, capsys):
    def draw(tensor):
        raise LayoutError("dot failed; mend it")

    monkeypatch.setattr(mb, "draw", draw)
    assert call("demo", "--out", tmp_path, "--epochs", 500) == 1
    assert capsys.readouterr().err == "microbn demo: error: dot failed; mend it\n"


def test_the_students_are_left_alone():
    demo.students_through_batch_norm()
    demo.differences(0)
    assert_array_equal(students().features[0], [7, 70])
