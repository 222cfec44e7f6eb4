"""The settings of each detector: small, frozen, picklable, checked when made. A dataclass a detector.

Plain data, so that settings and `--help` need no library of images.
"""

from __future__ import annotations

from dataclasses import dataclass


class DetectorError(ValueError):
    """A detector cannot be made as asked; the message names the setting or the file, and the cure."""


def _check(detector: str, **wanted: tuple[object, bool, str]) -> None:
    for setting, (value, sound, range_) in wanted.items():
        if not sound:
            raise DetectorError(f"detector {detector}: {setting} is {value}, it must be {range_}")


@dataclass(frozen=True, slots=True)
class WholeImageOptions:
    """Nothing to set: the whole image is the face."""


@dataclass(frozen=True, slots=True)
class HaarOptions:
    """How OpenCV's Haar cascade looks for faces.

    Attributes:
        model: path of a cascade in OpenCV's XML format; None for the one that comes with OpenCV.
        detect_size: pixels; a larger image is reduced until its longer side has this many. Never enlarged.
        min_face_fraction: the smallest face, as a fraction of the image's shorter side.
        scale_factor: step between the sizes that are searched.
        min_neighbors: overlapping hits that make a face.

    Raises:
        DetectorError: a value out of range.
    """

    model: str | None = None
    detect_size: int = 640
    min_face_fraction: float = 0.1
    scale_factor: float = 1.1
    min_neighbors: int = 5

    def __post_init__(self) -> None:
        _check(
            "haar",
            detect_size=(self.detect_size, self.detect_size >= 16, "at least 16 pixels"),
            min_face_fraction=(self.min_face_fraction, 0 <= self.min_face_fraction <= 1, "from 0 to 1"),
            scale_factor=(self.scale_factor, 1.01 <= self.scale_factor <= 4, "from 1.01 to 4"),  # below, it hardly ends
            min_neighbors=(self.min_neighbors, self.min_neighbors >= 1, "at least 1"),  # 0 gives raw, ungrouped hits
        )


@dataclass(frozen=True, slots=True)
class YuNetOptions:
    """How YuNet looks for faces.

    Attributes:
        model: path of the model file, `face_detection_yunet_2023mar.onnx` of opencv_zoo; it does not ship.
        detect_size: pixels; a larger image is reduced until its longer side has this many. Never enlarged.
        score_threshold: the least score of a face, 0 to 1.
        nms_threshold: the overlap (IoU) from which the weaker of two boxes is dropped.

    Raises:
        DetectorError: a value out of range.
    """

    model: str | None = None
    detect_size: int = 640
    score_threshold: float = 0.6
    nms_threshold: float = 0.3

    def __post_init__(self) -> None:
        _check(
            "yunet",
            detect_size=(self.detect_size, self.detect_size >= 16, "at least 16 pixels"),
            score_threshold=(self.score_threshold, 0 < self.score_threshold <= 1, "above 0, at most 1"),
            nms_threshold=(self.nms_threshold, 0 < self.nms_threshold <= 1, "above 0, at most 1"),
        )


@dataclass(frozen=True, slots=True)
class OneShotOptions:
    """How the bundled one-shot network looks for faces.

    Attributes:
        model: path of a model file that `train-detector` wrote; None for the one that ships.
        min_face_fraction: the smallest face, as a fraction of the image's shorter side: it decides how much an image
            is reduced, and with it the cost. Images are never enlarged.
        score_threshold: the least score of a face, 0 to 1.
        nms_threshold: the overlap (IoU) from which the weaker of two boxes is dropped.

    Raises:
        DetectorError: a value out of range.
    """

    model: str | None = None
    min_face_fraction: float = 0.02
    score_threshold: float = 0.6
    nms_threshold: float = 0.35

    def __post_init__(self) -> None:
        _check(
            "one_shot",
            min_face_fraction=(self.min_face_fraction, 0.005 <= self.min_face_fraction <= 1, "from 0.005 to 1"),
            score_threshold=(self.score_threshold, 0 < self.score_threshold < 1, "above 0, below 1"),
            nms_threshold=(self.nms_threshold, 0 < self.nms_threshold <= 1, "above 0, at most 1"),
        )


@dataclass(frozen=True, slots=True)
class CascadeOptions:
    """How the cascade of small networks looks for faces.

    Attributes:
        model: path of a file that training wrote; None for the one that ships.
        detect_size: pixels; a larger image is reduced until its longer side has this many. Never enlarged.
        min_face_fraction: the smallest face, as a fraction of the image's shorter side.
        min_face_px: and the fewest pixels it has, whatever the fraction.
        scale_step: factor between the sizes that are searched.
        stride: pixels between the first level's windows, which are 12 pixels large: 2, 4 or 8.
        thresholds: the least probability at each level; None for those chosen on validation, which come with the
            weights.
        calibrate: at which levels windows are calibrated.
        averaging: of the 45 calibration classes: `share` divides by what is left of the probability, `sum` does not.
        max_windows: windows an image that leave levels 1 and 2 at most, the best.
        overlaps: intersection over union from which the weaker of two windows of a scale is dropped, by level.
        nms_threshold: the same after the last level, among the windows of all scales.
        batches: windows of a batch at each level.
        regroup: windows of several images share a batch; changes the speed, not what is found.

    Raises:
        DetectorError: a value out of range.
    """

    model: str | None = None
    detect_size: int = 640
    min_face_fraction: float = 0.05
    min_face_px: int = 12
    scale_step: float = 1.26
    stride: int = 4
    thresholds: tuple[float, float, float] | None = None
    calibrate: tuple[bool, bool, bool] = (True, True, True)
    averaging: str = "share"
    max_windows: tuple[int, int] = (1000, 200)
    overlaps: tuple[float, float, float] = (0.6, 0.6, 0.5)
    nms_threshold: float = 0.3
    batches: tuple[int, int, int] = (64, 64, 16)
    regroup: bool = True

    def __post_init__(self) -> None:
        thresholds = self.thresholds or (0.5, 0.5, 0.5)
        _check(
            "cascade",
            detect_size=(self.detect_size, self.detect_size >= 16, "at least 16 pixels"),
            min_face_fraction=(self.min_face_fraction, 0 <= self.min_face_fraction <= 1, "from 0 to 1"),
            min_face_px=(self.min_face_px, self.min_face_px >= 4, "at least 4 pixels"),
            scale_step=(self.scale_step, 1.05 <= self.scale_step <= 4, "from 1.05 to 4"),  # below, it hardly ends
            stride=(self.stride, self.stride in (2, 4, 8), "2, 4 or 8"),
            thresholds=(thresholds, all(0 <= one <= 1 for one in thresholds), "from 0 to 1 each"),
            averaging=(self.averaging, self.averaging in ("share", "sum"), "share or sum"),
            max_windows=(self.max_windows, min(self.max_windows) >= 1, "at least 1 each"),
            overlaps=(self.overlaps, all(0 < one <= 1 for one in self.overlaps), "above 0, at most 1 each"),
            nms_threshold=(self.nms_threshold, 0 < self.nms_threshold <= 1, "above 0, at most 1"),
            batches=(self.batches, min(self.batches) >= 1, "at least 1 each"),
        )


Options = WholeImageOptions | HaarOptions | YuNetOptions | OneShotOptions | CascadeOptions
