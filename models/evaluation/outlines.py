"""Cuts the part of an image around a box and draws the outlines of boxes on it, to show a detector's results.

Not here: choosing the boxes, and the sheet (`sheets.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.boxes import square_with_margin
from models.detectors.cropping import crop_resized

AROUND = 0.6  # of the longer side, on each side: shows the head and neighbouring faces
LINE_PX = 2  # for each 160 pixels of the side
KNOWN, FOUND, WRONG = (255, 255, 255), (86, 180, 233), (213, 94, 0)  # white, and two colours of Okabe and Ito's palette

Colour = tuple[int, int, int]


def outlined(
    image: np.ndarray, box: np.ndarray, outlines: Sequence[tuple[np.ndarray, Colour]], side: int
) -> np.ndarray:
    """Returns (side, side, 3) uint8 RGB of the square around a box, with coloured outlines of boxes.

    Args:
        image: (h, w, 3) uint8 RGB.
        box: (4,) x, y, width, height in pixels of the image.
        outlines: boxes of the image and their colours; later ones are on top.
    """
    square = square_with_margin(np.asarray(box)[None], AROUND)[0]
    tile = np.array(crop_resized(image, square, (side, side)))
    factor = side / square[2]
    line = LINE_PX * max(1, round(side / 160))
    for other, colour in outlines:
        left, top = (np.asarray(other[:2]) - square[:2]) * factor
        width, height = np.asarray(other[2:]) * factor
        _draw(tile, (left, top, left + width, top + height), (0, 0, 0), line + 2)
        _draw(tile, (left, top, left + width, top + height), colour, line)
    return tile


def _draw(tile: np.ndarray, edges: tuple[float, float, float, float], colour: Colour, thickness: int) -> None:
    """Draws a rectangle around left, top, right, bottom, clipped to the tile."""
    half = thickness / 2
    left, top, right, bottom = edges
    for x0, y0, x1, y1 in (
        (left, top, right, top),
        (left, bottom, right, bottom),
        (left, top, left, bottom),
        (right, top, right, bottom),
    ):
        columns = slice(*np.clip(np.round([x0 - half, x1 + half]), 0, tile.shape[1]).astype(int).tolist())
        rows = slice(*np.clip(np.round([y0 - half, y1 + half]), 0, tile.shape[0]).astype(int).tolist())
        tile[rows, columns] = colour
