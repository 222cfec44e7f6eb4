"""PBM, PGM and PPM, binary and in words (P1 to P6), read by hand: OpenCV ignores the largest value a file states."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from transforms.formats.decode.colours import unpacked
from transforms.formats.decode.header import Header
from transforms.formats.records import Reason, RejectedContent

MAX_WORDS = 64 * 2**20  # bytes of numbers written in words: some seconds

_BLANK = rb"(?:\s|#[^\n]*\n)++"
_BITS = re.compile(rb"P([14])" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})\s")
_LEVELS = re.compile(rb"P([2356])" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,5})\s")
_MAX_HEAD = 2**16
_COMMENT = re.compile(rb"#[^\n]*")


@dataclass(frozen=True, slots=True)
class _Details:
    """Kind 1 to 6, where the pixels start, the largest value (1 for bits), and samples a pixel."""

    kind: int
    start: int
    largest: int
    samples: int


def probe(data: bytes) -> Header:
    """Returns the header.

    Raises:
        RejectedContent: NOT_AN_IMAGE if this is something else that starts with a P; UNDECODABLE.
    """
    match = (_BITS if data[1:2] in b"14" else _LEVELS).match(data, 0, _MAX_HEAD)
    if match is None:
        raise RejectedContent(Reason.NOT_AN_IMAGE)
    kind, width, height = int(match[1]), int(match[2]), int(match[3])
    largest = 1 if kind in (1, 4) else int(match[4])
    if not 0 < largest < 2**16:
        raise RejectedContent(Reason.UNDECODABLE)
    details = _Details(kind, match.end(), largest, 3 if kind in (3, 6) else 1)
    if kind < 4:
        return _in_words(data, width, height, details)
    needed = -(-width // 8) * height if kind == 4 else width * height * details.samples * (1 + (largest > 255))
    memory = width * height * details.samples * (2 if largest == 255 else 7)
    return Header(width, height, whole=match.end() + needed <= len(data), memory=memory, details=details)


def _in_words(data: bytes, width: int, height: int, details: _Details) -> Header:
    samples = width * height * details.samples
    left = len(data) - details.start
    least = samples if details.kind == 1 else 2 * samples - 1  # a digit, and a blank between two
    return Header(
        width, height, whole=least <= left, costly=left > MAX_WORDS, memory=9 * samples + 8 * left, details=details
    )


def pixels(data: bytes, header: Header, _channels: int, _reduction: int) -> np.ndarray | None:
    """Returns (h, w) grey or (h, w, 3) RGB, or None."""
    details: _Details = header.details
    count = header.width * header.height * details.samples
    if details.kind in (1, 4):
        ink = _ink(data, header)
        return None if ink is None else np.where(ink, np.uint8(0), np.uint8(255)).reshape(header.height, header.width)
    if details.kind < 4:
        values = _words(data[details.start :], count)
        if values is None:
            return None
    else:
        values = np.frombuffer(data, np.uint8 if details.largest < 256 else ">u2", count, details.start)
    if details.largest != 255:
        values = (np.minimum(values, details.largest).astype(np.uint32) * 255 + details.largest // 2) // details.largest
    shape = (header.height, header.width, 3) if details.samples == 3 else (header.height, header.width)
    if values.dtype == np.uint8:  # nothing in it is above 255
        return values.reshape(shape).copy()  # what is read belongs to the bytes
    return np.asarray(np.minimum(values, 255), np.uint8).reshape(shape)


def _ink(data: bytes, header: Header) -> np.ndarray | None:
    """Returns bits, 1 is black, or None."""
    start, width, height = header.details.start, header.width, header.height
    if header.details.kind == 4:
        row = -(-width // 8)
        return unpacked(np.frombuffer(data, np.uint8, row * height, start).reshape(height, row), 1, width)
    digits = _COMMENT.sub(b"", data[start:]).translate(None, b" \t\r\n\v\f")[: width * height]
    if len(digits) < width * height or digits.translate(None, b"01"):
        return None
    return np.frombuffer(digits, np.uint8) - np.uint8(ord("0"))


def _words(text: bytes, count: int) -> np.ndarray | None:
    """Returns `count` numbers, or None if there are fewer, or anything else stands among them."""
    if b"#" in text:
        text = _COMMENT.sub(b"", text)
    if text.translate(None, b"0123456789 \t\r\n\v\f"):
        return None
    values = np.fromstring(text, np.float64, sep=" ") if text.strip() else np.zeros(0)
    if len(values) < count:  # given the count, NumPy would fill it up with what lay in memory before
        return None
    return np.minimum(values[:count], 2**16).astype(np.uint32)
