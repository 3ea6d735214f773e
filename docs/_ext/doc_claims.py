"""The table of claims: what they say is here, what was found of them in ``results/*.json``.

``{claims}`` puts the whole table into a page. Lessons and tests are found by their names.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from doc_pages import escape, read_results, verdict
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SECTIONS = {
    "A": "The transform",
    "B": "The graph and its gradients",
    "C": "The bias before it",
    "D": "Training with mini-batches",
    "E": "Test time",
    "F": "Why it works",
    "G": "As a regulariser",
    "": "Misprints",
}

CLAIMS = {
    "A1": "The mean and the variance are taken for each feature, over the examples of the batch; "
    "the variance divides by m.",
    "A2": "After (z - mu) / sqrt(var + eps) a feature has mean 0 and variance var / (var + eps), "
    "which is not quite 1.",
    "A3": "After gamma and beta it has mean beta and a standard deviation close to |gamma|, "
    "whatever the weights before it were.",
    "A4": "gamma and beta are parameters, learned as weights are; eps and the momentum of the "
    "running averages are hyperparameters.",
    "A5": "gamma and beta have one entry a feature: two vectors, each the size of a bias.",
    "A6": "With gamma = sqrt(var + eps) and beta = mu the layer does nothing, so a network can "
    "undo it.",
    "A7": "Behind a linear layer statistics are taken for each feature; behind a convolution for "
    "each channel, over batch, height and width.",
    "A8": "It goes between the linear layer and the activation of hidden layers; behind the "
    "activation it does about as well.",
    "A9": "Four students, cgpa and iq: a batch small enough to be followed by hand.",
    "A10": "The output layer is normalised as well, say some notes; others leave it out.",
    "B1": "Batch norm is made of mean, sub, pow, sqrt, mul and add, and its backward pass follows "
    "from theirs.",
    "B2": "z reaches the output directly, through the mean and through the variance; the part "
    "through the mean in the variance sums to zero.",
    "B3": "The derivation by hand has three usual forms: in stages, as in the paper of 2015, and "
    "closed.",
    "B4": "Composed and hand-written gradients agree, stage by stage.",
    "B5": "A wrong backward pass can be told from a right one, and what is wrong with it be named.",
    "B6": "The gradient of z sums to zero in each column, and is orthogonal to z_norm as eps goes "
    "to 0: it is blind to shift and scale.",
    "C1": "A bias just before batch norm does nothing: the mean takes it out again.",
    "C2": "So a layer has w, gamma and beta to learn: one vector more than w and b, not two.",
    "D1": "Training goes mini-batch by mini-batch: forward with batch norm, loss, backward for w, "
    "gamma and beta, update.",
    "D2": "It works with gradient descent, momentum, RMSprop and Adam.",
    "D3": "It works with sigmoid, tanh and ReLU.",
    "D4": "The same loss is reached in fewer epochs.",
    "D5": "A wider range of learning rates works, higher ones included.",
    "D6": "Less depends on how the weights were initialised.",
    "D7": "It helps with gradients that vanish or explode.",
    "E1": "Running averages of mean and variance, kept in training, are used at test time; a "
    "single example is no problem then.",
    "E2": "A batch of one has no variance: in training it must be refused.",
    "E3": "At test time the layer is a fixed scale and shift, which the layer before it can do; "
    "in training it is not.",
    "E4": "Forgetting eval mode, or small batches, change what a trained network says.",
    "F1": "Normalising makes elongated contours of the loss round.",
    "F2": "The landscape of the loss becomes smoother.",
    "F3": "The inputs of a layer stop moving while the layers before it learn.",
    "F4": "Without it, weights have to follow the distributions of different batches.",
    "F5": "gamma and beta change little after the first epoch; the weights go on changing.",
    "F6": "gamma and beta are needed: standardising alone does worse, and leaves a sigmoid in its "
    "linear part.",
    "F7": "It helps when the test data look different from the training data.",
    "F8": "Layers become less coupled.",
    "F9": "Activations keep to a smaller range of values.",
    "F10": "gamma and beta help because they add capacity.",
    "G1": "The statistics of a mini-batch are noisy estimates; the noise multiplies, and it adds.",
    "G2": "The larger the mini-batch, the weaker the noise.",
    "G3": "It regularises slightly, similarly to dropout.",
    "G4": "Dropout is noise that adds, says one text. It multiplies.",
    "erratum 1": "One text divides by sqrt(var - eps).",
    "erratum 2": "One text divides by sigma + eps.",
}


class Claims(SphinxDirective):
    """All claims with what was found, a table for each section."""

    def run(self) -> list[nodes.Node]:
        """Write the tables as Markdown and read that."""
        docs = Path(self.env.srcdir)
        self.env.note_reread()  # results may have come since
        rows = defaultdict(dict)
        for path in sorted((docs / "results").glob("*.json")):
            for found in read_results(docs, path.stem):
                rows[found["claim"]].setdefault(path.stem, []).append(found)
        lines = []
        for letter, title in SECTIONS.items():
            names = [n for n in {**CLAIMS, **rows} if section(n) == letter]
            if names:
                head = ["| | claim | what was measured | where |", "|---|---|---|---|"]
                lines += ["", f"## {title}", "", "```{rst-class} claims", "```", "", *head]
                lines += [row(docs, name, rows.get(name, {})) for name in names]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def section(name: str) -> str:
    """Return the letter of a claim, such as A of A10, or "" if it has none."""
    letter, number = name[:1], name[1:]
    return letter if letter in SECTIONS and number.isdigit() else ""


def row(docs: Path, name: str, found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the row of one claim."""
    claim = escape(CLAIMS.get(name, ""))
    head = f"| {escape(name)} | {claim} "
    if found:
        facts = [f for several in found.values() for f in several]
        lines = (f"{verdict(f['verdict'])} <br>{escape(f['measured'])}" for f in facts)
        measured = "<br>".join(lines)
        where = "<br>".join(place(docs, lesson, tests(docs, lesson)) for lesson in found)
    else:
        measured, where = verdict("not yet"), ""
    return f"{head}| {measured} | {where} |"


def place(docs: Path, page: str, names: list[str]) -> str:
    """Return a link to a page of the tutorial, if there is one, and the names of the tests."""
    (number, _, title) = page.partition("_")
    exists = any((docs / "tutorial" / f"{page}.{form}").exists() for form in ("md", "ipynb"))
    text = f"{number} {title.replace('_', ' ')}"
    link = f"{{doc}}`{text} </tutorial/{page}>`" if exists else text
    return "<br>".join([link, *(f"`{name}`" for name in names)])


def tests(docs: Path, lesson: str) -> list[str]:
    """Return the names of the files that test a lesson: those that mention it."""
    files = sorted((docs.parent / "tests").glob("test_lesson*.py"))
    return [path.name for path in files if lesson in path.read_text("utf-8")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the directive."""
    app.add_directive("claims", Claims)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
