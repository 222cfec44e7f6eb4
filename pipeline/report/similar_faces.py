"""Faces of a run that look nearly the same though their files differ, found by their cached features.

Copies (equal bytes) count once, faces too small to label not at all, and faces of one photo are never a pair. The
tables are read once more to name what was found, and the features of the faces in question are read a second time, to
compare them exactly.

Not here: how pairs are found among millions (`models/evaluation/near_duplicates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.evaluation.near_duplicates import Sketches, candidate_pairs, centred_cosine, groups_of_pairs
from pipeline.report.photo import Face, Photo
from pipeline.report.run_samples import photo_of
from pipeline.report.similar_photos import photo_pairs
from transforms.formats.cache.contents import Contents
from transforms.formats.records import NO_LABEL, Status
from transforms.formats.result_batches import ResultBatch
from transforms.storage.stopping import check

ALIKE = 0.94  # cosine without the mean: of FER2013's test images, those above it are the same photo but for a few
GROUPS, FACES = 6, 4  # groups shown, faces of each
NAMES = 5  # photos named of a group
MOST_COMPARED = 20_000  # pairs whose features are compared exactly, the likeliest first

Lookup = Callable[[np.ndarray], tuple[np.ndarray, Contents]]
Group = tuple[tuple[Photo, Face], ...]


@dataclass(frozen=True, slots=True)
class Similar:
    """What was found: numbers for JSON, and the groups that are shown."""

    numbers: dict[str, Any]
    groups: tuple[Group, ...] = ()


@dataclass(slots=True)
class SimilarFaces:
    """Sketches the faces of a run while batches pass by.

    Attributes:
        lookup: finds cached results by digests, as `FeatureCache.lookup` does.
    """

    lookup: Lookup
    _sketches: Sketches = field(default_factory=Sketches)
    _places: list[np.ndarray] = field(default_factory=list)  # (m, 2) int64: row of the image, number of the face
    _contents: list[np.ndarray] = field(default_factory=list)  # (m,) uint64: beginning of the image's digest

    def add(self, batch: ResultBatch) -> None:
        """Looks up the features of a batch."""
        check()
        for places, contents, features in _cached(self.lookup, batch, None):
            self._places.append(places)
            self._contents.append(contents)
            self._sketches.add(features)

    def result(self, again: Callable[[], Iterable[ResultBatch]]) -> Similar:
        """Returns the groups.

        Args:
            again: gives the batches a second time.
        """
        words = self._sketches.words()
        labelled: dict[int, int] = {}
        places = np.concatenate([np.zeros((0, 2), np.int64), *self._places])
        firsts = _firsts(np.concatenate([np.zeros(0, np.uint64), *self._contents]), places[:, 1])
        found = candidate_pairs(words[firsts], ALIKE)
        one, other = firsts[found.one[:MOST_COMPARED]], firsts[found.other[:MOST_COMPARED]]
        apart = places[one, 0] != places[other, 0]
        one, other = one[apart], other[apart]
        alike, cosine = self._compared(one, other, places, again, labelled)
        one, other = one[alike], other[alike]
        groups = groups_of_pairs(one, other)
        shown = [places[group[:FACES]] for group in groups[:GROUPS]]
        rows = np.array(sorted(labelled), np.int64)
        photos = photo_pairs(places[one], places[other], rows, np.array([labelled[row] for row in rows.tolist()]))
        photo_groups = groups_of_pairs(photos.one, photos.other)
        named, ids = _named(shown, [group[:NAMES] for group in photo_groups[:GROUPS]], again)
        return Similar(
            {
                "cosine_from": ALIKE,
                "faces_looked_at": len(firsts),
                "pairs": len(one),
                "groups": len(groups),
                "faces": int(sum(map(len, groups))),
                "complete": found.complete and len(found) <= MOST_COMPARED,
                "largest": [
                    {"faces": len(group), "least_cosine": _least(group, one, cosine[alike])}
                    for group in groups[:GROUPS]
                ],
                "photos": {
                    "pairs": len(photos.one),
                    "groups": len(photo_groups),
                    "photos": int(sum(map(len, photo_groups))),
                    "largest": [
                        {"photos": len(group), "least_share": _least(group, photos.one, photos.share), "named": some}
                        for group, some in zip(photo_groups, ids, strict=False)
                    ],
                },
            },
            named,
        )

    def _compared(
        self,
        one: np.ndarray,
        other: np.ndarray,
        places: np.ndarray,
        again: Callable[[], Iterable[ResultBatch]],
        labelled: dict[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns which pairs are alike by their features, and the cosine of each.

        Args:
            labelled: gets the faces with a label of every photo in question, by its row.
        """
        wanted = np.unique(np.concatenate([one, other]))
        if not len(wanted) or self._sketches.mean is None:
            return np.zeros(0, bool), np.zeros(0)
        keys = places[wanted]  # sorted, as faces were added in the order of rows and numbers
        parts = []
        for batch in again():
            rows = np.unique(keys[:, 0])
            own = rows[(rows >= batch.first) & (rows < batch.first + batch.images.num_rows)] - batch.first
            with_label = np.bincount(batch.image[batch.label != NO_LABEL], minlength=len(batch.counts))[own]
            labelled |= dict(zip((batch.first + own).tolist(), with_label.tolist(), strict=True))
            for found, _, features in _cached(self.lookup, batch, own) if len(own) else ():
                of_pairs = np.isin(_key(found), _key(keys))
                parts.append((found[of_pairs], features[of_pairs]))
        held = _key(np.concatenate([places for places, _ in parts]))
        features = np.concatenate([features for _, features in parts])
        order = np.argsort(held, kind="stable")
        at = order[np.searchsorted(held, _key(places[one]), sorter=order)]
        to = order[np.searchsorted(held, _key(places[other]), sorter=order)]
        cosine = centred_cosine(features[at], features[to], self._sketches.mean)
        return cosine >= ALIKE, cosine


def _key(places: np.ndarray) -> np.ndarray:
    return np.asarray(places[:, 0] << 20 | places[:, 1])


def _cached(
    lookup: Lookup, batch: ResultBatch, rows: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields places (m, 2), beginnings of digests (m,) and features (m, d) of the labelled, cached faces of a batch.

    Args:
        rows: of the images in the batch that are wanted; None for all that have faces.
    """
    labelled = pc.is_in(batch.text("status"), pa.array([Status.LABELLED.value, Status.NO_FACE.value]))
    there = pc.and_(labelled, batch.text("digest").is_valid()).to_numpy(zero_copy_only=False) & (batch.counts > 0)
    asked = np.flatnonzero(there) if rows is None else rows[there[rows]]
    if not len(asked):
        return
    raw = bytes.fromhex("".join(batch.text("digest").take(pa.array(asked)).to_pylist()))
    digests = np.frombuffer(raw, np.uint8).reshape(-1, 32)
    hit, contents = lookup(digests)
    own = asked[hit]
    counts = np.bincount(contents.face_image, minlength=len(own))
    image = own[contents.face_image]
    number = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
    whole = (counts == batch.counts[own])[contents.face_image]  # else it was cached by something else
    begins = np.cumsum(batch.counts) - batch.counts
    whole[whole] = batch.label[(begins[image] + number)[whole]] != NO_LABEL  # blurs of a few pixels are all alike
    starts = digests[hit][contents.face_image, :8].copy().view(">u8").ravel().astype(np.uint64)
    yield np.stack([batch.first + image, number], axis=1)[whole], starts[whole], contents.features[whole]


def _firsts(contents: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Returns (m,) int64, the faces without those of copies of earlier images, in order."""
    with np.errstate(over="ignore"):
        key = contents ^ (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return np.sort(np.unique(key, return_index=True)[1])


def _least(group: np.ndarray, one: np.ndarray, value: np.ndarray) -> float:
    """Returns the least value of the pairs that connect a group."""
    return float(value[np.isin(one, group)].min())


def _named(
    groups: list[np.ndarray], rows: list[np.ndarray], again: Callable[[], Iterable[ResultBatch]]
) -> tuple[tuple[Group, ...], list[list[dict[str, Any]]]]:
    """Returns the photos and faces of groups of places, and row and id of each photo in groups of rows."""
    if not groups:
        return (), []
    wanted = np.unique(np.concatenate([*(group[:, 0] for group in groups), *rows]))
    photos: dict[int, Photo] = {}
    for batch in again():
        own = wanted[(wanted >= batch.first) & (wanted < batch.first + batch.images.num_rows)]
        photos |= {row: photo_of(batch, row - batch.first) for row in own.tolist()}
    faces = tuple(
        tuple((photos[row], photos[row].faces[at]) for row, at in group.tolist() if at < len(photos[row].faces))
        for group in groups
    )
    ids = [[{"row": row, "image_id": photos[row].image_id} for row in group.tolist()] for group in rows]
    return faces, ids
