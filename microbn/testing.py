"""Testing a rule against what it claims to be: the derivative of its function, to any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
    where, an OperandError (a TypeError) if ``args`` has nothing to differentiate by.

    >>> x = np.array([1.0, -2.0, 3.0])
    >>> check_op(np.multiply, x, np.array([[2.0], [5.0]]))

    A wrong rule is caught at the order where it is wrong. This one remembers a number instead of
    computing it from its arguments, and is right until somebody differentiates it:

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
        given = ", ".join(describe(a) for a in args)
        raise OperandError(f"check_op differentiates by floating arrays; there are none in {given}")
    name = getattr(op_or_fn, "name", None) or getattr(op_or_fn, "__name__", repr(op_or_fn))

    def fn(*xs: Any) -> Tensor:
        values = dict(enumerate(args)) | dict(zip(floating, xs, strict=True))
        return op_or_fn(*values.values(), **params)

    arguments = {f"argument {i}": np.asarray(args[i]) for i in floating}
    _check(fn, arguments, f"{name}, order ", "", 1, order, np.random.default_rng(seed))


def _check(
    fn: Function, args: dict[str, Array], name: str, path: str, order: int, last: int, rng: Any
) -> None:
    wide = [a.astype(np.float64) for a in args.values()]
    out, inputs = _call(fn, wide)
    given, given_inputs = _call(fn, args.values())
    g = rng.standard_normal(out.shape).astype(given.dtype)

    gradients = [t.data for t in grad(out, inputs, g)]
    recorded = [t.data for t in grad(out, inputs, g, create_graph=True)]
    results = [t.data for t in grad(given, given_inputs, g)]
    coarsest = max(float(np.finfo(a.dtype).eps) for a in (given, *given_inputs))
    for i, (label, a) in enumerate(args.items()):
        what, result = f"{name}{order}, {path}{label} {a.shape} {a.dtype}", results[i]
        assert result.shape == a.shape, f"{what}: the gradient has shape {result.shape}"
        assert result.dtype == a.dtype, f"{what}: the gradient has dtype {result.dtype}"
        assert np.isfinite(result).all(), f"{what}: the gradient is not finite"
        for other in (*results[:i], *args.values(), g, given.data):
            assert not np.shares_memory(result, other), f"{what}: the gradient shares memory"
        _assert_close(recorded[i], gradients[i], 1e-12, f"{what}: Tensors against arrays")
        _assert_close(result, gradients[i], 100 * coarsest, f"{what}: against float64")
        _assert_slope(fn, wide, i, g, out.data, gradients[i], what, rng)

    for i, label in enumerate(args if order < last else ()):

        def gradient(g: Tensor, *xs: Tensor, i: int = i) -> Any:
            return grad(fn(*xs), xs[i], g, create_graph=True)

        inner = {f"cotangent {order}": np.asarray(g), **args}
        _check(gradient, inner, name, f"{path}{label} and then ", order + 1, last, rng)


def _call(fn: Function, args: Iterable[Array]) -> tuple[Tensor, list[Tensor]]:
    inputs = [Tensor(a, requires_grad=True, copy=False) for a in args]
    return fn(*inputs), inputs


def _is_floating(a: Any) -> bool:
    return isinstance(a, np.ndarray | np.generic) and a.dtype.kind == "f"


def _assert_close(a: Array, b: Array, tolerance: float, what: str) -> None:
    assert a.shape == b.shape, f"{what}: shape {a.shape}, not {b.shape}"
    error, size = np.max(np.abs(a - b), initial=0), np.max(np.abs(b), initial=0)
    assert error <= tolerance * size, f"{what}: {a}, {b}, relative error {error / size:.2g}"


def _assert_slope(
    fn: Function, args: list[Array], i: int, g: Array, out: Array, grad: Array, what: str, rng: Any
) -> None:
    # A central difference with step h is off by about h**2 / 6 times the third derivative, and by
    # eps / h times the value. With the cube root of eps for h both are near eps ** (2/3), 4e-11 in
    # float64; a thousand times that leaves room for steep functions and none for a wrong
    # coefficient. eps is that of the result, since a function may cast. The direction is what the
    # step came out as, after rounding.
    eps = float(np.finfo(out.dtype).eps)
    h = eps ** (1 / 3)
    step = h * rng.standard_normal(grad.shape)
    up, down = args[i] + step, args[i] - step
    ahead, behind = (_call(fn, [*args[:i], x, *args[i + 1 :]])[0].data for x in (up, down))
    numeric = float(np.sum(g * (ahead - behind)) / (2 * h))
    terms = grad * ((up - down) / (2 * h))
    rule, size = float(np.sum(terms)), np.sum(np.abs(terms)) + np.sum(np.abs(g * out))
    error = abs(rule - numeric)
    assert error <= 1000 * eps ** (2 / 3) * size, (
        f"{what}: the rule gives {rule:.8}, central differences {numeric:.8}, "
        f"relative error {error / max(abs(rule), abs(numeric)):.2g}"
    )
