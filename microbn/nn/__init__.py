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

from . import init
from .activations import GELU, Dropout, Flatten, Identity, ReLU, Sigmoid, Tanh
from .convolution import AvgPool2d, Conv2d, MaxPool2d
from .folding import fold, fold_batch_norm
from .linear import Linear
from .module import Module, StateError
from .normalisation import GroupNorm, LayerNorm, RMSNorm
from .parameter import Parameter
from .running import BatchNorm1d, BatchNorm2d, InstanceNorm1d, InstanceNorm2d
from .sequential import ModuleList, Sequential
from .statistics import update_batch_norm

__all__ = [
    "GELU",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GroupNorm",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "LayerNorm",
    "Linear",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "StateError",
    "Tanh",
    "fold",
    "fold_batch_norm",
    "init",
    "update_batch_norm",
]
