"""Soft labels: for each image, shares of classes that sum to 1, from annotators' votes or from a finished run.

A table of votes is a CSV with a header: first the image's id, then one column per class with counts or shares. Not
here: finished runs, by which any trained network can teach another one (`pipeline/run/soft_labels.py`), opening files
(`transforms/storage/store.py`), and training with the shares.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from transforms.formats.class_names import class_name
from transforms.formats.records import FormatError


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """Shares of `classes` by image id: (classes,) float32 rows that sum to 1, or to 0 for an image without votes."""

    classes: tuple[str, ...]
    shares: dict[str, np.ndarray]

    def of(self, image_id: str) -> np.ndarray | None:
        """Returns the shares of an image, found by its id or the end of it after a slash; None if it has none."""
        while image_id:
            if image_id in self.shares:
                row = self.shares[image_id]
                return row if row.any() else None  # an exact id without shares must not fall back to a shorter one
            image_id = image_id.partition("/")[2]
        return None

    def added(self, classes: tuple[str, ...], adding: np.ndarray) -> SoftLabels:
        """Returns shares of other classes. `adding`, (classes, other classes) float32, states what is added to what."""
        rows = {image: row @ adding for image, row in self.shares.items()}
        return SoftLabels(classes, {image: row / (row.sum() or 1) for image, row in rows.items()})


def read_votes(file: BinaryIO, name: str) -> SoftLabels:
    """Returns the votes of a CSV file.

    Raises:
        FormatError: names the file and the line that does not fit, or that repeats an id.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        rows = csv.reader(text)
        classes = _classes(next(rows, []), name)
        shares: dict[str, np.ndarray] = {}
        for row in rows:
            if row:
                where = f"{name}, line {rows.line_num}"
                votes = _votes(row, len(classes), where)
                if row[0] in shares:
                    raise FormatError(
                        f"{where}: {row[0]!r} is listed twice; remove a line, or give each image its own id"
                    )
                shares[row[0]] = votes / (votes.sum() or 1)
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{name} is not a CSV of votes: {error}") from error
    return SoftLabels(classes, shares)


def _classes(header: list[str], name: str) -> tuple[str, ...]:
    classes = tuple(class_name(column.strip()) for column in header[1:])
    if len(classes) < 2 or len(set(classes)) != len(classes) or "" in classes:
        raise FormatError(f"{name}: the header needs the id and two or more different classes")
    return classes


def _votes(row: list[str], classes: int, where: str) -> np.ndarray:
    try:
        votes = np.asarray([float(value) for value in row[1:]], np.float32)
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error
    if len(votes) != classes or not np.isfinite(votes).all() or (votes < 0).any():
        raise FormatError(f"{where}: expected {classes} numbers of 0 or more after the id, found {row[1:]}")
    return votes
