"""Encoded bytes to upright pixels, or the reason why not: JPEG, PNG, WebP, GIF, BMP, TIFF, binary PGM and PPM.

The header is read here first, by small parsers of our own: OpenCV allocates what a header claims, decodes some cut
files without an error, and tells neither sizes nor causes. Every decision depends on the bytes alone.

What is done to reach 8-bit grey or RGB:
  - EXIF orientation is applied once (TIFF: its own orientation tag, by OpenCV).
  - Alpha, and colours marked as transparent, are laid on white. 16 bits become 8 by rounding v / 257, before alpha.
  - CMYK JPEG files are taken as inverted, as Adobe writes them and everybody reads them. BMP alpha counts unless it is
    zero throughout. Animations give their first frame.
  - TIFF files of floats, signed or 32-bit numbers have no white of their own: undecodable.

libjpeg and libpng print their own complaints to stderr; only OpenCV's can be silenced from here, and are.

Not here: resizing beyond what a JPEG decoder does for nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from transforms.formats.records import Limits, Reason, RejectedContent

REVISION = 1  # goes up whenever the same bytes give other pixels

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)  # a bad image is a row of ours, not a warning

_REDUCED = {  # a mere number to be added, for colour as for grey
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_BAND_PIXELS = 2**20  # alpha is laid on white in bands, so that wide sums take few megabytes
_WHITE_16 = 0xFFFF


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


def decode(
    data: bytes, *, channels: int, limits: Limits, at_least: tuple[int, int] | None = None, min_side: int = 1
) -> Decoded:
    """Returns the pixels of an encoded image.

    Args:
        data: a whole file.
        channels: 3 for RGB, 1 for grey.
        limits: `max_pixels` is checked before anything is decoded.
        at_least: (height, width) that is enough. A JPEG is then decoded at 1/2, 1/4 or 1/8, the smallest with both
            sides at least this: a function of the image's size alone.
        min_side: pixels that both sides must have.

    Raises:
        RejectedContent: EMPTY, NOT_AN_IMAGE, TOO_MANY_PIXELS, TOO_SMALL, TRUNCATED or UNDECODABLE, found in this order.
    """
    if not data:
        raise RejectedContent(Reason.EMPTY)
    header = _probe(data)
    width, height = header.width, header.height
    if header.orientation >= 5:
        width, height = height, width
    fault = _first_fault(header, limits, min_side)
    if fault is not None:
        raise RejectedContent(fault, width=width, height=height)
    reduction = 1
    if at_least is not None and header.kind == "jpeg":
        reduction = reduction_for(height, width, at_least)
    image = _decode_pixels(data, header, channels, reduction)
    if image is None:
        raise RejectedContent(Reason.UNDECODABLE, width=width, height=height)
    return Decoded(image, width, height, reduction)


def reduction_for(height: int, width: int, at_least: tuple[int, int]) -> int:
    """Returns the strongest reduction (8, 4, 2 or 1) that leaves both sides at least as long as asked for."""
    for reduction in (8, 4, 2):
        if -(-height // reduction) >= at_least[0] and -(-width // reduction) >= at_least[1]:
            return reduction
    return 1


def _first_fault(header: _Header, limits: Limits, min_side: int) -> Reason | None:
    if header.width < 1 or header.height < 1:
        return Reason.UNDECODABLE
    if header.width * header.height > limits.max_pixels:
        return Reason.TOO_MANY_PIXELS
    if min(header.width, header.height) < min_side:
        return Reason.TOO_SMALL
    return None if header.whole else Reason.TRUNCATED


# --- pixels -----------------------------------------------------------------------------------------------------------


def _decode_pixels(data: bytes, header: _Header, channels: int, reduction: int) -> np.ndarray | None:
    """Returns upright pixels, or None if they cannot be had."""
    if header.kind == "pnm":
        return _in_channels(_pnm_pixels(data, header), channels)
    if header.kind == "jpeg":
        colours = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
        image = _imdecode(data, colours | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[reduction])
    else:
        os2 = header.kind == "bmp" and data[14] == _OS2_HEADER  # OpenCV takes these for grey unless told
        image = _imdecode(data, cv2.IMREAD_COLOR_BGR if os2 else cv2.IMREAD_UNCHANGED)
    if image is None or image.shape[:2] != _expected_shape(header, reduction):
        return None
    if header.kind != "jpeg":
        image = _flat_eight_bits(image, header)
        if image is None:
            return None
        image = _in_channels(image, channels)
    return image if header.orientation == 1 or header.kind == "tiff" else _turn(image, header.orientation)


def _imdecode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no memory to decode an image of {len(data)} bytes") from error
        return None


def _expected_shape(header: _Header, reduction: int) -> tuple[int, int]:
    height, width = -(-header.height // reduction), -(-header.width // reduction)
    return (width, height) if header.kind == "tiff" and header.orientation >= 5 else (height, width)


def _flat_eight_bits(image: np.ndarray, header: _Header) -> np.ndarray | None:
    """Returns (h, w) grey or (h, w, 3) BGR uint8 without alpha, or None if the numbers mean nothing known."""
    if image.dtype not in (np.uint8, np.uint16):
        return None
    if header.clear_grey >= 0 and image.ndim == 2:
        image[image == header.clear_grey] = np.iinfo(image.dtype).max
    premultiplied = header.premultiplied
    if header.kind == "tiff" and image.dtype == np.uint8:
        premultiplied = True  # libtiff's RGBA reading has multiplied it
    if image.dtype == np.uint16:
        if header.white_is_zero:
            image = _WHITE_16 - image  # OpenCV turns 8-bit images only
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.ndim == 2 or image.shape[2] == 3:
        return image
    if image.shape[2] != 4:
        return None
    lowest = int(image[..., 3].min())
    if lowest == 255 or (header.kind == "bmp" and not image[..., 3].any()):
        return np.ascontiguousarray(image[..., :3])
    return _on_white(image, premultiplied=premultiplied)


def _on_white(image: np.ndarray, *, premultiplied: bool) -> np.ndarray:
    flat = np.empty((*image.shape[:2], 3), np.uint8)
    rows = max(1, _BAND_PIXELS // image.shape[1])
    for top in range(0, len(image), rows):
        band = image[top : top + rows].astype(np.uint16)
        colour, white = band[..., :3], 255 - band[..., 3:]
        if premultiplied:
            flat[top : top + rows] = np.minimum(colour + white, 255)
        else:
            flat[top : top + rows] = (colour * band[..., 3:] + 255 * white + 127) // 255
    return flat


def _in_channels(image: np.ndarray, channels: int) -> np.ndarray:
    if image.ndim == 2 and channels == 1:
        return image
    from_colour = cv2.COLOR_BGR2GRAY if channels == 1 else cv2.COLOR_BGR2RGB
    converted: np.ndarray = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else from_colour)
    return converted


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the image upright; `orientation` as EXIF numbers it."""
    if orientation >= 5:
        image = cv2.transpose(image)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    flip = {2: 1, 3: -1, 4: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _pnm_pixels(data: bytes, header: _Header) -> np.ndarray:
    """Returns (h, w) grey or (h, w, 3) BGR; by hand, since OpenCV ignores the largest value a file states."""
    match = _PNM.match(data, 0, 2**16)
    assert match is not None
    colours, largest = 3 if match[1] == b"6" else 1, int(match[4])
    kind = np.dtype(np.uint8 if largest < 256 else ">u2")
    values = np.frombuffer(data, kind, header.width * header.height * colours, match.end())
    if largest != 255:
        values = (np.minimum(values, largest).astype(np.uint32) * 255 + largest // 2) // largest
    image = values.astype(np.uint8)
    if colours == 1:
        return image.reshape(header.height, header.width)
    return np.ascontiguousarray(image.reshape(header.height, header.width, 3)[..., ::-1])


# --- headers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Header:
    """What an image says of itself.

    Attributes:
        kind: jpeg, png, webp, gif, bmp, tiff or pnm.
        width, height: as stored, before orientation.
        orientation: 1 to 8, as EXIF numbers it.
        whole: False if the file ends before the image does.
        clear_grey: the grey that stands for transparent in a PNG, or -1.
        premultiplied: colours of a TIFF have been multiplied by alpha.
        white_is_zero: in a TIFF.
    """

    kind: str
    width: int
    height: int
    orientation: int = 1
    whole: bool = True
    clear_grey: int = -1
    premultiplied: bool = False
    white_is_zero: bool = False


def _probe(data: bytes) -> _Header:
    """Returns the header.

    Raises:
        RejectedContent: NOT_AN_IMAGE; TRUNCATED if the file ends before it tells its size; UNDECODABLE.
    """
    for magic, probe in _PROBES:
        if data.startswith(magic):
            try:
                return probe(data)
            except (struct.error, IndexError, OverflowError) as error:  # what reading behind the end raises
                raise RejectedContent(Reason.TRUNCATED) from error
    raise RejectedContent(Reason.NOT_AN_IMAGE)


# JPEG. In a scan 0xFF is followed by 0 (a plain 0xFF), a restart mark, or 0xFF (filling): anything else ends the scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the frame headers
_LONELY = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xD9)})  # marks without a length
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = 0xD9, 0xDA, 0xE1


def _probe_jpeg(data: bytes) -> _Header:
    at, width, height, orientation, seen = 2, 0, 0, 1, False
    while (at := data.find(b"\xff", at)) >= 0 and at + 2 <= len(data):
        mark = data[at + 1]
        if mark in _LONELY:
            at += 1 if mark == 0xFF else 2
            continue
        if mark in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        if mark in _SIZES and not seen:
            height, width = struct.unpack_from(">2H", data, at + 5)
            seen = True
        elif mark == _APP1 and orientation == 1 and data.startswith(b"Exif\0\0", at + 4):
            orientation = _exif_orientation(data[at + 10 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    else:
        mark = 0
    if not seen:  # an end before a beginning is nonsense, no cut
        raise RejectedContent(Reason.UNDECODABLE if mark else Reason.TRUNCATED)
    return _Header("jpeg", width, height, orientation, whole=mark != 0 and _reaches_end(data, at))


def _reaches_end(data: bytes, at: int) -> bool:
    """True if the mark of the end follows the scans; a thumbnail's, inside a segment, does not count."""
    while match := _SCAN_END.search(data, at):
        at, mark = match.end(), data[match.end() - 1]
        if mark == _END_OF_IMAGE:
            return True
        if mark >= 0xC0 and mark not in _LONELY:  # a segment between scans
            at += int.from_bytes(data[at : at + 2], "big")
    return False


def _probe_png(data: bytes) -> _Header:
    width, height, depth, colours = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        raise RejectedContent(Reason.UNDECODABLE)
    at, whole, orientation, clear_grey = 33, False, 1, -1
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            whole = end <= len(data)
            break
        if kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : end - 4])
        elif kind == b"tRNS" and colours == 0:
            clear_grey = int.from_bytes(data[at + 8 : at + 10], "big") * (255 // (2**depth - 1) if depth < 8 else 1)
        at = end
    return _Header("png", width, height, orientation, whole, clear_grey)


def _probe_webp(data: bytes) -> _Header:
    if data[8:12] != b"WEBP":
        raise RejectedContent(Reason.NOT_AN_IMAGE)
    (claimed,) = struct.unpack_from("<I", data, 4)
    form, orientation = data[12:16], 1
    if form == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<2H", data, 26))
    elif form == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif form == b"VP8X":
        flags, low_w, high_w, low_h, high_h = struct.unpack_from("<B3xHBHB", data, 20)
        width, height = (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
        orientation = _webp_orientation(data) if flags & 0x08 else 1
    else:
        raise RejectedContent(Reason.UNDECODABLE if len(data) >= 16 else Reason.TRUNCATED)
    return _Header("webp", width, height, orientation, whole=claimed + 8 <= len(data))


def _webp_orientation(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            return _exif_orientation(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    return 1


def _probe_gif(data: bytes) -> _Header:
    width, height, flags = struct.unpack_from("<2HB", data, 6)
    return _Header("gif", width, height, whole=_gif_reaches_end(data, 13 + _gif_table(flags)))


def _gif_reaches_end(data: bytes, at: int) -> bool:
    """True if the blocks lead to the trailer; also if rubbish follows a whole image, as every viewer shows it."""
    pictures, size = 0, len(data)
    while at < size and data[at] != 0x3B:
        if data[at] == 0x21:
            at += 2
        elif data[at] == 0x2C and at + 10 <= size:
            at += 11 + _gif_table(data[at + 9])
            pictures += 1
        else:
            return pictures > 0 and data[at] != 0x2C
        while at < size and data[at]:
            at += 1 + data[at]
        at += 1
    return at < size


def _gif_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_OS2_HEADER = 12
_BMP_HEADERS = frozenset({_OS2_HEADER, 40, 52, 56, 64, 108, 124})
_BMP_PLAIN = frozenset({0, 3, 6})  # not run-length encoded


def _probe_bmp(data: bytes) -> _Header:
    if len(data) < 18 or int.from_bytes(data[14:18], "little") not in _BMP_HEADERS:
        raise RejectedContent(Reason.NOT_AN_IMAGE)  # text may start with BM
    if data[14] == _OS2_HEADER:
        width, height, _, bits = struct.unpack_from("<4H", data, 18)
        packing = packed = 0
    else:
        width, height, _, bits, packing, packed = struct.unpack_from("<2i2H2I", data, 18)
    height = abs(height)  # below zero: from top to bottom
    if packing in _BMP_PLAIN:
        packed = (width * bits + 31) // 32 * 4 * height
    start = int.from_bytes(data[10:14], "little")
    return _Header("bmp", width, height, whole=start + packed <= len(data))


_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _EXTRA_SAMPLES = 256, 257, 258, 262, 274, 338
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _SAMPLE_FORMAT = 273, 279, 324, 325, 339
_TIFF_TAGS = frozenset(
    {_WIDTH, _HEIGHT, _PHOTOMETRIC, _ORIENTATION, _EXTRA_SAMPLES, _STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES}
    | {_BITS, _SAMPLE_FORMAT}  # looked at only to see that they lie within the file
)
_MAX_TAGS = 4096  # a directory holds some dozens


def _probe_tiff(data: bytes) -> _Header:
    tags = _tiff_tags(data, _TIFF_TAGS)
    if not tags.get(_WIDTH) or not tags.get(_HEIGHT):
        raise RejectedContent(Reason.UNDECODABLE)
    starts = (*tags.get(_STRIPS, ()), *tags.get(_TILES, ()))
    sizes = (*tags.get(_STRIP_BYTES, ()), *tags.get(_TILE_BYTES, ()))
    orientation = tags.get(_ORIENTATION, (1,))[:1]
    return _Header(
        "tiff",
        tags[_WIDTH][0],
        tags[_HEIGHT][0],
        orientation[0] if orientation and 1 <= orientation[0] <= 8 else 1,
        whole=all(start + size <= len(data) for start, size in zip(starts, sizes, strict=False)),
        premultiplied=tags.get(_EXTRA_SAMPLES, ())[:1] == (1,),
        white_is_zero=tags.get(_PHOTOMETRIC, ())[:1] == (0,),
    )


def _tiff_tags(data: bytes, wanted: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """Returns the numbers of the wanted tags of the first directory; also of big TIFF, and of EXIF.

    Raises:
        struct.error, OverflowError: it points behind the end.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    entry = struct.Struct(order + ("2HQ" if big else "2HI"))
    word, inline = (order + "Q", 8) if big else (order + "I", 4)
    at += 8 if big else 2
    if at + count * (entry.size + inline) > len(data):
        raise struct.error("a directory is cut off")
    tags: dict[int, tuple[int, ...]] = {}
    for _ in range(min(count, _MAX_TAGS)):
        tag, kind, numbers = entry.unpack_from(data, at)
        if tag in wanted and kind in _TIFF_NUMBERS:
            where = at + entry.size
            if numbers * struct.calcsize(order + _TIFF_NUMBERS[kind]) > inline:
                (where,) = struct.unpack_from(word, data, where)
            if numbers > len(data):
                raise struct.error("a tag is longer than the file")
            tags[tag] = struct.unpack_from(f"{order}{numbers}{_TIFF_NUMBERS[kind]}", data, where)
        at += entry.size + inline
    return tags


def _exif_orientation(block: bytes) -> int:
    """Returns 1 to 8; 1 if the block states none, or nonsense."""
    if block[:2] not in (b"II", b"MM"):
        return 1
    try:
        found = _tiff_tags(block, frozenset({_ORIENTATION})).get(_ORIENTATION, ())
    except (struct.error, OverflowError):
        return 1
    return found[0] if found and 1 <= found[0] <= 8 else 1


_BLANK = rb"(?:\s|#[^\n]*\n)++"
_PNM = re.compile(rb"P([56])" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,5})\s")


def _probe_pnm(data: bytes) -> _Header:
    match = _PNM.match(data, 0, 2**16)
    if match is None:
        raise RejectedContent(Reason.NOT_AN_IMAGE)
    width, height, largest = int(match[2]), int(match[3]), int(match[4])
    if not 0 < largest < 2**16:
        raise RejectedContent(Reason.UNDECODABLE, width=width, height=height)
    needed = width * height * (3 if match[1] == b"6" else 1) * (1 if largest < 256 else 2)
    return _Header("pnm", width, height, whole=match.end() + needed <= len(data))


_PROBES: tuple[tuple[bytes, Callable[[bytes], _Header]], ...] = (
    (b"\xff\xd8\xff", _probe_jpeg),
    (b"\x89PNG\r\n\x1a\n", _probe_png),
    (b"RIFF", _probe_webp),
    (b"GIF87a", _probe_gif),
    (b"GIF89a", _probe_gif),
    (b"BM", _probe_bmp),
    (b"II*\0", _probe_tiff),
    (b"MM\0*", _probe_tiff),
    (b"II+\0", _probe_tiff),
    (b"MM\0+", _probe_tiff),
    (b"P5", _probe_pnm),
    (b"P6", _probe_pnm),
)
