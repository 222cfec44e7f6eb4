"""Encodes pixels as picture files: WebP for pages, JPEG and PNG with our mark for folders.

Not here: decoding (`decode/`).
"""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

MARK = b"facelabel-pipeline, picture of a run"  # in each JPEG and PNG, to tell our files from the user's
MARK_WITHIN = 128  # bytes of the start of a file that hold the mark
_PNG_START = 33  # signature and IHDR


def as_webp(image: np.ndarray, quality: int) -> bytes:
    """Returns an image as WebP; the same pixels and quality give the same bytes.

    Args:
        image: (h, w, 3) uint8 RGB, each side 1 to 16383.
        quality: 1 to 100.

    Raises:
        ValueError: it cannot be encoded.
    """
    return _encoded(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])


def as_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Returns an image as JPEG with our mark as a comment; arguments and errors as for `as_webp`, sides to 65500."""
    data = _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(MARK) + 2) + MARK + data[2:]


def as_png(image: np.ndarray) -> bytes:
    """Returns an image as PNG with our mark as a text; argument and errors as for `as_webp`, sides of any length."""
    data = _encoded(".png", image, [])
    text = b"tEXtSoftware\0" + MARK
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return data[:_PNG_START] + chunk + data[_PNG_START:]


def is_marked(start: bytes) -> bool:
    """True if a file that starts so (`MARK_WITHIN` bytes) is a picture that was encoded here."""
    return start.startswith((b"\xff\xd8\xff\xfe", b"\x89PNG\r\n\x1a\n")) and MARK in start[:MARK_WITHIN]


def _encoded(ending: str, image: np.ndarray, settings: list[int]) -> bytes:
    try:
        done, data = cv2.imencode(ending, image[..., ::-1], settings)
    except cv2.error as error:
        raise ValueError(f"an image of shape {image.shape} cannot be written as {ending[1:]}") from error
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be written as {ending[1:]}")
    return bytes(data)
