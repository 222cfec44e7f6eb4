"""Reads zip files as shards: lists members by the central directory, or by local headers if that is lost.

No name, size or offset is trusted: each is checked before anything is allocated, skipped or inflated. Damaged content
becomes a row with a reason; storage errors (`OSError`) pass through.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from transforms.formats.records import Entry, Limits, Member, Reason
from transforms.formats.shards.forward import (
    CHUNK_BYTES,
    DamagedFileError,
    Forward,
    damaged_entry,
    entry_of_member,
    from_start,
    read_at,
    read_members,
)
from transforms.formats.shards.gunzip import bare_inflater
from transforms.formats.shards.loose_files import Skipped, text_of

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_END64_MARK, _END64_LOCATOR_MARK, _DESCRIPTOR_MARK = b"PK\6\6", b"PK\6\7", b"PK\7\x08"
_END_BYTES, _END64_BYTES, _END64_LOCATOR_BYTES = 22, 56, 20
_MAX_COMMENT = 0xFFFF
_END_MARKS_TRIED = 16  # each costs a read; only a malicious comment holds more of them
_STATED = 1 << 16  # the end record has 16 bits for the number of members
_IN_ZIP64 = 0xFFFFFFFF
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_STORED, _DEFLATED = 0, 8
_DOS_FOLDER = 0x10
_UNICODE_PATH = 0x7075
_EXTRA_SLACK = 256  # what a local header commonly holds after its name


@dataclass(frozen=True, slots=True)
class _ZipItem:
    """A member as a header states it. `mode`: Unix mode or 0. `outside`: it would lie beyond the file's end."""

    name: bytes
    offset: int
    packed: int
    size: int
    method: int
    crc: int
    flags: int
    mode: int = 0
    outside: bool = False


class Zip:
    """A zip file: stored and deflated members, zip64.

    `where` is (offset of the local header, packed bytes, bytes, method, CRC-32). If the directory at the end is lost or
    damaged, members are found by their own headers from the start, and the listing ends with a damaged entry.

    Args:
        skipped: collects the members whose names are not those of images.
    """

    name = "zip"
    suffixes: tuple[str, ...] = (".zip",)
    sought = True

    def __init__(self, skipped: Skipped | None = None) -> None:
        self.skipped = skipped if skipped is not None else Skipped()

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Yields the members in the order of the directory; memory does not grow with their number if it is intact."""
        claims = _Claims(file)
        try:
            for item in _walk_directory(file):
                yield from _zip_entries(item, limits, self.skipped, overlaps=claims.overlaps(item))
        except DamagedFileError:
            listed = _listed_offsets(file)
            for item in _walk_local_headers(file):
                if item.offset not in listed:
                    yield from _zip_entries(item, limits, self.skipped)
            yield damaged_entry()

    def read(self, file: BinaryIO, entries: Sequence[Entry], limits: Limits) -> Iterator[Member]:
        """Yields one member for each of `entries`, in their order."""

        def member_of(entry: Entry, raw: bytes) -> Member:
            try:
                return Member(entry.name, _unpack(file, entry, raw, limits.max_image_bytes), entry.label)
            except _BadMemberError as fault:
                return Member(entry.name, None, entry.label, fault.reason)

        return read_members(file, entries, _span_in_zip, member_of)

    def stream(self, file: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yields all members in the order of the directory."""
        for entry in self.list(file, limits):
            yield from self.read(file, [entry], limits)


class _BadMemberError(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class _Claims:
    """Bounds the bytes that a directory can make us read: members that share bytes could make a small file take hours.

    Members of an intact archive claim each byte once. One wrong number in a directory claims bytes at most twice and
    loses only its own member, as checksums show. Beyond that, every member that shares bytes with another is refused.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = 2 * file.seek(0, io.SEEK_END)
        self._walked = 0
        self._overlapping: np.ndarray | None = None

    def overlaps(self, item: _ZipItem) -> bool:
        """True if the next member of the directory must be refused."""
        self._walked += 1
        self._left -= 0 if item.outside else item.packed
        if self._left >= 0:
            return False
        if self._overlapping is None:
            self._overlapping = _overlapping(self._file)
        return bool(self._overlapping[self._walked - 1])


def _overlapping(file: BinaryIO) -> np.ndarray:
    """Returns for each member of the directory whether another one claims its bytes too; takes 16 bytes per member."""
    starts, ends = array("q"), array("q")
    with suppress(DamagedFileError):
        for item in _walk_directory(file):
            inside = not item.outside
            starts.append(item.offset if inside else 0)
            ends.append(item.offset + _LOCAL.size + item.packed if inside else 0)
    start, end = np.asarray(starts), np.asarray(ends)
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    shares = np.zeros(len(order), bool)
    shares[1:] |= start[1:] < np.maximum.accumulate(end)[:-1]
    shares[:-1] |= start[1:] < end[:-1]
    found = np.empty_like(shares)
    found[order] = shares
    return found


def _zip_entries(item: _ZipItem, limits: Limits, skipped: Skipped, *, overlaps: bool = False) -> Iterator[Entry]:
    name = _zip_name(item)
    if name.endswith(("/", "\\")):
        return
    fault = None
    if item.outside or overlaps:
        fault = Reason.DAMAGED_MEMBER
    elif item.mode and stat.S_IFMT(item.mode) not in (0, stat.S_IFREG):
        fault = Reason.NOT_A_FILE
    elif item.flags & _ENCRYPTED or item.method not in (_STORED, _DEFLATED):
        fault = Reason.UNSUPPORTED_COMPRESSION
    elif max(item.size, item.packed) > limits.max_image_bytes:
        fault = Reason.TOO_MANY_BYTES
    where = (item.offset, item.packed, item.size, item.method, item.crc)
    entry = entry_of_member(name, where, item.size, fault=fault, skipped=skipped)
    if entry is not None:
        yield entry


def _zip_name(item: _ZipItem) -> str:
    """Returns the name as text. Without the UTF-8 flag, many tools still write UTF-8, and old ones code page 437."""
    if not item.flags & _UTF8:
        try:
            return item.name.decode("utf-8")
        except UnicodeDecodeError:
            return item.name.decode("cp437")
    return text_of(item.name)


def _listed_offsets(file: BinaryIO) -> set[int]:
    """Returns the offsets of the members that a damaged directory lists, in any order."""
    offsets: set[int] = set()
    with suppress(DamagedFileError):
        offsets.update(item.offset for item in _walk_directory(file))
    return offsets


def _walk_directory(file: BinaryIO) -> Iterator[_ZipItem]:
    start, size, shift, stated = _find_directory(file)
    # Archive Utility of macOS writes offsets above 4 GB without their upper half, members in their order
    wraps = shift > 0 and shift % 2**32 == 0 and read_at(file, 0, 4) == _LOCAL_MARK
    shift = 0 if wraps else shift
    walked = turns = before = 0
    stream = Forward(file, seekable=file, start=start)
    while stream.position < start + size:
        fixed = stream.take(_CENTRAL.size)
        if len(fixed) < _CENTRAL.size or fixed[:4] != _CENTRAL_MARK:
            raise DamagedFileError("the directory of the zip file is damaged")
        (_, made_by, _, flags, method, _, _, crc, packed, full, name_len, extra_len, comment_len, _, _, attributes,
         offset) = _CENTRAL.unpack(fixed)  # fmt: skip
        name, extra = stream.take(name_len), stream.take(extra_len)
        if len(name) + len(extra) < name_len + extra_len or not stream.skip(comment_len):
            raise DamagedFileError("the directory of the zip file is truncated")
        full, packed, offset = _zip64(extra, [full, packed, offset])
        if wraps:
            turns += offset < before
            before, offset = offset, offset + turns * 2**32
        if attributes & _DOS_FOLDER and not full and not name.endswith(b"/"):
            name += b"/"
        if unicode := _unicode_path(name, extra):
            name, flags = unicode, flags | _UTF8
        mode = attributes >> 16 if made_by >> 8 == 3 else 0  # 3: made on Unix
        outside = offset + shift + packed > start
        walked += 1
        yield _ZipItem(name, offset + shift, packed, full, method, crc, flags, mode, outside)
    if walked % _STATED != stated % _STATED:  # above 65,535 members, old tools state the remainder
        raise DamagedFileError("the directory of the zip file states another number of members than it lists")


def _find_directory(file: BinaryIO) -> tuple[int, int, int, int]:
    """Returns the directory's offset and size, the shift to add to every offset in it, and its number of members."""
    file_bytes = file.seek(0, io.SEEK_END)
    tail_start = max(0, file_bytes - _END_BYTES - _MAX_COMMENT - _END64_LOCATOR_BYTES - _END64_BYTES)
    tail = read_at(file, tail_start, file_bytes - tail_start)
    for at in _end_records(tail):
        found = _directory_before(file, tail, tail_start, at)
        if found is not None:
            return found
    raise DamagedFileError("the zip file has no directory, or a damaged one")


def _directory_before(file: BinaryIO, tail: bytes, tail_start: int, at: int) -> tuple[int, int, int, int] | None:
    """Returns what `_find_directory` returns, if the end record at `at` points to a directory."""
    stated, size, offset = struct.unpack_from("<H2I", tail, at + 10)
    at64 = at - _END64_LOCATOR_BYTES - _END64_BYTES
    marks = (tail[at64 : at64 + 4], tail[at64 + _END64_BYTES :][:4]) if at64 >= 0 else ()
    if marks == (_END64_MARK, _END64_LOCATOR_MARK):
        stated, size, offset = struct.unpack_from("<3Q", tail, at64 + 32)
        at = at64
    start = tail_start + at - size
    if start < offset:  # data before a zip file shift everything, but never to the left
        return None
    stands = start == 0 == stated if size == 0 else read_at(file, start, 4) == _CENTRAL_MARK
    return (start, size, start - offset, stated) if stands else None


def _end_records(tail: bytes) -> Iterator[int]:
    """Yields possible offsets of end records, from last to first; those whose comment ends with the file come first."""
    places = []
    at = tail.rfind(_END_MARK)
    while at >= 0:
        if at + _END_BYTES <= len(tail):
            places.append(at)
        at = tail.rfind(_END_MARK, 0, at)
    ends = [at for at in places if at + _END_BYTES + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)]
    yield from [*ends, *(at for at in places if at not in ends)][:_END_MARKS_TRIED]


def _unicode_path(name: bytes, extra: bytes) -> bytes | None:
    """Returns the UTF-8 name that Info-ZIP's extra field states for exactly this name, or None."""
    at = 0
    while at + 4 <= len(extra):
        tag, size = struct.unpack_from("<2H", extra, at)
        if tag == _UNICODE_PATH and 5 <= size <= len(extra) - at - 4:
            version, crc = struct.unpack_from("<BI", extra, at + 4)
            return extra[at + 9 : at + 4 + size] if version == 1 and crc == zlib.crc32(name) else None
        at += 4 + size
    return None


def _zip64(extra: bytes, values: list[int]) -> list[int]:
    """Returns the values with those that did not fit into 32 bits taken from the extra field."""
    if _IN_ZIP64 not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        tag, size = struct.unpack_from("<2H", extra, at)
        if tag == 1 and at + 4 + size <= len(extra):
            stored = iter(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
            return [next(stored, value) if value == _IN_ZIP64 else value for value in values]
        at += 4 + size
    return values  # exactly 4 GB - 1


def _walk_local_headers(file: BinaryIO) -> Iterator[_ZipItem]:
    """Yields the members found by their own headers, up to the first that is damaged or truncated."""
    stream = from_start(file)
    assert stream.end is not None
    while True:
        start, fixed = stream.position, stream.take(_LOCAL.size)
        if len(fixed) < _LOCAL.size or fixed[:4] != _LOCAL_MARK:
            return
        _, _, flags, method, _, _, crc, packed, size, name_len, extra_len = _LOCAL.unpack(fixed)
        name, extra = stream.take(name_len), stream.take(extra_len)
        size, packed = _zip64(extra, [size, packed])
        if flags & _SIZES_FOLLOW and not packed:
            measured = _measure(stream) if method == _DEFLATED and not flags & _ENCRYPTED else None
            if measured is None:
                return
            crc, packed, size = measured
        elif stream.position + packed > stream.end or not stream.skip(packed):
            return
        yield _ZipItem(name, start, packed, size, method, crc, flags)
        if flags & _SIZES_FOLLOW:
            _skip_descriptor(stream)


def _measure(stream: Forward) -> tuple[int, int, int] | None:
    """Returns CRC-32, packed and full size of a deflated member that states them after its data; None if damaged."""
    inflate, crc, size, start, packed_bytes = bare_inflater(), 0, 0, stream.position, b""
    while not inflate.eof:
        packed_bytes = packed_bytes or stream.take(CHUNK_BYTES)
        if not packed_bytes:
            return None
        try:
            piece = inflate.decompress(packed_bytes, CHUNK_BYTES)
        except zlib.error:
            return None
        packed_bytes, crc, size = inflate.unconsumed_tail, zlib.crc32(piece, crc), size + len(piece)
    packed = stream.position - start - len(inflate.unused_data)
    stream.go_to(start + packed)
    return crc, packed, size


def _skip_descriptor(stream: Forward) -> None:
    """Skips the sizes that follow a member: with or without a mark, in 32 or 64 bits."""
    start = stream.position
    ahead = stream.take(28)
    lengths = (16, 24) if ahead.startswith(_DESCRIPTOR_MARK) else (12, 20)
    fits = [n for n in lengths if ahead[n : n + 4] in (_LOCAL_MARK, _CENTRAL_MARK)]
    stream.go_to(start + (fits[0] if fits else 0))


def _span_in_zip(entry: Entry) -> tuple[int, int]:
    offset, packed, *_ = entry.where
    return offset, _LOCAL.size + 2 * len(entry.name) + _EXTRA_SLACK + packed


def _unpack(file: BinaryIO, entry: Entry, raw: bytes, max_bytes: int) -> bytes:
    """Returns the bytes of a member; `raw` starts with its local header and may end before its data do.

    Raises:
        _BadMemberError: it expands too far, is truncated, or its checksum is wrong.
    """
    offset, packed, size, method, crc = entry.where
    if len(raw) < _LOCAL.size or raw[:4] != _LOCAL_MARK:
        raise _BadMemberError(Reason.DAMAGED_MEMBER)
    name_len, extra_len = struct.unpack_from("<2H", raw, 26)
    start = _LOCAL.size + name_len + extra_len
    body = raw[start : start + packed]
    if len(body) < packed:  # an extra field longer than the slack
        body = read_at(file, offset + start, packed)
    data = body if method == _STORED else _inflate(body, max_bytes)
    if len(data) != size or zlib.crc32(data) != crc:
        raise _BadMemberError(Reason.DAMAGED_MEMBER)
    return data


def _inflate(packed: bytes, max_bytes: int) -> bytes:
    inflate = bare_inflater()
    try:
        data = inflate.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise _BadMemberError(Reason.DAMAGED_MEMBER) from error
    if len(data) > max_bytes:
        raise _BadMemberError(Reason.TOO_MANY_BYTES)
    if not inflate.eof:
        raise _BadMemberError(Reason.DAMAGED_MEMBER)
    return data
