"""The site: it builds without a warning, runs its code, needs no network, and leaves nothing out.

It is built once, in a copy, by a short run of all lessons; that takes a minute or two.
"""

import ast
import doctest
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import microbn as mb

ROOT = Path(__file__).parent.parent
NEEDED = ("sphinx", "furo", "myst_nb", "jupytext", "latex2mathml", "matplotlib", "ipykernel")
SCRIPTS = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
LESSONS = [path for path in SCRIPTS if path.read_text("utf-8").startswith("# %% [markdown]")]
LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
LOADS |= {"audio": "src", "video": "src", "embed": "src", "object": "data", "image": "href"}
PARTS = ("docs", "examples", "tests", "tools", "CHANGELOG.md")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Build it, and return the folder."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra docs is not installed: {', '.join(missing)}")
    copy = tmp_path_factory.mktemp("site")
    made = shutil.ignore_patterns(
        "_build", "made", "jupyter_execute", "[0-9]*.md", "[0-9]*.ipynb", "__pycache__"
    )
    for name in PARTS:
        target = copy / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=made)
        else:
            shutil.copy(ROOT / name, target)
    built = copy / "built"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(built)]
    found = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        command,
        cwd=copy,
        env=os.environ | {"PYTHONPATH": found, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    return built


class Page(HTMLParser):
    """What a page loads, which addresses it links to, which anchors it has."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.text, self.style, self.inside = "", "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        value = attrs.get(LOADS.get(tag, ""))
        if value and not (tag == "link" and attrs.get("rel") in ("canonical", "search")):
            self.loads.append(value)
        self.loads += [part.split()[0] for part in (attrs.get("srcset") or "").split(",") if part]
        self.style += attrs.get("style") or ""
        if tag in ("style", "script"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.inside:
            self.inside.remove(tag)

    def handle_data(self, data):
        if "style" in self.inside:
            self.style += data
        elif "script" not in self.inside:
            self.text += data


@pytest.fixture(scope="session")
def pages(site):
    """Every page of the site, by its path."""
    paths = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    assert len(paths) > 30
    return {path: Page(path.read_text("utf-8")) for path in paths}


def is_elsewhere(address):
    return address.startswith("//") or urlsplit(address).scheme not in ("", "data")


def test_no_page_loads_anything_from_another_host(site, pages):
    for path, page in pages.items():
        assert not [a for a in page.loads if is_elsewhere(a)], path
        assert "url(http" not in page.style.replace(" ", ""), path
    sheets = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert len(sheets) > 3
    for text in sheets:
        loads = re.findall(r"url\(\s*['\"]?([^'\")]+)", text) + re.findall(
            r"@import\s+['\"]([^'\"]+)", text
        )
        assert not [a for a in loads if is_elsewhere(a)]


def test_stepping_pages_may_load_nothing_at_all(site):
    stepping = sorted((site / "_static" / "made").glob("*.html"))
    assert [path.stem[:2] for path in stepping] == [f"0{k}" for k in range(1, 8)]
    for path in stepping:
        assert "default-src 'none'" in path.read_text("utf-8")


def test_every_link_within_the_site_leads_somewhere(site, pages):
    known = {path.resolve(): page.anchors for path, page in pages.items()}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            assert target.exists(), (path, link)
            if parts.fragment and target in known:
                assert unquote(parts.fragment) in known[target], (path, link)


def test_no_page_shows_an_error(pages):
    """But those that are told about, in doctests."""
    for path, page in pages.items():
        text = path.read_text("utf-8")
        assert 'class="output traceback' not in text, path
        assert 'class="output stderr' not in text, path
        assert "system-message" not in text, path
        if path.parent.name in ("tutorial", "explanation"):
            assert "Traceback (most recent call last)" not in page.text, path


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_program_is_a_page_that_shows_what_it_printed(script, site):
    text = (site / "tutorial" / f"{script.stem}.html").read_text("utf-8")
    if script in LESSONS:
        assert "cell_output" in text
        assert "## " not in Page(text).text
        notebook = json.loads((site / "_static/made" / f"{script.stem}.ipynb").read_text("utf-8"))
        code = "\n".join(
            "".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"
        )
        program = (site.parent / "examples" / script.name).read_text("utf-8")
        assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(program))
    else:
        program = ast.parse(script.read_text("utf-8"))
        question, _, introduction = ast.get_docstring(program).partition("\n")
        page = Page(text)
        assert f"{int(script.stem[:2])}. {question}" in page.text
        assert " ".join(introduction.split()) in " ".join(page.text.split())
        listing, printed = page.text.split("The program¶")[-1].split("What it prints¶")
        assert ast.dump(ast.parse(listing)) == ast.dump(ast.Module(program.body[1:], []))
        assert len(printed) > 500
        assert f"_static/made/{script.stem}.html" in text or script.stem == "08_digits"


def test_lessons_show_their_figures(site):
    shown = [
        path.stem
        for path in SCRIPTS
        if path in LESSONS and "lesson.figure(" in path.read_text("utf-8")
    ]
    assert shown
    for name in shown:
        text = (site / "tutorial" / f"{name}.html").read_text("utf-8")
        assert re.search(r'<div class="cell_output.*?<img[^>]*src="[^"]*\.svg"', text, re.DOTALL), (
            name
        )


def test_the_table_of_claims_has_all_that_was_reported(site):
    text = " ".join(Page((site / "claims.html").read_text("utf-8")).text.split())
    for path in sorted((site.parent / "docs" / "results").glob("*.json")):
        facts = json.loads(path.read_text("utf-8"))
        assert not facts["quick"], path.name
        lesson = Page((site / "tutorial" / f"{path.stem}.html").read_text("utf-8"))
        for claim in facts["claims"]:
            limits = f": {claim['limits']}" if "limits" in claim else ""
            found = " ".join(f"{claim['verdict']}{limits} {claim['measured']}".split())
            assert found in text, path.name
            assert found in " ".join(lesson.text.split()), path.name


def test_every_public_name_is_in_the_reference(site):
    text = "".join(path.read_text("utf-8") for path in (site / "reference").glob("*.html"))
    anchors = Page(text).anchors
    modules = {"check", "data", "functional", "handwritten", "nn", "ops", "optim", "testing"}
    wanted = {f"microbn.{name}" for name in set(mb.__all__) - modules - {"batch_norm"}}
    for module in (mb.functional, mb.nn, mb.optim, mb.data, mb.check, mb.testing):
        names = [n for n in module.__all__ if callable(getattr(module, n))]
        wanted |= {f"{module.__name__}.{name}" for name in names}
    wanted |= {f"microbn.nn.init.{name}" for name in vars(mb.nn.init) if name.endswith("_")}
    wanted = {name for name in wanted if "__" not in name}
    wanted -= {"microbn.check.assert_gradients_match"}  # which is that of testing
    assert not {name for name in wanted if name not in anchors}


def test_formulas_are_mathml(site):
    assert (site / "reference" / "ops.html").read_text("utf-8").count("<math ") > 20
    for path in site.rglob("*.html"):
        assert "MathJax" not in path.read_text("utf-8"), path


def test_the_page_on_pytorch_does_what_it_says():
    """Its doctests, those included that are skipped where PyTorch may be missing."""
    pytest.importorskip("torch")
    text = (ROOT / "docs" / "howto" / "pytorch.md").read_text("utf-8")
    assert text.count("# doctest: +SKIP") > 5
    text = text.replace("# doctest: +SKIP", "")
    test = doctest.DocTestParser().get_doctest(text, {}, "pytorch.md", None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test)
    assert runner.failures == 0
    assert runner.tries > 10
