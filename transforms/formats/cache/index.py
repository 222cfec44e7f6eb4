"""The index of a cache folder: which segment holds which image. Derived from the segments, sorted, memory-mapped."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from transforms.formats.publish import storage_error

_HEADER = struct.Struct("<8s32s3Q")  # magic, SHA-256 of the fingerprint and of the rest, segments, images, distinct
_MAGIC = b"FCINDEX1"
_HASHED_FROM = 40  # after magic and hash


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Where each digest is: 36 bytes per image and 24 per segment. A match here must be confirmed in the segment.

    Attributes:
        segments: s file names, sorted.
        starts: (s + 1,) int64, the number of images in all earlier segments.
        faces: (s,) uint32, faces in each segment; for `info` only.
        prefix: (n,) uint64, the first eight bytes of each digest as a big-endian number, ascending.
        rest: (n, 24) uint8, the other bytes.
        place: (n,) uint32, the image's place when all segments are laid end to end; ascending among equal digests.
        distinct: the number of different digests.
    """

    segments: tuple[str, ...]
    starts: np.ndarray
    faces: np.ndarray
    prefix: np.ndarray
    rest: np.ndarray
    place: np.ndarray
    distinct: int

    def find(self, digests: np.ndarray, dead: np.ndarray) -> np.ndarray:
        """Returns the place (int64) of each of `digests` (k, 32) in the first segment not `dead` (s,), else -1."""
        if not len(self.place):
            return np.full(len(digests), -1, np.int64)
        wanted = digest_words(digests)[0]
        first = np.searchsorted(self.prefix, wanted, "left")
        last = np.searchsorted(self.prefix, wanted, "right")
        found = np.full(len(digests), -1, np.int64)
        asked = np.flatnonzero(first < last)
        at = first[asked]
        while len(asked):  # one round, unless there are copies or equal prefixes
            place = self.place[at].astype(np.int64)
            match = (self.rest[at] == digests[asked, 8:]).all(axis=1) & ~dead[self.segment_of(place)]
            found[asked[match]] = place[match]
            at = at + 1
            going_on = ~match & (at < last[asked])
            asked, at = asked[going_on], at[going_on]
        return found

    def covers(self, names: tuple[str, ...]) -> bool:
        """Returns True if it indexes exactly these segments."""
        return self.segments == names and bool((np.diff(self.starts) > 0).all())

    def segment_of(self, place: np.ndarray) -> np.ndarray:
        """Returns the number of the segment of each place (int64)."""
        return np.searchsorted(self.starts, place, "right") - 1

    def digests_by_place(self) -> np.ndarray:
        """Returns all digests (n, 32) in the order of their places."""
        digests = np.empty((len(self.place), 32), np.uint8)
        digests[self.place, :8] = self.prefix.astype(">u8").view(np.uint8).reshape(-1, 8)
        digests[self.place, 8:] = self.rest
        return digests

    def pieces(self, fingerprint: str) -> list[Any]:
        """Returns the file's content as a list of buffers."""
        names = b"".join(bytes.fromhex(name[:32]) for name in self.segments)
        counts = np.diff(self.starts).astype("<u4")
        columns: list[Any] = [self.prefix.astype("<u8"), self.rest, names, self.place.astype("<u4"), counts, self.faces]
        sizes = struct.pack("<3Q", len(self.segments), len(self.place), self.distinct)
        digest = hashlib.sha256(fingerprint.encode("ascii") + sizes)
        for column in columns:
            digest.update(column)
        return [_MAGIC + digest.digest() + sizes, *columns]


def digest_words(digests: np.ndarray) -> list[np.ndarray]:
    """Returns the digests (n, 32) as four columns of uint64 that sort as the bytes do."""
    words = np.ascontiguousarray(digests, np.uint8).view(">u8").reshape(-1, 4)
    return [words[:, column].astype(np.uint64) for column in range(4)]


def read_index(path: str, fingerprint: str) -> Index | None:
    """Returns the index file, memory-mapped, or None if it is missing or damaged."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < _HEADER.size:
                return None
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error
    magic, digest, segments, images, distinct = _HEADER.unpack_from(mapped)
    if magic != _MAGIC or len(mapped) != _HEADER.size + 24 * segments + 36 * images:
        return None
    actual = hashlib.sha256(fingerprint.encode("ascii"))
    with memoryview(mapped) as view, view[_HASHED_FROM:] as covered:
        actual.update(covered)
    if actual.digest() != digest:
        return None
    return _mapped_index(mapped, segments, images, distinct)


def _mapped_index(mapped: mmap.mmap, segments: int, images: int, distinct: int) -> Index:
    columns = []
    offset = _HEADER.size
    for dtype, count in (("<u8", images), ("|u1", 24 * images), ("|u1", 16 * segments), ("<u4", images)):
        columns.append(np.frombuffer(mapped, dtype, count, offset))
        offset += columns[-1].nbytes
    prefix, rest, names, place = columns
    counts, faces = np.frombuffer(mapped, "<u4", 2 * segments, offset).reshape(2, -1)
    digits = names.tobytes().hex()
    return Index(
        segments=tuple(digits[at : at + 32] + ".h5" for at in range(0, len(digits), 32)),
        starts=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        faces=faces,
        prefix=prefix,
        rest=rest.reshape(-1, 24),
        place=place,
        distinct=distinct,
    )


def built_index(found: Mapping[str, tuple[np.ndarray, int]]) -> Index:
    """Returns the index of segments, given by name with digests (k, 32) and faces; takes 130 bytes per image."""
    segments = sorted(found)
    parts = [found[name][0] for name in segments]
    digests = np.concatenate([np.zeros((0, 32), np.uint8), *parts])
    words = digest_words(digests)
    order = np.lexsort(words[::-1])  # stable: equal digests stay in the order of their segments
    prefix, rest = words[0][order], np.ascontiguousarray(digests[order, 8:])
    tied = np.flatnonzero(prefix[1:] == prefix[:-1]) + 1
    copies = (rest[tied] == rest[tied - 1]).all(axis=1).sum()
    return Index(
        segments=tuple(segments),
        starts=np.cumsum([0, *map(len, parts)], dtype=np.int64),
        faces=np.array([found[name][1] for name in segments], "<u4"),
        prefix=prefix,
        rest=rest,
        place=order.astype(np.uint32),
        distinct=len(order) - int(copies),
    )


def distinct_rows(digests: np.ndarray) -> np.ndarray:
    """Returns the rows of `digests` (n, 32), sorted by digest: the first of equal ones, without all-zero rows."""
    order = np.lexsort(digest_words(digests)[::-1])
    ordered = digests[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order[new & ordered.any(axis=1)]


def groups_of(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each number that occurs, ascending, with its rows.

    >>> [(number, rows.tolist()) for number, rows in groups_of(np.array([7, 3, 7]))]
    [(3, [1]), (7, [0, 2])]
    """
    order = np.argsort(numbers, kind="stable")
    cuts = np.flatnonzero(np.diff(numbers[order])) + 1
    for rows in np.split(order, cuts):
        if len(rows):
            yield int(numbers[rows[0]]), rows
