# %% [markdown]
# # The noise of a mini-batch
#
# The mean and the variance of a batch are estimates of those of all the data, so they are noisy.
# What does this noise do to a number that goes through batch norm, and how does it depend on the
# size of the batch?
#
# Claims: G1 (the noise multiplies, by `sigma / sigma_B`, and adds, `(mu - mu_B) / sigma_B`), G2
# (the larger the batch, the weaker; on log axes the slope is near -1/2). Ten seeds.

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("20_noise")
SEEDS = range(2 if run.quick else 10)
SIZES = np.array([4, 8, 16, 32, 64, 128, 256, 512])
DRAWS = 200 if run.quick else 1000  # batches of each size
UNITS = 16
PARTS = "sigma / sigma_B", "(mu - mu_B) / sigma_B"

# %% [markdown]
# ## 1. Two parts
#
# Were mu and sigma those of all the data, z would become `(z - mu) / sigma`. The batch has mu_B and
# sigma_B, so z becomes `(z - mu_B) / sigma_B`, and that is
#
#     sigma / sigma_B * (z - mu) / sigma  +  (mu - mu_B) / sigma_B
#
# what it should be, times a number near 1, plus a number near 0. Both differ from batch to batch,
# and both are the same for all examples of a batch. By hand: of the students' cgpa, mean 7.5 and
# sigma 1.118, a batch gets 7 and 9. Then mu_B is 8 and sigma_B is 1: times 1.118, plus -0.5.

# %%
everybody, batch = np.array([7.0, 8.0, 9.0, 6.0]), np.array([7.0, 9.0])
mu, sigma, mu_b, sigma_b = everybody.mean(), everybody.std(), batch.mean(), batch.std()
print(f"times {sigma / sigma_b:.3f}, plus {(mu - mu_b) / sigma_b:.3f}")
print("what it should be:", ((batch - mu) / sigma).round(3))
print("the two parts:    ", (sigma / sigma_b * (batch - mu) / sigma + (mu - mu_b) / sigma_b))
print("batch norm:       ", mb.batch_norm(batch, eps=0.0))

# %% [markdown]
# Now with real data: the digits, the first 16 units of a network's first hidden layer, trained for
# two epochs. z is what batch norm is given there. Each batch is drawn from all 1,442 training
# images, each image independently of the others (so that one may come twice). The layer itself is
# asked, too: do the two parts give what it says?


# %%
def units(seed):
    """Train a small network; return what its batch norm is given, for all training images."""
    rng = np.random.default_rng(seed)
    x_train, y_train, *_ = mb.data.digits()
    first = mb.nn.Linear(64, 64, rng=rng)
    layers = mb.nn.BatchNorm1d(64), mb.nn.ReLU(), mb.nn.Linear(64, 10, rng=rng)
    net = mb.nn.Sequential(first, *layers)
    optimizer = mb.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    for _ in range(2):
        batches = mb.data.batches(x_train, y_train, drop_last=True, rng=rng)
        lesson.epoch(net, optimizer, batches)
    return (x_train @ first.weight.data.T + first.bias.data)[:, :UNITS].astype(float)


def parts(z, m, rng, replace=True):
    """Return both parts for each of many batches: two arrays (batches, units)."""
    times, plus = np.empty((2, DRAWS, z.shape[1]))
    for k in range(DRAWS):
        drawn = z[rng.choice(len(z), m, replace)]
        times[k] = z.std(axis=0) / drawn.std(axis=0)
        plus[k] = (z.mean(axis=0) - drawn.mean(axis=0)) / drawn.std(axis=0)
    return times, plus


z = units(0)
mu, sigma, batch = z.mean(axis=0), z.std(axis=0), z[:32]
layer = mb.nn.BatchNorm1d(UNITS, eps=0.0, dtype=np.float64)
sigma_b, mu_b = batch.std(axis=0), batch.mean(axis=0)
sum_of_both = sigma / sigma_b * (batch - mu) / sigma + (mu - mu_b) / sigma_b
identity = np.abs(layer(batch).data - sum_of_both).max()
print(f"a batch of 32: the two parts together differ from the layer by {identity:.0e} at most")

# %% [markdown]
# ## 2. How strong is each?
#
# Its standard deviation over many batches of the same size: the median over the units, then over
# the seeds, with the range of these. G1 *holds* if the two parts are all of it (to 1e-10), and each
# varies by more than 0.01 in batches of 32.

# %%
found = np.empty((2, len(SEEDS), len(SIZES)))  # part, seed, size
predicted = []
for row, seed in enumerate(lesson.track(SEEDS, "drawing batches")):
    z, rng = units(seed), np.random.default_rng(100 + seed)
    for column, m in enumerate(SIZES):
        for part, values in enumerate(parts(z, m, rng)):
            found[part, row, column] = np.median(values.std(axis=0))
    kurtosis = (((z - z.mean(axis=0)) / z.std(axis=0)) ** 4).mean(axis=0)
    predicted.append(np.median(np.sqrt((kurtosis - 1) / 4)))
print("   m  sigma / sigma_B         (mu - mu_B) / sigma_B")
for column, m in enumerate(SIZES):
    times, plus = (lesson.spread(values, ".3f") for values in found[:, :, column])
    print(f"{m:4}  {times:22}  {plus}")
of_32 = found[:, :, list(SIZES).index(32)]
times, plus = (lesson.spread(values, ".3f") for values in of_32)
measured = f"the two parts are all of it (to {identity:.0e}); in batches of 32 sigma / sigma_B "
measured += f"varies by {times}, (mu - mu_B) / sigma_B by {plus}"
lesson.claim(run, "G1", lesson.verdict(identity < 1e-10 and of_32.min() > 0.01), measured)

# %% [markdown]
# ## 3. The slope
#
# The mean of m independent numbers has the standard deviation `sigma / sqrt(m)`: on log axes a line
# with the slope -1/2. That is fitted here, once from m = 32 on and once over all sizes. The claim
# *holds* if the median slopes over all sizes are within 0.05 of -1/2, *within limits* if those from
# m = 32 on are. Either way both must fall from each size to the next.

# %%
slopes = {}
for least, use in (32, SIZES > 16), (4, SIZES > 0):
    for part, name in enumerate(PARTS):
        fits = [np.polyfit(np.log(SIZES[use]), np.log(line[use]), 1)[0] for line in found[part]]
        slopes[name, least] = fits
        print(f"{name:21}  from m = {least:2} on: slope {lesson.spread(fits, '.3f')}")

# %% [markdown]
# Why is it steeper with small batches? Because sigma_B is in the denominator. mu_B alone has the
# slope -1/2 exactly, but we divide by an estimate that with few examples is sometimes close to 0.
# For normal numbers the sum can be done: `(mu - mu_B) / sigma_B` is, times sqrt(m - 1), distributed
# as Student's t with m - 1 degrees of freedom, and its standard deviation is `1 / sqrt(m - 3)`. On
# log axes that has the slope -m / (2 (m - 3)): -0.80 at 8, -0.55 at 32, -0.503 at 512. At m = 3 and
# below there is no standard deviation at all: however many batches one takes, what is measured does
# not settle, for now and then two numbers are almost equal, and that batch outdoes all others.

# %%
large = SIZES[SIZES > 16]
by_hand = np.polyfit(np.log(large), np.log((large - 3) ** -0.5), 1)[0]
print(f"1 / sqrt(m - 3) at the same sizes from m = 32 on: slope {by_hand:.3f}")
rng = np.random.default_rng(0)
counts = [1000, 10_000, 100_000] if run.quick else [1000, 10_000, 100_000, 1_000_000]
for m in 2, 8:
    normal = rng.normal(size=(counts[-1], m))
    plus = -normal.mean(axis=1) / normal.std(axis=1)
    over = ", ".join(f"{plus[:n].std():.3f}" for n in counts)
    print(f"normal numbers, m = {m}, over {', '.join(map(str, counts))} batches: {over}")
print(f"by hand for m = 8: 1 / sqrt(5) = {5**-0.5:.3f}; for m = 2 there is none")

# %% [markdown]
# How high do the lines lie? For the mean at `1 / sqrt(m)`, whatever the data. For sigma_B it
# depends on the tails, by the kurtosis k (the mean fourth power of x_hat): with large m, at
# `sqrt((k - 1) / (4 m))`. Normal numbers have k = 3, and so sqrt(0.5) = 0.707; the units of these
# networks have shorter tails.

# %%
height = found[0][:, -1] * np.sqrt(SIZES[-1])
print(f"sigma / sigma_B at m = 512, times sqrt(512): {lesson.spread(height, '.3f')}")
print(f"sqrt((k - 1) / 4)                          : {lesson.spread(predicted, '.3f')}")

# %% [markdown]
# In training the images of an epoch are dealt out: none comes twice. The noise of large batches is
# then weaker, by `sqrt((N - m) / (N - 1))`, and a batch of everybody has none. For m = 512 of
# N = 1442 that is 0.803.

# %%
fewer = [parts(units(s), 512, np.random.default_rng(s), replace=False)[1] for s in SEEDS]
ratios = lesson.spread(np.median(np.std(fewer, axis=1), axis=1) / found[1, :, -1], ".3f")
print(f"m = 512, dealt out against drawn: {ratios}; by hand {np.sqrt(930 / 1441):.3f}")

# %%
fig, ax = lesson.figure()
smooth = np.geomspace(4, 512, 100)
ax.plot(smooth, 1 / np.sqrt(smooth - 3), ":", color=lesson.GREY, label="1 / sqrt(m - 3)")
ax.plot(smooth, 1 / np.sqrt(smooth), lw=0.8, color=lesson.GREY, label="1 / sqrt(m), slope -1/2")
lesson.band(ax, SIZES, found[0], "o", "times sigma / sigma_B", ms=4)
lesson.band(ax, SIZES, found[1], "s", "plus (mu - mu_B) / sigma_B", ms=4)
ax.set(xscale="log", yscale="log", xlabel="batch size m", ylabel="standard deviation over batches")
ax.set_xticks(SIZES, [str(m) for m in SIZES])
ax.minorticks_off()
ax.legend()
lesson.save(run, fig)

# %%
weaker = (np.diff(np.median(found, axis=1), axis=1) < 0).all()
near = [
    weaker and all(abs(np.median(slopes[name, least]) + 0.5) < 0.05 for name in PARTS)
    for least in (4, 32)
]
from_32 = ", ".join(f"{name} {lesson.spread(slopes[name, 32], '.3f')}" for name in PARTS)
from_4 = ", ".join(f"{np.median(slopes[name, 4]):.3f}" for name in PARTS)
measured = f"slope from m = 32 on: {from_32}; steeper below (from m = 4 on: {from_4}); for "
measured += (
    "normal data and m = 2 or 3 the noise has no standard deviation (by hand; seen at m = 2)"
)
lesson.claim(run, "G2", lesson.verdict(*near), measured, limits="from m = 32 on; steeper below")
