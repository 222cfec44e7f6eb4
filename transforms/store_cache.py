"""A feature cache on an object store. Segments are whole objects, named by content, so writing one twice is harmless.

Each segment has a list of its digests next to it (`.digests`). From these lists every worker builds an index on its own
disk; it fetches only new lists. `index.bin` in the store is such an index, published from time to time, so that a new
worker need not fetch every list. It may be out of date: missing lists are fetched.
Not here: the cache itself (`formats/cache/`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from transforms.formats.cache.contents import Contents
from transforms.formats.cache.feature_cache import DEFAULT_MEMORY, FeatureCache
from transforms.formats.cache.folders import FINGERPRINT_FILE, INDEX_FILE, SEGMENT_NAME
from transforms.formats.cache.index import Index, read_index
from transforms.formats.cache.segments import Segments
from transforms.formats.canonical import canonical_json, digest_of_canonical
from transforms.formats.publish import publish_bytes
from transforms.formats.records import FormatError
from transforms.storage.objects import Version
from transforms.storage.paths import is_object
from transforms.storage.stores import FETCHED_AT_ONCE, Store, store_of

logger = logging.getLogger("pipeline.cache")

DIGESTS = ".digests"  # after the name of a segment: faces (8 bytes), then the digest of each image (32 bytes)
SNAPSHOT_LISTS = 500  # lists fetched, from which on an index is worth publishing: some 15 s of requests
_FACES = struct.Struct("<Q")


def cache_of(root: str, key_json: str) -> FeatureCache:
    """Returns the cache of a run's cache key, on this machine's disk or in an object store; creates it if missing.

    Raises:
        FormatError: the cache has other settings. StorageError, InputFault: it cannot be read or written.
    """
    return StoreCache.of(root, key_json) if is_object(root) else FeatureCache.create(root, key_json)


class StoreCache(FeatureCache):
    """The results of one cache key, in an object store; the index is on this machine's disk."""

    def __init__(self, store: Store, fingerprint: str, settings: dict[str, object], *, memory_bytes: int) -> None:
        self._store = store
        self._lists: dict[str, bytes] = {}  # fetched, for the index that is built now
        self._known: frozenset[str] = frozenset()
        segments = StoreSegments(store, fingerprint, memory_bytes=memory_bytes)
        super().__init__(_mirror(store.root), fingerprint, settings, memory_bytes=memory_bytes, segments=segments)

    @classmethod
    def of(cls, root: str, key_json: str, *, memory_bytes: int = DEFAULT_MEMORY) -> StoreCache:
        """Opens the place of one cache key below `root`; creates it if it is missing.

        Raises:
            FormatError: its fingerprint.json has other settings.
        """
        settings, digest = json.loads(key_json), digest_of_canonical(key_json)
        store = store_of(f"{root.rstrip('/')}/{digest[:16]}")
        text = json.dumps({"sha256": digest, "settings": settings}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        if store.put_if_absent(FINGERPRINT_FILE, text.encode()) is None and not _states(store, digest, settings):
            raise FormatError(f"{store.path(FINGERPRINT_FILE)} has other settings; give another --cache")
        return cls(store, digest, settings, memory_bytes=memory_bytes)

    def _listed(self) -> tuple[str, ...]:
        self._known = frozenset(found.name for found in self._store.list() if SEGMENT_NAME.match(found.name))
        return tuple(sorted(self._known))

    def _file_sizes(self, *, sized: bool = True) -> dict[str, int]:
        return {found.name: found.size for found in self._store.list()}

    def _stands(self, name: str) -> bool:
        return name in self._known and name not in dict(self.damaged)

    def _publish(self, name: str, contents: Contents, data: memoryview) -> None:
        """Uploads the list of digests, then the segment, so that every listed segment has its list."""
        self._store.put_bytes(name + DIGESTS, _FACES.pack(len(contents.face_image)) + contents.digest.tobytes())
        self._store.put_bytes(name, bytes(data))

    def _glimpsed(self, name: str) -> tuple[np.ndarray, int] | None:
        data = self._lists.pop(name, b"")
        if len(data) < _FACES.size or (len(data) - _FACES.size) % 32:
            return None  # lost or damaged: read the segment itself
        return np.frombuffer(data, np.uint8, offset=_FACES.size).reshape(-1, 32), _FACES.unpack_from(data)[0]

    def _rebuilt(self, names: tuple[str, ...], old: Index, path: str) -> Index:
        """Returns the index of `names`; fetches the lists that neither `old` nor the published index has."""
        missing = [name for name in names if name not in set(old.segments)]
        if len(missing) >= SNAPSHOT_LISTS and (published := self._published()) is not None:
            old = max(old, published, key=lambda index: len(index.segments))
            missing = [name for name in names if name not in set(old.segments)]
        with ThreadPoolExecutor(FETCHED_AT_ONCE, "fetch-digests") as pool:
            for name, found in zip(
                missing, pool.map(lambda name: self._store.get(name + DIGESTS), missing), strict=True
            ):
                if found is not None:
                    self._lists[name] = found[0]
        index = super()._rebuilt(names, old, path)
        if len(missing) >= SNAPSHOT_LISTS:
            self._store.put(INDEX_FILE, path)
        return index

    def _published(self) -> Index | None:
        """Returns the index in the store, None if there is none or it is damaged."""
        found = self._store.get(INDEX_FILE)
        if found is None:
            return None
        path = os.path.join(self.folder, "published.bin")
        publish_bytes(path, found[0])
        return read_index(path, self.fingerprint)


class StoreSegments(Segments):
    """Reads segments from an object store."""

    def __init__(self, store: Store, fingerprint: str, *, memory_bytes: int) -> None:
        super().__init__(store.root, fingerprint, memory_bytes=memory_bytes)
        self._store = store

    def _bytes(self, name: str) -> tuple[bytes, object] | None:
        return self._store.get(name)

    def _is_same(self, name: str, stamp: object) -> bool:
        found = self._store.get(name)
        return found is None or (isinstance(stamp, Version) and found[1] == stamp)

    def _rename(self, name: str, other: str) -> None:
        found = self._store.get(name)
        if found is not None:
            self._store.put_bytes(other, found[0])
            self._store.delete([name, name + DIGESTS])


def _states(store: Store, digest: str, settings: object) -> bool:
    """True if fingerprint.json in the store has these settings."""
    found = store.get(FINGERPRINT_FILE)
    try:
        held = json.loads(found[0]) if found is not None else {}
        return bool(held["sha256"] == digest and canonical_json(held["settings"]) == canonical_json(settings))
    except (ValueError, KeyError, TypeError):
        return False


def _mirror(root: str) -> str:
    """Returns the folder on this machine for the index of a cache in a store."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    name = f"facelabel-cache-{user}-{hashlib.sha256(root.encode()).hexdigest()[:16]}"
    path = os.path.join(tempfile.gettempdir(), name)
    os.makedirs(path, exist_ok=True)
    return path
