"""TIFF: what its first directory says, checked before anything is read by it.

Not here: unpacking of strips and tiles (`tiff_chunks.py`), their colours (`tiff_colours.py`).
"""

from __future__ import annotations

import numpy as np

from transforms.formats.decode import tiff_chunks, tiff_colours
from transforms.formats.decode.header import Header
from transforms.formats.decode.tags import Directory
from transforms.formats.decode.tiff_layout import JPEG, NONE, TILED, YCBCR, Layout
from transforms.formats.records import Reason, RejectedContent

MAX_PIECES = 2**17  # strips and tiles: 100 megapixels in tiles of 32 by 32
MAX_SAMPLES = 16  # of a pixel
_MAX_TABLES = 2**16  # bytes of JPEG tables

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION = 256, 257, 258, 259, 262, 266, 274
_SAMPLES, _ROWS_A_STRIP, _PLANAR, _T4, _T6, _PREDICTOR, _COLOURS = 277, 278, 284, 292, 293, 317, 320
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _TILE_WIDTH, _TILE_HEIGHT = 273, 279, 324, 325, 322, 323
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _JPEG_TABLES, _SUBSAMPLING = 338, 339, 347, 530
_UNSIGNED, _VOID = 1, 4
_HUGE = 2**31


def probe(data: bytes) -> Header:
    """Returns the header.

    Raises:
        RejectedContent: UNDECODABLE if it states no size.
        struct.error: it points past the end.
    """
    tags = Directory(data)
    width, height = tags.first(_WIDTH, 0), tags.first(_HEIGHT, 0)
    if not width or not height:
        raise RejectedContent(Reason.UNDECODABLE)
    up = tags.first(_ORIENTATION, 1)
    up = up if 1 <= up <= 8 else 1
    if max(width, height) >= _HUGE:
        return Header(width, height, up)
    layout = _layout(tags, width, height)
    if layout is None:
        return Header(width, height, up)
    if layout.pieces > MAX_PIECES:
        return Header(width, height, up, costly=True)
    layout = _with_places(tags, layout, len(data))
    ends = layout.starts + layout.sizes
    whole = len(layout.starts) >= layout.pieces and (not len(ends) or int(ends.max()) <= len(data))
    return Header(width, height, up, whole=whole, memory=_memory(layout, width, height), details=layout)


def _memory(layout: Layout, width: int, height: int) -> int:
    """Returns the bytes of one piece, packed twice and unpacked, of the samples, and of what is made of them."""
    sample = 2 if layout.bits == 16 else 1
    spread = layout.piece_width * layout.samples_a_piece * sample * (1 if layout.bits == 8 else 2)
    piece = layout.piece_height * (2 * layout.row_bytes + spread)
    return piece + width * height * (layout.samples * sample + (2 * layout.samples if sample == 2 else 3) + 3)


def _layout(tags: Directory, width: int, height: int) -> Layout | None:
    """Returns how the pixels lie, or None if they mean nothing known."""
    samples = tags.first(_SAMPLES, 1)
    if not 1 <= samples <= MAX_SAMPLES:
        return None
    bits = tags.numbers(_BITS, samples).tolist() or [1]
    formats = tags.numbers(_SAMPLE_FORMAT, samples).tolist() or [_UNSIGNED]
    if len(set(bits)) > 1 or not set(formats) <= {_UNSIGNED, _VOID}:
        return None  # floats and signed numbers have no white of their own
    form, at, counts = (TILED, _TILES, _TILE_BYTES) if _TILES in tags else ("strips", _STRIPS, _STRIP_BYTES)
    if form == TILED:
        across, down = tags.first(_TILE_WIDTH, 0), tags.first(_TILE_HEIGHT, 0)
    else:
        across, down = width, min(height, tags.first(_ROWS_A_STRIP, height) or height)
    if not across or not down or max(across, down) >= _HUGE:
        return None
    compression = tags.first(_COMPRESSION, NONE)
    photometric = tags.first(_PHOTOMETRIC, 1 if samples < 3 else 2)
    subsampling = tags.numbers(_SUBSAMPLING, 2).tolist() or [2, 2]
    if photometric == YCBCR and compression != JPEG and subsampling != [1, 1]:
        return None
    return Layout(
        width=width,
        height=height,
        bits=bits[0],
        samples=samples,
        photometric=photometric,
        compression=compression,
        predictor=tags.first(_PREDICTOR, 1),
        planar=tags.first(_PLANAR, 1) == 2 and samples > 1,
        fill_order=tags.first(_FILL_ORDER, 1),
        order=tags.order,
        tiled=form == TILED,
        piece_width=across,
        piece_height=down,
        place_tag=at,
        count_tag=counts,
        extra=tuple(tags.numbers(_EXTRA_SAMPLES, MAX_SAMPLES).tolist()),
        fax=(tags.first(_T4, 0), tags.first(_T6, 0)),
    )


def _with_places(tags: Directory, layout: Layout, size: int) -> Layout:
    """Returns the layout with where the pieces lie, and the tables that go with them."""
    starts = _places(tags.numbers(layout.place_tag, layout.pieces), size)
    sizes = _places(tags.numbers(layout.count_tag, layout.pieces), size)
    if not len(sizes) and len(starts) == 1:  # some writers leave it out
        sizes = np.maximum(0, size - starts)
    if layout.compression == NONE:  # more bytes than pixels are no fault
        sizes = np.minimum(sizes, layout.piece_height * layout.row_bytes)
    known = min(len(starts), len(sizes))
    return layout.placed(
        starts[:known],
        sizes[:known],
        colours=tags.numbers(_COLOURS, 3 * 256).astype(np.uint16),
        tables=tags.block(_JPEG_TABLES) if tags.count(_JPEG_TABLES) <= _MAX_TABLES else b"",
    )


def _places(numbers: np.ndarray, size: int) -> np.ndarray:
    """Returns (n,) int64; what lies past the file's end is put right after it, so that sums do not overflow."""
    return np.minimum(numbers.astype(np.uint64), np.uint64(size + 1)).astype(np.int64)


def pixels(data: bytes, header: Header, channels: int, _reduction: int) -> np.ndarray | None:
    """Returns (h, w) grey or (h, w, 3) RGB, or None."""
    layout: Layout | None = header.details
    if layout is None or not tiff_colours.is_known(layout):
        return None
    samples = tiff_chunks.samples_of(data, layout)
    return None if samples is None else tiff_colours.colours_of(samples, layout)
