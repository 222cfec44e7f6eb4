"""Joins two runs by image id, some thousand images at a time: both are sorted, so memory stays flat.

Not here: the faces of an image (`matching.py`), and what counts as a difference (`differences.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.records import Status
from transforms.formats.result_batches import BATCH, IMAGE_COLUMNS, ResultBatch, result_batches

ABSENT = -1  # in place of a row: the image is not in that run


@dataclass(frozen=True, slots=True)
class PairedBatch:
    """Consecutive images of two runs, A and B, in the order of their ids. Repeats of an id within a run are left out.

    Attributes:
        first: number of the first image among those of both runs together.
        a, b: the images of each run.
        row_a, row_b: (n,) int64, for each id its row in `a` and in `b`; `ABSENT` where the run has no such image.
    """

    first: int
    a: ResultBatch
    b: ResultBatch
    row_a: np.ndarray
    row_b: np.ndarray

    def __len__(self) -> int:
        return len(self.row_a)

    def ids(self) -> pa.Array:
        """Returns the (n,) ids."""
        both = pa.concat_arrays([self.a.text("image_id"), self.b.text("image_id")])
        rows = np.where(self.row_a != ABSENT, self.row_a, self.row_b + self.a.images.num_rows)
        return both.take(pa.array(rows))


def paired_batches(
    a: str, b: str, *, batch: int = BATCH, prefix_a: str = "", prefix_b: str = ""
) -> Iterator[PairedBatch]:
    """Yields the images of two finished runs.

    Args:
        a, b: their output folders.
        prefix_a, prefix_b: what the columns of the compared head of each begin with.

    Raises:
        ResultsError: the tables of a run are missing or damaged. StorageError: they cannot be read.
    """
    sides = ((a, prefix_a), (b, prefix_b))
    streams = [_Stream(result_batches(folder, batch=batch, prefix=prefix)) for folder, prefix in sides]
    first = 0
    while any(stream.fill() for stream in streams):
        ends = [stream.last_id() for stream in streams if stream.fill()]
        end = min(ends, key=lambda text: text.encode("utf-8"))
        one, other = (stream.take_up_to(end) for stream in streams)
        joined = _joined(first, one, other)
        first += len(joined)
        yield joined


class _Stream:
    """Batches of a run, handed out up to an id."""

    def __init__(self, batches: Iterator[ResultBatch]) -> None:
        self._batches = batches
        self._held: ResultBatch | None = None

    def fill(self) -> bool:
        """Makes sure that images are held; returns False at the end."""
        while self._held is None or not self._held.images.num_rows:
            found = next(self._batches, None)
            if found is None:
                return False
            self._held = _without_duplicates(found)
        return True

    def last_id(self) -> str:
        assert self._held is not None
        ids = self._held.text("image_id")
        return str(ids[len(ids) - 1].as_py())

    def take_up_to(self, end: str) -> ResultBatch:
        if self._held is None:
            return no_images()
        count = pc.sum(pc.less_equal(self._held.text("image_id"), end)).as_py() or 0
        taken, self._held = _slice(self._held, 0, count), _slice(self._held, count, self._held.images.num_rows)
        return taken


def _joined(first: int, a: ResultBatch, b: ResultBatch) -> PairedBatch:
    ids_a, ids_b = a.text("image_id"), b.text("image_id")
    of_b = pc.index_in(ids_b, ids_a).fill_null(ABSENT).to_numpy().astype(np.int64)
    only_b = np.flatnonzero(of_b == ABSENT)
    partner = np.full(len(ids_a), ABSENT)
    partner[of_b[of_b != ABSENT]] = np.flatnonzero(of_b != ABSENT)
    row_a = np.concatenate([np.arange(len(ids_a)), np.full(len(only_b), ABSENT)])
    row_b = np.concatenate([partner, only_b])
    order = pc.sort_indices(pa.concat_arrays([ids_a, ids_b.take(pa.array(only_b))])).to_numpy()
    return PairedBatch(first, a, b, row_a[order], row_b[order])


def no_images() -> ResultBatch:
    """Returns a batch without images."""
    numbers = ("bytes", "width", "height", "faces")
    empty = pa.record_batch(
        {name: pa.array([], pa.int64() if name in numbers else pa.string()) for name in IMAGE_COLUMNS}
    )
    none = np.zeros(0, np.int64)
    return ResultBatch(0, empty, none, none, np.zeros((0, 4), np.int32), np.zeros(0), np.zeros(0), none)


def _without_duplicates(batch: ResultBatch) -> ResultBatch:
    kept = pc.not_equal(batch.text("status"), Status.DUPLICATE.value).to_numpy(zero_copy_only=False)
    if kept.all():
        return batch
    return _of_faces(batch, batch.images.filter(pa.array(kept)), batch.counts[kept], kept[batch.image])


def _slice(batch: ResultBatch, start: int, stop: int) -> ResultBatch:
    ends = np.concatenate([[0], np.cumsum(batch.counts)])
    faces = slice(int(ends[start]), int(ends[stop]))
    return _of_faces(batch, batch.images.slice(start, stop - start), batch.counts[start:stop], faces)


def _of_faces(batch: ResultBatch, images: pa.RecordBatch, counts: np.ndarray, faces: slice | np.ndarray) -> ResultBatch:
    return ResultBatch(
        first=batch.first,
        images=images,
        counts=counts,
        image=np.repeat(np.arange(len(counts)), counts),
        box=batch.box[faces],
        score=batch.score[faces],
        confidence=batch.confidence[faces],
        label=batch.label[faces],
    )
