"""Multinomial logistic regression as a head, in numpy."""

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

ARRAYS = ("coef", "intercept", "mean", "scale")


@dataclass(frozen=True, eq=False)
class LinearHead(LogitsHead):
    """Multinomial logistic regression on standardised features: softmax(((x - mean) / scale) coefᵀ + intercept).

    Attributes:
        classes: k names, alphabetical.
        coef: (k + r, d) float32. intercept: (k + r,), mean, scale: (d,) float64; scale is above 0.
        temperature: logits are divided by it.
        feature_space, features: what it was made for.
        sha256: of `head.npz`, hex digits, "" before it is saved.
        metrics, split: its metrics and the data they were measured on; for readers only.
        reject: r names of reject classes, alphabetical; their logits follow those of the classes.
        intensity_temperature: logits divided by it give the share of people who would choose a class; 0 if unknown.

    Raises:
        HeadError: arrays do not fit each other or are not finite, or classes are not in order.
    """

    classes: tuple[str, ...]
    coef: np.ndarray
    intercept: np.ndarray
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
    _weights: np.ndarray = field(init=False, repr=False)  # (d, k + r) and (k + r,): scaling folded in
    _bias: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_outputs(self, "linear head")
        k, width = len(self.classes) + len(self.reject), self.coef.shape[-1]
        shapes = {"coef": (k, width), "intercept": (k,), "mean": (width,), "scale": (width,)}
        check_arrays({name: getattr(self, name) for name in shapes}, shapes, "linear head")
        weights = (self.coef.astype(np.float64) / self.scale).T
        object.__setattr__(self, "_weights", np.ascontiguousarray(weights))
        object.__setattr__(self, "_bias", self.intercept - self.mean @ weights)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays in `head.npz`, by name."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def parameters(self) -> int:
        """The number of fitted parameters."""
        return self.coef.size + self.intercept.size

    @property
    def digest(self) -> str:
        """SHA-256 over kind, classes, features, temperature and the arrays."""
        return digest_of_arrays("linear", self, [self.arrays[name] for name in ARRAYS])

    def prepare(self, width: int) -> None:
        """Checks the width; there is nothing to load."""
        if width != len(self.mean):
            raise HeadError(f"linear head takes features of width {len(self.mean)}, not {width}")

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, k + r) float64 before temperature and softmax, for (m, d) features."""
        features = checked_features(features, len(self.mean), "linear head")
        with np.errstate(invalid="ignore"):  # reported below, with the row
            found = in_fixed_calls(features, len(self._bias), lambda rows: rows @ self._weights + self._bias)
        return checked_values(found, "linear head")
