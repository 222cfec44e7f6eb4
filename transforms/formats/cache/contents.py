"""The cached results of images: columns of equal length, checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transforms.formats.records import FormatError, Reason, Status

CACHED_STATUSES = (Status.LABELLED, Status.NO_FACE, Status.REJECTED)


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The cached results of n image contents and their m faces, in columns.

    Attributes:
        digest: (n, 32) uint8, SHA-256 of the encoded bytes.
        width, height: (n,) int32 pixels of the upright image, 0 where unknown.
        status: (n,) object, `Status.LABELLED` ("faces found"), `NO_FACE` or `REJECTED`.
        reason: (n,) object, the text of a `Reason` where rejected, else "".
        face_image: (m,) int32 row of the image, ascending.
        box: (m, 4) int32 x, y, width, height in pixels of the upright image.
        score: (m,) float32, the detector's confidence.
        features: (m, d) float16, aligned with the faces.
        names: n image ids, as they were when the content was first seen; informative only.
        labels: n labels from that time, None where unknown; informative only.
    """

    digest: np.ndarray
    width: np.ndarray
    height: np.ndarray
    status: np.ndarray
    reason: np.ndarray
    face_image: np.ndarray
    box: np.ndarray
    score: np.ndarray
    features: np.ndarray
    names: tuple[str, ...]
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.digest)

    def take(self, rows: Sequence[int] | np.ndarray) -> Contents:
        """Returns the images of `rows` (any order, repeats allowed) with their faces."""
        rows = np.asarray(rows, np.intp)
        starts = np.searchsorted(self.face_image, np.arange(len(self) + 1))
        counts = np.diff(starts)[rows]
        before = np.cumsum(counts) - counts
        faces = np.repeat(starts[rows] - before, counts) + np.arange(counts.sum())
        picked = rows.tolist()
        return Contents(
            digest=self.digest[rows],
            width=self.width[rows],
            height=self.height[rows],
            status=self.status[rows],
            reason=self.reason[rows],
            face_image=np.repeat(np.arange(len(rows), dtype=np.int32), counts),
            box=self.box[faces],
            score=self.score[faces],
            features=self.features[faces],
            names=tuple(map(self.names.__getitem__, picked)),
            labels=tuple(map(self.labels.__getitem__, picked)),
        )

    @staticmethod
    def concatenate(parts: Sequence[Contents]) -> Contents:
        """Returns the images of all `parts`, one after the other; features must have one width."""
        if len(parts) < 2:
            return parts[0] if parts else no_contents(0)
        offsets = np.cumsum([0, *map(len, parts)])[:-1].tolist()
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("digest", "width", "height", "status", "reason", "box", "score")
        }
        columns["face_image"] = np.concatenate(
            [part.face_image + np.int32(offset) for part, offset in zip(parts, offsets, strict=True)]
        )
        for name in ("names", "labels"):
            columns[name] = tuple(value for part in parts for value in getattr(part, name))
        return Contents(features=joined_features([part.features for part in parts]), **columns)


def no_contents(width: int) -> Contents:
    empty = np.zeros(0, np.int32)
    words = np.zeros(0, object)
    return Contents(
        digest=np.zeros((0, 32), np.uint8),
        width=empty,
        height=empty,
        status=words,
        reason=words,
        face_image=empty,
        box=np.zeros((0, 4), np.int32),
        score=np.zeros(0, np.float32),
        features=np.zeros((0, width), np.float16),
        names=(),
        labels=(),
    )


def joined_features(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns all rows. Parts without a face do not know the width, so they take that of the others."""
    full = [part for part in parts if len(part)]
    widths = sorted({part.shape[1] for part in full})
    if len(widths) > 1:
        raise FormatError(
            f"the cache holds features of {widths[0]} and of {widths[-1]} values under one fingerprint; "
            "start a new cache folder, and raise REVISION in the code that changed the features"
        )
    if full:
        return np.concatenate(full)
    return np.zeros((0, max((part.shape[1] for part in parts), default=0)), np.float16)


def checked_contents(contents: Contents) -> Contents:
    """Returns `contents` with exact dtypes.

    Raises:
        ValueError: a column's length, shape or value is not what `Contents` states.
    """
    n, m = len(contents.digest), len(contents.face_image)
    exact: dict[str, Any] = {
        name: checked_column(name, getattr(contents, name), shape, dtype)
        for name, shape, dtype in (
            ("digest", (n, 32), np.uint8),
            ("width", (n,), np.int32),
            ("height", (n,), np.int32),
            ("status", (n,), object),
            ("reason", (n,), object),
            ("face_image", (m,), np.int32),
            ("box", (m, 4), np.int32),
            ("score", (m,), np.float32),
            ("features", (m, None), np.float16),
        )
    }
    names, labels = tuple(contents.names), tuple(contents.labels)
    if len(names) != n or len(labels) != n:
        raise ValueError(f"{len(names)} names and {len(labels)} labels for {n} images; give one of each per image")
    _check_words(exact["status"], exact["reason"])
    _check_faces(exact["face_image"], exact["status"])
    exact["status"] = object_array([STATUS_OF_WORD[word] for word in exact["status"].tolist()])
    return Contents(names=names, labels=labels, **exact)


def checked_column(name: str, values: Any, shape: tuple[int | None, ...], dtype: type) -> np.ndarray:
    array = object_array(list(values)) if dtype is object else np.asarray(values)
    if not np.can_cast(array.dtype, dtype, "same_kind"):  # refuses boxes in floats and digests in signed numbers
        raise ValueError(f"column {name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    fits = array.ndim == len(shape) and all(want in (None, got) for got, want in zip(array.shape, shape, strict=True))
    if not fits:
        raise ValueError(f"column {name} has shape {array.shape}, expected {shape}")
    return np.ascontiguousarray(array, dtype)


def object_array(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


STATUS_OF_WORD = {status.value: status for status in CACHED_STATUSES}
_WORDS = frozenset((status.value, "") for status in (Status.LABELLED, Status.NO_FACE)) | frozenset(
    (Status.REJECTED.value, reason.value)
    for reason in Reason
    if reason not in (Reason.INTERNAL_ERROR, Reason.TOO_SMALL_TO_LABEL)
)


def _check_words(status: np.ndarray, reason: np.ndarray) -> None:
    pairs = {(str(state), str(why)) for state, why in set(zip(status.tolist(), reason.tolist(), strict=True))}
    if not pairs <= _WORDS:
        state, why = min(pairs - _WORDS)
        known = ", ".join(CACHED_STATUSES)
        raise ValueError(f"status {state!r} with reason {why!r} cannot be cached; use {known} and a Reason")


def _check_faces(face_image: np.ndarray, status: np.ndarray) -> None:
    n = len(status)
    if len(face_image) and (face_image[0] < 0 or face_image[-1] >= n or (np.diff(face_image) < 0).any()):
        raise ValueError(f"face_image must ascend within 0 … {n - 1}")
    has_face = np.zeros(n, bool)
    has_face[face_image] = True
    if (has_face != (status == Status.LABELLED)).any():
        raise ValueError("exactly the images with status labelled must have faces")


def training_rows(contents: Contents) -> tuple[np.ndarray, np.ndarray]:
    return contents.features, object_array(list(contents.labels))[contents.face_image]


def joined_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.concatenate([np.zeros(0, object), *(labels for _, labels in pairs)])
    return joined_features([features for features, _ in pairs]), labels
