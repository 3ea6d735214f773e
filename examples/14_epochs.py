# %% [markdown]
# # Epochs to the same loss
#
# Does a network with batch norm need fewer epochs to reach the same loss? Two networks start from
# the same weights, and see the same batches; ten seeds. This lesson settles one claim:
#
# - **D4** fewer epochs to the same loss.
#
# There are two ways to compare. At **the same learning rate** only batch norm differs. But a rate
# may suit one network and not the other; so each is also given **the rate that is best for it**,
# found on other seeds. Whoever would rather tune the rate than normalise asks the second
# question.

# %%
from itertools import islice, product

import lesson
import numpy as np

import microbn as mb

run = lesson.options("14_epochs")
SEEDS, EPOCHS = (range(2), 4) if run.quick else (range(10), 20)
TUNING_SEEDS = range(100, 101) if run.quick else range(100, 103)  # not those reported
RATES = (0.1, 1.0) if run.quick else (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SAME, PER_EPOCH = 0.1, 5  # the loss is taken five times an epoch
LABELS = {True: "with batch norm", False: "without"}
data = mb.data.digits()

# %% [markdown]
# ## What is compared
#
# The network of the lesson before: 64-64-64-10 with ReLU, and batch norm in both hidden layers or
# nowhere. Plain gradient descent, batches of 32, 45 of them an epoch. Compared is the loss over
# **all** training images, in use (`eval`): the loss of a batch in training mode would be another
# function for the network with batch norm than for the one without.


# %%
@mb.no_grad()
def whole_loss(net):
    return mb.functional.cross_entropy(net.eval()(data.x_train), data.y_train).item()


def curve(seed, batch_norm, rate):
    """Train a network, and return the losses: at the start, then five times an epoch."""
    net = lesson.network(seed, batch_norm)
    optimizer = mb.optim.SGD(net.parameters(), lr=rate)
    batches = mb.data.batches(data.x_train, data.y_train, batch_size=32, drop_last=True, rng=seed)
    losses = [whole_loss(net)]
    with np.errstate(over="ignore", invalid="ignore"):  # where the rate is far too high
        for _ in range(EPOCHS):
            rest = iter(batches)
            for _ in range(PER_EPOCH):
                lesson.epoch(net, optimizer, islice(rest, len(batches) // PER_EPOCH))
                losses.append(whole_loss(net))
    return np.array(losses)


def epochs_to(losses, target):
    """Return after how many epochs the loss is first at most the target, infinity if never."""
    reached = np.flatnonzero(losses <= target)
    return reached[0] / PER_EPOCH if reached.size else np.inf


# %% [markdown]
# A check of the counting: losses of 2.3, 1.0, 0.4, 0.6, 0.3 at five points of the first epoch. 0.5
# is first reached at the point with index 2, which is 2/5 of an epoch; 0.1 is not reached.

# %%
print(epochs_to(np.array([2.3, 1.0, 0.4, 0.6, 0.3]), 0.5), "by hand 0.4")
print(epochs_to(np.array([2.3, 1.0, 0.4, 0.6, 0.3]), 0.1), "by hand inf")

# %% [markdown]
# ## The best rate for each
#
# Best is the rate with the fewest epochs to a loss of 0.1, the median over three other seeds. Where
# several are equal, the lower one is taken. A loss that is not reached counts as infinitely many
# epochs, printed as `never`; so where no rate reaches it, the lowest is taken.


# %%
def said(numbers):
    """Return the median and the range, and that a loss is not reached as "never"."""
    return lesson.spread(numbers).replace("inf", "never") if min(numbers) < np.inf else "never"


best = {}
for batch_norm, label in LABELS.items():
    medians = {}
    for rate in lesson.track(RATES, label):
        tries = [epochs_to(curve(seed, batch_norm, rate), 0.1) for seed in TUNING_SEEDS]
        medians[rate] = np.median(tries)
    best[batch_norm] = min(RATES, key=medians.get)
    epochs = "  ".join(f"{rate:g}: {median:.1f}" for rate, median in medians.items())
    epochs = epochs.replace("inf", "never")
    print(f"{label:15} epochs by rate  {epochs}   best {best[batch_norm]:g}")

# %% [markdown]
# ## Ten seeds

# %%
settings = {"same": {True: SAME, False: SAME}, "best": best}
curves = {}
for which, batch_norm in lesson.track(product(settings, LABELS), "training"):
    rate = settings[which][batch_norm]
    curves[which, batch_norm] = losses = np.array([curve(k, batch_norm, rate) for k in SEEDS])
    print(f"seed 0, {LABELS[batch_norm]}, rate {rate:g}: {losses[0, 0]:.4f} before, ", end="")
    print(f"{losses[0, PER_EPOCH]:.4f} after one epoch, {losses[0, -1]:.4f} after {EPOCHS}")

# %%
fig, axes = lesson.figure(columns=2, sharey=True)
time = np.arange(EPOCHS * PER_EPOCH + 1) / PER_EPOCH
titles = {"same": "the same rate", "best": "the best rate for each"}
for (which, title), ax in zip(titles.items(), axes, strict=True):
    for batch_norm, style in ((True, "-"), (False, "--")):
        label = f"{LABELS[batch_norm]}, rate {settings[which][batch_norm]:g}"
        lesson.band(ax, time, curves[which, batch_norm], style, label)
    ticks = range(0, EPOCHS + 1, max(1, EPOCHS // 4))
    ax.set(xlabel="epochs", yscale="log", title=title, xticks=ticks)
    ax.grid()
    ax.legend()
axes[0].set_ylabel("loss over the training images")
lesson.save(run, fig)

# %% [markdown]
# ## What was found
#
# For each loss: the epochs with batch norm and without, and how many times as many the network
# without needs, seed by seed; the median, and in brackets the range over the seeds. There is no
# ratio where a network does not reach the loss with some seed.

# %%
facts, fewer = [], {"same": [], "best": []}
for which, target in product(settings, (1.0, 0.3, 0.1, 0.03)):
    with_bn = np.array([epochs_to(losses, target) for losses in curves[which, True]])
    without = np.array([epochs_to(losses, target) for losses in curves[which, False]])
    line = "neither network reaches it"
    reached = np.isfinite(with_bn) | np.isfinite(without)  # by one of the two at least
    if reached.any():
        fewer[which].append(np.mean(with_bn[reached] < without[reached]))
        line = f"{said(with_bn)} epochs with batch norm, {said(without)} without"
    if np.isfinite([*with_bn, *without]).all():
        line += f", ratio {lesson.spread(without / with_bn)}"
    print(f"{which} rate, loss {target:<4}  {line}")
    if target == 0.1:
        rates = f"{settings[which][True]:g} with, {settings[which][False]:g} without"
        facts.append(f"to a loss of 0.1 at the {which} rate ({rates}) {line}")

# %% [markdown]
# The claim *holds* if for every one of these losses at least nine of ten seeds need fewer epochs
# with batch norm, at the same rate and at the best; *within limits* if only at one of the two. A
# network that never reaches the loss counts as the slower one, since `never` is infinitely many
# epochs. A seed with which neither network reaches it is left out, and so is a loss that neither
# reaches with any seed.
#
# An epoch is not a second. A step with batch norm is more work: counted below are the ops that are
# recorded for the loss of one batch, each of which is gone through backward again.


# %%
def ops(net):
    loss = mb.functional.cross_entropy(net(data.x_train[:32]), data.y_train[:32])
    return sum(t.op is not None for t, _ in mb.backprop(loss))


with_bn, without = (ops(lesson.network(0, batch_norm)) for batch_norm in LABELS)
print(f"ops of a step: {with_bn} with batch norm, {without} without")

held = [bool(shares) and min(shares) >= 0.9 for shares in fewer.values()]
least = [f"{min(each, default=0):.0%} of the seeds at the {r} rate" for r, each in fewer.items()]
facts.append(f"fewer to all losses that are reached with at least {' and '.join(least)}")
measured = f"{len(SEEDS)} seeds: {'; '.join(facts)}"
verdict = lesson.verdict(all(held), any(held))
limits = f"at the {'same' if held[0] else 'best'} rate only"
lesson.claim(run, "D4", verdict, measured, limits)
