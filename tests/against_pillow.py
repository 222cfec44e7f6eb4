"""What Pillow makes of a file, by the conventions of `transforms/formats/decode.py`, and how far ours is from it.

What is done to Pillow's pixels to make them comparable:
  - EXIF orientation is applied once; the first frame counts.
  - Alpha and clear colours are laid on white; colours multiplied by alpha are not multiplied again.
  - CMYK becomes RGB by (255 - ink) * (255 - black) / 255, as OpenCV computes it; Pillow's own sum is darker in shades.
  - 16-bit grey is rounded by v / 257, and inverted where a TIFF says that white is zero: Pillow inverts 8 bits alone.
    Of 16-bit colours Pillow keeps the upper byte, which is up to one level less.
Not comparable, and left out: floats and 32-bit integers, which have no white of their own.

Tolerances are in levels of 255: decoders of JPEG, WebP, HEIC and AVIF round chroma and transforms in their own ways.

Not a test: other tests `import against_pillow`.
"""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

Image.MAX_IMAGE_PIXELS = None  # ours has refused what is too large by then
LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "HEIF"})
LOSSLESS_LEVELS = 2  # 16 bits cut by Pillow and rounded by us, then once more where alpha is laid on white
LOSSY_LEVELS = 6
_PNG_GREY, _PNG_RGB = 0, 2
_BITS, _PHOTOMETRIC, _EXTRA_SAMPLES = 258, 262, 338
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
    """Returns why Pillow is known to be wrong about files like this one, or ""."""
    if data.startswith(b"\x89PNG") and b"tRNS" in data:
        depth, colour = data[24], data[25]
        if (colour == _PNG_GREY and depth != 8) or (colour == _PNG_RGB and depth == 16):
            return "Pillow compares the clear colour of a PNG with samples that it has scaled to 8 bits"
    if data[:2] in (b"II", b"MM"):
        with suppress(Exception), Image.open(io.BytesIO(data)) as image:
            if image.tag_v2.get(_EXTRA_SAMPLES) == (1,) and image.tag_v2.get(_BITS, (8,))[0] == 16:
                return "Pillow divides colours by alpha in 8 bits, and loses up to three levels"
    return ""


def _sides(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
