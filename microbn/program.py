"""Running a program of the user's, to look at what it computed."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import linecache
import os
import sys
import tokenize
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from .errors import OfCall, describe
from .graph import Source, Trace, tracing
from .graph.frames import is_users
from .graph.step.event import Failure
from .graph.tracer import calling, tensors_in
from .tensor import Tensor

PACKAGE = Path(__file__).parent


class ProgramError(Exception):
    """A program that cannot be run, or that failed: the message is what its user should read.

    ``status`` is what the command exits with, ``failure`` how the program failed, if it did.
    """

    def __init__(self, message: str, status: int = 1, failure: Failure | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.failure = failure


class Ran(NamedTuple):
    """What a program computed, and how it ended: both others are None if all went well.

    ``stopped`` is what it gave to `sys.exit`. If it ``failed``, the outputs of the trace are all
    results that nothing else was computed from by then, the latest last.
    """

    trace: Trace
    stopped: Any = None
    failed: Failure | None = None


def run(
    target: str,
    arguments: Sequence[str] = (),
    *,
    partial: bool = False,
    catch: Callable[[Any], bool] | None = None,
) -> Ran:
    """Run ``FILE.py`` as a script, or import it and call a function: ``FILE.py:function``.

    After the colon there may also be the name of a variable in which the script leaves a Tensor;
    without a name, the output is the result that was computed last. The program finds
    ``arguments`` in sys.argv. Raises a ProgramError if there is no such program, function or
    Tensor, if the function wants arguments or returns no Tensor, if nothing was computed, or, with
    its own traceback, if the program fails. With ``partial``, a program that fails after it has
    computed something, or in a call of Tensors, is no error: what it had computed is returned,
    whatever the name, and the `Failure`. ``catch`` is a test of arrays: `Trace.caught` is the
    first result that passes it.
    """
    path, name = parts(target)
    tree, code = _read(path)
    if any(isinstance(part, ast.FunctionDef) and part.name == name for part in tree.body):
        return _function(path, code, name, arguments, partial, catch)
    return _script(path, code, name, arguments, partial, catch)


def parts(target: str) -> tuple[Path, str]:
    """Split off what follows the last colon, unless that is part of the path."""
    file, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier() or Path(target).exists():
        file, name = target, ""
    path = Path(file)
    if path.is_dir():
        raise ProgramError(f"{str(path)!r} is a folder; give a Python program, FILE.py")
    if not path.is_file():
        raise ProgramError(f"there is no file {str(path)!r}")
    if path.suffix == ".ipynb":  # which is JSON, and that reads as Python
        raise ProgramError(f"{path.name} is no Python program; in a notebook, use mb.draw")
    return path, name


class Imported(NamedTuple):
    """A program that was imported: what it defines, and which names of functions it gives twice."""

    path: Path
    name: str
    namespace: dict[str, Any]
    twice: tuple[str, ...]


@contextlib.contextmanager
def imported(target: str) -> Iterator[Imported]:
    """Import ``FILE.py`` or ``FILE.py:name``, and stay in its place while the block runs.

    Raises a ProgramError as `run` does, also if the program calls `sys.exit`.
    """
    path, name = parts(target)
    tree, code = _read(path)
    defined = Counter(part.name for part in tree.body if isinstance(part, ast.FunctionDef))
    module = ModuleType(path.stem)
    with _in_its_place(path, module, ()):
        try:
            with _as_told(path):
                exec(code, vars(module))
        except SystemExit as stop:
            raise ProgramError(
                f"{path.name} stopped with {stop.code!r} before all of it had been read",
                status_of(stop.code) or 1,
            ) from None
        yield Imported(path, name, vars(module), tuple(n for n, k in defined.items() if k > 1))


def status_of(stopped: Any) -> int:
    """The exit status that `sys.exit` makes of what it is given."""
    if stopped is None or isinstance(stopped, int):
        return int(stopped or 0)
    return 1


def _read(path: Path) -> tuple[ast.Module, CodeType]:
    """Parse and compile a program, which is not run yet, and keep its lines to be quoted."""
    file = str(path)
    try:
        tree = ast.parse(path.read_bytes(), file)
        code = compile(tree, file, "exec", dont_inherit=True)
        with tokenize.open(file) as text:
            lines = text.readlines()
    except OSError as error:
        raise ProgramError(f"cannot read {file!r}: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        if path.suffix in (".py", ".pyw"):
            raise _failed(path, error) from None
        raise ProgramError(f"{path.name} is no Python program") from None
    # Without a time, since the program may go elsewhere, where a relative path leads nowhere.
    linecache.cache[file] = sum(map(len, lines)), None, lines, file
    return tree, code


def _script(
    path: Path, code: CodeType, name: str, arguments: Sequence[str], partial: bool, catch: Any
) -> Ran:
    module, stopped = ModuleType("__main__"), None
    try:
        with tracing() as found, _as_its_own(path, module, arguments):
            found.catch(catch)
            exec(code, vars(module))
    except SystemExit as stop:
        stopped = stop.code or None
    except ProgramError as error:
        return _up_to(error, found, partial)
    found.output = vars(module).get(name) if name else found.output
    if found.outputs:
        return Ran(found, stopped)
    problem = f"{path.name} computed nothing with Tensors, so there is nothing to look at"
    if name:
        tensors = ", ".join(k for k, v in vars(module).items() if isinstance(v, Tensor))
        problem = (
            f"{path.name} has no function and leaves no Tensor called {name!r}; "
            f"the Tensors that it leaves are: {tensors or 'none'}"
        )
    if stopped is None:
        raise ProgramError(problem)
    raise ProgramError(f"{problem}; it stopped with {stopped!r}", status_of(stopped))


def _function(
    path: Path, code: CodeType, name: str, arguments: Sequence[str], partial: bool, catch: Any
) -> Ran:
    module, found = ModuleType(path.stem), None
    try:
        with _as_its_own(path, module, arguments):
            exec(code, vars(module))
            function = _checked(getattr(module, name), f"{name} in {path.name}")
            with calling(function, keep=partial) as found:
                found.catch(catch)
                found.output = function()
    except SystemExit as stop:
        raise ProgramError(
            f"{path.name} stopped with {stop.code!r} before {name} had returned",
            status_of(stop.code) or 1,
        ) from None
    except ProgramError as error:
        return _up_to(error, found, partial)
    return Ran(found)


def _up_to(error: ProgramError, found: Trace | None, partial: bool) -> Ran:
    """Return what there was when a program failed, if that is wanted and anything, or raise."""
    failure = error.failure
    if partial and failure and found and (found.outputs or tensors_in(failure.operands)):
        return Ran(found, failed=failure)
    raise error


def _checked(function: Callable[[], Any], what: str) -> Callable[[], Any]:
    """Refuse a function that takes arguments, and one that returns no Tensor."""
    if needed := _required(function):
        raise ProgramError(
            f"{what} takes {', '.join(needed)}, and microbn has nothing to give it; write a "
            "function without arguments that calls it, or a script"
        )

    @functools.wraps(function)
    def checked() -> Any:
        output = function()
        if not tensors_in(output):
            raise ProgramError(
                f"{what} returned {'None' if output is None else describe(output)}, in which there "
                "is no Tensor; let it return what it computed"
            )
        return output

    return checked


def _required(function: object) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


@contextlib.contextmanager
def _as_its_own(path: Path, module: ModuleType, arguments: Sequence[str]) -> Iterator[None]:
    """Run the program as Python would: with its own arguments, imports and tracebacks."""
    with _in_its_place(path, module, arguments), _as_told(path):
        yield


@contextlib.contextmanager
def _as_told(path: Path) -> Iterator[None]:
    """Tell what the program raises with its own traceback."""
    try:
        yield
    except (ProgramError, BrokenPipeError):
        raise
    except Exception as error:
        raise _failed(path, error) from None


@contextlib.contextmanager
def _in_its_place(path: Path, module: ModuleType, arguments: Sequence[str]) -> Iterator[None]:
    """Let a program find itself, its arguments and what lies beside it."""
    module.__file__ = str(path)
    before = sys.argv, list(sys.path), sys.modules.get(module.__name__)
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[module.__name__] = module
    try:
        with contextlib.chdir(os.getcwd()):  # it may go elsewhere
            yield
    finally:
        sys.argv, sys.path[:], replaced = before
        sys.modules.pop(module.__name__, None)
        if replaced is not None:
            sys.modules[module.__name__] = replaced


def _failed(path: Path, error: Exception) -> ProgramError:
    given = error.operands if isinstance(error, OfCall) else ()
    operands = tuple(a for a in given if isinstance(a, Tensor | np.ndarray))
    failure = Failure(_in_words(error), _innermost(error), own_traceback(error, path), operands)
    return ProgramError(f"{path.name} failed:\n\n{failure.traceback}", failure=failure)


def _in_words(error: Exception) -> str:
    """One paragraph: the type of an error, its text, and its notes."""
    shown = traceback.TracebackException.from_exception(error)  # its text is safe to ask for
    notes = shown.__notes__ if isinstance(shown.__notes__, list | tuple) else ()
    texts = [f"{type(error).__name__}: {shown}", *map(str, notes)]
    return "; ".join(" ".join(text.split()).rstrip(":").removesuffix(".") for text in texts)


def _innermost(error: Exception) -> Source | None:
    """The innermost line of the user's code in a traceback."""
    for line in reversed(traceback.extract_tb(error.__traceback__)):
        if is_users(line.filename):
            return Source(line.filename, line.lineno or 0, line.line or "")
    return None


def own_traceback(error: BaseException, path: Path | None = None) -> str:
    """Write the traceback that the program would have had, without the inside of microbn.

    With a ``path`` it begins in that file. It is empty if no line of the program's is in it.
    """
    shown = traceback.TracebackException.from_exception(error)
    files = [Path(line.filename) for line in shown.stack]
    own = [
        k
        for k, file in enumerate(files)
        if (file.resolve() == path.resolve() if path else not file.is_relative_to(PACKAGE))
    ]
    if path is None and not own:
        return ""
    lines = list(shown.stack)[own[0] :] if own else []
    theirs = [line for line in lines if not Path(line.filename).is_relative_to(PACKAGE)]
    if theirs != lines:  # what microbn was told by NumPy is part of its own message
        shown.__cause__, shown.__suppress_context__ = None, True
    shown.stack = traceback.StackSummary.from_list(theirs)
    return "".join(shown.format()).rstrip()
