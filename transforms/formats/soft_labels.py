"""Soft labels: for an image, shares of classes that sum to 1, from annotators' votes or from a finished run.

A table of votes is a CSV with a header: the image's id first, then a column a class with counts or shares. Not here:
finished runs, by which any trained network can teach another one (`pipeline/run/soft_labels.py`), opening files
(`transforms/storage/store.py`), and what is learned from the shares.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from transforms.formats.records import FormatError


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """Shares of `classes` by image id: (classes,) float32 rows that sum to 1, or to 0 for an image without any."""

    classes: tuple[str, ...]
    shares: dict[str, np.ndarray]

    def of(self, image_id: str) -> np.ndarray | None:
        """Returns the shares of an image, found by its id or the end of it behind a slash; None without any."""
        while image_id:
            if image_id in self.shares:
                row = self.shares[image_id]
                return row if row.any() else None  # known to have none: not those of a shorter name
            image_id = image_id.partition("/")[2]
        return None

    def added(self, classes: tuple[str, ...], adding: np.ndarray) -> SoftLabels:
        """Returns shares of other classes: (classes, other classes) float32 says which ones are added to which."""
        rows = {image: row @ adding for image, row in self.shares.items()}
        return SoftLabels(classes, {image: row / (row.sum() or 1) for image, row in rows.items()})


def read_votes(file: BinaryIO, name: str) -> SoftLabels:
    """Returns the votes of a CSV file.

    Raises:
        FormatError: names the file and the line that does not fit, or whose id stood there before.
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
                        f"{where}: {row[0]!r} stands there twice; remove a line, or give each image an id"
                    )
                shares[row[0]] = votes / (votes.sum() or 1)
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
