# %% [markdown]
# # What does batch norm learn, and what becomes of the bias before it?
#
# A layer with batch norm computes z = W a + b, then z_norm, then gamma * z_norm + beta. Which of
# these numbers are learned, how many are there, and are all of them needed?
#
# Claims: A4 (parameters and hyperparameters), A5 (how many), A7 (one mean per feature, or per
# channel), C1 (the bias before it is redundant), C2 (what is left).

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("10_parameters")
data = mb.data.digits()


def network(norm=True, bias=True, dtype=np.float32):
    """Return 64-128-128-10, the same weights each time; the last layer always has a bias."""
    hidden = []
    for seed, inputs in enumerate((64, 128)):
        hidden.append(mb.nn.Linear(inputs, 128, bias=bias, rng=seed, dtype=dtype))
        hidden += [mb.nn.BatchNorm1d(128, dtype=dtype), mb.nn.ReLU()] if norm else [mb.nn.ReLU()]
    return mb.nn.Sequential(*hidden, mb.nn.Linear(128, 10, rng=2, dtype=dtype))


# %% [markdown]
# ## Learned or set
#
# `parameters()` lists what the optimizer is to change: gamma, which is called `weight` as in
# PyTorch, and beta, called `bias`. The running statistics are *buffers*: they are kept with the
# network but no gradient goes to them. eps and momentum are plain numbers that somebody chose. So
# train a little, and see which of them have moved.


# %%
def train(model, epochs):
    """Train on the digits, the same batches each time."""
    optimizer = mb.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    batches = mb.data.batches(*data[:2], batch_size=32, drop_last=True, rng=1)
    for _ in range(epochs):
        lesson.epoch(model, optimizer, batches)
    return model


epochs = 2 if run.quick else 20
begun, layer = network()[1].state_dict(), train(network(), epochs)[1]
moved = {n: np.median(abs(value - begun[n])) for n, value in layer.state_dict().items()}
parameters = [name for name, _ in layer.named_parameters()]
buffers = [name for name, _ in layer.named_buffers()]
for name, far in moved.items():
    kind = "parameter" if name in parameters else "buffer"
    print(f"{kind:9} {name:19} moved by {far:.3f}, the median of {begun[name].size}")
print(f"numbers   eps = {layer.eps:g}, momentum = {layer.momentum:g}, which nothing moves")
measured = f"parameters: {' '.join(parameters)}; buffers: {' '.join(buffers)}; in {epochs} epochs "
measured += f"gamma moved by {moved['weight']:.3f} and beta by {moved['bias']:.3f} (medians of 128)"
lesson.claim(run, "A4", "holds", measured)

# %% [markdown]
# ## How many
#
# gamma and beta have one entry per feature, each the size of a bias: two vectors of 128 for each of
# the two layers, 512 numbers in all.

# %%
counts = [sum(p.size for p in network(norm).parameters()) for norm in (False, True)]
print(f"without {counts[0]:,}, by hand 64*128 + 128 + 128*128 + 128 + 128*10 + 10 = 26,122")
print(f"with    {counts[1]:,}, that is {counts[1] - counts[0]} more, by hand 2 * 2 * 128 = 512")
shapes = ", ".join(str(p.shape) for p in (layer.weight, layer.bias, network()[0].bias))
measured = f"gamma, beta and the bias before them have shapes {shapes}"
lesson.claim(run, "A5", "holds", f"{measured}; {counts[1]:,} parameters instead of {counts[0]:,}")

# %% [markdown]
# ## One mean per feature, or per channel
#
# Of examples (m, d), a mean is taken over the m examples. Of sequences (m, d, l), over examples and
# places, and of images (m, c, h, w) over examples, height and width: one mean per channel, for a
# convolution treats all pixels alike. Put the channels last and all else in rows, and each is the
# first case again.

# %%
rng = np.random.default_rng(0)
worst = 0.0
for shape in (32, 5), (32, 5, 7), (32, 5, 8, 6):
    z = rng.normal(size=shape) * rng.uniform(1, 9) + 5
    kind = mb.nn.BatchNorm2d if len(shape) == 4 else mb.nn.BatchNorm1d
    y = kind(5, dtype=np.float64)(z).data
    # (m, d), (m * l, d) or (m * h * w, c)
    rows, as_rows = (np.moveaxis(a, 1, -1).reshape(-1, 5) for a in (z, y))
    off = abs(as_rows - (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5)).max()
    worst = max(worst, off)
    print(f"{shape!s:14} {len(rows):5} values per mean, 5 means; off plain NumPy by {off:.1e}")

z = mb.nn.Conv2d(1, 4, 3, padding=1, rng=0)(data.x_train[:100].reshape(-1, 1, 8, 8))
y = mb.nn.BatchNorm2d(4)(z).data
by_channel, by_pixel = abs(y.mean(axis=(0, 2, 3))).max(), abs(y.mean(axis=0)).max()
print(f"digits {z.shape}: largest mean of a channel {by_channel:.1e}, of a pixel {by_pixel:.2f}")
measured = f"(m, d), (m, d, l), (m, c, h, w): off plain NumPy by at most {worst:.1e}; on digits "
measured += f"channels have mean 0 to {by_channel:.0e}, single pixels up to {by_pixel:.2f}"
lesson.claim(run, "A7", "holds", measured)

# %% [markdown]
# ## The bias before it
#
# b moves all examples alike, so it moves their mean as much, and the mean is taken out again.
# Nothing that comes after can depend on b. So its gradient has to be zero. In numbers both are so
# to rounding, and rounding grows with b: in float32 a million and a small z leave hardly a digit
# for z.


# %%
def with_bias(b, dtype):
    """Return the output of linear and batch norm on 32 digits, and the gradients of W and b."""
    linear, norm, *_ = network(dtype=dtype)
    linear.bias.data = np.asarray(b, dtype)
    y = norm(linear(data.x_train[:32]))
    y.backward(np.random.default_rng(1).normal(size=y.shape).astype(dtype))
    return y.data, linear.weight.grad, linear.bias.grad


sizes = np.logspace(0, 6, 7)
direction = np.random.default_rng(2).uniform(-1, 1, size=128)
found = {}
for dtype in (np.float64, np.float32):
    reference, dw, _ = with_bias(np.zeros(128), dtype)
    rows = [with_bias(size * direction, dtype) for size in sizes]
    found[dtype] = np.array([(abs(y - reference).max(), abs(db).max()) for y, _, db in rows])
    print(f"{dtype.__name__}, where the largest entry of dW is {abs(dw).max():.2g}")
    for size, (change, db) in zip(sizes, found[dtype], strict=True):
        print(f"  b up to {size:9,.0f}: output changes by {change:.1e}, largest db {db:.1e}")
fig, ax = lesson.figure()
for dtype, marker in (np.float32, "s"), (np.float64, "o"):
    ax.plot(sizes, found[dtype][:, 0], f"{marker}-", ms=4, label=dtype.__name__)
ax.set(xscale="log", yscale="log", xlabel="largest entry of b", ylabel="change of the output")
ax.legend()
lesson.save(run, fig, "bias")

# %% [markdown]
# So leave it out: `Linear(..., bias=False)`. Train two networks, one with b and one without, from
# the same weights and on the same batches. b stays where it began, but for rounding, and what it
# would have done, beta does. The two networks go the same way until rounding, which training
# amplifies, takes them apart. In the full run, after 20 epochs, all 355 answers are the same in
# float64, and 354 in float32. That one answer, which the network without b reads right, is chance,
# such as another seed would bring, and no fault of b. (In eval mode their outputs differ a little
# at first: the running mean starts at 0 for both, and each batch keeps 1 - momentum = 0.9 of it,
# where momentum is that of the layer, 0.1. After 2 epochs, which is 90 batches, 0.9**90 = 0.00008
# of the start is left.)


# %%
@mb.no_grad()
def answers(model):
    """Return what the network says to the test images, ten numbers each, and how many are right."""
    return model.eval()(data.x_test).data, lesson.accuracy(model, data.x_test, data.y_test)


trained = []
for dtype in (np.float64, np.float32):
    begun = network(dtype=dtype)
    kept, bare = (train(network(bias=bias, dtype=dtype), epochs) for bias in (True, False))
    drift, beta = (abs(kept[k].bias.data - begun[k].bias.data).max() for k in (0, 1))
    (a, right), (b, right_without) = answers(kept), answers(bare)
    same, apart = np.sum(a.argmax(axis=1) == b.argmax(axis=1)), abs(a - b).max()
    trained.append(f"{right:.1f} % and {right_without:.1f} % right, {same} of 355 answers the same")
    print(f"{dtype.__name__}, after {epochs} epochs with b and without: {trained[-1]}")
    print(f"  outputs apart by {apart:.0e}; b moved by {drift:.0e} at most, beta by {beta:.3f}")

# %% [markdown]
# One limit: in eval mode the mean that is subtracted is the running one, and that does not move
# with b. A b that was there in training is part of it. So b can be left out before training, but
# not taken from a network that was trained with it.

# %%
kept[0].bias.data = np.zeros(128, np.float32)
taken, right_after = answers(kept)
print(f"b set to 0 afterwards: outputs move by {abs(taken - a).max():.1f}", end=", ")
print(f"{right_after:.1f} % right instead of {right:.1f} %")
(small, db), (large, _) = found[np.float64].T, found[np.float32].T
measured = f"float64: for b up to 1 the output changes by {small[0]:.0e}, db is at most "
measured += f"{db.max():.0e} beside a dW of {abs(dw).max():.0f}; float32: {large[0]:.0e} for b up "
measured += f"to 1, {large[-1]:.1f} for b up to a million; trained with b and without, "
lesson.claim(run, "C1", "holds", f"{measured}float64: {trained[0]}; float32: {trained[1]}")

# %% [markdown]
# ## What is left
#
# Per hidden layer: w and b without batch norm; w, gamma and beta with it. That is one vector more,
# not two.

# %%
counts = []
for what, model in {"w, b": network(norm=False), "w, gamma, beta": network(bias=False)}.items():
    print(what)
    for name, p in model.named_parameters():
        print(f"  {name:9} {p.shape!s:10} {p.size:6,}")
    sizes = [p.size for p in model.parameters()]
    counts.append(f"{len(sizes)} arrays, {sum(sizes):,}")
    print(f"  {counts[-1]} numbers")
measured = f"two hidden layers of 128: {counts[0]} numbers with w, b; {counts[1]} with w, gamma, "
lesson.claim(run, "C2", "holds", f"{measured}beta: one vector of 128 more for each layer")
