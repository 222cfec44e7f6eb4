"""The cache of features, by content: what one features fingerprint made of each image it has ever seen.

A cache folder holds immutable HDF5 segments and an index derived from them. An entry is believed only if the
digest of the image's bytes, the fingerprint and the segment's checksum all match; anything else is a miss.
Not here: how features are computed, what a fingerprint covers (`pipeline/config.py`), object stores.

In a notebook: `cache = FeatureCache.open("out/cache")`, then `cache.features` and, row by row, `cache.face_labels`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import itertools
import json
import logging
import math
import mmap
import os
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5p, h5s, h5t

from transforms.formats.publish import (
    REFUSED,
    StorageError,
    is_remote,
    is_temporary,
    publish,
    remove_leftovers,
    storage_error,
)
from transforms.formats.records import FormatError, Reason, Status

__all__ = [
    "Contents",
    "FeatureCache",
    "Pruned",
    "Report",
    "canonical_json",
    "fingerprint_folders",
    "fingerprint_of",
    "has_lost_its_fingerprint",
]

logger = logging.getLogger("pipeline.cache")

FORMAT = 1  # of a segment; a reader that does not know the number must not guess
DEFAULT_MEMORY = 128 * 2**20  # bytes of verified segments kept: about 900 of 256 images and 256 features
FINGERPRINT_FILE = "fingerprint.json"
INDEX_FILE = "index.bin"
DAMAGED = ".damaged"

_FOLDER = re.compile(r"[0-9a-f]{16}\Z")
_SEGMENT = re.compile(r"[0-9a-f]{32}\.h5\Z")
_DAMAGED_SEGMENT = re.compile(r"[0-9a-f]{32}\.h5" + re.escape(DAMAGED) + r"\Z")  # `notes.damaged` is the user's
_CACHED = (Status.LABELLED, Status.NO_FACE, Status.REJECTED)
_MAX_CHUNK_BYTES = 16 * 2**20  # HDF5 allows 4 GiB; a reader elsewhere should not need that at once
_POOL_SEGMENTS = 16  # shuffled together by `batches`: 4,096 images, some MB


# --- what is cached ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What the cache knows of n image contents and the m faces on them, in columns.

    Attributes:
        digest: (n, 32) uint8, SHA-256 of the encoded bytes.
        width, height: (n,) int32 pixels of the upright image, 0 where unknown.
        status: (n,) object, `Status.LABELLED` ("faces found"), `NO_FACE` or `REJECTED`.
        reason: (n,) object, the text of a `Reason` where rejected, else "".
        face_image: (m,) int32 row of the image, ascending.
        box: (m, 4) int32 x, y, width, height in pixels of the upright image.
        score: (m,) float32, the detector's confidence.
        features: (m, d) float16, aligned with the faces.
        names: n image ids, as they were when the content was first seen; for reading only.
        labels: n labels of that time, None where unknown; for reading only.
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
            return parts[0] if parts else _no_contents(0)
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
        return Contents(features=_joined_features([part.features for part in parts]), **columns)


def _no_contents(width: int) -> Contents:
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


def _joined_features(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns all rows; parts without a face do not know the width and follow the others."""
    full = [part for part in parts if len(part)]
    widths = sorted({part.shape[1] for part in full})
    if len(widths) > 1:
        raise FormatError(
            f"a cache holds features of {widths[0]} and {widths[-1]} values under one fingerprint; "
            "start a new cache folder, and raise REVISION where features changed"
        )
    if full:
        return np.concatenate(full)
    return np.zeros((0, max((part.shape[1] for part in parts), default=0)), np.float16)


def _checked(contents: Contents) -> Contents:
    """Returns `contents` with exact dtypes.

    Raises:
        ValueError: a column has another length, shape or value than `Contents` says.
    """
    n, m = len(contents.digest), len(contents.face_image)
    exact: dict[str, Any] = {
        name: _column(name, getattr(contents, name), shape, dtype)
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
        raise ValueError(f"{len(names)} names and {len(labels)} labels were given for {n} images")
    _check_words(exact["status"], exact["reason"])
    _check_faces(exact["face_image"], exact["status"])
    exact["status"] = _objects([_STATUS[word] for word in exact["status"].tolist()])
    return Contents(names=names, labels=labels, **exact)


def _column(name: str, values: Any, shape: tuple[int | None, ...], dtype: type) -> np.ndarray:
    array = _objects(list(values)) if dtype is object else np.asarray(values)
    if not np.can_cast(array.dtype, dtype, "same_kind"):  # no box in floats, no digest in signed numbers
        raise ValueError(f"column {name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    fits = array.ndim == len(shape) and all(want in (None, got) for got, want in zip(array.shape, shape, strict=True))
    if not fits:
        raise ValueError(f"column {name} has shape {array.shape}, expected {shape}")
    return np.ascontiguousarray(array, dtype)


def _objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


_STATUS = {status.value: status for status in _CACHED}
_WORDS = frozenset((status.value, "") for status in (Status.LABELLED, Status.NO_FACE)) | frozenset(
    (Status.REJECTED.value, reason.value) for reason in Reason if reason is not Reason.INTERNAL_ERROR
)


def _check_words(status: np.ndarray, reason: np.ndarray) -> None:
    pairs = {(str(said), str(why)) for said, why in set(zip(status.tolist(), reason.tolist(), strict=True))}
    if not pairs <= _WORDS:
        said, why = min(pairs - _WORDS)
        known = ", ".join(_CACHED)
        raise ValueError(f"status {said!r} with reason {why!r} cannot be cached; known are {known}, reasons as Reason")


def _check_faces(face_image: np.ndarray, status: np.ndarray) -> None:
    n = len(status)
    if len(face_image) and (face_image[0] < 0 or face_image[-1] >= n or (np.diff(face_image) < 0).any()):
        raise ValueError(f"face_image must ascend within 0 … {n - 1}")
    has_face = np.zeros(n, bool)
    has_face[face_image] = True
    if (has_face != (status == Status.LABELLED)).any():
        raise ValueError("exactly the images with status labelled must have faces")


# --- fingerprints -----------------------------------------------------------------------------------------


def canonical_json(value: Mapping[str, Any]) -> str:
    """Returns the one JSON text for `value`: keys sorted, no spaces, Unicode as it is, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint_of(settings: Mapping[str, Any] | str) -> str:
    """Returns the SHA-256, 64 hex digits, of the canonical JSON of `settings` (a text is taken as canonical)."""
    text = settings if isinstance(settings, str) else canonical_json(settings)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def fingerprint_folders(root: str | os.PathLike[str], *, lost: bool = False) -> list[str]:
    """Returns the names of the fingerprint folders in a cache, sorted; none where there is no cache.

    Args:
        root: the cache.
        lost: True to count those that have lost their fingerprint.json too.
    """
    root = _local(root)
    try:
        names = os.listdir(root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("read", root, error) from error
    folders = sorted(name for name in names if _FOLDER.match(name))
    return [
        name
        for name in folders
        if os.path.isfile(_fingerprint_file(root, name))
        or (lost and has_lost_its_fingerprint(os.path.join(root, name)))
    ]


def has_lost_its_fingerprint(folder: str | os.PathLike[str]) -> bool:
    """Returns True for a folder named as a fingerprint's that holds segments, and no fingerprint.json."""
    folder = os.path.abspath(_local(folder))
    if not _FOLDER.match(os.path.basename(folder)) or not os.path.isdir(folder):
        return False
    try:
        names = _file_sizes(folder, sized=False)
    except StorageError:  # another user's, perhaps: that says nothing
        return False
    return FINGERPRINT_FILE not in names and any(map(_SEGMENT.match, names))


def _fingerprint_file(*folder: str) -> str:
    return os.path.join(*folder, FINGERPRINT_FILE)


def _local(path: str | os.PathLike[str]) -> str:
    text = os.path.expanduser(os.fspath(path))
    if is_remote(text):
        raise FormatError(f"a feature cache needs a file system, {text} is an object store; name a local --cache DIR")
    return text


def _read_fingerprint(folder: str) -> dict[str, Any] | None:
    """Returns what fingerprint.json holds, or None where it is missing or cannot be parsed."""
    path = _fingerprint_file(folder)
    try:
        with open(path, encoding="utf-8") as file:
            held = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error
    whole = isinstance(held, dict) and isinstance(held.get("sha256"), str) and isinstance(held.get("settings"), dict)
    return held if whole else None


def _write_fingerprint(folder: str, settings: dict[str, Any], digest: str) -> None:
    text = json.dumps({"sha256": digest, "settings": settings}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    publish(_fingerprint_file(folder), lambda file: file.write(text.encode("utf-8")))


def _find_folder(path: str, fingerprint: str | None) -> str:
    """Returns the fingerprint folder meant by `path`: itself, or the one in it that `fingerprint` names."""
    if os.path.isfile(_fingerprint_file(path)):
        return path
    found = fingerprint_folders(path)
    if fingerprint is not None:
        found = [name for name in found if name == fingerprint[:16]]
    if len(found) == 1:
        return os.path.join(path, found[0])
    if not found and has_lost_its_fingerprint(path):
        raise FormatError(f"{path} has lost its {FINGERPRINT_FILE}; a run with its settings writes it anew")
    if not found:
        wanted = "" if fingerprint is None else f" with fingerprint {fingerprint[:16]}"
        raise FormatError(f"{path} holds no feature cache{wanted}; name the --cache folder of a run")
    raise FormatError(f"{path} holds {len(found)} fingerprints ({', '.join(found)}); open one of these folders")


# --- segments ---------------------------------------------------------------------------------------------


class _DamageError(Exception):
    """The bytes of a segment are not what was written; the message says what is wrong."""


_serials = itertools.count()  # HDF5 takes two open images of one name for one file, across threads
_PARSE_FAULTS = (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError)  # all that h5py raises
_TEXT_COLUMNS = {"status": "S9", "reason": "S32"}  # longest Status that is cached; room for Reasons to come
_COLUMNS: dict[str, tuple[str, int]] = {  # dtype and dimensions in the file, in the order of the checksum
    "digest": ("|u1", 2),
    "width": ("<i4", 1),
    "height": ("<i4", 1),
    "status": ("|S9", 1),
    "reason": ("|S32", 1),
    "face_image": ("<i4", 1),
    "box": ("<i4", 2),
    "score": ("<f4", 1),
    "features": ("<f2", 2),
    "names": ("|S", 1),
}


def _encoded(contents: Contents, fingerprint: str) -> memoryview:
    """Returns the bytes of a segment file: the same for the same contents, whenever it is written."""
    columns = {name: getattr(contents, name) for name in _COLUMNS if name != "names"}
    columns |= {name: np.array(columns[name].tolist(), dtype) for name, dtype in _TEXT_COLUMNS.items()}
    # One JSON text, since fixed-width strings would cut NULs and pad to the longest, and HDF5 checks no other kind.
    table = json.dumps(list(zip(contents.names, contents.labels, strict=True)), separators=(",", ":"))
    columns["names"] = np.array([table.encode("ascii")])
    columns = {name: np.ascontiguousarray(column, _COLUMNS[name][0]) for name, column in columns.items()}
    attributes = _attributes(columns, fingerprint)
    return _hdf5(columns, {**attributes, "checksum": _checksum(columns, attributes)})


def _attributes(columns: Mapping[str, np.ndarray], fingerprint: str) -> dict[str, int | str]:
    return {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "images": len(columns["digest"]),
        "faces": len(columns["face_image"]),
    }


def _checksum(columns: Mapping[str, np.ndarray], attributes: Mapping[str, int | str]) -> str:
    """Returns the SHA-256 over a JSON line of attributes, dtypes and shapes, then every column's bytes in turn."""
    head = [[name, columns[name].dtype.str, columns[name].shape] for name in _COLUMNS]
    digest = hashlib.sha256(json.dumps([attributes, head], sort_keys=True).encode("ascii") + b"\n")
    for name in _COLUMNS:
        digest.update(columns[name].data)
    return digest.hexdigest()


def _hdf5(columns: Mapping[str, np.ndarray], attributes: Mapping[str, int | str]) -> memoryview:
    """Returns an HDF5 file made in memory: h5py reports a full disk as anything, `publish` reports it well."""
    file = io.BytesIO()
    access = _access()
    access.set_fileobj_driver(h5fd.fileobj_driver, file)
    access.set_libver_bounds(h5f.LIBVER_LATEST, h5f.LIBVER_LATEST)  # metadata with checksums
    hdf5 = h5f.create(b"segment", h5f.ACC_TRUNC, fcpl=_timeless(), fapl=access)
    try:
        for name, column in columns.items():
            _write_dataset(hdf5, name, column)
        root = h5py.h5g.open(hdf5, b"/")
        for name, value in attributes.items():
            scalar = np.asarray(value.encode("ascii") if isinstance(value, str) else np.int64(value))
            h5a.create(root, name.encode(), h5t.py_create(scalar.dtype), h5s.create(h5s.SCALAR)).write(scalar)
    finally:
        hdf5.close()
    return file.getbuffer()


def _access() -> Any:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    return access


def _write_dataset(hdf5: Any, name: str, column: np.ndarray) -> None:
    """Writes and closes a dataset; its values get their place in the file when it is closed."""
    kind, space, layout = _description(column.dtype, column.shape)
    dataset = h5d.create(hdf5, name.encode(), kind, space, layout)
    if column.size:
        dataset.write(h5s.ALL, h5s.ALL, column, kind)


@functools.cache
def _timeless() -> Any:
    created = h5p.create(h5p.FILE_CREATE)
    created.set_obj_track_times(False)
    return created


@functools.lru_cache(64)  # segments of a run are much alike, and making these takes a fifth of the time of a segment
def _description(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Returns type, space and layout of a dataset."""
    layout = h5p.create(h5p.DATASET_CREATE)
    layout.set_obj_track_times(False)
    if 0 not in shape:  # without a value there is nothing to check
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        layout.set_chunk((min(shape[0], max(1, _MAX_CHUNK_BYTES // row_bytes)), *shape[1:]))
        layout.set_fletcher32()
        layout.set_fill_time(h5d.FILL_TIME_NEVER)
    return h5t.py_create(dtype, logical=True), h5s.create_simple(shape), layout


def _decoded(data: bytes, fingerprint: str) -> Contents:
    """Returns the contents of a segment file.

    Raises:
        _DamageError: it cannot be parsed, or does not hold what its checksum and `fingerprint` say.
    """
    if not data:
        raise _DamageError("it is empty")
    try:
        columns, attributes = _parsed(data)
        checksum = attributes.pop("checksum", None)
        if attributes.get("fingerprint") != fingerprint:
            raise _DamageError(f"it belongs to fingerprint {str(attributes.get('fingerprint'))[:16]}")
        if attributes["format"] != FORMAT:
            raise _DamageError(f"it has format {attributes['format']}, this program reads {FORMAT}")
        expected = _attributes(columns, fingerprint)
        if attributes != expected or checksum != _checksum(columns, expected):
            raise _DamageError("its checksum or its counts do not match")
        return _as_contents(columns)
    except _PARSE_FAULTS as error:
        raise _DamageError(" ".join(str(error).split()) or type(error).__name__) from error


def _parsed(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    access = _access()
    access.set_fapl_core(2**16, False)  # parsed from memory: a fault in here is damage, never the disk
    access.set_file_image(data)
    hdf5 = h5f.open(b"segment %d" % next(_serials), h5f.ACC_RDONLY, fapl=access)
    try:
        columns = {name: _read_dataset(hdf5, name, len(data)) for name in _COLUMNS}
        root = h5py.h5g.open(hdf5, b"/")
        attributes = {name: _read_attribute(root, name) for name in ("format", "fingerprint", "images", "faces")}
        return columns, {**attributes, "checksum": _read_attribute(root, "checksum")}
    finally:
        hdf5.close()


def _read_dataset(hdf5: Any, name: str, limit: int) -> np.ndarray:
    dtype, dimensions = _COLUMNS[name]
    dataset = h5d.open(hdf5, name.encode())
    held, shape = dataset.dtype, dataset.shape
    fits = held.kind == "S" if name == "names" else held.str == dtype
    if not fits or len(shape) != dimensions:
        raise ValueError(f"dataset {name} is {held.str} {shape}")
    if held.itemsize * math.prod(shape) > limit:  # nothing is compressed
        raise ValueError(f"dataset {name} claims {shape} values, more than the file holds")
    column = np.empty(shape, held)
    if column.size:
        dataset.read(h5s.ALL, h5s.ALL, column)
    return column


def _read_attribute(root: Any, name: str) -> int | str:
    attribute = h5a.open(root, name.encode())
    held = attribute.dtype
    if attribute.shape != () or held.kind not in "iS" or held.itemsize > 64:
        raise ValueError(f"attribute {name} is {held.str} {attribute.shape}")
    scalar = np.empty((), held)
    attribute.read(scalar)
    value = scalar.item()
    return value.decode("ascii") if isinstance(value, bytes) else int(value)


def _as_contents(columns: dict[str, np.ndarray]) -> Contents:
    (table,) = columns.pop("names").tolist()
    names, labels = zip(*json.loads(table), strict=True) if len(columns["digest"]) else ((), ())
    for name in _TEXT_COLUMNS:
        columns[name] = _objects([word.decode("ascii") for word in columns[name].tolist()])
    return _checked(Contents(names=names, labels=labels, **columns))


def _segment_name(digests: np.ndarray) -> str:
    """Returns the file name of the segment with these digests (n, 32), sorted."""
    return hashlib.sha256(digests.tobytes()).hexdigest()[:32] + ".h5"


def _glimpse(path: str) -> tuple[np.ndarray, int] | None:
    """Returns the digests (n, 32) and the number of faces of a segment, unverified; None if in any doubt."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            digests, faces = file["digest"][()], int(file.attrs["faces"])
    except _PARSE_FAULTS:
        return None
    whole = isinstance(digests, np.ndarray) and digests.dtype == np.uint8 and digests.shape[1:] == (32,)
    return (digests, faces) if whole and faces >= 0 else None


# --- the index --------------------------------------------------------------------------------------------

_HEADER = struct.Struct("<8s32s3Q")  # magic, SHA-256 of fingerprint and all that follows, segments, images, distinct
_MAGIC = b"FCINDEX1"
_HASHED_FROM = 40  # behind magic and hash


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """Where each digest lies: derived from the segments, 36 bytes an image and 24 a segment; alone it proves nothing.

    Attributes:
        segments: s file names, sorted.
        starts: (s + 1,) int64, the number of images in the segments before.
        faces: (s,) uint32 in each segment, for `info` only.
        prefix: (n,) uint64, the first eight bytes of each digest as a big-endian number, ascending.
        rest: (n, 24) uint8, the other bytes.
        place: (n,) uint32, the image's place when all segments stand in a row; ascending among equal digests.
        distinct: digests that differ.
    """

    segments: tuple[str, ...]
    starts: np.ndarray
    faces: np.ndarray
    prefix: np.ndarray
    rest: np.ndarray
    place: np.ndarray
    distinct: int

    def find(self, digests: np.ndarray, dead: np.ndarray) -> np.ndarray:
        """Returns the place (int64) of each of `digests` (k, 32) in the first segment not `dead` (s,), else -1."""
        if not len(self.place):
            return np.full(len(digests), -1, np.int64)
        wanted = _words(digests)[0]
        first = np.searchsorted(self.prefix, wanted, "left")
        last = np.searchsorted(self.prefix, wanted, "right")
        found = np.full(len(digests), -1, np.int64)
        asked = np.flatnonzero(first < last)
        at = first[asked]
        while len(asked):  # once, but for copies and equal prefixes
            place = self.place[at].astype(np.int64)
            match = (self.rest[at] == digests[asked, 8:]).all(axis=1) & ~dead[self.segment_of(place)]
            found[asked[match]] = place[match]
            at = at + 1
            going_on = ~match & (at < last[asked])
            asked, at = asked[going_on], at[going_on]
        return found

    def covers(self, names: tuple[str, ...]) -> bool:
        """Returns True if it knows the rows of exactly these segments."""
        return self.segments == names and bool((np.diff(self.starts) > 0).all())

    def segment_of(self, place: np.ndarray) -> np.ndarray:
        """Returns the number of the segment of each place (int64)."""
        return np.searchsorted(self.starts, place, "right") - 1

    def digests_by_place(self) -> np.ndarray:
        """Returns all digests (n, 32) in the order of their places."""
        digests = np.empty((len(self.place), 32), np.uint8)
        digests[self.place, :8] = self.prefix.astype(">u8").view(np.uint8).reshape(-1, 8)
        digests[self.place, 8:] = self.rest
        return digests

    def pieces(self, fingerprint: str) -> list[Any]:
        """Returns the file's content as a list of buffers."""
        names = b"".join(bytes.fromhex(name[:32]) for name in self.segments)
        counts = np.diff(self.starts).astype("<u4")
        columns: list[Any] = [self.prefix.astype("<u8"), self.rest, names, self.place.astype("<u4"), counts, self.faces]
        sizes = struct.pack("<3Q", len(self.segments), len(self.place), self.distinct)
        digest = hashlib.sha256(fingerprint.encode("ascii") + sizes)
        for column in columns:
            digest.update(column)
        return [_MAGIC + digest.digest() + sizes, *columns]


def _words(digests: np.ndarray) -> list[np.ndarray]:
    """Returns the digests (n, 32) as four columns of uint64 that sort as the bytes do."""
    words = np.ascontiguousarray(digests, np.uint8).view(">u8").reshape(-1, 4)
    return [words[:, column].astype(np.uint64) for column in range(4)]


def _read_index(path: str, fingerprint: str) -> _Index | None:
    """Returns the index file, memory-mapped, or None where it is missing or damaged."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < _HEADER.size:
                return None
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error
    magic, digest, segments, images, distinct = _HEADER.unpack_from(mapped)
    if magic != _MAGIC or len(mapped) != _HEADER.size + 24 * segments + 36 * images:
        return None
    actual = hashlib.sha256(fingerprint.encode("ascii"))
    with memoryview(mapped) as view, view[_HASHED_FROM:] as covered:
        actual.update(covered)
    if actual.digest() != digest:
        return None
    return _mapped_index(mapped, segments, images, distinct)


def _mapped_index(mapped: mmap.mmap, segments: int, images: int, distinct: int) -> _Index:
    columns = []
    offset = _HEADER.size
    for dtype, count in (("<u8", images), ("|u1", 24 * images), ("|u1", 16 * segments), ("<u4", images)):
        columns.append(np.frombuffer(mapped, dtype, count, offset))
        offset += columns[-1].nbytes
    prefix, rest, names, place = columns
    counts, faces = np.frombuffer(mapped, "<u4", 2 * segments, offset).reshape(2, -1)
    digits = names.tobytes().hex()
    return _Index(
        segments=tuple(digits[at : at + 32] + ".h5" for at in range(0, len(digits), 32)),
        starts=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        faces=faces,
        prefix=prefix,
        rest=rest.reshape(-1, 24),
        place=place,
        distinct=distinct,
    )


def _built_index(found: Mapping[str, tuple[np.ndarray, int]]) -> _Index:
    """Returns the index of segments, given by name with digests (k, 32) and faces; takes 130 bytes an image."""
    segments = sorted(found)
    parts = [found[name][0] for name in segments]
    digests = np.concatenate([np.zeros((0, 32), np.uint8), *parts])
    words = _words(digests)
    order = np.lexsort(words[::-1])  # stable: equal digests stay in the order of their segments
    prefix, rest = words[0][order], np.ascontiguousarray(digests[order, 8:])
    tied = np.flatnonzero(prefix[1:] == prefix[:-1]) + 1
    copies = (rest[tied] == rest[tied - 1]).all(axis=1).sum()
    return _Index(
        segments=tuple(segments),
        starts=np.cumsum([0, *map(len, parts)], dtype=np.int64),
        faces=np.array([found[name][1] for name in segments], "<u4"),
        prefix=prefix,
        rest=rest,
        place=order.astype(np.uint32),
        distinct=len(order) - int(copies),
    )


# --- the cache --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found: counts over the whole segments, and (segment, what is wrong) for the others.

    Rows are counted: an image that stands in two segments twice. `in_place` names the damaged segments that could not
    be moved aside.
    """

    segments: int
    images: int
    faces: int
    labelled: int
    no_face: int
    rejected: int
    damaged: tuple[tuple[str, str], ...]
    in_place: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` removed: paths, sorted, and the bytes they held."""

    paths: tuple[str, ...]
    size: int


class FeatureCache:
    """The results of one features fingerprint, by content. Open it with `create` in a run, `open` in a notebook.

    Safe to use from several threads, and beside other runs on the same folder. Segments that this object or
    another run adds are found after `refresh`.

    Attributes:
        folder: of this fingerprint.
        fingerprint: SHA-256, 64 hex digits.
        settings: what the fingerprint stands for.
        damaged: (segment, what is wrong) for each damaged segment met so far.
    """

    def __init__(
        self, folder: str, fingerprint: str, settings: dict[str, Any], *, memory_bytes: int, read_only: bool = False
    ) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.settings = settings
        self.damaged: list[tuple[str, str]] = []
        self._memory_bytes = memory_bytes
        self._read_only = read_only
        self._lock = threading.RLock()
        self._warm: OrderedDict[str, tuple[Contents, int]] = OrderedDict()
        self._warm_bytes = 0
        self._unasked: dict[str, int] = {}  # of each warm segment: images that nobody has looked up yet
        self._stuck: set[str] = set()  # damaged, and not to be moved
        self._held: dict[str, np.ndarray] = {}  # columns of the whole, once asked for
        self._width = 0  # of the features, as far as known
        self._index = _built_index({})
        self._dead = np.zeros(0, bool)
        self.refresh()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        fingerprint: str | None = None,
        *,
        memory_bytes: int = DEFAULT_MEMORY,
        read_only: bool = False,
    ) -> FeatureCache:
        """Opens an existing cache to read.

        Args:
            path: the cache, if it holds one fingerprint, or one fingerprint's folder in it.
            fingerprint: which one, by at least its first 16 hex digits.
            memory_bytes: for segments kept in memory between lookups.
            read_only: True to leave the folder as it is: the index stays in memory, damaged segments in their place.

        Raises:
            FormatError: there is no cache, or there are several fingerprints to choose from.
            StorageError: the folder cannot be read.
        """
        folder = _find_folder(_local(path), fingerprint)
        held = _read_fingerprint(folder)
        if held is None:
            raise FormatError(f"{_fingerprint_file(folder)} is damaged; a run with this cache writes it anew")
        digest, name = held["sha256"], os.path.basename(os.path.abspath(folder))
        if _FOLDER.match(name) and name != digest[:16]:
            raise FormatError(f"{_fingerprint_file(folder)} is that of {digest[:16]}; put the file of {name} back")
        if fingerprint is not None and digest[: len(fingerprint)] != fingerprint:
            raise FormatError(f"{folder} has fingerprint {digest[:16]}, not {fingerprint[:16]}; name the other folder")
        return cls(folder, digest, held["settings"], memory_bytes=memory_bytes, read_only=read_only)

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        fingerprint: Mapping[str, Any] | str,
        *,
        memory_bytes: int = DEFAULT_MEMORY,
    ) -> FeatureCache:
        """Opens the folder of one fingerprint below `root` to read and to add; makes it where it is missing.

        Args:
            root: the cache; may hold other fingerprints.
            fingerprint: all that can change features, as a mapping or as its canonical JSON.
            memory_bytes: for segments kept in memory between lookups.

        Raises:
            FormatError: the folder states another fingerprint.
            StorageError: the folder cannot be made, read or written.
        """
        text = fingerprint if isinstance(fingerprint, str) else canonical_json(fingerprint)
        settings, digest = json.loads(text), fingerprint_of(text)
        if not isinstance(settings, dict):
            raise ValueError(f"a fingerprint stands for named settings, not for {text[:80]}")
        folder = os.path.join(_local(root), digest[:16])
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise storage_error("create", folder, error) from error
        held = _read_fingerprint(folder)
        if held is None:  # new, or lost its file; the segments say for themselves what they belong to
            _write_fingerprint(folder, settings, digest)
        elif held["sha256"] != digest or canonical_json(held["settings"]) != canonical_json(settings):
            raise FormatError(f"{_fingerprint_file(folder)} states other settings; name another --cache DIR")
        _tidy(folder)
        return cls(folder, digest, settings, memory_bytes=memory_bytes)

    def __len__(self) -> int:
        """Returns the number of image contents known when the cache was opened or refreshed."""
        return self._index.distinct

    def lookup(self, digests: np.ndarray) -> tuple[np.ndarray, Contents]:
        """Finds what is known of images.

        Args:
            digests: (n, 32) uint8, SHA-256 of the encoded bytes; a row of zeros means "no bytes", never a hit.

        Returns:
            hit: (n,) bool.
            contents: of the hits, in the order of `digests`, from verified segments only.

        Raises:
            StorageError: a segment cannot be read, though it may be whole.
        """
        digests = _column("digest", digests, (len(digests), 32), np.uint8)
        hit = np.zeros(len(digests), bool)
        with self._lock:
            rows, parts = self._gather(digests, np.flatnonzero(digests.any(axis=1)))
        if not parts:
            return hit, _no_contents(self._width)
        hit[rows] = True
        contents = Contents.concatenate(parts)
        in_order = len(parts) == 1 or bool((np.diff(rows) > 0).all())
        return hit, contents if in_order else contents.take(np.argsort(rows))

    def add(self, contents: Contents) -> str | None:
        """Stores results as one segment and returns its file name; None where there is nothing to store.

        Rows without bytes (a digest of zeros) are left out, of equal digests the first is kept. A segment that
        stands there already is left alone.

        Raises:
            ValueError: a column does not fit the others.
            StorageError: the disk is full or forbidden; nothing half-written stays.
        """
        contents = _checked(contents)
        rows = _distinct_rows(contents.digest)
        if not len(rows):
            return None
        contents = contents.take(rows)
        name = _segment_name(contents.digest)
        path = os.path.join(self.folder, name)
        if name in self._stuck or not os.path.exists(path):
            data = _encoded(contents, self.fingerprint)
            publish(path, lambda file: file.write(data))
            self._stuck.discard(name)
        return name

    def refresh(self) -> None:
        """Takes in what was added, moved or removed since; reads new segments only, and none if none is new.

        Raises:
            StorageError: the folder or a segment cannot be read.
        """
        with self._lock:
            names = self._listed()
            if not self._index.covers(names):
                path = os.path.join(self.folder, INDEX_FILE)
                index = _read_index(path, self.fingerprint)
                if index is None or not index.covers(names):
                    index = self._rebuilt(names, index or self._index, path)
                self._index = index
            self._dead = np.array([name in self._stuck for name in self._index.segments], bool)
            self._held.clear()

    @property
    def ids(self) -> np.ndarray:
        """(n,) object: the id of each image content when it was first seen. Order: by segment, then by digest."""
        return self._whole("ids")

    @property
    def labels(self) -> np.ndarray:
        """(n,) object: the label of each image content when it was first seen, None where unknown; as `ids`."""
        return self._whole("labels")

    @property
    def features(self) -> np.ndarray:
        """(m, d) float16: the features of all faces; row i belongs to `face_ids[i]` and `face_labels[i]`.

        Needs twice their size of memory while it is read: for more than that, see `batches`.
        """
        if "features" not in self._held:
            parts = [contents.features for contents in self._segments()]
            self._held["features"] = _joined_features([np.zeros((0, self._width), np.float16), *parts])
        return self._held["features"]

    @property
    def face_ids(self) -> np.ndarray:
        """(m,) object: the image id of each row of `features`."""
        return np.repeat(self._whole("ids"), self._whole("faces"))

    @property
    def face_labels(self) -> np.ndarray:
        """(m,) object: the label, or None, of each row of `features`."""
        return np.repeat(self._whole("labels"), self._whole("faces"))

    def batches(
        self, size: int, shuffle_seed: int | None = None, *, labelled: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (features, labels) of all faces in batches, for training on more than memory holds.

        Args:
            size: rows a batch; the last is shorter.
            shuffle_seed: a number gives its own order: segments are shuffled, then faces among 16 segments at a
                time. None keeps the order of `features`.
            labelled: True to leave out faces whose label is unknown.

        Yields:
            features: (size, d) float16.
            labels: (size,) object, None where unknown.
        """
        if size < 1:
            raise ValueError(f"a batch has at least 1 row, not {size}")
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        rows = 0  # that wait
        for features, labels in self._pools(shuffle_seed):
            if labelled:
                known = np.array([label is not None for label in labels.tolist()], bool)
                features, labels = features[known], labels[known]
            if not len(labels):
                continue
            waiting.append((features, labels))
            rows += len(labels)
            if rows < size:
                continue
            features, labels = _joined_pairs(waiting)
            whole = len(labels) - len(labels) % size
            for at in range(0, whole, size):
                yield features[at : at + size], labels[at : at + size]
            waiting, rows = [(features[whole:].copy(), labels[whole:])], len(labels) - whole
        features, labels = _joined_pairs(waiting)
        if len(labels):
            yield features, labels

    def info(self) -> dict[str, Any]:
        """Returns what the cache is and holds, by name; reads no segment. JSON can hold it.

        An image that stands in two segments is one of the `images`; `faces` are those of all segments.
        """
        sizes = self._file_sizes()
        segments = [size for name, size in sizes.items() if _SEGMENT.match(name)]
        return {
            "folder": self.folder,
            "fingerprint": self.fingerprint,
            "images": len(self),
            "faces": int(self._index.faces.sum()),
            "segments": len(segments),
            "bytes": sum(segments),
            "index_bytes": sizes.get(INDEX_FILE, 0),
            "damaged": sum(1 for name in sizes if _DAMAGED_SEGMENT.match(name)),
            "leftovers": sum(map(is_temporary, sizes)),
            "settings": self.settings,
        }

    def verify(self, progress: Callable[[int, int], object] | None = None) -> Report:
        """Reads every segment whole, moves damaged ones aside where it may, and returns what it found.

        Args:
            progress: called with (segments done, segments in all) after each.

        Raises:
            StorageError: a segment cannot be read.
        """
        names = self._listed()
        damaged = []
        whole = faces = 0
        statuses = dict.fromkeys(_CACHED, 0)
        for done, name in enumerate(names, 1):
            read = self._read_segment(name)
            if read is not None:
                whole += 1
                faces += len(read[0].face_image)
                for status in statuses:
                    statuses[status] += int((read[0].status == status).sum())
            elif name in dict(self.damaged):  # else another run pruned it
                damaged.append((name, dict(self.damaged)[name]))
            if progress is not None:
                progress(done, len(names))
        self.refresh()
        return Report(
            segments=whole,
            images=sum(statuses.values()),
            faces=faces,
            labelled=statuses[Status.LABELLED],
            no_face=statuses[Status.NO_FACE],
            rejected=statuses[Status.REJECTED],
            damaged=tuple(damaged),
            in_place=tuple(name for name, _ in damaged if name in self._stuck),
        )

    def prune(self, keep: Collection[str] | None = None) -> Pruned:
        """Removes what is of no use: damaged segments, leftovers of killed runs, and on request other fingerprints.

        Args:
            keep: None to leave other fingerprints alone; else the fingerprints (16 hex digits or more) to keep
                beside this one, so that `()` keeps this one only. Files that a cache does not write stay.

        Raises:
            StorageError: a file cannot be removed.
        """
        removed = _removed(self.folder, _DAMAGED_SEGMENT.match)
        if keep is not None:
            root = os.path.dirname(os.path.abspath(self.folder))
            kept = {fingerprint[:16] for fingerprint in (*keep, self.fingerprint)}
            for name in fingerprint_folders(root, lost=True):
                if name not in kept:
                    removed |= _removed_folder(os.path.join(root, name))
        return Pruned(tuple(sorted(removed)), sum(removed.values()))

    # -- behind the scenes

    def _listed(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self._file_sizes(sized=False) if _SEGMENT.match(name)))

    def _file_sizes(self, *, sized: bool = True) -> dict[str, int]:
        """Returns the bytes of each file in the folder (0 unless `sized`, which asks the disk for each)."""
        return _file_sizes(self.folder, sized=sized)

    def _rebuilt(self, names: tuple[str, ...], old: _Index, path: str) -> _Index:
        """Returns the index of `names`, published if possible; what `old` knows is not read again."""
        logger.info("%s: indexing %d segments", self.folder, len(names))
        digests = old.digests_by_place()
        bounds = old.starts.tolist()
        known = {
            name: (digests[start:stop], int(faces))
            for name, start, stop, faces in zip(old.segments, bounds, bounds[1:], old.faces, strict=False)
            if start < stop
        }
        found: dict[str, tuple[np.ndarray, int]] = {}
        for name in names:
            entry = known.get(name) or _glimpse(os.path.join(self.folder, name)) or self._digests_of(name)
            if entry is not None:
                found[name] = entry
        index = _built_index(found)
        if self._read_only:
            return index
        try:
            publish(path, lambda file: file.writelines(index.pieces(self.fingerprint)))
        except StorageError as error:
            if error.errno not in {*REFUSED, errno.ENOSPC, errno.EDQUOT}:
                raise
            logger.warning("the index stays in memory: %s", error)
            return index
        mapped = _read_index(path, self.fingerprint)
        return mapped if mapped is not None and mapped.segments == index.segments else index

    def _digests_of(self, name: str) -> tuple[np.ndarray, int] | None:
        """Returns digests and faces of a segment that could not be glimpsed at, or None where it is of no use."""
        read = self._read_segment(name)
        if read is not None:
            return read[0].digest, len(read[0].face_image)
        return (np.zeros((0, 32), np.uint8), 0) if name in self._stuck else None  # listed for ever: so is its absence

    def _segment(self, name: str) -> Contents | None:
        """Returns a verified segment, kept in memory for the next time; None where it is damaged or gone."""
        with self._lock:
            if name in self._warm:
                self._warm.move_to_end(name)
                return self._warm[name][0]
        read = self._read_segment(name)
        if read is None:
            return None
        with self._lock:
            if name not in self._warm:
                self._warm[name] = read
                self._warm_bytes += read[1]
                self._unasked[name] = len(read[0])
            while self._warm_bytes > self._memory_bytes:
                self._let_go(next(iter(self._warm)))
        return read[0]

    def _note_asked(self, name: str, images: int) -> None:
        """Lets go of a segment when each of its images was looked up: a run asks once, mostly in the cache's order."""
        if name in self._unasked:
            self._unasked[name] -= images
            if self._unasked[name] <= 0:
                self._let_go(name)

    def _let_go(self, name: str) -> None:
        self._warm_bytes -= self._warm.pop(name)[1]
        del self._unasked[name]

    def _read_segment(self, name: str) -> tuple[Contents, int] | None:
        """Returns a segment, verified, and its bytes; None where it is gone, or damaged (then it is moved aside)."""
        path = os.path.join(self.folder, name)
        for _ in range(3):  # another run may put a whole one in place of the damaged one just read
            try:
                with open(path, "rb") as file:
                    stamp, data = _stamp(os.fstat(file.fileno())), file.read()
            except FileNotFoundError:
                logger.debug("%s is gone: pruned by another run", path)
                return None
            except OSError as error:
                raise storage_error("read", path, error) from error
            try:
                contents = _decoded(data, self.fingerprint)
            except _DamageError as fault:
                if self._move_aside(name, stamp, str(fault)):
                    return None
            else:
                self._width = contents.features.shape[1] or self._width
                return contents, len(data)
        return None

    def _move_aside(self, name: str, stamp: tuple[int, ...], why: str) -> bool:
        """Renames a damaged segment and reports it; False if another file stands there by now."""
        path = os.path.join(self.folder, name)
        try:
            if _stamp(os.stat(path)) != stamp:
                return False
            if self._read_only:
                self._stuck.add(name)
            else:
                os.replace(path, path + DAMAGED)
        except FileNotFoundError:
            pass  # another run was quicker
        except OSError as error:
            self._stuck.add(name)
            logger.warning("%s is damaged and cannot be moved aside (%s)", path, error.strerror)
        if (name, why) not in self.damaged:
            self.damaged.append((name, why))
        logger.warning("%s is damaged (%s): not used, its images count as new", path, why)
        return True

    def _gather(self, digests: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, list[Contents]]:
        """Returns which rows of `asked` are known, and their contents in that order, a part a segment."""
        rows: list[np.ndarray] = [np.zeros(0, np.intp)]
        parts: list[Contents] = []
        while len(asked):
            places = self._index.find(digests[asked], self._dead)
            asked, places = asked[places >= 0], places[places >= 0]
            again = [np.zeros(0, np.intp)]
            for number, mine in _groups(self._index.segment_of(places)):
                contents = self._segment(self._index.segments[number])
                if contents is None:  # perhaps another segment holds copies
                    self._dead[number] = True
                    again.append(asked[mine])
                    continue
                at = places[mine] - self._index.starts[number]
                at = np.where(at < len(contents), at, 0)
                same = (contents.digest[at] == digests[asked[mine]]).all(axis=1)  # the index alone proves nothing
                rows.append(asked[mine][same])
                parts.append(contents.take(at[same]))
                self._note_asked(self._index.segments[number], len(parts[-1]))
            asked = np.concatenate(again)
        return np.concatenate(rows), parts

    def _segments(self, order: Iterable[int] | None = None) -> Iterator[Contents]:
        """Yields the segments, without those images that an earlier one holds too; they are not kept in memory."""
        index, dead = self._index, self._dead  # of one moment, should `refresh` be called meanwhile
        for number in range(len(index.segments)) if order is None else order:
            read = None if dead[number] else self._read_segment(index.segments[number])
            if read is None:
                dead[number] = True
                continue
            contents = read[0]
            own = index.find(contents.digest, dead) == index.starts[number] + np.arange(len(contents))
            yield contents if own.all() else contents.take(np.flatnonzero(own))

    def _pools(self, shuffle_seed: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (features, labels) a segment in order, or some segments at a time, shuffled."""
        if shuffle_seed is None:
            yield from map(_training_rows, self._segments())
            return
        random = np.random.default_rng(shuffle_seed)
        order = random.permutation(len(self._index.segments)).tolist()
        for at in range(0, len(order), _POOL_SEGMENTS):
            pool = self._segments(order[at : at + _POOL_SEGMENTS])
            features, labels = _joined_pairs([_training_rows(contents) for contents in pool])
            mixed = random.permutation(len(labels))
            yield features[mixed], labels[mixed]

    def _whole(self, name: str) -> np.ndarray:
        """Returns ids, labels or faces (a number an image) of the whole cache."""
        if name not in self._held:
            ids: list[str] = []
            labels: list[str | None] = []
            faces = [np.zeros(0, np.intp)]
            for contents in self._segments():
                ids += contents.names
                labels += contents.labels
                faces.append(np.bincount(contents.face_image, minlength=len(contents)))
            self._held |= {"ids": _objects(ids), "labels": _objects(labels), "faces": np.concatenate(faces)}
        return self._held[name]


def _distinct_rows(digests: np.ndarray) -> np.ndarray:
    """Returns the rows of `digests` (n, 32), sorted by digest: the first of equal ones, none of zeros only."""
    order = np.lexsort(_words(digests)[::-1])
    ordered = digests[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order[new & ordered.any(axis=1)]


def _groups(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each number that occurs, ascending, with the rows where it does."""
    order = np.argsort(numbers, kind="stable")
    cuts = np.flatnonzero(np.diff(numbers[order])) + 1
    for rows in np.split(order, cuts):
        if len(rows):
            yield int(numbers[rows[0]]), rows


def _training_rows(contents: Contents) -> tuple[np.ndarray, np.ndarray]:
    return contents.features, _objects(list(contents.labels))[contents.face_image]


def _joined_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.concatenate([np.zeros(0, object), *(labels for _, labels in pairs)])
    return _joined_features([features for features, _ in pairs]), labels


def _stamp(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _file_sizes(folder: str, *, sized: bool = True) -> dict[str, int]:
    sizes = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # removed while we look
                    if entry.is_file():
                        sizes[entry.name] = entry.stat().st_size if sized else 0
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise storage_error("read", folder, error) from error
    return sizes


def _tidy(folder: str) -> None:
    """Removes leftovers of killed runs, if it may: a folder that can only be read is of use with them, too."""
    try:
        remove_leftovers(folder)
    except StorageError as error:
        if error.errno not in REFUSED:
            raise
        logger.info("leftovers stay: %s", error)


def _removed(folder: str, unwanted: Callable[[str], object]) -> dict[str, int]:
    """Removes the files that are `unwanted`, and leftovers; returns the bytes of each path."""
    sizes = _file_sizes(folder)
    gone = remove_leftovers(folder)
    for name in sizes:
        if unwanted(name):
            try:
                os.unlink(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise storage_error("remove", os.path.join(folder, name), error) from error
            gone.append(name)
    return {os.path.join(folder, name): sizes.get(name, 0) for name in gone}


def _removed_folder(folder: str) -> dict[str, int]:
    """Removes the folder of a fingerprint, all but files that a cache does not write; its description goes last."""
    removed = _removed(folder, lambda name: _SEGMENT.match(name) or _DAMAGED_SEGMENT.match(name) or name == INDEX_FILE)
    removed |= _removed(folder, lambda name: name == FINGERPRINT_FILE)
    try:
        os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise storage_error("remove", folder, error) from error
        logger.warning("%s stays: it holds files that are not the cache's", folder)
    return removed
