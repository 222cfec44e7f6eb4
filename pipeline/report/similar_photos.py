"""Photos that look nearly the same though their files differ, by the faces that they share.

Two photos are near-duplicates if at least half of the faces of the one with fewer look nearly the same as faces of the
other: a photo saved twice, a crop of another, two of a burst. A photo without a labelled face has no features, so of
such photos only copies are found (`repeats.py`). Memory: bounded by the pairs of faces that are compared exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHARED = 0.5  # of the faces of the photo with fewer: one face alone may be the same portrait on two walls


@dataclass(frozen=True, slots=True)
class PhotoPairs:
    """Pairs of photos that share faces.

    Attributes:
        one, other: (k,) int64, rows of the photos; `one` is the smaller.
        faces: (k,) int64, faces that look nearly the same.
        share: (k,) float64, of the faces of the photo with fewer.
    """

    one: np.ndarray
    other: np.ndarray
    faces: np.ndarray
    share: np.ndarray


def photo_pairs(one: np.ndarray, other: np.ndarray, rows: np.ndarray, labelled: np.ndarray) -> PhotoPairs:
    """Returns the pairs of photos that share enough of their faces.

    Args:
        one, other: (p, 2) int64, row of the photo and number of the face, of faces that look alike.
        rows: (r,) int64, every photo among them, ascending. `labelled`: (r,) int64, faces of each that have a label.

    >>> a, b = np.array([[0, 0], [0, 1], [0, 0]]), np.array([[4, 0], [4, 1], [9, 5]])
    >>> found = photo_pairs(a, b, np.array([0, 4, 9]), np.array([3, 2, 8]))
    >>> found.one.tolist(), found.other.tolist(), found.faces.tolist(), found.share.tolist()
    ([0], [4], [2], [1.0])
    """
    swapped = one[:, 0] > other[:, 0]
    first, second = np.where(swapped[:, None], other, one), np.where(swapped[:, None], one, other)
    pairs, of_pair = np.unique(np.stack([first[:, 0], second[:, 0]], axis=1), axis=0, return_inverse=True)
    shared = np.minimum(*(_distinct(of_pair.ravel(), faces[:, 1], len(pairs)) for faces in (first, second)))
    fewer = np.minimum(*(labelled[np.searchsorted(rows, pairs[:, side])] for side in (0, 1)))
    share = shared / np.maximum(1, fewer)
    enough = share >= SHARED
    return PhotoPairs(pairs[enough, 0], pairs[enough, 1], shared[enough], share[enough])


def _distinct(group: np.ndarray, value: np.ndarray, groups: int) -> np.ndarray:
    """Returns (groups,) int64, how many different values each group has."""
    once = np.unique(np.stack([group, value], axis=1), axis=0)
    return np.bincount(once[:, 0], minlength=groups)
