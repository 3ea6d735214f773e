"""Folding: in use, a batch norm and the layer before it are one layer.

A Linear or Conv2d computes ``W x + b``; batch norm with running statistics maps each of its outputs
by a line. Together they are the same layer with ``W' = W * s`` and ``b' = (b - running_mean) * s +
bias``, where ``s = weight / sqrt(running_var + eps)`` per output.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ..errors import OperandError, ShapeError, describe
from ..kernels import Array
from .activations import Identity
from .convolution import Conv2d
from .linear import Linear
from .module import Module
from .parameter import Parameter
from .running import BatchNorm, BatchNorm1d, BatchNorm2d
from .sequential import Sequential

Place = tuple[Module, str]  # the module that a layer is a part of, and the layer's name there


def fold(layer: Module, norm: Module) -> Module:
    """Return one layer that computes ``norm(layer(x))`` in use; the two stay as they are.

    ``layer`` is a Linear or a Conv2d, ``norm`` a BatchNorm1d or a BatchNorm2d with running
    statistics and as many channels, in eval mode. Behind a Linear, x must have two axes: of three,
    batch norm takes the second for the channels, a Linear the last. Jacob et al. 2018,
    arXiv:1712.05877, section 3.2.

    Raises an OperandError (a TypeError) for other layers; a ShapeError (a ValueError) for another
    number of channels, without running statistics, and in training mode.

    >>> layer, norm = Linear(3, 2, rng=0), BatchNorm1d(2)
    >>> x = np.ones((4, 3), np.float32)
    >>> _ = norm(layer(np.eye(3, dtype=np.float32)))
    >>> folded = fold(layer, norm.eval())
    >>> folded, bool(np.allclose(folded(x).data, norm(layer(x)).data))
    (Linear(in_features=3, out_features=2, bias=True), True)
    """
    if not _belong_together(layer, norm):
        given = " and ".join(type(m).__name__ for m in (layer, norm))
        raise OperandError(
            "fold takes a Linear and a BatchNorm1d, or a Conv2d and a BatchNorm2d (the layers "
            f"themselves, or with the same forward), not {given}"
        )
    assert isinstance(layer, Linear | Conv2d)
    assert isinstance(norm, BatchNorm)
    if len(layer.weight.data) != norm.num_features:
        raise ShapeError(f"fold: {layer!r} has another number of outputs than {norm!r}")
    _check_in_use("fold", norm)
    if norm.running_mean is None:
        raise ShapeError(f"fold: {norm!r} has no running statistics: in use, too, it needs a batch")
    folded = copy.deepcopy(layer)
    kept = {"requires_grad": layer.weight.requires_grad, "dtype": layer.weight.dtype}
    weight, bias = (Parameter(a, **kept) for a in _weights(layer, norm))
    folded.weight, folded.bias = weight, bias
    return folded


def _weights(layer: Linear | Conv2d, norm: BatchNorm) -> tuple[Array, Array]:
    """Return the weight and the bias of both layers together, computed in float64."""
    gamma = 1 if norm.weight is None else norm.weight.data
    beta = 0 if norm.bias is None else norm.bias.data
    weight = layer.weight.data.astype(np.float64)
    bias = 0 if layer.bias is None else layer.bias.data
    scale = gamma / np.sqrt(norm.running_var.astype(np.float64) + norm.eps)
    per_output = scale.reshape((-1,) + (1,) * (weight.ndim - 1))
    return weight * per_output, (bias - norm.running_mean.astype(np.float64)) * scale + beta


def fold_batch_norm(model: Module) -> Module:
    """Return a copy of ``model`` in which batch norms are folded into the layers before them.

    That is done with each `BatchNorm1d` directly behind a `Linear` and each `BatchNorm2d` directly
    behind a `Conv2d`, where a `Sequential`, or one within another, says that it is behind; an
    `Identity` holds its place. The copy computes what the model does, up to rounding (for
    BatchNorm1d on two axes, see `fold`). A warning says what was left alone, and why; `fold` joins
    a pair that you know to belong together.

    Raises an OperandError (a TypeError) for anything but a Module, a ShapeError (a ValueError) if
    a batch norm is in training mode. The model itself stays as it is.

    >>> from microbn.nn import ReLU
    >>> fold_batch_norm(Sequential(Linear(3, 2), BatchNorm1d(2), ReLU()).eval())
    Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
      (1): Identity()
      (2): ReLU()
    )
    """
    if not isinstance(model, Module):
        raise OperandError(f"fold_batch_norm takes a Module, not {describe(model)}")
    for _, norm in _norms(model):
        _check_in_use("fold_batch_norm", norm)
    model = copy.deepcopy(model)
    count = Counter(id(module) for _, module in model._places())
    before = {id(_at(place)): (previous, place) for previous, place in _neighbours(model)}
    left = []
    for path, norm in _norms(model):
        if why := _why_not(norm, before, count):
            left.append(f"\n  {path or type(norm).__name__}: {why}")
        else:
            (parent, name), (row, place) = before[id(norm)]
            setattr(parent, name, fold(_at((parent, name)), norm))
            setattr(row, place, Identity().train(norm.training))
    if left:
        warnings.warn("fold_batch_norm left alone" + "".join(left), stacklevel=2)
    return model


def _norms(model: Module) -> list[tuple[str, BatchNorm]]:
    return [(path, m) for path, m in model.named_modules() if isinstance(m, BatchNorm)]


def _why_not(
    norm: BatchNorm, before: dict[int, tuple[Place, Place]], count: Counter[int]
) -> str | None:
    """Say why a batch norm cannot be folded, or return None."""
    if norm.running_mean is None:
        return "it has no running statistics: in use, too, it needs a batch"
    if id(norm) not in before:
        return "no Sequential says what it is behind; mb.nn.fold(layer, norm) joins a pair"
    layer = _at(before[id(norm)][0])
    if not _belong_together(layer, norm):
        return f"it is behind a {type(layer).__name__}"
    if count[id(layer)] > 1 or count[id(norm)] > 1:
        return f"it, or the {type(layer).__name__} that it is behind, is used in several places"
    return None


def _belong_together(layer: Module, norm: Module) -> bool:
    """Whether both compute what the formula above is about, and not something of their own."""
    pairs = (Linear, BatchNorm1d), (Conv2d, BatchNorm2d)
    return any(_computes(layer, a) and _computes(norm, b) for a, b in pairs)


def _computes(module: Module, kind: type[Module]) -> bool:
    return isinstance(module, kind) and type(module).forward is kind.forward


def _neighbours(model: Module) -> Iterator[tuple[Place, Place]]:
    """Yield what follows what in a Sequential, as places: of two in a row, both."""
    for module in model.modules():
        if _computes(module, Sequential):
            yield from pairwise(_row(module))


def _row(sequential: Module) -> Iterator[Place]:
    """Yield the places in a Sequential in order, for a Sequential in it those within that."""
    for name, child in sequential.named_children():
        if _computes(child, Sequential):
            yield from _row(child)
        else:
            yield sequential, name


def _at(place: Place) -> Module:
    module: Module = getattr(*place)
    return module


def _check_in_use(op: str, norm: BatchNorm) -> None:
    if norm.training:
        raise ShapeError(
            f"{op}: {norm!r} is in training mode, where it normalises by the statistics of the "
            "batch: these differ from batch to batch and carry gradients, so no fixed weights do "
            "the same. Call eval() first"
        )
