"""Calibration: regression of a window's place and size by classification into 45 patterns.

A pattern says where a window lies to the face in it: its side is `scale` times the face's, its centre is moved by
(dx, dy) sides of the face. Windows are scaled about their centre; the paper's formula keeps their corner.
Pure arithmetic; knows neither OpenCV nor networks.
"""

from __future__ import annotations

import numpy as np

SCALES = (0.83, 0.91, 1.0, 1.10, 1.21)
OFFSETS = (-0.17, 0.0, 0.17)  # sides of the face
PATTERNS = np.asarray(
    [(s, x, y) for s in SCALES for x in OFFSETS for y in OFFSETS], np.float32
)  # (45, 3) scale, dx, dy
CLASSES = len(PATTERNS)
LEAST = 1 / CLASSES  # patterns of a smaller probability are dropped


def mean_pattern(probabilities: np.ndarray, averaging: str = "share") -> np.ndarray:
    """Returns (m, 3) float32 scale, dx, dy: the patterns averaged with their probabilities, improbable ones dropped.

    Args:
        probabilities: (m, 45), each row with the sum 1.
        averaging: `share` divides by what is left of the probability, as the source's code; `sum` does not, as its
            text: what was dropped counts as "not moved, not scaled".

    >>> one = np.zeros((1, 45)); one[0, [22, 23]] = 0.75, 0.24  # unmoved; moved down; and some that are dropped
    >>> mean_pattern(one, "sum").astype(float).round(4).tolist()
    [[1.0, 0.0, 0.0408]]
    >>> mean_pattern(one, "share").astype(float).round(4).tolist()
    [[1.0, 0.0, 0.0412]]
    """
    weights = np.where(probabilities >= LEAST, probabilities, 0).astype(np.float32)
    if averaging == "share":
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    unmoved = np.asarray([1, 0, 0], np.float32)
    # Column by column: a matrix product may round a row differently in other company.
    moved = [(weights * column).sum(axis=1) for column in (PATTERNS - unmoved).T]
    return np.asarray(np.stack(moved, axis=1) + unmoved)


def calibrated(squares: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Returns (m, 3) float32 squares where faces lie whose windows lie to them as the patterns say.

    Args:
        squares: (m, 3) x, y, side of windows.
        patterns: (m, 3) scale, dx, dy.
    """
    side = squares[:, 2] / patterns[:, 0]
    centre = squares[:, :2] + squares[:, 2:] / 2 - patterns[:, 1:] * side[:, None]
    return np.concatenate([centre - side[:, None] / 2, side[:, None]], axis=1).astype(np.float32)


def displaced(squares: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Returns (m, 3) float32 windows that lie to the faces `squares` as the patterns say: undone by `calibrated`."""
    side = squares[:, 2] * patterns[:, 0]
    centre = squares[:, :2] + squares[:, 2:] / 2 + patterns[:, 1:] * squares[:, 2:]
    return np.concatenate([centre - side[:, None] / 2, side[:, None]], axis=1).astype(np.float32)
