"""Checking: is a gradient right, and if not, what is wrong with it?"""

from .compare import compare
from .comparison import Comparison
from .diagnose import Diagnosis, diagnose
from .gradcheck import gradcheck
from .laws import Laws, laws
from .match import GradientMismatch, assert_gradients_match
from .null import null_paths

__all__ = [
    "Comparison",
    "Diagnosis",
    "GradientMismatch",
    "Laws",
    "assert_gradients_match",
    "compare",
    "diagnose",
    "gradcheck",
    "laws",
    "null_paths",
]
