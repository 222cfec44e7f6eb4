"""Reads and verifies the segments of one folder. Damaged ones are moved aside, recently used ones stay in memory."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict

import numpy as np

from transforms.formats.cache.contents import Contents
from transforms.formats.cache.folders import DAMAGED
from transforms.formats.cache.segment import SegmentDamage, decoded_segment
from transforms.formats.publish import storage_error

logger = logging.getLogger("pipeline.cache")


class Segments:
    """Reads segments of one fingerprint. Safe to use from several threads.

    Attributes:
        read_only: True to leave damaged segments in place.
        damaged: (segment, what is wrong) for each damaged segment found so far.
        stuck: names of damaged segments that cannot be moved.
        width: of the features, or 0 while unknown.
        warm: segments kept in memory with their sizes, least recently used first; `warm_bytes` is the total.
        unasked: for each warm segment, the number of images not looked up yet.
    """

    def __init__(self, folder: str, fingerprint: str, *, memory_bytes: int, read_only: bool = False) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.read_only = read_only
        self.damaged: list[tuple[str, str]] = []
        self.stuck: set[str] = set()
        self.width = 0
        self.warm: OrderedDict[str, tuple[Contents, int]] = OrderedDict()
        self.warm_bytes = 0
        self.unasked: dict[str, int] = {}
        self._memory_bytes = memory_bytes
        self._lock = threading.RLock()

    def read(self, name: str) -> tuple[Contents, int] | None:
        """Returns a verified segment and its size in bytes; None if missing or damaged (then it is moved aside)."""
        for _ in range(3):  # another run may have replaced the damaged one with an intact one
            held = self._bytes(name)
            if held is None:
                logger.debug("%s in %s is gone: pruned by another run", name, self.folder)
                return None
            data, stamp = held
            try:
                contents = decoded_segment(data, self.fingerprint)
            except SegmentDamage as fault:
                if self._move_aside(name, stamp, str(fault)):
                    return None
            else:
                self.width = contents.features.shape[1] or self.width
                return contents, len(data)
        return None

    def _bytes(self, name: str) -> tuple[bytes, object] | None:
        """Returns a segment's bytes, and what tells them from those that may replace them; None if it is missing."""
        path = os.path.join(self.folder, name)
        try:
            with open(path, "rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                return file.read(), stamp
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("read", path, error) from error

    def digests_of(self, name: str) -> tuple[np.ndarray, int] | None:
        """Returns (n, 32) digests and the number of faces of a segment, or None if it is unusable."""
        read = self.read(name)
        if read is not None:
            return read[0].digest, len(read[0].face_image)
        # a segment that cannot be moved stays listed for ever, so index it as empty
        return (np.zeros((0, 32), np.uint8), 0) if name in self.stuck else None

    def kept(self, name: str) -> Contents | None:
        """Returns a verified segment and keeps it in memory for the next time; None if it is damaged or missing."""
        with self._lock:
            if name in self.warm:
                self.warm.move_to_end(name)
                return self.warm[name][0]
        read = self.read(name)
        if read is None:
            return None
        with self._lock:
            if name not in self.warm:
                self.warm[name] = read
                self.warm_bytes += read[1]
                self.unasked[name] = len(read[0])
            while self.warm_bytes > self._memory_bytes:
                self._let_go(next(iter(self.warm)))
        return read[0]

    def note_asked(self, name: str, images: int) -> None:
        """Drops a segment once each image was looked up: a run asks once for each, mostly in the cache's order."""
        if name in self.unasked:
            self.unasked[name] -= images
            if self.unasked[name] <= 0:
                self._let_go(name)

    def _let_go(self, name: str) -> None:
        self.warm_bytes -= self.warm.pop(name)[1]
        del self.unasked[name]

    def _move_aside(self, name: str, stamp: object, why: str) -> bool:
        """Renames a damaged segment and reports it; False if another file has taken its place."""
        path = os.path.join(self.folder, name)
        try:
            if not self._is_same(name, stamp):
                return False
            if self.read_only:
                self.stuck.add(name)
            else:
                self._rename(name, name + DAMAGED)
        except FileNotFoundError:
            pass  # another run was quicker
        except OSError as error:
            self.stuck.add(name)
            logger.warning("%s is damaged, not used, and cannot be moved aside (%s)", path, error.strerror)
        if (name, why) not in self.damaged:
            self.damaged.append((name, why))
        logger.warning("%s is damaged (%s): it is not used, and its images count as new", path, why)
        return True

    def _is_same(self, name: str, stamp: object) -> bool:
        return _stamp(os.stat(os.path.join(self.folder, name))) == stamp

    def _rename(self, name: str, other: str) -> None:
        os.replace(os.path.join(self.folder, name), os.path.join(self.folder, other))


def _stamp(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
