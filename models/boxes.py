"""Arithmetic on boxes: order, overlap, clipping, scaling, and the square crop around a face.

A box is x, y, width, height in pixels of the upright image; `boxes` is (m, 4), x to the right, y down.
A box covers the pixels x … x + width - 1. Fractions of pixels are rounded half up (floor(v + 0.5)), as numpy's
half-to-even would move neighbours differently.

Not here: pixels (`detectors/cropping.py`).
"""

from __future__ import annotations

import numpy as np


def _half_up(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5)


def order_faces(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the (m,) index that sorts the faces of one image: by score, descending, then y, then x.

    Width and height break remaining ties, so that the result never depends on the input order.

    Args:
        boxes: (m, 4) of any number type.
        scores: (m,), compared unchanged, so convert them to the stored type first.

    >>> order_faces(np.array([[9, 9, 5, 5], [0, 1, 5, 5], [3, 0, 5, 5]]), np.array([0.5, 0.9, 0.5])).tolist()
    [1, 2, 0]
    """
    boxes = np.asarray(boxes).reshape(-1, 4)
    x, y, width, height = boxes.T
    return np.lexsort((height, width, x, y, -np.asarray(scores, dtype=np.float64)))


def clip_to_image(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the part of each box inside a (height, width) image: (m, 4), the same type.

    A box wholly outside keeps its row and gets width 0 or height 0, at the border.

    >>> clip_to_image(np.array([[-5, 2, 20, 20]]), height=10, width=12).tolist()
    [[0, 2, 12, 8]]
    """
    boxes = np.asarray(boxes).reshape(-1, 4)
    left = np.clip(boxes[:, 0], 0, width)
    top = np.clip(boxes[:, 1], 0, height)
    right = np.clip(boxes[:, 0] + boxes[:, 2], left, width)
    bottom = np.clip(boxes[:, 1] + boxes[:, 3], top, height)
    return np.stack([left, top, right - left, bottom - top], axis=1).astype(boxes.dtype, copy=False)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns (m, n) float64, the intersection over union of each of (m, 4) with each of (n, 4).

    Boxes without area overlap nothing, not even themselves.

    >>> iou(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 2, 2], [0, 0, 2, 4]])).round(3).tolist()
    [[0.333, 0.5]]
    """
    a = np.asarray(boxes, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    start = np.maximum(a[..., :2], b[..., :2])
    end = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.clip(end - start, 0, None).prod(axis=-1)
    union = a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def iou_of_pairs(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns (n,) float64, the intersection over union of each of (n, 4) with the one of (n, 4) in the same row.

    >>> iou_of_pairs(np.array([[0, 0, 2, 2], [0, 0, 2, 2]]), np.array([[1, 0, 2, 2], [5, 5, 1, 1]])).round(3).tolist()
    [0.333, 0.0]
    """
    a, b = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    start = np.maximum(a[:, :2], b[:, :2])
    end = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = np.clip(end - start, 0, None).prod(axis=1)
    union = a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def square_with_margin(boxes: np.ndarray, margin: float) -> np.ndarray:
    """Returns (m, 4) int32, the square around the centre of each box; it may leave the image.

    The side is the longer side of the box times 1 + 2 * margin, rounded half up, at least one pixel.
    The centre moves by at most half a pixel.

    Args:
        margin: added on each side, as a fraction of the longer side; above -0.5.

    Raises:
        ValueError: the margin is -0.5 or less, or not finite.

    >>> square_with_margin(np.array([[10, 10, 20, 40]]), 0.25).tolist()
    [[-10, 0, 60, 60]]
    """
    if not -0.5 < margin < np.inf:
        raise ValueError(f"a margin of {margin} leaves no crop; use a finite number above -0.5")
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    side = np.maximum(1, _half_up(boxes[:, 2:].max(axis=1, initial=0) * (1 + 2 * margin)))
    corner = _half_up(boxes[:, :2] + boxes[:, 2:] / 2 - side[:, None] / 2)
    return np.concatenate([corner, side[:, None], side[:, None]], axis=1).astype(np.int32)


def rescale(boxes: np.ndarray, factor: float | tuple[float, float]) -> np.ndarray:
    """Returns (m, 4) int32, the boxes in an image scaled by `factor`.

    Edges are rounded half up, not sides, so boxes that touched still touch. A side has at least one pixel.

    Args:
        factor: one number, or (along x, along y); above 0.

    >>> rescale(np.array([[1, 1, 2, 2], [3, 1, 2, 2]]), 0.5).tolist()
    [[1, 1, 1, 1], [2, 1, 1, 1]]
    """
    scale = np.broadcast_to(np.asarray(factor, dtype=np.float64), (2,))
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    start = _half_up(boxes[:, :2] * scale)
    end = _half_up((boxes[:, :2] + boxes[:, 2:]) * scale)
    return np.concatenate([start, np.maximum(end - start, 1)], axis=1).astype(np.int32)
