"""Reads tar files, plain and gzipped, as shards: lists members, reads neighbours together, streams.

No name, size or offset in an archive is trusted: each is checked before anything is allocated, skipped or inflated.
Damaged content becomes a row with a reason; storage errors (`OSError`) pass through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from transforms.formats.records import Entry, FormatError, Limits, Member, Reason
from transforms.formats.shards.forward import (
    CHUNK_BYTES,
    DamagedFileError,
    Forward,
    damaged_entry,
    damaged_member,
    entry_of_member,
    from_start,
    read_members,
)
from transforms.formats.shards.gunzip import Gunzip
from transforms.formats.shards.loose_files import Skipped, text_of

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
    """A member whose data come next: raw name, type, size in bytes, and whether it is a sparse file."""

    name: bytes
    kind: bytes
    size: int
    sparse: bool


def looks_like_tar(first_bytes: bytes) -> bool:
    """True if a file starts with a tar header with the right checksum."""
    try:
        _check_header(first_bytes[:_BLOCK])
    except DamagedFileError:
        return False
    return True


def _walk_tar(stream: Forward) -> Iterator[_TarItem]:
    """Yields members; a caller that takes no data, or only some, need not skip the rest.

    Another archive may follow the end of the first, as `cat a.tar b.tar` makes it; anything else there is padding.

    Raises:
        DamagedFileError: a header is wrong, a member is truncated, or the end mark is missing.
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
    """Returns the header of an archive that follows the end mark; b"" if padding or nothing follows."""
    while (block := stream.take(_BLOCK)) == _END:
        pass
    if looks_like_tar(block):
        return block
    if block[257:262] == b"ustar":
        raise DamagedFileError("the header of a tar file appended to another is damaged")
    return b""


def _item(block: bytes, kind: bytes, size: int, pax: dict[bytes, bytes]) -> _TarItem:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0]
    if prefix and block[257:263] == b"ustar\0":  # GNU stores times there
        name = prefix + b"/" + name
    name = pax.get(b"GNU.sparse.name", pax.get(b"path", name))
    if b"size" in pax:
        if not pax[b"size"].isdigit() or len(pax[b"size"]) > _MAX_DIGITS:
            raise DamagedFileError("a PAX record does not hold a number")
        size = int(pax[b"size"])
    if kind in (b"0", b"\0") and name.endswith(b"/"):
        kind = _FOLDER  # how old tars mark a folder
    sparse = kind == _SPARSE or b"GNU.sparse" in pax or b"GNU.sparse.name" in pax
    return _TarItem(name, kind, 0 if kind in _HAS_NO_DATA else size, sparse)


def _check_header(block: bytes) -> bytes:
    """Returns the type of a header block after verifying its checksum."""
    if len(block) < _BLOCK:
        raise DamagedFileError("the tar file ends without its end mark")
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
        raise DamagedFileError("a tar header does not hold a number") from error
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
    """Returns those records `LENGTH KEY=VALUE\\n` that matter here."""
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
            records[b"GNU.sparse"] = b""  # only their presence matters
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
    return entry_of_member(text_of(item.name), (offset, item.size), item.size, fault=fault, skipped=skipped)


class Tar:
    """An uncompressed tar file: V7, ustar, GNU, PAX.

    `where` is (offset of the data, bytes). Links and devices are NOT_A_FILE, sparse files UNSUPPORTED_COMPRESSION, and
    folders are skipped. A file without the zero block that marks its end counts as truncated: tar files are truncated
    between members as often as within one.

    Args:
        skipped: collects the members whose names are not those of images.
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
        while stream.take(CHUNK_BYTES):  # to the end, where a compressed stream has its checksum
            pass
    except DamagedFileError:
        yield damaged_member()


class TarGz:
    """A gzipped tar file: streamed once, from first to last.

    A wrong checksum of the stream shows only at its end, after the members before it have been returned.

    Args:
        skipped: collects the members whose names are not those of images.
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
