"""The cache of features, by content: the results of every image seen under one cache key.

A cache folder holds immutable HDF5 segments and an index derived from them. An entry is believed only if the
digest of the image's bytes, the fingerprint and the segment's checksum all match; anything else is a miss.
Not here: how features are computed, what a cache key covers (`pipeline/run/identity.py`), object stores.

In a notebook: `cache = FeatureCache.open("out/cache")`, then `cache.features` and, row by row, `cache.face_labels`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from transforms.formats.cache.contents import (
    CACHED_STATUSES,
    Contents,
    checked_column,
    checked_contents,
    joined_features,
    joined_pairs,
    no_contents,
    object_array,
    training_rows,
)
from transforms.formats.cache.findings import Pruned, Report
from transforms.formats.cache.folders import (
    DAMAGED_SEGMENT_NAME,
    FOLDER_NAME,
    INDEX_FILE,
    SEGMENT_NAME,
    file_sizes,
    find_folder,
    fingerprint_file,
    fingerprint_folders,
    local_path,
    read_fingerprint,
    remove_folder,
    remove_unwanted,
    tidy_folder,
    write_fingerprint,
)
from transforms.formats.cache.index import Index, built_index, distinct_rows, groups_of, read_index
from transforms.formats.cache.segment import encoded_segment, glimpse, segment_name
from transforms.formats.cache.segments import Segments
from transforms.formats.canonical import canonical_json, digest_of_canonical
from transforms.formats.publish import REFUSED, StorageError, is_temporary, publish, storage_error
from transforms.formats.records import FormatError, Status

logger = logging.getLogger("pipeline.cache")
DEFAULT_MEMORY = 128 * 2**20  # bytes of verified segments kept: about 900 segments of 256 images with 256 features
_POOL_SEGMENTS = 16  # shuffled together by `batches`: 4,096 images, some MB


class FeatureCache:
    """The results of one cache key, by content. Open it with `create` in a run, `open` in a notebook.

    Safe to use from several threads, and while other runs use the same folder. Segments that this object or
    another run adds are found after `refresh`.

    Attributes:
        folder: the folder of this fingerprint.
        fingerprint: SHA-256, 64 hex digits.
        settings: the settings that the fingerprint is the digest of.
    """

    def __init__(
        self,
        folder: str,
        fingerprint: str,
        settings: dict[str, Any],
        *,
        memory_bytes: int,
        read_only: bool = False,
        segments: Segments | None = None,
    ) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.settings = settings
        self._segments = segments or Segments(folder, fingerprint, memory_bytes=memory_bytes, read_only=read_only)
        self._lock = threading.RLock()
        self._held: dict[str, np.ndarray] = {}  # columns of the whole cache, filled when first used
        self._index = built_index({})
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
        """Opens an existing cache for reading.

        Args:
            path: the cache, if it holds one fingerprint, or one fingerprint's folder in it.
            fingerprint: which one, by at least its first 16 hex digits.
            memory_bytes: for segments kept in memory between lookups.
            read_only: True to change nothing in the folder: the index stays in memory, damaged segments stay in place.

        Raises:
            FormatError: there is no cache, or it has several fingerprints and none was chosen.
            StorageError: the folder cannot be read.
        """
        folder = find_folder(local_path(path), fingerprint)
        held = read_fingerprint(folder)
        if held is None:
            raise FormatError(f"{fingerprint_file(folder)} is damaged; a run with this cache rewrites it")
        digest, name = held["sha256"], os.path.basename(os.path.abspath(folder))
        if FOLDER_NAME.match(name) and name != digest[:16]:
            raise FormatError(f"{fingerprint_file(folder)} belongs to {digest[:16]}; restore the file of {name}")
        if fingerprint is not None and digest[: len(fingerprint)] != fingerprint:
            raise FormatError(f"{folder} has fingerprint {digest[:16]}, not {fingerprint[:16]}; give the other folder")
        return cls(folder, digest, held["settings"], memory_bytes=memory_bytes, read_only=read_only)

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        fingerprint: Mapping[str, Any] | str,
        *,
        memory_bytes: int = DEFAULT_MEMORY,
    ) -> FeatureCache:
        """Opens the folder of one fingerprint below `root` for reading and adding; creates it if it is missing.

        Args:
            root: the cache; may hold other fingerprints.
            fingerprint: every setting that can change features, as a mapping or as its canonical JSON.
            memory_bytes: for segments kept in memory between lookups.

        Raises:
            FormatError: the folder's fingerprint.json has other settings.
            StorageError: the folder cannot be made, read or written.
        """
        text = fingerprint if isinstance(fingerprint, str) else canonical_json(fingerprint)
        settings, digest = json.loads(text), digest_of_canonical(text)
        if not isinstance(settings, dict):
            raise ValueError(f"a fingerprint needs a JSON object of settings, not {text[:80]}")
        folder = os.path.join(local_path(root), digest[:16])
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise storage_error("create", folder, error) from error
        held = read_fingerprint(folder)
        if held is None:  # new, or its file is lost; each segment states its own fingerprint
            write_fingerprint(folder, settings, digest)
        elif held["sha256"] != digest or canonical_json(held["settings"]) != canonical_json(settings):
            raise FormatError(f"{fingerprint_file(folder)} has other settings; give another --cache DIR")
        tidy_folder(folder)
        return cls(folder, digest, settings, memory_bytes=memory_bytes)

    @property
    def damaged(self) -> list[tuple[str, str]]:
        """(segment, what is wrong) for each damaged segment found so far."""
        return self._segments.damaged

    def __len__(self) -> int:
        """Returns the number of image contents known when the cache was opened or refreshed."""
        return self._index.distinct

    def lookup(self, digests: np.ndarray) -> tuple[np.ndarray, Contents]:
        """Finds the cached results of images.

        Args:
            digests: (n, 32) uint8, SHA-256 of the encoded bytes; a row of zeros means "no bytes", never a hit.

        Returns:
            hit: (n,) bool.
            contents: the results of the hits, in the order of `digests`, from verified segments only.

        Raises:
            StorageError: a segment cannot be read, though it may be intact.
        """
        digests = checked_column("digest", digests, (len(digests), 32), np.uint8)
        hit = np.zeros(len(digests), bool)
        with self._lock:
            rows, parts = self._gather(digests, np.flatnonzero(digests.any(axis=1)))
        if not parts:
            return hit, no_contents(self._segments.width)
        hit[rows] = True
        contents = Contents.concatenate(parts)
        in_order = len(parts) == 1 or bool((np.diff(rows) > 0).all())
        return hit, contents if in_order else contents.take(np.argsort(rows))

    def add(self, contents: Contents) -> str | None:
        """Stores results as one segment and returns its file name; None if there is nothing to store.

        Rows without bytes (a digest of zeros) are skipped. Of rows with equal digests, the first is kept. An
        existing segment is not replaced.

        Raises:
            ValueError: a column does not fit the others.
            StorageError: the disk is full, or permission is missing; no half-written file remains.
        """
        contents = checked_contents(contents)
        rows = distinct_rows(contents.digest)
        if not len(rows):
            return None
        contents = contents.take(rows)
        name = segment_name(contents.digest)
        if name in self._segments.stuck or not self._stands(name):
            self._publish(name, contents, encoded_segment(contents, self.fingerprint))
            self._segments.stuck.discard(name)
        return name

    def refresh(self) -> None:
        """Picks up segments that were added, moved or removed since the last time; reads only new ones.

        Raises:
            StorageError: the folder or a segment cannot be read.
        """
        with self._lock:
            names = self._listed()
            if not self._index.covers(names):
                path = os.path.join(self.folder, INDEX_FILE)
                index = read_index(path, self.fingerprint)
                if index is None or not index.covers(names):
                    index = self._rebuilt(names, index or self._index, path)
                self._index = index
            self._dead = np.array([name in self._segments.stuck for name in self._index.segments], bool)
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

        Reading needs twice their size in memory. If that is too much, use `batches`.
        """
        if "features" not in self._held:
            parts = [contents.features for contents in self._in_turn()]
            self._held["features"] = joined_features([np.zeros((0, self._segments.width), np.float16), *parts])
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
            size: rows per batch; the last batch may be shorter.
            shuffle_seed: each number gives its own order: segments are shuffled, then the faces of 16 segments at a
                time. None keeps the order of `features`.
            labelled: True to leave out faces whose label is unknown.

        Yields:
            features: (size, d) float16.
            labels: (size,) object, None where unknown.
        """
        if size < 1:
            raise ValueError(f"a batch needs at least 1 row, not {size}")
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        rows = 0  # held back for the next batch
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
            features, labels = joined_pairs(waiting)
            whole = len(labels) - len(labels) % size
            for at in range(0, whole, size):
                yield features[at : at + size], labels[at : at + size]
            waiting, rows = [(features[whole:].copy(), labels[whole:])], len(labels) - whole
        features, labels = joined_pairs(waiting)
        if len(labels):
            yield features, labels

    def info(self) -> dict[str, Any]:
        """Returns a summary of the cache, fit for JSON; reads no segment.

        `images` counts an image in two segments once; `faces` counts the faces of all segments.
        """
        sizes = self._file_sizes()
        segments = [size for name, size in sizes.items() if SEGMENT_NAME.match(name)]
        return {
            "folder": self.folder,
            "fingerprint": self.fingerprint,
            "images": len(self),
            "faces": int(self._index.faces.sum()),
            "segments": len(segments),
            "bytes": sum(segments),
            "index_bytes": sizes.get(INDEX_FILE, 0),
            "damaged": sum(1 for name in sizes if DAMAGED_SEGMENT_NAME.match(name)),
            "leftovers": sum(map(is_temporary, sizes)),
            "settings": self.settings,
        }

    def verify(self, progress: Callable[[int, int], object] | None = None) -> Report:
        """Reads every segment in full, moves damaged ones aside if permitted, and returns what it found.

        Args:
            progress: called after each segment with (segments done, total).

        Raises:
            StorageError: a segment cannot be read.
        """
        names = self._listed()
        damaged = []
        whole = faces = 0
        statuses = dict.fromkeys(CACHED_STATUSES, 0)
        for done, name in enumerate(names, 1):
            read = self._segments.read(name)
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
            in_place=tuple(name for name, _ in damaged if name in self._segments.stuck),
        )

    def prune(self, keep: Collection[str] | None = None) -> Pruned:
        """Removes damaged segments, leftovers of killed runs and, on request, other fingerprints.

        Args:
            keep: None to keep all other fingerprints. Else the fingerprints (16 hex digits or more) to keep besides
                this one, so `()` keeps only this one. Files that a cache does not write always stay.

        Raises:
            StorageError: a file cannot be removed.
        """
        removed = remove_unwanted(self.folder, DAMAGED_SEGMENT_NAME.match)
        if keep is not None:
            root = os.path.dirname(os.path.abspath(self.folder))
            kept = {fingerprint[:16] for fingerprint in (*keep, self.fingerprint)}
            for name in fingerprint_folders(root, lost=True):
                if name not in kept:
                    removed |= remove_folder(os.path.join(root, name))
        return Pruned(tuple(sorted(removed)), sum(removed.values()))

    # -- internals; those that touch segment files are replaced where the segments are objects

    def _stands(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.folder, name))

    def _publish(self, name: str, contents: Contents, data: memoryview) -> None:
        publish(os.path.join(self.folder, name), lambda file: file.write(data))

    def _glimpsed(self, name: str) -> tuple[np.ndarray, int] | None:
        """Returns the digests and the number of faces of a segment, unverified; None if they cannot be had cheaply."""
        return glimpse(os.path.join(self.folder, name))

    def _listed(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self._file_sizes(sized=False) if SEGMENT_NAME.match(name)))

    def _file_sizes(self, *, sized: bool = True) -> dict[str, int]:
        """Returns the size in bytes of each file in the folder (0 unless `sized`, which costs a stat per file)."""
        return file_sizes(self.folder, sized=sized)

    def _rebuilt(self, names: tuple[str, ...], old: Index, path: str) -> Index:
        """Returns the index of `names`, published if possible; segments that `old` covers are not read again."""
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
            entry = known.get(name) or self._glimpsed(name) or self._segments.digests_of(name)
            if entry is not None:
                found[name] = entry
        index = built_index(found)
        if self._segments.read_only:
            return index
        try:
            publish(path, lambda file: file.writelines(index.pieces(self.fingerprint)))
        except StorageError as error:
            if error.errno not in {*REFUSED, errno.ENOSPC, errno.EDQUOT}:
                raise
            logger.warning("the index stays in memory: %s", error)
            return index
        mapped = read_index(path, self.fingerprint)
        return mapped if mapped is not None and mapped.segments == index.segments else index

    def _gather(self, digests: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, list[Contents]]:
        """Returns which rows of `asked` are known, and their contents in that order, one part per segment."""
        rows: list[np.ndarray] = [np.zeros(0, np.intp)]
        parts: list[Contents] = []
        while len(asked):
            places = self._index.find(digests[asked], self._dead)
            asked, places = asked[places >= 0], places[places >= 0]
            again = [np.zeros(0, np.intp)]
            for number, mine in groups_of(self._index.segment_of(places)):
                contents = self._segments.kept(self._index.segments[number])
                if contents is None:  # another segment may hold copies
                    self._dead[number] = True
                    again.append(asked[mine])
                    continue
                at = places[mine] - self._index.starts[number]
                at = np.where(at < len(contents), at, 0)
                same = (contents.digest[at] == digests[asked[mine]]).all(axis=1)  # the index alone proves nothing
                rows.append(asked[mine][same])
                parts.append(contents.take(at[same]))
                self._segments.note_asked(self._index.segments[number], len(parts[-1]))
            asked = np.concatenate(again)
        return np.concatenate(rows), parts

    def _in_turn(self, order: Iterable[int] | None = None) -> Iterator[Contents]:
        """Yields the segments without images that an earlier segment holds too; keeps none in memory."""
        index, dead = self._index, self._dead  # a snapshot, in case `refresh` is called meanwhile
        for number in range(len(index.segments)) if order is None else order:
            read = None if dead[number] else self._segments.read(index.segments[number])
            if read is None:
                dead[number] = True
                continue
            contents = read[0]
            own = index.find(contents.digest, dead) == index.starts[number] + np.arange(len(contents))
            yield contents if own.all() else contents.take(np.flatnonzero(own))

    def _pools(self, shuffle_seed: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (features, labels): one segment at a time in order, or shuffled pools of several segments."""
        if shuffle_seed is None:
            yield from map(training_rows, self._in_turn())
            return
        random = np.random.default_rng(shuffle_seed)
        order = random.permutation(len(self._index.segments)).tolist()
        for at in range(0, len(order), _POOL_SEGMENTS):
            pool = self._in_turn(order[at : at + _POOL_SEGMENTS])
            features, labels = joined_pairs([training_rows(contents) for contents in pool])
            mixed = random.permutation(len(labels))
            yield features[mixed], labels[mixed]

    def _whole(self, name: str) -> np.ndarray:
        """Returns ids, labels or faces (the number per image) of the whole cache."""
        if name not in self._held:
            ids: list[str] = []
            labels: list[str | None] = []
            faces = [np.zeros(0, np.intp)]
            for contents in self._in_turn():
                ids += contents.names
                labels += contents.labels
                faces.append(np.bincount(contents.face_image, minlength=len(contents)))
            self._held |= {"ids": object_array(ids), "labels": object_array(labels), "faces": np.concatenate(faces)}
        return self._held[name]
