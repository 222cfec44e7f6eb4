"""The value that flows through the graph: a block of consecutive images of one shard, in columns.

Every stage maps one block to one block. Columns have one row per image (n) or one row per face (m).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np

from models.boxes import order_faces
from transforms.formats.exif import Exif
from transforms.formats.records import Reason, Stage, Status

__all__ = ["Block", "BlockRef", "Faces", "PartInfo", "Reason", "Stage", "Status"]


@dataclass(frozen=True, slots=True)
class BlockRef:
    """The input of the graph: a reference to a line of the plan file, without names or bytes.

    Attributes:
        plan: path of the plan's `blocks.jsonl`.
        offset, length: of the line, in bytes.
    """

    plan: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of a block, ordered by image row and then by score (descending), y, x.

    Attributes:
        image: (m,) int32, row of the image in the block.
        box: (m, 4) int32, x, y, width, height in pixels of the upright image.
        score: (m,) float32, the detector's confidence.
        crops: (m, h, w, c) uint8 RGB or grey, the input of the backbone; None once features are known.
        features: (m, d) float16, None before extraction.
        answers: (m, width) float64 rounded to 1e-6, what the head says, see `OutputSpec`; None before the head.
        labelled: (m,) bool, False for a face too small to be labelled; None where every face is.
    """

    image: np.ndarray
    box: np.ndarray
    score: np.ndarray
    crops: np.ndarray | None = None
    features: np.ndarray | None = None
    answers: np.ndarray | None = None
    labelled: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def nbytes(self) -> int:
        """Returns the size of all columns in bytes."""
        return sum(column.nbytes for column in self._columns().values() if column is not None)

    def take(self, rows: np.ndarray) -> Faces:
        """Returns the faces of `rows`, in that order; all rows in order cost no copy."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self
        taken = {name: None if column is None else column[rows] for name, column in self._columns().items()}
        return Faces(**cast(Any, taken))

    @staticmethod
    def concatenate(parts: Sequence[Faces]) -> Faces:
        """Returns the faces of all parts, in order.

        A column must be set in all parts with faces, or in none.

        Raises:
            ValueError: a column is set in only some of the parts.
        """
        filled = [part for part in parts if len(part)]
        if len(filled) < 2:
            return filled[0] if filled else no_faces()
        names = [column.name for column in fields(Faces)]
        return Faces(**cast(Any, {name: _joined([getattr(part, name) for part in filled], name) for name in names}))

    def _columns(self) -> dict[str, np.ndarray | None]:
        return {column.name: getattr(self, column.name) for column in fields(self)}


def _joined(columns: Sequence[np.ndarray | None], name: str) -> np.ndarray | None:
    there = [column for column in columns if column is not None]
    if there and len(there) < len(columns):
        raise ValueError(f"cannot join faces with {name} and faces without")
    return np.concatenate(there) if there else None


def no_faces() -> Faces:
    """Returns an empty set of faces."""
    return Faces(np.zeros(0, np.int32), np.zeros((0, 4), np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive images of one shard, and their results so far.

    Attributes:
        key: name of the part file: a digest of the block's members and their stamps, 32 hex digits.
        position: place of the first image in plan order.
        ids, sources: image id, and path of the source file, one row per image.
        labels: the class that the input states, or None.
        sizes: (n,) int64 encoded bytes (0 when there are none).
        digests: (n, 32) uint8 SHA-256 of the encoded bytes, zeros when there are none.
        data: encoded bytes until the crops are made, then None.
        same_as: (n,) int32, the first row of the block with the same bytes (its own row if no earlier one).
        cached: (n,) bool, found in the cache (a copy within the block is not a hit).
        width, height: (n,) int32 pixels of the upright image, 0 where unknown.
        status: a `Status` an image, None while undecided.
        reason: a `Reason` for each rejected image, and for one whose faces are all too small to label; else None.
        faces: of all images of the block, as far as their features are known.
        fresh: newly detected faces with crops and without features, between DetectFaces and ExtractFeatures.
        exif: what each image says of itself; None where the run does not ask.
    """

    key: str
    position: int
    ids: tuple[str, ...]
    sources: tuple[str, ...]
    labels: tuple[str | None, ...]
    sizes: np.ndarray
    digests: np.ndarray
    data: tuple[bytes | None, ...]
    same_as: np.ndarray
    cached: np.ndarray
    width: np.ndarray
    height: np.ndarray
    status: tuple[Status | None, ...]
    reason: tuple[Reason | None, ...]
    faces: Faces = field(default_factory=no_faces)
    fresh: Faces = field(default_factory=no_faces)
    exif: tuple[Exif, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def with_features(block: Block, features: np.ndarray | None) -> Block:
    """Returns the block with new faces and cached faces joined, in order."""
    known = block.faces
    if features is not None:
        fresh = replace(block.fresh, crops=None, features=features)
        known = Faces.concatenate([known, fresh])
    return replace(block, faces=in_order(known), fresh=no_faces())


def in_order(faces: Faces) -> Faces:
    """Returns the faces by image row, then score (descending), y, x."""
    if len(faces) == 0:
        return faces
    within = order_faces(faces.box, faces.score)
    order = within[np.argsort(faces.image[within], kind="stable")]
    return faces.take(order)


@dataclass(frozen=True, slots=True)
class PartInfo:
    """What remains of a block after WriteParts.

    Attributes:
        name: file name of the part in `parts/`.
        first_id, last_id: range of its image ids.
        images, faces: numbers of rows.
        cached: images whose results came from the cache.
        reused: True if the part existed before this run.
        worker: totals of the process that wrote it (`tally.py`), with the last part of a bundle; else "".
    """

    name: str
    first_id: str
    last_id: str
    images: int
    faces: int
    cached: int
    reused: bool
    worker: str = field(default="", compare=False)
