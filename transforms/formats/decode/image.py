"""One image's bytes to pixels: finds the format, holds the limits, turns the picture upright.

Not here: resizing beyond what a JPEG decoder does for nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from transforms.formats.decode import bmp, gif, heif, jpeg, png, pnm, tiff, webp
from transforms.formats.decode.colours import in_channels, turned
from transforms.formats.decode.header import MAX_SIDE, Header, first_fault
from transforms.formats.records import Limits, Reason, RejectedContent

REVISION = 2  # goes up whenever the same bytes give other pixels

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)  # a bad image is a row of ours, not a warning


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image as pixels.

    Attributes:
        image: (h, w, 3) uint8 RGB or (h, w) uint8 grey, upright.
        width, height: pixels of the full upright image.
        reduction: 1, 2, 4 or 8: `image` has ceil(side / reduction) pixels.
    """

    image: np.ndarray
    width: int
    height: int
    reduction: int


@dataclass(frozen=True, slots=True)
class _Kind:
    """A file format.

    Attributes:
        probe: returns the header; may raise what reading past the end raises (struct.error, IndexError).
        pixels: returns (h, w) grey or (h, w, 3) RGB uint8 as stored, or None; given bytes, header, channels wanted
            (a hint) and reduction.
        reduced: True if the decoder can leave out pixels.
        exif: returns the EXIF block, b"" without one; may raise what `probe` may. None if the format has none.
    """

    probe: Callable[[bytes], Header]
    pixels: Callable[[bytes, Header, int, int], np.ndarray | None]
    reduced: bool = False
    exif: Callable[[bytes], bytes] | None = None


def decode(
    data: bytes, *, channels: int, limits: Limits, at_least: tuple[int, int] | None = None, min_side: int = 1
) -> Decoded:
    """Returns the pixels of an encoded image.

    Args:
        data: a whole file.
        channels: 3 for RGB, 1 for grey.
        limits: `max_pixels` is checked before anything is decoded; eight bytes for each of them are all the memory
            that one image may take.
        at_least: (height, width) that is enough. A JPEG is then decoded at 1/2, 1/4 or 1/8, the smallest with both
            sides at least this: a function of the image's size alone.
        min_side: pixels that both sides must have.

    Raises:
        RejectedContent: EMPTY, NOT_AN_IMAGE, TOO_MANY_PIXELS, TOO_SMALL, TOO_COSTLY, TRUNCATED or UNDECODABLE, found
            in this order. Its sizes are 0 where a file states what no image can have.
    """
    if not data:
        raise RejectedContent(Reason.EMPTY)
    kind = _kind_of(data)
    try:
        header = kind.probe(data)
    except (struct.error, IndexError, OverflowError) as error:  # what reading past the end raises
        raise RejectedContent(Reason.TRUNCATED) from error
    width, height = header.width, header.height
    if header.orientation >= 5:
        width, height = height, width
    fault = first_fault(header, limits, min_side)
    if fault is not None:
        raise _rejected(fault, width, height)
    reduction = 1
    if at_least is not None and kind.reduced:
        reduction = reduction_for(height, width, at_least)
    image = kind.pixels(data, header, channels, reduction)
    if image is None or image.shape[:2] != (-(-header.height // reduction), -(-header.width // reduction)):
        raise _rejected(Reason.UNDECODABLE, width, height)
    if (image.ndim == 2) != (channels == 1):
        image = in_channels(image, channels)
    if header.orientation != 1:
        image = turned(image, header.orientation)
    return Decoded(image, width, height, reduction)


def exif_block(data: bytes) -> bytes:
    """Returns the EXIF block of a whole file, as a TIFF directory; b"" without one, or where the file is damaged."""
    try:
        read = _kind_of(data).exif
        return b"" if read is None else read(data)
    except (RejectedContent, struct.error, IndexError, OverflowError):
        return b""


def reduction_for(height: int, width: int, at_least: tuple[int, int]) -> int:
    """Returns the strongest reduction (8, 4, 2 or 1) that leaves both sides at least as long as asked for."""
    for reduction in (8, 4, 2):
        if -(-height // reduction) >= at_least[0] and -(-width // reduction) >= at_least[1]:
            return reduction
    return 1


def _rejected(reason: Reason, width: int, height: int) -> RejectedContent:
    if 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE:
        return RejectedContent(reason, width=width, height=height)
    return RejectedContent(reason)


def _kind_of(data: bytes) -> _Kind:
    for magic, kind in _KINDS:
        if data.startswith(magic):
            return kind
    if heif.is_heif(data):
        return _HEIF
    raise RejectedContent(Reason.NOT_AN_IMAGE)


_HEIF = _Kind(heif.probe, heif.pixels, exif=heif.exif)
_GIF = _Kind(gif.probe, gif.pixels)
_TIFF = _Kind(tiff.probe, tiff.pixels, exif=lambda data: data)
_PNM = _Kind(pnm.probe, pnm.pixels)
_KINDS = (
    (b"\xff\xd8\xff", _Kind(jpeg.probe, jpeg.pixels, reduced=True, exif=jpeg.exif)),
    (b"\x89PNG\r\n\x1a\n", _Kind(png.probe, png.pixels, exif=png.exif)),
    (b"RIFF", _Kind(webp.probe, webp.pixels, exif=webp.exif)),
    (b"GIF87a", _GIF),
    (b"GIF89a", _GIF),
    (b"BM", _Kind(bmp.probe, bmp.pixels)),
    *((magic, _TIFF) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d" % number, _PNM) for number in range(1, 7)),
)
