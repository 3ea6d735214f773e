# %% [markdown]
# # Initialisation
#
# How much depends on how large the weights are at the start? This lesson multiplies them, and the
# biases where there are any, by factors from 0.01 to 100 before training, and settles one claim:
#
# - **D6** with batch norm less depends on the weight initialisation.
#
# *Works* means: after five epochs of plain gradient descent at least 90 % of the test images are
# read right, the median over the seeds. The network is that of lesson 13, 64-64-64-10; batches of
# 32. Each network has the learning rate that suits it best at the factor 1; with one rate for all
# it would be the rate that decides (see the lesson before).

# %%
from itertools import product

import lesson
import numpy as np

import microbn as mb

run = lesson.options("16_initialisation")
SEEDS, EPOCHS = (range(2), 2) if run.quick else (range(5), 5)
RATES = (0.1, 1.0) if run.quick else (0.03, 0.1, 0.3, 1.0, 3.0)
TUNING_SEEDS = range(100, 101) if run.quick else range(100, 103)  # not those reported
SCALES = 10.0 ** np.arange(-2, 2.5, 1 if run.quick else 0.5)
PLACES = ("all layers", "hidden layers")
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
# between -1/8 and 1/8. With a factor of 0.01 the variance of `z` is about a quarter of `eps`, and
# `var / (var + eps)`, the variance of what comes out, is about a fifth.


# %%
def scaled(seed, batch_norm, activation=mb.nn.ReLU, scale=1.0, place="all layers"):
    """Return the network with weights (and biases) ``scale`` times as large as usual."""
    net = lesson.network(seed, batch_norm, activation)
    linears = [layer for layer in net.children() if isinstance(layer, mb.nn.Linear)]
    for layer in linears if place == "all layers" else linears[:-1]:
        for p in layer.parameters():
            p.data = np.float32(scale) * p.data
    return net


x, y = data.x_train[:128], data.y_train[:128]
for batch_norm in (True, False):
    print("hidden layers", "with batch norm" if batch_norm else "without")
    for scale in (0.01, 0.1, 1.0, 10.0, 100.0):
        net = scaled(0, batch_norm, scale=scale, place="hidden layers")
        loss = mb.functional.cross_entropy(net(x), y)
        loss.backward()
        norm = np.linalg.norm(net[0].weight.grad)
        print(f"  factor {scale:<5g} loss {loss.item():<9.4f} gradient of W {norm:<11.4g}", end="")
        print(f" times the factor {scale * norm:.4g}")

variance = scaled(0, True, scale=0.01)[0](x).data.var(axis=0)
kept = np.mean(variance / (variance + 1e-5))
print(f"factor 0.01: var of z is {variance.mean():.2e} on average,", end=" ")
print(f"so var / (var + eps) is {kept:.2f}")

# %% [markdown]
# So with batch norm in the hidden layers no factor there harms the loss at the start. But training
# goes on with the gradient, and a step of `1/s` on weights of size `s` turns them by `1/s^2` as
# much. With a factor of 100 the hidden layers hardly learn: it acts as a learning rate divided by
# 10,000. (The output layer still learns from what they give: features drawn at random, and
# normalised, may be enough to read most digits.) With a factor of 0.01 it is the other way round:
# the first steps are far too large, but they lengthen the weights, and so the next are smaller.
#
# ## The grid
#
# Nine factors, three activations, with batch norm and without, five seeds. Once for all layers.
# Once for the hidden layers alone: the output layer has no batch norm, and a factor there is not
# divided out.

# %%
best = {}
for label, kind in lesson.track(lesson.NETWORKS.items(), "rates"):
    tries = {}
    for rate in RATES:
        scores = [
            lesson.accuracy_after(EPOCHS, scaled(k, *kind), data, rate, k) for k in TUNING_SEEDS
        ]
        tries[rate] = np.median(scores)
    best[label] = max(RATES, key=tries.get)
    found = "  ".join(f"{rate:g}: {percent:.1f}" for rate, percent in tries.items())
    print(f"{label:16} % right by rate  {found}   best {best[label]:g}")

scores = {}
for place, label in lesson.track(product(PLACES, lesson.NETWORKS), "training"):
    scores[place, label] = table = np.zeros((len(SCALES), len(SEEDS)))
    for (i, scale), (j, seed) in product(enumerate(SCALES), enumerate(SEEDS)):
        net = scaled(seed, *lesson.NETWORKS[label], scale, place)
        table[i, j] = lesson.accuracy_after(EPOCHS, net, data, best[label], seed)
medians = {case: np.median(table, axis=1) for case, table in scores.items()}

factors = [lesson.plain(scale) for scale in SCALES]
for place in PLACES:
    print(f"factor in front of the weights of {place}: read right after {EPOCHS} epochs, %")
    print(f"{'factor':16}" + "".join(f"{factor:>7}" for factor in factors))
    for label in lesson.NETWORKS:
        print(f"{label:16}" + "".join(f"{number:7.1f}" for number in medians[place, label]))

# %%
heads = [f"{label} batch norm, rate {rate:g}" for label, rate in best.items()]
fig, axes = lesson.figure(columns=2, figsize=(11.5, 3.6), sharey=True)
for place, ax in zip(PLACES, axes, strict=True):
    image = lesson.heat(ax, [medians[place, label] for label in lesson.NETWORKS], factors, heads)
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
def working(line):
    """Return how many factors work, and how it is said."""
    works = SCALES[line >= 90]
    reach = f"{line.min():.1f} to {line.max():.1f} % over all"
    return works.size, f"{works.size} of {SCALES.size} factors ({lesson.span(works)}), {reach}"


facts, wider = [], []
for place, name in product(PLACES, lesson.ACTIVATIONS):
    mine, said = working(medians[place, f"{name}, with"])
    other, other_said = working(medians[place, f"{name}, without"])
    facts.append(f"{place}, {name}: with {said}; without {other_said}")
    print(facts[-1])
    wider.append(mine > other)
apart = [np.ptp(seeds) for table in scores.values() for seeds in table if np.median(seeds) >= 90]
print(f"where a factor works, the seeds differ by at most {max(apart, default=0):.1f} points")

start = f"{len(SEEDS)} seeds, median at least 90 % after {EPOCHS} epochs. "
cases = [", ".join(case) for case in product(PLACES, lesson.ACTIVATIONS)]
limits = f"in these cases: {'; '.join(np.array(cases)[wider])}"
verdict = lesson.verdict(all(wider), any(wider))
lesson.claim(run, "D6", verdict, start + ". ".join(facts), limits)
