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
def gradient(value, parameters, *args, **kwargs):
    """Return what mb.grad does, with the parameters strung in one row."""
    found = mb.grad(value, parameters, *args, **kwargs)
    return np.concatenate([each.reshape(-1) for each in found])


def hessian(loss, parameters):
    """Return all second derivatives of a number, a row for each parameter."""
    slopes = gradient(loss, parameters, create_graph=True)
    return np.array([gradient(slopes, parameters, unit).data for unit in np.eye(slopes.size)])


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


def squared_error(scores):
    """Return the mean square of what is wrong, given a number for each student."""
    return np.mean((scores - placed) ** 2, axis=-1)


inputs = {"as they are": x, "centred": x - x.mean(0), "normalised": mb.batch_norm(x, eps=0.0)}
w = mb.Tensor([0.0, 0.0], requires_grad=True)
for name, columns in inputs.items():
    H = hessian(squared_error(columns @ w), [w])
    rate = 2 / np.trace(H)  # the best there is: both ends of the spectrum shrink alike
    error, steps = np.ones(2), 0
    while np.linalg.norm(error) > 0.01 * np.sqrt(2):
        error, steps = error - rate * np.linalg.eigvalsh(H) * error, steps + 1
    # cond goes by the singular values, which of a Hessian of a bowl are the eigenvalues.
    print(f"{name:12} H {H.round(6).tolist()}")
    print(f"{'':12} condition number {np.linalg.cond(H):.2f}, steps to 1 % of the error: {steps}")

# %% [markdown]
# The steps are those of gradient descent at its best rate. By hand: for a condition number k each
# step leaves `(k - 1) / (k + 1)` of the error, so it takes about `k / 2 * ln(100)`, in the second
# row 230.3. This is the claim in its pure form, and it is exact.
#
# ## Where it ends
#
# Two limits can be seen with four students. Batch norm treats each column by itself; it cannot part
# columns that say the same. In the original order iq is ten times cgpa. Then the normalised columns
# are equal, only the sum of the weights matters, and the map is one long valley.

# %%
same = mb.batch_norm(np.array([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]]), eps=0.0)
H = hessian(squared_error(same @ w), [w])
eigenvalues = np.linalg.eigvalsh(H).round(6) + 0.0
print(f"iq = 10 * cgpa, normalised: H {H.round(6).tolist()}, eigenvalues {eigenvalues}")

# %% [markdown]
# And that was about the weights *after* the normalisation. Of the weights *before* it, only the
# direction counts: `batch_norm(x @ (c * w))` does not depend on c. The contours are neither
# ellipses nor circles but rays. Differentiated by c, `loss(c * w) = loss(w)` says that the gradient
# is perpendicular to w, and `H @ w = -gradient`. Where the gradient is zero, so is an eigenvalue:
# the condition number is infinite, and it does no harm, since no step ever goes that way.

# %%
w = mb.Tensor([1.0, 0.1], requires_grad=True)
loss = squared_error(mb.batch_norm(x @ w, eps=0.0))
g, H = mb.grad(loss, w).data, hessian(loss, [w])
print(f"gradient {g.round(6)}, times w: {abs(g @ w.data):.6f}")
print(f"H @ w    {(H @ w.data).round(6)}")

# %%
axis = np.linspace(-1, 1, 60)  # without 0, where the variance is 0
fig, axes = lesson.figure(figsize=(9, 3.2), columns=3)
for ax, name in zip(axes, ("centred", "normalised"), strict=False):
    best = np.linalg.lstsq(inputs[name], placed, rcond=None)[0]
    a, b = best[0] + axis, best[1] + axis
    loss = squared_error(np.dstack(np.meshgrid(a, b)) @ inputs[name].T)
    ax.contourf(a, b, np.sqrt(loss), 12, cmap="cividis")
    ax.set(title=f"students, {name}", xlabel="weight of cgpa", ylabel="weight of iq")
    ax.set(aspect="equal")
# Over directions near (10, 1): x @ w of such a length is as wide as it is tall.
z = np.dstack(np.meshgrid(10 * axis, axis)) @ x.T
loss = squared_error(mb.batch_norm(z, axis=-1, eps=0.0))
ax = axes[2]
ax.contourf(10 * axis, axis, loss, 12, cmap="cividis")
ax.set(title="weights before batch norm", xlabel="weight of cgpa", ylabel="weight of iq")
lesson.save(run, fig, "students")

# %% [markdown]
# ## A network
#
# Digits, shrunk to 4 x 4 pixels so that the network can be small: 16-8-8-10 with tanh, 298
# parameters, and 314 with batch norm, whose gamma and beta take the place of a bias. Both start
# from the same weights and see the same batches. The loss is that of all 1,442 images at once.

# %%
EPOCHS, SEEDS, SIDE = (2, 2, 10) if run.quick else (10, 10, 40)
data = mb.data.digits()
images = data.x_train.astype(float).reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)


def network(batch_norm, seed, epochs=0):
    """Return 16-8-8-10, from the same weights with batch norm as without, after some epochs."""
    rng = np.random.default_rng(seed)
    layers = []
    for inputs in 16, 8:
        layers.append(mb.nn.Linear(inputs, 8, dtype=float, rng=rng))
        if batch_norm:
            layers[-1].bias = None  # beta does its work
            layers.append(mb.nn.BatchNorm1d(8, dtype=float))
        layers.append(mb.nn.Tanh())
    net = mb.nn.Sequential(*layers, mb.nn.Linear(8, 10, dtype=float, rng=rng))
    optimizer = mb.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    batches = mb.data.batches(images, data.y_train, batch_size=32, drop_last=True, rng=seed)
    for _ in range(epochs):
        lesson.epoch(net, optimizer, batches)
    return net


def loss_of(net):
    """Return the loss on all images, normalised by their own statistics."""
    return mb.functional.cross_entropy(net(images), data.y_train)


# %% [markdown]
# First, is the Hessian right? Its first row says how the gradient changes when the first weight
# does; so do two gradients, one with that weight a little larger and one a little smaller.

# %%
NAMES = {"without": False, "with": True}
for name, batch_norm in NAMES.items():
    net = network(batch_norm, 0)
    parameters = list(net.parameters())
    H = hessian(loss_of(net), parameters)
    sides = []
    for step in 1e-5, -2e-5:
        parameters[0].data[0, 0] += step
        sides.append(gradient(loss_of(net), parameters).data)
    apart = np.abs(H[0] - (sides[0] - sides[1]) / 2e-5).max() / np.abs(H[0]).max()
    print(f"{name:7} {len(H)} parameters, trace {np.trace(H):.6f}, the row differs by {apart:.0e}")

# %% [markdown]
# The condition number of the whole Hessian is not defined: a network has directions in which the
# loss bends down, and some in which it does not bend at all. What is compared is therefore
#
# - the largest eigenvalue, by size, divided by the **median** of all: how much more than usual the
#   loss bends where it bends most. It does not change if the loss is multiplied by a number, and
#   little if the weights in front of batch norm are. The largest eigenvalue by itself does (next
#   lesson), so compare that with care;
# - the true condition number of the **last layer** alone. There the loss is convex, bowl-shaped. Of
#   its 90 eigenvalues 9 are zero, since adding the same to all ten outputs changes nothing;
# - the true condition number over **two weights**: the median of all 280 pairs of weights of the
#   last layer that go to the same output.
#
# The claim *holds* if all three are smaller with batch norm, in every seed, at the start and after
# training; *within limits* if that is so for some of these six comparisons.

# %%
MEASURES = "largest eigenvalue", "largest / median", "last layer", "two weights"
PAIRS = [[8 * k + i, 8 * k + j] for k in range(10) for i in range(8) for j in range(i)]


def measure(net):
    """Return the four numbers, all eigenvalues' sizes, and the middle pair and its Hessian."""
    H = hessian(loss_of(net), list(net.parameters()))
    sizes = np.sort(np.abs(np.linalg.eigvalsh(H)))[::-1]
    last = H[-90:, -90:]  # 80 weights and 10 biases
    bowl = np.linalg.eigvalsh(last)[::-1]
    blocks = [last[np.ix_(pair, pair)] for pair in PAIRS]
    kappas = np.linalg.cond(blocks)
    middle = np.argsort(kappas)[len(PAIRS) // 2]
    numbers = sizes[0], sizes[0] / np.median(sizes), bowl[0] / bowl[80], kappas[middle]
    return numbers, sizes / sizes[0], PAIRS[middle], blocks[middle]


WHEN = {"at the start": 0, "trained": EPOCHS}
found = {(name, when): [] for when in WHEN for name in NAMES}
for seed in lesson.track(range(SEEDS), "seeds"):
    for (name, when), each in found.items():
        each.append(measure(network(NAMES[name], seed, WHEN[when])))
numbers = {key: np.array([first for first, *_ in each]) for key, each in found.items()}

print("median over the seeds, and range")
for when in WHEN:
    print(f"{when:20}", *(f"{name:>30}" for name in NAMES))
    for k, title in enumerate(MEASURES):
        cells = [lesson.spread(numbers[name, when][:, k], ".3g") for name in NAMES]
        print(f"{title:20} {cells[0]:>30} {cells[1]:>30}")

# %% [markdown]
# The pictures: for either network, from seed 0, the pair of weights whose condition number is the
# middle one of the 280, so none was picked for its looks; then all eigenvalues, of all seeds. The
# middle of a picture is where the loss would be least if it were the parabola that the Hessian says
# it is.

# %%
fig, axes = lesson.figure(figsize=(9, 6.2), columns=3, rows=2)
for when, row in zip(WHEN, axes, strict=True):
    for name, ax, style in zip(NAMES, row, ("C1--", "C0-"), strict=False):
        _, _, pair, block = found[name, when][0]
        net = network(NAMES[name], 0, WHEN[when])
        weights = net[-1].weight.data.reshape(-1)
        slope = mb.grad(loss_of(net), net[-1].weight).data.reshape(-1)[pair]
        lowest = weights[pair] - np.linalg.solve(block, slope)
        reach = np.sqrt(0.1 / np.linalg.eigvalsh(block)[0])  # as far as the flat direction goes
        axis, loss = np.linspace(-reach, reach, SIDE), np.empty((SIDE, SIDE))
        for i, j in np.ndindex(loss.shape):
            weights[pair] = lowest + axis[[j, i]]
            loss[i, j] = loss_of(net).item()
        a, b = lowest[0] + axis, lowest[1] + axis
        ax.contourf(a, b, np.sqrt(loss - loss.min()), 12, cmap="cividis")
        ax.set(title=f"{when}, {name}: {np.linalg.cond(block):.1f}", aspect="equal")
        ax.set(xlabel="a weight", ylabel="another weight")
        sizes = [relative for _, relative, *_ in found[name, when]]
        row[2].semilogy(np.median(sizes, axis=0), style, label=name)
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
# last layer the difference is largest at the start, a factor of about a thousand, and shrinks to
# about six. Of all directions together the order in time is reversed: at the start batch norm
# changes nothing, and the loss even bends more than in the other network; in training the largest
# eigenvalue of the other network grows, and that of batch norm shrinks; set against the median it
# grows in both, but about ten times less with batch norm. Ghorbani et al. 2019
# ([arXiv:1901.10159](https://arxiv.org/abs/1901.10159)) found the same outliers in large networks
# without batch norm, and almost none with it. So: rounder, yes; round, no. For the last layer a
# condition number in the hundreds or thousands is left.

# %%
times = {when: numbers["without", when] / numbers["with", when] for when in WHEN}
said = []
for k in 1, 2, 3:
    cells = [lesson.spread(ratio[:, k], ".3g") for ratio in times.values()]
    said.append(f"{MEASURES[k]} {' and '.join(cells)}")
better = [
    f"{MEASURES[k]}, {when}" for k in (1, 2, 3) for when in WHEN if times[when][:, k].min() > 1
]
verdict = lesson.verdict(len(better) == 6, better)
text = "two weights of a linear model: condition number 100 with centred inputs, 1 with normalised "
text += "ones. A network, times larger without batch norm at the start and trained: "
text += f"{'; '.join(said)} (median and range of {SEEDS} seeds)"
lesson.claim(run, "F1", verdict, text, limits=f"in every seed for {'; '.join(better)}")
