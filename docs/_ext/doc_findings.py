"""What is claimed of batch norm, and how what was found of it is written on pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sphinx.util import logging

logger = logging.getLogger(__name__)

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
    "A5": "gamma and beta have one entry per feature: two vectors, each the size of a bias.",
    "A6": "With gamma = sqrt(var + eps) and beta = mu the layer does nothing, so it can be undone.",
    "A7": "Behind a linear layer statistics are taken for each feature; behind a convolution for "
    "each channel, over batch, height and width.",
    "A8": "It goes between the linear layer and the activation of hidden layers; behind the "
    "activation about as many images are read right.",
    "A9": "Four students, cgpa and iq: a batch small enough to be followed by hand.",
    "A10": "Normalising the output layer as well, as some notes do, does no harm.",
    "B1": "Batch norm is made of mean, sub, pow, sqrt, mul and add, and its backward pass follows "
    "from theirs.",
    "B2": "z reaches the output directly, through the mean and through the variance; the part "
    "through the mean in the variance sums to zero.",
    "B3": "The derivation by hand has three usual forms: in stages, as in the paper of 2015, and "
    "closed.",
    "B4": "Composed and hand-written gradients agree, for second derivatives too.",
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
    "E4": "A forgotten eval mode, or small batches, change what a trained network says.",
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
    "G2": "The larger the mini-batch, the weaker the noise: it falls as 1 / sqrt(m).",
    "G3": "It regularises slightly, similarly to dropout.",
    "G4": "Dropout multiplies; one text says that it adds noise, which it does not.",
    "erratum 1": "sqrt(var - eps) does as well as sqrt(var + eps).",
    "erratum 2": "sigma + eps does as well as sqrt(var + eps).",
}


def read_results(docs: Path, name: str) -> list[dict[str, str]]:
    """Return what the full run of a lesson has reported of each claim, nothing if there is none."""
    path = docs / "results" / f"{name}.json"
    if not path.exists():
        return []
    facts = json.loads(path.read_text("utf-8"))
    if facts["quick"]:
        logger.warning("%s is from a short run; it is not shown", path.name)
        return []
    return list(facts["claims"])


def verdict(found: dict[str, str]) -> str:
    """Return a verdict in Markdown, coloured by the style sheet, with its limits."""
    name, limits = found["verdict"], found.get("limits")
    coloured = f"[{name}]{{.verdict .{name.replace(' ', '-')}}}"
    return f"{coloured}: {escape(limits)}" if limits else coloured


def escape(text: str) -> str:
    """Return Markdown that shows the text as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", text)
