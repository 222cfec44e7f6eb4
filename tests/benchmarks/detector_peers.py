"""The detectors that detectors.py compares: the program's own by name, and others' by OpenCV.

No benchmark itself. A detector takes (h, w, 3) uint8 RGB and gives boxes, (m, 4), and scores, (m,), down to a threshold
below its own, so that its curve is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import cv2.data
import numpy as np

from models.detectors.options import HaarOptions, YuNetOptions
from models.detectors.registry import DETECTORS, Detector, DetectorSpec

YUNET, RFB = "detectors/face_detection_yunet_2023mar.onnx", "detectors/version-RFB-640.onnx"
OTHERS = ("none", "haar", "yunet")  # in the program's table and not its own
FLOOR = 0.3  # of the scores that are kept
MIN_FACE = 0.1  # of the shorter side: Haar's smallest face where none is stated

Boxes = tuple[np.ndarray, np.ndarray]
Find = Callable[[np.ndarray], Boxes]
Make = Callable[[float | None], Find]


@dataclass(frozen=True)
class Contestant:
    """A detector at one of its thresholds.

    Attributes:
        name: in the tables.
        network: what is run; contestants of one network share its boxes.
        threshold: the least score; None if all boxes count.
        make: the function that finds faces down to a share of the image's shorter side; None for what is set.
    """

    name: str
    network: str
    threshold: float | None
    make: Make


def haar(fraction: float | None) -> Find:
    """Returns OpenCV's cascade as the anchors were measured: at full size, steps of 1.1, three neighbours."""
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def find(image: np.ndarray) -> Boxes:
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        least = max(1, int((MIN_FACE if fraction is None else fraction) * min(luma.shape)))
        boxes, _, weights = cascade.detectMultiScale3(
            luma, scaleFactor=1.1, minNeighbors=3, minSize=(least, least), outputRejectLevels=True
        )
        return np.asarray(boxes, float).reshape(-1, 4), np.asarray(weights, float).reshape(-1)

    return find


def haar_as_set(fraction: float | None) -> Find:
    """Returns the program's `haar` at its defaults."""
    detector = DetectorSpec("haar", HaarOptions(min_face_fraction=MIN_FACE if fraction is None else fraction)).load()
    return lambda image: _found(detector, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def yunet(data: Path) -> Make:
    """Returns YuNet at full size; it has no setting for the smallest face."""
    model = str(data / YUNET)

    def make(_: float | None) -> Find:
        detector = DetectorSpec("yunet", YuNetOptions(model, detect_size=100_000, score_threshold=FLOOR)).load()
        return lambda image: _found(detector, image)

    return make


def rfb(data: Path) -> Make:
    """Returns RFB-640: the whole image squeezed to 640 × 480."""

    def make(_: float | None) -> Find:
        network = cv2.dnn.readNetFromONNX(str(data / RFB))

        def find(image: np.ndarray) -> Boxes:
            height, width = image.shape[:2]
            squeezed = (cv2.resize(image, (640, 480)).astype(np.float32) - 127) / 128
            network.setInput(squeezed.transpose(2, 0, 1)[None])
            scores, boxes = network.forward(["scores", "boxes"])
            likely = scores[0, :, 1] > FLOOR
            corners, kept = boxes[0][likely] * [width, height, width, height], scores[0, likely, 1]
            found = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            chosen = np.asarray(cv2.dnn.NMSBoxes(found.tolist(), kept.tolist(), FLOOR, 0.3), int).reshape(-1)
            return found[chosen], kept[chosen].astype(float)

        return find

    return make


def own(name: str, floor: float) -> Make:
    """Returns a detector of the program's table by its name, at its defaults but for the threshold."""

    def make(fraction: float | None) -> Find:
        defaults: Any = DETECTORS[name].options()
        smallest = defaults.min_face_fraction if fraction is None else fraction
        settings = replace(defaults, score_threshold=floor, min_face_fraction=smallest)
        detector = DetectorSpec(name, settings).load()
        return lambda image: _found(detector, image)

    return make


def _found(detector: Detector, image: np.ndarray) -> Boxes:
    found = detector.detect_batch([image])[0]
    return np.asarray(found.boxes, float).reshape(-1, 4), np.asarray(found.scores, float)


def own_thresholds() -> dict[str, float]:
    """Returns the thresholds of the program's own detectors as they are set, by name.

    The cascade has three; `cascade_table.py` measures it.
    """
    defaults: dict[str, Any] = {name: kind.options() for name, kind in DETECTORS.items() if name not in OTHERS}
    return {name: own.score_threshold for name, own in defaults.items() if hasattr(own, "score_threshold")}


def contestants(data: Path, ours: dict[str, float], floor: float) -> list[Contestant]:
    """Returns all detectors in the order of the tables.

    Args:
        ours: thresholds of the program's own by name.
        floor: of the scores that are kept of those.
    """
    return [
        *(Contestant(name, name, threshold, own(name, floor)) for name, threshold in ours.items()),
        Contestant("Haar, min 10 %", "haar", None, haar),
        Contestant("Haar as we set it", "haar_as_set", None, haar_as_set),
        Contestant("YuNet 0.6", "yunet", 0.6, yunet(data)),
        Contestant("YuNet 0.9", "yunet", 0.9, yunet(data)),
        Contestant("RFB-640 0.7", "rfb", 0.7, rfb(data)),
    ]
