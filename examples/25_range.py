# %% [markdown]
# # Do activations keep to a smaller range?
#
# **Claim F9**: with batch norm the activations keep a smaller range of values. Weights multiply, so
# without it a layer's values can be of any size, and a deep network multiplies the sizes of all its
# layers. Here the range of every layer is followed through training.

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("25_range")
EPOCHS, SEEDS = (4, 2) if run.quick else (20, 10)
data = mb.data.digits()

# %% [markdown]
# ## How far can a normalised value go?
#
# Not far, whatever the numbers are. The squares of m normalised values sum to at most m, and the
# values themselves sum to zero. So one of them is at most `sqrt(m - 1)`, and the largest minus the
# smallest is at most `sqrt(2 * m)`. Both happen: one value apart from all others, and one on
# either side of the rest.

# %%
one = mb.batch_norm(np.array([0.0, 0.0, 0.0, 1e6]), eps=0.0)
two = mb.batch_norm(np.array([-1e6, 0.0, 0.0, 1e6]), eps=0.0)
print(f"one apart: largest {one.max():.4f}, by hand sqrt(3) = {np.sqrt(3):.4f}")
print(f"two apart: range {np.ptp(two):.4f}, by hand sqrt(8) = {np.sqrt(8):.4f}")

# %% [markdown]
# gamma multiplies that. Of all 1,442 images together, the range of a feature is at most 53.7 times
# |gamma|, and a million times larger weights would change nothing.
#
# ## Four hidden layers
#
# 64-32-32-32-32-10 with ReLU, SGD with rate 0.03 and momentum 0.9, batches of 32. Weights are drawn
# by He's rule, or as PyTorch's `Linear` draws them by default. After each epoch all training images
# go through; the range of a layer is the largest minus the smallest of all values that its ReLUs
# are given. Outliers can rule that number, so the distance between the 1st and the 99th percentile
# is noted as well.
#
# All ranges are measured in eval mode, where batch norm normalises by its running statistics. At
# the start these are set to the statistics of the training images. Later they are averages over the
# last batches, and the bound above holds only nearly.
#
# The claim *holds* if the median range is smaller with batch norm in every layer, at the start and
# trained, with both kinds of weights; *within limits*, if it is so trained.


# %%
@mb.no_grad()
def ranges(net):
    """Return range, and distance of the percentiles, of what each ReLU is given in eval mode."""
    x, found = data.x_train, []
    for layer in net.eval():
        if isinstance(layer, mb.nn.ReLU):
            low, high = np.percentile(x.data, [1, 99])
            found.append((np.ptp(x.data), high - low))
        x = layer(x)
    return found


def train(net, seed):
    """Train, and return the ranges at the start and after each epoch."""
    optimizer = mb.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    batches = mb.data.batches(data.x_train, data.y_train, batch_size=32, drop_last=True, rng=seed)
    mb.nn.update_batch_norm(net, [data.x_train])  # at the start there are no averages yet
    found = [ranges(net)]
    for _ in range(EPOCHS):
        lesson.epoch(net, optimizer, batches)
        found.append(ranges(net))
    return found


NAMES = {"without": False, "with": True}
DRAWN = {"He's weights": True, "default weights": False}
found = {(drawn, name): [] for drawn in DRAWN for name in NAMES}
for seed in lesson.track(range(SEEDS), "seeds"):
    for (drawn, name), each in found.items():
        each.append(train(lesson.deep_network(seed, NAMES[name], DRAWN[drawn]), seed))
found = {key: np.array(each) for key, each in found.items()}  # (seed, epoch, layer, measure)

MEASURES, WHEN = ("range", "1 % to 99 %"), {"at the start": 0, "trained": -1}
for drawn in DRAWN:
    print(f"\n{drawn:32}", *(f"{name:>22}" for name in NAMES))
    for when, epoch in WHEN.items():
        for k, layer in np.ndindex(2, 4):
            values = [found[drawn, name][:, epoch, layer, k] for name in NAMES]
            cells = [f"{lesson.spread(each, '.3g'):>22}" for each in values]
            print(f"{when:12} {MEASURES[k]:11} layer {layer + 1}", *cells)

# %%
fig, axes = lesson.figure(figsize=(9, 5.6), columns=4, rows=2, sharex=True, sharey=True)
for drawn, row in zip(DRAWN, axes, strict=True):
    for layer, ax in enumerate(row):
        ax.set_yscale("log")
        for name, style in zip(NAMES, ("C1--", "C0-"), strict=True):
            lesson.band(ax, range(EPOCHS + 1), found[drawn, name][:, :, layer, 0], style, name)
        ax.set(title=f"layer {layer + 1}\n{drawn}")
        ax.grid()
    row[0].set(ylabel="range")
for ax in axes[1]:
    ax.set(xlabel="epoch")
axes[0, 0].legend()
lesson.save(run, fig)

# %% [markdown]
# ## What was found
#
# At the start it is the other way round: without batch norm the range is *smaller*, with the
# default weights twenty times in the last layer, where the signal has all but faded. In training
# the ranges without batch norm grow, the deeper the more. After 20 epochs they are above those
# with it in all layers; after the four of a short run not yet everywhere. Those with batch norm
# stay near where they began. So the claim holds of networks that were trained for long enough;
# what is true at all times is that batch norm keeps the range *nearly the same*, between 7 and 11,
# from layer to layer and from epoch to epoch.

# %%
widths = {key: each[..., 0] for key, each in found.items()}  # (seed, epoch, layer)
grown = {key: width[:, -1] / width[:, 0] for key, width in widths.items()}
ratio = {drawn: widths[drawn, "without"] / widths[drawn, "with"] for drawn in DRAWN}
at = {(drawn, when): ratio[drawn][:, WHEN[when]] for drawn in DRAWN for when in WHEN}

always = all(np.median(each, axis=0).min() > 1 for each in at.values())
trained = all(np.median(at[drawn, "trained"], axis=0).min() > 1 for drawn in DRAWN)
last = [f"{', '.join(key)} {lesson.spread(each[:, -1], '.2g')}" for key, each in at.items()]
growth = [f"{', '.join(key)} {lesson.spread(each[:, -1], '.2g')}" for key, each in grown.items()]
text = f"last hidden layer, range without batch norm divided by range with it: {'; '.join(last)}. "
text += f"From start to end the range grows by a factor of: {'; '.join(growth)}"
text += f" (median and range of {SEEDS} seeds)"
starts = [np.median(at[drawn, "at the start"], axis=0) for drawn in DRAWN]
turned = np.max(starts) < 1
limits = f"once trained; at the start {'it is the other way round' if turned else 'not everywhere'}"
lesson.claim(run, "F9", lesson.verdict(always, trained), text, limits)
