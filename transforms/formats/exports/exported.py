"""The source of every export: the images of a finished run with their faces, streamed row by row.

Not here: the formats, one file each in this folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from transforms.formats.exif_columns import EXIF_FIELDS
from transforms.formats.records import Status
from transforms.formats.result_batches import RowBatch, columns_of, row_batches
from transforms.formats.results import PREFIX

BATCH = 1_024  # images at a time as Python objects
MADE_BY = "facelabel-pipeline export"  # the first value of every JSON file written here: tells ours from others'
_IMAGE_COLUMNS = ("image_id", "source", "width", "height", "status", "reason", "faces", "true_label")
_BOX_COLUMNS = ("face_index", "x", "y", "width", "height", "detection_score")
_LABEL_COLUMNS = ("label", "label_index", "confidence")  # of a head
_INTENSITY = "intensity"  # of a head that states one
_WITH_PIXELS = (Status.LABELLED.value, Status.NO_FACE.value)


@dataclass(frozen=True, slots=True)
class Run:
    """The finished run that is exported.

    Attributes:
        folder: its output folder.
        classes: of its head, in the order of the label index.
        fingerprint: of the run, in hex.
        exact: texts of tables as they are, also where a spreadsheet would run them as formulas.
        done: called with the number of images that are done, now and then.
        prefix: what the columns of the head begin with.
        answer: the column of `predictions/` that is null for a face without a label.
        columns: columns of `predictions/` that a table shows under another name; None leaves a column out.
    """

    folder: str
    classes: tuple[str, ...]
    fingerprint: str = ""
    exact: bool = False
    done: Callable[[int], object] = lambda images: None
    prefix: str = ""
    answer: str = "label"
    columns: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Face:
    """A face.

    Attributes:
        number: in its image, from 0.
        box: x, y, width, height in pixels of the upright image.
        score: of the detection, 0 to 1.
        label, label_index, confidence: None for a face that is too small to label.
        probabilities: one for each class, if they were asked for and the face is labelled; else empty.
        intensity: share of people who would choose the label; None without a label.
        states_intensity: the head gives intensities.
    """

    number: int
    box: tuple[int, int, int, int]
    score: float
    label: str | None
    label_index: int | None
    confidence: float | None
    probabilities: tuple[float, ...] = ()
    intensity: float | None = None
    states_intensity: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the run with its faces; `row` is its number in the order of ids, from 0."""

    row: int
    image_id: str
    source: str
    width: int
    height: int
    status: str
    reason: str | None
    true_label: str | None
    faces: tuple[Face, ...]

    @property
    def has_pixels(self) -> bool:
        """True if the image was decoded and searched: neither rejected nor a repeated id."""
        return self.status in _WITH_PIXELS

    def relative(self, box: Sequence[int]) -> list[float]:
        """Returns x, y, width, height as shares of the image's sides."""
        x, y, width, height = box
        shares = (x / self.width, y / self.height, width / self.width, height / self.height)
        return [round(share, 6) for share in shares]


@dataclass(slots=True)
class Exported:
    """What was written.

    Attributes:
        images, faces: how many. `left_out`: images that the format has no place for.
        unlabelled: faces without a label.
    """

    images: int = 0
    faces: int = 0
    left_out: int = 0
    unlabelled: int = 0

    def add(self, image: Image) -> None:
        """Counts an image that is written."""
        self.images += 1
        self.faces += len(image.faces)
        self.unlabelled += sum(face.label is None for face in image.faces)


def images_of(run: Run, *, probabilities: bool = False) -> Iterator[Image]:
    """Yields every image of the run in the order of ids; memory does not depend on their number.

    Raises:
        ResultsError: the tables are damaged or do not match. StorageError: they cannot be read.
    """
    labels = [run.prefix + name for name in _LABEL_COLUMNS]
    if run.prefix + _INTENSITY in columns_of(run.folder, "predictions"):
        labels.append(run.prefix + _INTENSITY)
    chances = [run.prefix + PREFIX + name for name in run.classes] if probabilities else []
    for batch in row_batches(run.folder, _IMAGE_COLUMNS, (*_BOX_COLUMNS, *labels, *chances), batch=BATCH):
        yield from _images(batch, labels, chances)
        run.done(batch.first + batch.images.num_rows)


def _images(batch: RowBatch, labels: Sequence[str], chances: Sequence[str]) -> Iterator[Image]:
    faces = _faces(batch.faces, labels, chances)
    columns = {name: batch.images.column(name).to_pylist() for name in _IMAGE_COLUMNS}
    for at, count in enumerate(columns.pop("faces")):
        values: dict[str, Any] = {name: column[at] for name, column in columns.items()}
        yield Image(row=batch.first + at, faces=tuple(next(faces) for _ in range(count)), **values)


def _faces(table: pa.Table, labels: Sequence[str], chances: Sequence[str]) -> Iterator[Face]:
    columns = {name: table[name].to_pylist() for name in _BOX_COLUMNS}
    said = zip(*(table[name].to_pylist() for name in labels), strict=True)
    rows = zip(*(table[name].to_pylist() for name in chances), strict=True) if chances else None
    for at, (number, (label, label_index, confidence, *more)) in enumerate(
        zip(columns["face_index"], said, strict=True)
    ):
        chance = next(rows) if rows is not None else ()
        yield Face(
            number,
            (columns["x"][at], columns["y"][at], columns["width"][at], columns["height"][at]),
            round(columns["detection_score"][at], 6),
            label,
            label_index,
            confidence,
            () if label is None else chance,
            next(iter(more), None),
            bool(more),
        )


def has_extra(run: Run) -> list[str]:
    """Returns the columns of `images/` that only some runs have: those of EXIF."""
    there = columns_of(run.folder, "images")
    return [field.name for field in EXIF_FIELDS if field.name in there]


def file_of(image: Image) -> tuple[bool, str]:
    """Returns whether the image is a separate file, and its path; for a member of an archive, its id.

    Unpacking an archive in its folder gives files at those paths.
    """
    name = image.image_id
    for ending in (name, name.partition("/")[2]):  # the second: without NAME/ of --input NAME=PATTERN
        if ending and (image.source == ending or image.source.endswith("/" + ending)):
            return True, image.source if "://" in image.source else os.path.abspath(image.source)
    return False, name
