"""Modules in a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import OperandError, describe
from .module import Module


class Sequential(Module):
    """Modules one after the other, each applied to the result of the one before.

    They are named "0", "1", ...; a dict of modules gives them names of its own. Supports ``len``,
    iteration and indexing.

    >>> from microbn.nn import Linear, ReLU
    >>> Sequential(Linear(2, 3), ReLU())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        named: Any = {str(i): module for i, module in enumerate(modules)}
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = modules[0]
        for name, module in named.items():
            if not isinstance(module, Module):
                raise OperandError(
                    f"Sequential is made of modules; number {name} is {describe(module)}"
                )
            self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        """Apply the modules in order."""
        for module in self.children():
            x = module(x)
        return x

    def _enter_as(self, path: str) -> None:
        """Pass the name on: a Sequential opens no scope, its parts are ``path.0``, ``path.1``."""
        self._prefix = f"{path}."
        for name, child in self.named_children():
            child._enter_as(self._prefix + name)

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return list(self.children())[index]


class ModuleList(Module):
    """Modules in a list, for a ``forward`` of your own to go through: ``for layer in self.layers``.

    Unlike those in a Python list, they are part of the module that holds them. They are named "0",
    "1", ... Supports ``len``, iteration, indexing and `append`. Raises an OperandError (a
    TypeError) for anything but modules.

    >>> from microbn.nn import Linear
    >>> layers = ModuleList([Linear(2, 2) for _ in range(3)])
    >>> len(layers), len(list(layers.parameters()))
    (3, 6)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        if not isinstance(module, Module):
            raise OperandError(f"ModuleList is made of modules, not of {describe(module)}")
        self.add_module(str(len(self)), module)
        return self

    def __len__(self) -> int:
        return len(list(self.named_children()))

    def __iter__(self) -> Iterator[Module]:
        return iter([module for _, module in self.named_children()])

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]
