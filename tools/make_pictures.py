"""Make the pictures of the documentation: run `python tools/make_pictures.py` after a change.

They are laid out by the Graphviz that comes with microbn, so that they are the same everywhere.
"""

from pathlib import Path

import numpy as np

import microbn as mb
from microbn.data import students

docs = Path(__file__).parent.parent / "docs"
x = mb.Tensor(students().features, requires_grad=True, name="x")
gamma = mb.nn.Parameter(np.ones(2), name="gamma")
beta = mb.nn.Parameter(np.zeros(2), name="beta")

mb.draw(mb.batch_norm(x, gamma, beta), engine="wasi").save(docs / "batch_norm.svg")
