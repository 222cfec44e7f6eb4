"""The network of the one-shot detector, in Keras: for training, and for export to a runtime.

Plain 3x3 convolutions with few channels: on a CPU they are faster than depthwise ones of the same size (EResFD,
arXiv:2204.01209). One convolution of stride 4 begins, because maps of half the size cost more in memory traffic than
in arithmetic.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from models.detectors.one_shot.cells import ANSWERS, STRIDES
from models.detectors.one_shot.shape import OneShotShape

BLOCK = re.compile(r"s\d+_\d+_[ab](_norm)?/")  # weights of a residual block
PRIOR = 0.01  # share of cells that hold a face, about: the first bias of the logits (focal loss, arXiv:1708.02002)


def build(
    shape: OneShotShape, height: int | None = None, width: int | None = None, *, statistics_momentum: float = 0.99
) -> keras.Model:
    """Returns the network: (n, h, w, 3) uint8 or float RGB of 0 to 255 to (n, cells, 5) answers, map by map.

    Args:
        height, width: pixels, multiples of 32; None leaves them open.
        statistics_momentum: of the normalisation's running means. Where weights are averaged it has to be as slow as
            their average, or the two do not fit each other.
    """
    inputs = keras.Input((height, width, 3), name="image")
    x = keras.layers.Rescaling(1 / 64.0, offset=-2.0, name="scale")(inputs)
    x = _stem(x, shape)
    levels = []
    for stride, channels, depth in zip(STRIDES, shape.widths, shape.depths, strict=True):
        x = _conv(x, channels, f"s{stride}_down", strides=2)
        for number in range(depth):
            x = _residual(x, channels, f"s{stride}_{number}")
        levels.append(x)
    top: Any = None
    outputs = []
    for stride, level in zip(STRIDES[::-1], levels[::-1], strict=True):
        side = _conv(level, shape.join, f"s{stride}_side", kernel=1)
        if top is not None:
            side = keras.layers.add([side, keras.layers.UpSampling2D(2, name=f"s{stride}_up")(top)])
        top = _conv(side, shape.join, f"s{stride}_join")
        outputs.append(_answers(top, f"s{stride}_answers"))
    network = keras.Model(inputs, keras.layers.Concatenate(axis=1, dtype="float32", name="cells")(outputs[::-1]))
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = statistics_momentum
    return network


def untrained(shape: OneShotShape, *, precision: str, seed: int, statistics_momentum: float) -> keras.Model:
    """Returns the network with first weights drawn from a seed.

    Args:
        precision: a Keras dtype policy.
    """
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    try:
        return build(shape, statistics_momentum=statistics_momentum)
    finally:
        keras.config.set_dtype_policy(before)


def weights_of(network: keras.Model) -> dict[str, np.ndarray]:
    """Returns all weights by path, `layer/variable`."""
    return {variable.path: np.asarray(keras.ops.convert_to_numpy(variable.value)) for variable in network.weights}


def start_from(network: keras.Model, path: Path) -> None:
    """Takes the weights of an earlier training, of the same network or of one with fewer residual blocks.

    A new block gives back its input at first: its last normalisation multiplies by 0. So a deeper network begins with
    the answers of the shallower one.

    Raises:
        ValueError: they are of another network, or the file is damaged.
    """
    try:
        with np.load(path) as stored:
            weights = {name: stored[name] for name in stored.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a sound file of weights") from error
    own = {variable.path: variable for variable in network.weights}
    new = {name for name in own if name not in weights and BLOCK.match(name)}
    known = {name: tuple(variable.shape) for name, variable in own.items() if name not in new}
    if {name: value.shape for name, value in weights.items()} != known:
        raise ValueError(f"{path} has the weights of another network")
    for name in known:
        own[name].assign(weights[name])
    for name in new:
        if name.endswith("_b_norm/gamma"):
            own[name].assign(np.zeros(own[name].shape, np.float32))


def _stem(x: Any, shape: OneShotShape) -> Any:
    if shape.stem[0]:
        return _conv(_conv(x, shape.stem[0], "stem_2", strides=2), shape.stem[1], "stem_4", strides=2)
    return _conv(x, shape.stem[1], "stem_4", kernel=8, strides=4)


def _conv(x: Any, channels: int, name: str, *, kernel: int = 3, strides: int = 1, active: bool = True) -> Any:
    x = keras.layers.Conv2D(channels, kernel, strides, padding="same", use_bias=False, name=name)(x)
    x = keras.layers.BatchNormalization(name=f"{name}_norm", momentum=0.99)(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if active else x


def _residual(x: Any, channels: int, name: str) -> Any:
    y = _conv(x, channels, f"{name}_a")
    y = _conv(y, channels, f"{name}_b", active=False)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.add([x, y]))


def _answers(x: Any, name: str) -> Any:
    bias = np.zeros(ANSWERS, np.float32)
    bias[0] = -np.log((1 - PRIOR) / PRIOR)
    first = keras.initializers.RandomNormal(stddev=0.01)
    y = keras.layers.Conv2D(
        ANSWERS, 1, kernel_initializer=first, bias_initializer=_Bias(bias.tolist()), dtype="float32", name=name
    )(x)
    return keras.layers.Reshape((-1, ANSWERS), dtype="float32", name=f"{name}_cells")(y)


class _Bias(keras.initializers.Initializer):
    """A bias stated number by number."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.convert_to_tensor(np.asarray(self.values, np.float32).reshape(shape), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values}
