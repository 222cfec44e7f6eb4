"""The image pyramid of the cascade's first level, and where the windows of a score map lie in the image.

A window is a square: x, y of its corner and its side, in pixels of the image; `squares` is (m, 3) float32.
Pure arithmetic; knows neither OpenCV nor networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW = 12  # pixels: what the first level looks at
MARGIN = 4  # pixels around a reduced image: faces cut by the border are seen by windows that reach a third outside


@dataclass(frozen=True, slots=True)
class Level:
    """One reduced image of the pyramid.

    Attributes:
        height, width: pixels of the reduced image, without margin.
        side: of a window, in pixels of the whole image.
        x_scale, y_scale: pixels of the whole image a pixel.
    """

    height: int
    width: int
    side: float
    x_scale: float
    y_scale: float


def pyramid(height: int, width: int, smallest: float, step: float) -> list[Level]:
    """Returns the levels that find faces from `smallest` pixels to the image's shorter side, the finest first.

    Args:
        height, width: of the image in pixels.
        smallest: side of the smallest window in pixels of the image.
        step: factor between the sides of neighbouring levels, above 1.
    """
    sides = [smallest]
    while sides[-1] * step < min(height, width):
        sides.append(sides[-1] * step)
    return [_level(height, width, side) for side in sides]


def _level(height: int, width: int, side: float) -> Level:
    rows, columns = (max(1, round(pixels * WINDOW / side)) for pixels in (height, width))
    return Level(rows, columns, side, width / columns, height / rows)


def padding(pixels: int, stride: int) -> tuple[int, int]:
    """Returns the pixels before and after a row of pixels, so that whole windows reach its end and the margin.

    >>> padding(40, 4)
    (4, 4)
    """
    rest = max(0, pixels + 2 * MARGIN - WINDOW) % stride
    short = max(0, WINDOW - pixels - 2 * MARGIN)
    return MARGIN, MARGIN + short + (stride - rest) % stride


def squares_at(level: Level, rows: np.ndarray, columns: np.ndarray, stride: int) -> np.ndarray:
    """Returns (m, 3) float32 windows in pixels of the whole image of cells of a level's score map.

    Args:
        rows, columns: (m,) of the cells.
        stride: pixels of the reduced image a cell.
    """
    x = (columns * stride - MARGIN) * level.x_scale
    y = (rows * stride - MARGIN) * level.y_scale
    return np.stack([x, y, np.full(len(x), level.side)], axis=1).astype(np.float32)
