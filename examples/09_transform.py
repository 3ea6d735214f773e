# %% [markdown]
# # What does batch norm compute, and what is eps for?
#
# Four students, of whom we know cgpa (the average of their grades) and iq, are a batch of m = 4
# examples with 2 features. Batch norm moves every feature to mean 0 and variance 1, and then to a
# mean and a width of its own. Nearly: eps, a small number that is there against division by zero,
# leaves its mark. This lesson measures that mark. At the end two misprints are tried out that one
# finds in course notes.
#
# Claims: A1 (mean and variance), A2 (normalise), A3 (scale and shift), A6 (it can be undone), and
# the two errata.

# %%
import lesson
import numpy as np

import microbn as mb

run = lesson.options("09_transform")
rng = np.random.default_rng(0)
z = mb.data.students().features
print(z)

# %% [markdown]
# ## Mean and variance
#
# Both are taken down each column, over the examples of the batch. The variance divides by m = 4,
# not by m - 1 = 3: it is the *biased* one. By hand, for cgpa: the mean is (7 + 8 + 9 + 6) / 4 =
# 7.5, and the variance (0.25 + 0.25 + 2.25 + 2.25) / 4 = 1.25. iq is ten times cgpa, so it has
# ten times the mean and a hundred times the variance.

# %%
mu = z.mean(axis=0)
var = ((z - mu) ** 2).mean(axis=0)  # divided by 3 it would be [1.6667 166.6667]
print(f"mu  {mu}, by hand [7.5 75]")
print(f"var {var}, by hand [1.25 125]")

# %% [markdown]
# microbn's batch norm is composed of these very steps. It records each of them, and here they are.

# %%
y = mb.batch_norm(mb.Tensor(z, requires_grad=True, name="z"))
stages = dict([(t.name, t.data) for t, _ in mb.backprop(y, np.ones(z.shape))][::-1])
for name, value in stages.items():
    print(f"{name:9} {value.round(5).tolist()}")
off = max(abs(stages["mean"] - [7.5, 75]).max(), abs(stages["var"] - [1.25, 125]).max())
measured = "mean [7.5, 75], variance [1.25, 125]; largest difference from the values by hand"
lesson.claim(run, "A1", "holds", f"{measured} {off:g}")

# %% [markdown]
# ## Normalise
#
# Subtract the mean, divide by sqrt(var + eps). What comes out has mean 0. Its variance is
# var / (var + eps): a little below 1, and how little depends on how large var is beside eps.


# %%
def normalise(z, eps):
    """Move each column to mean 0 and variance var / (var + eps)."""
    return (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + eps)


for eps in (0, 1e-5, 0.1):
    z_norm = normalise(z, eps)
    print(f"eps {eps:<6g} mean {abs(z_norm.mean(axis=0)).max():.1g}", end="  ")
    print(f"variance {z_norm.var(axis=0).round(9)}  by hand {(var / (var + eps)).round(9)}")

# %% [markdown]
# With students nobody would notice eps. Real data is another matter: at the left and right edge of
# the digit images there is hardly ever any ink. Here are the 64 pixels of 1,442 images, each a
# column; in the figure the dots are measured, and the lines are the formula.

# %%
pixels = mb.data.digits().x_train.astype(np.float64)
v = pixels.var(axis=0)
empty = v == 0
fig, ax = lesson.figure()
line, off_mean, off_var = np.logspace(-6, -0.5, 200), 0.0, 0.0
for eps, marker in (1e-5, "o"), (1e-3, "s"), (0.1, "^"):
    z_norm = normalise(pixels, eps)
    found = z_norm.var(axis=0)
    off_mean = max(off_mean, abs(z_norm.mean(axis=0)).max())
    off_var = max(off_var, abs(found - v / (v + eps)).max())
    (dots,) = ax.plot(v[~empty], found[~empty], marker, ms=4, label=f"eps = {eps:g}")
    ax.plot(line, line / (line + eps), lw=1, color=dots.get_color())
    print(f"eps {eps:<6g} lowest {found.min():.4f}, median {np.median(found):.4f}", end=", ")
    print(f"below 0.99: {np.sum(found < 0.99)} of 64 pixels")
ax.set(xscale="log", xlabel="variance of a pixel", ylabel="variance once normalised")
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
lesson.save(run, fig, "variance")
below = np.sum(v / (v + 1e-5) < 0.99)
measured = f"variance off var / (var + eps) by at most {off_var:.1e}, mean off 0 by {off_mean:.1e}"
measured += f"; with eps = 1e-5, {below} of 64 pixels stay below 0.99"
lesson.claim(run, "A2", "holds", f"{measured}, and the {empty.sum()} that are constant become 0")

# %% [markdown]
# ## Scale and shift
#
# z_tilde = gamma * z_norm + beta has mean beta, and standard deviation
# |gamma| * sqrt(var / (var + eps)). Is that so for any z? Try many: of all sizes, far from zero
# and near it.

# %%
eps, trials = 1e-5, 100 if run.quick else 1000
worst = undone = 0.0
for _ in range(trials):
    m, d, size = rng.integers(2, 65), rng.integers(1, 9), 10 ** rng.uniform(-4, 4)
    any_z = size * (rng.normal(size=(m, d)) + rng.uniform(-10, 10, size=d))
    any_mu, any_var = any_z.mean(axis=0), any_z.var(axis=0)
    gamma, beta = rng.normal(size=(2, d))
    z_tilde = mb.batch_norm(any_z, gamma, beta, eps=eps)
    width = abs(gamma) * np.sqrt(any_var / (any_var + eps))
    error = np.maximum(abs(z_tilde.mean(axis=0) - beta), abs(z_tilde.std(axis=0) - width))
    worst = max(worst, (error / (abs(gamma) + abs(beta))).max())
    same = mb.batch_norm(any_z, np.sqrt(any_var + eps), any_mu, eps=eps)  # the next section
    undone = max(undone, (abs(same - any_z) / np.spacing(abs(any_z).max(axis=0))).max())
print(f"{trials} random z: off by at most {worst:.1e} of |gamma| + |beta|")

# %% [markdown]
# So whatever the weights before it do, mean and width are set by beta and gamma alone, as long as
# var is large beside eps. Let us make the weights of a linear layer smaller and smaller. At first
# nothing happens. But once var comes down to eps, the width goes down with the weights.

# %%
z1 = pixels @ rng.normal(size=(64, 32)) / 8
print("weights times   var, median   width of z_tilde / |gamma|, median")
widths = []
for scale in (1e4, 1e2, 1, 1e-1, 1e-2, 1e-3, 1e-4):
    widths.append(np.median(normalise(scale * z1, eps).std(axis=0)))
    print(f"{scale:<13g}   {np.median((scale * z1).var(axis=0)):<11.2g}   {widths[-1]:.6f}")
measured = f"{trials} random z: mean and standard deviation off the formula by at most {worst:.1e}"
measured += f"; the width is |gamma| to {1 - widths[2]:.1e} for usual weights and {widths[-1]:.3f}"
measured += " |gamma| for weights 10,000 times smaller (eps = 1e-5)"
lesson.claim(run, "A3", "holds within limits", measured, limits="as long as var is far above eps")

# %% [markdown]
# ## It can be undone
#
# With gamma = sqrt(var + eps) and beta = mu the layer gives back what it got: (z - mu) is divided
# by the root, multiplied by it, and mu is added again. In the loop above this was tried on every z.
# So batch norm can be undone for one batch, to rounding. But gamma and beta are the same for all
# batches, while mu and var are those of one: for the next batch it is undone only roughly, the
# better the larger the batch is.

# %%
print(f"the same batch: off by at most {undone:g} units in the last place of the largest z")
gamma, beta = np.sqrt(z1.var(axis=0) + eps), z1.mean(axis=0)
others = {}
for m in (8, 32, 128, 512):
    batches = [z1[rng.permutation(len(z1))[:m]] for _ in range(20)]
    off = [np.std((mb.batch_norm(b, gamma, beta, eps=eps) - b) / z1.std(axis=0)) for b in batches]
    others[m] = lesson.spread(off, ".3f")
    print(f"another batch of {m:3}: off by {others[m]} standard deviations of z")
measured = f"off by at most {undone:g} units in the last place on {trials} batches; with gamma and "
measured += f"beta of all images, 20 other batches of 32 come out off by {others[32]} standard "
measured += f"deviations, of 512 by {others[512]}"
limits = "to rounding for one batch; for others the better, the larger they are"
lesson.claim(run, "A6", "holds within limits", measured, limits)

# %% [markdown]
# ## Erratum: sqrt(var - eps)
#
# One text has a minus there. For a column that is nearly constant this is the root of a negative
# number, which is no number (nan); and where var happens to be close to eps, what comes out is
# huge. With plus the width is always between 0 and 1.

# %%
with np.errstate(invalid="ignore"):
    minus, plus = (normalise(pixels, eps).std(axis=0) for eps in (-1e-5, 1e-5))
nans = np.isnan(minus).sum()
print(f"var - eps: nan for {nans} of 64 pixels, the largest of the others {np.nanmax(minus):.4f}")
print(f"var + eps: nan for {np.isnan(plus).sum()}, the largest {plus.max():.4f}")
column = np.array([[0.0], [2.0]]) * np.sqrt(1.0001e-5)  # its variance is 1.0001 eps
wide, narrow = (normalise(column, eps).std() for eps in (-1e-5, 1e-5))
measured = f"nan for {nans} of 64 pixels; a column with variance 1.0001 eps: {wide:.1f} wide with "
lesson.claim(run, "erratum 1", "does not hold here", f"{measured}minus, {narrow:.4f} with plus")

# %% [markdown]
# ## Erratum: sigma + eps
#
# Another text divides by sigma + eps, where sigma = sqrt(var). That looks alike, and for sigma = 1
# it nearly is. But eps = 1e-5 under the root takes over where sigma is below sqrt(eps) = 0.003, and
# beside sigma only below 0.00001. Below 0.003 the two part, in value and in gradient. The worst is
# at sigma = 0: there the root has no derivative, and the gradient is no number.


# %%
def of_size(sigma, inside):
    """Return the width of z_norm, and the largest entry of dz for dy = 0, 0, 1, 0."""
    z = mb.Tensor(sigma * normalise(mb.data.students().features[:, :1], 0), requires_grad=True)
    var = z.var(axis=0)
    z_norm = (z - z.mean(axis=0)) / (np.sqrt(var + 1e-5) if inside else np.sqrt(var) + 1e-5)
    with np.errstate(invalid="ignore"):
        z_norm.backward(np.array([[0.0], [0.0], [1.0], [0.0]]))
    return z_norm.data.std(), abs(z.grad).max()


sigmas = np.array([0.0, *np.logspace(-8, 0, 81)])
widths, gradients = np.array([[of_size(s, i) for s in sigmas] for i in (True, False)]).T
print("sigma     width: sqrt(var + eps)  sigma + eps   largest dz: sqrt(var + eps)  sigma + eps")
for i in [0, *range(1, 82, 10)]:
    print(f"{sigmas[i]:<8.0e}  {widths[i, 0]:<22.6f}  {widths[i, 1]:<12.6f}", end="  ")
    print(f"{gradients[i, 0]:<27.6g}  {gradients[i, 1]:.6g}")
fig, axes = lesson.figure(2)
names = "width of z_norm", "largest entry of dz"
for ax, name, values in zip(axes, names, (widths, gradients), strict=True):
    ax.plot(sigmas[1:], values[1:, 0], label="sqrt(var + eps)")
    ax.plot(sigmas[1:], values[1:, 1], "--", label="sigma + eps")
    ax.set(xscale="log", yscale="log", xlabel="sigma of the column", ylabel=name)
axes[0].legend()
lesson.save(run, fig, "errata")
(inside, beside), (finite, nan) = widths[51], gradients[0]
measured = f"with sqrt(var + eps) and with sigma + eps: width {inside:.3f} and {beside:.3f} at "
measured += f"sigma = {sigmas[51]:g}, largest entry of dz {finite:.0f} and {nan:.0f} at sigma = 0"
lesson.claim(run, "erratum 2", "does not hold here", measured)
