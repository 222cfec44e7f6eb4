"""Recall by what the table of known faces says of a face: skin, age, sex, pose, or any other column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation.detection import Judgement
from pipeline.errors import UsageError
from pipeline.report.known_and_found import Compared
from transforms.formats.annotations import Annotations

MOST_GROUPS = 50  # of a column: more are names or numbers, not groups


@dataclass(frozen=True, slots=True)
class GroupRecall:
    """How many of the faces with one value in a column were found; only faces that count."""

    column: str
    value: str
    faces: int
    found: int

    @property
    def recall(self) -> float:
        """The share of them that was found."""
        return self.found / self.faces


def check_groups(table: Annotations) -> None:
    """Raises UsageError for a column of --by with more than `MOST_GROUPS` values."""
    for number, column in enumerate(table.columns):
        values = {cells[number] for faces in table.faces.values() for cells in faces.cells}
        if len(values) > MOST_GROUPS:
            raise UsageError(
                f"--by {column}: that column has {len(values)} values; give one with at most {MOST_GROUPS}"
            )


def recall_by_group(compared: Compared, judged: Judgement) -> list[GroupRecall]:
    """Returns a line for each value of each column that was asked for, in the order of the values."""
    places = list(zip(judged.face_image.tolist(), judged.face_row.tolist(), strict=True))
    groups: list[GroupRecall] = []
    for number, column in enumerate(compared.columns):
        values = np.asarray([compared.cells[image][row][number] for image, row in places], dtype=np.str_)
        groups += _of_column(column, values, judged)
    return groups


def _of_column(column: str, values: np.ndarray, judged: Judgement) -> Sequence[GroupRecall]:
    distinct = np.unique(values[judged.counts]).tolist()
    chosen = [judged.counts & (values == value) for value in distinct]
    return [
        GroupRecall(column, value, int(some.sum()), int(judged.found[some].sum()))
        for value, some in zip(distinct, chosen, strict=True)
    ]
