"""The picture of the cascade at work: a panel for each step, with the windows that it left; known faces in white."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.detectors.cropping import reduced
from models.detectors.panels import Colour, grid, panel
from models.detectors.steps import Step

COLUMNS = 5
COLOURS: dict[str, Colour] = {
    "classify": (255, 176, 0), "calibrate": (0, 200, 255), "filter": (80, 255, 80), "global": (255, 60, 160)
}  # fmt: skip


def panels(image: np.ndarray, steps: Sequence[Step], known: np.ndarray, panel_px: int = 320) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB: the photo once for each step, five beside each other.

    Args:
        image: (h, w, 3) uint8 RGB.
        steps: of `Cascade.trace`, ten with all calibrations on.
        known: (m, 4) boxes x, y, width, height of faces in pixels of the image; (0, 4) if none is known.
        panel_px: the longer side of a photo in the picture.
    """
    small = reduced(image, panel_px)
    scale = small.shape[1] / image.shape[1]
    return grid([_panel(small, number, step, known * scale, scale) for number, step in enumerate(steps, 1)], COLUMNS)


def _panel(photo: np.ndarray, number: int, step: Step, known: np.ndarray, scale: float) -> np.ndarray:
    colour = COLOURS[step.name.split()[0]]
    weakest_first = [(box * scale, colour) for box in step.boxes[np.argsort(step.scores, kind="stable")]]
    return panel(photo, f"{number} {step.name}: {len(step.boxes)}", known, weakest_first)
