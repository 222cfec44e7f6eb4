"""Unpacks the strips and tiles of a TIFF; every one must give all its bytes, or there is no image.

Plain, deflated and LZMA pieces are unpacked here, JPEG ones by OpenCV, the others by libtiff (`tiff_libtiff.py`).
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from transforms.formats.decode import jpeg
from transforms.formats.decode.colours import unpacked
from transforms.formats.decode.opencv import decoded_by_opencv
from transforms.formats.decode.tiff_layout import (
    DEFLATE,
    FAX,
    JPEG,
    LZMA,
    LZW,
    NONE,
    OLD_DEFLATE,
    RGB,
    YCBCR,
    ZSTD,
    Layout,
)
from transforms.formats.decode.tiff_libtiff import BY_LIBTIFF, unpacked_by_libtiff
from transforms.formats.records import RejectedContent

_DEFLATED = (DEFLATE, OLD_DEFLATE)
_WITH_PREDICTOR = (LZW, ZSTD, LZMA, *_DEFLATED)
_LZMA_MEMORY = 256 * 2**20
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1], axis=1).reshape(256)


def samples_of(data: bytes, layout: Layout) -> np.ndarray | None:
    """Returns (h, w, samples) uint8 or uint16 as they are stored, 1 to 4 bits as small numbers, or None."""
    image = np.zeros((layout.height, layout.width, layout.samples), np.uint16 if layout.bits == 16 else np.uint8)
    for piece, values in enumerate(_pieces(data, layout)):
        if values is None:
            return None
        plane, place = divmod(piece, layout.pieces_a_plane)
        top, left = place // layout.across * layout.piece_height, place % layout.across * layout.piece_width
        where = image[top : top + layout.piece_height, left : left + layout.piece_width]
        if layout.planar:
            where = where[..., plane : plane + 1]
        where[...] = values[: where.shape[0], : where.shape[1]]
    return image


def _pieces(data: bytes, layout: Layout) -> Iterator[np.ndarray | None]:
    """Yields each piece as (rows, width, samples), or None where it cannot be had; as many as the image needs."""
    if layout.compression == JPEG:
        for piece in range(layout.pieces):
            yield _of_jpeg(_raw(data, layout, piece), layout, layout.rows_of(piece))
    elif layout.compression in BY_LIBTIFF:
        yield from _of_libtiff(data, layout)
    else:
        for piece in range(layout.pieces):
            rows = layout.rows_of(piece)
            content = _content(_raw(data, layout, piece), layout, rows * layout.row_bytes)
            yield None if content is None else _values(content.reshape(rows, layout.row_bytes), layout)


def _raw(data: bytes, layout: Layout, piece: int) -> bytes:
    start = int(layout.starts[piece])
    raw = data[start : start + int(layout.sizes[piece])]
    if layout.fill_order == 2 and layout.compression != JPEG:
        return _REVERSED[np.frombuffer(raw, np.uint8)].tobytes()
    return raw


def _content(raw: bytes, layout: Layout, needed: int) -> np.ndarray | None:
    """Returns (needed,) uint8 unpacked, or None."""
    try:
        if layout.compression in _DEFLATED:
            raw = zlib.decompressobj().decompress(raw, needed)
        elif layout.compression == LZMA:
            raw = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY).decompress(raw, needed)
        elif layout.compression != NONE:
            return None
    except (zlib.error, lzma.LZMAError, EOFError):
        return None
    return np.frombuffer(raw, np.uint8, needed) if len(raw) >= needed else None


def _values(rows: np.ndarray, layout: Layout) -> np.ndarray | None:
    """Returns (h, w, samples) of (h, bytes) uint8 rows, or None if they are foretold in a way that is not known."""
    width, samples = layout.piece_width, layout.samples_a_piece
    if layout.bits == 16:
        values = rows.view(layout.order + "u2").astype(np.uint16)
    else:
        values = unpacked(rows, layout.bits, width * samples)
    values = values.reshape(len(rows), width, samples)
    if layout.compression not in _WITH_PREDICTOR or layout.predictor == 1:
        return values
    if layout.predictor != 2 or layout.bits < 8:
        return None
    return np.cumsum(values, axis=1, dtype=values.dtype)


# --- JPEG -------------------------------------------------------------------------------------------------------------


def _of_jpeg(raw: bytes, layout: Layout, rows: int) -> np.ndarray | None:
    """Returns (rows, w, samples) of one piece, or None."""
    if layout.bits != 8 or layout.samples_a_piece not in (1, 3) or not raw.startswith(b"\xff\xd8"):
        return None
    whole = raw[:2] + _stated_colours(raw, layout) + layout.tables[2:-2] + raw[2:]
    try:
        header = jpeg.probe(whole)
    except (RejectedContent, struct.error, IndexError):
        return None
    fits = layout.piece_width <= header.width <= layout.piece_width + 64 and rows <= header.height <= rows + 64
    if not fits or header.costly or not header.whole:
        return None
    colours = cv2.IMREAD_GRAYSCALE if layout.samples_a_piece == 1 else cv2.IMREAD_COLOR_RGB
    image = decoded_by_opencv(whole, colours | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape[:2] != (header.height, header.width):
        return None
    return image[:rows, : layout.piece_width].reshape(rows, layout.piece_width, layout.samples_a_piece)


def _stated_colours(raw: bytes, layout: Layout) -> bytes:
    """Returns the mark that tells a JPEG decoder whether colours are RGB or YCbCr: in TIFF a tag says so."""
    if layout.photometric not in (RGB, YCBCR) or b"Adobe" in raw[:1024]:
        return b""
    return b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([layout.photometric == YCBCR])


# --- by libtiff -------------------------------------------------------------------------------------------------------


def _of_libtiff(data: bytes, layout: Layout) -> Iterator[np.ndarray | None]:
    """Yields the pieces, unpacked all at once a plane."""
    for first in range(0, layout.pieces, layout.pieces_a_plane):
        pieces = range(first, first + layout.pieces_a_plane)
        rows = [layout.rows_of(piece) for piece in pieces]
        found = unpacked_by_libtiff([_raw(data, layout, piece) for piece in pieces], rows, layout)
        if found is None:
            yield None
            return
        bottom = np.cumsum(rows)
        for top, end in zip(bottom - rows, bottom, strict=True):
            yield found[top:end, :, None] if layout.compression in FAX else _values(found[top:end], layout)
