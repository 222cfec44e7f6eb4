"""Reads Parquet files with a column of encoded images as shards.

Not here: the Parquet files that this product writes.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.formats.records import Entry, FormatError, Limits, Member, NoImagesHere, Reason
from transforms.formats.shards.forward import damaged_entry
from transforms.formats.shards.loose_files import record_name, text_of

_IMAGE_COLUMNS = ("image", "img", "bytes", "image_bytes", "data", "content", "jpg", "jpeg", "png", "webp", "picture")
_NAME_COLUMNS = ("path", "filename", "file_name", "image_id", "id", "name")
_LABEL_COLUMNS = ("label", "class", "emotion")
NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)  # of a class; anything longer is a name
_ROWS_AT_ONCE = 32  # bounds memory where a row group is large
_DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError)  # what Arrow raises for damaged bytes
_BUFFER_BYTES = 2**20  # per column while it is read page by page


@dataclass(frozen=True, slots=True)
class _Columns:
    """The roles of the columns; `classes` has the names of numeric labels, if the file states them."""

    image: str
    nested: bool
    name: str | None
    label: str | None
    classes: tuple[str, ...]

    def wanted(self) -> list[str]:
        """Returns the columns to read."""
        return [column for column in (self.image, self.name, self.label) if column is not None]


class ParquetImages:
    """A Parquet file with one row per image.

    The image column has binary type, or is a struct with a field `bytes`, as Hugging Face writes it. It is found by its
    usual names; otherwise it must be the only such column. Names come from the struct's `path` or a column (path,
    filename, …); otherwise they are row numbers. Hugging Face's metadata, if any, give numeric labels their names.

    `where` is (row,). The size of an entry is the mean over its row group; its own size is known once it is read.
    Rows are read page by page from the start of their row group, so files with small row groups read fastest.
    """

    name = "parquet"
    suffixes: tuple[str, ...] = (".parquet",)
    sought = True

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Yields one nameless entry per row, from the file's footer alone.

        Raises:
            NoImagesHere: the file is intact, but no column can hold images.
            FormatError: several columns can, and none has a usual name.
        """
        try:
            table = _open(file)
        except _DamagedTableError:
            yield damaged_entry()
            return
        for group in table.groups:
            for row in range(group.first, group.first + group.rows):
                yield Entry("", (row,), group.mean_bytes)

    def read(self, file: BinaryIO, entries: Sequence[Entry], limits: Limits) -> Iterator[Member]:
        """Yields one member for each of `entries`, in their order."""
        return _read_rows(file, entries, limits)

    def stream(self, file: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yields all rows from first to last."""
        yield from _read_rows(file, self.list(file, limits), limits)


class _DamagedTableError(Exception):
    """The Parquet file cannot be parsed from here on."""


class _Watched:
    """A file that remembers its own errors: Arrow raises `OSError` both for damage and for failing storage."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.fault: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.fault = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        """Does nothing: whoever opened the file closes it."""

    def judge(self, error: Exception) -> NoReturn:
        """Raises the real cause: the storage's own error, or damage."""
        if self.fault is not None:
            raise self.fault
        raise _DamagedTableError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """`first` row, number of `rows`, and the mean size of a row in bytes."""

    first: int
    rows: int
    mean_bytes: int


@dataclass(frozen=True, slots=True)
class _Table:
    """An opened Parquet file with a plausible footer."""

    file: _Watched
    parquet: pq.ParquetFile
    columns: _Columns
    groups: tuple[_RowGroup, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(group.rows for group in self.groups)


def _open(file: BinaryIO) -> _Table:
    watched = _Watched(file)
    try:
        parquet = pq.ParquetFile(watched, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
        columns = _find_columns(parquet.schema_arrow)
        groups = tuple(_row_groups(parquet.metadata))
    except _DAMAGE as error:
        watched.judge(error)
    return _Table(watched, parquet, columns, groups)


def _row_groups(metadata: Any) -> Iterator[_RowGroup]:
    """Yields the row groups. A footer has no checksum, so its numbers are checked against each other.

    It does not touch a row group's columns: if they are damaged, pyarrow 25 ends the process.
    """
    first = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows < 0:
            raise _DamagedTableError("a row group has a negative number of rows")
        yield _RowGroup(first, group.num_rows, max(0, group.total_byte_size) // max(1, group.num_rows))
        first += group.num_rows
    if first != metadata.num_rows:
        raise _DamagedTableError("the row groups contradict the footer")


def _find_columns(schema: pa.Schema) -> _Columns:
    image = _image_column(schema)
    name, label = (_column_called(usual, schema) for usual in (_NAME_COLUMNS, _LABEL_COLUMNS))
    nested = pa.types.is_struct(schema.field(image).type)
    return _Columns(image, nested, name, label, _class_names(schema, label))


def _column_called(usual: Sequence[str], schema: pa.Schema) -> str | None:
    """Returns the column with the first of these names; a name that two columns share is ignored."""
    for name in usual:
        column = _called(name, schema.names)
        if column is not None and _names_rows(schema.field(column).type):
            return column
    return None


def _called(name: str, columns: Sequence[str]) -> str | None:
    """Returns the only column of exactly this name, else the only one in another case; None if several or none fit."""
    for alike in (columns, [column.casefold() for column in columns]):
        if name in alike:
            return columns[alike.index(name)] if alike.count(name) == 1 else None
    return None


def _image_column(schema: pa.Schema) -> str:
    alike = [field.name for field in schema if _holds_bytes(field.type) or _is_image_struct(field.type)]
    fit = [name for name in alike if schema.names.count(name) == 1]
    if not alike:
        raise NoImagesHere(f"a table without images: {', '.join(schema.names) or 'no columns'}")
    for usual in _IMAGE_COLUMNS:
        column = _called(usual, fit)
        if column is not None:
            return column
    structs = [column for column in fit if _is_image_struct(schema.field(column).type)]
    if len(structs) == 1 or len(fit) == 1:
        return str((structs or fit)[0])
    raise FormatError(
        f"a Parquet file has no column of images among {', '.join(schema.names)}; "
        f"rename the column with the images to one of {', '.join(_IMAGE_COLUMNS)}"
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_image_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)


def _names_rows(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_one(kind) for is_one in (*texts, pa.types.is_integer, pa.types.is_boolean))


def _class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...]:
    """Returns the names of numeric labels from Hugging Face's metadata, or an empty tuple."""
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None or label is None:
        return ()
    try:
        names = json.loads(stored)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


class _Rows:
    """Gives rows of a table, cheaply if requested in ascending order; holds a few rows at a time."""

    def __init__(self, table: _Table) -> None:
        self.columns = table.columns
        self._table = table
        self._group: _RowGroup | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._first = 0  # number of the batch's first row in the table
        self._lost = range(0)  # rows after the last damage found, not tried again

    def at(self, row: int) -> tuple[pa.RecordBatch, int]:
        """Returns a batch, and the row's position in it.

        Raises:
            _DamagedTableError: the row is in or after a damaged page of its row group.
        """
        if row in self._lost or not 0 <= row < self._table.rows:
            raise _DamagedTableError(f"row {row} cannot be read")
        if self._group is None or not self._first <= row < self._group.first + self._group.rows:
            self._group = self._start_group(row)
        while self._batch is None or row >= self._first + self._batch.num_rows:
            self._first += 0 if self._batch is None else self._batch.num_rows
            self._batch = self._next_batch(self._group)
        return self._batch, row - self._first

    def _start_group(self, row: int) -> _RowGroup:
        number = bisect_right(self._table.groups, row, key=lambda group: group.first) - 1
        group = self._table.groups[number]
        self._first, self._batch = group.first, None
        self._batches = self._table.parquet.iter_batches(
            _ROWS_AT_ONCE, row_groups=[number], columns=self.columns.wanted(), use_threads=False
        )
        return group

    def _next_batch(self, group: _RowGroup) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except (StopIteration, *_DAMAGE) as error:
            self._group, self._lost = None, range(self._first, group.first + group.rows)
            self._table.file.judge(error)


def _read_rows(file: BinaryIO, entries: Iterable[Entry], limits: Limits) -> Iterator[Member]:
    rows: _Rows | None = None
    for entry in entries:
        if entry.reason is not None:
            yield Member(entry.name, None, entry.label, entry.reason)
            continue
        row = entry.where[0]
        try:
            rows = rows or _Rows(_open(file))
            batch, position = rows.at(row)
        except _DamagedTableError:
            yield Member(f"{row:08d}", None, reason=Reason.DAMAGED_MEMBER)
            continue
        yield _row_member(batch, position, row, columns=rows.columns, limits=limits)


def _row_member(batch: pa.RecordBatch, position: int, row: int, *, columns: _Columns, limits: Limits) -> Member:
    image, path = batch.column(columns.image)[position], None
    if columns.nested and image.is_valid:
        path = _text(image["path"]) if any(field.name == "path" for field in image.type) else None
        image = image["bytes"]
    if not path and columns.name is not None:
        path = _text(batch.column(columns.name)[position])
    name = record_name(path) if path else f"{row:08d}"
    label = None if columns.label is None else _class(batch.column(columns.label)[position], columns.classes)
    if not image.is_valid:
        return Member(name, None, label, Reason.DAMAGED_MEMBER)
    data = image.as_buffer()
    if data.size > limits.max_image_bytes:
        return Member(name, None, label, Reason.TOO_MANY_BYTES)
    return Member(name, data.to_pybytes(), label)


def _text(scalar: Any) -> str | None:
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.BinaryScalar):  # includes strings, which may hold invalid UTF-8
        return text_of(scalar.as_buffer().to_pybytes())
    return str(scalar.as_py())


def _class(scalar: Any, names: tuple[str, ...]) -> str | None:
    text = _text(scalar)
    if text is None or text == "":
        return None
    if names and NUMBER.fullmatch(text):
        number = int(text)
        if number < 0:
            return None  # Hugging Face's value for "not known"
        return names[number] if number < len(names) else text
    return text
