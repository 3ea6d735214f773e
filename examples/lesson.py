"""What the lessons share: options, training, numbers and figures, and what they report of a claim.

A lesson is a script, and a page of the documentation: its comments in `# %% [markdown]` cells are
the text, and the rest is run. So this module knows a script from a notebook.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

import microbn as mb

T = TypeVar("T")

VERDICTS = ("holds", "holds within limits", "does not hold here")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito's
GREY = "#76859B"  # to be read on white and on black

ACTIVATIONS = {"ReLU": mb.nn.ReLU, "tanh": mb.nn.Tanh, "sigmoid": mb.nn.Sigmoid}
NETWORKS = {  # by what they are called, the arguments of `network`
    f"{name}, {'with' if batch_norm else 'without'}": (batch_norm, activation)
    for name, activation in ACTIVATIONS.items()
    for batch_norm in (True, False)
}

_reported: list[dict[str, str]] = []


def options(name: str) -> SimpleNamespace:
    """Return how the lesson is to be run: ``quick`` (less of everything) and ``out``, a folder.

    In a notebook there is no command line; there MICROBN_QUICK and MICROBN_OUT are looked at.
    """
    quick, out = bool(os.environ.get("MICROBN_QUICK")), os.environ.get("MICROBN_OUT", ".")
    if "ipykernel" not in sys.modules:
        parser = argparse.ArgumentParser(name)
        parser.add_argument("--quick", action="store_true", help="less of everything, for tests")
        parser.add_argument("--out", default=out, help="the folder for figures and results")
        found = parser.parse_args()
        quick, out = quick or found.quick, found.out
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(name=name, quick=quick, out=folder)


def claim(run: SimpleNamespace, name: str, found: str, measured: str, limits: str = "") -> None:
    """Report what was found of a claim, such as "A2", and write all reports so far to a file.

    ``limits`` says within which it holds, if it does not hold without any.
    """
    assert found in VERDICTS, found
    report = {"claim": name, "verdict": found, "measured": measured}
    if found == "holds within limits":
        assert limits, f"within which limits {name} holds is not said"
        report["limits"] = limits
        found += f" ({limits})"
    _reported.append(report)
    print(f"{name}: {found}. {measured}")
    facts = {"lesson": run.name, "quick": run.quick, "claims": _reported}
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (run.out / f"{run.name}.json").write_text(text, encoding="utf-8")


def verdict(everywhere: Any, somewhere: Any = False) -> str:
    """Return which of the verdicts it is, given where the claim was found to be so."""
    return VERDICTS[0] if everywhere else VERDICTS[1] if somewhere else VERDICTS[2]


def network(seed: int, batch_norm: bool, activation: type = mb.nn.ReLU) -> mb.nn.Sequential:
    """Return 64-64-64-10, the same weights with batch norm as without; lesson 13 builds it."""
    layers: list[mb.nn.Module] = []
    for k in range(2):
        rng = np.random.default_rng([seed, k])
        layers.append(mb.nn.Linear(64, 64, bias=not batch_norm, rng=rng))
        layers += [mb.nn.BatchNorm1d(64)] * batch_norm + [activation()]
    output = mb.nn.Linear(64, 10, rng=np.random.default_rng([seed, 2]))
    return mb.nn.Sequential(*layers, output)


def deep_network(seed: int, batch_norm: bool, he: bool) -> mb.nn.Sequential:
    """Return 64-32-32-32-32-10 with ReLU; weights are drawn by He's rule, or as `Linear` does."""
    rng = np.random.default_rng(seed)
    layers: list[mb.nn.Module] = []
    for inputs in 64, 32, 32, 32:
        linear = mb.nn.Linear(inputs, 32, rng=rng)
        if he:
            mb.nn.init.kaiming_normal_(linear.weight, rng=rng)
        layers += [linear] + [mb.nn.BatchNorm1d(32)] * batch_norm + [mb.nn.ReLU()]
    return mb.nn.Sequential(*layers, mb.nn.Linear(32, 10, rng=rng))


def epoch(net: mb.nn.Module, optimizer: mb.optim.Optimizer, batches: Iterable[Any]) -> None:
    """Train on every batch once."""
    net.train()
    for x, y in batches:
        loss = mb.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@mb.no_grad()
def accuracy(net: mb.nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """Return how many images are read right in eval mode, in percent."""
    return 100 * float(np.mean(np.argmax(net.eval()(x), axis=1) == y))


def accuracy_after(
    epochs: int, net: mb.nn.Module, data: Any, rate: float, seed: int, size: int = 32
) -> float:
    """Train by plain gradient descent, and return how many test images are read right, %."""
    optimizer = mb.optim.SGD(net.parameters(), lr=rate)
    batches = mb.data.batches(*data[:2], batch_size=size, drop_last=True, rng=seed)
    with np.errstate(all="ignore"):  # at some rates numbers get too large or small for float32
        for _ in range(epochs):
            epoch(net, optimizer, batches)
        return accuracy(net, data.x_test, data.y_test)


def spread(numbers: Iterable[float], form: str = ".1f") -> str:
    """Return the median, and in brackets the lowest and the highest."""
    values = [*numbers]
    low, middle, high = min(values), np.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def plain(number: float) -> str:
    """Return a number with two digits that count, without an exponent: 0.0032, 100."""
    return np.format_float_positional(number, 2, fractional=False, trim="-")


def span(numbers: Any) -> str:
    """Return the first and the last of some numbers in plain writing, "none" if there are none."""
    ends = sorted({*numbers[:1], *numbers[-1:]})
    return " to ".join(map(plain, ends)) or "none"


def track(items: Iterable[T], text: str) -> Iterator[T]:
    """Yield the items, with a progress bar where somebody is looking."""
    from rich.console import Console
    from rich.progress import track as bar

    console = Console(stderr=True)
    on = console.is_terminal and "ipykernel" not in sys.modules
    yield from bar(list(items), text, console=console, transient=True, disable=not on)


def figure(columns: int = 1, rows: int = 1, **kwargs: Any) -> tuple[Any, Any]:
    """Return a figure and its axes, to be read in light and in dark."""
    import matplotlib

    if "ipykernel" not in sys.modules:
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grey = {f"{part}.color": GREY for part in ("text", "xtick", "ytick", "grid")}
    plt.rcParams.update(
        grey
        | {"axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY}
        | {"axes.prop_cycle": plt.cycler(color=COLOURS), "axes.spines.top": False}
        | {"axes.spines.right": False, "grid.alpha": 0.3, "legend.frameon": False}
        | {"figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"}
        | {"svg.hashsalt": "microbn", "figure.dpi": 100}
    )
    size = {"figsize": (4.6 * columns, 3.2 * rows), "layout": "constrained"} | kwargs
    return plt.subplots(rows, columns, **size)


def save(run: SimpleNamespace, fig: Any, name: str = "") -> None:
    """Write a figure as SVG, the same bytes every time; a notebook shows it by itself."""
    path = run.out / f"{run.name}{name and '_'}{name}.svg"
    fig.savefig(path, metadata={"Date": None})
    print(f"figure: {path.name}")


def band(ax: Any, x: Any, values: Any, style: str, label: str, **kwargs: Any) -> None:
    """Draw the median over the seeds as a line, and their range as a band."""
    low, middle, high = np.min(values, 0), np.median(values, 0), np.max(values, 0)
    (line,) = ax.plot(x, middle, style, label=label, **kwargs)
    ax.fill_between(x, low, high, color=line.get_color(), alpha=0.25, linewidth=0)


def plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10 and so on, in plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def heat(ax: Any, percents: Any, columns: Iterable[str], rows: Iterable[str]) -> Any:
    """Draw a table of percents as colours, with the numbers in them; return the image."""
    image = ax.imshow(percents, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (i, j), percent in np.ndenumerate(percents):
        ink = "black" if percent > 55 else "white"
        ax.text(j, i, f"{percent:.0f}", ha="center", va="center", color=ink)
    ax.set_xticks(range(len(percents[0])), columns)
    ax.set_yticks(range(len(percents)), rows)
    return image
