"""Photos made harder on purpose, with their known faces: what a detector still finds says what it can bear.

Every change is a function of the photo alone. Not here: what is found then (`pipeline/report/second_look.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

TURN = 20.0  # degrees
DARK = 0.25  # of the light that is left on the dark half of a face
SMALL_PX = 24  # longer side of the median face
BORDER = 0.25  # of the longer side, added before a turn so that no face leaves the photo


@dataclass(frozen=True, slots=True)
class KnownPhoto:
    """A photo and its known faces.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        known: (n, 4) float64 x, y, width, height in pixels.
        ignored: (n,) bool, faces that do not count.
    """

    pixels: np.ndarray
    known: np.ndarray
    ignored: np.ndarray


def turned(photo: KnownPhoto, degrees: float) -> KnownPhoto:
    """Returns the photo turned about its middle, the border repeated; boxes keep their sides, their middles turn."""
    height, width = photo.pixels.shape[:2]
    pad = int(BORDER * max(height, width))
    wide = cv2.copyMakeBorder(photo.pixels, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2 + pad, (height - 1) / 2 + pad), degrees, 1)
    size = (wide.shape[1], wide.shape[0])
    pixels = cv2.warpAffine(wide, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    middle = photo.known[:, :2] + photo.known[:, 2:] / 2 + pad
    moved = middle @ matrix[:, :2].T + matrix[:, 2] - photo.known[:, 2:] / 2
    return replace(photo, pixels=np.asarray(pixels), known=np.concatenate([moved, photo.known[:, 2:]], axis=1))


def half_lit(photo: KnownPhoto) -> KnownPhoto:
    """Returns the photo with a quarter of the light on the right half of every face.

    A place belongs to the nearest face.
    """
    rows, columns = np.mgrid[: photo.pixels.shape[0], : photo.pixels.shape[1]]
    nearest, light = np.full(rows.shape, np.inf), np.ones(rows.shape)
    for x, y, width, height in photo.known.tolist():
        away = columns - (x + width / 2)
        distance = np.hypot(away / width, (rows - (y + height / 2)) / height)
        here = distance < nearest
        fall = 1 / (1 + np.exp(-np.clip(away / (0.05 * width), -50, 50)))  # soft over a tenth of the face
        light[here], nearest[here] = (1 - (1 - DARK) * fall)[here], distance[here]
    return replace(photo, pixels=np.round(photo.pixels * light[..., None]).astype(np.uint8))


def small(photo: KnownPhoto) -> KnownPhoto:
    """Returns the photo reduced until its median face has `SMALL_PX` pixels; never enlarged."""
    counted = photo.known[~photo.ignored]
    factor = min(1.0, SMALL_PX / float(np.median(counted[:, 2:].max(axis=1)))) if len(counted) else 1.0
    height, width = (max(1, round(side * factor)) for side in photo.pixels.shape[:2])
    pixels = cv2.resize(photo.pixels, (width, height), interpolation=cv2.INTER_AREA)
    return replace(photo, pixels=np.asarray(pixels), known=photo.known * factor)


def grey(photo: KnownPhoto) -> KnownPhoto:
    """Returns the photo without colour."""
    luma = cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2GRAY)
    return replace(photo, pixels=np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB)))


CHANGES: dict[str, Callable[[KnownPhoto], KnownPhoto]] = {
    f"turned by +{TURN:.0f}°": lambda photo: turned(photo, TURN),
    f"turned by −{TURN:.0f}°": lambda photo: turned(photo, -TURN),
    "half-lit": half_lit,
    f"{SMALL_PX} px": small,
    "grey": grey,
}
