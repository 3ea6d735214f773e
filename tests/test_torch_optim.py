"""The same update rules in PyTorch: the same parameters after every step, and the same refusals.

Two implementations differ by roundings, a dozen in a step for each: of the parameter, and of
distances such as it travels in a step. So after T steps they may be ``24 * T * eps`` times
``|p| + the distances travelled`` apart, in float32 and in float64. Only `centered` subtracts
nearly equal numbers: that multiplies the bound by the quotient of ``square_avg`` and what is left
of it, which is measured beside the run in float64.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import microbn as mb
from microbn.nn import Parameter

torch = pytest.importorskip("torch")

SHAPES = [(), (1,), (3,), (2, 3), (2, 1, 2), (0,)]  # of the last, PyTorch knows no infinity norm
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


def pairs(rng, dtype, among=SHAPES):
    """Draw parameters of several shapes, each here and in PyTorch."""
    shapes = [among[i] for i in rng.choice(len(among), size=3, replace=False)]
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


@pytest.mark.parametrize("rule", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_the_same_defaults(rule):
    ours = getattr(mb.optim, rule)([Parameter([1.0])])
    theirs = getattr(torch.optim, rule)([torch.ones(1, requires_grad=True)]).defaults
    mine = {k: v for k, v in vars(ours).items() if k not in ("params", "state")}
    assert mine == {name: theirs[name] for name in mine}


@pytest.mark.parametrize("rule", ["RMSprop", "Adam", "AdamW"])
def test_the_same_arguments_are_refused(rule):
    refused = [{"lr": -1.0}, {"eps": -1.0}, {"weight_decay": -0.1}]
    if rule == "RMSprop":
        refused += [{"momentum": -0.1}, {"alpha": -0.1}]
    else:
        refused += [{"betas": pair} for pair in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, -0.1))]
    for arguments in refused:
        with pytest.raises(ValueError, match=r"."):
            getattr(torch.optim, rule)([torch.ones(1, requires_grad=True)], **arguments)
        with pytest.raises(ValueError, match=next(iter(arguments))):
            getattr(mb.optim, rule)([Parameter([1.0])], **arguments)


def test_the_rate_may_change_between_steps():
    ours, theirs = Parameter([1.0, 2.0]), torch.tensor([1.0, 2.0], dtype=float, requires_grad=True)
    optimizer, other = mb.optim.AdamW([ours]), torch.optim.AdamW([theirs])
    for lr in 0.1, 0.01, 0.3:
        optimizer.lr = other.param_groups[0]["lr"] = lr
        ours.grad, theirs.grad = [1.0, -3.0], torch.tensor([1.0, -3.0], dtype=float)
        optimizer.step()
        other.step()
        assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("norm_type", [1, 2.0, 3, 0.5, np.inf])
def test_clipping(norm_type, dtype):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ours, theirs = pairs(rng, dtype, SHAPES[:5])
        for p, q in zip(ours[1:], theirs[1:], strict=True):
            p.grad = np.asarray(rng.normal(size=p.shape) * 10.0 ** rng.integers(-3, 3), dtype)
            q.grad = torch.tensor(p.grad)
        max_norm = float(10 ** rng.uniform(-2, 2))
        clip = torch.nn.utils.clip_grad_norm_
        arguments = (max_norm, norm_type, bool(seed % 2))
        tolerance = {"rtol": 100 * np.finfo(dtype).eps}  # of sums over a few entries
        norm = mb.optim.clip_grad_norm_(ours, *arguments)
        assert_allclose(norm, clip(theirs, *arguments).item(), **tolerance)
        assert ours[0].grad is theirs[0].grad is None
        for p, q in zip(ours[1:], theirs[1:], strict=True):
            assert p.grad.dtype == dtype
            assert_allclose(p.grad, q.grad.numpy(), **tolerance)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_clipping_what_is_not_finite(bad):
    both = Parameter([1.0, 2.0]), torch.ones(2, dtype=torch.float64, requires_grad=True)
    for clip, p, array in (
        (mb.optim.clip_grad_norm_, both[0], np.array),
        (torch.nn.utils.clip_grad_norm_, both[1], torch.tensor),
    ):
        p.grad = array(np.array([bad, 3.0]))
        with pytest.raises(RuntimeError, match="finite"):
            clip([p], 1.0, error_if_nonfinite=True)
        assert p.grad[1] == 3
        clip([p], 1.0)
    np.testing.assert_array_equal(both[0].grad, both[1].grad.numpy())
