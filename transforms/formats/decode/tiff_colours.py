"""The samples of a TIFF to grey or RGB."""

from __future__ import annotations

import cv2
import numpy as np

from transforms.formats.decode.colours import eight_bits, in_table, of_ink, on_white
from transforms.formats.decode.tiff_layout import (
    BLACK_IS_ZERO,
    JPEG,
    PALETTE,
    PLAIN_ALPHA,
    PREMULTIPLIED,
    RGB,
    SEPARATED,
    WHITE_IS_ZERO,
    YCBCR,
    Layout,
)

_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3}  # samples of each
_GREY_DEPTHS, _DEPTHS = (1, 2, 4, 8, 16), (8, 16)


def is_known(layout: Layout) -> bool:
    """True if the samples mean colours that are known here."""
    colours = _COLOURS.get(layout.photometric, 0)
    if not colours or layout.samples < colours:
        return False
    if layout.photometric == PALETTE:
        return layout.bits <= 8 and layout.bits in _GREY_DEPTHS and len(layout.colours) >= 3 * 2**layout.bits
    if layout.photometric == YCBCR:
        return layout.bits == 8 and layout.samples == 3 and not layout.planar
    return layout.bits in (_GREY_DEPTHS if colours == 1 else _DEPTHS)


def colours_of(samples: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns (h, w) grey or (h, w, 3) RGB uint8 on white of (h, w, samples) as they are stored."""
    count = _COLOURS[layout.photometric]
    colour = _colour(samples[..., 0] if count == 1 else samples[..., :count], layout)
    kind = layout.extra[0] if layout.extra else PLAIN_ALPHA if (layout.photometric, layout.samples) == (RGB, 4) else 0
    if kind in (PREMULTIPLIED, PLAIN_ALPHA) and layout.samples > count:
        alpha = _full_range(samples[..., count], layout.bits)
        if alpha.min() < 255:
            return on_white(colour, alpha, premultiplied=kind == PREMULTIPLIED)
    return colour


def _colour(values: np.ndarray, layout: Layout) -> np.ndarray:
    if layout.photometric == PALETTE:
        return in_table(np.ascontiguousarray(values), _palette(layout))
    values = np.ascontiguousarray(_full_range(values, layout.bits))
    if layout.photometric == WHITE_IS_ZERO:
        return np.asarray(cv2.bitwise_not(values))
    if layout.photometric == SEPARATED:
        return of_ink(values)
    if layout.photometric == YCBCR and layout.compression != JPEG:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(values[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB))
    return values


def _full_range(values: np.ndarray, bits: int) -> np.ndarray:
    """Returns 0 to 255 of numbers of any depth."""
    if bits == 16:
        return eight_bits(np.ascontiguousarray(values))
    return values if bits == 8 else values * np.uint8(255 // (2**bits - 1))


def _palette(layout: Layout) -> np.ndarray:
    """Returns (n, 3) uint8; some writers put 8-bit numbers where 16-bit ones belong."""
    table = layout.colours[: 3 * 2**layout.bits].reshape(3, -1).T
    return (table if table.max() < 256 else table >> 8).astype(np.uint8)
