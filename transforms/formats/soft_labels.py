"""Soft labels: for an image, shares of classes that sum to 1, from annotators' votes or from a finished run.

A table of votes is a CSV with a header: the image's id first, then a column a class with counts or shares. A
finished run is its `predictions/*.parquet`: the probabilities of each image's first face, so that any trained network
can teach another one. Not here: opening files (`transforms/storage.py`), and what is learned from the shares.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.formats.records import FormatError

PREFIX = "p_"  # of the probability columns in predictions


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """Shares of `classes` by image id: (classes,) float32 rows that sum to 1."""

    classes: tuple[str, ...]
    shares: dict[str, np.ndarray]

    def of(self, image_id: str) -> np.ndarray | None:
        """Returns the shares of an image, found by its id or the end of it behind a slash; None without any."""
        while image_id:
            if image_id in self.shares:
                return self.shares[image_id]
            image_id = image_id.partition("/")[2]
        return None


def read_votes(file: BinaryIO, name: str) -> SoftLabels:
    """Returns the votes of a CSV file; rows without any vote are left out.

    Raises:
        FormatError: names the file and the line that does not fit.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        rows = csv.reader(text)
        classes = _classes(next(rows, []), name)
        shares = {}
        for row in rows:
            if row:
                votes = _votes(row, len(classes), f"{name}, line {rows.line_num}")
                if votes.sum() > 0:
                    shares[row[0]] = votes / votes.sum()
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{name} is no CSV of votes: {error}") from error
    return SoftLabels(classes, shares)


def _classes(header: list[str], name: str) -> tuple[str, ...]:
    classes = tuple(column.strip() for column in header[1:])
    if len(classes) < 2 or len(set(classes)) != len(classes) or "" in classes:
        raise FormatError(f"{name}: the header must name the id and two or more different classes")
    return classes


def _votes(row: list[str], classes: int, where: str) -> np.ndarray:
    try:
        votes = np.asarray([float(value) for value in row[1:]], np.float32)
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error
    if len(votes) != classes or not np.isfinite(votes).all() or (votes < 0).any():
        raise FormatError(f"{where}: {classes} numbers from 0 are wanted behind the id, there stands {row[1:]}")
    return votes


def read_predictions(files: Iterable[tuple[str, BinaryIO]]) -> SoftLabels:
    """Returns the probabilities of the first face of every image, from the Parquet files of a finished run.

    Args:
        files: (name, opened file).

    Raises:
        FormatError: a file is not one of predictions, or the files have different classes.
    """
    classes: tuple[str, ...] = ()
    shares: dict[str, np.ndarray] = {}
    for name, file in files:
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{name} is no Parquet file of predictions: {str(error).splitlines()[0]}") from error
        columns = [column for column in table.column_names if column.startswith(PREFIX)]
        if len(columns) < 2 or not {"image_id", "face"} <= set(table.column_names):
            raise FormatError(f"{name} has no columns image_id, face and {PREFIX}CLASS; name a finished run's folder")
        found = tuple(column.removeprefix(PREFIX) for column in columns)
        if classes and found != classes:
            raise FormatError(f"{name} has the classes {', '.join(found)}, the files before {', '.join(classes)}")
        classes = found
        rows = np.stack([table[column].to_numpy() for column in columns], axis=1).astype(np.float32)
        first = table["face"].to_numpy() == 0
        ids = table["image_id"].to_pylist()
        for row in np.flatnonzero(first):
            shares[ids[row]] = rows[row] / rows[row].sum()
    if not classes:
        raise FormatError("there are no predictions/*.parquet; name a finished run's folder")
    return SoftLabels(classes, shares)
