"""Calls Pillow for what neither OpenCV nor a few lines of our own decode rightly: LZW and its kin in TIFF and GIF.

What is given to it are files made here, of one directory or one frame, so that its own readers meet nothing they were
not made for. Loaded when the first such image comes.
"""

from __future__ import annotations

import functools
import io
import struct
import warnings
from types import ModuleType

import numpy as np

from transforms.formats.decode.quiet import quiet

FAULTS = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, RuntimeError, struct.error)

_ROWS_A_STRIP = 278  # a tag of TIFF


@functools.cache
def pillow() -> ModuleType:
    """Returns `PIL.Image`, which no longer judges sizes (the limits here do) and warns about no file without a name."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


def decoded_by_pillow(data: bytes, form: str) -> np.ndarray | None:
    """Returns (h, w) uint8 numbers or bool bits of a file with one sample a pixel, as they are stored, or None."""
    try:
        with quiet(), pillow().open(io.BytesIO(data), formats=[form]) as image:
            if image.mode not in ("1", "L", "P"):
                return None
            return np.asarray(image)
    except FAULTS:
        return None


def group_4_of(bits: np.ndarray, rows_a_strip: int) -> bytes | None:
    """Returns a TIFF of (h, w) bool bits in the codes of fax group 4, or None."""
    file = io.BytesIO()
    settings = {"compression": "group4", "tiffinfo": {_ROWS_A_STRIP: rows_a_strip}}
    try:
        with quiet():
            pillow().fromarray(bits).save(file, "TIFF", **settings)
    except FAULTS:
        return None
    return file.getvalue()
