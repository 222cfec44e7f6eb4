"""GIF: the first frame on white, wherever it lies; its codes are unpacked by Pillow.

Nothing of the other frames is looked at but their lengths. Where the first frame does not reach, or is transparent, the
picture is white, as browsers show it on a white page.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from transforms.formats.decode.colours import in_table
from transforms.formats.decode.header import Header
from transforms.formats.decode.pillow import decoded_by_pillow
from transforms.formats.records import Reason, RejectedContent

MAX_BLOCKS = 4_000_000  # of at most 255 bytes; half a second of walking

_TRAILER, _EXTENSION, _PICTURE, _CONTROL = 0x3B, 0x21, 0x2C, 0xF9


@dataclass(slots=True)
class _Walk:
    """What following the blocks found.

    Attributes:
        at: of the first picture's descriptor, 0 without one. end: after its blocks.
        clear: index of the transparent colour in the first picture, -1 without one.
        whole: the blocks lead to the trailer, or to garbage after a whole picture, as every viewer shows it.
        costly: too many blocks.
    """

    at: int = 0
    end: int = 0
    clear: int = -1
    whole: bool = False
    costly: bool = False


def probe(data: bytes) -> Header:
    """Returns the header.

    Raises:
        struct.error: it ends before it tells its size.
    """
    width, height, flags = struct.unpack_from("<2HB", data, 6)
    walk = _walk(data, 13 + _table(flags))
    memory = 4 * width * height
    if walk.at and walk.at + 10 <= len(data):
        across, down = struct.unpack_from("<2H", data, walk.at + 5)
        memory += 3 * across * down
    return Header(width, height, whole=walk.whole, costly=walk.costly, memory=memory, details=walk)


def _walk(data: bytes, at: int) -> _Walk:
    walk, size, blocks = _Walk(), len(data), 0
    while at < size and data[at] != _TRAILER:
        kind, start = data[at], at
        if kind == _EXTENSION:
            if not walk.at and at + 8 <= size and data[at + 1] == _CONTROL:
                walk.clear = data[at + 6] if data[at + 3] & 1 else -1
            at += 2
        elif kind == _PICTURE and at + 10 <= size:
            at += 11 + _table(data[at + 9])
        else:
            walk.whole = walk.end > 0 and kind != _PICTURE
            return walk
        while at < size and data[at] and blocks < MAX_BLOCKS:
            at += 1 + data[at]
            blocks += 1
        at += 1
        blocks += 1
        if kind == _PICTURE and not walk.at:
            walk.at, walk.end = start, at
        if blocks >= MAX_BLOCKS:
            walk.costly = True
            return walk
    walk.whole = at < size
    return walk


def _table(flags: int) -> int:
    """Returns the bytes of the table of colours that such flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def pixels(data: bytes, header: Header, _channels: int, _reduction: int) -> np.ndarray | None:
    """Returns (h, w) grey or (h, w, 3) RGB, or None."""
    walk: _Walk = header.details
    if not walk.at:
        raise RejectedContent(Reason.UNDECODABLE)
    left, top, width, height, flags = struct.unpack_from("<4HB", data, walk.at + 1)
    codes = walk.at + 10 + _table(flags)
    if not width or not height or codes >= walk.end:
        return None
    index = decoded_by_pillow(_alone(width, height, flags & 0x40, data[codes : walk.end]), "GIF")
    if index is None or index.shape != (height, width):
        return None
    shown = index[: max(0, header.height - top), : max(0, header.width - left)]
    colours = in_table(np.ascontiguousarray(shown), _palette(data, walk.at, flags)) if shown.size else shown
    if walk.clear >= 0:
        colours = colours if colours.flags.writeable else colours.copy()
        colours[shown == walk.clear] = 255
    if shown.shape == (header.height, header.width):
        return colours
    image = np.full((header.height, header.width, *colours.shape[2:]), 255, np.uint8)
    image[top : top + shown.shape[0], left : left + shown.shape[1]] = colours
    return image


def _alone(width: int, height: int, interlaced: int, codes: bytes) -> bytes:
    """Returns a GIF of this one picture, without colours."""
    head = struct.pack("<2H3B", width, height, 0, 0, 0)
    return b"GIF89a" + head + b"\x2c" + struct.pack("<4HB", 0, 0, width, height, interlaced) + codes + b"\x3b"


def _palette(data: bytes, at: int, flags: int) -> np.ndarray:
    """Returns (n, 3) uint8 colours of the picture: its own, or everybody's, or grey levels where there are none."""
    start, length = at + 10, _table(flags)
    if not length:
        start, length = 13, _table(data[10])
    if not length:
        return np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    return np.frombuffer(data, np.uint8, length, start).reshape(-1, 3)
