"""Folding batch norms into the layers before them, and measuring their statistics anew."""

import copy
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import nn


def batch(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(2, 3, shape).astype(dtype)


def used(model, *shape, seed=0):
    """Give a model weights and statistics as after some training, and put it to use."""
    rng = np.random.default_rng(seed)
    for module in model.modules():
        if hasattr(module, "num_features") and module.weight is not None:
            module.weight.data = rng.normal(size=module.num_features)
            module.bias.data = rng.normal(size=module.num_features)
    for k in range(3):
        model(batch(*shape, seed=seed + k))
    return model.eval()


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def mlp(dtype=np.float64, bias=True):
    return nn.Sequential(
        nn.Linear(5, 4, bias, dtype=dtype, rng=0),
        nn.BatchNorm1d(4, dtype=dtype),
        nn.ReLU(),
        nn.Sequential(nn.Linear(4, 3, bias, dtype=dtype, rng=1)),
        nn.Sequential(nn.Sequential(nn.BatchNorm1d(3, affine=False, dtype=dtype)), nn.Tanh()),
    )


def images(dtype=np.float64, bias=True):
    convolution = nn.Conv2d(2, 4, 3, 2, 1, groups=2, bias=bias, dtype=dtype, rng=0)
    return nn.Sequential(
        {"conv": convolution, "norm": nn.BatchNorm2d(4, eps=0.1, dtype=dtype), "act": nn.GELU()}
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("make", "shape"), [(mlp, (6, 5)), (images, (3, 2, 7, 6))])
def test_a_folded_model_computes_the_same(make, shape, bias):
    for dtype, rtol in (np.float64, 1e-12), (np.float32, 1e-5):
        model = used(make(dtype, bias), *shape)
        before = copy.deepcopy(model.state_dict())
        folded = nn.fold_batch_norm(model)
        x = batch(*shape, seed=9, dtype=dtype)
        assert_allclose(folded(x).data, model(x).data, rtol=rtol, atol=rtol)
        assert same(model.state_dict(), before)
        assert not any("BatchNorm" in type(m).__name__ for m in folded.modules())
        assert {p.dtype for p in folded.parameters()} == {np.dtype(dtype)}
        assert not list(folded.buffers())
        for p in folded.parameters():
            p.data = p.data + 1  # memory of its own
        assert same(model.state_dict(), before)


def test_folding_by_hand():
    layer, norm = nn.Linear(1, 2, dtype=np.float64), nn.BatchNorm1d(2, eps=0, dtype=np.float64)
    layer.weight.data, layer.bias.data = [[1], [2]], [3, 4]
    norm.weight.data, norm.bias.data = [10, 100], [5, 6]
    norm.running_mean, norm.running_var = np.array([1.0, 2.0]), np.array([4.0, 16.0])
    folded = nn.fold(layer, norm.eval())
    assert_array_equal(folded.weight.data, [[5], [50]])  # 1 * 10 / 2, 2 * 100 / 4
    assert_array_equal(folded.bias.data, [15, 56])  # (3 - 1) * 5 + 5, (4 - 2) * 25 + 6
    assert_array_equal(layer.bias.data, [3, 4])
    layer.weight.requires_grad = False
    assert not nn.fold(layer, norm).weight.requires_grad


def test_a_folded_model_keeps_its_names():
    folded = nn.fold_batch_norm(used(mlp(bias=False), 6, 5))
    assert list(folded.state_dict()) == ["0.weight", "0.bias", "3.0.weight", "3.0.bias"]
    assert [type(m).__name__ for m in folded] == [
        "Linear",
        "Identity",
        "ReLU",
        "Sequential",
        "Sequential",
    ]
    assert list(nn.fold_batch_norm(used(images(), 3, 2, 7, 6)).state_dict()) == [
        "conv.weight",
        "conv.bias",
    ]
    y = folded(batch(2, 5))
    assert {t.scope for t, _ in mb.backprop(y, np.ones(y.shape)) if t.op} == {
        ("0",),
        ("2",),
        ("3.0",),
        ("4.1",),
    }


class Residual(nn.Module):
    """A model whose own code says what follows what, around a Sequential."""

    def __init__(self):
        self.linear, self.norm = nn.Linear(4, 4, rng=0), nn.BatchNorm1d(4)
        self.row = nn.Sequential(nn.Linear(4, 4, rng=1), nn.BatchNorm1d(4), nn.ReLU())

    def forward(self, x):
        return self.norm(self.linear(x)) + self.row(x)


def left(model, *shape):
    """Fold, compare, and return what was said to be left alone."""
    used(model, *shape)
    x = batch(*shape, seed=9)
    with pytest.warns(UserWarning, match="fold_batch_norm left alone") as caught:
        folded = nn.fold_batch_norm(model)
    assert_allclose(folded(x).data, model(x).data, rtol=1e-5, atol=1e-5)
    assert len(caught) == 1
    return folded, str(caught[0].message).split("\n  ")[1:]


def test_only_the_order_of_a_sequential_is_trusted():
    folded, said = left(Residual(), 6, 4)
    assert type(folded.norm) is nn.BatchNorm1d
    assert type(folded.row[1]) is nn.Identity
    assert said == [
        "norm: no Sequential says what it is behind; mb.nn.fold(layer, norm) joins a pair"
    ]
    folded.linear, folded.norm = nn.fold(folded.linear, folded.norm), nn.Identity()
    x = batch(6, 4, dtype=np.float32)
    model = used(Residual(), 6, 4)
    assert_allclose(folded(x).data, model(x).data, rtol=1e-5, atol=1e-5)


def test_it_says_what_was_left_alone_and_why():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4))
    assert left(net, 6, 4)[1] == [
        "0: no Sequential says what it is behind; mb.nn.fold(layer, norm) joins a pair",
        "3: it is behind a ReLU",
    ]
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False))
    assert left(net, 6, 4)[1] == ["1: it has no running statistics: in use, too, it needs a batch"]
    assert left(nn.BatchNorm1d(4), 6, 4)[1][0].startswith("BatchNorm1d: no Sequential")


def test_shared_parts_are_left_alone():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, nn.BatchNorm1d(4), shared)
    assert left(net, 6, 4)[1] == [
        "1: it, or the Linear that it is behind, is used in several places"
    ]
    row = nn.Sequential(nn.Linear(4, 4))
    net = nn.Sequential(row, nn.BatchNorm1d(4), row)
    assert "several places" in left(net, 6, 4)[1][0]
    norm = nn.BatchNorm1d(4)
    net = nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 4), norm)
    assert "several places" in left(net, 6, 4)[1][0]


def test_layers_that_compute_something_else_are_left_alone():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Reversed(nn.Sequential):
        def forward(self, x):
            return self[0](self[1](x))

    class Renamed(nn.Linear):
        pass

    assert left(nn.Sequential(Doubled(4, 4), nn.BatchNorm1d(4)), 6, 4)[1] == [
        "1: it is behind a Doubled"
    ]
    assert "no Sequential" in left(Reversed(nn.Linear(4, 4), nn.BatchNorm1d(4)), 6, 4)[1][0]
    folded = nn.fold_batch_norm(used(nn.Sequential(Renamed(4, 4), nn.BatchNorm1d(4)), 6, 4))
    assert type(folded[0]) is Renamed
    with pytest.raises(TypeError, match=r"with the same forward\), not Doubled and BatchNorm1d"):
        nn.fold(Doubled(4, 4), nn.BatchNorm1d(4).eval())


def test_folding_refuses():
    net = mlp()
    with pytest.raises(ValueError, match=r"BatchNorm1d.*training mode.*carry gradients.*eval\(\)"):
        nn.fold_batch_norm(net)
    with pytest.raises(ValueError, match=r"fold: BatchNorm1d.*training mode"):
        nn.fold(net[0], net[1])
    with pytest.raises(ValueError, match=r"fold_batch_norm: BatchNorm1d.*training mode"):
        nn.fold_batch_norm(nn.Sequential(nn.BatchNorm1d(4)))
    net.eval()
    with pytest.raises(TypeError, match="not Linear and ReLU"):
        nn.fold(net[0], net[2])
    with pytest.raises(TypeError, match="not Linear and BatchNorm2d"):
        nn.fold(net[0], nn.BatchNorm2d(4).eval())
    with pytest.raises(ValueError, match="another number of outputs"):
        nn.fold(net[0], nn.BatchNorm1d(5).eval())
    with pytest.raises(ValueError, match="no running statistics"):
        nn.fold(net[0], nn.BatchNorm1d(4, track_running_stats=False).eval())
    with pytest.raises(TypeError, match="takes a Module, not"):
        nn.fold_batch_norm([net])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(nn.fold_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))) == 2


# Precise statistics


@pytest.mark.parametrize("offset", [0, 1e6])
@pytest.mark.parametrize("sizes", [(8,), (4, 4), (2, 7, 3), (64, 2, 2)])
def test_statistics_are_those_of_all_examples_at_once(sizes, offset):
    layer = nn.BatchNorm1d(3, momentum=0.3, dtype=np.float64)
    batches = [batch(m, 3, seed=m + i) + offset + i for i, m in enumerate(sizes)]
    nn.update_batch_norm(layer, batches)
    together = np.concatenate(batches)
    assert_allclose(layer.running_mean, together.mean(0), rtol=1e-13)
    assert_allclose(layer.running_var, together.var(0, ddof=1), rtol=1e-8 if offset else 1e-13)
    assert layer.num_batches_tracked == len(sizes)
    assert (layer.momentum, layer.training) == (0.3, True)


def test_one_batch_gives_what_momentum_one_does():
    x = batch(5, 3, 4, 2)
    layer, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=1.0)
    nn.update_batch_norm(layer, [x])
    other(x)
    assert_allclose(layer.running_mean, other.running_mean, rtol=1e-6)
    assert_allclose(layer.running_var, other.running_var, rtol=1e-6)
    assert layer.running_var.dtype == np.float32


def test_layers_in_depth_see_what_batches_normalised_by_themselves_give():
    net, data = mlp(), batch(4, 6, 5)
    nn.update_batch_norm(net, data)
    means = []
    for x in data:
        h = net[0](x).data
        h = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0)
        means.append(net[3](h).data)
    seen = np.concatenate(means)
    assert_allclose(net[4][0][0].running_mean, seen.mean(0), rtol=1e-12)
    assert_allclose(net[4][0][0].running_var, seen.var(0, ddof=1), rtol=1e-12)


def test_only_batch_norms_change():
    net = nn.Sequential(
        nn.Linear(3, 4, rng=0),
        nn.BatchNorm1d(4),
        nn.Dropout(0.5, rng=0),
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.Sequential(nn.BatchNorm1d(4).eval()),
    )
    net[2].eval()
    before, modes = net.state_dict(), [m.training for m in net.modules()]
    draws = copy.deepcopy(net[2].rng).random(3)
    nn.update_batch_norm(net, ((batch(6, 3, seed=k), "target") for k in range(3)))
    after = net.state_dict()
    changed = {k for k in after if not np.array_equal(before[k], after[k])}
    kept = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"{layer}.{name}" for layer in ("1", "4.0") for name in kept}
    assert [m.training for m in net.modules()] == modes
    assert_array_equal(net[2].rng.random(3), draws)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert "_track" not in vars(net[1])
    net(batch(6, 3))
    assert net[1].num_batches_tracked == 4


def test_a_shared_norm_counts_every_use_and_an_unused_one_stays():
    class Twice(nn.Module):
        def __init__(self):
            self.norm, self.unused = nn.BatchNorm1d(3, dtype=np.float64), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(self.norm(x) * 2)

    net, x = Twice(), batch(5, 3)
    nn.update_batch_norm(net, [x])
    x_hat = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    assert_allclose(net.norm.running_var, np.concatenate([x, 2 * x_hat]).var(0, ddof=1))
    assert net.norm.num_batches_tracked == 2
    assert_array_equal(net.unused.running_var, np.ones(3))


def test_nothing_is_recorded():
    class Watched(nn.Linear):
        def forward(self, x):
            recorded.append(super().forward(x).requires_grad)
            return super().forward(x)

    recorded = []
    nn.update_batch_norm(nn.Sequential(Watched(3, 2), nn.BatchNorm1d(2)), batch(2, 4, 3))
    assert recorded == [False, False]


def test_if_a_batch_fails_nothing_changes():
    net = mlp()
    net(batch(6, 5))
    net[2].eval()
    before, modes = net.state_dict(), [m.training for m in net.modules()]

    def ending():
        yield batch(6, 5)
        raise OSError("the disk is gone")

    one, other = [batch(6, 5), batch(1, 5)], [batch(6, 5), batch(6, 4)]
    for batches, error in (
        (one, ValueError),
        (other, ValueError),
        (ending(), OSError),
        ([], ValueError),
    ):
        with pytest.raises(error):
            nn.update_batch_norm(net, batches)
        assert same(net.state_dict(), before)
        assert [m.training for m in net.modules()] == modes
        assert not any("_track" in vars(m) for m in net.modules())
    with pytest.raises(TypeError, match="takes a Module"):
        nn.update_batch_norm(len, [])
    with pytest.raises(ValueError, match="there are no batches"):
        nn.update_batch_norm(net, iter(()))
    assert mb.Tensor([1.0], requires_grad=True).sum().requires_grad  # recording goes on


def test_a_graph_made_before_survives_new_statistics():
    layer = nn.BatchNorm1d(3, dtype=np.float64).eval()
    x = mb.Tensor(batch(5, 3), requires_grad=True)
    y = layer(x)
    nn.update_batch_norm(layer, [batch(5, 3, seed=1)])
    y.sum().backward()
    assert_allclose(x.grad, np.full((5, 3), (1 + 1e-5) ** -0.5))
