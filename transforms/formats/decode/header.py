"""What a file says of its image before anything is decoded, and the limits that hold for every format.

Not here: reading a header (a file a format), the limits a user sets (`records.Limits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transforms.formats.records import Limits, Reason

MAX_SIDE = 2**31 - 1  # what the columns of a block and of the output hold
MAX_CHUNKS = 100_000  # of a file: a PNG of 256 MB in chunks of the usual 8 kB has 32,768
BYTES_A_PIXEL = 8  # of `max_pixels`: what the decoder and our own steps may hold at once
LEAST_MEMORY = 64 * 2**20  # bytes that every image may take, however few pixels are let in


@dataclass(slots=True)  # not frozen: that costs a microsecond an image
class Header:
    """What an image says of itself.

    Attributes:
        width, height: pixels as stored, before orientation; any number that the file states.
        orientation: 1 to 8, as EXIF numbers it.
        whole: False if the file ends before the image does.
        costly: True if the file asks for more work than any honest one.
        memory: bytes that decoding holds at once, at most; 0 where three bytes a pixel are enough.
        details: what `pixels` of the same format wants to know.
    """

    width: int
    height: int
    orientation: int = 1
    whole: bool = True
    costly: bool = False
    memory: int = 0
    details: Any = None


def first_fault(header: Header, limits: Limits, min_side: int) -> Reason | None:
    """Returns why an image must not be decoded, or None."""
    width, height = header.width, header.height
    if width < 1 or height < 1:
        return Reason.UNDECODABLE
    if width * height > limits.max_pixels or width > MAX_SIDE or height > MAX_SIDE:
        return Reason.TOO_MANY_PIXELS
    if width < min_side or height < min_side:
        return Reason.TOO_SMALL
    if header.costly or header.memory > max(LEAST_MEMORY, BYTES_A_PIXEL * limits.max_pixels):
        return Reason.TOO_COSTLY
    return None if header.whole else Reason.TRUNCATED
