"""One affine map of boxes from a detector's convention to a set's: of brow to chin, of the whole head.

Sets are annotated by different habits, so that a good box loses faces that it found. The map is fitted on the pairs of
a detector and a set, and the scores after it are given beside those before it, never in their place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class BoxMap:
    """What becomes of a box.

    Attributes:
        dx, dy: shift of the centre, in widths and heights of the box.
        sw, sh: factors of width and height.
    """

    dx: float = 0.0
    dy: float = 0.0
    sw: float = 1.0
    sh: float = 1.0

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """Returns (m, 4) boxes x, y, width, height of (m, 4).

        >>> BoxMap(dy=0.5, sw=0.5)(np.array([[0.0, 0.0, 10.0, 20.0]])).tolist()
        [[2.5, 10.0, 5.0, 20.0]]
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        sides = boxes[:, 2:] * (self.sw, self.sh)
        middle = boxes[:, :2] + boxes[:, 2:] / 2 + boxes[:, 2:] * (self.dx, self.dy)
        return np.concatenate([middle - sides / 2, sides], axis=1)


def fitted_map(found: np.ndarray, known: np.ndarray) -> BoxMap:
    """Returns the map from (k, 4) boxes to the (k, 4) they belong to: medians of its four numbers; no pairs, no change.

    Raises:
        ValueError: a found box has no width or no height.
    """
    found, known = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (found, known))
    if not len(found):
        return BoxMap()
    if not (found[:, 2:] > 0).all():
        raise ValueError("a found box has no width or no height")
    shift = (known[:, :2] + known[:, 2:] / 2 - found[:, :2] - found[:, 2:] / 2) / found[:, 2:]
    factor = known[:, 2:] / found[:, 2:]
    dx, dy, sw, sh = np.median(np.concatenate([shift, factor], axis=1), axis=0).tolist()
    return BoxMap(dx, dy, sw, sh)
