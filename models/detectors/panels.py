"""Panels that show one photo several times: dimmed, with a title, boxes and the known faces in white."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

TITLE_PX = 22  # height of the line above each photo
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
Colour = tuple[int, int, int]


def panel(
    photo: np.ndarray, title: str, known: np.ndarray, outlines: Sequence[tuple[np.ndarray, Colour]]
) -> np.ndarray:
    """Returns (h + `TITLE_PX` + 4, w + 4, 3) uint8 RGB.

    Args:
        photo: (h, w, 3) uint8 RGB.
        known: (n, 4) boxes x, y, width, height in pixels of `photo`.
        outlines: (4,) boxes and their colours; later ones are on top.
    """
    drawn = np.ascontiguousarray(photo // 2 + 20)  # dimmed, so that lines stand out
    for box in known:
        _rectangle(drawn, box, WHITE, 2)
    for box, colour in outlines:
        _rectangle(drawn, box, colour, 1)
    line = np.zeros((TITLE_PX, drawn.shape[1], 3), np.uint8)
    cv2.putText(line, title, (4, TITLE_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, WHITE, 1, cv2.LINE_AA)
    whole = np.concatenate([line, drawn])
    return np.asarray(cv2.copyMakeBorder(whole, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=BLACK))


def grid(panels: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Returns panels of one size as one picture, row by row; what is missing in the last row is black."""
    filled = [*panels, *([np.zeros_like(panels[0])] * (-len(panels) % columns))]
    return np.concatenate(
        [np.concatenate(filled[start : start + columns], axis=1) for start in range(0, len(filled), columns)]
    )


def _rectangle(photo: np.ndarray, box: np.ndarray, colour: Colour, line_px: int) -> None:
    left, top = round(float(box[0])), round(float(box[1]))
    right, bottom = round(float(box[0] + box[2])), round(float(box[1] + box[3]))
    cv2.rectangle(photo, (left, top), (right, bottom), colour, line_px)
