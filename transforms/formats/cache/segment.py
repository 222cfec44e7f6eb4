"""Encodes contents as a segment, an HDF5 file with a checksum, and decodes it. Any mismatch counts as damage."""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5p, h5s, h5t

from transforms.formats.cache.contents import Contents, checked_contents, object_array

FORMAT = 1  # version of the segment format; a reader refuses a version it does not know
_MAX_CHUNK_BYTES = 16 * 2**20  # HDF5 allows 4 GiB, but no reader should need that much at once


class SegmentDamage(Exception):
    """The bytes of a segment are not what was written; the message says what is wrong."""


_serials = itertools.count()  # HDF5 treats two open images of one name as one file, across threads
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


def encoded_segment(contents: Contents, fingerprint: str) -> memoryview:
    """Returns the bytes of a segment file; equal contents always give equal bytes."""
    columns = {name: getattr(contents, name) for name in _COLUMNS if name != "names"}
    columns |= {name: np.array(columns[name].tolist(), dtype) for name, dtype in _TEXT_COLUMNS.items()}
    # One JSON text: fixed-width strings would cut NULs and pad to the longest, and HDF5 checksums no other kind.
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
    """Returns the SHA-256 of a JSON line of attributes, dtypes and shapes, followed by each column's bytes."""
    head = [[name, columns[name].dtype.str, columns[name].shape] for name in _COLUMNS]
    digest = hashlib.sha256(json.dumps([attributes, head], sort_keys=True).encode("ascii") + b"\n")
    for name in _COLUMNS:
        digest.update(columns[name].data)
    return digest.hexdigest()


def _hdf5(columns: Mapping[str, np.ndarray], attributes: Mapping[str, int | str]) -> memoryview:
    """Returns an HDF5 file made in memory: h5py reports a full disk in many ways, `publish` in a clear one."""
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
    """Writes and closes a dataset; HDF5 allocates its values' place in the file at closing."""
    kind, space, layout = _description(column.dtype, column.shape)
    dataset = h5d.create(hdf5, name.encode(), kind, space, layout)
    if column.size:
        dataset.write(h5s.ALL, h5s.ALL, column, kind)


@functools.cache
def _timeless() -> Any:
    created = h5p.create(h5p.FILE_CREATE)
    created.set_obj_track_times(False)
    return created


@functools.lru_cache(64)  # segments of a run are alike, and making these is a fifth of a segment's time
def _description(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Returns type, space and layout of a dataset."""
    layout = h5p.create(h5p.DATASET_CREATE)
    layout.set_obj_track_times(False)
    if 0 not in shape:  # an empty dataset needs no checksum
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        layout.set_chunk((min(shape[0], max(1, _MAX_CHUNK_BYTES // row_bytes)), *shape[1:]))
        layout.set_fletcher32()
        layout.set_fill_time(h5d.FILL_TIME_NEVER)
    return h5t.py_create(dtype, logical=True), h5s.create_simple(shape), layout


def decoded_segment(data: bytes, fingerprint: str) -> Contents:
    """Returns the contents of a segment file.

    Raises:
        SegmentDamage: it cannot be parsed, or its checksum or `fingerprint` does not match.
    """
    if not data:
        raise SegmentDamage("it is empty")
    try:
        columns, attributes = _parsed(data)
        checksum = attributes.pop("checksum", None)
        if attributes.get("fingerprint") != fingerprint:
            raise SegmentDamage(f"it belongs to fingerprint {str(attributes.get('fingerprint'))[:16]}")
        if attributes["format"] != FORMAT:
            raise SegmentDamage(f"it has format {attributes['format']}, and this program reads {FORMAT}")
        expected = _attributes(columns, fingerprint)
        if attributes != expected or checksum != _checksum(columns, expected):
            raise SegmentDamage("its checksum or its counts do not match")
        return _as_contents(columns)
    except _PARSE_FAULTS as error:
        raise SegmentDamage(" ".join(str(error).split()) or type(error).__name__) from error


def _parsed(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    access = _access()
    access.set_fapl_core(2**16, False)  # parsed from memory, so an error is damage, never the disk
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
    if held.itemsize * math.prod(shape) > limit:  # exact, as nothing is compressed
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
        columns[name] = object_array([word.decode("ascii") for word in columns[name].tolist()])
    return checked_contents(Contents(names=names, labels=labels, **columns))


def segment_name(digests: np.ndarray) -> str:
    """Returns the file name of the segment with these digests (n, 32), sorted."""
    return hashlib.sha256(digests.tobytes()).hexdigest()[:32] + ".h5"


def glimpse(path: str) -> tuple[np.ndarray, int] | None:
    """Returns the digests (n, 32) and the number of faces of a segment, unverified; None if anything looks wrong."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            digests, faces = file["digest"][()], int(file.attrs["faces"])
    except _PARSE_FAULTS:
        return None
    whole = isinstance(digests, np.ndarray) and digests.dtype == np.uint8 and digests.shape[1:] == (32,)
    return (digests, faces) if whole and faces >= 0 else None
