# %% [markdown]
# # Before the activation, after it, and on the output as well?
#
# A hidden layer computes z = W a + b and then an activation of z. The paper puts batch norm between
# the two, and so do residual networks (Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.2; He et
# al. 2015, arXiv:1512.03385, section 3.4): that is the usual place. Others put it after the
# activation. The output layer is usually left alone, though one set of course notes normalises it
# too. All of it can be tried.
#
# On ImageNet either has been found better, from initial weights of one kind: with CaffeNet 47.8 %
# before and 49.3 % after, with GoogLeNet 60.3 % before and 59.6 % after (the last without gamma and
# beta). But GoogLeNet without any batch norm reads 61.9 %, more than either
# (https://github.com/ducha-aiki/caffenet-benchmark/blob/master/batchnorm.md, by the authors of
# Mishkin et al. 2017, arXiv:1606.02228).
#
# Claims: A8 (before the activation, on hidden layers; after it the outcome is similar) and A10
# (the output layer too).

# %%
from itertools import product

import lesson
import numpy as np

import microbn as mb
from microbn.demo import train

run = lesson.options("11_placement")
data = mb.data.digits()
ACTIVATIONS = {"sigmoid": mb.nn.Sigmoid, "tanh": mb.nn.Tanh, "ReLU": mb.nn.ReLU}
PLACES = "none", "before", "after", "before, output"


def network(place, activation, seed):
    """Return 64-128-128-10; a seed gives the same weights whatever the place."""
    rng, layers = np.random.default_rng(seed), []
    for inputs in (64, 128):
        layers.append(mb.nn.Linear(inputs, 128, rng=rng))
        act, norm = ACTIVATIONS[activation](), mb.nn.BatchNorm1d(128)
        layers += [act] if place == "none" else [act, norm] if place == "after" else [norm, act]
    layers.append(mb.nn.Linear(128, 10, rng=rng))
    return mb.nn.Sequential(*layers, *([mb.nn.BatchNorm1d(10)] if "output" in place else []))


print(network("before, output", "ReLU", 0))

# %% [markdown]
# ## Train them all
#
# Every network sees the same batches of 32 images, and is trained by SGD with momentum 0.9: the
# loop is `microbn.demo.train`. For each we note how many test images are read right, and the mean
# cross-entropy on them: low if the network is right and sure of it. The rate is 0.03, which was
# chosen for batch norm before ReLU; so the full run tries a third and three times of it as well.


# %%
@mb.no_grad()
def test_loss(model):
    """Return the mean cross-entropy on the test images."""
    return mb.functional.cross_entropy(model.eval()(data.x_test), data.y_test).item()


RATES = {0.03: 2 if run.quick else 10} | ({} if run.quick else {0.01: 5, 0.1: 5})
epochs = 3 if run.quick else 10
settings = [s for s in product(RATES, ACTIVATIONS, PLACES) if s[2] != "none" or s[0] == 0.03]
right, loss, early, models = {}, {}, {}, {}
for setting in lesson.track(settings, "training"):
    rate, activation, place = setting
    models[setting] = [network(place, activation, seed) for seed in range(RATES[rate])]
    rows = []
    for seed, model in enumerate(models[setting]):
        one_epoch_each = train(model, data, seed, epochs, rate=rate)
        next(one_epoch_each)
        after_one = test_loss(model)
        percent = [*one_epoch_each][-1]
        rows.append((percent, test_loss(model), after_one))
    right[setting], loss[setting], early[setting] = np.transpose(rows)

print(f"after {epochs} epochs: median (lowest to highest)")
for setting in settings:
    print("rate {:<4} {:7} {:14}".format(*setting), end=" ")
    print(f"{lesson.spread(right[setting]):22} % right", end=", ")
    print(f"loss {lesson.spread(loss[setting], '.3f')}")

# %%
fig, axes = lesson.figure(2)
wrong = {setting: 100 - percents for setting, percents in right.items()}
for ax, name, found in zip(axes, ("read wrong (%)", "cross-entropy"), (wrong, loss), strict=True):
    for i, (activation, marker) in enumerate(zip(ACTIVATIONS, "os^", strict=True)):
        for x, place in enumerate(PLACES):
            values = found[0.03, activation, place]
            at = np.full(len(values), x + 0.2 * (i - 1))
            ax.plot(at, values, marker, ms=4, alpha=0.6, color=lesson.COLOURS[i])
            ax.plot(at[0], np.median(values), "_", ms=14, mew=2, color=lesson.COLOURS[i])
        ax.plot([], [], marker, color=lesson.COLOURS[i], label=activation)
    ax.set(ylabel=f"{name}, test images", xlabel="batch norm", yscale="log")
    ax.set_xticks(range(len(PLACES)), PLACES)
    lesson.plain_ticks(ax.yaxis)
axes[0].legend()
lesson.save(run, fig)


# %% [markdown]
# ## Before or after?
#
# The same seed means the same weights and batches, so the networks are compared seed by seed. We
# call two outcomes similar if the median difference is at most 1 percentage point, which is 3 or 4
# of the 355 test images. The claim *holds* if they are similar with every activation at every rate,
# *within limits* if with some. The test loss is noted as well.


# %%
def differences(found, place, rate=0.03):
    """Return, for each activation, found there less found with batch norm before, by seed."""
    return {a: found[rate, a, place] - found[rate, a, "before"] for a in ACTIVATIONS}


def listed(by_seed, form):
    """Return median, lowest and highest for each activation."""
    return ", ".join(f"{name} {lesson.spread(d, form)}" for name, d in by_seed.items())


medians = []
for rate in RATES:
    for name, by_seed in differences(right, "after", rate).items():
        print(f"rate {rate:<4} {name:7} after less before: {lesson.spread(by_seed, '.2f')} points")
        medians.append(np.median(by_seed))
measured = f"points read right, after less before the activation, {RATES[0.03]} seeds: "
measured += listed(differences(right, "after"), ".2f")
if others := medians[3:]:  # after those of 0.03
    measured += f"; at rates 0.01 and 0.1 medians from {min(others):.2f} to {max(others):.2f}"
measured += f"; test loss {listed(differences(loss, 'after'), '.3f')}"
similar = [abs(median) <= 1 for median in medians]
verdict = lesson.verdict(all(similar), any(similar))
lesson.claim(run, "A8", verdict, measured, limits="not with every activation at every rate")

# %% [markdown]
# ## The output layer too?
#
# Usually it is not normalised: in the residual networks above, too, the last linear layer goes
# straight into softmax. What speaks against it? Softmax is sure of an answer when its z is far
# above the others. Batch norm makes each z of the output as wide as its gamma, which begins at 1.
# So the network cannot be sure before ten gammas have grown. On the other hand outputs that begin
# narrower than 1 are widened, and behind sigmoid they begin very narrow. That it does no harm
# *holds* if, at the end of training and at each of the rates, no median of what is read right gets
# worse by more than 1 point, and no test loss gets worse for 80 % of the seeds; *within limits* if
# one of the two is so.

# %%
points, more, more_early = (differences(f, "before, output") for f in (right, loss, early))
for name in ACTIVATIONS:
    width = network("before", name, 0)(data.x_train).data.std()
    print(f"{name:7} the output begins {width:.2f} wide, and normalised 1 wide")
    print(f"  output normalised less not: {lesson.spread(points[name], '.2f')} points right")
    print(f"  loss after 1 epoch  {lesson.spread(more_early[name], '.3f')}")
    print(f"  loss after {epochs:<2} epochs {lesson.spread(more[name], '.3f')}")
trained = {place: models[0.03, "ReLU", place] for place in ("before", "before, output")}
for place, found in trained.items():
    wide = [model.eval()(data.x_test).data.std() for model in found]
    print(f"ReLU, {place:14} standard deviation of the output {lesson.spread(wide, '.2f')}")

# %% [markdown]
# There is another reason to expect harm. In training the mean of each output over the batch is now
# its beta, exactly, whatever is in the batch. So even in a batch of nothing but sevens the output
# for "seven" is on average no higher than in any other batch. (It may still be the largest a little
# more often: a mean does not settle that.) But it turns out no worse than without: there the hidden
# layers have lost what the batch has in common already, and hardly more than one answer in ten is
# right, which is chance. Neither matters with shuffled batches, nor in eval mode.

# %%
by_digit = [data.x_test[data.y_test == digit][:32] for digit in range(10)]
alone = {}
for place, found in trained.items():
    answers = np.array([[model.train()(x).data for x in by_digit] for model in found])
    hits = answers.argmax(axis=3) == np.arange(10)[:, None]  # by network, digit and image
    alone[place] = lesson.spread(100 * hits.mean(axis=(1, 2)))
    moves = np.ptp(answers.mean(axis=2), axis=1).max()
    print(f"ReLU, {place:14} batches of one digit, in training mode: {alone[place]} % right")
    print(f"  the mean of an output differs by at most {moves:.2g} between such batches")
fewer, worse = [], []
for rate, name in product(RATES, ACTIVATIONS):
    points_there, more_there = (differences(f, "before, output", rate)[name] for f in (right, loss))
    fewer += [f"{name} at rate {rate}"] * bool(np.median(points_there) < -1)
    worse += [f"{name} at rate {rate}"] * bool(np.mean(more_there > 0) >= 0.8)
print("fewer are read right:", "; ".join(fewer) or "nowhere")
print("the test loss is larger:", "; ".join(worse) or "nowhere")
measured = f"usually the output is left alone; normalised as well, {RATES[0.03]} seeds: points "
measured += f"right {listed(points, '.2f')}; test loss after 1 epoch {listed(more_early, '.3f')}; "
measured += f"test loss after {epochs} epochs {listed(more, '.3f')}; batches of one digit in "
measured += f"training mode {alone['before, output']} % right instead of {alone['before']} % (ReLU)"
verdict = lesson.verdict(not fewer and not worse, not fewer or not worse)
limits = f"no harm to what is read right, but to the test loss: {'; '.join(worse)}"
if fewer:
    limits = f"no harm to the test loss, but to what is read right: {'; '.join(fewer)}"
lesson.claim(run, "A10", verdict, measured, limits)
