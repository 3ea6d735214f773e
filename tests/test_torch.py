"""The same model in PyTorch: the same numbers, over several batches, and states that move over."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn.testing import assert_gradients_match

torch = pytest.importorskip("torch")


def to_torch(state):
    return {key: torch.from_numpy(value) for key, value in state.items()}


def to_numpy(state):
    return {key: value.numpy() for key, value in state.items()}


def batch(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(1, 2, shape).astype(dtype)


def random_affine(layer, seed=0):
    """Give a batch norm weights that are neither one nor zero."""
    if layer.affine:
        rng = np.random.default_rng(seed)
        layer.weight.data = rng.normal(size=layer.num_features)
        layer.bias.data = rng.normal(size=layer.num_features)


def assert_same_states(ours, theirs, **tolerance):
    got, want = ours.state_dict(), to_numpy(theirs.state_dict())
    assert list(got) == list(want)
    for key, value in got.items():
        assert (value.shape, value.dtype) == (want[key].shape, want[key].dtype)
        assert_allclose(value, want[key], err_msg=key, **tolerance)


def step(ours, theirs, x, g, **tolerance):
    """Go forward and backward in both; compare results and every gradient."""
    x_ours = mb.Tensor(x, requires_grad=True)
    x_theirs = torch.tensor(x, requires_grad=True)
    for model in ours, theirs:
        model.zero_grad()
    y_ours, y_theirs = ours(x_ours), theirs(x_theirs)
    y_ours.backward(g)
    y_theirs.backward(torch.from_numpy(g))
    assert_allclose(y_ours.data, y_theirs.detach().numpy(), err_msg="y", **tolerance)
    assert_allclose(x_ours.grad, x_theirs.grad.numpy(), err_msg="x", **tolerance)
    pairs = zip(ours.named_parameters(), theirs.named_parameters(), strict=True)
    for (name, p), (same_name, q) in pairs:
        assert name == same_name
        assert_allclose(p.grad, q.grad.numpy(), err_msg=name, **tolerance)


EXACT = {"rtol": 1e-10, "atol": 1e-12}
SINGLE = {"rtol": 1e-4, "atol": 2e-5}  # float32, sums over at most 64 products of order 1


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, EXACT), (np.float32, SINGLE)])
def test_linear(shape, bias, dtype, tolerance):
    ours = mb.nn.Linear(3, 4, bias, dtype=dtype, rng=0)
    theirs = torch.nn.Linear(3, 4, bias, dtype=getattr(torch, np.dtype(dtype).name))
    theirs.load_state_dict(to_torch(ours.state_dict()))
    g = batch(*shape[:-1], 4, seed=1, dtype=dtype)
    step(ours, theirs, batch(*shape, dtype=dtype), g, **tolerance)


@pytest.mark.parametrize("shape", [(3,), (3, 4)])
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_batch_norm_over_successive_batches(shape, momentum, affine, track):
    options = {"momentum": momentum, "affine": affine, "track_running_stats": track, "eps": 1e-3}
    ours = mb.nn.BatchNorm1d(3, dtype=np.float64, **options)
    theirs = torch.nn.BatchNorm1d(3, dtype=torch.float64, **options)
    random_affine(ours)
    theirs.load_state_dict(to_torch(ours.state_dict()))
    for k, training in enumerate([True, True, False, True, False]):
        ours.train(training)
        theirs.train(training)
        x, g = batch(4 + k, *shape, seed=k), batch(4 + k, *shape, seed=-k % 97)
        step(ours, theirs, x, g, **EXACT)
        assert_same_states(ours, theirs, **EXACT)


def test_batch_norm_in_float32():
    ours, theirs = mb.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    assert_same_states(ours, theirs)
    for k in range(3):
        x = batch(32, 3, seed=k, dtype=np.float32)
        step(ours, theirs, x, batch(32, 3, seed=9, dtype=np.float32), **SINGLE)
        assert_same_states(ours, theirs, **SINGLE)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)])
@pytest.mark.parametrize("track", [True, False])
def test_both_refuse_one_value_per_channel(shape, track):
    for nn, x in (mb.nn, batch(*shape)), (torch.nn, torch.ones(shape)):
        layer = nn.BatchNorm1d(3, track_running_stats=track)
        if track:
            layer.eval()(x)
        with pytest.raises(ValueError, match="value"):
            layer.train(track)(x)


def networks(dtype):
    """Return the same small network in both, with the same weights."""
    rng = np.random.default_rng(0)
    ours = mb.nn.Sequential(
        mb.nn.Linear(8, 16, dtype=dtype, rng=rng),
        mb.nn.BatchNorm1d(16, dtype=dtype),
        mb.nn.ReLU(),
        mb.nn.Linear(16, 12, bias=False, dtype=dtype, rng=rng),
        mb.nn.BatchNorm1d(12, momentum=None, dtype=dtype),
        mb.nn.ReLU(),
        mb.nn.Linear(12, 5, dtype=dtype, rng=rng),
    )
    theirs = torch.nn.Sequential(
        torch.nn.Linear(8, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 12, bias=False),
        torch.nn.BatchNorm1d(12, momentum=None),
        torch.nn.ReLU(),
        torch.nn.Linear(12, 5),
    ).to(getattr(torch, np.dtype(dtype).name))
    theirs.load_state_dict(to_torch(ours.state_dict()))
    return ours, theirs


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        {},
    ],
    ids=str,
)
def test_sgd_on_a_network_with_batch_norm(options):
    ours, theirs = networks(np.float64)
    optimizers = (
        mb.optim.SGD(ours.parameters(), **options),
        torch.optim.SGD(theirs.parameters(), **options),
    )
    for k in range(20):
        x, targets = batch(16, 8, seed=k), np.random.default_rng(k).integers(0, 5, 16)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = mb.functional.cross_entropy(ours(x), targets)
        same = torch.nn.functional.cross_entropy(
            theirs(torch.from_numpy(x)), torch.from_numpy(targets)
        )
        assert_allclose(loss.item(), same.item(), rtol=1e-9)
        loss.backward()
        same.backward()
        for optimizer in optimizers:
            optimizer.step()
        assert_same_states(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_goes_there_and_back(dtype):
    _, theirs = networks(dtype)
    theirs(torch.from_numpy(batch(16, 8, dtype=dtype)))
    fresh, _ = networks(dtype)
    fresh.load_state_dict(theirs.state_dict())  # numpy.asarray takes PyTorch's tensors
    state = to_numpy(theirs.state_dict())
    assert list(fresh.state_dict()) == list(state)
    for key, value in fresh.state_dict().items():
        assert_array_equal(value, state[key])
        assert (value.dtype, value.shape) == (state[key].dtype, state[key].shape)
    x = batch(4, 8, seed=1, dtype=dtype)
    want = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    assert_allclose(fresh.eval()(x).data, want, rtol=1e-4, atol=1e-5)


def test_the_same_sgd_arguments_are_refused():
    refused = [
        {"lr": -1.0},
        {"lr": 0.1, "momentum": -0.1},
        {"lr": 0.1, "weight_decay": -0.1},
        {"lr": 0.1, "nesterov": True},
        {"lr": 0.1, "nesterov": True, "momentum": 0.9, "dampening": 0.1},
    ]
    for options in refused:
        with pytest.raises(ValueError, match=r".+"):
            torch.optim.SGD([torch.ones(1, requires_grad=True)], **options)
        with pytest.raises(ValueError, match=r".+"):
            mb.optim.SGD([mb.nn.Parameter([1.0])], **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_kernel_of_pytorch_is_checked_through_a_small_adapter(dtype):
    """As docs/checking.md shows it."""

    def backward(dy, x, gamma, beta, training=True):
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
        mean, var = torch.zeros(len(gamma)), torch.ones(len(gamma))
        statistics = [s.to(leaves[0].dtype) for s in (mean, var)]
        y = torch.nn.functional.batch_norm(leaves[0], *statistics, *leaves[1:], training=training)
        return tuple(g.numpy() for g in torch.autograd.grad(y, leaves, torch.tensor(dy)))

    rng = np.random.default_rng(0)
    for m, offset in ((2, 0), (8, 0), (32, 100)):
        x = rng.normal(size=(m, 5)) + offset
        inputs = [a.astype(dtype) for a in (x, rng.normal(size=5), rng.normal(size=5))]
        assert_gradients_match(mb.batch_norm, backward, *inputs)
        with pytest.raises(AssertionError, match="d x is wrong"):
            assert_gradients_match(mb.batch_norm, lambda *a: backward(*a, training=False), *inputs)
