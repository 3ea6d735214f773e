# %% [markdown]
# # Training with mini-batches
#
# How is a network with batch norm trained? As any other: batch norm is a layer, and `gamma` and
# `beta` are parameters beside the weights. This lesson settles three claims:
#
# - **D1** for each mini-batch: forward, with `z` replaced by `z_tilde` in each hidden layer; the
#   loss; backward for `dw`, `dgamma`, `dbeta`; update;
# - **D2** it works with gradient descent, momentum, RMSprop and Adam;
# - **D3** it works with any activation: sigmoid, tanh, ReLU.
#
# *Works* means here: with each of the seeds, the trained network reads at least 90 % of the test
# images right. Guessing gives 10 %. A claim *holds* if every rule or activation in question works,
# *within limits* if some do.

# %%
from itertools import product

import lesson
import numpy as np

import microbn as mb

run = lesson.options("13_training")
SEEDS, EPOCHS = (range(2), 3) if run.quick else (range(5), 10)
data = mb.data.digits()
print(f"{len(data.x_train)} images to train on, {len(data.x_test)} to test on, 64 numbers each")

# %% [markdown]
# ## The network
#
# Two hidden layers of 64, and 10 outputs, one for each digit. A hidden layer computes
# `z = W a`, then `z_tilde` by batch norm, then the activation. It has no bias, for `beta` does its
# work. A generator of its own for each layer sees to it that the network without batch norm starts
# from the same weights.


# %%
def network(seed, batch_norm=True, activation=mb.nn.ReLU):
    layers = []
    for k in range(2):
        rng = np.random.default_rng([seed, k])
        layers.append(mb.nn.Linear(64, 64, bias=not batch_norm, rng=rng))
        if batch_norm:
            layers.append(mb.nn.BatchNorm1d(64))
        layers.append(activation())
    output = mb.nn.Linear(64, 10, rng=np.random.default_rng([seed, 2]))
    return mb.nn.Sequential(*layers, output)


# %% [markdown]
# From here on the lessons use `lesson.network`, which is this one.
#
# ## One step
#
# Forward, loss, backward, on the first 32 images. A network that knows nothing gives each of ten
# digits about the probability 1/10, so the loss begins near `ln 10 = 2.303`. After `backward()`
# each parameter has a gradient of its own shape.

# %%
net = network(seed=0)
loss = mb.functional.cross_entropy(net(data.x_train[:32]), data.y_train[:32])
loss.backward()
print(f"loss {loss.item():.4f}, ln 10 = {np.log(10):.4f}")
for name, p in net.named_parameters():
    print(f"  {name:10} {p.shape!s:9} norm of its gradient {np.linalg.norm(p.grad):.4f}")

# %% [markdown]
# The update treats `gamma` as it treats a weight. Gradient descent with rate 0.1 subtracts a tenth
# of the gradient; `gamma` was 1.

# %%
gamma = net[1].weight
slope = gamma.grad[0]
mb.optim.SGD(net.parameters(), lr=0.1).step()
print(f"gamma[0] = 1 - 0.1 * {slope:.6f} = {gamma.data[0]:.6f}")
again = mb.functional.cross_entropy(net(data.x_train[:32]), data.y_train[:32])
print(f"the loss of the same images afterwards: {again.item():.4f}")


# %% [markdown]
# ## The loop
#
# That step, for every mini-batch of every epoch: this is all. In use (`eval`) batch norm
# normalises by its running averages, so that an image is read the same whatever comes with it.
# (Before training a network does not guess evenly but has favourites, so it may read fewer than
# 10 % right.)


# %%
def train(net, optimizer, seed):
    batches = mb.data.batches(data.x_train, data.y_train, batch_size=32, drop_last=True, rng=seed)
    net.train()
    for _ in range(EPOCHS):
        for x, y in batches:  # for each mini-batch
            loss = mb.functional.cross_entropy(net(x), y)  # forward, z_tilde in place of z
            optimizer.zero_grad()
            loss.backward()  # dw, dgamma, dbeta
            optimizer.step()  # the update


def accuracy(net):
    net.eval()
    with mb.no_grad():
        return 100 * np.mean(np.argmax(net(data.x_test), axis=1) == data.y_test)


net = network(seed=0)
before = accuracy(net)
train(net, mb.optim.SGD(net.parameters(), lr=0.1), seed=0)
print(f"read right before training {before:.1f} %, after {EPOCHS} epochs {accuracy(net):.1f} %")
gamma = net[1].weight.data
print(f"gamma went from 1 to between {gamma.min():.2f} and {gamma.max():.2f}")

# %% [markdown]
# From here on the lessons use `lesson.epoch`, which is the inner loop, and `lesson.accuracy`, which
# is this one.
#
# ## Five update rules
#
# The rules differ in what they do with a gradient. Let a weight be 1, and its gradient 2, twice:
#
# - gradient descent takes `lr g`, so `1 - 0.1*2 - 0.1*2 = 0.6`;
# - momentum `lr v`, where `v = 0.9 v + g`: `1 - 0.01*2 - 0.01*3.8 = 0.942`;
# - RMSprop `lr g / sqrt(s)`, where `s = 0.99 s + 0.01 g*g`: the roots are `sqrt(0.04) = 0.2` and
#   `sqrt(0.0796) = 0.282135`, so `1 - 0.001*2/0.2 - 0.001*2/0.282135 = 0.98291119`;
# - Adam `lr m / sqrt(s)`, of two averages corrected for their start at 0. Of a constant they are
#   2 and 4, so each step is 0.001, and `1 - 0.001 - 0.001 = 0.998`;
# - AdamW takes a hundredth of `lr w` more each time: `0.998 - 0.00001*1 - 0.00001*0.99899 =
#   0.99798001`.
#
# (Adam: Kingma & Ba 2015, arXiv:1412.6980; AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101;
# RMSprop: Tieleman & Hinton 2012. The tests of `mb.optim` compare each rule with its publication
# and with PyTorch.)
#
# The rates were set before the first run, and not tuned: 0.1 for gradient descent; a tenth of it
# with momentum 0.9, which makes steps up to ten times as long; for the others 0.001, as Adam's
# authors suggest.

# %%
RULES = {
    "gradient descent": lambda p: mb.optim.SGD(p, lr=0.1),
    "momentum": lambda p: mb.optim.SGD(p, lr=0.01, momentum=0.9),
    "RMSprop": lambda p: mb.optim.RMSprop(p, lr=0.001),
    "Adam": lambda p: mb.optim.Adam(p, lr=0.001),
    "AdamW": lambda p: mb.optim.AdamW(p, lr=0.001),
}
for rule, make in RULES.items():
    w = mb.nn.Parameter(1.0)
    optimizer = make([w])
    for _ in range(2):
        w.grad = np.array(2.0)
        optimizer.step()
    print(f"{rule:16} 1 becomes {w.item():.8f}")

# %% [markdown]
# Now each of them trains the network, with batch norm and without; and gradient descent trains it
# with each activation.

# %%
DESCENT = RULES["gradient descent"]
runs = {f"ReLU, {rule}": (mb.nn.ReLU, make) for rule, make in RULES.items()}
runs["tanh, gradient descent"] = mb.nn.Tanh, DESCENT
runs["sigmoid, gradient descent"] = mb.nn.Sigmoid, DESCENT
found = {}
for name, batch_norm in lesson.track(product(runs, (True, False)), "training"):
    activation, make = runs[name]
    found[name, batch_norm] = scores = []
    for seed in SEEDS:
        net = network(seed, batch_norm, activation)
        train(net, make(net.parameters()), seed)
        scores.append(accuracy(net))

print(f"test images read right after {EPOCHS} epochs, in percent: median of {len(SEEDS)} (range)")
print(f"{'':26} {'with batch norm':20} without")
said = {}
for name in runs:
    with_bn, without = (lesson.spread(found[name, batch_norm]) for batch_norm in (True, False))
    said[name] = f"{name} {with_bn}, without {without}"
    print(f"{name:26} {with_bn:20} {without}")

# %%
fig, ax = lesson.figure(figsize=(6.6, 3.8))
for batch_norm, label, marker in ((True, "with batch norm", "o"), (False, "without", "s")):
    rows = np.arange(len(runs)) + (-0.15 if batch_norm else 0.15)
    wrong = 100 - np.array([found[name, batch_norm] for name in runs])
    middle = np.median(wrong, axis=1)
    reach = [middle - wrong.min(axis=1), wrong.max(axis=1) - middle]
    ax.errorbar(middle, rows, xerr=reach, fmt=marker, capsize=3, label=label)
ax.set_yticks(range(len(runs)), runs)
ax.set(xlabel=f"test images read wrong after {EPOCHS} epochs, % (median, range)", xscale="log")
lesson.plain_ticks(ax.xaxis)
ax.invert_yaxis()
ax.grid(axis="x")
fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
lesson.save(run, fig)

# %% [markdown]
# ## What was found


# %%
def report(claim, names):
    good = [name for name in names if min(found[name, True]) >= 90]
    start = f"With batch norm, after {EPOCHS} epochs, {len(SEEDS)} seeds, % of the test images: "
    measured = start + "; ".join(said[name] for name in names)
    verdict = lesson.verdict(good == names, good)
    lesson.claim(run, claim, verdict, measured, limits=f"with {'; '.join(good)}")


report("D1", ["ReLU, gradient descent"])
report("D2", [name for name in runs if name.startswith("ReLU")])
report("D3", [name for name in runs if name.endswith("gradient descent")])
