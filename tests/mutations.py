"""Damage drawn from a seed: to any bytes, to the chunks of an image, to the headers of an archive.

A mutation takes one byte or more and a source of chance, and returns other bytes; it never fails. Sums that a
format keeps of its content are made right again for about half of what is done to it, so that the damage gets past the
first check.

Not a test: other tests `import mutations`.
"""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

from pictures import PNG_MAGIC, png_chunk

from transforms.formats.shards.tfrecord import masked_crc32c

Draw = random.Random
Mutation = Callable[[bytes, Draw], bytes]
Cuts = list[tuple[int, int]]

_EDGES = (0, 1, 2, 3, 12, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


# --- any bytes --------------------------------------------------------------------------------------------------------


def bits_flipped(data: bytes, draw: Draw) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8, 40))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def head_flipped(data: bytes, draw: Draw) -> bytes:
    """One bit among the first bytes, where the sizes stand."""
    at = draw.randrange(min(len(data), 80))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def body_flipped(data: bytes, draw: Draw) -> bytes:
    """A bit or some after the headers, where the pixels are."""
    start = len(data) // 3
    return data[:start] + bits_flipped(data[start:], draw)


def run_overwritten(data: bytes, draw: Draw) -> bytes:
    start, stop = _span(data, draw)
    fill = draw.choice((b"\0", b"\xff", b"U", None))
    run = draw.randbytes(stop - start) if fill is None else fill * (stop - start)
    return data[:start] + run + data[stop:]


def cut(data: bytes, draw: Draw) -> bytes:
    return data[: draw.randrange(1, len(data))]


def tail_lost(data: bytes, draw: Draw) -> bytes:
    """The right length, zeros from somewhere on: what a full disk leaves."""
    kept = draw.randrange(1, len(data))
    return data[:kept] + bytes(len(data) - kept)


def span_removed(data: bytes, draw: Draw) -> bytes:
    start, stop = _span(data, draw)
    return data[:start] + data[stop:]


def span_repeated(data: bytes, draw: Draw) -> bytes:
    start, stop = _span(data, draw)
    return data[:stop] + data[start:stop] * draw.choice((1, 1, 2, 30)) + data[stop:]


def bytes_inserted(data: bytes, draw: Draw) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.choice((1, 2, 4, 64))) + data[at:]


def number_replaced(data: bytes, draw: Draw) -> bytes:
    """A number of one to eight bytes among the first becomes one at the edge of its range."""
    at = draw.randrange(min(len(data), draw.choice((32, 128, 1024))))
    return _with_number(data, at, draw.choice((1, 2, 2, 4, 4, 4, 8)), draw)


def spliced(data: bytes, other: bytes, draw: Draw) -> bytes:
    """The head of one file, the tail of another."""
    kept = draw.randrange(1, len(data))
    return data[:kept] + other[draw.randrange(len(other)) if draw.random() < 0.5 else min(kept, len(other)) :]


def _span(data: bytes, draw: Draw) -> tuple[int, int]:
    start = draw.randrange(len(data))
    return start, min(len(data), start + draw.choice((1, 4, 16, 60, 200, 1000)))


def _with_number(data: bytes, at: int, size: int, draw: Draw) -> bytes:
    order = draw.choice(("little", "big"))
    near = int.from_bytes(data[at : at + size], order) + draw.choice((-1, 1, 2, 7))
    value = draw.choice((*_EDGES, near, draw.getrandbits(8 * size))) % 256**size
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


# --- parts of an image ------------------------------------------------------------------------------------------------


def chunks_shuffled(data: bytes, draw: Draw) -> bytes:
    """A chunk, segment or block is left out, repeated, moved or emptied."""
    cuts = chunks_of(data)
    if len(cuts) < 2:
        return span_removed(data, draw)
    pieces = [data[start:stop] for start, stop in cuts]
    place, other = draw.randrange(len(pieces)), draw.randrange(len(pieces))
    what = draw.randrange(5)
    if what == 0:
        del pieces[place]
    elif what == 1:
        pieces.insert(other, pieces[place])
    elif what == 2:
        pieces[place], pieces[other] = pieces[other], pieces[place]
    elif what == 3:
        pieces[place:place] = [pieces[place]] * draw.choice((10, 300))
    else:
        pieces[place] = run_overwritten(pieces[place], draw) if pieces[place] else b""
    return data[: cuts[0][0]] + b"".join(pieces) + data[cuts[-1][1] :]


def chunk_changed(data: bytes, draw: Draw) -> bytes:
    """A number at the start of a chunk, segment, block or entry is replaced; a PNG's check sum holds all the same."""
    cuts = chunks_of(data)
    if not cuts:
        return number_replaced(data, draw)
    start, stop = draw.choice(cuts)
    if stop - start < 2:
        return bits_flipped(data, draw)
    if data.startswith(PNG_MAGIC) and stop - start >= 13:
        kind, content = data[start + 4 : start + 8], data[start + 8 : stop - 4]
        content = _with_number(content, draw.randrange(min(len(content), 40)), draw.choice((1, 2, 4)), draw)
        return data[:start] + png_chunk(kind, content) + data[stop:]
    at = start + draw.randrange(min(stop - start, 24))
    return _with_number(data, at, draw.choice((1, 2, 4)), draw)[: len(data) + 8]


def repacked(data: bytes, draw: Draw) -> bytes:
    """Damage inside a PNG's packed rows, packed again: sound to zlib, and too much, too little or wrong to libpng."""
    if not data.startswith(PNG_MAGIC):
        return run_overwritten(data, draw)
    cuts = [(start, stop) for start, stop in chunks_of(data) if data[start + 4 : start + 8] == b"IDAT"]
    try:
        rows = zlib.decompress(b"".join(data[start + 8 : stop - 4] for start, stop in cuts))
    except zlib.error:
        return chunk_changed(data, draw)
    rows = draw.choice((bits_flipped, cut, span_removed, span_repeated, run_overwritten))(rows or b"\0", draw)
    return data[: cuts[0][0]] + png_chunk(b"IDAT", zlib.compress(rows)) + data[cuts[-1][1] :]


def chunks_of(data: bytes) -> Cuts:
    """Returns where the parts of an image lie: what its kind calls chunk, segment, block or entry. Maybe none."""
    for magic, parts in _PARTS:
        if data.startswith(magic):
            return [(start, min(stop, len(data))) for start, stop in parts(data) if start < len(data)]
    return []


def _png_parts(data: bytes) -> Cuts:
    cuts, at = [], 8
    while at + 12 <= len(data) and len(cuts) < 1000:
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        cuts.append((at, end))
        at = end
    return cuts


def _jpeg_parts(data: bytes) -> Cuts:
    cuts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        cuts.append((at, end))
        at = end
    if at < len(data) and (found := data.find(b"\xff\xda", at + 2)) > 0:
        return [*cuts, (at, found), (found, len(data))]  # the first scan of a progressive one, and the rest
    return [*cuts, (at, len(data))]


def _riff_parts(data: bytes) -> Cuts:
    cuts, at = [], 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        cuts.append((at, at + 8 + size + size % 2))
        at = cuts[-1][1]
    return cuts


def _gif_parts(data: bytes) -> Cuts:
    """Cuts before each block that begins with the mark of an extension or of an image: good enough to shuffle."""
    marks = [at for at in range(13, len(data)) if data[at : at + 2] in (b"!\xf9", b"!\xff", b",\0")]
    return list(pairwise([*marks, len(data)]))


def _tiff_parts(data: bytes) -> Cuts:
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 10:
        return []
    (at,) = struct.unpack_from(order + "I", data, 4)
    if at + 2 > len(data):
        return []
    (count,) = struct.unpack_from(order + "H", data, at)
    return [(at + 2 + 12 * number, at + 14 + 12 * number) for number in range(min(count, 100))]


def _box_parts(data: bytes) -> Cuts:
    """Boxes of HEIC and AVIF, those inside `meta` and `iprp` too."""
    cuts, at = [], 0
    while at + 8 <= len(data) and len(cuts) < 200:
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            break
        cuts.append((at, at + size))
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8}.get(data[at + 4 : at + 8], size)
        at += inside
    return sorted(cuts)


def _bmp_parts(data: bytes) -> Cuts:
    return [(at, at + 4) for at in range(2, min(70, len(data)), 4)]


def _pnm_parts(data: bytes) -> Cuts:
    return [(at, at + 2) for at in range(0, min(24, len(data)), 2)]


_PARTS: tuple[tuple[bytes, Callable[[bytes], Cuts]], ...] = (
    (PNG_MAGIC, _png_parts),
    (b"\xff\xd8", _jpeg_parts),
    (b"RIFF", _riff_parts),
    (b"GIF8", _gif_parts),
    (b"II", _tiff_parts),
    (b"MM", _tiff_parts),
    (b"BM", _bmp_parts),
    (b"P", _pnm_parts),
    (b"\0\0\0", _box_parts),
)
ANYWHERE: tuple[Mutation, ...] = (
    bits_flipped, head_flipped, run_overwritten, cut, tail_lost, span_removed, span_repeated, bytes_inserted,
    number_replaced,
)  # fmt: skip
OF_IMAGES: tuple[Mutation, ...] = (*ANYWHERE, *[chunks_shuffled, chunk_changed, body_flipped] * 4, *[repacked] * 3)


# --- parts of an archive ----------------------------------------------------------------------------------------------


def tar_header_changed(data: bytes, draw: Draw) -> bytes:
    """A field of a header becomes an edge, its check sum right again."""
    at = _tar_header(data, draw)
    header = bytearray(data[at : at + 512])
    if len(header) < 512:
        return cut(data, draw)
    start, size = draw.choice(((0, 100), (124, 12), (156, 1), (257, 8), (345, 155)))
    values = (
        b"7" * size,
        b"0" * size,
        b"\x80" + b"\xff" * size,
        b"-1" + bytes(size),
        draw.randbytes(size),
        b"xgLKSVD15",
    )
    header[start : start + size] = draw.choice(values)[:size].ljust(size, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


def tar_blocks_shuffled(data: bytes, draw: Draw) -> bytes:
    """Blocks of 512 bytes are left out, repeated, or swapped."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    first, second = draw.randrange(len(blocks)), draw.randrange(len(blocks))
    if draw.random() < 0.5:
        blocks[first], blocks[second] = blocks[second], blocks[first]
    else:
        blocks[first : first + 1] = [blocks[first]] * draw.choice((0, 2, 5))
    return b"".join(blocks)


def _tar_header(data: bytes, draw: Draw) -> int:
    found = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    return draw.choice(found) if found else 0


def inside_gzip(data: bytes, draw: Draw) -> bytes:
    """Damage inside a gzip stream, packed again."""
    try:
        inner = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return bits_flipped(data, draw)
    changed = draw.choice((*ANYWHERE, tar_header_changed, tar_blocks_shuffled))(inner or b"\0", draw)
    return gzip.compress(changed, 1, mtime=0)


def zip_field_changed(data: bytes, draw: Draw) -> bytes:
    """A number in a header, the directory or the record of the end is replaced."""
    marks = [at for mark in (b"PK\3\4", b"PK\1\2", b"PK\5\6") for at in _places(data, mark)]
    if not marks:
        return number_replaced(data, draw)
    return _with_number(data, draw.choice(marks) + draw.randrange(4, 46), draw.choice((1, 2, 4)), draw)


def zip_piece_shuffled(data: bytes, draw: Draw) -> bytes:
    """A member or a line of the directory is left out or repeated."""
    marks = sorted(at for mark in (b"PK\3\4", b"PK\1\2", b"PK\5\6") for at in _places(data, mark))
    if len(marks) < 3:
        return span_repeated(data, draw)
    place = draw.randrange(len(marks) - 1)
    piece = data[marks[place] : marks[place + 1]]
    return data[: marks[place]] + piece * draw.choice((0, 2, 3)) + data[marks[place + 1] :]


def record_changed(data: bytes, draw: Draw) -> bytes:
    """Damage inside a record of a TFRecord file, its length and sums right again; or records out of order."""
    records, at = [], 0
    while at + 16 <= len(data) and len(records) < 1000:
        length = int.from_bytes(data[at : at + 8], "little")
        records.append(data[at + 12 : at + 12 + length])
        at += 16 + length
    if not records:
        return bits_flipped(data, draw)
    place = draw.randrange(len(records))
    if draw.random() < 0.7 and records[place]:
        records[place] = draw.choice(ANYWHERE)(records[place], draw)
    else:
        records[place : place + 1] = [records[place]] * draw.choice((0, 2, 9))
    return b"".join(_record(record) for record in records)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + next(sums) + content + next(sums)


def footer_changed(data: bytes, draw: Draw) -> bytes:
    """A bit, a byte or the length of a Parquet file's footer, which has no check sum of its own."""
    length = int.from_bytes(data[-8:-4], "little")
    if draw.random() < 0.1 or not 0 < length <= len(data) - 12:
        return data[:-8] + draw.choice(_EDGES).to_bytes(4, "little") + data[-4:]
    at = len(data) - 8 - length
    footer = draw.choice((bits_flipped, head_flipped, number_replaced, run_overwritten))(data[at:-8], draw)
    return data[:at] + footer + data[-8:]


def line_changed(data: bytes, draw: Draw) -> bytes:
    """A line of a text is left out, repeated, or its numbers go wrong."""
    lines = data.split(b"\n")
    place = draw.randrange(len(lines))
    swaps = ((b" ", b"  "), (b",", b""), (b"1", b"-1"), (b"2", b"999"), (b"0", b"x"), (b'"', b""), (b" ", b"\0"))
    before, after = draw.choice(swaps)
    lines[place : place + 1] = [lines[place].replace(before, after, draw.choice((1, 1, -1)))] * draw.choice(
        (0, 1, 1, 2)
    )
    return b"\n".join(lines)


def _places(data: bytes, mark: bytes) -> Sequence[int]:
    places, at = [], data.find(mark)
    while at >= 0:
        places.append(at)
        at = data.find(mark, at + 1)
    return places


OF_ARCHIVES: dict[str, tuple[Mutation, ...]] = {
    ".tar": (*ANYWHERE, *[tar_header_changed, tar_blocks_shuffled] * 3),
    ".gz": (*ANYWHERE, *[inside_gzip] * 6),
    ".zip": (*ANYWHERE, *[zip_field_changed] * 5, zip_piece_shuffled),
    ".tfrecord": (*ANYWHERE, *[record_changed] * 5),
    ".parquet": (*ANYWHERE, *[footer_changed] * 3),
    ".csv": (*ANYWHERE, *[line_changed] * 5),
}
