"""The lessons on test time, batch size, noise and regularisation say what is so.

Each runs as a process of its own, quickly. Its numbers are compared with computations that do not
use microbn, or with bounds that would fail if the finding were the other way round.
"""

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from lessonrun import full_run, lesson_run, line_of, run_lesson

import microbn as mb

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent
CLAIMS = {
    "18_test_time": {"E1": "holds", "E2": "holds", "E3": "holds"},
    "19_batch_size": {"E4": "holds"},
    "20_noise": {"G1": "holds", "G2": "holds within limits"},
    "21_regulariser": {"G3": "holds within limits", "G4": "holds"},
}
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


def numbers(text, label):
    """Return the numbers in the rest of the one line that begins with ``label``."""
    lines = [line for line in text.splitlines() if line.strip().startswith(label)]
    assert len(lines) == 1, f"{label!r} begins {len(lines)} lines of\n{text}"
    found = re.findall(rf"(?<![\w.]){NUMBER}", lines[0].split(label, 1)[1])
    return [float(number) for number in found]


def between(text, start, end):
    """Return what stands between two marks."""
    return text.split(start, 1)[1].split(end, 1)[0]


def train(net, rng, epochs):
    """Train a network as the lessons do, on batches of 32 at rate 0.03."""
    x_train, y_train, *_ = mb.data.digits()
    optimizer = mb.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    batches = mb.data.batches(x_train, y_train, batch_size=32, drop_last=True, rng=rng)
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            mb.functional.cross_entropy(net(x), y).backward()
            optimizer.step()


def linear(layer, x):
    """Return what a linear layer makes of x, in NumPy."""
    return x @ layer.weight.data.T + layer.bias.data


# All of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLAIMS)
def test_it_reports_each_of_its_claims_once_and_writes_its_figure(name):
    text, files, claims = lesson_run(name)
    assert sorted(files) == [f"{name}.json", f"{name}.svg"]
    assert {key: claim["verdict"] for key, claim in claims.items()} == CLAIMS[name]
    assert len(json.loads(files[f"{name}.json"])["claims"]) == len(CLAIMS[name])
    assert ElementTree.fromstring(files[f"{name}.svg"]).tag == "{http://www.w3.org/2000/svg}svg"
    for key, claim in claims.items():
        assert f"\n{line_of(claim)}\n" in text
        assert key in (ROOT / "examples" / f"{name}.py").read_text("utf-8").split("# %%\n")[0]


@pytest.mark.parametrize("name", CLAIMS)
def test_the_full_run_found_the_same(name):
    assert {key: claim["verdict"] for key, claim in full_run(name).items()} == CLAIMS[name]
    assert (ROOT / "docs" / "results" / f"{name}.svg").exists()


def test_it_gives_the_same_bytes_each_time(tmp_path):
    text, files = run_lesson("18_test_time", tmp_path)
    assert (text, files) == lesson_run("18_test_time")[:2]
    assert str(ROOT) not in text


# 18: test time -----------------------------------------------------------------------------------


def test_a_number_depends_on_its_batch_and_alone_it_is_refused():
    text, _, claims = lesson_run("18_test_time")
    assert numbers(text, "a cgpa of 7 in the batch [7.0, 8.0, 9.0, 6.0]:") == [-0.447]
    assert numbers(text, "a cgpa of 7 in the batch [7.0, 6.0]:") == [1.0]
    assert numbers(text, "a cgpa of 90 by itself:") == [0.0]
    assert "refused: BatchNorm1d(1" in text
    assert "1 value per channel has no variance to normalise by" in text
    assert "or call eval() to use the running statistics" in text
    assert numbers(text, "batches that moved its statistics:") == [0]
    assert "unmoved" in claims["E2"]["measured"]


def test_running_statistics():
    text, _, claims = lesson_run("18_test_time")
    mean, var, batch = 0.0, 1.0, np.array([7.0, 8.0, 9.0, 6.0])
    for line in [line for line in text.splitlines() if line.startswith("running mean")]:
        mean, var = 0.9 * mean + 0.1 * batch.mean(), 0.9 * var + 0.1 * batch.var(ddof=1)
        assert numbers(line, "running mean") == [round(mean, 4), round(var, 4)]
    assert round(mean, 4) == 1.425  # both were there
    (first,), (cumulative,) = numbers(text, "momentum=0.1   "), numbers(text, "momentum=None  ")
    assert max(first, cumulative) < 1e-13
    assert claims["E1"]["measured"].startswith(f"{2 * (1442 // 32)} steps: ")
    # Of what is kept, the average of all batches alike is further off, and what is measured anew
    # is nearest.
    off = {key: numbers(text, f"{key} mean off by") for key in ("momentum=0.1 ", "momentum=None")}
    off["anew"] = numbers(text, "anew          mean off by")
    for k in 0, 1:
        assert off["anew"][k] < off["momentum=0.1 "][k] / 5 < off["momentum=None"][k] / 10
    assert numbers(text, "outputs up to 11.2; one by one they differ by")[0] < 1e-12


def test_the_line_at_test_time_and_none_in_training():
    text, _, claims = lesson_run("18_test_time")
    assert numbers(text, "layer and line differ by")[0] < 1e-12
    assert numbers(text, "outputs up to 11.2, folded they differ by")[0] < 1e-12
    assert "refused: fold_batch_norm" in text
    in_use, batches, low, high = numbers(text, "slope of unit 0: in use")
    assert batches == 45
    assert 1.2 * low < high
    assert low < in_use < high
    assert claims["E3"]["measured"].count(f"{low:.3f} to {high:.3f}") == 1

    def normalise(x):  # with eps = 1
        return (x - x.mean()) / np.sqrt(x.var() + 1)

    x, h = np.array([7.0, 8.0, 9.0, 6.0]), 1e-6
    table = [(normalise(x + h * e) - normalise(x - h * e)) / (2 * h) for e in np.eye(4)]
    for start, end, wanted in (
        ("in use: y", "in training: y", np.eye(4) / 1.5),
        ("in training: y", "outputs differ", np.array(table).T),
    ):
        found = np.array(re.findall(NUMBER, between(text, start, end)), float).reshape(5, 4)
        np.testing.assert_allclose(found[0], normalise(x), atol=1e-4)
        np.testing.assert_allclose(found[1:], wanted, atol=1e-4)
    outputs, gradients = numbers(text, "outputs differ by")
    assert outputs < 1e-12
    assert gradients == round(100 * missing_gradient())
    assert claims["E3"]["measured"].endswith(f"off by {gradients:.0f} %")


def missing_gradient():
    """Return by how much the gradient of lesson 18 is off, mu and sigma taken for constants."""
    rng = np.random.default_rng(0)
    first = mb.nn.Linear(64, 32, dtype=np.float64, rng=rng)
    norm = mb.nn.BatchNorm1d(32, dtype=np.float64)
    last = mb.nn.Linear(32, 10, dtype=np.float64, rng=rng)
    train(mb.nn.Sequential(first, norm, mb.nn.ReLU(), last), rng, 2)
    x_train, y_train, *_ = mb.data.digits()
    x, z = x_train[:32], linear(first, x_train[:32])
    sigma = np.sqrt(z.var(axis=0) + norm.eps)
    x_hat = (z - z.mean(axis=0)) / sigma
    y = norm.weight.data * x_hat + norm.bias.data
    p = np.exp(linear(last, np.maximum(y, 0)))
    d_logits = (p / p.sum(axis=1, keepdims=True) - np.eye(10)[y_train[:32]]) / 32
    d_hat = d_logits @ last.weight.data * (y > 0) * norm.weight.data
    through_both = d_hat.mean(axis=0) + x_hat * (d_hat * x_hat).mean(axis=0)
    missing, real = ((d / sigma).T @ x for d in (through_both, d_hat - through_both))
    return np.linalg.norm(missing) / np.linalg.norm(real)


# 19: batch size ----------------------------------------------------------------------------------


def test_a_forgotten_eval():
    text, _, claims = lesson_run("19_batch_size")
    first, second = between(text, "batch of  eval", "batches of 32"), text.split("trained on  ")[1]
    assert "a batch of 1 in training mode: 1 value per channel has no variance" in text
    assert numbers(first, "1 ")[0] > 90
    assert "refused" in first
    rows = {m: numbers(first, f"{m} ") for m in (2, 8, 32, 512)}  # median, range, median, range
    in_use, forgotten = np.array([[row[0], row[3]] for row in rows.values()]).T
    assert np.ptp(in_use) < 1  # not 0: a last batch that is not full is left out
    assert (np.diff(forgotten) > 0).all()
    assert forgotten[0] < in_use[0] - 30
    assert abs(forgotten[-1] - in_use[-1]) < 2
    sorted_in_use, *_, sorted_forgotten, _, _ = numbers(text, "batches of 32 of one digit:")
    assert sorted_in_use > 90
    assert sorted_forgotten < 25
    before, *_, after, _, _ = numbers(text, "in eval mode before")
    assert after < before
    assert [before, after] == pytest.approx(before_and_after_one_digit_batches(), abs=0.051)

    training, evaluated, anew = np.array(
        [numbers(second, f"{m} ")[::3] for m in (2, 8, 32, 512)], float
    ).T
    assert training[0] < evaluated[0] < evaluated[1] - 15  # of two images little is learned
    assert anew[0] < anew[1] - 15  # and better statistics are no help
    assert anew[3] > evaluated[3] + 1  # but are, where there were few steps
    measured = claims["E4"]["measured"]
    for value in forgotten[0], forgotten[-1], sorted_forgotten, evaluated[0], training[0]:
        assert f"{value:.1f} ({value:.1f} to {value:.1f})" in measured  # there is one seed
    assert numbers(measured.replace("; ", "\n"), "ten batches of one digit")[::3] == [before, after]


def before_and_after_one_digit_batches():
    """Return the percentages of lesson 19 in eval mode; only its training is done by microbn."""
    rng = np.random.default_rng(0)
    layers = []
    for _ in range(2):
        layers += [mb.nn.Linear(64, 64, rng=rng), mb.nn.BatchNorm1d(64), mb.nn.ReLU()]
    layers.append(mb.nn.Linear(64, 10, rng=rng))
    train(mb.nn.Sequential(*layers), rng, 5)
    *_, x_test, y_test = mb.data.digits()
    norms = layers[1], layers[4]
    kept = [[norm.running_mean, norm.running_var] for norm in norms]

    def forward(x, training):
        for k, norm in enumerate(norms):
            z = linear(layers[3 * k], x)
            mean, var = kept[k]
            if training:
                kept[k] = [0.9 * mean + 0.1 * z.mean(axis=0), 0.9 * var + 0.1 * z.var(0, ddof=1)]
                mean, var = z.mean(axis=0), z.var(axis=0)
            x_hat = (z - mean) / np.sqrt(var + norm.eps)
            x = np.maximum(norm.weight.data * x_hat + norm.bias.data, 0)
        return linear(layers[6], x)

    def right():
        return 100 * np.mean(forward(x_test, False).argmax(axis=1) == y_test)

    before = right()
    for digit in range(10):
        forward(x_test[y_test == digit][:32], True)
    return before, right()


def test_of_two_numbers_their_order_is_left():
    text, *_ = lesson_run("19_batch_size")
    pair = np.array([[3.0, 50.0, 0.1], [4.0, 10.0, 0.2]])
    wanted = np.sign(pair - pair.mean(axis=0))
    found = re.findall(r"-?1\.", between(text, "[[", "]]"))
    np.testing.assert_array_equal(np.array(found, float).reshape(2, 3), wanted)


# 20: noise ---------------------------------------------------------------------------------------

SIZES = np.array([4, 8, 16, 32, 64, 128, 256, 512])


def spread_of_ratio(m):
    """Return the standard deviation of sigma / sigma_B for m normal numbers, by its formula."""
    log = math.lgamma((m - 2) / 2) - math.lgamma((m - 1) / 2)
    return math.sqrt(m / (m - 3) - m / 2 * math.exp(2 * log))


def noise():
    """Return the medians that the lesson's table has: sizes by parts."""
    table = between(lesson_run("20_noise")[0], "(mu - mu_B) / sigma_B\n", "G1:")
    return np.array([[float(n) for n in re.findall(NUMBER, row)] for row in table.splitlines()])


def test_the_two_parts_of_the_noise():
    text, _, claims = lesson_run("20_noise")
    assert numbers(text, "times") == [round(math.sqrt(1.25), 3), -0.5]
    assert numbers(text, "what it should be:") == [-0.447, 1.342]
    assert numbers(text, "the two parts:") == numbers(text, "batch norm:") == [-1, 1]
    assert (
        numbers(text, "a batch of 32: the two parts together differ from the layer by")[0] < 1e-13
    )
    times, plus = noise()[3, [1, 4]]
    assert f"{times:.3f}" in claims["G1"]["measured"]
    assert f"{plus:.3f}" in claims["G1"]["measured"]


def test_how_strong_the_noise_is():
    table = noise()
    np.testing.assert_array_equal(table[:, 0], SIZES)
    times, plus = table[1:, [1, 4]].T  # of 4 the measured spread is still uncertain
    m = SIZES[1:]
    np.testing.assert_allclose(plus, (m - 3) ** -0.5, rtol=0.12)
    # These units have shorter tails than normal numbers, and so somewhat less noise.
    ratio = times / [spread_of_ratio(k) for k in m]
    assert (ratio > 0.75).all()
    assert (ratio < 1.05).all()
    assert (np.diff(table[:, [1, 4]], axis=0) < 0).all()


def test_the_slope():
    text, *_ = lesson_run("20_noise")
    table = noise()
    for name, column in ("sigma / sigma_B", 1), ("(mu - mu_B) / sigma_B", 4):
        for least in 32, 4:
            use = SIZES >= least  # noqa: SIM300
            fit = np.polyfit(np.log(SIZES[use]), np.log(table[use, column]), 1)[0]
            line = re.search(rf"\n{re.escape(name)} +from m = +{least} on: slope (\S+)", text)
            assert abs(float(line[1]) - fit) < 0.02
            assert abs(fit + 0.5) < 0.06 if least == 32 else fit < -0.57
    by_hand = np.polyfit(np.log([32, 64, 128, 256, 512]), np.log([29, 61, 125, 253, 509]), 1)[0]
    found = numbers(text, "1 / sqrt(m - 3) at the same sizes from m = 32 on: slope")
    assert found == [round(-by_hand / 2, 3)]
    *_, of_2 = numbers(text, "normal numbers, m = 2, over 1000, 10000, 100000 batches:")
    eight = numbers(text, "normal numbers, m = 8, over 1000, 10000, 100000 batches:")
    assert of_2 > 20
    assert all(abs(value - 5**-0.5) < 0.03 for value in eight)
    measured, predicted = (
        numbers(text, label)[0]
        for label in ("sigma / sigma_B at m = 512, times sqrt(512):", "sqrt((k - 1) / 4)")
    )
    assert abs(measured / predicted - 1) < 0.1
    ratio = numbers(text, "m = 512, dealt out against drawn:")
    assert abs(ratio[0] - math.sqrt(930 / 1441)) < 0.05


# 21: regulariser ---------------------------------------------------------------------------------


def test_dropout_multiplies():
    text, *_ = lesson_run("21_regulariser")
    x, y, factors, gradient = (
        np.array(numbers(text, label)) for label in ("x    ", "y    ", "y / x", "gradient")
    )
    np.testing.assert_array_equal(y, x * factors)
    np.testing.assert_array_equal(gradient, factors)
    assert set(factors) == {0, 2}
    for keep in 0.5, 0.8, 0.25:
        line = text.split(f"keep = {keep}: every number is multiplied by one of [")[1]
        assert [float(n) for n in line.split("]")[0].split()] == [0, 1 / keep]
    added, dropped, normed = (
        [float(n) for n in re.search(rf"\n{name} +\[(.+)\]\n", text)[1].split()]
        for name in ("added", "dropout", "batch norm")
    )
    np.testing.assert_allclose(added, 1, atol=0.03)
    np.testing.assert_allclose(dropped, [0, 1, 10], atol=0.01)
    wanted = [math.hypot(29**-0.5, z * spread_of_ratio(32)) for z in (0, 1, 10)]
    np.testing.assert_allclose(normed, wanted, rtol=0.03)


def test_the_gap():
    text, _, claims = lesson_run("21_regulariser")
    tables = [between(text, "right, %\nplain, 8", "   training loss")]
    tables += [text.split("right, %\n")[2].split("figure:")[0]]
    gaps = {}
    for table in tables:
        for line in table.splitlines():
            name, values = line[:15].strip(), [float(n) for n in re.findall(NUMBER, line[15:])]
            if len(values) == 12:
                low, high, gap = values[0], values[3], values[6]
                assert abs(high - low - gap) < 0.0061  # with one seed, up to rounding
                gaps[name] = gap
    assert gaps["batch norm, 32"] < gaps["plain"]
    assert gaps["dropout 0.5"] < gaps["plain"]
    assert gaps["batch norm, 8"] > gaps["batch norm, 32"] - 0.02  # more noise is no help
    measured = claims["G3"]["measured"]
    assert f"plain {gaps['plain']:.3f}" in measured
    gap = gaps["plain, rate 0.1"]
    assert f", {gap:.3f} ({gap:.3f} to {gap:.3f}) at rate 0.1, batch norm " in measured
    slow, fast = (
        numbers(text, f"batch norm, 32, less plain {label}")
        for label in ("   ", "at rate 0.1")  # each: median, lowest, highest, how many, of how many
    )
    for found, plain in (slow, gaps["plain"]), (fast, gap):
        assert found[0] == pytest.approx(gaps["batch norm, 32"] - plain, abs=0.0011)
        assert found[3:] == [found[0] < 0, 1]
    shares = [float(n) for n in re.findall(r"(\d+) %", measured)]
    assert shares[:2] == [100 * slow[3], 100 * fast[3]]


def test_over_ten_seeds_batch_norm_helps_and_its_noise_does_not():
    measured = full_run("21_regulariser")["G3"]["measured"]
    gap = {
        name: float(re.search(rf"{name} ({NUMBER}) \(", measured)[1])
        for name in ("plain", "batch norm", "dropout 0.5", "in groups of 8,", "; of 4")
    }
    assert max(gap["batch norm"], gap["dropout 0.5"]) < gap["plain"] - 0.03
    faster = float(re.search(rf"({NUMBER}) \([^()]*\) at rate 0.1", measured)[1])
    assert gap["batch norm"] < faster - 0.03
    assert min(gap["in groups of 8,"], gap["; of 4"]) > gap["batch norm"] - 0.04
    slow, fast, eight, four = (float(n) for n in re.findall(r"(\d+) %", measured))
    assert min(slow, fast) >= 80
    assert min(eight, four) < 80
