"""When, with what and where a photo was taken, as its EXIF block says. Every fault gives nulls, never an error.

Not here: finding the block in a file (`decode/`), and the columns it fills (`exif_columns.py`).
"""

from __future__ import annotations

import re
import struct
import unicodedata
from dataclasses import dataclass
from datetime import datetime

from transforms.formats.decode.image import exif_block
from transforms.formats.decode.tags import Directory

CAMERA_LETTERS = 80  # of maker and model together, at most
_TEXT_LETTERS = 64  # of one tag
_MAKE, _MODEL, _EXIF, _GPS = 0x010F, 0x0110, 0x8769, 0x8825
_TAKEN, _OFFSET = 0x9003, 0x9011  # DateTimeOriginal and its offset from UTC
_NORTH_SOUTH, _LATITUDE, _EAST_WEST, _LONGITUDE = 1, 2, 3, 4
_TIME = re.compile(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d", re.ASCII)
_FROM_UTC = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Exif:
    """EXIF data of a photo; None where it is missing or invalid.

    Attributes:
        taken_at: by the camera's clock, as ISO 8601 (`2024-05-01T10:30:00`); with the offset from UTC appended
            (`+02:00`) only where the camera states one.
        camera: maker and model.
        latitude, longitude: degrees, WGS 84; north and east are positive. Both or none.
    """

    taken_at: str | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


NO_EXIF = Exif()


def read_exif(data: bytes) -> Exif:
    """Returns the EXIF data of a complete image file; each tag is parsed alone, so a bad one does not affect others."""
    block = exif_block(data)
    first = _directory(block)
    if first is None:
        return NO_EXIF
    latitude, longitude = _place(_directory(block, first, _GPS))
    return Exif(_taken_at(_directory(block, first, _EXIF)), _camera(first), latitude, longitude)


def _directory(block: bytes, parent: Directory | None = None, tag: int = 0) -> Directory | None:
    """Returns the first directory of a block, or the one that a tag of another leads to; None without one."""
    if block[:2] not in (b"II", b"MM"):
        return None
    try:
        if parent is None:
            return Directory(block)
        start = parent.first(tag, 0)
        return Directory(block, start) if start else None
    except struct.error:
        return None


def _taken_at(directory: Directory | None) -> str | None:
    text = _text(directory, _TAKEN)
    if not _TIME.fullmatch(text):
        return None
    try:
        time = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
    except ValueError:  # a 31st of February, or zeros
        return None
    offset = _text(directory, _OFFSET)
    return time.isoformat() + (offset if _FROM_UTC.fullmatch(offset) else "")


def _camera(directory: Directory) -> str | None:
    make, model = _text(directory, _MAKE), _text(directory, _MODEL)
    if model.casefold().startswith(make.casefold()):  # many a model begins with its maker
        make = ""
    return f"{make} {model}".strip()[:CAMERA_LETTERS] or None


def _place(directory: Directory | None) -> tuple[float | None, float | None]:
    latitude = _degrees(directory, _LATITUDE, _NORTH_SOUTH, "NS", 90)
    longitude = _degrees(directory, _LONGITUDE, _EAST_WEST, "EW", 180)
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _degrees(directory: Directory | None, tag: int, side: int, sides: str, most: int) -> float | None:
    """Returns signed degrees, None where they are not stated in full, or too many."""
    named = _text(directory, side)
    try:
        parts = directory.fractions(tag, 3) if directory is not None else []
    except struct.error:
        return None
    if len(parts) != 3 or not named or named not in sides:
        return None
    degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
    if degrees > most:
        return None
    return round(degrees if named == sides[0] else -degrees, 7)  # 1e-7 of a degree is a centimetre


def _text(directory: Directory | None, tag: int) -> str:
    """Returns a text with spaces in place of what is not shown; "" without one."""
    try:
        text = directory.text(tag, _TEXT_LETTERS) if directory is not None else ""
    except struct.error:
        return ""
    shown = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
    return " ".join(shown.split())
