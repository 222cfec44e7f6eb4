"""What a detector returns, and the checks that all of them share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.boxes import clip_to_image, order_faces, rescale
from models.detectors.options import DetectorError


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces of one image, in the order of `boxes.order_faces`.

    Attributes:
        boxes: (m, 4) int32 x, y, width, height in pixels of the image that was given, wholly inside it.
        scores: (m,) float32 from 0 to 1, the higher the surer; comparable within one detector only.
    """

    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


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
