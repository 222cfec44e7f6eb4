"""The detector for pictures that are faces already: one box, the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.detectors.detections import Detections
from models.detectors.options import WholeImageOptions

REVISION = 1  # part of the cache key: raise it when the same image gives another box


class WholeImage:
    """Finds exactly one face, the size of the image, with score 1. Takes grey and RGB alike."""

    channels = 1  # the cheaper to decode

    def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Returns one box for each image: 0, 0, its width, its height."""
        return [_whole(*image.shape[:2]) for image in images]


def _whole(height: int, width: int) -> Detections:
    return Detections(np.array([[0, 0, width, height]], dtype=np.int32), np.ones(1, dtype=np.float32))


def describe(options: WholeImageOptions) -> dict[str, Any]:
    """Returns the revision: no setting changes the result."""
    return {"revision": REVISION}


def load(options: WholeImageOptions, max_faces: int) -> WholeImage:
    """Returns the detector; it has no model file."""
    return WholeImage()
