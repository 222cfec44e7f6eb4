"""The overlap filter: of windows that overlap, only the best stays. Pure arithmetic on arrays."""

from __future__ import annotations

import numpy as np


def order_of(squares: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns (m,) index: score descending; ties by y, x, side, so that the order that came in never matters."""
    return np.lexsort((squares[:, 2], squares[:, 0], squares[:, 1], -scores))


def overlap(squares: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns (m, n) float32, the intersection over union of squares (m, 3) and (n, 3)."""
    a, b = squares[:, None], others[None]
    width = np.minimum(a[..., 0] + a[..., 2], b[..., 0] + b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 1] + a[..., 2], b[..., 1] + b[..., 2]) - np.maximum(a[..., 1], b[..., 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    return np.asarray(shared / np.maximum(a[..., 2] ** 2 + b[..., 2] ** 2 - shared, 1e-9))


def filtered(squares: np.ndarray, scores: np.ndarray, limit: float, groups: np.ndarray | None = None) -> np.ndarray:
    """Returns (k,) index of the windows that stay, best first.

    A window goes if a better one that stays overlaps it by more than `limit`.

    Args:
        squares: (m, 3) x, y, side.
        scores: (m,).
        limit: intersection over union; 1 keeps all.
        groups: (m,) of any number type: only windows of one group are compared; None for one group.
    """
    order = order_of(squares, scores)
    if limit >= 1:
        return order
    if groups is None:
        return np.asarray(order[_best(squares[order], limit)])
    stay = np.zeros(len(order), bool)
    for group in np.unique(groups):
        members = np.flatnonzero(groups[order] == group)
        stay[members] = _best(squares[order[members]], limit)
    return np.asarray(order[stay])


def _best(squares: np.ndarray, limit: float) -> np.ndarray:
    """Returns (m,) bool of squares in their order."""
    stay = np.ones(len(squares), bool)
    clear = overlap(squares, squares) <= limit
    for number in range(len(squares)):
        if stay[number]:
            stay[number + 1 :] &= clear[number, number + 1 :]
    return stay
