"""Windows of an image: what flows from step to step, and their pixels at the side a network wants."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import cv2
import numpy as np

STEP = sqrt(2)  # between an image's reductions: a window is sampled at most this much too coarsely
ROWS = 32_000  # OpenCV's remap takes fewer than 32,768 rows


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one image.

    Attributes:
        squares: (m, 3) float32 x, y, side in pixels of the image; they may leave it.
        scores: (m,) float32, 0 to 1, of the last network that saw them.
        scales: (m,) int32, the level of the pyramid that each came from.
    """

    squares: np.ndarray
    scores: np.ndarray
    scales: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, index: np.ndarray) -> Windows:
        """Returns the windows of an index or mask, in its order."""
        return Windows(self.squares[index], self.scores[index], self.scales[index])


class Reductions:
    """An image in steps of the square root of two, each averaged from a larger one.

    Args:
        pixels: (h, w, 3) uint8.
        least: pixels; no reduction has a shorter side than this.

    Attributes:
        height, width: of the image in pixels.
    """

    def __init__(self, pixels: np.ndarray, least: int = 8) -> None:
        self.height, self.width = pixels.shape[:2]
        self._images = [pixels]
        if min(self.height, self.width) / STEP >= least:
            self._images.append(_resized(pixels, self.height / STEP, self.width / STEP))
        while min(self._images[-2:][0].shape[:2]) >= 2 * least and len(self._images) > 1:
            half = self._images[-2]
            self._images.append(_resized(half, half.shape[0] / 2, half.shape[1] / 2))

    def _finer(self, scale: float) -> np.ndarray:
        """Returns the smallest reduction with at least `scale` pixels a pixel of the image."""
        number = int(np.floor(-2 * np.log2(max(scale, 1e-6)) + 1e-6))
        return self._images[min(max(number, 0), len(self._images) - 1)]

    def resized(self, height: int, width: int) -> np.ndarray:
        """Returns the image as (height, width, 3) uint8."""
        source = self._finer(max(height / self.height, width / self.width))
        return np.asarray(cv2.resize(source, (width, height), interpolation=cv2.INTER_LINEAR))

    def windows(self, squares: np.ndarray, side: int) -> np.ndarray:
        """Returns (m, side, side, 3) uint8 pixels of windows; outside the image its border is repeated.

        A window's pixels are the same whatever other windows are asked for.
        """
        out = np.empty((len(squares), side, side, 3), np.uint8)
        numbers = np.floor(2 * np.log2(np.maximum(squares[:, 2], 1e-3) / side) + 1e-6).astype(int)
        numbers = numbers.clip(0, len(self._images) - 1)
        for number in np.unique(numbers):
            members = np.flatnonzero(numbers == number)
            for start in range(0, len(members), ROWS // side):
                some = members[start : start + ROWS // side]
                out[some] = self._sampled(self._images[number], squares[some], side)
        return out

    def _sampled(self, source: np.ndarray, squares: np.ndarray, side: int) -> np.ndarray:
        scale = np.asarray([source.shape[1] / self.width, source.shape[0] / self.height], np.float32)
        steps = (np.arange(side, dtype=np.float32) + 0.5) / side
        x, y = (
            (squares[:, axis : axis + 1] + squares[:, 2:] * steps) * scale[axis] - np.float32(0.5) for axis in (0, 1)
        )
        shape = (len(squares), side, side)
        xs = np.broadcast_to(x[:, None, :], shape).reshape(-1, side)
        ys = np.broadcast_to(y[:, :, None], shape).reshape(-1, side)
        pixels = cv2.remap(source, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(pixels.reshape(*shape, 3))


def _resized(pixels: np.ndarray, height: float, width: float) -> np.ndarray:
    size = (max(1, round(width)), max(1, round(height)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
