"""The feature extractor as an ONNX graph: preprocessing, backbone and pooling, from plain arrays, without Keras.

It computes what `backbones/features.py` builds for Keras; tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.backbones.backbone import POOLINGS, BackboneError, faults_of
from models.backbones.convolutions import Convolution, ConvolutionBlock
from models.backbones.preprocess import Preprocess
from models.backbones.registry import backbone
from models.onnx_graph import OnnxGraph
from models.runtimes.feature_settings import FeatureSettings

INPUT, OUTPUT = "crops", "features"
REVISION = 1  # part of the cache key: raise it when the graph computes other numbers


def feature_graph(settings: FeatureSettings, shape: tuple[int, ...]) -> bytes:
    """Returns an ONNX model: (batch, h, w, c) uint8 crops -> (batch, d) float32 features.

    Args:
        shape: of the input.

    Raises:
        BackboneError: the network cannot be exported, or the weights are missing or of another network.
    """
    kind = backbone(settings.backbone)
    kind.check_size(settings.height, settings.width)
    if settings.pooling not in POOLINGS:
        raise BackboneError(f"features.pooling={settings.pooling} is not one of {', '.join(POOLINGS)}")
    path = kind.weights_path(settings.weights)
    with faults_of(path, kind.name):
        blocks = kind.convolutions(path)
    graph = _FeatureGraph(shape)
    x = graph.preprocessed(kind.preprocess_named(settings.preprocess))
    if settings.flip_average:
        x = graph.node("Concat", [x, graph.mirrored(x, settings.flip_cut)], "both", axis=0)
    maps = graph.maps(x, blocks)
    features = graph.pooled(maps, settings.pooling)
    if settings.flip_average:
        features = graph.mean_of_halves(features)
    graph.node("Identity", [features], OUTPUT)
    return graph.serialized({INPUT: shape}, {OUTPUT: (shape[0], "width")}, pixels=True)


class _FeatureGraph(OnnxGraph):
    """Adds the stages of the extractor; maps are (n, channels, rows, columns)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._batch, self._height, self._width, self._channels = shape

    def preprocessed(self, preprocess: Preprocess) -> str:
        """Adds the map from pixels to what the first convolution takes, in the order and rounding of `Preprocess`."""
        x = self.node("Transpose", [INPUT], "channels_first", perm=[0, 3, 1, 2])
        x = self.node("Cast", [x], "pixels", to=1)  # 1 is float32
        if preprocess.reverse_channels:
            order = np.arange(self._channels - 1, -1, -1)
            x = self.node("Gather", [x, self.constant("reversed_order", order)], "reversed", axis=1)
        if any(preprocess.mean):
            mean = np.asarray(preprocess.mean).reshape(1, -1, 1, 1)
            x = self.node("Sub", [x, self.constant("mean", mean)], "centred")
        if preprocess.scale != 1:
            x = self.node("Mul", [x, self.constant("scale", np.float32(preprocess.scale))], "scaled")
        return x

    def mirrored(self, x: str, cut: float) -> str:
        """Adds the mirror image, `cut` taken off each edge, enlarged to the size of the crop again."""
        down, across = (int(side * cut + 0.5) for side in (self._height, self._width))
        begin = self.constant("mirror_begin", np.asarray([down, self._width - 1 - across]))
        end = self.constant("mirror_end", np.asarray([self._height - down, across - 1 if across else -self._width - 1]))
        axes, steps = (
            self.constant("mirror_axes", np.asarray([2, 3])),
            self.constant("mirror_step", np.asarray([1, -1])),
        )
        x = self.node("Slice", [x, begin, end, axes, steps], "mirror_inner")
        if not (down or across):
            return x
        sizes = np.asarray([self._batch, self._channels, self._height, self._width])
        return self.node(
            "Resize",
            [x, "", "", self.constant("mirror_sizes", sizes)],
            "mirror",
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def maps(self, x: str, blocks: Sequence[ConvolutionBlock]) -> list[str]:
        """Adds the backbone; returns the output of each block."""
        outputs = []
        sides = [self._height, self._width]
        for number, block in enumerate(blocks, 1):
            for convolution in block.convolutions:
                x = self._convolution(x, convolution)
            if block.pooled:
                over = [side % 2 if block.keeps_odd else 0 for side in sides]
                sides = [(side + extra) // 2 for side, extra in zip(sides, over, strict=True)]
                x = self.node(
                    "MaxPool", [x], f"block{number}_pool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, *over]
                )
            outputs.append(x)
        return outputs

    def _convolution(self, x: str, convolution: Convolution) -> str:
        kernel = self.constant(f"{convolution.name}_kernel", convolution.kernel.transpose(3, 2, 0, 1))
        bias = self.constant(f"{convolution.name}_bias", convolution.bias)
        x = self.node("Conv", [x, kernel, bias], convolution.name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        return self.node("Relu", [x], f"{convolution.name}_relu")

    def pooled(self, maps: Sequence[str], pooling: str) -> str:
        """Adds the pooling; returns (n, d) features."""
        if pooling == "flatten":
            last = self.node("Transpose", [maps[-1]], "channels_last", perm=[0, 2, 3, 1])
            return self.node("Flatten", [last], "flat")
        means = [
            self.node("Flatten", [self.node("GlobalAveragePool", [one], f"{one}_mean")], f"{one}_features")
            for one in (maps if pooling == "multi" else maps[-1:])
        ]
        return means[0] if len(means) == 1 else self.node("Concat", means, "joined", axis=1)

    def mean_of_halves(self, features: str) -> str:
        """Adds the mean of the features of the crops and of their mirror images, which are the second half."""
        halves = self.constant("halves", np.asarray([2, self._batch, -1]))
        apart = self.node("Reshape", [features, halves], "apart")
        return self.node("ReduceMean", [apart], "mean_of_both", axes=[0], keepdims=0)
