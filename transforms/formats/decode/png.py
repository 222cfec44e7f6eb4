"""PNG, by OpenCV's libpng, which is given the chunks that make pixels and nothing else.

That leaves out texts and profiles that unpack to gigabytes, warnings about them, and animation: OpenCV decodes an
animated PNG without looking at libpng's errors, and returns rows that were never written. What is left of one is its
still image, which is its first frame. libpng checks the sums of all these chunks, and that every row is there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from transforms.formats.decode import orientation
from transforms.formats.decode.colours import eight_bits, on_white
from transforms.formats.decode.header import MAX_CHUNKS, Header
from transforms.formats.decode.opencv import decoded_by_opencv
from transforms.formats.records import Reason, RejectedContent

_START = 33  # after the signature and IHDR
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 3, _GREY_ALPHA: 4, _RGBA: 4}  # as OpenCV decodes them
_OF_PIXELS = frozenset({b"IDAT", b"PLTE", b"tRNS", b"IEND"})
_TELLING = frozenset({b"eXIf", b"iTXt", b"zTXt", b"tEXt"})  # may say which way is up
_SOURCES = ("exif", "raw", "xmp")  # in this order
_XMP, _RAW_EXIF = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"
_MAX_TEXT = 2**20  # bytes when unpacked


@dataclass(slots=True)
class _Details:
    """What the chunks hold.

    Attributes:
        depth: bits of a sample. colours: type of colours, as PNG numbers them.
        clear: content of tRNS, None without one.
        kept: runs of bytes after IHDR that make pixels, (start, end).
    """

    depth: int
    colours: int
    clear: bytes | None
    kept: list[tuple[int, int]]


def probe(data: bytes) -> Header:
    """Returns the header.

    Raises:
        RejectedContent: UNDECODABLE if the first chunk is not IHDR.
        struct.error: it ends before it tells its size.
    """
    width, height, depth, colours = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        raise RejectedContent(Reason.UNDECODABLE)
    at, size, chunks, whole = _START, len(data), 0, False
    clear: bytes | None = None
    orientations: dict[str, int] = {}
    kept: list[tuple[int, int]] = []
    start = at  # of the run of chunks that are kept
    while at + 12 <= size and chunks <= MAX_CHUNKS:
        chunks += 1
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind not in _OF_PIXELS:
            if start < at:
                kept.append((start, at))
            start = end
            if kind in _TELLING:
                orientations.setdefault(*_orientation(kind, data[at + 8 : end - 4]))
        elif kind == b"IEND":
            whole = end <= size
            kept.append((start, end))
            break
        elif kind == b"tRNS" and clear is None:
            clear = data[at + 8 : end - 4]
        at = end
    samples = 4 if clear is not None and colours in (_RGB, _PALETTE) else _SAMPLES.get(colours, 4)
    memory = width * height * (samples * (3 if depth == 16 else 1) + 3)
    return Header(
        width,
        height,
        next((orientations[source] for source in _SOURCES if orientations.get(source, 1) != 1), 1)
        if orientations
        else 1,
        whole=whole,
        costly=chunks > MAX_CHUNKS,
        memory=memory,
        details=_Details(depth, colours, clear, kept),
    )


def exif(data: bytes) -> bytes:
    """Returns the EXIF block of a chunk of its own, else ImageMagick's in a text; b"" without one."""
    at, raw = _START, b""
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data) or data[at + 4 : at + 8] == b"IEND":
            break
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            return data[at + 8 : end - 4]
        if kind in (b"zTXt", b"tEXt") and data.startswith(_RAW_EXIF, at + 8):
            text = data[at + 8 + len(_RAW_EXIF) : end - 4]
            raw = raw or _raw_profile(_inflated(text[1:]) if kind == b"zTXt" else text[:_MAX_TEXT])
        at = end
    return raw


def _orientation(kind: bytes, chunk: bytes) -> tuple[str, int]:
    """Returns who says which way is up ("" if the chunk is about other things), and what: 1 to 8."""
    if kind == b"eXIf":
        return "exif", orientation.of_exif(chunk)
    if kind == b"iTXt" and chunk.startswith(_XMP):
        packed, text = chunk[len(_XMP) : len(_XMP) + 1], chunk[len(_XMP) + 2 :].split(b"\0", 2)[-1]
        return "xmp", orientation.of_xmp(_inflated(text) if packed == b"\1" else text[:_MAX_TEXT])
    if kind == b"zTXt" and chunk.startswith(_RAW_EXIF):
        return "raw", orientation.of_exif(_raw_profile(_inflated(chunk[len(_RAW_EXIF) + 1 :])))
    if kind == b"tEXt" and chunk.startswith(_RAW_EXIF):
        return "raw", orientation.of_exif(_raw_profile(chunk[len(_RAW_EXIF) : _MAX_TEXT]))
    return "", 1


def _raw_profile(text: bytes) -> bytes:
    """Returns an EXIF block as ImageMagick writes it (a name, a length, hexadecimal digits); b"" if it is none."""
    digits = b"".join(text.split()[2:])
    try:
        return bytes.fromhex(digits.decode("ascii")).removeprefix(b"Exif\0\0")
    except ValueError:
        return b""


def _inflated(packed: bytes) -> bytes:
    """Returns at most a megabyte of what was packed."""
    try:
        return zlib.decompressobj().decompress(packed, _MAX_TEXT)
    except zlib.error:
        return b""


def pixels(data: bytes, header: Header, channels: int, _reduction: int) -> np.ndarray | None:
    """Returns (h, w) grey or (h, w, 3) RGB, or None."""
    details: _Details = header.details
    if details.kept != [(_START, len(data))]:  # OpenCV would look for data after IEND
        data = b"".join([data[:_START], *(data[start:end] for start, end in details.kept)])
    if details.depth <= 8 and details.clear is None and details.colours in (_GREY, _RGB, _PALETTE):
        if details.colours == _GREY:
            return decoded_by_opencv(data, cv2.IMREAD_GRAYSCALE)
        if channels == 3:
            return decoded_by_opencv(data, cv2.IMREAD_COLOR_RGB)
    image = decoded_by_opencv(data, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    if image.ndim == 2:
        _clear_grey(image, details)
    image = eight_bits(image)
    if image.ndim == 2:
        return image
    if image.shape[2] == 3:
        if channels == 1:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))
    return _without_alpha(image)


def _clear_grey(image: np.ndarray, details: _Details) -> None:
    """Makes the grey that stands for transparent white; OpenCV leaves it as it is."""
    if details.clear is None or len(details.clear) != 2:
        return
    depth = details.depth
    clear = int.from_bytes(details.clear, "big") * (255 // (2**depth - 1) if depth < 8 else 1)
    if clear <= np.iinfo(image.dtype).max:
        image[image == clear] = np.iinfo(image.dtype).max


def _without_alpha(image: np.ndarray) -> np.ndarray:
    """Returns (h, w, 3) RGB on white of (h, w, 4) BGRA."""
    if int(image[..., 3].min()) == 255:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB))
    return on_white(image[..., 2::-1], image[..., 3])
