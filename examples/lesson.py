"""What the lessons share: options, progress, figures, and what they report of each claim.

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

T = TypeVar("T")

VERDICTS = ("holds", "holds within limits", "does not hold here")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito's
GREY = "#76859B"  # to be read on white and on black

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


def claim(run: SimpleNamespace, name: str, verdict: str, measured: str) -> None:
    """Report what was found of a claim, such as "A2", and write all reports so far to a file."""
    assert verdict in VERDICTS, verdict
    _reported.append({"claim": name, "verdict": verdict, "measured": measured})
    print(f"{name}: {verdict}. {measured}")
    facts = {"lesson": run.name, "quick": run.quick, "claims": _reported}
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (run.out / f"{run.name}.json").write_text(text, encoding="utf-8")


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
