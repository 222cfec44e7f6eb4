"""The cascade as a detector: classify, calibrate, filter, three times; then a global filter. On ONNX Runtime.

Every step is a generator of images' windows. Between steps, windows of all images of a batch are regrouped into full
batches of one size, so that a network always sees one shape: a window's answer does not depend on its company.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.detectors.cascade.batching import in_batches
from models.detectors.cascade.calibration import calibrated, mean_pattern
from models.detectors.cascade.overlaps import filtered, order_of
from models.detectors.cascade.panels import panels
from models.detectors.cascade.pyramid import Level, padding, pyramid, squares_at
from models.detectors.cascade.shapes import SIDES
from models.detectors.cascade.weights import WEIGHTS, CascadeWeights, digest_of, read_weights
from models.detectors.cascade.windows import Reductions, Windows
from models.detectors.cropping import reduced
from models.detectors.detections import Detections, checked_image, detections_in
from models.detectors.options import CascadeOptions, DetectorError
from models.detectors.registry import settings_in
from models.detectors.steps import Step

NAME = "cascade"
REVISION = 1  # part of the features fingerprint: raise it when the same image gives other boxes or scores
DIGITS = 5  # of the scores that leave: more say nothing
SQUARE = (0, 1, 2, 2)  # columns of (x, y, side) that make x, y, width, height

Flow = Iterator["InWork"]
Work = Callable[[Flow], Flow]


@dataclass(frozen=True, slots=True)
class InWork:
    """An image on its way through the steps.

    Attributes:
        number: its place in the batch.
        image: it and its reductions.
        windows: those that are left.
    """

    number: int
    image: Reductions
    windows: Windows


def describe(options: CascadeOptions) -> dict[str, Any]:
    """Returns the revision, the digest of the weights and the options that change what is found."""
    heeded = {name: value for name, value in settings_in(options).items() if name != "regroup"}
    return {"revision": REVISION, "model": digest_of(_path(options)), **heeded}


def load(options: CascadeOptions, max_faces: int) -> Cascade:
    """Returns the detector."""
    return Cascade(options, max_faces)


def _path(options: CascadeOptions) -> Path:
    return Path(options.model) if options.model else WEIGHTS


class Cascade:
    """Upright faces; square boxes from brow to chin, scores 0 to 1. May be used from several threads at once.

    Args:
        options: None for the defaults.
        max_faces: only the first of an image's faces are kept; 0 for all.
        weights: in place of those of a file.

    Attributes:
        channels: 3, RGB.
        options: as given, with the thresholds that count.
        levels: how many are run: three, fewer only while a cascade is trained.

    Raises:
        DetectorError: the weights cannot be read, or lack a network that the options ask for.
    """

    channels = 3

    def __init__(
        self, options: CascadeOptions | None = None, max_faces: int = 0, weights: CascadeWeights | None = None
    ) -> None:
        options = options or CascadeOptions()
        read = read_weights(_path(options)) if weights is None else weights
        self.levels = len(read.thresholds)
        first, second, third = options.thresholds or (*read.thresholds, 1.0, 1.0)[:3]
        self._thresholds = (first, second, third)
        self.options = replace(options, thresholds=self._thresholds)
        self._max_faces = max_faces
        self._networks = {name: self._network(read, name) for name in self._needed()}

    def _needed(self) -> list[str]:
        detect = [f"detect12_{self.options.stride}", "detect24", "detect48"]
        calibrate = [f"calibrate{side}" if on else "" for side, on in zip(SIDES, self.options.calibrate, strict=True)]
        return [name for name in [*detect[: self.levels], *calibrate[: self.levels]] if name]

    def _network(self, weights: CascadeWeights, name: str) -> Any:
        if name not in weights.networks:
            raise DetectorError(f"detector cascade: the weights have no {name}, only {', '.join(weights.networks)}")
        try:
            return _session(weights.networks[name])
        except Exception as error:  # ONNX Runtime has a class of its own for every fault
            raise DetectorError(f"detector cascade: {name} in the weights is no network in ONNX") from error

    # --- what it offers -------------------------------------------------------------------------------------------

    def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Returns the faces of each (h, w, 3) uint8 RGB image; they do not depend on the others, nor on the thread."""
        found = []
        small = [self._reduced(image) for image in images]
        for item in self._run(small):
            shape = small[item.number].shape
            found.append(_detections(item.windows, shape, images[item.number].shape, self._max_faces))
        return found

    def trace(self, image: np.ndarray) -> list[Step]:
        """Returns what "classify 1", "calibrate 1", "filter 1", … and "global filter" left of an image."""
        started = time.process_time()
        small = self._reduced(image)
        scale = np.float32(image.shape[1] / small.shape[1])
        flow: Flow = iter(self.begun([small]))
        seen = []
        for name, step in self.steps():
            (item,) = step(flow)
            windows, now = item.windows, time.process_time()
            seen.append(Step(name, windows.squares[:, SQUARE] * scale, windows.scores, now - started))
            flow, started = iter([item]), now
        return seen

    def explain(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Returns the panels of an image as one picture, (h, w, 3) uint8 RGB; known faces in white."""
        return panels(image, self.trace(image), known)

    def windows(self, images: Sequence[np.ndarray]) -> list[Windows]:
        """Returns what the levels leave of each image before the global filter, in pixels of the image: for mining."""
        return [item.windows for item in self._run([self._reduced(image) for image in images], whole=False)]

    # --- the steps ------------------------------------------------------------------------------------------------

    def steps(self) -> list[tuple[str, Work]]:
        """Returns the steps in order, by name; each takes and gives images in their order."""
        steps: list[tuple[str, Work]] = []
        for level in range(self.levels):
            steps.append((f"classify {level + 1}", partial(self._classified, level) if level else self._first))
            if self.options.calibrate[level]:
                steps.append((f"calibrate {level + 1}", partial(self._calibrated, level)))
            steps.append((f"filter {level + 1}", partial(self._filtered, level)))
        return [*steps, ("global filter", self._filtered_at_last)]

    def begun(self, images: Sequence[np.ndarray]) -> Iterator[InWork]:
        """Yields images of at most the working size with no windows yet."""
        for number, image in enumerate(images):
            nothing = Windows(np.zeros((0, 3), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
            yield InWork(number, Reductions(image), nothing)

    def _reduced(self, image: np.ndarray) -> np.ndarray:
        return reduced(checked_image(image, self.channels, NAME), self.options.detect_size)

    def _run(self, images: Sequence[np.ndarray], *, whole: bool = True) -> Flow:
        flow: Flow = self.begun(images)
        for _, step in self.steps() if whole else self.steps()[:-1]:
            flow = step(flow)
        return flow

    def _first(self, flow: Flow) -> Flow:
        """Level 1: all windows of all levels of the pyramid."""
        for item in flow:
            shorter = min(item.image.height, item.image.width)
            smallest = max(self.options.min_face_px, self.options.min_face_fraction * shorter)
            levels = pyramid(item.image.height, item.image.width, smallest, self.options.scale_step)
            parts = [self._lit(item.image, level, number) for number, level in enumerate(levels)]
            windows = Windows(
                *(np.concatenate([getattr(part, key) for part in parts]) for key in ("squares", "scores", "scales"))
            )
            yield replace(item, windows=_best(windows, self.options.max_windows[0]))

    def _lit(self, image: Reductions, level: Level, number: int) -> Windows:
        stride = self.options.stride
        pixels = image.resized(level.height, level.width)
        around = (*padding(level.height, stride), *padding(level.width, stride))
        pixels = cv2.copyMakeBorder(pixels, *around, cv2.BORDER_REPLICATE)
        scores = self._networks[f"detect12_{stride}"](pixels[None])
        rows, columns = np.nonzero(scores >= self._thresholds[0])
        squares = squares_at(level, rows, columns, stride)
        return Windows(squares, scores[rows, columns], np.full(len(rows), number, np.int32))

    def _answered(self, flow: Flow, name: str, level: int) -> Iterator[tuple[InWork, np.ndarray]]:
        rows = ((item, item.image.windows(item.windows.squares, SIDES[level])) for item in flow)
        size = self.options.batches[level]
        return in_batches(rows, size, self._networks[name], regroup=self.options.regroup)

    def _classified(self, level: int, flow: Flow) -> Flow:
        """Levels 2 and 3: the windows that are left."""
        for item, scores in self._answered(flow, f"detect{SIDES[level]}", level):
            windows = replace(item.windows, scores=scores).at(scores >= self._thresholds[level])
            bound = self.options.max_windows[level] if level < len(self.options.max_windows) else len(windows)
            yield replace(item, windows=_best(windows, bound))

    def _calibrated(self, level: int, flow: Flow) -> Flow:
        for item, probabilities in self._answered(flow, f"calibrate{SIDES[level]}", level):
            patterns = mean_pattern(probabilities, self.options.averaging)
            windows = replace(item.windows, squares=calibrated(item.windows.squares, patterns))
            yield replace(item, windows=windows)

    def _filtered(self, level: int, flow: Flow) -> Flow:
        """Of windows of one scale that overlap, the best."""
        limit = self.options.overlaps[level]
        for item in flow:
            some = item.windows
            yield replace(item, windows=some.at(filtered(some.squares, some.scores, limit, some.scales)))

    def _filtered_at_last(self, flow: Flow) -> Flow:
        for item in flow:
            some = item.windows
            yield replace(item, windows=some.at(filtered(some.squares, some.scores, self.options.nms_threshold)))


def _session(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a network as a function; ONNX Runtime computes it on the thread that calls."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


def _best(windows: Windows, most: int) -> Windows:
    if len(windows) <= most:
        return windows
    return windows.at(order_of(windows.squares, windows.scores)[:most])


def _detections(windows: Windows, found_in: tuple[int, ...], image: tuple[int, ...], max_faces: int) -> Detections:
    boxes = windows.squares[:, SQUARE]
    scores = windows.scores.round(DIGITS)
    return detections_in(boxes, scores, found_in=found_in, image=image, max_faces=max_faces)
