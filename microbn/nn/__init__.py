"""Layers with PyTorch's names, shapes and defaults, composed of microbn's functions.

>>> import numpy as np, microbn as mb
>>> rng = np.random.default_rng(0)
>>> model = mb.nn.Sequential(
...     mb.nn.Linear(64, 128, rng=rng), mb.nn.BatchNorm1d(128), mb.nn.ReLU(),
...     mb.nn.Linear(128, 10, rng=rng),
... )
>>> model(rng.standard_normal((32, 64), dtype=np.float32)).shape
(32, 10)
>>> sum(p.size for p in model.parameters())
9866
"""

from .layers import BatchNorm1d, Linear, ReLU
from .module import Module, StateError
from .parameter import Parameter
from .sequential import Sequential

__all__ = ["BatchNorm1d", "Linear", "Module", "Parameter", "ReLU", "Sequential", "StateError"]
