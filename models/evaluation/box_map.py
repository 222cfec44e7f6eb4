"""An affine map of boxes from a detector's convention to a data set's, such as brow to chin, or the whole head.

Data sets are annotated by different conventions, so a good box may miss the overlap threshold. The map is fitted on the
pairs of a detector and a set. Scores with the map are given in addition to those without it, never instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class BoxMap:
    """The map of a box.

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
    """Returns the map from (k, 4) boxes to their (k, 4) known boxes: medians of four numbers; identity without pairs.

    Raises:
        ValueError: a found box has width 0 or height 0.
    """
    found, known = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (found, known))
    if not len(found):
        return BoxMap()
    if not (found[:, 2:] > 0).all():
        raise ValueError("a found box has width 0 or height 0")
    shift = (known[:, :2] + known[:, 2:] / 2 - found[:, :2] - found[:, 2:] / 2) / found[:, 2:]
    factor = known[:, 2:] / found[:, 2:]
    dx, dy, sw, sh = np.median(np.concatenate([shift, factor], axis=1), axis=0).tolist()
    return BoxMap(dx, dy, sw, sh)
