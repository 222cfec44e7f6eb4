"""What a detector left of one image, step by step, and the picture of it; for detectors that search in steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, slots=True)
class Step:
    """What a step left.

    Attributes:
        name: the same in every image, so that metrics of images can be added up.
        boxes: (m, 4) float x, y, width, height in pixels of the image that was given.
        scores: (m,) from 0 to 1.
        cpu_s: CPU seconds that the step took.
    """

    name: str
    boxes: np.ndarray
    scores: np.ndarray
    cpu_s: float


@runtime_checkable
class SearchesInSteps(Protocol):
    """A detector that can show how it works."""

    def trace(self, image: np.ndarray) -> Sequence[Step]:
        """Returns the steps of one image, in their order; the last one leaves what `detect_batch` returns."""
        ...

    def explain(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Returns (h, w, 3) uint8 RGB, a panel a step.

        Args:
            image: (h, w, 3) uint8 RGB.
            known: (m, 4) boxes of faces in pixels of the image, drawn in white; (0, 4) if none is known.
        """
        ...
