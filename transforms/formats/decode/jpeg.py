"""JPEG, by OpenCV's libjpeg-turbo, which fills what is missing with grey: so the end is looked for here."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import cv2
import numpy as np

from transforms.formats.decode import orientation
from transforms.formats.decode.header import Header
from transforms.formats.decode.opencv import decoded_by_opencv
from transforms.formats.records import Reason, RejectedContent

MAX_SCANS = 100  # encoders write about ten
MAX_MARKS = 10_000  # segments, tables and the like of one file
_MAX_SCANNED = 1_600_000_000  # pixels times scans: about 15 s

# In a scan 0xFF is followed by 0 (a plain 0xFF), a restart mark, or 0xFF (filling): anything else ends the scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_MARK = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the frame headers
_LONELY = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xD9)})  # marks without a length
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = 0xD9, 0xDA, 0xE1
_WITH_STORE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})  # progressive: libjpeg keeps two bytes of each sample
_LOSSLESS = 0xC3
_REDUCED = {  # a mere number to be added, for colour as for grey
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


@dataclass(slots=True)
class _Scans:
    """What follows the headers: how many scans, and whether the end of the image is there."""

    count: int = 1
    ended: bool = False
    costly: bool = False


def probe(data: bytes) -> Header:
    """Returns the header.

    Raises:
        RejectedContent: TRUNCATED if the file ends before it tells its size; UNDECODABLE if an end comes before;
            TOO_COSTLY if there are more segments than any honest file has.
    """
    at, frame, up, marks = 2, 0, 0, 0
    width = height = parts = 0
    while at := _behind_mark(data, at):
        mark = data[at - 1]
        if marks > MAX_MARKS:
            raise RejectedContent(Reason.TOO_COSTLY)
        if mark in _LONELY:
            marks += 1
        elif mark in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        else:
            marks += 1
            if mark in _SIZES and not frame:
                height, width, parts = struct.unpack_from(">2HB", data, at + 3)
                frame = mark
            elif mark == _APP1 and not up and data.startswith(b"Exif\0\0", at + 2):
                up = orientation.of_exif(data[at + 8 : at + _length(data, at)])
            at += _length(data, at)
    else:
        mark = 0
    if not frame:  # an end before a beginning is nonsense, no cut
        raise RejectedContent(Reason.UNDECODABLE if mark else Reason.TRUNCATED)
    scans = _scans(data, at - 2, marks) if mark else _Scans()
    progressive = frame in _WITH_STORE or scans.count > 1
    return Header(
        width,
        height,
        up or 1,
        whole=scans.ended,
        costly=scans.costly or scans.count * width * height > _MAX_SCANNED,
        memory=width * height * (3 + 2 * min(parts, 4)) if progressive else 0,
        details=frame,
    )


def exif(data: bytes) -> bytes:
    """Returns the EXIF block, b"" without one."""
    at = 2
    for _ in range(MAX_MARKS):
        at = _behind_mark(data, at)
        if not at or data[at - 1] in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        if data[at - 1] == _APP1 and data.startswith(b"Exif\0\0", at + 2):
            return data[at + 8 : at + _length(data, at)]
        at += 0 if data[at - 1] in _LONELY else _length(data, at)
    return b""


def _behind_mark(data: bytes, at: int) -> int:
    """Returns where the next mark ends, 0 without one; rubbish and filling before it are passed over."""
    if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xff", b""):
        return at + 2  # as in every honest file
    found = _MARK.search(data, at)
    return found.end() if found else 0


def _length(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _scans(data: bytes, at: int, marks: int) -> _Scans:
    """Follows the scans to the mark of the end; a thumbnail's, inside a segment, does not count."""
    scans = _Scans(count=0)
    while match := _SCAN_END.search(data, at):
        at, mark = match.end(), data[match.end() - 1]
        if mark == _END_OF_IMAGE:
            scans.ended = True
            break
        marks += 1
        scans.count += mark == _START_OF_SCAN
        if scans.count > MAX_SCANS or marks > MAX_MARKS:
            scans.costly = True
            break
        if mark >= 0xC0 and mark not in _LONELY:  # a segment between scans
            at += _length(data, at)
    return scans


def pixels(data: bytes, header: Header, channels: int, reduction: int) -> np.ndarray | None:
    """Returns (h, w, 3) RGB or (h, w) grey, or None; CMYK is taken as inverted, as Adobe writes it and all read it."""
    colours = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
    flags = colours | cv2.IMREAD_IGNORE_ORIENTATION
    if header.details != _LOSSLESS:
        return decoded_by_opencv(data, flags | _REDUCED[reduction])
    image = decoded_by_opencv(data, flags)  # it knows no reduced sizes
    return image if image is None else image[::reduction, ::reduction].copy()
