"""The cascade's networks as ONNX: batch normalisation folded, weights as float16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from models.detectors.cascade.shapes import OFFSET, SCALE, Inception, NetworkShape
from models.onnx_graph import OnnxGraph, folded

Weights = Mapping[str, np.ndarray]  # by layer and kind: conv1/kernel
INPUT, OUTPUT = "pixels", "probabilities"


def windows_graph(shape: NetworkShape, weights: Weights) -> bytes:
    """Returns the graph that looks at windows: (n, side, side, 3) uint8 to probabilities.

    These are (n,) of a face for a network of two classes, (n, classes) for calibration.
    """
    graph = _Export(shape, weights)
    x = graph.dense(graph.channels_first(), shape, "")
    kernel, bias = graph.last()
    if shape.classes == 2:
        graph.node(
            "Squeeze", [graph.node("Sigmoid", [graph.product(x, kernel, bias, half=False)]), graph.axes(1)], OUTPUT
        )
    else:
        graph.node("Softmax", [graph.product(x, kernel, bias)], OUTPUT, axis=1)
    out = ("n",) if shape.classes == 2 else ("n", shape.classes)
    return graph.serialized({INPUT: ("n", shape.side, shape.side, 3)}, {OUTPUT: out}, pixels=True)


def map_graph(shape: NetworkShape, weights: Weights, stride: int) -> bytes:
    """Returns the graph that looks at all windows of an image: (1, h, w, 3) uint8 to (rows, columns) probabilities.

    The dense layers are convolutions here. Row r, column c is the window whose corner is at (c * stride, r * stride).

    Args:
        shape: of two classes, with one convolution and one pool, nothing joined.
        stride: pixels, a multiple of the pool's.
    """
    (one,) = shape.convolutions
    graph = _Export(shape, weights)
    x = graph.features(graph.channels_first(), shape, "")
    side, channels = shape.maps()
    kernel, bias = graph.layer(shape, "dense")
    kernel = kernel.reshape(side, side, channels, shape.dense)
    x = graph.node("Relu", [graph.conv(x, kernel, bias, strides=stride // one.stride)])
    kernel, bias = graph.last()
    x = graph.node("Sigmoid", [graph.conv(x, kernel[None, None], bias, half=False)])
    graph.node("Squeeze", [x, graph.axes(0, 1)], OUTPUT)
    return graph.serialized({INPUT: (1, "h", "w", 3)}, {OUTPUT: ("rows", "columns")}, pixels=True)


class _Export(OnnxGraph):
    """A graph with the layers of the cascade's networks; convolutions have no padding here."""

    def __init__(self, shape: NetworkShape, weights: Weights) -> None:
        super().__init__()
        self._shape, self._weights = shape, weights

    def node(self, kind: str, inputs: list[str], name: str = "", **attributes: object) -> str:  # type: ignore[override]
        """Adds a node, named by its number if not otherwise."""
        return super().node(kind, inputs, name or f"{kind.lower()}{len(self._nodes)}", **attributes)

    def axes(self, *numbers: int) -> str:
        return self.constant(f"axes{len(self._constants)}", np.asarray(numbers, np.int64))

    def channels_first(self) -> str:
        """(n, h, w, c) uint8 becomes (n, c, h, w) float32."""
        return self.node("Transpose", [self.node("Cast", [INPUT], to=1)], perm=[0, 3, 1, 2])  # 1: float32

    # --- layers ---------------------------------------------------------------------------------------------------

    def conv(
        self,
        x: str,
        kernel: np.ndarray,
        bias: np.ndarray,
        *,
        strides: int = 1,
        factor: float = 1.0,
        half: bool = True,
        pad: int = 0,
    ) -> str:
        """A convolution; its kernel is stored, then multiplied: what is small loses digits in float16."""
        weights = self.constant(f"kernel{len(self._constants)}", kernel.transpose(3, 2, 0, 1), half=half)
        if factor != 1:
            scale = self.constant(f"factor{len(self._constants)}", np.float32(factor))
            weights = self.node("Mul", [weights, scale])
        inputs = [x, weights, self.constant(f"bias{len(self._constants)}", bias)]
        padded: dict[str, Any] = {"pads": [pad] * 4} if pad else {}
        return self.node("Conv", inputs, kernel_shape=list(kernel.shape[:2]), strides=[strides, strides], **padded)

    def product(self, x: str, kernel: np.ndarray, bias: np.ndarray, *, half: bool = True) -> str:
        weights = self.constant(f"kernel{len(self._constants)}", kernel, half=half)
        return self.node("Gemm", [x, weights, self.constant(f"bias{len(self._constants)}", bias)])

    def pool(self, x: str, side: int, strides: int, kind: str = "MaxPool") -> str:
        return self.node(kind, [x], kernel_shape=[side, side], strides=[strides, strides])

    def features(self, x: str, shape: NetworkShape, prefix: str) -> str:
        """The convolutions and their pools; the first one takes pixels of 0 to 255."""
        for number, one in enumerate(shape.convolutions, 1):
            kernel, bias = self.layer(shape, f"{prefix}conv{number}")
            if number == 1:
                bias = bias + OFFSET * kernel.astype(np.float16).astype(np.float64).sum(axis=(0, 1, 2))
            x = self.conv(x, kernel, bias, strides=one.step, factor=SCALE if number == 1 else 1.0)
            x = self.node("Relu", [x])
            if one.pool:
                x = self.pool(x, one.pool, one.stride)
        side, _ = replace(shape, inceptions=()).maps()
        for number, module in enumerate(shape.inceptions, 1):
            first = number == 1 and not shape.convolutions
            x = self.inception(x, module, shape, f"{prefix}inception{number}", side, first=first)
            side = (side + 1) // 2
        return x

    def inception(self, x: str, module: Inception, shape: NetworkShape, name: str, side: int, *, first: bool) -> str:
        """An inception module of a map of `side` cells; the first layer of a network takes pixels of 0 to 255."""
        ends = []
        for branch in module.branches():
            y, pixels = x, first
            for _, size in branch:
                kernel, bias = self.layer(shape, f"{name}_{branch[-1][1]}x{size}")
                if pixels:
                    bias = bias + OFFSET * kernel.astype(np.float16).astype(np.float64).sum(axis=(0, 1, 2))
                y = self.conv(y, kernel, bias, factor=SCALE if pixels else 1.0, pad=size // 2)
                y, pixels = self.node("Relu", [y]), False
            ends.append(y)
        joined = self.node("Concat", ends, axis=1)
        total = 2 * ((side + 1) // 2 - 1) + 3 - side  # what Keras pads for "same", more of it at the end
        pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        return self.node("MaxPool", [joined], kernel_shape=[3, 3], strides=[2, 2], pads=pads)

    def dense(self, pixels: str, shape: NetworkShape, prefix: str) -> str:
        """A network up to its dense layer, a smaller network's answers after its own where one is joined."""
        x = self.node("Flatten", [self.features(pixels, shape, prefix)], axis=1)
        side, channels = shape.maps()
        kernel, bias = self.layer(shape, f"{prefix}dense")
        kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)  # channels first
        x = self.node("Relu", [self.product(x, kernel, bias)])
        if shape.joined is None:
            return x
        factor = shape.side // shape.joined.side
        smaller = self.pool(pixels, factor, factor, "AveragePool")
        return self.node("Concat", [x, self.dense(smaller, shape.joined, f"{prefix}joined_")], axis=1)

    # --- weights --------------------------------------------------------------------------------------------------

    def layer(self, shape: NetworkShape, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns kernel and bias of a layer with its batch normalisation in them."""
        kernel = self._weights[f"{name}/kernel"]
        if not shape.normalised:
            return kernel, self._weights[f"{name}/bias"]
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        return folded(kernel, *(self._weights[f"{name}_norm/{part}"] for part in parts))

    def last(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns kernel and bias of the logits; of two classes, those of "face" less those of "none"."""
        kernel, bias = self._weights["logits/kernel"], self._weights["logits/bias"]
        if self._shape.classes == 2:
            return kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
        return kernel, bias
