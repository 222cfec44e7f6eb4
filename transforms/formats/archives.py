"""Tar, gzipped tar and zip archives as shards: listing, reading of neighbours at one go, streaming.

Every name, size and offset in an archive is a claim: nothing is allocated, skipped or inflated on its word alone. A
fault of content ends in a row with a reason; a fault of the storage (`OSError`) passes through.

Not here: TFRecord files (`tfrecords.py`), which lean on the same forward reading; image bytes (`decode.py`).
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np

from transforms.formats.loose_files import Skipped, clean_name, is_image_name, label_of, text_of
from transforms.formats.records import Entry, FormatError, Limits, Member, Reason

_CHUNK_BYTES = 256 * 2**10  # a request to an object store costs as much as this many bytes
_PACKED_BYTES = 16 * 2**10  # fed to zlib at once: where they are damaged, all that is in them is lost
_RUN_BYTES = 16 * 2**20  # held beside its slices, so a quarter of a block
_GAP_BYTES = 64 * 2**10  # reading over a gap of this size is cheaper than a seek


class DamagedFileError(Exception):
    """The file is not what it claims to be from here on; what was read before is good."""


def damaged_entry() -> Entry:
    """Returns the entry that closes the listing of a damaged file."""
    return Entry("", (), 0, reason=Reason.DAMAGED_ARCHIVE)


def damaged_member() -> Member:
    """Returns the member that closes the stream of a damaged file."""
    return Member("", None, reason=Reason.DAMAGED_ARCHIVE)


# --- reading ----------------------------------------------------------------------------------------------------------


class Readable(Protocol):
    """Whatever gives bytes from first to last."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes, b"" at the end."""
        ...


class Forward:
    """Reads from first to last in large pieces; skips by seeking if `seekable` is given, else by reading on.

    Attributes:
        end: size of the file in bytes, or None where it cannot be sought.
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
        """Returns the next `size` bytes, fewer only at the end."""
        start, stop = self._at, self._at + size
        if stop > len(self._buffer):
            self._fill(size)
            start, stop = 0, size
        taken = self._buffer[start:stop]
        self._at = start + len(taken)
        return taken

    def skip(self, size: int) -> bool:
        """Goes on by `size` bytes; False if the end came first."""
        if self.end is not None and self._at + size > len(self._buffer):
            target = self.position + size
            self._base, self._buffer, self._at = min(target, self.end), b"", 0
            return target <= self.end
        while size > 0:
            step = len(self.take(min(size, _CHUNK_BYTES)))
            if not step:
                return False
            size -= step
        return True

    def go_to(self, position: int) -> None:
        """Goes on from another offset (only where the file can be sought)."""
        self._base, self._buffer, self._at = position, b"", 0

    def put_back(self, size: int) -> None:
        """Goes back by `size` of the bytes taken last."""
        self._at -= size

    def _fill(self, size: int) -> None:
        """Makes the buffer start at the current position and hold `size` bytes, if there are so many."""
        pieces = [self._buffer[self._at :]]
        held = len(pieces[0])
        self._base, self._at = self.position, 0
        if self._seekable is not None:
            self._seekable.seek(self._base + held)  # others may have moved it since
        while held < size:
            piece = self._source.read(max(size - held, _CHUNK_BYTES))
            if not piece:
                break
            pieces.append(piece)
            held += len(piece)
        self._buffer = b"".join(pieces)


def from_start(file: BinaryIO) -> Forward:
    """Returns a forward reader of a seekable file."""
    return Forward(file, seekable=file)


class Gunzip:
    """The bytes inside a gzip file, all its members; memory is bounded by what is asked for.

    Frames are taken apart here rather than by zlib, which hands out nothing of a piece whose check sum is wrong: what
    was whole before the damage shall be had. `read` raises DamagedFileError where the file is cut, its check sum is
    wrong, or it is no gzip file.
    """

    def __init__(self, file: Readable) -> None:
        self._raw = Forward(file)
        self._packed = b""
        self._inflate = _inflater()
        self._crc, self._size = 0, 0
        self._inside = False
        self._begun = False
        self._sound = True

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes, b"" only at the proper end."""
        while self._sound:
            if not self._inside and not self._start_member():
                return b""
            if piece := self._decompress(size):
                return piece
        raise DamagedFileError("the check sum of the gzip stream is wrong")

    def _start_member(self) -> bool:
        """Reads a member's header; False at the end of the file."""
        padding = True
        while self._begun and padding:  # zeros between members are legal
            piece = self._raw.take(_PACKED_BYTES)
            rest = piece.lstrip(b"\0")
            self._raw.put_back(len(rest))
            padding = bool(piece) and not rest
        head = self._raw.take(10)
        if not head and self._begun:
            return False
        if len(head) < 10 or head[:3] != b"\x1f\x8b\x08":
            raise DamagedFileError("this is no gzip stream")
        flags = head[3]
        if flags & 0x04:
            self._raw.take(int.from_bytes(self._raw.take(2), "little"))
        for _ in range((flags >> 3 & 1) + (flags >> 4 & 1)):  # a name, a comment
            while self._raw.take(1) not in (b"\0", b""):
                pass
        if flags & 0x02:
            self._raw.take(2)
        self._inflate, self._crc, self._size = _inflater(), 0, 0
        self._inside = self._begun = True
        return True

    def _decompress(self, size: int) -> bytes:
        self._packed = self._packed or self._raw.take(_PACKED_BYTES)
        at_end = not self._packed
        try:
            piece = self._inflate.decompress(self._packed, size)
        except zlib.error as error:
            raise DamagedFileError(f"the gzip stream is damaged: {error}") from error
        self._packed = self._inflate.unconsumed_tail
        self._crc, self._size = zlib.crc32(piece, self._crc), self._size + len(piece)
        if self._inflate.eof:
            self._raw.put_back(len(self._inflate.unused_data))
            self._packed, self._inside = b"", False
            self._sound = self._raw.take(8) == struct.pack("<2I", self._crc, self._size & 0xFFFFFFFF)
        elif at_end and not piece:
            raise DamagedFileError("the gzip stream is cut")
        return piece


def _inflater() -> zlib._Decompress:
    return zlib.decompressobj(-15)  # a bare deflate stream


def read_members(
    file: BinaryIO,
    entries: Sequence[Entry],
    span_of: Callable[[Entry], tuple[int, int]],
    member_of: Callable[[Entry, bytes], Member],
) -> Iterator[Member]:
    """Yields a member for each entry; those that lie next to each other are read at one go.

    Args:
        file: seekable.
        entries: those with a reason become members with that reason, unread.
        span_of: entry -> offset and size of what must be read of it.
        member_of: entry and the bytes of its span (fewer if the file ends) -> member.
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
    """Returns `size` bytes from `offset` on, fewer only where the file ends."""
    file.seek(offset)
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


# --- tar --------------------------------------------------------------------------------------------------------------

_BLOCK = 512
_END = bytes(_BLOCK)
_MAX_NAME_BLOCK = 2**20  # a long name or a set of PAX records; real ones take hundreds of bytes
_MAX_DIGITS = 18  # of a number of bytes
_LONG_NAME, _LONG_LINK, _PAX, _PAX_SUN, _PAX_GLOBAL = b"L", b"K", b"x", b"X", b"g"
_FOLDER, _DUMP_FOLDER, _VOLUME, _SPARSE = b"5", b"D", b"V", b"S"
_NO_FILE = frozenset({b"1", b"2", b"3", b"4", b"6", b"M"})  # links, devices, pipes, the rest of another volume
_HAS_NO_DATA = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})


@dataclass(frozen=True, slots=True)
class _TarItem:
    """A member whose data come next: raw name, type, bytes, and whether it is stored with holes."""

    name: bytes
    kind: bytes
    size: int
    sparse: bool


def looks_like_tar(first_bytes: bytes) -> bool:
    """True if a file starts with a tar header whose check sum is right."""
    try:
        _check_header(first_bytes[:_BLOCK])
    except DamagedFileError:
        return False
    return True


def _walk_tar(stream: Forward) -> Iterator[_TarItem]:
    """Yields members; whoever takes no data, or less than there are, need not skip the rest.

    Behind the end of an archive another one may stand, as `cat a.tar b.tar` makes it; what else is there is padding.

    Raises:
        DamagedFileError: a header is wrong, a member is cut off, or the mark of the end is missing.
    """
    named: dict[bytes, bytes] = {}
    everywhere: dict[bytes, bytes] = {}
    while True:
        block = stream.take(_BLOCK)
        if block == _END:
            block = _header_behind(stream)
            if not block:
                return
            named, everywhere = {}, {}
        kind, size = _check_header(block), _number(block[124:136])
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_SUN, _PAX_GLOBAL):
            text = _take_padded(stream, size)
            if kind == _LONG_NAME:
                named[b"path"] = text.split(b"\0", 1)[0]
            elif kind != _LONG_LINK:
                (everywhere if kind == _PAX_GLOBAL else named).update(_pax_records(text))
            continue
        item = _item(block, kind, size, {**everywhere, **named})
        named = {}
        if item.sparse and kind == _SPARSE:
            _skip_sparse_map(stream, block)
        end = stream.position + item.size + -item.size % _BLOCK
        if stream.end is not None and stream.position + item.size > stream.end:
            raise DamagedFileError("the last member is cut off")
        yield item
        if not stream.skip(end - stream.position):
            raise DamagedFileError("the last member is cut off")


def _header_behind(stream: Forward) -> bytes:
    """Returns the header behind the mark of the end, if another archive follows; b"" where padding does, or nothing."""
    while (block := stream.take(_BLOCK)) == _END:
        pass
    if looks_like_tar(block):
        return block
    if block[257:262] == b"ustar":
        raise DamagedFileError("the header of a tar file behind another is damaged")
    return b""


def _item(block: bytes, kind: bytes, size: int, pax: dict[bytes, bytes]) -> _TarItem:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0]
    if prefix and block[257:263] == b"ustar\0":  # GNU keeps times there
        name = prefix + b"/" + name
    name = pax.get(b"GNU.sparse.name", pax.get(b"path", name))
    if b"size" in pax:
        if not pax[b"size"].isdigit() or len(pax[b"size"]) > _MAX_DIGITS:
            raise DamagedFileError("a PAX record holds no number")
        size = int(pax[b"size"])
    if kind in (b"0", b"\0") and name.endswith(b"/"):
        kind = _FOLDER  # as old tars write it
    sparse = kind == _SPARSE or b"GNU.sparse" in pax or b"GNU.sparse.name" in pax
    return _TarItem(name, kind, 0 if kind in _HAS_NO_DATA else size, sparse)


def _check_header(block: bytes) -> bytes:
    """Returns the type of a header block after its check sum was found right."""
    if len(block) < _BLOCK:
        raise DamagedFileError("the tar file ends without its mark")
    claimed = _number(block[148:156])
    others = block[:148] + b" " * 8 + block[156:]
    if sum(others) != claimed and sum(byte - 256 * (byte > 127) for byte in others) != claimed:
        raise DamagedFileError("a tar header is damaged")
    return block[156:157]


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # a number above 8 GB is stored in binary
        return int.from_bytes(field[1:], "big")
    text = field.replace(b"\0", b" ").strip()
    try:
        number = int(text or b"0", 8)
    except ValueError as error:
        raise DamagedFileError("a tar header holds no number") from error
    if number < 0:
        raise DamagedFileError("a tar header holds a negative number")
    return number


def _take_padded(stream: Forward, size: int) -> bytes:
    if size > _MAX_NAME_BLOCK:
        raise DamagedFileError("a tar header is implausibly long")
    text = stream.take(size)
    if len(text) < size or not stream.skip(-size % _BLOCK):
        raise DamagedFileError("a tar header is cut off")
    return text


def _pax_records(text: bytes) -> dict[bytes, bytes]:
    """Returns the records `LENGTH KEY=VALUE\\n` that matter here."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(text) and text[at] != 0:
        digits, space, _ = text[at : at + 12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = text[at + len(digits) + 1 : at + length]
        if length <= len(digits) + 1 or at + length > len(text) or not record.endswith(b"\n"):
            raise DamagedFileError("a PAX record is damaged")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"path", b"size", b"GNU.sparse.name"):
            records[key] = value
        elif key.startswith(b"GNU.sparse."):
            records[b"GNU.sparse"] = b""  # that there are any is all that is asked
        at += length
    return records


def _skip_sparse_map(stream: Forward, header: bytes) -> None:
    more = header[482]
    while more:
        block = stream.take(_BLOCK)
        if len(block) < _BLOCK:
            raise DamagedFileError("a tar header is cut off")
        more = block[504]


def _tar_entry(item: _TarItem, offset: int, limits: Limits, skipped: Skipped) -> Entry | None:
    if item.kind in (_FOLDER, _DUMP_FOLDER, _VOLUME):
        return None
    fault = None
    if item.kind in _NO_FILE:
        fault = Reason.NOT_A_FILE
    elif item.sparse:
        fault = Reason.UNSUPPORTED_COMPRESSION
    elif item.size > limits.max_image_bytes:
        fault = Reason.TOO_MANY_BYTES
    return _entry(text_of(item.name), (offset, item.size), item.size, fault=fault, skipped=skipped)


def _entry(name: str, where: tuple[int, ...], size: int, *, fault: Reason | None, skipped: Skipped) -> Entry | None:
    """Returns the entry of a member, or None if its name is no image's."""
    if not is_image_name(name):
        skipped.add(clean_name(name).text)
        return None
    clean = clean_name(name)
    if not clean.safe:
        return Entry(clean.text, where, size, None, Reason.UNSAFE_NAME)
    return Entry(clean.text, where, size, label_of(clean.text), fault)


class Tar:
    """An uncompressed tar file: V7, ustar, GNU, PAX.

    `where` is (offset of the data, bytes). Links and devices are NOT_A_FILE, sparse files UNSUPPORTED_COMPRESSION,
    folders nothing. A file without the zero block that marks its end counts as cut: tar files are cut between members
    as often as within one.

    Args:
        skipped: collects the members that are no images by their name.
    """

    name = "tar"
    suffixes: tuple[str, ...] = (".tar",)
    sought = True

    def __init__(self, skipped: Skipped | None = None) -> None:
        self.skipped = skipped if skipped is not None else Skipped()

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Yields the members in the file's order; memory does not grow with their number."""
        stream = from_start(file)
        try:
            for item in _walk_tar(stream):
                entry = _tar_entry(item, stream.position, limits, self.skipped)
                if entry is not None:
                    yield entry
        except DamagedFileError:
            yield damaged_entry()

    def read(self, file: BinaryIO, entries: Sequence[Entry], limits: Limits) -> Iterator[Member]:
        """Yields one member for each of `entries`, in their order."""
        return read_members(file, entries, _span_in_tar, _member_in_tar)

    def stream(self, file: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yields all members from first to last, reading forward only."""
        yield from _stream_tar(Forward(file), limits, self.skipped)


def _span_in_tar(entry: Entry) -> tuple[int, int]:
    offset, size = entry.where
    return offset, size


def _member_in_tar(entry: Entry, data: bytes) -> Member:
    if len(data) < entry.size:
        return Member(entry.name, None, entry.label, Reason.DAMAGED_MEMBER)
    return Member(entry.name, data, entry.label)


def _stream_tar(stream: Forward, limits: Limits, skipped: Skipped) -> Iterator[Member]:
    try:
        for item in _walk_tar(stream):
            entry = _tar_entry(item, stream.position, limits, skipped)
            if entry is None:
                continue
            data = stream.take(item.size) if entry.reason is None else None
            whole = stream.skip(item.size) if data is None else len(data) == item.size
            if not whole:
                raise DamagedFileError("the last member is cut off")
            yield Member(entry.name, data, entry.label, entry.reason)
        while stream.take(_CHUNK_BYTES):  # to the end, where a compressed stream has its check sum
            pass
    except DamagedFileError:
        yield damaged_member()


class TarGz:
    """A gzipped tar file: streamed once, from first to last.

    A wrong check sum of the stream shows only at its end, so what came before has been handed out by then.

    Args:
        skipped: collects the members that are no images by their name.
    """

    name = "tar.gz"
    suffixes: tuple[str, ...] = (".tar.gz", ".tgz")
    sought = False

    def __init__(self, skipped: Skipped | None = None) -> None:
        self.skipped = skipped if skipped is not None else Skipped()

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Refuses: a gzipped tar file can only be streamed."""
        raise FormatError("a .tar.gz file cannot be listed without reading it: use stream")

    def read(self, file: BinaryIO, entries: Sequence[Entry], limits: Limits) -> Iterator[Member]:
        """Refuses: a gzipped tar file can only be streamed."""
        raise FormatError("a .tar.gz file cannot be read out of order: use stream")

    def stream(self, file: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yields all members from first to last, reading forward only."""
        yield from _stream_tar(Forward(Gunzip(file)), limits, self.skipped)


# --- zip --------------------------------------------------------------------------------------------------------------

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_END64_MARK, _END64_LOCATOR_MARK, _DESCRIPTOR_MARK = b"PK\6\6", b"PK\6\7", b"PK\7\x08"
_END_BYTES, _END64_BYTES, _END64_LOCATOR_BYTES = 22, 56, 20
_MAX_COMMENT = 0xFFFF
_END_MARKS_TRIED = 16  # each costs a read; a comment that holds more of them is made to be wrong
_STATED = 1 << 16  # the end record has 16 bits for the number of members
_IN_ZIP64 = 0xFFFFFFFF
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_STORED, _DEFLATED = 0, 8
_DOS_FOLDER = 0x10
_UNICODE_PATH = 0x7075
_EXTRA_SLACK = 256  # what a local header may hold beyond its name, commonly


@dataclass(frozen=True, slots=True)
class _ZipItem:
    """A member as a header states it; `mode` is the Unix mode, 0 where none is stated; `outside` the file's end."""

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

    `where` is (offset of the local header, packed bytes, bytes, method, CRC-32). Where the directory at the end is gone
    or damaged, members are found by their own headers from the start, and the listing closes as damaged.

    Args:
        skipped: collects the members that are no images by their name.
    """

    name = "zip"
    suffixes: tuple[str, ...] = (".zip",)
    sought = True

    def __init__(self, skipped: Skipped | None = None) -> None:
        self.skipped = skipped if skipped is not None else Skipped()

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Yields the members in the order of the directory; memory does not grow with their number if it is sound."""
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
    """Bounds the bytes that a directory may have read: members that share them could make a small file cost hours.

    A sound archive's members claim its bytes once. One wrong number in a directory claims them twice at most, and costs
    its own member alone: the check sums tell. Beyond that every member is refused that shares bytes with another one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = 2 * file.seek(0, io.SEEK_END)
        self._walked = 0
        self._overlapping: np.ndarray | None = None

    def overlaps(self, item: _ZipItem) -> bool:
        """True if the next member of the directory is to be refused."""
        self._walked += 1
        self._left -= 0 if item.outside else item.packed
        if self._left >= 0:
            return False
        if self._overlapping is None:
            self._overlapping = _overlapping(self._file)
        return bool(self._overlapping[self._walked - 1])


def _overlapping(file: BinaryIO) -> np.ndarray:
    """Returns for each member of the directory True if its bytes belong to another one too; 16 bytes a member."""
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
    entry = _entry(name, where, item.size, fault=fault, skipped=skipped)
    if entry is not None:
        yield entry


def _zip_name(item: _ZipItem) -> str:
    """Returns the name as text; without the UTF-8 flag many tools write UTF-8 all the same, old ones code page 437."""
    if not item.flags & _UTF8:
        try:
            return item.name.decode("utf-8")
        except UnicodeDecodeError:
            return item.name.decode("cp437")
    return text_of(item.name)


def _listed_offsets(file: BinaryIO) -> set[int]:
    """Returns where the members begin that a damaged directory lists: it need not be in their order."""
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
            raise DamagedFileError("the directory of the zip file is cut off")
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
    if walked % _STATED != stated % _STATED:  # of more than 65,535 old tools state the rest
        raise DamagedFileError("the directory of the zip file lists other members than it has")


def _find_directory(file: BinaryIO) -> tuple[int, int, int, int]:
    """Returns offset and bytes of the directory, what must be added to every offset in it, and how many it lists."""
    file_bytes = file.seek(0, io.SEEK_END)
    tail_start = max(0, file_bytes - _END_BYTES - _MAX_COMMENT - _END64_LOCATOR_BYTES - _END64_BYTES)
    tail = read_at(file, tail_start, file_bytes - tail_start)
    for at in _end_records(tail):
        found = _directory_before(file, tail, tail_start, at)
        if found is not None:
            return found
    raise DamagedFileError("the zip file has no directory, or a damaged one")


def _directory_before(file: BinaryIO, tail: bytes, tail_start: int, at: int) -> tuple[int, int, int, int] | None:
    """Returns what `_find_directory` does if a directory stands where the end record at this place says."""
    stated, size, offset = struct.unpack_from("<H2I", tail, at + 10)
    at64 = at - _END64_LOCATOR_BYTES - _END64_BYTES
    marks = (tail[at64 : at64 + 4], tail[at64 + _END64_BYTES :][:4]) if at64 >= 0 else ()
    if marks == (_END64_MARK, _END64_LOCATOR_MARK):
        stated, size, offset = struct.unpack_from("<3Q", tail, at64 + 32)
        at = at64
    start = tail_start + at - size
    if start < offset:  # a file put in front of a zip file shifts everything, but never to the left
        return None
    stands = start == 0 == stated if size == 0 else read_at(file, start, 4) == _CENTRAL_MARK
    return (start, size, start - offset, stated) if stands else None


def _end_records(tail: bytes) -> Iterator[int]:
    """Yields where end records may stand: those whose comment ends with the file first, from the last to the first."""
    places = []
    at = tail.rfind(_END_MARK)
    while at >= 0:
        if at + _END_BYTES <= len(tail):
            places.append(at)
        at = tail.rfind(_END_MARK, 0, at)
    ends = [at for at in places if at + _END_BYTES + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)]
    yield from [*ends, *(at for at in places if at not in ends)][:_END_MARKS_TRIED]


def _unicode_path(name: bytes, extra: bytes) -> bytes | None:
    """Returns the name in UTF-8 that Info-ZIP's extra field states for this very name, or None."""
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
    """Yields what can be told from the members' own headers, up to the first that is damaged or cut."""
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
    """Returns CRC-32, packed and full bytes of a deflated member that states them behind its data; None if damaged."""
    inflate, crc, size, start, packed_bytes = _inflater(), 0, 0, stream.position, b""
    while not inflate.eof:
        packed_bytes = packed_bytes or stream.take(_CHUNK_BYTES)
        if not packed_bytes:
            return None
        try:
            piece = inflate.decompress(packed_bytes, _CHUNK_BYTES)
        except zlib.error:
            return None
        packed_bytes, crc, size = inflate.unconsumed_tail, zlib.crc32(piece, crc), size + len(piece)
    packed = stream.position - start - len(inflate.unused_data)
    stream.go_to(start + packed)
    return crc, packed, size


def _skip_descriptor(stream: Forward) -> None:
    """Goes behind the sizes that follow a member: with or without a mark, in 32 or 64 bits."""
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
        _BadMemberError: it expands too far, is cut, or its check sum is wrong.
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
    inflate = _inflater()
    try:
        data = inflate.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise _BadMemberError(Reason.DAMAGED_MEMBER) from error
    if len(data) > max_bytes:
        raise _BadMemberError(Reason.TOO_MANY_BYTES)
    if not inflate.eof:
        raise _BadMemberError(Reason.DAMAGED_MEMBER)
    return data
