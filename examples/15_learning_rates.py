# %% [markdown]
# # Learning rates
#
# How carefully must the learning rate be chosen? This lesson trains the same network at eleven
# rates, from 0.001 to 100, and settles one claim:
#
# - **D5** with batch norm a wider range of learning rates works, higher ones included.
#
# *Works* means: after five epochs of plain gradient descent at least 90 % of the test images are
# read right, the median over the seeds. Five epochs are few, and with patience a low rate may do as
# well; so at the end ReLU is given four times as long, and so are sigmoids without batch norm. The
# network is that of lesson 13, 64-64-64-10; batches of 32.

# %%
from itertools import product

import lesson
import numpy as np

import microbn as mb

run = lesson.options("15_learning_rates")
SEEDS, EPOCHS = (range(2), 2) if run.quick else (range(5), 5)
RATES = 10.0 ** np.arange(-3, 2.5, 1 if run.quick else 0.5)
data = mb.data.digits()

# %% [markdown]
# ## What a high rate does
#
# Batch norm divides by the standard deviation of `z = W a`, so `W` and `2 W` give the same output.
# Hence the gradient is at a right angle to the weights of each unit, and every step makes them
# longer, by Pythagoras. And the gradient at `2 W` is half that at `W`: longer weights turn less. A
# rate that is too high lengthens the weights, and so makes up for itself in part. Not without
# limit: the output layer has no batch norm behind it to do this. (Ioffe & Szegedy 2015,
# arXiv:1502.03167, section 3.3; van Laarhoven 2017, arXiv:1706.05350.)
#
# All of this can be checked on one batch. `eps` disturbs it, but in digits that are not shown here.

# %%
x, y = data.x_train[:128], data.y_train[:128]
found = []
for factor in (1, 2):
    net = lesson.network(seed=0, batch_norm=True)
    weight = net[3].weight  # of the second layer
    weight.data = factor * weight.data
    loss = mb.functional.cross_entropy(net(x), y)
    loss.backward()
    found.append((loss.item(), weight.data, weight.grad))
(loss, w, g), (doubled, _, g2) = found
norm = np.linalg.norm
cosine = np.sum(w * g, axis=1) / (norm(w, axis=1) * norm(g, axis=1))
print(f"cosine of the angle between a unit's weights and its gradient: {np.abs(cosine).max():.4f}")
print(f"  (the largest of 64, on {len(x)} images)")
print(f"the loss is {loss:.4f}, and with the weights doubled {doubled:.4f}")
print(f"the gradient has norm {norm(g):.4f}, then {norm(g2):.4f}, ratio {norm(g2) / norm(g):.4f}")
print(f"one step at rate 10: the weights' norm goes from {norm(w):.4f}", end=" ")
print(f"to {norm(w - 10 * g):.4f}, by Pythagoras {np.hypot(norm(w), 10 * norm(g)):.4f}")

# %% [markdown]
# ## The grid
#
# Eleven rates, three activations, with batch norm and without, five seeds. A rate that is far too
# high makes the weights overflow; such a network reads a tenth of the images right.


# %%
def accuracy_after(epochs, label, rate, seed):
    net = lesson.network(seed, *lesson.NETWORKS[label])
    return lesson.accuracy_after(epochs, net, data, float(rate), seed)


def sweep(epochs, labels):
    """Return the percentages read right, a table (rates, seeds) for each label; print medians."""
    scores = {}
    for label in labels:
        cases = lesson.track(product(RATES, SEEDS), f"{label}, {epochs} epochs")
        found = [accuracy_after(epochs, label, rate, seed) for rate, seed in cases]
        scores[label] = np.reshape(found, (len(RATES), len(SEEDS)))
    print(f"test images read right after {epochs} epochs, %, median of {len(SEEDS)}")
    print(f"{'rate':16}" + "".join(f"{lesson.plain(rate):>7}" for rate in RATES))
    for label, table in scores.items():
        print(f"{label:16}" + "".join(f"{number:7.1f}" for number in np.median(table, axis=1)))
    return scores


scores = sweep(EPOCHS, lesson.NETWORKS)

# %%
fig, ax = lesson.figure(figsize=(9.6, 3.6))
medians = [np.median(table, axis=1) for table in scores.values()]
heads = [f"{label} batch norm" for label in scores]
image = lesson.heat(ax, medians, [lesson.plain(rate) for rate in RATES], heads)
ax.set_xlabel(f"learning rate (plain gradient descent, {EPOCHS} epochs)")
fig.colorbar(image, label="test images read right, %")
lesson.save(run, fig)

# %% [markdown]
# ## What was found
#
# The claim *holds* if for each activation more rates work with batch norm than without, and the
# highest that works is higher; *within limits* if that is so for some.


# %%
def working(table):
    """Return the rates that work, and how it is said."""
    median = np.median(table, axis=1)
    works = RATES[median >= 90]
    said = (
        f"{works.size} of {RATES.size} rates ({lesson.span(works)}), at best {median.max():.1f} %"
    )
    return works, said


facts, wider = [], []
for name in lesson.ACTIVATIONS:
    mine, said = working(scores[f"{name}, with"])
    other, other_said = working(scores[f"{name}, without"])
    facts.append(f"{name}: with {said}; without {other_said}")
    print(facts[-1])
    wider.append(mine.size > other.size and mine.max(initial=0) > other.max(initial=0))
apart = [np.ptp(seeds) for table in scores.values() for seeds in table if np.median(seeds) >= 90]
print(f"where a rate works, the seeds differ by at most {max(apart, default=0):.1f} points")

# %% [markdown]
# ## With patience
#
# Four times as many epochs, for ReLU and for sigmoids without batch norm. With ReLU some lower
# rates catch up, with batch norm and without; the upper end does not move. For sigmoids without
# batch norm five epochs were too few at any rate. In the full run twenty are enough at two of the
# eleven, 1 and 3.2, and there the median is 96 % and more; with batch norm six rates worked after
# five. In a short run eight epochs are still too few.

# %%
longer = sweep(4 * EPOCHS, ["ReLU, with", "ReLU, without", "sigmoid, without"])
with_bn, without, sigmoid = (working(table)[1] for table in longer.values())
facts.append(f"ReLU, {4 * EPOCHS} epochs: with {with_bn}; without {without}")
facts.append(f"sigmoid, {4 * EPOCHS} epochs: without {sigmoid}")
print("\n".join(facts[-2:]))

start = f"{len(SEEDS)} seeds, median at least 90 % after {EPOCHS} epochs. "
limits = f"with {' and '.join(np.array(list(lesson.ACTIVATIONS))[wider])} only"
verdict = lesson.verdict(all(wider), any(wider))
lesson.claim(run, "D5", verdict, start + ". ".join(facts), limits)
