"""Where the action units of a face lie: a table of centres, each a mean of landmarks and a shift down the face.

The rules are those of EAC-Net (Li, Abtahi, Zhu and Yin 2017, arXiv:1702.02925, table 1) as far as it has the unit; AU9
is ours. A shift is in scales, the distance between the inner corners of the eyes, along the face's own vertical.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.backbones.landmarks import POINTS

INNER_CORNERS = 39, 42  # of the eyes, left and right in the image


@dataclass(frozen=True)
class Centre:
    """The centres of action units, one on each side of the face.

    Attributes:
        units: numbers of the action units (FACS).
        left, right: landmarks whose mean it is, as they lie in the image.
        down: shift in scales; negative is up.
    """

    units: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    down: float = 0.0


CENTRES = (
    Centre((1,), (21,), (22,), -1 / 2),  # above the inner ends of the brows
    Centre((2,), (18,), (25,), -1 / 3),  # above the outer ends of the brows
    Centre((4,), (19,), (24,), 1 / 3),  # below the middles of the brows
    Centre((7,), (36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47)),  # the eyes
    Centre((6,), (40, 41), (46, 47), 1.0),  # the cheeks
    Centre((9,), (31,), (35,), -1 / 2),  # beside the nose
    Centre((10,), (50,), (52,)),  # the upper lip
    Centre((12, 14, 15), (48,), (54,)),  # the corners of the mouth
    Centre((23, 24, 25, 26), (58, 60), (56, 64)),  # the lower lip
    Centre((17,), (58,), (56,), 1 / 2),  # the chin
)


def centre_matrices() -> tuple[np.ndarray, np.ndarray]:
    """Returns what makes centres of landmarks: (20, 68) weights of the means, and (20,) shifts in scales.

    The left centres come first, then the right ones, in the order of `CENTRES`.
    """
    sides = [one.left for one in CENTRES] + [one.right for one in CENTRES]
    means = np.zeros((len(sides), POINTS), np.float32)
    for row, points in enumerate(sides):
        means[row, list(points)] = 1 / len(points)
    return means, np.asarray([one.down for one in CENTRES] * 2, np.float32)


def even_centres(rows: int = 5, columns: int = 4) -> np.ndarray:
    """Returns (rows x columns, 2) x and y of places on an even grid, in shares of the side: the same on every face."""
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
