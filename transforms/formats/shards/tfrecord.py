"""Reads TFRecord files of `tf.Example` as shards, without TensorFlow.

A record is its length (8 bytes), a checksum of the length, the data, and a checksum of the data. An Example here holds
the encoded image and optionally a name and a class, each under one of its usual keys: TensorFlow's own
(`image/encoded`), those of TensorFlow Datasets (`image`, `file_name`, `label`), or plain words.

Not here: writing TFRecord files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c

from transforms.formats.records import Entry, FormatError, Limits, Member, Reason
from transforms.formats.shards.forward import (
    DamagedFileError,
    Forward,
    damaged_entry,
    damaged_member,
    from_start,
    read_members,
)
from transforms.formats.shards.gunzip import Gunzip
from transforms.formats.shards.loose_files import record_name, text_of

_HEADER = struct.Struct("<QI")
_SUM_BYTES = 4
_SLACK_BYTES = 2**20  # what an Example may hold besides the image
# of each kind, the first key that a record has is used
_IMAGE_KEYS = (b"image/encoded", b"image", b"encoded", b"image_bytes", b"img", b"jpeg", b"jpg", b"png", b"picture")
_NAME_KEYS = (
    b"image/filename",
    b"file_name",
    b"filename",
    b"image_name",
    b"image/id",
    b"image_id",
    b"id",
    b"path",
)
_LABEL_KEYS = (b"image/class/text", b"class_name", b"image/class/label", b"label", b"class", b"emotion")
_KNOWN_KEYS = frozenset((*_IMAGE_KEYS, *_NAME_KEYS, *_LABEL_KEYS))


def masked_crc32c(data: bytes) -> int:
    """Returns the checksum that TFRecord files store for `data`."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def looks_like_tfrecord(first_bytes: bytes) -> bool:
    """True if a file starts with a record's length and its checksum."""
    if len(first_bytes) < _HEADER.size:
        return False
    return bool(masked_crc32c(first_bytes[:8]) == struct.unpack_from("<I", first_bytes, 8)[0])


class TFRecord:
    """An uncompressed TFRecord file.

    `where` is (offset of the data, bytes of the record, number of the record in the file). The size of an entry is the
    record's, a little more than the image's. Names come from `image/filename` or a similar key; otherwise they are
    the record's number.
    """

    name = "tfrecord"
    suffixes: tuple[str, ...] = (".tfrecord", ".tfrecords")
    sought = True

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Yields the records in the file's order, from their lengths alone.

        Raises:
            FormatError: the first record is intact, but has no image under a known key.
        """
        stream = from_start(file)
        try:
            for number, length in enumerate(_walk(stream)):
                reason = Reason.TOO_MANY_BYTES if length > limits.max_image_bytes + _SLACK_BYTES else None
                name = f"{number:08d}" if reason else ""
                entry = Entry(name, (stream.position, length, number), length, reason=reason)
                if number == 0 and reason is None:
                    _refuse_other_examples(stream.take(length + _SUM_BYTES), length)
                yield entry
        except DamagedFileError:
            yield damaged_entry()

    def read(self, file: BinaryIO, entries: Sequence[Entry], limits: Limits) -> Iterator[Member]:
        """Yields one member for each of `entries`, in their order."""
        return read_members(file, entries, _span, lambda entry, raw: _member(raw, *entry.where[1:], limits=limits))

    def stream(self, file: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yields all records from first to last, reading forward only."""
        yield from _stream(Forward(file), limits)


class TFRecordGz:
    """A gzipped TFRecord file: streamed once, from first to last."""

    name = "tfrecord.gz"
    suffixes: tuple[str, ...] = (".tfrecord.gz", ".tfrecords.gz")
    sought = False

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Refuses: a gzipped TFRecord file can only be streamed."""
        raise FormatError("a .tfrecord.gz file cannot be listed without reading it: use stream")

    def read(self, file: BinaryIO, entries: Sequence[Entry], limits: Limits) -> Iterator[Member]:
        """Refuses: a gzipped TFRecord file can only be streamed."""
        raise FormatError("a .tfrecord.gz file cannot be read out of order: use stream")

    def stream(self, file: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yields all records from first to last, reading forward only."""
        yield from _stream(Forward(Gunzip(file)), limits)


def _walk(stream: Forward) -> Iterator[int]:
    """Yields the length of each record whose data come next; a caller that takes only some need not skip the rest.

    Raises:
        DamagedFileError: the checksum of a length is wrong, or the file ends within a record.
    """
    while header := stream.take(_HEADER.size):
        if len(header) < _HEADER.size or not looks_like_tfrecord(header):
            raise DamagedFileError("the length of a record is damaged")
        length = _HEADER.unpack(header)[0]
        end = stream.position + length + _SUM_BYTES
        if stream.end is not None and end > stream.end:
            raise DamagedFileError("the last record is cut off")
        yield length
        if not stream.skip(end - stream.position):
            raise DamagedFileError("the last record is cut off")


def _stream(stream: Forward, limits: Limits) -> Iterator[Member]:
    try:
        for number, length in enumerate(_walk(stream)):
            if length > limits.max_image_bytes + _SLACK_BYTES:
                if not stream.skip(length + _SUM_BYTES):
                    raise DamagedFileError("the last record is cut off")
                yield Member(f"{number:08d}", None, reason=Reason.TOO_MANY_BYTES)
                continue
            raw = stream.take(length + _SUM_BYTES)
            if len(raw) < length + _SUM_BYTES:
                raise DamagedFileError("the last record is cut off")
            if number == 0:
                _refuse_other_examples(raw, length)
            yield _member(raw, length, number, limits=limits)
    except DamagedFileError:
        yield damaged_member()


def _span(entry: Entry) -> tuple[int, int]:
    offset, length, _ = entry.where
    return offset, length + _SUM_BYTES


def _member(raw: bytes, length: int, number: int, *, limits: Limits) -> Member:
    """Returns the image of one record; `raw` is its data and their checksum."""
    name, data = f"{number:08d}", raw[:length]
    if not _is_sound(raw, length):
        return Member(name, None, reason=Reason.DAMAGED_MEMBER)
    try:
        example = _parse_example(data)
    except _MalformedError:
        return Member(name, None, reason=Reason.DAMAGED_MEMBER)
    name = record_name(example.filename) if example.filename else name
    label = example.label
    if example.encoded is None:
        return Member(name, None, label, Reason.DAMAGED_MEMBER)
    if len(example.encoded) > limits.max_image_bytes:
        return Member(name, None, label, Reason.TOO_MANY_BYTES)
    return Member(name, example.encoded, label)


def _is_sound(raw: bytes, length: int) -> bool:
    return len(raw) == length + _SUM_BYTES and masked_crc32c(raw[:length]) == struct.unpack_from("<I", raw, length)[0]


def _refuse_other_examples(raw: bytes, length: int) -> None:
    """Raises FormatError if an intact record has no image under a known key, so that none is reported as damaged."""
    if not _is_sound(raw, length):
        return
    try:
        keys = [raw[key] for key, _ in _entries(raw[:length])]
    except _MalformedError:
        return
    if keys and not any(key in _IMAGE_KEYS for key in keys):
        known = ", ".join(text_of(key) for key in _IMAGE_KEYS)
        found = ", ".join(sorted(text_of(key) for key in keys))
        raise FormatError(f"its first tf.Example has no image under a known key: it has {found}; use one of {known}")


# --- protocol buffers: Example{1: Features{1: entry{1: key, 2: Feature{1: BytesList{1: bytes}, 3: Int64List{1: int}}}}}
# Not by the protobuf package: it builds every value of a record, so that 64 MB of numbers take 959 MB of memory. Here a
# record is looked through in place. A usual record takes 24 CPU-us, 22 more than there.


class _MalformedError(Exception):
    """The bytes are not an Example."""


@dataclass(frozen=True, slots=True)
class _Example:
    encoded: bytes | None
    filename: str | None
    label: str | None


def _parse_example(data: bytes) -> _Example:
    values: dict[bytes, bytes | int] = {}
    for key, feature in _entries(data):
        name = data[key]
        if name in _KNOWN_KEYS:
            value = _value(data, feature)
            if value is not None:
                values[name] = value
    encoded = next((values[key] for key in _IMAGE_KEYS if isinstance(values.get(key), bytes)), None)
    return _Example(
        encoded if isinstance(encoded, bytes) else None,
        _first_text(values, _NAME_KEYS),
        _first_text(values, _LABEL_KEYS),
    )


def _first_text(values: dict[bytes, bytes | int], keys: Sequence[bytes]) -> str | None:
    """Returns the first known value as text; a number below 0 means "not known"."""
    for key in keys:
        value = values.get(key)
        if isinstance(value, bytes) and value:
            return text_of(value)
        if isinstance(value, int) and value >= 0:
            return str(value)
    return None


def _entries(data: bytes) -> Iterator[tuple[slice, slice]]:
    """Yields the slices of key and feature of each entry."""
    for features in _fields(data, slice(0, len(data)), number=1):
        for entry in _fields(data, features, number=1):
            key = _last(data, entry, number=1)
            feature = _last(data, entry, number=2)
            if key is not None and feature is not None:
                yield key, feature


def _value(data: bytes, feature: slice) -> bytes | int | None:
    """Returns the first value of a list of bytes or of integers, or None if there is none."""
    bytes_list = _last(data, feature, number=1)
    if bytes_list is not None:
        first = next(_fields(data, bytes_list, number=1), None)
        return None if first is None else data[first]
    integers = _last(data, feature, number=3)
    if integers is None:
        return None
    first = next(_fields(data, integers, number=1, kinds=(0, 2)), None)  # 2: packed, one after the other
    if first is None or first.start == first.stop:
        return None
    value = _varint(data, first.start, first.stop)[0] & (2**64 - 1)
    return value - 2**64 if value >= 2**63 else value


def _last(data: bytes, within: slice, *, number: int) -> slice | None:
    """Returns the slice of the field; of several the last, as protocol buffers prescribe."""
    found = None
    for field in _fields(data, within, number=number):
        found = field
    return found


def _fields(data: bytes, within: slice, *, number: int, kinds: tuple[int, ...] = (2,)) -> Iterator[slice]:
    """Yields the slice of each field of this number; other fields are skipped, bounds are checked.

    Args:
        kinds: wire types to yield: 2 is length-delimited, 0 a number.
    """
    at, end = within.start, within.stop
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(data, at, end)
        elif kind == 0:
            size = _varint(data, at, end)[1] - at
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise _MalformedError(f"wire type {kind}")
        if at + size > end:
            raise _MalformedError("a field is longer than what holds it")
        if kind in kinds and tag >> 3 == number:
            yield slice(at, at + size)
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _MalformedError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _MalformedError("a number is too long")
