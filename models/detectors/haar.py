"""OpenCV's Haar cascade (Viola and Jones 2001), the one detector whose model comes with OpenCV 4.

OpenCV 5 has neither the class nor the files. What it finds does not depend on OpenCV's threads, but the order
does (24 of 40 photos, 1 thread against 2): results are sorted before they leave. A `CascadeClassifier` keeps
buffers of the image it works on, so every thread has its own.

The histogram is left alone. Equalising it cost 12-16 % more time and recall on all of three sets (IoU 0.3):
0.708 to 0.688 on 160 annotated photos, 0.444 to 0.434 on CMU+MIT, and 0.951 to 0.903 on 67 group photos, against
YuNet's faces there; false positives stayed within 0.02 an image. CLAHE: 0.719 on the first, at 0.26 instead of 0.15.

The weight that the last stage of the cascade gave, about -1 to 16, becomes a score from 0 to 1 by a logistic curve: an
order, no probability.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import cv2
import cv2.data
import numpy as np

from models.detectors.cropping import reduced
from models.detectors.detections import Detections, checked_image, detections_in, read_model
from models.detectors.options import DetectorError, HaarOptions
from models.detectors.registry import settings_in

REVISION = 2  # part of the cache key: raise it when the same image gives other boxes or scores
CASCADE = "haarcascade_frontalface_default.xml"
WEIGHT_UNIT = 2.0  # weights are divided by it: their usual range then spreads over 0.4 to 0.999


class HaarDetector:
    """Upright frontal faces, boxes from brow to chin, square.

    Raises:
        DetectorError: this OpenCV has no Haar cascades, or the model file is missing or no cascade.
    """

    name = "haar"
    channels = 1

    def __init__(self, options: HaarOptions, max_faces: int = 0) -> None:
        self._options, self._max_faces = options, max_faces
        self._path = model_path(options)
        read_model(self._path, self.name)
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

    def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Returns the faces of each (h, w) uint8 grey image."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        small = reduced(checked_image(image, self.channels, self.name), self._options.detect_size)
        smallest = max(1, round(self._options.min_face_fraction * min(small.shape)))
        boxes, _, weights = self._classifier().detectMultiScale3(
            small,
            scaleFactor=self._options.scale_factor,
            minNeighbors=self._options.min_neighbors,
            minSize=(smallest, smallest),
            outputRejectLevels=True,
        )
        scores = score_of(np.asarray(weights, np.float64).reshape(-1))
        return detections_in(boxes, scores, found_in=small.shape, image=image.shape, max_faces=self._max_faces)


def score_of(weights: np.ndarray) -> np.ndarray:
    """Returns (m,) scores from 0 to 1 of the cascade's weights, in the same order.

    >>> score_of(np.array([0.0, 4.0])).round(3).tolist()
    [0.5, 0.881]
    """
    return np.asarray(1 / (1 + np.exp(-weights / WEIGHT_UNIT)))


def model_path(options: HaarOptions) -> str:
    """Returns the path of the cascade's file.

    Raises:
        DetectorError: this OpenCV has no Haar cascades.
    """
    if not hasattr(cv2, "CascadeClassifier"):
        raise DetectorError(f"detector haar: OpenCV {cv2.__version__} has no Haar cascades; install opencv-python<5")
    return options.model or cv2.data.haarcascades + CASCADE


def describe(options: HaarOptions) -> dict[str, Any]:
    """Returns the revision, the digest of the cascade and the options."""
    _, digest = read_model(model_path(options), "haar")
    return {"revision": REVISION, "model": digest, **settings_in(options)}


def load(options: HaarOptions, max_faces: int) -> HaarDetector:
    """Returns the detector."""
    return HaarDetector(options, max_faces)
