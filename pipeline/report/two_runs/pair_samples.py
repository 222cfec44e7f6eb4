"""Which differences a page shows: a few images of each kind, drawn by a seed in one pass.

Not here: reading their pictures (`pair_pictures.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.report.photo import Photo
from pipeline.report.run_samples import drawn, photo_of, smallest
from pipeline.report.two_runs.differences import KINDS, Compared, Kind, face_numbers
from pipeline.report.two_runs.pairing import ABSENT, PairedBatch
from transforms.formats.result_batches import ResultBatch

SHOWN = 6  # images of each kind


@dataclass(frozen=True, slots=True)
class PhotoPair:
    """An image as two runs saw it.

    Attributes:
        row: its number among the images of both runs; `row` of both photos, too.
        a, b: as each run has it; None where it has none.
    """

    row: int
    a: Photo | None
    b: Photo | None

    @property
    def either(self) -> Photo:
        """The image of A; that of B where A has none, or could not tell its size."""
        found = self.a if self.a and (self.a.width or not self.b) else self.b
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class Example:
    """An image of a kind, and the faces that differ in it: their numbers in A and in B, None where there is none."""

    pair: PhotoPair
    faces: tuple[tuple[int | None, int | None], ...]


class PairChooser:
    """Chooses while batches pass by."""

    def __init__(self, seed: int) -> None:
        """Prepares to choose; the same seed and runs give the same images."""
        self._seed = np.uint64(seed)
        self._kept: dict[Kind, list[tuple[float, Example]]] = {kind: [] for kind in KINDS}

    def add(self, batch: PairedBatch, compared: Compared) -> None:
        """Looks at the differences of a batch."""
        for place, kind in enumerate(KINDS):
            rows = np.flatnonzero(compared.kind == place)
            images, first = np.unique(compared.image[rows], return_index=True)
            # each kind draws on its own: else the same few images would stand for all
            key = drawn(batch.first + images, self._seed + np.uint64(place))
            kept = self._kept[kind]
            for at in smallest(key, SHOWN) if len(key) > SHOWN else np.argsort(key, kind="stable"):
                if len(kept) == SHOWN and key[at] >= kept[-1][0]:
                    break
                last = first[at + 1] if at + 1 < len(first) else len(rows)
                kept.append((float(key[at]), _example(batch, compared, rows[first[at] : last])))
                kept.sort(key=lambda one: one[0])
                del kept[SHOWN:]

    def result(self) -> dict[Kind, tuple[Example, ...]]:
        """Returns the examples of each kind."""
        return {kind: tuple(example for _, example in kept) for kind, kept in self._kept.items()}


def _example(batch: PairedBatch, compared: Compared, rows: np.ndarray) -> Example:
    image = int(compared.image[rows[0]])
    pair = PhotoPair(
        batch.first + image,
        _photo(batch.a, int(batch.row_a[image]), batch.first + image),
        _photo(batch.b, int(batch.row_b[image]), batch.first + image),
    )
    numbers_a, numbers_b = face_numbers(batch.a), face_numbers(batch.b)
    faces = [
        (_at(numbers_a, a), _at(numbers_b, b))
        for a, b in zip(compared.face_a[rows].tolist(), compared.face_b[rows].tolist(), strict=True)
    ]
    return Example(pair, tuple(one for one in faces if one != (None, None)))


def _at(numbers: np.ndarray, face: int) -> int | None:
    return None if face < 0 else int(numbers[face])


def _photo(side: ResultBatch, row: int, joint: int) -> Photo | None:
    return None if row == ABSENT else replace(photo_of(side, row), row=joint)
