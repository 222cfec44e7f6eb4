"""The same face in two runs: pairs of boxes, one to one in each image, with the largest sum of overlaps.

Almost every face overlaps one other alone, so those pairs are found for all images at once. Only where boxes compete is
the matcher of `models/evaluation/matching.py` asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.boxes import iou_of_pairs
from models.evaluation.matching import NONE, best_matching

SAME_FACE = 0.2  # overlap (IoU) below which two boxes are of two faces
_PAIRS_AT_A_TIME = 1 << 20  # of boxes, compared in one go: some 100 MB


@dataclass(frozen=True, slots=True)
class FacePairs:
    """Faces that two runs share.

    Attributes:
        a, b: (p,) int64, numbers of the faces among those of each run, ascending in `a`.
        iou: (p,) float64, overlap of their boxes, `SAME_FACE` or more.
    """

    a: np.ndarray
    b: np.ndarray
    iou: np.ndarray


def match_faces(box_a: np.ndarray, count_a: np.ndarray, box_b: np.ndarray, count_b: np.ndarray) -> FacePairs:
    """Returns the pairs of n images.

    Args:
        box_a, box_b: (m, 4) x, y, width, height of all faces, image by image.
        count_a, count_b: (n,) int64, faces of each image.
    """
    found = [_matched(box_a, box_b, *some) for some in _candidates(count_a, count_b)]
    a, b, iou = (np.concatenate([np.zeros(0, kind), *(some[at] for some in found)])
                 for at, kind in enumerate((np.int64, np.int64, np.float64)))  # fmt: skip
    order = np.argsort(a, kind="stable")
    return FacePairs(a[order], b[order], iou[order])


def _candidates(count_a: np.ndarray, count_b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields image, face of A and face of B of all pairs within an image, for some images at a time."""
    pairs = count_a * count_b
    start_a, start_b = np.cumsum(count_a) - count_a, np.cumsum(count_b) - count_b
    chunk = (np.cumsum(pairs) - pairs) // _PAIRS_AT_A_TIME
    for part in np.unique(chunk[pairs > 0]):
        images = np.flatnonzero((chunk == part) & (pairs > 0))
        image = np.repeat(images, pairs[images])
        at = np.arange(len(image)) - np.repeat(np.cumsum(pairs[images]) - pairs[images], pairs[images])
        yield image, start_a[image] + at // count_b[image], start_b[image] + at % count_b[image]


def _matched(
    box_a: np.ndarray, box_b: np.ndarray, image: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    overlap = iou_of_pairs(box_a[a], box_b[b])
    near = overlap >= SAME_FACE
    image, a, b, overlap = image[near], a[near], b[near], overlap[near]
    alone = (np.bincount(a, minlength=1)[a] == 1) & (np.bincount(b, minlength=1)[b] == 1) if len(a) else near[:0]
    kept = alone.copy()
    rest = np.flatnonzero(~alone)
    for rows in np.split(rest, np.flatnonzero(np.diff(image[rest])) + 1):
        if len(rows):
            kept[rows] = _best(a[rows], b[rows], overlap[rows])
    return a[kept], b[kept], overlap[kept]


def _best(a: np.ndarray, b: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Returns (p,) bool: which of the competing pairs of one image belong to the best matching."""
    (names_a, row), (names_b, column) = np.unique(a, return_inverse=True), np.unique(b, return_inverse=True)
    table = np.zeros((len(names_a), len(names_b)))
    table[row, column] = overlap
    owner = best_matching(table)
    return np.asarray((owner[column] == row) & (owner[column] != NONE))
