"""Lessons 13 to 17, on training: what they print and report is so.

Each runs once, with --quick, as a process of its own. Networks are trained again here in NumPy
alone, in float64 and with a backward pass by hand, from the same weights and on the same batches.
"""

import ast
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from lessonrun import full_run, lesson_run, line_of

import microbn as mb

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent
LESSONS = {
    "13_training": ("D1", "D2", "D3"),
    "14_epochs": ("D4",),
    "15_learning_rates": ("D5",),
    "16_initialisation": ("D6",),
    "17_depth": ("D7",),
}
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"


def lesson(name):
    """Return the text of a lesson, its claims by id, and its figure."""
    text, files, claims = lesson_run(name)
    assert files.keys() == {f"{name}.json", f"{name}.svg"}
    return text, claims, files[f"{name}.svg"].decode()


def network(name, **names):
    """Return the function ``network`` of a lesson, which is given the names it needs."""
    tree = ast.parse((ROOT / "examples" / f"{name}.py").read_text("utf-8"))
    found = [node for node in tree.body if getattr(node, "name", "") == "network"]
    names |= {"mb": mb, "np": np}
    exec(compile(ast.Module(found, []), name, "exec"), names)
    return names["network"]


def line(text, start):
    """Return the numbers of the one line that begins so, without those of ``start``."""
    lines = [found for found in text.splitlines() if found.strip().startswith(start)]
    assert len(lines) == 1, f"{start!r} begins {len(lines)} lines of\n{text}"
    return [float(n) for n in re.findall(NUMBER, lines[0].strip()[len(start) :])]


def table(text, head, rows):
    """Return a table, which comes after the line that begins with ``head``, as label -> numbers."""
    after = text[text.index(f"\n{head}") + 1 :].splitlines()[1:]
    cells = {}
    for row in after:
        label = next((label for label in rows if row.startswith(label)), None)
        if label is None:
            continue
        cells.setdefault(label, [float(n) for n in re.findall(NUMBER, row[len(label) :])])
    assert list(cells) == list(rows)
    return cells


# The same networks, in NumPy alone ------------------------------------------------------------

ACTIVATIONS = {
    "ReLU": (lambda u: np.maximum(u, 0), lambda u: (u > 0).astype(float)),
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    "sigmoid": (
        lambda u: 1 / (1 + np.exp(-u)),
        lambda u: np.exp(-u) / (1 + np.exp(-u)) ** 2,
    ),
}
EPS = 1e-5


class Net:
    """Linear layers, all but the last with an activation and perhaps batch norm before it."""

    def __init__(self, linears, batch_norm, activation="ReLU"):
        """Take the weights (and biases) over from layers of microbn."""
        self.w = [layer.weight.data.astype(float).T for layer in linears]
        self.b = [
            np.zeros(w.shape[1]) if layer.bias is None else layer.bias.data.astype(float)
            for layer, w in zip(linears, self.w, strict=True)
        ]
        sizes = [w.shape[1] for w in self.w[:-1]] if batch_norm else []
        self.gamma, self.beta = [np.ones(n) for n in sizes], [np.zeros(n) for n in sizes]
        self.mean, self.var = [np.zeros(n) for n in sizes], [np.ones(n) for n in sizes]
        self.batch_norm, (self.f, self.slope) = batch_norm, ACTIVATIONS[activation]

    def forward(self, x, training=True):
        """Return the outputs, and what the backward pass needs."""
        a, kept = x.astype(float), []
        for k, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            z = a @ w + b
            if k == len(self.w) - 1:
                return z, [*kept, (a,)]
            u = x_hat = std = None
            if self.batch_norm:
                mean, var = (z.mean(0), z.var(0)) if training else (self.mean[k], self.var[k])
                if training:
                    m = len(z)
                    self.mean[k] = 0.9 * self.mean[k] + 0.1 * mean
                    self.var[k] = 0.9 * self.var[k] + 0.1 * var * m / (m - 1)
                std = np.sqrt(var + EPS)
                x_hat = (z - mean) / std
                u = self.gamma[k] * x_hat + self.beta[k]
            else:
                u = z
            kept.append((a, u, x_hat, std))
            a = self.f(u)
        raise AssertionError

    def loss(self, x, y, training=True):
        """Return the mean cross entropy."""
        return -np.mean(log_softmax(self.forward(x, training)[0])[np.arange(len(y)), y])

    def gradients(self, x, y):
        """Return those of w, b, gamma and beta, and of z in each layer."""
        logits, kept = self.forward(x)
        dz = (np.exp(log_softmax(logits)) - np.eye(10)[y]) / len(y)
        dw, db, dgamma, dbeta, dzs = [], [], [], [], [dz]
        dw.append(kept[-1][0].T @ dz)
        db.append(dz.sum(0))
        for k in reversed(range(len(self.w) - 1)):
            a, u, x_hat, std = kept[k]
            du = dz @ self.w[k + 1].T * self.slope(u)
            dz = du
            if self.batch_norm:
                dgamma.append((du * x_hat).sum(0))
                dbeta.append(du.sum(0))
                dz = du - du.mean(0) - x_hat * (du * x_hat).mean(0)
                dz = self.gamma[k] / std * dz
            dw.append(a.T @ dz)
            db.append(dz.sum(0))
            dzs.append(dz)
        return tuple(g[::-1] for g in (dw, db, dgamma, dbeta, dzs))

    def step(self, x, y, rate):
        """Take one step of gradient descent."""
        *all_gradients, _ = self.gradients(x, y)
        for parameters, gradients in zip(
            (self.w, self.b, self.gamma, self.beta), all_gradients, strict=True
        ):
            for p, g in zip(parameters, gradients, strict=True):
                p -= rate * g


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def layers(seed, batch_norm):
    """Return the three linear layers that lessons 13 to 16 begin with."""
    sizes = ((64, 64, not batch_norm), (64, 64, not batch_norm), (64, 10, True))
    return [
        mb.nn.Linear(n, out, bias=bias, rng=np.random.default_rng([seed, k]))
        for k, (n, out, bias) in enumerate(sizes)
    ]


def trained(seed, batch_norm, rate, epochs, activation="ReLU"):
    """Return a network after so many epochs."""
    data = mb.data.digits()
    net = Net(layers(seed, batch_norm), batch_norm, activation)
    batches = mb.data.batches(data.x_train, data.y_train, batch_size=32, drop_last=True, rng=seed)
    for _ in range(epochs):
        for x, y in batches:
            net.step(x, y, rate)
    return net


def accuracy(net):
    data = mb.data.digits()
    return 100 * np.mean(net.forward(data.x_test, training=False)[0].argmax(1) == data.y_test)


def median(seeds, *case):
    """Return the median of what networks read right, trained from each of the seeds."""
    return np.median([accuracy(trained(seed, *case)) for seed in seeds])


# All ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LESSONS)
def test_every_claim_is_reported_once_with_its_size(name):
    text, claims, svg = lesson(name)
    assert tuple(claims) == LESSONS[name]
    for claim in claims.values():
        assert claim["verdict"] in ("holds", "holds within limits", "does not hold here")
        assert len(re.findall(NUMBER, claim["measured"])) > 3
        assert f"{line_of(claim)}\n" in text
    assert "nan" not in text
    assert svg.count("<svg") == 1
    verdicts = {key: claim["verdict"] for key, claim in claims.items()}
    assert {key: claim["verdict"] for key, claim in full_run(name).items()} == verdicts


# 13 -------------------------------------------------------------------------------------------


def test_the_network_shown_is_the_one_that_lessons_share():
    spec = importlib.util.spec_from_file_location("shared", ROOT / "examples" / "lesson.py")
    shared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shared)
    shown = network("13_training")
    for seed, batch_norm, activation in ((0, True, mb.nn.ReLU), (3, False, mb.nn.Tanh)):
        mine = shown(seed, batch_norm, activation)
        other = shared.network(seed, batch_norm, activation)
        assert repr(mine) == repr(other)
        state = other.state_dict()
        assert mine.state_dict().keys() == state.keys()
        for name, value in mine.state_dict().items():
            np.testing.assert_array_equal(value, state[name])
        weights = [layer.weight.data for layer in other.children() if hasattr(layer, "in_features")]
        for weight, layer in zip(weights, layers(seed, batch_norm), strict=True):
            np.testing.assert_array_equal(weight, layer.weight.data)


def test_the_gradients_of_one_step():
    text, data = lesson("13_training")[0], mb.data.digits()
    net = Net(layers(0, True), True)
    x, y = data.x_train[:32], data.y_train[:32]
    assert line(text, "loss") == pytest.approx([net.loss(x, y), 10, np.log(10)], abs=1e-4)
    dw, db, dgamma, dbeta, _ = net.gradients(x, y)
    expected = {
        "0.weight   (64, 64)": dw[0],
        "1.weight   (64,)": dgamma[0],
        "1.bias     (64,)": dbeta[0],
        "3.weight   (64, 64)": dw[1],
        "4.weight   (64,)": dgamma[1],
        "4.bias     (64,)": dbeta[1],
        "6.weight   (10, 64)": dw[2],
        "6.bias     (10,)": db[2],
    }
    for start, gradient in expected.items():
        assert line(text, start) == pytest.approx([np.linalg.norm(gradient)], abs=1e-4), start
    slope = dgamma[0][0]
    assert line(text, "gamma[0] = 1 - 0.1 *") == pytest.approx([slope, 1 - 0.1 * slope], abs=1e-5)
    net.step(x, y, 0.1)
    assert line(text, "the loss of the same images afterwards:") == pytest.approx(
        [net.loss(x, y)], abs=2e-4
    )


def test_two_steps_of_each_rule_by_hand():
    text, g, root = lesson("13_training")[0], 2.0, np.sqrt
    adam = (1 - 0.9) * g / (1 - 0.9) / root((1 - 0.999) * g**2 / (1 - 0.999))
    decay = 1 - 0.001 * 0.01
    expected = {
        "gradient descent": 1 - 0.1 * g - 0.1 * g,
        "momentum": 1 - 0.01 * g - 0.01 * (0.9 * g + g),
        "RMSprop": 1 - 0.001 * g / root(0.01 * g**2) - 0.001 * g / root(0.0199 * g**2),
        "Adam": 1 - 0.001 * adam - 0.001 * adam,
        "AdamW": (decay - 0.001 * adam) * decay - 0.001 * adam,
    }
    for rule, value in expected.items():
        start = f"{rule:16} 1 becomes"
        assert line(text, start) == pytest.approx([value], abs=2e-8), rule


def test_the_loop_reads_as_many_images_right_as_one_in_numpy():
    text = lesson("13_training")[0]
    before, epochs, after = line(text, "read right before training")
    assert before == pytest.approx(accuracy(Net(layers(0, True), True)), abs=0.3)
    net = trained(0, True, 0.1, int(epochs))
    assert after == pytest.approx(accuracy(net), abs=0.9)  # three images
    low, high = line(text, "gamma went from 1 to between")
    assert [low, high] == pytest.approx([net.gamma[0].min(), net.gamma[0].max()], abs=0.01)


def test_with_batch_norm_each_rule_and_activation_works():
    text, claims, _ = lesson("13_training")
    rules = ("gradient descent", "momentum", "RMSprop", "Adam", "AdamW")
    rows = [f"ReLU, {rule:18}" for rule in rules]
    rows += ["tanh, gradient descent", "sigmoid, gradient descent"]
    rows = [row.ljust(26) for row in rows]
    found = table(text, "test images read right", rows)
    for label, (median, low, high, *without) in found.items():
        assert 90 < low <= median <= high, label
        assert median > without[0], label  # after three epochs; after ten it is closer
    seeds = [accuracy(trained(seed, True, 0.1, 3, "sigmoid")) for seed in range(2)]
    assert found[rows[-1]][1:3] == pytest.approx(sorted(seeds), abs=0.9)
    assert found[rows[-1]][3] < 30
    assert {claim["verdict"] for claim in claims.values()} == {"holds"}


# 14 -------------------------------------------------------------------------------------------


def test_the_loss_after_one_epoch_is_that_of_a_network_in_numpy():
    text, data = lesson("14_epochs")[0], mb.data.digits()
    for batch_norm, label in ((True, "with batch norm"), (False, "without")):
        start = f"seed 0, {label}, rate 0.1:"
        found = next(row for row in text.splitlines() if row.startswith(start))
        before, after = (float(n) for n in re.findall(NUMBER, found[len(start) :])[:2])
        net = Net(layers(0, batch_norm), batch_norm)
        assert before == pytest.approx(net.loss(data.x_train, data.y_train, False), abs=1e-4)
        net = trained(0, batch_norm, 0.1, 1)
        assert after == pytest.approx(net.loss(data.x_train, data.y_train, False), rel=0.01)


def test_fewer_epochs_are_needed_with_batch_norm():
    text, claims, _ = lesson("14_epochs")
    for which in ("same", "best"):
        numbers = line(text, f"{which} rate, loss 1.0 ")
        with_bn, _, most, without, least, *_ = numbers
        assert most < least, which  # every seed with, before any without
        assert without > 2 * with_bn
    assert claims["D4"]["verdict"] == "holds"
    final = [float(row.split()[-3]) for row in text.splitlines() if row.startswith("seed 0, w")]
    assert min(final[1::2]) > 0.3 > 0.1 > max(final[::2])  # without, and with
    for target in ("0.3 ", "0.1 "):
        row = next(row for row in text.splitlines() if f"same rate, loss {target}" in row)
        assert row.endswith(" epochs with batch norm, never without")
    assert final[0] > 0.03
    assert "same rate, loss 0.03  neither network reaches it" in text
    with_bn, without = line(text, "ops of a step:")
    assert with_bn - without == 2 * (10 - 1)  # batch norm is ten ops, the bias was one


# 15 -------------------------------------------------------------------------------------------


def test_the_gradient_is_at_a_right_angle_to_the_weights():
    text, data = lesson("15_learning_rates")[0], mb.data.digits()
    x, y = data.x_train[:128], data.y_train[:128]
    net = Net(layers(0, True), True)
    g, w = net.gradients(x, y)[0][1], net.w[1]
    assert line(text, "cosine of the angle") == pytest.approx([0], abs=5e-4)
    assert line(text, "the loss is") == pytest.approx([net.loss(x, y)] * 2, abs=2e-4)
    norm, half, ratio = line(text, "the gradient has norm")
    assert norm == pytest.approx(np.linalg.norm(g), abs=2e-4)
    assert half == pytest.approx(norm / 2, abs=2e-4)
    assert ratio == pytest.approx(0.5, abs=2e-4)
    _, before, after, pythagoras = line(text, "one step at rate")
    assert before == pytest.approx(np.linalg.norm(w), abs=1e-4)
    assert after == pytest.approx(np.linalg.norm(w - 10 * g), abs=2e-3)
    assert pythagoras == pytest.approx(after, abs=2e-3)


RATES = [0.001, 0.01, 0.1, 1, 10, 100]
ROWS = [f"{n}, {w}".ljust(16) for n in ("ReLU", "tanh", "sigmoid") for w in ("with", "without")]


def test_the_grid_of_rates():
    text, claims, _ = lesson("15_learning_rates")
    found = table(text, "rate", ROWS)
    for row, name in zip(ROWS[::2], ("ReLU", "tanh", "sigmoid"), strict=True):
        mine = median(range(2), True, 0.1, 2, name)
        assert found[row][RATES.index(0.1)] == pytest.approx(mine, abs=1.5), name
    mine = median(range(2), False, 0.1, 2, "tanh")
    assert found[ROWS[3]][2] == pytest.approx(mine, abs=1.5)
    works = {
        row: [rate for rate, a in zip(RATES, found[row], strict=True) if a >= 90] for row in ROWS
    }
    for with_bn, without in zip(ROWS[::2], ROWS[1::2], strict=True):
        assert len(works[with_bn]) > len(works[without])
        assert max(works[with_bn]) >= 1 > max(works[without], default=0)
        assert max(found[without][-2:]) < 25  # without it, 10 and 100 are hopeless
    assert claims["D5"]["verdict"] == "holds"
    for name, with_bn in zip(("ReLU", "tanh", "sigmoid"), ROWS[::2], strict=True):
        assert f"{name}: with {len(works[with_bn])} of 6 rates" in claims["D5"]["measured"]
    patient = [*ROWS[:2], ROWS[5]]
    longer = table(text[text.index("after 8 epochs") :], "rate", patient)
    mine = median(range(2), False, 1.0, 8, "sigmoid")
    assert longer[ROWS[5]][RATES.index(1)] == pytest.approx(mine, abs=3)
    said = f"sigmoid, 8 epochs: without 0 of 6 rates (none), at best {max(longer[ROWS[5]])} %"
    assert claims["D5"]["measured"].endswith(said)


# 16 -------------------------------------------------------------------------------------------


def test_what_a_factor_does_to_the_first_loss_and_gradient():
    text, data = lesson("16_initialisation")[0], mb.data.digits()
    x, y = data.x_train[:128], data.y_train[:128]
    for head, batch_norm in (("with batch norm", True), ("without", False)):
        part = text[text.index(f"hidden layers {head}\n") :]
        part = part[: part.index("factor 100") + 200]
        for scale in (0.01, 0.1, 1, 10, 100):
            net = Net(layers(0, batch_norm), batch_norm)
            net.w[:2] = [scale * w for w in net.w[:2]]
            net.b[:2] = [scale * b for b in net.b[:2]]
            norm = np.linalg.norm(net.gradients(x, y)[0][0])
            row = next(row for row in part.splitlines() if f"factor {scale:g} " in row)
            loss, found, product = [float(n) for n in re.findall(NUMBER, row)][1:]
            assert loss == pytest.approx(net.loss(x, y), rel=1e-3)
            assert found == pytest.approx(norm, rel=2e-3)
            assert product == pytest.approx(scale * norm, rel=2e-3)
            if batch_norm and scale >= 1:
                assert product == pytest.approx(1.095, abs=0.002)  # whatever the factor
    variance = (x.astype(float) @ (0.01 * layers(0, True)[0].weight.data.astype(float).T)).var(0)
    found, kept = line(text, "factor 0.01: var of z is")
    assert found == pytest.approx(variance.mean(), rel=5e-3)
    assert kept == pytest.approx(np.mean(variance / (variance + EPS)), abs=0.006)


def test_the_grid_of_factors():
    text, claims, _ = lesson("16_initialisation")
    best = {row: line(text, row + " % right by rate")[-1] for row in ROWS}
    for place in ("all layers", "hidden layers"):
        part = text[text.index(f"factor in front of the weights of {place}") :]
        found = table(part, "factor", ROWS)
        for with_bn, without in zip(ROWS[::2], ROWS[1::2], strict=True):
            works = [sum(a >= 90 for a in found[row]) for row in (with_bn, without)]
            assert works[0] > works[1], (place, with_bn)
            assert min(found[with_bn][:3]) > 70 > max(found[without][:2])  # 0.01, 0.1 (and 1)
        for row, name in zip(ROWS[::2], ("ReLU", "tanh", "sigmoid"), strict=True):
            mine = median(range(2), True, best[row], 2, name)
            assert found[row][2] == pytest.approx(mine, abs=1.5), name  # the factor 1
    assert claims["D6"]["verdict"] == "holds"


# 17 -------------------------------------------------------------------------------------------


def deep(seed, batch_norm, gain, activation, depth=20):
    """Return the norms of dz in each layer, with weights drawn here."""
    data, rng = mb.data.digits(), np.random.default_rng([seed, 7])
    sizes = [64] + [32] * (depth - 1)
    linears = [mb.nn.Linear(n, 32, bias=False) for n in sizes] + [mb.nn.Linear(32, 10)]
    net = Net(linears, batch_norm, activation)
    net.w[:-1] = [rng.normal(0, gain / np.sqrt(len(w)), w.shape) for w in net.w[:-1]]
    bound = 1 / np.sqrt(32)
    net.w[-1], net.b[-1] = rng.uniform(-bound, bound, (32, 10)), rng.uniform(-bound, bound, 10)
    dzs = net.gradients(data.x_train[:256], data.y_train[:256])[-1]
    return np.array([np.linalg.norm(dz) for dz in dzs[:-1]])


GAINS = {"ReLU": np.sqrt(2), "tanh": 5 / 3, "sigmoid": 1.0}


def test_the_factor_per_layer():
    text, claims, _ = lesson("17_depth")
    first = text[: text.index("figure:")]
    for name, matched in GAINS.items():
        gains = {"small": 1 / np.sqrt(3), "matched": matched, "large": 2 * matched}
        measured = []
        for which, gain in gains.items():
            numbers = line(first, f"{name:7} {which:8}")
            for batch_norm, (median, low, high) in ((True, numbers[:3]), (False, numbers[3:6])):
                norms = [deep(seed, batch_norm, gain, name) for seed in range(3)]
                mine = np.median([(dz[1] / dz[18]) ** (1 / 17) for dz in norms])
                assert low <= median <= high
                assert median == pytest.approx(mine, rel=0.08), (name, which, batch_norm)
            measured.append(numbers[0])
        assert np.ptp(measured) < 0.02, name  # with batch norm, whatever the gain
        assert min(measured) > 1, name  # and the gradient grows
    assert line(first, "ReLU    small")[3] == pytest.approx(1 / np.sqrt(6), abs=0.04)
    assert claims["D7"]["verdict"] == "holds within limits"
    assert "ReLU, matched" in text[text.index("not nearer to 1:") :].splitlines()[0]
    assert "not for ReLU with the matched gain" in claims["D7"]["limits"]


def test_deep_networks_have_a_bias_where_they_have_no_batch_norm():
    make = network("17_depth", DEPTH=20, ACTIVATIONS={"ReLU": mb.nn.ReLU})
    for batch_norm in (True, False):
        net = make(0, "ReLU", "large", batch_norm)
        linears = [layer for layer in net.children() if isinstance(layer, mb.nn.Linear)]
        rng = np.random.default_rng(0)
        for n, layer in zip([64] + [32] * 19, linears[:-1], strict=True):
            mb.nn.Linear(n, 32, bias=False, rng=rng)  # drawn and drawn again
            drawn = rng.normal(0, 2 * np.sqrt(2 / n), (32, n))
            np.testing.assert_allclose(layer.weight.data, drawn, rtol=1e-5)
            shift = net[3 * linears.index(layer) + 1].bias if batch_norm else layer.bias
            np.testing.assert_array_equal(shift.data, np.zeros(32))
            assert (layer.bias is None) == batch_norm
            assert any(p is shift for p in net.parameters())


def test_the_predicted_factors():
    text, claims, _ = lesson("17_depth")
    u = np.random.default_rng(0).normal(size=1_000_000)
    for name, (f, slope) in ACTIVATIONS.items():
        predicted, measured, _, wide, _, growth = line(text, f"{name:7} predicted")
        assert predicted == pytest.approx(np.sqrt(np.mean(slope(u) ** 2) / f(u).var()), abs=2e-3)
        assert predicted < measured < predicted + 0.06
        assert predicted - 0.02 < wide < predicted + 0.06
        assert predicted**99 < growth < (predicted + 0.06) ** 99
        norms = [deep(seed, True, GAINS[name], name, 100) for seed in range(10)]
        mine = np.median([dz[0] / dz[-1] for dz in norms])
        assert mine / 5 < growth < 5 * mine, name  # seeds differ by as much
        if name == "ReLU":
            said = f"In 100 layers of ReLU with batch norm the gradient grows {growth:.1e} times"
            assert said in claims["D7"]["measured"]
    assert line(text, "ReLU    predicted")[0] == pytest.approx(
        np.sqrt(np.pi / (np.pi - 1)), abs=1e-3
    )
