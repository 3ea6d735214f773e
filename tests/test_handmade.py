"""What the other tests rely on: right passes are right, faults are wrong as they say they are."""

import inspect
import re

import numpy as np
import pytest
from faults import CLASSIC, EPS, EQUIVALENT, FAULTS, LARGE, NOT_GRADIENTS, normalised, running
from handmade import RIGHT

import microbn as mb
from microbn import handwritten
from microbn.engine import toposort
from microbn.graph.paths import Pass, along, paths

REPORTED = """tt-metal #53204; DL4J PR #8379; Knet #288; llm.c PR #763; AiDotNet #695; jax #442;
OLMo #281; tensorflow #14676; tensorflow #107705; mxnet #16297; NNlib.jl PR #757; torch/nn #615;
pytorch #4284; nn-zero-to-hero #59; chainer #332; keras #8982"""
BOTTLENECKS = {"mean", "var", "rms"}

right = pytest.mark.parametrize("case", RIGHT + EQUIVALENT, ids=lambda case: case.name)
each = pytest.mark.parametrize("seed", range(3))


def among(*kinds):
    """Every fault whose effect is of one of these kinds: begins so, or is a WHERE × FACTOR."""
    chosen = [f for f in FAULTS if not kinds or f.effect.startswith(kinds)]
    if "×" in kinds:
        chosen += [f for f in FAULTS if "×" in f.effect]
    return pytest.mark.parametrize("fault", chosen, ids=lambda f: f"{f.reference}: {f.name}")


class Setting:
    """A composed function at random inputs: what it recorded, a cotangent, the true gradients."""

    def __init__(self, case, seed, dtype=np.float64, composed=None, **sizes):
        rng = np.random.default_rng(seed)
        composed = composed or case.composed
        self.inputs = case.inputs(rng, dtype, **sizes)
        names = list(inspect.signature(composed).parameters)[: len(self.inputs)]
        self.leaves = [
            mb.Tensor(a, requires_grad=True, name=name)
            for a, name in zip(self.inputs, names, strict=True)
        ]
        self.output = composed(*self.leaves)
        self.dy = np.asarray(rng.standard_normal(self.output.shape), dtype)
        self.true = [g.data for g in mb.grad(self.output, self.leaves, self.dy)]

    def sizes(self):
        """How large what adds up to each gradient is, path by path: the sum may cancel."""
        for leaf in self.leaves:
            yield sum(np.abs(along(path, self.dy)).max() for path in paths(self.output, leaf))

    def agrees(self, got, offset=0.0):
        """For each input, whether its gradient is right.

        Roundoff is relative to what is added up, and centering x amplifies it by its offset.
        """
        for g, want, size in zip(got, self.true, self.sizes(), strict=True):
            same = (g.shape, g.dtype) == (want.shape, want.dtype)
            within = 32 * np.finfo(want.dtype).eps * (1 + offset) * size
            yield same and bool((np.abs(g - want) <= within).all())


# Right ones --------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@right
def test_right_ones_are_right(case, dtype, seed):
    setting = Setting(case, seed, dtype)
    assert all(setting.agrees(case.backward(setting.dy, *setting.inputs)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, -30.0, 1e3])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@right
def test_right_ones_are_right_at_every_scale_and_offset(case, scale, offset, dtype):
    setting = Setting(case, 5, dtype, scale=scale, offset=offset)
    assert all(setting.agrees(case.backward(setting.dy, *setting.inputs), abs(offset)))


@right
def test_right_ones_are_right_for_every_size(case):
    usual = inspect.signature(case.inputs).parameters["shape"].default
    for seed in range(10):
        rng = np.random.default_rng(seed)
        shape = rng.integers(2, 9, len(usual))
        if len(usual) == 4:
            shape[1] = 2 * rng.integers(1, 4)  # channels, in groups
        setting = Setting(case, seed, shape=tuple(shape.tolist()))
        assert all(setting.agrees(case.backward(setting.dy, *setting.inputs))), shape


@right
def test_composed_functions_take_arrays(case):
    setting = Setting(case, 0)
    got = case.composed(*setting.inputs)
    assert not isinstance(got, mb.Tensor)
    np.testing.assert_allclose(got, setting.output.data, rtol=1e-12, atol=1e-12)


def test_names_are_unique():
    for cases in (RIGHT + EQUIVALENT, [(f.reference, f.name) for f in FAULTS]):
        names = [getattr(case, "name", case) for case in cases]
        assert len(set(names)) == len(names)


# Faults ------------------------------------------------------------------------------------------


def far(g, want):
    """Whether a gradient is wrong by more than rounding could explain."""
    same = (g.shape, g.dtype) == (want.shape, want.dtype)
    return not same or np.abs(g - want).max() > 1e-2 * np.abs(want).max()


@each
@among()
def test_faults_are_wrong_where_they_say_and_nowhere_else(fault, seed):
    dtype = np.float32 if fault.effect == "dtype" else np.float64
    setting, backward = Setting(fault, seed, dtype), fault.fresh()
    got = backward(setting.dy, *setting.inputs)
    if fault.effect == "accumulates":
        assert all(setting.agrees(got))  # it is the second call that is wrong
        got = backward(setting.dy, *setting.inputs)
    claimed = {fault.wrt, *fault.also}
    assert fault.wrt == min(claimed)
    wrong = {k for k, ok in enumerate(setting.agrees(got)) if not ok}
    assert wrong == claimed
    assert all(far(got[k], setting.true[k]) for k in claimed)


@among()
def test_faults_keep_the_dtype(fault):
    setting = Setting(fault, 0, np.float32)
    dtypes = {g.dtype for g in fault.fresh()(setting.dy, *setting.inputs)}
    assert (dtypes == {np.dtype(np.float32)}) == (fault.effect != "dtype")


def test_every_reported_fault_is_there():
    reported = re.split(r";\s", REPORTED)
    found = {case.reference for case in FAULTS + NOT_GRADIENTS} - {CLASSIC}
    assert found == set(reported)
    for case in FAULTS + NOT_GRADIENTS:
        code = case.update if case in NOT_GRADIENTS else case.backward
        assert case.reference == CLASSIC or case.reference in inspect.getdoc(code)


# What they are said to do ------------------------------------------------------------------------


def clauses(effect):
    """The pairs of WHERE and FACTOR in an effect."""
    return [tuple(part.split(" × ")) for part in effect.split(" and ")]


def value_of(factor, setting):
    """A number or an array: stages and inputs by name, m by counting."""
    named = {t.name: t.data for t in toposort(setting.output) if t.name}
    statistic = named.get("mean", named.get("mean_square"))
    names = named | {"m": setting.inputs[0].size // statistic.size}
    return eval(factor, {"__builtins__": {}}, names)


def told(effect, setting, wrt):
    """The gradient with every path multiplied as the effect tells."""
    leaf, total = setting.leaves[wrt], 0
    factors = [(where, value_of(factor, setting)) for where, factor in clauses(effect)]
    named = {t.name for t in toposort(setting.output)} | {"everything", "direct"}
    assert {where for where, _ in factors} <= named
    for path in paths(setting.output, leaf):
        g = setting.dy
        for link in path:
            for where, factor in factors:
                g = g * factor if where == link.consumer.name else g
            g = along((link,), g)
        stages = {link.consumer.name for link in path}
        for where, factor in factors:
            if where == "everything" or (where == "direct" and not stages & BOTTLENECKS):
                g = g * factor
        total = total + g
    return total


@each
@pytest.mark.parametrize("sizes", [{}, {"scale": 0.01}, {"scale": 100, "offset": -3}], ids=str)
@among("×")
def test_a_factor_on_a_path_is_what_they_do(fault, sizes, seed):
    setting = Setting(fault, seed, **sizes)
    got = fault.backward(setting.dy, *setting.inputs)
    for k in (fault.wrt, *fault.also):
        want = told(fault.effect, setting, k)
        np.testing.assert_allclose(got[k], want, rtol=1e-9, atol=1e-12 * np.abs(want).max())


@among("×")
def test_no_other_effect_in_the_list_explains_them(fault):
    setting = Setting(fault, 4)
    got = fault.backward(setting.dy, *setting.inputs)[fault.wrt]
    alike = [f for f in FAULTS if (f.composed, f.wrt) == (fault.composed, fault.wrt)]
    effects = {f.effect for f in alike if "×" in f.effect}
    found = [e for e in effects if not far(told(e, setting, fault.wrt), got)]
    assert found == [fault.effect]


@among("eps", "statistics")
def test_another_function_is_what_they_differentiate(fault):
    setting = Setting(fault, 1)
    other = Setting(fault, 1, composed=fault.differentiated)
    got = fault.backward(setting.dy, *setting.inputs)
    np.testing.assert_array_equal(other.dy, setting.dy)
    for k in (fault.wrt, *fault.also):
        np.testing.assert_allclose(got[k], other.true[k], rtol=1e-9, atol=1e-12)
    assert np.abs(other.output.data - setting.output.data).max() > 0.1


@among("sum lost: mean")
def test_a_lost_sum_is_what_they_do(fault):
    setting = Setting(fault, 1)
    back = Pass(setting.output, setting.dy)
    tensors = {t.name: t for t in back.cotangents}
    dcentered = back.cotangents[tensors["centered"]]
    (dmean,) = (back.flows[link] for link in back.ways[tensors["mean"]])
    np.testing.assert_allclose(dmean, -dcentered.sum(0))

    m = len(setting.dy)
    got = fault.backward(setting.dy, *setting.inputs)[fault.wrt]
    want = setting.true[fault.wrt] - dmean / m - dcentered / m
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def closed_with_inv_std_for_var(setting):
    x, gamma, beta = setting.inputs
    cache = handwritten.forward(x, gamma, beta, EPS)[1]
    inv_std = (cache.inv_std + EPS) ** -0.5
    wrong = cache._replace(inv_std=inv_std, x_hat=cache.centered * inv_std)
    return handwritten.backward_closed(setting.dy, wrong)[0]


def paper_with_x_for_centered(setting):
    x, gamma, _ = setting.inputs
    centered, inv_std, _ = normalised(x)
    dvar = (setting.dy * gamma * centered).sum(0) * -0.5 * inv_std**3
    return setting.true[0] + dvar * 2 * (x - centered) / len(x)


OPERANDS = {
    "operand: inv_std in place of var": closed_with_inv_std_for_var,
    "operand: x in place of centered": paper_with_x_for_centered,
    "operand: x in place of x_hat": lambda setting: (setting.dy * setting.inputs[0]).sum(0),
    "operand: dx.T in place of dx": lambda setting: setting.true[0].T,
}


@among("operand")
def test_another_operand_is_what_they_take(fault):
    setting = Setting(fault, 1, offset=0.5)
    got = fault.backward(setting.dy, *setting.inputs)[fault.wrt]
    np.testing.assert_allclose(got, OPERANDS[fault.effect](setting), rtol=1e-9, atol=1e-12)


@among()
def test_only_some_are_not_linear(fault):
    setting = Setting(fault, 1)
    once = fault.fresh()(setting.dy, *setting.inputs)[fault.wrt]
    thrice = fault.fresh()(3 * setting.dy, *setting.inputs)[fault.wrt]
    linear = bool(np.allclose(thrice, 3 * once, rtol=1e-9, atol=0))
    assert linear == (fault.effect != "not linear in dy")


@among()
def test_only_one_accumulates(fault):
    setting, backward = Setting(fault, 1), fault.fresh()
    first, second = (backward(setting.dy, *setting.inputs)[fault.wrt] for _ in range(2))
    assert np.array_equal(first, second) == (fault.effect != "accumulates")
    if fault.effect == "accumulates":
        np.testing.assert_allclose(second, 2 * first)


@among("shape")
def test_a_wrong_shape_has_the_right_values(fault):
    setting = Setting(fault, 1)
    got = fault.backward(setting.dy, *setting.inputs)
    assert any(g.shape != want.shape for g, want in zip(got, setting.true, strict=True))
    for g, want in zip(got, setting.true, strict=True):
        np.testing.assert_allclose(g.ravel(), want.ravel(), rtol=1e-9)


@among("dtype")
def test_a_wrong_dtype_is_right_in_float64(fault):
    setting = Setting(fault, 1)
    assert all(setting.agrees(fault.backward(setting.dy, *setting.inputs)))


def test_every_effect_is_of_a_known_kind():
    words = ("operand: ", "sum lost: ", "eps: ", "statistics: ")
    whole = {"accumulates", "not linear in dy", "shape", "dtype"}
    for f in FAULTS:
        assert "×" in f.effect or f.effect.startswith(words) or f.effect in whole, f.effect
        assert (f.differentiated is not None) == f.effect.startswith(("eps: ", "statistics: "))


# Not gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", NOT_GRADIENTS, ids=lambda case: case.reference)
def test_updates_of_running_statistics_are_wrong_in_one_of_two(case):
    rng = np.random.default_rng(0)
    batch, statistics = rng.normal(1, 2, (8, 3)), running(np.ones(3))
    pairs = zip(case.update(statistics, batch), case.right(statistics, batch), strict=True)
    wrong = [bool(far(got, want)) for got, want in pairs]
    assert wrong == [case.reference == "chainer #332", case.reference == "keras #8982"]


def test_the_eps_that_is_felt():
    assert LARGE > 1000 * EPS
