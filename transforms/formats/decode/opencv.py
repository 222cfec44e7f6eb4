"""Calls OpenCV's decoders: for JPEG, PNG and WebP, whose decoders fail where a row is missing.

Its decoders of TIFF, GIF, BMP, PNM and animated PNG are not used: they return success with rows that were never
written, or other colours than everybody else.
"""

from __future__ import annotations

import cv2
import numpy as np

from transforms.formats.decode.quiet import silence, voice


def decoded_by_opencv(data: bytes | np.ndarray, flags: int) -> np.ndarray | None:
    """Returns what OpenCV decodes, or None.

    Raises:
        MemoryError: there is none; no fault of the image.
    """
    silence()  # no context manager: that costs a microsecond an image
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no memory to decode an image of {len(data)} bytes") from error
        return None
    finally:
        voice()
