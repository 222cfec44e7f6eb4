"""Recognises a run's own files in an output folder by name: they are never inputs, and nothing else is removed.

A folder called `images` may be the user's. So nothing is removed just because of its folder's name, and a run refuses
an input among its results. Before a run begins, `foreign_files.py` checks that the content is ours too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Protocol, TypeVar

from pipeline.errors import UsageError
from transforms.formats.picture_index import PICTURE_INDEX
from transforms.formats.publish import is_temporary
from transforms.formats.safe_names import PHOTO, SHEET
from transforms.storage.paths import is_local, is_object
from transforms.storage.staged_files import FAILURE, FOLDER
from transforms.storage.store import Kind

_TABLE = re.compile(r"part-\d{5,}(-of-\d{5,}\.parquet|\.unfinished)", re.ASCII)
PICTURES = "rendered"  # photos with boxes and labels: `label --render`; `pictures` may be the user's folder
OWN_FOLDERS = {
    "predictions": _TABLE,
    "images": _TABLE,
    "parts": re.compile(r"[0-9a-f]{32}(-\d{8})?\.(parquet|npz|stream\.json)", re.ASCII),
    "plan": re.compile(r"plan\.(json|tmp)|identity\.json|blocks\.jsonl(\.tmp)?", re.ASCII),
    FOLDER: re.compile(rf"[0-9a-f]{{64}}|{re.escape(FAILURE)}", re.ASCII),  # files that travel to workers, by digest
    ".merging": re.compile(r"\d{6}\.parquet", re.ASCII),
    PICTURES: re.compile(f"{PHOTO.pattern}|{SHEET.pattern}|{re.escape(PICTURE_INDEX)}"),
    "heartbeats": re.compile(r"worker-\d+\.(json|log|tmp)|place-\d+|failure\.json|stop", re.ASCII),
}
WORKING = ("plan", "parts", FOLDER)  # folders that a finished run no longer needs
_CACHED = re.compile(r"[0-9a-f]{16}/", re.ASCII)  # a folder for each kind of features
RECORD = "run.json"
IDENTITY = "plan/identity.json"
LOCK = ".lock"
LEASE = "lock.json"  # its counterpart in an object store
PAGE, NUMBERS = "report.html", "report.json"  # about a run, and its numbers
PAGE_MARK, PAGE_HEAD = b"facelabel-pipeline, page of a run", 4_096  # within this many bytes of the page
OWN_FILES = ("submission.csv", PAGE, NUMBERS, RECORD)


class Found(Protocol):
    """A file of an input."""

    @property
    def root(self) -> str:
        """The folder that its name is relative to, with a final `/`; "" for the current one."""

    @property
    def name(self) -> str:
        """Its path below the root."""

    @property
    def kind(self) -> Kind:
        """What it is."""


Input = TypeVar("Input", bound=Found)


def is_own(folder: str, name: str) -> bool:
    """True if a run writes files with such a name to this folder."""
    return bool(OWN_FOLDERS[folder].fullmatch(name)) or is_temporary(name)


def refuse_among_results(path: str, run: str, *, flag: str = "--output") -> None:
    """Raises UsageError if a path is not local, or is among the results of a run."""
    if not is_local(path):
        raise UsageError(f"{flag} {path} is not a local path; pictures and exports are written only locally")
    whole, folder = os.path.realpath(path), os.path.realpath(run)
    first = os.path.relpath(whole, folder).partition("/")[0] if _within(whole, folder) else ""
    if first in (*OWN_FOLDERS, *OWN_FILES, LOCK):
        raise UsageError(f"{flag} {path} is among the results of {run}; give another path")


def remove_own(output: str, folders: Iterable[str] = tuple(OWN_FOLDERS), files: Iterable[str] = OWN_FILES) -> None:
    """Removes the run's own files, and folders that are then empty."""
    for folder in folders:
        path = os.path.join(output, folder)
        if os.path.islink(path) or not os.path.isdir(path):
            continue
        names = os.listdir(path)
        for name in names:
            if is_own(folder, name):
                os.unlink(os.path.join(path, name))
        if all(is_own(folder, name) for name in names):
            os.rmdir(path)
    for name in files:
        path = os.path.join(output, name)
        if os.path.lexists(path):
            os.unlink(path)


def without_own(files: Iterable[Input], output: str, cache: str, *, flag: str = "--input") -> list[Input]:
    """Returns the files of an input without a run's own files: an output folder may be inside an input.

    Raises:
        UsageError: another file is where the run writes; it must neither be lost nor be mixed with results.
    """
    files = [file for file in files if not _is_in_store(file, output, cache)]
    output, cache = os.path.realpath(output), os.path.realpath(cache)
    wholes: dict[str, str | None] = {}  # by root: its path, None if no file below it can be in these folders
    kept = []
    for file in files:
        if file.kind is Kind.LINKED_FOLDER:  # links are not followed: nothing in it is an input
            kept.append(file)
            continue
        if file.root not in wholes:
            wholes[file.root] = _whole(file.root, (output, cache))
        whole = wholes[file.root]
        if whole is None or not _is_the_runs(os.path.join(whole, file.name), whole, output, cache, flag):
            kept.append(file)
    return kept


def _is_in_store(file: Found, output: str, cache: str) -> bool:
    """True if an object was written by a run, judging by its name."""
    path = file.root + file.name
    if is_object(cache) and path.startswith(cache.rstrip("/") + "/"):
        return bool(_CACHED.match(path[len(cache.rstrip("/")) + 1 :]))
    if not (is_object(output) and path.startswith(output.rstrip("/") + "/")):
        return False
    first = path[len(output.rstrip("/")) + 1 :].partition("/")[0]
    return first in OWN_FOLDERS or first in OWN_FILES or first == LEASE


def _whole(root: str, places: Iterable[str]) -> str | None:
    whole = os.path.realpath(root or ".")
    meets = any(_within(place, whole) or _within(whole, place) for place in places)
    return whole if meets and "://" not in root else None


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_the_runs(path: str, root: str, output: str, cache: str, flag: str) -> bool:
    if _within(path, output):
        first, _, rest = os.path.relpath(path, output).partition("/")
        if first in OWN_FILES or first == LOCK:
            return True
        if first in OWN_FOLDERS:
            asked_for = _within(root, os.path.join(output, first))
            if not asked_for and is_own(first, rest) and _is_of_a_run(output):
                return True
            raise UsageError(
                f"{flag}: {path} is where results are written (--output {output}); give another output folder"
            )
    return _within(path, cache) and bool(_CACHED.match(os.path.relpath(path, cache)))


def _is_of_a_run(output: str) -> bool:
    return any(os.path.exists(os.path.join(output, name)) for name in (RECORD, IDENTITY))
