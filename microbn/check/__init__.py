"""Checking: is a gradient right, and if not, what is wrong with it?"""

from .adequacy import Adequacy, adequacy
from .compare import compare
from .comparison import Comparison
from .diagnose import Diagnosis, diagnose
from .gradcheck import gradcheck
from .laws import Laws, laws
from .marked import Marked, backward_of
from .match import GradientMismatch, assert_gradients_match
from .null import null_paths

__all__ = [
    "Adequacy",
    "Comparison",
    "Diagnosis",
    "GradientMismatch",
    "Laws",
    "Marked",
    "adequacy",
    "assert_gradients_match",
    "backward_of",
    "compare",
    "diagnose",
    "gradcheck",
    "laws",
    "null_paths",
]
