"""What Pillow makes of a file, by the conventions of `transforms/formats/decode.py`, and how far ours is from it.

What is done to Pillow's pixels to make them comparable:
  - EXIF orientation is applied once; the first frame counts.
  - Alpha and clear colours are laid on white; colours multiplied by alpha are not multiplied again. Alpha of a BMP
    that is zero throughout does not count.
  - CMYK becomes RGB by (255 - ink) * (255 - black) / 255, as OpenCV computes it; Pillow's own sum is darker in shades.
  - 16-bit grey is rounded by v / 257, and inverted where a TIFF says that white is zero: Pillow inverts 8 bits alone.
    Of 16-bit colours Pillow keeps the upper byte, which is up to one level less.
Not comparable, and left out: floats and 32-bit integers, which have no white of their own.

Tolerances are in levels of 255: decoders of JPEG, WebP, HEIC and AVIF round chroma and transforms in their own ways.

Not a test: other tests `import against_pillow`.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

with suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()

Image.MAX_IMAGE_PIXELS = None  # ours has refused what is too large by then
LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "HEIF"})
LOSSLESS_LEVELS = 2  # 16 bits cut by Pillow and rounded by us, then once more where alpha is laid on white
LOSSY_LEVELS = 6
_PNG_GREY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3
_BMP_RLE8, _BMP_RLE4 = 1, 2
_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA_SAMPLES = 258, 262, 284, 338
STRAYS = 0.01  # of the values may be farther away in lossy formats: chroma at edges


@dataclass(frozen=True)
class Theirs:
    """What Pillow says of a file.

    Attributes:
        form: Pillow's word for the format, "" if it opened nothing.
        pixels: (h, w, 3) uint8 RGB upright, or None if it refused.
        why: the error, or the mode that is not comparable.
    """

    form: str
    pixels: np.ndarray | None
    why: str = ""


def by_pillow(data: bytes, max_pixels: int) -> Theirs:
    """Returns Pillow's pixels by our conventions. Whatever Pillow raises is a refusal."""
    form = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                form = image.format or ""
                if image.width * image.height > max_pixels:
                    return Theirs(form, None, "too many pixels")
                image.load()
                inverted = form == "TIFF" and image.mode.startswith("I;16") and image.tag_v2.get(_PHOTOMETRIC) == 0
                pixels = flat_rgb(_upright(image), form)
                pixels = 255 - pixels if inverted and pixels is not None else pixels
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever it meets: SyntaxError, struct.error, KeyError
        return Theirs(form, None, f"{type(error).__name__}: {error}")
    return Theirs(form, pixels, "" if pixels is not None else f"mode {image.mode}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - an EXIF block that makes no sense turns nothing
        return image


def flat_rgb(image: Image.Image, form: str) -> np.ndarray | None:
    """Returns (h, w, 3) uint8 RGB on white, or None for numbers without a white; `form` as Pillow names formats."""
    if image.mode.startswith("I;16") or (image.mode == "I" and form == "PPM"):
        return _of_16_bits(image)
    if image.mode in ("F", "I"):
        return None
    if image.mode == "CMYK":
        ink = 255 - np.asarray(image).astype(np.uint16)
        return ((ink[..., :3] * ink[..., 3:] + 127) // 255).astype(np.uint8)
    if image.mode == "RGBa":
        values = np.asarray(image).astype(np.uint16)
        return np.minimum(values[..., :3] + 255 - values[..., 3:], 255).astype(np.uint8)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        values = np.asarray(image.convert("RGBA")).astype(np.uint16)
        colour, share = values[..., :3], values[..., 3:]
        if form == "BMP" and not share.any():
            return colour.astype(np.uint8)
        return ((colour * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def _of_16_bits(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(np.uint32)
    flat = ((values + 128) // 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        flat[values == clear] = 255
    return np.repeat(flat[..., None], 3, axis=2)


def difference(ours: np.ndarray, theirs: Theirs) -> str:
    """Returns "" if the pixels agree within the tolerance, else a few words on how far they are apart."""
    assert theirs.pixels is not None
    if ours.shape != theirs.pixels.shape:
        return f"{_sides(ours)} and {_sides(theirs.pixels)}"
    apart = np.abs(ours.astype(np.int16) - theirs.pixels)
    levels = LOSSY_LEVELS if theirs.form in LOSSY else LOSSLESS_LEVELS
    share = float((apart > levels).mean())
    if share <= (STRAYS if theirs.form in LOSSY else 0):
        return ""
    return f"{int(apart.max())} levels, {share:.1%} beyond {levels}"


def excuse(data: bytes) -> str:
    """Returns why pixels may differ for a file like this one, or "": Pillow's own faults, and ambiguous files."""
    if data.startswith(b"\x89PNG"):
        return _excuse_of_png(data)
    if data.startswith(b"GIF"):
        with suppress(Exception), Image.open(io.BytesIO(data)) as image:
            if image.size != struct.unpack_from("<2H", data, 6):
                return "a frame of the GIF leaves the screen: Pillow makes the picture larger"
        return ""
    if data.startswith(b"BM") and int.from_bytes(data[30:34], "little") in (_BMP_RLE8, _BMP_RLE4):
        return "where runs of a BMP are damaged or leave pixels out, each reader fills up in its own way"
    if data[:2] in (b"II", b"MM"):
        with suppress(Exception), Image.open(io.BytesIO(data)) as image:
            return _excuse_of_tiff(data, image.tag_v2)
    return ""


def _excuse_of_png(data: bytes) -> str:
    depth, colour, at = data[24], data[25], data.find(b"tRNS")
    if at < 0:
        return ""
    if (colour == _PNG_GREY and depth != 8) or (colour == _PNG_RGB and depth == 16):
        return "Pillow compares the clear colour of a PNG with samples that it has scaled to 8 bits"
    entries = int.from_bytes(data[at - 4 : at], "big")
    if 0 <= data.find(b"IDAT") < at or (colour == _PNG_PALETTE and entries > 2**depth):
        return "libpng passes over a tRNS chunk that is too long or too late, Pillow heeds it"
    return ""


def _excuse_of_tiff(data: bytes, tags: Mapping[int, Any]) -> str:
    deep = tags.get(_BITS, (8,))[0] == 16
    if deep and tags.get(_PLANAR) == 2:
        return "Pillow reads 16-bit planes of a TIFF as if they were of 8 bits"
    if deep and tags.get(_EXTRA_SAMPLES) == (1,):
        return "Pillow divides 16-bit colours by alpha in 8 bits, and loses up to three levels"
    order = "little" if data[:2] == b"II" else "big"
    at = int.from_bytes(data[4:8], order)
    entries = int.from_bytes(data[at : at + 2], order)
    stated = [data[at + 2 + 12 * entry :][:2] for entry in range(entries)]
    if len(set(stated)) < len(stated):
        return "the TIFF states a tag twice: ours takes the first, Pillow the last"
    if _BITS not in tags or _PHOTOMETRIC not in tags:
        return "the TIFF does not state its bits, or what its numbers mean"
    return ""


def _sides(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
