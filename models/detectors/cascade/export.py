"""The cascade's networks as ONNX: batch normalisation folded, weights as float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from models.detectors.cascade.shapes import OFFSET, SCALE, NetworkShape
from models.detectors.onnx_graph import Graph

if TYPE_CHECKING:
    import keras

EPSILON = 1e-3  # of Keras's batch normalisation
Weights = Mapping[str, np.ndarray]  # by layer and kind: conv1/kernel


def weights_of(network: keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights of a network by layer and kind."""
    return {weight.path: np.asarray(weight, np.float32) for weight in network.weights}


def windows_graph(shape: NetworkShape, weights: Weights) -> bytes:
    """Returns the graph that looks at windows: (n, side, side, 3) uint8 to probabilities.

    These are (n,) of a face for a network of two classes, (n, classes) for calibration.
    """
    graph = Graph()
    x = _dense(graph, graph.channels_first("windows"), shape, weights, "")
    kernel, bias = _last(shape, weights)
    x = graph.dense(x, kernel, bias, whole=shape.classes == 2)  # a difference, which float16 would round again
    if shape.classes == 2:
        answers = graph.add("Squeeze", [graph.add("Sigmoid", [x]), graph.constant(np.asarray([1]))])
    else:
        answers = graph.softmax(x)
    sides = ("n", shape.side, shape.side, 3)
    shape_out = ("n",) if shape.classes == 2 else ("n", shape.classes)
    return graph.finished("windows", ("windows", sides), (answers, shape_out), TensorProto.UINT8)


def map_graph(shape: NetworkShape, weights: Weights, stride: int) -> bytes:
    """Returns the graph that looks at all windows of an image: (1, h, w, 3) uint8 to (rows, columns) probabilities.

    The dense layers are convolutions here. Row r, column c is the window whose corner is at (c * stride, r * stride).

    Args:
        shape: of two classes, with one convolution and one pool, nothing joined.
        stride: pixels, a multiple of the pool's.
    """
    (one,) = shape.convolutions
    graph = Graph()
    x = graph.channels_first("image")
    x = graph.relu(graph.conv(x, *_first(shape, weights, ""), factor=SCALE))
    x = graph.pool(x, one.pool, one.stride)
    side, channels = shape.maps()
    kernel, bias = _folded(shape, weights, "dense")
    kernel = kernel.reshape(side, side, channels, shape.dense)
    x = graph.relu(graph.conv(x, kernel, bias, strides=stride // one.stride))
    kernel, bias = _last(shape, weights)
    x = graph.add("Sigmoid", [graph.conv(x, kernel[None, None], bias, whole=True)])
    answers = graph.add("Squeeze", [x, graph.constant(np.asarray([0, 1]))])
    return graph.finished("map", ("image", (1, "h", "w", 3)), (answers, ("rows", "columns")), TensorProto.UINT8)


def _dense(graph: Graph, pixels: str, shape: NetworkShape, weights: Weights, prefix: str) -> str:
    x = pixels
    for number, one in enumerate(shape.convolutions, 1):
        if number == 1:
            x = graph.conv(x, *_first(shape, weights, prefix), strides=one.step, factor=SCALE)
        else:
            x = graph.conv(x, *_folded(shape, weights, f"{prefix}conv{number}"), strides=one.step)
        x = graph.relu(x)
        if one.pool:
            x = graph.pool(x, one.pool, one.stride)
    side, channels = shape.maps()
    kernel, bias = _folded(shape, weights, f"{prefix}dense")
    kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)  # channels first
    x = graph.relu(graph.dense(graph.flat(x), kernel, bias))
    if shape.joined is None:
        return x
    factor = shape.side // shape.joined.side
    smaller = graph.pool(pixels, factor, factor, "AveragePool")
    return graph.add("Concat", [x, _dense(graph, smaller, shape.joined, weights, f"{prefix}joined_")], axis=1)


def _folded(shape: NetworkShape, weights: Weights, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of a layer with its batch normalisation in them."""
    kernel = weights[f"{name}/kernel"]
    if not shape.normalised:
        return kernel, weights[f"{name}/bias"]
    norm = {key: weights[f"{name}_norm/{key}"] for key in ("gamma", "beta", "moving_mean", "moving_variance")}
    factor = norm["gamma"] / np.sqrt(norm["moving_variance"] + EPSILON)
    return kernel * factor, norm["beta"] - norm["moving_mean"] * factor


def _first(shape: NetworkShape, weights: Weights, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of the first convolution, the offset of the pixels in the bias."""
    kernel, bias = _folded(shape, weights, f"{prefix}conv1")
    stored = kernel.astype(np.float16).astype(np.float32)
    return kernel, bias + OFFSET * stored.sum(axis=(0, 1, 2))


def _last(shape: NetworkShape, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of the logits; of two classes, those of "face" less those of "none"."""
    kernel, bias = weights["logits/kernel"], weights["logits/bias"]
    if shape.classes == 2:
        return kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    return kernel, bias
