"""How the settings of examples/08_digits.py were chosen: by cross-validation, without the test set.

Run `python tools/tune_convolution.py` (a quarter of an hour). The training images are dealt into
five parts, as for `tune_digits.py`; for each setting a network is trained on four of them and
tested on the fifth, five times, with two seeds. Printed is how many images were read wrong, of
1,442, with each seed; a difference of four may be chance.
"""

import numpy as np
from tune_digits import folds

import microbn as mb
from microbn import nn

SEEDS = (100, 101)  # seeds that the example's results are not reported for
CHOSEN = {"epochs": 20, "batch": 64, "rate": 3e-3, "decay": 1e-2, "momentum": None}
CHOSEN |= {"third": 32, "hidden": 64, "dropout": 0.0, "shifted": 0.0}
CHANGES = [
    {},
    {"epochs": 10},
    {"batch": 32},
    {"rate": 1e-3},
    {"rate": 1e-2},
    {"decay": 0.1},
    {"momentum": 0.9, "rate": 0.05, "decay": 5e-4},  # SGD
    {"third": 0},  # two convolutions
    {"third": 64},
    {"dropout": 0.3},
    {"shifted": 0.5},  # this share of the images, by up to a pixel in each direction
    {"shifted": 1.0},
]


def network(third, hidden, dropout, rng):
    """Return the example's network, if it is made with what was chosen."""
    layers = [nn.Conv2d(1, 16, 3, padding=1, rng=rng), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 32, 3, padding=1, rng=rng), nn.BatchNorm2d(32), nn.ReLU()]
    layers += [nn.MaxPool2d(2)]
    if third:
        layers += [nn.Conv2d(32, third, 3, padding=1, rng=rng), nn.BatchNorm2d(third), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    width = 4 * third or 16 * 32
    layers += [nn.Flatten(), nn.Linear(width, hidden, rng=rng), nn.BatchNorm1d(hidden), nn.ReLU()]
    layers += [nn.Dropout(dropout, rng=rng)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(hidden, 10, rng=rng))


def shift(x, share, rng):
    """Move a share of the images by -1, 0 or 1 pixels in each direction; paper comes in."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    row, column = np.where(rng.random(len(x)) < share, rng.integers(0, 3, (2, len(x))), 1)
    rows, columns = row[:, None] + np.arange(8), column[:, None] + np.arange(8)
    moved = padded[np.arange(len(x))[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    return moved[:, None]


def wrong(data, seed, epochs, batch, rate, decay, momentum, shifted, **layers):
    """Train a network, and return how many of the images left out it reads wrong."""
    rng = np.random.default_rng(seed)
    model = network(**layers, rng=rng)
    if momentum is None:
        optimizer = mb.optim.AdamW(model.parameters(), weight_decay=decay)
    else:
        optimizer = mb.optim.SGD(
            model.parameters(), momentum=momentum, weight_decay=decay, nesterov=True
        )
    images = data.x_train.reshape(-1, 1, 8, 8)
    batches = mb.data.batches(images, data.y_train, batch_size=batch, drop_last=True, rng=rng)
    steps = 0
    for _ in range(epochs):
        for x, y in batches:
            done = steps / (epochs * len(batches))
            optimizer.lr = rate * min(done / 0.15, (1 - done) / 0.85)
            loss = mb.functional.cross_entropy(model(shift(x, shifted, rng) if shifted else x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    model.eval()
    with mb.no_grad():
        guesses = np.argmax(model(data.x_test.reshape(-1, 1, 8, 8)), axis=1)
    return int(np.sum(guesses != data.y_test))


if __name__ == "__main__":
    digits = mb.data.digits()
    parts = list(folds(digits.x_train, digits.y_train))
    for change in CHANGES:
        found = [sum(wrong(part, seed, **CHOSEN | change) for part in parts) for seed in SEEDS]
        name = ", ".join(f"{key} {value}" for key, value in change.items()) or "as chosen"
        print(f"{name:40} {found}", flush=True)
