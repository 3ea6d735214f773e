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
FEW = SEEDS[:1] if run.quick else SEEDS[:3]
RATES = (0.01,) if run.quick else (0.001, 0.01, 0.1, 1.0)
DEPTH, WIDTH, BATCH = 20, 32, 64
ACTIVATIONS = {"ReLU": mb.nn.ReLU, "tanh": mb.nn.Tanh, "sigmoid": mb.nn.Sigmoid}
data = mb.data.digits()

# %% [markdown]
# ## The network
#
# 20 hidden layers of 32 units. The weights of a layer with `n` inputs are drawn with standard
# deviation `gain / sqrt(n)`, with three gains:
#
# - *small*: `1 / sqrt(3)`, the variance that PyTorch's `Linear` begins with;
# - *matched*: what is usually taken for the activation: `sqrt(2)` for ReLU, which keeps the size
# of what passes (He et al. 2015, arXiv:1502.01852), 5/3 for tanh and 1 for sigmoid (PyTorch's
# `calculate_gain`), which do so only roughly or, for sigmoid, not at all;
# - *large*: twice that.


# %%
def gains(name):
    matched = mb.nn.init.calculate_gain(name.lower())
    return {"small": 1 / np.sqrt(3), "matched": matched, "large": 2 * matched}


def network(seed, name, batch_norm, gain, depth=DEPTH, width=WIDTH):
    rng = np.random.default_rng(seed)
    layers = []
    for n in [64] + [width] * (depth - 1):
        linear = mb.nn.Linear(n, width, bias=False, rng=rng)
        mb.nn.init.normal_(linear.weight, 0.0, float(gain / np.sqrt(n)), rng=rng)
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
    a, zs = data.x_train[:256], []
    layers = list(net.children())
    for layer in layers:
        a = layer(a)
        if isinstance(layer, mb.nn.Linear):
            zs.append(a)
    mb.functional.cross_entropy(a, data.y_train[:256]).backward()
    ws = [layer.weight for layer in layers if isinstance(layer, mb.nn.Linear)]
    return [[np.linalg.norm(t.grad) for t in tensors[:-1]] for tensors in (zs, ws)]


def factor(norms):
    return (norms[1] / norms[-2]) ** (1 / (len(norms) - 3))


print("factor per layer of 16 8 4 2 1:", factor(np.array([16.0, 8, 4, 2, 1])), "by hand 2")

cases = list(product(ACTIVATIONS, ("small", "matched", "large"), (True, False)))
norms, factors = {}, {}
for case in lesson.track(cases, "gradients"):
    name, which, batch_norm = case
    nets = (network(seed, name, batch_norm, gains(name)[which]) for seed in SEEDS)
    norms[case] = np.array([gradient_norms(net) for net in nets])  # seed, dz or dw, layer
    factors[case] = np.array([factor(dz) for dz in norms[case][:, 0]])


def spread(numbers, form=".3f"):
    low, middle, high = min(numbers), np.median(numbers), max(numbers)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


print(f"factor per layer, median of {len(SEEDS)} seeds (range)")
print(f"{'':16} {'with batch norm':25} {'without':25} dw of layers 1 and 20, without")
for name, which, batch_norm in cases:
    if batch_norm:
        with_bn, without = (spread(factors[name, which, b]) for b in (True, False))
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
styles = {"small": ":", "matched": "-", "large": "--"}
for name, which, batch_norm in cases:
    ax = axes[list(ACTIVATIONS).index(name)]
    dz = np.median(norms[name, which, batch_norm][:, 0], axis=0)
    label = f"{'with batch norm' if batch_norm else 'without'}, {which} gain"
    colour = lesson.COLOURS[0 if batch_norm else 1]
    ax.plot(range(1, DEPTH + 1), dz, styles[which], color=colour, label=label)
    ax.set(title=name, xlabel="layer", yscale="log", xticks=(1, 5, 10, 15, 20))
    ax.grid(axis="y")
axes[0].set_ylabel("norm of the gradient of z")
handles, labels = axes[0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=3)
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
u = np.linspace(-10, 10, 20001)
weight = np.exp(-(u**2) / 2) / np.exp(-(u**2) / 2).sum()  # of a standard normal number
s = 1 / (1 + np.exp(-u))
curves = {
    "ReLU": (np.maximum(u, 0), u > 0),
    "tanh": (np.tanh(u), 1 - np.tanh(u) ** 2),
    "sigmoid": (s, s * (1 - s)),
}
for name, (f, slope) in curves.items():
    variance = np.sum(weight * f**2) - np.sum(weight * f) ** 2
    predicted = np.sqrt(np.sum(weight * slope**2) / variance)
    measured = np.median(factors[name, "matched", True])
    deep = [gradient_norms(network(k, name, True, 1.0, depth=100))[0] for k in FEW]
    times = np.median([dz[0] / dz[-1] for dz in deep])
    wide = [gradient_norms(network(k, name, True, 1.0, width=256))[0] for k in FEW]
    print(f"{name:7} predicted {predicted:.3f}, measured {measured:.3f}, ", end="")
    print(f"with 256 units a layer {np.median([factor(dz) for dz in wide]):.3f}; ", end="")
    print(f"in 100 layers the gradient grows {times:.1e} times")


# %% [markdown]
# The measured factors are a little larger, and wide layers hardly change that.
# The argument also takes `u` to be exactly normal, and the gradient to be independent of it; in a
# network that reads digits they are so only roughly.
#
# ## Does it help?
#
# Five epochs of plain gradient descent with each of these networks. The rate is the best of four
# for each by itself, found on another seed.


# %%
def accuracy_after(case, rate, seed):
    name, which, batch_norm = case
    net = network(seed, name, batch_norm, gains(name)[which])
    optimizer = mb.optim.SGD(net.parameters(), lr=rate)
    batches = mb.data.batches(
        data.x_train, data.y_train, batch_size=BATCH, drop_last=True, rng=seed
    )
    with np.errstate(all="ignore"):  # gradients too small or too large for float32
        for _ in range(EPOCHS):
            for x, y in batches:
                loss = mb.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        net.eval()
        with mb.no_grad():
            return 100 * np.mean(np.argmax(net(data.x_test), axis=1) == data.y_test)


scores, best = {}, {}
for case in lesson.track(cases, "training"):
    tries = [accuracy_after(case, rate, 100) for rate in RATES] if len(RATES) > 1 else [0]
    best[case] = RATES[int(np.argmax(tries))]
    scores[case] = [accuracy_after(case, best[case], seed) for seed in TRAIN_SEEDS]

print(f"test images read right after {EPOCHS} epochs, %, median of {len(TRAIN_SEEDS)} (range)")
print("and the learning rate")
print(f"{'':16} {'with batch norm':29} without")
for name, which, batch_norm in cases:
    if batch_norm:
        cells = (
            f"{spread(scores[name, which, b], '.1f')}, {best[name, which, b]:g}"
            for b in (True, False)
        )
        print("{:7} {:8} {:29} {}".format(name, which, *cells))

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
pairs = [(name, which) for name, which, batch_norm in cases if batch_norm]
away = {case: abs(np.log(np.median(factors[case]))) for case in cases}
better = {case: np.median(scores[case]) for case in cases}
distant = [p for p in pairs if away[*p, True] >= away[*p, False]]
behind = [p for p in pairs if better[*p, True] <= better[*p, False]]
print("not nearer to 1:", "; ".join(map(", ".join, distant)) or "none")
print("not better trained:", "; ".join(map(", ".join, behind)) or "none")

facts = []
for name in ACTIVATIONS:
    mine = np.concatenate([factors[name, which, True] for which in styles])
    others = ", ".join(f"{np.median(factors[name, which, False]):.2f}" for which in styles)
    facts.append(f"{name} {spread(mine, '.2f')} with batch norm, {others} without")
some = "holds within limits" if 2 * len(distant) < len(pairs) else "does not hold here"
measured = (
    f"{DEPTH} layers, {len(SEEDS)} seeds, factor per layer (without: small, matched, large gain): "
    f"{'; '.join(facts)}. Nearer to 1 with batch norm in {len(pairs) - len(distant)} of "
    f"{len(pairs)} cases. Better trained after {EPOCHS} epochs in {len(pairs) - len(behind)}: "
    f"{spread([better[*p, True] for p in pairs], '.1f')} % of the test images with batch norm, "
    f"{spread([better[*p, False] for p in pairs], '.1f')} % without, over the cases; ReLU with the "
    f"matched gain {better['ReLU', 'matched', True]:.1f} and {better['ReLU', 'matched', False]:.1f}"
)
lesson.claim(run, "D7", some if distant else "holds", measured)
