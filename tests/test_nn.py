"""Modules and layers: against formulas written down again here, and the contract of the tree."""

import copy
import gc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn import handwritten, nn
from microbn.nn import BatchNorm1d, Linear, Module, Parameter, ReLU, Sequential, StateError


class Net(Module):
    """A model with parts of parts, a parameter of its own and a buffer."""

    def __init__(self, rng=0):
        rng = np.random.default_rng(rng)
        self.layers = Sequential(Linear(3, 4, rng=rng), BatchNorm1d(4), ReLU())
        self.head = Sequential(Sequential(Linear(4, 2, bias=False, rng=rng)))
        self.shift = Parameter(np.zeros(2, np.float32))
        self.register_buffer("steps", np.array(0))

    def forward(self, x):
        return self.head(self.layers(x)) + self.shift


KEYS = [
    "shift",
    "steps",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.weight",
    "layers.1.bias",
    "layers.1.running_mean",
    "layers.1.running_var",
    "layers.1.num_batches_tracked",
    "head.0.0.weight",
]
BUFFERS = [key for key in KEYS if "running" in key or "tracked" in key or key == "steps"]


def batch(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(2, 3, shape).astype(dtype)


def same(one, other):
    """Whether two states have the same keys and the same bits."""
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


# The tree


def test_names_and_order_are_those_of_pytorch():
    net = Net()
    assert list(net.state_dict()) == KEYS
    assert [name for name, _ in net.named_parameters()] == [k for k in KEYS if k not in BUFFERS]
    assert [name for name, _ in net.named_buffers()] == BUFFERS
    assert [name for name, _ in net.named_children()] == ["layers", "head"]
    modules = ["", "layers", "layers.0", "layers.1", "layers.2", "head", "head.0", "head.0.0"]
    assert [name for name, _ in net.named_modules()] == modules
    assert all(type(p) is Parameter and p.requires_grad for p in net.parameters())
    assert all(type(b) is np.ndarray for b in net.buffers())


def test_a_shared_part_is_one_part_with_two_keys():
    shared = Linear(2, 2, bias=False)
    net = Sequential(shared, ReLU(), shared)
    assert [name for name, _ in net.named_parameters()] == ["0.weight"]
    assert list(net.state_dict()) == ["0.weight", "2.weight"]
    assert len(list(net.modules())) == 3


def test_parameters_take_the_name_of_their_attribute():
    layer = Linear(2, 3)
    assert (layer.weight.name, layer.bias.name, layer.weight.kind) == (
        "weight",
        "bias",
        "parameter",
    )
    layer.weight = Parameter(np.ones((3, 2)), name="ones")
    assert layer.weight.name == "ones"
    assert next(layer.parameters()) is layer.weight


def test_an_attribute_can_be_taken_away_and_given_back():
    layer = Linear(2, 3)
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]
    layer.bias = Parameter(np.zeros(3))
    assert list(layer.state_dict()) == ["weight", "bias"]
    del layer.bias
    assert list(layer.state_dict()) == ["weight"]


def test_what_is_learned_cannot_be_lost_by_assignment():
    net = Net()
    before = net.state_dict()
    with pytest.raises(TypeError, match=r"Net\.shift is a Parameter; array \(2,\).*\.data"):
        net.shift = np.zeros(2)
    with pytest.raises(TypeError, match=r"shift is a Parameter"):
        net.shift = net.shift * 2
    with pytest.raises(TypeError, match=r"layers is a Module"):
        net.layers = len
    with pytest.raises(TypeError, match=r"steps is a buffer"):
        net.steps = mb.Tensor(0.0)
    with pytest.raises(TypeError, match=r"steps is a buffer"):
        net.steps = 1
    with pytest.raises(TypeError, match=r"other is a buffer"):
        net.register_buffer("other", "text")
    assert same(net.state_dict(), before)


def test_a_module_cannot_contain_itself():
    net = Net()
    with pytest.raises(ValueError, match="part of itself"):
        net.layers.net = net
    with pytest.raises(ValueError, match="part of itself"):
        net.me = net
    assert list(net.state_dict()) == KEYS


def test_freed_without_the_collector():
    gc.disable()
    try:
        net = Net()
        mb.functional.mse(net(batch(5, 3)), np.zeros((5, 2))).backward()
        watched = [weakref.ref(x) for x in (net, net.layers, *net.parameters())]
        del net
        assert [ref() for ref in watched] == [None] * len(watched)
    finally:
        gc.enable()


def test_a_deep_copy_is_independent():
    net = Net()
    twin = copy.deepcopy(net)
    twin(batch(5, 3))
    twin.shift.data = np.ones(2)
    assert same(net.state_dict(), Net().state_dict())
    assert twin.layers[1].num_batches_tracked == 1


def test_train_eval_and_zero_grad_reach_every_part():
    net = Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert net.train() is net
    assert all(module.training for module in net.modules())
    net(batch(5, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (layers): Sequential(\n"
        "    (0): Linear(in_features=3, out_features=4, bias=True)\n"
        "    (1): BatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, "
        "track_running_stats=True)\n"
        "    (2): ReLU()\n"
        "  )\n"
        "  (head): Sequential(\n"
        "    (0): Sequential(\n"
        "      (0): Linear(in_features=4, out_features=2, bias=False)\n"
        "    )\n"
        "  )\n"
        ")"
    )
    assert repr(Sequential()) == "Sequential()"


def test_forward_must_be_written():
    with pytest.raises(NotImplementedError, match="Module needs a method forward"):
        Module()(1)


# Scopes


def scopes(output):
    """Return the scope of every op, in order of computation and without repetitions."""
    found = [t.scope for t, _ in mb.backprop(output, np.ones(output.shape)) if t.op is not None]
    return list(dict.fromkeys(found[::-1]))


def test_a_submodule_computes_in_the_scope_of_its_path():
    linear, norm, relu = ("layers.0",), ("layers.1", "batch_norm"), ("layers.2",)
    assert scopes(Net()(batch(5, 3))) == [linear, norm, relu, ("head.0.0",), ()]
    assert scopes(Net().layers(batch(5, 3))) == [linear, norm, relu]
    assert scopes(Net().layers[0](batch(5, 3))) == [linear]


def test_scopes_of_modules_within_modules_nest():
    class Block(Module):
        def __init__(self):
            self.norm = BatchNorm1d(3)

        def forward(self, x):
            return self.norm(x) + x

    x = mb.Tensor(batch(5, 3), requires_grad=True)
    assert scopes(Block()(x)) == [("norm", "batch_norm"), ()]
    blocks = Sequential(Block(), Block())
    assert scopes(blocks(x))[2:] == [("1", "norm", "batch_norm"), ("1",)]
    outer = Sequential({"blocks": blocks})
    blocks.third = Block()
    assert scopes(outer(x))[4:] == [("blocks.third", "norm", "batch_norm"), ("blocks.third",)]


def test_gamma_and_beta_are_reshaped_outside_the_scope_batch_norm():
    y = Sequential(BatchNorm1d(3))(batch(4, 3, 2))
    reshaped = [t for t, _ in mb.backprop(y, np.ones(y.shape)) if t.op and t.op.name == "reshape"]
    assert [(t.scope, t.shape) for t in reshaped] == [(("0",), (3, 1))] * 2


# Sequential


def test_sequential_is_a_row():
    rng = np.random.default_rng(0)
    first, second = Linear(3, 4, rng=rng), Linear(4, 2, rng=rng)
    net = Sequential(first, ReLU(), second)
    x = batch(5, 3, dtype=np.float32)
    assert_array_equal(net(x).data, second(np.maximum(first(x).data, 0)).data)
    assert (len(net), net[0], net[-1], list(net)[2]) == (3, first, second, second)
    assert Sequential()(x) is x
    assert list(Sequential({"a": first, "b": second}).state_dict())[::2] == ["a.weight", "b.weight"]
    with pytest.raises(TypeError, match="made of modules; number 1 is"):
        Sequential(first, mb.functional.relu)


# Linear


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    layer = Linear(3, 2, bias, dtype=np.float64, rng=0)
    x = mb.Tensor(batch(*shape), requires_grad=True)
    g = batch(*shape[:-1], 2, seed=1)
    y = layer(x)
    y.backward(g)
    w = layer.weight.data
    assert_allclose(
        y.data, np.einsum("...i,oi->...o", x.data, w) + (layer.bias.data if bias else 0)
    )
    assert_allclose(x.grad, np.einsum("...o,oi->...i", g, w))
    assert_allclose(layer.weight.grad, g.reshape(-1, 2).T @ x.data.reshape(-1, 3), atol=1e-14)
    if bias:
        assert_allclose(layer.bias.grad, g.reshape(-1, 2).sum(0), atol=1e-14)


def test_linear_begins_as_in_pytorch_and_reproducibly():
    layer = Linear(400, 300, rng=7)
    for p in layer.parameters():
        assert p.dtype == np.float32
        assert np.abs(p.data).max() <= 1 / 20  # 1 / sqrt(400)
        assert abs(p.data.std() * 20 * np.sqrt(3) - 1) < 0.1
    assert same(layer.state_dict(), Linear(400, 300, rng=np.random.default_rng(7)).state_dict())
    assert not same(layer.state_dict(), Linear(400, 300, rng=8).state_dict())
    assert not same(Linear(4, 3).state_dict(), Linear(4, 3).state_dict())
    rng = np.random.default_rng(7)
    assert not same(Linear(4, 3, rng=rng).state_dict(), Linear(4, 3, rng=rng).state_dict())


def test_linear_refuses():
    with pytest.raises(ValueError, match=r"Linear\(in_features=3.*array \(5, 4\).*must be 3 long"):
        Linear(3, 2)(batch(5, 4))
    with pytest.raises(ValueError, match="must be 3 long"):
        Linear(3, 2)(1.0)
    with pytest.raises(ValueError, match="in_features=0 must be at least 1"):
        Linear(0, 2)
    with pytest.raises(TypeError, match=r"out_features=2\.0 must be an integer"):
        Linear(3, 2.0)
    with pytest.raises(TypeError, match="dtype cannot be int32"):
        Linear(3, 2, dtype=np.int32)


# BatchNorm1d


def columns(x):
    """Put an (m, d, l) batch as (m * l, d), which is how its channels are normalised."""
    return x if x.ndim == 2 else np.moveaxis(x, 1, 2).reshape(-1, x.shape[1])


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (1, 3, 2), (2, 3)])
def test_batch_norm_in_training(shape):
    layer = BatchNorm1d(3, dtype=np.float64)
    layer.weight.data, layer.bias.data = batch(3, seed=1), batch(3, seed=2)
    x, g = mb.Tensor(batch(*shape), requires_grad=True), batch(*shape, seed=3)
    y = layer(x)
    y.backward(g)
    weights = layer.weight.data, layer.bias.data
    want, cache = handwritten.forward(columns(x.data), *weights, layer.eps)
    assert_allclose(columns(y.data), want)
    gradients = columns(x.grad), layer.weight.grad, layer.bias.grad
    for got, by_hand in zip(gradients, handwritten.backward_staged(columns(g), cache), strict=True):
        assert_allclose(got, by_hand, rtol=1e-9, atol=1e-12)


@given(
    m=st.integers(2, 9),
    length=st.sampled_from([None, 1, 4]),
    momentum=st.sampled_from([None, 0.0, 0.1, 0.9, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_running_statistics_over_successive_batches(m, length, momentum, seed):
    layer = BatchNorm1d(3, momentum=momentum, dtype=np.float64)
    mean, var = np.zeros(3), np.ones(3)
    for k in range(1, 4):
        x = batch(m + k, 3, *([length] if length else []), seed=seed + k)
        layer(x)
        p = 1 / k if momentum is None else momentum
        mean = (1 - p) * mean + p * columns(x).mean(0)
        var = (1 - p) * var + p * columns(x).var(0, ddof=1)
        assert_allclose(layer.running_mean, mean, atol=1e-12)
        assert_allclose(layer.running_var, var, atol=1e-12)
        assert layer.num_batches_tracked == k


@pytest.mark.parametrize("shape", [(6, 3), (1, 3), (4, 3, 5), (0, 3)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_in_use_is_a_line_per_channel(shape, affine):
    layer = BatchNorm1d(3, affine=affine, dtype=np.float64)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"][: 2 * affine]
    for k in range(3):
        layer(batch(5, 3, seed=k))
    if affine:
        layer.weight.data, layer.bias.data = batch(3, seed=1), batch(3, seed=2)
    before = layer.eval().state_dict()
    x, g = mb.Tensor(batch(*shape), requires_grad=True), batch(*shape, seed=4)
    y = layer(x)
    y.backward(g)
    inv_std = (layer.running_var + 1e-5) ** -0.5
    x_hat = (columns(x.data) - layer.running_mean) * inv_std
    gamma, beta = (layer.weight.data, layer.bias.data) if affine else (np.ones(3), np.zeros(3))
    assert_allclose(columns(y.data), x_hat * gamma + beta)
    assert_allclose(columns(x.grad), columns(g) * (gamma * inv_std))
    if affine:
        assert_allclose(layer.weight.grad, (columns(g) * x_hat).sum(0), atol=1e-12)
        assert_allclose(layer.bias.grad, columns(g).sum(0), atol=1e-12)
    assert same(layer.state_dict(), before)


def test_a_graph_made_in_use_survives_new_statistics():
    layer = BatchNorm1d(3, dtype=np.float64).eval()
    x = mb.Tensor(batch(5, 3), requires_grad=True)
    y = layer(x)
    layer.train()(batch(5, 3, seed=1))
    layer.running_var[:] = 4  # one that the graph does not hold any more
    y.sum().backward()
    assert_allclose(x.grad, np.full((5, 3), (1 + 1e-5) ** -0.5))


def test_without_running_statistics_the_batch_is_used_in_eval_too():
    layer = BatchNorm1d(3, track_running_stats=False)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert (layer.running_mean, layer.running_var, layer.num_batches_tracked) == (None, None, None)
    x = batch(5, 3)
    assert_array_equal(layer(x).data, layer.eval()(x).data)
    with pytest.raises(ValueError, match="1 value per channel"):
        layer(batch(1, 3))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (0, 3), (0, 3, 4), (4, 3, 0)])
def test_one_value_per_channel_is_refused_and_changes_nothing(shape):
    layer = BatchNorm1d(3)
    layer(batch(5, 3))
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"value per channel has no variance.*eval\(\)"):
        layer(batch(*shape))
    assert same(layer.state_dict(), before)
    assert layer.eval()(batch(*shape)).shape == shape


def test_a_constant_column_gives_zero():
    layer = BatchNorm1d(2)
    y = layer(np.full((4, 2), 7.0, np.float32))
    assert_array_equal(y.data, np.zeros((4, 2)))
    assert_allclose(layer.running_var, [0.9, 0.9])


def test_freezing_does_not_stop_the_statistics_but_eval_and_no_grad_are_independent():
    layer = BatchNorm1d(3)
    layer.weight.requires_grad = layer.bias.requires_grad = False
    assert not layer(batch(5, 3)).requires_grad
    assert layer.num_batches_tracked == 1
    with mb.no_grad():
        layer(batch(5, 3))
    assert layer.num_batches_tracked == 2
    assert_allclose(layer.running_mean, 0.19 * batch(5, 3).mean(0), rtol=1e-6)
    layer.eval()(batch(5, 3))
    assert layer.num_batches_tracked == 2


@pytest.mark.parametrize("mode", [True, False])
def test_dtypes_are_those_of_the_layer(mode):
    for dtype in np.float32, np.float64:
        layer = BatchNorm1d(3, dtype=dtype).train(mode)
        x = mb.Tensor(batch(5, 3, dtype=dtype), requires_grad=True)
        y = layer(x)
        y.sum().backward()
        arrays = y.data, x.grad, layer.weight.grad, layer.running_mean, layer.running_var
        assert {a.dtype for a in arrays} == {np.dtype(dtype)}
        layer(batch(5, 3, dtype=np.float64))
        assert layer.running_mean.dtype == layer.running_var.dtype == dtype
        assert layer.num_batches_tracked.dtype == np.int64


def test_batch_norm_refuses():
    layer = BatchNorm1d(3)
    for shape in (3,), (5, 4), (5, 4, 3), (5, 3, 2, 2), (3, 5):
        with pytest.raises(ValueError, match=r"it takes \(m, d\) or \(m, d, l\) with 3 channels"):
            layer(batch(*shape))
    for momentum in -0.1, 1.1, np.nan:
        with pytest.raises(ValueError, match=r"momentum=.* must lie in \[0, 1\].*Keras"):
            BatchNorm1d(3, momentum=momentum)
    with pytest.raises(ValueError, match="BatchNorm1d: eps=-1"):
        BatchNorm1d(3, eps=-1)
    with pytest.raises(TypeError, match="eps='small'"):
        BatchNorm1d(3, eps="small")
    with pytest.raises(ValueError, match="num_features=-3"):
        BatchNorm1d(-3)


def test_a_refused_input_leaves_the_scope():
    net = Net()
    with pytest.raises(ValueError, match="must be 3 long"):
        net(batch(5, 7))
    assert mb.Tensor(0.0).scope == ()


# States


def test_a_state_moves_to_another_model_and_is_a_copy():
    net, other = Net(rng=1), Net(rng=2)
    net(batch(5, 3))
    state = net.state_dict()
    kept = {key: value.copy() for key, value in state.items()}
    other.load_state_dict(state)
    assert same(other.state_dict(), kept)
    x = batch(4, 3)
    assert_array_equal(other.eval()(x).data, copy.deepcopy(net).eval()(x).data)
    for value in state.values():
        value += 1
    assert same(net.state_dict(), kept)
    assert same(other.state_dict(), kept)
    assert all(type(value) is np.ndarray for value in kept.values())


def test_a_state_is_cast_to_the_dtypes_of_the_module():
    layer = Linear(2, 2)
    layer.load_state_dict({"weight": [[1, 2], [3, 4]], "bias": (0.5, 1.5)})
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert_array_equal(layer.weight.data, [[1, 2], [3, 4]])
    assert layer.weight.requires_grad


def test_a_state_that_does_not_fit_changes_nothing_and_says_everything():
    net = Net()
    before = net.state_dict()
    state = {key: value + 1 for key, value in before.items()}
    state["layers.0.weight"] = np.zeros((3, 4))
    state["layers.1.running_var"] = np.zeros((4, 1))
    state["layers.0.bias"] = ["a", "b", "c", "d"]
    state["extra"] = np.zeros(2)
    del state["shift"]
    with pytest.raises(StateError) as caught:
        net.load_state_dict(state)
    assert str(caught.value).splitlines() == [
        "this state does not fit Net, so nothing was loaded:",
        "  missing: shift",
        "  unexpected: extra",
        "  layers.0.weight has shape (3, 4), not (4, 3)",
        "  layers.0.bias holds <U1, not numbers",
        "  layers.1.running_var has shape (4, 1), not (4,)",
    ]
    assert same(net.state_dict(), before)
    for key in KEYS:
        with pytest.raises(ValueError, match=f"missing: {key}"):
            net.load_state_dict({k: v + 1 for k, v in before.items() if k != key})
        with pytest.raises(ValueError, match=f"{key} has shape"):
            net.load_state_dict({k: v + 1 if k != key else v[..., None] for k, v in before.items()})
    assert same(net.state_dict(), before)
    with pytest.raises(TypeError, match="a state is a dict"):
        net.load_state_dict(list(before))


def test_new_values_are_noticed_by_a_graph_that_used_the_old():
    layer = Linear(3, 2)
    loss = layer(batch(5, 3)).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="new data"):
        loss.backward()


# What would silently do nothing ------------------------------------------------------------------


def test_modules_in_a_python_list_are_refused_and_in_a_module_list_are_parts():
    class Net(nn.Module):
        def __init__(self, kind):
            self.blocks = kind([nn.Linear(2, 2, rng=k) for k in range(3)])

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    for kind in list, tuple, lambda layers: dict(enumerate(layers)):
        with pytest.raises(TypeError, match=r"would not be part of this one.*ModuleList"):
            Net(kind)
    net = Net(nn.ModuleList)
    assert list(net.state_dict())[:2] == ["blocks.0.weight", "blocks.0.bias"]
    assert len(net.blocks) == 3
    x = np.ones((1, 2), np.float32)
    by_hand = x
    for block in net.blocks:
        by_hand = by_hand @ block.weight.data.T + block.bias.data
    np.testing.assert_allclose(net(x).data, by_hand, rtol=1e-6)
    assert not net.eval().blocks[1].training
    with pytest.raises(TypeError, match="made of modules"):
        nn.ModuleList([3])


@pytest.mark.parametrize("name", ["forward", "modules", "training"])
def test_a_sequential_takes_no_names_that_modules_have(name):
    with pytest.raises(ValueError, match=f"has '{name}' already"):
        nn.Sequential({name: nn.ReLU()})
    with pytest.raises(ValueError, match="dot"):
        nn.Sequential({"a.b": nn.ReLU()})


def test_a_leaf_is_not_changed_in_place_without_saying_so():
    p = nn.Parameter([1.0, 2.0], name="p")
    with mb.no_grad(), pytest.raises(RuntimeError, match=r"write p.data -= "):
        p -= 0.1
    with mb.no_grad():
        p.data -= 0.1
    np.testing.assert_allclose(p.data, [0.9, 1.9])
    q = p
    q *= 2  # recorded, as for numbers
    assert q.op.name == "mul"
    with mb.no_grad():
        q += 1  # no leaf
        total = mb.Tensor([0.0])
        total += 1  # learns nothing
    assert total.data == [1.0]


class TorchTensor:
    """What looks like a Tensor of PyTorch by the name of its module."""


TorchTensor.__module__ = "torch"


def test_tensors_of_pytorch_are_refused_by_name():
    for layer in nn.ReLU(), nn.Linear(2, 2), nn.BatchNorm1d(2):
        with pytest.raises(TypeError, match=r"of PyTorch; give it an array, x.numpy\(\)"):
            layer(TorchTensor())


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3)])
def test_a_constant_is_normalised_to_zero_in_arrays_as_in_tensors(layer):
    x = np.full((7, 3), 0.1, np.float32)
    assert (layer(x).data == 0).all()
    assert (layer(mb.Tensor(x)).data == 0).all()
