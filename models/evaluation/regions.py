"""Overlaps of found boxes and known faces, which are rectangles or, in FDDB, ellipses. Areas are exact.

A box is x, y, width, height in pixels. An ellipse is a row of FDDB: two radii in pixels, the angle of the first radius
in radians (from the x axis to the y axis, which points down), the centre's x and y.

Not here: the matching of boxes and faces (`matching.py`).
"""

from __future__ import annotations

import numpy as np

from models.boxes import iou


def coverage(boxes: np.ndarray, known: np.ndarray, ellipses: np.ndarray | None = None) -> np.ndarray:
    """Returns (m, n) float64, the intersection over union of each of (m, 4) boxes with each known face.

    Args:
        known: (n, 4) boxes.
        ellipses: (n, 5); a row that is not NaN replaces its box. None if all faces are boxes.

    >>> coverage(np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 4]])).tolist()
    [[0.5]]
    """
    out = iou(boxes, known)
    if ellipses is None:
        return out
    round_ones = np.flatnonzero(~np.isnan(ellipses).any(axis=1))
    if len(round_ones) and len(out):
        out[:, round_ones] = _iou_with_ellipses(np.asarray(boxes, np.float64).reshape(-1, 4), ellipses[round_ones])
    return out


def _iou_with_ellipses(boxes: np.ndarray, ellipses: np.ndarray) -> np.ndarray:
    ellipse_area = np.pi * ellipses[:, 0] * ellipses[:, 1]
    box_area = boxes[:, 2:].prod(axis=1)[:, None]
    shared = _shared_with_disc(_corners_on_disc(boxes, ellipses)) * (ellipses[:, 0] * ellipses[:, 1])
    union = box_area + ellipse_area - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=(union > 0) & (box_area > 0)))


def _corners_on_disc(boxes: np.ndarray, ellipses: np.ndarray) -> np.ndarray:
    """Returns (m, n, 4, 2), the corners of each box in coordinates in which each ellipse is the unit disc at 0."""
    x, y, width, height = boxes.T
    corners = np.stack(
        [np.stack([x, x + width, x + width, x], axis=1), np.stack([y, y, y + height, y + height], axis=1)], axis=-1
    )
    away = corners[:, None] - ellipses[:, None, 3:]
    cos, sin = np.cos(ellipses[:, 2])[:, None], np.sin(ellipses[:, 2])[:, None]
    along = (away[..., 0] * cos + away[..., 1] * sin) / ellipses[:, 0, None]
    across = (away[..., 1] * cos - away[..., 0] * sin) / ellipses[:, 1, None]
    return np.stack([along, across], axis=-1)


def _shared_with_disc(corners: np.ndarray) -> np.ndarray:
    """Returns (m, n), the area that polygons of (m, n, corners, 2) share with the unit disc at 0.

    Each edge has a piece inside the disc, which spans a triangle with the centre, and up to two pieces outside, which
    span sectors. Their signed areas add up.

    >>> square = np.array([[[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]]])  # covers a quarter of the disc
    >>> _shared_with_disc(square).round(4).tolist()  # pi / 4
    [[0.7854]]
    """
    start, step = corners, np.roll(corners, -1, axis=-2) - corners
    enters, leaves = _inside(start, step)
    first, last = start + step * enters[..., None], start + step * leaves[..., None]
    sectors = _turn(start, first) + _turn(last, start + step)
    return np.asarray(np.clip((_cross(first, last) + sectors).sum(axis=-1) / 2, 0, np.pi))


def _inside(start: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the fractions of each edge at which it enters and leaves the disc; equal if it misses the disc."""
    a = np.maximum((step**2).sum(axis=-1), 1e-300)
    b = (start * step).sum(axis=-1)
    under_root = b**2 - a * ((start**2).sum(axis=-1) - 1)
    root = np.sqrt(np.maximum(under_root, 0))
    return np.clip((-b - root) / a, 0, 1), np.clip((-b + root) / a, 0, 1)


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0])


def _turn(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the angle from one direction to another."""
    return np.asarray(np.arctan2(_cross(one, other), (one * other).sum(axis=-1)))
