# %% [markdown]
# # Test time
#
# In training, batch norm uses the mean and the variance of the batch. What does it use for a
# single image, tomorrow, when there is no batch?
#
# Claims: E1 (running averages of both stand in), E2 (a batch of one cannot be trained on, and is
# refused), E3 (at test time the layer is a fixed line per feature, and the layer before it can
# absorb it; in training it is not). E1 and the first half of E3 *hold* if nothing differs by 1e-10
# or more, the second half if the gradient is off by more than 1 %; E2 if such a batch is refused
# and moves nothing.

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("18_test_time")
x_train, y_train, x_test, y_test = mb.data.digits()

# %% [markdown]
# ## 1. The problem
#
# A student has a cgpa of 7. In a batch with 8, 9 and 6 that is below the average, in a batch with
# 6 above it. By hand: the mean is 7.5 and the deviation sqrt(1.25) = 1.118, so -0.5 / 1.118 =
# -0.447; then the mean is 6.5 and the deviation 0.5, so +1.

# %%
for batch in [7.0, 8.0, 9.0, 6.0], [7.0, 6.0]:
    y = mb.batch_norm(np.array([batch]).T)
    print(f"a cgpa of 7 in the batch {batch}: {y[0, 0]:.3f}")

# %% [markdown]
# Alone, the student would be the average: 7 - 7 = 0, and so would any other be. Nothing of what
# came in is left, and the gradient is 0 as well. The function computes it all the same; the layer
# refuses it in training, and leaves its running statistics as they were.

# %%
for alone in 7.0, 90.0:
    print(f"a cgpa of {alone:g} by itself: {mb.batch_norm(np.array([[alone]]))[0, 0]:g}")
layer = mb.nn.BatchNorm1d(1, dtype=np.float64)
try:
    layer(np.array([[7.0]]))
except ValueError as error:
    refusal = str(error)
print("refused:", refusal)
print("batches that moved its statistics:", layer.num_batches_tracked)
one_image = mb.nn.BatchNorm2d(1)(x_train[:1].reshape(1, 1, 8, 8))
print(f"one image of 64 pixels, a channel: not refused, variance {one_image.data.var():.3f}")

# %%
unmoved = layer.num_batches_tracked == 0 and "no variance" in refusal
measured = "one value per channel: refused, the running statistics unmoved"
lesson.claim(run, "E2", lesson.verdict(unmoved), measured)

# %% [markdown]
# ## 2. Remember an average
#
# So the layer keeps a running mean, which starts at 0, and a running variance, which starts at 1.
# Every batch moves them: `running = 0.9 * running + 0.1 * batch`. The variance that goes in is the
# unbiased one, divided by m - 1. By hand, for the batch of four: 0.1 * 7.5 = 0.75, and
# 0.9 + 0.1 * 5 / 3 = 1.0667. The same batch again: 0.9 * 0.75 + 0.75 = 1.425.

# %%
for _ in range(2):
    layer(np.array([[7.0], [8.0], [9.0], [6.0]]))
    print(f"running mean {layer.running_mean[0]:.4f}, variance {layer.running_var[0]:.4f}")

# %% [markdown]
# Now in earnest, while a network learns to read digits. Beside it NumPy computes what the layer is
# given, `z = x W^T + b`, and after every step, from all batches so far, what the running statistics
# should be. Unrolled, batch k of t has the weight 0.1 * 0.9^(t - k), and the start 0.9^t.
# A second layer is shown the same z, with `momentum=None`: it averages all batches alike.


# %%
def unrolled(start, history):
    """Return the weighted average of what was seen, the newest last."""
    t = len(history)
    return 0.9**t * start + (0.1 * 0.9 ** np.arange(t)[::-1]) @ np.array(history)


rng = np.random.default_rng(0)
first = mb.nn.Linear(64, 32, dtype=np.float64, rng=rng)
norm = mb.nn.BatchNorm1d(32, dtype=np.float64)
last = mb.nn.Linear(32, 10, dtype=np.float64, rng=rng)
net = mb.nn.Sequential(first, norm, mb.nn.ReLU(), last)
alike = mb.nn.BatchNorm1d(32, momentum=None, dtype=np.float64)
optimizer = mb.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
batches = mb.data.batches(x_train, y_train, batch_size=32, drop_last=True, rng=rng)
means, variances, lines, off = [], [], [], []
for _ in range(2 if run.quick else 10):
    for x, y in batches:
        z = x @ first.weight.data.T + first.bias.data
        means.append(z.mean(axis=0))
        variances.append(z.var(axis=0, ddof=1))
        alike(z)
        lesson.epoch(net, optimizer, [(x, y)])
        kept = norm.running_mean, norm.running_var, alike.running_mean, alike.running_var
        wanted = unrolled(0, means), unrolled(1, variances), *np.mean([means, variances], axis=1)
        off.append(np.abs(np.subtract(kept, wanted)).max(axis=1))
        lines.append((means[-1][0], norm.running_mean[0], alike.running_mean[0]))
weighted, equal = np.max(off, axis=0).reshape(2, 2).max(axis=1)  # of mean and variance
print(f"{len(means)} steps, 32 units; the largest difference from NumPy's")
print(f"momentum=0.1   {weighted:.0e}\nmomentum=None  {equal:.0e}")

# %% [markdown]
# The dots are the means of the batches for unit 0. While the weights move, the mean does; the
# running average follows, about ten batches behind. The average of all batches alike forgets
# nothing, not even what the first weights made.

# %%
fig, ax = lesson.figure()
steps = np.arange(1, len(lines) + 1)
batch, running, cumulative = np.transpose(lines)
ax.plot(steps, batch, ".", ms=3, color=lesson.GREY, label="batch")
ax.plot(steps, running, label="momentum=0.1")
ax.plot(steps, cumulative, "--", label="momentum=None")
ax.set(xlabel="step", ylabel="mean of unit 0 before batch norm")
fig.legend(loc="outside upper center", ncols=3, columnspacing=1)
lesson.save(run, fig)

# %% [markdown]
# Which is nearest to the truth, the mean over all training images with the weights as they are
# now? `update_batch_norm` goes through the images once more, and so measures it. Distances are in
# standard deviations of the unit, averaged over the units.

# %%
z = x_train @ first.weight.data.T + first.bias.data
anew = mb.nn.BatchNorm1d(32, dtype=np.float64)
mb.nn.update_batch_norm(mb.nn.Sequential(first, anew), batches)
for name, kept in ("momentum=0.1", norm), ("momentum=None", alike), ("anew", anew):
    away = (np.abs(kept.running_mean - z.mean(axis=0)) / z.std(axis=0)).mean()
    share = np.abs(kept.running_var / z.var(axis=0) - 1).mean()
    print(f"{name:13} mean off by {away:.3f} deviations, variance by {100 * share:.1f} %")

# %% [markdown]
# In use these are constants, and a single image is no problem: each image by itself gives what all
# 355 together give, to rounding.

# %%
together = net.eval()(x_test).data
one_by_one = np.concatenate([net(image[None]).data for image in x_test])
apart, largest = np.abs(together - one_by_one).max(), np.abs(together).max()
print(f"{lesson.accuracy(net, x_test, y_test):.1f} % of the test images read right")
print(f"outputs up to {largest:.1f}; one by one they differ by {apart:.0e} at most")
measured = f"{len(means)} steps: at most {weighted:.0e} (momentum=0.1) and {equal:.0e} (None) from "
measured += f"NumPy; images one by one differ by {apart:.0e} from all together"
lesson.claim(run, "E1", lesson.verdict(max(weighted, equal, apart) < 1e-10), measured)

# %% [markdown]
# ## 3. A fixed line
#
# With constants mu and sigma, `gamma * (z - mu) / sigma + beta` is, in z, the line
# `gamma / sigma * z - gamma * mu / sigma + beta`. And `z = W x + b` is linear before it, so that
# one linear layer can do both. `fold_batch_norm` makes it.

# %%
sigma = np.sqrt(norm.running_var + norm.eps)
slope = norm.weight.data / sigma
line = slope * z - slope * norm.running_mean + norm.bias.data
bent = np.abs(norm(z).data - line).max()
folded = mb.nn.fold_batch_norm(net)
change = np.abs(folded(x_test).data - together).max()
print(f"layer and line differ by {bent:.0e}\n{folded}")
print(f"outputs up to {largest:.1f}, folded they differ by {change:.0e} at most")

# %% [markdown]
# In training there is no such line, for two reasons. First, mu and sigma depend on the batch, and
# so the slope changes from batch to batch. `fold_batch_norm` says so.

# %%
slopes = np.array([norm.weight.data[0] / (x @ first.weight.data[0]).std() for x, _ in batches])
low_to_high = f"{slopes.min():.3f} to {slopes.max():.3f}"
print(f"slope of unit 0: in use {slope[0]:.3f}, in {len(slopes)} training batches {low_to_high}")
try:
    mb.nn.fold_batch_norm(net.train())
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# Second, they carry gradients. Give a layer the mean 7.5 and the variance 1.25 of the four students
# to remember: then it says the same in both modes. But how does what it says change, when a student
# does? A row is an output, a column a student. eps is 1, so that sigma = sqrt(1.25 + 1) = 1.5. In
# use the table is 1 / 1.5 on its diagonal. In training, by hand, its first entry is
# (1 - 1/4 - (1/3)^2 / 4) / 1.5 = 0.4815: a student who moves takes the mean and sigma along. The
# rows sum to 0: if all move alike, nothing changes.

# %%
students = mb.Tensor(np.array([[7.0], [8.0], [9.0], [6.0]]), requires_grad=True)
layer = mb.nn.BatchNorm1d(1, eps=1.0, dtype=np.float64)
layer.running_mean, layer.running_var = np.array([7.5]), np.array([1.25])
for training in False, True:
    y = layer.train(training)(students)
    table = [mb.grad(y, students, unit[:, None]).data[:, 0] for unit in np.eye(4)]
    print(f"{'in training' if training else 'in use'}: y = {y.data[:, 0].round(4)}")
    print(np.round(table, 4) + 0.0)

# %% [markdown]
# The same with the network: the statistics of a batch of 32, once computed from it and once held as
# constants. What it says is equal; the gradient of the first weights is not.

# %%
x, y = x_train[:32], y_train[:32]
z = x @ first.weight.data.T + first.bias.data
norm.running_mean, norm.running_var = z.mean(axis=0), z.var(axis=0)
outputs, gradients = [], []
for training in False, True:
    logits = net.train(training)(x)
    outputs.append(logits.data)
    gradients.append(mb.grad(mb.functional.cross_entropy(logits, y), first.weight).data)
constant, real = gradients
missing = 100 * np.linalg.norm(constant - real) / np.linalg.norm(real)
apart = np.abs(outputs[0] - outputs[1]).max()
print(f"outputs differ by {apart:.0e}, the gradients by {missing:.0f} % of the real one")
measured = f"in use a line (to {bent:.0e}), folded to {change:.0e}; in training the slope of a "
measured += f"unit runs from {low_to_high}, and with mu and sigma as constants the gradient of "
measured += f"the weights is off by {missing:.0f} %"
lesson.claim(run, "E3", lesson.verdict(max(bent, change) < 1e-10 and missing > 1), measured)
