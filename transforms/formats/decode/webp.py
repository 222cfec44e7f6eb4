"""WebP, by OpenCV's libwebp."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from transforms.formats.decode import orientation
from transforms.formats.decode.colours import on_white
from transforms.formats.decode.header import MAX_CHUNKS, Header
from transforms.formats.decode.opencv import decoded_by_opencv
from transforms.formats.records import Reason, RejectedContent

_WITH_EXIF = 0x08


def probe(data: bytes) -> Header:
    """Returns the header.

    Raises:
        RejectedContent: NOT_AN_IMAGE if another kind of file is in the RIFF container; UNDECODABLE; TRUNCATED.
        struct.error: it ends before it tells its size.
    """
    if data[8:12] != b"WEBP":
        raise RejectedContent(Reason.NOT_AN_IMAGE)
    (claimed,) = struct.unpack_from("<I", data, 4)
    form, up, costly = data[12:16], 1, False
    if form == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<2H", data, 26))
    elif form == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif form == b"VP8X":
        flags, low_w, high_w, low_h, high_h = struct.unpack_from("<B3xHBHB", data, 20)
        width, height = (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
        exif = _exif(data)
        up = orientation.of_exif(exif.removeprefix(b"Exif\0\0")) if flags & _WITH_EXIF and exif else 1
        costly = exif is None
    else:
        raise RejectedContent(Reason.UNDECODABLE if len(data) >= 16 else Reason.TRUNCATED)
    return Header(width, height, up, whole=claimed + 8 <= len(data), costly=costly, memory=8 * width * height)


def exif(data: bytes) -> bytes:
    """Returns the EXIF block, b"" without one."""
    return (_exif(data) or b"").removeprefix(b"Exif\0\0")


def _exif(data: bytes) -> bytes | None:
    """Returns the EXIF block, or nothing of it; None if there are more chunks than any honest file has."""
    at, found = 12, b""
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return found
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF" and not found:
            found = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return None


def pixels(data: bytes, _header: Header, channels: int, _reduction: int) -> np.ndarray | None:
    """Returns (h, w, 3) RGB, or None; of an animation the first frame."""
    image = decoded_by_opencv(data, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        return None
    if image.shape[2] == 3:
        if channels == 1:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))
    if int(image[..., 3].min()) == 255:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB))
    return on_white(image[..., 2::-1], image[..., 3])
