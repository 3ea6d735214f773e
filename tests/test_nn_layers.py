"""The layers beyond Linear and BatchNorm1d: hand values, finite differences, refusals, the tree."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import nn


def batch(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(2, 3, shape).astype(dtype)


def wide(layer, seed=0):
    """Give a layer random weights in float64."""
    rng = np.random.default_rng(seed)
    for name, p in layer.named_parameters():
        setattr(layer, name, nn.Parameter(rng.normal(size=p.shape)))
    return layer


# Normalisation: one idea, other axes


NORMS = {
    "batch": (nn.BatchNorm2d(4), (0, 2, 3), (4, 1, 1)),
    "instance": (nn.InstanceNorm2d(4, affine=True), (2, 3), (4, 1, 1)),
    "group of all": (nn.GroupNorm(1, 4), (1, 2, 3), (4, 1, 1)),
    "groups of one": (nn.GroupNorm(4, 4), (2, 3), (4, 1, 1)),
    "layer": (nn.LayerNorm((3, 5)), (2, 3), (3, 5)),
    "last axis": (nn.LayerNorm(5), (3,), (5,)),
}


@pytest.mark.parametrize("name", NORMS)
def test_each_norm_is_the_same_formula_over_its_axes(name):
    layer, axes, shape = NORMS[name]
    layer, x = wide(layer), batch(2, 4, 3, 5)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    want = (x - mean) / np.sqrt(var + layer.eps) * layer.weight.data.reshape(shape)
    assert_allclose(layer(x).data, want + layer.bias.data.reshape(shape), rtol=1e-11)
    mb.check.gradcheck(layer, x, order=2)


def test_group_norm_by_hand():
    layer = nn.GroupNorm(2, 4, eps=0)
    x = np.array([[1.0, 3, 10, 30], [5, 7, 0, 1]])
    assert_allclose(layer(x).data, [[-1, 1, -1, 1]] * 2)
    layer.weight.data, layer.bias.data = [1, 2, 3, 4], [0, 0, 0, 5]
    assert_allclose(layer(x).data, [[-1, 2, -3, 9]] * 2)


def test_rms_norm_by_hand():
    layer = nn.RMSNorm(2, eps=0)
    layer.weight.data = [1, 10]
    assert_allclose(layer(np.array([[1.0, 7.0], [-14.0, 2.0]])).data, [[0.2, 14], [-1.4, 2]])
    x = batch(3, 4)
    for dtype in np.float32, np.float64:
        tiny = np.full((1, 2), 1e-12, dtype)
        want = tiny / np.sqrt(tiny.astype(float) ** 2 + np.finfo(dtype).eps)
        assert_allclose(nn.RMSNorm(2, dtype=dtype)(tiny).data, want, rtol=1e-6)
    want = x / np.sqrt((x**2).mean(1, keepdims=True) + 0.5)
    assert_allclose(nn.RMSNorm(4, eps=0.5, elementwise_affine=False)(x), want)
    mb.check.gradcheck(wide(nn.RMSNorm(4)), x, order=2)


@pytest.mark.parametrize("layer", [nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.RMSNorm(3)], ids=repr)
def test_norms_of_examples_do_not_depend_on_the_batch_or_the_mode(layer):
    layer, x = copy.deepcopy(layer), batch(4, 3)
    together = layer(x).data
    assert_allclose([layer(x[i : i + 1]).data[0] for i in range(4)], together, rtol=1e-12)
    assert_array_equal(layer.eval()(x).data, together)
    assert not list(layer.buffers())


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_in_training_and_in_use(track, affine):
    layer = nn.InstanceNorm1d(3, affine=affine, track_running_stats=track, dtype=np.float64)
    x = batch(4, 3, 5)
    x_hat = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
    assert_allclose(mb.dispatch.plain(layer(x)), x_hat)
    assert_allclose(mb.dispatch.plain(layer(x[1])), x_hat[1])
    layer.eval()
    if not track:
        assert list(layer.state_dict()) == ["weight", "bias"] * affine
        assert_allclose(mb.dispatch.plain(layer(x)), x_hat)
        return
    mean, var = x.mean(2), x.var(2, ddof=1)
    mean, var = 0.09 * mean.mean(0) + 0.1 * mean[1], 0.81 + 0.09 * var.mean(0) + 0.1 * var[1]
    assert_allclose(layer.running_mean, mean)
    assert_allclose(layer.running_var, var)
    assert layer.num_batches_tracked == 0
    x_hat = (x - mean[:, None]) / np.sqrt(var[:, None] + 1e-5)
    assert_allclose(mb.dispatch.plain(layer(x)), x_hat)
    assert layer(np.ones((2, 3, 1))).shape == (2, 3, 1)


def test_batch_norm_of_images_is_that_of_their_pixels():
    images, columns = nn.BatchNorm2d(3, dtype=np.float64), nn.BatchNorm1d(3, dtype=np.float64)
    for seed in range(3):
        x = batch(2, 3, 4, 5, seed=seed)
        rows = np.moveaxis(x, 1, -1).reshape(-1, 3)
        for mode in True, False:
            y = np.moveaxis(images.train(mode)(x).data, 1, -1).reshape(-1, 3)
            assert_allclose(y, columns.train(mode)(rows).data, rtol=1e-10, atol=1e-12)
    for key, value in images.state_dict().items():
        assert_allclose(value, columns.state_dict()[key])


CONSTANT = {
    "BatchNorm1d": (nn.BatchNorm1d, (4,), (8, 4)),
    "BatchNorm1d, three axes": (nn.BatchNorm1d, (4,), (2, 4, 8)),
    "BatchNorm2d": (nn.BatchNorm2d, (4,), (2, 4, 4, 2)),
    "InstanceNorm1d": (nn.InstanceNorm1d, (4,), (2, 4, 8)),
    "InstanceNorm2d": (nn.InstanceNorm2d, (4,), (2, 4, 4, 2)),
    "GroupNorm": (nn.GroupNorm, (2, 4), (3, 4, 8)),
    "LayerNorm": (nn.LayerNorm, (16,), (3, 16)),
}


@pytest.mark.parametrize("offset", [0.0, 1.0, -7.0, 1 / 3, 1e4 / 3, -1e8 / 3, 1e15 / 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CONSTANT)
def test_what_does_not_vary_becomes_zero_not_nan(name, dtype, offset):
    kind, args, shape = CONSTANT[name]
    layer = kind(*args, dtype=dtype)
    x = mb.Tensor(np.full(shape, offset, dtype), requires_grad=True)
    y = layer(x)
    assert_array_equal(y.data, np.zeros(shape))
    y.backward(np.ones(shape, dtype))
    assert np.isfinite(x.grad).all()
    if getattr(layer, "running_var", None) is not None:
        assert_allclose(layer.running_var, 0.9, rtol=1e-6)
        assert_allclose(layer.running_mean, dtype(offset) * dtype(0.1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [1 / 3, 12345.678, 1e8 / 3, 1e20 / 3])
@pytest.mark.parametrize("m", [3, 8, 100, 1000])
def test_a_constant_column_among_others(dtype, offset, m):
    """Where the mean of equal numbers is rounded, x_hat is what that allows, and never NaN."""
    x = batch(m, 3, dtype=dtype)
    x[:, 1] = offset
    for value, error in (offset, m * np.finfo(dtype).eps * offset), (round(offset) % 1024, 0):
        x[:, 1] = value
        y = nn.BatchNorm1d(3, dtype=dtype)(x).data
        assert np.abs(y[:, 1]).max() <= min(error / 1e-5**0.5, 1 + np.finfo(dtype).eps)
        assert_allclose(y[:, [0, 2]].std(0), 1, rtol=1e-4)


def test_norms_refuse():
    with pytest.raises(ValueError, match=r"BatchNorm2d\(3.*takes \(m, c, h, w\) with 3 channels"):
        nn.BatchNorm2d(3)(batch(5, 3))
    with pytest.raises(ValueError, match=r"1 value per channel.*Train on larger batches"):
        nn.BatchNorm2d(3)(batch(1, 3, 1, 1))
    with pytest.raises(ValueError, match=r"value per channel.*more than one value per channel"):
        nn.InstanceNorm1d(3)(batch(5, 3, 1))
    with pytest.raises(ValueError, match="momentum=None is for batch norm"):
        nn.InstanceNorm1d(3, momentum=None)
    with pytest.raises(ValueError, match="num_channels=3 must be a multiple of num_groups=2"):
        nn.GroupNorm(2, 3)
    with pytest.raises(ValueError, match=r"takes \(m, 4, ...\), the channels on the second axis"):
        nn.GroupNorm(2, 4)(batch(5, 3))
    with pytest.raises(ValueError, match="one value per group has no variance"):
        nn.GroupNorm(4, 4)(batch(1, 4))
    for kind in nn.LayerNorm, nn.RMSNorm:
        with pytest.raises(ValueError, match=r"whose last axes must be \(3, 4\)"):
            kind((3, 4))(batch(4))
        with pytest.raises(ValueError, match=r"normalized_shape=\(\) must name at least one axis"):
            kind(())
        with pytest.raises(TypeError, match=r"normalized_shape=2\.5 must be an integer"):
            kind(2.5)
        with pytest.raises(ValueError, match=f"{kind.__name__}: eps=-1"):
            kind(3, eps=-1)
    with pytest.raises(TypeError, match="LayerNorm: eps=None"):
        nn.LayerNorm(3, eps=None)


def test_without_weights():
    assert [n for n, _ in nn.BatchNorm1d(3, bias=False).named_parameters()] == ["weight"]
    assert [n for n, _ in nn.LayerNorm(3, bias=False).named_parameters()] == ["weight"]
    assert [n for n, _ in nn.GroupNorm(1, 3, bias=False).named_parameters()] == ["weight"]
    for layer in nn.LayerNorm(3, elementwise_affine=False), nn.GroupNorm(1, 3, affine=False):
        assert not layer.state_dict()


# Convolution and pooling


def test_conv_by_hand():
    layer = nn.Conv2d(1, 1, 2, dtype=np.float64)
    layer.weight.data, layer.bias.data = [[[[1, 2], [3, 4]]]], [10]
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    want = [
        [0 + 2 + 9 + 16 + 10, 1 + 4 + 12 + 20 + 10],
        [3 + 8 + 18 + 28 + 10, 4 + 10 + 21 + 32 + 10],
    ]
    assert_array_equal(layer(x).data[0, 0], want)
    assert_array_equal(layer(x[0]).data[0], want)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": (1, 0)},
        {"dilation": (2, 1), "bias": False},
        {"groups": 2, "padding": "same"},
    ],
    ids=str,
)
def test_conv_by_loops_and_finite_differences(options):
    layer = nn.Conv2d(2, 4, (2, 3), dtype=np.float64, rng=0, **options)
    x = batch(2, 2, 5, 6)
    (sh, sw), (dh, dw), groups = layer.stride, layer.dilation, layer.groups
    margins = [(0, 1), (1, 1)] if layer.padding == "same" else [(p, p) for p in layer.padding]
    padded = np.pad(x, [(0, 0), (0, 0), *margins])
    y = layer(x).data
    want = np.zeros_like(y)
    for n, o, i, j in np.ndindex(y.shape):
        first = o // (4 // groups) * (2 // groups)
        for c, a, b in np.ndindex(layer.weight.shape[1:]):
            entry = padded[n, first + c, i * sh + a * dh, j * sw + b * dw]
            want[n, o, i, j] += layer.weight.data[o, c, a, b] * entry
    if layer.bias is not None:
        want += layer.bias.data[:, None, None]
    assert_allclose(y, want, rtol=1e-12, atol=1e-12)
    mb.check.gradcheck(layer, x)


def test_conv_begins_reproducibly():
    for p in nn.Conv2d(4, 64, 5, rng=0).parameters():
        assert p.dtype == np.float32
        assert 0.09 < np.abs(p.data).max() <= 0.1  # 1 / sqrt(4 * 5 * 5)
    one, two, other = (nn.Conv2d(2, 3, 2, rng=seed).state_dict() for seed in (1, 1, 2))
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert not np.array_equal(one["weight"], other["weight"])


def test_conv_refuses():
    with pytest.raises(ValueError, match=r"padding_mode='circular' is not available, only 'zeros'"):
        nn.Conv2d(2, 2, 3, padding_mode="circular")
    with pytest.raises(ValueError, match="must be multiples of groups=2"):
        nn.Conv2d(2, 3, 3, groups=2)
    with pytest.raises(ValueError, match=r"kernel_size=\(1, 2, 3\) must be an integer or two"):
        nn.Conv2d(2, 2, (1, 2, 3))
    with pytest.raises(ValueError, match="stride=0 must be at least 1"):
        nn.Conv2d(2, 2, 3, 0)
    with pytest.raises(ValueError, match="padding=-1 must be at least 0"):
        nn.Conv2d(2, 2, 3, padding=-1)
    with pytest.raises(TypeError, match=r"dilation=1\.5 must be an integer"):
        nn.Conv2d(2, 2, 3, dilation=1.5)
    with pytest.raises(ValueError, match="padding='same' keeps the size"):
        nn.Conv2d(2, 2, 3, stride=2, padding="same")
    with pytest.raises(ValueError, match="'same' or 'valid'"):
        nn.Conv2d(2, 2, 3, padding="full")
    with pytest.raises(TypeError, match="dtype cannot be int64"):
        nn.Conv2d(2, 2, 3, dtype=np.int64)
    with pytest.raises(ValueError, match=r"takes \(m, c, h, w\) or \(c, h, w\) with 2 channels"):
        nn.Conv2d(2, 2, 3)(batch(1, 3, 4, 4))


def test_pools_by_hand():
    x = np.array([[[[1.0, 7, 2], [3, 4, 0], [5, 6, 8]]]])
    assert_array_equal(nn.MaxPool2d(2, 1)(x), [[[[7, 7], [6, 8]]]])
    assert_array_equal(nn.MaxPool2d(2)(x), [[[[7]]]])
    assert_array_equal(nn.MaxPool2d(2, padding=1)(-x), [[[[-1, -2], [-3, 0]]]])
    assert_allclose(nn.AvgPool2d(2, 1)(x), [[[[3.75, 3.25], [4.5, 4.5]]]])
    assert_allclose(nn.AvgPool2d(2, padding=1)(x), [[[[0.25, 2.25], [2, 4.5]]]])
    without = nn.AvgPool2d(2, padding=1, count_include_pad=False)
    assert_allclose(without(x), [[[[1, 4.5], [4, 4.5]]]])
    for layer in nn.MaxPool2d(2, 1), nn.AvgPool2d((2, 1), padding=(1, 0)), without:
        mb.check.gradcheck(layer, batch(2, 3, 4, 5))


def test_pools_refuse():
    for kind in nn.MaxPool2d, nn.AvgPool2d:
        with pytest.raises(ValueError, match=f"{kind.__name__}: kernel_size=0 must be at least 1"):
            kind(0)
        with pytest.raises(ValueError, match="padding=2 must be at most half of kernel_size=3"):
            kind(3, padding=2)
        with pytest.raises(ValueError, match=f"{kind.__name__}: ceil_mode=True is not available"):
            kind(2, ceil_mode=True)
        with pytest.raises(ValueError, match="must be images"):
            kind(2)(batch(4, 4))
    with pytest.raises(ValueError, match=r"dilation=\(2, 1\) is not available"):
        nn.MaxPool2d(2, dilation=(2, 1))
    with pytest.raises(ValueError, match="return_indices=True is not available, only False"):
        nn.MaxPool2d(2, return_indices=True)
    with pytest.raises(ValueError, match="divisor_override=3 is not available, only None"):
        nn.AvgPool2d(2, divisor_override=3)


# Activations, dropout, shapes


def test_activations_by_hand():
    x = np.array([-2.0, 0.0, 1.0])
    assert_allclose(nn.Sigmoid()(x), [1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-1))])
    assert_allclose(nn.Tanh()(x), np.tanh(x))
    assert_allclose(nn.GELU()(x), [-0.0455002638963584, 0, 0.8413447460685429], atol=1e-15)
    assert_allclose(nn.GELU("tanh")(x), [-0.04540230591222508, 0, 0.8411919906082768])
    assert nn.Tanh()([0.0]).shape == nn.Sigmoid()([0]).shape == nn.ReLU()([0]).shape == (1,)
    for layer in nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.GELU("tanh"):
        mb.check.gradcheck(layer, batch(5), order=2)


def test_dropout_keeps_the_expectation_and_follows_its_seed():
    x = np.ones((200, 50), np.float32)
    y = nn.Dropout(0.2, rng=0)(x)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.8)}
    assert abs(y.mean() - 1) < 4 * 0.5 / 100  # four standard deviations of the mean
    assert y.dtype == np.float32
    layer, again, other = nn.Dropout(rng=1), nn.Dropout(rng=1), nn.Dropout(rng=2)
    first = layer(x)
    assert_array_equal(first, again(x))
    assert not np.array_equal(first, layer(x))
    assert not np.array_equal(first, other(x))
    assert_array_equal(layer.eval()(x), x)
    assert_array_equal(nn.Dropout(1.0)(x), np.zeros_like(x))


def test_the_gradient_of_dropout_is_its_mask():
    x = mb.Tensor(np.ones(100), requires_grad=True)
    y = nn.Dropout(0.5, rng=0)(x)
    y.sum().backward()
    assert_array_equal(x.grad, y.data)


def test_activations_refuse():
    for p in -0.1, 1.1, np.nan:
        with pytest.raises(ValueError, match=r"p=.* must lie in"):
            nn.Dropout(p)
    with pytest.raises(TypeError, match="p='half'"):
        nn.Dropout("half")
    for kind, args in (nn.Dropout, (0.5, True)), (nn.ReLU, (True,)):
        with pytest.raises(ValueError, match="inplace=True is not available, only False: what is"):
            kind(*args)
    with pytest.raises(ValueError, match="approximate='erf' must be"):
        nn.GELU("erf")
    with pytest.raises(ValueError, match=r"Flatten\(start_dim=2.*first must not come after"):
        nn.Flatten(2, 1)(batch(2, 3, 4))
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\)"):
        nn.Flatten()(batch(3))
    with pytest.raises(TypeError, match=r"start_dim=1\.0 must be an integer"):
        nn.Flatten(1.0)


@pytest.mark.parametrize(
    ("dims", "shape"), [((), (2, 12)), ((0,), (24,)), ((0, 1), (6, 4)), ((-1,), (2, 3, 4))]
)
def test_flatten(dims, shape):
    x = mb.Tensor(batch(2, 3, 4), requires_grad=True)
    y = nn.Flatten(*dims)(x)
    assert_array_equal(y.data, x.data.reshape(shape))
    y.backward(np.arange(24.0).reshape(shape))
    assert_array_equal(x.grad, np.arange(24.0).reshape(2, 3, 4))
    assert nn.Flatten()(np.zeros((0, 3, 2))).shape == (0, 6)


# What modules have in common


def network():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, rng=0),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Sequential(nn.MaxPool2d(2), nn.Flatten()),
        nn.Dropout(0.5, rng=0),
        nn.Linear(8, 3, rng=0),
    )


def test_a_small_convolutional_network_learns():
    rng, net = np.random.default_rng(0), network()
    x = rng.normal(size=(12, 1, 6, 6)).astype(np.float32)
    targets = rng.integers(0, 3, 12)
    optimizer = mb.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        mb.functional.cross_entropy(net(x), targets).backward()
        optimizer.step()
    assert (net.eval()(x).data.argmax(1) == targets).mean() > 0.9
    assert net.state_dict()["1.num_batches_tracked"] == 60


def test_scopes_of_norms_and_convolutions():
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.InstanceNorm2d(2), nn.GroupNorm(1, 2), nn.Flatten())
    y = net(batch(2, 1, 4, 4, dtype=np.float32))
    found = {t.scope for t, _ in mb.backprop(y, np.ones(y.shape)) if t.op}
    assert {("0", "conv2d"), ("1", "instance_norm"), ("2", "group_norm"), ("3",)} <= found


def test_apply_goes_through_the_parts_first():
    net, seen = network(), []
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen[-1] == "Sequential"
    assert seen[3:6] == ["MaxPool2d", "Flatten", "Sequential"]
    assert len(seen) == 9


def test_freezing_everything_and_back():
    net = network()
    assert net.requires_grad_(False) is net
    assert not any(p.requires_grad for p in net.parameters())
    x = batch(4, 1, 6, 6, dtype=np.float32)
    assert not net(x).requires_grad
    assert net[1].num_batches_tracked == 1
    net.eval()(x)
    assert net[1].num_batches_tracked == 1
    net[5].requires_grad_()
    net(x).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is not None] == [
        "5.weight",
        "5.bias",
    ]


def test_parts_can_be_added_by_name():
    net = nn.Sequential(nn.Linear(2, 3))
    net.add_module("norm", nn.BatchNorm1d(3))
    net.add_module("later", None)
    assert [name for name, _ in net.named_children()] == ["0", "norm"]
    assert net(batch(4, 2)).shape == (4, 3)
    net.add_module("later", nn.ReLU())
    assert list(net)[-1] is net.later
    for name, kind in ("", ValueError), ("a.b", ValueError), ("train", ValueError), (1, TypeError):
        with pytest.raises(kind, match="add_module"):
            net.add_module(name, nn.ReLU())
    with pytest.raises(TypeError, match="takes a Module, not"):
        net.add_module("x", np.zeros(2))


def test_buffers_that_are_no_part_of_the_state():
    net = nn.Module()
    net.register_buffer("kept", np.zeros(2))
    net.register_buffer("passing", np.ones(2), persistent=False)
    assert [name for name, _ in net.named_buffers()] == ["kept", "passing"]
    assert list(net.state_dict()) == ["kept"]
    net.load_state_dict({"kept": [1, 2]})
    assert_array_equal(net.passing, np.ones(2))
    net.register_buffer("passing", np.ones(2))
    assert list(net.state_dict()) == ["kept", "passing"]
    with pytest.raises(ValueError, match=r"register_buffer: the name 'a\.b' must not"):
        net.register_buffer("a.b", np.zeros(2))
