"""Writes rows for training a head: per block one file with label, digest and features of each image's largest face.

It is the counterpart of WriteParts if there is no head yet; files are published and reused in the same way. The
features of all blocks together are a memory map, so a training set may be larger than memory.
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
from transforms.storage.retrying import with_retries
from transforms.storage.stopping import check
from transforms.tally import TALLY

FIELDS = ("ids", "labels", "digests")  # the small columns


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Labelled features.

    Attributes:
        ids, labels: (n,) text; a label is "" for an image without one, if such images were requested.
        digests: (n, 32) uint8.
        features: (n, d) float16, possibly a memory map.
    """

    ids: np.ndarray
    labels: np.ndarray
    digests: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def training_rows(block: Block, *, unlabelled: bool = False) -> TrainingRows:
    """Returns the rows of images with a label and a face; of several faces the largest; ties go to the first.

    Args:
        unlabelled: True to include images without a label.
    """
    faces = block.faces
    area = faces.box[:, 2].astype(np.int64) * faces.box[:, 3]
    chosen: dict[int, int] = {}
    for face, image in enumerate(faces.image.tolist()):
        if (unlabelled or block.labels[image]) and (image not in chosen or area[face] > area[chosen[image]]):
            chosen[image] = face
    images, rows = list(chosen), list(chosen.values())
    features = faces.features if faces.features is not None else np.zeros((0, 0), np.float16)
    return TrainingRows(
        ids=np.asarray([block.ids[i] for i in images], np.str_),
        labels=np.asarray([block.labels[i] or "" for i in images], np.str_),
        digests=block.digests[images],
        features=features[rows],
    )


def write_rows(path: str, rows: TrainingRows) -> None:
    """Writes the rows under their final name, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, ids=rows.ids, labels=rows.labels, digests=rows.digests, features=rows.features)

    def write(file: BinaryIO) -> None:
        file.write(buffer.getbuffer())

    publish(path, write)


def read_rows(paths: list[str], features: str) -> TrainingRows:
    """Returns the rows of all files that hold any, in the order of the paths.

    Args:
        features: path of the `.npy` file to write the features of all rows to; they return as a memory map of it.

    Raises:
        ValueError: files hold features of different widths.
    """
    known = [_about(path) for path in paths]
    sizes = {path: about.features.shape for path, about in zip(paths, known, strict=True) if len(about)}
    if not sizes:
        nothing = np.zeros(0, np.str_)
        return TrainingRows(nothing, nothing, np.zeros((0, 32), np.uint8), np.zeros((0, 0), np.float16))
    if len(widths := {width for _, width in sizes.values()}) > 1:
        raise ValueError(f"features of different widths {sorted(widths)}; use one set of features.* settings")
    shape = (sum(count for count, _ in sizes.values()), widths.pop())
    all_features = np.lib.format.open_memmap(features, mode="w+", dtype=np.float16, shape=shape)
    start = 0
    for path, (count, _) in sizes.items():
        with np.load(path, allow_pickle=False) as stored:
            all_features[start : start + count] = stored["features"]
        start += count
    all_features.flush()
    ids, labels, digests = (np.concatenate([getattr(rows, name) for rows in known if len(rows)]) for name in FIELDS)
    return TrainingRows(ids, labels, digests, np.load(features, mmap_mode="r"))


def _about(path: str) -> TrainingRows:
    """Returns the rows of one file; of the features only the shape is valid."""
    with np.load(path, allow_pickle=False) as stored:
        ids, labels, digests = (stored[name] for name in FIELDS)
        width = stored["features"].shape[1]
    return TrainingRows(ids, labels, digests, np.broadcast_to(np.float16(0), (len(labels), width)))


class WriteTrainingRows(beam.DoFn):
    """Writes one file per block in a thread, while earlier stages continue."""

    def __init__(self, folder: str, *, unlabelled: bool = False) -> None:
        self._folder, self._unlabelled = folder, unlabelled

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
        rows = training_rows(block, unlabelled=self._unlabelled)
        name = f"{block.key}.npz"
        with TALLY.clock("write"):
            with_retries(lambda: write_rows(os.path.join(self._folder, name), rows))
        cached = int(block.cached.sum())
        rejected = sum(s is Status.REJECTED for s in block.status)
        TALLY.add_block(images=len(block), faces=len(block.faces), rejected=rejected, cached=cached)
        return PartInfo(name, block.ids[0], block.ids[-1], len(block), len(block.faces), cached, False)
