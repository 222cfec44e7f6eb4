"""The folders of a cache, one per cache key: finding, describing, cleaning and removing them."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Callable
from typing import Any

from transforms.formats.publish import REFUSED, StorageError, is_remote, publish, remove_leftovers, storage_error
from transforms.formats.records import FormatError

logger = logging.getLogger("pipeline.cache")

FINGERPRINT_FILE = "fingerprint.json"
INDEX_FILE = "index.bin"
DAMAGED = ".damaged"
FOLDER_NAME = re.compile(r"[0-9a-f]{16}\Z")
SEGMENT_NAME = re.compile(r"[0-9a-f]{32}\.h5\Z")
DAMAGED_SEGMENT_NAME = re.compile(r"[0-9a-f]{32}\.h5" + re.escape(DAMAGED) + r"\Z")  # `notes.damaged` is the user's


def fingerprint_folders(root: str | os.PathLike[str], *, lost: bool = False) -> list[str]:
    """Returns the names of the fingerprint folders in a cache, sorted; an empty list if there is no cache.

    Args:
        root: the cache.
        lost: True to count those that have lost their fingerprint.json too.
    """
    root = local_path(root)
    try:
        names = os.listdir(root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("read", root, error) from error
    folders = sorted(name for name in names if FOLDER_NAME.match(name))
    return [
        name
        for name in folders
        if os.path.isfile(fingerprint_file(root, name)) or (lost and has_lost_its_fingerprint(os.path.join(root, name)))
    ]


def has_lost_its_fingerprint(folder: str | os.PathLike[str]) -> bool:
    """Returns True for a folder that has a fingerprint's name and segments, but no fingerprint.json."""
    folder = os.path.abspath(local_path(folder))
    if not FOLDER_NAME.match(os.path.basename(folder)) or not os.path.isdir(folder):
        return False
    try:
        names = file_sizes(folder, sized=False)
    except StorageError:  # may be another user's, which proves nothing
        return False
    return FINGERPRINT_FILE not in names and any(map(SEGMENT_NAME.match, names))


def fingerprint_file(*folder: str) -> str:
    return os.path.join(*folder, FINGERPRINT_FILE)


def local_path(path: str | os.PathLike[str]) -> str:
    text = os.path.expanduser(os.fspath(path))
    if is_remote(text):
        raise FormatError(f"a feature cache needs a file system, and {text} is an object store; give a local --cache")
    return text


def read_fingerprint(folder: str) -> dict[str, Any] | None:
    """Returns what fingerprint.json holds, or None if it is missing or cannot be parsed."""
    path = fingerprint_file(folder)
    try:
        with open(path, encoding="utf-8") as file:
            held = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error
    whole = isinstance(held, dict) and isinstance(held.get("sha256"), str) and isinstance(held.get("settings"), dict)
    return held if whole else None


def write_fingerprint(folder: str, settings: dict[str, Any], digest: str) -> None:
    text = json.dumps({"sha256": digest, "settings": settings}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    publish(fingerprint_file(folder), lambda file: file.write(text.encode("utf-8")))


def find_folder(path: str, fingerprint: str | None) -> str:
    """Returns the fingerprint folder that `path` means: `path` itself, or the folder `fingerprint` in it."""
    if os.path.isfile(fingerprint_file(path)):
        return path
    found = fingerprint_folders(path)
    if fingerprint is not None:
        found = [name for name in found if name == fingerprint[:16]]
    if len(found) == 1:
        return os.path.join(path, found[0])
    if not found and has_lost_its_fingerprint(path):
        raise FormatError(f"{path} has lost its {FINGERPRINT_FILE}; a run with its settings rewrites it")
    if not found:
        wanted = "" if fingerprint is None else f" with fingerprint {fingerprint[:16]}"
        raise FormatError(f"{path} has no feature cache{wanted}; give the --cache folder of a run")
    raise FormatError(f"{path} holds {len(found)} fingerprints ({', '.join(found)}); open one of these folders")


def file_sizes(folder: str, *, sized: bool = True) -> dict[str, int]:
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


def tidy_folder(folder: str) -> None:
    """Removes leftovers of killed runs, if permitted; a read-only folder stays usable with them."""
    try:
        remove_leftovers(folder)
    except StorageError as error:
        if error.errno not in REFUSED:
            raise
        logger.info("leftovers of killed runs stay: %s", error)


def remove_unwanted(folder: str, unwanted: Callable[[str], object]) -> dict[str, int]:
    """Removes the files that are `unwanted`, and leftovers; returns the size in bytes of each path."""
    sizes = file_sizes(folder)
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


def remove_folder(folder: str) -> dict[str, int]:
    """Removes a fingerprint's folder except files that a cache does not write; fingerprint.json goes last."""
    removed = remove_unwanted(
        folder, lambda name: SEGMENT_NAME.match(name) or DAMAGED_SEGMENT_NAME.match(name) or name == INDEX_FILE
    )
    removed |= remove_unwanted(folder, lambda name: name == FINGERPRINT_FILE)
    try:
        os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise storage_error("remove", folder, error) from error
        logger.warning("%s stays: it holds files that are not the cache's", folder)
    return removed
