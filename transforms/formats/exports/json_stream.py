"""JSON written item by item, so that a million items are never in memory at once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, BinaryIO


class JsonStream:
    """Writes one JSON object whose values may be long lists or objects; each item gets a line.

    Bytes are ASCII, so that every reader gets the same text.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begun = False

    def value(self, key: str, value: Any) -> None:
        """Writes a short value."""
        self._key(key)
        self._file.write(as_json(value))

    def array(self, key: str, items: Iterable[Any]) -> None:
        """Writes a list item by item."""
        self._key(key)
        self._items(b"[", (as_json(item) for item in items), b"]")

    def object(self, key: str, items: Iterable[tuple[str, Any]]) -> None:
        """Writes an object entry by entry; keys must be unique."""
        self._key(key)
        self._items(b"{", (as_json(name) + b": " + as_json(item) for name, item in items), b"}")

    def close(self) -> None:
        """Ends the object."""
        self._file.write(b"\n}\n" if self._begun else b"{}\n")

    def _key(self, key: str) -> None:
        self._file.write((b",\n" if self._begun else b"{\n") + as_json(key) + b": ")
        self._begun = True

    def _items(self, opened: bytes, items: Iterable[bytes], closed: bytes) -> None:
        self._file.write(opened)
        for number, item in enumerate(items):
            self._file.write((b",\n" if number else b"\n") + item)
        self._file.write(closed)


def as_json(value: Any) -> bytes:
    """Returns a value as one line of JSON in ASCII; a number that is not finite is an error."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(", ", ": ")).encode("ascii")
