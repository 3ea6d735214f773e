"""Looking into running code: which frames are the user's, and what their variables are called."""

from __future__ import annotations

import inspect
import linecache
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np

from ..errors import SUSPENDS
from ..tensor import Tensor
from .parts import Source

_STDLIB = os.path.dirname(os.__file__)
_PACKAGES = (os.path.dirname(os.path.dirname(__file__)), os.path.dirname(np.__file__))
_INSTALLED = (
    "site-packages",
    "dist-packages",
)  # these may lie inside the standard library's folder
# What a type says of itself, asked so that a metaclass cannot answer in its place.
_MRO, _DICT = (type.__dict__[name].__get__ for name in ("__mro__", "__dict__"))
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")  # frames of their own in Python 3.11


@lru_cache(maxsize=4096)
def is_users(filename: str) -> bool:
    """Whether code of this file is the user's: not microbn's, NumPy's or the standard library's.

    >>> is_users(os.__file__), is_users(np.__file__), is_users("<stdin>"), is_users("train.py")
    (False, False, True, True)
    """
    if filename.startswith(("<frozen ", *(folder + os.sep for folder in _PACKAGES))):
        return False
    inside = filename.startswith(_STDLIB + os.sep)
    return not inside or any(folder in filename.split(os.sep) for folder in _INSTALLED)


def user_frame() -> FrameType | None:
    """The innermost frame that runs code of the user."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def source_of(frame: FrameType) -> Source:
    """The line that a frame is at. Cells of notebooks have theirs in `linecache`, as files do."""
    file, line = frame.f_code.co_filename, frame.f_lineno
    return Source(file, line, linecache.getline(file, line, frame.f_globals).strip())


# What variables are called -----------------------------------------------------------------------


def names_in(frame: FrameType) -> dict[int, str]:
    """Name what the variables of a frame hold, its own first, then the global ones: id -> name.

    Tensors without a name, arrays, and the parameters of modules under their paths, such as
    ``layers.1.weight``. The first variable counts, and none that begins with an underscore. The
    ids are good for as long as the variables hold what they hold.

    >>> h = Tensor([1.0])
    >>> names_in(sys._getframe())[id(h)]
    'h'
    """
    names: dict[int, str] = {}
    for variable, value in [*variables(frame), *frame.f_globals.copy().items()]:
        for held, name in named_by(variable, value):
            if is_better(name, names.get(id(held)) or own_name(held)):
                names[id(held)] = name
    return names


def variables(frame: FrameType) -> list[tuple[str, Any]]:
    """The variables that a frame has at this moment, those of a function or of a module.

    Where these are variables of no function, `f_locals` is not touched: in a class body it can be
    any mapping, and in Python 3.12 looking at it sets the variable of a comprehension to None.
    So there the variables of comprehensions are not seen, in no version.
    """
    code, around = frame.f_code, frame.f_back
    if code.co_name == "<module>":
        return list(frame.f_globals.items())
    if code.co_name in _COMPREHENSIONS and around and not _is_function(around):
        return []
    return list(frame.f_locals.items()) if _is_function(frame) else []


def _is_function(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & inspect.CO_OPTIMIZED)


def named_by(variable: str, value: Any) -> Iterator[tuple[Any, str]]:
    """Yield what a variable gives a name to: a Tensor, an array, the parameters of a module.

    The type alone decides, and no attribute is looked at before: a variable may hold anything.
    """
    kind = type(value)
    if issubclass(kind, Tensor | np.ndarray):
        if variable.isidentifier() and variable[0] != "_" and variable != "self":
            yield value, variable
    elif has_parameters(kind):
        try:
            pairs = [(parameter, str(path)) for path, parameter in value.named_parameters()]
        except Exception:  # code of the user, perhaps of a module that is not finished
            return
        yield from ((p, path) for p, path in pairs if issubclass(type(p), Tensor))


def own_name(value: Any) -> str | None:
    """The name that a Tensor carries; a Tensor that is not finished has none."""
    return getattr(value, "name", None) if issubclass(type(value), Tensor) else None


def is_better(name: str, old: str | None) -> bool:
    """Whether a name may take the place of an old one: if there is none, or as a longer path.

    So ``layers.1.weight`` replaces the ``weight`` that a parameter gets by itself, any name the
    ``d x`` that the engine gives a gradient, and nothing replaces a name that somebody gave.

    >>> is_better("h", None), is_better("layers.1.weight", "weight"), is_better("h", "x")
    (True, True, False)
    """
    return not old or name.endswith(f".{old}") or old.startswith("d ")


def has_parameters(kind: type) -> bool:
    """Whether values of this type have a method ``named_parameters``, as modules do."""
    return any("named_parameters" in _DICT(base) for base in _MRO(kind))


# What is a scope ---------------------------------------------------------------------------------


def scope_name(frame: FrameType) -> str | None:
    """The name of the scope that a call opens, or None for a frame that opens none.

    Those are lambdas, comprehensions, modules and class bodies; what can be suspended, since the
    scope would stay open meanwhile; ``forward`` of a module, which has its scope already.
    """
    code = frame.f_code
    if (
        code.co_name[0] == "<"
        or code.co_flags & SUSPENDS
        or not code.co_flags & inspect.CO_OPTIMIZED
    ):
        return None
    own = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
    if code.co_name == "forward" and has_parameters(type(own)):
        return None
    if code.co_name == "__call__" and "." in code.co_qualname:
        return code.co_qualname.split(".")[-2]
    return code.co_name


def is_wrapper(frame: FrameType) -> bool:
    """Whether it passes on whatever it is given to a function from around it, as decorators do."""
    code = frame.f_code
    takes_all = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if not takes_all or not code.co_freevars or own not in ((), ("self",), ("cls",)):
        return False
    return any(callable(frame.f_locals.get(name)) for name in code.co_freevars)
