"""The picture of the one-shot detector at work: its maps pass by pass, the candidates, and what is left of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.detectors.cropping import reduced, resized
from models.detectors.one_shot.cells import STRIDES
from models.detectors.panels import Colour, grid, panel

SURE, ALMOST, FOUND = (255, 176, 0), (120, 120, 255), (80, 255, 80)


@dataclass(frozen=True, slots=True)
class Lit:
    """One pass over an image.

    Attributes:
        scale: of the image in this pass.
        maps: a (rows, columns) map of scores from 0 to 1 for each of `STRIDES`, and what part of the padded image is
            the image: (height, width) in cells.
    """

    scale: float
    maps: Sequence[tuple[np.ndarray, tuple[float, float]]]


def panels(
    image: np.ndarray,
    passes: Sequence[Lit],
    candidates: tuple[np.ndarray, np.ndarray],
    found: np.ndarray,
    known: np.ndarray,
    threshold: float,
    panel_px: int = 320,
) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB: a row of three maps a pass; then strong candidates, weak ones, and the result.

    Args:
        image: (h, w, 3) uint8 RGB.
        candidates: (m, 4) boxes and (m,) scores, also of weak ones.
        found, known: boxes in pixels of the image.
        threshold: from which a candidate is strong.
    """
    small = reduced(image, panel_px)
    scale = small.shape[1] / image.shape[1]
    drawn = [
        _heat(small, scores, inside, f"scale {lit.scale:.2g}, stride {stride}: best {scores.max(initial=0):.2f}")
        for lit in passes
        for stride, (scores, inside) in zip(STRIDES, lit.maps, strict=True)
    ]
    boxes, scores = candidates
    strong = scores >= threshold
    for title, some, colour in (
        (f"weaker than {threshold:g}: {int((~strong).sum())}", boxes[~strong], ALMOST),
        (f"at least {threshold:g}: {int(strong.sum())}", boxes[strong], SURE),
        (f"without overlaps: {len(found)}", found, FOUND),
    ):
        drawn.append(panel(small, title, known * scale, _coloured(some * scale, colour)))
    return grid(drawn, len(STRIDES))


def _coloured(boxes: np.ndarray, colour: Colour) -> list[tuple[np.ndarray, Colour]]:
    return [(box, colour) for box in boxes]


def _heat(photo: np.ndarray, scores: np.ndarray, inside: tuple[float, float], title: str) -> np.ndarray:
    """Returns the photo in grey under the scores of its cells, from black over red to white."""
    rows, columns = (max(1, round(length)) for length in inside)
    light = resized(np.round(scores[:rows, :columns] * 255).astype(np.uint8), (photo.shape[0], photo.shape[1]))
    heat = cv2.applyColorMap(light, cv2.COLORMAP_HOT)[..., ::-1]
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None] // 2
    return panel(np.maximum(heat, grey), title, np.zeros((0, 4)), ())
