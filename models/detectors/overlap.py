"""Overlap filters: of boxes that show the same face, the best one stays. Pure arithmetic."""

from __future__ import annotations

import numpy as np


def without_overlaps(
    boxes: np.ndarray, scores: np.ndarray, *, threshold: float, nested: float = 1.0, most: int = 1000
) -> np.ndarray:
    """Returns the rows that stay, best first: each drops the weaker ones that show the same face.

    Ties in score go to the box further up, then further left, so that the order of the rows never matters.

    Args:
        boxes: (m, 4) x, y, width, height.
        scores: (m,).
        threshold: intersection over union above which two boxes show the same face.
        nested: share of the smaller box that lies in the larger one, above which they do too; 1 never.
        most: only the best so many boxes are looked at.

    >>> without_overlaps(np.array([[0, 0, 4, 4], [1, 0, 4, 4], [9, 9, 4, 4]]), np.array([0.5, 0.9, 0.4]), threshold=0.3)
    array([1, 2])
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    order = np.lexsort((boxes[:, 3], boxes[:, 2], boxes[:, 0], boxes[:, 1], -np.asarray(scores, np.float64)))[:most]
    start, end = boxes[order, :2], boxes[order, :2] + boxes[order, 2:]
    areas = boxes[order, 2:].prod(axis=1)
    alive = np.ones(len(order), bool)
    kept = []
    for row in range(len(order)):
        if not alive[row]:
            continue
        kept.append(row)
        shared = np.minimum(end, end[row]) - np.maximum(start, start[row])
        shared = np.clip(shared, 0, None).prod(axis=1)
        alive &= shared <= threshold * (areas + areas[row] - shared)
        alive &= shared <= nested * np.minimum(areas, areas[row])
    return np.asarray(order[kept])
