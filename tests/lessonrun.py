"""Running examples and lessons as their reader does: what the tests of all of them share."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETTINGS = {"PYTHONUTF8": "1", "MPLBACKEND": "Agg"}
SETTINGS |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run_example(name, folder, *options, timeout=120):
    """Run an example in a folder, with warnings as errors; return its text."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / f"{name}.py", *options],
        env=os.environ | {"PYTHONPATH": path} | SETTINGS,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def files_in(folder):
    """Return what the files of a folder hold, by name."""
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def run_lesson(name, folder):
    """Run a lesson in a folder, in short; return its text and its files."""
    text = run_example(name, folder, "--quick", "--out", "results", timeout=300)
    return text, files_in(Path(folder) / "results")


@functools.cache
def lesson_run(name):
    """Run a lesson once, however many tests look at it; return text, files, and claims by id."""
    with tempfile.TemporaryDirectory() as folder:
        text, files = run_lesson(name, folder)
    facts = json.loads(files[f"{name}.json"])
    assert (facts["lesson"], facts["quick"]) == (name, True)
    claims = {claim["claim"]: claim for claim in facts["claims"]}
    assert len(claims) == len(facts["claims"])
    return text, files, claims


def line_of(claim):
    """Return the line that a lesson prints of a claim."""
    limits = f" ({claim['limits']})" if "limits" in claim else ""
    assert bool(limits) == (claim["verdict"] == "holds within limits")
    return f"{claim['claim']}: {claim['verdict']}{limits}. {claim['measured']}"


def full_run(name):
    """Return the claims by id that the full run of a lesson reported, which is shown in docs."""
    facts = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text("utf-8"))
    assert (facts["lesson"], facts["quick"]) == (name, False)
    return {claim["claim"]: claim for claim in facts["claims"]}
