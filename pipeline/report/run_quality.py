"""Images of a run that are worth a second look: odd shapes and sizes among all, dark, bright, blurry or empty pictures
among those that the page shows.

Names and limits are CleanVision's (0.3.6). Sizes come from the tables, so they cover the whole run; pixels are those of
the photos on the page alone. Not here: how a picture is measured (`models/evaluation/picture_quality.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.evaluation.picture_quality import BLURRY_EDGES, BRIGHT, DARK, FEW_BITS, PictureQuality
from pipeline.report.photo import Photo
from pipeline.report.run_samples import smallest
from transforms.formats.records import Status
from transforms.formats.result_batches import ResultBatch

NAMES = 5  # of each flag
ODD_ASPECT = 0.35  # shorter side by longer
ODD_SIZE = 3.0  # interquartile ranges beyond the quartiles
_LARGEST = 1 << 16  # pixels: the root of the area is counted up to this
RULES = {
    "odd_aspect": f"the shorter side is less than {ODD_ASPECT} of the longer",
    "odd_size": f"√(width × height) is {ODD_SIZE:g} interquartile ranges or more beyond the quartiles",
    "dark": f"99 of 100 pixels are darker than {DARK}",
    "bright": f"95 of 100 pixels are brighter than {BRIGHT}",
    "blurry": f"reduced to 64 pixels it has few edges (spread below {BLURRY_EDGES:.0f} of 255) and little contrast",
    "low_information": f"the brightness holds less than {FEW_BITS:g} bits a pixel",
}
TITLES = {"odd_aspect": "odd aspect", "odd_size": "odd size", "low_information": "low information"}


class Sizes:
    """Counts odd shapes and sizes while batches pass by."""

    def __init__(self) -> None:
        self._sides = np.zeros(_LARGEST + 1, np.int64)  # images by the root of their area
        self._odd_aspect: dict[str, Any] = {"images": 0, "names": []}
        self._ends: tuple[list[tuple[float, str]], list[tuple[float, str]]] = ([], [])  # smallest, largest

    def add(self, batch: ResultBatch) -> None:
        """Looks at the images of a batch that could be decoded."""
        looked = pc.is_in(batch.text("status"), pa.array([Status.LABELLED.value, Status.NO_FACE.value]))
        rows = np.flatnonzero(looked.to_numpy(zero_copy_only=False))
        if not len(rows):
            return
        width, height = batch.numbers("width")[rows], batch.numbers("height")[rows]
        side = np.sqrt(width.astype(np.float64) * height)
        self._sides += np.bincount(np.minimum(side, _LARGEST).astype(np.int64), minlength=_LARGEST + 1)
        odd = rows[np.minimum(width, height) < ODD_ASPECT * np.maximum(width, height)]
        self._odd_aspect["images"] += len(odd)
        room = NAMES - len(self._odd_aspect["names"])
        self._odd_aspect["names"] += [batch.text("image_id")[int(row)].as_py() for row in odd[:room]]
        for kept, key in zip(self._ends, (side, -side), strict=True):
            for at in smallest(key, min(NAMES, len(key))):
                if len(kept) == NAMES and key[at] >= kept[-1][0]:
                    break
                kept.append((float(key[at]), batch.text("image_id")[int(rows[at])].as_py()))
                kept.sort(key=lambda one: one[0])
                del kept[NAMES:]

    def result(self) -> dict[str, Any]:
        """Returns flags by name, for JSON: how many images, and the names of some."""
        low, high = self._limits()
        sides = np.arange(len(self._sides))
        smallest_, largest = self._ends
        names = [name for side, name in smallest_ if side < low] + [name for side, name in largest if -side > high]
        odd = int(self._sides[(sides + 1 <= low) | (sides > high)].sum())
        return {
            "odd_aspect": self._odd_aspect,
            "odd_size": {"images": odd, "names": names[:NAMES], "below_px": low, "above_px": high},
        }

    def _limits(self) -> tuple[float, float]:
        """Returns the roots of areas, in pixels, between which a size is not odd; quartiles to the pixel."""
        total = int(self._sides.sum())
        if not total:
            return 0.0, float(_LARGEST)
        q1, q3 = np.searchsorted(np.cumsum(self._sides), [total / 4, 3 * total / 4]).tolist()
        reach = ODD_SIZE * (q3 - q1)
        return max(0.0, float(q1 - reach)), float(q3 + reach + 1)


def picture_flags(measured: Mapping[int, PictureQuality], photos: Mapping[int, Photo]) -> dict[str, Any]:
    """Returns flags by name, for JSON: how many of the photos that were read, and rows and names of some.

    Args:
        measured, photos: by row of the photo.
    """
    found: dict[str, Any] = {}
    for name in ("dark", "bright", "blurry", "low_information"):
        rows = sorted(row for row, quality in measured.items() if name in quality.flags)
        shown = [{"row": row, "image_id": photos[row].image_id} for row in rows[:NAMES]]
        found[name] = {"images": len(rows), "photos": shown}
    return found
