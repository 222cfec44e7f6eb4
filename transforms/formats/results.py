"""Reads the tables of a finished run: one row per image, with the face that decides its label.

Not here: how they are written (`transforms/merge/`), and `run.json` (the caller passes what it needs from there).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.formats.publish import storage_error
from transforms.formats.records import FormatError
from transforms.formats.submission.rules import choose_face

PREFIX = "p_"  # of the columns with probabilities
_IMAGE_COLUMNS = ("image_id", "digest", "status", "faces", "true_label")
_FACE_COLUMNS = ("image_id", "x", "y", "width", "height")


class ResultsError(FormatError):
    """The tables of a run are missing, damaged or of the wrong form."""


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a run for each image, sorted by image id.

    Attributes:
        classes: names of the columns of `probabilities`.
        ids, status: (n,) text.
        digests: (n,) text, 64 hex digits; null where there were no bytes.
        labels: (n,) text, the true label; null where none is known.
        box: (n, 4) int32 x, y, width, height of the largest labelled face (the first of equally large ones); zeros
            without one.
        probabilities: (n, k) float64 of that face, zeros without one.
    """

    classes: tuple[str, ...]
    ids: pa.ChunkedArray
    status: pa.ChunkedArray
    digests: pa.ChunkedArray
    labels: pa.ChunkedArray
    box: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a head of a number says of each image, sorted by image id.

    Attributes:
        name: of the number.
        ids, status, digests, labels: as of `Results`.
        values: (n,) float64 of the largest labelled face; NaN without one.
    """

    name: str
    ids: pa.ChunkedArray
    status: pa.ChunkedArray
    digests: pa.ChunkedArray
    labels: pa.ChunkedArray
    values: np.ndarray


def read_numbers(folder: str, name: str, prefix: str = "") -> Numbers:
    """Returns the numbers of the finished run in `folder`; errors and `prefix` as of `read_results`."""
    images, faces, chosen = _chosen(folder, [prefix + name])
    values = np.full(len(chosen), np.nan)
    values[chosen >= 0] = faces[prefix + name].to_numpy()[chosen[chosen >= 0]]
    return Numbers(name, images["image_id"], images["status"], images["digest"], images["true_label"], values)


def read_results(folder: str, classes: Sequence[str], prefix: str = "") -> Results:
    """Returns the images of the finished run in `folder`.

    Args:
        classes: those of its head, in the order of the probabilities.
        prefix: what the columns of that head begin with, if the run has several.

    Raises:
        ResultsError: a table or a column is missing or damaged, or the two tables do not match.
    """
    names = [prefix + PREFIX + name for name in classes]
    images, faces, chosen = _chosen(folder, names)
    box, seen = _boxes(faces), chosen >= 0
    out = Results(
        tuple(classes),
        images["image_id"],
        images["status"],
        images["digest"],
        images["true_label"],
        np.zeros((len(chosen), 4), np.int32),
        np.zeros((len(chosen), len(classes))),
    )
    out.box[seen] = box[chosen[seen]]
    for column, name in enumerate(names):
        out.probabilities[seen, column] = faces[name].to_numpy()[chosen[seen]]
    return out


def _chosen(folder: str, names: Sequence[str]) -> tuple[pa.Table, pa.Table, np.ndarray]:
    """Returns images, faces with these columns, and for each image the row of its largest labelled face, or -1."""
    images = _read(os.path.join(folder, "images"), _IMAGE_COLUMNS)
    faces = _read(os.path.join(folder, "predictions"), (*_FACE_COLUMNS, *names))
    counts = images["faces"].to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(counts)), counts)
    if len(row) != faces.num_rows or not _same(images["image_id"].take(pa.array(row)), faces["image_id"]):
        raise ResultsError(f"{folder}: predictions/ and images/ come from different runs; label again with --overwrite")
    labelled = faces[names[0]].is_valid().to_numpy()  # a face without a label has no other answer either
    nothing = np.zeros(len(row))
    chosen = choose_face(counts, box=_boxes(faces), confidence=nothing, labelled=labelled, policy="largest")
    return images, faces, chosen


def _boxes(faces: pa.Table) -> np.ndarray:
    return np.stack([faces[name].to_numpy() for name in _FACE_COLUMNS[1:]], axis=1).astype(np.int32)


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    return len(one) == 0 or bool(pc.all(pc.equal(one, other)).as_py())


def _read(folder: str, columns: Sequence[str]) -> pa.Table:
    """Returns these columns of all files of a folder, in the order of their names."""
    with damage_named(folder):
        paths = parquet_files(folder)
        if not paths:
            raise ResultsError(f"{folder} holds no Parquet files; give the output folder of a finished run")
        return pa.concat_tables([_read_file(path, columns) for path in paths])


def parquet_files(folder: str) -> list[str]:
    """Returns the paths of a folder's Parquet files, in the order of their names."""
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".parquet"))


@contextmanager
def checked_file(path: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
    """Opens a file of a finished run; reading it checks the sums of its pages.

    Raises:
        ResultsError: it lacks one of the columns.
    """
    with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise ResultsError(f"{path} has no column {missing[0]}; give the output folder of a finished run")
        yield file


@contextmanager
def damage_named(folder: str) -> Iterator[None]:
    """Turns failures in reading a folder of tables into one line that names it.

    Raises:
        ResultsError: the folder is missing or damaged.
        StorageError: the storage failed.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ResultsError(f"{folder} does not exist; give the output folder of a finished run") from error
    except OSError as error:
        if error.errno:
            raise storage_error("read", folder, error) from error
        raise ResultsError(f"{folder} is damaged ({_first_line(error)}); label again") from error
    except (pa.ArrowException, ValueError) as error:
        raise ResultsError(f"{folder} is damaged ({_first_line(error)}); label again") from error


def _read_file(path: str, columns: Sequence[str]) -> pa.Table:
    with checked_file(path, columns) as file:
        return file.read(list(columns))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
