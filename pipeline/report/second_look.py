"""A second look at the judged images: changed photos, the detector's steps, other ways to search, one explained image.

All of it is optional and works on one image at a time, in the order of the plan. Not here: the first look, whose boxes
are judged (`pipeline/run/search_faces.py`), and the changes themselves (`models/evaluation/image_changes.py`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from models.detectors.detections import Detections
from models.detectors.options import CascadeOptions
from models.detectors.registry import Detector, DetectorSpec
from models.detectors.steps import SearchesInSteps
from models.evaluation.detection import OVERLAP, PAIRED, Photo, judge
from models.evaluation.image_changes import CHANGES, KnownPhoto
from models.evaluation.regions import coverage
from pipeline.errors import UsageError
from pipeline.report.known_and_found import Compared
from transforms.crop_faces import grey_of
from transforms.formats.decode import decode
from transforms.formats.encode import as_webp
from transforms.formats.records import Limits, RejectedContent
from transforms.read_again import read_pictures

EXPLAINED = "explained.webp"
QUALITY = 90  # of that picture: thin lines stay clean
WIDEST_STRIDE = 8  # pixels, of the cascade's first level


class Look(Protocol):
    """What is done with every image."""

    def see(self, photo: Photo, pixels: np.ndarray, image_id: str) -> None:
        """Takes one image, (h, w, 3) uint8 RGB, with its known faces and the boxes of the first look."""
        ...

    def metrics(self) -> Any:
        """Returns what was seen, as JSON has it."""
        ...


def look_again(compared: Compared, looks: Sequence[Look], lines: Iterable[bytes], limits: Limits) -> None:
    """Shows every judged image to all `looks`.

    Args:
        lines: of the plan, to read the pictures from.

    Raises:
        InputFault: an image is gone or cannot be read.
    """
    if not looks:
        return
    rows = {image.id: row for row, image in enumerate(compared.images)}
    for name, pixels in _pictures(compared, lines, limits):
        for look in looks:
            look.see(compared.photos[rows[name]], pixels, name)


def _pictures(compared: Compared, lines: Iterable[bytes], limits: Limits) -> Iterator[tuple[str, np.ndarray]]:
    for name, data in read_pictures(lines, {image.id: image.digest for image in compared.images}, limits):
        try:
            yield name, decode(data, channels=3, limits=limits).image
        except RejectedContent:  # was readable as grey a moment ago
            continue


def _found(detector: Detector, pixels: np.ndarray) -> Detections:
    return detector.detect_batch([grey_of(pixels) if detector.channels == 1 else pixels])[0]


def _judged(photos: Sequence[Photo], least_overlap: float, least_score: float) -> dict[str, Any]:
    one = judge(photos, least_overlap=least_overlap, least_score=least_score)
    return {
        "recall": one.recall,
        "false_alarms_an_image": one.false_alarms_an_image,
        "mean_overlap": one.mean_overlap,
    }


# --- changed photos ---------------------------------------------------------------------------------------------------


@dataclass
class HarderPhotos:
    """What is found once photos are turned, half-lit, reduced or grey. Ellipses count as the boxes around them.

    Attributes:
        detector: searches them.
        least_score: of the boxes that count.
    """

    detector: Detector
    least_score: float
    photos: dict[str, list[Photo]] = field(default_factory=lambda: defaultdict(list))

    def see(self, photo: Photo, pixels: np.ndarray, image_id: str) -> None:
        self.photos["as they are"].append(replace(photo, ellipses=None))
        for name, change in CHANGES.items():
            changed = change(KnownPhoto(pixels, photo.known, photo.ignored))
            found = _found(self.detector, changed.pixels)
            boxes = np.asarray(found.boxes, np.float64)
            self.photos[name].append(Photo(changed.known, None, changed.ignored, boxes, found.scores))

    def metrics(self) -> list[dict[str, Any]]:
        return [{"change": name, **_judged(some, PAIRED, self.least_score)} for name, some in self.photos.items()]


# --- steps and ways of searching --------------------------------------------------------------------------------------


@dataclass
class DetectorSteps:
    """What each step of a detector leaves, how many known faces its boxes still cover, and what it costs."""

    detector: SearchesInSteps
    images: int = 0
    faces: int = 0
    sums: dict[str, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(3)))

    def see(self, photo: Photo, pixels: np.ndarray, image_id: str) -> None:
        known = photo.known[~photo.ignored]
        self.images, self.faces = self.images + 1, self.faces + len(known)
        for step in self.detector.trace(pixels):
            covered = (coverage(step.boxes, known) > PAIRED).any(axis=0).sum()
            self.sums[step.name] += (len(step.boxes), covered, step.cpu_s * 1000)

    def metrics(self) -> list[dict[str, Any]]:
        return [
            {
                "step": name,
                "boxes_an_image": float(boxes / self.images),
                "faces_covered": float(covered / self.faces) if self.faces else None,
                "cpu_ms_an_image": float(cpu_ms / self.images),
            }
            for name, (boxes, covered, cpu_ms) in self.sums.items()
        ]


@dataclass
class Ways:
    """What a detector finds if it searches in other ways.

    Attributes:
        detectors: by the words of the table.
        least_score: of the boxes that count.
    """

    detectors: Mapping[str, Detector]
    least_score: float
    photos: dict[str, list[Photo]] = field(default_factory=lambda: defaultdict(list))
    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def see(self, photo: Photo, pixels: np.ndarray, image_id: str) -> None:
        for name, detector in self.detectors.items():
            started = time.process_time()
            found = _found(detector, pixels)
            self.cpu_s[name] += time.process_time() - started
            boxes = np.asarray(found.boxes, np.float64)
            self.photos[name].append(replace(photo, found=boxes, scores=found.scores))

    def metrics(self) -> list[dict[str, Any]]:
        return [
            {
                "way": name,
                "overlap": overlap,
                **_judged(some, overlap, self.least_score),
                "cpu_ms_an_image": self.cpu_s[name] / len(some) * 1000,
            }
            for name, some in self.photos.items()
            for overlap in (OVERLAP, PAIRED)
        ]


def ways_of(spec: DetectorSpec) -> dict[str, DetectorSpec]:
    """Returns the cascade with and without calibration, at its stride and twice that; nothing for other detectors."""
    options = spec.options or spec.kind.options()
    if not isinstance(options, CascadeOptions):
        return {}
    strides = [stride for stride in (options.stride, 2 * options.stride) if stride <= WIDEST_STRIDE]
    return {
        f"{words}, stride {stride}": replace(spec, options=replace(options, stride=stride, calibrate=(on, on, on)))
        for stride in strides
        for words, on in (("calibrated", True), ("not calibrated", False))
    }


# --- one image explained ----------------------------------------------------------------------------------------------


@dataclass
class Explained:
    """The picture of the detector at work on one image, as WebP.

    Attributes:
        detector: draws it.
        image_id: of the image.
    """

    detector: SearchesInSteps
    image_id: str
    picture: bytes = b""

    def see(self, photo: Photo, pixels: np.ndarray, image_id: str) -> None:
        if image_id == self.image_id:
            self.picture = as_webp(self.detector.explain(pixels, photo.known), QUALITY)

    def metrics(self) -> str:
        return self.image_id


def image_named(compared: Compared, given: str) -> str:
    """Returns the id of the first judged image whose id is `given`, or ends with it after a slash.

    Raises:
        UsageError: there is none.
    """
    for image in compared.images:
        if f"/{image.id}".endswith(f"/{given}"):
            return image.id
    example = compared.images[0].id
    raise UsageError(f"--explain {given}: no judged image has that id; give one like {example}")


def in_steps(detector: Detector, name: str, flag: str) -> SearchesInSteps:
    """Returns the detector if it can show its steps.

    Raises:
        UsageError: it cannot.
    """
    if not isinstance(detector, SearchesInSteps):
        raise UsageError(f"{flag}: detector {name} does not show its steps; use bundled or cascade")
    return detector
