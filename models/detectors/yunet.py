"""YuNet (Wu, Peng and Yu 2023), a small convolutional face detector that OpenCV runs by itself.

Its model file, 230 kB of ONNX, is not shipped: give its path (`face_detection_yunet_2023mar.onnx` of opencv_zoo).
A `FaceDetectorYN` is bound to the size of the image it works on, so every thread has its own.
"""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np

from models.detectors import Detections, DetectorError, DetectorSettings, checked_image, detections_in, read_model
from models.detectors.cropping import reduced

REVISION = 1  # part of the features fingerprint: raise it when the same image gives other boxes or scores
CANDIDATES = 5000  # boxes that enter the overlap filter: OpenCV's own default


class YuNetDetector:
    """Faces in any pose, down to about ten pixels; boxes from brow to chin, seldom square. Scores are 0 to 1.

    Raises:
        DetectorError: no model file is named, or it is missing or no YuNet.
    """

    name = "yunet"
    channels = 3

    def __init__(self, settings: DetectorSettings) -> None:
        if settings.model is None:
            raise DetectorError("detector yunet needs a model file: give the path of face_detection_yunet_2023mar.onnx")
        self.settings = settings
        self._model, self._digest = read_model(settings.model, self.name)
        self._threads = threading.local()
        try:
            self.detect(np.zeros((64, 64, 3), dtype=np.uint8))  # another network loads and fails only when it runs
        except (cv2.error, SystemError) as e:
            raise DetectorError(f"detector yunet: {settings.model} is no YuNet model in ONNX") from e

    def _network(self, width: int, height: int) -> Any:
        mine = getattr(self._threads, "network", None)
        if mine is None:
            mine = cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(self._model, dtype=np.uint8),
                np.zeros(0, dtype=np.uint8),
                (width, height),
                score_threshold=self.settings.score_threshold,
                nms_threshold=self.settings.nms_threshold,
                top_k=CANDIDATES,
            )
            self._threads.network = mine
        mine.setInputSize((width, height))
        return mine

    def detect(self, image: np.ndarray) -> Detections:
        """Returns the faces of a (h, w, 3) uint8 RGB image."""
        small = reduced(checked_image(image, self.channels, self.name), self.settings.working_size)
        height, width = small.shape[:2]
        _, rows = self._network(width, height).detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        found = np.zeros((0, 15), dtype=np.float32) if rows is None else rows  # box, five landmarks, score
        return detections_in(
            found[:, :4], found[:, 14], found_in=small.shape, image=image.shape, max_faces=self.settings.max_faces
        )

    def digest(self) -> str:
        """Returns the SHA-256 of the model file as hex digits."""
        return self._digest

    def describe(self) -> dict[str, Any]:
        """Returns the settings that this detector heeds, its revision and the digest of its model."""
        heeded = ("working_size", "score_threshold", "nms_threshold", "max_faces")
        return {
            "name": self.name,
            "revision": REVISION,
            "model": self._digest,
            **{setting: getattr(self.settings, setting) for setting in heeded},
        }
