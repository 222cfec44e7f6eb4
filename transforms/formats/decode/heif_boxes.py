"""The boxes of a HEIC or AVIF file, as far as they tell what decoding it costs.

Not here: which way is up, colours, pixels (`heif.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_BOXES = 20_000  # of one box: items, properties, references
MAX_DEPTH = 4  # a picture of pictures of pictures
_SLACK = 2**22  # pixels of tiles beyond the picture's own


@dataclass(frozen=True, slots=True)
class Stated:
    """What the boxes say: pixels of the picture as stored, and of all that has to be decoded for it."""

    width: int
    height: int
    area: int
    costly: bool = False


@dataclass(slots=True)
class _Meta:
    """Items of a file: the picture, the sizes of each, and which are made of which."""

    primary: int = 0
    sizes: list[tuple[int, int] | None] = field(default_factory=list)  # of the properties, in their order
    size_of: dict[int, tuple[int, int]] = field(default_factory=dict)
    made_of: dict[int, list[int]] = field(default_factory=dict)


class _TooManyError(Exception):
    """More boxes than any honest file has."""


def is_cut(data: bytes) -> bool:
    """True if the boxes of the file lead past its end, or no picture's description is among them."""
    at, described = 0, False
    for _ in range(MAX_BOXES):
        if at + 8 > len(data):
            return at != len(data) and not described
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, at + 8)
        if size == 0:
            return not described and kind != b"meta"
        if size < 8:
            return False
        described = described or kind in (b"meta", b"moov")
        at += size
        if at > len(data):
            return kind in (b"ftyp", b"meta", b"mdat", b"moov", b"idat")
    return False


def stated(data: bytes) -> Stated | None:
    """Returns what the boxes say, or None if they say no size."""
    try:
        meta = _meta(data)
        width, height = meta.size_of.get(meta.primary, (0, 0))
        if not width or not height:
            return None
        area = _area(meta, meta.primary, MAX_DEPTH)
        return Stated(width, height, area, costly=area > 4 * width * height + _SLACK)
    except _TooManyError:
        return Stated(1, 1, 1, costly=True)
    except (struct.error, IndexError):
        return None


def _area(meta: _Meta, item: int, depth: int) -> int:
    """Returns the pixels that decoding an item takes, in all."""
    if depth == 0:
        raise _TooManyError
    parts = meta.made_of.get(item, [])
    if len(parts) > MAX_BOXES:
        raise _TooManyError
    known: dict[int, int] = {}
    for part in parts:
        if part not in known:
            known[part] = _area(meta, part, depth - 1)
    width, height = meta.size_of.get(item, (0, 0))
    return max(width * height, sum(known[part] for part in parts))


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, start and end of the content of each box."""
    for _ in range(MAX_BOXES):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        begin = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        stop = end if size == 0 else at + size
        if stop < begin or stop > end:
            return
        yield kind, begin, stop
        at = stop
    raise _TooManyError


def _meta(data: bytes) -> _Meta:
    meta = _Meta()
    for kind, at, end in _boxes(data, 0, len(data)):
        if kind != b"meta":
            continue
        for inner, start, stop in _boxes(data, at + 4, end):
            if inner == b"pitm":
                meta.primary = _number(data, start + 4, 4 if data[start] else 2)
            elif inner == b"iprp":
                _read_properties(data, start, stop, meta)
            elif inner == b"iref":
                _read_references(data, start, stop, meta)
        break
    return meta


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise struct.error("past the end")
    return int.from_bytes(data[at : at + size], "big")


def _read_properties(data: bytes, at: int, end: int, meta: _Meta) -> None:
    for kind, start, stop in _boxes(data, at, end):
        if kind == b"ipco":
            for inner, begin, _ in _boxes(data, start, stop):
                size = struct.unpack_from(">2I", data, begin + 4) if inner == b"ispe" else None
                meta.sizes.append(size)
        elif kind == b"ipma":
            _read_associations(data, start, meta)


def _read_associations(data: bytes, at: int, meta: _Meta) -> None:
    wide, version = data[at + 3] & 1, data[at]
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    if count > MAX_BOXES:
        raise _TooManyError
    for _ in range(count):
        item = _number(data, at, 4 if version else 2)
        at += 4 if version else 2
        properties = data[at]
        at += 1
        for _ in range(properties):
            place = (_number(data, at, 2) & 0x7FFF) if wide else (data[at] & 0x7F)
            at += 2 if wide else 1
            size = meta.sizes[place - 1] if 0 < place <= len(meta.sizes) else None
            if size is not None:
                meta.size_of.setdefault(item, size)


def _read_references(data: bytes, at: int, end: int, meta: _Meta) -> None:
    wide = 4 if data[at] else 2
    for kind, start, _ in _boxes(data, at + 4, end):
        if kind != b"dimg":
            continue
        item, count = _number(data, start, wide), _number(data, start + wide, 2)
        first = start + wide + 2
        meta.made_of.setdefault(item, [_number(data, first + i * wide, wide) for i in range(count)])
