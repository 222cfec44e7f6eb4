"""Searches all images of a plan for faces, outside the graph: no features, no cache, one thread.

Not here: the known faces (`pipeline/report/known_and_found.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.detectors.detections import Detections
from models.detectors.registry import Detector
from transforms.crop_faces import grey_of, leave_threads_to_the_pool
from transforms.formats.decode import decode
from transforms.formats.records import Limits, Reason, RejectedContent
from transforms.read_again import read_all

NOTHING = Detections(np.zeros((0, 4), np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class Searched:
    """The faces found in one image.

    Attributes:
        id: of the image. digest: SHA-256 of its bytes in hex, "" without bytes.
        width, height: pixels of the upright image, 0 where unknown.
        reason: why it was rejected, else None.
        found: the boxes; none if it was rejected.
    """

    id: str
    digest: str
    width: int
    height: int
    reason: Reason | None
    found: Detections


@dataclass
class CpuSeconds:
    """CPU seconds of this process by step, and the number of searched images."""

    read: float = 0.0
    decode: float = 0.0
    detect: float = 0.0
    images: int = 0


def detections_of(images: Sequence[np.ndarray], detector: Detector) -> list[Detections]:
    """Returns the faces of each image, which is (h, w, 3) or, for a detector of grey images, (h, w) uint8."""
    return detector.detect_batch(images)


@dataclass(frozen=True, slots=True)
class Looking:
    """How images are searched.

    Attributes:
        detector: finds the faces.
        limits: of one image.
        channels: of the decoded images, as in a run with these settings.
        min_side: minimum pixels of both sides.
    """

    detector: Detector
    limits: Limits
    channels: int
    min_side: int


def search(lines: Iterable[bytes], looking: Looking, spent: CpuSeconds) -> Iterator[Searched]:
    """Yields every image of a plan, in order; a faulty image has a reason.

    Args:
        lines: of a plan.
        spent: receives the CPU seconds.

    Raises:
        InputFault: a planned file is missing or cannot be read.
    """
    leave_threads_to_the_pool()
    blocks = read_all(lines, looking.limits)
    while True:
        started = time.process_time()
        block = next(blocks, None)
        spent.read += time.process_time() - started
        if block is None:
            return
        for name, digest, data, reason in zip(block.ids, block.digests, block.data, block.reason, strict=True):
            if data is None:
                yield Searched(name, "", 0, 0, reason, NOTHING)
            else:
                yield _searched(name, digest.tobytes().hex(), data, looking=looking, spent=spent)


def _searched(name: str, digest: str, data: bytes, *, looking: Looking, spent: CpuSeconds) -> Searched:
    started = time.process_time()
    try:
        decoded = decode(data, channels=looking.channels, limits=looking.limits, min_side=looking.min_side)
    except RejectedContent as rejected:
        return Searched(name, digest, rejected.width, rejected.height, rejected.reason, NOTHING)
    image = grey_of(decoded.image) if looking.detector.channels == 1 and decoded.image.ndim == 3 else decoded.image
    between = time.process_time()
    found = detections_of([image], looking.detector)[0]
    spent.decode += between - started
    spent.detect += time.process_time() - between
    spent.images += 1
    return Searched(name, digest, decoded.width, decoded.height, None, found)
