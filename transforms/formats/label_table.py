"""Labels from a table: a CSV with a header, one row per image, such as the `train.csv` of a contest.

Not here: shares of several classes for one image (`soft_labels.py`), opening files (`transforms/storage/store.py`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from transforms.formats.class_names import class_name
from transforms.formats.records import FormatError

LABELS_COME = "labels come from class folders, or from a CSV file with --set read.labels=FILE"
ID_COLUMNS = ("id", "image_id", "image", "image_name", "filename", "file_name", "file", "path", "name")
LABEL_COLUMNS = ("label", "class", "category", "emotion", "expression", "target")


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Labels by image id. An empty label means that the image has none."""

    labels: dict[str, str]

    def of(self, image_id: str) -> str | None:
        """Returns the label of an image, or None.

        The longest row name that fits decides. A row names an image by its id or by the end of it after a slash, with
        or without the extension: `train.zip/a/7.png` is found as `train.zip/a/7.png`, `a/7.png`, `7.png`, `a/7` or `7`.
        """
        rest = image_id
        while rest:
            for name in (rest, str(PurePosixPath(rest).with_suffix(""))):
                if name in self.labels:
                    return self.labels[name] or None
            rest = rest.partition("/")[2]
        return None


def read_label_table(file: BinaryIO, name: str, column: str | None = None) -> LabelTable:
    """Returns the labels of a CSV file.

    Args:
        file: the CSV, UTF-8, with a header.
        name: of the file, for messages.
        column: the column of labels; None finds it by its usual names, or takes the second of two.

    Raises:
        FormatError: the file is not such a table, or one image has two labels; names file and line.
    """
    try:
        rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
        header = [title.strip() for title in next(rows, [])]
        ids, labels = _columns(header, name, column)
        found: dict[str, str] = {}
        for row in rows:
            if any(row):
                _add(found, row, header, (ids, labels), f"{name}, line {rows.line_num}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{name} is not a CSV file in UTF-8: {error}") from error
    if not found:
        raise FormatError(f"{name} has a header but no rows; add one row per image")
    return LabelTable(found)


def _columns(header: Sequence[str], name: str, column: str | None) -> tuple[int, int]:
    """Returns the positions of the columns of ids and of labels."""
    if len(header) < 2:
        raise FormatError(f"{name}: expected a header with a column of ids and one of labels, found {list(header)}")
    lowered = [title.lower() for title in header]
    ids = next((lowered.index(title) for title in ID_COLUMNS if title in lowered), 0)
    if column is not None:
        if column not in header:
            raise FormatError(f"{name}: no column {column!r} (read.label_column); it has {', '.join(header)}")
        return ids, header.index(column)
    usual = next((lowered.index(title) for title in LABEL_COLUMNS if title in lowered), None)
    if usual is None and len(header) == 2:
        usual = 1 - ids
    if usual is None:
        raise FormatError(f"{name}: which column holds the labels? Set read.label_column to one of {', '.join(header)}")
    return ids, usual


def _add(
    found: dict[str, str], row: Sequence[str], header: Sequence[str], columns: tuple[int, int], where: str
) -> None:
    if len(row) != len(header):
        raise FormatError(f"{where}: expected {len(header)} columns, found {len(row)}")
    image, label = (row[place].strip() for place in columns)
    if not image:
        raise FormatError(f"{where}: the id is empty")
    label = class_name(label)
    if found.setdefault(image, label) != label:
        raise FormatError(f"{where}: {image!r} has two labels, {found[image]!r} and {label!r}; keep one")
