"""Where the faces of an image are. A detector is one file here and one line in `DETECTORS`.

Not here: squares around faces (`models/boxes.py`) and their pixels (`cropping.py`).
Cheap to import: OpenCV is loaded with the detector that needs it.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from models.boxes import clip_to_image, order_faces, rescale

__all__ = ["DETECTORS", "Detections", "Detector", "DetectorError", "DetectorSettings", "make_detector"]


class DetectorError(ValueError):
    """A detector cannot be made as asked; the message names the setting or the file, and the cure."""


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """How faces are looked for: small, picklable, checked when made.

    Attributes:
        name: a word of `DETECTORS`.
        model: path of the model file; None for the one that comes with OpenCV, where there is one.
        working_size: pixels; a larger image is reduced until its longer side has this many. Never enlarged.
        min_face_fraction: haar: the smallest face, as a fraction of the image's shorter side.
        scale_factor: haar: step between the sizes that are searched.
        min_neighbors: haar: how many raw hits make a face.
        score_threshold: yunet: the least confidence, 0 to 1.
        nms_threshold: yunet: the overlap (IoU) from which the weaker of two boxes is dropped.
        max_faces: only the first of them are kept; 0 for all.

    Raises:
        DetectorError: a value out of range.
    """

    name: str = "haar"
    model: str | None = None
    working_size: int = 640
    min_face_fraction: float = 0.1
    scale_factor: float = 1.1
    min_neighbors: int = 5
    score_threshold: float = 0.9
    nms_threshold: float = 0.3
    max_faces: int = 0

    def __post_init__(self) -> None:
        wanted = {
            "working_size": (self.working_size >= 16, "at least 16 pixels"),
            "min_face_fraction": (0 <= self.min_face_fraction <= 1, "from 0 to 1"),
            "scale_factor": (1.01 <= self.scale_factor <= 4, "from 1.01 to 4"),  # below, the search hardly ends
            "min_neighbors": (self.min_neighbors >= 1, "at least 1"),  # 0 gives raw, ungrouped hits
            "score_threshold": (0 < self.score_threshold <= 1, "above 0, at most 1"),
            "nms_threshold": (0 < self.nms_threshold <= 1, "above 0, at most 1"),
            "max_faces": (self.max_faces >= 0, "0 (all) or more"),
        }
        for setting, (sound, range_) in wanted.items():
            if not sound:
                raise DetectorError(f"detector {self.name}: {setting} is {getattr(self, setting)}, it must be {range_}")


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces of one image, in the order of `boxes.order_faces`.

    Attributes:
        boxes: (m, 4) int32 x, y, width, height in pixels of the image that was given, wholly inside it.
        scores: (m,) float32, the higher the surer; comparable within one detector only.
    """

    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """What every detector offers. `detect` may be called from several threads at once.

    Attributes:
        name: its word in `DETECTORS`.
        channels: of the images it wants, 1 for grey (h, w), 3 for RGB (h, w, 3).
    """

    name: str
    channels: int

    def detect(self, image: np.ndarray) -> Detections:
        """Returns the faces of one uint8 image; the same bytes for the same pixels, in any thread."""
        ...

    def digest(self) -> str:
        """Returns the SHA-256 of the model file as hex digits, "" for a detector without one."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns all that can change what is found, for the features fingerprint: no setting it ignores, no path."""
        ...


DETECTORS: dict[str, str] = {  # word: module:class, imported when asked for; the class takes a DetectorSettings
    "none": "models.detectors.whole_image:WholeImage",
    "haar": "models.detectors.haar:HaarDetector",
    "yunet": "models.detectors.yunet:YuNetDetector",
}


def make_detector(settings: DetectorSettings) -> Detector:
    """Returns the detector that the settings name, its model file read and tried.

    Raises:
        DetectorError: unknown name, or a model file that is missing or no model of this detector.
    """
    if settings.name not in DETECTORS:
        raise DetectorError(f"unknown detector {settings.name!r}; known: {', '.join(DETECTORS)}")
    module, _, class_name = DETECTORS[settings.name].partition(":")
    return cast(Detector, getattr(importlib.import_module(module), class_name)(settings))


def read_model(path: str | Path, detector: str) -> tuple[bytes, str]:
    """Returns the bytes of a model file and their SHA-256 as hex digits.

    Raises:
        DetectorError: it cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise DetectorError(f"detector {detector}: cannot read the model file {path}: {e.strerror or e}") from e
    return data, hashlib.sha256(data).hexdigest()


def checked_image(image: np.ndarray, channels: int, detector: str) -> np.ndarray:
    """Returns `image` if it is uint8, not empty, and (h, w) for one channel or (h, w, 3) for three.

    Raises:
        ValueError: it is not.
    """
    shape = (*image.shape[:2], 3) if channels == 3 else image.shape[:2]
    if image.dtype != np.uint8 or image.shape != shape or image.size == 0 or image.ndim < 2:
        wanted = "(h, w, 3) RGB" if channels == 3 else "(h, w) grey"
        raise ValueError(f"detector {detector} wants uint8 {wanted}, not {image.dtype} {image.shape}")
    return image


def detections_in(
    boxes: np.ndarray, scores: np.ndarray, *, found_in: tuple[int, ...], image: tuple[int, ...], max_faces: int
) -> Detections:
    """Returns what was found in a reduced image in terms of the whole one: scaled, clipped, ordered, limited.

    Args:
        boxes: (m, 4) numbers in pixels of the reduced image; rows that are not finite or lie outside are dropped.
        scores: (m,).
        found_in, image: shapes that begin with (height, width), of the reduced and of the whole image.
        max_faces: only the first of them are kept; 0 for all.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    scores = np.asarray(scores, dtype=np.float32).reshape(-1)
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)  # networks give infinite boxes on odd images
    inside, scores = clip_to_image(boxes[finite], found_in[0], found_in[1]), scores[finite]
    seen = (inside[:, 2:] > 0).all(axis=1)
    scaled = rescale(inside[seen], (image[1] / found_in[1], image[0] / found_in[0]))
    scaled, scores = clip_to_image(scaled, image[0], image[1]), scores[seen]
    seen = (scaled[:, 2:] > 0).all(axis=1)  # a sliver rounded onto the far border has nothing left
    scaled, scores = scaled[seen], scores[seen]
    order = order_faces(scaled, scores)[: max_faces or None]
    return Detections(scaled[order], scores[order])
