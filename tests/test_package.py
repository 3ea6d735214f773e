"""What holds for the package as a whole: what importing it costs, and that its core stays small."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import microbn as mb

ROOT = Path(mb.__file__).parent
PROJECT = ROOT.parent / "pyproject.toml"
CORE = ("ops", "engine", "context", "tensor", "functional")


def modules_after(statement):
    """The top-level modules that ``statement`` loads beyond those of a bare Python."""
    script = (
        f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_importing_it_imports_numpy_and_nothing_else_that_is_installed():
    ours = modules_after("import microbn") - modules_after("import numpy")
    assert {name for name in ours if name not in sys.stdlib_module_names} == {"microbn"}


@pytest.mark.parametrize("name", mb.__all__)
def test_every_public_name_is_there_when_it_is_asked_for(name):
    assert getattr(mb, name) is not None
    assert name in dir(mb)


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'microbn' has no attribute 'batchnorm'"):
        mb.batchnorm  # noqa: B018


def test_the_core_can_be_read_in_one_sitting():
    lines = {name: len((ROOT / f"{name}.py").read_text().splitlines()) for name in CORE}
    assert sum(lines.values()) < 1000, lines


def test_the_core_imports_downward_only():
    allowed = {
        "kernels": set(),
        "errors": set(),
        "context": {"errors"},
        "mirror": {"context"},
        "cody": {"kernels"},
        "subscripts": {"kernels"},
        "ops": {"cody", "kernels", "subscripts"},
        "node": {"kernels", "ops"},
        "activations": {"context", "errors", "kernels", "ops"},
        "convolution": {"context", "errors", "kernels", "ops"},
        "losses": {"context", "errors", "kernels"},
        "statistics": {"errors", "kernels"},
        "functional": {"activations", "context", "convolution", "errors", "kernels", "losses"}
        | {"ops", "statistics"},
        "dispatch": {"context", "errors", "kernels", "node", "ops", "statistics"},
        "engine": {"context", "dispatch", "errors", "kernels", "mirror", "node", "ops"},
    }
    for module, below in allowed.items():
        text = (ROOT / f"{module}.py").read_text()
        lines = [line.split() for line in text.splitlines() if line.startswith("from .")]
        found = set()
        for words in lines:
            names = [w.strip(",()") for w in words[3:]] if words[1] == "." else [words[1][1:]]
            found |= set(names)
        assert found <= below, module


@pytest.mark.skipif(not PROJECT.exists(), reason="not in a copy of the repository")
def test_the_version_is_that_of_the_project():
    assert tomllib.loads(PROJECT.read_text())["project"]["version"] == mb.__version__
