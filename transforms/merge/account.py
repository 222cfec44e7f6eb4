"""Counts images by what became of them, from the rows themselves, and keeps their labels for the submission."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.heads.output_spec import OutputSpec
from models.heads.side_by_side import members_of
from transforms.formats.records import Status
from transforms.formats.submission.rules import SubmissionRules, choose_face, no_face_label, unlabelled
from transforms.formats.submission.write import SubmissionReport
from transforms.merge.row_files import OutputFile
from transforms.merge.sorted_parts import nested, text_column


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
        labels: labelled faces of each class, in the order of the classes, zeros too; {} if the head has no classes.
        more_labels: the same of each further head, by the prefix of its columns.
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
    more_labels: dict[str, dict[str, int]] = field(default_factory=dict)
    submission: SubmissionReport | None = None


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """The labels of all images, in the order of `images/`.

    Attributes:
        label: (images,) as the head's output has labels; its `none` where there is none.
        wanted: (images,) bool, False for the row of a duplicate, which no submission lists.
    """

    label: np.ndarray
    wanted: np.ndarray

    def of(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Returns the wanted labels of some rows, and which rows these are, as bool."""
        wanted = self.wanted[rows]
        return self.label[rows][wanted], wanted


class Account:
    """Counts what is written, and keeps the label that the submission states for each image: five bytes for classes."""

    def __init__(self, spec: OutputSpec, rules: SubmissionRules) -> None:
        self.images = 0
        self._spec = spec
        self._policy = rules.face_policy
        self._no_face = no_face_label(spec, rules)
        self._status: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._faces = [np.zeros(len(output.classes), np.int64) for _, output in members_of(spec)]
        self._labelled = self._unlabelled = self._known = self._correct = 0
        self._labels: list[np.ndarray] = [np.zeros(0, spec.none.dtype)]
        self._wanted: list[np.ndarray] = [np.zeros(0, bool)]

    def add(self, rows: pa.Table) -> None:
        """Counts some rows of parts, duplicates resolved."""
        self.images += rows.num_rows
        self._status.update(_values(rows["status"]))
        self._reasons.update(_values(rows["reason"]))
        counts, faces = nested(text_column(rows, "faces"))
        fields = dict(zip(faces.type.names, faces.flatten(), strict=True))
        value = fields[self._spec.label].to_numpy()
        labelled = fields["labelled"].to_numpy(zero_copy_only=False)
        for (prefix, output), counted in zip(members_of(self._spec), self._faces, strict=True):
            if output.classes:
                labels = fields[prefix + output.label].to_numpy()
                counted += np.bincount(labels[labelled], minlength=len(counted))
        self._labelled += int(labelled.sum())
        self._unlabelled += int((~labelled).sum())
        box = np.stack([fields[name].to_numpy() for name in ("x", "y", "width", "height")], axis=1)
        confidence = fields[self._spec.confidence].to_numpy() if self._spec.confidence else np.zeros(len(box))
        chosen = choose_face(counts, box=box, confidence=confidence, labelled=labelled, policy=self._policy)
        label = np.full(len(counts), self._spec.none)
        label[chosen >= 0] = value[chosen[chosen >= 0]]
        wanted = pc.not_equal(text_column(rows, "status"), Status.DUPLICATE.value).to_numpy(zero_copy_only=False)
        self._compare(text_column(rows, "true_label"), label, wanted)
        self._labels.append(label)
        self._wanted.append(wanted)

    def _compare(self, true_label: pa.Array, label: np.ndarray, wanted: np.ndarray) -> None:
        true = pc.index_in(true_label, pa.array(self._spec.classes, pa.string())).fill_null(-1).to_numpy()
        known = (true >= 0) & wanted
        self._known += int(known.sum())
        self._correct += int((known & (np.where(unlabelled(label), self._no_face, label) == true)).sum())

    def labels(self) -> ImageLabels:
        """Returns the labels of all images that were added."""
        return ImageLabels(np.concatenate(self._labels), np.concatenate(self._wanted))

    def refuse_unless(self, expected: int | None) -> None:
        """Raises AccountError unless every image is accounted for."""
        ended = sum(self._status[status.value] for status in Status)
        if ended != self.images:
            raise AccountError(
                f"{self.images} images were merged, but {ended} have a known status; "
                "the parts are of another version: --overwrite starts over",
                expected=self.images,
                found=ended,
            )
        if expected is not None and self.images != expected:
            raise AccountError(
                f"{expected} images were planned, but the parts hold {self.images}; give the same command again, "
                "or --overwrite to start over",
                expected=expected,
                found=self.images,
            )

    def result(self) -> MergeResult:
        """Returns the counts, without files."""
        statuses = {status.value: self._status[status.value] for status in Status}
        faces = {"faces": self._labelled + self._unlabelled, "unlabelled_faces": self._unlabelled}
        (_, labels), *more = (
            (prefix, dict(zip(output.classes, counted.tolist(), strict=True)))
            for (prefix, output), counted in zip(members_of(self._spec), self._faces, strict=True)
        )
        return MergeResult(
            counts={"images": self.images, **statuses, **faces},
            labels=labels,
            more_labels=dict(more),
            reasons=dict(sorted(self._reasons.items())),
            known=self._known,
            correct=self._correct,
            files=(),
        )


def _values(column: pa.ChunkedArray) -> dict[str, int]:
    """Returns how often each value occurs, nulls aside."""
    counts = pc.value_counts(column.drop_null())
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
