"""Right gradients by another library are not accused: PyTorch's own, of the same functions."""

import numpy as np
import pytest

import microbn as mb
from microbn import functional
from microbn.testing import assert_gradients_match

torch = pytest.importorskip("torch")
normal = np.random.Generator.normal


def by_torch(fn):
    """A backward pass in the form that is checked, of what PyTorch differentiates."""

    def backward(dy, *arrays):
        leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
        return tuple(g.numpy() for g in torch.autograd.grad(fn(*leaves), leaves, torch.tensor(dy)))

    return backward


def attention(softmax):
    return lambda q, k, v: softmax(q @ k.T * 0.5, -1) @ v


def lstm(xp, sigmoid):
    """One step: the gates from x and h, and the new h."""

    def step(x, h, c, w, u, b):
        z, n = x @ w + h @ u + b, c.shape[1]
        i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
        return sigmoid(o) * xp.tanh(sigmoid(f) * c + sigmoid(i) * xp.tanh(g))

    return step


def gelu(xp):
    return lambda x: 0.5 * x * (1 + xp.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def mlp(relu):
    return lambda x, w, b, v: relu(x @ w + b) @ v


def unit(xp):
    return lambda x: x / xp.sqrt((x**2).sum(-1)[:, None])


nn = torch.nn.functional
NAMED = {
    "attention": (attention(functional.softmax), attention(torch.softmax)),
    "lstm": (lstm(np, functional.sigmoid), lstm(torch, torch.sigmoid)),
    "gelu": (gelu(np), gelu(torch)),
    "mlp": (mlp(lambda z: np.maximum(z, 0)), mlp(torch.relu)),
    "unit": (unit(np), unit(torch)),
    "layer norm": (functional.layer_norm, lambda x, g, b: nn.layer_norm(x, (4,), g, b)),
    "batch norm": (
        lambda x, g, b: mb.batch_norm(x, g, b),
        lambda x, g, b: nn.batch_norm(x, None, None, g, b, training=True),
    ),
    "logsumexp": (functional.logsumexp, lambda x: torch.logsumexp(x, -1)),
    "log softmax": (functional.log_softmax, lambda x: torch.log_softmax(x, -1)),
    "sigmoid": (functional.sigmoid, torch.sigmoid),
    "largest": (lambda x: x.max(axis=1), lambda x: torch.amax(x, 1)),
}
SHAPES = {
    "attention": lambda m: ((m, 4), (m + 1, 4), (m + 1, 3)),
    "lstm": lambda m: ((m, 3), (m, 2), (m, 2), (3, 8), (2, 8), (8,)),
    "mlp": lambda m: ((m, 4), (4, 5), (5,), (5, 2)),
    "layer norm": lambda m: ((m, 4), (4,), (4,)),
    "batch norm": lambda m: ((m + 1, 4), (4,), (4,)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMED)
def test_gradients_of_pytorch_are_right(name, dtype):
    composed, theirs = NAMED[name]
    for k, (m, scale) in enumerate([(1, 1), (2, 0.01), (3, 10), (8, 100), (40, 1), (8, 30)]):
        rng = np.random.default_rng(k)
        arrays = [normal(rng, size=shape) for shape in SHAPES.get(name, lambda m: ((m, 4),))(m)]
        arrays[0] *= scale
        assert_gradients_match(composed, by_torch(theirs), *(a.astype(dtype) for a in arrays))
