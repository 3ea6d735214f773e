"""The same update rules in PyTorch: the same parameters after every step, and the same refusals.

float64 must agree to 1e-12 of the larger of the parameter and the step lengths. In float32 each of
the T steps rounds a dozen times at most, so two implementations differ by at most about
``T * (|p| + 12 * sum of lr * |direction|) * 2**-24``, except where `centered` subtracts nearly
equal numbers: the error of the difference, relative to itself, is then that of ``square_avg``
times their quotient, which is measured beside the run, in float64.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn.nn import Parameter

torch = pytest.importorskip("torch")

SHAPES = [(), (1,), (3,), (2, 3), (0,), (2, 1, 2)]
STEPS = 12


def options(rule, rng):
    """Draw the arguments of a rule; each switch is on or off with equal chances."""
    on = lambda: rng.random() < 0.5  # noqa: E731
    found = {"lr": float(10 ** rng.uniform(-4, 0))} if rng.random() < 0.9 else {}
    if on():
        found["weight_decay"] = float(10 ** rng.uniform(-4, 0))
    if on() and rule != "SGD":
        found["eps"] = float(10 ** rng.uniform(-10, -2))
    if rule in ("SGD", "RMSprop") and on():
        found["momentum"] = float(rng.uniform(0.01, 0.99))
    if rule == "SGD" and on():
        found["dampening"] = float(rng.uniform(0, 1))
    if rule == "SGD" and on() and "momentum" in found:
        found |= {"nesterov": True, "dampening": 0}
    if rule == "RMSprop":
        found |= {"centered": on()} | ({"alpha": float(rng.uniform(0.3, 0.99))} if on() else {})
    if rule in ("Adam", "AdamW"):
        found["amsgrad"] = on()
        if on():
            found["betas"] = (float(rng.uniform(0, 0.99)), float(rng.uniform(0.1, 0.9999)))
    return found


def pairs(rng, dtype):
    """Draw parameters of several shapes, each here and in PyTorch."""
    shapes = [SHAPES[i] for i in rng.choice(len(SHAPES), size=3, replace=False)]
    starts = [np.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    ours = [Parameter(a) for a in starts]
    return ours, [torch.tensor(a, requires_grad=True) for a in starts]


def cancellation(gradients, alpha):
    """How much larger square_avg is than what `centered` leaves of it, entry by entry, at worst."""
    square = mean = np.zeros_like(gradients[0])
    worst = np.ones_like(square)
    for g in gradients:
        square = alpha * square + (1 - alpha) * g**2
        mean = alpha * mean + (1 - alpha) * g
        worst = np.maximum(worst, square / np.maximum(square - mean**2, 1e-300))
    return worst


def run(rule, seed, dtype):
    """Take the same steps in both; yield each parameter, PyTorch's, and the bound between them."""
    rng = np.random.default_rng([seed, *rule.encode()])
    arguments = options(rule, rng)
    ours, theirs = pairs(rng, dtype)
    optimizers = (
        getattr(mb.optim, rule)(ours, **arguments),
        getattr(torch.optim, rule)(theirs, **arguments),
    )
    travelled = [np.abs(p.data).astype(float) for p in ours]
    seen = [[] for _ in ours]
    for step in range(STEPS):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            skipped = step > 0 and rng.random() < 0.1  # as a parameter that was not reached
            g = np.asarray(rng.normal(size=p.shape) * 10.0 ** rng.integers(-2, 2), dtype)
            p.grad, q.grad = (None, None) if skipped else (g, torch.tensor(g))
            if not skipped:
                decay = arguments.get("weight_decay", 0) * (rule != "AdamW")
                seen[i].append(np.asarray(g + decay * p.data, float))
        before = [p.numpy() for p in ours]
        for optimizer in optimizers:
            optimizer.step()
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            travelled[i] = travelled[i] + np.abs(p.data - before[i])
            bound = 24 * (step + 1) * np.finfo(dtype).eps * travelled[i]
            if arguments.get("centered"):
                bound = bound * cancellation(seen[i], arguments.get("alpha", 0.99))
            yield p, q.detach().numpy(), bound, arguments


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rule", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_the_same_steps(rule, dtype):
    for seed in range(60):
        for p, want, bound, arguments in run(rule, seed, dtype):
            assert (p.data.dtype, p.data.shape) == (want.dtype, want.shape)
            off = np.abs(p.data - want)
            assert np.all(off <= bound), (arguments, p.data, want, bound)
            if dtype == np.float64 and not arguments.get("centered"):
                assert_allclose(p.data, want, rtol=1e-12, atol=1e-13, err_msg=str(arguments))
