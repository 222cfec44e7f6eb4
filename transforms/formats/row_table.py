"""Small tables written row by row, as Parquet or CSV, by the suffix of their name. CSV needs no pyarrow.

Not here: the tables of a run, which are sorted and split (`transforms/merge/`).
"""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from transforms.formats.publish import publish_file
from transforms.formats.spreadsheets import cell

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".csv")
ROWS_IN_MEMORY = 8_192  # of Parquet, which is written in groups of so many

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, what is in it, and whether a row may go without."""

    name: str
    kind: Literal["string", "int32", "int64", "float32", "float64"]
    nullable: bool = True


class RowWriter(Protocol):
    """What takes rows."""

    def add(self, rows: Sequence[Row]) -> None:
        """Appends rows; a value that is missing is null."""


def usual_suffix() -> str:
    """Returns `.parquet`, or `.csv` where pyarrow is not installed, as in the executable."""
    return ".parquet" if importlib.util.find_spec("pyarrow") is not None else ".csv"


@contextmanager
def new_table(path: str, columns: Sequence[Column]) -> Iterator[RowWriter]:
    """Yields a writer; if the block succeeds, its table appears as `path`, whole.

    Args:
        path: ends in one of `SUFFIXES`.

    Raises:
        StorageError: it cannot be written there.
    """
    with publish_file(path) as temporary:
        if os.path.splitext(path)[1].lower() == ".csv":
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                yield _Csv(file, columns)
            return
        writer = _Parquet(temporary, columns)
        try:
            yield writer
        finally:
            writer.close()


class _Csv:
    """Numbers are written so that reading them gives the same numbers; texts so that no spreadsheet runs them."""

    def __init__(self, file: TextIO, columns: Sequence[Column]) -> None:
        self._names = [column.name for column in columns]
        self._writer = csv.writer(file)
        self._writer.writerow(self._names)

    def add(self, rows: Sequence[Row]) -> None:
        """Appends rows."""
        self._writer.writerows([_in_a_cell(row.get(name)) for name in self._names] for row in rows)


def _in_a_cell(value: object) -> object:
    return cell(value) if isinstance(value, str) else value


class _Parquet:
    def __init__(self, path: str, columns: Sequence[Column]) -> None:
        import pyarrow.parquet as pq

        self._schema = arrow_schema(columns)
        self._writer: pq.ParquetWriter = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Appends rows."""
        self._rows += rows
        if len(self._rows) >= ROWS_IN_MEMORY:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        values = {name: [row.get(name) for row in self._rows] for name in self._schema.names}
        self._writer.write_table(pa.Table.from_pydict(values, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        """Writes what is left, and the end of the file."""
        try:
            if self._rows:
                self._flush()
        finally:
            self._writer.close()


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Returns the columns as Arrow describes them."""
    import pyarrow as pa

    return pa.schema(
        [pa.field(column.name, getattr(pa, column.kind)(), nullable=column.nullable) for column in columns]
    )
