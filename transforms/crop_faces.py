"""Decodes images, rejects what cannot be used, detects faces and cuts the crops, ahead of the device.

Not here: how a detector works (`models/detectors/`), how bytes become pixels (`formats/decode.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindows

from models.boxes import square_with_margin
from models.detectors import Detector, make_detector
from models.detectors.cropping import crop_resized, resized
from transforms.ahead import Ahead
from transforms.block import Block, Faces, no_faces
from transforms.containing import GATE, FaultsInARow, contained, fault_of
from transforms.formats.decode import decode
from transforms.formats.records import Reason, RejectedContent, Status
from transforms.job import Job
from transforms.made_of import DETECTOR, refuse_another
from transforms.stopping import check
from transforms.tally import TALLY

REVISION = 1  # part of the features fingerprint: raise it when the same settings would cut other crops
IMAGES_A_TASK = 32  # what one thread of the pool takes at a time: small enough to share a block of slow photos
BYTES_A_TASK = 256 * 2**10  # encoded; of small images it takes as many as make so much
BLOCKS_AHEAD = 3  # blocks of crops that wait for the device


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of one image: its size, why it was rejected, or its faces.

    Attributes:
        width, height: pixels of the upright image, 0 where unknown.
        reason: why it was rejected, else None.
        box: (k, 4) int32 in pixels of the upright image.
        score: (k,) float32.
        crops: (k, h, w, c) uint8.
        fault: class name of the exception that nobody foresaw, "" where there was none.
    """

    width: int
    height: int
    reason: Reason | None
    box: np.ndarray
    score: np.ndarray
    crops: np.ndarray
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of some images of a block, in columns.

    Attributes:
        rows: k rows of the block, ascending.
        width, height: k numbers of pixels of the upright image, 0 where unknown.
        reason: k reasons for a rejection, or None.
        faces: of all of them, with crops; `image` is the row of the block.
        fault: k class names of exceptions that nobody foresaw, "" where there was none.
    """

    rows: Sequence[int]
    width: Sequence[int]
    height: Sequence[int]
    reason: Sequence[Reason | None]
    faces: Faces
    fault: Sequence[str]


_WHOLE_SCORE = np.ones(1, np.float32)


def look_at(data: bytes, job: Job, detector: Detector) -> Looked:
    """Returns the faces of one encoded image as crops. A fault of content is an outcome, not an error."""
    size = (job.features.height, job.features.width)
    whole = detector.name == "none"
    channels = job.channels if whole else max(job.channels, detector.channels)
    try:
        decoded = decode(
            data,
            channels=channels,
            limits=job.limits,
            at_least=size if whole else None,
            min_side=job.smallest_side,
        )
    except RejectedContent as rejected:
        return _rejected(rejected, size, job.channels)
    if whole:
        box = np.asarray([[0, 0, decoded.width, decoded.height]], np.int32)
        crops = _with_channels(resized(decoded.image, size), job.channels)[None]
        return Looked(decoded.width, decoded.height, None, box, _WHOLE_SCORE, crops)
    found = detector.detect(_for_detector(decoded.image, detector.channels))
    image = _for_detector(decoded.image, job.channels)
    squares = square_with_margin(found.boxes, job.margin)
    crops = np.empty((len(squares), *size, job.channels), np.uint8)
    for row, square in enumerate(squares):
        crops[row] = _with_channels(crop_resized(image, square, size), job.channels)
    return Looked(decoded.width, decoded.height, None, found.boxes.astype(np.int32), found.scores, crops)


def look_at_whole(block: Block, rows: Sequence[int], job: Job) -> Seen:
    """Returns of each of `rows` the whole image as its crop: what `look_at` does without a detector, many at a time."""
    size, channels = (job.features.height, job.features.width), job.channels
    crops = np.empty((len(rows), *size) if channels == 1 else (len(rows), *size, channels), np.uint8)
    width, height, reason = [0] * len(rows), [0] * len(rows), cast("list[Reason | None]", [None] * len(rows))
    fault = [""] * len(rows)

    def fill(place: int, data: bytes) -> None:
        decoded = decode(data, channels=channels, limits=job.limits, at_least=size, min_side=job.smallest_side)
        crops[place] = resized(decoded.image, size)
        width[place], height[place] = decoded.width, decoded.height

    for place, row in enumerate(rows):
        try:
            contained(block.ids[row], partial(fill, place, block.data[row] or b""))
        except RejectedContent as rejected:
            width[place], height[place], reason[place] = rejected.width, rejected.height, rejected.reason
            fault[place] = fault_of(rejected)
    kept = np.flatnonzero([why is None for why in reason])
    box = np.zeros((len(kept), 4), np.int32)
    box[:, 2], box[:, 3] = np.take(width, kept), np.take(height, kept)
    faces = Faces(
        image=np.asarray(rows, np.int32)[kept],
        box=box,
        score=np.ones(len(kept), np.float32),
        crops=(crops if len(kept) == len(rows) else crops[kept]).reshape(-1, *size, channels),
    )
    return Seen(rows, width, height, reason, faces, fault)


def _rejected(rejected: RejectedContent, size: tuple[int, int], channels: int) -> Looked:
    return Looked(
        rejected.width,
        rejected.height,
        rejected.reason,
        np.zeros((0, 4), np.int32),
        np.zeros(0, np.float32),
        np.zeros((0, *size, channels), np.uint8),
        fault_of(rejected),
    )


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns (h, w, c) with an axis for a single grey channel."""
    return image[..., None] if image.ndim == 2 and channels == 1 else image


def _for_detector(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns RGB pixels as the luma of ITU-R BT.601 where grey is wanted; else the image as it is."""
    if channels == 3 or image.ndim == 2:
        return image
    return grey_of(image)


def grey_of(image: np.ndarray) -> np.ndarray:
    """Returns (h, w) uint8 grey of (h, w, 3) uint8 RGB, as OpenCV rounds it."""
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def look(block: Block, rows: Sequence[int], job: Job, detector: Detector) -> Seen:
    """Returns what comes of these rows of a block, ascending. What nobody foresaw costs the image its own row."""
    with GATE.together():
        if detector.name == "none":
            return look_at_whole(block, rows, job)
        return in_columns([(row, _contained_look(block, row, job, detector)) for row in rows])


def _contained_look(block: Block, row: int, job: Job, detector: Detector) -> Looked:
    try:
        return contained(block.ids[row], partial(look_at, block.data[row] or b"", job, detector))
    except RejectedContent as rejected:
        return _rejected(rejected, (job.features.height, job.features.width), job.channels)


def rows_to_look_at(block: Block) -> list[int]:
    """Returns the rows that have to be decoded: the first of their bytes, not cached, not rejected."""
    return [
        row
        for row, (first, data, status) in enumerate(zip(block.same_as.tolist(), block.data, block.status, strict=True))
        if first == row and data is not None and status is None
    ]


def crop_faces(block: Block, looked: Sequence[tuple[int, Looked]]) -> Block:
    """Returns the block with the outcomes of the rows that were looked at; the encoded bytes are dropped."""
    return with_seen(block, [in_columns(looked)])


def in_columns(looked: Sequence[tuple[int, Looked]]) -> Seen:
    """Returns the outcomes of some rows of a block, ascending, in columns."""
    return Seen(
        rows=[row for row, _ in looked],
        width=[seen.width for _, seen in looked],
        height=[seen.height for _, seen in looked],
        reason=[seen.reason for _, seen in looked],
        faces=_faces_of(looked),
        fault=[seen.fault for _, seen in looked],
    )


def _faces_of(looked: Sequence[tuple[int, Looked]]) -> Faces:
    with_faces = [(row, seen, len(seen.box)) for row, seen in looked if len(seen.box)]
    if not with_faces:
        return no_faces()
    rows = np.asarray([row for row, _, _ in with_faces], np.int32)
    return Faces(
        image=np.repeat(rows, [count for _, _, count in with_faces]),
        box=np.concatenate([seen.box for _, seen, _ in with_faces]),
        score=np.concatenate([seen.score for _, seen, _ in with_faces]),
        crops=np.concatenate([seen.crops for _, seen, _ in with_faces]),
    )


def with_seen(block: Block, seen: Sequence[Seen]) -> Block:
    """Returns the block with the outcomes of ascending rows filled in; the encoded bytes are dropped."""
    width, height = block.width.copy(), block.height.copy()
    status, reason = list(block.status), list(block.reason)
    faces = _concatenated([some.faces for some in seen if len(some.faces)])
    has_face = np.bincount(faces.image, minlength=len(block)).tolist()
    for some in seen:
        width[some.rows], height[some.rows] = some.width, some.height
        for row, why in zip(some.rows, some.reason, strict=True):
            reason[row] = why
            status[row] = Status.REJECTED if why else Status.LABELLED if has_face[row] else Status.NO_FACE
    return replace(
        block,
        width=width,
        height=height,
        status=tuple(status),
        reason=tuple(reason),
        data=(None,) * len(block),
        fresh=faces,
    )


def _concatenated(faces: Sequence[Faces]) -> Faces:
    if len(faces) < 2:
        return faces[0] if faces else no_faces()
    columns = ([getattr(some, name) for some in faces] for name in ("image", "box", "score", "crops"))
    image, box, score, crops = map(np.concatenate, columns)
    return Faces(image, box, score, crops)


@beam.typehints.with_output_types(Block)  # or Beam takes a bundle's end for anything, and loses the coder
class CropFaces(beam.DoFn):
    """Looks at the images of each block in a pool, a few blocks ahead of the device."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def setup(self) -> None:
        leave_threads_to_the_pool()
        self._detector = make_detector(self._job.detector)
        refuse_another(self._job, {DETECTOR: self._detector.describe()})
        self._in_a_row = FaultsInARow()
        self._ahead: Ahead[Block, Block] = Ahead(
            self._tasks, self._joined, threads=self._job.threads, depth=BLOCKS_AHEAD
        )

    def teardown(self) -> None:
        self._ahead.close()

    def process(self, block: Block) -> Iterator[Block]:
        yield from self._ahead.put(block)

    def finish_bundle(self) -> Iterator[Any]:
        for block in self._ahead.drain():
            yield GlobalWindows.windowed_value(block)

    def _tasks(self, block: Block) -> list[Callable[[], Seen]]:
        rows = rows_to_look_at(block)
        many = BYTES_A_TASK * len(rows) // max(1, int(block.sizes[rows].sum()))
        step = max(IMAGES_A_TASK, many)
        return [partial(self._look, block, rows[i : i + step]) for i in range(0, len(rows), step)]

    def _look(self, block: Block, rows: Sequence[int]) -> Seen:
        check()
        with TALLY.clock("crop"):
            return look(block, rows, self._job, self._detector)

    def _joined(self, block: Block, seen: list[Seen]) -> Block:
        for some in seen:
            self._in_a_row.note([block.ids[row] for row in some.rows], some.reason, some.fault)
        return with_seen(block, seen)


def leave_threads_to_the_pool() -> None:
    """OpenCV's own threads would compete with the pool's, and may order detections differently."""
    import cv2

    cv2.setNumThreads(1)
