"""A linear head that gives a number, such as a rating, in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.heads.output_spec import DECIMALS, NumberOutput
from models.heads.outputs import (
    HeadError,
    check_arrays,
    checked_features,
    checked_values,
    digest_of_parts,
    in_fixed_calls,
)

ARRAYS = ("coef", "intercept", "mean", "scale")


@dataclass(frozen=True, eq=False)
class NumberHead:
    """Linear regression on standardised features: ((x - mean) / scale) coefᵀ + intercept.

    Attributes:
        name: of the number; its column in `predictions/`.
        coef: (1, d) float32. intercept: (1,), mean, scale: (d,) float64; scale is above 0.
        feature_space, features: what it was made for.
        sha256: of `head.npz`, hex digits, "" before it is saved.
        metrics, split: its metrics and the data they were measured on; for readers only.

    Raises:
        HeadError: arrays do not fit each other or are not finite.
    """

    name: str
    coef: np.ndarray
    intercept: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    feature_space: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = field(default=(), init=False)
    reject: tuple[str, ...] = field(default=(), init=False)
    _weights: np.ndarray = field(init=False, repr=False)  # (d, 1) and (1,): scaling folded in
    _bias: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise HeadError("number head: the number needs a name")
        width = self.coef.shape[-1]
        shapes = {"coef": (1, width), "intercept": (1,), "mean": (width,), "scale": (width,)}
        check_arrays(self.arrays, shapes, "number head")
        weights = (self.coef.astype(np.float64) / self.scale).T
        object.__setattr__(self, "_weights", np.ascontiguousarray(weights))
        object.__setattr__(self, "_bias", self.intercept - self.mean @ weights)

    @property
    def output(self) -> NumberOutput:
        """Returns the meaning of the answer: one number."""
        return NumberOutput(self.name)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays in `head.npz`, by name."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def digest(self) -> str:
        """SHA-256 over kind, name, features and the arrays."""
        values = [np.ascontiguousarray(self.arrays[name], "<f8").tobytes().hex() for name in ARRAYS]
        return digest_of_parts(kind="number", number=self.name, features=self.feature_space, arrays=values)

    def prepare(self, width: int) -> None:
        """Checks the width; there is nothing to load."""
        if width != len(self.mean):
            raise HeadError(f"number head takes features of width {len(self.mean)}, not {width}")

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, 0): a number has no classes."""
        return np.zeros((len(features), 0))

    def answers(self, features: np.ndarray) -> np.ndarray:
        """Returns (m, 1) float64, rounded to 1e-6, see `Head`."""
        features = checked_features(features, len(self.mean), "number head")
        with np.errstate(invalid="ignore"):  # reported below, with the row
            found = in_fixed_calls(features, 1, lambda rows: rows @ self._weights + self._bias)
        return np.asarray(np.round(checked_values(found, "number head"), DECIMALS))
