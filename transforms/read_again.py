"""Reads inputs outside the graph: all images with their bytes, all digests, or the pictures of a few images.

Used to evaluate a detector, to find held-out images, which need no features, and to draw sheets of labelled pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from models.boxes import square_with_margin
from models.detectors.cropping import crop_resized, resized
from transforms.block import Block
from transforms.containing import GATE, contained
from transforms.formats.decode import decode
from transforms.formats.records import Limits, RejectedContent
from transforms.read_blocks import LOOSE, PlannedBlock, image_id, read_block, stream_blocks
from transforms.storage.store import InputFault

STREAMED_IMAGES, STREAMED_BYTES = 256, 64 * 2**20  # images of a stream in memory at a time
MARGIN = 0.15  # around a face on a sheet, to show more of the head than the box
BACKGROUND = 235  # grey around a picture that is not square


def read_all(lines: Iterable[bytes], limits: Limits) -> Iterator[Block]:
    """Yields the blocks of a plan with their bytes, in plan order; rejected images are rows with a reason.

    Args:
        lines: of a plan.

    Raises:
        InputFault: a planned file is missing or cannot be read.
    """
    for line in lines:
        yield from _blocks(PlannedBlock.from_json(line), limits)


def read_digests(lines: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    """Yields the SHA-256 of every image that has bytes, in plan order; nothing is decoded.

    Args:
        lines: of a plan.

    Raises:
        InputFault: a planned file is missing or cannot be read.
    """
    for block in read_all(lines, limits):
        for digest, data in zip(block.digests, block.data, strict=True):
            if data is not None:
                yield digest.tobytes()


def read_pictures(
    lines: Iterable[bytes], wanted: Mapping[str, str], limits: Limits, *, most_streamed: int | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yields (image id, encoded bytes) of requested images that have not changed; stops when it has all.

    Args:
        lines: of a plan.
        wanted: SHA-256 in hex of the bytes, by image id.
        most_streamed: images to read from an archive that can only be streamed; None reads it to its end.

    Raises:
        InputFault: a planned file is missing or cannot be read.
    """
    missing = dict(wanted)
    for line in lines:
        if not missing:
            return
        planned = _only(PlannedBlock.from_json(line), missing)
        if planned is not None:
            yield from _pictures(planned, missing, limits, most_streamed)


@dataclass(slots=True)
class Faults:
    """Inputs that could not be read: how many, the first reason, and how many in a row up to now."""

    count: int = 0
    first: str = ""
    in_a_row: int = 0

    def add(self, fault: InputFault) -> None:
        """Counts one."""
        self.count, self.in_a_row, self.first = self.count + 1, self.in_a_row + 1, self.first or str(fault)


def read_what_is_left(
    lines: Iterable[bytes],
    wanted: Mapping[str, str],
    limits: Limits,
    faults: Faults,
    *,
    most_faults: int,
    most_streamed: int | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Like `read_pictures`, but an unreadable input only loses its own images and is counted in `faults`.

    Loose files are read one by one, archives a block at a time.

    Args:
        most_faults: consecutive faults after which the rest is not tried.
    """
    missing = dict(wanted)
    for line in lines:
        for planned in _singly(_only(PlannedBlock.from_json(line), missing)):
            if not missing or faults.in_a_row >= most_faults:
                return
            try:
                for found in _pictures(planned, missing, limits, most_streamed):
                    faults.in_a_row = 0
                    yield found
            except InputFault as error:
                faults.add(error)


def _singly(planned: PlannedBlock | None) -> Iterator[PlannedBlock]:
    """Yields a block of loose files as one block per file, and other blocks unchanged."""
    if planned is not None and planned.kind == LOOSE:
        yield from (replace(planned, entries=(entry,)) for entry in planned.entries)
    elif planned is not None:
        yield planned


def _pictures(
    planned: PlannedBlock, missing: dict[str, str], limits: Limits, most_streamed: int | None
) -> Iterator[tuple[str, bytes]]:
    """Yields the images of a block that are still missing, and removes them from the list."""
    passed = 0
    for block in _blocks(planned, limits):
        for name, digest, data in zip(block.ids, block.digests, block.data, strict=True):
            if data is not None and missing.get(name) == digest.tobytes().hex():
                del missing[name]
                yield name, data
        passed += len(block)
        if not missing or (planned.streamed and most_streamed is not None and passed >= most_streamed):
            return


def _only(planned: PlannedBlock, wanted: Mapping[str, str]) -> PlannedBlock | None:
    """Returns the block with the entries that may be requested, or None; some formats name images only when read."""
    if planned.streamed:
        return planned
    kept = tuple(e for e in planned.entries if not e.name or image_id(planned.prefix, e.name) in wanted)
    return replace(planned, entries=kept) if kept else None


def _blocks(planned: PlannedBlock, limits: Limits) -> Iterator[Block]:
    if planned.streamed:
        yield from stream_blocks(
            planned, limits, block_images=STREAMED_IMAGES, block_bytes=STREAMED_BYTES, finished=set()
        )
    else:
        yield read_block(planned, limits)


def face_tile(data: bytes, box: np.ndarray, side: int, limits: Limits) -> np.ndarray | None:
    """Returns (side, side, 3) uint8 RGB of a face with a margin; None if the image cannot be decoded.

    A box that covers the whole image is shown in full, with its aspect ratio.

    Args:
        box: (4,) x, y, width, height in pixels of the upright image.
    """
    try:
        with GATE.together():
            image = contained("(shown on a sheet)", lambda: decode(data, channels=3, limits=limits)).image
    except RejectedContent:
        return None
    height, width = image.shape[:2]
    if box.tolist() != [0, 0, width, height]:
        return crop_resized(image, square_with_margin(box[None], MARGIN)[0], (side, side))
    longer = max(height, width)
    fitted = (max(1, round(side * height / longer)), max(1, round(side * width / longer)))
    whole = resized(image, fitted)
    tile = np.full((side, side, 3), BACKGROUND, np.uint8)
    top, left = (side - fitted[0]) // 2, (side - fitted[1]) // 2
    tile[top : top + fitted[0], left : left + fitted[1]] = whole
    return tile
