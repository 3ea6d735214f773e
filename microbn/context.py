"""What surrounds a computation: whether it is recorded, and the path of names it happens under.

The state is a tuple in a context variable: each thread and asynchronous task has its own. Leaving
a context restores the one before, which the new one remembers: contexts nest, and can be reused.
"""

from __future__ import annotations

from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import Any

from .errors import check_returns

# Whether calls are recorded (True, False, or a tracer, which records them all and takes notes), the
# scope they are made in, and the state before this one.
State = tuple[Any, tuple[str, ...], Any]
START: State = (True, (), None)
state: ContextVar[State] = ContextVar("microbn", default=START)


class Entry(str):
    """The name of a scope, for one entering of it: of two calls in a row, each has its own."""

    owner = ""  # the class of the module whose scope it is: its parameters are drawn there


class recording(ContextDecorator):
    """Record what follows, or do not, whatever surrounds it; in the scope ``path``, if given."""

    def __init__(self, on: bool, path: tuple[str, ...] | None = None) -> None:
        self.on, self.path = on, path

    def _inner(self, now: State) -> State:
        on = self.on if isinstance(now[0], bool) else now[0].switch(self.on)
        return on, now[1] if self.path is None else self.path, now

    def __enter__(self) -> None:
        state.set(self._inner(state.get()))

    def __exit__(self, *exception: object) -> None:
        state.set(state.get()[2] or START)

    def __call__(self, function: Any) -> Any:
        """Run ``function`` in this context whenever it is called."""
        check_returns(function)
        return super().__call__(function)


class no_grad(recording):
    """Compute without recording: results require no gradient and hold on to no inputs.

    As a decorator it is written with parentheses: ``@mb.no_grad()``.

    >>> import microbn as mb
    >>> w = mb.Tensor(3.0, requires_grad=True)
    >>> with mb.no_grad():
    ...     y = w * 2
    >>> y.requires_grad, (w * 2).requires_grad
    (False, True)
    """

    def __init__(self) -> None:
        super().__init__(on=False)


class scope(recording):
    """Make what follows part of ``name``; scopes nest, and drawings show them as boxes.

    Raises a TypeError if ``name`` is not a string, a ValueError if it is empty.

    >>> import microbn as mb
    >>> x = mb.Tensor([1.0, 2.0], requires_grad=True)
    >>> with mb.scope("head"), mb.scope("square"):
    ...     y = x * x
    >>> y.scope
    ('head', 'square')
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a scope's name is a string, not {type(name).__name__}")
        if not name:
            raise ValueError("a scope needs a name that is not empty")
        self.name = name

    def _inner(self, now: State) -> State:
        return now[0], (*now[1], Entry(self.name)), now


def named(value: Any, name: str) -> Any:
    """Name ``value`` if it can carry a name (a Tensor can, an array cannot), and return it."""
    return value.named(name) if hasattr(value, "named") else value


def value(x: Any) -> Any:
    """Return the array in a Tensor, or the array itself."""
    return x.data if hasattr(x, "detach") else x


def stop_gradient(x: Any) -> Any:
    """Return the value of ``x`` as a constant, through which nothing flows back.

    A Tensor gives a Tensor that shares its data; arrays and numbers come back as they are.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True)
    >>> mb.grad(x * mb.stop_gradient(x), x).item()
    3.0
    """
    return x.detach() if hasattr(x, "detach") else x
