"""microbn: a tiny autograd engine over NumPy, in which batch norm is composed from primitives."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import functional, handwritten, ops
from .context import no_grad, scope, stop_gradient
from .engine import backprop, grad
from .functional import batch_norm
from .tensor import Tensor

if TYPE_CHECKING:
    from . import check, data, nn, optim, testing
    from .files import load, save
    from .graph import Graph, draw, steps, trace, tracing
    from .terminal.show import step

__version__ = "0.1.0"

__all__ = [
    "Graph",
    "Tensor",
    "backprop",
    "batch_norm",
    "check",
    "data",
    "draw",
    "functional",
    "grad",
    "handwritten",
    "load",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "save",
    "scope",
    "step",
    "steps",
    "stop_gradient",
    "testing",
    "trace",
    "tracing",
]

# Loaded when first asked for, so that `import microbn` imports NumPy alone.
_LAZY = dict.fromkeys(("check", "data", "nn", "optim", "testing"), "")
_LAZY["step"] = ".terminal.show"
_LAZY |= dict.fromkeys(("load", "save"), ".files")
_LAZY |= dict.fromkeys(("Graph", "draw", "steps", "trace", "tracing"), ".graph")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'microbn' has no attribute {name!r}")
    if _LAZY[name]:
        return getattr(import_module(_LAZY[name], __name__), name)
    return import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
