# %% [markdown]
# # Does batch norm make elongated contours round?
#
# Draw the loss over two weights, as a map with contour lines. If one weight matters a hundred times
# as much as the other, the lines are long ellipses, and gradient descent has to take steps that are
# small enough for the steep side and too small for the flat one. The explanation that courses give
# first is that normalising makes those ellipses round. **Claim F1** puts a number to it: the
# *condition number* of the Hessian, its largest eigenvalue divided by its smallest. It is 1 for
# circles. The Hessian is the table of second derivatives, and the engine gives it.

# %%
import copy

import lesson
import numpy as np

import microbn as mb

run = lesson.options("22_contours")

# %% [markdown]
# ## The Hessian from the engine
#
# `create_graph=True` records how the gradient was computed, so it can be differentiated again: one
# backward pass for each of its entries is one row of the Hessian.


# %%
def hessian(loss, parameters):
    """Return all second derivatives of a number, with the parameters strung in one row."""
    gradients = mb.grad(loss, parameters, create_graph=True)
    flat = np.concatenate([g.reshape(-1) for g in gradients])
    rows = [mb.grad(flat, parameters, unit) for unit in np.eye(flat.size)]
    return np.array([np.concatenate([part.data.ravel() for part in row]) for row in rows])


def condition(matrix):
    """Return the largest eigenvalue of a symmetric matrix divided by the smallest."""
    values = np.linalg.eigvalsh(matrix)
    return values[-1] / values[0]


# %% [markdown]
# ## Two weights
#
# Four students again, cgpa and iq, but with the iqs in another order, so that the two columns have
# nothing to do with each other. A linear model, `loss = mean((x @ w - placed)**2)`, has the Hessian
# `2 * x.T @ x / 4`, whatever `w` is. By hand, for x as it stands: `2 * mean(cgpa**2) = 2 * 57.5`.
# With the mean taken off, `2 * 1.25` and `2 * 125` are left on the diagonal, a condition number of
# 100. Divided by the standard deviation too: 2 and 2, a condition number of 1.

# %%
x = np.array([[7.0, 90.0], [8.0, 60.0], [9.0, 80.0], [6.0, 70.0]])
placed = np.array([1.0, 0.0, 1.0, 0.0])


def squared_error(inputs):
    """Return the loss of a linear model as a function of its two weights."""
    return lambda w: np.mean((inputs @ w - placed) ** 2)


inputs = {"as they are": x, "centred": x - x.mean(0), "normalised": mb.batch_norm(x, eps=0.0)}
w = mb.Tensor([0.0, 0.0], requires_grad=True)
for name, columns in inputs.items():
    H = hessian(squared_error(columns)(w), [w])
    kappa = condition(H)
    rate = 2 / np.trace(H)  # the best there is: both ends of the spectrum shrink alike
    error, steps = np.ones(2), 0
    while np.linalg.norm(error) > 0.01 * np.sqrt(2):
        error, steps = error - rate * np.linalg.eigvalsh(H) * error, steps + 1
    print(f"{name:12} H {H.round(6).tolist()}")
    print(f"{'':12} condition number {kappa:.2f}, steps to 1 % of the error: {steps}")

# %% [markdown]
# The steps are those of gradient descent at its best rate. By hand: each step leaves `(k - 1) / (k
# + 1)` of the error for a condition number k, so it takes about `k / 2 * ln(100)`, in the second
# row 230.3. This is the claim in its pure form, and it is exact.
#
# ## Where it ends
#
# Two limits can be seen with four students. Batch norm treats each column by itself; it cannot part
# columns that say the same. In the original order iq is ten times cgpa. Then the normalised columns
# are equal, only the sum of the weights matters, and the map is one long valley.

# %%
same = mb.batch_norm(np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]]), eps=0.0)
H = hessian(squared_error(same)(w), [w])
print(f"iq = 10 * cgpa, normalised: H {H.round(6).tolist()}, eigenvalues", end=" ")
print(np.linalg.eigvalsh(H).round(6) + 0.0)


# %% [markdown]
# And that was about the weights *after* the normalisation. Of the weights *before* it, only the
# direction counts: `batch_norm(x @ (c * w))` does not depend on c. The contours are neither
# ellipses nor circles but rays. Differentiated by c, `loss(c * w) = loss(w)` says that the gradient
# is perpendicular to w, and `H @ w = -gradient`. Where the gradient is zero, so is an eigenvalue:
# the condition number is infinite, and it does no harm, since no step ever goes that way.


# %%
def before(w):
    """Return the loss if batch norm comes after the weights."""
    return np.mean((mb.batch_norm(x @ w, eps=0.0) - placed) ** 2)


w = mb.Tensor([1.0, 0.1], requires_grad=True)
g = mb.grad(before(w), w)
H = hessian(before(w), [w])
print(f"gradient {g.data.round(6)}, times w: {abs(g.data @ w.data):.6f}")
print(f"H @ w    {(H @ w.data).round(6)}")

# %%
axis = np.linspace(-1, 1, 60)  # without 0, where the variance is 0
fig, ax = lesson.figure(figsize=(9, 3.2), columns=3)
for panel, (name, columns) in zip(ax, list(inputs.items())[1:], strict=False):
    best = np.linalg.lstsq(columns, placed, rcond=None)[0]
    over = [[squared_error(columns)(best + np.array([a, b])) for a in axis] for b in axis]
    panel.contourf(best[0] + axis, best[1] + axis, np.sqrt(over), 12, cmap="cividis")
    panel.set(title=f"students, {name}", xlabel="weight of cgpa", ylabel="weight of iq")
# Over directions near (10, 1): x @ w of such a length is as wide as it is tall.
over = [[before(np.array([10 * a, b])) for a in axis] for b in axis]
ax[2].contourf(10 * axis, axis, over, 12, cmap="cividis")
ax[2].set(title="weights before batch norm", xlabel="weight of cgpa", ylabel="weight of iq")
lesson.save(run, fig, "students")

# %% [markdown]
# ## A network
#
# Digits, shrunk to 4 x 4 pixels so that the network can be small: 16-8-8-10 with tanh, 298
# parameters, and 314 with batch norm, whose gamma and beta take the place of a bias. Both start
# from the same weights and see the same batches. The loss is that of all 1,442 images at once.

# %%
EPOCHS, SEEDS = (2, 2) if run.quick else (10, 10)
data = mb.data.digits()
images = data.x_train.astype(float).reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)


def network(batch_norm, seed):
    """Return 16-8-8-10, the same weights with batch norm as without."""
    rng = np.random.default_rng(seed)
    layers = []
    for inputs in 16, 8:
        layers.append(mb.nn.Linear(inputs, 8, dtype=float, rng=rng))
        if batch_norm:
            layers[-1].bias = None  # beta does its work
            layers.append(mb.nn.BatchNorm1d(8, dtype=float))
        layers.append(mb.nn.Tanh())
    return mb.nn.Sequential(*layers, mb.nn.Linear(8, 10, dtype=float, rng=rng))


def train(net, seed):
    """Train by SGD with momentum, in batches of 32."""
    optimizer = mb.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    rng = np.random.default_rng(seed)
    batches = mb.data.batches(images, data.y_train, batch_size=32, drop_last=True, rng=rng)
    for _ in range(EPOCHS):
        for x, y in batches:
            optimizer.zero_grad()
            mb.functional.cross_entropy(net(x), y).backward()
            optimizer.step()


def loss_of(net):
    """Return the loss on all images, normalised by their own statistics."""
    return mb.functional.cross_entropy(net(images), data.y_train)


# %% [markdown]
# First, is the Hessian right? Its first row says how the gradient changes when the first weight
# does; so do two gradients, one with that weight a little larger and one a little smaller.

# %%
NAMES = "without", "with"
for batch_norm, name in enumerate(NAMES):
    net = network(batch_norm, 0)
    parameters = list(net.parameters())
    H, sides, h = hessian(loss_of(net), parameters), [], 1e-5
    for step in h, -2 * h:
        parameters[0].data[0, 0] += step
        sides.append(mb.grad(loss_of(net), parameters))
    row = np.concatenate([(a - b).data.ravel() for a, b in zip(*sides, strict=True)]) / (2 * h)
    apart = np.abs(H[0] - row).max() / np.abs(H[0]).max()
    print(f"{name:7} {len(H)} parameters, trace {np.trace(H):.6f}, the row differs by {apart:.0e}")

# %% [markdown]
# The condition number of the whole Hessian is not defined: a network has directions in which the
# loss bends down, and some in which it does not bend at all. What is compared is therefore
#
# - the largest eigenvalue, by size, divided by the **median** of all: how much more than usual the
#   loss bends where it bends most. It does not change if the loss or all weights are rescaled;
# - the true condition number of the **last layer** alone. There the loss is convex, bowl-shaped. Of
#   its 90 eigenvalues 9 are zero, since adding the same to all ten outputs changes nothing;
# - the true condition number over **two weights**: the median of all 280 pairs of weights of the
#   last layer that go to the same output.

# %%
MEASURES = "largest eigenvalue", "largest / median", "last layer", "two weights"
PAIRS = [(8 * k + i, 8 * k + j) for k in range(10) for i in range(8) for j in range(i)]


def measure(net):
    """Return the four numbers, the sizes of all eigenvalues, and the middle pair of weights."""
    H = hessian(loss_of(net), list(net.parameters()))
    sizes = np.sort(np.abs(np.linalg.eigvalsh(H)))[::-1]
    last = H[-90:, -90:]  # 80 weights and 10 biases
    bowl = np.linalg.eigvalsh(last)[::-1]
    blocks = [last[np.ix_(pair, pair)] for pair in PAIRS]
    middle = np.argsort([condition(block) for block in blocks])[len(PAIRS) // 2]
    two = condition(blocks[middle])
    numbers = sizes[0], sizes[0] / np.median(sizes), bowl[0] / bowl[80], two
    return numbers, sizes, (PAIRS[middle], blocks[middle])


WHEN, found, nets = ("at the start", "trained"), {}, {}
for seed in lesson.track(range(SEEDS), "seeds"):
    for batch_norm, name in enumerate(NAMES):
        net = network(batch_norm, seed)
        for when in WHEN:
            if when == "trained":
                train(net, seed)
            found[name, when, seed] = measure(net)
            nets.setdefault((name, when), copy.deepcopy(net))  # of seed 0

print("median over the seeds, and range")
for when in WHEN:
    print(f"{when:20}", *(f"{name:>30}" for name in NAMES))
    for k, title in enumerate(MEASURES):
        columns = [[found[name, when, seed][0][k] for seed in range(SEEDS)] for name in NAMES]
        cells = (f"{np.median(c):.4g} ({min(c):.3g} to {max(c):.3g})" for c in columns)
        print(f"{title:20}", *(f"{cell:>30}" for cell in cells))

# %% [markdown]
# The pictures: for either network, from seed 0, the pair of weights whose condition number is the
# middle one of the 280, so none was picked for its looks; then all eigenvalues, of all seeds.

# %%
fig, axes = lesson.figure(figsize=(9, 6.2), columns=3, rows=2)
side = 10 if run.quick else 40
for when, row in zip(WHEN, axes, strict=True):
    for name, ax, style in zip(NAMES, row, ("--", "-"), strict=False):
        numbers, _, (pair, block) = found[name, when, 0]
        net = nets[name, when]
        with mb.no_grad():
            hidden = mb.nn.Sequential(*list(net)[:-1])(images)
        last, over = net[-1], np.empty((side, side))
        reach = np.sqrt(0.1 / np.linalg.eigvalsh(block)[0])  # as far as the flat direction goes
        axis, start = np.linspace(-reach, reach, side), last.weight.data.copy()
        for a, b in np.ndindex(side, side):
            last.weight.data.flat[list(pair)] = start.flat[list(pair)] + axis[[b, a]]
            over[a, b] = mb.functional.cross_entropy(last(hidden).data, data.y_train)
        ax.contourf(axis, axis, np.sqrt(over - over.min()), 12, cmap="cividis")
        ax.set(title=f"{when}, {name}: {numbers[3]:.1f}", aspect="equal")
        ax.set(xlabel="change of one weight", ylabel="change of another")
        sizes = [found[name, when, seed][1] for seed in range(SEEDS)]
        row[2].semilogy(np.median([s / s[0] for s in sizes], axis=0), style, label=name)
    row[2].set(title=f"eigenvalues, {when}", xlabel="number, by size", ylim=(1e-6, 2))
    row[2].set(ylabel="relative to the largest")
    row[2].grid()
row[2].legend()
lesson.save(run, fig, "network")


# %% [markdown]
# ## What was found
#
# Over two weights of the last layer the claim is seen at the start: there batch norm makes
# ellipses nearly round. In training the other network nearly gets there by itself. Over the whole
# last layer the difference is largest at the start, a factor of hundreds, and shrinks to about
# six. Of all directions together it is the other way round: at the start batch norm changes
# nothing, and the loss even bends more than in the other network; in training the largest
# eigenvalue of the other network grows, and that of batch norm shrinks; set against the median it
# grows in both, but about ten times less with batch norm. Ghorbani et al. 2019
# ([arXiv:1901.10159](https://arxiv.org/abs/1901.10159)) found the same outliers in large networks
# without batch norm, and almost none with it. So: rounder, yes; round, no. For the last layer a
# condition number in the hundreds or thousands is left.


# %%
def times(k, when):
    """Return how many times larger a measure is without batch norm: median, range, least."""
    each = [
        found["without", when, seed][0][k] / found["with", when, seed][0][k]
        for seed in range(SEEDS)
    ]
    return f"{np.median(each):.2g} ({min(each):.2g} to {max(each):.2g})", min(each)


always = all(times(k, when)[1] > 1 for k in (1, 2, 3) for when in WHEN)
trained = times(1, "trained")[1] > 1 and times(2, "trained")[1] > 1
verdict = "holds" if always else "holds within limits" if trained else "does not hold here"
said = [f"{MEASURES[k]} {' and '.join(times(k, when)[0] for when in WHEN)}" for k in (1, 2, 3)]
lesson.claim(
    run,
    "F1",
    verdict,
    f"two weights of a linear model: condition number 100 with centred inputs, 1 with normalised "
    f"ones. A network, times larger without batch norm at the start and trained: "
    f"{'; '.join(said)} (median and range of {SEEDS} seeds)",
)
