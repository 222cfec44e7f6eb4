"""Files of the machine that starts a run, on their way to workers that cannot see its disk.

The driver puts each file beside the plan under its SHA-256; a worker copies it to its own temporary folder and checks
it. Not here: which files of a run travel (`pipeline/run/staging.py`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import threading
from dataclasses import dataclass

from transforms.formats.publish import publish_bytes, storage_error
from transforms.storage.faults import FileChanged, InputFault

FOLDER = "staged"  # below the output
FAILURE = "failure.txt"  # there: why a worker cannot start, as a traceback ends (`transforms/telling.py`)
_PREFIX = "staged:"
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Files that belong together, such as a head's.

    Attributes:
        place: folder or prefix of a store that holds them, each under its digest.
        files: name and SHA-256 of each.
        main: the name that stands for them all; "" for their folder.
    """

    place: str
    files: tuple[tuple[str, str], ...]
    main: str = ""

    def as_path(self) -> str:
        """Returns what stands for the files where a path is expected; `local_path` makes it one."""
        return _PREFIX + json.dumps([self.place, self.files, self.main])

    def fetched(self) -> str:
        """Returns the path of the files on this machine, fetched at most once a process.

        Raises:
            InputFault: one is gone or damaged. StorageError: there is no room for it here.
        """
        with _lock:  # the threads of a process wait for one copy
            return os.path.join(_fetched(self), self.main) if self.main else _fetched(self)


def local_path(path: str) -> str:
    """Returns a path on this machine: that of the copies here if files are staged; any other path unchanged.

    Raises:
        InputFault: a staged file is gone or damaged. StorageError: there is no room for it here.
    """
    if not path.startswith(_PREFIX):
        return path
    place, files, main = json.loads(path.removeprefix(_PREFIX))
    return StagedFiles(place, tuple((name, digest) for name, digest in files), main).fetched()


@functools.cache
def _fetched(staged: StagedFiles) -> str:
    """Returns the folder with the files; a copy that is there already is checked."""
    text = "\n".join(f"{digest} {name}" for name, digest in staged.files)
    user = os.getuid() if hasattr(os, "getuid") else ""
    own = f"facelabel-staged-{user}"
    folder = os.path.join(tempfile.gettempdir(), own, hashlib.sha256(text.encode()).hexdigest()[:32])
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error("create", folder, error) from error
    for name, digest in staged.files:
        path = os.path.join(folder, name)
        if not _is_whole(path, digest):
            publish_bytes(path, _content(staged.place, name, digest))
    return folder


def _is_whole(path: str, digest: str) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        return False


def _content(place: str, name: str, digest: str) -> bytes:
    """Returns the bytes of a staged file.

    Raises:
        InputFault: it is gone. FileChanged: it is damaged.
    """
    from transforms.storage.stores import store_of  # imports Beam, which labelling single images does not need

    store = store_of(place)
    found = store.get(digest)
    if found is None:
        raise InputFault(None, f"{store.path(digest)}, the run's copy of {name}, is gone; run the same command again")
    if hashlib.sha256(found[0]).hexdigest() != digest:
        raise FileChanged(None, f"{store.path(digest)}, the run's copy of {name}, is damaged; remove it")
    return found[0]
