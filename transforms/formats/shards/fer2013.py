"""Reads the CSV file of FER2013 as a shard: one row per image, with its pixels as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from transforms.formats.records import Entry, Limits, Member, Reason
from transforms.formats.shards.forward import damaged_entry, from_start, read_at, read_members
from transforms.formats.shards.loose_files import record_name, text_of
from transforms.formats.shards.parquet import NUMBER

_FER_SIDE = 48
_FER_PIXELS = _FER_SIDE * _FER_SIDE
_FER_LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_FER_HEADER = b"P5\n%d %d\n255\n" % (_FER_SIDE, _FER_SIDE)
_FER_BYTES = len(_FER_HEADER) + _FER_PIXELS
_MAX_LINE_BYTES = 2**16  # a row takes 10 kB at most
_CHUNK_BYTES = 2**20
_PIXEL = {b"%d" % value: value for value in range(256)}


@dataclass(frozen=True, slots=True)
class _FerColumns:
    """Positions of the columns; `usage` is -1 if there is none."""

    emotion: int
    pixels: int
    usage: int


def looks_like_fer2013(first_bytes: bytes) -> bool:
    """True if a CSV file starts with a header line that has the columns `emotion` and `pixels`."""
    return _fer_columns(first_bytes.partition(b"\n")[0]) is not None


def _fer_columns(header: bytes) -> _FerColumns | None:
    names = [_bare(name).lower() for name in header.removeprefix(b"\xef\xbb\xbf").split(b",")]
    if b"emotion" not in names or b"pixels" not in names:
        return None
    usage = names.index(b"usage") if b"usage" in names else -1
    return _FerColumns(names.index(b"emotion"), names.index(b"pixels"), usage)


def _bare(field: bytes) -> bytes:
    return field.strip().strip(b'"').strip()


class Fer2013Csv:
    """The CSV file of FER2013: one row per image of 48 by 48 grey pixels as numbers, with or without `Usage`.

    Each row is returned as a binary PGM picture. Names are `<Usage>/<row>`, rows counted from 0. `where` is (offset of
    the line, its bytes, row).
    """

    name = "fer2013"
    suffixes: tuple[str, ...] = (".csv",)
    sought = True

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Yields the rows in the file's order; pixels are checked only when they are read."""
        columns: _FerColumns | None = None
        row = 0
        for offset, line in _lines(file):
            if columns is None:
                columns = _fer_columns(line)
                if columns is None:
                    break
            elif line.strip():
                yield _fer_entry(line, (offset, len(line), row), columns)
                row += 1
        if columns is None:
            yield damaged_entry()

    def read(self, file: BinaryIO, entries: Sequence[Entry], limits: Limits) -> Iterator[Member]:
        """Yields one member for each of `entries`, in their order."""
        columns = _fer_columns(read_at(file, 0, 2**10).partition(b"\n")[0])

        def member_of(entry: Entry, line: bytes) -> Member:
            data = None if columns is None else _fer_picture(line, columns)
            return Member(entry.name, data, entry.label, Reason.DAMAGED_MEMBER if data is None else None)

        return read_members(file, entries, _fer_span, member_of)

    def stream(self, file: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yields all rows from first to last."""
        for entry in self.list(file, limits):
            yield from self.read(file, [entry], limits)


def _fer_span(entry: Entry) -> tuple[int, int]:
    return entry.where[0], entry.where[1]


def _fer_entry(line: bytes, where: tuple[int, int, int], columns: _FerColumns) -> Entry:
    fields = line.split(b",")
    name, label, reason = f"{where[2]:08d}", None, None
    if len(fields) <= max(columns.emotion, columns.pixels) or len(line) > _MAX_LINE_BYTES:
        return Entry(name, where, _FER_BYTES, reason=Reason.DAMAGED_MEMBER)
    code = _bare(fields[columns.emotion])
    if NUMBER.fullmatch(text_of(code)) and 0 <= int(code) < len(_FER_LABELS):
        label = _FER_LABELS[int(code)]
    if 0 <= columns.usage < len(fields) and (usage := _bare(fields[columns.usage])):
        name = f"{record_name(text_of(usage))}/{name}"
    return Entry(name, where, _FER_BYTES, label, reason)


def _fer_picture(line: bytes, columns: _FerColumns) -> bytes | None:
    """Returns a row's pixels as a PGM file, or None if they are not 48 by 48 numbers of 0 to 255."""
    fields = line.split(b",")
    if len(fields) <= columns.pixels:
        return None
    numbers = _bare(fields[columns.pixels]).split()
    if len(numbers) != _FER_PIXELS:
        return None
    try:
        return _FER_HEADER + bytes(map(_PIXEL.__getitem__, numbers))
    except KeyError:
        return None


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields offset and bytes of each line with its end; a very long line comes in pieces of bounded size."""
    stream = from_start(file)
    offset, held = 0, b""
    while chunk := stream.take(_CHUNK_BYTES):
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield offset, line + b"\n"
            offset += len(line) + 1
        if len(held) > _CHUNK_BYTES:
            yield offset, held
            offset, held = offset + len(held), b""
    if held:
        yield offset, held
