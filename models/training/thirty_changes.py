"""The thirty changes of an image: five filters times six positions. Plain arrays, no Keras.

The source names average, unsharp mask and motion blur among its five filters, and rotations and translations. The
unchanged picture is among our thirty.
"""

from __future__ import annotations

import numpy as np

SIDE = 5  # of a filter, in pixels


def _filters() -> np.ndarray:
    none, mean, across = (np.zeros((SIDE, SIDE), np.float32) for _ in range(3))
    middle = SIDE // 2
    none[middle, middle] = 1
    mean[middle - 1 : middle + 2, middle - 1 : middle + 2] = 1 / 9
    across[middle] = 1 / SIDE
    unsharp = 2 * none - mean
    return np.stack([none, mean, unsharp, across, across.T])


FILTERS = _filters()  # (5, 5, 5): none, mean of 3x3, unsharp mask, motion blur across, motion blur down
POSITIONS = (  # degrees, then the shift to the right and down, in shares of the side
    (0.0, 0.0, 0.0),
    (-10.0, 0.0, 0.0),
    (10.0, 0.0, 0.0),
    (0.0, -0.08, 0.0),
    (0.0, 0.08, 0.0),
    (0.0, 0.0, 0.08),
)
