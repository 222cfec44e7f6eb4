"""Pixels to bytes of a picture file, for pages: WebP, which every browser of today shows.

Not here: the way back (`decode/`).
"""

from __future__ import annotations

import cv2
import numpy as np


def as_webp(image: np.ndarray, quality: int) -> bytes:
    """Returns an image as WebP; the same pixels and quality give the same bytes.

    Args:
        image: (h, w, 3) uint8 RGB, each side 1 to 16383.
        quality: 1 to 100.

    Raises:
        ValueError: it cannot be encoded.
    """
    done, data = cv2.imencode(".webp", image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be written as WebP")
    return bytes(data)
