"""Stepping: the steps are the engine's, to the bit, and what is said of them is true."""

import importlib.util
import math
import re
from pathlib import Path

import numpy as np
import pytest

import microbn as mb
from microbn import engine

TOOL = Path(__file__).parent.parent / "tools" / "make_pictures.py"


def gallery():
    """The program that makes the gallery, as a module."""
    spec = importlib.util.spec_from_file_location("make_pictures", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROGRAMS = gallery().GALLERY if TOOL.exists() else ()


def drawn(make, monkeypatch):
    """What a program of the gallery draws, and the gradient that it starts from, if any."""
    seen = []
    monkeypatch.setattr(
        mb, "draw", lambda what, grad_output=None, **_: seen.append((what, grad_output))
    )
    make()
    return seen[0]


def tensor_of(what):
    return what.output if isinstance(what, mb.graph.Trace) else what


def engine_states(output, seed, order):
    """The gradients after each edge that the engine goes back along, as it adds them up.

    ``order`` are the tensors by the index of their node.
    """
    index = {id(t): k for k, t in order.items()}
    now, states = {index[id(output)]: np.array(seed)}, []

    def pullback(tensor, g):
        for position, x, before, after in engine.pullback(tensor, g):
            k = index[id(x)]
            now[k] = now[k] + after if k in now else np.array(after)
            states.append((index[id(tensor)], position, np.array(before), dict(now)))
            yield position, x, before, after

    for tensor, g in engine.backprop(output, seed, pullback=pullback):
        assert np.array_equal(now[index[id(tensor)]], g)
    return states


def by_index(output, graph):
    """The tensors by the index of their node: the order of computation, leaves before their use."""
    found = {}

    def visit(tensor):
        found.setdefault(id(tensor), tensor)

    for tensor in sorted(ancestors(output), key=lambda t: t.time):
        if tensor.op is not None:
            for a in tensor.inputs:
                if isinstance(a, mb.Tensor) or (hasattr(a, "shape") and not np.isscalar(a)):
                    visit(a)
            visit(tensor)
    visit(output)
    order = dict(enumerate(found.values()))
    assert len(order) == sum(node.part is None for node in graph.nodes)
    return order


def ancestors(output):
    found, pending = {id(output): output}, [output]
    while pending:
        for a in pending.pop().inputs:
            if isinstance(a, mb.Tensor) and id(a) not in found:
                found[id(a)] = a
                pending.append(a)
    return found.values()


@pytest.mark.skipif(not PROGRAMS, reason="not in a copy of the repository")
@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_at_every_step_the_state_is_that_of_the_engine_to_the_bit(make, monkeypatch):
    what, dy = drawn(make, monkeypatch)
    walk, output = mb.steps(what, grad_output=dy), tensor_of(what)
    order = by_index(output, walk.graph)
    for k, node in enumerate(n for n in walk.graph.nodes if n.part is None):
        assert np.array_equal(node.value, getattr(order[k], "data", order[k]))

    states = engine_states(output, walk[walk.backward].gradient.value, order)
    computed = {k for k, t in order.items() if getattr(t, "op", None) is None}
    done = -1
    for step in walk:
        state = walk.state(step.index)
        if step.kind == "forward":
            computed.add(step.node.index)
        assert state.values.keys() == computed
        if step.kind in ("edge", "sum") and not is_before_its_sum(walk, step):
            done += 1
            assert (step.via.index, step.position) == states[done][:2]
        elif step.kind == "edge":
            assert np.array_equal(step.result.value, states[done + 1][2])
        if done >= 0:
            assert state.gradients.keys() == states[done][3].keys()
            for k, g in states[done][3].items():
                assert state.gradients[k].dtype == g.dtype
                assert np.array_equal(state.gradients[k], g, equal_nan=True)
    assert done == len(states) - 1


def is_before_its_sum(walk, step):
    """Whether what the edge carries is summed at the next step."""
    return step.kind == "edge" and walk[step.index + 1].kind == "sum"


# Why this number ---------------------------------------------------------------------------------

POWERS = {"⁻": "-"} | {c: str(i) for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
FUNCTIONS = {name: getattr(np, name) for name in "tanh exp log sin cos where sqrt abs".split()}
FUNCTIONS |= {"max": max, "min": min, "relu": lambda x: max(x, 0), "mask": 1}


def computed(how, index):
    """Compute an entry from what its How says, in full precision."""
    places = [operand.places(index, how.shape) for operand in how.operands]
    if how.wrap == "pick":
        found = [(o, p[0]) for o, p in zip(how.operands, places, strict=True) if p[0] >= 0]
        return found[0][0].value.ravel()[found[0][1]] if found else 0.0
    terms = []
    for term in zip(*places, strict=True):
        text = how.template
        for i, (operand, place) in enumerate(zip(how.operands, term, strict=True)):
            number = f"({float(np.asarray(operand.value).ravel()[place])!r})"
            text = text.replace(f"{{{i}}}", number)
        terms.append(calculated(text))
    wrap = {"": lambda t: t[0], "sum": math.fsum, "mean": np.mean, "max": max, "min": min}
    return wrap[how.wrap](terms)


def calculated(text):
    """Calculate a formula as it is written."""
    text = re.sub("[⁻⁰-⁹¹²³]+", lambda m: "**" + "".join(POWERS[c] for c in m[0]), text)
    for sign, python in (("×", "*"), ("÷", "/"), ("−", "-"), ("√", "ROOT*")):
        text = text.replace(sign, python)
    text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)
    return eval(text, FUNCTIONS | {"ROOT": Root(), "inf": np.inf, "nan": np.nan})


class Root:
    """What makes ``ROOT*x`` the square root of x."""

    def __mul__(self, other):
        return np.sqrt(other)


def programs_of_all_ops():
    """Small programs that use every kind of primitive."""
    rng = np.random.default_rng(3)
    x = mb.Tensor(rng.normal(size=(3, 4)), requires_grad=True, name="x")
    w = mb.Tensor(rng.normal(size=(4, 2)), requires_grad=True, name="w")
    v = mb.Tensor(rng.normal(size=4), requires_grad=True, name="v")
    z = mb.Tensor(rng.normal(size=(2, 3, 4)), requires_grad=True, name="z")
    return {
        "matmul": x @ w,
        "matmul vectors": (v @ w) @ np.array([2.0, 3.0]),
        "matmul matrix vector": x @ v,
        "matmul batched": z @ w,
        "arithmetic": (x - 2 * v) / (x * x + 3) - 1 / (v * v + 1),
        "powers": (x * x) ** 1.5 + (x * x + 1) ** -2,
        "functions": np.tanh(x) + np.exp(v) * np.sin(x) - np.cos(x) + np.log(x * x + 1) + abs(x),
        "choices": np.maximum(x, v) + np.minimum(x, 0.5) + np.where(x.data > 0, x, 2 * v),
        "reductions": x.sum(axis=1) + z.mean(axis=(0, 2)) + x.max(axis=1) - x.min(),
        "kept": x - x.mean(axis=1, keepdims=True) - x.sum(axis=0, keepdims=True),
        "shapes": np.transpose(z, (2, 0, 1)).reshape(4, 6) + np.expand_dims(v, 1),
        "transposed": x.T * np.squeeze(np.expand_dims(v, 0)).reshape(4, 1),
        "parts": x[1:, ::2] + x[0, [1, 3]] + z[0, 0, 0],
        "joined": np.concatenate([x, x * 2], axis=1) + np.stack([v, v]).reshape(1, 8),
        "relu": mb.functional.relu(x - 0.2) * v,
        "entropy": mb.functional.cross_entropy(x, np.array([0, 3, 1])),
        "float32": (x.astype(np.float32) if hasattr(x, "astype") else x) * 2,
    }


@pytest.mark.parametrize("name", programs_of_all_ops())
def test_why_a_number_is_what_it_is_gives_that_number(name):
    walk = mb.steps(programs_of_all_ops()[name])
    explained = 0
    for step in walk:
        tables = [t for row in step.rows for t in row if not isinstance(t, str)]
        for table in tables:
            if table.how is None:
                continue
            for index in np.ndindex(table.value.shape):
                expected = float(table.value[index])
                assert computed(table.how, index) == pytest.approx(expected, rel=1e-6, abs=1e-12)
                explained += 1
    assert explained
