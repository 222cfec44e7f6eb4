"""Rows of pixels in a file: as many images as the disk holds, a batch of them in memory at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class StoredRows:
    """Some rows of an array in a file, in any order; indexing copies rows out of the file.

    Looks like a read-only array: `shape`, `dtype`, `len`, iteration and indexing by a number, a slice or numbers.
    """

    def __init__(self, stored: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Args: stored: (n, …), mapped from a file. rows: (m,) int, which of them; None for all."""
        self._stored = stored
        self._rows = np.arange(len(stored)) if rows is None else np.asarray(rows, np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that this stands for."""
        return (len(self._rows), *self._stored.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows."""
        return self._stored.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self._stored[self._rows[index]])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (np.asarray(self._stored[row]) for row in self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype)

    def take(self, rows: Sequence[int]) -> StoredRows:
        """Returns some of the rows, without copying them."""
        return StoredRows(self._stored, self._rows[np.asarray(rows, np.int64)])


Rows = np.ndarray | StoredRows


def some_rows(rows: Rows, chosen: Sequence[int]) -> Rows:
    """Returns these rows: a copy of an array's, a view of stored ones."""
    return rows.take(chosen) if isinstance(rows, StoredRows) else rows[list(chosen)]


class RowsWriter:
    """Writes equal rows to a file, one at a time.

    The file has no name once it is open, so that it goes with the process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the file.

        Args:
            folder: where there is room; it exists.

        Raises:
            OSError: the folder cannot be written.
        """
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `rows`, which maps it
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def add(self, row: np.ndarray) -> None:
        """Appends a row of uint8; all have one shape.

        Raises:
            OSError: the disk is full.
        """
        if self._count and row.shape != self._shape:
            raise ValueError(f"rows have shape {self._shape}, not {row.shape}")
        self._shape = row.shape
        self._file.write(np.ascontiguousarray(row, np.uint8).tobytes())
        self._count += 1

    def rows(self) -> StoredRows:
        """Returns what was written; nothing may be added afterwards.

        Raises:
            OSError: the disk is full.
        """
        with self._file:
            self._file.flush()
            return StoredRows(np.memmap(self._file, np.uint8, "r", shape=(self._count, *self._shape)))
