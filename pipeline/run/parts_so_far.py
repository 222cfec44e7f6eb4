"""Counts the parts that appear in an output while a job runs elsewhere.

Beam's job server (Flink, Spark) hands out counters only when the job has ended. Until then the parts show the progress.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from transforms.formats.parts import is_part_name, part_info, stored_part
from transforms.storage.stores import Store, store_of
from transforms.tally import Totals

LOOK_S = 2.0  # between two looks
SHARE = 20  # a look that takes t seconds is followed by a pause of this times t: many parts in a store take many LISTs


class PartsSoFar:
    """The images and faces of the parts that were finished since this object was made."""

    def __init__(self, place: str) -> None:
        """Takes the folder or the prefix of the parts; those that are there already do not count."""
        self._store: Store = store_of(place)
        self._seen = self._names()
        self._totals = Totals()
        self._next = 0.0
        self._lock = threading.Lock()  # the bar and the watch ask from threads of their own

    def totals(self) -> Totals:
        """Returns images, faces, cached images (not known in an object store) and blocks; looks again after a pause.

        Raises:
            OSError, FormatError: the parts cannot be listed or read.
        """
        with self._lock:
            began = time.monotonic()
            if began >= self._next:
                self._look()
                spent = time.monotonic() - began
                self._next = began + spent + max(LOOK_S, SHARE * spent)
            return replace(self._totals)

    def _look(self) -> None:
        for name in sorted(self._names() - self._seen):
            self._totals = self._totals.plus(self._counts(name))
            self._seen.add(name)

    def _names(self) -> set[str]:
        return {found.name for found in self._store.list() if _is_finished(found.name)}

    def _counts(self, name: str) -> Totals:
        if stored := stored_part(name):
            return Totals(images=stored.images, faces=stored.faces, blocks=1)
        if not is_part_name(name):
            return Totals(blocks=1)
        info = part_info(self._store.path(name))
        return Totals(images=info.images, faces=info.faces, cached=info.cached, blocks=1)


def _is_finished(name: str) -> bool:
    """True for the file of a finished block: a part, or the rows that a head is trained on."""
    return is_part_name(name) or stored_part(name) is not None or name.endswith(".npz")
