"""What occurs more than once in a run: the same bytes under several names, the same box in many photos.

Eight bytes an image and eight a face are kept; names are found in a second pass, for the few groups that are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.records import Status
from transforms.formats.result_batches import ResultBatch

GROUPS, NAMES = 10, 5  # shown of each kind; names of each group
FALSE_ALARMS = 8  # photos with one box from which it is worth a look
_GRID = 64  # steps of a side within which boxes count as the same


class Repeats:
    """Finds groups while batches pass by."""

    def __init__(self) -> None:
        self._digests: list[np.ndarray] = []
        self._boxes: list[np.ndarray] = []

    def add(self, batch: ResultBatch) -> None:
        """Keeps a number for each image and each face."""
        self._digests.append(_digest_keys(batch)[0])
        self._boxes.append(_box_keys(batch)[0])

    def result(self, again: Iterable[ResultBatch]) -> dict[str, Any]:
        """Returns the groups, for JSON; nothing where nothing repeats.

        Args:
            again: the same batches a second time, read only where there is something to name.
        """
        digests, images = _repeated(self._digests, 2)
        boxes, faces = _repeated(self._boxes, FALSE_ALARMS)
        if not len(digests) and not len(boxes):
            return {}
        copies = {"images": int(images.sum() - len(images)), "groups": len(images)}
        named, seen = _largest(digests, images), _largest(boxes, faces)
        for batch in again:
            _name_copies(named, batch)
            _name_boxes(seen, batch)
        return {"copies": {**copies, "largest": list(named.values())}, "boxes": list(seen.values())}


def _repeated(keys: list[np.ndarray], least: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the keys that occur at least so often, and how often."""
    if not keys:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    every = np.concatenate(keys)
    keys.clear()
    every.sort()
    starts = np.flatnonzero(np.concatenate([[True], every[1:] != every[:-1]])) if len(every) else np.zeros(0, np.int64)
    counts = np.diff(np.append(starts, len(every)))
    often = counts >= least
    return every[starts[often]], counts[often]


def _largest(keys: np.ndarray, counts: np.ndarray) -> dict[int, dict[str, Any]]:
    order = np.lexsort((keys, -counts))[:GROUPS]
    return {int(keys[at]): {"count": int(counts[at]), "names": []} for at in order}


def _name_copies(groups: dict[int, dict[str, Any]], batch: ResultBatch) -> None:
    keys, rows = _digest_keys(batch)
    for at in np.flatnonzero(np.isin(keys, np.asarray(list(groups), np.uint64))):
        group, row = groups[int(keys[at])], int(rows[at])
        group.setdefault("digest", batch.text("digest")[row].as_py())
        group["images"] = group["count"]
        if len(group["names"]) < NAMES:
            group["names"].append(batch.text("image_id")[row].as_py())


def _name_boxes(groups: dict[int, dict[str, Any]], batch: ResultBatch) -> None:
    keys, faces = _box_keys(batch)
    for at in np.flatnonzero(np.isin(keys, np.asarray(list(groups), np.uint64))):
        group, face = groups[int(keys[at])], int(faces[at])
        row = int(batch.image[face])
        group.setdefault("box", batch.box[face].tolist())
        group.setdefault("size", [int(batch.numbers(name)[row]) for name in ("width", "height")])
        group["faces"] = group["count"]
        if len(group["names"]) < NAMES:
            group["names"].append(batch.text("image_id")[row].as_py())


def _digest_keys(batch: ResultBatch) -> tuple[np.ndarray, np.ndarray]:
    """Returns (n,) uint64, the first eight bytes of each digest, and (n,) the rows: images without bytes have none."""
    digests = batch.text("digest")
    there = pc.and_(digests.is_valid(), pc.not_equal(batch.text("status"), Status.DUPLICATE.value))
    rows = np.flatnonzero(there.fill_null(False).to_numpy(zero_copy_only=False))
    starts = pc.utf8_slice_codeunits(digests.take(pa.array(rows)), 0, 16).to_pylist()
    return np.frombuffer(bytes.fromhex("".join(starts)), ">u8").astype(np.uint64), rows


def _box_keys(batch: ResultBatch) -> tuple[np.ndarray, np.ndarray]:
    """Returns (m,) uint64 of place, size and the size of the photo, and (m,) the faces: those of part of an image."""
    size = np.stack([batch.numbers("width"), batch.numbers("height")], axis=1)[batch.image]
    part = np.flatnonzero((batch.box[:, 2:] != size).any(1)) if len(size) else np.zeros(0, np.int64)
    box, size = batch.box[part].astype(np.float64), size[part]
    grid = np.floor(box / np.maximum(1, np.concatenate([size, size], axis=1)) * _GRID + 0.5).astype(np.int64)
    key = np.zeros(len(part), np.uint64)
    with np.errstate(over="ignore"):
        for column in np.concatenate([grid, size], axis=1).T:
            key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
    return key, part
