"""Rows in a file behave as the array that they stand for, and take no memory of their own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from models.training.stored_rows import RowsWriter, StoredRows, some_rows

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), np.uint8)


@pytest.fixture
def rows(tmp_path: Path) -> StoredRows:
    writer = RowsWriter(tmp_path)
    for row in PIXELS:
        writer.add(row)
    return writer.rows()


def test_rows_are_those_that_were_added(rows: StoredRows) -> None:
    assert (rows.shape, rows.dtype, len(rows)) == (PIXELS.shape, np.uint8, 7)
    assert np.array_equal(rows, PIXELS)
    assert np.array_equal(np.stack(list(rows)), PIXELS)


@pytest.mark.parametrize("index", [3, -1, slice(2, 5), [6, 0, 6], np.array([1, 2])])
def test_indexing_copies(rows: StoredRows, index: object) -> None:
    found = rows[index]
    assert np.array_equal(found, PIXELS[index])  # type: ignore[index]


def test_a_view_of_a_view(rows: StoredRows) -> None:
    some = some_rows(some_rows(rows, [6, 3, 1, 0]), [2, 0])
    assert isinstance(some, StoredRows)
    assert np.array_equal(some, PIXELS[[1, 6]])
    assert np.array_equal(some_rows(PIXELS, [2, 0]), PIXELS[[2, 0]])


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    writer = RowsWriter(tmp_path)
    writer.add(PIXELS[0])
    assert os.listdir(tmp_path) == []
    assert np.array_equal(writer.rows()[0], PIXELS[0])


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    writer = RowsWriter(tmp_path)
    writer.add(PIXELS[0])
    with pytest.raises(ValueError, match=r"rows have shape \(4, 5, 3\), not \(4, 5\)"):
        writer.add(PIXELS[0, :, :, 0])
