"""What checking costs: run by hand.

    python tests/benchmarks/bench_check.py

A diagnosis of batch norm at (32, 64), of a right gradient and of a wrong one, beside a forward and
backward pass.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
from bench_eager import report

import microbn as mb
from microbn.check.diagnose import diagnose
from microbn.check.match import assert_gradients_match


def main() -> None:
    """Time them in turns."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(32, 64)), rng.normal(size=(32, 64))
    gamma, beta = rng.normal(size=64), rng.normal(size=64)

    def backward(dy, *inputs):
        return mb.handwritten.backward_closed(dy, mb.handwritten.forward(*inputs, 1e-5)[1])

    dx = backward(dy, x, gamma, beta)[0]
    inputs = x, gamma, beta

    def once():
        leaves = [mb.Tensor(a, requires_grad=True) for a in inputs]
        mb.batch_norm(*leaves).backward(dy)

    contestants = {
        "forward and backward": once,
        "diagnosis, right": lambda: diagnose(mb.batch_norm, inputs, dx, grad_output=dy),
        "diagnosis, a path counts twice": lambda: diagnose(
            mb.batch_norm, inputs, 2 * dx - dy * gamma, grad_output=dy
        ),
        "diagnosis, unexplained": lambda: diagnose(mb.batch_norm, inputs, dx + x, grad_output=dy),
        "assert_gradients_match": lambda: assert_gradients_match(mb.batch_norm, backward, *inputs),
    }
    report("checking batch norm (32, 64)", contestants, 10)


if __name__ == "__main__":
    main()
