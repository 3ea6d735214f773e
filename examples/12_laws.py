# %% [markdown]
# # What can the gradient of batch norm not see?
#
# Shift all of z, and batch norm gives the same output. Scale z, and it nearly does, but for eps. So
# no loss behind it can ask for a shift or a scale: the gradient has to be blind to both. These are
# two laws, which any right backward pass obeys, and a wrong one often does not. The lesson measures
# them, shows what they mean for the weights before batch norm, and ends with a table of what the
# examples 4 to 7 have shown of gradients.
#
# Claims: B6 (the laws); A9 and B1 to B5 are settled at the end.

# %%
import textwrap

import lesson
import numpy as np

import microbn as mb
from microbn.graph.paths import along, paths, written

run = lesson.options("12_laws")
rng = np.random.default_rng(0)


def gradient(z, gamma, dy, eps):
    """Return dz of batch norm, found by backpropagation through its ten ops."""
    z = mb.Tensor(z, requires_grad=True)
    mb.batch_norm(z, gamma, np.zeros(z.shape[1]), eps=eps).backward(dy)
    return z.grad


# %% [markdown]
# ## Blind to shift
#
# Move every z of a column by 1: the loss changes by the sum of that column of dz. But nothing
# changes, so the sum is 0. Here is one column, the cgpa of four students, and then many random z:
# of all sizes, with any gamma and any gradient coming in.

# %%
cgpa = mb.data.students().features[:, :1]
dz = gradient(cgpa, np.array([9.0]), np.array([[0.0], [0.0], [1.0], [0.0]]), eps=1.0)
print(f"dz {dz.ravel().round(6) + 0.0}, by hand [-1 -2 3 0] (example 6), sum {dz.sum():.0e}")

trials, shift, scale = 100 if run.quick else 1000, 0.0, 0.0
for _ in range(trials):
    m, d = rng.integers(2, 65), rng.integers(1, 9)
    z = 10 ** rng.uniform(-3, 3) * (rng.normal(size=(m, d)) + rng.uniform(-10, 10, size=d))
    gamma, dy, eps = rng.normal(size=d), rng.normal(size=(m, d)), 10 ** rng.uniform(-8, 0)
    dz, var = gradient(z, gamma, dy, eps), z.var(axis=0)
    z_norm = (z - z.mean(axis=0)) / np.sqrt(var + eps)
    size = abs(gamma) / np.sqrt(var + eps) * abs(dy).sum(axis=0)  # what is added up, at most
    shift = max(shift, (abs(dz.sum(axis=0)) / size).max())
    formula = gamma * (dy * z_norm).sum(axis=0) * eps / (var + eps) ** 1.5  # the next section
    scale = max(scale, (abs((dz * z_norm).sum(axis=0) - formula) / size).max())
print(f"{trials} random z: sums of dz at most {shift:.1e} of what is added up")

# %% [markdown]
# ## Blind to scale, but for eps
#
# Make z - mu of a column larger by a small share: the loss changes by that share of
# sum(dz * (z - mu)). With eps = 0 nothing changes. With eps, from the closed form of dz and from
# sum(z_norm**2) = m * var / (var + eps),
#
#     sum(dz * z_norm) = gamma / sqrt(var + eps) * sum(dy * z_norm) * eps / (var + eps),
#
# which goes to 0 with eps, and in proportion to it. So a tenth of eps is a tenth of the sum.

# %%
print(f"{trials} random z: off that formula by at most {scale:.1e} of what is added up")
a = mb.data.digits().x_train[:128].astype(np.float64)
z = a @ rng.normal(size=(64, 32)) / 8
dy, gamma = rng.normal(size=(128, 32)), np.ones(32)
all_eps, sums = 10.0 ** np.arange(-12, 3), []
for eps in (*all_eps, 0.0):
    dz, z_norm = gradient(z, gamma, dy, eps), mb.batch_norm(z, eps=eps)
    across = np.sqrt((dz**2).sum(axis=0) * (z_norm**2).sum(axis=0))
    sums.append(np.median(abs((dz * z_norm).sum(axis=0)) / across))  # the cosine of their angle
    print(f"eps {eps:<6.0e} cosine of the angle between dz and z_norm {sums[-1]:.1e}")
slope = np.polyfit(np.log(all_eps[3:9]), np.log(sums[3:9]), 1)[0]
print(f"ten times eps, {10**slope:.3f} times the cosine (eps from 1e-9 to 1e-4)")
fig, ax = lesson.figure()
ax.plot(all_eps, sums[:-1], "o-", ms=4, label="measured")
ax.plot(all_eps[:13], sums[5] * all_eps[:13] / all_eps[5], "--", label="in proportion to eps")
ax.axvline(np.median(z.var(axis=0)), ls=":", color=lesson.GREY, label="var, median")
ax.set(xscale="log", yscale="log", xlabel="eps", ylabel="|cosine| of dz and z_norm")
ax.legend()
lesson.save(run, fig)
measured = f"{trials} random z: column sums of dz at most {shift:.0e} of what is added up; digits: "
measured += f"cosine of dz and z_norm {sums[7]:.0e} at eps = 1e-5, {sums[-1]:.0e} at eps = 0, "
lesson.claim(run, "B6", "holds", f"{measured}falling as eps to the power {slope:.3f}")

# %% [markdown]
# ## Through a batch of two hardly anything goes back
#
# In a batch of two, a shift and a scale of a column are all that there is: any change of two
# numbers is a sum of the two. The gradient is blind to both, so there is hardly any, whatever the
# loss wants, and the layers before learn next to nothing.

# %%
for m in (2, 3, 32):
    for eps in (1e-5, 1e-10):
        dz_m = gradient(z[:m], gamma, dy[:m], eps)
        print(f"{m:2} examples, eps {eps:g}: median size of dz {np.median(abs(dz_m)):.1e}")

# %% [markdown]
# ## What it means for the weights
#
# With z = W a, a larger w of a unit is a larger z, and a scale is what the gradient is blind to. So
# dw is at right angles to w, and a step of gradient descent makes w longer, by Pythagoras:
# |w - rate * dw|^2 = |w|^2 + rate^2 * |dw|^2. The loss does not care how long w is, but dw is
# inversely proportional to it, so training slows itself down unless something makes w shorter
# again, such as weight decay (van Laarhoven 2017, arXiv:1706.05350).

# %%
w = rng.normal(size=(64, 32)) / 8
dw, dw_doubled = (a.T @ gradient(a @ (k * w), gamma, dy, eps=1e-5) for k in (1, 2))
vectors = w, dw, dw_doubled, w - 0.01 * dw
lengths, steps, steps_doubled, longer = (np.linalg.norm(v, axis=0) for v in vectors)
print(f"cosine of w and dw: at most {abs((w * dw).sum(axis=0) / lengths / steps).max():.1e}")
grown, off = np.sum(longer > lengths), abs(longer - np.hypot(lengths, 0.01 * steps)).max()
print(f"a step makes {grown} of 32 w longer; off Pythagoras by at most {off:.1e}")
print(f"w twice as long: dw {np.median(steps_doubled / steps):.6f} times as long")

# %% [markdown]
# ## What is settled elsewhere
#
# | claim | what it says | where to see it | what is measured below |
# |---|---|---|---|
# | A9 | the table of four students, with its values in the graph | example 4 | the table |
# | B1 | batch norm is mean, sub, pow, sqrt, mul, add | examples 4 and 5 | the ops recorded, dz |
# | B2 | three routes from z to the output, and one that brings nothing | example 5 | their sum |
# | B3 | three forms of the backward pass derived by hand | example 6 | the largest difference |
# | B4 | they agree with backpropagation, for second derivatives too | examples 6, 7 | the same |
# | B5 | a wrong one is told from a right one, and the mistake is named | example 6 | six mistakes |

# %%
z, labels, *_ = mb.data.students()
table = np.column_stack([z, labels]).astype(int).tolist()
gamma, beta = np.array([1.0, 2.0]), np.array([0.0, 3.0])
x = mb.Tensor(z, requires_grad=True, name="z")
y = mb.batch_norm(x, gamma, beta)
svg = mb.draw(y).svg()
shown = ", ".join(value for value in ("7.5", "75", "1.25", "125") if f">{value}<" in svg)
measured = f"the batch is {table}; its graph shows mean and variance, {shown} (example 4)"
lesson.claim(run, "A9", "holds", measured)

dy = rng.normal(size=z.shape)
y.backward(dy)
routes = {written(path).replace("\u2192", "->"): along(path, dy) for path in paths(y, x)}
for route, part in routes.items():
    print(f"{abs(part).max():.1e} at most along {route}")
direct, mean, var, null = routes.values()
off = abs(sum(routes.values()) - x.grad).max()
measured = f"{len(routes)} routes, their sum off dz by {off:.0e}; through var and then mean at "
measured += f"most {abs(null).max():.0g} of {abs(x.grad).max():.2f} (example 5)"
lesson.claim(run, "B2", "holds", measured)


# %%
def by_hand(form, z, gamma, dy):
    """Return dz by one of the three forms of the backward pass."""
    _, cache = mb.handwritten.forward(z, gamma, np.zeros(len(gamma)), 1e-5)
    return getattr(mb.handwritten, f"backward_{form}")(dy, cache)[0]


apart = {"staged": 0.0, "paper": 0.0, "closed": 0.0}
for _ in range(trials):
    any_z, any_dy = rng.normal(size=(2, rng.integers(3, 65), 3))  # of two, dz is near 0
    recorded = gradient(any_z, np.ones(3), any_dy, 1e-5)
    for form, worst in apart.items():
        off = abs(by_hand(form, any_z, np.ones(3), any_dy) - recorded).max()
        apart[form] = max(worst, off / abs(recorded).max())
measured = f"{trials} random z, off backpropagation by at most, relative to the largest dz: "
measured += ", ".join(f"{form} {worst:.0e}" for form, worst in apart.items())
lesson.claim(run, "B3", "holds", f"{measured} (example 6)")

ops = ", ".join(node.op for node in mb.Graph.from_outputs(y).nodes if node.op)
off = abs(x.grad - by_hand("closed", z, gamma, dy)).max() / abs(x.grad).max()
measured = f"recorded: {ops}; dz by their rules is off the closed form by {off:.0e}, relative"
lesson.claim(run, "B1", "holds", f"{measured} (examples 4 and 5)")

direction, h = rng.normal(size=z.shape), 1e-4
dz = mb.grad(mb.batch_norm(x, gamma, beta), x, dy, create_graph=True)
second = mb.grad(dz, x, direction).data
ahead, behind = (by_hand("closed", z + step * direction, gamma, dy) for step in (h, -h))
off = abs(second - (ahead - behind) / (2 * h)).max() / abs(second).max()
measured = f"first derivatives as in B3; second, against differences of the closed form: {off:.0e}"
lesson.claim(run, "B4", "holds", f"{measured}, relative (examples 6 and 7; float32 in the tests)")

# %% [markdown]
# B5 *holds* if each of six mistakes is named as the only cause, and the right gradient is called
# right; *within limits* if each is among the causes that are named.

# %%
mistakes = {
    "mean taken for a constant": direct + var,
    "var taken for a constant": direct + mean,
    "the 2 of d(centered**2) lost": direct + mean + var / 2,
    "the minus of d(x-mean) lost": direct - mean + var,
    "var divided by m - 1 in the backward": direct + mean + var * 4 / 3,
    "not summed": (direct + var) * (1 - 1 / 4),
}
named = alone = 0
for name, wrong in mistakes.items():
    said = str(mb.check.diagnose(mb.batch_norm, (z, gamma, beta), wrong, grad_output=dy))
    said = said.replace("\u2212", "-")
    print(f"{name}:\n{textwrap.indent(said, '    ')}")
    in_one_line = " ".join(said.split())
    named += name in in_one_line
    alone += name in in_one_line and "cannot tell which" not in in_one_line
closed = by_hand("closed", z, gamma, dy)
right = mb.check.diagnose(mb.batch_norm, (z, gamma, beta), closed, grad_output=dy)
measured = f"{named} of {len(mistakes)} mistakes are among the causes named, {alone} as the only "
measured += "one: from dz alone the others cannot be told apart; of the right gradient it says: "
told = named == len(mistakes) and "is right" in str(right)
verdict = lesson.verdict(told and alone == named, told)
limits = "it is always told; the name may be one of several"
lesson.claim(run, "B5", verdict, f"{measured}{right}", limits)
