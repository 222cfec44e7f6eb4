"""For training a head: one file a block with label, digest and features of each labelled image's largest face.

The counterpart of WriteParts when there is no head yet; files are published and reused in the same way.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindows

from transforms.ahead import Ahead, single
from transforms.block import Block, PartInfo, Status
from transforms.formats.publish import publish
from transforms.job import Job
from transforms.stopping import check
from transforms.tally import TALLY


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Labelled features: `ids` and `labels` (n,) text, `digests` (n, 32) uint8, `features` (n, d) float16."""

    ids: np.ndarray
    labels: np.ndarray
    digests: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def training_rows(block: Block) -> TrainingRows:
    """Returns the rows of images that have a label and a face; of several faces the largest, ties to the first."""
    faces = block.faces
    area = faces.box[:, 2].astype(np.int64) * faces.box[:, 3]
    chosen: dict[int, int] = {}
    for face, image in enumerate(faces.image.tolist()):
        if block.labels[image] and (image not in chosen or area[face] > area[chosen[image]]):
            chosen[image] = face
    images, rows = list(chosen), list(chosen.values())
    features = faces.features if faces.features is not None else np.zeros((0, 0), np.float16)
    return TrainingRows(
        ids=np.asarray([block.ids[i] for i in images], np.str_),
        labels=np.asarray([block.labels[i] for i in images], np.str_),
        digests=block.digests[images],
        features=features[rows],
    )


def write_rows(path: str, rows: TrainingRows) -> None:
    """Writes the rows under their final name, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, ids=rows.ids, labels=rows.labels, digests=rows.digests, features=rows.features)

    def write(file: BinaryIO) -> None:
        file.write(buffer.getbuffer())

    publish(path, write)


def read_rows(paths: list[str]) -> TrainingRows:
    """Returns the rows of all files that hold any, in the order of the paths."""
    pieces = []
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            if len(stored["labels"]):
                pieces.append(TrainingRows(*(stored[k] for k in ("ids", "labels", "digests", "features"))))
    if not pieces:
        nothing = np.zeros(0, np.str_)
        return TrainingRows(nothing, nothing, np.zeros((0, 32), np.uint8), np.zeros((0, 0), np.float16))
    return TrainingRows(
        *(np.concatenate([getattr(p, name) for p in pieces]) for name in ("ids", "labels", "digests", "features"))
    )


class WriteTrainingRows(beam.DoFn):
    """Writes a file a block in a thread behind the stages before."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def setup(self) -> None:
        self._behind: Ahead[Block, PartInfo] = single(self._write, depth=2)

    def teardown(self) -> None:
        self._behind.close()

    def process(self, block: Block) -> Iterator[PartInfo]:
        check()
        yield from self._behind.put(block)

    def finish_bundle(self) -> Iterator[Any]:
        for info in self._behind.drain():
            yield GlobalWindows.windowed_value(info)

    def _write(self, block: Block) -> PartInfo:
        rows = training_rows(block)
        name = f"{block.key}.npz"
        with TALLY.clock("write"):
            write_rows(os.path.join(self._job.parts, name), rows)
        hits = int(block.cached.sum())
        rejected = sum(s is Status.REJECTED for s in block.status)
        TALLY.add_block(images=len(block), faces=len(block.faces), rejected=rejected, hits=hits)
        return PartInfo(name, block.ids[0], block.ids[-1], len(block), len(block.faces), hits, False)
