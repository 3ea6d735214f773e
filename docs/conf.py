"""The site, for Sphinx: ``sphinx-build -W docs docs/_build``, in the root of the repository.

What is particular to it lies in ``_ext``. The pages of the tutorial are made from ``../examples``
before anything is read; see ``_ext/doc_pages.py``.
"""

import sys
from pathlib import Path

import microbn

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "microbn"
author = "the authors of microbn"
version = release = microbn.__version__

extensions = [
    "myst_nb",  # Markdown, and notebooks that are run when the site is built
    "sphinx.ext.autodoc",
    "doc_claims",
    "doc_math",
    "doc_pages",
    "doc_reference",
]
exclude_patterns = [
    *("_build", "_ext", "_static", "jupyter_execute"),  # made, or no pages
    *("comparison", "gallery", "results", "README.md"),
]
smartquotes = False  # they would make a dash of the option --quick
default_role = "py:obj"  # `name` in a docstring
nitpicky = True  # a reference to nothing is an error, but for these:
nitpick_ignore_regex = [
    ("py:obj", r"(numpy|torch|safetensors)\..*"),  # their documentation is elsewhere
    ("py:obj", r".*[^\w.].*"),  # no names, but code, such as `(y, cache)`
    ("py:obj", r"dot|stage"),  # a program, a placeholder
    ("py:obj", r"repr|faults|Reference|Row|check_precision|slope_error|microbn\.graph\.nullpaths"),
]  # the last are not public, and mentioned where the curious may look

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "auto"
nb_execution_in_temp = True  # files that a lesson writes are not kept
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell may take: continuous integration may be busy
nb_output_stderr = "remove-warn"  # a warning of NumPy's in a lesson is an error here
nb_merge_streams = True
nb_render_image_options = {"alt": "A figure, drawn by the code above"}

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say in words what is taken and given
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = False

html_theme = "furo"
html_title = "microbn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1e3a8a", "color-brand-content": "#1d4ed8"},
    "dark_css_variables": {"color-brand-primary": "#93c5fd", "color-brand-content": "#93c5fd"},
    "navigation_with_keys": False,  # the arrow keys belong to the stepping pages
}
