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
# found on other seeds. Who would rather choose the rate than normalise asks the second question.

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("14_epochs")
SEEDS, EPOCHS = (range(2), 4) if run.quick else (range(10), 20)
TUNING_SEEDS = range(100, 101) if run.quick else range(100, 103)  # not those reported
RATES = (0.1, 1.0) if run.quick else (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SAME, BATCH, PER_EPOCH = 0.1, 32, 5  # the loss is taken five times an epoch
data = mb.data.digits()

# %% [markdown]
# ## What is compared
#
# 64-64-64-10 with ReLU. Plain gradient descent, batches of 32, 45 of them an epoch. Compared is the
# loss over **all** training images, in use (`eval`): the loss of a batch in training mode would
# be another function for the network with batch norm than for the one without.


# %%
def network(seed, batch_norm):
    layers = []
    for k in range(2):
        rng = np.random.default_rng([seed, k])  # the same weights, with batch norm or without
        layers.append(mb.nn.Linear(64, 64, bias=not batch_norm, rng=rng))
        layers += [mb.nn.BatchNorm1d(64)] * batch_norm + [mb.nn.ReLU()]
    output = mb.nn.Linear(64, 10, rng=np.random.default_rng([seed, 2]))
    return mb.nn.Sequential(*layers, output)


def whole_loss(net):
    net.eval()
    with mb.no_grad():
        loss = mb.functional.cross_entropy(net(data.x_train), data.y_train)
    net.train()
    return loss.item()


def curve(seed, batch_norm, rate):
    """Train a network, and return the losses: at the start, then five times an epoch."""
    net = network(seed, batch_norm)
    optimizer = mb.optim.SGD(net.parameters(), lr=rate)
    batches = mb.data.batches(
        data.x_train, data.y_train, batch_size=BATCH, drop_last=True, rng=seed
    )
    losses = [whole_loss(net)]
    with np.errstate(over="ignore", invalid="ignore"):  # where the rate is far too high
        for _ in range(EPOCHS):
            for step, (x, y) in enumerate(batches, start=1):
                loss = mb.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if step % (len(batches) // PER_EPOCH) == 0:
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
# several are equal, the lower one is taken.

# %%
best = {}
grid = {}
for batch_norm, rate in lesson.track([(b, r) for b in (True, False) for r in RATES], "rates"):
    tries = [epochs_to(curve(seed, batch_norm, rate), 0.1) for seed in TUNING_SEEDS]
    grid[batch_norm, rate] = np.median(tries)
for batch_norm, label in ((True, "with batch norm"), (False, "without")):
    best[batch_norm] = min((grid[batch_norm, rate], rate) for rate in RATES)[1]
    epochs = "  ".join(f"{rate:g}: {grid[batch_norm, rate]:.1f}" for rate in RATES)
    print(f"{label:15} epochs by rate  {epochs}   best {best[batch_norm]:g}")

# %% [markdown]
# ## Ten seeds

# %%
settings = {
    ("same", True): SAME,
    ("same", False): SAME,
    ("best", True): best[True],
    ("best", False): best[False],
}
curves = {}
for key in lesson.track(settings, "training"):
    curves[key] = np.array([curve(seed, key[1], settings[key]) for seed in SEEDS])
for (which, batch_norm), losses in curves.items():
    label = "with batch norm" if batch_norm else "without"
    rate = settings[which, batch_norm]
    print(f"seed 0, {label}, rate {rate:g}: {losses[0, 0]:.4f} before, ", end="")
    print(f"{losses[0, PER_EPOCH]:.4f} after one epoch, {losses[0, -1]:.4f} after {EPOCHS}")

# %%
fig, axes = lesson.figure(columns=2, sharey=True)
time = np.arange(EPOCHS * PER_EPOCH + 1) / PER_EPOCH
for ax, which in zip(axes, ("same", "best"), strict=True):
    for batch_norm, label, style in ((True, "with batch norm", "-"), (False, "without", "--")):
        losses = curves[which, batch_norm]
        text = f"{label}, rate {settings[which, batch_norm]:g}"
        (line,) = ax.plot(time, np.median(losses, axis=0), style, label=text)
        low, high = losses.min(axis=0), losses.max(axis=0)
        ax.fill_between(time, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    title = "the same rate" if which == "same" else "the best rate for each"
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
# without needs, seed by seed; the median, and in brackets the range over the seeds.


# %%
def spread(numbers):
    low, middle, high = min(numbers), np.median(numbers), max(numbers)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})".replace("inf", "never")


facts, fewer = [], {"same": [], "best": []}
for which in ("same", "best"):
    rates = f"{settings[which, True]:g} with, {settings[which, False]:g} without"
    for target in (1.0, 0.3, 0.1, 0.03):
        with_bn, without = (
            np.array([epochs_to(losses, target) for losses in curves[which, batch_norm]])
            for batch_norm in (True, False)
        )
        line = f"{spread(with_bn)} epochs with batch norm, {spread(without)} without"
        reached = np.isfinite(with_bn) | np.isfinite(without)  # by one of the two at least
        if reached.any():
            fewer[which].append(np.mean(with_bn[reached] < without[reached]))
            ratios = without[reached] / with_bn[reached]
            line += f", ratio {spread(ratios)}" * bool(np.isfinite(ratios).all())
        print(f"{which} rate, loss {target:<4}  {line}")
        if target == 0.1:
            facts.append(f"to a loss of 0.1 at the {which} rate ({rates}) {line}")

# %% [markdown]
# The claim *holds* if for every one of these losses at least nine of ten seeds need fewer epochs
# with batch norm, at the same rate and at the best; *within limits* if only at one of the two. A
# loss that neither network reaches, with any seed, is left out.
#
# An epoch is not a second. A step with batch norm is more work: so many ops are recorded for the
# loss of one batch, and gone through backwards again.

# %%
ops = {}
for batch_norm in (True, False):
    net = network(0, batch_norm)
    loss = mb.functional.cross_entropy(net(data.x_train[:32]), data.y_train[:32])
    ops[batch_norm] = sum(t.op is not None for t, _ in mb.backprop(loss))
print(f"ops of a step: {ops[True]} with batch norm, {ops[False]} without")

held = [bool(shares) and min(shares) >= 0.9 for shares in fewer.values()]
verdict = "holds" if all(held) else "holds within limits" if any(held) else "does not hold here"
lesson.claim(run, "D4", verdict, f"{len(SEEDS)} seeds: " + "; ".join(facts))
