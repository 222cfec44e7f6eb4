"""Which photos and faces a page shows: drawn by a seed, or the first by some measure, in one pass and bounded memory.

Not here: reading their pictures (`run_pictures.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.photo import KEPT, Face, Photo
from transforms.formats.records import NO_LABEL, Status
from transforms.formats.result_batches import ResultBatch

SAMPLE, NO_FACE, MOST_FACES, LEAST_CERTAIN = 18, 12, 6, 12  # pictures in each group
GALLERY_FACES, GALLERY_MOST, GALLERY_LEAST, GALLERY_LABELS = 70, 12, 2, 35  # of all labels; of one; how many labels


@dataclass(frozen=True, slots=True)
class Samples:
    """What is shown; a face comes with its photo.

    Attributes:
        galleries: by index of the label.
        similar: groups of faces that look nearly the same.
    """

    most_faces: tuple[Photo, ...]
    sample: tuple[Photo, ...]
    no_face: tuple[Photo, ...]
    least_certain: tuple[tuple[Photo, Face], ...]
    galleries: dict[int, tuple[tuple[Photo, Face], ...]]
    similar: tuple[tuple[tuple[Photo, Face], ...], ...] = ()

    def faces(self) -> list[tuple[Photo, Face]]:
        """Returns every face that is shown by itself."""
        groups = (self.least_certain, *self.galleries.values(), *self.similar)
        return [face for group in groups for face in group]

    def photos(self) -> list[Photo]:
        """Returns every photo once, in the order of their groups."""
        every = [*self.most_faces, *self.sample, *self.no_face, *(photo for photo, _ in self.faces())]
        return list({photo.row: photo for photo in every}.values())


class Chooser:
    """Chooses while batches pass by."""

    def __init__(self, classes: Sequence[str], seed: str) -> None:
        """Prepares to choose.

        Args:
            seed: any text; the same text draws the same photos.
        """
        self._seed = seed_of(seed)
        self._classes = len(classes)
        each = max(GALLERY_LEAST, min(GALLERY_MOST, GALLERY_FACES // max(1, len(classes))))
        self._most = _First(MOST_FACES)
        self._sample = _First(SAMPLE + MOST_FACES)
        self._no_face = _First(NO_FACE)
        self._unsure = _First(LEAST_CERTAIN)
        self._galleries = [_First(each) for _ in classes]
        self._faces_seen = 0
        self._label_counts = np.zeros(self._classes, np.int64)

    def add(self, batch: ResultBatch) -> None:
        """Looks at the images of a batch and their faces."""
        images = np.arange(batch.images.num_rows)
        draw = drawn(batch.first + images, self._seed)
        status = batch.text("status")
        labelled = _is(status, Status.LABELLED)
        self._most.offer(batch, -batch.counts[labelled], images[labelled])
        self._sample.offer(batch, draw[labelled], images[labelled])
        none = _is(status, Status.NO_FACE)
        self._no_face.offer(batch, draw[none], images[none])
        self._add_faces(batch)

    def _add_faces(self, batch: ResultBatch) -> None:
        count = len(batch.label)
        number = np.arange(count) - (np.cumsum(batch.counts) - batch.counts)[batch.image]
        labelled = batch.label != NO_LABEL
        self._unsure.offer(batch, batch.confidence[labelled], batch.image[labelled], number[labelled])
        draw = drawn(self._faces_seen + np.arange(count), ~self._seed)
        for label in np.unique(batch.label[labelled]):
            own = batch.label == label
            self._galleries[label].offer(batch, draw[own], batch.image[own], number[own])
        self._label_counts += np.bincount(batch.label[labelled], minlength=self._classes)
        self._faces_seen += count

    def result(self) -> Samples:
        """Returns what was chosen."""
        most = self._most.photos()
        if most and most[0].face_count == 1:  # then all photos have as many
            most = ()
        rows = {photo.row for photo in most}
        sample = [photo for photo in self._sample.photos() if photo.row not in rows]
        shown = np.argsort(-self._label_counts, kind="stable")[:GALLERY_LABELS]
        galleries = {int(label): self._galleries[label].faces() for label in shown if self._label_counts[label]}
        return Samples(most, tuple(sample[:SAMPLE]), self._no_face.photos(), self._unsure.faces(), galleries)


@dataclass(slots=True)
class _First:
    """The first few by a key; among equal keys, those that came first."""

    count: int
    _kept: list[tuple[float, Photo, Face | None]] = field(default_factory=list)

    def offer(self, batch: ResultBatch, key: np.ndarray, image: np.ndarray, number: np.ndarray | None = None) -> None:
        """Takes those of a batch that belong to the first.

        Args:
            key, image, number: (n,) each: what counts, the row in the batch, and the number of the face if it is one.
        """
        first = (
            np.argsort(key, kind="stable")[: self.count] if len(key) <= 4 * self.count else smallest(key, self.count)
        )
        for at in first:
            value = float(key[at])
            if len(self._kept) == self.count and value >= self._kept[-1][0]:
                break
            row = int(image[at])
            face = None if number is None else _face(batch, row, int(number[at]))
            self._kept.append((value, photo_of(batch, row), face))
            self._kept.sort(key=lambda kept: kept[0])
            del self._kept[self.count :]

    def photos(self) -> tuple[Photo, ...]:
        return tuple(photo for _, photo, _ in self._kept)

    def faces(self) -> tuple[tuple[Photo, Face], ...]:
        return tuple((photo, face) for _, photo, face in self._kept if face is not None)


def smallest(key: np.ndarray, count: int) -> np.ndarray:
    """Returns where the smallest keys are, in order; among equal keys, the first."""
    limit = np.partition(key, count - 1)[count - 1]
    few = np.flatnonzero(key <= limit)
    return np.asarray(few[np.argsort(key[few], kind="stable")][:count])


def _is(status: pa.Array, wanted: Status) -> np.ndarray:
    return np.asarray(pc.equal(status, wanted.value).to_numpy(zero_copy_only=False), bool)


def photo_of(batch: ResultBatch, row: int, most: int = KEPT) -> Photo:
    """Returns an image of a batch with its first `most` faces."""
    count = int(batch.counts[row])
    values = batch.images.slice(row, 1).to_pylist()[0]
    first = int(np.searchsorted(batch.image, row))
    labels, of_each = np.unique(batch.label[first : first + count], return_counts=True)
    return Photo(
        row=batch.first + row,
        image_id=values["image_id"],
        digest=values["digest"] or "",
        width=values["width"],
        height=values["height"],
        true_label=values["true_label"],
        faces=tuple(_face(batch, row, number) for number in range(min(count, most))),
        face_count=count,
        label_counts=tuple(zip(labels.tolist(), of_each.tolist(), strict=True)),
    )


def _face(batch: ResultBatch, row: int, number: int) -> Face:
    at = int(np.searchsorted(batch.image, row)) + number
    x, y, width, height = batch.box[at].tolist()
    return Face(
        number, (x, y, width, height), int(batch.label[at]), float(batch.confidence[at]), float(batch.score[at])
    )


def seed_of(text: str) -> np.uint64:
    """Returns the seed that a text stands for."""
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def drawn(rows: np.ndarray, seed: np.uint64) -> np.ndarray:
    """Returns (n,) float64 from 0 to 1, one for each row number: SplitMix64, the same on every machine."""
    with np.errstate(over="ignore"):
        value = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + seed
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    return np.asarray((value >> np.uint64(11)) / float(1 << 53))
