"""The graph as JSON: what others can read without microbn, and `Graph.from_dict` reads back.

docs/graph.md describes it. Numbers come back to the bit. Where a value may be of any kind, what
JSON has no word for is a dict with one key that says what it is: {"tuple": [...]},
{"slice": [start, stop, step]}, {"float": "nan"}, {"dtype": "float32"}, {"array": {...}},
{"scalar": [0.5, "float32"]} for a number of NumPy's.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields
from types import EllipsisType
from typing import Any, get_args

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..kernels import Array
from .parts import Edge, Kind, Node, Part, Scope, Source

FORMAT, VERSION = "microbn.graph", 2
PLAIN = (bool, int, str, type(None))
REAL = re.compile(r"bool|u?int\d+|float\d+|[<>][iuf]\d+")  # the dtypes that a Tensor may have


class Lost(str):
    """Says what an array was, where only its digest has been written."""

    __slots__ = ()


def to_dict(graph: Any, limit: int) -> dict[str, Any]:
    """Write nodes, edges and scopes as dicts; arrays larger than ``limit`` as digests."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "nodes": [
            {f.name: _field(f.name, getattr(node, f.name), limit) for f in fields(Node)}
            for node in graph.nodes
        ],
        "edges": [
            {
                "from": e.source,
                "to": e.target,
                "position": e.position,
                "broadcast": e.broadcast,
                "contribution": e.contribution,
            }
            for e in graph.edges
        ],
        "scopes": [{f.name: getattr(s, f.name) for f in fields(Scope)} for s in graph.scopes],
    }


def from_dict(state: Any) -> tuple[tuple[Node, ...], tuple[Edge, ...], tuple[Scope, ...]]:
    """Read what `to_dict` has written."""
    if isinstance(state, str | bytes):
        raise ShapeError("a graph is read from a dict, and this is text; use json.loads first")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ShapeError(f"this is no graph: it lacks the entry 'format': {FORMAT!r}")
    if state.get("version") != VERSION:
        raise ShapeError(
            f"this graph has version {state.get('version')!r} of the format, and this microbn "
            f"reads version {VERSION}; write it anew, or use the microbn that wrote it"
        )
    try:
        nodes = tuple(_node(node) for node in _listed(state["nodes"]))
        edges = tuple(map(_edge, _listed(state["edges"])))
        scopes = tuple(Scope(**scope) for scope in _listed(state["scopes"]))
        _check(nodes, edges, scopes)
    except DAMAGE as error:
        raise ShapeError(f"this graph is damaged: {error!r}; write it anew") from error
    return nodes, edges, scopes


DAMAGE = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def _field(name: str, value: Any, limit: int) -> Any:
    """Write a field of a node."""
    if value is None:
        return None
    if name in ("value", "cotangent"):
        return _encode_array(value, limit)
    if name in ("scope", "shape", "of"):
        return list(value)
    if name == "source":
        return {f.name: getattr(value, f.name) for f in fields(Source)}
    if name == "scalars":
        return [[position, _encode(v, limit)] for position, v in value.items()]
    return {k: _encode(v, limit) for k, v in value.items()} if name == "params" else value


def _node(state: dict[str, Any]) -> Node:
    """Read a node, field by field."""
    facts = dict(state)
    for name in ("value", "cotangent"):
        array = None if facts[name] is None else _decode_array(facts[name])
        facts[name] = None if isinstance(array, Lost) else array
    for name in ("scope", "shape", "of"):
        facts[name] = tuple(_listed(facts[name]))
    facts["source"] = None if facts["source"] is None else Source(**facts["source"])
    facts["scalars"] = {position: _decode(v) for position, v in _listed(facts["scalars"])}
    facts["params"] = {key: _decode(v) for key, v in facts["params"].items()}
    return Node(**facts)


def _edge(state: dict[str, Any]) -> Edge:
    """Read an edge."""
    source, target, position, broadcast, contribution = (
        state[k] for k in ("from", "to", "position", "broadcast", "contribution")
    )
    if len(state) > 5:
        raise ValueError(f"an edge has no entry {[*state][-1]!r}")
    return Edge(source, target, position, broadcast, contribution)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list is expected, not {type(value).__name__}")
    return value


# What must hold of a graph -----------------------------------------------------------------------


def _check(nodes: Sequence[Node], edges: Sequence[Edge], scopes: Sequence[Scope]) -> None:
    """Refuse what no snapshot gives: wrong types, indices outside, arguments that are missing."""
    for i, scope in enumerate(scopes):
        named = isinstance(scope.name, str) and isinstance(scope.owner, str)
        nested = scope.parent is None or _is_index(scope.parent, i)
        _require(_is_index(scope.index) and scope.index == i and named and nested, "scope", i)
    for i, node in enumerate(nodes):
        _require(node.index == i and _is_sound(node), "node", i)
        indices = [k for k in (*node.of, node.via, node.twin, node.index) if k is not None]
        _require(all(_is_index(k, len(nodes)) for k in indices), "node", i)
        _require(node.twin is None or nodes[node.twin].part is not None, "node", i)
        _require(node.place is None or _is_index(node.place, len(scopes)), "node", i)
    _check_edges(nodes, edges)


def _check_edges(nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
    """Refuse edges out of order, and nodes that have not just the arguments that they need."""
    positions = defaultdict(list)
    last = (-1, -1, -1)
    for i, edge in enumerate(edges):
        inside = _is_index(edge.target, len(nodes)) and _is_index(edge.source, edge.target)
        _require(inside and _is_index(edge.position), "edge", i)
        _require(isinstance(edge.broadcast, bool), "edge", i)
        came = edge.contribution
        _require(came is None or _is_index(came, len(nodes)), "edge", i)
        _require(last < (last := (edge.target, edge.position, edge.source)), "edge", i)
        positions[edge.target].append(edge.position)
    for i, node in enumerate(nodes):
        if node.kind == "scope":  # it stands for several ops
            continue
        arguments = sorted([*positions[i], *node.scalars])
        _require(arguments == [*range(len(arguments))], "node", i)
        op = getattr(ops, node.op or "", None)
        if isinstance(op, ops.Op) and not op.variadic:
            _require(len(arguments) == len(op.vjps), "node", i)
        _require(bool(positions[i]) == (node.op is not None), "node", i)


def _require(sound: bool, what: str, index: int) -> None:
    if not sound:
        raise ValueError(f"{what} {index} cannot be")


def _is_index(value: Any, end: float = math.inf) -> bool:
    return type(value) is int and 0 <= value < end


def _is_sound(node: Node) -> bool:
    """Whether each field holds what it is to hold."""
    arrays = [a for a in (node.value, node.cotangent) if a is not None]
    source = node.source
    return (
        node.kind in get_args(Kind)
        and (node.part is None or node.part in get_args(Part))
        and all(isinstance(text, str) for text in (node.label, node.dtype, *node.scope))
        and all(text is None or isinstance(text, str) for text in (node.op, node.name))
        and all(isinstance(items, tuple) for items in (node.scope, node.shape, node.of))
        and all(map(_is_index, node.shape))
        and _dtype(node.dtype) is not None
        and isinstance(node.scalars, dict)
        and isinstance(node.params, dict)
        and all(isinstance(key, str) for key in node.params)
        and (node.route is None or _is_index(node.route))
        and all(isinstance(a, np.ndarray) and a.shape == node.shape for a in arrays)
        and (source is None or isinstance(source, Source))
        and (not source or all(map(isinstance, (source.file, source.line), (str, int))))
        and (not source or isinstance(source.text, str))
    )


# Values ------------------------------------------------------------------------------------------


def digest(array: Array) -> dict[str, float]:
    """Say in five numbers what is in an array; of no entries, nothing.

    >>> digest(np.array([0.0, 1.0, 2.0, 1.0]))
    {'mean': 1.0, 'std': 0.7071067811865476, 'min': 0.0, 'max': 2.0, 'zeros': 0.25}
    """
    if not array.size:
        return {}
    x = array.astype(np.float64)
    with np.errstate(all="ignore"):
        numbers = {"mean": x.mean(), "std": x.std(), "min": x.min(), "max": x.max()}
    return {k: float(v) for k, v in numbers.items()} | {"zeros": float(np.mean(x == 0))}


def _encode(value: Any, limit: int) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, np.generic):
        return {"scalar": [_entries(value)[0], str(value.dtype)]}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.dtype):
        return {"dtype": str(value)}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v, limit) for v in value]}
    if isinstance(value, list):
        return [_encode(v, limit) for v in value]
    if isinstance(value, slice):
        return {"slice": [_encode(v, limit) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, EllipsisType):
        return {"ellipsis": True}
    if hasattr(value, "shape"):
        return {"array": _encode_array(value, limit)}
    return {"repr": repr(value)}


def _encode_array(array: Array, limit: int) -> dict[str, Any]:
    body: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.size > limit:
        body["digest"] = {k: _encode(v, limit) for k, v in digest(array).items()}
    else:
        body["entries"] = _entries(array)
    return body


def _entries(array: Array) -> list[Any]:
    """Write numbers of a dtype in full: those of long doubles, which Python lacks, as text."""
    flat = np.asarray(array).ravel()
    if flat.dtype.kind != "f":
        return list(flat.tolist())
    if flat.dtype.char == "g":
        return [{"float": str(entry)} for entry in flat]
    return [e if math.isfinite(e) else {"float": str(e)} for e in flat.tolist()]


def _decode_array(body: dict[str, Any]) -> Array:
    if "entries" not in body:
        return Lost(f"{_dtype(body['dtype'])} array of shape {tuple(body['shape'])}")
    return _numbers(_listed(body["entries"]), body["dtype"]).reshape(body["shape"])


def _numbers(entries: list[Any], dtype: Any) -> Array:
    dtype = _dtype(dtype)
    texts = [e["float"] if isinstance(e, dict) else e for e in entries]
    with np.errstate(all="ignore"):
        return np.array(texts, dtype)


def _dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or not REAL.fullmatch(name):
        raise TypeError(f"{name!r} is no dtype of numbers")
    return np.dtype(name)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "scalar": lambda number: _numbers(number[:1], number[1])[0],
    "dtype": _dtype,
    "tuple": lambda items: tuple(_decode(v) for v in items),
    "slice": lambda ends: slice(*(_decode(v) for v in ends)),
    "ellipsis": lambda _: ...,
    "repr": str,
    "array": _decode_array,
}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(v) for v in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        return _DECODERS[kind](content)
    return value
