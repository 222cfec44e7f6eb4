"""Whether the faces of two runs differ as the network sees them: a classifier tries to tell them apart.

Both runs must have used one cache key, so that their features can be compared. Least squares learns on half of the
images to tell a face of A from one of B; its area under the ROC curve on the other half is 0.5 if it cannot, 1 if it
always can (Lopez-Paz and Oquab 2017, arXiv:1610.06545). An image that both runs hold falls into the same half twice.

Some thousand images of each run are drawn by their digests, so memory does not depend on the collection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from models.evaluation.metrics import area, area_interval, roc_curve
from transforms.formats.cache.contents import Contents
from transforms.formats.records import Status
from transforms.formats.result_batches import ResultBatch

IMAGES = 4_000  # drawn of each run
FACES = 20_000  # used of each run
FEWEST = 20  # faces of each run in each half, below which no statement is possible
_RIDGE = 1e-2  # added to the mean of the diagonal: features of a network are nearly collinear

Lookup = Callable[[np.ndarray], tuple[np.ndarray, Contents]]


@dataclass(slots=True)
class DigestSample:
    """Draws images of a run by their digests: two runs draw the same ones of what both hold."""

    _digests: np.ndarray

    @classmethod
    def empty(cls) -> DigestSample:
        """Returns a sample of nothing yet."""
        return cls(np.zeros((0, 32), np.uint8))

    def add(self, batch: ResultBatch) -> None:
        """Looks at the labelled images of a batch."""
        there = pc.and_(pc.equal(batch.text("status"), Status.LABELLED.value), batch.text("digest").is_valid())
        digests = batch.text("digest").filter(there.fill_null(False))
        raw = np.frombuffer(bytes.fromhex("".join(digests.to_pylist())), np.uint8).reshape(-1, 32)
        every = np.unique(np.concatenate([self._digests, raw]), axis=0)  # in order, so the first are a fair draw
        self._digests = every[:IMAGES]

    def digests(self) -> np.ndarray:
        """Returns (n, 32) uint8, sorted."""
        return self._digests


def feature_drift(a: np.ndarray, b: np.ndarray, lookup_a: Lookup, lookup_b: Lookup) -> dict[str, Any]:
    """Returns the figure for JSON; `why_not` says why there is none.

    Args:
        a, b: (n, 32) uint8 digests of images of each run.
        lookup_a, lookup_b: finds cached results, as `FeatureCache.lookup` does.
    """
    shared = len(_rows_in(a, b))
    if shared == len(a) == len(b):
        return {"why_not": "both runs hold the same contents, whose features are therefore equal"}
    sides = [_features(digests, lookup) for digests, lookup in ((a, lookup_a), (b, lookup_b))]
    sizes = {"faces_a": len(sides[0][1]), "faces_b": len(sides[1][1]), "images_a": len(a), "images_b": len(b),
            "shared_images": shared}  # fmt: skip
    x = np.concatenate([features for features, _ in sides])
    half = np.concatenate([halves for _, halves in sides])
    of_b = np.repeat([False, True], [len(halves) for _, halves in sides])
    fewest = min((int((part & own).sum()) for part in (half, ~half) for own in (of_b, ~of_b)), default=0)
    if fewest < FEWEST:
        return {**sizes, "why_not": f"too few cached faces: {fewest} in the smallest quarter, {FEWEST} are needed"}
    scores = _scores(x[half], of_b[half], x[~half])
    low, high = area_interval(scores, of_b[~half]) or (None, None)
    return {**sizes, "area": area(roc_curve(scores, of_b[~half])), "low": low, "high": high}


def _rows_in(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    keys_a, keys_b = (digests.copy().view("V32").ravel() for digests in (a, b))
    return np.flatnonzero(np.isin(keys_a, keys_b)) if len(a) and len(b) else np.zeros(0, np.int64)


def _features(digests: np.ndarray, lookup: Lookup) -> tuple[np.ndarray, np.ndarray]:
    """Returns (m, d) float32 features of the cached faces, and (m,) bool: the half that each falls into."""
    _, contents = lookup(digests)
    features = contents.features[:FACES].astype(np.float32)
    return features, contents.digest[contents.face_image[:FACES], -1] % 2 == 0


def _scores(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Returns (n,) float64 of the rows asked for, by least squares: the higher, the likelier of B."""
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, asked = (x - mean) / spread, (asked - mean) / spread
    weight = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())[:, None]
    gram = (x * weight).T @ x
    gram[np.diag_indices_from(gram)] += _RIDGE * np.trace(gram) / len(gram)
    solution = np.linalg.solve(gram.astype(np.float64), (x * weight).T @ np.where(y, 1.0, -1.0))
    return np.asarray(asked @ solution, np.float64)
