"""How the settings of `microbn demo` were chosen: by cross-validation, without the test images.

Run `python tools/tune_digits.py` (two minutes). The training images are dealt into
five parts; for each setting a network is trained on four of them and tested on the fifth, five
times, with two seeds. Printed is the percentage read right after 20 epochs.
"""

from itertools import product

import numpy as np

from microbn.data import Digits, digits
from microbn.demo import network, train

PARTS, SEEDS, EPOCHS = 5, (100, 101), 20  # seeds that the demo's results are not reported for


def folds(x, y):
    """Yield the images as five different data sets; every class is spread over the parts evenly."""
    rng = np.random.default_rng(12345)
    part = np.empty(len(y), dtype=int)
    for digit in range(10):
        of_class = rng.permutation(np.flatnonzero(y == digit))
        part[of_class] = np.arange(len(of_class)) % PARTS
    for k in range(PARTS):
        yield Digits(x[part != k], y[part != k], x[part == k], y[part == k])


def cross_validate(parts, batch_norm, batch_size, rate):
    """Return the mean accuracy on the parts left out."""
    runs = product(parts, SEEDS)
    return np.mean(
        [
            list(train(network(batch_norm, seed), data, seed, EPOCHS, batch_size, rate))[-1]
            for data, seed in runs
        ]
    )


if __name__ == "__main__":
    data = digits()
    parts = list(folds(data.x_train, data.y_train))
    print("batch size  rate   with batch norm  without")
    for batch_size, rate in product((16, 32, 64, 128), (0.003, 0.01, 0.03, 0.1)):
        with_bn, without = (cross_validate(parts, bn, batch_size, rate) for bn in (True, False))
        print(f"{batch_size:10}  {rate:<5}  {with_bn:13.2f} %  {without:5.2f} %", flush=True)
