"""Detects the faces of each block in a thread pool, a few blocks ahead of the device.

Not here: the processing of an image (`crop_faces.py`), which needs no Beam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from transforms.ahead import Ahead
from transforms.block import Block
from transforms.containing import FaultsInARow
from transforms.crop_faces import CroppedRows, detect_rows, leave_threads_to_the_pool, rows_to_detect, with_rows
from transforms.job import Detecting
from transforms.provenance import DETECTOR, Provenance, refuse_another
from transforms.staged import detector_here
from transforms.storage.stopping import check
from transforms.tally import TALLY
from transforms.telling import telling

IMAGES_A_TASK = 32  # images per task of the pool: few enough to share a block of slow photos
BYTES_A_TASK = 256 * 2**10  # encoded bytes per task: small images are grouped up to this size
BLOCKS_AHEAD = 3  # blocks of crops waiting for the device


@beam.typehints.with_output_types(Block)  # otherwise finish_bundle makes Beam infer Any, and the coder is lost
class DetectFaces(beam.DoFn):
    """Detects the faces of each block in a thread pool, a few blocks ahead of the device."""

    def __init__(self, detecting: Detecting, provenance: Provenance) -> None:
        self._detecting, self._provenance = detecting, provenance

    @telling
    def setup(self) -> None:
        leave_threads_to_the_pool()
        detector = detector_here(self._detecting.detector)
        refuse_another(self._provenance, {DETECTOR: detector.describe()})
        self._detector = detector.load()
        self._in_a_row = FaultsInARow()
        self._ahead: Ahead[Block, Block] = Ahead(
            self._tasks, self._joined, threads=self._detecting.threads, depth=BLOCKS_AHEAD
        )

    def teardown(self) -> None:
        self._ahead.close()

    def process(self, block: Block) -> Iterator[Block]:
        yield from self._ahead.put(block)

    def finish_bundle(self) -> Iterator[Any]:
        for block in self._ahead.drain():
            yield GlobalWindows.windowed_value(block)

    def _tasks(self, block: Block) -> list[Callable[[], CroppedRows]]:
        rows = rows_to_detect(block)
        many = BYTES_A_TASK * len(rows) // max(1, int(block.sizes[rows].sum()))
        step = max(IMAGES_A_TASK, many)
        return [partial(self._detect, block, rows[i : i + step]) for i in range(0, len(rows), step)]

    def _detect(self, block: Block, rows: Sequence[int]) -> CroppedRows:
        check()
        with TALLY.clock("detect"):
            return detect_rows(block, rows, self._detecting, self._detector)

    def _joined(self, block: Block, parts: list[CroppedRows]) -> Block:
        for part in parts:
            self._in_a_row.note([block.ids[row] for row in part.rows], part.reason, part.fault)
        return with_rows(block, parts)
