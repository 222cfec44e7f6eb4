"""Cuts boxes out of images and brings them to size. Pure: the same pixels and box give the same bytes.

Images are (h, w) grey or (h, w, 3) uint8. Whatever comes back may be a view of what went in: do not write into it.

Not here: which box is cut (`models/boxes.py`, the detectors).
"""

from __future__ import annotations

import cv2
import numpy as np

REVISION = 1  # part of the features fingerprint: raise it when the same box gives other pixels
MAX_CUT_SIDE = 4096  # pixels: beyond, a cut is reduced before it is padded, or a 30000x2 strip would need gigabytes


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the whole image at `size` (height, width); the image itself if it has that size already.

    Sides that shrink are averaged over the area (anything cheaper aliases), then sides that grow are interpolated
    linearly: cubic interpolation overshoots at edges and makes values that were not there.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    shrunk = (min(width, size[1]), min(height, size[0]))
    if shrunk != (width, height):
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (size[1], size[0]):
        image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return image


def reduced(image: np.ndarray, longer_side: int) -> np.ndarray:
    """Returns the image with its longer side at most `longer_side` pixels, the aspect kept; never enlarged."""
    height, width = image.shape[:2]
    if max(height, width) <= longer_side:
        return image
    factor = longer_side / max(height, width)
    return resized(image, (max(1, round(height * factor)), max(1, round(width * factor))))


def _span(start: int, length: int, limit: int) -> tuple[int, int, int, int]:
    """Returns (first, end) inside 0 … limit and how often the border pixel repeats before and after.

    A span wholly outside keeps the border pixel nearest to it.
    """
    first = min(max(start, 0), limit - 1)
    end = max(min(start + length, limit), 1)
    before = min(max(-start, 0), length - 1)
    return first, end, before, length - before - (end - first)


def _cut(image: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Returns the pixels of a box; beyond the image the border pixels repeat.

    Repeated and not black: a black bar is an edge, and edges are what a network looks for.
    """
    left, right, before_x, after_x = _span(x, width, image.shape[1])
    top, bottom, before_y, after_y = _span(y, height, image.shape[0])
    inside = image[top:bottom, left:right]
    if not (before_x or after_x or before_y or after_y):
        return inside
    longest = max(width, height)
    if longest > MAX_CUT_SIDE:
        inside = resized(inside, tuple(max(1, side * MAX_CUT_SIDE // longest) for side in inside.shape[:2]))
        before_x, after_x, before_y, after_y = (
            n * MAX_CUT_SIDE // longest for n in (before_x, after_x, before_y, after_y)
        )
    return np.asarray(cv2.copyMakeBorder(inside, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE))


def crop_resized(image: np.ndarray, box: np.ndarray | tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Returns the box of the image at `size`: uint8 (h, w) or (h, w, 3), like the image.

    The aspect is not kept: a square face comes to a square size unharmed, a whole image is squeezed into it.
    Nothing is computed where the box is the whole image and has the size already.

    Args:
        box: x, y, width, height, whole pixels; may leave the image, wholly even.
        size: (height, width) in pixels.

    Raises:
        ValueError: the box or the image has no pixels.
    """
    x, y, width, height = box.tolist() if isinstance(box, np.ndarray) else box
    if (x, y, height, width) == (0, 0, *image.shape[:2]):
        return resized(image, size) if image.size else _nothing(image, box)
    if width < 1 or height < 1 or not image.size:
        return _nothing(image, box)
    return resized(_cut(image, x, y, width, height), size)


def _nothing(image: np.ndarray, box: object) -> np.ndarray:
    raise ValueError(f"nothing to cut: box {box} of an image of shape {image.shape}")
