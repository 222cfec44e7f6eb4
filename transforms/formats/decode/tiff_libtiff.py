"""Unpacks strips and tiles of a TIFF by Pillow's libtiff: LZW, PackBits, zstd and fax codes.

libtiff is given a grey or two-coloured image whose pixels are the bytes or bits to unpack, its strips one above the
other: what they mean is decided by the caller, for every depth and order alike.
"""

from __future__ import annotations

import struct

import numpy as np

from transforms.formats.decode.pillow import decoded_by_pillow, group_4_of
from transforms.formats.decode.tags import Directory
from transforms.formats.decode.tiff_layout import BLACK_IS_ZERO, FAX, GROUP_4, LZW, PACK_BITS, ZSTD, Layout

BY_LIBTIFF = (LZW, PACK_BITS, ZSTD, *FAX)
_STRIPS, _STRIP_BYTES = 273, 279
_END_OF_BLOCK = 24  # bits after the last row of group 4


def unpacked_by_libtiff(raw: list[bytes], rows: list[int], layout: Layout) -> np.ndarray | None:
    """Returns (all rows, row bytes) uint8, or (all rows, width) uint8 bits of fax codes; or None.

    Args:
        raw: strips or tiles as they are stored, the highest bits first.
        rows: that each of them holds.
        layout: of the file they come from.
    """
    fax = layout.compression in FAX
    if fax and (layout.bits, layout.samples_a_piece) != (1, 1):
        return None
    found = decoded_by_pillow(_bare_tiff(raw, layout, sum(rows)), "TIFF")
    if found is None or found.shape != (sum(rows), layout.piece_width if fax else layout.row_bytes):
        return None
    if layout.compression == GROUP_4 and not _is_all_there(raw, found, layout.piece_height):
        return None
    return found.astype(np.uint8) if fax else found


def _is_all_there(raw: list[bytes], bits: np.ndarray, rows_a_strip: int) -> bool:
    """True if encoding the bits again gives the same codes.

    libtiff ends a damaged strip of group 4 early, calls that success, and leaves the other rows unwritten. The standard
    leaves an encoder no choice, so that what comes back is what was there.
    """
    again = group_4_of(bits, rows_a_strip)
    if again is None:
        return False
    tags = Directory(again)
    starts, sizes = tags.numbers(_STRIPS, len(raw)).tolist(), tags.numbers(_STRIP_BYTES, len(raw)).tolist()
    if len(starts) != len(raw):
        return False
    return all(
        _begins_with(strip, again[start : start + size]) for strip, start, size in zip(raw, starts, sizes, strict=True)
    )


def _begins_with(raw: bytes, codes: bytes) -> bool:
    """True if the codes, without the end of the block, are what a strip begins with."""
    codes = codes.rstrip(b"\0")
    if not codes:
        return False
    last = (codes[-1] & -codes[-1]).bit_length() - 1  # unused bits of the last byte
    whole, rest = divmod(8 * len(codes) - last - _END_OF_BLOCK, 8)
    if raw[:whole] != codes[:whole]:
        return False
    return not rest or (len(raw) > whole and (raw[whole] ^ codes[whole]) >> (8 - rest) == 0)


def _bare_tiff(raw: list[bytes], layout: Layout, rows: int) -> bytes:
    """Returns a TIFF of bytes (or bits, for fax codes) with these strips and nothing else."""
    fax = layout.compression in FAX
    sizes = np.array([len(strip) for strip in raw], np.uint32)
    starts = (8 + np.cumsum(sizes, dtype=np.int64) - sizes).astype(np.uint32)
    content = b"".join(raw)
    content += bytes(len(content) % 2)
    tables = 8 + len(content)
    tags = {
        256: layout.piece_width if fax else layout.row_bytes, 257: rows, 258: 1 if fax else 8,
        259: layout.compression, 262: BLACK_IS_ZERO, 273: tables if len(raw) > 1 else 8, 277: 1,
        278: layout.piece_height, 279: tables + 4 * len(raw) if len(raw) > 1 else len(raw[0]),
    }  # fmt: skip
    if fax:
        tags |= {292: layout.fax[0], 293: layout.fax[1]}
    entries = b"".join(
        struct.pack("<2H2I", tag, 4, len(raw) if tag in (273, 279) else 1, value) for tag, value in tags.items()
    )
    lists = starts.tobytes() + sizes.tobytes() if len(raw) > 1 else b""
    head = b"II*\0" + struct.pack("<I", tables + len(lists))
    return b"".join([head, content, lists, struct.pack("<H", len(tags)), entries, bytes(4)])
