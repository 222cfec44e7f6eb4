"""One small picture in every kind of file that can be made here: what is fuzzed, and held against Pillow.

The pixels are smooth, so that lossy codecs of different makes come out alike. What Pillow and tifffile can write, they
write; PNG of every colour type, BMP and PNM are written by hand. Kinds that need a codec that is not installed are left
out. TIFF of several strips is not left to Pillow: its last strip ends in memory that nobody wrote.

Not a test: other tests `import kinds`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pictures
from PIL import Image, features

HEIGHT, WIDTH = 29, 37  # odd, and no multiple of a codec's block
Kinds = Iterator[tuple[str, bytes]]


def colours(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB without an edge, no two corners alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = rows * 200 // height + 30
    green = columns * 200 // width + 30
    blue = 255 - (rows * 100 // height + columns * 120 // width)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def grey() -> np.ndarray:
    """Returns (h, w) uint8."""
    return colours()[..., :2].mean(axis=2).astype(np.uint8)


def alpha() -> np.ndarray:
    """Returns (h, w) uint8: opaque at the left, clear at the right."""
    return np.tile(np.linspace(255, 0, WIDTH).astype(np.uint8), (HEIGHT, 1))


def deep(image: np.ndarray) -> np.ndarray:
    """Returns uint16 whose lower byte says something, too."""
    return image.astype(np.uint16) * 256 + (image.astype(np.uint16) * 7 + 13) % 256


def rgba() -> np.ndarray:
    """Returns (h, w, 4) uint8."""
    return np.dstack([colours(), alpha()])


@cache
def kinds() -> dict[str, bytes]:
    """Returns a file of each kind by name; the part before the first `/` is the format."""
    makers = (
        _jpeg,
        _png,
        _png_extras,
        _apng,
        _gif,
        _bmp,
        _pnm,
        _webp,
        _tiff_by_pillow,
        _tiff_by_tifffile,
        _heif,
        _large,
    )
    made: dict[str, bytes] = {}
    for maker in makers:
        for name, data in maker():
            assert name not in made, name
            made[name] = data
    return made


def saved(image: Image.Image, form: str, **settings: Any) -> bytes:
    """Returns the file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def _images() -> dict[str, Image.Image]:
    rgb = Image.fromarray(colours())
    ink = np.dstack([255 - colours(), grey() // 4])
    return {
        "rgb": rgb,
        "grey": Image.fromarray(grey()),
        "cmyk": Image.frombytes("CMYK", (WIDTH, HEIGHT), ink.tobytes()),
        "rgba": Image.fromarray(rgba()),
        "grey_alpha": Image.frombytes("LA", (WIDTH, HEIGHT), np.dstack([grey(), alpha()]).tobytes()),
        "palette": rgb.quantize(16, dither=Image.Dither.NONE),
        "one_bit": Image.fromarray(grey()).convert("1", dither=Image.Dither.NONE),
    }


# --- JPEG -------------------------------------------------------------------------------------------------------------


def _jpeg() -> Kinds:
    images = _images()
    for colour in ("rgb", "grey", "cmyk"):
        for progressive in (False, True):
            for quality in (40, 92):
                name = f"jpeg/{colour} {'progressive' if progressive else 'baseline'} {quality}"
                yield name, saved(images[colour], "JPEG", quality=quality, progressive=progressive)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        yield f"jpeg/{subsampling}", saved(images["rgb"], "JPEG", quality=90, subsampling=subsampling)
    yield "jpeg/optimised", saved(images["rgb"], "JPEG", optimize=True)
    yield "jpeg/stored as RGB", saved(images["rgb"], "JPEG", keep_rgb=True)
    yield "jpeg/restart marks", saved(images["rgb"], "JPEG", restart_marker_blocks=2)
    yield "jpeg/restart marks progressive", saved(images["rgb"], "JPEG", restart_marker_rows=1, progressive=True)
    yield "jpeg/comment and profile", saved(images["rgb"], "JPEG", comment=b"a note", icc_profile=bytes(300))
    yield "jpeg/CMYK without a mark of Adobe", pictures.cmyk_jpeg((9, 99, 199, 20), adobe=False)
    yield "jpeg/CMYK with a mark of Adobe", pictures.cmyk_jpeg((9, 99, 199, 20))
    for orientation in range(1, 9):
        yield f"jpeg/EXIF {orientation}", pictures.jpeg(colours(), orientation=orientation)
    whole = pictures.jpeg(colours())
    yield "jpeg/thumbnail", pictures.with_segment(whole, b"Exif\0\0" + pictures.exif(1) + pictures.jpeg(colours(8, 8)))
    yield "jpeg/text past the end", whole + b"camera notes" * 9
    yield "jpeg/wide", pictures.jpeg(colours(9, 300))


# --- PNG --------------------------------------------------------------------------------------------------------------

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def _png() -> Kinds:
    for words, colour, depth, pixels in _png_pixels():
        for interlaced in (False, True):
            name = f"png/{words} {depth} bits{' interlaced' if interlaced else ''}"
            yield name, png(pixels, colour, depth, interlaced=interlaced)
            if colour in (_GREY, _RGB, _PALETTE):
                yield f"{name} tRNS", png(pixels, colour, depth, interlaced=interlaced, clear=_clear(pixels, colour))


def _png_pixels() -> Iterator[tuple[str, int, int, np.ndarray]]:
    for depth in (1, 2, 4):
        yield "grey", _GREY, depth, grey() >> 8 - depth
        yield "palette", _PALETTE, depth, grey() >> 8 - depth
    yield "palette", _PALETTE, 8, grey()
    for words, colour, pixels in (
        ("grey", _GREY, grey()),
        ("RGB", _RGB, colours()),
        ("grey and alpha", _GREY_ALPHA, np.dstack([grey(), alpha()])),
        ("RGBA", _RGBA, rgba()),
    ):
        yield words, colour, 8, pixels
        yield words, colour, 16, deep(pixels)


def _clear(pixels: np.ndarray, colour: int) -> bytes:
    if colour == _PALETTE:
        return bytes(range(0, 256, 16))[: int(pixels.max()) + 1]
    return np.atleast_1d(pixels[3, 5]).astype(">u2").tobytes()


def png(
    pixels: np.ndarray,
    colour: int,
    depth: int,
    *,
    interlaced: bool = False,
    clear: bytes | None = None,
    filters: Sequence[int] = (0, 1, 2, 3, 4),
    extra: Sequence[tuple[bytes, bytes]] = (),
    pieces: int = 1,
) -> bytes:
    """Returns a PNG.

    Args:
        pixels: (h, w[, channels]) of samples, or indices.
        colour, depth: as IHDR has them.
        clear: content of tRNS.
        filters: of the rows, in turn.
        extra: chunks before the data.
        pieces: number of IDAT chunks.
    """
    packed = zlib.compress(_scan_lines(pixels, depth, interlaced=interlaced, filters=filters))
    height, width = pixels.shape[:2]
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlaced)), *extra]
    if colour == _PALETTE:
        chunks.append((b"PLTE", bytes(_palette(1 << depth))))
    if clear is not None:
        chunks.append((b"tRNS", clear))
    step = -(-len(packed) // pieces)
    chunks += [(b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step)]
    return pictures.PNG_MAGIC + b"".join(pictures.png_chunk(*chunk) for chunk in [*chunks, (b"IEND", b"")])


def _palette(entries: int) -> np.ndarray:
    index = np.arange(entries) * 255 // (entries - 1)
    return np.stack([index, 255 - index, index // 2 + 40], axis=-1).astype(np.uint8)


def _scan_lines(pixels: np.ndarray, depth: int, *, interlaced: bool, filters: Sequence[int]) -> bytes:
    passes = [pixels[top::down, left::right] for top, left, down, right in _ADAM7] if interlaced else [pixels]
    step = max(1, (pixels.shape[2] if pixels.ndim == 3 else 1) * depth // 8)
    lines = []
    for part in passes:
        before = b""
        for number, row in enumerate(part if part.size else ()):
            raw = pictures.pack(row.reshape(-1), depth)
            kind = filters[number % len(filters)]
            lines.append(bytes([kind]) + _filtered(raw, before or bytes(len(raw)), kind, step))
            before = raw
    return b"".join(lines)


def _filtered(row: bytes, above: bytes, kind: int, step: int) -> bytes:
    """Returns a row as one of PNG's five filters writes it; `step` is the bytes of a pixel."""
    now, up = np.frombuffer(row, np.uint8).astype(int), np.frombuffer(above, np.uint8).astype(int)
    left, corner = (np.concatenate([np.zeros(step, int), line])[: len(line)] for line in (now, up))
    guess = left + up - corner
    a, b, c = abs(guess - left), abs(guess - up), abs(guess - corner)
    paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
    predicted = (np.zeros_like(now), left, up, (left + up) // 2, paeth)[kind]
    return bytes(((now - predicted) % 256).astype(np.uint8))


def _png_extras() -> Kinds:
    for kind in range(5):
        yield f"png/filter {kind}", png(colours(), _RGB, 8, filters=(kind,))
    yield "png/many pieces", png(colours(), _RGB, 8, pieces=9)
    for orientation in range(1, 9):
        yield f"png/EXIF {orientation}", png(colours(), _RGB, 8, extra=[(b"eXIf", pictures.exif(orientation, ">"))])
    notes = {
        "gamma": (b"gAMA", struct.pack(">I", 45455)),
        "sRGB": (b"sRGB", b"\0"),
        "significant bits": (b"sBIT", b"\5\6\5"),
        "text": (b"tEXt", b"Comment\0a note"),
        "packed text": (b"zTXt", b"Comment\0\0" + zlib.compress(b"a note" * 50)),
        "profile": (b"iCCP", b"none\0\0" + zlib.compress(bytes(300))),
        "background": (b"bKGD", struct.pack(">3H", 9, 99, 199)),
        "unknown chunk": (b"qqQq", b"whatever"),
    }
    for name, chunk in notes.items():
        yield f"png/{name}", png(colours(), _RGB, 8, extra=[chunk])
    yield "png/one pixel", png(colours(1, 1), _RGB, 8)
    yield "png/by Pillow", saved(Image.fromarray(colours()), "PNG", optimize=True)


def _apng() -> Kinds:
    for name in ("rgb", "rgba", "grey", "palette"):
        frames = [_images()[name].rotate(angle) for angle in (0, 90, 180)]
        for default in (False, True):
            settings = {"save_all": True, "append_images": frames[1:], "default_image": default}
            yield f"png/animated {name}{' after an image' if default else ''}", saved(frames[0], "PNG", **settings)


# --- GIF, WebP, HEIF --------------------------------------------------------------------------------------------------


def _gif() -> Kinds:
    images = _images()
    for name in ("grey", "palette", "one_bit"):
        for interlaced in (False, True):
            yield f"gif/{name}{' interlaced' if interlaced else ''}", saved(images[name], "GIF", interlace=interlaced)
    yield "gif/clear colour", saved(images["palette"], "GIF", transparency=3)
    yield "gif/from RGBA", saved(images["rgba"], "GIF")
    for disposal in range(4):
        frames = [images["palette"], images["palette"].rotate(180), images["grey"]]
        yield (
            f"gif/frames {disposal}",
            saved(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=disposal, loop=0),
        )
    clear = pictures.gif([pictures.plain(8, 6, 1), pictures.plain(8, 6, 2)], [(255, 0, 0), (0, 255, 0)], clear=0)
    yield "gif/by hand", clear
    yield "gif/of 1987", clear.replace(b"89a", b"87a", 1)


def _webp() -> Kinds:
    images = _images()
    for name in ("rgb", "rgba", "grey"):
        yield f"webp/{name} lossless", saved(images[name], "WEBP", lossless=True)
        for quality in (30, 90):
            yield f"webp/{name} {quality}", saved(images[name], "WEBP", quality=quality)
    for orientation in range(1, 9):
        yield f"webp/EXIF {orientation}", pictures.webp(colours(), orientation=orientation)
    for name in ("rgb", "rgba"):
        frames = [images[name].rotate(angle) for angle in (0, 180)]
        yield f"webp/animated {name}", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


def _heif() -> Kinds:
    images = _images()
    if features.check("avif"):
        for name in ("rgb", "rgba", "grey"):
            yield f"avif/{name}", saved(images[name], "AVIF", quality=90, subsampling="4:4:4", speed=8)
        yield "avif/4:2:0", saved(images["rgb"], "AVIF", quality=90, speed=8)
        yield "avif/EXIF 6", saved(images["rgb"], "AVIF", quality=90, speed=8, exif=pictures.exif(6))
    try:
        import pillow_heif
    except ImportError:
        return
    for name in ("rgb", "rgba", "grey"):
        made = io.BytesIO()
        pillow_heif.from_pillow(images[name]).save(made, quality=90)
        yield f"heic/{name}", made.getvalue()


# --- larger ones ------------------------------------------------------------------------------------------------------


def _large() -> Kinds:
    pixels = colours(150, 201)
    image = Image.fromarray(pixels)
    yield "jpeg/large baseline", saved(image, "JPEG", quality=80)
    yield "jpeg/large progressive", saved(image, "JPEG", quality=80, progressive=True, restart_marker_rows=2)
    for interlaced in (False, True):
        yield (
            f"png/large 16 bits{' interlaced' if interlaced else ''}",
            png(deep(pixels), _RGB, 16, interlaced=interlaced, pieces=7),
        )
    yield "gif/large", saved(image.quantize(64, dither=Image.Dither.NONE), "GIF", interlace=True)
    yield "webp/large", saved(image, "WEBP", quality=70)
    if features.check("avif"):
        yield "avif/large", saved(image, "AVIF", quality=70, speed=9)


# --- BMP, PNM ---------------------------------------------------------------------------------------------------------


def bmp(
    rows: Sequence[bytes] | bytes,
    bits: int,
    *,
    packing: int = 0,
    header: int = 40,
    masks: Sequence[int] = (),
    palette: np.ndarray | None = None,
    upside: int = 1,
) -> bytes:
    """Returns a BMP of `WIDTH` by `HEIGHT` pixels.

    Args:
        rows: from top to bottom, or the packed data as they are.
        bits: of a pixel.
        packing: 0 none, 1 RLE8, 2 RLE4, 3 bit fields.
        header: bytes of it.
        masks: bit fields of red, green, blue and alpha.
        palette: (n, 3) RGB.
        upside: -1 for rows from top to bottom.
    """
    if not isinstance(rows, bytes):
        ordered = rows if upside < 0 else reversed(rows)
        rows = b"".join(row + b"\0" * (-len(row) % 4) for row in ordered)
    table = b"" if palette is None else b"".join(bytes([*entry[::-1], 0]) for entry in palette)
    fields = struct.pack("<I2i2H6I", header, WIDTH, upside * HEIGHT, 1, bits, packing, len(rows), 2835, 2835, 0, 0)
    fields += struct.pack(f"<{len(masks)}I", *masks)
    behind = max(len(fields), header)
    start = 14 + behind + len(table)
    return b"BM" + struct.pack("<I2HI", start + len(rows), 0, 0, start) + fields.ljust(behind, b"\0") + table + rows


def _bmp() -> Kinds:
    for bits in (1, 4, 8):
        rows = [pictures.pack(row >> 8 - bits, bits) for row in grey()]
        yield f"bmp/palette {bits} bits", bmp(rows, bits, palette=_palette(1 << bits))
    swapped = [bytes(row[:, ::-1]) for row in colours()]
    yield "bmp/24 bits", bmp(swapped, 24)
    yield "bmp/24 bits from top to bottom", bmp(swapped, 24, upside=-1)
    yield "bmp/of OS2", pictures.old_bmp(colours())
    blue = [bytes(row[:, [2, 1, 0, 3]]) for row in rgba()]
    zero = [bytes(np.dstack([row[None, :, ::-1], np.zeros((1, WIDTH), np.uint8)])) for row in colours()]
    yield "bmp/32 bits", bmp(blue, 32)
    yield "bmp/32 bits alpha zero", bmp(zero, 32)
    red, alike = [bytes(row) for row in rgba()], (0xFF, 0xFF00, 0xFF0000)
    yield "bmp/32 bits fields", bmp(red, 32, packing=3, masks=alike)
    for header in (52, 56, 108, 124):
        masks = alike if header == 52 else (*alike, 0xFF000000)
        yield f"bmp/32 bits fields in a header of {header}", bmp(red, 32, packing=3, header=header, masks=masks)
    wide = colours().astype(np.uint16) >> 3
    packed = [(row[:, 0] << 10 | row[:, 1] << 5 | row[:, 2]).astype("<u2").tobytes() for row in wide]
    yield "bmp/16 bits", bmp(packed, 16)
    packed = [(row[:, 0] << 11 | row[:, 1] << 6 | row[:, 2]).astype("<u2").tobytes() for row in wide]
    yield "bmp/16 bits fields 565", bmp(packed, 16, packing=3, masks=(0xF800, 0x7E0, 0x1F))
    yield "bmp/RLE8", bmp(_run_lengths(grey()), 8, packing=1, palette=_palette(256))
    yield "bmp/RLE4", bmp(_run_lengths(grey() >> 4, 17), 4, packing=2, palette=_palette(16))


def _run_lengths(image: np.ndarray, both: int = 1) -> bytes:
    """Returns runs of one pixel each, rows from the bottom; `both` = 17 puts a value into both halves of a byte."""
    rows = (b"".join(bytes([1, int(value) * both]) for value in row) for row in image[::-1])
    return b"\0\0".join(rows) + b"\0\1"


def _pnm() -> Kinds:
    bits = (grey() < 128).astype(np.uint8)
    size = b"%d %d\n" % (WIDTH, HEIGHT)
    yield "pnm/P1", b"P1\n" + size + b"\n".join(b" ".join(b"%d" % v for v in row) for row in bits) + b"\n"
    yield "pnm/P4", b"P4\n# a note\n" + size + np.packbits(bits, axis=1).tobytes()
    for number, image in ((2, grey()), (3, colours())):
        for largest in (255, 1000):
            values = image.astype(int) * largest // 255
            text = b"\n".join(b" ".join(b"%d" % v for v in row.reshape(-1)) for row in values)
            yield f"pnm/P{number} of {largest}", b"P%d\n%s%d\n%s\n" % (number, size, largest, text)
    for largest in (1, 100, 255, 256, 1000, 65535):
        for image in (grey(), colours()):
            values = image.astype(np.uint32) * largest // 255
            yield f"pnm/P{5 if image.ndim == 2 else 6} of {largest}", pictures.pnm(values, largest)


# --- TIFF -------------------------------------------------------------------------------------------------------------


def _tiff_by_pillow() -> Kinds:
    images = _images()
    for name, image in images.items():
        yield f"tiff/{name}", saved(image, "TIFF")
    for packing in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd"):
        for name in ("rgb", "grey", "rgba", "palette", "one_bit"):
            with_codec = _maybe(images[name], packing)
            if with_codec is not None:
                yield f"tiff/{name} {packing}", with_codec
    for packing in ("group3", "group4", "tiff_ccitt"):
        yield f"tiff/one_bit {packing}", saved(images["one_bit"], "TIFF", compression=packing)
    for name in ("rgb", "grey", "cmyk"):
        yield f"tiff/{name} jpeg", saved(images[name], "TIFF", compression="jpeg", quality=92)
    yield "tiff/YCbCr", saved(images["rgb"].convert("YCbCr"), "TIFF")
    yield "tiff/LAB", saved(Image.frombytes("LAB", (WIDTH, HEIGHT), colours().tobytes()), "TIFF")
    yield "tiff/16 bits", saved(Image.fromarray(deep(grey())), "TIFF")
    yield "tiff/big", saved(images["rgb"], "TIFF", big_tiff=True)


def _maybe(image: Image.Image, packing: str) -> bytes | None:
    try:
        return saved(image, "TIFF", compression=packing)
    except (OSError, RuntimeError, ValueError, KeyError):  # this libtiff lacks the codec, or the codec the colours
        return None


def _tiff_by_tifffile() -> Kinds:
    for orientation in range(1, 9):
        yield f"tiff/orientation {orientation}", pictures.tiff(colours(), orientation=orientation)
    for bits in (8, 16):
        for name, image, settings in _tiff_samples():
            values = image if bits == 8 else deep(image)
            yield f"tiff/by hand {name} {bits} bits", pictures.tiff(values, **settings)
    yield "tiff/big end first", pictures.tiff(deep(colours()), order=">")
    try:
        import tifffile
    except ImportError:
        return
    for bits in (8, 16):
        values = colours() if bits == 8 else deep(colours())
        flat = grey() if bits == 8 else deep(grey())
        planes = np.ascontiguousarray(values.transpose(2, 0, 1))
        for packing in (None, "zlib"):
            for name, pixels, settings in (
                ("planes", planes, {"photometric": "rgb", "planarconfig": "separate"}),
                ("tiles", values, {"photometric": "rgb", "tile": (16, 16)}),
                ("grey strips", flat, {"photometric": "minisblack", "rowsperstrip": 4}),
                ("planes in tiles", planes, {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
            ):
                file = io.BytesIO()
                tifffile.imwrite(file, pixels, compression=packing, metadata=None, **settings)
                yield f"tiff/{name} {bits} bits{' deflate' if packing else ''}", file.getvalue()
        file = io.BytesIO()
        tifffile.imwrite(file, values, compression="zlib", predictor=True, photometric="rgb", metadata=None)
        yield f"tiff/differences {bits} bits", file.getvalue()
    file = io.BytesIO()
    tifffile.imwrite(file, colours(150, 201), compression="zlib", photometric="rgb", rowsperstrip=16, metadata=None)
    yield "tiff/large deflate", file.getvalue()


def _tiff_samples() -> Iterator[tuple[str, np.ndarray, dict[str, int]]]:
    yield "white is zero", grey(), {"photometric": 0}
    yield "plain alpha", rgba(), {"extra": 2}
    shares = rgba()[..., 3:].astype(np.uint16)
    multiplied = (rgba()[..., :3] * shares // 255).astype(np.uint8)
    yield "multiplied alpha", np.dstack([multiplied, alpha()]), {"extra": 1}
    yield "four channels", rgba(), {}
    yield "inks", np.dstack([255 - colours(), grey() // 4]), {"photometric": 5}
