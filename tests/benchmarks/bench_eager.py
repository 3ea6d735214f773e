"""The eager engine against its peers, as ratios measured side by side: run by hand.

    python tests/benchmarks/bench_eager.py [chain] [batch_norm] [mlp] [memory] [import]

Every comparison interleaves its contestants in one process on one thread and compares medians.
micrograd (extra ``bench``) and PyTorch (extra ``torch``) take part where they are installed.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

import gc
import importlib.util
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import numpy as np

import microbn as mb

Contestants = dict[str, Callable[[], object]]


def race(contestants: Contestants, rounds: int, collect: bool = False) -> dict[str, float]:
    """Return the median time of each contestant in seconds.

    They take turns; a turn lasts at least some 5 ms, as often as it takes, so that each runs in
    its own warm caches, as in a loop that trains. With ``collect``, the garbage of one turn
    (micrograd's graphs are cycles) is not left for the next to clear away.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    repeats: dict[str, int] = {}
    for _ in range(rounds + 1):
        for name, run in contestants.items():
            if collect:
                gc.collect()
            n = repeats.get(name, 1)
            start = time.perf_counter()
            for _ in range(n):
                run()
            seconds = (time.perf_counter() - start) / n
            if name in repeats:
                times[name].append(seconds)
            else:  # the first turn warms up, and shows how often the next ones run
                run()
                repeats[name] = 1 + int(5e-3 / seconds)
    return {name: median(seconds) for name, seconds in times.items()}


def report(title: str, contestants: Contestants, rounds: int, collect: bool = False) -> None:
    """Print the times and their ratios to the first contestant's."""
    times = race(contestants, rounds, collect)
    ours = next(iter(times.values()))
    print(f"\n{title}")
    for name, seconds in times.items():
        print(f"  {name:34s}{seconds * 1e6:12,.1f} us    ours is {ours / seconds:5.2f} x this")


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


# The chain of 1,000 scalar operations -------------------------------------------------------------


def chain_constants(value, n=1000):
    """Products and sums with Python numbers, as people write them."""
    x = y = value(1.0)
    for _ in range(n // 2):
        y = y * 0.999
        y = y + 0.001
    y.backward()
    return x.grad


def chain_leaves(value, n=1000):
    """The same with leaves, so that every operation has two edges."""
    x = y = value(1.0)
    a, b = value(0.999), value(0.001)
    for _ in range(n // 2):
        y = y * a
        y = y + b
    y.backward()
    return x.grad


def chain_mixed(value, n=1000):
    """Four kinds of operation, one of them with a leaf that fans out."""
    x = y = value(1.0)
    for _ in range(n // 4):
        y = y * 0.999
        y = y + 0.001
        y = y.relu()
        y = y - x
    y.backward()
    return x.grad


def bench_chain() -> None:
    def ours(value: float) -> mb.Tensor:
        return mb.Tensor(value, requires_grad=True)

    for chain in (chain_constants, chain_leaves, chain_mixed):
        contestants: Contestants = {"microbn": lambda chain=chain: chain(ours)}
        if has("micrograd"):
            from micrograd.engine import Value

            sys.setrecursionlimit(100_000)  # micrograd needs it from 1,000 operations on
            assert np.isclose(float(chain(ours)), chain(Value))
            contestants["micrograd"] = lambda chain=chain: chain(Value)
        report(f"1,000 scalar operations: {chain.__doc__}", contestants, 50, collect=True)


# Composed batch norm ------------------------------------------------------------------------------


def by_calls(x, gamma, beta, w, eps=1e-5):
    """The NumPy calls that the composed batch norm and its backward pass amount to, by hand."""
    m = x.shape[0]
    mean = np.mean(x, axis=0)
    centered = x - mean
    squared = centered**2
    var = np.mean(squared, axis=0)
    var_eps = var + eps
    std = np.sqrt(var_eps)
    inv_std = std**-1
    x_hat = centered * inv_std
    scaled = x_hat * gamma
    y = scaled + beta
    loss = np.sum(y * w)
    d_loss = np.ones_like(loss)
    dy = np.broadcast_to(d_loss, y.shape) * w
    d_beta = np.sum(dy, axis=0)
    d_gamma = np.sum(dy * x_hat, axis=0)
    d_x_hat = dy * gamma
    d_inv_std = np.sum(d_x_hat * centered, axis=0)
    d_centered = d_x_hat * inv_std
    d_std = d_inv_std * (-1 * std**-2)
    d_var = d_std / (2 * std)
    d_squared = np.broadcast_to(d_var / m, x.shape)
    d_centered = d_centered + d_squared * centered * 2
    d_mean = np.sum(-d_centered, axis=0)
    dx = d_centered + np.broadcast_to(d_mean / m, x.shape)
    return dx, d_gamma, d_beta


def by_closed_form(x, gamma, beta, w, eps=1e-5):
    """The closed form, as people write it."""
    y, cache = mb.handwritten.forward(x, gamma, beta, eps)
    np.sum(y * w)
    return mb.handwritten.backward_closed(w, cache)


def by_microbn(x, gamma, beta, w):
    tensors = [mb.Tensor(a, requires_grad=True, copy=False) for a in (x, gamma, beta)]
    (mb.batch_norm(*tensors) * w).sum().backward(retain_grad=False)
    return [t.grad for t in tensors]


def torch_contestants(x, gamma, beta, w) -> Contestants:
    import torch

    torch.set_num_threads(1)
    arrays = [torch.from_numpy(a) for a in (x, gamma, beta, w)]

    def run(forward):
        x, gamma, beta = (a.detach().requires_grad_() for a in arrays[:3])
        (forward(x, gamma, beta) * arrays[3]).sum().backward()

    def composed(x, gamma, beta):
        centered = x - x.mean(0)
        return centered * ((centered**2).mean(0) + 1e-5).sqrt() ** -1 * gamma + beta

    def fused(x, gamma, beta):
        return torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True)

    return {
        "PyTorch, composed": lambda: run(composed),
        "PyTorch, F.batch_norm": lambda: run(fused),
    }


def batch(m, d, dtype=np.float32):
    rng = np.random.default_rng(0)
    x, w = rng.normal(1, 2, (2, m, d)).astype(dtype)
    gamma, beta = rng.normal(0, 1, (2, d)).astype(dtype)
    return x, gamma, beta, w


def bench_batch_norm() -> None:
    for (m, d), rounds in (((32, 64), 100), ((256, 1024), 50), ((4096, 1024), 15)):
        arrays = batch(m, d)
        for a, b in zip(by_microbn(*arrays), by_calls(*arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())
        contestants: Contestants = {
            "microbn": lambda a=arrays: by_microbn(*a),
            "the same NumPy calls by hand": lambda a=arrays: by_calls(*a),
            "closed form by hand": lambda a=arrays: by_closed_form(*a),
        }
        if has("torch"):
            contestants |= torch_contestants(*arrays)
        report(f"batch norm ({m}, {d}), forward, loss, three gradients", contestants, rounds)


# A training step of a network ---------------------------------------------------------------------


def our_step(widths, x, y):
    layers: list[mb.nn.Module] = []
    for a, b in pairwise(widths[:-1]):
        layers += [mb.nn.Linear(a, b, rng=0), mb.nn.BatchNorm1d(b), mb.nn.ReLU()]
    model = mb.nn.Sequential(*layers, mb.nn.Linear(*widths[-2:], rng=0))
    optimizer = mb.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step():
        optimizer.zero_grad()
        loss = mb.functional.cross_entropy(model(mb.Tensor(x, copy=False)), y)
        loss.backward(retain_grad=False)
        optimizer.step()

    return step


def torch_step(widths, x, y):
    import torch

    torch.set_num_threads(1)
    nn = torch.nn
    layers: list[nn.Module] = []
    for a, b in pairwise(widths[:-1]):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(*widths[-2:]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tx), ty).backward()
        optimizer.step()

    return step


def products(widths, x, y):
    """Only the matrix products of a step: forward, to the weights, to all inputs but the first."""
    rng = np.random.default_rng(0)
    pairs = list(pairwise(widths))
    inputs = [rng.normal(size=(len(x), a)).astype(x.dtype) for a, _ in pairs]
    weights = [rng.normal(size=(b, a)).astype(x.dtype) for a, b in pairs]
    outputs = [rng.normal(size=(len(x), b)).astype(x.dtype) for _, b in pairs]

    def step():
        for i, (a, w, g) in enumerate(zip(inputs, weights, outputs, strict=True)):
            a @ w.T
            a.T @ g
            if i:
                g @ w

    return step


def bench_mlp() -> None:
    cases = ((64, 128, 128, 10), 128, 100), ((784, 1024, 1024, 10), 512, 12)
    for widths, m, rounds in cases:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(m, widths[0])).astype(np.float32)
        y = rng.integers(0, widths[-1], m)
        contestants: Contestants = {"microbn": our_step(widths, x, y)}
        if has("torch"):
            contestants["PyTorch, torch.nn"] = torch_step(widths, x, y)
        contestants["its matrix products alone"] = products(widths, x, y)
        report(f"step of an MLP {widths} with batch norm, batch {m}", contestants, rounds)


# Memory, import -----------------------------------------------------------------------------------


def bench_memory() -> None:
    x, gamma, beta, w = batch(4096, 1024)
    by_microbn(x, gamma, beta, w)
    tracemalloc.start()
    by_microbn(x, gamma, beta, w)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"\nbatch norm (4096, 1024): peak above the inputs {peak / x.nbytes:.2f} arrays")


def bench_import() -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # as installed

    def start(what: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", what], check=True, env=env)

    times = race({"microbn": start("import microbn"), "numpy": start("import numpy")}, 20)
    bare = race({"python": start("pass")}, 20)["python"]
    net = {name: seconds - bare for name, seconds in times.items()}
    print(f"\nimport microbn takes {net['microbn'] / net['numpy']:.3f} x import numpy")
    print(
        f"  {net['microbn'] * 1e3:.1f} ms and {net['numpy'] * 1e3:.1f} ms, Python's start left out"
    )


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["chain", "batch_norm", "mlp", "memory", "import"]
    for name in chosen:
        globals()[f"bench_{name}"]()
