"""Every layer beside PyTorch's, over random configurations: results, gradients, statistics, states.

In float64 both must agree. In float32 neither is right: both are compared with PyTorch in float64,
and ours may be wrong by a small multiple of what PyTorch is, of what the result changes by when
every number that goes into it is rounded once more, and of one rounding of the terms of a sum.
"""

import copy
import inspect
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb

torch = pytest.importorskip("torch")

EACH = 36  # configurations of each layer
SEEN = {
    "configurations": 0,
    "batches": 0,
    "float32": 0.0,
    "float64": 0.0,
}  # and the largest differences


@pytest.fixture(scope="module", autouse=True)
def report():
    """Say at the end how much was compared; seen with ``pytest -s``."""
    yield
    print("\ncompared with PyTorch:", SEEN)


# Random configurations: each is (arguments, options, shape of x), drawn by a generator


def one(rng, *values):
    return values[rng.integers(len(values))]


def statistics(rng, **defaults):
    return {
        "eps": one(rng, 1e-5, 1e-3, 0.1),
        "momentum": one(rng, 0.1, 0.7, 0.0, 1.0),
        "affine": one(rng, True, True, False),
        "track_running_stats": one(rng, True, True, False),
    } | defaults


def batch_norm_1d(rng):
    options = statistics(rng, momentum=one(rng, 0.1, 0.7, 0.0, 1.0, None))
    shape = (int(rng.integers(2, 9)), d := int(rng.integers(1, 6)))
    return (d,), options, one(rng, shape, (*shape, 1), (*shape, 4), (1, d, 3), (64, d))


def batch_norm_2d(rng):
    options = statistics(rng, momentum=one(rng, 0.1, 0.7, None))
    d, h, w = (int(n) for n in rng.integers(1, 5, 3))
    return (d,), options, one(rng, (3, d, h, w), (2, d, 1, 1), (1, d, h + 1, w))


def instance_norm_1d(rng):
    d, length = (int(n) for n in rng.integers(2, 6, 2))
    return (d,), statistics(rng), one(rng, (3, d, length), (1, d, length), (d, length))


def instance_norm_2d(rng):
    d, h, w = (int(n) for n in rng.integers(2, 5, 3))
    return (d,), statistics(rng), one(rng, (3, d, h, w), (1, d, h, 1), (d, h, w))


def layer_norm(rng):
    a, b = (int(n) for n in rng.integers(1, 7, 2))
    options = {"elementwise_affine": one(rng, True, False), "bias": one(rng, True, False)}
    args, shape = one(rng, ((b,), (3, b)), ((b,), (b,)), (((a, b),), (3, a, b)), ((b,), (2, a, b)))
    return args, options | {"eps": one(rng, 1e-5, 0.1)}, shape


def rms_norm(rng):
    args, options, shape = layer_norm(rng)
    return args, {**options, "eps": one(rng, None, 1e-5, 0.1), "bias": None}, shape


def group_norm(rng):
    groups, size, length = (int(n) for n in rng.integers(1, 4, 3))
    options = {"eps": one(rng, 1e-5, 0.1), "affine": one(rng, True, False)}
    c = groups * size
    return (groups, c), options, one(rng, (3, c, length), (2, c), (2, c, length, 2), (1, c, 2, 2))


def linear(rng):
    i, o = (int(n) for n in rng.integers(1, 30, 2))
    return (i, o), {"bias": one(rng, True, False)}, one(rng, (4, i), (i,), (2, 3, i))


def conv_2d(rng):
    groups = one(rng, 1, 1, 2, 3)
    i, o = (int(n) * groups for n in rng.integers(1, 4, 2))
    options = {
        "stride": one(rng, 1, 2, (1, 2)),
        "padding": one(rng, 0, 1, (0, 2), "same", "valid"),
        "dilation": one(rng, 1, 1, 2, (2, 1)),
        "groups": groups,
        "bias": one(rng, True, False),
    }
    if options["padding"] == "same":
        options["stride"] = 1
    h, w = (int(n) for n in rng.integers(5, 9, 2))
    return (i, o, one(rng, 1, 2, 3, (1, 3), (3, 2))), options, (int(rng.integers(1, 4)), i, h, w)


def max_pool(rng):
    size = one(rng, 2, 3, (2, 3))
    options = {"stride": one(rng, None, 1, 2, (2, 1)), "padding": one(rng, 0, 1, (1, 0))}
    h, w = (int(n) for n in rng.integers(4, 9, 2))
    return (size,), options, (2, 3, h, w)


def avg_pool(rng):
    args, options, shape = max_pool(rng)
    return args, options | {"count_include_pad": one(rng, True, False)}, shape


def anything(rng):
    return (), {}, one(rng, (5,), (3, 4), (2, 3, 4), (1,))


def gelu(rng):
    return (one(rng, "none", "tanh"),), {}, one(rng, (5,), (3, 4), (64, 4))


def dropout(rng):
    return (one(rng, 0.0, 1.0),), {}, one(rng, (5,), (3, 4))


def flatten(rng):
    return one(rng, (), (0,), (1, 2), (0, 1), (-2, -1), (2, 2), (0, 0)), {}, (2, 3, 4)


LAYERS = {
    "BatchNorm1d": batch_norm_1d,
    "BatchNorm2d": batch_norm_2d,
    "InstanceNorm1d": instance_norm_1d,
    "InstanceNorm2d": instance_norm_2d,
    "LayerNorm": layer_norm,
    "RMSNorm": rms_norm,
    "GroupNorm": group_norm,
    "Linear": linear,
    "Conv2d": conv_2d,
    "MaxPool2d": max_pool,
    "AvgPool2d": avg_pool,
    "ReLU": anything,
    "Sigmoid": anything,
    "Tanh": anything,
    "GELU": gelu,
    "Dropout": dropout,
    "Flatten": flatten,
}
LEARNING = set(list(LAYERS)[:9])  # those that have a dtype


def configurations(name):
    """Yield generators of numbers, and with each the configuration drawn from it."""
    for seed in range(EACH):
        rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
        args, options, shape = LAYERS[name](rng)
        options = {k: v for k, v in options.items() if v is not None or k in ("eps", "momentum")}
        yield rng, SimpleNamespace(name=name, args=args, options=options, shape=shape, seed=seed)


def both(c, dtype, rng):
    """Make the layer twice, with the same random weights; the states must look alike before."""
    dtypes = ({"dtype": dtype}, {"dtype": to_dtype(dtype)}) if c.name in LEARNING else ({}, {})
    ours = getattr(mb.nn, c.name)(*c.args, **c.options, **dtypes[0])
    theirs = getattr(torch.nn, c.name)(*c.args, **c.options, **dtypes[1])
    assert repr(ours) == repr(theirs)
    assert_alike(ours.state_dict(), to_numpy(theirs.state_dict()))
    for p in ours.parameters():
        p.data = rng.normal(size=p.shape)
    theirs.load_state_dict(to_torch(ours.state_dict()))
    return ours, theirs


def assert_alike(ours, theirs):
    assert [(k, v.shape, v.dtype) for k, v in ours.items()] == [
        (k, v.shape, v.dtype) for k, v in theirs.items()
    ]


def to_dtype(dtype):
    return getattr(torch, np.dtype(dtype).name)


def to_torch(state):
    return {key: torch.from_numpy(value) for key, value in state.items()}


def to_numpy(state):
    return {key: value.detach().numpy().copy() for key, value in state.items()}


def run_ours(model, x, g):
    """Go forward and backward; return the result, every gradient and every buffer."""
    x = mb.Tensor(x, requires_grad=True)
    model.zero_grad()
    y = model(x)
    y.backward(g)
    found = {"y": y.data, "dx": x.grad}
    found |= {f"d{name}": p.grad for name, p in model.named_parameters()}
    return found | dict(model.named_buffers())


def run_theirs(model, x, g):
    x = torch.tensor(x, requires_grad=True)
    model.zero_grad()
    y = model(x)
    y.backward(torch.tensor(g))
    found = {"y": y, "dx": x.grad}
    found |= {f"d{name}": p.grad for name, p in model.named_parameters()}
    return to_numpy(found | dict(model.named_buffers()))


def steps(c, rng, theirs, dtype):
    """Yield several batches, with the directions to start backward from, and the mode."""
    shape = tuple(copy.deepcopy(theirs)(torch.zeros(c.shape, dtype=to_dtype(dtype))).shape)
    for training in (True, True, False, True, False) if "Norm" in c.name else (True, False):
        x = rng.normal(one(rng, 0, 3), one(rng, 0.1, 1, 10), c.shape)
        yield x, rng.normal(size=shape), training


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_in_float64_all_numbers_are_those_of_pytorch(name):
    for rng, c in configurations(name):
        ours, theirs = both(c, np.float64, rng)
        for x, g, training in steps(c, rng, theirs, np.float64):
            got = run_ours(ours.train(training), x, g)
            want = run_theirs(theirs.train(training), x, g)
            assert_alike(got, want)
            SEEN["batches"] += 1
            for key, value in want.items():
                off = np.abs(got[key] - value).max() / max(1, np.abs(value).max())
                assert off <= 1e-10, (c, key, training)
                SEEN["float64"] = max(SEEN["float64"], float(off))
        fresh, _ = both(c, np.float64, rng)
        fresh.load_state_dict(to_numpy(theirs.state_dict()))
        assert_allclose(fresh.eval()(x).data, want["y"], rtol=1e-10, atol=1e-10)
        SEEN["configurations"] += 1


def summed(model, x, g):
    """How large the terms are that the gradient of x is the sum of, even if they cancel out."""
    x, total = mb.Tensor(x, requires_grad=True), 0.0
    for tensor, cotangent in mb.backprop(copy.deepcopy(model)(x), g):
        if tensor.op is not None:
            edges = mb.engine.pullback(tensor, cotangent)
            total += sum(np.abs(term.data).max() for _, to, _, term in edges if to is x)
    return total


def moved(value, rng, eps):
    """Round every number of an array once more, by up to ``eps``."""
    return value * (1 + eps * rng.uniform(-1, 1, value.shape))


def moved_model(model, rng, eps):
    twin = copy.deepcopy(model)
    state = {
        k: moved(v, rng, eps) if v.shape else v for k, v in to_numpy(twin.state_dict()).items()
    }
    twin.load_state_dict(to_torch(state))
    return twin


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_in_float32_it_is_no_worse_than_pytorch(name):
    eps = float(np.finfo(np.float32).eps)
    for rng, c in configurations(name):
        ours, theirs = both(c, np.float32, rng)
        exact = copy.deepcopy(theirs).double()
        if name == "RMSNorm" and c.options["eps"] is None:
            exact.eps = eps  # that of float32
        for x, g, training in steps(c, rng, theirs, np.float32):
            x, g = x.astype(np.float32), g.astype(np.float32)
            wide = x.astype(np.float64), g.astype(np.float64)
            for model in ours, theirs, exact:
                model.train(training)
            twin = moved_model(exact, rng, eps)
            got, peer = run_ours(ours, x, g), run_theirs(theirs, x, g)
            want = run_theirs(exact, *wide)
            near = run_theirs(twin, *(moved(a, rng, eps) for a in wide))
            assert_alike(got, peer)
            terms = summed(ours, x, g)
            for key, value in want.items():
                theirs_off, change = (np.abs(a[key] - value).max() for a in (peer, near))
                size = np.abs(value).max() + (terms if key == "dx" else 0)
                bound = 4 * theirs_off + 4 * change + 4 * eps * size
                off = np.abs(got[key] - value).max()
                assert off <= bound, (c, key, training, off, theirs_off, change)
                SEEN["float32"] = max(SEEN["float32"], float(off / bound) if off else 0.0)


# Networks that learn side by side


def mlp(nn, dtype, rng=None):
    drawn = {} if rng is None else {"rng": rng}
    return nn.Sequential(
        nn.Linear(8, 16, dtype=dtype, **drawn),
        nn.BatchNorm1d(16, dtype=dtype),
        nn.ReLU(),
        nn.Linear(16, 12, bias=False, dtype=dtype, **drawn),
        nn.BatchNorm1d(12, momentum=None, dtype=dtype),
        nn.GELU(),
        nn.LayerNorm(12, dtype=dtype),
        nn.Linear(12, 5, dtype=dtype, **drawn),
    )


def convolutional(nn, dtype, rng=None):
    drawn = {} if rng is None else {"rng": rng}
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False, dtype=dtype, **drawn),
        nn.BatchNorm2d(4, dtype=dtype),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, dtype=dtype, **drawn),
        nn.GroupNorm(2, 6, dtype=dtype),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 5, dtype=dtype, **drawn),
    )


NETWORKS = {mlp: (16, 8), convolutional: (8, 2, 8, 8)}
OPTIMIZERS = {"SGD": {"lr": 0.05, "momentum": 0.9}, "Adam": {"lr": 0.01}}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_fifty_steps_of_training_side_by_side(network, optimizer):
    if not hasattr(mb.optim, optimizer):
        pytest.xfail(f"mb.optim has no {optimizer}")
    ours = network(mb.nn, np.float64, np.random.default_rng(0))
    theirs = network(torch.nn, torch.float64)
    theirs.load_state_dict(to_torch(ours.state_dict()))
    options = OPTIMIZERS[optimizer]
    climbers = [
        getattr(mb.optim, optimizer)(ours.parameters(), **options),
        getattr(torch.optim, optimizer)(theirs.parameters(), **options),
    ]
    x, losses, most = np.random.default_rng(1).normal(size=(5, *NETWORKS[network])), [], 0.0
    for batch in [*x] * 10:
        targets = batch.reshape(len(batch), -1)[:, :5].argmax(1)
        for climber in climbers:
            climber.zero_grad()
        loss = mb.functional.cross_entropy(ours(batch), targets)
        logits = theirs(torch.from_numpy(batch))
        theirs_loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets))
        loss.backward()
        theirs_loss.backward()
        for climber in climbers:
            climber.step()
        assert_allclose(loss.item(), theirs_loss.item(), rtol=1e-9)
        losses.append(loss.item())
        want = to_numpy(theirs.state_dict())
        for key, value in ours.state_dict().items():
            assert_allclose(value, want[key], rtol=1e-9, atol=1e-9, err_msg=key)
            most = max(most, float(np.abs(value - want[key]).max()))
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    SEEN[f"{network.__name__} {optimizer}"] = most
    x = np.random.default_rng(2).normal(size=NETWORKS[network])
    want = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    assert_allclose(ours.eval()(x).data, want, rtol=1e-9, atol=1e-9)


# Single things


@pytest.mark.parametrize(
    ("name", "args", "shape"),
    [
        ("BatchNorm1d", (3,), (1, 3)),
        ("BatchNorm1d", (3,), (4,)),
        ("BatchNorm1d", (3,), (5, 4)),
        ("BatchNorm2d", (3,), (1, 3, 1, 1)),
        ("BatchNorm2d", (3,), (2, 3, 4)),
        ("InstanceNorm1d", (3,), (2, 3, 1)),
        ("InstanceNorm2d", (3,), (2, 3, 1, 1)),
        ("InstanceNorm1d", (3,), (3,)),
        ("GroupNorm", (3, 3), (1, 3)),
        ("GroupNorm", (3, 3), (3,)),
        ("GroupNorm", (2, 4), (2, 3)),
        ("LayerNorm", (3,), (2, 4)),
        ("LayerNorm", ((2, 3),), (3,)),
        ("RMSNorm", (3,), (2, 4)),
        ("Linear", (3, 2), (2, 4)),
        ("Conv2d", (2, 3, 3), (1, 3, 4, 4)),
        ("Conv2d", (2, 3, 5), (1, 2, 4, 4)),
        ("Conv2d", (2, 3, 1), (2, 4)),
        ("MaxPool2d", (5,), (1, 2, 4, 4)),
        ("AvgPool2d", (5,), (1, 2, 4, 4)),
        ("MaxPool2d", (2,), (4, 4)),
        ("Flatten", (2, 1), (2, 3, 4)),
        ("Flatten", (1,), (3,)),
        ("Flatten", (0, 3), (2, 3)),
    ],
)
def test_the_same_inputs_are_refused(name, args, shape):
    for nn, x in (torch.nn, torch.ones(shape)), (mb.nn, np.ones(shape, np.float32)):
        layer = getattr(nn, name)(*args)
        with pytest.raises((ValueError, RuntimeError, IndexError)) as caught:
            layer(x)
    assert isinstance(caught.value, ValueError)
    assert (
        name in str(caught.value) or "pool2d" in str(caught.value) or "conv2d" in str(caught.value)
    )


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("Conv2d", (2, 3, 3), {"groups": 2}),
        ("Conv2d", (3, 2, 3), {"groups": 2}),
        ("Conv2d", (2, 2, 3), {"groups": 0}),
        ("Conv2d", (2, 2, 3), {"padding": "same", "stride": 2}),
        ("Conv2d", (2, 2, 3), {"padding": "full"}),
        ("Conv2d", (2, 2, 3), {"padding_mode": "mirror"}),
        ("GroupNorm", (2, 3), {}),
        ("Dropout", (1.5,), {}),
        ("Dropout", (-0.1,), {}),
    ],
)
def test_the_same_arguments_are_refused(name, args, options):
    for nn in torch.nn, mb.nn:
        with pytest.raises(ValueError, match=r".+"):
            getattr(nn, name)(*args, **options)


def test_the_same_shapes_of_nothing():
    for name, args, shape in [
        ("Linear", (3, 2), (0, 3)),
        ("BatchNorm1d", (3,), (0, 3)),
        ("BatchNorm2d", (3,), (0, 3, 2, 2)),
        ("Flatten", (), (0, 3, 2)),
        ("ReLU", (), (0, 3)),
    ]:
        want = getattr(torch.nn, name)(*args).eval()(torch.ones(shape)).shape
        got = getattr(mb.nn, name)(*args).eval()(np.ones(shape, np.float32)).shape
        assert got == tuple(want)


@pytest.mark.parametrize("name", [*LAYERS, "Identity"])
def test_the_arguments_have_pytorchs_names_order_and_defaults(name):
    ours, theirs = (
        {
            p.name: (p.default, p.kind)
            for p in inspect.signature(getattr(nn, name)).parameters.values()
            if p.name not in ("dtype", "device", "rng", "args", "kwargs")
        }
        for nn in (mb.nn, torch.nn)
    )
    assert list(ours.items()) == list(theirs.items())


@pytest.mark.parametrize("name", [n for n in dir(mb.nn.init) if n.endswith("_") and n[0] != "_"])
def test_initialisers_have_pytorchs_arguments(name):
    ours, theirs = (
        inspect.signature(getattr(nn.init, name)).parameters for nn in (mb.nn, torch.nn)
    )
    names = [n for n in theirs if n != "generator"]
    assert list(ours)[1:] == names[1:] + ["rng"] * ("generator" in theirs)
    for n in names[1:]:
        assert ours[n].default == theirs[n].default


def test_every_repr_is_pytorchs():
    def layers(nn):
        return [
            nn.Linear(3, 4, bias=False),
            nn.Conv2d(2, 4, (3, 2), stride=2, padding=1, dilation=2, groups=2, bias=False),
            nn.Conv2d(2, 4, 3, padding="same"),
            nn.BatchNorm2d(3, bias=False),
            nn.LayerNorm((2, 3), elementwise_affine=False),
            nn.LayerNorm(3, bias=False),
            nn.GroupNorm(2, 4, bias=False),
            nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
            nn.RMSNorm((2, 3), eps=1e-3),
            nn.MaxPool2d((2, 3), stride=1, padding=1),
            nn.AvgPool2d((2, 2), 1, 1),
            nn.Sequential(nn.Flatten(0), nn.Identity(), nn.Dropout(0.25), nn.ReLU(), nn.GELU()),
            nn.Sequential(nn.Sequential(nn.Sigmoid()), nn.Tanh()),
        ]

    for ours, theirs in zip(layers(mb.nn), layers(torch.nn), strict=True):
        assert repr(ours) == repr(theirs)


# Initialisers


SHAPES = [(5, 7), (4, 3, 3), (6, 2, 3, 5)]
KAIMING = [
    {},
    {"a": 0.3},
    {"a": 5**0.5},
    {"mode": "fan_out"},
    {"nonlinearity": "relu"},
    {"mode": "fan_out", "nonlinearity": "tanh"},
    {"nonlinearity": "linear"},
]


def theirs_spread(monkeypatch, name, shape, **options):
    """The bounds or the standard deviation that PyTorch draws with."""
    drawn = []

    def note(tensor, *spread, generator=None):
        drawn.append(spread)

    for method in "uniform_", "normal_":
        monkeypatch.setattr(torch.Tensor, method, note)
    getattr(torch.nn.init, name)(torch.empty(shape), **options)
    monkeypatch.undo()
    return drawn[0]


class Noted(np.random.Generator):
    """A generator that notes what it is asked for."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))
        self.drawn = []

    def uniform(self, low, high, size):
        self.drawn.append((low, high))
        return super().uniform(low, high, size)

    def normal(self, mean, std, size):
        self.drawn.append((mean, std))
        return super().normal(mean, std, size)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["uniform_", "normal_"])
def test_initialisers_draw_from_the_same_distribution(shape, kind, monkeypatch):
    cases = [(f"kaiming_{kind}", options) for options in KAIMING]
    cases += [(f"xavier_{kind}", options) for options in ({}, {"gain": 5 / 3})]
    for name, options in cases:
        want = theirs_spread(monkeypatch, name, shape, **options)
        rng = Noted()
        p = mb.nn.Parameter(np.zeros(shape))
        assert getattr(mb.nn.init, name)(p, **options, rng=rng) is p
        assert_allclose(rng.drawn, [want], rtol=1e-15)
        assert p.data.any()


def test_layers_begin_within_the_bounds_of_pytorchs(monkeypatch):
    for name, args in ("Linear", (6, 4)), ("Conv2d", (4, 6, (2, 3))):
        drawn = []
        monkeypatch.setattr(
            torch.nn.init,
            "_no_grad_uniform_" if hasattr(torch.nn.init, "_no_grad_uniform_") else "uniform_",
            lambda tensor, a, b, generator=None, drawn=drawn: drawn.append((a, b)),
        )
        monkeypatch.setattr(
            torch.Tensor,
            "uniform_",
            lambda _, a, b, generator=None, drawn=drawn: drawn.append((a, b)),
        )
        getattr(torch.nn, name)(*args)
        monkeypatch.undo()
        rng = Noted()
        layer = getattr(mb.nn, name)(*args, rng=rng)
        assert_allclose(rng.drawn, drawn, rtol=1e-15)
        assert all(
            np.abs(p.data).max() <= b for p, (_, b) in zip(layer.parameters(), drawn, strict=True)
        )


def test_gains_are_those_of_pytorch():
    for name in "linear conv2d sigmoid tanh relu selu leaky_relu".split():
        assert mb.nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    for slope in 0, 0.2, 5**0.5:
        got = mb.nn.init.calculate_gain("leaky_relu", slope)
        assert got == torch.nn.init.calculate_gain("leaky_relu", slope)
    for wrong in ("swish",), ("leaky_relu", True), ("leaky_relu", "steep"):
        for init in mb.nn.init, torch.nn.init:
            with pytest.raises(ValueError, match=r".+"):
                init.calculate_gain(*wrong)


def test_precise_statistics_of_equal_batches_lie_beside_pytorchs():
    """PyTorch's averages batch variances; ours has the variance of the means in it."""
    data = np.random.default_rng(0).normal(2, 3, (6, 16, 8))
    ours = mlp(mb.nn, np.float64, 0)
    theirs = mlp(torch.nn, torch.float64)
    theirs.load_state_dict(to_torch(ours.state_dict()))
    mb.nn.update_batch_norm(ours, data)
    torch.optim.swa_utils.update_bn(torch.from_numpy(data), theirs)
    got, want = ours.state_dict(), to_numpy(theirs.state_dict())
    for key in got:
        if "running_mean" in key or "tracked" in key:
            assert_allclose(got[key], want[key], rtol=1e-12)
    means = np.array([ours[0](x).data.mean(0) for x in data])
    apart = 16 * ((means - means.mean(0)) ** 2).sum(0)
    n = 6 * 16
    want = (want["1.running_var"] * 6 * 15 + apart) / (n - 1)
    assert_allclose(got["1.running_var"], want, rtol=1e-12)


def test_folding_gives_what_pytorchs_does():
    from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

    rng = np.random.default_rng(0)
    for bias in True, False:
        for nn_args, norm, fuse in [
            (("Linear", 3, 4), "BatchNorm1d", fuse_linear_bn_eval),
            (("Conv2d", 4, 4, 3, 1, 0, 1, 2), "BatchNorm2d", fuse_conv_bn_eval),
        ]:
            name, *sizes = nn_args
            ours = [
                getattr(mb.nn, name)(*sizes, bias=bias, dtype=np.float64, rng=rng),
                getattr(mb.nn, norm)(4, dtype=np.float64).eval(),
            ]
            theirs = [
                getattr(torch.nn, name)(*sizes, bias=bias, dtype=torch.float64),
                getattr(torch.nn, norm)(4, dtype=torch.float64).eval(),
            ]
            ours[1].running_mean, ours[1].running_var = rng.normal(size=4), rng.uniform(1, 2, 4)
            ours[1].weight.data, ours[1].bias.data = rng.normal(size=(2, 4))
            for a, b in zip(ours, theirs, strict=True):
                b.load_state_dict(to_torch(a.state_dict()))
            got, want = (
                mb.nn.fold(*ours).state_dict(),
                to_numpy(fuse(*(m.eval() for m in theirs)).state_dict()),
            )
            assert list(got) == list(want)
            for key, value in got.items():
                assert_allclose(value, want[key], rtol=1e-13, atol=1e-14)


def test_a_state_in_float32_goes_there_and_back_unchanged():
    ours = convolutional(mb.nn, np.float32, np.random.default_rng(0))
    theirs = convolutional(torch.nn, torch.float32)
    theirs.load_state_dict(to_torch(ours.state_dict()))
    theirs(torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    ours.load_state_dict(theirs.state_dict())
    want = to_numpy(theirs.state_dict())
    assert_alike(ours.state_dict(), want)
    for key, value in ours.state_dict().items():
        assert_array_equal(value, want[key])
