"""Right backward passes obey the laws; each law is broken by a fault of its own."""

import ast
import inspect
import textwrap

import numpy as np
import pytest
from faults import EQUIVALENT, FAULTS, LARGE, dweights, dx_closed, normalised
from handmade import EPS, GROUPS, RIGHT, classes, columns

from microbn import handwritten
from microbn.check.laws import laws

SETTINGS = {
    "batch_norm": {},
    "batch_norm_of_sequences": {"axis": (0, 1)},
    "batch_norm_of_images": {"axis": (0, 2, 3)},
    "layer_norm": {"kind": "layer_norm"},
    "rms_norm": {"kind": "rms_norm", "eps": 0.0},
    "rms_norm_with_eps": {"kind": "rms_norm"},
    "rms_norm_eps_inside": {"kind": "rms_norm", "eps": LARGE},
    "group_norm": {"kind": "group_norm", "groups": GROUPS},
    "cross_entropy": {"kind": "softmax_cross_entropy"},
}


def known(cases):
    return [case for case in cases if case.composed.__name__ in SETTINGS]


def check(case, inputs, backward=None, **options):
    backward = backward or case.backward
    settings = SETTINGS[case.composed.__name__] | options
    if settings.get("kind") == "softmax_cross_entropy":
        inputs = (*inputs, classes(inputs[0]))
        return laws(lambda dy, logits, _: backward(dy, logits), *inputs, **settings)
    return laws(backward, *inputs, **settings)


def broken(found):
    return [row.law for row in found.rows if not row.holds]


# No false alarm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_right_passes_obey_all_laws(dtype):
    """At 300 random cases; what rounding does is far below what it could do at worst."""
    cases, highest = known(RIGHT + EQUIVALENT), 0.0
    for seed in range(300):
        rng, case = np.random.default_rng(seed), cases[seed % len(cases)]
        scale, offset = 10.0 ** rng.uniform(-3, 3), rng.choice([0, 1, -10, 100])
        found = check(case, case.inputs(rng, dtype, scale=scale, offset=offset), seed=seed)
        assert found, f"{case.name}, {scale=}, {offset=}\n{found}"
        shares = (row.deviation / row.allowed for row in found.rows if row.allowed > 0)
        highest = max(highest, *shares)
    assert 1e-3 < highest < 0.1  # measured: 0.01


@pytest.mark.parametrize("case", known(RIGHT), ids=lambda case: case.name)
@pytest.mark.parametrize("m", [1, 2, 300])
def test_right_passes_of_other_sizes(case, m):
    rng = np.random.default_rng(m)
    default = inspect.signature(case.inputs).parameters["shape"].default
    for dtype in (np.float64, np.float32):
        inputs = case.inputs(rng, dtype, shape=(m, *default[1:]))
        assert check(case, inputs)


def test_gammas_are_placed():
    """A gamma of one axis is one per channel for images, even if the width would fit too."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 2, 4))

    def backward(dy, x, gamma):
        _, inv_std, x_hat = normalised(x, (0, 2, 3), 0.5)
        dx = dx_closed(dy * gamma.reshape(4, 1, 1), x_hat, inv_std, (0, 2, 3))
        return dx, (dy * x_hat).sum((0, 2, 3)).reshape(gamma.shape)

    for shape in ((4,), (4, 1, 1), (1, 4, 1, 1)):
        gamma = rng.uniform(1.25, 2, shape)
        assert laws(backward, x, gamma, axis=(0, 2, 3), eps=0.5)
    assert laws(lambda dy, x: backward(dy, x, np.ones(4))[:1], x, axis=(0, -1, 2), eps=0.5)


def test_a_zero_gamma_and_a_constant_column_are_allowed():
    x, gamma, beta = columns(np.random.default_rng(0))
    x[:, 0], gamma[1] = 3.0, 0.0
    assert laws(RIGHT[0].backward, x, gamma, beta, eps=EPS)


def test_cross_entropy_may_be_a_sum():
    logits = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)
    for n in (1, 200):

        def backward(dy, logits, targets, n=n):
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            return (dy / n * (p - np.eye(5, dtype=p.dtype)[targets]),)

        assert laws(backward, logits, classes(logits), kind="softmax_cross_entropy")


def test_a_pass_may_write_into_the_same_arrays_again():
    """What it returned before is copied: it is no fault to reuse memory."""
    inputs = columns(np.random.default_rng(0))
    memory = tuple(np.empty_like(a) for a in inputs)

    def backward(*args):
        for out, g in zip(memory, right(*args), strict=True):
            out[...] = g
        return memory

    assert laws(backward, *inputs, eps=LARGE)


def test_what_is_allowed_grows_with_the_number_of_terms():
    """It is relative to the sum of sizes, which is m times as large by itself."""
    few, many = (
        laws(right, *columns(np.random.default_rng(0), shape=(m, 1)), eps=LARGE).rows[1].allowed
        for m in (40, 4000)
    )
    assert 50 * 100 < many / few < 150 * 100


# Every law is broken by a fault of its own -------------------------------------------------------


def right(dy, x, gamma, beta):
    _, inv_std, x_hat = normalised(x, eps=LARGE)
    return dx_closed(dy * gamma, x_hat, inv_std), *dweights(dy, x_hat)


def orthogonal(a, x_hat):
    """The part of each column that has no sum, and none with x_hat."""
    a = a - a.mean(0)
    return a - x_hat * (a * x_hat).sum(0) / (x_hat**2).sum(0)


def adding(term):
    """A right pass, with a wrong term in dx that is orthogonal to 1 and to x_hat."""

    def backward(dy, x, gamma, beta):
        dx, *others = right(dy, x, gamma, beta)
        x_hat = normalised(x, eps=LARGE)[2]
        return dx + 1e-3 * orthogonal(term(dy, x, gamma), x_hat), *others

    return backward


def scaled(i, factor):
    def backward(*args):
        return tuple(g * factor if i == j else g for j, g in enumerate(right(*args)))

    return backward


class Remembers:
    def __init__(self):
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        return scaled(0, 1 if self.calls == 1 else 0.999)(*args)


def writes(dy, x, gamma, beta):
    found = right(dy, x, gamma, beta)
    dy *= 2
    return found


def mean_path_forgotten(dy, x, gamma, beta):
    _, inv_std, x_hat = normalised(x, eps=LARGE)
    dx = inv_std * (dy * gamma - x_hat * (dy * gamma * x_hat).mean(0))
    return dx, *dweights(dy, x_hat)


ONE_LAW = [
    ("sum dx = 0", mean_path_forgotten),
    ("sum dx x_hat = sum(g x_hat) inv_std eps / (var + eps)", scaled(0, 0.999)),
    ("dgamma = sum dy x_hat", scaled(1, 0.999)),
    ("dbeta = sum dy", scaled(2, 0.999)),
    ("linear in dy", adding(lambda dy, x, gamma: np.abs(dy * gamma))),
    ("dy and the inputs are left as they were", writes),
    ("x in another order: dx in that order", adding(lambda dy, x, gamma: (dy * gamma)[::-1])),
    ("x + a constant in each group: the same", adding(lambda dy, x, gamma: dy * gamma * x**2)),
    ("dy * gamma for dy, 1 for gamma: dx the same", adding(lambda dy, x, gamma: dy)),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("law", "backward"), ONE_LAW, ids=[law for law, _ in ONE_LAW])
def test_a_fault_breaks_one_law(law, backward, dtype):
    assert broken(laws(backward, *columns(np.random.default_rng(0), dtype), eps=LARGE)) == [law]


def test_a_pass_that_remembers():
    """Only the first call is right: what is compared with it breaks, and so does the same again."""
    found = laws(Remembers(), *columns(np.random.default_rng(0)), eps=LARGE)
    assert "the same when called again" in broken(found)


def test_a_pass_that_accumulates():
    """As in mxnet #16297, which has no gamma: here it gets one."""
    inner = next(f for f in FAULTS if f.reference == "mxnet #16297").fresh()

    def backward(dy, x, gamma, beta):
        dx, dbeta = inner(dy * gamma, x, beta)
        return dx, (dy * normalised(x)[2]).sum(0), dbeta / gamma

    found = laws(backward, *columns(np.random.default_rng(0)))
    assert {"linear in dy", "the same when called again"} <= set(broken(found))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (list, "list, not a tuple of 3"),
        (lambda g: g[:2], "2 in a tuple, not a tuple of 3"),
        (lambda g: (g[0].T, *g[1:]), "dx: array (3, 8) float64, not (8, 3) float64"),
        (lambda g: (*g[:2], g[2][None]), "dbeta: array (1, 3) float64, not (3,) float64"),
        (lambda g: (g[0].astype("f4"), *g[1:]), "dx: array (8, 3) float32, not (8, 3) float64"),
        (lambda g: (g[0], None, g[2]), "dgamma: None (NoneType), not (3,) float64"),
    ],
)
def test_what_is_no_gradient_breaks_the_law_of_shape(wrong, said):
    found = laws(lambda *args: wrong(right(*args)), *columns(np.random.default_rng(0)), eps=LARGE)
    assert not found
    assert [(row.law, row.where) for row in found.rows] == [("shape", said)]
    assert said in str(found)


def test_nan_breaks_laws():
    found = laws(scaled(0, np.nan), *columns(np.random.default_rng(0)), eps=LARGE)
    assert "sum dx = 0" in broken(found)


LOSS_FAULTS = {
    "sum of each row = 0": lambda g, dy: g * np.where(g * dy > 0, 0.999, 1),
    "target <= 0, all others >= 0": lambda g, dy: -g,
    "linear in dy": lambda g, dy: g * dy,
}


@pytest.mark.parametrize("law", LOSS_FAULTS)
def test_a_fault_of_the_loss_breaks_one_law(law):
    case = RIGHT[-1]
    inputs = case.inputs(np.random.default_rng(0))

    def backward(dy, logits):
        return (LOSS_FAULTS[law](case.backward(dy, logits)[0], dy),)

    assert broken(check(case, inputs, backward)) == [law]


# The collection of faults ------------------------------------------------------------------------

UNSEEN = {
    np.float64: {"float64 gradients of float32 inputs"},  # right in float64
    np.float32: {"1/std forgotten"},  # a factor on all of dx, at a small eps
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_which_faults_break_no_law(dtype):
    unseen = set()
    for fault in known(FAULTS):
        found = check(fault, fault.inputs(np.random.default_rng(1), dtype), fault.fresh())
        if found:
            unseen.add(fault.name)
        assert bool(found.hint) == (
            found.rows[0].holds
            and (dtype == np.float32 or fault.composed.__name__ == "rms_norm")
            and fault.composed.__name__ != "rms_norm_eps_inside"
        )
    assert unseen == UNSEEN[dtype]


def test_what_no_law_sees():
    """The table says so: these obey all laws, and are wrong."""
    inputs = columns(np.random.default_rng(0))
    in_place_of_running = next(f for f in FAULTS if f.reference == "pytorch #4284")
    assert laws(in_place_of_running.backward, *inputs)
    assert laws(adding(lambda dy, x, gamma: dy * gamma), *inputs, eps=LARGE)

    def without_std(dy, x):
        x_hat = x / np.sqrt((x**2).mean(-1, keepdims=True))
        return (dy - x_hat * (dy * x_hat).mean(-1, keepdims=True),)

    assert laws(without_std, inputs[0], kind="rms_norm", eps=0.0)
    case = RIGHT[-1]
    for factor, temperature in ((2, 1), (0, 1), (1, 0.5)):

        def backward(dy, logits, factor=factor, temperature=temperature):
            return (factor * case.backward(dy, logits / temperature)[0],)

        assert check(case, case.inputs(np.random.default_rng(0)), backward)


# Mutants of the staged backward pass -------------------------------------------------------------

STEPS = "dscaled dx_hat dinv_std dstd dvar_eps dvar dsquared dcentered dmean dx".split()
ROWS, COLUMNS = {"centered", "x_hat", "x"}, {"std", "inv_std", "var_eps"}


def mutants():
    """Yield `(step, what, source)` for single faults in a step that dx depends on."""
    source = textwrap.dedent(inspect.getsource(handwritten.backward_staged))
    body = [s for s in ast.parse(source).body[0].body if isinstance(s, ast.Assign)]
    first = next(i for i, s in enumerate(body) if ast.unparse(s).startswith("dscaled"))
    lines = [ast.unparse(s) for s in body[first:]]
    yield "none", "none", "\n".join(lines)
    for i, line in enumerate(lines):
        step, formula = line.split(" = ")
        if step in STEPS:
            for what, mutant in changed(formula):
                changed_lines = [*lines[:i], f"{step} = {mutant}", *lines[i + 1 :]]
                yield step, what, "\n".join(changed_lines)


def changed(formula):
    """Yield `(what, formula)` with one fault: a factor, m, a sum, an operand."""
    factors = ("0", "-1", "2", "0.5")
    tree = ast.parse(formula, mode="eval").body
    for factor in factors:
        yield f"* {factor}", f"({formula}) * {factor}"
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        left, right = ast.unparse(tree.left), ast.unparse(tree.right)
        for factor in factors:
            yield f"{left} * {factor}", f"{left} * {factor} + {right}"
            yield f"{right} * {factor}", f"{left} + {right} * {factor}"
    if "/ m" in formula:
        yield "m - 1", formula.replace("/ m", "/ (m - 1)")
        yield "m lost", formula.replace("/ m", "")
    if ".sum(axis=0)" in formula:
        yield "sum lost", formula.replace(".sum(axis=0)", "")
    for name in sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}):
        for pool in (ROWS, COLUMNS):
            for other in sorted(pool - {name}) if name in pool else ():
                yield f"{other} for {name}", swapped(formula, name, other)


def swapped(formula, name, other):
    tree = ast.parse(formula, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == name:
            node.id = other
    return ast.unparse(tree)


def compiled(source, eps):
    code = compile(source, "mutant", "exec")

    def backward(dy, x, gamma, beta):
        cache = handwritten.forward(x, gamma, beta, eps)[1]
        space = {**cache._asdict(), "np": np, "dy": dy, "x": x, "m": len(x)}
        exec(code, space)
        return tuple(np.asarray(space[name], x.dtype) for name in ("dx", "dgamma", "dbeta"))

    return backward


def survivors(eps, dtype=np.float64, tolerance=None):
    """Count all mutants, and name those which the first two laws do not reject.

    With ``tolerance``, that is what a sum may deviate by, in place of what rounding allows.
    """
    inputs, count, names = columns(np.random.default_rng(0), dtype), 0, []
    for step, what, source in mutants():
        backward = compiled(source, eps)
        rows = laws(backward, *inputs, eps=eps).rows[1:3]
        assert [row.law.split(" = ")[0] for row in rows] == ["sum dx", "sum dx x_hat"]
        if what == "none":
            assert all(row.holds for row in rows)
            continue
        count += 1
        rejects = any(not row.holds for row in rows)
        if tolerance:
            rejects = any(row.deviation > tolerance for row in rows)
        if not rejects:
            names.append(f"{step}: {what}")
    return count, names


# Equivalent: all rows of a column of dcentered move by the same amount, and what goes through the
# mean takes it away again. (`EQUIVALENT` in faults.py.) It is right, no check should reject it.
RIGHT_ANYWAY = ["dcentered: x for centered"]
# A factor on all of dx: dx times a number has no sum either, and its sum with x_hat is of size eps.
ALL_OF_DX = [
    f"{step}: * {factor}"
    for step in ("dscaled", "dx_hat", "dcentered", "dx")
    for factor in ("0", "-1", "2", "0.5")
]
COUNTS = [
    (0.5, np.float64, None, 71),
    (0.5, np.float32, None, 71),
    (0.5, np.float64, 1e-3, 71),
    (1e-5, np.float64, None, 71),
    (1e-5, np.float32, None, 55),
    (1e-5, np.float64, 1e-3, 55),
]


@pytest.mark.parametrize(("eps", "dtype", "tolerance", "rejected"), COUNTS)
def test_how_many_mutants_the_two_laws_of_sums_reject(eps, dtype, tolerance, rejected):
    count, names = survivors(eps, dtype, tolerance)
    assert (count, count - len(names)) == (72, rejected)
    assert set(names) == {*RIGHT_ANYWAY, *(ALL_OF_DX if rejected < 71 else [])}


def test_the_mutant_that_survives_is_right():
    inputs, sources = columns(np.random.default_rng(0)), {f"{s}: {w}": c for s, w, c in mutants()}
    dy = np.random.default_rng(1).standard_normal((8, 3))
    for name in ("none: none", *RIGHT_ANYWAY):
        np.testing.assert_allclose(
            compiled(sources[name], LARGE)(dy, *inputs)[0], right(dy, *inputs)[0], rtol=1e-12
        )
        assert laws(compiled(sources[name], LARGE), *inputs, eps=LARGE)


# The report, and errors --------------------------------------------------------------------------


def test_the_table():
    inputs = columns(np.random.default_rng(0))
    found = laws(mean_path_forgotten, *inputs, eps=LARGE)
    assert not found
    assert not found.ok
    lines = str(found).splitlines()
    assert lines[0].split() == ["law", "holds", "worst", "at", "deviation", "allowed"]
    assert lines[2].startswith("sum dx = 0 ")
    assert " NO " in lines[2]
    assert "group[" in lines[2]
    assert len({len(line) for line in lines[: 1 + len(found.rows)]}) == 1
    assert "Necessary, not sufficient: no law sees " in str(found)
    assert "Hint" not in str(found)


def test_the_table_is_narrow():
    """Also for many axes, long indices and messages."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((11, 1, 1, 12, 1, 1, 13, 1, 1)).astype(np.float32)
    for axis in (0, (0, 3)):
        found = laws(lambda dy, x: (dy,), x, axis=axis, eps=0.0)
        assert found.hint
        assert max(map(len, str(found).splitlines())) <= 100
    wide = np.zeros((1, 1, 1, *x.shape, 1, 1, 1, 1, 1, 1))
    found = laws(lambda dy, x: (wide,), x)
    assert max(map(len, str(found).splitlines())) <= 100


def test_dy_is_not_x():
    """Not even for an x drawn from the same seed: at dy = x, dx is nearly 0 and says little."""
    x, seen = np.random.default_rng(0).standard_normal((8, 3)), []

    def backward(dy, x):
        seen.append(dy)
        return (dy,)

    laws(backward, x, seed=0)
    assert all(abs(np.corrcoef(dy.ravel(), x.ravel())[0, 1]) < 0.9 for dy in seen)


def test_the_seed_decides():
    inputs = columns(np.random.default_rng(0))
    first, second, other = (laws(right, *inputs, eps=LARGE, seed=seed) for seed in (1, 1, 2))
    assert str(first) == str(second) != str(other)


x = np.ones((4, 6)) * np.arange(4.0)[:, None]
LOSS = "softmax_cross_entropy"


@pytest.mark.parametrize(
    ("inputs", "options", "error", "said"),
    [
        ((x,), {"kind": "norm"}, ValueError, "kind must be one of batch_norm, layer_norm, rms_n"),
        ((x[0],), {}, ValueError, "x must have 2 axes or more; use x.reshape"),
        ((x[0],), {"kind": "group_norm", "groups": 1}, ValueError, "x must have 2 axes or more"),
        ((x[0, 0],), {"kind": "layer_norm"}, TypeError, "must be floating arrays"),
        ((x[0, :1].reshape(()),), {"kind": "layer_norm"}, ValueError, "x must have 1 axes or"),
        ((x,), {"axis": 2}, ValueError, "must name one or more of its 2 axes"),
        ((x, x[:, 0]), {}, ValueError, "does not broadcast"),
        ((), {}, ValueError, "give x; x, gamma; or x, gamma, beta"),
        ((x, x, x, x), {}, ValueError, "give x; x, gamma; or x, gamma, beta"),
        ((x.astype(int),), {}, TypeError, "use .astype"),
        ((x.tolist(),), {}, TypeError, "use .astype"),
        ((x * np.nan,), {}, ValueError, "must be finite"),
        ((x,), {"eps": -1}, ValueError, "eps=-1 must be 0 or a positive number"),
        ((x * 0,), {"eps": 0}, ValueError, "a group has variance 0; use an eps above 0"),
        ((x[:0],), {}, ValueError, "empty"),
        ((x,), {"kind": "group_norm"}, ValueError, "group_norm needs groups"),
        ((x,), {"kind": "group_norm", "groups": 4}, ValueError, "groups=4 must divide the 6"),
        ((x,), {"groups": 2}, ValueError, "groups=2: group_norm needs groups"),
        ((x,), {"kind": "group_norm", "groups": 2, "axis": 1}, ValueError, "others axis"),
        ((x,), {"kind": LOSS}, ValueError, "give logits, targets"),
        ((x, x[:, 0]), {"kind": LOSS}, TypeError, "targets are class numbers"),
        ((x[0], np.arange(6)), {"kind": LOSS}, ValueError, "logits have shape"),
        ((x, np.full(4, 6)), {"kind": LOSS}, ValueError, "targets must lie in 0 to 5"),
    ],
)
def test_errors_name_the_remedy(inputs, options, error, said):
    with pytest.raises(error, match=said):
        laws(lambda dy, *inputs: inputs, *inputs, **options)
