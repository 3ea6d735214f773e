"""How parameters begin: moments, bounds, orthogonality, refusals (PyTorch: test_torch_nn.py)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import microbn as mb
from microbn.nn import Parameter, init

DRAWN = {
    init.uniform_: ({"a": -1, "b": 3}, 4 / 12**0.5),
    init.normal_: ({"mean": 2, "std": 0.5}, 0.5),
    init.xavier_uniform_: ({"gain": 2}, 2 * (2 / 500) ** 0.5),
    init.xavier_normal_: ({}, (2 / 500) ** 0.5),
    init.kaiming_uniform_: ({}, (2 / 200) ** 0.5),
    init.kaiming_normal_: ({"mode": "fan_out", "nonlinearity": "linear"}, 300**-0.5),
    init.orthogonal_: ({}, 300**-0.5),
}


@pytest.mark.parametrize("function", DRAWN, ids=lambda f: f.__name__)
def test_drawn_values(function):
    options, std = DRAWN[function]
    p = Parameter(np.zeros((300, 200), np.float32))
    assert function(p, **options, rng=0) is p
    assert p.dtype == np.float32
    assert p.requires_grad
    assert abs(p.data.std() / std - 1) < 0.02
    again = function(Parameter(np.zeros((300, 200), np.float32)), **options, rng=0)
    assert_array_equal(p.data, again.data)
    rng = np.random.default_rng(0)
    assert_array_equal(function(again, **options, rng=rng).data, p.data)
    assert not np.array_equal(function(again, **options, rng=rng).data, p.data)


def test_fans_of_a_convolution():
    p = Parameter(np.zeros((64, 8, 3, 5)))  # fan_in 8 * 15, fan_out 64 * 15
    for mode, fan in ("fan_in", 120), ("fan_out", 960):
        init.kaiming_uniform_(p, mode=mode, nonlinearity="linear", rng=0)
        bound = (3 / fan) ** 0.5
        assert 0.99 * bound < np.abs(p.data).max() <= bound
    assert init.fan_in(p) == 120


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5), (6, 2, 3, 1), (2, 2, 3, 1)])
def test_orthogonal(shape):
    p = init.orthogonal_(Parameter(np.zeros(shape)), gain=3, rng=0)
    q = p.data.reshape(len(p.data), -1)
    small = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    assert_allclose(small, 9 * np.eye(len(small)), atol=1e-12)


def test_every_orthogonal_matrix_is_equally_likely():
    """Without the signs, QR would make half of these entries impossible."""
    rng = np.random.default_rng(0)
    drawn = np.array(
        [init.orthogonal_(Parameter(np.zeros((2, 2))), rng=rng).data for _ in range(400)]
    )
    assert (abs((drawn > 0).mean(0) - 0.5) < 0.1).all()
    assert abs((np.linalg.det(drawn) > 0).mean() - 0.5) < 0.1


def test_constants():
    p = Parameter(np.empty((2, 3), np.float32))
    assert_array_equal(init.ones_(p).data, np.ones((2, 3)))
    assert_array_equal(init.zeros_(p).data, np.zeros((2, 3)))
    assert_array_equal(init.constant_(p, 0.5).data, np.full((2, 3), 0.5))
    assert p.dtype == np.float32


def test_new_values_are_noticed_by_a_graph_that_used_the_old():
    layer = mb.nn.Linear(3, 2)
    loss = layer(np.ones((4, 3), np.float32)).sum()
    init.zeros_(layer.bias)
    with pytest.raises(RuntimeError, match="new data"):
        loss.backward()


def test_refusals():
    p, bias = Parameter(np.ones((2, 3))), Parameter(np.ones(3))
    with pytest.raises(ValueError, match=r"kaiming_uniform_\(.*\(3,\).*two axes or more.*zeros_"):
        init.kaiming_uniform_(bias)
    for function in init.xavier_normal_, init.orthogonal_, init.kaiming_normal_:
        with pytest.raises(ValueError, match=f"{function.__name__}.*two axes or more"):
            function(bias)
        with pytest.raises(TypeError, match=f"{function.__name__} gives a Parameter new values"):
            function(np.ones((2, 3)))
    for function in init.uniform_, init.normal_, init.zeros_:
        with pytest.raises(TypeError, match="gives a Parameter new values; array"):
            function(np.ones(3))
    with pytest.raises(ValueError, match="mode='fan' must be 'fan_in' or 'fan_out'"):
        init.kaiming_normal_(p, mode="fan")
    with pytest.raises(ValueError, match="nonlinearity='swish' must be one of leaky_relu"):
        init.kaiming_uniform_(p, nonlinearity="swish")
    with pytest.raises(ValueError, match="slope 'steep' of leaky_relu"):
        init.calculate_gain("leaky_relu", "steep")
    assert_array_equal(p.data, np.ones((2, 3)))
    assert_array_equal(bias.data, np.ones(3))
