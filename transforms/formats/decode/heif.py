"""HEIC, by pi-heif, and AVIF, by Pillow: loaded when the first such image comes.

Both say which way is up by transformations of their own; EXIF's orientation is a mere note there. `heif_boxes.py`
bounds what the pieces of a picture may add up to.
"""

from __future__ import annotations

import functools
import io
import struct
from typing import Any

import numpy as np

from transforms.formats.decode import heif_boxes
from transforms.formats.decode.colours import on_white
from transforms.formats.decode.header import Header
from transforms.formats.decode.pillow import FAULTS, pillow
from transforms.formats.decode.quiet import quiet
from transforms.formats.records import Reason, RejectedContent

_AV1 = (b"avif", b"avis")
_BRANDS = frozenset({*_AV1, b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_ORIENTATION = 274


def is_heif(data: bytes) -> bool:
    """True if the file is of one of the brands that are read here."""
    return data[4:8] == b"ftyp" and not _BRANDS.isdisjoint(_brands(data))


def _brands(data: bytes) -> list[bytes]:
    """Returns the major brand and the first compatible ones."""
    end = min(int.from_bytes(data[:4], "big"), 256, len(data))
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


@functools.cache
def _pi_heif() -> Any:
    import pi_heif
    from pi_heif import options

    options.DECODE_THREADS = 1  # the pool has its own
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return pi_heif


@functools.cache
def _pillow_avif() -> Any:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return pillow()


def probe(data: bytes) -> Header:
    """Returns the header.

    Raises:
        RejectedContent: TRUNCATED, UNDECODABLE.
    """
    if heif_boxes.is_cut(data):
        raise RejectedContent(Reason.TRUNCATED)
    stated = heif_boxes.stated(data)
    if stated is None:
        raise RejectedContent(Reason.UNDECODABLE)
    up, opened = 1, None
    if not stated.costly:
        opened, up = _opened(data)
    width, height = opened.size if opened is not None else (stated.width, stated.height)
    memory = 12 * max(stated.area, width * height)
    return Header(width, height, up, costly=stated.costly, memory=memory, details=opened)


def _opened(data: bytes) -> tuple[Any, int]:
    """Returns the image as the library knows it, not decoded, and its orientation."""
    try:
        with quiet():
            if any(brand in _AV1 for brand in _brands(data)):
                image = _pillow_avif().open(io.BytesIO(data), formats=["AVIF"])
                return image, image.getexif().get(_ORIENTATION, 1)
            return _pi_heif().open_heif(data, convert_hdr_to_8bit=True), 1
    except FAULTS as error:
        raise RejectedContent(Reason.UNDECODABLE) from error


def exif(data: bytes) -> bytes:
    """Returns the EXIF block, b"" without one.

    Raises:
        RejectedContent: TRUNCATED, UNDECODABLE.
    """
    opened = probe(data).details
    block = opened.info.get("exif") if opened is not None else None
    return bytes(block or b"").removeprefix(b"Exif\0\0")


def pixels(_data: bytes, header: Header, _channels: int, _reduction: int) -> np.ndarray | None:
    """Returns (h, w, 3) RGB or (h, w) grey, or None."""
    try:
        with quiet():
            image = np.asarray(header.details)
    except (*FAULTS, struct.error):
        return None
    if image.dtype != np.uint8:
        return None
    if image.ndim == 2 or image.shape[2] == 3:
        return np.array(image)
    colours = image.shape[2] - 1
    if colours not in (1, 3):
        return None
    colour = image[..., 0] if colours == 1 else image[..., :3]
    premultiplied = bool(getattr(header.details, "premultiplied_alpha", False))
    return on_white(colour, image[..., colours], premultiplied=premultiplied)
