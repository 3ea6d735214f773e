"""Make the pictures of the documentation: run `python tools/make_pictures.py` after a change.

They are laid out by the Graphviz that comes with microbn, so that they are the same everywhere.
With `--out DIR` they go elsewhere.
"""

import argparse
from pathlib import Path

import numpy as np

import microbn as mb
from microbn.data import digits, students

DOCS = Path(__file__).parent.parent / "docs"


def table():
    """The four students: marks in two exams."""
    return mb.Tensor(students().features, requires_grad=True, name="x")


def normalised():
    """Batch norm of the four students, with weights that can be told apart."""
    gamma = mb.nn.Parameter(np.array([1.0, 2.0]), name="gamma")
    beta = mb.nn.Parameter(np.array([0.0, 3.0]), name="beta")
    return mb.batch_norm(table(), gamma, beta)


def dy():
    """A cotangent that hides nothing, as ones would."""
    return np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, 1.0]])


def scalar_chain():
    """Plain numbers: a few steps, one value used twice."""
    a = mb.Tensor(2.0, requires_grad=True)
    b = mb.Tensor(-3.0, requires_grad=True)
    c = a * b
    d = c + 10
    loss = d * c
    loss.backward()
    return mb.draw(loss, engine="wasi")


def neuron():
    """One neuron: two inputs, two weights, a bias."""
    with mb.tracing() as trace:
        x = mb.Tensor([2.0, 0.5])
        w = mb.Tensor([-3.0, 1.0], requires_grad=True)
        b = mb.Tensor(6.0, requires_grad=True)
        s = np.sum(x * w) + b
        out = np.tanh(s)
    out.backward()
    return mb.draw(trace, engine="wasi")


def broadcasting():
    """A column and a row make a table; the way back sums over what was repeated."""
    column = mb.Tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    row = mb.Tensor([10.0, 20.0], requires_grad=True)
    products = column * row
    return mb.draw(products, backward=True, grad_output=np.ones((3, 2)), engine="wasi")


def batch_norm():
    """The forward graph."""
    return mb.draw(normalised(), values=False, engine="wasi")


def batch_norm_values():
    """With what was computed, and with the gradients."""
    y = normalised()
    y.backward(dy())
    return mb.draw(y, engine="wasi")


def batch_norm_twin():
    """Forward and backward, and the path through the mean."""
    return mb.draw(
        normalised(),
        backward=True,
        grad_output=dy(),
        values=False,
        highlight="x -> mean -> centered",
        title="Batch norm, forward and backward",
        engine="wasi",
    )


def batch_norm_twin_values():
    """The same with every number."""
    return mb.draw(normalised(), backward=True, grad_output=dy(), theme="dark", engine="wasi")


def batch_norm_collapsed():
    """As one box of a larger computation."""
    loss = (normalised() * dy()).sum()
    return mb.draw(loss, backward=True, collapse="batch_norm", direction="LR", engine="wasi")


def layer_norm():
    """The same stages along the other axis."""
    x = mb.Tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 1.0]], requires_grad=True)
    y = mb.functional.layer_norm(x)
    dy = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, -1.0]])
    return mb.draw(y, backward=True, grad_output=dy, engine="wasi")


def digits_loss():
    """The loss of an untrained network on 32 digits."""
    rng = np.random.default_rng(0)
    model = mb.nn.Sequential(
        *(mb.nn.Linear(64, 128, rng=rng), mb.nn.BatchNorm1d(128), mb.nn.ReLU()),
        *(mb.nn.Linear(128, 128, rng=rng), mb.nn.BatchNorm1d(128), mb.nn.ReLU()),
        mb.nn.Linear(128, 10, rng=rng),
    )
    data = digits()
    return mb.functional.cross_entropy(model(data.x_train[:32]), data.y_train[:32])


def digits_open():
    """Every op of the network."""
    return mb.draw(digits_loss(), values=False, engine="wasi")


def digits_collapsed():
    """One box a layer, forward and backward."""
    return mb.draw(digits_loss(), backward=True, collapse=1, values=False, engine="wasi")


def second_derivative():
    """The graph of a gradient, and of the gradient of that."""
    x = mb.Tensor(0.5, requires_grad=True)
    y = np.tanh(x)
    first = mb.grad(y, x, create_graph=True)
    return mb.draw(first, backward=True, engine="wasi")


GALLERY = (
    *(scalar_chain, neuron, broadcasting),
    *(batch_norm, batch_norm_values, batch_norm_twin, batch_norm_twin_values),
    *(batch_norm_collapsed, layer_norm, digits_open, digits_collapsed, second_derivative),
)


def main():
    """Write every picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DOCS / "gallery")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for make in GALLERY:
        drawing = make()
        drawing.save(out / f"{make.__name__}.svg")
        print(f"{make.__name__:24} {drawing!r}")


if __name__ == "__main__":
    main()
