"""Lessons 9 to 12, on the transform: what they print and report is so.

Each runs once, with --quick, as a process of its own. Its numbers are compared with values by hand
and with NumPy alone; the networks of lesson 11 are trained again by a backward pass by hand.
"""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from lessonrun import full_run, lesson_run, line_of, run_lesson
from numpy.lib.stride_tricks import sliding_window_view

import microbn as mb

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent
LESSONS = {
    "09_transform": ("A1", "A2", "A3", "A6", "erratum 1", "erratum 2"),
    "10_parameters": ("A4", "A5", "A7", "C1", "C2"),
    "11_placement": ("A8", "A10"),
    "12_laws": ("B6", "A9", "B2", "B3", "B1", "B4", "B5"),
}
FIGURES = {
    "09_transform": ("09_transform_variance.svg", "09_transform_errata.svg"),
    "10_parameters": ("10_parameters_bias.svg",),
    "11_placement": ("11_placement.svg",),
    "12_laws": ("12_laws.svg",),
}
NUMBER = r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|\bnan\b"
EPS = 1e-5


def lesson(name):
    """Return the text of a lesson and its claims by id."""
    text, files, claims = lesson_run(name)
    assert sorted(files) == sorted([f"{name}.json", *FIGURES[name]])
    assert all(files[figure].lstrip().startswith(b"<?xml") for figure in FIGURES[name])
    return text, claims


def numbers(text):
    """Return all numbers in a text; those that belong to a word do not count."""
    return [float(found.replace(",", "")) for found in re.findall(NUMBER, text)]


def after(text, label):
    """Return the numbers in the rest of the line that has a label, which the text has once."""
    assert text.count(label) == 1, f"{label!r} is there {text.count(label)} times in\n{text}"
    return numbers(text.split(label)[1].split("\n")[0])


def measured(name, claim, verdict="holds"):
    """Return what a lesson has measured of a claim."""
    found = lesson(name)[1][claim]
    assert found["verdict"] == verdict
    return found["measured"]


# All of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LESSONS)
def test_it_reports_each_of_its_claims_once_and_prints_them(name):
    text, claims = lesson(name)
    assert tuple(claims) == LESSONS[name]
    for claim, facts in claims.items():
        assert line_of(facts) in text.splitlines()
        assert full_run(name)[claim]["verdict"] == facts["verdict"]
    assert full_run(name).keys() == claims.keys()
    assert text.isascii()  # so that any screen can show it


@pytest.mark.parametrize("name", ["09_transform", "10_parameters", "12_laws"])
def test_it_gives_the_same_bytes_each_time(name, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    assert run_lesson(name, tmp_path / "1") == run_lesson(name, tmp_path / "2")


# 09: the transform -------------------------------------------------------------------------------

PIXELS = mb.data.digits().x_train.astype(np.float64)
VAR = ((PIXELS - PIXELS.sum(axis=0) / 1442) ** 2).sum(axis=0) / 1442


def test_mean_and_variance_are_those_by_hand():
    text, _ = lesson("09_transform")
    mean, var = (after(text, f"\n{name}") for name in ("mu ", "var ["))
    assert mean[:2] == [(7 + 8 + 9 + 6) / 4, (70 + 80 + 90 + 60) / 4] == mean[2:]
    assert var[:2] == [(0.5**2 + 0.5**2 + 1.5**2 + 1.5**2) / 4, 125] == var[2:]
    assert after(text, "\nmean  ") == [7.5, 75]
    assert after(text, "\nsquared  ") == [0.25, 25, 0.25, 25, 2.25, 225, 2.25, 225]
    hat = np.outer([-0.5, 0.5, 1.5, -1.5], 1 / np.sqrt([1.25001, 1.2500001]))
    np.testing.assert_allclose(after(text, "\nx_hat  "), hat.ravel(), atol=6e-6)
    assert numbers(measured("09_transform", "A1")) == [7.5, 75, 1.25, 125, 0]


@pytest.mark.parametrize("eps", [0, 1e-5, 0.1])
def test_the_students_have_the_variance_that_eps_leaves(eps):
    mean, *var = after(lesson("09_transform")[0], f"eps {eps:<6g} mean")
    assert abs(mean) < 1e-15
    np.testing.assert_allclose(var, 2 * [1.25 / (1.25 + eps), 125 / (125 + eps)], atol=1e-8)


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.1])
def test_so_have_the_pixels(eps):
    lowest, median, _, below, of = after(lesson("09_transform")[0], f"eps {eps:<6g} lowest")
    wanted = VAR / (VAR + eps)
    assert (lowest, below, of) == (0, np.sum(wanted < 0.99), 64)
    assert median == pytest.approx(np.median(wanted), abs=6e-5)


def test_a2_counts_the_pixels():
    off_var, off_mean, *_, below, _, _, empty, _ = numbers(measured("09_transform", "A2"))
    assert off_var < 1e-12 > off_mean
    assert below == np.sum(VAR / (VAR + EPS) < 0.99) == 12
    assert empty == np.sum(np.ptp(PIXELS, axis=0) == 0) == 3


def test_the_width_is_gamma_only_where_var_is_large_beside_eps():
    text, _ = lesson("09_transform")
    for scale in (1e4, 1e2, 1, 1e-1, 1e-2, 1e-3, 1e-4):
        var, width = after(text, f"\n{scale:<13g}   ")
        assert width == pytest.approx(np.sqrt(var / (var + EPS)), rel=0.03)
    trials, off, usual, least, *_ = numbers(measured("09_transform", "A3", "holds within limits"))
    assert (trials, least) == (100, pytest.approx(width, abs=5e-4))
    assert 0 < off < 1e-12
    assert usual < 1e-3 < 0.05 > least


def test_it_can_be_undone_for_the_same_batch_only():
    text, _ = lesson("09_transform")
    assert after(text, "the same batch: off by at most")[0] <= 8
    assert numbers(measured("09_transform", "A6", "holds within limits"))[0] <= 8
    for m in (8, 32, 128, 512):
        median, low, high = after(text, f"another batch of {m:3}: off by")
        assert 0.7 < median * np.sqrt(m) < 1.6  # the noise of a mean is sigma / sqrt(m)
        assert low < median < high


def test_erratum_with_a_minus():
    text, _ = lesson("09_transform")
    nan, of, largest = after(text, "var - eps: nan for")
    bad = VAR < EPS
    assert (nan, of) == (bad.sum(), 64)
    assert nan == 7
    assert largest == pytest.approx(np.sqrt(VAR[~bad] / (VAR[~bad] - EPS)).max(), abs=6e-5)
    nan, largest = after(text, "var + eps: nan for")
    assert (nan, largest) == (0, pytest.approx(np.sqrt(VAR / (VAR + EPS)).max(), abs=6e-5))
    of_pixels, of_column = measured("09_transform", "erratum 1", "does not hold here").split(";")
    assert of_pixels == f"nan for {bad.sum()} of 64 pixels"
    wide = after(of_column, "a column with variance 1.0001 eps:")
    assert wide == [pytest.approx(np.sqrt(1.0001 / x), abs=0.05) for x in (0.0001, 2.0001)]
    column = np.array([-1, 1]) * np.sqrt(1.0001 * EPS)
    assert wide[1] == pytest.approx(np.std(column / np.sqrt(np.var(column) + EPS)), abs=6e-5)


def test_erratum_sigma_plus_eps():
    """In value and gradient, against formulas: c is sigma * u, and u has mean 0 and variance 1."""
    text, _ = lesson("09_transform")
    u, dy = np.array([-0.5, 0.5, 1.5, -1.5]) / np.sqrt(1.25), np.array([0.0, 0, 1, 0])
    for sigma in 10.0 ** np.arange(-8, 1):
        inside, beside = sigma / np.sqrt(sigma**2 + EPS), sigma / (sigma + EPS)
        d_inside = (dy - 0.25 - inside**2 * u * (dy * u).mean()) / np.sqrt(sigma**2 + EPS)
        d_beside = (dy - 0.25 - beside * u * (dy * u).mean()) / (sigma + EPS)
        wanted = inside, beside, abs(d_inside).max(), abs(d_beside).max()
        found = after(text, f"\n{sigma:<8.0e}  ")
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    found = after(text, "\n0e+00 ")
    np.testing.assert_allclose(found, [0, 0, 0.75 / np.sqrt(EPS), np.nan], rtol=1e-5)


def test_what_erratum_2_reports():
    said = measured("09_transform", "erratum 2", "does not hold here").split("width ")[1]
    inside, beside, sigma, *largest, zero = numbers(said)
    assert (sigma, zero) == (0.001, 0)
    assert inside == pytest.approx(sigma / np.sqrt(sigma**2 + EPS), abs=6e-4)
    assert beside == pytest.approx(sigma / (sigma + EPS), abs=6e-4)
    np.testing.assert_allclose(largest, [0.75 / np.sqrt(EPS), np.nan], atol=0.6)


# 10: the parameters ------------------------------------------------------------------------------


def test_gamma_and_beta_are_parameters_and_the_rest_is_not():
    text, _ = lesson("10_parameters")
    kinds = re.findall(r"^(parameter|buffer) +(\w+) +moved by (\S+),", text, re.M)
    assert [row[:2] for row in kinds] == [
        ("parameter", "weight"),
        ("parameter", "bias"),
        ("buffer", "running_mean"),
        ("buffer", "running_var"),
        ("buffer", "num_batches_tracked"),
    ]
    assert all(float(far) > 0.001 for *_, far in kinds)
    assert float(kinds[-1][2]) == 2 * (1442 // 32)
    assert "eps = 1e-05, momentum = 0.1" in text
    said = measured("10_parameters", "A4")
    assert said.startswith("parameters: weight bias; buffers: running_mean running_var num_batch")


def test_there_are_two_vectors_of_the_size_of_a_bias():
    without = 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    text, said = lesson("10_parameters")[0], measured("10_parameters", "A5")
    assert after(text, "\nwithout")[0] == without
    assert after(text, "\nwith   ")[:2] == [without + 4 * 128, 4 * 128]
    assert "shapes (128,), (128,), (128,);" in said
    assert numbers(said.split(";")[1]) == [without + 512, without]


def test_there_is_one_per_channel():
    text, _ = lesson("10_parameters")
    for shape, values in {"(32, 5)": 32, "(32, 5, 7)": 32 * 7, "(32, 5, 8, 6)": 32 * 48}.items():
        found = after(text, f"\n{shape:14} ")
        assert found[:2] == [values, 5]
        assert found[2] < 1e-13
    conv = mb.nn.Conv2d(1, 4, 3, padding=1, rng=np.random.default_rng(0))
    images = np.pad(PIXELS[:100].reshape(100, 8, 8), ((0, 0), (1, 1), (1, 1)))
    z = np.einsum(
        "mhwij,cij->mchw", sliding_window_view(images, (3, 3), (1, 2)), conv.weight.data[:, 0]
    )
    by_pixel = (z.mean(axis=0) - z.mean(axis=(0, 2, 3))[:, None, None]) / z.std(axis=(0, 2, 3))[
        :, None, None
    ]
    channel, pixel = after(text, "largest mean of a channel")
    assert channel < 1e-6
    assert pixel == pytest.approx(abs(by_pixel).max(), abs=0.006)


def test_no_b_changes_the_output_and_its_gradient_is_zero():
    text, _ = lesson("10_parameters")
    rounding = {"float64": 2.0**-52, "float32": 2.0**-23}
    for dtype, eps in rounding.items():
        part = text.split(f"{dtype}, where the largest entry of dW is")[1]
        dw = numbers(part.split("\n")[0])[0]
        rows = re.findall(r"b up to +([\d,]+): output changes by (\S+), largest db (\S+)", part)[:7]
        assert [int(size.replace(",", "")) for size, *_ in rows] == [10**k for k in range(7)]
        for size, change, db in rows:
            size = float(size.replace(",", ""))
            assert 0.5 * eps * size < float(change) < 50 * eps * size  # rounding, and no more
            assert float(db) < 10 * eps * dw
    said = numbers(measured("10_parameters", "C1"))
    assert said[1] < 1e-14 > said[2] / dw
    assert said[4] < 1e-5 < 0.1 < float(rows[-1][1])


def test_trained_without_b_it_is_the_same_network():
    text, _ = lesson("10_parameters")
    for dtype, least in (("float64", 1e-15), ("float32", 1e-6)):
        of_b, of_none, same, _ = after(text, f"{dtype}, after 2 epochs with b and without:")
        assert of_b == pytest.approx(of_none, abs=0.3)
        assert of_b > 95
        assert same >= 354
        apart, b, beta = re.search(
            rf"{dtype}, after.*\n.*apart by (\S+); b moved by (\S+) at most, beta by (\S+)", text
        ).groups()
        assert float(apart) < 20 * 0.9**90  # what is left of where the running mean began
        assert float(b) < least < 0.01 < float(beta)
    moved, *_ = after(text, "b set to 0 afterwards: outputs move by")
    assert moved > 0.1


def test_one_vector_more_is_left_per_layer():
    text, said = lesson("10_parameters")[0], measured("10_parameters", "C2")
    with_b, with_gamma = text.split("\nw, b\n")[1].split("\nw, gamma, beta\n")
    sizes = [
        re.findall(r"^  \d\.\w+ +\([\d, ]+\) +([\d,]+)$", t, re.M) for t in (with_b, with_gamma)
    ]
    sizes = [[int(size.replace(",", "")) for size in found] for found in sizes]
    assert sizes == [
        [64 * 128, 128, 128**2, 128, 1280, 10],
        [64 * 128, 128, 128, 128**2, 128, 128, 1280, 10],
    ]
    assert numbers(said)[:5] == [128, 6, sum(sizes[0]), 8, sum(sizes[1])]
    assert sum(sizes[1]) - sum(sizes[0]) == 2 * 128


# 11: the place -----------------------------------------------------------------------------------

SEEDS, EPOCHS = 2, 3
SHAPES = {  # the activation, and its derivative from its value
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a**2),
    "ReLU": (lambda z: np.maximum(z, 0), lambda a: a > 0),
}
PLACES = "none", "before", "after", "before, output"


class Norm:
    """Batch norm by hand."""

    def __init__(self, d):
        self.values, self.moved = [np.ones(d), np.zeros(d)], [np.zeros(d), np.ones(d)]

    def forward(self, z, training):
        mean, var = (z.mean(axis=0), z.var(axis=0)) if training else self.moved
        if training:
            m = len(z)
            new = mean, var * m / (m - 1)
            self.moved = [0.9 * a + 0.1 * b for a, b in zip(self.moved, new, strict=True)]
        self.inv = 1 / np.sqrt(var + EPS)
        self.hat = (z - mean) * self.inv
        return self.values[0] * self.hat + self.values[1]

    def backward(self, dy):
        self.grads = [(dy * self.hat).sum(axis=0), dy.sum(axis=0)]
        inner = dy - dy.mean(axis=0) - self.hat * (dy * self.hat).mean(axis=0)
        return self.values[0] * self.inv * inner


class Linear:
    """Linear by hand, begun as microbn's."""

    def __init__(self, inputs, outputs, rng):
        begun = mb.nn.Linear(inputs, outputs, rng=rng)
        self.values = [begun.weight.data.T.astype(float), begun.bias.data.astype(float)]

    def forward(self, a, training):
        self.a = a
        return a @ self.values[0] + self.values[1]

    def backward(self, dz):
        self.grads = [self.a.T @ dz, dz.sum(axis=0)]
        return dz @ self.values[0].T


class Activation:
    """An activation by hand."""

    values = grads = ()

    def __init__(self, name):
        self.f, self.slope = SHAPES[name]

    def forward(self, z, training):
        self.a = self.f(z)
        return self.a

    def backward(self, da):
        return da * self.slope(self.a)


def forward(layers, x, training=False):
    for layer in layers:
        x = layer.forward(x, training)
    return x


@functools.cache
def by_hand(activation, place, seed):
    """Train as the lesson does; return the layers, percent right, loss, and loss after 1 epoch."""
    data, rng, layers = mb.data.digits(), np.random.default_rng(seed), []
    for inputs in (64, 128):
        layers.append(Linear(inputs, 128, rng))
        after_it = [Norm(128)] if place == "after" else []
        layers += [Norm(128)] if place.startswith("before") else []
        layers += [Activation(activation), *after_it]
    layers += [Linear(128, 10, rng), *([Norm(10)] if "output" in place else [])]
    velocity = [[0 * v for v in layer.values] for layer in layers]
    rng, losses = np.random.default_rng(seed), []
    for _ in range(EPOCHS):
        for batch in rng.permutation(1442)[: 45 * 32].reshape(45, 32):
            z = forward(layers, PIXELS[batch], training=True)
            d = np.exp(z - z.max(axis=1, keepdims=True))
            d = (d / d.sum(axis=1, keepdims=True) - np.eye(10)[data.y_train[batch]]) / 32
            for layer in reversed(layers):
                d = layer.backward(d)
            for layer, speed in zip(layers, velocity, strict=True):
                for i, grad in enumerate(layer.grads):
                    speed[i] = 0.9 * speed[i] + grad
                    layer.values[i] = layer.values[i] - 0.03 * speed[i]
        z = forward(layers, data.x_test.astype(float))
        right = 100 * np.mean(z.argmax(axis=1) == data.y_test)
        z = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        losses.append(-z[np.arange(355), data.y_test].mean())
    return layers, right, losses[-1], losses[0]


def wanted(activation, place, which):
    """Return a number of each network trained by hand."""
    return np.array([by_hand(activation, place, seed)[which] for seed in range(SEEDS)])


def spread(values):
    return [np.median(values), values.min(), values.max()]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("activation", SHAPES)
def test_the_networks_end_where_those_by_hand_do(activation, place):
    found = after(lesson("11_placement")[0], f"rate 0.03 {activation:7} {place:14} ")
    # Here rounding, which depends on the machine and its threads, takes the float32 of the lesson
    # furthest from the float64 by hand: training amplifies it.
    apart = (activation, place) == ("ReLU", "after")
    right = spread(wanted(activation, place, 1))
    np.testing.assert_allclose(found[:3], right, atol=2.0 if apart else 0.35)
    close = 0.1 if apart else 0.002
    np.testing.assert_allclose(found[3:], spread(wanted(activation, place, 2)), atol=close)


def test_before_or_after_the_outcome_is_similar():
    """The finding: no median differs by more than a point. Each claim says which seeds it saw."""
    said = numbers(measured("11_placement", "A8"))
    assert said[0] == SEEDS
    points, losses = np.reshape(said[1:], (2, 3, 3))
    for activation, found, lost in zip(SHAPES, points, losses, strict=True):
        more = wanted(activation, "after", 1) - wanted(activation, "before", 1)
        apart = 2.0 if activation == "ReLU" else 0.6  # 0.6: two images
        np.testing.assert_allclose(found, spread(more), atol=apart)
        assert abs(found[0]) <= 1
        more = wanted(activation, "after", 2) - wanted(activation, "before", 2)
        np.testing.assert_allclose(lost, spread(more), atol=0.02 if activation == "ReLU" else 0.003)


def test_what_it_costs_to_normalise_the_output_as_well():
    said = measured("11_placement", "A10", "holds within limits")
    points, early, late, _ = said.split(": ", 1)[1].split("; ")
    for part, which, tolerance in (points, 1, 0.6), (early, 3, 0.003), (late, 2, 0.003):
        found = np.reshape(numbers(part)[-9:], (3, 3))
        for activation, row in zip(SHAPES, found, strict=True):
            more = wanted(activation, "before, output", which) - wanted(activation, "before", which)
            np.testing.assert_allclose(row, spread(more), atol=tolerance)
        if which == 1:
            assert abs(found[:, 0]).max() <= 1
        else:  # that it is less sure of itself
            assert found[1:, 0].min() > 0 > found[0, 0]


def test_a_normalised_output_is_narrower():
    for place in ("before", "before, output"):
        found = after(
            lesson("11_placement")[0], f"ReLU, {place:14} standard deviation of the output"
        )
        x = mb.data.digits().x_test.astype(float)
        wide = np.array([forward(by_hand("ReLU", place, s)[0], x).std() for s in range(SEEDS)])
        np.testing.assert_allclose(found, spread(wide), atol=0.02)


def test_in_training_mode_the_mean_of_a_normalised_output_is_beta_whatever_comes():
    text, _ = lesson("11_placement")
    for place, low, high in (("before", 0.01, 1), ("before, output", 0, 1e-5)):
        label = f"ReLU, {place:14} batches of one digit, in training mode:"
        assert after(text, label)[0] < 30  # a tenth is chance
        rest = text.split(label)[1].split("\n")[1]
        assert low <= numbers(rest)[0] < high


# 12: the laws ------------------------------------------------------------------------------------


def norm_gradient(z, dy, eps):
    """Return dz by the derivative of the formula, entry by entry: its Jacobian, in full."""
    m = len(z)
    c, inv = z - z.mean(axis=0), 1 / np.sqrt(z.var(axis=0) + eps)
    centre = np.eye(m) - 1 / m
    columns = [
        dy[:, j] @ (inv[j] * centre - inv[j] ** 3 / m * np.outer(c[:, j], c[:, j]))
        for j in range(z.shape[1])
    ]
    return np.stack(columns, axis=1)


def test_the_gradient_is_blind_to_shift_and_but_for_eps_to_scale():
    text, _ = lesson("12_laws")
    assert numbers(text.split("\n")[0])[:4] == [-1, -2, 3, 0]
    assert 0 < after(text, "\n100 random z: sums of dz at most")[0] < 1e-14
    assert after(text, "off that formula by at most")[0] < 1e-12
    cosines = {
        eps: after(text, f"eps {eps:<6.0e} cosine of the angle between dz and z_norm")[0]
        for eps in (*10.0 ** np.arange(-12, 3), 0.0)
    }
    assert cosines[0.0] < 1e-15
    assert after(text, "\nten times eps,")[0] == pytest.approx(10, abs=0.02)
    rng = np.random.default_rng(5)  # other numbers: the cosine is typically as large
    z, dy = PIXELS[:128] @ rng.normal(size=(64, 32)) / 8, rng.normal(size=(128, 32))
    for eps, found in cosines.items():
        if eps:
            dz, z_norm = norm_gradient(z, dy, eps), z - z.mean(axis=0)
            across = np.linalg.norm(dz, axis=0) * np.linalg.norm(z_norm, axis=0)
            typical = np.median(abs((dz * z_norm).sum(axis=0)) / across)
            assert 0.3 < found / typical < 3
    shift, c5, eps, c0, _, power = numbers(measured("12_laws", "B6"))[1:]
    assert (eps, c5) == (1e-5, pytest.approx(1e-5, rel=0.5))
    assert c0 < 1e-15 > shift
    assert power == pytest.approx(1, abs=0.002)


def test_through_a_batch_of_two_nothing_goes_back():
    text, _ = lesson("12_laws")
    sizes = {
        (m, eps): after(text, f"{m:2} examples, eps {eps:g}: median size of dz")[0]
        for m in (2, 3, 32)
        for eps in (1e-5, 1e-10)
    }
    assert sizes[2, 1e-5] < 0.01 < 0.1 < sizes[3, 1e-5]
    assert sizes[2, 1e-5] / sizes[2, 1e-10] == pytest.approx(1e5, rel=0.05)
    assert sizes[3, 1e-5] == pytest.approx(sizes[3, 1e-10], rel=0.05)
    rng = np.random.default_rng(5)
    typical = np.median(abs(norm_gradient(rng.normal(size=(2, 99)), rng.normal(size=(2, 99)), EPS)))
    assert typical < 0.01


def test_a_step_makes_the_weights_longer():
    text, _ = lesson("12_laws")
    assert after(text, "cosine of w and dw: at most")[0] < 1e-3
    longer, of, off = after(text, "a step makes")
    assert longer == of == 32
    assert off < 1e-3
    assert after(text, "w twice as long: dw")[0] == pytest.approx(0.5, abs=1e-3)


def test_where_the_claims_of_examples_4_to_7_are_settled():
    students = measured("12_laws", "A9")
    assert numbers(students.split(";")[0]) == [7, 70, 1, 8, 80, 0, 9, 90, 1, 6, 60, 0]
    assert "mean and variance, 7.5, 75, 1.25, 125 (" in students
    ops, dz = measured("12_laws", "B1").split("recorded: ")[1].split("; dz by their rules")
    assert ops.split(", ") == "mean sub pow mean add sqrt pow mul mul add".split()
    assert numbers(dz)[0] < 1e-14
    routes, off, null, largest, example = numbers(measured("12_laws", "B2"))
    assert (routes, example) == (4, 5)
    assert off < 1e-14 > null
    assert largest > 0.1
    trials, *apart, example = numbers(measured("12_laws", "B3"))
    assert (trials, len(apart), example) == (100, 3, 6)
    assert max(apart) < 1e-12
    second = numbers(measured("12_laws", "B4").split("closed form: ")[1])[0]
    assert 0 < second < 1e-6
    assert measured("12_laws", "B5", "holds within limits").startswith(
        "6 of 6 mistakes are among the causes named, 3 as"
    )
    assert measured("12_laws", "B5", "holds within limits").endswith(": d x is right.")
    assert lesson("12_laws")[0].count("d x is wrong") == 6
