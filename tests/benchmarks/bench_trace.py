"""What tracing costs, and that it costs nothing where it is not used: run by hand.

    python tests/benchmarks/bench_trace.py

Forward only, one thread. "Before" is measured before `microbn.graph` is imported, and "after" when
a trace has been taken and is over. The ratios are medians over several processes.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

import subprocess
import sys
import time
from collections.abc import Callable
from operator import truediv
from statistics import median

import numpy as np

import microbn as mb


def chain(x, n=1000):
    """1,000 scalar operations."""
    y = x
    for _ in range(n // 2):
        y = y * 0.999
        y = y + 0.001
    return y


def batch_norm(x):
    """Batch norm (32, 64)."""
    y = mb.batch_norm(x, GAMMA, BETA)
    return y.sum()


X, GAMMA, BETA = (
    mb.Tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32), requires_grad=True)
    for shape in ((32, 64), 64, 64)
)
WORK = {chain: mb.Tensor(1.0, requires_grad=True), batch_norm: X}


def seconds(run: Callable[[], object], rounds: int = 60) -> float:
    """Return the shortest time of a call, the least disturbed; a round lasts some 2 ms."""
    start = time.perf_counter()
    run()
    repeats = 1 + int(2e-3 / (time.perf_counter() - start))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        times.append((time.perf_counter() - start) / repeats)
    return min(times)


def measure() -> list[float]:
    """For each piece of work: the time before, the time after, the time while tracing."""
    before = [seconds(lambda f=f, x=x: f(x)) for f, x in WORK.items()]
    assert "microbn.graph" not in sys.modules
    tracing = [seconds(lambda f=f, x=x: mb.trace(f, x), 10) for f, x in WORK.items()]
    after = [seconds(lambda f=f, x=x: f(x)) for f, x in WORK.items()]
    return [*before, *after, *tracing]


def main() -> None:
    command = [sys.executable, __file__, "measure"]
    runs = [subprocess.check_output(command, text=True).split() for _ in range(7)]
    columns = [[float(t) for t in column] for column in zip(*runs, strict=True)]
    for i, f in enumerate(WORK):
        before, after, tracing = columns[i :: len(WORK)]
        ratios = [median(map(truediv, times, before)) for times in (after, tracing)]
        print(f"{f.__doc__:26s} before {median(before) * 1e6:7.1f} us", end="")
        print(", after {:.3f} x, while tracing {:.1f} x".format(*ratios))


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(*measure())
    else:
        main()
