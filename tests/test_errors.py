"""Bad input: each message names the op, the operands and the remedy, and nothing is half done."""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import microbn as mb
from microbn import ops
from microbn.testing import check_op

NAN = float("nan")


def tensors():
    """Return tensors named as in the cases below: x (4, 3), b (4,), n (2,) of integers, s ()."""
    x = mb.Tensor(np.arange(12.0).reshape(4, 3), requires_grad=True, name="x")
    b = mb.Tensor(np.arange(4.0), requires_grad=True, name="b")
    return x, b, mb.Tensor([1, 2], name="n"), mb.Tensor(1.0, name="s")


def assign(x, key, value):
    x[key] = value


def in_place(array, x):
    array += x


def new(attribute):
    return lambda tensor, value: setattr(tensor, attribute, value)


X, B, N, S = tensors()
Y = (X * 2).named("y")
AXIS = "each axis must lie in"
FIT = "aligned from the right, each pair of sizes must be equal, or one of them 1"
KINDS = "booleans, integers or floats"
OPERANDS = "operands are Tensors, real arrays"

# A call, the error it raises, and what its message says, in this order.
CASES = [
    # shapes that do not fit
    (lambda: X + B, ValueError, "add", "x (4, 3) float64", "b (4,)", FIT),
    (lambda: B - X, ValueError, "sub", "b (4,)", "x (4, 3)", FIT),
    (lambda: np.ones(2) * X, ValueError, "mul", "array (2,)", "x (4, 3)", FIT),
    (lambda: np.maximum(X, [1, 2]), ValueError, "maximum", "x (4, 3)", "(2,)", FIT),
    (lambda: np.where(X > 0, X, B), ValueError, "where", "bool", "x (4, 3)", "b (4,)", FIT),
    (lambda: X @ B, ValueError, "matmul", "x (4, 3)", "b (4,)", "last axis of the left", ".T"),
    (lambda: X @ 2.0, ValueError, "matmul", "x (4, 3) float64", "2.0", "multiplied by *"),
    (lambda: X.sum() @ X.sum(), ValueError, "matmul", "() float64", "multiplied by *"),
    (lambda: X.reshape(5, -1), ValueError, "reshape", "x (4, 3)", "(5, -1)", "must multiply to"),
    (lambda: np.broadcast_to(X, (4, 2)), ValueError, "broadcast_to", "x (4, 3)", "(4, 2)", FIT),
    (lambda: np.concatenate([X, B]), ValueError, "concatenate", "x (4, 3)", "b (4,)", "axis"),
    (lambda: np.stack([X, X.T]), ValueError, "stack", "x (4, 3)", "(3, 4)", "need the same shape"),
    (lambda: X.squeeze(0), ValueError, "squeeze", "x (4, 3)", "axis=0", "only axes of length 1"),
    # an axis out of range or repeated
    (lambda: X.sum(axis=2), ValueError, "sum", "x (4, 3)", "axis=2", AXIS),
    (lambda: np.mean(X, axis=-3), ValueError, "mean", "x (4, 3)", "axis=-3", AXIS),
    (lambda: X.max((0, 0)), ValueError, "max", "x (4, 3)", "axis=(0, 0)", AXIS, "once"),
    (lambda: np.min(X, axis=(1, -1)), ValueError, "min", "x (4, 3)", "axis=(1, -1)", AXIS, "once"),
    (lambda: X.transpose(0, 0), ValueError, "transpose", "x (4, 3)", "axes=(0, 0)", AXIS, "once"),
    (lambda: X.transpose(1), ValueError, "transpose", "x (4, 3)", "axes=(1,)", AXIS),
    (lambda: np.expand_dims(X, 4), ValueError, "expand_dims", "x (4, 3)", "axis=4", AXIS),
    (lambda: np.stack([X, X], axis=3), ValueError, "stack", "x (4, 3)", "axis=3"),
    (lambda: np.sum(X, axis=0.5), TypeError, "sum", "x (4, 3)", "axis=0.5"),
    (lambda: np.var(X, axis=2), ValueError, "x (4, 3)", "axis=2", AXIS),
    (lambda: mb.functional.softmax(X, axis=2), ValueError, "x (4, 3)", "axis=2", AXIS),
    (lambda: mb.batch_norm(X, axis=2), ValueError, "batch_norm", "x (4, 3)", "axis=2", "2 axes"),
    # eps
    (lambda: mb.batch_norm(X, eps=NAN), ValueError, "batch_norm", "eps=nan", "positive number"),
    (lambda: mb.batch_norm(X, eps=-1e-5), ValueError, "batch_norm", "eps=-1e-05", "positive"),
    (lambda: mb.batch_norm(X, eps="1e-5"), TypeError, "batch_norm", "eps='1e-5'", "number"),
    # an index
    (lambda: X[7], IndexError, "index", "x (4, 3)", "7", "within the shape"),
    (lambda: X[0, 0, 0], IndexError, "index", "x (4, 3)", "within the shape"),
    (lambda: X["gpa"], IndexError, "index", "x (4, 3)", "integers"),
    (lambda: X[np.ones(3, bool)], IndexError, "index", "x (4, 3)", "within the shape"),
    # nothing to differentiate, or no direction
    (lambda: X.backward(), RuntimeError, "x (4, 3)", "single number", ".sum()"),
    (lambda: Y.backward(), RuntimeError, "y (4, 3)", "single number", ".sum()"),
    (lambda: mb.grad(X, X), RuntimeError, "x (4, 3)", "single number", ".sum()"),
    (lambda: next(mb.backprop(X)), RuntimeError, "x (4, 3)", "single number", ".sum()"),
    (lambda: S.backward(), RuntimeError, "s () float64", "requires no gradient", "requires_grad="),
    (lambda: (S * 2).named("t").backward(), RuntimeError, "t ()", "requires_grad=True", "no_grad"),
    (lambda: mb.grad(S, X), RuntimeError, "s ()", "requires_grad=True"),
    (lambda: mb.grad(X.sum(), S), RuntimeError, "s ()", "requires_grad=True"),
    (lambda: mb.grad((X * S).sum(), [X, S]), RuntimeError, "s ()", "requires_grad=True"),
    (lambda: mb.backprop(S), RuntimeError, "s ()", "requires_grad=True"),
    (lambda: mb.grad(3.0, X), TypeError, "must be a Tensor", "3.0"),
    (lambda: mb.grad(X.sum(), X.data), TypeError, "Tensor"),
    (lambda: mb.grad(X.sum(), 3.0), TypeError, "must be a Tensor", "3.0"),
    (lambda: mb.backprop(X.data), TypeError, "must be a Tensor", "array (4, 3)"),
    # a gradient that does not fit
    (lambda: X.backward(np.ones(3)), ValueError, "gradient", "x (4, 3)", "(3,)", "shape"),
    (lambda: X.sum().named("y").backward(np.ones(1)), ValueError, "gradient", "y ()", "(1,)"),
    (lambda: mb.grad(X, X, np.ones((1, 3))), ValueError, "gradient", "x (4, 3)", "(1, 3)", "shape"),
    (lambda: mb.grad(X, X, B, create_graph=True), ValueError, "gradient", "x (4, 3)", "(4,)"),
    (lambda: new("grad")(X, np.ones(3)), ValueError, "x (4, 3)", "(3,)", "shape"),
    (lambda: B.backward(np.ones(4) * 1j), TypeError, "complex"),
    (lambda: B.backward([1j] * 4), TypeError, "complex"),
    (lambda: B.backward([None] * 4), TypeError, "object"),
    (lambda: B.backward(["1"] * 4), TypeError, "<U1"),
    (lambda: mb.grad(B, B, np.ones(4) * 1j, create_graph=True), TypeError, "complex"),
    # data of the wrong kind
    (lambda: mb.Tensor(None), TypeError, "None", KINDS),
    (lambda: mb.Tensor([object()]), TypeError, "object", KINDS),
    (lambda: mb.Tensor("text"), TypeError, "'text' (str)", KINDS),
    (lambda: mb.Tensor(np.array(["a"])), TypeError, "array (1,) <U1", KINDS),
    (lambda: mb.Tensor([1j]), TypeError, "1j", KINDS, "complex"),
    (lambda: mb.Tensor([1.0], dtype=complex), TypeError, KINDS, "complex"),
    (lambda: mb.Tensor(np.array([1j]), dtype=float), TypeError, KINDS, "complex"),
    (lambda: mb.Tensor(np.array([None]), dtype=float), TypeError, KINDS, "object"),
    (lambda: mb.Tensor(["1.5"], dtype=float), TypeError, KINDS, "<U3"),
    (lambda: mb.Tensor(np.array(["2020"], "M8")), TypeError, "datetime64", KINDS),
    (lambda: mb.Tensor([[1], [2, 3]]), TypeError, "[[1], [2, 3]]"),
    (lambda: mb.Tensor(np.ma.array([1.0], mask=True)), TypeError, "mask", ".filled"),
    (lambda: mb.Tensor(X), TypeError, "x (4, 3)", ".detach()"),
    (lambda: mb.Tensor([X, X]), TypeError, "x (4, 3)", "np.stack"),
    (lambda: new("data")(X, np.ones((4, 3)) * 1j), TypeError, "complex"),
    (lambda: new("data")(X, np.full((4, 3), None)), TypeError, "object"),
    (lambda: new("data")(X, np.ones(3)), ValueError, "x (4, 3)", "(3,)", "shape"),
    (lambda: new("data")(Y, 1), RuntimeError, "y (4, 3)", "mul", "leaf", ".detach()"),
    (lambda: new("requires_grad")(N, True), TypeError, "n (2,) int64", ".astype(float)"),
    (lambda: new("requires_grad")(Y, False), RuntimeError, "y (4, 3)", "mul", ".detach()"),
    # operands of the wrong kind
    (lambda: X + "text", TypeError, "add", "x (4, 3) float64", "'text' (str)", OPERANDS),
    (lambda: "text" + X, TypeError, "add", "'text' (str)", "x (4, 3) float64", OPERANDS),
    (lambda: None * X, TypeError, "mul", "None", "x (4, 3)", OPERANDS),
    (lambda: X / 1j, TypeError, "div", "x (4, 3)", "1j (complex)", OPERANDS),
    (lambda: X - np.array([1j]), TypeError, "sub", "x (4, 3)", "complex128", OPERANDS),
    (lambda: np.array([None]) ** X, TypeError, "pow", "array (1,) object", "x (4, 3)", OPERANDS),
    (lambda: X @ np.array([["a"]]), TypeError, "matmul", "x (4, 3)", "array (1, 1)", OPERANDS),
    (lambda: np.stack([X, "text"]), TypeError, "stack", "x (4, 3)", "'text' (str)", OPERANDS),
    (lambda: ops.add(X), TypeError, "add", "x (4, 3)", "1"),
    (lambda: ops.add(X, X, X), TypeError, "add", "x (4, 3)", "3"),
    (lambda: N**-1, ValueError, "pow", "n (2,) int64", "-1", ".astype(float)"),
    (lambda: check_op(ops.add, 1, N.data), TypeError, "1, array (2,) int64"),
    # what an array can and a Tensor cannot
    (lambda: np.asarray(X), TypeError, "x (4, 3)", ".numpy() or .detach()"),
    (lambda: np.array([X, X]), TypeError, "x (4, 3)", ".numpy() or .detach()"),
    (lambda: assign(X, 0, 1.0), TypeError, "x (4, 3)", "in place", "np.where"),
    (lambda: assign(S, (), 1.0), TypeError, "s ()", "in place", "np.where"),
    (lambda: in_place(np.ones((4, 3)), X), TypeError, "add", "x (4, 3)", "out=", "assign"),
    (lambda: np.var(X, where=X > 0), TypeError, "var", "where=", "np.where"),
    (lambda: np.std(X, out=np.empty(())), TypeError, "std", "out=", "overwrite"),
    (lambda: np.square(X, out=np.empty((4, 3))), TypeError, "square", "out=", "overwrite"),
    (lambda: bool(X), ValueError, "x (4, 3)", "truth value", ".any()"),
    (lambda: bool(X[:0]), ValueError, "(0, 3)", "truth value", ".any()"),
    (lambda: X.item(), ValueError, "x (4, 3)", "item"),
    (lambda: float(B), ValueError, "b (4,)"),
    (lambda: f"{B:.2f}", ValueError, "b (4,)"),
    (lambda: len(S), TypeError, "s ()", "no axes"),
    (lambda: list(S), TypeError, "s ()", "no axes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [pytest.param(call, error, words, id=", ".join(words)) for call, error, *words in CASES],
)
def test_messages_name_the_op_the_operands_and_the_remedy(call, error, words):
    before = [(t.data.copy(), t.grad, t.requires_grad, t.op) for t in (X, B, N, S)]
    with pytest.raises(error, match=".*".join(map(re.escape, words))) as raised:
        call()
    assert type(raised.value).__module__ == "microbn.errors"
    for tensor, (data, *rest) in zip((X, B, N, S), before, strict=True):
        assert_array_equal(tensor.data, data, strict=True)
        assert [tensor.grad, tensor.requires_grad, tensor.op] == rest
    assert mb.Tensor(1.0).scope == ()
    assert (X * 1).requires_grad


# Nothing is left half done


def snapshot(*ts):
    return [(t.data.tolist(), None if t.grad is None else t.grad.tolist()) for t in ts]


def test_a_gradient_of_the_wrong_shape_changes_no_gradient():
    x, b, *_ = tensors()
    y = x.T * b
    z = y * y
    z.backward(np.ones((3, 4)))
    before = snapshot(x, b, y, z)
    for bad, error in ((np.ones((4, 3)), ValueError), ("text", TypeError), (None, RuntimeError)):
        with pytest.raises(error):
            z.backward(bad)
    assert snapshot(x, b, y, z) == before


def test_a_rule_that_fails_midway_changes_no_gradient():
    def broken(g, out, x):
        raise ArithmeticError("no")

    fragile = ops.Op("fragile", lambda x: x * 1, broken)
    x, b, *_ = tensors()
    y = x * 2
    z = (fragile(y) * y * b[:3]).sum()
    (y * b[:3]).sum().backward()
    before = snapshot(x, b, y, z)
    for retain in (True, False):
        with pytest.raises(ArithmeticError):
            z.backward(retain_grad=retain)
        with mb.no_grad(), pytest.raises(ArithmeticError):
            mb.grad(z, x, create_graph=True)
        with pytest.raises(ArithmeticError):
            dict(mb.backprop(z))
    assert snapshot(x, b, y, z) == before
    assert (x * 1).requires_grad
    assert (x * 1).scope == ()


def test_a_backprop_that_is_abandoned_changes_nothing():
    x, *_ = tensors()
    y = (x * x).sum()
    y.backward()
    before = snapshot(x, y)
    for create_graph in (False, True):
        steps = mb.backprop(y, create_graph=create_graph)
        next(steps)
        next(steps)
        steps.close()
    assert snapshot(x, y) == before
    assert (x * 1).requires_grad


def test_in_place_operations_change_neither_side():
    x, *_ = tensors()
    array, before = np.ones((4, 3)), x.data.copy()
    for change in (np.add, np.subtract, np.multiply, np.divide, np.power):
        with pytest.raises(TypeError):
            change(array, x, out=array)
    with pytest.raises(TypeError):
        in_place(array, x)
    with pytest.raises(TypeError):
        assign(x, slice(None), 0.0)
    with pytest.raises(TypeError):
        array[:] = x
    assert_array_equal(array, np.ones((4, 3)))
    assert_array_equal(x.data, before)


def test_scopes_and_recording_are_restored_when_batch_norm_raises():
    x, *_ = tensors()
    with mb.scope("layer"), mb.no_grad():
        with pytest.raises(ValueError, match="eps"):
            mb.batch_norm(x, eps=-1.0)
        assert mb.Tensor(1.0).scope == ("layer",)
        assert not (x * 1).requires_grad
    assert (x * 1).requires_grad


def test_an_error_says_which_exception_numpy_raised():
    with pytest.raises(ValueError, match="add") as raised:
        X + B
    assert isinstance(raised.value.__cause__, ValueError)
    assert "microbn" not in str(raised.value.__cause__)
