"""How is a convolutional network trained, and what does batch norm do once it has learned?

The network reads handwritten digits: three convolutions and two linear layers, with batch norm
behind all but the last. In training a batch norm goes by the mean and the variance of its batch,
and keeps running averages of both, by which it goes in use. Look at what a trained network says in
training mode: it depends on what else is in the batch, and a batch of one is refused. In eval mode
each image is read by itself, and the layer before a batch norm can do all that this does.
"""

import argparse
import copy
import os
from textwrap import fill
from timeit import repeat

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: threads wait for each other
import numpy as np
from rich.console import Console
from rich.progress import track

import microbn as mb

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0, help="of the weights and of the batches")
parser.add_argument("--quick", action="store_true", help="2 epochs instead of 20")
args = parser.parse_args()

# Chosen by cross-validation within the training images, without a look at the test images:
# tools/tune_convolution.py. Shifting the training images at random did not help.
EPOCHS, BATCH, RATE, DECAY = 2 if args.quick else 20, 64, 3e-3, 1e-2

x_train, y_train, x_test, y_test = mb.data.digits()
x_train, x_test = x_train.reshape(-1, 1, 8, 8), x_test.reshape(-1, 1, 8, 8)  # one channel: ink
rng = np.random.default_rng(args.seed)
net = mb.nn.Sequential(
    *(mb.nn.Conv2d(1, 16, 3, padding=1, rng=rng), mb.nn.BatchNorm2d(16), mb.nn.ReLU()),
    *(mb.nn.Conv2d(16, 32, 3, padding=1, rng=rng), mb.nn.BatchNorm2d(32), mb.nn.ReLU()),
    mb.nn.MaxPool2d(2),  # 8 x 8 -> 4 x 4
    *(mb.nn.Conv2d(32, 32, 3, padding=1, rng=rng), mb.nn.BatchNorm2d(32), mb.nn.ReLU()),
    mb.nn.MaxPool2d(2),  # 4 x 4 -> 2 x 2
    mb.nn.Flatten(),
    *(mb.nn.Linear(32 * 2 * 2, 64, rng=rng), mb.nn.BatchNorm1d(64), mb.nn.ReLU()),
    mb.nn.Linear(64, 10, rng=rng),
)
print(f"{len(x_train)} images to train on, {len(x_test)} to test on")

optimizer = mb.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
batches = mb.data.batches(x_train, y_train, batch_size=BATCH, drop_last=True, rng=rng)
steps, silent = 0, not Console().is_terminal
for _ in track(range(EPOCHS), "training", transient=True, disable=silent):
    for x, y in batches:
        done = steps / (EPOCHS * len(batches))  # from 0 to 1
        optimizer.lr = RATE * min(done / 0.15, (1 - done) / 0.85)  # up at first, then down to 0
        loss = mb.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1


@mb.no_grad()
def right(model, x, y, size):
    """Return how many images are read right, ``size`` at a time, and of how many."""
    parts = mb.data.batches(x, y, batch_size=size, shuffle=False, drop_last=True)
    hits = [np.argmax(model(x), axis=1) == y for x, y in parts]
    return f"{np.sum(hits)} of {np.size(hits)}, {100 * np.mean(hits):.2f} %"


print("\nThe test images in training mode, by the statistics of the batch")
one_digit = np.argsort(y_test, kind="stable")  # zeros first, then ones, ...
in_training = copy.deepcopy(net)  # for its running statistics move, whatever the batches are for
try:
    right(in_training, x_test, y_test, 1)
except ValueError as error:
    print(fill(f"batches of 1     refused: {error}", 96, subsequent_indent=" " * 17))
print(f"batches of 2     {right(in_training, x_test, y_test, 2)}")
print(f"batches of 8     {right(in_training, x_test, y_test, 8)}")
print(f"  of one digit   {right(in_training, x_test[one_digit], y_test[one_digit], 8)}")

net.eval()
print("In eval mode, by the running statistics")
print(f"batches of 1     {right(net, x_test, y_test, 1)}")
print(f"batches of 355   {right(net, x_test, y_test, 355)}")

folded = mb.nn.fold_batch_norm(net)  # a copy, with an Identity for each batch norm
with mb.no_grad():
    before, after, one = net(x_test).data, folded(x_test).data, x_test[:1]
    old, new = (1e3 * min(repeat(lambda m=m: m(one), number=1, repeat=200)) for m in (net, folded))
print("\nWith each batch norm folded into the layer before it")
print(f"batches of 355   {right(folded, x_test, y_test, 355)}")
print(f"outputs          up to {np.abs(before).max():.2f}", end="")
print(f", at most {np.abs(after - before).max():.1e} from those before")
print(f"time of one      {new:.2f} ms instead of {old:.2f}, {old / new:.1f} times as fast")

np.savez("08_digits.npz", **net.state_dict())  # mb.save writes a file that PyTorch reads, too
images = mb.Tensor(x_test[:8], requires_grad=True)
mb.draw(net(images), collapse=1).save("08_digits.svg")
print("\nWrote 08_digits.npz, which net.load_state_dict(np.load(...)) takes back,")
print("and 08_digits.svg, the picture of the network. Open it in a browser.")
