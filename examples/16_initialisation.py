# %% [markdown]
# # Initialisation
#
# How much depends on how large the weights are at the start? This lesson multiplies them by factors
# from 0.01 to 100 before training, and settles one claim:
#
# - **D6** with batch norm less depends on the weight initialisation.
#
# *Works* means: after five epochs of plain gradient descent at least 90 % of the test images are
# read right, the median over the seeds. Each network has the learning rate that suits it best at
# the factor 1; with one rate for all it would be the rate that decides (see the lesson before).

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("16_initialisation")
SEEDS, EPOCHS, BATCH = (range(1), 2, 32) if run.quick else (range(5), 5, 32)
RATES = (0.1, 1.0) if run.quick else (0.03, 0.1, 0.3, 1.0, 3.0)
TUNING_SEEDS = range(100, 101) if run.quick else range(100, 103)  # not those reported
SCALES = 10.0 ** np.arange(-2, 2.5, 1 if run.quick else 0.5)
ACTIVATIONS = {"ReLU": mb.nn.ReLU, "tanh": mb.nn.Tanh, "sigmoid": mb.nn.Sigmoid}
data = mb.data.digits()


# %% [markdown]
# ## What a factor does
#
# Batch norm divides by the standard deviation of `z = W a`. A factor `s` in front of `W` is divided
# out again: the output is the same, and so is the loss. Since a weight that is `s` times as large
# has to be moved `s` times as far for the same effect, the gradient is `1/s` of what it was
# (Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.3).
#
# That is so as long as `var` is far larger than `eps = 1e-5`. The weights of this network begin
# between -1/8 and 1/8. With a factor of 0.01 the variance of `z` is of the size of `eps`, and
# `var / (var + eps)`, the variance of what comes out, is no longer near 1.


# %%
def network(seed, batch_norm, scale=1.0, activation=mb.nn.ReLU, output=True):
    """Return 64-64-64-10 with weights (and biases) ``scale`` times as large as usual.

    With ``output=False`` those of the output layer, which has no batch norm, are as usual.
    """
    layers = []
    for k in range(2):
        rng = np.random.default_rng([seed, k])  # the same weights, with batch norm or without
        layers.append(mb.nn.Linear(64, 64, bias=not batch_norm, rng=rng))
        layers += [mb.nn.BatchNorm1d(64)] * batch_norm + [activation()]
    layers.append(mb.nn.Linear(64, 10, rng=np.random.default_rng([seed, 2])))
    for layer in layers if output else layers[:-1]:
        if isinstance(layer, mb.nn.Linear):
            for p in layer.parameters():
                p.data = np.float32(scale) * p.data
    return mb.nn.Sequential(*layers)


x, y = data.x_train[:128], data.y_train[:128]
for batch_norm in (True, False):
    print("hidden layers", "with batch norm" if batch_norm else "without")
    for scale in (0.01, 0.1, 1.0, 10.0, 100.0):
        net = network(0, batch_norm, scale, output=False)
        loss = mb.functional.cross_entropy(net(x), y)
        loss.backward()
        norm = np.linalg.norm(net[0].weight.grad)
        print(f"  factor {scale:<5g} loss {loss.item():<9.4f} gradient of W {norm:<11.4g}", end="")
        print(f" times the factor {scale * norm:.4g}")

with mb.no_grad():
    variance = network(0, True, 0.01)[0](x).data.var(axis=0)
kept = np.mean(variance / (variance + 1e-5))
print(f"factor 0.01: var of z is {variance.mean():.2e} on average,", end=" ")
print(f"so var / (var + eps) is {kept:.2f}")

# %% [markdown]
# So with batch norm in the hidden layers no factor there harms the loss at the start. But training
# goes on with the gradient, and a step of `1/s` on weights of size `s` turns them by `1/s^2` as
# much. With a factor of 100 the hidden layers hardly learn: it acts as a learning rate divided by
# 10,000. With a factor of 0.01 it is the other way round: the first steps are far too large, but
# they lengthen the weights, and so the next are smaller.
#
# ## The grid
#
# Nine factors, three activations, with batch norm and without, five seeds. Once for all layers.
# Once for the hidden layers alone: the output layer has no batch norm, and a factor there is not
# divided out.


# %%
def accuracy_after(net, rate, seed):
    optimizer = mb.optim.SGD(net.parameters(), lr=rate)
    batches = mb.data.batches(
        data.x_train, data.y_train, batch_size=BATCH, drop_last=True, rng=seed
    )
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(EPOCHS):
            for x, y in batches:
                loss = mb.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        net.eval()
        with mb.no_grad():
            return 100 * np.mean(np.argmax(net(data.x_test), axis=1) == data.y_test)


rows = [(name, batch_norm) for name in ACTIVATIONS for batch_norm in (True, False)]
labels = [f"{name}, {'with' if batch_norm else 'without'}" for name, batch_norm in rows]
best = []
for label, (name, batch_norm) in lesson.track(list(zip(labels, rows, strict=True)), "rates"):
    tries = {}
    for rate in RATES:
        nets = {k: network(k, batch_norm, 1.0, ACTIVATIONS[name]) for k in TUNING_SEEDS}
        tries[rate] = np.median([accuracy_after(net, rate, k) for k, net in nets.items()])
    best.append(max(RATES, key=tries.get))
    found = "  ".join(f"{rate:g}: {percent:.1f}" for rate, percent in tries.items())
    print(f"{label:16} % right by rate  {found}   best {best[-1]:g}")

scores = np.zeros((2, len(rows), len(SCALES), len(SEEDS)))
for where, i, j, k in lesson.track(list(np.ndindex(scores.shape)), "training"):
    name, batch_norm = rows[i]
    net = network(SEEDS[k], batch_norm, SCALES[j], ACTIVATIONS[name], output=not where)
    scores[where, i, j, k] = accuracy_after(net, best[i], SEEDS[k])
median = np.median(scores, axis=3)


def short(scale):
    return np.format_float_positional(scale, 2, fractional=False, trim="-")


PLACES = "all layers", "hidden layers"
for place, lines in zip(PLACES, median, strict=True):
    print(f"factor in front of the weights of {place}: read right after {EPOCHS} epochs, %")
    print(f"{'factor':16}" + "".join(f"{short(scale):>7}" for scale in SCALES))
    for label, line in zip(labels, lines, strict=True):
        print(f"{label:16}" + "".join(f"{number:7.1f}" for number in line))

# %%
heads = [f"{label} batch norm, rate {rate:g}" for label, rate in zip(labels, best, strict=True)]
fig, axes = lesson.figure(columns=2, figsize=(11.5, 3.6), sharey=True)
for place, lines, ax in zip(PLACES, median, axes, strict=True):
    image = ax.imshow(lines, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for i, j in np.ndindex(lines.shape):
        ink = "black" if lines[i, j] > 55 else "white"
        ax.text(j, i, f"{lines[i, j]:.0f}", ha="center", va="center", color=ink)
    ax.set_xticks(range(len(SCALES)), [short(scale) for scale in SCALES])
    ax.set_yticks(range(len(rows)), heads)
    ax.set(xlabel="factor in front of the initial weights", title=place)
fig.colorbar(image, ax=axes, label=f"read right after {EPOCHS} epochs, %")
lesson.save(run, fig)

# %% [markdown]
# ## What was found
#
# The claim *holds* if for each activation, and in both grids, more factors work with batch norm
# than without; *within limits* if that is so in some cases.
#
# It says nothing of the best factor: there, a network without batch norm can do as well.

# %%
facts, wider = [], []
for place, lines in zip(PLACES, median, strict=True):
    for name in ACTIVATIONS:
        count, parts = [], []
        for batch_norm in (True, False):
            line = lines[rows.index((name, batch_norm))]
            works = SCALES[line >= 90]
            span = " to ".join(dict.fromkeys(short(s) for s in works[[0, -1] * bool(works.size)]))
            reach = f"{line.min():.1f} to {line.max():.1f} % over all"
            parts.append(f"{works.size} of {SCALES.size} factors ({span or 'none'}), {reach}")
            count.append(works.size)
        facts.append(f"{place}, {name}: with {parts[0]}; without {parts[1]}")
        print(facts[-1])
        wider.append(count[0] > count[1])
ranges = np.ptp(scores, axis=3)[median >= 90]
print(f"where a factor works, the seeds differ by at most {ranges.max(initial=0):.1f} points")

verdict = "holds" if all(wider) else "holds within limits" if any(wider) else "does not hold here"
start = f"{len(SEEDS)} seeds, median at least 90 % after {EPOCHS} epochs. "
lesson.claim(run, "D6", verdict, start + ". ".join(facts))
