"""The graph as JSON: what others can read without microbn, and `Graph.from_dict` reads back.

Numbers come back to the bit. What JSON has no word for is a dict with one key that says what it
is: {"tuple": [...]}, {"slice": [start, stop, step]}, {"float": "nan"}, {"dtype": "float32"}.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from types import EllipsisType
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..kernels import Array
from .parts import Edge, Node, Scope, Source

FORMAT, VERSION = "microbn.graph", 1
PLAIN = (bool, int, str, type(None))


def to_dict(graph: Any, limit: int) -> dict[str, Any]:
    """Write nodes, edges and scopes as dicts; arrays larger than ``limit`` as digests."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "nodes": [
            {f.name: _encode(getattr(node, f.name), limit) for f in fields(Node)}
            for node in graph.nodes
        ],
        "edges": [
            {"from": e.source, "to": e.target, "position": e.position, "broadcast": e.broadcast}
            for e in graph.edges
        ],
        "scopes": [{"index": s.index, "name": s.name, "parent": s.parent} for s in graph.scopes],
    }


def from_dict(state: Any) -> tuple[tuple[Node, ...], tuple[Edge, ...], tuple[Scope, ...]]:
    """Read what `to_dict` has written."""
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ShapeError(f"this is no graph: it lacks the entry 'format': {FORMAT!r}")
    if state.get("version") != VERSION:
        raise ShapeError(
            f"this graph has version {state.get('version')!r} of the format, and this microbn "
            f"reads version {VERSION}; write it anew, or use the microbn that wrote it"
        )
    try:
        nodes = tuple(Node(**{k: _decode(v) for k, v in node.items()}) for node in state["nodes"])
        edges = tuple(
            Edge(e["from"], e["to"], e["position"], e["broadcast"]) for e in state["edges"]
        )
        scopes = tuple(Scope(**scope) for scope in state["scopes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ShapeError(f"this graph is damaged: {error!r}; write it anew") from error
    return nodes, edges, scopes


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
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PLAIN):
        return value
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
    if isinstance(value, dict):
        return {"dict": [[_encode(k, limit), _encode(v, limit)] for k, v in value.items()]}
    if isinstance(value, Source):
        return {"source": [value.file, value.line, value.text]}
    return _encode_array(value, limit) if hasattr(value, "shape") else {"repr": repr(value)}


def _encode_array(array: Array, limit: int) -> dict[str, Any]:
    body: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.size > limit:
        body["digest"] = {k: _encode(v, limit) for k, v in digest(array).items()}
    else:
        body["entries"] = [_encode(entry, limit) for entry in np.asarray(array).ravel().tolist()]
    return {"array": body}


def _decode_array(body: dict[str, Any]) -> Array | None:
    if "entries" not in body:
        return None
    entries = [_decode(entry) for entry in body["entries"]]
    return np.array(entries, dtype=body["dtype"]).reshape(body["shape"])


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "dtype": np.dtype,
    "tuple": lambda items: tuple(_decode(v) for v in items),
    "slice": lambda ends: slice(*(_decode(v) for v in ends)),
    "ellipsis": lambda _: ...,
    "dict": lambda items: {_decode(k): _decode(v) for k, v in items},
    "source": lambda parts: Source(*parts),
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
