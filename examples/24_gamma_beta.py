# %% [markdown]
# # What do gamma and beta do, and are they the secret?
#
# Batch norm takes mean and size away from every feature, and then lets gamma and beta put others in
# their place, which are learned. Three things are said of them:
#
# - **F5**, from a course forum: after the first epoch gamma and beta change little, while the
#   weights go on changing;
# - **F6**: they are needed. Standardised activations alone do worse, and leave a sigmoid in its
#   linear part, where it might as well not be there;
# - **F10**, a lecturer's own guess: batch norm may help because gamma and beta add capacity.
#
# They are settled here by one set of networks, 64-64-64-10, which read digits.

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("24_gamma_beta")
EPOCHS, SEEDS = (3, 2) if run.quick else (20, 10)
data = mb.data.digits()

# %% [markdown]
# ## Five networks
#
# The two halves of batch norm can be had one by one. `BatchNorm1d(d, affine=False)` is the
# standardisation, without gamma and beta. `ScaleAndShift` is the rest: gamma and beta, and nothing
# is normalised. The last network is plain, but has one neuron more in each hidden layer.


# %%
class ScaleAndShift(mb.nn.Module):
    """gamma and beta without what comes before them."""

    def __init__(self, size):
        self.weight = mb.nn.Parameter(np.ones(size, np.float32))
        self.bias = mb.nn.Parameter(np.zeros(size, np.float32))

    def forward(self, x):
        """Scale and shift each feature."""
        return x * self.weight + self.bias


MIDDLE = {
    "plain": None,
    "batch norm": mb.nn.BatchNorm1d,
    "standardised only": lambda size: mb.nn.BatchNorm1d(size, affine=False),
    "gamma, beta only": ScaleAndShift,
    "one neuron more": None,
}


def network(kind, activation, seed):
    """Return the network of that kind; all but the widest start from the same weights."""
    rng, size = np.random.default_rng(seed), 65 if kind == "one neuron more" else 64
    layers = []
    for inputs in 64, size:
        layers.append(mb.nn.Linear(inputs, size, rng=rng))
        if MIDDLE[kind]:
            layers[-1].bias = None  # it would be redundant
            layers.append(MIDDLE[kind](size))
        layers.append(activation())
    return mb.nn.Sequential(*layers, mb.nn.Linear(size, 10, rng=rng))


print("parameters")
counts = {kind: sum(p.size for p in network(kind, mb.nn.ReLU, 0).parameters()) for kind in MIDDLE}
for kind, count in counts.items():
    print(f"  {kind:18} {count}")

# %% [markdown]
# By hand: the plain network has `64 * 64 + 64` in each hidden layer and `64 * 10 + 10` in the last,
# 8,970. Batch norm swaps a bias for gamma and beta: 64 more in each layer, 9,098. So does the
# network with gamma and beta only. One neuron more in each layer costs more than that: 9,175.
#
# All are trained alike: SGD with rate 0.03 and momentum 0.9, batches of 32.


# %%
def parts(net):
    """Return a copy of the weights of the hidden layers, of all gammas and of all betas."""
    hidden = list(net)[:-1]
    linear = [layer for layer in hidden if isinstance(layer, mb.nn.Linear)]
    norms = [layer for layer in hidden if isinstance(layer, mb.nn.BatchNorm1d) and layer.affine]
    lists = [p.weight for p in linear], [p.weight for p in norms], [p.bias for p in norms]
    return [np.concatenate([p.data.ravel() for p in group]) for group in lists if group]


def train(net, seed):
    """Train, and return loss and accuracy after each epoch, and the parts of the network."""
    optimizer = mb.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    rng = np.random.default_rng(seed)
    batches = mb.data.batches(data.x_train, data.y_train, batch_size=32, drop_last=True, rng=rng)
    history, scores = [parts(net)], []
    for _ in range(EPOCHS):
        net.train()
        for x, y in batches:
            optimizer.zero_grad()
            mb.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        net.eval()
        with mb.no_grad():
            loss = mb.functional.cross_entropy(net(data.x_train), data.y_train).item()
            right = np.argmax(net(data.x_test), axis=1) == data.y_test
        history.append(parts(net))
        scores.append((loss, 100 * np.mean(right)))
    return np.array(scores), history


def linear_part(net):
    """Return the share of what the sigmoids are given, on the training images, within -1 to 1."""
    x, within = data.x_train, []
    with mb.no_grad():
        for layer in net:
            if isinstance(layer, mb.nn.Sigmoid):
                within.append(np.mean(np.abs(x.data) < 1))
            x = layer(x)
    return 100 * np.mean(within)


class Tangent(mb.nn.Module):
    """What a sigmoid would be if it were linear: its tangent at 0."""

    def forward(self, z):
        """Return the value of the tangent."""
        return 0.5 + z / 4


RELU, SIGMOID, STRAIGHT = mb.nn.ReLU, mb.nn.Sigmoid, Tangent
jobs = [(kind, RELU) for kind in MIDDLE] + [(kind, SIGMOID) for kind in list(MIDDLE)[:3]]
scores, shares, histories = {}, {}, []
for kind, activation in lesson.track([*jobs, ("batch norm", STRAIGHT)], "networks"):
    runs = []
    for seed in range(SEEDS):
        net = network(kind, activation, seed)
        score, history = train(net, seed)
        runs.append(score)
        if activation is SIGMOID:
            shares.setdefault(kind, []).append(linear_part(net))
        if (kind, activation) == ("batch norm", RELU):
            histories.append(history)
            last = net
    scores[kind, activation] = np.array(runs)  # (seed, epoch, loss and accuracy)


def spread(values, digits=1):
    """Write the median and the range of a list."""
    low, middle, high = (f"{q:.{digits}f}" for q in np.quantile(values, [0, 0.5, 1]))
    return f"{middle} ({low} to {high})"


# %% [markdown]
# ## F5: what goes on changing?
#
# The relative change in an epoch is the length of the difference divided by the length of what is
# there at its end. For beta, which begins at 0, it is 1 in the first epoch, by definition.

# %%
PARTS = "weights", "gamma", "beta"
change = np.empty((3, SEEDS, EPOCHS))
late = np.empty((3, SEEDS))  # of the way from the start to the end, what is left after epoch 1
for k, seed in np.ndindex(3, SEEDS):
    path = [epoch[k] for epoch in histories[seed]]
    for e in range(EPOCHS):
        change[k, seed, e] = np.linalg.norm(path[e + 1] - path[e]) / np.linalg.norm(path[e + 1])
    late[k, seed] = np.linalg.norm(path[-1] - path[1]) / np.linalg.norm(path[-1] - path[0])
after = 100 * np.median(change[:, :, 1:], axis=2)  # over the epochs
print("change per epoch after the first, and what of all change comes after it, %")
for k, name in enumerate(PARTS):
    print(f"  {name:8} {spread(after[k], 2):>22} {spread(100 * late[k]):>22}")

fig, ax = lesson.figure()
for k, (name, style) in enumerate(zip(PARTS, ("-o", "-s", "-^"), strict=True)):
    epochs = np.arange(1, EPOCHS + 1)
    ax.semilogy(epochs, np.median(change[k], axis=0), style, label=name, markersize=4)
    ax.fill_between(epochs, change[k].min(0), change[k].max(0), alpha=0.25, linewidth=0)
ax.set(xlabel="epoch", ylabel="relative change in the epoch", xticks=epochs[:: max(1, EPOCHS // 5)])
ax.grid()
ax.legend()
lesson.save(run, fig, "change")

little = [bool(np.all(after[0] > 2 * after[k])) for k in (1, 2)]  # half as much, in every seed
verdict = "holds" if all(little) else "holds within limits" if any(little) else "does not hold here"
lesson.claim(
    run,
    "F5",
    verdict,
    "relative change per epoch after the first, %: "
    + ", ".join(f"{name} {spread(after[k], 2)}" for k, name in enumerate(PARTS))
    + "; of the way from start to end this is left after one epoch, %: "
    + ", ".join(f"{name} {spread(100 * late[k], 0)}" for k, name in enumerate(PARTS))
    + f" (median and range of {SEEDS} seeds)",
)

# %% [markdown]
# Of gamma it is true if it is measured so: but gamma begins at 1, and a small part of 1 is all
# that it ever learns, and of that as large a share comes after the first epoch as with the weights
# (second column; in 20 epochs about 70 %). Of beta it is not true: it changes at about the pace of
# the weights.
#
# ## F6: standardised only
#
# Between -1 and 1 a sigmoid differs from its tangent `1/2 + z/4` by at most 0.019. Of a normal
# distribution with mean 0 and variance 1, 68.3 % lie there. If nothing but that part were used,
# sigmoids could be left out; the last line is a network in which the tangent takes their place, so
# that it is linear from end to end.

# %%
print(f"{'':29} {'within -1 to 1, %':>22} {'training loss':>24} {'test accuracy, %':>22}")
for kind, activation in [*jobs[5:], jobs[1], jobs[2], ("batch norm", STRAIGHT)]:
    end = scores[kind, activation][:, -1].T
    share = spread(shares[kind]) if activation is SIGMOID else ""
    label = f"{kind}, {activation.__name__}"
    print(f"{label:29} {share:>22} {spread(end[0], 4):>24} {spread(end[1]):>22}")

loses = {}  # what standardisation alone costs, seed by seed
for activation in SIGMOID, RELU:
    full, bare = (
        scores[kind, activation][:, -1, 1] for kind in ("batch norm", "standardised only")
    )
    loses[activation] = full - bare
inside = [spread(shares[kind]) for kind in ("standardised only", "batch norm")]
worse = [bool(np.median(loss) > 0) for loss in loses.values()]
wider = min(shares["standardised only"]) > max(shares["batch norm"])
always = all(loss.min() > 0 for loss in loses.values())
verdict = "holds" if always and wider else "does not hold here"
if verdict != "holds" and wider and any(worse):
    verdict = "holds within limits"
linear = scores["batch norm", STRAIGHT][:, -1, 1]
lesson.claim(
    run,
    "F6",
    verdict,
    f"of what a sigmoid is given lies within -1 to 1: {inside[0]} % without gamma and beta, "
    f"{inside[1]} % with them; that costs {spread(loses[SIGMOID])} points of test accuracy with "
    f"sigmoid, {spread(loses[RELU])} with ReLU; linear throughout: {spread(linear)} % "
    f"(median and range of {SEEDS} seeds)",
)

# %% [markdown]
# Needed they are not. In the full run the median network without them reads one test image of 355
# fewer, and with ReLU some seeds read more. They help to fit: with sigmoids the training loss is
# about half as large with gamma and beta. Of the picture of the linear part it is true that gamma
# widens what a sigmoid is given. But standardising did not put it there (a plain network has no
# smaller share within -1 to 1), and a network that is linear throughout reads less than one point
# fewer than the standardised one: on these digits there is little that a sigmoid could be missed
# for.
#
# ## F10: is it the added parameters?
#
# There is an argument before any experiment. Without normalisation, `gamma * (W a + b) + beta` is
# again a linear layer: nothing can be computed that was out of reach before. The same is true of
# batch norm in use, where mean and variance are constants. Folded into its linear layers, the
# trained network is a plain one, with 8,970 parameters, and computes the same.

# %%
last.eval()
folded = mb.nn.fold_batch_norm(last)
with mb.no_grad():
    apart = np.abs(folded(data.x_test).data - last(data.x_test).data).max()
print(f"folded: {sum(p.size for p in folded.parameters())} parameters", end=", ")
print(f"the outputs agree to 4 digits: {apart < 1e-4}")
print(f"{'':19} {'parameters':>10} {'accuracy after 1 epoch':>24} {f'after {EPOCHS}':>24}")
for kind in MIDDLE:
    first, end = scores[kind, RELU][:, 0, 1], scores[kind, RELU][:, -1, 1]
    print(f"{kind:19} {counts[kind]:>10} {spread(first):>24} {spread(end):>24}")

# %%
gains = {
    kind: [scores[kind, RELU][:, e, 1] - scores["plain", RELU][:, e, 1] for e in (0, -1)]
    for kind in MIDDLE
}
added, normalised = ("gamma, beta only", "one neuron more"), "standardised only"
most = max(np.median(gains[kind][0]) for kind in added)
verdict = (
    "does not hold here" if most < np.median(gains[normalised][0]) / 10 else "holds within limits"
)
lesson.claim(
    run,
    "F10",
    verdict,
    f"points of test accuracy gained over the plain network after 1 epoch and after {EPOCHS}: "
    + "; ".join(
        f"{kind} ({counts[kind] - counts['plain']:+d} parameters) {spread(a)} and {spread(b)}"
        for kind, (a, b) in gains.items()
        if kind != "plain"
    )
    + f" (median and range of {SEEDS} seeds)",
)

# %% [markdown]
# The parameters that were added without normalising gain nothing. Standardisation that *takes* 128
# parameters away gains nearly all. That is not quite the end of the guess: a network can be the
# same in what it could compute and still be easier to train because gamma and beta are *other
# coordinates* for it. What is ruled out is capacity.
