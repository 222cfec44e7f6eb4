"""Writes ONNX graphs node by node: what our detectors ship as, and what some runtimes execute as a feature extractor.

A detector's weights are stored in 16 bits and widened when a session is made, which halves its file. Only writing a
graph needs the `onnx` package; running one needs `onnxruntime` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

OPSET = 17
IR_VERSION = 8
EPSILON = 1e-3  # of batch normalisation, Keras's default


class OnnxGraph:
    """A graph under construction: each method adds nodes and returns the name of their output."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Adds one node of an ONNX operator and returns the name of its output."""
        from onnx import helper

        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: np.ndarray | np.generic, *, half: bool = False) -> str:
        """Adds float32 numbers, or whole ones as they are; `half` stores 16 bits and widens them when loaded."""
        from onnx import TensorProto, numpy_helper

        values = np.asarray(values)
        if np.issubdtype(values.dtype, np.floating):
            values = values.astype(np.float16 if half else np.float32)
        self._constants.append(numpy_helper.from_array(values, f"{name}_16" if half else name))
        return self.node("Cast", [f"{name}_16"], name, to=TensorProto.FLOAT) if half else name

    def convolution(
        self, inputs: str, kernel: np.ndarray, bias: np.ndarray, name: str, *, strides: int = 1, relu: bool = True
    ) -> str:
        """Adds a convolution with Keras's "same" padding for sides that the stride divides.

        Args:
            kernel: (rows, columns, channels in, channels out), as Keras has it.
            bias: (channels out,).
        """
        total = max(kernel.shape[0] - strides, 0)
        low = total // 2
        weights = self.constant(f"{name}_kernel", kernel.transpose(3, 2, 0, 1), half=True)
        outputs = self.node(
            "Conv",
            [inputs, weights, self.constant(f"{name}_bias", bias)],
            name,
            kernel_shape=list(kernel.shape[:2]),
            strides=[strides, strides],
            pads=[low, low, total - low, total - low],
        )
        return self.node("Relu", [outputs], f"{name}_relu") if relu else outputs

    def serialized(
        self, inputs: Mapping[str, Sequence[Any]], outputs: Mapping[str, Sequence[Any]], *, pixels: bool = False
    ) -> bytes:
        """Returns the graph as the bytes of an ONNX file.

        Args:
            inputs, outputs: shapes by name; a text stands for a side that is open.
            pixels: the inputs are uint8, not float32.
        """
        from onnx import TensorProto, checker, helper

        def described(shapes: Mapping[str, Sequence[Any]], kind: int = TensorProto.FLOAT) -> list[Any]:
            return [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in shapes.items()]

        into = described(inputs, TensorProto.UINT8 if pixels else TensorProto.FLOAT)
        graph = helper.make_graph(self._nodes, "detector", into, described(outputs), self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def folded(
    kernel: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (kernel, bias) of one convolution that does what a convolution and its batch normalisation do.

    Args:
        kernel: (..., channels out); the others are (channels out,).
    """
    factor = gamma / np.sqrt(variance.astype(np.float64) + EPSILON)
    return kernel * factor, beta - mean * factor
