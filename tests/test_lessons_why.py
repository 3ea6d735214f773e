"""Lessons 22 to 25, on why batch norm works: what they print and report is so.

Each runs once, with --quick, as a process of its own. What it says of untrained networks is
computed here again by NumPy alone, with finite differences for derivatives, from the same weights;
of trained ones the findings are tested that would be others if they were turned round.
"""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from lessonrun import full_run, lesson_run, line_of

import microbn as mb

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent
LESSONS = {
    "22_contours": {"F1": "holds within limits"},
    "23_landscape": {"F2": "holds within limits"},
    "24_gamma_beta": {
        "F5": "holds within limits",
        "F6": "does not hold here",
        "F10": "does not hold here",
    },
    "25_range": {"F9": "holds within limits"},
}  # with the verdict of the full run
NUMBER = r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?"
SPREAD = re.compile(rf"({NUMBER}) \(({NUMBER}) to ({NUMBER})\)")


def lesson(name):
    """Return the text of a lesson, which writes results and figures only, and its claims."""
    text, files, claims = lesson_run(name)
    figures = set(re.findall(r"^figure: (.+)$", text, re.M))
    assert files.keys() == {f"{name}.json", *figures}
    assert figures
    return text, claims


def numbers(text, start, count):
    """Return the numbers in the rest of the one line that begins with ``start``."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(start)]
    assert len(lines) == 1, f"{start!r} begins {len(lines)} lines of\n{text}"
    found = [float(number) for number in re.findall(NUMBER, lines[0][len(start) :])]
    assert len(found) == count, lines[0]
    return found


def spreads(text):
    """Return every median, least and greatest in a text."""
    return np.array([[float(n) for n in found] for found in SPREAD.findall(text)])


def between(text, start, end=None):
    """Return what is between two strings, of which the first is there once."""
    assert text.count(start) == 1, f"{start!r} is there {text.count(start)} times in\n{text}"
    rest = text.split(start)[1]
    return rest if end is None else rest[: rest.index(end)]


@pytest.mark.parametrize("name", LESSONS)
def test_each_claim_is_reported_once(name):
    text, claims = lesson(name)
    assert claims.keys() == LESSONS[name].keys()
    for claim in claims.values():
        assert text.count(f"{line_of(claim)}\n") == 1
        assert "seeds)" in claim["measured"] or "seeds." in claim["measured"]


@pytest.mark.parametrize("name", LESSONS)
def test_the_full_run_is_of_ten_seeds(name):
    claims = full_run(name)
    assert {key: claim["verdict"] for key, claim in claims.items()} == LESSONS[name]
    assert all(re.search(r"\b10 seeds", claim["measured"]) for claim in claims.values())


# Networks in NumPy alone ------------------------------------------------------------------------


def weights(sizes, seed, he=False, dtype=float):
    """Return weight and bias of each layer as the lessons draw them."""
    rng = np.random.default_rng(seed)
    layers = []
    for k, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layer = mb.nn.Linear(inputs, outputs, dtype=dtype, rng=rng)
        hidden = k < len(sizes) - 2
        if he and hidden:
            mb.nn.init.kaiming_normal_(layer.weight, rng=rng)
        layers.append([layer.weight.data.astype(float), layer.bias.data.astype(float)])
    return layers


def given(layers, x, batch_norm, activation):
    """Return what each activation is given, and last the outputs; gamma is 1, beta 0."""
    values = []
    for weight, bias in layers[:-1]:
        z = x @ weight.T + bias
        if batch_norm:
            z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
        values.append(z)
        x = activation(z)
    return [*values, x @ layers[-1][0].T + layers[-1][1]]


def relu(z):
    return np.maximum(z, 0)


def cross_entropy(scores, y):
    top = scores.max(1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(1)) + top[:, 0]
    return np.mean(log_sum - scores[np.arange(len(y)), y])


# 22: contours -----------------------------------------------------------------------------------


def test_the_hessian_of_two_weights_is_that_by_hand():
    text, _ = lesson("22_contours")
    x = np.array([[7.0, 90.0], [8.0, 60.0], [9.0, 80.0], [6.0, 70.0]])
    columns = [x, x - x.mean(0), (x - x.mean(0)) / x.std(0)]
    found = re.findall(rf"H (\[\[.*\]\])\n +condition number ({NUMBER}), .*: (\d+)", text)
    assert len(found) == 3
    for (matrix, kappa, steps), inputs in zip(found, columns, strict=True):
        H = 2 * inputs.T @ inputs / 4
        np.testing.assert_allclose(json.loads(matrix), H, rtol=0, atol=1e-6)
        low, high = np.linalg.eigvalsh(H)
        assert float(kappa) == pytest.approx(high / low, abs=0.01)
        left = (high / low - 1) / (high / low + 1)  # of the error, after each step
        expected = 1 if left < 0.01 else np.ceil(np.log(0.01) / np.log(left))
        assert int(steps) == expected
    assert [round(float(kappa)) for _, kappa, _ in found][1:] == [100, 1]
    assert "H [[2.0, 2.0], [2.0, 2.0]], eigenvalues [0. 4.]" in text


def test_before_batch_norm_the_hessian_turns_the_weights_into_minus_the_gradient():
    text, _ = lesson("22_contours")
    gradient = [float(n) for n in between(text, "gradient [", "]").split()]
    product = [float(n) for n in between(text, "H @ w    [", "]").split()]
    x = np.array([[7.0, 90.0], [8.0, 60.0], [9.0, 80.0], [6.0, 70.0]])

    def loss(w):
        z = x @ w
        return np.mean(((z - z.mean()) / z.std() - [1, 0, 1, 0]) ** 2)

    w, h = np.array([1.0, 0.1]), 1e-6
    wanted = [(loss(w + h * e) - loss(w - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=2e-6)
    np.testing.assert_allclose(product, np.negative(gradient), rtol=0, atol=2e-6)
    assert np.linalg.norm(gradient) > 1


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_trace_of_the_hessian_by_differences(batch_norm):
    text, _ = lesson("22_contours")
    start = ("without 298", "with    314")[batch_norm]
    trace, apart = numbers(text, f"{start} parameters, trace", 2)
    data = mb.data.digits()
    images = data.x_train.astype(float).reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
    layers = weights((16, 8, 8, 10), 0)
    if batch_norm:  # no bias before it; gamma and beta take part, as scale and shift of x_hat
        layers = [[layers[0][0]], [layers[1][0]], layers[2]]
        extra = [[np.ones(8), np.zeros(8)] for _ in range(2)]
    arrays = [a for layer in layers for a in layer]
    arrays += [a for pair in extra for a in pair] if batch_norm else []

    def loss():
        x = images
        for k in range(2):
            z = x @ layers[k][0].T
            if batch_norm:
                z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) * extra[k][0] + extra[k][1]
            else:
                z = z + layers[k][1]
            x = np.tanh(z)
        return cross_entropy(x @ layers[2][0].T + layers[2][1], data.y_train)

    here, h, total = loss(), 1e-3, 0.0
    for array in arrays:
        flat = array.reshape(-1)
        for i in range(flat.size):
            old, sides = flat[i], []
            for step in (h, -h):
                flat[i] = old + step
                sides.append(loss())
            flat[i] = old
            total += (sum(sides) - 2 * here) / h**2
    assert sum(a.size for a in arrays) == (314 if batch_norm else 298)
    assert trace == pytest.approx(total, rel=1e-3)
    assert apart < 1e-6


def test_trained_without_batch_norm_the_condition_is_worse_but_not_at_the_start():
    text, claims = lesson("22_contours")
    start = between(text, "\nat the start ", "\ntrained ")
    trained = between(text, "\ntrained ", "figure:")
    for stretch in start, trained:
        rows = {line[:20].strip(): spreads(line) for line in stretch.splitlines()[1:] if line}
        assert [len(row) for row in rows.values()] == [2] * 4
        without, with_it = rows["last layer"]
        assert without[1] > with_it[2]
        without, with_it = rows["two weights"]
        assert without[1] > with_it[2] >= with_it[1] >= 1
        without, with_it = rows["largest / median"]
        if stretch is trained:
            assert without[1] > 3 * with_it[2]
        else:
            assert without[0] < 2 * with_it[0]
            without, with_it = rows["largest eigenvalue"]
            assert without[2] < with_it[1]  # unnormalised, the start is flatter
    assert claims["F1"]["verdict"] == "holds within limits"
    said = spreads(claims["F1"]["measured"])
    assert said.shape == (6, 3)
    names = "largest / median", "last layer", "two weights"
    cases = [f"{name}, {when}" for name in names for when in ("at the start", "trained")]
    better = [case for case, (_, low, _) in zip(cases, said, strict=True) if low > 1]
    assert claims["F1"]["limits"] == f"in every seed for {'; '.join(better)}"
    assert said[0, 1] < 1 < said[1, 1]


# 23: landscape ----------------------------------------------------------------------------------

MEASURES = "range of the loss", "change of the gradient", "effective beta"


def test_the_three_measures_by_hand():
    text, _ = lesson("23_landscape")
    line = between(text, "3 * w**2:", "\n")
    ahead = 1 - 0.6 * np.arange(0.5, 4.1, 0.5)
    by_hand = np.ptp(3 * ahead**2), np.abs(6 * (ahead - 1)).max(), 6.0
    found = [float(re.search(rf"{title} ({NUMBER})", line)[1]) for title in MEASURES]
    np.testing.assert_allclose(found, by_hand, rtol=0, atol=0.005)
    np.testing.assert_allclose(by_hand, [5.85, 14.4, 6])


def test_ten_times_larger_weights_make_it_a_hundred_times_smoother():
    text, _ = lesson("23_landscape")
    tail = text[text.index("figure:") :]
    data = mb.data.digits()
    layers = weights((64, 32, 32, 32, 32, 10), 0, he=True, dtype=np.float32)
    scores = given(layers, data.x_train[:64].astype(float), True, relu)[-1]
    first, second = numbers(tail, "loss ", 2)
    assert first == pytest.approx(cross_entropy(scores, data.y_train[:64]), abs=2e-4)
    assert second == pytest.approx(first, abs=2e-4)
    for title, expected in zip(MEASURES, (1, 10, 100), strict=True):
        small, large, ratio = numbers(tail, title, 3)
        assert ratio == pytest.approx(expected, rel=0.01)
        assert small / large == pytest.approx(ratio, rel=0.01)


def test_smoother_in_training_and_rougher_than_a_plateau():
    text, claims = lesson("23_landscape")
    measured = claims["F2"]["measured"]
    he = spreads(between(measured, "He's weights, last quarter: ", ";"))
    plateau = spreads(between(measured, "default weights, first epoch: ", ";"))
    assert he.shape == plateau.shape == (3, 3)
    assert np.all(he[:, 1] > 1.5)
    assert np.all(plateau[:, 2] < 0.5)
    assert claims["F2"]["verdict"] == "holds within limits"
    he = "He's weights, middle; He's weights, last quarter"
    assert claims["F2"]["limits"] == f"in every seed for {he}"
    for case in measured.partition(". ")[2].split("; "):  # all three, in every seed
        always = bool(np.all(spreads(case)[:, 1] > 1))
        assert always == (case.partition(":")[0] in claims["F2"]["limits"])
    scores = [line for line in text.splitlines() if line.startswith("test accuracy")]
    without, with_it = spreads(scores[1])  # on the plateau it is smooth, and nothing is learned
    assert without[2] < 40 < 90 < with_it[1]


# 24: gamma and beta -----------------------------------------------------------------------------


def test_the_parameters_are_those_by_hand():
    text, _ = lesson("24_gamma_beta")
    after = text[: text.index("change per epoch")]
    last = 64 * 10 + 10
    plain = 2 * (64 * 64 + 64) + last
    by_hand = {
        "plain": plain,
        "batch norm": 2 * (64 * 64 + 2 * 64) + last,
        "standardised only": 2 * 64 * 64 + last,
        "gamma, beta only": 2 * (64 * 64 + 2 * 64) + last,
        "one neuron more": (64 * 65 + 65) + (65 * 65 + 65) + (65 * 10 + 10),
    }
    assert {kind: numbers(after, kind, 1)[0] for kind in by_hand} == by_hand
    folded, apart = numbers(text, "folded:", 2)
    assert folded == plain
    assert 0 < apart < 200 * np.finfo(np.float32).eps < 1e-4  # rounding


def test_gamma_changes_little_and_beta_as_much_as_the_weights():
    _, claims = lesson("24_gamma_beta")
    rows = spreads(between(claims["F5"]["measured"], "after one epoch, %: "))
    assert rows.shape == (6, 3)
    weights, gamma, beta = rows[::2]
    assert weights[1] > 4 * gamma[2]
    assert beta[1] > weights[2] / 2
    assert np.all((rows[1::2] > 5) & (rows[1::2] < 100))
    assert claims["F5"]["verdict"] == "holds within limits"
    assert claims["F5"]["limits"] == "gamma only"


def test_standardised_activations_stay_in_the_linear_part():
    text, claims = lesson("24_gamma_beta")
    bare = spreads(between(text, "standardised only, Sigmoid", "\n"))
    full = spreads(between(text, "batch norm, Sigmoid", "\n"))
    straight = spreads(between(text, "batch norm, Tangent", "\n"))
    assert bare[0, 1] > full[0, 2]  # of what a sigmoid is given
    assert 60 < bare[0, 0] < 72  # a normal distribution would have 68.3
    assert bare[1, 1] > full[1, 2]  # the training loss
    assert straight.shape == (3, 3)
    said = spreads(claims["F6"]["measured"])
    assert said.shape == (5, 3)
    np.testing.assert_array_equal(said[[0, 1, 4]], [bare[0], full[0], straight[2]])
    needed = min(said[2, 1], said[3, 1]) > 0  # in every seed, with sigmoid and with ReLU
    assert claims["F6"]["verdict"] == ("holds" if needed else "does not hold here")
    assert not needed
    within = np.abs(1 / (1 + np.exp(-np.linspace(-1, 1, 201))) - 0.5 - np.linspace(-1, 1, 201) / 4)
    assert within.max() < 0.0195


def test_added_parameters_gain_nothing_and_standardising_does():
    text, claims = lesson("24_gamma_beta")
    assert claims["F10"]["verdict"] == "does not hold here"
    measured = claims["F10"]["measured"]
    gains = {
        "standardised only": "(-128 parameters)",
        "gamma, beta only": "(+128 parameters)",
        "one neuron more": "(+205 parameters)",
    }
    first = {k: spreads(between(measured, f"{k} {v}"))[0] for k, v in gains.items()}
    assert first["standardised only"][1] > 20
    assert max(first[kind][0] for kind in ("gamma, beta only", "one neuron more")) < 10
    plain = spreads(between(measured, "the plain network", "points gained"))
    np.testing.assert_array_equal(plain[1], spreads(between(text, "plain, ReLU", "\n"))[2])
    for kind, count in gains.items():  # of two seeds the median is the mean, and so it adds up
        end = spreads(between(text, f"{kind}, ReLU", "\n"))[2, 0]
        gained = spreads(between(measured, f"{kind} {count}"))[1, 0]
        assert plain[1, 0] + gained == pytest.approx(end, abs=0.16)


# 25: range --------------------------------------------------------------------------------------


def test_how_far_a_normalised_value_can_go():
    text, _ = lesson("25_range")
    for start, root in ("one apart: largest", 3), ("two apart: range", 8):
        found, _, by_hand = numbers(text, start, 3)
        assert found == by_hand == pytest.approx(np.sqrt(root), abs=1e-4)
    rng = np.random.default_rng(0)
    for x in rng.standard_cauchy((100, 9)):
        x_hat = (x - x.mean()) / x.std()
        assert np.abs(x_hat).max() <= np.sqrt(8) + 1e-9
        assert np.ptp(x_hat) <= np.sqrt(18) + 1e-9


@pytest.mark.parametrize("drawn", ["He's weights", "default weights"])
def test_the_ranges_at_the_start(drawn):
    text, _ = lesson("25_range")
    block = between(text, f"\n{drawn} ", "\ntrained")
    x = mb.data.digits().x_train.astype(float)
    for layer in range(4):
        row = spreads(between(block, f"at the start range       layer {layer + 1}", "\n"))
        for batch_norm, (middle, low, high) in enumerate(row):
            each = []
            for seed in range(2):
                sizes = (64, 32, 32, 32, 32, 10)
                layers = weights(sizes, seed, drawn == "He's weights", np.float32)
                each.append(np.ptp(given(layers, x, batch_norm, relu)[layer]))
            assert middle == pytest.approx(np.median(each), rel=6e-3)  # three digits; m - 1
            assert low == pytest.approx(min(each), rel=5e-2)
            assert high == pytest.approx(max(each), rel=5e-2)


def test_the_range_grows_without_batch_norm_and_stays_with_it():
    _, claims = lesson("25_range")
    assert claims["F9"]["verdict"] == "does not hold here"  # after four epochs; after 20 it does
    measured = claims["F9"]["measured"]
    for drawn in "He's weights", "default weights":
        start, trained = (
            spreads(between(measured, f"{drawn}, {when} "))[0]
            for when in ("at the start", "trained")
        )
        assert start[2] < 1
        assert trained[1] > 3 * start[2]
        without, with_it = (
            spreads(between(measured, f"{drawn}, {name} "))[0] for name in ("without", "with")
        )
        assert without[1] > 2
        assert 0.6 < with_it[1] <= with_it[2] < 1.4
