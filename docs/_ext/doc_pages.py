"""The pages of the tutorial, made of the programs in ``examples`` before Sphinx reads anything.

There are two kinds. A lesson has its text in ``# %% [markdown]`` cells and becomes a notebook,
which myst-nb runs. Any other program is run here; its page shows the code, what it printed, and the
files that it wrote: a page to step through, a picture. Pages are ``tutorial/NN_name``, files
``_static/made``; git ignores both.
"""

from __future__ import annotations

import ast
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jupytext
import nbformat
from doc_findings import CLAIMS, escape, read_results, verdict
from matplotlib import font_manager
from sphinx.application import Sphinx
from sphinx.util import logging

import microbn as mb

logger = logging.getLogger(__name__)
PROGRAM = "[0-9][0-9]_*"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
WEIGHTS = (1.0, 2.0, "gamma"), (0.0, 3.0, "beta")
SETTINGS = """\
c.HistoryManager.enabled = False
c.IPKernelApp.log_level = "ERROR"
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.print_figure_kwargs = {"metadata": {"Date": None}}
"""


def generate(app: Sphinx) -> None:
    """Write all pages, and say how lessons are run: short, and with `lesson` to be imported."""
    docs = Path(app.srcdir)
    examples, pages, made = docs.parent / "examples", docs / "tutorial", docs / "_static" / "made"
    made.mkdir(parents=True, exist_ok=True)
    environment(app, examples)
    current = set()
    for script in sorted(examples.glob(f"{PROGRAM}.py")):
        if is_lesson(script):
            current.add(write(pages / f"{script.stem}.ipynb", lesson_page(script, docs, made)))
        else:
            current.add(write(pages / f"{script.stem}.md", example_page(script, made)))
    for page in [*pages.glob(f"{PROGRAM}.md"), *pages.glob(f"{PROGRAM}.ipynb")]:
        if page not in current:
            page.unlink()
    shutil.copy(examples / "lesson.py", made)
    pictures(made)


def environment(app: Sphinx, examples: Path) -> None:
    """Set what the kernels of the notebooks find in their environment."""
    profile = Path(app.doctreedir) / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    write(profile / "ipython_kernel_config.py", SETTINGS)
    results = Path(app.doctreedir) / "results"
    results.mkdir(exist_ok=True)
    found = os.environ.get("PYTHONPATH", "")
    if str(examples) not in found.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(examples), found]))
    os.environ |= {
        "IPYTHONDIR": str(profile.parent),
        "MICROBN_OUT": str(results),
        "MICROBN_QUICK": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OMP_NUM_THREADS": "1",  # small matrices: threads only wait for each other
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    font_manager.findfont("DejaVu Sans")  # the first call says that it builds a cache


def is_lesson(script: Path) -> bool:
    """Whether the program is a notebook in the percent format."""
    return script.read_text("utf-8").startswith("# %% [markdown]")


def write(path: Path, text: str) -> Path:
    """Write a file unless it says so already: what is not touched is not read and run again."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


# Lessons ------------------------------------------------------------------------------------------


SHORT = (
    "*The numbers and figures on this page are from a short run, with fewer seeds, epochs or "
    "trials. The text speaks of the full run; what that has found stands "
    "[at the end](#the-full-run).*"
)


def lesson_page(script: Path, docs: Path, made: Path) -> str:
    """Return the notebook of a lesson, with what its full run has found; keep one to download."""
    notebook = jupytext.read(script)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"  # else they are random
        cell.metadata = nbformat.from_dict({})
        if re.search(r"lesson\.figure\([^)]", cell.source):  # of several parts, or of its own size
            cell.metadata = nbformat.from_dict({"mystnb": {"image": {"classes": "wide"}}})
    write(made / f"{script.stem}.ipynb", nbformat.writes(notebook) + "\n")
    notebook.cells[0].source = f"# {number(script.stem)}. " + notebook.cells[0].source[2:]
    found = read_results(docs, script.stem)
    if found:
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(SHORT, id="short-run"))
    for i, text in enumerate(after(script.stem, docs, found)):
        notebook.cells.append(nbformat.v4.new_markdown_cell(text, id=f"after-{i}"))
    return str(nbformat.writes(notebook)) + "\n"


def after(name: str, docs: Path, found: list[dict[str, str]]) -> Iterator[str]:
    """Yield what stands below a lesson: what its full run has found, and how to take it along."""
    if found:
        rows = "".join(
            f"| {escape(c['claim'])} | {escape(CLAIMS.get(c['claim'], ''))} "
            f"| {verdict(c)} <br>{escape(c['measured'])} |\n"
            for c in found
        )
        figures = "".join(
            f"\n![A figure of the full run]({os.path.relpath(figure, docs / 'tutorial')})"
            f"{'{.wide}' if is_wide(figure) else ''}\n"
            for figure in sorted((docs / "results").glob(f"{name}*.svg"), key=shown(name, docs))
        )
        yield (
            "## The full run\n\n"
            "This page was built with a short run of the lesson; numbers and figures above are "
            f"from that one. The full run, `python examples/{name}.py`, found:\n\n"
            "```{rst-class} claims\n```\n\n"
            f"| | claim | what was measured |\n|---|---|---|\n{rows}{figures}\n"
            "[All claims](/claims.md) in one table."
        )
    yield (
        "## Take it with you\n\n"
        f"{{download}}`{name}.ipynb </_static/made/{name}.ipynb>` is this lesson as a notebook; "
        "put {download}`lesson.py </_static/made/lesson.py>` beside it. It needs Jupyter, and "
        "microbn with the extra `examples`. It does the full run, or the short one if there is "
        "`MICROBN_QUICK=1` in the environment, and writes its figures and results beside itself. "
        f"`examples/{name}.py` is the same as a program."
    )


def number(name: str) -> int:
    """Return the number of a program, such as 4 of ``04_batch_norm``."""
    return int(name.partition("_")[0])


def is_wide(figure: Path) -> bool:
    """Whether a figure is too wide to be read on a phone as it is."""
    width = re.search(r'width="([\d.]+)pt"', figure.read_text("utf-8"))
    return width is not None and float(width[1]) > 400


def shown(name: str, docs: Path) -> Callable[[Path], int]:
    """Return the place in a lesson at which a figure is saved, for sorting."""
    source = (docs.parent / "examples" / f"{name}.py").read_text("utf-8")
    return lambda figure: source.find(f'"{figure.stem.removeprefix(f"{name}_")}"')


# Other programs -----------------------------------------------------------------------------------


def example_page(script: Path, made: Path) -> str:
    """Run a program and return its page, in Markdown."""
    source = script.read_text("utf-8")
    tree = ast.parse(source)
    question, _, text = ast.get_docstring(tree).partition("\n")
    code = "\n".join(source.splitlines()[tree.body[0].end_lineno :])
    options = ["--quick"] if '"--quick"' in source else []
    printed = run(script, options, made)
    command = " ".join(["python", f"examples/{script.name}", *options])
    parts = [
        f"# {number(script.stem)}. {escape(question)}",
        escape(text.strip()),
        f"## The program\n\n````python\n{code.strip()}\n````",
        f"## What it prints\n\nRun by `{command}`:\n\n````text\n{printed.rstrip()}\n````",
    ]
    if (made / f"{script.stem}.html").exists():
        parts.append(f"## Step through it\n\n{frame(f'../_static/made/{script.stem}.html')}")
    if (made / f"{script.stem}.svg").exists():
        picture = f"![The graph of {script.name}](/_static/made/{script.stem}.svg){{.drawn}}"
        parts.append(f"## The picture\n\n{picture}")
    return "\n\n".join(parts) + "\n"


def run(script: Path, options: list[str], made: Path) -> str:
    """Run a program elsewhere, keep what it has written, and return what it has printed."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, script, *options],
            cwd=folder,
            env=os.environ | {"MPLBACKEND": "Agg", "COLUMNS": "96", "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} failed:\n{done.stderr}")
        for path in Path(folder).iterdir():
            if path.suffix in (".html", ".svg"):
                shutil.move(path, made / path.name)
    return done.stdout


def frame(path: str) -> str:
    """Return a frame with a stepping page."""
    address = html.escape(path, quote=True)
    return (
        f'<iframe class="stepping" src="{address}" title="A page to step through" loading="lazy">'
        f"</iframe>\n\n"
        f'<p class="below">Click into it, then use the arrow keys; <kbd>?</kbd> lists all keys. '
        f'<a href="{address}">On a page of its own</a>.</p>'
    )


def pictures(made: Path) -> None:
    """Draw what the front page shows, for light and for dark screens."""
    x = mb.Tensor(mb.data.students().features, requires_grad=True, name="x")
    gamma, beta = (mb.nn.Parameter([a, b], name=name) for a, b, name in WEIGHTS)
    y = mb.batch_norm(x, gamma, beta)
    for theme in "light", "dark":
        mb.draw(y, values=False, theme=theme).save(made / f"front_{theme}.svg")


def tidied(app: Sphinx, name: str, source: list[str]) -> None:
    """Let links to a README lead to the page in its place, and end code before an empty line.

    That line is for the doctests: without it, the fence would be part of what is expected.
    """
    text = source[0].replace("(../examples/README.md)", "(/tutorial/index.md)")
    source[0] = re.sub(
        r"^(```python\n(?:(?!```).*\n)*?)\n+```$", r"\1```", text, flags=re.MULTILINE
    )


def included(app: Sphinx, path: Path, name: str, source: list[str]) -> None:
    """Do so in a file that a page includes."""
    source[0] = source[0].replace("(examples/README.md)", "(/tutorial/index.md)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the pages once the settings are known."""
    app.connect("builder-inited", generate)
    app.connect("source-read", tidied)
    app.connect("include-read", included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
