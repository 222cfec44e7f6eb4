"""Reads a shard from first to last in large pieces, or neighbouring members in one read. For all archive formats.

Not here: image bytes (`decode/`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Protocol

from transforms.formats.records import Entry, Member, Reason
from transforms.formats.shards.loose_files import Skipped, clean_name, is_image_name, label_of

CHUNK_BYTES = 256 * 2**10  # a request to an object store costs as much as this many bytes
_RUN_BYTES = 16 * 2**20  # in memory together with its slices, so a quarter of a block
_GAP_BYTES = 64 * 2**10  # reading over a gap of this size is cheaper than a seek


class DamagedFileError(Exception):
    """The file is damaged from here on; everything read before is good."""


def damaged_entry() -> Entry:
    """Returns the entry that closes the listing of a damaged file."""
    return Entry("", (), 0, reason=Reason.DAMAGED_ARCHIVE)


def damaged_member() -> Member:
    """Returns the member that closes the stream of a damaged file."""
    return Member("", None, reason=Reason.DAMAGED_ARCHIVE)


class Readable(Protocol):
    """Any object that can be read from first to last."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes, b"" at the end."""
        ...


class Forward:
    """Reads from first to last in large pieces; skips by seeking if `seekable` is given, else by reading.

    Attributes:
        end: size of the file in bytes, or None if it is not seekable.
    """

    def __init__(self, source: Readable, *, seekable: BinaryIO | None = None, start: int = 0) -> None:
        self._source = source
        self._seekable = seekable
        self._base = start  # offset of the buffer's first byte
        self._buffer = b""
        self._at = 0
        self.end = None if seekable is None else seekable.seek(0, io.SEEK_END)

    @property
    def position(self) -> int:
        """Offset of the next byte."""
        return self._base + self._at

    def take(self, size: int) -> bytes:
        """Returns the next `size` bytes, or fewer at the end."""
        start, stop = self._at, self._at + size
        if stop > len(self._buffer):
            self._fill(size)
            start, stop = 0, size
        taken = self._buffer[start:stop]
        self._at = start + len(taken)
        return taken

    def skip(self, size: int) -> bool:
        """Moves forward by `size` bytes; False if the file ends first."""
        if self.end is not None and self._at + size > len(self._buffer):
            target = self.position + size
            self._base, self._buffer, self._at = min(target, self.end), b"", 0
            return target <= self.end
        while size > 0:
            step = len(self.take(min(size, CHUNK_BYTES)))
            if not step:
                return False
            size -= step
        return True

    def go_to(self, position: int) -> None:
        """Moves to another offset (only if the file is seekable)."""
        self._base, self._buffer, self._at = position, b"", 0

    def put_back(self, size: int) -> None:
        """Moves back by `size` of the bytes taken last."""
        self._at -= size

    def _fill(self, size: int) -> None:
        """Makes the buffer start at the current position and hold `size` bytes, if the file has that many."""
        pieces = [self._buffer[self._at :]]
        held = len(pieces[0])
        self._base, self._at = self.position, 0
        if self._seekable is not None:
            self._seekable.seek(self._base + held)  # others may have moved it since
        while held < size:
            piece = self._source.read(max(size - held, CHUNK_BYTES))
            if not piece:
                break
            pieces.append(piece)
            held += len(piece)
        self._buffer = b"".join(pieces)


def from_start(file: BinaryIO) -> Forward:
    """Returns a forward reader of a seekable file."""
    return Forward(file, seekable=file)


def read_members(
    file: BinaryIO,
    entries: Sequence[Entry],
    span_of: Callable[[Entry], tuple[int, int]],
    member_of: Callable[[Entry, bytes], Member],
) -> Iterator[Member]:
    """Yields a member for each entry; neighbours in the file are read together.

    Args:
        file: seekable.
        entries: those with a reason become members with that reason, unread.
        span_of: entry -> offset and size of the bytes to read.
        member_of: entry and those bytes (fewer if the file ends) -> member.
    """
    pieces = _read_spans(file, [span_of(entry) for entry in entries if entry.reason is None])
    for entry in entries:
        if entry.reason is None:
            yield member_of(entry, next(pieces))
        else:
            yield Member(entry.name, None, entry.label, entry.reason)


def _read_spans(file: BinaryIO, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    first = 0
    while first < len(spans):
        start, last, stop = spans[first][0], first, sum(spans[first])
        while last + 1 < len(spans) and _joins(spans[last + 1], start, stop):
            last += 1
            stop = max(stop, sum(spans[last]))
        run = read_at(file, start, stop - start)
        for offset, size in spans[first : last + 1]:
            yield run[offset - start : offset - start + size]
        first = last + 1


def _joins(span: tuple[int, int], start: int, stop: int) -> bool:
    offset, size = span
    return start <= offset <= stop + _GAP_BYTES and offset + size - start <= _RUN_BYTES


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Returns `size` bytes from `offset` on, or fewer if the file ends."""
    file.seek(offset)
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def entry_of_member(
    name: str, where: tuple[int, ...], size: int, *, fault: Reason | None, skipped: Skipped
) -> Entry | None:
    """Returns the entry of a member, or None if its name is not that of an image."""
    if not is_image_name(name):
        skipped.add(clean_name(name).text)
        return None
    clean = clean_name(name)
    if not clean.safe:
        return Entry(clean.text, where, size, None, Reason.UNSAFE_NAME)
    return Entry(clean.text, where, size, label_of(clean.text), fault)
