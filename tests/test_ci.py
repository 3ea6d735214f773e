"""Continuous integration fails on a skip that nobody expects."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = {
    "a test": """
        import pytest
        def test_skipped():
            pytest.skip("tired")
        """,
    "a marked test": """
        import pytest
        @pytest.mark.skipif(True, reason="tired")
        def test_skipped(): ...
        """,
    "a module": """
        import pytest
        pytest.skip("tired", allow_module_level=True)
        """,
    "expected": """
        import pytest
        def test_dot():
            pytest.skip("dot is not on PATH")
        @pytest.mark.xfail
        def test_known():
            assert False
        """,
}


@pytest.mark.parametrize("in_ci", [True, False])
@pytest.mark.parametrize("case", TESTS)
def test_an_unexpected_skip_fails_in_ci_alone(case, in_ci, tmp_path):
    body = "\n".join(line[8:] for line in TESTS[case].splitlines())
    (tmp_path / "test_it.py").write_text(body)
    (tmp_path / "test_other.py").write_text("def test_passes(): ...\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copy(HERE / "conftest.py", tmp_path)
    environment = {k: v for k, v in os.environ.items() if k != "MICROBN_CI"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)],
        env=environment | ({"MICROBN_CI": "1"} if in_ci else {}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    fails = in_ci and case != "expected"
    assert done.returncode == (1 if fails else 0), done.stdout
    assert ("UNEXPECTED SKIP test_it.py" in done.stdout) == fails
    assert (": tired" in done.stdout) == fails


def test_the_readme_has_the_command_that_ci_runs():
    if not (ci := HERE.parent / ".ci" / "run").exists():  # as in an unpacked sdist
        return
    pattern = "^python3 -m venv .* -m pytest$"
    assert f"grep -m 1 '{pattern}' README.md" in ci.read_text("utf-8")
    lines = (HERE.parent / "README.md").read_text("utf-8").splitlines()
    (command,) = [s for s in lines if s.startswith("python3 -m venv") and s.endswith("-m pytest")]
    assert '.venv/bin/pip install -e ".[test]"' in command
