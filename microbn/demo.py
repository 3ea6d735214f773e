"""What `microbn demo` shows: batch norm on four students, its gradient, its graph, digits, a page.

Apart from the tables it is an example of how microbn is used, to be read from top to bottom.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import microbn as mb

from .data import Digits, digits, students
from .kernels import Array

# Chosen by cross-validation within the training images: tools/tune_digits.py
BATCH, RATE, MOMENTUM = 32, 0.03, 0.9

FORMS = {
    "staged": mb.handwritten.backward_staged,
    "paper": mb.handwritten.backward_paper,
    "closed": mb.handwritten.backward_closed,
}
STYLES = {"input": "cyan", "parameter": "green"}  # much as in the drawing
EPS = 1e-5


def demo(console: Console, seed: int, epochs: int, out: Path, *, quiet: bool = False) -> None:
    """Show it all on ``console``; pictures go into the folder ``out``, which exists.

    With ``quiet`` only the results are printed, one a line. Raises an OSError if a picture cannot
    be written.
    """
    full = Console(quiet=True) if quiet else console
    y = show_stages(full)
    worst = show_gradients(full, seed)
    paths = show_graph(full, y, out)
    scores = show_digits(full, seed, epochs)
    page = show_page(full, y, out)
    if quiet:
        console.print(f"gradients: at most {worst:.1e} from those derived by hand")
        for path in paths:
            console.print(f"graph: {path}", soft_wrap=True)
        for name, _, _, last, seconds in scores:
            console.print(f"digits {name}: {last:.1f} %, {seconds:.1f} s")
        console.print(f"page: {page}", soft_wrap=True)


def a_table(*heads: str) -> Table:
    """Return a table that is narrow enough for 60 columns."""
    return Table(*heads, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


# 1. Forward --------------------------------------------------------------------------------------


def students_through_batch_norm() -> mb.Tensor:
    """Compute batch norm of the four students; the result remembers every stage."""
    x = mb.Tensor(students().features, requires_grad=True, name="x")
    gamma = mb.nn.Parameter(np.array([1.0, 2.0]), name="gamma")
    beta = mb.nn.Parameter(np.array([0.0, 3.0]), name="beta")
    y: mb.Tensor = mb.batch_norm(x, gamma, beta, eps=EPS)
    return y


def stages(y: mb.Tensor) -> list[mb.Tensor]:
    """Return what ``y`` was computed from and ``y`` itself, in order of computation."""
    return [tensor for tensor, _ in mb.backprop(y, np.ones(y.shape))][::-1]


def show_stages(console: Console) -> mb.Tensor:
    """Print a table of every stage, and return the last."""
    y = students_through_batch_norm()
    console.rule("1. Four students through batch norm", align="left")
    console.print(
        "A row of x is a student, the columns are cgpa and iq. Every stage is an op that the "
        "engine recorded, and knows nothing of batch norm."
    )
    table = a_table()
    for head in "stage", "op", "inputs", "shape", "values":
        table.add_column(head, no_wrap=head != "inputs")
    for t in stages(y):
        op, style = (t.op.name, None) if t.op else ("leaf", STYLES[t.kind])
        inputs = ", ".join(str(getattr(a, "name", a)) for a in t.inputs) or t.kind
        table.add_row(str(t.name), op, inputs, str(t.shape), rows(t.data), style=style)
    console.print(table)
    return y


def rows(values: Array) -> str:
    """Write an array as NumPy does, without the brackets around it all.

    >>> print(rows(np.array([[7.0, 70.0], [8.0, 80.5]])))
    [ 7.   70. ]
    [ 8.   80.5]
    """
    text = np.array2string(values, precision=5)
    return text[1:-1].replace("\n ", "\n") if values.ndim > 1 else text


# 2. Backward -------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """How large a gradient is, and how far from it each form of `handwritten` is, at most."""

    gradient: str
    largest: float
    forms: list[float]


def differences(seed: int) -> list[Difference]:
    """Compare the gradients of batch norm with those derived by hand, on the four students.

    gamma, beta and the incoming gradient are random: with ones, many a mistake goes unseen.
    """
    rng = np.random.default_rng(seed)
    x, gamma, beta, dy = students().features, *rng.normal(size=(2, 2)), rng.normal(size=(4, 2))

    inputs = [mb.Tensor(array, requires_grad=True) for array in (x, gamma, beta)]
    mb.batch_norm(*inputs, eps=EPS).backward(dy)

    _, cache = mb.handwritten.forward(x, gamma, beta, EPS)
    by_hand = [backward(dy, cache) for backward in FORMS.values()]
    found = []
    for i, name in enumerate(("dx", "dgamma", "dbeta")):
        composed = inputs[i].grad
        assert composed is not None
        forms = [float(np.abs(gradients[i] - composed).max()) for gradients in by_hand]
        found.append(Difference(name, float(np.abs(composed).max()), forms))
    return found


def show_gradients(console: Console, seed: int) -> float:
    """Print a table of the differences, and return the largest."""
    console.rule("2. Its gradient, against three derived by hand", align="left")
    console.print(
        "backward() pulls a random gradient back through those stages, one after another. The "
        "three forms are formulas that people derived; shown is the largest difference."
    )
    table = a_table("gradient", "largest entry", *FORMS)
    found = differences(seed)
    for name, largest, forms in found:
        cells = (f"{number:.1e}" if number else "0" for number in forms)
        table.add_row(name, f"{largest:.2g}", *cells)
    console.print(table)
    return max(number for difference in found for number in difference.forms)


# 3. The graph ------------------------------------------------------------------------------------


def show_graph(console: Console, y: mb.Tensor, out: Path) -> list[Path]:
    """Draw what ``y`` was computed from, and return where the pictures are."""
    console.rule("3. Its graph", align="left")
    drawing = mb.draw(y)
    paths = [out / "batch_norm.svg", out / "batch_norm.dot"]
    for path, what in zip(paths, ("for any browser", "for Graphviz"), strict=True):
        drawing.save(path)
        console.print(f"  {path}  ({what})", soft_wrap=True)
    console.print()
    return paths


# 4. Digits ---------------------------------------------------------------------------------------


class Score(NamedTuple):
    """How a network did on the test images, in percent, after one epoch and after the last."""

    network: str
    parameters: int
    first: float
    last: float
    seconds: float


def network(batch_norm: bool, seed: int) -> mb.nn.Sequential:
    """Return 64-128-128-10, the same weights with batch norm as without."""
    rng = np.random.default_rng(seed)
    layers: list[mb.nn.Module] = []
    for inputs, outputs in (64, 128), (128, 128):
        layers.append(mb.nn.Linear(inputs, outputs, rng=rng))
        if batch_norm:
            layers.append(mb.nn.BatchNorm1d(outputs))
        layers.append(mb.nn.ReLU())
    return mb.nn.Sequential(*layers, mb.nn.Linear(128, 10, rng=rng))


def train(
    model: mb.nn.Module,
    data: Digits,
    seed: int,
    epochs: int,
    batch_size: int = BATCH,
    rate: float = RATE,
) -> Iterator[float]:
    """Train ``model``, and yield its accuracy on the test images after each epoch."""
    rng = np.random.default_rng(seed)
    optimizer = mb.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM)
    batches = len(data.x_train) // batch_size  # whole ones: of two images the variance says little
    for _ in range(epochs):
        model.train()
        order = rng.permutation(len(data.x_train))[: batches * batch_size]
        for batch in order.reshape(batches, batch_size):
            loss = mb.functional.cross_entropy(model(data.x_train[batch]), data.y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield accuracy(model, data)


@mb.no_grad()
def accuracy(model: mb.nn.Module, data: Digits) -> float:
    """Return the share of test images that ``model`` reads right, in percent."""
    model.eval()
    guesses = np.argmax(model(data.x_test), axis=1)
    return 100 * float(np.mean(guesses == data.y_test))


def show_digits(console: Console, seed: int, epochs: int) -> list[Score]:
    """Train a network with batch norm and one without, print how they did, and return it."""
    data = digits()
    console.rule("4. Reading digits, with batch norm and without", align="left")
    console.print(
        f"64-128-128-10, {len(data.x_train):,} images to train on, {len(data.x_test)} to test on. "
        f"SGD, batches of {BATCH}, rate {RATE}, momentum {MOMENTUM}. Both networks start from the "
        f"same weights and see the same batches (seed {seed})."
    )
    with progress(console) as bars:
        scores = [
            score(bars, "with batch norm", network(True, seed), data, seed, epochs),
            score(bars, "without", network(False, seed), data, seed, epochs),
        ]
    table = a_table("network")
    for head in "parameters", "after 1 epoch", f"after {epochs}", "time":
        table.add_column(head, justify="right")
    for name, size, first, last, seconds in scores:
        table.add_row(name, f"{size:,}", f"{first:.1f} %", f"{last:.1f} %", f"{seconds:.1f} s")
    console.print(table)
    return scores


def score(
    bars: Progress, name: str, model: mb.nn.Module, data: Digits, seed: int, epochs: int
) -> Score:
    """Train ``model``, moving a progress bar of its own."""
    bar = bars.add_task(name, total=epochs, accuracy=0.0)
    start, accuracies = perf_counter(), []
    for percent in train(model, data, seed, epochs):
        accuracies.append(percent)
        bars.update(bar, advance=1, accuracy=percent)
    size = sum(p.size for p in model.parameters())
    return Score(name, size, accuracies[0], accuracies[-1], perf_counter() - start)


def progress(console: Console) -> Progress:
    """Return a progress display, which shows itself on terminals only and leaves no trace."""
    return Progress(
        TextColumn("  {task.description:15}"),
        BarColumn(max(10, min(40, console.width - 46))),  # with room left for ^C
        MofNCompleteColumn(),
        TextColumn("epochs  {task.fields[accuracy]:5.1f} %"),
        console=console,
        transient=True,
        disable=console.quiet or not console.is_terminal,
    )


# 5. The page -------------------------------------------------------------------------------------

DY = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, 1.0]])  # a gradient to go back with


def show_page(console: Console, y: mb.Tensor, out: Path) -> Path:
    """Write the page that steps through what ``y`` was computed from, and say how to open it."""
    console.rule("5. Step through it", align="left")
    page = out / "batch_norm.html"
    walk = mb.steps(y, grad_output=DY)
    walk.title = "Four students through batch norm"
    walk.save_html(page)
    console.print(
        f"{len(walk)} steps, forward and back, with every number and why it is so. Open it by a "
        "double click, or with"
    )
    console.print(f"  {Path(sys.executable).name} -m webbrowser {page}", soft_wrap=True)
    console.print("Programs of your own, in this terminal: microbn step FILE.py")
    return page
