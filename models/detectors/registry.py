"""Which detectors there are. A new one is a file, its options in `options.py`, and a line in `DETECTORS`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np

from models.detectors.detections import Detections
from models.detectors.options import (
    CascadeOptions,
    DetectorError,
    HaarOptions,
    OneShotOptions,
    Options,
    WholeImageOptions,
    YuNetOptions,
)

BUNDLED = "one_shot"  # what the word `bundled` stands for


class Detector(Protocol):
    """What every detector offers. `detect_batch` may be called from several threads at once.

    Attributes:
        channels: of the images it wants, 1 for grey (h, w), 3 for RGB (h, w, 3).
    """

    channels: int

    def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Returns the faces of each uint8 image, whatever their sizes.

        The same pixels give the same bytes, whatever else is in the batch and in any thread.
        """
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A line of the table.

    Attributes:
        module: imported when a detector is described or loaded. It has `describe(options)`, which returns what can
            change boxes and scores without loading the model (revision, digest, options), and `load(options,
            max_faces)`, which returns a `Detector`.
        options: the dataclass of its settings.
        threaded: its `load` also takes a number of threads for one image, which changes no box.
    """

    module: str
    options: type[Options]
    threaded: bool = False


DETECTORS: dict[str, Kind] = {
    "none": Kind("models.detectors.whole_image", WholeImageOptions),
    "one_shot": Kind("models.detectors.one_shot.detector", OneShotOptions, threaded=True),
    "cascade": Kind("models.detectors.cascade.detector", CascadeOptions),
    "haar": Kind("models.detectors.haar", HaarOptions),
    "yunet": Kind("models.detectors.yunet", YuNetOptions),
}


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A detector that is chosen but not loaded: small and picklable.

    Attributes:
        name: a word of `DETECTORS`, or `bundled`.
        options: its settings; None for the defaults.
        max_faces: only the first of an image's faces are kept; 0 for all.

    Raises:
        DetectorError: an unknown name, options of another detector, or a value out of range.
    """

    name: str = "bundled"
    options: Options | None = None
    max_faces: int = 0
    kind: Kind = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name = BUNDLED if self.name == "bundled" else self.name
        if name not in DETECTORS:
            raise DetectorError(f"unknown detector {self.name!r}; known: bundled, {', '.join(DETECTORS)}")
        if self.max_faces < 0:
            raise DetectorError(f"detector {name}: max_faces is {self.max_faces}, it must be 0 (all) or more")
        kind = DETECTORS[name]
        options = kind.options() if self.options is None else self.options
        if not isinstance(options, kind.options):
            raise DetectorError(f"detector {name} takes {kind.options.__name__}, not {type(options).__name__}")
        for attribute, value in (("name", name), ("options", options), ("kind", kind)):
            object.__setattr__(self, attribute, value)

    def describe(self) -> dict[str, Any]:
        """Returns all that can change what is found, for the cache key; nothing is loaded.

        Raises:
            DetectorError: a model file is missing.
        """
        described = dict(importlib.import_module(self.kind.module).describe(self.options))
        limit = {} if self.name == "none" else {"max_faces": self.max_faces}
        return {"name": self.name, **described, **limit}

    def threshold(self) -> float | None:
        """Returns the least score of what it takes for a face; None if it has no such threshold."""
        if isinstance(self.options, OneShotOptions | YuNetOptions):
            return self.options.score_threshold
        if isinstance(self.options, CascadeOptions):
            return self._thresholds(self.options)[2]
        return None

    def down_to(self, score: float) -> DetectorSpec:
        """Returns the detector that also gives weaker boxes, down to a score: the faces, and what almost was one.

        All boxes from `threshold()` on are those of the detector itself: overlapping boxes give way to stronger ones
        only. `max_faces` does not apply, as it would count weak boxes too.

        Raises:
            DetectorError: the detector has no threshold.
        """
        options = self.options
        if isinstance(options, OneShotOptions | YuNetOptions):
            lower: Options = replace(options, score_threshold=min(score, options.score_threshold))
        elif isinstance(options, CascadeOptions):
            first, second, third = self._thresholds(options)
            lower = replace(options, thresholds=(first, second, min(score, third)))
        else:
            raise DetectorError(f"detector {self.name} has no threshold of scores, so it has no weaker boxes to give")
        return replace(self, options=lower, max_faces=0)

    def _thresholds(self, options: CascadeOptions) -> tuple[float, float, float]:
        from models.detectors.cascade.weights import thresholds_of

        return options.thresholds or thresholds_of(options.model)

    def load(self, threads: int = 1) -> Detector:
        """Returns the detector, its model file read and tried.

        Args:
            threads: that search one image, where the detector can use several; changes speed, not results.

        Raises:
            DetectorError: a model file is missing, or no model of this detector.
        """
        more = {"threads": threads} if self.kind.threaded else {}
        return cast(Detector, importlib.import_module(self.kind.module).load(self.options, self.max_faces, **more))


def settings_in(options: Options) -> dict[str, Any]:
    """Returns the options that change what is found: all but the path of the model, whose digest counts."""
    return {name: value for name, value in asdict(options).items() if name != "model"}
