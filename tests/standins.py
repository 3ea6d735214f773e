"""A program that stands in for Graphviz's dot."""

import os
import sys

import pytest


def fake_dot(folder, monkeypatch, body, start=f"#!{sys.executable}\n"):
    """Put a program `dot` on PATH, alone."""
    if os.name != "posix":
        pytest.skip("the stand-in for dot is a script with a #! line")
    program = folder / "dot"
    program.write_text(f"{start}import sys, time\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
