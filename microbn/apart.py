"""Looking at a program and checking it is not part of the program: no trace takes it down."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from .context import State, recording

F = TypeVar("F", bound=Callable[..., Any])


class apart(recording):
    """Record what follows, as outside of any trace.

    So a script that draws, checks or steps through its own result is traced as it would be without.

    >>> import microbn as mb
    >>> x = mb.Tensor(3.0, requires_grad=True)
    >>> with mb.tracing() as trace:
    ...     y = x * x
    ...     with apart():
    ...         z = y + 1
    >>> trace.output is y, z.requires_grad
    (True, True)
    """

    def __init__(self) -> None:
        super().__init__(on=True)

    def _inner(self, now: State) -> State:
        return self.on, now[1], now

    def __call__(self, function: F) -> F:
        """Run ``function`` apart whenever it is called."""

        @wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True  # by pytest: the call is of what is decorated
            with self:
                return function(*args, **kwargs)

        return cast(F, inner)
