"""What a model has learned, in a file: in the format safetensors, which PyTorch reads and writes.

A file holds arrays and their names, nothing that runs when it is opened (no pickle).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .dispatch import plain
from .errors import OperandError, ShapeError, describe
from .kernels import Array

try:
    import safetensors  # type: ignore[import-not-found, unused-ignore]
    import safetensors.numpy  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # it is an extra
    safetensors = None  # type: ignore[assignment, unused-ignore]

DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()


def save(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Save a dict of arrays, such as a `state_dict`, as the file ``path``.

    Its values are what `numpy.asarray` takes: booleans, integers or floats up to 64 bits, of any
    shape and layout. `safetensors.torch.load_file` opens the file in PyTorch. A file of that name
    is replaced once the new one is complete; after an error it is what it was.

    Raises an OperandError (a TypeError) for what is no dict of arrays, a ShapeError (a ValueError)
    for a name that the format reserves, an ImportError without the package safetensors, and an
    OSError if the file cannot be written.

    >>> import tempfile, microbn as mb
    >>> model, other = mb.nn.Linear(2, 1, rng=0), mb.nn.Linear(2, 1, rng=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mb.save(model.state_dict(), f"{folder}/net.safetensors")
    ...     other.load_state_dict(mb.load(f"{folder}/net.safetensors"))
    >>> (model.weight.data == other.weight.data).all()
    np.True_
    """
    _check_installed("save")
    if not isinstance(state, Mapping):
        raise OperandError(
            f"cannot save a {type(state).__name__}; give a dict of arrays, such as "
            "model.state_dict(), which model.load_state_dict(mb.load(path)) takes back"
        )
    _write(safetensors.numpy.save({k: _as_stored(k, v) for k, v in state.items()}), path)


def load(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays in a safetensors file, as a dict from names to writable arrays.

    Raises a ShapeError (a ValueError) for a file that is damaged or in another format, or holds
    a dtype that NumPy does not have, such as bfloat16; an ImportError without the package
    safetensors, and an OSError if there is no such file. Changed numbers are not noticed, since
    the format has no checksum.
    """
    _check_installed("load")
    content = Path(path).read_bytes()
    try:
        return {name: np.array(a) for name, a in safetensors.numpy.load(content).items()}
    except KeyError as error:  # a dtype that safetensors knows, and NumPy does not
        raise ShapeError(_foreign(path, content, error.args[0])) from error
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise ShapeError(
            f"{os.fspath(path)!r} is damaged, or no safetensors file: {error}"
        ) from error


def _as_stored(name: Any, value: Any) -> Array:
    """Return the value with its rows one after the other in memory, which is copied as it is."""
    if not isinstance(name, str):
        raise OperandError(f"cannot save an array named {name!r}: names are strings")
    if name == "__metadata__":
        raise ShapeError("cannot save an array named '__metadata__': the format reserves it")
    try:
        value = np.asarray(plain(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise OperandError(f"cannot save {name!r}, {describe(value)}: {error}") from error
    if value.dtype.name not in DTYPES:
        raise OperandError(
            f"cannot save {name!r}, {describe(value)}: the dtypes that can be stored are "
            f"{', '.join(DTYPES)}; use .astype, for instance .astype(np.float64)"
        )
    return np.asarray(value, order="C")


def _write(content: bytes, path: str | os.PathLike[str]) -> None:
    """Write a file beside the one to be replaced, then put it in its place, all at once."""
    target = Path(os.path.realpath(path))  # through a link, not in its place
    beside = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _foreign(path: str | os.PathLike[str], content: bytes, code: str) -> str:
    """Say which arrays NumPy cannot hold."""
    arrays = safetensors.deserialize(content)  # type: ignore[no-untyped-call, unused-ignore]
    names = ", ".join(name for name, array in arrays if array["dtype"] == code)
    dtype = {"BF16": "bfloat16"}.get(code, code)
    return (
        f"{os.fspath(path)!r} holds {dtype}, which NumPy does not have ({names}); save it from "
        "PyTorch as float32: {name: t.float() for name, t in state.items()}"
    )


def _check_installed(function: str) -> None:
    if safetensors is None:
        raise ImportError(
            f"mb.{function} needs the package safetensors: pip install 'microbn[safetensors]'",
            name="safetensors",
        )
