"""Streams the tables of a finished run: some images at a time, each with all its faces, in bounded memory.

Not here: one row per image for evaluation (`results.py`), and how the tables are written (`transforms/merge/`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.formats.records import NO_LABEL
from transforms.formats.results import ResultsError, checked_file, damage_named, parquet_files

BATCH = 8_192  # images at a time: the row group that the tables are written in
IMAGE_COLUMNS = (
    *("image_id", "digest", "bytes", "width", "height"),
    *("status", "stage", "reason", "faces", "true_label"),
)
LABEL_COLUMNS = ("label_index", "confidence")  # of a head
INTENSITY = "intensity"  # of some heads
FACE_COLUMNS = ("x", "y", "width", "height", "detection_score", *LABEL_COLUMNS)


@dataclass(frozen=True, slots=True)
class ResultBatch:
    """Consecutive images of a run, sorted by image id.

    Attributes:
        first: row of the first image in the whole run.
        images: n rows, `IMAGE_COLUMNS`.
        counts: (n,) int64, faces of each image.
        image: (m,) int64, for each face the row of its image in `images`.
        box: (m, 4) int32 x, y, width, height in pixels of the upright image.
        score, confidence: (m,) float64, 0 to 1.
        label: (m,) int64, index into the classes of the head; -1 for a face without a label, whose confidence is 0.
        intensity: (m,) float64, 0 to 1, of the label; 0 for a face without one. None if the head does not say it.
    """

    first: int
    images: pa.RecordBatch
    counts: np.ndarray
    image: np.ndarray
    box: np.ndarray
    score: np.ndarray
    confidence: np.ndarray
    label: np.ndarray
    intensity: np.ndarray | None = None

    def text(self, name: str) -> pa.Array:
        """Returns a column of `images`."""
        return self.images.column(self.images.schema.get_field_index(name))

    def numbers(self, name: str) -> np.ndarray:
        """Returns a column of `images` as (n,) int64."""
        return np.asarray(self.text(name).to_numpy(zero_copy_only=False), np.int64)


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive images of a run with all their faces, as tables.

    Attributes:
        first: row of the first image in the whole run.
        images: n rows. `counts`: (n,) int64, faces of each.
        faces: their rows, in the order of the images.
    """

    first: int
    images: pa.RecordBatch
    counts: np.ndarray
    faces: pa.Table


def columns_of(folder: str, table: str) -> list[str]:
    """Returns the names of the columns of `predictions` or `images` of the finished run in `folder`.

    Raises:
        ResultsError: the table is missing or damaged. StorageError: it cannot be read.
    """
    with damage_named(os.path.join(folder, table)):
        for path in parquet_files(os.path.join(folder, table)):
            with checked_file(path, ()) as file:
                return list(file.schema_arrow.names)
    raise ResultsError(f"{folder} has no {table}/ with Parquet files; give the output folder of a finished run")


def result_batches(folder: str, *, batch: int = BATCH, prefix: str = "") -> Iterator[ResultBatch]:
    """Yields the images of the finished run in `folder`, in the order of their ids.

    Args:
        prefix: what the columns of the head begin with, if the run has several.

    Raises:
        ResultsError: a table or a column is missing or damaged, or the two tables do not match.
        StorageError: they cannot be read.
    """
    columns = [_of_head(name, prefix) for name in FACE_COLUMNS]
    columns += [name for name in columns_of(folder, "predictions") if name == prefix + INTENSITY]
    for rows in row_batches(folder, IMAGE_COLUMNS, columns, batch=batch):
        yield _batch(rows, prefix)


def row_batches(
    folder: str, image_columns: Sequence[str], face_columns: Sequence[str], *, batch: int = BATCH
) -> Iterator[RowBatch]:
    """Yields these columns of the images and faces of the finished run in `folder`, in the order of their ids.

    Args:
        image_columns: with `faces` among them.

    Raises:
        ResultsError, StorageError: as for `result_batches`.
    """
    faces = _Rows(_batches(os.path.join(folder, "predictions"), face_columns, batch), face_columns)
    first = 0
    for images in _batches(os.path.join(folder, "images"), image_columns, batch):
        counts = np.asarray(images.column(images.schema.get_field_index("faces")).to_numpy(), np.int64)
        rows = faces.take(int(counts.sum()))
        if rows is None:
            raise ResultsError(f"{folder}: predictions/ holds fewer faces than images/ counts; label again")
        yield RowBatch(first, images, counts, rows)
        first += images.num_rows
    if faces.left():
        raise ResultsError(f"{folder}: predictions/ holds more faces than images/ counts; label again")


def _of_head(name: str, prefix: str) -> str:
    return prefix + name if name in LABEL_COLUMNS else name


def _batch(rows: RowBatch, prefix: str) -> ResultBatch:
    columns = {name: rows.faces[_of_head(name, prefix)].to_numpy() for name in FACE_COLUMNS}
    intensity = None
    if prefix + INTENSITY in rows.faces.column_names:
        intensity = np.nan_to_num(rows.faces[prefix + INTENSITY].to_numpy().astype(np.float64))
    return ResultBatch(
        first=rows.first,
        images=rows.images,
        counts=rows.counts,
        image=np.repeat(np.arange(len(rows.counts)), rows.counts),
        box=np.stack([columns[name] for name in ("x", "y", "width", "height")], axis=1).astype(np.int32),
        score=columns["detection_score"].astype(np.float64),
        confidence=np.nan_to_num(columns["confidence"].astype(np.float64)),
        label=np.nan_to_num(columns["label_index"].astype(np.float64), nan=NO_LABEL).astype(np.int64),
        intensity=intensity,
    )


class _Rows:
    """Rows of a stream of batches, handed out by number."""

    def __init__(self, batches: Iterator[pa.RecordBatch], columns: Sequence[str]) -> None:
        self._batches = batches
        self._held = pa.table({name: pa.array([], pa.int64()) for name in columns})

    def take(self, count: int) -> pa.Table | None:
        """Returns the next rows; None if there are fewer."""
        held, have = [self._held], self._held.num_rows
        while have < count and (more := next(self._batches, None)) is not None:
            held.append(pa.Table.from_batches([more]))
            have += more.num_rows
        if have < count:
            return None
        rows = pa.concat_tables([table for table in held if table.num_rows] or held[-1:])
        self._held = rows.slice(count)
        return rows.slice(0, count)

    def left(self) -> bool:
        return self._held.num_rows > 0 or next(self._batches, None) is not None


def _batches(folder: str, columns: Sequence[str], batch: int) -> Iterator[pa.RecordBatch]:
    """Yields these columns of all files of a folder, in the order of their names."""
    with damage_named(folder):
        for path in parquet_files(folder):
            with checked_file(path, columns) as file:
                yield from file.iter_batches(batch, columns=list(columns))
