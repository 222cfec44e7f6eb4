"""The one-shot detector on ONNX Runtime: which sizes an image is searched at, and what comes back.

An image is searched once at a scale at which the smallest face wanted has `LEARNED_PX`, and again at a quarter of it
for faces too large for the first pass. Images are never enlarged. A box is likelier a face in a photo that shows sure
faces: their number raises all scores of the photo (`in_company`). Every image is searched by itself, so its
neighbours cannot change a box; nor can the number of threads, as each number of the maps is added up by one of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.detectors.cropping import resized
from models.detectors.detections import Detections, checked_image, detections_in, read_model
from models.detectors.one_shot.cells import STRIDES, boxes_of
from models.detectors.one_shot.export import INPUT, OUTPUTS
from models.detectors.one_shot.panels import Lit, panels
from models.detectors.options import DetectorError, OneShotOptions
from models.detectors.overlap import without_overlaps
from models.detectors.registry import settings_in
from models.detectors.steps import Step

NAME = "one_shot"
SHIPPED = Path(__file__).parents[2] / "weights" / "detectors" / "one_shot.onnx"
REVISION = 2  # part of the cache key: raise it when the same image gives other boxes or scores
LEARNED_PX = 9  # mean side of the smallest faces that it was trained for
LARGEST_PX = 160  # of the largest ones that one pass is trusted with; larger ones are left to the next pass
MOST_PX = 2**22  # pixels that are searched at once: about 110 MB of memory; only long strips have more
STEP = 4  # each pass is so many times smaller than the one before
NESTED = 0.7  # a box with so much of itself inside a surer one is a part of that face: mouths, chins, eyes
SURE = 0.7  # a face with this score is company
COMPANY, MOST_COMPANY = 0.1, 0.45  # added to the logits for each doubling of 1 + sure faces, and at most: on validation
# 0.89 of the faces were found so in place of 0.86, no more false ones on pets and on scenes without a face
PATCH = STRIDES[-1]  # sides are padded to multiples of it
WEAK = 3.0  # candidates of a score down to the threshold divided by it are shown when a search is explained


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a network answered, before the overlap filter.

    Attributes:
        boxes: (m, 4) float32 x, y, width, height in pixels of the image.
        scores: (m,) float32 from 0 to 1.
    """

    boxes: np.ndarray
    scores: np.ndarray


def scales_for(height: int, width: int, min_face_fraction: float) -> list[float]:
    """Returns the factors at which an image is searched, largest first.

    Args:
        height, width: of the image in pixels.
        min_face_fraction: the smallest face wanted, as a fraction of the shorter side.

    >>> scales_for(480, 640, 0.05)
    [0.375, 0.09375]
    """
    shorter = min(height, width)
    bounded = math.sqrt(MOST_PX / (height * width))
    scales = [min(1.0, bounded, LEARNED_PX / max(min_face_fraction * shorter, 1e-9))]
    while shorter * scales[-1] > LARGEST_PX:
        scales.append(scales[-1] / STEP)
    return scales


class OneShotNetwork:
    """The network: one image and one pass at a time, from any thread."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 1 where a pool of threads calls
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores in between
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its warnings name no image
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def answers(self, image: np.ndarray, scale: float) -> Pass:
        """Returns what the network answers to an image at a scale.

        Args:
            image: (h, w, 3) uint8 RGB.
            scale: at most 1.
        """
        height, width = image.shape[:2]
        small = resized(image, (max(1, round(height * scale)), max(1, round(width * scale))))
        maps = self._session.run(OUTPUTS, {INPUT: padded(small)})
        return Pass(scale, small.shape[:2], image.shape[:2], [answers[0].transpose(1, 2, 0) for answers in maps])

    def candidates(self, image: np.ndarray, scale: float, threshold: float) -> Candidates:
        """Returns what one pass finds with at least a score of `threshold`."""
        return self.answers(image, scale).candidates(threshold)


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over an image.

    Attributes:
        scale: of the image in this pass.
        size, image: (height, width) in pixels, of the reduced and of the whole image.
        maps: (rows, columns, 5) float32 for each of `STRIDES`.
    """

    scale: float
    size: tuple[int, int]
    image: tuple[int, int]
    maps: Sequence[np.ndarray]

    def candidates(self, threshold: float) -> Candidates:
        """Returns the boxes with at least a score of `threshold`, in pixels of the image."""
        boxes, scores = [], []
        for stride, cells in zip(STRIDES, self.maps, strict=True):
            kept = cells[..., 0] >= _logit(threshold)
            boxes.append(boxes_of(cells, stride, kept))
            scores.append(_score(cells[..., 0][kept]))
        grow = np.asarray([self.image[1] / self.size[1], self.image[0] / self.size[0]] * 2)
        return Candidates((np.concatenate(boxes) * grow).astype(np.float32), np.concatenate(scores).astype(np.float32))

    def lit(self) -> Lit:
        """Returns the maps of scores."""
        return Lit(
            self.scale,
            [
                (_score(cells[..., 0]), (self.size[0] / stride, self.size[1] / stride))
                for stride, cells in zip(STRIDES, self.maps, strict=True)
            ],
        )


def _score(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))


def padded(image: np.ndarray) -> np.ndarray:
    """Returns (1, 3, H, W) float32 of (h, w, 3) uint8: black below and to the right, up to multiples of `PATCH`."""
    height, width = (-(-side // PATCH) * PATCH for side in image.shape[:2])
    out = np.zeros((1, 3, height, width), np.float32)
    out[0, :, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
    return out


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share))) if share < 1 else np.inf


def search(
    network: OneShotNetwork, image: np.ndarray, *, min_face_fraction: float, threshold: float, overlap: float
) -> Candidates:
    """Returns the faces of one (h, w, 3) uint8 RGB image, best first."""
    scales = scales_for(image.shape[0], image.shape[1], min_face_fraction)
    found = joined([network.candidates(image, scale, lowest(threshold)) for scale in scales])
    return at_least(in_company(best_of(found, overlap)), threshold)


def lowest(threshold: float) -> float:
    """Returns the score from which a candidate may reach the threshold in company, or be company itself."""
    return min(SURE, float(_score(np.asarray(_logit(threshold) - MOST_COMPANY))))


def in_company(found: Candidates) -> Candidates:
    """Returns the boxes of one image, scored higher the more sure faces are among them; their order stays.

    >>> found = in_company(Candidates(np.zeros((2, 4)), np.array([0.9, 0.5], np.float32)))
    >>> found.scores.astype(float).round(3).tolist()
    [0.909, 0.525]
    """
    gain = min(MOST_COMPANY, COMPANY * math.log2(1 + int((found.scores >= SURE).sum())))
    scores = np.clip(found.scores.astype(np.float64), 1e-9, 1 - 1e-9)
    return Candidates(found.boxes, _score(np.log(scores / (1 - scores)) + gain).astype(np.float32))


def at_least(found: Candidates, threshold: float) -> Candidates:
    """Returns the boxes with at least a score of `threshold`."""
    kept = found.scores >= threshold
    return Candidates(found.boxes[kept], found.scores[kept])


def joined(found: Sequence[Candidates]) -> Candidates:
    """Returns the candidates of all passes."""
    return Candidates(np.concatenate([some.boxes for some in found]), np.concatenate([some.scores for some in found]))


def best_of(candidates: Candidates, overlap: float) -> Candidates:
    """Returns the candidates without those that show the same face as a surer one, best first."""
    kept = without_overlaps(candidates.boxes, candidates.scores, threshold=overlap, nested=NESTED)
    return Candidates(candidates.boxes[kept], candidates.scores[kept])


class OneShotDetector:
    """Faces in most poses, from 9 pixels on; tight boxes from brow to chin, seldom square. Scores are 0 to 1.

    Raises:
        DetectorError: the model file is missing or not one of ours.
    """

    channels = 3

    def __init__(self, options: OneShotOptions, max_faces: int = 0, threads: int = 1) -> None:
        self._options, self._max_faces = options, max_faces
        path = options.model or SHIPPED
        model, _ = read_model(path, NAME)
        try:
            self._network = OneShotNetwork(model, threads)
            self.detect_batch([np.zeros((PATCH, PATCH, 3), np.uint8)])  # another network fails only when it runs
        except Exception as error:
            raise DetectorError(f"detector one_shot: {path} is not a one-shot detector in ONNX") from error

    def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Returns the faces of each (h, w, 3) uint8 RGB image."""
        return [self._detect(checked_image(image, self.channels, NAME)) for image in images]

    def trace(self, image: np.ndarray) -> list[Step]:
        """Returns the candidates of "pass 1", "pass 2", …, and what is left "without overlaps" and "in company"."""
        passes, steps = [], []
        threshold, started = self._options.score_threshold, time.process_time()
        for number, scale in enumerate(self._scales(image), 1):
            passes.append(self._network.candidates(image, scale, lowest(threshold)))
            now = time.process_time()
            steps.append(Step(f"pass {number}", passes[-1].boxes, passes[-1].scores, now - started))
            started = now
        apart = best_of(joined(passes), self._options.nms_threshold)
        between = time.process_time()
        found = at_least(in_company(apart), threshold)
        return [
            *steps,
            Step("without overlaps", apart.boxes, apart.scores, between - started),
            Step("in company", found.boxes, found.scores, time.process_time() - between),
        ]

    def explain(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Returns the maps, the candidates down to a third of the threshold, and the result; known faces in white."""
        threshold = self._options.score_threshold
        passes = [self._network.answers(image, scale) for scale in self._scales(image)]
        weak = joined([one.candidates(threshold / WEAK) for one in passes])
        known_weak = joined([one.candidates(lowest(threshold)) for one in passes])
        found = at_least(in_company(best_of(known_weak, self._options.nms_threshold)), threshold)
        lit = [one.lit() for one in passes]
        return panels(image, lit, (weak.boxes, weak.scores), found.boxes, known, threshold)

    def _scales(self, image: np.ndarray) -> list[float]:
        checked_image(image, self.channels, NAME)
        return scales_for(image.shape[0], image.shape[1], self._options.min_face_fraction)

    def _detect(self, image: np.ndarray) -> Detections:
        found = search(
            self._network,
            image,
            min_face_fraction=self._options.min_face_fraction,
            threshold=self._options.score_threshold,
            overlap=self._options.nms_threshold,
        )
        return detections_in(
            found.boxes, found.scores, found_in=image.shape, image=image.shape, max_faces=self._max_faces
        )


def describe(options: OneShotOptions) -> dict[str, Any]:
    """Returns the revision, the digest of the model file and the options."""
    _, digest = read_model(options.model or SHIPPED, NAME)
    return {"revision": REVISION, "model": digest, **settings_in(options)}


def load(options: OneShotOptions, max_faces: int, threads: int = 1) -> OneShotDetector:
    """Returns the detector, which searches an image with so many threads."""
    return OneShotDetector(options, max_faces, threads)
