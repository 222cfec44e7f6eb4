"""The picture of the cascade at work: a panel for each step, with the windows that it left; known faces in white."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from models.detectors.cascade.detector import Traced
from models.detectors.cropping import reduced

COLUMNS = 5
TITLE_PX = 22  # height of the line above each photo
COLOURS = {"classify": (255, 176, 0), "calibrate": (0, 200, 255), "filter": (80, 255, 80), "global": (255, 60, 160)}
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def panels(image: np.ndarray, steps: Sequence[Traced], known: np.ndarray, panel_px: int = 320) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB: the photo once for each step, five beside each other.

    Args:
        image: (h, w, 3) uint8 RGB.
        steps: of `Cascade.traced`, ten with all calibrations on.
        known: (m, 4) boxes x, y, width, height of faces in pixels of the image; (0, 4) if none is known.
        panel_px: the longer side of a photo in the picture.
    """
    small = reduced(image, panel_px)
    scale = small.shape[1] / image.shape[1]
    drawn = [_panel(small, number, step, known, scale) for number, step in enumerate(steps, 1)]
    drawn += [np.zeros_like(drawn[0])] * (-len(drawn) % COLUMNS)
    rows = [np.concatenate(drawn[start : start + COLUMNS], axis=1) for start in range(0, len(drawn), COLUMNS)]
    return np.concatenate(rows)


def _panel(photo: np.ndarray, number: int, step: Traced, known: np.ndarray, scale: float) -> np.ndarray:
    photo = np.ascontiguousarray(photo // 2 + 20)  # dimmed, so that lines stand out
    for x, y, width, height in known:
        _rectangle(photo, (x, y, width, height), scale, WHITE, 2)
    colour = COLOURS[step.step.split()[0]]
    for x, y, side in step.windows.squares[::-1]:  # the best on top
        _rectangle(photo, (x, y, side, side), scale, colour, 1)
    title = np.zeros((TITLE_PX, photo.shape[1], 3), np.uint8)
    text = f"{number} {step.step}: {len(step.windows)}"
    cv2.putText(title, text, (4, TITLE_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, WHITE, 1, cv2.LINE_AA)
    whole = np.concatenate([title, photo])
    return np.asarray(cv2.copyMakeBorder(whole, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=BLACK))


def _rectangle(
    photo: np.ndarray, box: tuple[float, float, float, float], scale: float, colour: tuple[int, int, int], line_px: int
) -> None:
    left, top = round(box[0] * scale), round(box[1] * scale)
    right, bottom = round((box[0] + box[2]) * scale), round((box[1] + box[3]) * scale)
    cv2.rectangle(photo, (left, top), (right, bottom), colour, line_px)
