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
# They are tested here with one set of networks, 64-64-64-10, which read digits.

# %%
import itertools

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


counts = {kind: sum(p.size for p in network(kind, mb.nn.ReLU, 0).parameters()) for kind in MIDDLE}
print("parameters")
for kind, count in counts.items():
    print(f"  {kind:18} {count}")

# %% [markdown]
# By hand: the plain network has `64 * 64 + 64` in each hidden layer and `64 * 10 + 10` in the last,
# 8,970. Batch norm swaps a bias for gamma and beta: 64 more in each layer, 9,098. So does the
# network with gamma and beta only. One neuron more in each layer costs more than that: 9,175.
#
# All are trained alike: SGD with rate 0.03 and momentum 0.9, batches of 32.


# %%
def train(net, seed):
    """Train, and return the test accuracy after each epoch, and the states from the start on."""
    optimizer = mb.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    batches = mb.data.batches(data.x_train, data.y_train, batch_size=32, drop_last=True, rng=seed)
    scores, states = [], [net.state_dict()]
    for _ in range(EPOCHS):
        lesson.epoch(net, optimizer, batches)
        scores.append(lesson.accuracy(net, data.x_test, data.y_test))
        states.append(net.state_dict())
    return scores, states


class Tangent(mb.nn.Module):
    """What a sigmoid would be if it were linear: its tangent at 0."""

    def forward(self, z):
        return 0.5 + z / 4


@mb.no_grad()
def look(net, activation):
    """Return the training loss, and how much of what the activations are given is in -1 to 1, %."""
    x, within = data.x_train, []
    for layer in net.eval():
        if isinstance(layer, activation):
            within.append(np.mean(np.abs(x.data) < 1))
        x = layer(x)
    return mb.functional.cross_entropy(x, data.y_train).item(), 100 * np.mean(within)


RELU, SIGMOID, LINEAR = mb.nn.ReLU, mb.nn.Sigmoid, ("batch norm", Tangent)
jobs = [(kind, SIGMOID) for kind in ("plain", "batch norm", "standardised only")]
jobs += [*((kind, RELU) for kind in MIDDLE), LINEAR]
FIRST, END, LOSS, SHARE = range(4)  # accuracy after the first epoch and at the end; what look finds
found, histories = {}, []
for kind, activation in lesson.track(jobs, "networks"):
    rows = []
    for seed in range(SEEDS):
        net = network(kind, activation, seed)
        scores, states = train(net, seed)
        rows.append((scores[0], scores[-1], *look(net, activation)))
        if (kind, activation) == ("batch norm", RELU):
            histories.append(states)
            last = net
    found[kind, activation] = np.array(rows).T  # one of the four, seed

# %% [markdown]
# ## F5: what goes on changing?
#
# The relative change in an epoch is the length of the difference divided by the length of what is
# there at its end. For beta, which begins at 0, it is 1 in the first epoch, by definition.
#
# A part changes *little* if it changes less than half as much as the weights, in every seed. The
# claim *holds* if gamma and beta do, *within limits* if one of them does.

# %%
PARTS = "weights", "gamma", "beta"
PATHS = ("0.weight", "3.weight"), ("1.weight", "4.weight"), ("1.bias", "4.bias")


def changes(states, paths):
    """Return the relative change in each epoch, and what of the whole way is left after one, %."""
    arrays = [np.concatenate([state[path].ravel() for path in paths]) for state in states]
    norm, first, end = np.linalg.norm, arrays[1], arrays[-1]
    each = [norm(new - old) / norm(new) for old, new in itertools.pairwise(arrays)]
    return each, 100 * norm(end - first) / norm(end - arrays[0])


fig, ax = lesson.figure()
epochs = np.arange(1, EPOCHS + 1)
ax.set(xlabel="epoch", ylabel="relative change in the epoch", yscale="log")
ax.set_xticks(epochs[:: 4 if EPOCHS > 8 else 1])
after, said = {}, []
for name, paths, style in zip(PARTS, PATHS, ("-o", "-s", "-^"), strict=True):
    change, left = zip(*(changes(states, paths) for states in histories), strict=True)
    lesson.band(ax, epochs, change, style, name, markersize=4)
    after[name] = [100 * np.median(each[1:]) for each in change]  # over the epochs, seed by seed
    said.append(f"{name} {lesson.spread(after[name], '.2f')} and {lesson.spread(left)}")
ax.grid()
ax.legend()
lesson.save(run, fig, "change")

half = np.array(after["weights"]) / 2
little = [name for name in ("gamma", "beta") if np.all(after[name] < half)]
text = "relative change per epoch after the first, and what of the way from start to end is left "
text += f"after one epoch, %: {'; '.join(said)} (median and range of {SEEDS} seeds)"
verdict = lesson.verdict(len(little) == 2, little)
lesson.claim(run, "F5", verdict, text, limits=f"{' and '.join(little)} only")

# %% [markdown]
# Measured so, it is true of gamma. But gamma begins at 1 and moves little altogether; and of the
# way that it does go, as large a share comes after the first epoch as with the weights (the second
# number; in 20 epochs about 70 %). Of beta it is not true: it changes at about the pace of the
# weights.
#
# ## F6: standardised only
#
# Between -1 and 1 a sigmoid differs from its tangent `1/2 + z/4` by at most 0.019. Of a normal
# distribution with mean 0 and variance 1, 68.3 % lie there. If nothing but that part were used,
# sigmoids could be left out; the last line is a network in which the tangent takes their place, so
# that it is linear from end to end.
#
# The claim has two halves: without gamma and beta fewer test images are read right, and more of
# what a sigmoid is given lies between -1 and 1. It *holds* if both are so in every seed, the first
# with sigmoid and with ReLU; *within limits* if only the first is, for the second by itself does no
# harm.

# %%
print(f"{'':26} {'within -1 to 1, %':>21} {'training loss':>24} {'test accuracy, %':>21}")
for (kind, activation), (_, end, loss, share) in found.items():
    print(f"{kind + ', ' + activation.__name__:26} {lesson.spread(share):>21}", end=" ")
    print(f"{lesson.spread(loss, '.4f'):>24} {lesson.spread(end):>21}")

bare, full = found["standardised only", SIGMOID], found["batch norm", SIGMOID]
lost = full[END] - bare[END]  # points of test accuracy, seed by seed
lost_relu = found["batch norm", RELU][END] - found["standardised only", RELU][END]
halves = [min(*lost, *lost_relu) > 0, np.all(bare[SHARE] > full[SHARE])]
inside = [lesson.spread(net[SHARE]) for net in (bare, full)]
cost = f"{lesson.spread(lost)} with sigmoid, {lesson.spread(lost_relu)} with ReLU"
text = f"of what a sigmoid is given, within -1 to 1: {inside[0]} % without gamma and beta, "
text += f"{inside[1]} % with them; points of test accuracy lost without them: {cost}; linear "
text += f"throughout: {lesson.spread(found[LINEAR][END])} % (median and range of {SEEDS} seeds)"
limits = "they are needed, but not to leave the linear part"
lesson.claim(run, "F6", lesson.verdict(all(halves), halves[0]), text, limits)

# %% [markdown]
# The second half is found, the first is not: they are not needed here. In the full run they are
# worth one test image of 355 in the median, and with ReLU some seeds read more without them. They
# help to fit: with sigmoids the training loss is about half as large with gamma and beta. Of the
# picture of the linear part it is true that gamma widens what a sigmoid is given. But standardising
# did not put it there (a plain network has no smaller share within -1 to 1), and a network that is
# linear throughout reads less than one point fewer than the standardised one: on these digits there
# is little that a sigmoid could be missed for.
#
# ## F10: is it the added parameters?
#
# There is an argument before any experiment. Without normalisation, `gamma * (W a + b) + beta` is
# again a linear layer: nothing can be computed that was out of reach before. The same is true of
# batch norm in use, where mean and variance are constants. Folded into its linear layers, the
# trained network is a plain one, with 8,970 parameters, and computes the same: its outputs differ
# by less than 0.0001, which is rounding.
#
# The question is asked after one epoch, where the networks are tens of points apart; after 20
# epochs the differences are smaller than their spread over the seeds, and decide nothing. The claim
# *holds* if the parameters that are added without normalising gain at least half of what
# standardising alone gains, *within limits* if it is a tenth.

# %%
folded = mb.nn.fold_batch_norm(last.eval())
with mb.no_grad():
    apart = np.abs(folded(data.x_test).data - last(data.x_test).data).max()
print(f"folded: {sum(p.size for p in folded.parameters())} parameters", end=", ")
print(f"the outputs differ by at most {lesson.plain(apart)}")

# %%
plain = found["plain", RELU]
gains = {kind: found[kind, RELU] - plain for kind in list(MIDDLE)[1:]}
said = []
for kind, gain in gains.items():
    more = f"{counts[kind] - counts['plain']:+d} parameters"
    said.append(f"{kind} ({more}) {lesson.spread(gain[FIRST])} and {lesson.spread(gain[END])}")

added = [np.median(gains[kind][FIRST]) for kind in ("gamma, beta only", "one neuron more")]
share = max(added) / np.median(gains["standardised only"][FIRST])
text = f"test accuracy of the plain network after 1 epoch and after {EPOCHS}, %: "
text += f"{lesson.spread(plain[FIRST])} and {lesson.spread(plain[END])}; points gained over it: "
text += f"{'; '.join(said)} (median and range of {SEEDS} seeds)"
limits = f"they gain {share:.0%} of what standardising alone gains"
lesson.claim(run, "F10", lesson.verdict(share >= 0.5, share >= 0.1), text, limits)

# %% [markdown]
# After one epoch the parameters that were added without normalising gain nothing that stands out
# from the spread. Standardisation that *takes* 128 parameters away gains as much as batch norm, to
# within a point in the median. That is not quite the end of the guess: a network can be
# the same in what it could compute and still be easier to train because gamma and beta are *other
# coordinates* for it. What is ruled out is capacity.
