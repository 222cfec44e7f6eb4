"""What a detector almost took for a face: its best boxes below the threshold, on a few photos without a face.

Not here: which photos (`run_samples.py`), and the second read that they come from (`run_pictures.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.detectors.options import DetectorError
from models.detectors.registry import Detector, DetectorSpec
from transforms.containing import contained, contained_batch
from transforms.crop_faces import in_channels
from transforms.formats.decode import decode
from transforms.formats.records import Limits, RejectedContent

WEAKEST = 1 / 3  # of the threshold: below, candidates of the bundled detector are anything
MOST = 3  # candidates shown on a photo


@dataclass(frozen=True, slots=True)
class Candidate:
    """A box that was too weak to be a face.

    Attributes:
        box: x, y, width, height in pixels of the upright image.
        score: below the threshold.
    """

    box: tuple[int, int, int, int]
    score: float


@dataclass(frozen=True, slots=True)
class Searching:
    """How a run looked for faces; small and picklable.

    Attributes:
        detector: of the run; None if it is unavailable.
        channels: that the run decoded its images with.
        smallest_side: pixels that both sides of an image must have.
        why_not: why there is no detector.
    """

    detector: DetectorSpec | None
    channels: int = 3
    smallest_side: int = 1
    why_not: str = ""


class NearMisses:
    """Finds candidates, a photo at a time; the detector is loaded for the first photo.

    Attributes:
        threshold: least score of a face; None if there are no candidates.
        down_to: least score of a candidate.
        why_not: why there are no candidates; "" if there are some.
        searched: photos.
    """

    def __init__(self, searching: Searching, limits: Limits) -> None:
        self._searching, self._limits = searching, limits
        self._detector: Detector | None = None
        self.threshold: float | None = None
        self.why_not, self.searched = searching.why_not, 0
        if (spec := searching.detector) is not None:
            try:
                self.threshold = spec.threshold()
            except DetectorError as error:
                self.why_not = str(error)
            else:
                self.why_not = "" if self.threshold else f"the detector {spec.name} has no threshold of scores"
        self.down_to = WEAKEST * (self.threshold or 0.0)

    @property
    def setting(self) -> str:
        """Name of the setting that holds the threshold."""
        name = self._searching.detector.name if self._searching.detector else ""
        return f"faces.{name}.{'thresholds' if name == 'cascade' else 'score_threshold'}"

    def of(self, image_id: str, data: bytes) -> tuple[Candidate, ...]:
        """Returns the best candidates of an encoded image, the best first; call it within `GATE.together()`.

        The image is decoded as in the run: whole, as the search is that of the run.
        """
        detector = self._loaded()
        if detector is None:
            return ()
        channels = max(self._searching.channels, detector.channels)
        side = self._searching.smallest_side
        try:
            decoded = contained(image_id, lambda: decode(data, channels=channels, limits=self._limits, min_side=side))
        except RejectedContent:
            return ()
        image = in_channels(decoded.image, detector.channels)
        (found,) = contained_batch([image_id], [image], detector.detect_batch)
        if isinstance(found, RejectedContent):
            return ()
        self.searched += 1
        weak = found.scores < (self.threshold or 0.0)
        boxes, scores = found.boxes[weak][:MOST].tolist(), found.scores[weak][:MOST].tolist()
        return tuple(Candidate((x, y, w, h), score) for (x, y, w, h), score in zip(boxes, scores, strict=True))

    def result(self, candidates: Mapping[int, Sequence[Candidate]]) -> dict[str, Any]:
        """Returns what was looked for and found, for JSON, or why nothing was looked for."""
        if self.why_not:
            return {"why_not": self.why_not}
        return {
            "threshold": self.threshold,
            "down_to": self.down_to,
            "setting": self.setting,
            "photos_searched": self.searched,
            "photos_with_candidates": sum(map(bool, candidates.values())),
        }

    def _loaded(self) -> Detector | None:
        spec = self._searching.detector
        if self.why_not or spec is None or self.threshold is None:
            return None
        if self._detector is None:
            try:
                self._detector = spec.down_to(self.down_to).load()
            except DetectorError as error:
                self.why_not = str(error)
        return self._detector
