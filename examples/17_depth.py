# %% [markdown]
# # Depth
#
# In a deep network the gradient comes to the first layers through all the others, and each
# multiplies it by something. If that is 0.4 on average, 20 layers make 0.00000001 of it: it
# vanishes. If it is 2, they make a million: it explodes. This lesson measures the factor, and
# settles one claim:
#
# - **D7** batch norm helps with vanishing and exploding gradients.
#
# The claim is disputed. Yang et al. 2019 (A mean field theory of batch normalization,
# arXiv:1902.08129) find that at the start of training batch norm itself makes gradients explode.

# %%
from itertools import product

import lesson
import numpy as np

import microbn as mb

run = lesson.options("17_depth")
SEEDS, TRAIN_SEEDS, EPOCHS = (range(3), range(1), 2) if run.quick else (range(10), range(5), 5)
RATES = (0.01,) if run.quick else (0.001, 0.01, 0.1, 1.0)
DEPTH = 20
ACTIVATIONS = lesson.ACTIVATIONS
STYLES = {"small": ":", "matched": "-", "large": "--"}  # three gains, and how they are drawn
PAIRS, BOTH = list(product(ACTIVATIONS, STYLES)), (True, False)
CASES = list(product(ACTIVATIONS, STYLES, BOTH))
data = mb.data.digits()

# %% [markdown]
# ## The network
#
# 20 hidden layers of 32 units; where there is no batch norm, and so no `beta`, they have a bias
# that begins at 0. The weights of a layer with `n` inputs are drawn with standard deviation
# `gain / sqrt(n)`, with three gains:
#
# - *small*: `1 / sqrt(3)`, the variance that PyTorch's `Linear` begins with;
# - *matched*: what is usually taken for the activation: `sqrt(2)` for ReLU, which keeps the size
# of what passes (He et al. 2015, arXiv:1502.01852), 5/3 for tanh and 1 for sigmoid (PyTorch's
# `calculate_gain`), which do so only roughly or, for sigmoid, not at all;
# - *large*: twice that.


# %%
def network(seed, name, which, batch_norm, depth=DEPTH, width=32):
    matched = mb.nn.init.calculate_gain(name.lower())
    gain = {"small": 1 / np.sqrt(3), "matched": matched, "large": 2 * matched}[which]
    rng = np.random.default_rng(seed)
    layers = []
    for n in [64] + [width] * (depth - 1):
        linear = mb.nn.Linear(n, width, bias=False, rng=rng)
        mb.nn.init.normal_(linear.weight, 0.0, float(gain / np.sqrt(n)), rng=rng)
        if not batch_norm:
            linear.bias = mb.nn.Parameter(np.zeros(width, np.float32))
        layers += [linear] + [mb.nn.BatchNorm1d(width)] * batch_norm + [ACTIVATIONS[name]()]
    return mb.nn.Sequential(*layers, mb.nn.Linear(width, 10, rng=rng))


# %% [markdown]
# ## The gradient at each layer
#
# One forward and one backward pass over 256 images, before any training. Measured is the norm of
# the gradient of the loss with respect to `z = W a` of each layer: what the layer is told. The
# *factor per layer* is by how much it grows from a layer to the one before, on (geometric) average
# between layers 19 and 2.


# %%
def gradient_norms(net):
    """Return the norms of dz and of dw for each hidden layer."""
    a, zs, ws = data.x_train[:256], [], []
    for layer in net.children():
        a = layer(a)
        if isinstance(layer, mb.nn.Linear):
            zs.append(a)
            ws.append(layer.weight)
    mb.functional.cross_entropy(a, data.y_train[:256]).backward()
    return [[np.linalg.norm(t.grad) for t in tensors[:-1]] for tensors in (zs, ws)]


def factor(norms):
    return (norms[1] / norms[-2]) ** (1 / (len(norms) - 3))


print("factor per layer of 16 8 4 2 1:", factor(np.array([16.0, 8, 4, 2, 1])), "by hand 2")

norms, factors = {}, {}
for case in lesson.track(CASES, "gradients"):
    nets = [network(seed, *case) for seed in SEEDS]
    norms[case] = np.array([gradient_norms(net) for net in nets])  # seed, dz or dw, layer
    factors[case] = np.array([factor(dz) for dz in norms[case][:, 0]])

print(f"factor per layer, median of {len(SEEDS)} seeds (range)")
print(f"{'':16} {'with batch norm':25} {'without':25} dw of layers 1 and 20, without")
for name, which in PAIRS:
    with_bn, without = (lesson.spread(factors[name, which, b], ".3f") for b in BOTH)
    dw = np.median(norms[name, which, False][:, 1], axis=0)
    print(f"{name:7} {which:8} {with_bn:25} {without:25} {dw[0]:.1e} {dw[-1]:.1e}")

# %% [markdown]
# Without batch norm the factor depends on the gain: for ReLU half of the units let the gradient
# through, so its square is halved, and the factor is `gain / sqrt(2)`: 0.408, 1 and 2. With ReLU
# the gradients of the *weights*, `dw`, are all about equally small or large, since the activations
# shrink or grow forward as the gradient does backward.
#
# With batch norm the gain does not matter. What remains is above 1: going back, the gradient
# **grows** from layer to layer, with each activation.

# %%
fig, axes = lesson.figure(columns=3, figsize=(11, 3.8), sharey=True)
for name, which, batch_norm in CASES:
    ax = axes[list(ACTIVATIONS).index(name)]
    dz = np.median(norms[name, which, batch_norm][:, 0], axis=0)
    label = f"{'with batch norm' if batch_norm else 'without'}, {which} gain"
    colour = lesson.COLOURS[0 if batch_norm else 1]
    ax.plot(range(1, DEPTH + 1), dz, STYLES[which], color=colour, label=label)
    ax.set(title=name, xlabel="layer", yscale="log", xticks=(1, 5, 10, 15, 20))
    ax.grid(axis="y")
axes[0].set_ylabel("norm of the gradient of z")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
lesson.save(run, fig)

# %% [markdown]
# ## Why it grows
#
# Go back from `z` of one layer to `z` of the layer before, and follow the mean square of the
# gradient, for wide layers and an activation `f` of numbers `u` that batch norm made standard
# normal:
#
# - through `W`: times `gain^2`;
# - through `f`: times the mean of `f'(u)^2`;
# - through batch norm: divided by the variance of its `z`, which is `gain^2` times the variance of
#   `f(u)`.
#
# The gain cancels, and `mean f'(u)^2 / variance of f(u)` is left. For ReLU it is
# `(1/2) / ((1 - 1/pi) / 2) = pi / (pi - 1) = 1.467`; the norm grows by its root, 1.211.
# For no activation is it below 1: that is Poincaré's inequality for the normal
# distribution, and only straight lines reach 1.


# %%
grows = {}
for name in ACTIVATIONS:
    u = mb.Tensor(np.linspace(-10, 10, 20001), requires_grad=True)
    f = ACTIVATIONS[name]()(u)
    f.sum().backward()  # the gradient of u is then f'(u)
    bell = np.exp(-(u.data**2) / 2)  # how often each u is met
    variance = np.average((f.data - np.average(f.data, weights=bell)) ** 2, weights=bell)
    predicted = np.sqrt(np.average(u.grad**2, weights=bell) / variance)
    measured = np.median(factors[name, "matched", True])
    wide = [gradient_norms(network(k, name, "matched", True, width=256))[0] for k in SEEDS[:3]]
    deep = [gradient_norms(network(k, name, "matched", True, depth=100))[0] for k in SEEDS[:3]]
    grows[name] = np.median([dz[0] / dz[-1] for dz in deep])
    print(f"{name:7} predicted {predicted:.3f}, measured {measured:.3f}, ", end="")
    print(f"with 256 units a layer {np.median([factor(dz) for dz in wide]):.3f}; ", end="")
    print(f"in 100 layers the gradient grows {grows[name]:.1e} times")


# %% [markdown]
# The measured factors are larger than predicted, by up to 0.03. With 256 units a layer that of tanh
# comes nearer, by about a third of the way, and that of sigmoid does not; for ReLU the difference
# is smaller than that between seeds. The argument also takes `u` to be exactly normal, and the
# gradient to be independent of it; in a network that reads digits they are so only roughly.
#
# ## Does it help?
#
# Five epochs of plain gradient descent with each of these networks. The rate is the best of four
# for each by itself, found on another seed.


# %%
def accuracy_after(case, rate, seed):
    return lesson.accuracy_after(EPOCHS, network(seed, *case), data, rate, seed, size=64)


right, cells = {}, {}
for case in lesson.track(CASES, "training"):
    rate = RATES[0] if run.quick else max(RATES, key=lambda r: accuracy_after(case, r, 100))
    scores = [accuracy_after(case, rate, seed) for seed in TRAIN_SEEDS]
    right[case] = np.median(scores)
    cells[case] = f"{lesson.spread(scores)}, {rate:g}"

print(f"test images read right after {EPOCHS} epochs, %, median of {len(TRAIN_SEEDS)} (range)")
print("and the learning rate")
print(f"{'':16} {'with batch norm':29} without")
for name, which in PAIRS:
    print(f"{name:7} {which:8} {cells[name, which, True]:29} {cells[name, which, False]}")

# %% [markdown]
# ReLU with the matched gain is telling. There the gradient has the same size in every layer
# without batch norm, and grows with it. A short run (two epochs, one rate) is too little to tell
# who learns; in the full run the network with batch norm learns far more. So the size of the
# gradient is not all that batch norm changes.
#
# ## What was found
#
# The claim *holds* if in all nine cases, three activations and three gains, the factor per layer is
# nearer to 1 with batch norm than without (1/2 is as far from 1 as 2 is); *within limits* if it is
# so in most.

# %%
away = {case: abs(np.log(np.median(factors[case]))) for case in CASES}
distant = [pair for pair in PAIRS if away[*pair, True] >= away[*pair, False]]
better = [pair for pair in PAIRS if right[*pair, True] > right[*pair, False]]
print("not nearer to 1:", "; ".join(map(", ".join, distant)) or "none")

facts = []
for name in ACTIVATIONS:
    mine = np.concatenate([factors[name, which, True] for which in STYLES])
    others = ", ".join(f"{np.median(factors[name, which, False]):.2f}" for which in STYLES)
    facts.append(f"{name} {lesson.spread(mine, '.2f')} with batch norm, {others} without")
with_bn, without = (lesson.spread([right[*pair, b] for pair in PAIRS]) for b in BOTH)
matched = " and ".join(f"{right['ReLU', 'matched', batch_norm]:.1f}" for batch_norm in BOTH)
measured = [
    f"{DEPTH} layers, {len(SEEDS)} seeds",
    f"Factor per layer (without: small, matched, large gain): {'; '.join(facts)}",
    f"In 100 layers of ReLU with batch norm the gradient grows {grows['ReLU']:.1e} times (3 seeds)",
    f"Better trained after {EPOCHS} epochs in {len(better)} of {len(PAIRS)} cases: {with_bn} % of "
    f"the test images with batch norm, {without} % without; ReLU with the matched gain {matched}",
]
verdict = lesson.verdict(not distant, 2 * len(distant) < len(PAIRS))
limits = f"nearer to 1 in {len(PAIRS) - len(distant)} of {len(PAIRS)} cases, "
limits += f"not for {' and '.join(f'{name} with the {which} gain' for name, which in distant)}"
lesson.claim(run, "D7", verdict, ". ".join(measured), limits)
