"""Counts and histograms of a whole run, from batches of its tables: what the page states, and `report.json` holds.

Memory: eight bytes an image and eight a face beyond the batch in hand, for what occurs more than once.
Not here: which photos are shown (`run_samples.py`), and how it looks (`run_page.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.records import NO_LABEL, Status
from transforms.formats.result_batches import ResultBatch
from transforms.formats.submission.rules import choose_face

BINS = 20  # of confidence and of detection scores, 0 to 1
UNSURE = 0.5  # confidence below which another class may be as likely
FACE_SIDES = (8, 16, 32, 64, 128, 256, 512)  # px, shorter side of the box: where bins of face sizes meet
FACE_COUNTS = (1, 2, 3, 4, 5, 10, 20, 50)  # faces an image: where bins meet
NAMES = 10  # of rejected images a reason


class RunMetrics:
    """Adds up a run, batch by batch."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._confidence = np.zeros((len(classes), BINS), np.int64)
        self._confidence_sum = np.zeros(len(classes))
        self._intensity = np.zeros(BINS, np.int64)
        self._intensity_sum: np.ndarray | None = None  # none where the head does not say it
        self._unsure = np.zeros(len(classes), np.int64)
        self._score = np.zeros(BINS, np.int64)
        self._face_side = np.zeros(len(FACE_SIDES) + 1, np.int64)
        self._face_count = np.zeros(len(FACE_COUNTS) + 1, np.int64)
        self._confusion = np.zeros((len(classes), len(classes) + 1), np.int64)
        self._rejected: dict[str, dict[str, Any]] = {}

    def add(self, batch: ResultBatch) -> None:
        """Counts the images of a batch and their faces."""
        labelled = batch.label != NO_LABEL
        label, confidence = batch.label[labelled], batch.confidence[labelled]
        place = label * BINS + _bin(confidence)
        self._confidence += np.bincount(place, minlength=self._confidence.size).reshape(self._confidence.shape)
        size = len(self._classes)
        self._confidence_sum += np.bincount(label, confidence, minlength=size)
        self._unsure += np.bincount(label[confidence < UNSURE], minlength=size)
        if batch.intensity is not None:
            intensity = batch.intensity[labelled]
            self._intensity += np.bincount(_bin(intensity), minlength=BINS)
            before = np.zeros(size) if self._intensity_sum is None else self._intensity_sum
            self._intensity_sum = before + np.bincount(label, intensity, minlength=size)
        self._score += np.bincount(_bin(batch.score), minlength=BINS)
        side = np.digitize(batch.box[:, 2:].min(1), FACE_SIDES) if len(batch.box) else np.zeros(0, np.int64)
        self._face_side += np.bincount(side, minlength=len(self._face_side))
        self._add_images(batch)

    def _add_images(self, batch: ResultBatch) -> None:
        status = batch.text("status")
        looked = pc.is_in(status, pa.array([Status.LABELLED.value, Status.NO_FACE.value]))
        looked = looked.to_numpy(zero_copy_only=False)
        self._face_count += np.bincount(np.digitize(batch.counts[looked], FACE_COUNTS), minlength=len(FACE_COUNTS) + 1)
        self._compare(batch, looked)
        rejected = pc.is_in(status, pa.array([Status.REJECTED.value, Status.DUPLICATE.value]))
        self._name_rejected(batch.images.filter(rejected))

    def _compare(self, batch: ResultBatch, looked: np.ndarray) -> None:
        """Counts true labels against that of the largest face; the last column is for no face."""
        true = pc.index_in(batch.text("true_label"), pa.array(self._classes, pa.string())).fill_null(-1).to_numpy()
        known = looked & (true >= 0)
        if not known.any():
            return
        labelled = batch.label != NO_LABEL
        chosen = choose_face(
            batch.counts, box=batch.box, confidence=batch.confidence, labelled=labelled, policy="largest"
        )
        given = np.full(len(true), len(self._classes))
        given[chosen >= 0] = batch.label[chosen[chosen >= 0]]
        np.add.at(self._confusion, (true[known], given[known]), 1)

    def _name_rejected(self, rows: pa.RecordBatch) -> None:
        if not rows.num_rows:
            return
        reasons = rows.column(rows.schema.get_field_index("reason")).fill_null("unknown")
        for found in pc.value_counts(reasons).to_pylist():
            reason = found["values"]
            entry = self._rejected.setdefault(reason, {"images": 0, "stage": None, "names": []})
            entry["images"] += found["counts"]
            if (room := NAMES - len(entry["names"])) > 0:
                some = rows.filter(pc.equal(reasons, reason)).slice(0, room).to_pylist()
                entry["stage"] = some[0]["stage"]
                entry["names"] += [row["image_id"] for row in some]

    def result(self) -> dict[str, Any]:
        """Returns everything as plain numbers and lists, for JSON."""
        faces = self._confidence.sum(1)
        return {
            "labels": [
                {
                    "label": name,
                    "faces": int(faces[index]),
                    "mean_confidence": _mean(self._confidence_sum, faces, index),
                    **self._mean_intensity(faces, index),
                    "unsure": int(self._unsure[index]),
                    "confidence": self._confidence[index].tolist(),
                }
                for index, name in enumerate(self._classes)
            ],
            "unsure_below": UNSURE,
            **({} if self._intensity_sum is None else {"intensity": self._intensity.tolist()}),
            "detection_score": self._score.tolist(),
            "face_side_px": {"edges": list(FACE_SIDES), "faces": self._face_side.tolist()},
            "faces_per_image": {"edges": list(FACE_COUNTS), "images": self._face_count.tolist()},
            "rejected": dict(sorted(self._rejected.items(), key=lambda item: (-item[1]["images"], item[0]))),
            "known": self._known(),
        }

    def _mean_intensity(self, faces: np.ndarray, index: int) -> dict[str, float | None]:
        """Returns the mean intensity of a label; nothing where the head does not say it."""
        sums = self._intensity_sum
        return {} if sums is None else {"mean_intensity": _mean(sums, faces, index)}

    def _known(self) -> dict[str, Any] | None:
        """Returns the confusion of true labels and those of the largest faces; None where no label is known."""
        if not self._confusion.any():
            return None
        return {
            "images": int(self._confusion.sum()),
            "correct": int(np.trace(self._confusion)),
            "confusion": self._confusion.tolist(),  # a row a true label; columns: the classes, then no face
        }


def _mean(sums: np.ndarray, faces: np.ndarray, index: int) -> float | None:
    return float(sums[index] / faces[index]) if faces[index] else None


def _bin(values: np.ndarray) -> np.ndarray:
    """Returns (n,) int64, the bin of each value from 0 to 1; 1 itself is in the last."""
    return np.asarray(np.clip((np.nan_to_num(values) * BINS).astype(np.int64), 0, BINS - 1))
