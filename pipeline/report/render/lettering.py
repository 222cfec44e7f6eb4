"""Text as pixels, by Pillow: the same text and size give the same pixels on every machine.

Plain ASCII is set in the font that comes inside Pillow. Other letters need more than it has: DejaVu Sans, where
matplotlib is installed, which brings it. Not here: where text goes.
"""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

_DEJAVU = Path("mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
FINER = 4  # times: letters are set larger and reduced, else whole pixels make the spaces between them uneven
_KEPT_TEXTS = 512  # texts kept as pixels: labels occur again and again
_MARKS = "Mn"  # of Unicode: letters drawn on others, which need no room of their own


def width_of(text: str, size: int) -> int:
    """Returns the width of a line of text in pixels; `size` is the font's height in pixels."""
    return int(np.ceil(_font(text.isascii(), size * FINER).getlength(text) / FINER))


def height_of(size: int) -> int:
    """Returns the height of a line in pixels, for letters of any kind."""
    return round(size * 1.25)


def draw_text(canvas: np.ndarray, text: str, left: int, top: int, size: int, colour: Colour) -> None:
    """Draws one line of text into (h, w, 3) uint8 RGB; what lies beyond the edges is cut off."""
    mask = _pixels(text, size)
    rows = slice(max(0, top), max(0, min(canvas.shape[0], top + mask.shape[0])))
    columns = slice(max(0, left), max(0, min(canvas.shape[1], left + mask.shape[1])))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    covered = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    under = canvas[rows, columns].astype(np.uint16)
    canvas[rows, columns] = (under * (255 - covered) + np.asarray(colour, np.uint16) * covered + 127) // 255


def shortened(text: str, size: int, width: int, *, keep_end: bool = False) -> str:
    """Returns the longest part of a text that is at most `width` pixels wide, with an ellipsis for the rest."""
    if width_of(text, size) <= width:
        return text
    low, high = 0, len(text)  # letters kept
    while low < high:
        middle = (low + high + 1) // 2
        if width_of(_cut(text, middle, keep_end=keep_end), size) <= width:
            low = middle
        else:
            high = middle - 1
    return _cut(text, low, keep_end=keep_end) if low else ""


def _cut(text: str, kept: int, *, keep_end: bool) -> str:
    """Returns the start or end of a text after, or before, three dots; letters that belong together stay together."""
    if not keep_end:
        return text[:kept].rstrip() + "..."
    end = text[len(text) - kept :]
    while end and unicodedata.category(end[0]) == _MARKS:
        end = end[1:]
    return "..." + end


@functools.lru_cache(maxsize=_KEPT_TEXTS)
def _pixels(text: str, size: int) -> np.ndarray:
    """Returns (h, w) uint16 from 0 to 255: how much of each pixel the text covers."""
    from PIL import Image, ImageDraw

    width, height = max(1, width_of(text, size)), height_of(size)
    image = Image.new("L", (width * FINER, height * FINER))
    font = _font(text.isascii(), size * FINER)
    ascent, descent = font.getmetrics()
    base = (height * FINER + ascent - descent) // 2
    ImageDraw.Draw(image).text((0, base), text, fill=255, font=font, anchor="ls")
    fine = np.asarray(image, np.uint32).reshape(height, FINER, width, FINER)
    return np.asarray((fine.sum(axis=(1, 3)) + FINER * FINER // 2) // (FINER * FINER), np.uint16)


@functools.lru_cache(maxsize=64)
def _font(plain: bool, size: int) -> FreeTypeFont:
    from PIL import ImageFont, features

    if not plain and (path := _dejavu()) is not None:
        layouts = ImageFont.Layout  # Raqm sets Arabic and Hebrew from right to left
        return ImageFont.truetype(path, size, layout_engine=layouts.RAQM if features.check("raqm") else layouts.BASIC)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _dejavu() -> str | None:
    found = importlib.util.find_spec("matplotlib")  # found, not imported
    path = None if found is None or found.origin is None else Path(found.origin).parent / _DEJAVU
    return str(path) if path is not None and path.is_file() else None
