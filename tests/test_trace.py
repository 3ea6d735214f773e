"""Tracing: names, scopes and lines that come by themselves, and nothing else that changes."""

# ruff: noqa: RET504 (a value gets its name from the variable before the return)

import asyncio
import contextlib
import functools
import gc
import linecache
import os
import sys
import threading
import weakref
from contextvars import copy_context

import numpy as np
import pytest

import microbn as mb
from microbn.context import START, state
from microbn.graph import Trace
from microbn.graph.frames import names_in, user_frame
from microbn.graph.snapshot import Notes

X = np.array([[1.0, 2.0], [3.0, 5.0], [4.0, 9.0]])
W = mb.Tensor([[1.0], [2.0]], requires_grad=True)
SHIFT = np.array([0.5, 0.25])


@pytest.fixture(autouse=True)
def everything_is_put_back():
    frame, before = sys._getframe(), sys.gettrace()
    W.name = None
    yield
    assert sys.gettrace() is before
    assert frame.f_trace is None
    assert state.get() is START


def titles(trace):
    """What the nodes of the graph are called: the op where there is no name."""
    return [node.name or node.op for node in trace.graph.nodes]


def names(trace):
    return [node.name for node in trace.graph.nodes]


def places(trace):
    """The scope of every op, by what it is called."""
    return [(node.name or node.op, *node.scope) for node in trace.graph.nodes if node.op]


def entries(trace):
    """Every entering of a scope, as a path."""
    scopes = trace.graph.scopes

    def path(scope):
        around = () if scope.parent is None else path(scopes[scope.parent])
        return (*around, scope.name)

    return [path(scope) for scope in scopes]


# Names --------------------------------------------------------------------------------------------


def test_values_are_called_what_the_variables_are_called():
    def f(x, scale):
        mean = x.mean(axis=0)
        centered = x - mean
        return centered * scale + 1

    trace = mb.trace(f, X, scale=np.ones(2))
    assert names(trace) == ["x", "mean", "centered", "scale", None, None]
    assert titles(trace)[4:] == ["mul", "add"]
    assert trace.name == "f"
    assert trace.output.name is None


def test_of_two_bindings_in_a_row_both_values_have_the_name():
    def f(x):
        x = np.tanh(x)
        x = x * 2
        x += 1
        return x

    assert names(mb.trace(f, X)) == ["x", "x", "x", "x"]


def test_of_two_names_for_a_value_the_first_counts():
    def f(x):
        first = x * 2
        second = first
        third = fourth = second + 1
        return third * fourth

    assert names(mb.trace(f, X)) == ["x", "first", "third", None]


def test_what_a_function_calls_its_result_it_is_called_outside():
    def inner(a):
        inside = a + 1
        return inside

    def anonymous(b):
        return b * 2

    def f(x):
        outside = inner(x)
        result = anonymous(outside)
        return anonymous(result + 3)

    assert names(mb.trace(f, X)) == ["x", "inside", "result", "b", None]


def test_unpacking_walrus_loops_and_with_bind_as_well():
    def f(x):
        a, (b, *rest) = x * 1, [x * 2, x * 3]
        if (c := a + b).size:
            for d in (c - 1, c - 2):
                a = a + d
        with contextlib.nullcontext(a * 4) as e:
            pass
        return e + rest[0]

    trace = mb.trace(f, X)
    assert names(trace) == ["x", "a", "b", None, "c", "d", "d", "a", "a", "e", None]


def test_a_variable_bound_twice_on_one_line_names_both_values():
    def f(x):
        y = x * 2; y = y + 1  # fmt: skip # noqa: E702
        return helper(z := y - 1) / (z + 1)

    assert names(mb.trace(f, X)) == ["x", "y", "y", "z", None, None, None]


def test_underscores_do_not_count_and_self_is_no_name():
    class Leaf(mb.Tensor):
        def __init__(self, data):
            super().__init__(data)
            self.double = self * 2

        def twice(self):
            return self * 2

    def f(x):
        _ = x + 1
        _hidden = _ * 2
        leaf = Leaf(1.0)
        return _hidden * leaf + Leaf(2.0).twice()

    assert names(mb.trace(f, X)) == ["x", None, None, "leaf", None, None, None, None]


def test_names_that_somebody_gave_stay():
    def f(x):
        y = (x * 2).named("twice")
        z = y + 1
        z.named("late")
        return z

    x = mb.Tensor(X, name="data")
    assert names(mb.trace(f, x)) == ["data", "twice", "late"]
    y = mb.trace(lambda x: mb.batch_norm(x), X)
    assert names(y)[:3] == ["x", "mean", "centered"]


def test_global_variables_and_those_of_functions_around_give_names():
    around = mb.Tensor(2.0)
    shift = np.array([1.0, 2.0])

    def f(x):
        return (x + SHIFT - shift) @ W * around

    trace = mb.trace(f, X)
    assert names(trace) == ["x", "SHIFT", None, "shift", None, "W", None, "around", None]


def test_arrays_are_named_and_kept_so_that_no_other_array_gets_the_name():
    def drop():
        mask = np.ones((3, 2))
        assert mask.any()

    def f(x):
        drop()
        other = x * np.ones((3, 2))  # lies where the first array lay, if that is gone
        fixed = np.arange(6.0).reshape(3, 2)
        return other + fixed

    assert names(mb.trace(f, X)) == ["x", None, "other", "fixed", None]


def test_comprehensions_bind_their_variables_and_are_no_scopes():
    def f(x):
        rows = [2 * row for row in x]
        first, _ = [g(y) for y in rows[:2]]
        return first + sum(z * 1 for z in rows) + {k: v + 1 for k, v in enumerate(rows)}[0]

    def g(a):
        return a + 1

    trace = mb.trace(f, X)
    assert names(trace)[:8] == ["x", "row", "y", "row", "y", "row", "z", "first"]
    assert not any(names(trace)[8:])
    assert {node.scope for node in trace.graph.nodes} == {(), ("g",)}


def test_lambdas_are_no_scopes_and_their_parameters_give_names():
    def f(x):
        return (lambda h: np.exp(h + 1))(x * 2)

    assert places(mb.trace(f, X)) == [("h",), ("add",), ("exp",)]
    assert places(mb.trace(lambda x: f(x), X)) == [("h", "f"), ("add", "f"), ("exp", "f")]
    assert mb.trace(lambda x: x * 2, X).name == "<lambda>"


# Scopes -------------------------------------------------------------------------------------------


def helper(a):
    return a * 2


def two_calls(x):
    y = helper(x)
    z = helper(y)
    return z


def test_functions_are_scopes_and_two_calls_are_two():
    trace = mb.trace(two_calls, X)
    assert places(trace) == [("y", "helper"), ("z", "helper")]
    assert entries(trace) == [("helper",), ("helper",)]


def test_nested_and_recursive_functions_nest():
    def f(x):
        return power(x, 2) + 1

    def power(x, n):
        return x if n == 0 else x * power(x, n - 1)

    trace = mb.trace(f, X)
    assert places(trace) == [("mul", "power", "power"), ("mul", "power"), ("add",)]
    assert entries(trace) == [("power",), ("power", "power")]

    trace = mb.trace(power, X, 2)  # the outermost call is no scope, the others are
    assert places(trace) == [("mul", "power"), ("mul",)]


def test_what_calls_a_function_in_the_place_of_the_trace_makes_no_scope():
    trace = mb.trace(functools.partial(functools.reduce, lambda a, b: a + helper(b)), [W, W, W])
    assert places(trace) == [("mul", "helper"), ("a",), ("mul", "helper"), ("add",)]
    steps = mb.trace(functools.reduce, two_arguments, [W, W, W])
    assert places(steps) == [("a",), ("add",)]


def two_arguments(a, b):
    return a + b


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        return result

    return wrapper


def test_wrappers_are_not_seen():
    wrapped = decorated(decorated(helper))
    cached = functools.lru_cache(functools.partial(helper))

    def f(x):
        y = wrapped(x)
        return cached(y)

    assert places(mb.trace(f, X)) == [("y", "helper"), ("mul", "helper")]
    assert places(mb.trace(decorated(two_calls), X)) == [("y", "helper"), ("z", "helper")]


def test_a_wrapper_of_a_method_is_not_seen_and_what_only_looks_like_one_is_a_scope():
    def logged(method):
        def wrapper(self, *args):
            return method(self, *args)

        return wrapper

    class Layer:
        @logged
        def apply(self, x):
            return x * 2

        def __call__(self, x):
            return self.apply(x)

    constant = 3

    def total(*xs):
        return sum(xs) * constant

    layer = Layer()
    f = lambda x: total(layer(x), x)  # noqa: E731
    assert places(mb.trace(f, X)) == [
        *[("mul", "Layer", "apply"), ("add", "total"), ("add", "total"), ("mul", "total")]
    ]
    assert places(mb.trace(layer, X)) == [("mul", "apply")]


def test_scopes_that_somebody_opened_win_and_nest():
    def inner(x):
        with mb.scope("b"):
            y = helper(x)
        return y + 1

    def f(x):
        with mb.scope("a"):
            z = inner(x)
        return z - 1

    assert places(mb.trace(f, X)) == [
        *[("y", "a", "inner", "b", "helper"), ("z", "a", "inner"), ("sub",)]
    ]
    with mb.scope("around"):
        trace = mb.trace(f, X)
        assert state.get()[1] == ("around",)
    assert places(trace)[-1] == ("sub", "around")


def test_a_scope_that_a_call_leaves_open_stays_open_without_the_call_and_closes():
    class Block:
        def __enter__(self):
            self.scope = mb.scope("block")
            self.scope.__enter__()

        def __exit__(self, *exception):
            self.leave()

        def leave(self):
            self.scope.__exit__()

    @contextlib.contextmanager
    def block(name):
        with mb.scope(name):
            yield

    def f(x):
        with Block(), block("more"):
            y = helper(x)
            x = y + 1
        with mb.scope("a"), Block():
            x = x + 2
        return x + 3

    assert places(mb.trace(f, X)) == [
        *[("y", "block", "more", "helper"), ("x", "block", "more"), ("x", "a", "block"), ("add",)]
    ]


def test_a_trace_that_ends_inside_an_open_scope_leaves_it_open():
    opened = mb.scope("open")
    with mb.tracing():
        opened.__enter__()
        with mb.no_grad():
            pass
    assert state.get()[:2] == (True, ("open",))
    opened.__exit__()


def test_a_trace_that_leaves_a_scope_around_it_does_not_bring_it_back():
    around = mb.scope("around")
    around.__enter__()
    with mb.tracing():
        around.__exit__()
    assert state.get() is START


def test_what_the_garbage_collector_calls_is_left_alone():
    """It may come in the middle of a change of the state; and it is no part of the program."""
    seen = []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            seen.append(("finalizer", state.get()))

    def callback(phase, info):
        seen.append((phase, state.get()))

    def f(x):
        y = helper(x)
        Cycle()
        before = state.get()
        gc.collect()
        seen.append(("after", state.get()))
        assert all(now is before for _, now in seen)
        return helper(y)

    others = list(gc.callbacks)
    gc.callbacks.append(callback)
    gc.disable()
    try:
        trace = mb.trace(f, X)
    finally:
        gc.enable()
        gc.callbacks.remove(callback)
    assert [what for what, _ in seen] == ["start", "finalizer", "stop", "after"]
    assert gc.callbacks == others
    assert [node.scope for node in trace.graph.nodes if node.op] == [("helper",), ("helper",)]


def test_generators_and_coroutines_are_no_scopes_and_leak_nothing():
    def rows(x):
        for row in x:
            double = helper(row)
            yield double

    async def later(x):
        await asyncio.sleep(0)
        return x + 1

    def f(x):
        generator = rows(x)
        total = next(generator)
        assert state.get()[1] == ()
        total = total + next(generator)  # never exhausted
        return asyncio.run(later(total))

    trace = mb.trace(f, X)
    assert [p for p in places(trace) if len(p) > 1] == [("double", "helper")] * 2
    assert names(trace)[-2:] == ["total", None]


def test_a_generator_that_outlives_the_trace_goes_on_as_usual():
    def rows(x):
        for row in x:
            after = row * 2
            yield after

    kept = []

    def f(x):
        kept.append(rows(x))
        return next(kept[0])

    trace = mb.trace(f, X)
    debugger = sys.gettrace()
    sys.settrace(lambda *_: None)  # has Python call what watched the generator before
    try:
        late = next(kept[0])
    finally:
        sys.settrace(debugger)
    assert late.name is None
    assert late.scope == ()
    assert names(trace) == ["x", "row", "after"]


def test_modules_are_scopes_and_their_parameters_have_paths():
    nn = mb.nn
    model = nn.Sequential(
        nn.Linear(2, 3, rng=0),
        nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()),
    )
    trace = mb.trace(model, X.astype(np.float32))
    assert trace.name == "Sequential"
    assert entries(trace) == [("0",), ("1.0",), ("1.0", "batch_norm"), ("1.1",)]
    parameters = [n.name for n in trace.graph.nodes if n.kind == "parameter"]
    assert parameters == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert [p.name for p in model.parameters()] == ["weight", "bias", "weight", "bias"]


class Net(mb.nn.Module):
    def __init__(self):
        self.first = mb.nn.Linear(2, 2, rng=0)
        self.block = mb.nn.Sequential(Block(), Block())
        self.first.bias.named("offset")

    def forward(self, x):
        hidden = self.first(x)
        return self.finish(self.block(hidden))

    def finish(self, x):
        return x.sum()


class Block(mb.nn.Module):
    def __init__(self):
        self.scale = mb.nn.Parameter(2.0)

    def forward(self, x):
        scaled = x * self.scale
        return helper(scaled)


@pytest.mark.parametrize("inside", [False, True])
def test_a_module_of_the_user_is_one_scope_and_its_methods_are_others(inside):
    def f(x, model=None):
        net = model or Net()
        return net(x)

    trace = mb.trace(f, X) if inside else mb.trace(f, X, Net())
    assert places(trace) == [
        *[("transpose", "first"), ("matmul", "first"), ("hidden", "first")],
        *[("scaled", "block.0"), ("x", "block.0", "helper")],
        *[("scaled", "block.1"), ("x", "block.1", "helper"), ("sum", "finish")],
    ]
    parameters = [n.name for n in trace.graph.nodes if n.kind == "parameter"]
    assert parameters == ["first.weight", "offset", "block.0.scale", "block.1.scale"]


# Lines --------------------------------------------------------------------------------------------


def test_every_op_has_its_line_also_what_microbn_composes():
    def f(x):
        y = x * 2
        z = helper(
            y + 1,
        )
        return mb.batch_norm(z)

    first = f.__code__.co_firstlineno
    sources = [n.source for n in mb.trace(f, X).graph.nodes if n.op]
    assert {s.file for s in sources} == {__file__}
    inside = helper.__code__.co_firstlineno + 1
    assert [s.line for s in sources] == [first + 1, first + 3, inside, *[first + 5] * 8]
    assert [s.text for s in sources[:4]] == [
        *["y = x * 2", "y + 1,", "return a * 2", "return mb.batch_norm(z)"]
    ]


def test_a_function_of_microbn_has_the_line_that_traces_it():
    source = mb.trace(mb.functional.mse, X, X).graph.nodes[-1].source
    assert "mb.trace(mb.functional.mse, X, X)" in source.text


def test_a_file_that_was_edited_shows_its_new_lines(tmp_path):
    file = tmp_path / "program.py"
    for text in "x * 2", "x + 10":
        file.write_text(f"def f(x):\n    return {text}\n")
        os.utime(file, (1, len(text)))
        namespace = {}
        exec(compile(file.read_text(), str(file), "exec"), namespace)
        trace = mb.trace(namespace["f"], X)
        assert trace.graph.nodes[-1].source.text == f"return {text}"


def test_cells_of_a_notebook_have_names_lines_and_no_scope():
    def run(number, text, namespace):
        file = f"<ipython-input-{number}>"
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
        exec(compile(text, file, "exec"), namespace)

    cell = {"mb": mb, "_1": mb.Tensor([5.0]), "Out": {}}
    run(1, "x = mb.Tensor([1.0, 2.0])\ndef f(a):\n    b = a + 1\n    return b\n", cell)
    run(2, "with mb.tracing() as trace:\n    y = f(x) * _1\n    z = [h * 2 for h in y]\n", cell)
    nodes = cell["trace"].graph.nodes
    assert [n.name for n in nodes] == ["x", "b", None, "y", None, None, None, None]
    assert [n.source.file for n in nodes if n.op][:2] == ["<ipython-input-1>", "<ipython-input-2>"]
    assert nodes[1].source.text == "b = a + 1"
    assert nodes[1].scope == ("f",)
    assert nodes[3].source.text == "y = f(x) * _1"
    assert {n.scope for n in nodes[2:]} == {()}


# What is recorded, and what stays as it was ----------------------------------------------------


def network(x, w, b):
    h = np.tanh(x @ w + b)
    with mb.no_grad():
        target = helper(h).sum()
    y = mb.batch_norm(h, axis=0)
    return (y * target).sum()


def test_values_and_gradients_are_the_same_to_the_bit():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in ((5, 3), (3, 4), (4,))]
    plain = [mb.Tensor(a, requires_grad=True) for a in arrays]
    loss = network(*plain)
    loss.backward()
    traced = [mb.Tensor(a, requires_grad=True) for a in arrays]
    trace = mb.trace(network, *traced)
    trace.output.backward()
    assert trace.output.data == loss.data
    assert trace.output.dtype == np.float32
    for a, b in zip(plain, traced, strict=True):
        assert a.grad.tobytes() == b.grad.tobytes()
        assert b.requires_grad
    gradient = mb.trace(lambda x: mb.grad(network(x, *plain[1:]), x), plain[0]).output
    assert gradient.data.tobytes() == plain[0].grad.tobytes()


def test_everything_is_recorded_and_nothing_requires_grad_that_did_not():
    def f(x, w):
        with mb.no_grad():
            a = x * w
        b = x + 1
        return a + b + w

    x, w = mb.Tensor(X), mb.Tensor(2.0, requires_grad=True)
    trace = mb.trace(f, x, w)
    assert names(trace) == ["x", "w", "a", "b", None, None]
    c = trace.output.inputs[0]
    a, b = c.inputs
    assert [t.op.name for t in (a, b, c)] == ["mul", "add", "add"]
    assert [t.requires_grad for t in (a, b, c, trace.output)] == [False, False, False, True]
    assert mb.grad(trace.output.sum(), w).item() == X.size
    with mb.no_grad():
        quiet = mb.trace(f, x, w).output
    assert (quiet.op.name, quiet.requires_grad) == ("add", False)
    assert f(x, x).op is None


def test_arguments_that_are_float_arrays_become_leaves_and_others_stay():
    def f(*args, **kwargs):
        seen.extend([*args, *kwargs.values()])
        return args[0] * 2

    seen = []
    given = (X, np.arange(3), 2.0, np.float64(3), mb.Tensor(1.0), [X], np.array(True))
    mb.trace(f, *given, key=np.float32([1]))
    first, *rest, key = seen
    assert (first.requires_grad, key.requires_grad, key.dtype) == (True, True, np.float32)
    assert all(a is b for a, b in zip(rest, given[1:], strict=True))
    assert first.data is not X


def test_a_function_written_for_numpy_is_traced_as_it_stands():
    def softmax(z):
        e = np.exp(z - np.max(z, axis=1, keepdims=True))
        return e / np.sum(e, axis=1, keepdims=True)

    trace = mb.trace(softmax, X)
    np.testing.assert_array_equal(trace.output.data, softmax(X))
    assert titles(trace) == ["z", "max", "sub", "e", "sum", "div"]


def test_outputs_are_found_in_nested_containers_each_once():
    def f(x):
        y, z, w = x * 2, x * 3, x * 4
        nested = [y, {"a": (z, 1, None, w)}, y]
        nested.append(nested)
        return nested

    trace = mb.trace(f, X)
    assert [t.name for t in trace.outputs] == ["y", "z", "w"]
    assert [n.kind for n in trace.graph.nodes] == ["input", *["output"] * 3]
    assert isinstance(trace.output, list)


def test_a_snapshot_is_taken_when_it_is_asked_for_also_backward():
    trace = mb.trace(lambda x: (x * x).sum(), X)
    assert trace.graph.nodes[0].cotangent is None
    backward = trace.take(backward=True, grad_output=2.0)
    assert backward.nodes[0].cotangent.tolist() == (4 * X).tolist()
    trace.output.backward()
    assert trace.graph.nodes[0].cotangent.tolist() == (2 * X).tolist()
    assert isinstance(trace.notes, Notes)
    assert repr(trace) == "<Trace of <lambda>: 2 ops, output Tensor () float64>"


# Errors -------------------------------------------------------------------------------------------


def test_what_is_no_function_and_what_returns_no_tensor_are_refused():
    def f(x):
        x * 2

    with pytest.raises(TypeError, match=r"Tensor \(\) float64 is none; .*mb.trace\(f, x\)"):
        mb.trace(mb.Tensor(1.0))
    with pytest.raises(TypeError, match=r"f returned None .*no Tensor.*from float arrays"):
        mb.trace(f, X)
    with pytest.raises(TypeError, match="no output that is a Tensor"), mb.tracing() as trace:
        trace.graph  # noqa: B018
    assert repr(trace) == "<Trace of a block: 0 ops, output nothing>"


def test_exceptions_go_through_and_all_is_put_back():
    def deep(x):
        with mb.scope("open"):
            return inner(x)

    def inner(x):
        raise KeyError(x * 2)

    with pytest.raises(KeyError):
        mb.trace(deep, X)
    assert state.get() is START
    with pytest.raises(KeyError), mb.tracing() as trace:
        deep(mb.Tensor(X, name="x"))
    assert state.get() is START
    assert places(trace) == [("mul", "deep", "open", "inner")]


def test_an_exception_that_is_caught_inside_closes_the_scopes_it_left():
    def fails(x):
        y = x * 2
        raise ValueError(y)

    def f(x):
        try:
            fails(x)
        except ValueError as error:
            z = error.args[0] + 1
        return z

    assert places(mb.trace(f, X)) == [("y", "fails"), ("z",)]


def test_what_watched_before_watches_again():
    events = []

    def debugger(frame, event, arg):
        events.append((frame.f_code.co_name, event))
        return debugger

    before = sys.gettrace()
    sys.settrace(debugger)
    try:
        mb.trace(helper, X)
        assert sys.gettrace() is debugger
        with pytest.raises(TypeError):
            mb.trace(helper, None)
        assert sys.gettrace() is debugger
        helper(X)
    finally:
        sys.settrace(before)
    assert ("helper", "line") in events


def test_the_frame_of_a_block_gets_its_own_watcher_back():
    def mine(frame, event, arg):
        return mine

    frame = sys._getframe()
    frame.f_trace = mine
    with mb.tracing():
        assert frame.f_trace is not mine
    assert frame.f_trace is mine
    frame.f_trace = None


def test_variables_may_hold_anything():
    class Hostile:
        def __getattribute__(self, name):
            raise RuntimeError(name)

        def __eq__(self, other):
            raise RuntimeError("eq")

        __hash__ = None

    class Meta(type):
        def __getattribute__(cls, name):
            raise RuntimeError(name)

        def __hash__(cls):
            raise RuntimeError("hash")

    class Module:
        def named_parameters(self):
            raise RuntimeError("not ready")

    class Claims:
        __class__ = mb.Tensor

    def f(x):
        hostile, meta, module, claims = Hostile(), Meta("M", (), {}), Module(), Claims()
        instance = type.__call__(meta)
        unfinished = mb.Tensor.__new__(mb.Tensor)
        endless = []
        endless.append(endless)
        many = np.array([object()]), np.zeros(0), float("nan")
        y = x * 2
        return {
            "y": y,
            "h": [hostile, meta, module, claims, instance, endless, many, unfinished][:7],
        }

    assert names(mb.trace(f, X)) == ["x", "y"]
    frame = sys._getframe()
    hostile = Hostile()
    assert id(hostile) not in names_in(frame)


def test_class_bodies_may_run_in_any_mapping():
    class Odd(dict):
        def items(self):
            raise RuntimeError

    class Meta(type):
        @classmethod
        def __prepare__(cls, name, bases):
            return Odd()

        def __new__(cls, name, bases, namespace):
            return super().__new__(cls, name, bases, dict(dict.items(namespace)))

    def f(x):
        class Inside(metaclass=Meta):
            y = helper(x)

        class Plain:
            z = Inside.y + 1

        return Plain.z

    assert places(mb.trace(f, X)) == [("mul", "helper"), ("add",)]


# Blocks -------------------------------------------------------------------------------------------


def test_a_block_is_traced_with_the_variables_around_it():
    x, unused = mb.Tensor(X), np.ones(2)
    with mb.tracing() as trace:
        y = x * unused
        z = helper(y)
        loss = z.sum()
    assert names(trace) == ["x", "unused", "y", "z", "loss"]
    assert places(trace) == [("y",), ("z", "helper"), ("loss",)]
    assert trace.output is loss
    assert trace.outputs == (loss,)
    assert (x * 2).op is None
    assert isinstance(trace, Trace)


def test_a_block_on_one_line_has_names_as_well():
    x = mb.Tensor(X)
    with mb.tracing() as trace: y = x * 2  # fmt: skip # noqa: E701
    assert names(trace) == ["x", "y"]
    assert trace.output is y


def test_the_outputs_of_a_block_are_what_nothing_was_computed_from():
    x = mb.Tensor(X)
    with mb.tracing() as trace:
        assert trace.output is None
        a = x * 2
        b = a + 1
        c = a - 1
        assert trace.outputs == (b, c)
    assert trace.output is c
    trace.output = {"a": a}
    assert trace.outputs == (a,)
    assert titles(trace) == ["x", "a"]


def test_a_picture_drawn_inside_a_block_is_no_part_of_it():
    x = mb.Tensor(X, requires_grad=True)
    with mb.tracing() as trace:
        loss = (x * x).sum()
        mb.Graph.from_outputs(loss, backward=True)
        trace.take(backward=True)
        g = mb.grad(loss, x, create_graph=True)
    assert [*map(id, trace.outputs)] == [id(loss), id(g)]
    assert trace.graph.nodes[-1].source.text == "g = mb.grad(loss, x, create_graph=True)"


def test_what_a_block_drops_is_free_at_once_and_so_is_the_trace():
    def block():
        with mb.tracing() as trace:
            y = x * 2
            alive.append(weakref.ref(y))
            y = (y + 1).detach() * 3
            del y
            z = mb.trace(helper, x).output
            assert alive[0]() is not None  # an output depends on it
        alive.append(weakref.ref(trace))
        trace.output = z

    x, alive = mb.Tensor(X), []
    gc.collect()
    gc.disable()
    try:
        block()
        assert [a() for a in alive] == [None, None]
    finally:
        gc.enable()


def test_a_block_in_a_block_takes_over_and_hands_on():
    x = mb.Tensor(X)
    with mb.tracing() as outer:
        a = x + 1
        with mb.tracing() as inner:
            shift = np.ones(2)
            b = helper(a + shift)
        c = helper(b)
    assert titles(inner) == ["x", "a", "shift", "a", "b"]
    assert [n.source is None for n in inner.graph.nodes if n.op] == [True, False, False]
    assert inner.output is b
    assert outer.output is c
    assert outer.outputs == (c,)
    assert "shift" in names(outer)
    assert all(n.source for n in outer.graph.nodes if n.op)
    assert places(outer)[-2:] == [("b", "helper"), ("c", "helper")]


def test_a_trace_in_a_trace_takes_over_and_the_outer_one_goes_on():
    def f(x):
        y = helper(x)
        inner = mb.trace(two_calls, y)
        with mb.tracing() as block:
            z = helper(inner.output)
        arrays = mb.trace(with_an_array, z)
        found.extend([inner, block])
        z = z + arrays.output
        after = helper(z)
        return after

    def with_an_array(a):
        local = np.ones(2)
        return a * local

    found = []
    trace = mb.trace(f, X)
    assert "local" in names(trace)
    assert places(found[0]) == [("y", "helper")] * 2 + [("z", "helper")]
    assert names(trace)[-1] == "after"
    assert entries(trace) == [("helper",)] * 5
    assert all(n.source for n in trace.graph.nodes if n.op)


def test_tracing_can_be_entered_again_and_through_a_stack():
    tracing = mb.tracing()
    x = mb.Tensor(X)
    with tracing as first, tracing as second:
        y = x * 2
    with contextlib.ExitStack() as stack:
        third = stack.enter_context(tracing)
        z = y + 1
    assert first.output is second.output is y
    assert third.output is z
    assert names(third)[-1] == "z"


# Threads and tasks -----------------------------------------------------------------------------


def test_other_threads_are_not_traced():
    results = []

    def work():
        inside = helper(mb.Tensor(X))
        results.append(inside)

    def f(x):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return x * 2

    mb.trace(f, X)
    assert (results[0].op, results[0].name, results[0].scope) == (None, None, ())


def test_a_task_that_is_no_part_of_the_trace_is_left_alone():
    async def other(event):
        await event.wait()
        inside = helper(mb.Tensor(X))
        return inside

    async def main():
        event = asyncio.Event()
        task = asyncio.create_task(other(event))
        await asyncio.sleep(0)
        x = mb.Tensor(X)
        with mb.tracing() as trace:
            event.set()
            result = await task
            y = x * 2
        return result, trace, y

    result, trace, y = asyncio.run(main())
    assert (result.op, result.name, result.scope) == (None, "result", ())
    assert trace.outputs == (y,)


def test_a_context_that_outlives_the_trace_records_as_usual():
    kept = []

    def f(x):
        kept.append(copy_context())
        return x * 2

    first = mb.trace(f, X)
    x = mb.Tensor(X, requires_grad=True)
    y, z = kept[0].run(lambda: (x * 2, mb.Tensor(X) * 2))
    assert (y.op.name, y.requires_grad, z.op) == ("mul", True, None)
    trace = kept[0].run(lambda: mb.trace(helper, X))
    assert names(trace) == ["a", None]
    with mb.tracing():
        late = kept[0].run(helper, x)
    assert late.scope == ()
    assert repr(first).startswith("<Trace of f: 1 op, ")


# Without a trace ----------------------------------------------------------------------------------


def test_names_in_a_frame_are_those_of_its_variables():
    h = mb.Tensor([1.0], requires_grad=True)
    alias = h
    explicit = mb.Tensor([2.0], name="given")
    _hidden = mb.Tensor([3.0])
    array = np.ones(2)
    model = mb.nn.Sequential(mb.nn.Linear(2, 1))
    model[0].bias.named("offset")
    found = names_in(user_frame())
    assert found[id(h)] == found[id(alias)] == "h"
    assert id(explicit) not in found
    assert id(_hidden) not in found
    assert found[id(array)] == "array"
    assert found[id(model[0].weight)] == "0.weight"
    assert id(model[0].bias) not in found
    assert found[id(W)] == "W"
    assert found[id(SHIFT)] == "SHIFT"
    assert h.name is None
    graph = mb.Graph.from_outputs(model(np.stack([h[0], h[0]]).reshape(1, 2)), notes=Notes(found))
    assert [n.name for n in graph.nodes if not n.op] == ["h", "0.weight", "offset"]


def test_a_constant_may_become_a_leaf_while_traced_as_it_may_otherwise():
    c = mb.Tensor([1.0, 2.0])
    with mb.tracing() as trace:
        w = c * 2
        w.requires_grad = True
        v = c + 1
        v.data = np.array([5.0, 6.0])
        y = (w * v).sum()
    y.backward()
    np.testing.assert_array_equal(w.grad, [5.0, 6.0])
    names = [(node.title, node.kind, node.op) for node in trace.graph.nodes]
    assert names[0][:2] == ("w", "input")
    assert [op for *_, op in names] == [None, None, "mul", "sum"]
    with pytest.raises(RuntimeError, match="mul"):
        (w * 2).requires_grad = False


def test_arguments_that_cannot_be_traced_are_named():
    with pytest.raises(TypeError, match=r"call it with float arrays or Tensors, not with 2\.0"):
        mb.trace(lambda x: x * 2, 2.0)
    with pytest.raises(TypeError, match="return what was computed"):
        mb.trace(lambda x: 3, np.ones(2))


def test_endless_recursion_leaves_nothing_behind():
    def forever(x):
        return forever(x * 1.0)

    with pytest.raises(RecursionError):
        mb.trace(forever, np.ones(2))
    assert mb.trace(lambda x: x * 2, np.ones(2)).output.scope == ()
