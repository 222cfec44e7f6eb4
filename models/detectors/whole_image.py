"""The detector for pictures that are faces already: one box, the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.detectors import Detections, DetectorSettings

REVISION = 1  # part of the features fingerprint: raise it when the same image gives another box


class WholeImage:
    """Finds exactly one face, the size of the image, with score 1. Takes grey and RGB alike."""

    name = "none"
    channels = 1  # the cheaper to decode

    def __init__(self, settings: DetectorSettings) -> None:
        self.settings = settings

    def detect(self, image: np.ndarray) -> Detections:
        """Returns one box, 0, 0, width, height of the image."""
        height, width = image.shape[:2]
        return Detections(np.array([[0, 0, width, height]], dtype=np.int32), np.ones(1, dtype=np.float32))

    def digest(self) -> str:
        """Returns "": there is no model file."""
        return ""

    def describe(self) -> dict[str, Any]:
        """Returns the name and the revision: no setting changes the result."""
        return {"name": self.name, "revision": REVISION}
