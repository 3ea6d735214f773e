"""Parameter: a Tensor that is learned."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor


class Parameter(Tensor):
    """A leaf Tensor that a module learns: it requires grad, and `Module.parameters` finds it.

    ``data``, ``dtype``, ``name`` and ``copy`` as for `Tensor`; without a name it gets that of the
    attribute it becomes.

    >>> Parameter([1.0, 2.0])
    Tensor([1., 2.], requires_grad=True)
    """

    __slots__ = ()
    kind = "parameter"

    def __init__(
        self,
        data: Any,
        *,
        requires_grad: bool = True,
        dtype: Any = None,
        name: str | None = None,
        copy: bool = True,
    ) -> None:
        super().__init__(data, requires_grad=requires_grad, dtype=dtype, name=name, copy=copy)
