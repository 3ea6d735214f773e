"""Hand-written backward passes that are right, each with the composed function it belongs to.

`backward(dy, *inputs)` is plain NumPy. It does its own forward pass and returns one gradient for
each input, of its shape and dtype. `composed(*inputs)` takes Tensors or arrays. Sizes have the
letters of microbn.handwritten: m values are reduced, d features are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import microbn as mb
from microbn import functional, handwritten
from microbn.context import named, scope

EPS = 1e-5
GROUPS = 2


@dataclass(frozen=True)
class Right:
    """A backward pass that is right.

    `inputs(rng, dtype, shape=, scale=, offset=)` draws arrays for both functions. The first one is
    `scale * (a normal array + offset)`: the offset counts in standard deviations.
    """

    name: str
    composed: Callable
    backward: Callable
    inputs: Callable


# Inputs ------------------------------------------------------------------------------------------


def drawn(rng, shape, scale=1.0, offset=0.0):
    return scale * (rng.standard_normal(shape) + offset)


def weights(rng, shape):
    """Numbers of both signs, away from 0 and from 1, to be divided by."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(1.25, 2.0, shape)


def norm_inputs(default, features, beta=True):
    """Inputs of a norm: x, gamma and perhaps beta; theirs is the shape `features(*shape)`."""

    def inputs(rng, dtype=np.float64, *, shape=default, scale=1.0, offset=0.0):
        arrays = [drawn(rng, shape, scale, offset), weights(rng, features(*shape))]
        if beta:
            arrays.append(rng.standard_normal(features(*shape)))
        return tuple(a.astype(dtype) for a in arrays)

    return inputs


def linear_inputs(rng, dtype=np.float64, *, shape=(8, 4, 3), scale=1.0, offset=0.0):
    """x, w and b of a layer from k to d features, for `shape = (m, k, d)`."""
    m, k, d = shape
    arrays = drawn(rng, (m, k), scale, offset), drawn(rng, (k, d)), drawn(rng, d)
    return tuple(a.astype(dtype) for a in arrays)


def mlp_inputs(rng, dtype=np.float64, *, shape=(8, 4, 5, 3), scale=1.0, offset=0.0):
    """x, two layers and a target, for `shape = (m, k, hidden, d)`.

    The first layer divides by the size of x, so that tanh is not flat.
    """
    m, k, h, d = shape
    w1 = drawn(rng, (k, h)) / (scale * (1 + abs(offset)) * k)
    arrays = [drawn(rng, (m, k), scale, offset), w1, drawn(rng, h)]
    arrays += [drawn(rng, (h, d)), drawn(rng, d), drawn(rng, (m, d))]
    return tuple(a.astype(dtype) for a in arrays)


def logits_inputs(rng, dtype=np.float64, *, shape=(8, 5), scale=1.0, offset=0.0):
    return (drawn(rng, shape, scale, offset).astype(dtype),)


columns = norm_inputs((8, 3), lambda m, d: (d,))
rows = norm_inputs((4, 8), lambda m, d: (d,))
rows_without_beta = norm_inputs((4, 8), lambda m, d: (d,), beta=False)
sequences = norm_inputs((4, 5, 3), lambda n, t, d: (d,))
images = norm_inputs((3, 4, 2, 5), lambda n, c, h, w: (c,))


# Batch norm --------------------------------------------------------------------------------------


def batch_norm(x, gamma, beta):
    return mb.batch_norm(x, gamma, beta, eps=EPS)


def batch_norm_of_sequences(x, gamma, beta):
    return mb.batch_norm(x, gamma, beta, axis=(0, 1), eps=EPS)


def batch_norm_of_images(x, gamma, beta):
    gamma, beta = gamma.reshape(-1, 1, 1), beta.reshape(-1, 1, 1)
    return mb.batch_norm(x, gamma, beta, axis=(0, 2, 3), eps=EPS)


def of_columns(form):
    """A form of microbn.handwritten, with its forward pass."""

    def backward(dy, x, gamma, beta):
        return form(dy, handwritten.forward(x, gamma, beta, EPS)[1])

    return backward


def of_sequences(form):
    """The same for (n, t, d): every step of every sequence is an example."""

    def backward(dy, x, gamma, beta):
        d = x.shape[-1]
        dx, dgamma, dbeta = of_columns(form)(dy.reshape(-1, d), x.reshape(-1, d), gamma, beta)
        return dx.reshape(x.shape), dgamma, dbeta

    return backward


def of_images(form):
    """The same for (n, c, h, w): every pixel is an example."""

    def backward(dy, x, gamma, beta):
        last = (0, 2, 3, 1)
        dx, dgamma, dbeta = of_sequences(form)(dy.transpose(last), x.transpose(last), gamma, beta)
        return dx.transpose(0, 3, 1, 2), dgamma, dbeta

    return backward


# Its relatives -----------------------------------------------------------------------------------


def layer_norm(x, gamma, beta):
    return functional.layer_norm(x, gamma, beta, eps=EPS)


def layer_norm_staged(dy, x, gamma, beta):
    d = x.shape[-1]
    centered = x - x.mean(-1, keepdims=True)
    std = np.sqrt((centered**2).mean(-1, keepdims=True) + EPS)
    x_hat = centered / std

    dx_hat = dy * gamma
    dstd = -(dx_hat * centered).sum(-1, keepdims=True) / std**2
    dvar = dstd / (2 * std)
    dcentered = dx_hat / std + dvar * 2 * centered / d
    dmean = -dcentered.sum(-1, keepdims=True)
    return dcentered + dmean / d, (dy * x_hat).sum(0), dy.sum(0)


def layer_norm_closed(dy, x, gamma, beta):
    centered = x - x.mean(-1, keepdims=True)
    inv_std = ((centered**2).mean(-1, keepdims=True) + EPS) ** -0.5
    x_hat = centered * inv_std

    dx_hat = dy * gamma
    along = (dx_hat * x_hat).mean(-1, keepdims=True)
    dx = inv_std * (dx_hat - dx_hat.mean(-1, keepdims=True) - x_hat * along)
    return dx, (dy * x_hat).sum(0), dy.sum(0)


def rms_norm(x, gamma, eps=0.0):
    """Divide each row by the root of its mean square. Zhang & Sennrich 2019, arXiv:1910.07467."""
    with scope("rms_norm"):
        squared = named(x**2, "squared")
        mean_square = named(squared.mean(axis=-1, keepdims=True), "mean_square")
        if eps:
            mean_square = named(mean_square + eps, "mean_square_eps")
        rms = named(np.sqrt(mean_square), "rms")
        x_hat = named(x / rms, "x_hat")
        return named(x_hat * gamma, "y")


def rms_norm_with_eps(x, gamma):
    return rms_norm(x, gamma, EPS)


def rms_norm_backward(dy, x, gamma, eps=0.0):
    rms = np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    x_hat = x / rms
    dx_hat = dy * gamma
    dx = (dx_hat - x_hat * (dx_hat * x_hat).mean(-1, keepdims=True)) / rms
    return dx, (dy * x_hat).sum(0)


def rms_norm_with_eps_backward(dy, x, gamma):
    return rms_norm_backward(dy, x, gamma, EPS)


def group_norm(x, gamma, beta):
    """Normalise each image over a group of channels. Wu & He 2018, arXiv:1803.08494."""
    with scope("group_norm"):
        groups = x.reshape(len(x), GROUPS, -1)
        mean = named(groups.mean(axis=-1, keepdims=True), "mean")
        centered = named(groups - mean, "centered")
        squared = named(centered**2, "squared")
        var = named(squared.mean(axis=-1, keepdims=True), "var")
        std = named(np.sqrt(var + EPS), "std")
        x_hat = named((centered / std).reshape(x.shape), "x_hat")
        scaled = named(x_hat * gamma.reshape(-1, 1, 1), "scaled")
        return named(scaled + beta.reshape(-1, 1, 1), "y")


def group_norm_backward(dy, x, gamma, beta):
    groups = x.reshape(len(x), GROUPS, -1)
    centered = groups - groups.mean(-1, keepdims=True)
    std = np.sqrt((centered**2).mean(-1, keepdims=True) + EPS)
    x_hat = centered / std

    dx_hat = (dy * gamma.reshape(-1, 1, 1)).reshape(groups.shape)
    along = (dx_hat * x_hat).mean(-1, keepdims=True)
    dx = (dx_hat - dx_hat.mean(-1, keepdims=True) - x_hat * along) / std
    dgamma = (dy * x_hat.reshape(x.shape)).sum((0, 2, 3))
    return dx.reshape(x.shape), dgamma, dy.sum((0, 2, 3))


# Layers and losses -------------------------------------------------------------------------------


def linear(x, w, b):
    with scope("linear"):
        product = named(x @ w, "product")
        return named(product + b, "y")


def linear_backward(dy, x, w, b):
    return dy @ w.T, x.T @ dy, dy.sum(0)


def mlp(x, w1, b1, w2, b2, target):
    """The mean squared error of a network with one hidden layer of tanh."""
    with scope("mlp"):
        hidden = named(np.tanh(named(x @ w1 + b1, "before_tanh")), "hidden")
        prediction = named(hidden @ w2 + b2, "prediction")
    return functional.mse(prediction, target)


def mlp_backward(dy, x, w1, b1, w2, b2, target):
    hidden = np.tanh(x @ w1 + b1)
    error = hidden @ w2 + b2 - target

    dprediction = dy * 2 * error / error.size
    dhidden = dprediction @ w2.T
    dbefore = dhidden * (1 - hidden**2)
    first = dbefore @ w1.T, x.T @ dbefore, dbefore.sum(0)
    return *first, hidden.T @ dprediction, dprediction.sum(0), -dprediction


def classes(logits):
    """The right class of each row: a constant."""
    n, k = logits.shape
    return np.arange(n) * 7 % k


def cross_entropy(logits):
    return functional.cross_entropy(logits, classes(logits))


def cross_entropy_backward(dy, logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(p)), classes(logits)] -= 1
    return (dy * p / len(p),)


FORMS = {
    "staged": handwritten.backward_staged,
    "paper": handwritten.backward_paper,
    "closed": handwritten.backward_closed,
}
LAYOUTS = {
    "columns": (batch_norm, of_columns, columns),
    "sequences": (batch_norm_of_sequences, of_sequences, sequences),
    "images": (batch_norm_of_images, of_images, images),
}
RIGHT = [
    Right(f"batch norm of {layout}, {form}", composed, adapted(FORMS[form]), inputs)
    for layout, (composed, adapted, inputs) in LAYOUTS.items()
    for form in FORMS
] + [
    Right("layer norm, staged", layer_norm, layer_norm_staged, rows),
    Right("layer norm, closed", layer_norm, layer_norm_closed, rows),
    Right("RMS norm", rms_norm, rms_norm_backward, rows_without_beta),
    Right("RMS norm, eps", rms_norm_with_eps, rms_norm_with_eps_backward, rows_without_beta),
    Right("group norm", group_norm, group_norm_backward, images),
    Right("linear", linear, linear_backward, linear_inputs),
    Right("MLP, tanh, mse", mlp, mlp_backward, mlp_inputs),
    Right("softmax cross-entropy", cross_entropy, cross_entropy_backward, logits_inputs),
]
