"""Measures how well a detector finds known faces: outcomes of boxes and faces, ROC curves, recall by size.

A box finds a face if the best matching pairs them with an overlap (intersection over union) above a threshold. So a
face is found at most once, and a second box on it is a false alarm. Some faces do not count, such as masked ones. A box
that found no other face may cover one of these: it is then neither right nor wrong.

The curves are FDDB's (Jain and Learned-Miller 2010): at every score, the share of known faces found against the number
of false alarms. In the discrete curve, a found face counts as 1; in the continuous curve, every matched face counts as
its overlap.

Not here: how boxes are paired (`matching.py`), areas (`regions.py`), other conventions of boxes (`box_map.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from models.evaluation.box_map import BoxMap, fitted_map
from models.evaluation.matching import NONE, grow_matching
from models.evaluation.regions import coverage

OVERLAP = 0.5  # a box with more has found the face, as in FDDB and PASCAL
PAIRED = 0.3  # a box and a face with more belong together when a map is fitted
FALSE_ALARMS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0)  # per image, at which recall is reported
SIZES_PX = (0, 12, 16, 24, 36, 64, 128)  # starts of the bins of a known face's longer side


class Outcome(IntEnum):
    """The outcome of a box."""

    FALSE_ALARM = 0
    HIT = 1
    IGNORED = 2  # it covers a face that does not count


@dataclass(frozen=True, slots=True)
class Photo:
    """The known faces and the found boxes of one image.

    Attributes:
        known: (n, 4) float64 boxes x, y, width, height in pixels; for an ellipse, the box around it.
        ellipses: (n, 5) float64 as in `regions.py`, NaN for a face that is a rectangle; None if all are.
        ignored: (n,) bool, faces that do not count.
        found: (m, 4) boxes.
        scores: (m,), higher is more certain.
    """

    known: np.ndarray
    ellipses: np.ndarray | None
    ignored: np.ndarray
    found: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at every threshold, from the highest score down; sums over all images.

    Attributes:
        score: (k,) float64, distinct, descending; boxes with at least this score count.
        hits, false_alarms: (k,) int.
        overlap: (k,) float64, sum over the matched faces.
        faces, images: total numbers.
    """

    score: np.ndarray
    hits: np.ndarray
    false_alarms: np.ndarray
    overlap: np.ndarray
    faces: int
    images: int

    def discrete(self) -> np.ndarray:
        """Returns (k,), the share of faces found."""
        return self.hits / max(self.faces, 1)

    def continuous(self) -> np.ndarray:
        """Returns (k,), the sum of overlaps per face."""
        return self.overlap / max(self.faces, 1)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of every box and every face.

    Attributes:
        curve: over all scores.
        box_image: (m,) int, the image of each box that counts; by image, then score, descending.
        box_row: (m,) int, its row in the image's `found`.
        score: (m,) float64.
        outcome: (m,) of `Outcome`.
        box_overlap: (m,) float64, with its paired face, or else with the ignored face that it covers best.
        box_face: (m,) int, row of that face among all faces, or -1.
        face_image: (n,) int, the image of each known face. face_row: (n,) int, its row there.
        counts: (n,) bool, False for ignored faces.
        found: (n,) bool. finder: (n,) int, row of the box among all boxes, or -1.
        longer_side: (n,) float64, in pixels.
    """

    curve: Curve
    box_image: np.ndarray
    box_row: np.ndarray
    score: np.ndarray
    outcome: np.ndarray
    box_overlap: np.ndarray
    box_face: np.ndarray
    face_image: np.ndarray
    face_row: np.ndarray
    counts: np.ndarray
    found: np.ndarray
    finder: np.ndarray
    longer_side: np.ndarray

    @property
    def recall(self) -> float | None:
        """The share of faces found; None without faces."""
        return float(self.found[self.counts].mean()) if self.counts.any() else None

    @property
    def false_alarms_an_image(self) -> float:
        """False alarms per image."""
        return int((self.outcome == Outcome.FALSE_ALARM).sum()) / max(self.curve.images, 1)

    @property
    def mean_overlap(self) -> float | None:
        """The mean overlap of found faces with their boxes; None if no face was found."""
        hit = self.outcome == Outcome.HIT
        return float(self.box_overlap[hit].mean()) if hit.any() else None


# --- one image --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _OneImage:
    """The outcomes of the boxes of one image, by descending score, and of its faces.

    Attributes:
        order: (m,) rows of `found` in that order.
        hits, false_alarms, overlap: (m,), totals over the first 1, 2, … boxes.
        outcome, paired, paired_overlap: (k,), of the boxes that count; `paired` is the row of a face or `NONE`.
        finder: (n,), row among these boxes or `NONE`.
    """

    order: np.ndarray
    hits: np.ndarray
    false_alarms: np.ndarray
    overlap: np.ndarray
    outcome: np.ndarray
    paired: np.ndarray
    paired_overlap: np.ndarray
    finder: np.ndarray


def _judge_one(photo: Photo, least_overlap: float, least_score: float) -> _OneImage:
    order = np.argsort(-np.asarray(photo.scores, np.float64), kind="stable")
    overlap = coverage(photo.found[order], photo.known, photo.ellipses)
    real = np.flatnonzero(~photo.ignored)
    aside, aside_overlap = _on_ignored(overlap, photo.ignored)
    excused = aside_overlap > least_overlap
    counted = int((photo.scores >= least_score).sum())
    sums = np.zeros((len(order), 3))
    owner = np.full(len(real), NONE)  # while no box counts
    for last, best in enumerate(grow_matching(overlap[:, real])):
        columns = np.flatnonzero(best != NONE)
        shared = overlap[best[columns], real[columns]]
        hit = np.zeros(last + 1, bool)
        hit[best[columns][shared > least_overlap]] = True
        sums[last] = hit.sum(), (~hit & ~excused[: last + 1]).sum(), shared.sum()
        owner = best if last + 1 == counted else owner
    columns = np.flatnonzero(owner != NONE)
    paired = np.where(excused, aside, NONE)[:counted]
    paired_overlap = np.where(excused, aside_overlap, 0.0)[:counted]
    outcome = np.where(excused, Outcome.IGNORED, Outcome.FALSE_ALARM)[:counted]
    finder = np.full(len(photo.known), NONE)
    for box, face in zip(owner[columns].tolist(), real[columns].tolist(), strict=True):
        hits = overlap[box, face] > least_overlap
        if hits:
            outcome[box], finder[face] = Outcome.HIT, box
        if hits or not excused[box]:
            paired[box], paired_overlap[box] = face, overlap[box, face]
    return _OneImage(order, sums[:, 0], sums[:, 1], sums[:, 2], outcome, paired, paired_overlap, finder)


def _on_ignored(overlap: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each box the ignored face that it covers best, and their overlap."""
    rows = np.flatnonzero(ignored)
    if not len(rows):
        return np.full(len(overlap), NONE), np.zeros(len(overlap))
    best = overlap[:, rows].argmax(axis=1)
    return rows[best], overlap[np.arange(len(overlap)), rows[best]]


# --- all images -------------------------------------------------------------------------------------------------------


def judge(photos: Sequence[Photo], *, least_overlap: float = OVERLAP, least_score: float = -np.inf) -> Judgement:
    """Returns the outcomes of the boxes and faces of all images.

    Args:
        least_overlap: a box must overlap a face by more than this to find it.
        least_score: boxes below it count only in the curve.
    """
    ones = [_judge_one(photo, least_overlap, least_score) for photo in photos]
    boxes_before = np.cumsum([0, *(len(one.outcome) for one in ones)])
    faces_before = np.cumsum([0, *(len(photo.known) for photo in photos)])
    counted = [len(one.outcome) for one in ones]
    images = np.arange(len(photos))
    known = _joined([photo.known for photo in photos], (0, 4))
    return Judgement(
        curve=_curve(photos, ones),
        box_image=np.repeat(images, counted),
        box_row=_joined([one.order[:count] for one, count in zip(ones, counted, strict=True)], (0,)).astype(int),
        score=_joined(
            [photo.scores[one.order[:count]] for photo, one, count in zip(photos, ones, counted, strict=True)], (0,)
        ).astype(np.float64),
        outcome=_joined([one.outcome for one in ones], (0,)).astype(int),
        box_overlap=_joined([one.paired_overlap for one in ones], (0,)),
        box_face=_moved([one.paired for one in ones], faces_before),
        face_image=np.repeat(images, [len(photo.known) for photo in photos]),
        face_row=_joined([np.arange(len(photo.known)) for photo in photos], (0,)).astype(int),
        counts=~_joined([photo.ignored for photo in photos], (0,)).astype(bool),
        found=_joined([one.finder != NONE for one in ones], (0,)).astype(bool),
        finder=_moved([one.finder for one in ones], boxes_before),
        longer_side=known[:, 2:].max(axis=1, initial=0),
    )


def _joined(pieces: Sequence[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.zeros(empty), *pieces])


def _moved(pieces: Sequence[np.ndarray], before: np.ndarray) -> np.ndarray:
    """Returns rows within images as rows over all images."""
    moved = [
        np.where(piece == NONE, NONE, piece + start) for piece, start in zip(pieces, before.tolist(), strict=False)
    ]
    return _joined(moved, (0,)).astype(int)


def _curve(photos: Sequence[Photo], ones: Sequence[_OneImage]) -> Curve:
    scores = _joined([photo.scores[one.order] for photo, one in zip(photos, ones, strict=True)], (0,))
    steps = _joined(
        [np.diff(np.stack([one.hits, one.false_alarms, one.overlap]), axis=1, prepend=0).T for one in ones], (0, 3)
    )
    order = np.argsort(-scores, kind="stable")
    sums = np.cumsum(steps[order], axis=0)
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0) if len(order) else np.zeros(0, int)
    faces = sum(int((~photo.ignored).sum()) for photo in photos)
    hits, false_alarms, overlap = sums[last].T
    return Curve(
        scores[order][last],
        np.round(hits).astype(int),
        np.round(false_alarms).astype(int),
        overlap,
        faces,
        len(photos),
    )


# --- metrics ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AtFalseAlarms:
    """The best recall with at most `allowed` false alarms per image.

    Attributes:
        allowed: false alarms per image.
        recall: 0 if even the highest score gives more false alarms; None without faces.
        false_alarms: per image, at that point.
        score: the threshold there; None if no box may count.
        at_end: True if all given boxes count, so a lower threshold of the detector might find more.
    """

    allowed: float
    recall: float | None
    false_alarms: float
    score: float | None
    at_end: bool


def recall_at(curve: Curve, allowed: float) -> AtFalseAlarms:
    """Returns the point of the discrete curve with the largest recall among those with few enough false alarms."""
    within = np.flatnonzero(curve.false_alarms <= allowed * curve.images)
    if not len(within):
        return AtFalseAlarms(allowed, 0.0 if curve.faces else None, 0.0, None, not len(curve.score))
    best = int(within[np.argmax(curve.hits[within])])
    return AtFalseAlarms(
        allowed,
        float(curve.hits[best] / curve.faces) if curve.faces else None,
        float(curve.false_alarms[best] / curve.images),
        float(curve.score[best]),
        bool(within[-1] == len(curve.score) - 1),
    )


@dataclass(frozen=True, slots=True)
class SizeBin:
    """Recall of faces whose longer side is `least_px` or more and below `below_px` (None: any)."""

    least_px: int
    below_px: int | None
    faces: int
    found: int


def recall_by_size(judgement: Judgement, starts: Sequence[int] = SIZES_PX) -> list[SizeBin]:
    """Returns a bin for each start: the faces that count in it, and how many of them were found."""
    sides, found = judgement.longer_side[judgement.counts], judgement.found[judgement.counts]
    bins = []
    for least, below in zip(starts, [*starts[1:], None], strict=True):
        inside = (sides >= least) & (sides < (np.inf if below is None else below))
        bins.append(SizeBin(least, below, int(inside.sum()), int(found[inside].sum())))
    return bins


def fit_map(photos: Sequence[Photo], *, least_score: float = -np.inf) -> BoxMap:
    """Returns the map from found boxes to known faces: medians over the pairs that overlap by more than `PAIRED`."""
    judged = judge(photos, least_overlap=PAIRED, least_score=least_score)
    hits = np.flatnonzero(judged.outcome == Outcome.HIT)
    if not len(hits):
        return BoxMap()
    pairs = [
        (photos[image].found[row], photos[image].known[judged.face_row[face]])
        for image, row, face in zip(judged.box_image[hits], judged.box_row[hits], judged.box_face[hits], strict=True)
    ]
    return fitted_map(np.stack([found for found, _ in pairs]), np.stack([known for _, known in pairs]))


def mapped(photos: Sequence[Photo], box_map: BoxMap) -> list[Photo]:
    """Returns the images with their found boxes mapped."""
    return [replace(photo, found=box_map(photo.found)) for photo in photos]
