"""Pixels of any kind to 8-bit grey or RGB: depth, alpha, palettes, inks, orientation.

Not here: which of these a file needs (a file a format).
"""

from __future__ import annotations

import cv2
import numpy as np

_BAND_PIXELS = 2**18  # alpha is laid on white in bands that stay in the processor's cache


def in_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns (h, w) grey for one channel, (h, w, 3) RGB for three, of the other."""
    converted: np.ndarray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if channels == 1 else cv2.COLOR_GRAY2RGB)
    return converted


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the image upright; `orientation` as EXIF numbers it."""
    if orientation >= 5:
        image = cv2.transpose(image)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    flip = {2: 1, 3: -1, 4: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def eight_bits(image: np.ndarray) -> np.ndarray:
    """Returns uint8 of uint16, rounded: v / 257; uint8 as it is."""
    return image if image.dtype == np.uint8 else np.asarray(cv2.convertScaleAbs(image, alpha=1 / 257))


def on_white(colour: np.ndarray, alpha: np.ndarray, *, premultiplied: bool = False) -> np.ndarray:
    """Returns colours laid on white.

    Args:
        colour: (h, w) or (h, w, 3) uint8; may be a view.
        alpha: (h, w) uint8, 255 is opaque.
        premultiplied: the colours have been multiplied by alpha.
    """
    flat = np.empty(colour.shape, np.uint8)
    rows = max(1, _BAND_PIXELS // colour.shape[1])
    for top in range(0, len(colour), rows):
        band = colour[top : top + rows].astype(np.uint16)
        opaque = alpha[top : top + rows].astype(np.uint16)
        if band.ndim == 3:
            opaque = opaque[..., None]
        if premultiplied:
            band += 255 - opaque
            flat[top : top + rows] = np.minimum(band, 255)
        else:
            band *= opaque
            band += 255 * (255 - opaque) + 127
            flat[top : top + rows] = band // 255
    return flat


def of_ink(ink: np.ndarray) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB of (h, w, 4) uint8 CMYK, 255 is full ink."""
    light = np.empty((*ink.shape[:2], 3), np.uint8)
    rows = max(1, _BAND_PIXELS // ink.shape[1])
    for top in range(0, len(ink), rows):
        band = 255 - ink[top : top + rows].astype(np.uint16)
        light[top : top + rows] = (band[..., :3] * band[..., 3:] + 127) // 255
    return light


def in_table(index: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns the colours of (h, w) uint8 indices: (h, w, 3) uint8, or (h, w) if the table is grey throughout.

    Args:
        index: of any value; past the table is black.
        table: (at most 256, 3) uint8 RGB.
    """
    whole = np.zeros((256, 3), np.uint8)
    whole[: len(table)] = table[:256]
    if (whole[:, :1] == whole).all():
        return np.asarray(cv2.LUT(index, np.ascontiguousarray(whole[:, 0])))
    return np.take(whole, index, axis=0)


def unpacked(rows: np.ndarray, bits: int, width: int) -> np.ndarray:
    """Returns (h, width) uint8 numbers of 1, 2, 4 or 8 bits from (h, bytes) uint8 rows, the highest bits first."""
    if bits == 8:
        return rows[:, :width]
    if bits == 1:
        return np.unpackbits(rows, axis=1, count=width)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    spread = (rows[..., None] >> shifts) & np.uint8(2**bits - 1)
    return spread.reshape(len(rows), -1)[:, :width]
