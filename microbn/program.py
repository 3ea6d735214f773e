"""Running a program of the user's, to look at what it computed."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .graph import Trace, trace, tracing
from .tensor import Tensor

PACKAGE = Path(__file__).parent


class ProgramError(Exception):
    """A program that cannot be run, or that failed: the message is what its user should read."""


def run(target: str) -> Trace:
    """Run ``FILE.py`` as a script, or import it and call a function: ``FILE.py:function``.

    After the colon there may also be the name of a Tensor that the script leaves behind. Raises a
    ProgramError if there is no such file, function or Tensor, if the function wants arguments, if
    nothing was computed, or, with its own traceback, if the program fails.
    """
    path, name = _parts(target)
    if not name or not _defines(path, name):
        return _script(path, name)
    with _as_its_own(path):
        function = getattr(_load(path), name)
        if needed := _required(function):
            raise ProgramError(
                f"{name} takes {', '.join(needed)}, and microbn has nothing to give it; write a "
                "function without arguments that calls it, or a script"
            )
        return trace(function)


def _parts(target: str) -> tuple[Path, str]:
    """Split off what follows the last colon, unless that is part of the path."""
    file, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier() or Path(target).exists():
        file, name = target, ""
    path = Path(file)
    if not path.is_file():
        raise ProgramError(f"there is no file {str(path)!r}")
    return path, name


def _defines(path: Path, name: str) -> bool:
    """Whether the file defines a function of that name, which importing it gives."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return False  # running it will say what is wrong
    return any(isinstance(part, ast.FunctionDef) and part.name == name for part in body)


def _script(path: Path, name: str) -> Trace:
    variables: dict[str, Any] = {}
    with tracing() as found, _as_its_own(path):
        variables = runpy.run_path(str(path), run_name="__main__")
    if name:
        found.output = variables.get(name)
        if not found.outputs:
            tensors = ", ".join(k for k, v in variables.items() if isinstance(v, Tensor))
            raise ProgramError(
                f"{path.name} has no function and leaves no Tensor called {name!r}; "
                f"the Tensors that it leaves are: {tensors or 'none'}"
            )
    if not found.outputs:
        raise ProgramError(
            f"{path.name} computed nothing with Tensors, so there is nothing to look at"
        )
    return found


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ProgramError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _required(function: object) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


@contextmanager
def _as_its_own(path: Path) -> Iterator[None]:
    """Run the program as Python would: with its own arguments, imports and tracebacks."""
    arguments, places = sys.argv, list(sys.path)
    sys.argv = [str(path)]
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        yield
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise ProgramError(f"{path.name} stopped with {stop.code!r}") from None
    except ProgramError:
        raise
    except Exception as error:
        raise ProgramError(f"{path.name} failed:\n\n{_traceback(error, path)}") from None
    finally:
        sys.argv, sys.path[:] = arguments, places


def _traceback(error: Exception, path: Path) -> str:
    """Write the traceback that the program would have had, without the inside of microbn."""
    shown = traceback.TracebackException.from_exception(error)
    lines = list(shown.stack)
    own = [k for k, line in enumerate(lines) if Path(line.filename).resolve() == path.resolve()]
    lines = lines[own[0] :] if own else []
    theirs = [line for line in lines if not Path(line.filename).is_relative_to(PACKAGE)]
    if theirs != lines:  # what microbn was told by NumPy is part of its own message
        shown.__cause__, shown.__suppress_context__ = None, True
    shown.stack = traceback.StackSummary.from_list(theirs)
    return "".join(shown.format()).rstrip()
