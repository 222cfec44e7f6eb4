"""An output on an object store: the counterpart of `OutputFolder`, with a local copy of plan and record.

The store has everything that matters: plan, parts, results. One LIST tells which blocks are finished, since the names
of parts contain their counts. The local copy is scratch space; another machine makes its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from pipeline.errors import StoppedError, UsageError
from pipeline.run.output_folder import OutputFolder, Progress
from pipeline.run.own_files import LEASE, NUMBERS, OWN_FILES, OWN_FOLDERS, PAGE, RECORD, WORKING, is_own, remove_own
from pipeline.run.plan import BLOCKS, Plan
from transforms.formats.parts import StoredPart, stored_part
from transforms.formats.publish import publish_bytes
from transforms.standing_parts import stored_parts
from transforms.storage.lease import Held, lease
from transforms.storage.paths import is_object
from transforms.storage.stores import Store, fetch, store_of

logger = logging.getLogger("pipeline.storage")

PLAN_FILES = ("plan/identity.json", f"plan/{BLOCKS}", "plan/plan.json")  # uploaded in this order


def output_of(path: str) -> OutputFolder:
    """Returns the output at a local path, or at an s3:// or gs:// path.

    Raises:
        UsageError: another kind of storage.
    """
    return OutputStore(path) if is_object(path) else OutputFolder(path)


class OutputStore(OutputFolder):
    """The objects of a run below a prefix."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        user = os.getuid() if hasattr(os, "getuid") else ""
        name = f"facelabel-{user}-{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"
        super().__init__(os.path.join(tempfile.gettempdir(), name))
        self._parts: dict[str, StoredPart] = {}

    @cached_property
    def store(self) -> Store:
        """The objects."""
        return store_of(self.url)

    @property
    def place(self) -> str:
        """Where workers find it."""
        return self.url

    @property
    def place_of_parts(self) -> str:
        """Where workers write parts."""
        return f"{self.url}/parts"

    @property
    def blocks_file(self) -> str:
        """The path at which workers can open the lines of the plan."""
        return f"{self.url}/plan/{BLOCKS}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the output for one run, with a fresh local copy of plan and record.

        Raises:
            StoppedError: another run holds it. UsageError: there is something else.
        """
        with super().locked():  # a second run on this machine need not wait for the lease
            try:
                with lease(self.store, LEASE, waiting=logger.warning):
                    self._copy_plan()
                    yield
            except Held as error:
                raise StoppedError(f"--output {self.url}: another run is using it ({error}); wait for it") from error

    def refuse_foreign(self) -> None:
        """Raises UsageError if an object that a run would remove or replace has a name that no run uses."""
        for folder in OWN_FOLDERS:
            for found in self.store.list(folder):
                if not _is_own(found.name):
                    raise UsageError(
                        f"--output {self.url}: {found.name} is where results are written, but no run wrote it; "
                        "move it away or give another output"
                    )

    def record(self) -> dict[str, Any] | None:
        """Returns `run.json` of a finished run, or None."""
        found = self.store.get(RECORD)
        if found is not None:
            publish_bytes(self.record_file, found[0])
        return super().record()

    def clear(self) -> None:
        """Removes everything that a run wrote there, except a cache."""
        super().clear()
        self.store.delete([RECORD])  # first: without it the run is unfinished
        names = [found.name for folder in OWN_FOLDERS for found in self.store.list(folder) if _is_own(found.name)]
        self.store.delete([*names, *OWN_FILES])

    def prepare(self, identity: dict[str, Any]) -> None:
        """Uploads the plan and notes its run, which counts as unfinished from now on."""
        super().prepare(identity)
        for name in PLAN_FILES:
            self.store.put(name, os.path.join(self.path, name))
        self.store.delete([RECORD, PAGE, NUMBERS])

    def is_whole(self, record: dict[str, Any]) -> bool:
        """True if every file that `run.json` lists still exists with the same size."""
        sizes = {found.name: found.size for folder in ("predictions", "images") for found in self.store.list(folder)}
        return all(
            sizes.get(file["path"]) == file["bytes"]
            if "/" in file["path"]
            else self.store.size(file["path"]) == file["bytes"]
            for file in record["parts"]
        )

    def progress(self, plan: Plan) -> Progress:
        """Returns which blocks of the plan are finished, with one LIST; removes obsolete parts."""
        found = super().progress(plan)
        return replace(found, missing=[replace(ref, plan=self.blocks_file) for ref in found.missing])

    def tidy(self) -> None:
        """Removes the working files of a finished run."""
        super().tidy()
        names = [found.name for folder in WORKING for found in self.store.list(folder)]
        self.store.delete(name for name in names if _is_own(name))

    def _copy_plan(self) -> None:
        """Makes the local copy equal to the store."""
        remove_own(self.path)
        os.makedirs(self.plan, exist_ok=True)
        fetch(self.store, {name: name for name in PLAN_FILES}, self.path)

    def _standing(self) -> set[str]:
        self._parts, surplus = stored_parts(self.place_of_parts)
        self.store.delete(f"parts/{name}" for name in surplus)
        return set(self._parts)

    def _drop(self, key: str) -> None:
        self.store.delete([f"parts/{self._parts[key].name}"])

    def _images(self, key: str) -> int | None:
        """Returns the number of images in a part, from its name; None if it has an internal_error."""
        part = self._parts[key]
        return None if part.failed else part.images


def _is_own(name: str) -> bool:
    folder, _, below = name.partition("/")
    return is_own(folder, below) or (folder == "parts" and stored_part(below) is not None)
