"""Pictures that are dark, bright, blurry or nearly empty, by the measures and limits of CleanVision 0.3.6.

Its low information counts the values of all three colours together; here it is that of the brightness that people see.
Not here: sizes and aspect ratios, which need no pixels (`pipeline/report/run_quality.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.detectors.cropping import reduced

DARK = 0.32  # 99 of 100 pixels are darker than this
BRIGHT = 0.95  # 95 of 100 pixels are brighter than this
FEW_BITS = 3.0  # entropy of the brightness
BLURRY_EDGES = 34.25  # spread of edges, 0 to 255, of the picture reduced to 64 pixels: 1 - exp(-34.25 / 100) = 0.29
BLURRY_SPREAD = 0.18  # and of the brightness: a sharp drawing has few edges, but much contrast
_SMALL = 64  # pixels of the longer side for edges, so that noise and the size of the file do not count
_WEIGHTS = (0.241, 0.691, 0.068)  # of squared red, green and blue: brightness as it is perceived


@dataclass(frozen=True, slots=True)
class PictureQuality:
    """Measures of a picture.

    Attributes:
        p5, p99: brightness, 0 to 1, that 5 and 99 of 100 pixels stay below.
        bits: entropy of the brightness in 256 steps, 0 to 8.
        edges: standard deviation of an edge filter, 0 to 255, of the picture reduced to 64 pixels.
        spread: standard deviation of the brightness, 0 to 0.5.
    """

    p5: float
    p99: float
    bits: float
    edges: float
    spread: float

    @property
    def flags(self) -> tuple[str, ...]:
        """What is wrong with it: of `dark`, `bright`, `blurry`, `low_information`."""
        dark = self.p99 < DARK
        blurry = self.edges < BLURRY_EDGES and self.spread < BLURRY_SPREAD and not dark
        found = {"dark": dark, "bright": self.p5 > BRIGHT, "blurry": blurry, "low_information": self.bits < FEW_BITS}
        return tuple(name for name, holds in found.items() if holds)


def picture_quality(image: np.ndarray) -> PictureQuality:
    """Measures (h, w, 3) uint8 RGB."""
    bright = _brightness(image)
    p5, p99 = np.percentile(bright, [5, 99])
    counts = np.bincount((bright * 255).astype(np.uint8).ravel(), minlength=256)
    shares = counts[counts > 0] / bright.size
    return PictureQuality(
        float(p5), float(p99), float(-(shares * np.log2(shares)).sum() + 0.0), _edges(image), float(bright.std())
    )


def _brightness(image: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.square(image.astype(np.float32)) @ np.asarray(_WEIGHTS, np.float32)) / 255)


def _edges(image: np.ndarray) -> float:
    grey = reduced(image, _SMALL).astype(np.float64) @ (0.299, 0.587, 0.114)
    padded = np.pad(grey, 1, mode="edge")
    height, width = grey.shape
    around = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return float(np.clip(9 * grey - around, 0, 255).std())
