"""What differs between two runs, image by image and face by face: rows for `differences.parquet`, and their counts.

An image that one run lacks, or rejected, is one difference, and its faces are not compared. Nor are those of two
pictures of other bytes and another size that have one name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.two_runs.matching import FacePairs, match_faces
from pipeline.report.two_runs.pairing import ABSENT, PairedBatch
from transforms.formats.records import NO_LABEL, Status
from transforms.formats.result_batches import ResultBatch


class Kind(StrEnum):
    """A kind of difference, in the order of the table and of the page."""

    IMAGE_ONLY_IN_A = "image_only_in_a"
    IMAGE_ONLY_IN_B = "image_only_in_b"
    REJECTED_ONLY_IN_A = "rejected_only_in_a"
    REJECTED_ONLY_IN_B = "rejected_only_in_b"
    CONTENT = "content"
    FACE_ONLY_IN_A = "face_only_in_a"
    FACE_ONLY_IN_B = "face_only_in_b"
    BOX = "box"
    LABEL = "label"


KINDS = tuple(Kind)
_BOX = ("x", "y", "width", "height")
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        *(pa.field(f"{name}_{run}", pa.string()) for name in ("status", "reason") for run in "ab"),
        *(pa.field(f"face_index_{run}", pa.int32()) for run in "ab"),
        pa.field("iou", pa.float64()),
        *(pa.field(f"{name}_{run}", pa.int32()) for run in "ab" for name in _BOX),
        *(pa.field(f"detection_score_{run}", pa.float32()) for run in "ab"),
        *(pa.field(f"label_{run}", pa.string()) for run in "ab"),
        *(pa.field(f"confidence_{run}", pa.float64()) for run in "ab"),
    ]
)


@dataclass(frozen=True, slots=True)
class Classes:
    """The labels of two runs.

    Attributes:
        a, b: names of each run's labels, by index; those of B as A names them.
        both: those of A, then those that B alone has.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    both: tuple[str, ...]

    @classmethod
    def of(cls, a: Sequence[str], b: Sequence[str], renamed: Mapping[str, str] | None = None) -> Classes:
        """Returns the classes of two heads.

        Args:
            renamed: A's name of a class by B's name of it.
        """
        b = [(renamed or {}).get(name, name) for name in b]
        return cls(tuple(a), tuple(b), tuple(dict.fromkeys([*a, *b])))

    def joint(self, own: Sequence[str], label: np.ndarray) -> np.ndarray:
        """Returns (m,) int64, indices into `both` for those into a run's own labels; `NO_LABEL` stays."""
        place = np.asarray([*map(self.both.index, own), NO_LABEL])
        return np.asarray(place[label])


@dataclass(frozen=True, slots=True)
class Compared:
    """The differences of a batch: one row each in the columns below, sorted by image, kind and face.

    Attributes:
        image: (d,) int64, number of the image in the batch. `kind`: (d,) int64, place in `KINDS`.
        face_a, face_b: (d,) int64, number of the face among those of the run's batch; -1 where there is none.
        iou: (d,) float64, NaN where there is no pair.
        label_a, label_b: (m,) int64 of all faces of each run, as indices into the classes of both.
        pairs: the faces that both runs found.
        compared: (n,) bool, images whose faces were compared.
    """

    image: np.ndarray
    kind: np.ndarray
    face_a: np.ndarray
    face_b: np.ndarray
    iou: np.ndarray
    label_a: np.ndarray
    label_b: np.ndarray
    pairs: FacePairs
    compared: np.ndarray


def compare_batch(batch: PairedBatch, classes: Classes, *, min_iou: float) -> Compared:
    """Returns what differs in a batch.

    Args:
        min_iou: overlap below which the boxes of one face count as different.
    """
    at_image, compared = _image_differences(batch)
    label_a, label_b = classes.joint(classes.a, batch.a.label), classes.joint(classes.b, batch.b.label)
    pairs, image_a, image_b = _pairs(batch, compared)
    same = _same_label(pairs, label_a, label_b)
    lone_a, lone_b = _lone(pairs.a, image_a), _lone(pairs.b, image_b)
    found = [
        *at_image,
        _Rows(Kind.FACE_ONLY_IN_A, image_a[lone_a], lone_a, _nobody(lone_a), _no_iou(lone_a)),
        _Rows(Kind.FACE_ONLY_IN_B, image_b[lone_b], _nobody(lone_b), lone_b, _no_iou(lone_b)),
        *(
            _Rows(kind, image_a[pairs.a[of]], pairs.a[of], pairs.b[of], pairs.iou[of])
            for kind, of in ((Kind.BOX, pairs.iou < min_iou), (Kind.LABEL, ~same))
        ),
    ]
    columns = [np.concatenate([getattr(rows, name) for rows in found]) for name in ("image", "face_a", "face_b", "iou")]
    kind = np.repeat([KINDS.index(rows.kind) for rows in found], [len(rows.image) for rows in found])
    order = np.lexsort((columns[2], columns[1], kind, columns[0]))
    image, face_a, face_b, iou = (column[order] for column in columns)
    return Compared(image, kind[order], face_a, face_b, iou, label_a, label_b, pairs, compared)


@dataclass(frozen=True, slots=True)
class _Rows:
    kind: Kind
    image: np.ndarray
    face_a: np.ndarray
    face_b: np.ndarray
    iou: np.ndarray


def _nobody(like: np.ndarray) -> np.ndarray:
    return np.full(len(like), -1)


def _no_iou(like: np.ndarray) -> np.ndarray:
    return np.full(len(like), np.nan)


def _image_differences(batch: PairedBatch) -> tuple[list[_Rows], np.ndarray]:
    """Returns the differences of whole images, and (n,) bool: those whose faces can be compared."""
    in_a, in_b = batch.row_a != ABSENT, batch.row_b != ABSENT
    rejected_a, rejected_b = (_of(side, row, _rejected(side), False) for side, row in _sides(batch))
    both = in_a & in_b
    digest_a, digest_b = (_taken(side, row, "digest") for side, row in _sides(batch))
    changed = both & _differs(digest_a, digest_b)
    size_a, size_b = (_sizes(side, row) for side, row in _sides(batch))
    wheres = (
        (Kind.IMAGE_ONLY_IN_A, in_a & ~in_b),
        (Kind.IMAGE_ONLY_IN_B, in_b & ~in_a),
        (Kind.REJECTED_ONLY_IN_A, both & rejected_a & ~rejected_b),
        (Kind.REJECTED_ONLY_IN_B, both & rejected_b & ~rejected_a),
        (Kind.CONTENT, changed & ~rejected_a & ~rejected_b),
    )
    rows = [
        _Rows(kind, image, _nobody(image), _nobody(image), _no_iou(image))
        for kind, where in wheres
        for image in (np.flatnonzero(where),)
    ]
    return rows, both & ~rejected_a & ~rejected_b & ~(changed & (size_a != size_b).any(axis=1))


def _sides(batch: PairedBatch) -> tuple[tuple[ResultBatch, np.ndarray], tuple[ResultBatch, np.ndarray]]:
    return (batch.a, batch.row_a), (batch.b, batch.row_b)


def _rejected(side: ResultBatch) -> np.ndarray:
    return np.asarray(pc.equal(side.text("status"), Status.REJECTED.value).to_numpy(zero_copy_only=False), bool)


def _of(side: ResultBatch, row: np.ndarray, values: np.ndarray, absent: Any) -> np.ndarray:
    """Returns the value of each id of the batch; `absent` where the run lacks it."""
    there = row != ABSENT
    out = np.full((len(row), *values.shape[1:]), absent)
    out[there] = values[row[there]]
    return out


def _sizes(side: ResultBatch, row: np.ndarray) -> np.ndarray:
    return _of(side, row, np.stack([side.numbers("width"), side.numbers("height")], axis=1), 0)


def _taken(side: ResultBatch, row: np.ndarray, name: str) -> pa.Array:
    """Returns a column for each id of the batch; null where the run lacks it."""
    return side.text(name).take(pa.array(row, mask=row == ABSENT))


def _differs(one: pa.Array, other: pa.Array) -> np.ndarray:
    return np.asarray(pc.not_equal(one, other).fill_null(False).to_numpy(zero_copy_only=False), bool)


def _pairs(batch: PairedBatch, compared: np.ndarray) -> tuple[FacePairs, np.ndarray, np.ndarray]:
    """Returns the pairs, and for the faces of each run the number of their image, -1 where that is not compared."""
    image_a, image_b = (_image_of(side, row, compared) for side, row in _sides(batch))
    faces_a, faces_b = np.flatnonzero(image_a >= 0), np.flatnonzero(image_b >= 0)
    counts = (np.bincount(image[faces], minlength=len(batch)) for image, faces in
              ((image_a, faces_a), (image_b, faces_b)))  # fmt: skip
    count_a, count_b = counts
    found = match_faces(batch.a.box[faces_a], count_a, batch.b.box[faces_b], count_b)
    return FacePairs(faces_a[found.a], faces_b[found.b], found.iou), image_a, image_b


def _image_of(side: ResultBatch, row: np.ndarray, compared: np.ndarray) -> np.ndarray:
    place = np.full(side.images.num_rows, -1)
    place[row[compared]] = np.flatnonzero(compared)
    return np.asarray(place[side.image])


def _lone(paired: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns the faces of compared images that have no partner."""
    lone = image >= 0
    lone[paired] = False
    return np.flatnonzero(lone)


def _same_label(pairs: FacePairs, label_a: np.ndarray, label_b: np.ndarray) -> np.ndarray:
    return np.asarray(label_a[pairs.a] == label_b[pairs.b])


def as_table(batch: PairedBatch, compared: Compared, classes: Classes) -> pa.Table:
    """Returns the differences of a batch as rows of `differences.parquet`."""
    image = compared.image
    columns: dict[str, pa.Array] = {
        "image_id": batch.ids().take(pa.array(image)),
        "kind": pa.array([kind.value for kind in KINDS]).take(pa.array(compared.kind)),
        "iou": pa.array(compared.iou, mask=np.isnan(compared.iou)),
    }
    for run, (side, row), face, label in zip(
        "ab", _sides(batch), (compared.face_a, compared.face_b), (compared.label_a, compared.label_b), strict=True
    ):
        columns |= {f"{name}_{run}": _taken(side, row[image], name) for name in ("status", "reason")}
        columns |= {f"{name}_{run}": value for name, value in _face_columns(side, face, label, classes).items()}
    return pa.table([columns[name].cast(SCHEMA.field(name).type) for name in SCHEMA.names], schema=SCHEMA)


def _face_columns(side: ResultBatch, face: np.ndarray, label: np.ndarray, classes: Classes) -> dict[str, pa.Array]:
    none = face < 0
    box, score, confidence, known, number = (  # with one blank face at the end, which -1 takes
        np.concatenate([values, np.zeros((1, *values.shape[1:]), values.dtype)])[face]
        for values in (side.box, side.score, side.confidence, label, face_numbers(side))
    )
    no_label = none | (known == NO_LABEL)
    return {
        "face_index": pa.array(number, mask=none),
        **{name: pa.array(box[:, column], mask=none) for column, name in enumerate(_BOX)},
        "detection_score": pa.array(score, mask=none),
        "label": pa.array(classes.both, pa.string()).take(pa.array(known, mask=no_label)),
        "confidence": pa.array(confidence, mask=no_label),
    }


def face_numbers(side: ResultBatch) -> np.ndarray:
    """Returns (m,) int64, the number of each face within its image."""
    return np.asarray(np.arange(len(side.image)) - (np.cumsum(side.counts) - side.counts)[side.image])
