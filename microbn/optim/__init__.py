"""Update rules: what to do with the gradients that `backward` left in the parameters."""

from .optimizer import Optimizer
from .sgd import SGD

__all__ = ["SGD", "Optimizer"]
