"""Hand-written backward passes that are wrong: faults reported against libraries, and classics.

Each is our own short rendering of what was reported, in the form of handmade.py. What `effect`
says was written down before there was a diagnosis, from what the fault does to the true gradient:

- `WHERE × FACTOR`: at the stage WHERE of the composed function, what flows back is multiplied by
  FACTOR. WHERE is the name of a stage; or `direct`, the paths that avoid mean, var and rms; or
  `everything`. FACTOR is made of numbers, stages, inputs and m, the number of values that a
  statistic is taken of. Several are joined by ` and `.
- `operand: A in place of B`; `sum lost: STAGE`, the sum over the batch that its gradient needs.
- `eps: ...` and `statistics: ...`: right for another forward function, `differentiated`.
- `accumulates`: the second call returns the sum of two calls.
- `not linear in dy`, `shape`, `dtype`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType

import numpy as np
from handmade import (
    EPS,
    Right,
    batch_norm,
    columns,
    drawn,
    layer_norm,
    norm_inputs,
    rms_norm,
    rows,
    rows_without_beta,
)

import microbn as mb
from microbn.context import named, scope

LARGE = 0.5  # an eps that is felt, where a fault lies in its place


@dataclass(frozen=True)
class Fault:
    """A backward pass that is wrong in input `wrt`, and in those in `also`, and nowhere else."""

    name: str
    reference: str
    composed: Callable
    backward: Callable
    inputs: Callable
    wrt: int
    effect: str
    also: tuple[int, ...] = ()
    differentiated: Callable | None = None

    def fresh(self):
        """The backward pass as it is before its first call: one of them remembers."""
        return self.backward if isinstance(self.backward, FunctionType) else type(self.backward)()


CLASSIC = "a classic"
FAULTS: list[Fault] = []
EQUIVALENT: list[Right] = []  # looks wrong and is right


def fault(name, effect, reference=CLASSIC, *, composed=batch_norm, inputs=columns, **fields):
    """Put the backward pass that follows into FAULTS."""
    fields = {"wrt": 0, **fields}

    def put(backward):
        made = backward() if isinstance(backward, type) else backward
        FAULTS.append(Fault(name, reference, composed, made, inputs, effect=effect, **fields))
        return backward

    return put


# What they share is right ------------------------------------------------------------------------

images = norm_inputs((3, 4, 2, 5), lambda n, c, h, w: (c, 1, 1))
squares = norm_inputs((4, 4), lambda m, d: (d,))
PIXELS = (0, 2, 3)


def batch_norm_of_images(x, gamma, beta):
    return mb.batch_norm(x, gamma, beta, axis=PIXELS, eps=EPS)


def normalised(x, axis=0, eps=EPS):
    """`centered, inv_std, x_hat` over an axis."""
    centered = x - x.mean(axis, keepdims=True)
    inv_std = ((centered**2).mean(axis, keepdims=True) + eps) ** -0.5
    return centered, inv_std, centered * inv_std


def dweights(dy, x_hat):
    """`dgamma, dbeta` of a norm whose gamma has shape (d,)."""
    return (dy * x_hat).sum(0), dy.sum(0)


def dweights_of_images(dy, x_hat):
    return tuple(a.sum(PIXELS, keepdims=True)[0] for a in (dy * x_hat, dy))


def dx_closed(dx_hat, x_hat, inv_std, axis=0):
    along = (dx_hat * x_hat).mean(axis, keepdims=True)
    return inv_std * (dx_hat - dx_hat.mean(axis, keepdims=True) - x_hat * along)


# Classics on batch norm --------------------------------------------------------------------------


@fault("mean and variance taken for constants", "mean × 0 and var × 0")
def constants(dy, x, gamma, beta):
    """Only the direct path."""
    _, inv_std, x_hat = normalised(x)
    return dy * gamma * inv_std, *dweights(dy, x_hat)


@fault("variance path forgotten", "var × 0")
def variance_forgotten(dy, x, gamma, beta):
    """Nothing is passed on by dvar."""
    _, inv_std, x_hat = normalised(x)
    dcentered = dy * gamma * inv_std
    return dcentered - dcentered.mean(0), *dweights(dy, x_hat)


@fault("mean path forgotten", "mean × 0")
def mean_forgotten(dy, x, gamma, beta):
    """What reaches centered is taken for dx."""
    centered, inv_std, x_hat = normalised(x)
    dvar = (dy * gamma * centered).sum(0) * -0.5 * inv_std**3
    return dy * gamma * inv_std + dvar * 2 * centered / len(x), *dweights(dy, x_hat)


def with_variance_path(times):
    """The paper's backward pass, with this number in front of the variance path."""

    def backward(dy, x, gamma, beta):
        centered, inv_std, x_hat = normalised(x)
        dx_hat = dy * gamma
        dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std**3
        dmean = (dx_hat * -inv_std).sum(0)
        shares = times(len(x)) * dvar * 2 * centered / len(x)
        return dx_hat * inv_std + shares + dmean / len(x), *dweights(dy, x_hat)

    return backward


fault("2 of the square lost", "var × 1/2")(with_variance_path(lambda m: 1 / 2))
fault("2 of the square twice", "var × 2")(with_variance_path(lambda m: 2))
fault("sign of the variance path", "var × -1")(with_variance_path(lambda m: -1))
fault("sum in place of mean in the variance path", "var × m")(with_variance_path(lambda m: m))
fault("m twice in the variance path", "var × 1/m")(with_variance_path(lambda m: 1 / m))


@fault("1/2 of the square root lost", "var × 2")
def root_without_half(dy, x, gamma, beta):
    """A staged pass with d sqrt(v) = dv / sqrt(v)."""
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dstd = -(dx_hat * centered).sum(0) * inv_std**2
    dvar = dstd * inv_std
    dcentered = dx_hat * inv_std + dvar * 2 * centered / len(x)
    return dcentered - dcentered.mean(0), *dweights(dy, x_hat)


@fault("m - 1 in the backward pass of the variance", "var × m/(m-1)")
def unbiased_backward(dy, x, gamma, beta):
    """The forward pass divides by m."""
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std**3
    dcentered = dx_hat * inv_std + dvar * 2 * centered / (len(x) - 1)
    return dcentered - dcentered.mean(0), *dweights(dy, x_hat)


@fault("gamma forgotten", "everything × 1/gamma")
def gamma_forgotten(dy, x, gamma, beta):
    """Takes dy for dx_hat."""
    _, inv_std, x_hat = normalised(x)
    return dx_closed(dy, x_hat, inv_std), *dweights(dy, x_hat)


@fault("1/std forgotten", "everything × std")
def std_forgotten(dy, x, gamma, beta):
    """The closed form without its first factor."""
    _, _, x_hat = normalised(x)
    return dx_closed(dy * gamma, x_hat, 1), *dweights(dy, x_hat)


@fault("std of the variance's derivative lost", "var × std**2")
def power_of_std(dy, x, gamma, beta):
    """With d (v ** -1/2) = -1/2 v ** -1/2 dv: the exponent does not go down."""
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std
    dcentered = dx_hat * inv_std + dvar * 2 * centered / len(x)
    return dcentered - dcentered.mean(0), *dweights(dy, x_hat)


@fault("sign of the mean path", "mean × -1")
def mean_added(dy, x, gamma, beta):
    """The minus of x - mean is lost."""
    _, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    along = (dx_hat * x_hat).mean(0)
    return inv_std * (dx_hat + dx_hat.mean(0) - x_hat * along), *dweights(dy, x_hat)


@fault("= in place of += at centered", "direct × 0 and mean × 0")
def centered_overwritten(dy, x, gamma, beta):
    """Two read centered, and what the first sends back is lost."""
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dcentered = dx_hat * inv_std
    dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std**3
    dcentered = dvar * 2 * centered / len(x)
    return dcentered - dcentered.mean(0), *dweights(dy, x_hat)


@fault("= in place of += at x", "direct × 0 and var × 0")
def x_overwritten(dy, x, gamma, beta):
    """Two read x, and what the first sends back is lost."""
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std**3
    dcentered = dx_hat * inv_std + dvar * 2 * centered / len(x)
    dx = np.empty_like(x)
    dx[:] = -dcentered.sum(0) / len(x)
    return dx, *dweights(dy, x_hat)


@fault("dmean not summed over the batch", "sum lost: mean")
def elementwise_mean(dy, x, gamma, beta):
    """The shape of dmean is (m, d); broadcasting hides it."""
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std**3
    dcentered = dx_hat * inv_std + dvar * 2 * centered / len(x)
    dmean = -dcentered
    return dcentered + dmean / len(x), *dweights(dy, x_hat)


@fault("mean in place of sum for dgamma and dbeta", "everything × 1/m", wrt=1, also=(2,))
def averaged_weights(dy, x, gamma, beta):
    """As if the batch had been averaged over."""
    _, inv_std, x_hat = normalised(x)
    return dx_closed(dy * gamma, x_hat, inv_std), (dy * x_hat).mean(0), dy.mean(0)


@fault("inv_std treated as var", "operand: inv_std in place of var", also=(1,))
def saved_inv_std(dy, x, gamma, beta):
    """What was saved is taken for the variance, and inverted again."""
    centered, saved, _ = normalised(x)
    inv_std = (saved + EPS) ** -0.5
    x_hat = centered * inv_std
    return dx_closed(dy * gamma, x_hat, inv_std), *dweights(dy, x_hat)


@fault("x in place of x - mean, without the fourth path", "operand: x in place of centered")
def uncentered(dy, x, gamma, beta):
    """The fourth path is zero only if what flows along it is centered. See `EQUIVALENT`."""
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std**3
    dmean = (dx_hat * -inv_std).sum(0)
    return dx_hat * inv_std + dvar * 2 * x / len(x) + dmean / len(x), *dweights(dy, x_hat)


@fault("x in place of x_hat for dgamma", "operand: x in place of x_hat", wrt=1)
def dgamma_of_x(dy, x, gamma, beta):
    """Takes gamma to multiply x."""
    _, inv_std, x_hat = normalised(x)
    return dx_closed(dy * gamma, x_hat, inv_std), *dweights(dy, x)


@fault("dx transposed", "operand: dx.T in place of dx", inputs=squares)
def transposed(dy, x, gamma, beta):
    """The shape does not tell, for a square x."""
    _, inv_std, x_hat = normalised(x)
    return dx_closed(dy * gamma, x_hat, inv_std).T, *dweights(dy, x_hat)


@fault("float64 gradients of float32 inputs", "dtype", also=(1,))
def widened(dy, x, gamma, beta):
    """Here eps is an np.float64, and wins over float32. Right in float64."""
    _, inv_std, x_hat = normalised(x, eps=np.float64(EPS))
    return dx_closed(dy * gamma, x_hat, inv_std), *dweights(dy, x_hat)


@fault("(1, d) in place of (d,)", "shape", wrt=1, also=(2,))
def kept_axis(dy, x, gamma, beta):
    """The sums keep the axis they are taken over."""
    _, inv_std, x_hat = normalised(x)
    sums = (a.sum(0, keepdims=True) for a in (dy * x_hat, dy))
    return dx_closed(dy * gamma, x_hat, inv_std), *sums


def uncentered_everywhere(dy, x, gamma, beta):
    """2 * x in place of 2 * (x - mean), with all four paths: equivalent.

    The two differ by dvar * 2 * mean / m, the same for all rows of a column. What dcentered sends
    through the mean takes away its average over the rows, and with it this constant. It costs
    precision where the mean is large.
    """
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std**3
    dcentered = dx_hat * inv_std + dvar * 2 * x / len(x)
    dmean = -dcentered.sum(0)
    return dcentered + dmean / len(x), *dweights(dy, x_hat)


EQUIVALENT.append(Right("2 * x of the square", batch_norm, uncentered_everywhere, columns))


# Reported: paths and factors ---------------------------------------------------------------------


@fault("mean subtracted twice", "mean × 2", "tt-metal #53204", composed=layer_norm, inputs=rows)
def tt_metal_53204(dy, x, gamma, beta):
    """As in tt-metal #53204: a register that still holds the mean is added to. A layer norm."""
    _, inv_std, x_hat = normalised(x, -1)
    dx_hat = dy * gamma
    held = dx_hat.mean(-1, keepdims=True)
    dx = dx_hat - held
    held = held + x_hat * (dx_hat * x_hat).mean(-1, keepdims=True)
    return inv_std * (dx - held), *dweights(dy, x_hat)


@fault(
    "mean and variance paths missing",
    "mean × 0 and var × 0",
    "DL4J PR #8379",
    composed=batch_norm_of_images,
    inputs=images,
)
def dl4j_8379(dy, x, gamma, beta):
    """As in DL4J PR #8379: batchnorm_bp had the first term of dx alone."""
    _, inv_std, x_hat = normalised(x, PIXELS)
    return dy * (gamma * inv_std), *dweights_of_images(dy, x_hat)


@fault(
    "gamma missing",
    "everything × 1/gamma",
    "Knet #288",
    composed=batch_norm_of_images,
    inputs=images,
)
def knet_288(dy, x, gamma, beta):
    """As in Knet #288: dy is multiplied by gamma, but dx comes from a product made before."""
    centered, inv_std, x_hat = normalised(x, PIXELS)
    m = x.size // gamma.size
    dx_hat = dy * inv_std  # the line that lacks gamma
    dvar = -0.5 * (dx_hat * centered * inv_std**2).sum(PIXELS, keepdims=True)
    dmean = -dx_hat.sum(PIXELS, keepdims=True)
    return dx_hat + dvar * 2 * centered / m + dmean / m, *dweights_of_images(dy, x_hat)


@fault(
    "weight missing",
    "x_hat × 1/gamma",
    "llm.c PR #763",
    composed=rms_norm,
    inputs=rows_without_beta,
)
def llm_c_763(dy, x, gamma):
    """As in llm.c PR #763: a reviewer's own RMS norm, days of search for a forgotten weight.

    gamma varies along the axis that is reduced, so this is no factor of dx: it applies to what
    flows into x_hat.
    """
    rms = np.sqrt((x**2).mean(-1, keepdims=True))
    x_hat = x / rms
    dx = (dy - x_hat * (dy * x_hat).mean(-1, keepdims=True)) / rms
    return dx, (dy * x_hat).sum(0)


@fault(
    "d rms / dx missing", "rms × 0", "AiDotNet #695", composed=rms_norm, inputs=rows_without_beta
)
def aidotnet_695(dy, x, gamma):
    """As in AiDotNet #695: the rms is taken for a constant."""
    rms = np.sqrt((x**2).mean(-1, keepdims=True))
    return dy * gamma / rms, (dy * x / rms).sum(0)


@fault("dgamma times std, not by std", "everything × std**2", "tensorflow #14676", wrt=1)
def tensorflow_14676(dy, x, gamma, beta):
    """As in tensorflow #14676: a formula in XLA's documentation."""
    centered, inv_std, x_hat = normalised(x)
    dgamma = (dy * centered / inv_std).sum(0)
    return dx_closed(dy * gamma, x_hat, inv_std), dgamma, dy.sum(0)


# Reported: another function ----------------------------------------------------------------------


def batch_norm_by_square(x, gamma, beta):
    centered = x - x.mean(axis=0)
    return centered / ((centered**2).mean(axis=0) + EPS) ** 2 * gamma + beta


@fault(
    "square in place of root",
    "eps: (var + eps)**2 in place of (var + eps)**0.5",
    "jax #442",
    also=(1,),
    differentiated=batch_norm_by_square,
)
def jax_442(dy, x, gamma, beta):
    """As in jax #442: stax divided by (var + eps)**2. The backward pass is right for that."""
    centered = x - x.mean(0)
    var_eps = (centered**2).mean(0) + EPS
    z = centered / var_eps**2
    dz = dy * gamma
    dvar = (dz * centered).sum(0) * -2 / var_eps**3
    dcentered = dz / var_eps**2 + dvar * 2 * centered / len(x)
    return dcentered - dcentered.mean(0), *dweights(dy, z)


def rms_norm_eps_inside(x, gamma):
    return rms_norm(x, gamma, LARGE)


def rms_norm_eps_outside(x, gamma):
    return x / (np.sqrt((x**2).mean(axis=-1, keepdims=True)) + LARGE) * gamma


@fault(
    "eps outside the root",
    "eps: rms + eps in place of (mean_square + eps)**0.5",
    "OLMo #281",
    composed=rms_norm_eps_inside,
    inputs=rows_without_beta,
    also=(1,),
    differentiated=rms_norm_eps_outside,
)
def olmo_281(dy, x, gamma):
    """As in OLMo #281: x / (rms + eps). With the usual eps the two hardly differ; ours is 0.5."""
    rms = np.sqrt((x**2).mean(-1, keepdims=True))
    dx_hat = dy * gamma
    drms = -(dx_hat * x).sum(-1, keepdims=True) / (rms + LARGE) ** 2
    dx = dx_hat / (rms + LARGE) + drms * x / rms / x.shape[-1]
    return dx, (dy * x / (rms + LARGE)).sum(0)


def running(like):
    """A running mean and variance, of the shape and dtype of gamma: constants."""
    mean, var = (np.linspace(*ends, like.size) for ends in ((-1, 1), (0.5, 3)))
    return tuple(a.reshape(like.shape).astype(like.dtype) for a in (mean, var))


def batch_norm_eval(x, gamma, beta):
    """Batch norm in eval mode: affine in x, for the statistics are constants."""
    mean, var = running(gamma)
    with scope("batch_norm_eval"):
        x_hat = named((x - mean) * (var + EPS) ** -0.5, "x_hat")
        return named(named(x_hat * gamma, "scaled") + beta, "y")


STATISTICS = "statistics: batch in place of running"


@fault(
    "gradient of training mode in eval mode",
    STATISTICS,
    "NNlib.jl PR #757",
    composed=batch_norm_eval,
    inputs=images,
    also=(1,),
    differentiated=batch_norm_of_images,
)
def nnlib_757(dy, x, gamma, beta):
    """As in NNlib.jl PR #757: cuDNN's backward pass, which knows of training mode only."""
    _, inv_std, x_hat = normalised(x, PIXELS)
    return dx_closed(dy * gamma, x_hat, inv_std, PIXELS), *dweights_of_images(dy, x_hat)


@fault(
    "dgamma of training mode in eval mode",
    STATISTICS,
    "torch/nn #615",
    composed=batch_norm_eval,
    wrt=1,
    differentiated=batch_norm,
)
def torch_nn_615(dy, x, gamma, beta):
    """As in torch/nn #615: dx was given an eval mode, dgamma still took what training had left."""
    _, _, x_hat = normalised(x)
    _, var = running(gamma)
    return dy * gamma / np.sqrt(var + EPS), *dweights(dy, x_hat)


@fault(
    "constants added to dx in eval mode",
    "not linear in dy",
    "torch/nn #615",
    composed=batch_norm_eval,
)
def torch_nn_615_affine(dy, x, gamma, beta):
    """As in torch/nn #615, its first version: dy goes through the forward pass, shifts and all.

    Their lines are cut off where we could read them: the signs are ours.
    """
    mean, var = running(gamma)
    inv_std = (var + EPS) ** -0.5
    dx = (dy - beta) * gamma * inv_std - mean * inv_std
    return dx, *dweights(dy, (x - mean) * inv_std)


@fault(
    "statistics recomputed in eval mode",
    STATISTICS,
    "pytorch #4284",
    composed=batch_norm_eval,
    also=(1,),
    differentiated=batch_norm,
)
def pytorch_4284(dy, x, gamma, beta):
    """As in pytorch #4284: given no statistics, cuDNN takes the batch's; gradcheck fails."""
    centered, inv_std, x_hat = normalised(x)
    dx_hat = dy * gamma
    dvar = (dx_hat * centered).sum(0) * -0.5 * inv_std**3
    dcentered = dx_hat * inv_std + dvar * 2 * centered / len(x)
    return dcentered - dcentered.mean(0), *dweights(dy, x_hat)


# Reported: not even a gradient's properties ------------------------------------------------------


@fault("dgamma not linear", "not linear in dy", "tensorflow #107705", wrt=1)
def tensorflow_107705(dy, x, gamma, beta):
    """As in tensorflow #107705: dgamma of 3 dy was not 3 dgamma, on a GPU.

    The report knows no reason. Ours is an accumulator that saturates.
    """
    _, inv_std, x_hat = normalised(x)
    dgamma = np.clip(dy * x_hat, -0.5, 0.5).sum(0)
    return dx_closed(dy * gamma, x_hat, inv_std), dgamma, dy.sum(0)


def batch_norm_without_gamma(x, beta):
    return mb.batch_norm(x, None, beta, eps=EPS)


def shifted(rng, dtype=np.float64, **sizes):
    """Inputs x and beta."""
    x, _, beta = columns(rng, dtype, **sizes)
    return x, beta


@fault(
    "dbeta accumulates",
    "accumulates",
    "mxnet #16297",
    composed=batch_norm_without_gamma,
    inputs=shifted,
    wrt=1,
)
class Mxnet16297:
    """As in mxnet #16297: without gamma, dbeta is added to what the last call left.

    The first call is right.
    """

    def __init__(self):
        self.dbeta = 0

    def __call__(self, dy, x, beta):
        _, inv_std, x_hat = normalised(x)
        dbeta = dy.sum(0)
        self.dbeta = self.dbeta + dbeta if np.shape(self.dbeta) == dbeta.shape else dbeta
        return dx_closed(dy, x_hat, inv_std), self.dbeta


def subtract_mean(before, mean):
    return named(before - mean, "difference")


def mean_inputs(rng, dtype=np.float64, *, shape=(8, 3), scale=1.0, offset=0.0):
    """Activations, and a mean of shape (1, d)."""
    arrays = drawn(rng, shape, scale, offset), drawn(rng, (1, shape[1]), scale, offset)
    return tuple(a.astype(dtype) for a in arrays)


@fault(
    "keepdims lost",
    "shape",
    "nn-zero-to-hero #59",
    composed=subtract_mean,
    inputs=mean_inputs,
    wrt=1,
)
def nn_zero_to_hero_59(dy, before, mean):
    """As in nn-zero-to-hero #59: dbnmeani is (d,), bnmeani is (1, d); a comparison broadcasts."""
    return dy.copy(), (-dy).sum(0)


# Not gradients -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Update:
    """A wrong update of running statistics, `update(running, batch)`, and the right one.

    `running` is a mean and a variance, (d,) each, `batch` is (m, d); back come the new two. It is
    no gradient: no check of a backward pass can find it, and none should count it as missed.
    """

    name: str
    reference: str
    note: str  # what became of it
    update: Callable
    right: Callable


DECAY = 0.9


def moved(old, new):
    return DECAY * old + (1 - DECAY) * new


def unbiased(running, batch):
    """As in the paper: of the two, only the variance is multiplied by m/(m-1)."""
    mean, var = running
    return moved(mean, batch.mean(0)), moved(var, batch.var(0, ddof=1))


def chainer_332(running, batch):
    """As in chainer #332: the running mean is multiplied by m/(m-1) too."""
    (mean, var), m = running, len(batch)
    return moved(mean, batch.mean(0) * m / (m - 1)), moved(var, batch.var(0, ddof=1))


def keras_8982(running, batch):
    """As in keras #8982: the running variance is biased."""
    mean, var = running
    return moved(mean, batch.mean(0)), moved(var, batch.var(0))


NOTE = "reported as wrong against the paper; Keras keeps it as its convention"
NOT_GRADIENTS = [
    Update("running mean times m/(m-1)", "chainer #332", "fixed", chainer_332, unbiased),
    Update("running variance biased", "keras #8982", NOTE, keras_8982, unbiased),
]
