# %% [markdown]
# # Small batches, and a forgotten eval()
#
# What goes wrong when a network is left in training mode after training, and what when the
# batches it is trained on are small?
#
# Claim: E4 (accuracy in both modes, over batch sizes from 1 to 512). The digits; median and range
# over five seeds. On the gap between the two modes: Wu & Johnson 2021, arXiv:2105.07576.

# %%
import copy

import lesson
import numpy as np

import microbn as mb

run = lesson.options("19_batch_size")
x_train, y_train, x_test, y_test = mb.data.digits()
SEEDS = range(1 if run.quick else 5)
SIZES = [1, 2, 8, 32, 512] if run.quick else [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
EPOCHS = 5 if run.quick else 10


def train(seed, size):
    """Train a network on batches of ``size``; the rate grows with the size."""
    rng = np.random.default_rng(seed)
    layers = []
    for _ in range(2):
        layers += [mb.nn.Linear(64, 64, rng=rng), mb.nn.BatchNorm1d(64), mb.nn.ReLU()]
    net = mb.nn.Sequential(*layers, mb.nn.Linear(64, 10, rng=rng))
    optimizer = mb.optim.SGD(net.parameters(), lr=0.03 * size / 32, momentum=0.9)
    batches = mb.data.batches(x_train, y_train, batch_size=size, drop_last=True, rng=rng)
    for _ in range(EPOCHS):
        lesson.epoch(net, optimizer, batches)
    return net


@mb.no_grad()
def percent(net, size, order, training):
    """Return the share of images read right, ``size`` at a time; the network stays as it is."""
    net = copy.deepcopy(net).train(training)
    full = order[: len(order) // size * size].reshape(-1, size)
    return 100 * np.mean([np.argmax(net(x_test[k]), axis=1) == y_test[k] for k in full])


# %% [markdown]
# There are 355 test images. So that a batch of 512 can be cut as a batch of 2 is, the batches are
# cut from four random orders of all of them, laid end to end; a last batch that is not full is
# left out.


# %%
def shuffles(seed):
    """Return the numbers of the test images, four times, in random orders."""
    rng = np.random.default_rng(1000 + seed)
    return np.concatenate([rng.permutation(len(y_test)) for _ in range(4)])


# %% [markdown]
# ## 1. eval() was forgotten
#
# A network is trained on batches of 32, and then reads the test images, in batches of another
# size. In eval mode it does not matter which: every image is mapped by itself. In training mode
# each answer depends on who else is in the batch; one image by itself is refused.
#
# Three things are said to change what a network says: a forgotten eval() with small batches, a
# forgotten eval() with batches that are no random choice, and small batches in training. We count a
# change if every seed loses more than 5 points.

# %%
nets = [train(seed, 32) for seed in lesson.track(SEEDS, "training on 32")]
in_use = [[percent(n, m, shuffles(s), False) for s, n in enumerate(nets)] for m in SIZES]
forgotten = [[percent(n, m, shuffles(s), True) for s, n in enumerate(nets)] for m in SIZES[1:]]
try:
    percent(nets[0], 1, shuffles(0), True)
except ValueError as error:
    print("a batch of 1 in training mode:", str(error).split(": ")[1].split(".")[0])
print("batch of  eval mode, %            training mode, %")
before = lesson.spread(in_use[0])
print(f"{1:8}  {before:22}  refused")
for m, a, b in zip(SIZES[1:], in_use[1:], forgotten, strict=True):
    print(f"{m:8}  {lesson.spread(a):22}  {lesson.spread(b)}")

# %% [markdown]
# With a large random batch a forgotten eval() goes unnoticed. But who says that the batch is
# random? Here are batches of 32 of one digit only, as in a folder sorted by class. What all have in
# common, the mean, is taken away; and what it is, the network can no longer see.

# %%
by_class = np.concatenate([np.flatnonzero(y_test == digit)[:32] for digit in range(10)])
evaluated, training = ([percent(n, 32, by_class, mode) for n in nets] for mode in (False, True))
one_digit = lesson.spread(training)
print(f"batches of 32 of one digit: {lesson.spread(evaluated)} % in eval mode,", end=" ")
print(f"{one_digit} % in training mode")

# %% [markdown]
# There is a second damage, which stays. In training mode the running statistics move, even if no
# gradient is computed. After those ten batches in training mode, is eval mode what it was?

# %%
after = []
for seed, net in enumerate(nets):
    spoilt = copy.deepcopy(net).train()
    with mb.no_grad():
        for images in x_test[by_class].reshape(10, 32, 64):
            spoilt(images)
    after.append(percent(spoilt, 1, shuffles(seed), False))
afterwards = lesson.spread(after)
print(f"in eval mode before {before} %, afterwards {afterwards} %")

# %% [markdown]
# It is not: a little is lost, and `eval()` does not bring it back. By hand: ten batches leave
# 0.9^10 = 35 % of the statistics that training had found; the rest is from batches of one digit.

# %% [markdown]
# ## 2. The batches were small in training
#
# What is there to learn from in a batch of two? By hand: of two numbers one lies as far above the
# mean as the other below, and that distance is the standard deviation. So x_hat is +1 and -1,
# whatever the two numbers are: all that is left is which is the larger.

# %%
print(mb.batch_norm(np.array([[3.0, 50.0, 0.1], [4.0, 10.0, 0.2]])).round(2))

# %% [markdown]
# Now a network for each batch size, trained for ten epochs (five with `--quick`) on batches of m,
# at a rate that grows with m (0.03 at 32; the linear rule, Goyal et al. 2017, arXiv:1706.02677).
# It reads the test images in training mode, m at a time as it has learned to; in eval mode; and in
# eval mode with the statistics measured anew, on all training images at once
# (`update_batch_norm`).

# %%
MODES = "training", "eval", "eval, anew"


def read(seed, size):
    """Train a network; return the share of images that it reads right, in the three modes."""
    net, order = train(seed, size), shuffles(seed)
    found = [percent(net, size, order, training) for training in (True, False)]
    mb.nn.update_batch_norm(net, [x_train])
    return [*found, percent(net, size, order, False)]


table = {}  # a row for each mode, a column for each seed
for m in lesson.track(SIZES[1:], "training on each size"):
    table[m] = np.transpose([read(seed, m) for seed in SEEDS])
print("trained on  " + "".join(f"{mode + ', %':24}" for mode in MODES))
for m, rows in table.items():
    print(f"{m:10}  " + "".join(f"{lesson.spread(row):24}" for row in rows))

# %% [markdown]
# Two things go wrong, at the two ends. Batches of 2: the network has learned to tell images apart
# by the signs above, and does so badly; in eval mode it does better, on numbers that it never saw,
# but far from well, and better statistics do not repair it. Batches of 512: an epoch has two of
# them. Ten epochs are 20 steps, after which 0.9^20 = 12 % of the running statistics (with --quick,
# after 10 steps, 35 %) are still the 0 and 1 that they started from; that is repaired by measuring
# them anew.

# %%
fig, axes = lesson.figure(2, sharey=True)
lesson.band(axes[0], SIZES[1:], np.transpose(forgotten), "o-", "training", ms=4)
lesson.band(axes[0], SIZES, np.transpose(in_use), "s--", "eval", ms=4)
for k, style in enumerate(("o-", "s--", "^:")):
    rows = [table[m][k] for m in SIZES[1:]]
    lesson.band(axes[1], SIZES[1:], np.transpose(rows), style, MODES[k], ms=4)
axes[0].set(ylabel="test images read right, %", title="trained on 32")
axes[1].set(title="trained on the same size")
for ax in axes:
    ax.set(xlabel="batch size", xscale="log", xlim=(0.8, 640))
    ax.set_xticks([1, 2, 8, 32, 128, 512], ["1", "2", "8", "32", "128", "512"])
    ax.minorticks_off()
    ax.legend()
lesson.save(run, fig)

# %% [markdown]
# What to remember: call `eval()` before you use a network, and `train()` before you go on. If
# batches must be small, a norm that does not look at the batch (`LayerNorm`, `GroupNorm`) has no
# second mode to be mixed up with.

# %%
lost = np.subtract(in_use[1], forgotten[0])  # in batches of 2, seed by seed
gap = np.subtract(evaluated, training)  # in batches of one digit
small = np.subtract(in_use[0], table[2][1])  # trained on 2 instead of 32
of_2, of_512 = lesson.spread(forgotten[0]), lesson.spread(forgotten[-1])
training_2, eval_2, _ = (lesson.spread(row) for row in table[2])
measured = f"eval forgotten: {of_2} % in batches of 2, {of_512} in batches of 512, {one_digit} in "
measured += f"32 of one digit, against {before} in eval mode; ten batches of one digit in training "
measured += f"mode bring eval mode from {before} to {afterwards}; trained on batches of 2: "
measured += f"{eval_2} in eval mode, {training_2} in training mode"
lesson.claim(run, "E4", lesson.verdict(min(*lost, *gap, *small) > 5), measured)
