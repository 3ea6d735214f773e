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
# well; so at the end one activation is given four times as long.

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("15_learning_rates")
SEEDS, EPOCHS, BATCH = (range(1), 2, 32) if run.quick else (range(5), 5, 32)
RATES = 10.0 ** np.arange(-3, 2.5, 1 if run.quick else 0.5)
ACTIVATIONS = {"ReLU": mb.nn.ReLU, "tanh": mb.nn.Tanh, "sigmoid": mb.nn.Sigmoid}
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
# All three can be checked on one batch. `eps` disturbs them, but in digits that are not shown here.


# %%
def network(seed, batch_norm, activation=mb.nn.ReLU):
    layers = []
    for k in range(2):
        rng = np.random.default_rng([seed, k])  # the same weights, with batch norm or without
        layers.append(mb.nn.Linear(64, 64, bias=not batch_norm, rng=rng))
        layers += [mb.nn.BatchNorm1d(64)] * batch_norm + [activation()]
    output = mb.nn.Linear(64, 10, rng=np.random.default_rng([seed, 2]))
    return mb.nn.Sequential(*layers, output)


def gradient(net, x, y):
    """Return the loss, the weights of the second layer and their gradient."""
    for p in net.parameters():
        p.grad = None
    loss = mb.functional.cross_entropy(net(x), y)
    loss.backward()
    weights = net[3].weight
    return loss.item(), weights.data.copy(), weights.grad.copy()


net = network(seed=0, batch_norm=True)
x, y = data.x_train[:128], data.y_train[:128]
loss, w, g = gradient(net, x, y)
cosine = np.sum(w * g, axis=1) / (np.linalg.norm(w, axis=1) * np.linalg.norm(g, axis=1))
print(f"cosine of the angle between a unit's weights and its gradient: {np.abs(cosine).max():.4f}")
print(f"  (the largest of 64, on {len(x)} images)")
net[3].weight.data = 2 * w
doubled, _, g2 = gradient(net, x, y)
print(f"the loss is {loss:.4f}, and with the weights doubled {doubled:.4f}")
print(f"the gradient has norm {np.linalg.norm(g):.4f}, then {np.linalg.norm(g2):.4f}", end=", ")
print(f"ratio {np.linalg.norm(g2) / np.linalg.norm(g):.4f}")
stepped = w - 10 * g
print(f"one step at rate 10: the weights' norm goes from {np.linalg.norm(w):.4f}", end=" ")
print(f"to {np.linalg.norm(stepped):.4f}", end=", ")
print(f"by Pythagoras {np.hypot(np.linalg.norm(w), 10 * np.linalg.norm(g)):.4f}")


# %% [markdown]
# ## The grid
#
# Eleven rates, three activations, with batch norm and without, five seeds. A rate that is far too
# high makes the weights overflow; such a network reads a tenth of the images right.


# %%
def accuracy_after(epochs, net, rate, seed):
    optimizer = mb.optim.SGD(net.parameters(), lr=rate)
    batches = mb.data.batches(
        data.x_train, data.y_train, batch_size=BATCH, drop_last=True, rng=seed
    )
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(epochs):
            for x, y in batches:
                loss = mb.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        net.eval()
        with mb.no_grad():
            return 100 * np.mean(np.argmax(net(data.x_test), axis=1) == data.y_test)


def sweep(epochs, rows):
    """Return the percentage read right: a row for each network, a column for each rate, seeds."""
    scores = np.zeros((len(rows), len(RATES), len(SEEDS)))
    for i, j, k in lesson.track(list(np.ndindex(scores.shape)), f"{epochs} epochs"):
        name, batch_norm = rows[i]
        net = network(SEEDS[k], batch_norm, ACTIVATIONS[name])
        scores[i, j, k] = accuracy_after(epochs, net, float(RATES[j]), SEEDS[k])
    return scores


def label(row):
    return f"{row[0]}, {'with' if row[1] else 'without'}"


def short(rate):
    return np.format_float_positional(rate, 2, fractional=False, trim="-")


def table(rows, scores):
    print(f"{'rate':16}" + "".join(f"{short(rate):>7}" for rate in RATES))
    for row, line in zip(rows, np.median(scores, axis=2), strict=True):
        print(f"{label(row):16}" + "".join(f"{number:7.1f}" for number in line))


rows = [(name, batch_norm) for name in ACTIVATIONS for batch_norm in (True, False)]
scores = sweep(EPOCHS, rows)
print(f"test images read right after {EPOCHS} epochs, %, median of {len(SEEDS)}")
table(rows, scores)

# %%
fig, ax = lesson.figure(figsize=(9.6, 3.6))
median = np.median(scores, axis=2)
image = ax.imshow(median, cmap="cividis", vmin=0, vmax=100, aspect="auto")
for i, j in np.ndindex(median.shape):
    ink = "black" if median[i, j] > 55 else "white"
    ax.text(j, i, f"{median[i, j]:.0f}", ha="center", va="center", color=ink)
ax.set_xticks(range(len(RATES)), [short(rate) for rate in RATES])
ax.set_yticks(range(len(rows)), [f"{label(row)} batch norm" for row in rows])
ax.set_xlabel(f"learning rate (plain gradient descent, {EPOCHS} epochs)")
fig.colorbar(image, label="test images read right, %")
lesson.save(run, fig)

# %% [markdown]
# ## What was found
#
# The claim *holds* if for each activation more rates work with batch norm than without, and the
# highest that works is higher; *within limits* if that is so for some.

# %%


# %%
def working(scores):
    """Return the rates that work, and how it is said."""
    median = np.median(scores, axis=1)
    works = RATES[median >= 90]
    span = " to ".join(dict.fromkeys(short(rate) for rate in works[[0, -1] * bool(works.size)]))
    said = f"{works.size} of {RATES.size} rates ({span or 'none'}), at best {median.max():.1f} %"
    return works, said


facts, wider = [], []
for name in ACTIVATIONS:
    mine, said = working(scores[rows.index((name, True))])
    other, other_said = working(scores[rows.index((name, False))])
    facts.append(f"{name}: with {said}; without {other_said}")
    print(facts[-1])
    wider.append(mine.size > other.size and mine.max(initial=0) > other.max(initial=0))
spread = [np.ptp(line[np.median(line, axis=1) >= 90], axis=1).max(initial=0) for line in scores]
print(f"where a rate works, the seeds differ by at most {max(spread):.1f} points")

# %% [markdown]
# ## With patience
#
# ReLU once more, with four times as many epochs. Some lower rates catch up, with batch norm and
# without; the upper end hardly moves.

# %%
longer = sweep(4 * EPOCHS, rows[:2])
print(f"test images read right after {4 * EPOCHS} epochs, %, median of {len(SEEDS)}")
table(rows[:2], longer)
patient = [working(line)[1] for line in longer]
facts.append(f"ReLU, {4 * EPOCHS} epochs: with {patient[0]}; without {patient[1]}")
print(facts[-1])

verdict = "holds" if all(wider) else "holds within limits" if any(wider) else "does not hold here"
start = f"{len(SEEDS)} seeds, median at least 90 % after {EPOCHS} epochs. "
lesson.claim(run, "D5", verdict, start + ". ".join(facts))
