"""Measure which conventions of batch norm the systems follow that are installed here.

    python -m venv systems
    systems/bin/python -m pip install -e . torch flax keras tensorflow-cpu tf-keras onnx tinygrad
    systems/bin/python tools/check_conventions.py

It prints the rows of the table in docs/conventions.md. What is not installed is said and left out.
Keras computes with the backend that the environment variable KERAS_BACKEND names; tinygrad needs
clang, or DEV=PYTHON. Chainer and DeZero need older packages, and so an environment of their own:

    older/bin/python -m pip install "numpy<1.24" matplotlib chainer dezero

No documentation is believed: a layer with the defaults of its system gets small batches whose
statistics are known, and what it returns and keeps tells the rest.
"""

import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

STUDENTS = np.array([[7], [8], [9], [6]], np.float32)  # mean 7.5, variance 1.25 or 5/3
SPREAD = np.array([[-3], [-1], [1], [3]], np.float32)  # mean 0, variance 5 or 20/3
FACTORS = {1.0: "biased", 4 / 3: "unbiased"}  # of m = 4 values
HEAD = "system | version | eps | momentum | running variance | normalises with | mean, var at first"


class Layer(NamedTuple):
    """A batch norm of one channel, in the hands of its system."""

    momentum: Any  # the default of the argument
    train: Callable[[np.ndarray], Any]  # (m, 1) -> (m, 1), and moves the running statistics
    use: Callable[[np.ndarray], Any]  # (m, 1) -> (m, 1), by the running statistics
    statistics: Callable[[], tuple[Any, Any]]  # the running mean and variance


# The systems: each makes a new layer -------------------------------------------------------------


def microbn() -> Layer:
    """A layer of this repository."""
    import microbn as mb

    layer = mb.nn.BatchNorm1d(1)
    return Layer(
        layer.momentum,
        lambda x: layer.train()(x).data,
        lambda x: layer.eval()(x).data,
        lambda: (layer.running_mean, layer.running_var),
    )


def pytorch() -> Layer:
    """A layer of torch.nn."""
    import torch

    layer = torch.nn.BatchNorm1d(1)
    return Layer(
        layer.momentum,
        lambda x: layer.train()(torch.tensor(x)).detach(),
        lambda x: layer.eval()(torch.tensor(x)).detach(),
        lambda: (layer.running_mean, layer.running_var),
    )


def keras() -> Layer:
    """A layer of Keras 3, which puts the channels last."""
    for backend in "tensorflow", "jax", "torch":
        if installed(backend):
            os.environ.setdefault("KERAS_BACKEND", backend)
    import keras

    layer = keras.layers.BatchNormalization()
    layer.build((None, 1))
    return Layer(
        layer.momentum,
        lambda x: keras.ops.convert_to_numpy(layer(x, training=True)),
        lambda x: keras.ops.convert_to_numpy(layer(x, training=False)),
        lambda: tuple(map(keras.ops.convert_to_numpy, (layer.moving_mean, layer.moving_variance))),
    )


def keras2() -> Layer:
    """A layer of Keras 2, given a table."""
    return _keras2((1,))


def keras2_images() -> Layer:
    """A layer of Keras 2, given images: it takes TensorFlow's fused kernel."""
    return _keras2((1, 1, 1))  # height, width, channels


def _keras2(tail: tuple[int, ...]) -> Layer:
    import tf_keras

    layer = tf_keras.layers.BatchNormalization()
    layer.build((None, *tail))

    def call(x: np.ndarray, training: bool) -> np.ndarray:
        return layer(x.reshape(-1, *tail), training=training).numpy().reshape(x.shape)

    return Layer(
        layer.momentum,
        lambda x: call(x, True),
        lambda x: call(x, False),
        lambda: (layer.moving_mean.numpy(), layer.moving_variance.numpy()),
    )


def flax_linen() -> Layer:
    """A module of flax.linen, whose state lies beside it."""
    import jax
    from flax import linen

    layer = linen.BatchNorm()
    state = layer.init(jax.random.key(0), STUDENTS, use_running_average=True)

    def train(x: np.ndarray) -> Any:
        y, moved = layer.apply(state, x, use_running_average=False, mutable=["batch_stats"])
        state.update(moved)
        return y

    return Layer(
        layer.momentum,
        train,
        lambda x: layer.apply(state, x, use_running_average=True),
        lambda: (state["batch_stats"]["mean"], state["batch_stats"]["var"]),
    )


def flax_nnx() -> Layer:
    """A module of flax.nnx, which holds its state."""
    from flax import nnx

    layer = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
    return Layer(
        layer.momentum,
        lambda x: layer(x, use_running_average=False),
        lambda x: layer(x, use_running_average=True),
        lambda: (np.asarray(layer.mean[...]), np.asarray(layer.var[...])),
    )


def onnx_reference() -> Layer:
    """The operator, as ONNX's own reference evaluates it."""
    from onnx import TensorProto, defs, helper
    from onnx.reference import ReferenceEvaluator

    def call(outputs: list[str], x: np.ndarray, **attributes: Any) -> Any:
        node = helper.make_node("BatchNormalization", list(given(x)), outputs, **attributes)
        value = helper.make_tensor_value_info
        inputs = [value(name, TensorProto.FLOAT, None) for name in given(x)]
        results = [value(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph([node], "batch_norm", inputs, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
        return ReferenceEvaluator(model).run(None, given(x))

    def given(x: np.ndarray) -> dict[str, np.ndarray]:
        one = np.ones(1, np.float32)
        return {"x": x, "scale": one, "bias": 0 * one, "mean": running[0], "var": running[1]}

    def train(x: np.ndarray) -> Any:
        y, *running[:] = call(["y", "new_mean", "new_var"], x, training_mode=1)
        return y

    running = [np.zeros(1, np.float32), np.ones(1, np.float32)]  # inputs, so ours to choose
    momentum = defs.get_schema("BatchNormalization", 15).attributes["momentum"].default_value.f
    return Layer(round(momentum, 6), train, lambda x: call(["y"], x)[0], lambda: tuple(running))


def chainer() -> Layer:
    """A link of Chainer."""
    import chainer

    layer = chainer.links.BatchNormalization(1)

    def call(x: np.ndarray, training: bool) -> np.ndarray:
        with chainer.using_config("train", training):
            return layer(x).array

    return Layer(
        layer.decay,
        lambda x: call(x, True),
        lambda x: call(x, False),
        lambda: (layer.avg_mean, layer.avg_var),
    )


def dezero() -> Layer:
    """A layer of DeZero, which takes no arguments."""
    import inspect

    import dezero
    import dezero.layers

    layer = dezero.layers.BatchNorm()
    layer._init_params(STUDENTS)

    def call(x: np.ndarray, training: bool) -> np.ndarray:
        with dezero.using_config("train", training):
            return layer(x).data

    return Layer(
        inspect.signature(dezero.functions.batch_nrom).parameters["decay"].default,
        lambda x: call(x, True),
        lambda x: call(x, False),
        lambda: (layer.avg_mean.data, layer.avg_var.data),
    )


def tinygrad() -> Layer:
    """A layer of tinygrad.nn."""
    from tinygrad import Context, Tensor, nn

    layer = nn.BatchNorm(1)

    def call(x: np.ndarray, training: bool) -> np.ndarray:
        with Context(TRAINING=int(training)):
            return layer(Tensor(x)).numpy()

    return Layer(
        layer.momentum,
        lambda x: call(x, True),
        lambda x: call(x, False),
        lambda: (layer.running_mean.numpy(), layer.running_var.numpy()),
    )


SYSTEMS = {  # name: package, function
    "microbn": ("microbn", microbn),
    "PyTorch": ("torch", pytorch),
    "Keras 3": ("keras", keras),
    "Keras 2, `(m, d)`": ("tf-keras", keras2),
    "Keras 2, images": ("tf-keras", keras2_images),
    "Flax, linen": ("flax", flax_linen),
    "Flax, nnx": ("flax", flax_nnx),
    "ONNX BatchNormalization-15": ("onnx", onnx_reference),
    "Chainer": ("chainer", chainer),
    "DeZero": ("dezero", dezero),
    "tinygrad": ("tinygrad", tinygrad),
}


# The experiments ---------------------------------------------------------------------------------


def row(system: str, package: str, make: Callable[[], Layer]) -> str:
    """Return the row of the table for one system."""
    eps, normaliser = normalisation(make)
    weight, running = update(make)
    momentum = make().momentum
    weights = {"new": weight, "old": 1 - weight}
    (whose,) = (name for name, w in weights.items() if np.isclose(w, momentum, atol=1e-5))
    mean, var = map(scalar, make().statistics())
    version = importlib.metadata.version(package).split("+")[0]
    cells = [
        system,
        f"{version}, {os.environ['KERAS_BACKEND']}" if package == "keras" else version,
        f"{eps:.0e}".replace("e-0", "e-"),
        f"{momentum:g}, of the {whose}",
        running,
        f"{normaliser}, {passes(make)}",
        f"{mean:g}, {var:g}",
    ]
    return f"| {' | '.join(cells)} |"


def normalisation(make: Callable[[], Layer]) -> tuple[float, str]:
    """Return eps and the variance that normalises, from (x / y)**2 = factor * 5 * scale**2 + eps.

    The factor follows from a batch beside whose variance eps is nothing, eps from one whose
    variance is nothing beside it.
    """

    def squared_ratio(scale: float) -> float:
        x = SPREAD * np.float32(scale)
        return scalar((x / np.asarray(make().train(x)))[0].astype(float)) ** 2

    factor = nearest(squared_ratio(64.0) / (5 * 64.0**2))
    tiny = 2.0**-14
    return squared_ratio(tiny) - factor * 5 * tiny**2, FACTORS[factor]


def update(make: Callable[[], Layer]) -> tuple[float, str]:
    """Return the weight of the new statistics, and the variance that goes into the running one."""
    layer = make()
    mean, var = map(scalar, layer.statistics())
    layer.train(STUDENTS)
    new_mean, new_var = map(scalar, layer.statistics())
    weight = (new_mean - mean) / (7.5 - mean)
    check_use(layer, new_mean, new_var)
    return weight, FACTORS[nearest((new_var - (1 - weight) * var) / weight / 1.25)]


def check_use(layer: Layer, mean: float, var: float) -> None:
    """Assert that a layer in use normalises by its running statistics, and leaves them alone."""
    want = (STUDENTS - mean) / np.sqrt(var)
    np.testing.assert_allclose(np.asarray(layer.use(STUDENTS)), want, rtol=2e-3)
    assert tuple(map(scalar, layer.statistics())) == (mean, var)


def passes(make: Callable[[], Layer]) -> str:
    """Tell E[x**2] - E[x]**2 from two passes: float32 loses the variance beside a mean of 10000."""
    y = np.asarray(make().train(SPREAD + np.float32(10_000)))
    exact = np.allclose(y, np.asarray(make().train(SPREAD)), rtol=1e-2)
    return "two passes" if exact else "one pass"


def nearest(factor: float) -> float:
    """Return the factor that was meant; there must be one."""
    (found,) = (known for known in FACTORS if np.isclose(factor, known, rtol=2e-3))
    return found


def scalar(value: Any) -> float:
    """Return the one number in an array of any system."""
    return float(np.asarray(value).reshape(()))


def installed(package: str) -> bool:
    """Tell whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def main() -> None:
    """Print a row for every system that is installed."""
    print(f"| {HEAD} |\n|{'---|' * len(HEAD.split('|'))}")
    for system, (package, make) in SYSTEMS.items():
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"{system}: skipped, {package} is not installed")
        else:
            print(row(system, package, make), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    main()
