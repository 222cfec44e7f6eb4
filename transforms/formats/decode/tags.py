"""The tags of a TIFF directory, which EXIF blocks have too, read in bounded amounts.

Not here: what the tags of an image mean (`tiff.py`, `orientation.py`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

MAX_TAGS = 4096  # a directory holds some dozens
_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8"}
_TEXT, _FRACTION = 2, 5
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tag: its numeric type, how many numbers, and where they start in the file."""

    kind: int
    count: int
    at: int


class Directory:
    """A directory of a TIFF file or an EXIF block; numbers are read when they are asked for."""

    def __init__(self, data: bytes, start: int | None = None) -> None:
        """Reads the list of tags; of a tag that occurs twice the first counts, as for libtiff.

        Args:
            start: where it begins; None for the first one, which the file's header names.

        Raises:
            struct.error: it points past the end.
        """
        self._data = data
        self.order = order = "<" if data[:2] == b"II" else ">"
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        (at,) = (
            (start,) if start is not None else struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        )
        if at >= len(data):
            raise struct.error("a directory past the end")
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        entry = struct.Struct(order + ("2HQ" if big else "2HI"))
        word, inline = (order + "Q", 8) if big else (order + "I", 4)
        at += 8 if big else 2
        if at + count * (entry.size + inline) > len(data):
            raise struct.error("a directory is cut off")
        self._entries: dict[int, _Entry] = {}
        for _ in range(min(count, MAX_TAGS)):
            tag, kind, numbers = entry.unpack_from(data, at)
            where = at + entry.size
            if numbers * _SIZES.get(kind, 1) > inline:
                (where,) = struct.unpack_from(word, data, where)
            self._entries.setdefault(tag, _Entry(kind, numbers, where))
            at += entry.size + inline

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def count(self, tag: int) -> int:
        """Returns how many numbers a tag claims to have, 0 without it."""
        return self._entries[tag].count if tag in self._entries else 0

    def numbers(self, tag: int, most: int) -> np.ndarray:
        """Returns at most the first `most` numbers of a tag as (n,) unsigned integers; none if it is no list of such.

        Raises:
            struct.error: they lie past the end.
        """
        entry = self._entries.get(tag)
        if entry is None or entry.kind not in _NUMBERS:
            return np.zeros(0, np.uint8)
        kind = np.dtype(self.order + _NUMBERS[entry.kind])
        count = min(entry.count, most)
        if entry.at + count * kind.itemsize > len(self._data):
            raise struct.error("a tag is longer than the file")
        return np.frombuffer(self._data, kind, count, entry.at)

    def first(self, tag: int, default: int) -> int:
        """Returns the first number of a tag, or the default."""
        found = self.numbers(tag, 1)
        return int(found[0]) if len(found) else default

    def fractions(self, tag: int, most: int) -> list[float]:
        """Returns at most the first `most` unsigned fractions of a tag; none if it is no list of such, or one is n / 0.

        Raises:
            struct.error: they lie past the end.
        """
        entry = self._entries.get(tag)
        if entry is None or entry.kind != _FRACTION:
            return []
        count = min(entry.count, most)
        pairs = struct.unpack_from(f"{self.order}{2 * count}I", self._data, entry.at)
        if not all(pairs[1::2]):
            return []
        return [above / below for above, below in zip(pairs[::2], pairs[1::2], strict=True)]

    def text(self, tag: int, most: int) -> str:
        """Returns at most `most` letters of a tag of text, up to its first zero; "" if it is no text.

        Raises:
            struct.error: it lies past the end.
        """
        entry = self._entries.get(tag)
        if entry is None or entry.kind != _TEXT:
            return ""
        if entry.at + entry.count > len(self._data):
            raise struct.error("a tag is longer than the file")
        raw = self._data[entry.at : entry.at + min(entry.count, 4 * most)]
        return raw.partition(b"\0")[0].decode("utf-8", "replace")[:most]

    def block(self, tag: int) -> bytes:
        """Returns the bytes of a tag of bytes.

        Raises:
            struct.error: they lie past the end.
        """
        entry = self._entries.get(tag)
        if entry is None or _SIZES.get(entry.kind) != 1:
            return b""
        if entry.at + entry.count > len(self._data):
            raise struct.error("a tag is longer than the file")
        return self._data[entry.at : entry.at + entry.count]
