"""OpenCV's Haar cascade (Viola and Jones 2001), the one detector whose model comes with OpenCV 4.

OpenCV 5 has neither the class nor the files. What it finds does not depend on OpenCV's threads, but the order
does (24 of 40 photos, 1 thread against 2): results are sorted before they leave. A `CascadeClassifier` keeps
buffers of the image it works on, so every thread has its own.

The histogram is left alone. Equalising it cost 12-16 % more time and recall on all of three sets (IoU 0.3):
0.708 to 0.688 on 160 annotated photos, 0.444 to 0.434 on CMU+MIT, and 0.951 to 0.903 on 67 group photos, against
YuNet's faces there; false positives stayed within 0.02 an image. CLAHE: 0.719 on the first, at 0.26 instead of 0.15.
"""

from __future__ import annotations

import threading
from typing import Any

import cv2
import cv2.data
import numpy as np

from models.detectors import Detections, DetectorError, DetectorSettings, checked_image, detections_in, read_model
from models.detectors.cropping import reduced

REVISION = 1  # part of the features fingerprint: raise it when the same image gives other boxes or scores
CASCADE = "haarcascade_frontalface_default.xml"


class HaarDetector:
    """Upright frontal faces, boxes from brow to chin, square.

    The score is the weight that the last stage of the cascade gave, about -1 to 16: an order, no probability.

    Raises:
        DetectorError: this OpenCV has no Haar cascades, or the model file is missing or no cascade.
    """

    name = "haar"
    channels = 1

    def __init__(self, settings: DetectorSettings) -> None:
        if not hasattr(cv2, "CascadeClassifier"):
            raise DetectorError(
                f"detector haar: OpenCV {cv2.__version__} has no Haar cascades; install opencv-python<5"
            )
        self.settings = settings
        self._path = settings.model or cv2.data.haarcascades + CASCADE
        _, self._digest = read_model(self._path, self.name)
        self._threads = threading.local()
        self._classifier()

    def _classifier(self) -> Any:
        mine = getattr(self._threads, "classifier", None)
        if mine is None:
            mine = cv2.CascadeClassifier()
            try:
                sound = mine.load(self._path) and not mine.empty()
            except cv2.error as e:
                raise DetectorError(f"detector haar: {self._path} is no cascade in OpenCV's XML format") from e
            if not sound:
                raise DetectorError(f"detector haar: {self._path} is no cascade in OpenCV's XML format")
            self._threads.classifier = mine
        return mine

    def detect(self, image: np.ndarray) -> Detections:
        """Returns the faces of a (h, w) uint8 grey image."""
        small = reduced(checked_image(image, self.channels, self.name), self.settings.working_size)
        smallest = max(1, round(self.settings.min_face_fraction * min(small.shape)))
        boxes, _, weights = self._classifier().detectMultiScale3(
            small,
            scaleFactor=self.settings.scale_factor,
            minNeighbors=self.settings.min_neighbors,
            minSize=(smallest, smallest),
            outputRejectLevels=True,
        )
        return detections_in(boxes, weights, found_in=small.shape, image=image.shape, max_faces=self.settings.max_faces)

    def digest(self) -> str:
        """Returns the SHA-256 of the cascade's file as hex digits."""
        return self._digest

    def describe(self) -> dict[str, Any]:
        """Returns the settings that this detector heeds, its revision and the digest of its model."""
        heeded = ("working_size", "min_face_fraction", "scale_factor", "min_neighbors", "max_faces")
        return {
            "name": self.name,
            "revision": REVISION,
            "model": self._digest,
            **{setting: getattr(self.settings, setting) for setting in heeded},
        }
