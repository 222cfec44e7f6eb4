"""What a cascade that is half trained leaves of photos: thresholds for a stated recall, and windows to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.detectors.cascade.detector import Cascade
from models.detectors.cascade.overlaps import overlap
from models.detectors.cascade.windows import Reductions, Windows
from models.training.detection.cascade.windows import apart, squares_of
from models.training.detection.photos import Photo

FOUND = 0.4  # intersection over union from which a window counts as one of a face
SURE = 0.55  # and from which it is learned as one
TOGETHER = 16  # photos that go through a cascade at once


@dataclass(frozen=True, slots=True)
class Mined:
    """Windows that a cascade left.

    Attributes:
        faces, empty: (n, side, side, 3) uint8.
    """

    faces: np.ndarray
    empty: np.ndarray


def left_of(cascade: Cascade, photos: Sequence[Photo]) -> Iterator[tuple[Photo, Windows]]:
    """Yields each photo and the windows that the cascade's levels leave of it, before the global filter."""
    for start in range(0, len(photos), TOGETHER):
        some = photos[start : start + TOGETHER]
        yield from zip(some, cascade.windows([photo.pixels for photo in some]), strict=True)


def best_scores(cascade: Cascade, photos: Sequence[Photo], least_px: float) -> np.ndarray:
    """Returns (faces,) float32: the best score of a window on each face, in ascending order; 0 where none is left.

    Args:
        cascade: with a last threshold that lets nearly all pass.
        least_px: smaller faces are not counted.
    """
    best = []
    for photo, windows in left_of(cascade, photos):
        faces = squares_of(photo.boxes)
        on_face = overlap(faces[faces[:, 2] >= least_px], windows.squares) >= FOUND
        best.append(np.where(on_face, windows.scores, 0).max(axis=1, initial=0))
    return np.sort(np.concatenate(best)).astype(np.float32)


def threshold_for(recall: float, scores: np.ndarray) -> float:
    """Returns the highest threshold at which a share of at least `recall` of the faces that were met at all pass.

    Args:
        scores: (faces,) ascending; 0 for those that an earlier level lost.

    >>> threshold_for(0.75, np.asarray([0.0, 0.25, 0.5, 0.75, 1.0]))
    0.5
    """
    met = scores[scores > 0]
    return float(met[int(np.floor((1 - recall) * len(met) + 1e-9))]) if len(met) else 0.5


def mined(cascade: Cascade, photos: Sequence[Photo], side: int, each: int, seed: int) -> Mined:
    """Returns windows that the cascade leaves: those on faces, and those that show none.

    Args:
        photos: with faces and without.
        side: pixels of the windows.
        each: windows without a face that are kept of a photo: half of them the best, half drawn.
    """
    draw = np.random.default_rng([seed, side, 2])
    faces, empty = [], []
    for photo, windows in left_of(cascade, photos):
        known = squares_of(photo.boxes)
        image = Reductions(photo.pixels)
        on_face = np.flatnonzero((overlap(windows.squares, known) >= SURE).any(axis=1))[: 4 * len(known)]
        faces.append(image.windows(windows.squares[on_face], side))
        wrong = apart(windows.squares, photo)  # best first, as the filter leaves them
        drawn = draw.permutation(np.arange(each // 2, max(each // 2, len(wrong))))[: each - each // 2]
        empty.append(image.windows(np.concatenate([wrong[: each // 2], wrong[drawn]]), side))
    return Mined(np.concatenate(faces), np.concatenate(empty))
