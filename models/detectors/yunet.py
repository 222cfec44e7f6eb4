"""YuNet (Wu, Peng and Yu 2023), a small convolutional face detector that OpenCV runs by itself.

Its model file, 230 kB of ONNX, is not shipped: give its path (`face_detection_yunet_2023mar.onnx` of opencv_zoo).
A `FaceDetectorYN` is bound to the size of the image it works on, so every thread has its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from models.detectors.cropping import reduced
from models.detectors.detections import Detections, checked_image, detections_in, read_model
from models.detectors.options import DetectorError, YuNetOptions
from models.detectors.registry import settings_in

REVISION = 1  # part of the cache key: raise it when the same image gives other boxes or scores
CANDIDATES = 5000  # boxes that enter the overlap filter: OpenCV's own default


class YuNetDetector:
    """Faces in any pose, down to about ten pixels; boxes from brow to chin, seldom square. Scores are 0 to 1.

    Raises:
        DetectorError: no model file is named, or it is missing or no YuNet.
    """

    name = "yunet"
    channels = 3

    def __init__(self, options: YuNetOptions, max_faces: int = 0) -> None:
        self._options, self._max_faces = options, max_faces
        self._model, _ = read_model(model_path(options), self.name)
        self._threads = threading.local()
        try:
            self.detect_batch(
                [np.zeros((64, 64, 3), dtype=np.uint8)]
            )  # another network loads and fails only when it runs
        except (cv2.error, SystemError) as e:
            raise DetectorError(f"detector yunet: {options.model} is no YuNet model in ONNX") from e

    def _network(self, width: int, height: int) -> Any:
        mine = getattr(self._threads, "network", None)
        if mine is None:
            mine = cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(self._model, dtype=np.uint8),
                np.zeros(0, dtype=np.uint8),
                (width, height),
                score_threshold=self._options.score_threshold,
                nms_threshold=self._options.nms_threshold,
                top_k=CANDIDATES,
            )
            self._threads.network = mine
        mine.setInputSize((width, height))
        return mine

    def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Returns the faces of each (h, w, 3) uint8 RGB image."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        small = reduced(checked_image(image, self.channels, self.name), self._options.detect_size)
        height, width = small.shape[:2]
        _, rows = self._network(width, height).detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        found = np.zeros((0, 15), dtype=np.float32) if rows is None else rows  # box, five landmarks, score
        return detections_in(
            found[:, :4], found[:, 14], found_in=small.shape, image=image.shape, max_faces=self._max_faces
        )


def model_path(options: YuNetOptions) -> str:
    """Returns the path of the model file.

    Raises:
        DetectorError: none is named.
    """
    if options.model is None:
        raise DetectorError(
            "detector yunet needs a model file: set faces.yunet.model to the path of face_detection_yunet_2023mar.onnx"
        )
    return options.model


def describe(options: YuNetOptions) -> dict[str, Any]:
    """Returns the revision, the digest of the model file and the options."""
    _, digest = read_model(model_path(options), "yunet")
    return {"revision": REVISION, "model": digest, **settings_in(options)}


def load(options: YuNetOptions, max_faces: int) -> YuNetDetector:
    """Returns the detector."""
    return YuNetDetector(options, max_faces)
