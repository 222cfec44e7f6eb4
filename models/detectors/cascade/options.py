"""Options of the cascade: small, picklable, checked when made."""

from __future__ import annotations

from dataclasses import dataclass

from models.detectors.cascade.calibration import Averaging

STRIDES = (2, 4, 8)  # pixels of the reduced image: those that the file of weights has a first level for


@dataclass(frozen=True, slots=True)
class CascadeOptions:
    """How the cascade looks for faces.

    Attributes:
        working_size: pixels; a larger image is reduced until its longer side has this many. Never enlarged.
        min_face_fraction: the smallest face, as a fraction of the image's shorter side.
        min_face_px: and the fewest pixels it has, whatever the fraction.
        scale_step: factor between the sizes that are searched.
        stride: pixels between the first level's windows, which are 12 pixels large: 2, 4 or 8.
        thresholds: the least probability at each level; None for those chosen on validation, which come with the
            weights.
        calibrate: at which levels windows are calibrated.
        averaging: of the calibration classes: `share` or `sum`, see `calibration.mean_pattern`.
        max_windows: windows an image that leave levels 1 and 2 at most, the best.
        overlaps: intersection over union from which the weaker of two windows of one scale goes, behind each level.
        overlap: the same behind the last level, among all.
        batches: windows of a batch at each level.
        regroup: windows of several images share a batch.
        max_faces: only the first of them are kept; 0 for all.

    Raises:
        ValueError: a value out of range.
    """

    working_size: int = 640
    min_face_fraction: float = 0.05
    min_face_px: int = 12
    scale_step: float = 1.26
    stride: int = 4
    thresholds: tuple[float, float, float] | None = None
    calibrate: tuple[bool, bool, bool] = (True, True, True)
    averaging: Averaging = "share"
    max_windows: tuple[int, int] = (1000, 200)
    overlaps: tuple[float, float, float] = (0.6, 0.6, 0.5)
    overlap: float = 0.3
    batches: tuple[int, int, int] = (64, 64, 16)
    regroup: bool = True
    max_faces: int = 0

    def __post_init__(self) -> None:
        limits = (*self.overlaps, self.overlap)
        wanted = {
            "working_size": (self.working_size >= 16, "at least 16 pixels"),
            "min_face_fraction": (0 <= self.min_face_fraction <= 1, "from 0 to 1"),
            "min_face_px": (self.min_face_px >= 4, "at least 4 pixels"),
            "scale_step": (1.05 <= self.scale_step <= 4, "from 1.05 to 4"),  # below, the search hardly ends
            "stride": (self.stride in STRIDES, "2, 4 or 8"),
            "thresholds": (all(0 <= one <= 1 for one in self.thresholds or ()), "from 0 to 1 each"),
            "averaging": (self.averaging in ("share", "sum"), "share or sum"),
            "max_windows": (all(one >= 1 for one in self.max_windows), "at least 1 each"),
            "overlaps": (all(0 < one <= 1 for one in self.overlaps), "above 0, at most 1 each"),
            "overlap": (0 < limits[-1] <= 1, "above 0, at most 1"),
            "batches": (all(one >= 1 for one in self.batches), "at least 1 each"),
            "max_faces": (self.max_faces >= 0, "0 (all) or more"),
        }
        for option, (sound, range_) in wanted.items():
            if not sound:
                raise ValueError(f"cascade: {option} is {getattr(self, option)}, it must be {range_}")
