"""Dense layers as a head, in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.heads.outputs import (
    HeadError,
    LogitsHead,
    check_arrays,
    check_outputs,
    checked_features,
    checked_values,
    digest_of_arrays,
    in_fixed_calls,
)


@dataclass(frozen=True, eq=False)
class MlpHead(LogitsHead):
    """Dense layers on standardised features, with relu after all but the last one: float64, in numpy.

    Attributes:
        classes: k names, alphabetical.
        kernels: (inputs, outputs) float32 per layer; d inputs of the first, k + r outputs of the last.
        biases: (outputs,) float32 per layer.
        mean, scale: (d,) float64; scale is above 0.
        temperature, feature_space, features, sha256, metrics, split, reject, intensity_temperature: as of `LinearHead`.

    Raises:
        HeadError: arrays do not fit each other or are not finite, or classes are not in order.
    """

    classes: tuple[str, ...]
    kernels: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    mean: np.ndarray
    scale: np.ndarray
    temperature: float = 1.0
    feature_space: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    reject: tuple[str, ...] = ()
    intensity_temperature: float = 0.0
    _layers: tuple[tuple[np.ndarray, np.ndarray], ...] = field(init=False, repr=False)  # scaling folded in the first

    def __post_init__(self) -> None:
        check_outputs(self, "mlp head")
        if not self.kernels or len(self.kernels) != len(self.biases):
            raise HeadError(f"mlp head: {len(self.kernels)} kernels and {len(self.biases)} biases do not match")
        sizes = [self.mean.shape[-1], *(kernel.shape[-1] for kernel in self.kernels)]
        sizes[-1] = len(self.classes) + len(self.reject)
        shapes: dict[str, tuple[int, ...]] = {"mean": (sizes[0],), "scale": (sizes[0],)}
        for i in range(len(self.kernels)):
            shapes |= {f"kernel{i}": (sizes[i], sizes[i + 1]), f"bias{i}": (sizes[i + 1],)}
        check_arrays(self.arrays, shapes, "mlp head")
        layers = [(k.astype(np.float64), b.astype(np.float64)) for k, b in zip(self.kernels, self.biases, strict=True)]
        first = layers[0][0] / self.scale[:, None]
        layers[0] = (first, layers[0][1] - self.mean @ first)
        object.__setattr__(self, "_layers", tuple(layers))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays in `head.npz`, by name."""
        layers = {f"kernel{i}": kernel for i, kernel in enumerate(self.kernels)}
        layers |= {f"bias{i}": bias for i, bias in enumerate(self.biases)}
        return {"mean": self.mean, "scale": self.scale, **layers}

    @property
    def parameters(self) -> int:
        """The number of fitted parameters."""
        return sum(kernel.size + bias.size for kernel, bias in zip(self.kernels, self.biases, strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 over kind, classes, features, temperature and the arrays with their shapes."""
        shapes = [np.asarray(kernel.shape, np.float64) for kernel in self.kernels]
        return digest_of_arrays("mlp", self, [*shapes, *(value for _, value in sorted(self.arrays.items()))])

    def prepare(self, width: int) -> None:
        """Checks the width; there is nothing to load."""
        if width != len(self.mean):
            raise HeadError(f"mlp head takes features of width {len(self.mean)}, not {width}")

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, k + r) float64 before temperature and softmax, for (m, d) features."""
        features = checked_features(features, len(self.mean), "mlp head")
        with np.errstate(invalid="ignore"):  # reported below, with the row
            found = in_fixed_calls(features, len(self._layers[-1][1]), self._call)
        return checked_values(found, "mlp head")

    def _call(self, rows: np.ndarray) -> np.ndarray:
        *hidden, (kernel, bias) = self._layers
        for weights, offset in hidden:
            rows = np.maximum(rows @ weights + offset, 0)
        return np.asarray(rows @ kernel + bias)
