"""The cascade's networks in Keras: for training, and for export to a runtime."""

from __future__ import annotations

from typing import Any

import keras

from models.detectors.cascade.shapes import OFFSET, SCALE, Inception, NetworkShape


def build(shape: NetworkShape) -> keras.Model:
    """Returns the network: (n, side, side, 3) uint8 or float RGB of 0 to 255 to (n, classes) float32 logits."""
    inputs = keras.Input((shape.side, shape.side, 3), name="window")
    x = keras.layers.Rescaling(SCALE, OFFSET, name="scale")(inputs)
    if shape.dropout[0]:
        x = keras.layers.Dropout(shape.dropout[0], name="image_dropout")(x)
    x = _dense(x, shape, "")
    if shape.dropout[2]:
        x = keras.layers.Dropout(shape.dropout[2], name="last_dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(shape.classes, dtype="float32", name="logits")(x))


def _dense(pixels: Any, shape: NetworkShape, prefix: str) -> Any:
    """Returns the answers of a network's dense layer, a smaller network's after them where one is joined."""
    x = pixels
    for number, one in enumerate(shape.convolutions, 1):
        name = f"{prefix}conv{number}"
        x = keras.layers.Conv2D(one.channels, one.kernel, one.step, use_bias=not shape.normalised, name=name)(x)
        x = _active(x, shape, name)
        if one.pool:
            x = keras.layers.MaxPooling2D(one.pool, one.stride, name=f"{prefix}pool{number}")(x)
    for number, module in enumerate(shape.inceptions, 1):
        x = _inception(x, module, shape, f"{prefix}inception{number}")
    x = keras.layers.Flatten(name=f"{prefix}flat")(x)
    if shape.dropout[1]:
        x = keras.layers.Dropout(shape.dropout[1], name=f"{prefix}dropout")(x)
    x = keras.layers.Dense(shape.dense, use_bias=not shape.normalised, name=f"{prefix}dense")(x)
    x = _active(x, shape, f"{prefix}dense")
    if shape.joined is None:
        return x
    factor = shape.side // shape.joined.side
    smaller = keras.layers.AveragePooling2D(factor, name=f"{prefix}reduced")(pixels)
    return keras.layers.Concatenate(name=f"{prefix}join")([x, _dense(smaller, shape.joined, f"{prefix}joined_")])


def _inception(x: Any, module: Inception, shape: NetworkShape, name: str) -> Any:
    ends = []
    for branch in module.branches():
        y = x
        for channels, kernel in branch:
            own = f"{name}_{branch[-1][1]}x{kernel}"
            y = keras.layers.Conv2D(channels, kernel, padding="same", use_bias=not shape.normalised, name=own)(y)
            y = _active(y, shape, own)
        ends.append(y)
    x = keras.layers.Concatenate(name=f"{name}_join")(ends)
    return keras.layers.MaxPooling2D(3, 2, padding="same", name=f"{name}_pool")(x)


def _active(x: Any, shape: NetworkShape, name: str) -> Any:
    if shape.normalised:
        x = keras.layers.BatchNormalization(name=f"{name}_norm", momentum=0.97)(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
