"""BMP, decoded by hand: OpenCV takes unused bits for alpha, and palettes of old headers for grey."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from transforms.formats.decode.colours import in_table, on_white, unpacked
from transforms.formats.decode.header import Header
from transforms.formats.records import Reason, RejectedContent

MAX_RUN_BYTES = 16 * 2**20  # run-length encoded: some seconds of unpacking

_OS2_HEADER, _INFO_HEADER = 12, 40
_HEADERS = frozenset({_OS2_HEADER, 16, _INFO_HEADER, 52, 56, 64, 108, 124})
_PLAIN, _RUNS_8, _RUNS_4, _MASKS, _ALPHA_MASKS = 0, 1, 2, 3, 6
_DEPTHS = {
    _PLAIN: (1, 2, 4, 8, 16, 24, 32), _RUNS_8: (8,), _RUNS_4: (4,), _MASKS: (16, 32), _ALPHA_MASKS: (16, 32),
}  # fmt: skip
_USUAL_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


@dataclass(frozen=True, slots=True)
class _Details:
    """What the header says of the pixels.

    Attributes:
        bits: of a pixel. packing: as BMP numbers it. start: of the pixels. upwards: the last row comes first.
        header: its length. colours: entries of the palette, 0 for as many as there can be.
    """

    bits: int
    packing: int
    start: int
    upwards: bool
    header: int
    colours: int


def probe(data: bytes) -> Header:
    """Returns the header.

    Raises:
        RejectedContent: NOT_AN_IMAGE if this is a text that starts with BM.
        struct.error: it ends before it tells its size.
    """
    if len(data) < 18 or int.from_bytes(data[14:18], "little") not in _HEADERS:
        raise RejectedContent(Reason.NOT_AN_IMAGE)
    length = data[14]
    packing = packed = colours = 0
    if length == _OS2_HEADER:
        width, height, _, bits = struct.unpack_from("<4H", data, 18)
    elif length == 16:
        width, height, _, bits = struct.unpack_from("<2i2H", data, 18)
    else:
        width, height, _, bits, packing, packed = struct.unpack_from("<2i2H2I", data, 18)
        (colours,) = struct.unpack_from("<I", data, 46)
    start = int.from_bytes(data[10:14], "little")
    if start == 14 + length and bits <= 8:  # some writers forget the palette
        start += (3 if length == _OS2_HEADER else 4) * min(colours or 2**bits, 2**bits)
    runs = packing in (_RUNS_8, _RUNS_4)
    row, padded = (width * bits + 7) // 8, _row_bytes(width, bits)
    needed = packed if runs else padded * abs(height) - padded + row  # the last row's padding may be missing
    return Header(
        width,
        abs(height),  # below zero: from top to bottom
        whole=start + needed <= len(data),
        costly=runs and len(data) - start > MAX_RUN_BYTES,
        memory=abs(width * height) * (8 if bits in (16, 32) else 4),
        details=_Details(bits, packing, start, height > 0, length, colours),
    )


def _row_bytes(width: int, bits: int) -> int:
    return (width * bits + 31) // 32 * 4


def pixels(data: bytes, header: Header, _channels: int, _reduction: int) -> np.ndarray | None:
    """Returns (h, w) grey or (h, w, 3) RGB, or None."""
    details: _Details = header.details
    bits, width, height = details.bits, header.width, header.height
    if bits not in _DEPTHS.get(details.packing, ()) or (details.packing == _RUNS_8 and details.header == 64):
        return None
    if details.packing in (_RUNS_8, _RUNS_4):
        image = in_table(_unpacked_runs(data, header), _palette(data, details))
    else:
        rows = _rows(data, details.start, height, _row_bytes(width, bits))
        if bits == 24:
            image = rows[:, : 3 * width].reshape(height, width, 3)[..., ::-1]
        elif bits < 16:
            index = np.ascontiguousarray(unpacked(rows, bits, width))
            image = in_table(index, _palette(data, details))
        else:
            image = _by_masks(rows, width, bits, _masks(data, details))
    return np.ascontiguousarray(image[::-1] if details.upwards else image)


def _rows(data: bytes, start: int, height: int, length: int) -> np.ndarray:
    """Returns (h, length) uint8; missing padding of the last row as zeros."""
    missing = start + height * length - len(data)
    if missing > 0:
        data, start = data[start:] + bytes(missing), 0
    return np.frombuffer(data, np.uint8, length * height, start).reshape(height, length)


def _palette(data: bytes, details: _Details) -> np.ndarray:
    """Returns (n, 3) uint8 RGB, as much of it as there is."""
    entry, at = (3 if details.header == _OS2_HEADER else 4), 14 + details.header
    most = 2**details.bits
    count = min(details.colours or most, most, max(0, details.start - at) // entry or most, (len(data) - at) // entry)
    return np.frombuffer(data, np.uint8, count * entry, at).reshape(count, entry)[:, 2::-1]


def _masks(data: bytes, details: _Details) -> tuple[int, int, int, int]:
    """Returns which bits of a pixel are red, green, blue and alpha; alpha is 0 where the header knows none."""
    if details.packing == _PLAIN:
        return _USUAL_MASKS[details.bits]
    with_alpha = details.packing == _ALPHA_MASKS or details.header in (56, 108, 124)
    red, green, blue, alpha = struct.unpack_from("<4I", data, 14 + _INFO_HEADER)
    return red, green, blue, alpha if with_alpha else 0


def _by_masks(rows: np.ndarray, width: int, bits: int, masks: tuple[int, int, int, int]) -> np.ndarray:
    """Returns (h, w, 3) RGB of pixels of 16 or 32 bits; alpha that is zero throughout was never meant."""
    image = np.empty((len(rows), width, 3), np.uint8)
    values = rows[:, : width * bits // 8].view(f"<u{bits // 8}")
    for channel, mask in enumerate(masks[:3]):
        image[..., channel] = _part(values, rows, mask)
    if masks[3]:
        alpha = _part(values, rows, masks[3])
        if alpha.any() and alpha.min() < 255:
            return on_white(image, alpha)
    return image


def _part(values: np.ndarray, rows: np.ndarray, mask: int) -> np.ndarray:
    """Returns (h, w) uint8 of the bits under a mask, the largest value as 255."""
    mask &= 2 ** (8 * values.itemsize) - 1
    if not mask:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    if mask == 0xFF << shift and shift % 8 == 0:  # a byte of its own
        return rows[:, shift // 8 :: values.itemsize][:, : values.shape[1]]
    largest = mask >> shift
    part = (values & values.dtype.type(mask)) >> shift
    return np.asarray(part.astype(np.float64) * 255 / largest + 0.5).astype(np.uint8)


def _unpacked_runs(data: bytes, header: Header) -> np.ndarray:
    """Returns (h, w) uint8 indices of run-length encoded rows, 0 where they skip."""
    width, height, four = header.width, header.height, header.details.packing == _RUNS_4
    out, at, column, row = bytearray(width * height), header.details.start, 0, 0
    while at + 2 <= len(data) and row < height:
        count, code = data[at], data[at + 1]
        at += 2
        if count or code > 2:
            values, at = _run(data, at, four)
            values = values[: width - column]
            begin = row * width + column
            out[begin : begin + len(values)] = values
            column += len(values)
        elif code == 0:
            column, row = 0, row + 1
        elif code == 1 or at + 2 > len(data):
            break
        else:
            column, row, at = min(width, column + data[at]), row + data[at + 1], at + 2
    return np.frombuffer(out, np.uint8).reshape(height, width)


def _run(data: bytes, at: int, four: bool) -> tuple[bytes, int]:
    """Returns the indices that the two bytes before `at` stand for, with what follows them, and where that ends."""
    count, code = data[at - 2], data[at - 1]
    if count:
        pair = bytes((code >> 4, code & 15)) if four else bytes((code, code))
        return (pair * ((count + 1) // 2))[:count], at
    packed = data[at : at + ((code + 1) // 2 if four else code)]
    values = bytes(half for byte in packed for half in (byte >> 4, byte & 15)) if four else packed
    return values[:code], at + len(packed) + len(packed) % 2
