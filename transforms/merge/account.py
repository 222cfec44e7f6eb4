"""Counts images by what became of them, from the rows themselves, and the labels of the submission."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.records import Status
from transforms.formats.submission.rules import SubmissionRules, choose_face, no_face_index
from transforms.formats.submission.write import SubmissionReport
from transforms.merge.row_files import OutputFile
from transforms.merge.sorted_parts import nested, text_column

NOT_WANTED = -2  # in place of a label: the row of a duplicate, which no submission lists


class AccountError(Exception):
    """The images that went in are not those that came out. Attributes: `expected` and `found` images."""

    def __init__(self, message: str, *, expected: int = 0, found: int = 0) -> None:
        super().__init__(message)
        self.expected, self.found = expected, found


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a finished merge wrote, counted from the rows themselves.

    Attributes:
        counts: images, labelled, no_face, rejected, duplicate, faces, and of these unlabelled_faces.
        labels: labelled faces of each class, in the order of the classes, zeros too.
        reasons: images of each reason (those rejected, without a labelled face, and the duplicates), sorted by reason.
        known: images whose true label is one of the classes, duplicates aside.
        correct: how many of these get their true label, by the face policy and the label stated for no face.
        files: of predictions, of images, and the submission.
        submission: what was written there, None where none was asked for.
    """

    counts: dict[str, int]
    labels: dict[str, int]
    reasons: dict[str, int]
    known: int
    correct: int
    files: tuple[OutputFile, ...]
    submission: SubmissionReport | None = None


class Account:
    """Counts what is written, and keeps the label that the submission states for each image: four bytes an image."""

    def __init__(self, classes: tuple[str, ...], rules: SubmissionRules) -> None:
        self.images = 0
        self._classes = classes
        self._policy = rules.face_policy
        self._no_face = no_face_index(classes, rules)
        self._status: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._faces = np.zeros(len(classes), np.int64)
        self._unlabelled = self._known = self._correct = 0
        self._labels: list[np.ndarray] = []

    def add(self, rows: pa.Table) -> None:
        """Counts some rows of parts, duplicates resolved."""
        self.images += rows.num_rows
        self._status.update(_values(rows["status"]))
        self._reasons.update(_values(rows["reason"]))
        counts, faces = nested(text_column(rows, "faces"))
        fields = dict(zip(faces.type.names, faces.flatten(), strict=True))
        index = fields["label_index"].to_numpy()
        labelled = fields["labelled"].to_numpy(zero_copy_only=False)
        self._faces += np.bincount(index[labelled], minlength=len(self._classes))
        self._unlabelled += int((~labelled).sum())
        box = np.stack([fields[name].to_numpy() for name in ("x", "y", "width", "height")], axis=1)
        confidence = fields["confidence"].to_numpy()
        chosen = choose_face(counts, box=box, confidence=confidence, labelled=labelled, policy=self._policy)
        label = np.full(len(counts), -1, np.int32)
        label[chosen >= 0] = index[chosen[chosen >= 0]]
        wanted = pc.not_equal(text_column(rows, "status"), Status.DUPLICATE.value).to_numpy(zero_copy_only=False)
        self._compare(text_column(rows, "true_label"), label, wanted)
        self._labels.append(np.where(wanted, label, np.int32(NOT_WANTED)))

    def _compare(self, true_label: pa.Array, label: np.ndarray, wanted: np.ndarray) -> None:
        true = pc.index_in(true_label, pa.array(self._classes, pa.string())).fill_null(-1).to_numpy()
        known = (true >= 0) & wanted
        self._known += int(known.sum())
        self._correct += int((known & (np.where(label < 0, self._no_face, label) == true)).sum())

    def labels(self) -> np.ndarray:
        """Returns (images,) int32 indices of classes, -1 for no label, `NOT_WANTED` for a duplicate."""
        return np.concatenate(self._labels) if self._labels else np.zeros(0, np.int32)

    def refuse_unless(self, expected: int | None) -> None:
        """Raises AccountError unless every image is accounted for."""
        ended = sum(self._status[status.value] for status in Status)
        if ended != self.images:
            raise AccountError(
                f"{self.images} images were merged, but {ended} have a known status; "
                "the parts are of another version: --overwrite starts anew",
                expected=self.images,
                found=ended,
            )
        if expected is not None and self.images != expected:
            raise AccountError(
                f"{expected} images were planned, but the parts hold {self.images}; give the same command again, "
                "or --overwrite to start anew",
                expected=expected,
                found=self.images,
            )

    def result(self) -> MergeResult:
        """Returns the counts, without files."""
        statuses = {status.value: self._status[status.value] for status in Status}
        faces = {"faces": int(self._faces.sum()) + self._unlabelled, "unlabelled_faces": self._unlabelled}
        return MergeResult(
            counts={"images": self.images, **statuses, **faces},
            labels=dict(zip(self._classes, self._faces.tolist(), strict=True)),
            reasons=dict(sorted(self._reasons.items())),
            known=self._known,
            correct=self._correct,
            files=(),
        )


def _values(column: pa.ChunkedArray) -> dict[str, int]:
    """Returns how often each value occurs, nulls aside."""
    counts = pc.value_counts(column.drop_null())
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
