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

FAULTS = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, RuntimeError, struct.error)


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
        with pillow().open(io.BytesIO(data), formats=[form]) as image:
            if image.mode not in ("1", "L", "P"):
                return None
            return np.asarray(image)
    except FAULTS:
        return None
