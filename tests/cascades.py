"""Cascades of small networks with drawn weights, for tests: no TensorFlow, no training."""

from __future__ import annotations

import numpy as np

from models.detectors.cascade.calibration import CLASSES
from models.detectors.cascade.export import map_graph, windows_graph
from models.detectors.cascade.shapes import Convolution, NetworkShape
from models.detectors.cascade.weights import CascadeWeights

SMALL = {
    "detect12": NetworkShape(12, (Convolution(4, 3, 3),), 8, normalised=True),
    "calibrate12": NetworkShape(12, (Convolution(4, 3, 2),), 8, CLASSES),
    "detect24": NetworkShape(24, (Convolution(4, 5, 3),), 8),
    "calibrate24": NetworkShape(24, (Convolution(4, 5, 3),), 8, CLASSES, normalised=True),
    "detect48": NetworkShape(48, (Convolution(4, 4, step=2), Convolution(4, 3, 2)), 8),
    "calibrate48": NetworkShape(48, (Convolution(4, 5, 2), Convolution(4, 5)), 8, CLASSES),
}


def drawn_weights(shape: NetworkShape, seed: int = 0, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns weights by layer and kind, as Keras names them."""
    draw = np.random.default_rng([seed, shape.side, shape.classes])
    side, channels = shape.maps()
    layers, before = {}, 3
    for number, one in enumerate(shape.convolutions, 1):
        layers[f"{prefix}conv{number}"] = (one.kernel, one.kernel, before, one.channels)
        before = one.channels
    layers[f"{prefix}dense"] = (side * side * channels, shape.dense)
    weights = {}
    for name, kernel in layers.items():
        weights[f"{name}/kernel"] = draw.normal(0, 1 / np.sqrt(np.prod(kernel[:-1])), kernel).astype(np.float32)
        if shape.normalised:
            for key, low, high in (("gamma", 0.5, 1.5), ("beta", -0.2, 0.2), ("moving_mean", -0.2, 0.2)):
                weights[f"{name}_norm/{key}"] = draw.uniform(low, high, kernel[-1]).astype(np.float32)
            weights[f"{name}_norm/moving_variance"] = draw.uniform(0.5, 1.5, kernel[-1]).astype(np.float32)
        else:
            weights[f"{name}/bias"] = draw.uniform(-0.2, 0.2, kernel[-1]).astype(np.float32)
    if shape.joined is not None:
        weights.update(drawn_weights(shape.joined, seed, f"{prefix}joined_"))
    if not prefix:
        dense = joined_units(shape)
        weights["logits/kernel"] = draw.normal(0, 1 / np.sqrt(dense), (dense, shape.classes)).astype(np.float32)
        weights["logits/bias"] = draw.uniform(-0.2, 0.2, shape.classes).astype(np.float32)
    return weights


def joined_units(shape: NetworkShape) -> int:
    """Returns how many numbers the last layer sees."""
    return shape.dense + (joined_units(shape.joined) if shape.joined is not None else 0)


def small_cascade(thresholds: tuple[float, ...] = (0.5, 0.5, 0.5), seed: int = 0) -> CascadeWeights:
    """Returns a cascade that finds nothing in particular, but always the same."""
    networks = {}
    for name, shape in SMALL.items():
        weights = drawn_weights(shape, seed)
        if name == "detect12":
            networks.update({f"{name}_{stride}": map_graph(shape, weights, stride) for stride in (2, 4, 8)})
        else:
            networks[name] = windows_graph(shape, weights)
    return CascadeWeights(networks, thresholds)
