"""How far two runs lie apart as wholes: labels, scores, sizes, numbers of faces, each with an interval.

Images are put into groups by chance, both runs' picture of an image into the same group. Resampling the groups gives
the intervals (a bootstrap over images that keeps pairs together); swapping A and B in half of the groups shows what
chance alone gives. Memory does not depend on the number of images.

Not here: features (`feature_drift.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.evaluation.metrics import DRAWS, INTERVAL
from pipeline.report.run_samples import drawn
from pipeline.report.two_runs.differences import Classes
from pipeline.report.two_runs.pairing import ABSENT, PairedBatch
from transforms.formats.records import NO_LABEL, Status
from transforms.formats.result_batches import ResultBatch

GROUPS = 1_024
_LOOKED, _NO_FACE, _FACES, _SCORE, _SIDE, _LABELLED, _CONFIDENCE, _LABELS = range(8)  # columns of a group's sums


class Drift:
    """Adds up both runs by group, batch by batch."""

    def __init__(self, classes: Classes, seed: int) -> None:
        self._classes, self._seed = classes, seed
        self._sums = np.zeros((2, GROUPS, _LABELS + len(classes.both)))

    def add(self, batch: PairedBatch, label_a: np.ndarray, label_b: np.ndarray) -> None:
        """Adds the images of a batch.

        Args:
            label_a, label_b: of all faces of each run, as indices into the classes of both.
        """
        at = batch.first + np.arange(len(batch))
        group = (drawn(at, np.uint64(self._seed)) * GROUPS).astype(np.int64)
        for run, (side, row, label) in enumerate(((batch.a, batch.row_a, label_a), (batch.b, batch.row_b, label_b))):
            own = np.zeros(side.images.num_rows, np.int64)
            own[row[row != ABSENT]] = group[row != ABSENT]
            self._add(self._sums[run], side, own, label)

    def _add(self, sums: np.ndarray, side: ResultBatch, group: np.ndarray, label: np.ndarray) -> None:
        of_face = group[side.image]
        looked = pc.is_in(side.text("status"), pa.array([Status.LABELLED.value, Status.NO_FACE.value]))
        looked = looked.to_numpy(zero_copy_only=False)
        labelled = label != NO_LABEL
        for column, groups, values in (
            (_LOOKED, group[looked], None),
            (_NO_FACE, group[looked & (side.counts == 0)], None),
            (_FACES, of_face, None),
            (_SCORE, of_face, side.score),
            (_SIDE, of_face, np.log(np.maximum(1, side.box[:, 2:].min(axis=1)))),
            (_LABELLED, of_face[labelled], None),
            (_CONFIDENCE, of_face[labelled], side.confidence[labelled]),
        ):
            sums[:, column] += np.bincount(groups, values, minlength=GROUPS)
        size = len(self._classes.both)
        cells = np.bincount(of_face[labelled] * size + label[labelled], minlength=GROUPS * size)
        sums[:, _LABELS:] += cells.reshape(GROUPS, size)

    def result(self) -> dict[str, Any]:
        """Returns the metrics, for JSON; one that is not defined is None."""
        random = np.random.default_rng(self._seed)
        weights = random.multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS), size=DRAWS).astype(np.float64)
        whole = self._sums.sum(axis=1)
        resampled = np.stack([weights @ sums for sums in self._sums])
        swapped = (random.random((DRAWS, GROUPS)) < 0.5).astype(np.float64)
        mixed = np.stack([swapped @ self._sums[1 - run] + (1 - swapped) @ self._sums[run] for run in (0, 1)])
        return {
            "groups": GROUPS,
            "draws": DRAWS,
            "seed": self._seed,
            "labels_total_variation": {
                **_interval(_total_variation(whole), _total_variation(resampled)),
                "by_chance": _number(_quantile(_total_variation(mixed), INTERVAL)),
            },
            "mean_detection_score": _difference(whole, resampled, _SCORE, _FACES),
            "mean_confidence": _difference(whole, resampled, _CONFIDENCE, _LABELLED),
            "face_side_ratio": _ratio_of_sides(whole, resampled),
            "faces_per_image": _difference(whole, resampled, _FACES, _LOOKED),
            "share_without_face": _difference(whole, resampled, _NO_FACE, _LOOKED),
        }


def _total_variation(sums: np.ndarray) -> np.ndarray:
    """Returns (...) the half sum of differences of the shares of labels, 0 to 1, of (2, ..., columns)."""
    labels = sums[..., _LABELS:]
    with np.errstate(invalid="ignore"):
        shares = labels / labels.sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(shares[1] - shares[0]).sum(axis=-1) / 2)


def _mean(sums: np.ndarray, part: int, of: int) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., part] / sums[..., of])


def _difference(whole: np.ndarray, resampled: np.ndarray, part: int, of: int) -> dict[str, Any]:
    a, b = _mean(whole, part, of)
    means = _mean(resampled, part, of)
    return {"a": _number(a), "b": _number(b), **_interval(b - a, means[1] - means[0])}


def _ratio_of_sides(whole: np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    a, b = np.exp(_mean(whole, _SIDE, _FACES))
    means = np.exp(_mean(resampled, _SIDE, _FACES))
    return {"a": _number(a), "b": _number(b), **_interval(b / a, means[1] / means[0])}


def _interval(value: Any, draws: np.ndarray) -> dict[str, float | None]:
    tail = (1 - INTERVAL) / 2
    low, high = _quantile(draws, tail), _quantile(draws, 1 - tail)
    return {"value": _number(value), "low": _number(low), "high": _number(high)}


def _quantile(draws: np.ndarray, share: float) -> float:
    known = draws[np.isfinite(draws)]
    return float(np.quantile(known, share)) if len(known) else np.nan


def _number(value: Any) -> float | None:
    """Returns a number that JSON can hold; None where it is not defined."""
    return float(value) if np.isfinite(value) else None
