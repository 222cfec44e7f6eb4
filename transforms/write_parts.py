"""Writes one immutable, sorted Parquet part per finished block, while the device works.

Not here: the layout of a part (`part_rows.py`, `formats/parts.py`), and joining parts (`merge/merge_parts.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows

from models.heads.output_spec import OutputSpec
from models.heads.side_by_side import label_names
from transforms.ahead import Ahead, single
from transforms.block import Block, PartInfo, Reason, Status
from transforms.formats.parts import stored_name, write_part
from transforms.job import Writing
from transforms.part_rows import part_info_of, part_metadata, part_table
from transforms.storage.paths import is_object
from transforms.storage.retrying import with_retries
from transforms.storage.stopping import check
from transforms.storage.stores import upload
from transforms.tally import TALLY

METRICS = "facelabel"  # namespace of Beam's counters, which feed the bar where workers are elsewhere
COUNTED = ("images", "faces", "cached")
PARTS_BEHIND = 8  # parts being written and synced while the device works, as blocks come in groups


def write_block(
    block: Block,
    parts: str,
    spec: OutputSpec,
    run_fingerprint: str,
    *,
    all_labels: bool = False,
) -> PartInfo:
    """Writes the part of a finished block under its final name, atomically; returns a summary.

    Args:
        spec: what the head says of a face.
        all_labels: True to keep labels of the input that are not among the classes of the head.

    Raises:
        StorageError: the disk is full, or permission is missing; the run stops and can be resumed.
    """
    known_labels = None if all_labels else label_names(spec)
    table = part_table(block, spec=spec, known_labels=known_labels)
    info = part_info_of(table, f"{block.key}.parquet")
    failed = sum(reason is Reason.INTERNAL_ERROR for reason in block.reason)
    metadata = replace(part_metadata(info, block_key=block.key, run_fingerprint=run_fingerprint), failed=failed)
    if is_object(parts):
        info = replace(info, name=stored_name(metadata))
        write_part(f"{parts}/{info.name}", table, metadata, upload=upload)
    else:
        write_part(os.path.join(parts, info.name), table, metadata)
    return info


class WriteParts(beam.DoFn):
    """Writes blocks in a thread, while earlier stages continue, and yields a summary of each part."""

    def __init__(self, writing: Writing, spec: OutputSpec) -> None:
        self._writing, self._spec = writing, spec

    def setup(self) -> None:
        self._behind: Ahead[Block, PartInfo] = single(self._write, depth=PARTS_BEHIND)
        pa.array(np.zeros(1))  # Arrow's first array imports modules; do it now, not between blocks

    def teardown(self) -> None:
        self._behind.close()

    def process(self, block: Block) -> Iterator[PartInfo]:
        check()
        for info in self._behind.put(block):
            yield self._counted(info)

    def finish_bundle(self) -> Iterator[Any]:
        last: PartInfo | None = None
        for info in self._behind.drain():
            if last is not None:
                yield GlobalWindows.windowed_value(last)
            last = self._counted(info)
        if last is not None:
            yield GlobalWindows.windowed_value(replace(last, worker=TALLY.as_text()))
        TALLY.flush()  # the last stage, in another process, reads these files

    def _counted(self, info: PartInfo) -> PartInfo:
        for name in COUNTED:  # here, as only the thread of a bundle may count for it
            Metrics.counter(METRICS, name).inc(getattr(info, name))
        return info

    def _write(self, block: Block) -> PartInfo:
        with TALLY.clock("write"):
            info = with_retries(lambda: self._write_block(block))
        rejected = sum(status is Status.REJECTED for status in block.status)
        TALLY.add_block(images=info.images, faces=info.faces, rejected=rejected, cached=info.cached)
        return info

    def _write_block(self, block: Block) -> PartInfo:
        to = self._writing
        return write_block(block, to.parts, self._spec, to.run_fingerprint, all_labels=to.all_labels)
