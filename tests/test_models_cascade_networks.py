"""The cascade's networks: shapes as the source gives them, and the same answers from Keras and from ONNX."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from cascades import SMALL, drawn_weights

from models.detectors.cascade.export import map_graph, windows_graph
from models.detectors.cascade.shapes import (
    SHIPPED,
    SOURCE,
    Convolution,
    Inception,
    NetworkShape,
    inceptron,
    larger,
    multi_resolution,
    normalised,
)
from models.onnx_graph import EPSILON

SMALL_MODULES = (Inception(3, (4, 5), (2, 3)), Inception(4, (3, 4), (2, 2)))  # sides 12, 6, 3 and 9, 5, 3
EVERY = [
    *(pytest.param(shape, id=f"source {name}") for name, shape in SOURCE.items()),
    *(pytest.param(shape, id=f"shipped {name}") for name, shape in SHIPPED.items()),
    pytest.param(NetworkShape(12, (), 8, inceptions=SMALL_MODULES), id="inceptron"),
    pytest.param(
        NetworkShape(11, (Convolution(4, 3),), 8, normalised=True, inceptions=SMALL_MODULES), id="inceptron after one"
    ),
    *(pytest.param(shape, id=f"joined {name}") for name, shape in multi_resolution(normalised(SOURCE)).items()),
]


def run(model: bytes, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


def windows(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (count, side, side, 3), np.uint8)


def probabilities(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares[:, 1] if shares.shape[1] == 2 else shares


@pytest.mark.parametrize("shape", EVERY)
def test_onnx_answers_as_keras(shape):
    import keras

    from models.training.detection.cascade.networks import build
    from models.training.detection.cascade.one_network import weights_of

    keras.utils.set_random_seed(1)
    network = build(shape)
    draw = np.random.default_rng(0)
    for weight in network.weights:
        if "variance" in weight.path:
            weight.assign(np.full(weight.shape, 1 - EPSILON))
        elif "gamma" in weight.path:
            weight.assign(draw.choice([0.5, 1.0] if shape.inceptions else [0.5, 1.0, 2.0], weight.shape))
        elif "norm" in weight.path or "bias" in weight.path:
            weight.assign(draw.uniform(-0.5, 0.5, weight.shape))
        else:  # as ONNX keeps them, with gamma in them, too: what float16 loses is another matter
            weight.assign(np.asarray(weight).astype(np.float16))
    pixels = windows(8, shape.side)
    expected = probabilities(np.asarray(network(pixels.astype(np.float32))))
    assert np.abs(run(windows_graph(shape, weights_of(network)), pixels) - expected).max() < 1e-4
    assert expected.std() > 1e-3  # they do differ


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_map_answers_as_its_windows(stride):
    shape = SHIPPED["detect12"]
    weights = drawn_weights(shape)
    image = windows(1, 48)
    scores = run(map_graph(shape, weights, stride), image)
    assert scores.shape == ((48 - 12) // stride + 1,) * 2
    cut = np.stack([image[0, r : r + 12, c : c + 12] for r in range(0, 37, stride) for c in range(0, 37, stride)])
    assert np.abs(scores.ravel() - run(windows_graph(shape, weights), cut)).max() < 1e-5


@pytest.mark.parametrize("name", ["detect24", "calibrate24", "detect48", "calibrate48"])
def test_a_windows_answer_does_not_depend_on_its_company(name):
    shape = SHIPPED[name]
    model, pixels = windows_graph(shape, drawn_weights(shape)), windows(32, shape.side)
    expected = run(model, pixels)
    order = np.random.default_rng(0).permutation(32)
    assert np.array_equal(run(model, pixels[order]), expected[order])
    other = np.where(np.arange(32)[:, None, None, None] == 5, pixels, 255 - pixels)
    assert np.array_equal(run(model, other)[5], expected[5])


def test_the_two_networks_of_the_source_are_as_it_gives_them():
    from models.training.detection.cascade.networks import build

    small, large = build(SOURCE["calibrate12"]), build(SOURCE["calibrate48"])
    kinds = [type(layer).__name__ for layer in small.layers if type(layer).__name__ not in ("Rescaling", "ReLU")]
    assert kinds == [
        *("InputLayer", "Dropout", "Conv2D", "MaxPooling2D", "Flatten", "Dropout", "Dense", "Dropout", "Dense")
    ]
    rates = [[layer.rate for layer in net.layers if type(layer).__name__ == "Dropout"] for net in (small, large)]
    assert rates == [[0.1, 0.5, 0.5], [0.1, 0.3, 0.3]]
    for net, convolutions, units in ((small, [(16, 3)], [128, 45]), (large, [(64, 5), (64, 5)], [256, 45])):
        found = [(one.filters, one.kernel_size[0]) for one in net.layers if type(one).__name__ == "Conv2D"]
        assert found == convolutions
        assert [one.units for one in net.layers if type(one).__name__ == "Dense"] == units


def test_the_inceptron_has_the_branches_of_the_write_up():
    shape = inceptron(3)
    assert [module.channels for module in shape.inceptions] == [32 + 64 + 16, 64 + 96 + 48, 96 + 104 + 24]
    assert shape.maps() == (6, 224) and inceptron(4).maps() == (3, 224)
    assert larger(SOURCE["detect48"]).maps()[1] == 128


def test_multi_resolution_joins_half_and_quarter():
    shapes = multi_resolution(SOURCE)
    last = shapes["detect48"]
    assert (last.joined.side, last.joined.joined.side) == (24, 12)
    weights = drawn_weights(replace(last, convolutions=SMALL["detect48"].convolutions))
    assert weights["logits/kernel"].shape == (256 + 128 + 16, 2)


def test_graphs_are_written_the_same_each_time():
    shape = SMALL["calibrate24"]
    assert windows_graph(shape, drawn_weights(shape)) == windows_graph(shape, drawn_weights(shape))


def test_weights_are_stored_in_sixteen_bits():
    shape = SOURCE["detect24"]
    numbers = sum(weights.size for weights in drawn_weights(shape).values())
    assert 2 * numbers < len(windows_graph(shape, drawn_weights(shape))) < 2.01 * numbers + 4000
