"""What is composed of primitives, and PyTorch's own: the same values, gradients and choices."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import microbn as mb
from microbn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional

EXACT = {"rtol": 1e-10, "atol": 1e-12}
SINGLE = {"rtol": 2e-4, "atol": 5e-5}  # float32, sums over at most 200 products of order 1
PRECISIONS = (np.float64, EXACT), (np.float32, SINGLE)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def assert_same(ours, theirs, arrays, dtype=np.float64, **tolerance):
    """Compare the results of two functions, and the gradient in each array."""
    arrays = [a.astype(dtype) for a in arrays]
    xs = [mb.Tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = ours(*xs), theirs(*ts)
    assert_allclose(y.data, z.detach().numpy(), strict=True, **tolerance)
    g = draw(*y.shape, seed=9).astype(dtype)
    y.backward(g)
    z.backward(torch.from_numpy(g))
    for x, t in zip(xs, ts, strict=True):
        assert_allclose(x.grad, t.grad.numpy(), strict=True, **tolerance)


CONVOLUTIONS = [
    {},
    {"stride": 2},
    {"padding": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"groups": 2},
    {"groups": 4, "padding": "same"},
    {"padding": "same", "dilation": (2, 1)},
    {"padding": "valid"},
]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 1)])
@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # odd padding copies there
def test_conv2d(options, kernel, dtype, tolerance):
    channels = 4 // options.get("groups", 1)
    arrays = draw(3, 4, 7, 8), draw(8, channels, *kernel, seed=1), draw(8, seed=2)
    ours, theirs = (lambda *a, f=f: f(*a, **options) for f in (F.conv2d, TF.conv2d))
    assert_same(ours, theirs, arrays, dtype, **tolerance)
    assert_same(ours, theirs, arrays[:2], dtype, **tolerance)
    assert_same(ours, theirs, (arrays[0][0], *arrays[1:]), dtype, **tolerance)


POOLS = [(2,), (3, 2), (3, 1, 1), ((2, 3), (1, 2), (1, 0)), ((4, 1), None, (2, 0))]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("options", POOLS)
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (3, 7, 8)])
def test_pools(shape, options, dtype, tolerance):
    x = [draw(*shape)]
    for ours, theirs in (F.max_pool2d, TF.max_pool2d), (F.avg_pool2d, TF.avg_pool2d):
        assert_same(
            lambda x, f=ours: f(x, *options), lambda x, f=theirs: f(x, *options),
            x, dtype, **tolerance,
        )  # fmt: skip
    assert_same(
        lambda x: F.avg_pool2d(x, *options, count_include_pad=False),
        lambda x: TF.avg_pool2d(x, *options, count_include_pad=False),
        x, dtype, **tolerance,
    )  # fmt: skip


@pytest.mark.parametrize("options", POOLS)
def test_max_pool_sends_the_gradient_of_a_tie_where_pytorch_sends_it(options):
    ties = np.random.default_rng(0).integers(0, 2, (4, 3, 7, 8)).astype(float)
    for x in ties, np.where(ties, -np.inf, 0.0), np.full(ties.shape, -np.inf):
        assert_same(
            lambda x: F.max_pool2d(x, *options), lambda x: TF.max_pool2d(x, *options), [x], **EXACT
        )


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", [(5, 6, 2), (5, 6, 3), (2, 6, 3, 2)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(shape, groups, dtype, tolerance):
    column = (6,) + (1,) * (len(shape) - 2)
    assert_same(
        lambda x, gamma, beta: F.group_norm(
            x, groups, gamma.reshape(column), beta.reshape(column), eps=0.01
        ),
        lambda x, gamma, beta: TF.group_norm(x, groups, gamma, beta, eps=0.01),
        (draw(*shape), draw(6, seed=1), draw(6, seed=2)), dtype, **tolerance,
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("eps", [None, 0.1])
def test_rms_norm(eps, dtype, tolerance):
    assert_same(
        lambda x, gamma: F.rms_norm(x, gamma, eps=eps),
        lambda x, gamma: TF.rms_norm(x, (6,), gamma, eps=eps),
        (draw(4, 5, 6), draw(6, seed=1)), dtype, **tolerance,
    )  # fmt: skip
    assert_same(
        lambda x: F.rms_norm(x, axis=(1, 2), eps=eps),
        lambda x: TF.rms_norm(x, (5, 6), eps=eps),
        [1e-8 * draw(4, 5, 6)], dtype, rtol=5 * tolerance["rtol"],
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate, dtype, tolerance):
    x = np.concatenate([draw(50), 10 * draw(50, seed=1), [0.0, -0.0, 40.0, -40.0]])
    assert_same(
        lambda x: F.gelu(x, approximate), lambda x: TF.gelu(x, approximate=approximate),
        [x], dtype, **tolerance,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x: np.clip(x, -1, 2), lambda x: torch.clamp(x, -1, 2)),
        (np.log1p, torch.log1p),
        (mb.ops.erf, torch.erf),
        (lambda x: np.logaddexp(x, 0.5), lambda x: torch.logaddexp(x, torch.full_like(x, 0.5))),
        (lambda x: np.pad(x, (1, 2)), lambda x: TF.pad(x, (1, 2))),
    ],
)
def test_functions_of_numpy(ours, theirs):
    assert_same(ours, theirs, [np.array([-0.5, 2.0, 0.0, 0.5, 1.5, 3.0])], **EXACT)


@pytest.mark.parametrize(
    "subscripts", ["ij,jk->ik", "...ij,...jk->...ik", "bi,oij,bj->bo", "ij,kj", "iij->j"]
)
def test_einsum(subscripts):
    shapes = {
        "ij,jk->ik": [(2, 3), (3, 4)],
        "...ij,...jk->...ik": [(5, 1, 2, 3), (4, 3, 2)],
        "bi,oij,bj->bo": [(4, 2), (3, 2, 5), (4, 5)],
        "ij,kj": [(2, 3), (4, 3)],
        "iij->j": [(3, 3, 2)],
    }[subscripts]
    assert_same(
        lambda *xs: np.einsum(subscripts, *xs), lambda *xs: torch.einsum(subscripts, *xs),
        [draw(*shape, seed=i) for i, shape in enumerate(shapes)], **EXACT,
    )  # fmt: skip


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_second_derivatives(approximate):
    for ours, theirs, arrays in (
        (
            lambda x, w: (F.conv2d(F.gelu(x, approximate), w, padding=1) ** 3).sum(),
            lambda x, w: (TF.conv2d(TF.gelu(x, approximate=approximate), w, padding=1) ** 3).sum(),
            (draw(2, 2, 4, 4), draw(3, 2, 3, 3, seed=1)),
        ),
        (
            lambda x: (F.max_pool2d(x, 2) ** 3).sum(),
            lambda x: (TF.max_pool2d(x, 2) ** 3).sum(),
            [draw(2, 2, 4, 4)],
        ),
    ):
        xs = [mb.Tensor(a, requires_grad=True) for a in arrays]
        ts = [torch.tensor(a, requires_grad=True) for a in arrays]
        first = mb.grad(ours(*xs), xs, create_graph=True)
        same = torch.autograd.grad(theirs(*ts), ts, create_graph=True)
        second = mb.grad(sum((g * g).sum() for g in first), xs)
        again = torch.autograd.grad(sum((g * g).sum() for g in same), ts)
        for a, b in zip(second, again, strict=True):
            assert_allclose(a.data, b.detach().numpy(), rtol=1e-9, atol=1e-9)
