"""From the trained network of the one-shot detector to the ONNX file that ships."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.detectors.one_shot.cells import ANSWERS, STRIDES
from models.detectors.one_shot.shape import OneShotShape
from models.onnx_graph import OnnxGraph, folded

INPUT = "image"
OUTPUTS = tuple(f"s{stride}_answers" for stride in STRIDES)


def to_onnx(weights: Mapping[str, np.ndarray], shape: OneShotShape) -> bytes:
    """Returns the network as an ONNX file: (1, 3, h, w) RGB of 0 to 255 to a (1, 5, h / s, w / s) map by stride.

    Args:
        weights: by Keras's path, `layer/variable`.
        shape: of the network that they belong to.
    """
    return _Export(weights, shape).graph()


def shifted(weights: Mapping[str, np.ndarray], score: float, meant: float) -> dict[str, np.ndarray]:
    """Returns the weights of a network that answers `meant` where this one answers `score`; the order stays.

    Every logit moves by the same amount.

    Args:
        score, meant: above 0, below 1.
    """
    by = np.log(meant / (1 - meant)) - np.log(score / (1 - score))
    moved = dict(weights)
    for name in OUTPUTS:
        bias = np.array(weights[f"{name}/bias"], np.float32)
        bias[0] += by
        moved[f"{name}/bias"] = bias
    return moved


class _Export:
    def __init__(self, weights: Mapping[str, np.ndarray], shape: OneShotShape) -> None:
        self._weights, self._shape, self._graph = weights, shape, OnnxGraph()

    def graph(self) -> bytes:
        scaled = self._graph.node("Mul", [INPUT, self._graph.constant("scale", np.float32(1 / 64))], "scaled")
        x = self._graph.node("Add", [scaled, self._graph.constant("offset", np.float32(-2))], "centred")
        if self._shape.stem[0]:
            x = self._conv(x, "stem_2", strides=2)
            x = self._conv(x, "stem_4", strides=2)
        else:
            x = self._conv(x, "stem_4", strides=4)
        levels = []
        for stride, depth in zip(STRIDES, self._shape.depths, strict=True):
            x = self._conv(x, f"s{stride}_down", strides=2)
            for number in range(depth):
                x = self._residual(x, f"s{stride}_{number}")
            levels.append(x)
        self._top_down(levels)
        shapes = {name: ("n", ANSWERS, f"h{name[:3]}", f"w{name[:3]}") for name in OUTPUTS}
        return self._graph.serialized({INPUT: ("n", 3, "h", "w")}, shapes)

    def _top_down(self, levels: list[str]) -> None:
        twice = self._graph.constant("twice", np.asarray([1, 1, 2, 2], np.float32))
        top = ""
        for stride, level in zip(STRIDES[::-1], levels[::-1], strict=True):
            side = self._conv(level, f"s{stride}_side")
            if top:
                larger = self._graph.node(
                    "Resize",
                    [top, "", twice],
                    f"s{stride}_up",
                    mode="nearest",
                    coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor",
                )
                side = self._graph.node("Add", [side, larger], f"s{stride}_sum")
            top = self._conv(side, f"s{stride}_join")
            name = f"s{stride}_answers"
            self._graph.convolution(
                top, self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"], name, relu=False
            )

    def _residual(self, x: str, name: str) -> str:
        y = self._conv(self._conv(x, f"{name}_a"), f"{name}_b", relu=False)
        return self._graph.node("Relu", [self._graph.node("Add", [x, y], f"{name}_sum")], f"{name}_out")

    def _conv(self, x: str, name: str, *, strides: int = 1, relu: bool = True) -> str:
        norm = [self._weights[f"{name}_norm/{key}"] for key in ("gamma", "beta", "moving_mean", "moving_variance")]
        kernel, bias = folded(self._weights[f"{name}/kernel"], *norm)
        return self._graph.convolution(x, kernel, bias, name, strides=strides, relu=relu)
