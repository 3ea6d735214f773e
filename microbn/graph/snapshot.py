"""Taking the snapshot: from Tensors and the calls that they remember to nodes and edges.

A node's index is its place in the order of computation, with each leaf right before its first
use. So the same program gives the same graph, whatever else the process has computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np

from ..kernels import Array
from ..ops import Op
from ..tensor import Tensor
from .backward import Backward
from .parts import Edge, Kind, Node, Scope, Source


@dataclass(frozen=True)
class Notes:
    """What is known of values besides what they remember: names by id, lines by time."""

    names: Mapping[int, str] = field(default_factory=dict)
    lines: Mapping[int, Source] = field(default_factory=dict)


class Snapshot:
    """Nodes, edges and scopes so far, and the index that each Tensor or array has got."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.scopes: list[Scope] = []
        self.d = "d"  # what the names of cotangents begin with
        self.index: dict[int, int] = {}  # by id(): the outputs keep everything here alive
        self.places: dict[tuple[int, ...], int] = {}  # by the ids of the entries on the path

    def add_forward(self, outputs: Sequence[Tensor]) -> None:
        """Add everything that the outputs depend on."""
        results = {id(output) for output in outputs}
        for tensor in in_order(outputs):
            if tensor.op is not None:
                self.add_op(tensor, tensor.op, "output" if id(tensor) in results else "op")
        for output in outputs:
            self.index_of(output, output.scope)

    def add_backward(self, backward: Backward) -> None:
        """Add the steps of a backward pass, and link them with the forward nodes."""
        first = len(self.nodes)
        if any((node.name or "").startswith("d ") for node in self.nodes):
            self.d = "d′"  # what it is the gradient of is a gradient itself
        twins: dict[
            int, list[int]
        ] = {}  # by the id of a cotangent, the forward nodes that it is of
        for tensor, g in backward.cotangents.items():
            twins.setdefault(id(g), []).append(self.index[id(tensor)])
        for step in in_order(backward.cotangents.values()):
            if self.index.get(id(step), first) >= first and id(step) in backward.roles:
                if step.op is None:
                    self.index_of(step, step.scope)
                else:
                    self.add_op(step, step.op, "op")
                self._link(step, backward, twins.get(id(step), []))
        for node in self.nodes[first:]:
            if node.part is None:
                self.nodes[node.index] = replace(node, part="constant")
        self._note_contributions(backward)

    def _note_contributions(self, backward: Backward) -> None:
        """Note at each forward edge what came back along it."""
        came = {
            (self.index[id(c.via)], c.route): self.index[id(c.cotangent)]
            for contributions in backward.contributions.values()
            for c in contributions
        }
        self.edges = [replace(e, contribution=came.get((e.target, e.position))) for e in self.edges]

    def _link(self, step: Tensor, backward: Backward, twins: list[int]) -> None:
        """Say of a step what it is for, and of forward nodes that it is their cotangent."""
        role, index = backward.roles[id(step)], self.index[id(step)]
        node = self.nodes[index]
        of = self.nodes[self.index[id(role.of)]]
        via = None if role.via is None else self.index[id(role.via)]
        name, label = node.name, node.label
        if twins and (not name or name.startswith("d ")):  # as the engine has it
            name = self._cotangent_name(twins)
        if role.via is not None and role.via.op is not None:
            if role.part == "accumulation":
                label = f"+= via {role.via.op.name}"
                label = label if twins else f"{self._cotangent_name([of.index])} {label}"
            elif step in backward.merging:
                name = name or f"{self._cotangent_name([of.index])} via {role.via.op.name}"
        self.nodes[index] = replace(
            node,
            name=name,
            label=label,
            part=role.part,
            of=tuple(twins) or (of.index,),
            via=via,
            route=role.route,
        )
        for k in twins:
            self.nodes[k] = replace(self.nodes[k], twin=index, cotangent=node.value)

    def _cotangent_name(self, of: list[int]) -> str:
        """Name a cotangent after a value, or after its op in parentheses if that has no name."""
        names = [name for k in of if (name := self.nodes[k].name)]
        return (
            f"{self.d} {names[0]}" if names else f"{self.d} ({self.nodes[of[0]].title or 'array'})"
        )

    def add_op(self, tensor: Tensor, op: Op, kind: Kind) -> None:
        """Add the call that made ``tensor``: first those arguments that are leaves, then itself."""
        values = [(i, a) for i, a in enumerate(tensor.inputs) if is_node(a)]
        sources = [self.index_of(a, tensor.scope) for _, a in values]
        target = self._add(tensor, kind, tensor.scope, op)
        shapes = [self.nodes[source].shape for source in sources]
        stretches = stretched(op, shapes, self.nodes[target].shape)
        for (i, _), source, stretch in zip(values, sources, stretches, strict=True):
            self.edges.append(Edge(source, target, i, stretch))

    def index_of(self, value: Any, scope: tuple[str, ...]) -> int:
        """Return the index of ``value``; if it has none yet, it is a leaf, and is added.

        An array has no scope of its own: it gets that of its first use; a parameter, that of the
        module that uses it first.
        """
        if id(value) in self.index:
            return self.index[id(value)]
        if not isinstance(value, Tensor):
            return self._add(value, "constant", scope)
        if value.kind == "parameter":
            return self._add(value, "parameter", of_module(scope) or value.scope)
        return self._add(value, "input", value.scope)

    def _add(self, value: Any, kind: Kind, scope: tuple[str, ...], op: Op | None = None) -> int:
        index = self.index[id(value)] = len(self.nodes)
        is_tensor = isinstance(value, Tensor)
        inputs = value.inputs if is_tensor else ()
        gradient = value._grad if is_tensor else None
        name = self.notes.names.get(id(value)) or (value.name if is_tensor else None)
        node = Node(
            index,
            kind,
            op.name if op else None,
            label_of(value, op) if op else "",
            None if name is None else str(name),
            tuple(map(str, scope)),
            self._place(scope),
            tuple(value.shape),
            str(value.dtype),
            scalars={i: a for i, a in enumerate(inputs) if not is_node(a)},
            params=dict(value.params) if is_tensor else {},
            value=copied(value._data if is_tensor else value),
            cotangent=None if gradient is None else copied(gradient),
            source=self.notes.lines.get(value.time) if is_tensor else None,
        )
        self.nodes.append(node)
        return index

    def _place(self, scope: tuple[str, ...]) -> int | None:
        """Return the index of the scope at the end of a path, adding it and those around it."""
        place = None
        for depth, name in enumerate(scope, 1):
            key = tuple(map(id, scope[:depth]))
            if key not in self.places:
                self.places[key] = len(self.scopes)
                self.scopes.append(
                    Scope(len(self.scopes), str(name), place, getattr(name, "owner", ""))
                )
            place = self.places[key]
        return place


def in_order(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Every Tensor that the outputs depend on, in order of creation, which is topological."""
    found = {id(output): output for output in outputs}
    pending = list(found.values())
    while pending:
        for a in pending.pop().inputs:
            if isinstance(a, Tensor) and id(a) not in found:
                found[id(a)] = a
                pending.append(a)
    return sorted(found.values(), key=attrgetter("time"))


def prefix(node: Node) -> str:
    """What the name of a cotangent begins with: d, or d′ in the backward pass of a gradient."""
    return "d′" if (node.name or "").startswith("d′ ") else "d"


def of_module(scope: tuple[str, ...]) -> tuple[str, ...]:
    """Return the scope of the module that a call belongs to: its parameters are drawn there."""
    depth = max((k for k, name in enumerate(scope, 1) if getattr(name, "owner", "")), default=0)
    return scope[:depth]


def is_node(argument: Any) -> bool:
    """Tensors and arrays (of any library) are nodes; scalars are not."""
    return isinstance(argument, Tensor) or (
        hasattr(argument, "shape") and not isinstance(argument, np.generic)
    )


def copied(value: Any) -> Array:
    """Return an array of its own, so that later changes do not show."""
    return np.array(value) if isinstance(value, np.ndarray | np.generic) else value.copy()


def label_of(tensor: Tensor, op: Op) -> str:
    """The op with its scalar arguments in place: ``+ 1e-05``, ``2 −``, ``where(·, ·, 0)``."""
    if op.name == "sum_to":
        return f"Σ {summed_axes(tensor.inputs[0].shape, tensor.shape)}"
    scalars = ["·" if is_node(a) else number(a) for a in tensor.inputs]
    if all(scalar == "·" for scalar in scalars):
        return op.label
    if len(scalars) == 2 and not op.label.isidentifier():
        return f"{scalars[0]} {op.label} {scalars[1]}".replace("·", "").strip()
    return f"{op.label}({', '.join(scalars)})"


def summed_axes(before: Sequence[int], after: Sequence[int]) -> str:
    """Say over which axes a cotangent was summed: those that broadcasting had repeated.

    >>> summed_axes((4, 3), (3,)), summed_axes((5, 4, 3), (1, 3)), summed_axes((4,), ())
    ('axis 0', 'axes 0, 1', 'axis 0')
    """
    extra = len(before) - len(after)
    return axes_in_words([i for i, n in enumerate(before) if i < extra or after[i - extra] != n])


def axes_in_words(axes: int | Sequence[int]) -> str:
    """Write ``axis 0``, or ``axes 0, 2``."""
    axes = (axes,) if isinstance(axes, int) else axes
    return f"ax{'i' if len(axes) == 1 else 'e'}s {', '.join(map(str, axes))}"


def number(value: Any) -> str:
    """Write a scalar as short as it can be read."""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def stretched(op: Op, shapes: Sequence[tuple[int, ...]], result: tuple[int, ...]) -> Sequence[bool]:
    """Say of each argument whether the op broadcast it to the shape of its result.

    Broadcasting is what happened if the result has the shape that all arguments broadcast to;
    not so for ufuncs with a signature, such as matmul, where axes have roles of their own.
    """
    stretches = [shape != result for shape in shapes]
    if not any(stretches):
        return stretches
    try:
        broadcast = not getattr(op.fn, "signature", None) and np.broadcast_shapes(*shapes) == result
    except ValueError:  # these shapes do not broadcast, so the op is of another kind
        broadcast = False
    return stretches if broadcast else [False] * len(shapes)
