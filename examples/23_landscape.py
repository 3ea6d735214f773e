# %% [markdown]
# # Is the loss landscape smoother with batch norm?
#
# The paper that introduced batch norm (Ioffe & Szegedy 2015,
# [arXiv:1502.03167](https://arxiv.org/abs/1502.03167)) explains its success by *internal covariate
# shift*: the inputs of a layer keep moving while the layers before it learn. Santurkar et al. 2018
# ([arXiv:1805.11604](https://arxiv.org/abs/1805.11604)) dispute that. They add noise after batch
# norm, so that the inputs move more than ever, and the network trains well all the same. Their own
# explanation is that batch norm makes the loss **smoother** along the way that training takes.
# **Claim F2** repeats their measurements on the digits, and then shows what they leave open.

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("23_landscape")
EPOCHS, SEEDS, RATE = (4, 2, 0.1) if run.quick else (20, 10, 0.1)
data = mb.data.digits()

# %% [markdown]
# ## What is measured
#
# At a training step, with gradient g, look ahead along the way that gradient descent would go, as
# far as half a step, a whole step, and so on to four steps. Three numbers:
#
# - the **range of the loss**: the largest minus the smallest that is met there;
# - the **change of the gradient**: the largest distance between a gradient there and g. Where it is
#   small, the gradient predicts well what comes (hence the paper's name, *gradient
#   predictiveness*);
# - the **effective beta**: the largest such distance divided by the length of the way. The paper
#   calls it *effective beta-smoothness*; the larger beta, the rougher the landscape.
#
# On `loss = 3 * w**2` at w = 1 they can be found by hand. g = 6 and the rate is 0.1, so four steps
# reach 1 - 2.4 = -1.4. The losses are `3 * 0.7**2 = 1.47` after half a step, 0.03 close to the
# minimum (a step and a half, w = 0.1), and 5.88 at the end. The gradient changes by 6 * 2.4 = 14.4,
# and beta is 6, the second derivative, wherever one looks.

# %%
AHEAD = np.arange(0.5, 4.1, 0.5)  # in steps
MEASURES = "range of the loss", "change of the gradient", "effective beta"


def length(arrays):
    """Return the Euclidean length of all numbers in several arrays."""
    return np.sqrt(sum(np.sum(np.square(a, dtype=float)) for a in arrays))


def measure(loss, parameters, rate=RATE):
    """Return the three numbers; the parameters are put back in their place."""
    here = [p.data for p in parameters]
    g = [slope.data for slope in mb.grad(loss(), parameters)]
    losses, changes = [], []
    for steps in AHEAD:
        for p, old, slope in zip(parameters, here, g, strict=True):
            p.data = old - old.dtype.type(steps * rate) * slope
        there = loss()
        losses.append(there.item())
        slopes = mb.grad(there, parameters)
        changes.append(length([a.data - b for a, b in zip(slopes, g, strict=True)]))
    for p, old in zip(parameters, here, strict=True):
        p.data = old
    ways = AHEAD * rate * length(g)
    return max(losses) - min(losses), max(changes), max(changes / ways)


w = mb.nn.Parameter(np.array([1.0]))
by_hand = measure(lambda: np.sum(3 * w**2), [w])
print("3 * w**2: ", ", ".join(f"{m} {v:.2f}" for m, v in zip(MEASURES, by_hand, strict=True)))


# %% [markdown]
# ## Four hidden layers, in training
#
# 64-32-32-32-32-10 with ReLU, plain SGD at rate 0.1, batches of 64. Measured at every tenth step,
# on the batch of that step. The networks start from the same weights and see the same batches. The
# weights are drawn in two ways, which turns out to matter: by He's rule, which keeps the signal as
# strong from layer to layer, and as PyTorch's `Linear` does by default, which makes it fade.


# %%
def loss_on(net, x, y):
    """Return the loss on a batch, to be computed when it is called."""
    return lambda: mb.functional.cross_entropy(net(x), y)


def train(net, seed):
    """Train, and return what was measured on the way: a row for every tenth step."""
    parameters, rows = list(net.parameters()), []
    optimizer = mb.optim.SGD(parameters, lr=RATE)
    batches = mb.data.batches(data.x_train, data.y_train, batch_size=64, drop_last=True, rng=seed)
    steps = [batch for _ in range(EPOCHS) for batch in batches]
    for step, batch in enumerate(steps):
        if step % 10 == 0:
            rows.append(measure(loss_on(net, *batch), parameters))
        lesson.epoch(net, optimizer, [batch])
    return rows


NAMES = {"without": False, "with": True}
DRAWN = {"He's weights": True, "default weights": False}
found = {(drawn, name): [] for drawn in DRAWN for name in NAMES}
scores = {key: [] for key in found}
for seed in lesson.track(range(SEEDS), "seeds"):
    for drawn, name in found:
        net = lesson.deep_network(seed, NAMES[name], DRAWN[drawn])
        found[drawn, name].append(train(net, seed))
        mb.nn.update_batch_norm(net, [data.x_train])  # looking ahead has moved the statistics
        scores[drawn, name].append(lesson.accuracy(net, data.x_test, data.y_test))
found = {key: np.array(rows) for key, rows in found.items()}  # (seed, time, measure)

# %% [markdown]
# Each number below is the median over a stretch of training, of one network; then comes the median
# over the seeds, and their range. The first epoch stands by itself, and so does the last quarter.
#
# The claim *holds* if all three numbers are larger without batch norm, in every seed, in all three
# stretches and with both kinds of weights; *within limits*, if that is so in some of these cases.

# %%
# There are three measurements in the first epoch, of 22 steps.
last = found["He's weights", "with"].shape[1] // 4
WHEN = {"first epoch": slice(3), "middle": slice(3, -last), "last quarter": slice(-last, None)}
times = {}  # how many times larger without batch norm, seed by seed
for drawn in DRAWN:
    print(f"{drawn:34}", *(f"{name:>26}" for name in NAMES))
    for when, stretch in WHEN.items():
        typical = {name: np.median(found[drawn, name][:, stretch], axis=1) for name in NAMES}
        times[drawn, when] = typical["without"] / typical["with"]
        for k, title in enumerate(MEASURES):
            cells = [f"{lesson.spread(typical[name][:, k], '.2g'):>26}" for name in NAMES]
            print(f"{when:12} {title:21}", *cells)
    cells = [f"{lesson.spread(scores[drawn, name]):>26}" for name in NAMES]
    print(f"{'test accuracy, %':34}", *cells)

# %%
fig, axes = lesson.figure(figsize=(9, 6), columns=3, rows=2, sharex=True, sharey="col")
for drawn, row in zip(DRAWN, axes, strict=True):
    for k, (title, ax) in enumerate(zip(MEASURES, row, strict=True)):
        ax.set_yscale("log")
        for name, style in zip(NAMES, ("C1--", "C0-"), strict=True):
            values = found[drawn, name][:, :, k]
            lesson.band(ax, np.arange(values.shape[1]) * 10 / 22, values, style, name)
        ax.set(title=f"{title}\n{drawn}")
        ax.grid()
for ax in axes[1]:
    ax.set(xlabel="epoch")
axes[0, 0].legend()
lesson.save(run, fig)

# %% [markdown]
# (The lines are medians over the seeds, the bands go from the least to the greatest.)
#
# ## What this leaves open
#
# **A flat landscape is smooth, too.** With the default weights and without batch norm, training
# begins on a plateau: by all three numbers it is then far *smoother* than with batch norm, and it
# learns next to nothing there. That lasts for ten epochs and more. Once the network leaves the
# plateau the order turns: in the last quarter of the full run it is, by all three numbers (medians
# over the seeds), the rougher one, as with He's weights. After 20 epochs it reads about half of the
# test images right, against 98 % with batch norm. So a network that learns nothing is smooth, and
# smoothness alone is no explanation: compare networks only where both learn.
#
# **The numbers depend on the rate.** Where the network without batch norm learns, its beta climbs
# to 17 or 18, near 2 / rate = 20, beyond which gradient descent in a bowl gets further and further
# away from the minimum. Cohen et al. 2021 ([arXiv:2103.00065](https://arxiv.org/abs/2103.00065))
# call this the edge of stability, and find that training goes there by itself. So beta says as much
# of the rate as of the network, and four steps ahead the loss is bound to rise.
#
# **The numbers depend on the scale.** Make all weights and biases in front of a batch norm ten
# times larger: the network computes the same, but the gradient in those weights is a tenth, and the
# beta that is measured in them, a second derivative, a hundredth. (With a rate that is a hundred
# times larger it makes the same steps.)

# %%
net = lesson.deep_network(0, batch_norm=True, he=True)
x, y = data.x_train[:64], data.y_train[:64]
before = [p for layer in list(net)[:-1:3] for p in layer.parameters()]
loss = loss_on(net, x, y)
small, first = measure(loss, before), loss().item()
for p in before:
    p.data = 10 * p.data
large, second = measure(loss, before, rate=100 * RATE), loss().item()
print(f"{'loss':23} {first:.4f} and {second:.4f}")
for title, a, b in zip(MEASURES, small, large, strict=True):
    print(f"{title:23} {a:.4g} and {b:.4g}, a ratio of {a / b:.2f}")

# %% [markdown]
# So a network with batch norm whose weights grow gets smoother by that alone, and its steps get
# smaller in effect: van Laarhoven 2017 ([arXiv:1706.05350](https://arxiv.org/abs/1706.05350)).
#
# **Others see it differently.** Yao et al. 2019, who measured the Hessian itself
# ([arXiv:1912.07145](https://arxiv.org/abs/1912.07145)), find that batch norm does not necessarily
# make the landscape smoother, above all in shallower networks. Bjorck et al. 2018
# ([arXiv:1806.02375](https://arxiv.org/abs/1806.02375)) explain the gain by the larger learning
# rates that it makes possible; Yang et al. 2019
# ([arXiv:1902.08129](https://arxiv.org/abs/1902.08129)) show that in deep networks without skip
# connections batch norm makes gradients *explode* at the start. No explanation is settled. What can
# be said for these networks is this:

# %%
cases = {key: ratios.min() > 1 for key, ratios in times.items()}
smoother = "; ".join(", ".join(key) for key, always in cases.items() if always)
verdict = lesson.verdict(all(cases.values()), smoother)
parts = []
for key, ratios in times.items():
    cells = [lesson.spread(ratio, ".3g") for ratio in ratios.T]
    parts.append(f"{', '.join(key)}: {', '.join(cells)}")
text = f"{', '.join(MEASURES)}: times larger without batch norm, median and range of {SEEDS} seeds"
lesson.claim(
    run, "F2", verdict, f"{text}. {'; '.join(parts)}", limits=f"in every seed for {smoother}"
)
