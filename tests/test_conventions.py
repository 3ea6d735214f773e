"""The conversions of docs/conventions.md on numbers; other systems are loops in plain NumPy."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb

PAGE = Path(__file__).parent.parent / "docs" / "conventions.md"
M, D = 6, 3  # values per channel, channels
EXACT = {"rtol": 1e-12}


def batches(k, m=M, seed=0):
    """Return k batches of one size, each from a distribution of its own."""
    rng = np.random.default_rng(seed)
    spread, centre = rng.uniform(0.5, 3, (2, k, 1, D))
    return rng.normal(centre, spread, (k, m, D))


def trained(data, **options):
    layer = mb.nn.BatchNorm1d(D, dtype=np.float64, **options)
    for x in data:
        layer(x)
    return layer


def keras_like(data, momentum, factor=1.0, var=1.0):
    """Momentum is the weight of the old; by default the biased variance goes in."""
    mean, var = np.zeros(D), np.full(D, var)
    for x in data:
        mean = momentum * mean + (1 - momentum) * x.mean(axis=0)
        var = momentum * var + (1 - momentum) * factor * x.var(axis=0)
    return mean, var


def caffe_like(data, fraction):
    """Sums and the sum of their weights, all from 0."""
    mean, var, weight = np.zeros(D), np.zeros(D), 0.0
    for x in data:
        m = len(x)
        weight = fraction * weight + 1
        mean = fraction * mean + x.mean(axis=0)
        var = fraction * var + x.var(axis=0) * (m / (m - 1) if m > 1 else 1)
    return mean, var, weight


# Running statistics ------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.01, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("sizes", [(6,), (6, 6, 6, 6), (2, 9, 5, 30)])
def test_running_statistics_are_the_closed_sum(p, sizes):
    data = [batches(1, m, seed)[0] for seed, m in enumerate(sizes)]
    k = len(data)
    weights = [p * (1 - p) ** (k - 1 - i) for i in range(k)]
    means = [[np.sum(x[:, j]) / len(x) for j in range(D)] for x in data]
    squares = [((x - mean) ** 2).sum(axis=0) for x, mean in zip(data, means, strict=True)]
    unbiased = [s / (m - 1) for s, m in zip(squares, sizes, strict=True)]
    layer = trained(data, momentum=p)
    assert_allclose(layer.running_mean, np.dot(weights, means), **EXACT)
    assert_allclose(layer.running_var, (1 - p) ** k + np.dot(weights, unbiased), **EXACT)


@pytest.mark.parametrize("k", [1, 4, 40])
@pytest.mark.parametrize("momentum", [0.99, 0.9, 0.3])
def test_keras_statistics_become_ours(k, momentum):
    data, start = batches(k), momentum**k
    layer = trained(data, momentum=1 - momentum)
    mean, var = keras_like(data, momentum)
    assert_allclose(layer.running_mean, mean, **EXACT)
    assert_allclose(layer.running_var, start + (var - start) * M / (M - 1), **EXACT)
    # The factor alone is wrong by what it does to the value that the variance began with.
    assert_allclose(var * M / (M - 1) - layer.running_var, start / (M - 1), rtol=1e-9, atol=1e-14)


def test_a_convention_that_is_ignored_shows():
    data = batches(5)
    ours = trained(data, momentum=0.1)
    for momentum, factor in (0.1, M / (M - 1)), (0.9, 1.0):
        mean, var = keras_like(data, momentum, factor)
        assert not np.allclose(var, ours.running_var, rtol=0.05)
        assert np.allclose(mean, ours.running_mean) == (momentum == 0.9)


def test_systems_that_keep_the_unbiased_variance_differ_in_momentum_alone():  # Chainer, DeZero
    data = batches(7)
    _, var = keras_like(data, 0.9, M / (M - 1))
    assert_allclose(trained(data, momentum=0.1).running_var, var, **EXACT)


def test_statistics_from_zero_lack_what_the_first_values_left():  # cs231n
    data, start = batches(7), 0.9**7
    _, var = keras_like(data, 0.9, var=0.0)
    want = trained(data, momentum=0.1).running_var
    assert_allclose(start + var * M / (M - 1), want, **EXACT)


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("fraction", [0.999, 0.8])
def test_caffe_sums_become_ours(k, fraction):
    data, start = batches(k), fraction**k
    mean, var, weight = caffe_like(data, fraction)
    assert_allclose(weight, (1 - start) / (1 - fraction), rtol=1e-9)
    layer = trained(data, momentum=1 - fraction)
    assert_allclose(layer.running_mean, (1 - start) * mean / weight, rtol=1e-9)
    assert_allclose(layer.running_var, start + (1 - start) * var / weight, rtol=1e-9)


def test_cumulative_is_the_average_of_all_batches():
    data = [batches(1, m, seed)[0] for seed, m in enumerate((4, 9, 2, 6, 6))]
    layer = trained(data, momentum=None)
    assert_allclose(layer.running_mean, np.mean([x.mean(axis=0) for x in data], axis=0), **EXACT)
    unbiased = [x.var(axis=0, ddof=1) for x in data]
    assert_allclose(layer.running_var, np.mean(unbiased, axis=0), **EXACT)
    assert layer.num_batches_tracked == 5


def test_every_position_of_a_sequence_counts_as_a_value():
    x = np.random.default_rng(0).normal(size=(2, D, 5))
    layer = mb.nn.BatchNorm1d(D, dtype=np.float64)
    layer(x)
    unbiased = x.transpose(0, 2, 1).reshape(10, D).var(axis=0) * 10 / 9
    assert_allclose(layer.running_var, 0.9 + 0.1 * unbiased, **EXACT)


def test_first_values():
    layer = mb.nn.BatchNorm1d(D)
    state = layer.state_dict()
    for name, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
        assert_array_equal(state[name], np.full(D, value, np.float32), strict=True)
    assert state["num_batches_tracked"] == 0
    x = batches(1)[0]
    assert_allclose(layer.eval()(x).data, x / np.sqrt(1 + 1e-5), rtol=1e-7)  # var in float32


# Training and use --------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, M / (M - 1)])
def test_in_use_the_numbers_count_not_where_they_come_from(factor):
    data = batches(9)
    mean, var = keras_like(data, 0.9, factor)
    layer = mb.nn.BatchNorm1d(D, eps=1e-3, dtype=np.float64).eval()
    layer.running_mean, layer.running_var = mean, var
    x = data[0]
    want = (x - mean) / np.sqrt(var + 1e-3)
    assert_allclose(layer(x).data, want, **EXACT)
    layer.eps, layer.running_var = 2e-5, var + 1e-3 - 2e-5
    assert_allclose(layer(x).data, want, **EXACT)


def test_training_normalises_with_the_biased_variance_whatever_is_kept():
    x = batches(1)[0]
    want = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
    layer = mb.nn.BatchNorm1d(D, dtype=np.float64)
    assert_allclose(layer(x).data, want, **EXACT)
    layer.running_mean, layer.running_var = np.full(D, 7.0), np.full(D, 9.0)
    assert_allclose(layer(x).data, want, **EXACT)


def test_makemore_normalises_with_the_unbiased_variance():
    x = batches(1)[0]
    theirs = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    ours = mb.nn.BatchNorm1d(D, eps=0.0, dtype=np.float64)(x).data
    assert_allclose(theirs, ours * np.sqrt((M - 1) / M), **EXACT)


def test_frozen_parameters_do_not_stop_the_statistics_but_eval_does():
    x = batches(1)[0]
    layer = mb.nn.BatchNorm1d(D, dtype=np.float64)
    for parameter in layer.parameters():
        parameter.requires_grad = False
    y = layer(x)
    assert_allclose(y.data, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5), **EXACT)
    moved = layer.running_mean
    assert_allclose(moved, 0.1 * x.mean(axis=0), **EXACT)
    layer.eval()(x)
    assert layer.running_mean is moved


def test_one_value_per_channel_is_an_error_and_changes_nothing():
    layer = mb.nn.BatchNorm1d(D)
    before = layer.state_dict()
    with pytest.raises(ValueError, match="1 value per channel"):
        layer(np.ones((1, D)))
    for name, value in layer.state_dict().items():
        assert_array_equal(value, before[name])


# The page ----------------------------------------------------------------------------------------


def table():
    """Return the rows of the page's table: system and version -> cells by column."""
    lines = re.findall(r"^\| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    head, *rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert all(len(row) == len(head) for row in rows)
    return {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}


def cells_of(system):
    (found,) = (cells for (name, _), cells in table().items() if name == system)
    return found


def assert_row(system, layer):
    """Compare the row with a layer of four known values, in NumPy or PyTorch alike."""
    cells = cells_of(system)
    assert float(cells["eps"]) == layer.eps
    assert cells["momentum"] == f"{layer.momentum}, of the new"
    first = f"{float(layer.running_mean[0]):g}, {float(layer.running_var[0]):g}"
    assert cells["mean, var at first"] == first
    return cells["running variance"], cells["normalises with"]


STUDENTS = np.array([[7.0], [8.0], [9.0], [6.0]])  # variance 1.25, or 5/3


def test_our_row():
    layer = mb.nn.BatchNorm1d(1, dtype=np.float64)
    assert assert_row("microbn", layer) == ("unbiased", "biased, two passes")
    y = layer(STUDENTS)
    assert_allclose(y.data[2], 1.5 / np.sqrt(1.25 + 1e-5), **EXACT)
    assert_allclose(layer.running_var, 0.9 + 0.1 * 5 / 3, **EXACT)
    assert_allclose(layer(STUDENTS + 1e8).data, y.data, rtol=1e-6)  # one pass would lose it


def test_the_row_of_pytorch():
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm1d(1, dtype=torch.float64)
    assert assert_row("PyTorch", layer) == ("unbiased", "biased, two passes")
    y = layer(torch.from_numpy(STUDENTS)).detach().numpy()
    assert_allclose(y[2], 1.5 / np.sqrt(1.25 + 1e-5), **EXACT)
    assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * 5 / 3, **EXACT)
    shifted = layer(torch.from_numpy(STUDENTS + 1e8)).detach().numpy()
    assert_allclose(shifted, y, rtol=1e-6)


def test_pytorch_and_keras_in_numpy_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    data = batches(6)
    layer = torch.nn.BatchNorm1d(D, momentum=0.05, dtype=torch.float64)
    for x in data:
        layer(torch.from_numpy(x))
    mean, var = keras_like(data, 0.95, M / (M - 1))
    assert_allclose(layer.running_mean.numpy(), mean, **EXACT)
    assert_allclose(layer.running_var.numpy(), var, **EXACT)
    assert_allclose(trained(data, momentum=0.05).running_var, var, **EXACT)
