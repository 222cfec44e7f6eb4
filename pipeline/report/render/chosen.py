"""Which photos of a run are rendered: a sample, those with a label, or those that are named. One pass, small memory.

Not here: reading and drawing them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.photo import Photo
from pipeline.report.run_samples import drawn, photo_of, seed_of
from transforms.formats.records import Status
from transforms.formats.result_batches import ResultBatch, result_batches
from transforms.storage.stopping import check

GROUP = 10_000  # photos whose faces are in memory at a time
_WITH_PIXELS = pa.array([Status.LABELLED.value, Status.NO_FACE.value])


@dataclass(frozen=True, slots=True)
class Choice:
    """What to render; everything unless something is stated.

    Attributes:
        most: photos at most, drawn by the seed; None for all.
        labels: indices of classes, one of which a face must have; empty for any photo.
        ids: of the images; None for any.
    """

    most: int | None = None
    labels: tuple[int, ...] = ()
    ids: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen.

    Attributes:
        rows: (n,) int64, ascending: images of the run in the order of ids.
        of: photos that the choice fits, before a sample was drawn.
        without_pixels: ids that were named of images that were rejected or repeat another id.
        unknown: ids that were named and are not in the run.
    """

    rows: np.ndarray
    of: int
    without_pixels: int
    unknown: tuple[str, ...]


def choose(folder: str, choice: Choice, seed: str, *, prefix: str = "") -> Chosen:
    """Returns the rows of the photos to render.

    Args:
        folder: of a finished run.
        seed: any text; the same text draws the same photos.
        prefix: what the columns of the head begin with.

    Raises:
        ResultsError: the tables do not fit. StorageError: they cannot be read.
    """
    rows, keys = np.zeros(0, np.int64), np.zeros(0)
    number, of, without = seed_of(seed), 0, 0
    unknown = set(choice.ids or ())
    for batch in result_batches(folder, prefix=prefix):
        check()
        fits = _fits(batch, choice)
        shown = np.asarray(pc.is_in(batch.text("status"), _WITH_PIXELS).to_numpy(zero_copy_only=False), bool)
        if choice.ids is not None:
            unknown.difference_update(batch.text("image_id").filter(pa.array(fits)).to_pylist())
            without += int((fits & ~shown).sum())
        new = batch.first + np.flatnonzero(fits & shown)
        of += len(new)
        rows, keys = np.concatenate([rows, new]), np.concatenate([keys, drawn(new, number)])
        if choice.most is not None and len(rows) > choice.most:
            kept = np.sort(np.argpartition(keys, choice.most - 1)[: choice.most])
            rows, keys = rows[kept], keys[kept]
    return Chosen(rows, of, without, tuple(sorted(unknown)))


def _fits(batch: ResultBatch, choice: Choice) -> np.ndarray:
    """Returns (n,) bool: the images of a batch that have a wanted label, and are named if names are given."""
    fits = np.ones(batch.images.num_rows, bool)
    if choice.labels:
        fits &= np.bincount(batch.image[np.isin(batch.label, choice.labels)], minlength=len(fits)) > 0
    if choice.ids is not None:
        fits &= _named(batch.text("image_id"), choice.ids)
    return fits


def _named(ids: pa.Array, wanted: Collection[str]) -> np.ndarray:
    return np.asarray([image_id in wanted for image_id in ids.to_pylist()], bool)


def groups(folder: str, rows: np.ndarray, *, prefix: str = "") -> Iterator[list[Photo]]:
    """Yields the photos of these ascending rows with all their faces, at most `GROUP` at a time."""
    group: list[Photo] = []
    for batch in result_batches(folder, prefix=prefix):
        start, end = np.searchsorted(rows, [batch.first, batch.first + batch.images.num_rows])
        for row in rows[start:end].tolist():
            at = row - batch.first
            group.append(photo_of(batch, at, most=int(batch.counts[at])))
            if len(group) == GROUP:
                yield group
                group = []
    if group:
        yield group
