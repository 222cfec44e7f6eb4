"""Decodes images, rejects unusable ones, detects faces in batches and cuts the crops. Needs no Beam.

Not here: how a detector works (`models/detectors/`), how bytes become pixels (`formats/decode/`), and the stage of the
graph (`detect_faces.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from models.boxes import square_with_margin
from models.detectors.cropping import crop_resized, resized
from models.detectors.detections import Detections
from models.detectors.registry import Detector
from transforms.block import Block, Faces
from transforms.containing import GATE, contained, contained_batch, fault_of
from transforms.formats.decode import Decoded, decode
from transforms.formats.records import Reason, RejectedContent, Status
from transforms.job import Cropping, Detecting

REVISION = 1  # part of the cache key: raise it when the same settings give other crops
BATCH_BYTES = 32 * 2**20  # decoded bytes per batch of the detector; at least one image


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one image: its size, and either its faces or why it was rejected.

    Attributes:
        width, height: pixels of the upright image, 0 where unknown.
        reason: why it was rejected, else None.
        faces: with crops; `image` is 0. None if it was rejected.
        fault: class name of an unforeseen exception, "" if there was none.
    """

    width: int
    height: int
    reason: Reason | None
    faces: Faces | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class CroppedRows:
    """The outcomes of some images of a block, in columns.

    Attributes:
        rows: k rows of the block, ascending.
        width, height: k numbers of pixels of the upright image, 0 where unknown.
        reason: k reasons for a rejection, or None.
        faces: of all of them, with crops; `image` is the row of the block.
        fault: k class names of unforeseen exceptions, "" if there was none.
    """

    rows: Sequence[int]
    width: Sequence[int]
    height: Sequence[int]
    reason: Sequence[Reason | None]
    faces: Faces
    fault: Sequence[str]


def rows_to_detect(block: Block) -> list[int]:
    """Returns the rows to decode: the first with their bytes, neither cached nor rejected."""
    return [
        row
        for row, (first, data, status) in enumerate(zip(block.same_as.tolist(), block.data, block.status, strict=True))
        if first == row and data is not None and status is None
    ]


def detect_rows(block: Block, rows: Sequence[int], how: Detecting, detector: Detector) -> CroppedRows:
    """Returns the outcomes of these rows of a block, ascending. An unforeseen exception costs only the image's row."""
    with GATE.together():
        if how.detector.name == "none":
            return whole_images(block, rows, how.cropping)
        outcomes = detect_images(
            [block.ids[row] for row in rows], [block.data[row] or b"" for row in rows], how.cropping, detector
        )
    return in_columns(rows, outcomes)


def detect_images(ids: Sequence[str], data: Sequence[bytes], how: Cropping, detector: Detector) -> list[Outcome]:
    """Returns the outcome of each encoded image; call it within `GATE.together()`.

    Faults of content are outcomes, not errors. The outcome of an image does not depend on its neighbours.
    """
    outcomes: dict[int, Outcome] = {}
    waiting: dict[int, Decoded] = {}
    channels = max(how.channels, detector.channels)
    for place, (image_id, encoded) in enumerate(zip(ids, data, strict=True)):
        try:
            waiting[place] = contained(
                image_id,
                partial(decode, encoded, channels=channels, limits=how.limits, min_side=how.smallest_side),
            )
        except RejectedContent as rejected:
            outcomes[place] = _rejected(rejected)
        if sum(decoded.image.nbytes for decoded in waiting.values()) >= BATCH_BYTES:
            outcomes |= _detected(ids, waiting, how, detector)
            waiting = {}
    outcomes |= _detected(ids, waiting, how, detector)
    return [outcomes[place] for place in range(len(ids))]


def _detected(ids: Sequence[str], decoded: dict[int, Decoded], how: Cropping, detector: Detector) -> dict[int, Outcome]:
    """Returns the outcomes of a batch of decoded images, by index."""
    images = [in_channels(one.image, detector.channels) for one in decoded.values()]
    found = contained_batch([ids[place] for place in decoded], images, detector.detect_batch)
    return {
        place: _outcome(ids[place], one, faces, how) for (place, one), faces in zip(decoded.items(), found, strict=True)
    }


def _outcome(image_id: str, decoded: Decoded, found: Detections | RejectedContent, how: Cropping) -> Outcome:
    if isinstance(found, RejectedContent):
        return _rejected(found)
    try:
        faces = contained(image_id, partial(cropped, decoded.image, found, how))
    except RejectedContent as rejected:
        return _rejected(rejected)
    return Outcome(decoded.width, decoded.height, None, faces)


def _rejected(rejected: RejectedContent) -> Outcome:
    return Outcome(rejected.width, rejected.height, rejected.reason, None, fault_of(rejected))


def cropped(image: np.ndarray, found: Detections, how: Cropping) -> Faces:
    """Returns the faces found in one upright uint8 image, with crops."""
    size = how.size
    image = in_channels(image, how.channels)
    squares = square_with_margin(found.boxes, how.margin)
    crops = np.empty((len(squares), *size, how.channels), np.uint8)
    for row, square in enumerate(squares):
        crops[row] = crop_resized(image, square, size).reshape(*size, how.channels)
    return Faces(np.zeros(len(found), np.int32), found.boxes.astype(np.int32), found.scores, crops)


def in_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns the luma (ITU-R BT.601) of RGB pixels if grey is requested; otherwise the image unchanged."""
    if channels == 3 or image.ndim == 2:
        return image
    return grey_of(image)


def grey_of(image: np.ndarray) -> np.ndarray:
    """Returns (h, w) uint8 grey of (h, w, 3) uint8 RGB, rounded like OpenCV."""
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def whole_images(block: Block, rows: Sequence[int], how: Cropping) -> CroppedRows:
    """Returns the whole image as crop for each of `rows`: without a detector, a JPEG may be decoded at reduced size."""
    size, channels = how.size, how.channels
    crops = np.empty((len(rows), *size) if channels == 1 else (len(rows), *size, channels), np.uint8)
    width, height, reason = [0] * len(rows), [0] * len(rows), cast("list[Reason | None]", [None] * len(rows))
    fault = [""] * len(rows)

    def fill(place: int, data: bytes) -> None:
        decoded = decode(data, channels=channels, limits=how.limits, at_least=size, min_side=how.smallest_side)
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
    return CroppedRows(rows, width, height, reason, faces, fault)


def in_columns(rows: Sequence[int], outcomes: Sequence[Outcome]) -> CroppedRows:
    """Returns the outcomes of some rows of a block, ascending, in columns."""
    faces = [
        replace(outcome.faces, image=np.full(len(outcome.faces), row, np.int32))
        for row, outcome in zip(rows, outcomes, strict=True)
        if outcome.faces is not None
    ]
    return CroppedRows(
        rows=rows,
        width=[outcome.width for outcome in outcomes],
        height=[outcome.height for outcome in outcomes],
        reason=[outcome.reason for outcome in outcomes],
        faces=Faces.concatenate(faces),
        fault=[outcome.fault for outcome in outcomes],
    )


def with_rows(block: Block, parts: Sequence[CroppedRows]) -> Block:
    """Returns the block with the outcomes of ascending rows filled in; the encoded bytes are dropped."""
    width, height = block.width.copy(), block.height.copy()
    status, reason = list(block.status), list(block.reason)
    faces = Faces.concatenate([part.faces for part in parts])
    has_face = np.bincount(faces.image, minlength=len(block)).tolist()
    for part in parts:
        width[part.rows], height[part.rows] = part.width, part.height
        for row, why in zip(part.rows, part.reason, strict=True):
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


def leave_threads_to_the_pool() -> None:
    """OpenCV's threads would compete with the pool's, and may order detections differently."""
    import cv2

    cv2.setNumThreads(1)
