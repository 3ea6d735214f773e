"""Module: something with parameters, made of smaller ones, and called like a function.

A module is a tree. What belongs to it is what it has as attributes, read from there when asked:
a `Parameter` (learned), another Module, or an array declared with `register_buffer` (kept, not
learned). There are no lists beside the attributes that could disagree with them, and no child
knows its parent, so a model has no reference cycles.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from ..context import Entry, State, scope
from ..dispatch import plain
from ..errors import OperandError, describe
from ..kernels import Array
from ..tensor import Tensor
from .parameter import Parameter

M = TypeVar("M", bound="Module")
T = TypeVar("T")


class StateError(ValueError):
    """A state dict that does not fit the module that was to load it."""


class _Scope(scope):
    """The scope of a module: drawings put its parameters there, and say what it is."""

    def __init__(self, path: str, owner: str) -> None:
        super().__init__(path)
        self.owner = owner

    def _inner(self, now: State) -> State:
        entry = Entry(self.name)
        entry.owner = self.owner
        return now[0], (*now[1], entry), now


class Module:
    """The base of all layers and models: write ``forward``, and call the module.

    Whatever a submodule computes lies in the scope of its name, so that drawings show it as a
    box. A submodule that was given to two parents bears the last name it got.

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.factor = Parameter(3.0)
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> scale = Scale()
    >>> scale(2.0).item(), [name for name, _ in scale.named_parameters()]
    (6.0, ['factor'])
    """

    training: bool = True
    _scope: scope | None = None  # where its calls are recorded; a root has none
    _prefix: str = ""  # what the names of its children begin with
    _buffers: tuple[str, ...] = ()
    _passing: tuple[str, ...] = ()  # the buffers that are no part of the state

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's result; every module writes its own."""
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(self, ...)")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward``, in the scope of this module's name."""
        for a in args:
            if type(a).__module__.partition(".")[0] == "torch":
                raise OperandError(
                    f"{type(self).__name__} was given a {type(a).__name__} of PyTorch; give it an "
                    "array, x.numpy(), or a Tensor of microbn"
                )
        if self._scope is None:
            return self.forward(*args, **kwargs)
        with self._scope:
            return self.forward(*args, **kwargs)

    # The tree ------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        for kind in Parameter, Module:
            if isinstance(vars(self).get(name), kind) and not isinstance(value, kind | None):
                raise OperandError(
                    f"{type(self).__name__}.{name} is a {kind.__name__}; {describe(value)} is not, "
                    "and cannot take its place. To change a parameter's values, write p.data = ..."
                )
        if name in self._buffers and not _is_buffer(value):
            raise OperandError(
                f"{type(self).__name__}.{name} is a buffer: an array or None, not {describe(value)}"
            )
        if isinstance(value, list | tuple | dict) and any(
            isinstance(m, Module) for m in _in(value)
        ):
            raise OperandError(
                f"{type(self).__name__}.{name}: modules in a {type(value).__name__} would not be "
                "part of this one: neither learned, nor saved, nor switched by eval(). Put them "
                "into a Sequential or a ModuleList"
            )
        if isinstance(value, Module):
            if any(module is self for module in value.modules()):
                raise ValueError(f"{type(self).__name__}.{name} would be a part of itself")
            value._enter_as(self._prefix + name)
        elif isinstance(value, Parameter) and value.name is None:
            value.named(name)
        super().__setattr__(name, value)

    def _enter_as(self, path: str) -> None:
        """Take the name that the parent gives."""
        self._scope = _Scope(path, type(self).__name__)

    def add_module(self, name: str, module: Module | None) -> None:
        """Make ``module`` a part of this one, as the attribute ``name``.

        Raises an OperandError (a TypeError) for anything but a Module or None, a ValueError for a
        name that cannot be a key of the state, or that is taken by something else than a module.
        """
        if not isinstance(module, Module | None):
            raise OperandError(f"add_module({name!r}, ...) takes a Module, not {describe(module)}")
        self._check_name("add_module", name)
        if not isinstance(getattr(self, name, None), Module | None):
            raise ValueError(f"add_module: {type(self).__name__} has {name!r} already")
        setattr(self, name, module)

    def register_buffer(self, name: str, value: Array | None, persistent: bool = True) -> None:
        """Keep an array that is part of the state but not learned, as the attribute ``name``.

        None holds the place of a buffer that is not there. With ``persistent=False`` the array is
        a buffer, but the state leaves it out. Raises an OperandError (a TypeError) for anything
        else, such as a Tensor, which would hold on to what it was computed from, and a ValueError
        for a name that cannot be a key of the state.
        """
        self._check_name("register_buffer", name)
        if name not in self._buffers:
            self._buffers = (*self._buffers, name)
        others = tuple(n for n in self._passing if n != name)
        self._passing = others if persistent else (*others, name)
        setattr(self, name, value)

    def _check_name(self, op: str, name: str) -> None:
        if not isinstance(name, str):
            raise OperandError(f"{op}: a name is a string, not {describe(name)}")
        if not name or "." in name:
            raise ValueError(f"{op}: the name {name!r} must not be empty or hold a dot")

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules that this one is made of, with their names."""
        return ((name, m) for name, m in list(vars(self).items()) if isinstance(m, Module))

    def children(self) -> Iterator[Module]:
        """Yield the modules that this one is made of."""
        return (child for _, child in self.named_children())

    def _places(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """Yield every place in the tree, parents first; a module in two places comes twice."""
        yield path, self
        for name, child in self.named_children():
            yield from child._places(_join(path, name))

    def _entries(self) -> Iterator[tuple[str, Any, Module, str]]:
        """Yield every parameter and buffer: its path, its value, the module and the attribute."""
        for path, module in self._places():
            own = vars(module)
            names = [name for name, value in own.items() if isinstance(value, Parameter)]
            for name in (*names, *(b for b in module._buffers if own.get(b) is not None)):
                yield _join(path, name), own[name], module, name

    def _state(self) -> Iterator[tuple[str, Any, Module, str]]:
        """Yield what the state consists of, as `_entries` does."""
        return (entry for entry in self._entries() if entry[3] not in entry[2]._passing)

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield every module of the tree once, with its path; this one comes first, as ``""``."""
        return _once(self._places())

    def modules(self) -> Iterator[Module]:
        """Yield every module of the tree once, this one first."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter of the tree once, with its path, such as ``layers.1.weight``."""
        return _once((path, v) for path, v, *_ in self._entries() if isinstance(v, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter of the tree once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Yield every buffer of the tree once, an array, with its path."""
        return _once((path, v) for path, v, *_ in self._entries() if not isinstance(v, Parameter))

    def buffers(self) -> Iterator[Array]:
        """Yield every buffer of the tree once."""
        return (buffer for _, buffer in self.named_buffers())

    # What can be done to all of it ---------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Behave as in training (or, with False, as in use) from now on; return the module."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self: M) -> M:
        """Behave as in use: batch norm normalises with its running statistics."""
        return self.train(False)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` with every module of the tree, parts before what they are part of.

        >>> from microbn.nn import Linear, Sequential, init
        >>> def begin(module):
        ...     if isinstance(module, Linear):
        ...         init.zeros_(module.bias)
        >>> Sequential(Linear(1, 2), Linear(2, 1)).apply(begin)[0].bias.data
        array([0., 0.], dtype=float32)
        """
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Learn every parameter from now on, or with False freeze them; return the module.

        Running statistics go on moving in a frozen batch norm, until `eval`.
        """
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for parameter in self.parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers: path -> array, under PyTorch's keys.

        `torch.nn.Module.load_state_dict` takes it once `torch.from_numpy` is applied to each value.
        """
        return {path: np.array(plain(value)) for path, value, *_ in self._state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take all parameters and buffers from ``state``, cast to the dtypes they have here.

        Its values are arrays, or anything else that `numpy.asarray` takes, under the keys and with
        the shapes of `state_dict`. Raises a StateError (a ValueError) that lists every key that is
        missing, unexpected or does not fit; nothing has changed then.

        >>> from microbn.nn import Linear
        >>> model, other = Linear(2, 1, rng=0), Linear(2, 1, rng=1)
        >>> other.load_state_dict(model.state_dict())
        >>> other.load_state_dict({"weight": [1.0, 2.0]})
        Traceback (most recent call last):
        microbn.nn.module.StateError: this state does not fit Linear, so nothing was loaded:
          missing: bias
          weight has shape (2,), not (1, 2)
        """
        if not isinstance(state, Mapping):
            raise OperandError(f"a state is a dict of arrays, not {describe(state)}")
        entries = list(self._state())
        expected = {path for path, *_ in entries}
        wrong = [f"missing: {path}" for path, *_ in entries if path not in state]
        wrong += [f"unexpected: {path}" for path in state if path not in expected]
        loaded = []
        for path, value, module, name in entries:
            if path in state:
                try:
                    loaded.append((_fit(state[path], plain(value)), value, module, name))
                except (TypeError, ValueError, RuntimeError) as error:
                    wrong.append(f"{path} {error}")
        if wrong:
            head = f"this state does not fit {type(self).__name__}, so nothing was loaded:"
            raise StateError("\n  ".join([head, *wrong]))
        for new, value, module, name in loaded:
            if isinstance(value, Parameter):
                value.data = new
            else:
                setattr(module, name, new)

    def extra_repr(self) -> str:
        """Return what `repr` says of this module besides its parts."""
        return ""

    def __repr__(self) -> str:
        parts = [f"({name}): {child!r}" for name, child in self.named_children()]
        if not parts:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = "\n".join([self.extra_repr(), *parts]).strip()
        return f"{type(self).__name__}(\n{textwrap.indent(lines, '  ')}\n)"


def _in(values: Any) -> Iterable[Any]:
    return values.values() if isinstance(values, dict) else values


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _once(pairs: Iterator[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Leave out pairs whose value has come before: what is shared is one thing."""
    seen: set[int] = set()
    for path, value in pairs:
        if id(value) not in seen:
            seen.add(id(value))
            yield path, value


def _is_buffer(value: Any) -> bool:
    is_array = hasattr(value, "__array_function__") and not isinstance(value, Tensor)
    return is_array or value is None


def _fit(new: Any, old: Array) -> Array:
    """Return ``new`` as an array of its own, with the dtype of ``old``; raise if it cannot be."""
    new = np.asarray(new)
    if new.dtype.kind not in "biuf":
        raise TypeError(f"holds {new.dtype}, not numbers")
    if new.shape != old.shape:
        raise ValueError(f"has shape {new.shape}, not {old.shape}")
    return new.astype(old.dtype)
