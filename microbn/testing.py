"""Testing a rule against what it claims to be: the derivative of its function, to any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .engine import grad
from .errors import OperandError, describe
from .kernels import Array
from .tensor import Tensor

Function = Callable[..., Tensor]


def check_op(op_or_fn: Function, *args: Any, order: int = 2, seed: int = 0, **params: Any) -> None:
    """Assert that the derivatives of ``op_or_fn(*args, **params)`` are right, up to ``order``.

    It is an Op, a NumPy function that has a rule, or anything that computes a Tensor from
    Tensors. It is differentiated with respect to each floating array among ``args``; all else is
    handed on as it is. For a random cotangent, the gradient along a random direction must be what
    central differences in float64 say. Besides, gradients must be finite, have the shape and
    dtype of their argument, share no memory, and come out alike from arrays and from Tensors
    (``create_graph=True``). At order 2 all this is asked of the gradients, as functions of the
    cotangent and the arguments, and so on. Raises an AssertionError that says what is wrong and
    where, an OperandError (a TypeError) if nothing can be differentiated.

    >>> x = np.array([1.0, -2.0, 3.0])
    >>> check_op(np.multiply, x, np.array([[2.0], [5.0]]))

    A wrong rule is caught. This one remembers a number instead of computing it, and is right until
    somebody differentiates it:

    >>> from microbn.ops import Op
    >>> def cube(x):
    ...     cube.slope = 3 * x**2
    ...     return x**3
    >>> check_op(Op("cube", cube, lambda g, out, x: g * cube.slope), x)
    Traceback (most recent call last):
    AssertionError: cube, order 2, argument 0 and then argument 0 (3,) float64: the rule gives 0.0,
    central differences ..., relative error 1
    """
    floating = [i for i, a in enumerate(args) if _is_floating(a)]
    if not floating:
        raise OperandError(f"check_op needs a floating array, not {', '.join(map(describe, args))}")
    name = getattr(op_or_fn, "name", None) or getattr(op_or_fn, "__name__", repr(op_or_fn))

    def fn(*xs: Any) -> Tensor:
        values = dict(enumerate(args)) | dict(zip(floating, xs, strict=True))
        return op_or_fn(*values.values(), **params)

    arguments = {f"argument {i}": np.asarray(args[i]) for i in floating}
    todo, rng = [Case(fn, arguments)], np.random.default_rng(seed)
    for n in range(1, order + 1):
        todo = [then for case in todo for then in _check(f"{name}, order {n}, ", case, rng)]


class Case(NamedTuple):
    """A function to check, how it came from the first, and the coarsest precision on the way."""

    fn: Function
    args: dict[str, Array]
    path: str = ""
    eps: float = 0.0


def _check(name: str, case: Case, rng: np.random.Generator) -> Iterator[Case]:
    """Check the gradient in each argument, and yield these gradients as functions."""
    fn, args, path, eps = case
    wide = [a.astype(np.float64) for a in args.values()]
    out, inputs = _call(fn, wide)
    given, given_inputs = _call(fn, args.values())
    g = rng.standard_normal(out.shape).astype(given.dtype)
    eps = max(eps, float(np.finfo(out.dtype).eps))
    coarse = 100 * max(float(np.finfo(a.dtype).eps) for a in (given, *given_inputs))

    gradients = [t.data for t in grad(out, inputs, g)]
    recorded = [t.data for t in grad(out, inputs, g, create_graph=True)]
    results = [t.data for t in grad(given, given_inputs, g)]
    for i, (label, a) in enumerate(args.items()):
        what, result = f"{name}{path}{label} {a.shape} {a.dtype}", results[i]
        if (result.shape, result.dtype) != (a.shape, a.dtype):
            raise AssertionError(f"{what}: the gradient is {describe(result)}")
        if not np.isfinite(result).all():
            raise AssertionError(f"{what}: the gradient is not finite: {result}")
        if any(np.shares_memory(result, b) for b in (*results[:i], *args.values(), g, given.data)):
            raise AssertionError(f"{what}: the gradient shares memory with another array")
        if not _close(recorded[i], gradients[i], 1e-12):
            raise AssertionError(f"{what}: Tensors give {recorded[i]}, arrays {gradients[i]}")
        if not _close(result, gradients[i], coarse):
            raise AssertionError(f"{what}: {result} is not what float64 gives, {gradients[i]}")

        # A central difference with step h is off by about h**2 / 6 times the third derivative, and
        # by eps / h times the value. With the cube root of eps for h both are near eps ** (2/3),
        # 4e-11 in float64; a thousand times that leaves room for steep functions and none for a
        # wrong coefficient. The direction is what the step came out as, after rounding.
        h = eps ** (1 / 3)
        step = h * rng.standard_normal(a.shape)
        up, down = wide[i] + step, wide[i] - step
        ahead, behind = (_call(fn, [*wide[:i], x, *wide[i + 1 :]])[0].data for x in (up, down))
        numeric = float(np.sum(g * (ahead - behind)) / (2 * h))
        terms = gradients[i] * ((up - down) / (2 * h))
        rule, size = float(np.sum(terms)), np.sum(np.abs(terms)) + np.sum(np.abs(g * out.data))
        if not abs(rule - numeric) <= 1000 * eps ** (2 / 3) * size:
            raise AssertionError(
                f"{what}: the rule gives {rule:.8}, central differences {numeric:.8}, "
                f"relative error {abs(rule - numeric) / max(abs(rule), abs(numeric)):.2g}"
            )

        def gradient(g: Tensor, *xs: Tensor, i: int = i) -> Any:
            return grad(fn(*xs), xs[i], g, create_graph=True)

        by = {f"the cotangent of {path}{label}": g, **args}
        yield Case(gradient, by, f"{path}{label} and then ", eps)


def _call(fn: Function, args: Iterable[Array]) -> tuple[Tensor, list[Tensor]]:
    inputs = [Tensor(a, requires_grad=True, copy=False) for a in args]
    return fn(*inputs), inputs


def _close(a: Array, b: Array, tolerance: float) -> bool:
    return bool(np.max(np.abs(a - b), initial=0) <= tolerance * np.max(np.abs(b), initial=0))


def _is_floating(a: Any) -> bool:
    return isinstance(a, np.ndarray | np.generic) and a.dtype.kind == "f"
