"""The folder that pictures of a run are written to: what in it is ours, which a new rendering replaces.

A file is ours by its name and by the mark in it. Anything else is the user's: the folder is then refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from pipeline.errors import UsageError
from pipeline.run.own_files import LOCK
from transforms.formats.encode import MARK_WITHIN, is_marked
from transforms.formats.picture_index import PICTURE_INDEX, is_picture_index
from transforms.formats.publish import is_temporary
from transforms.formats.safe_names import PHOTO, SHEET

FACES = "faces"  # folder of the crops, with a folder for each label


def own_pictures(output: str, *, flag: str = "--output") -> set[str]:
    """Returns the names in the folder of all its files, which are those of an earlier rendering; changes nothing.

    Raises:
        UsageError: it holds something else, is no folder, or cannot be read.
    """
    paths = (path for path, top in _files(output, flag) if not _stays(path, top, output, flag))
    return {os.path.relpath(path, output) for path in paths}


def clear(names: Iterable[str], output: str) -> None:
    """Removes these files, and the folders of crops that are then empty."""
    for name in names:
        with suppress(FileNotFoundError):  # a temporary file of a rendering that has just ended
            os.unlink(os.path.join(output, name))
    faces = os.path.join(output, FACES)
    with suppress(FileNotFoundError, NotADirectoryError):
        for folder in (*(os.path.join(faces, name) for name in os.listdir(faces)), faces):
            with suppress(OSError):  # not empty: a temporary file of another process
                os.rmdir(folder)


def _files(output: str, flag: str) -> Iterator[tuple[str, str]]:
    """Yields each file's path, and the folder that it lies in: "", or that of the crops."""
    for name in _names(output, output, flag):
        path = os.path.join(output, name)
        if name != FACES:
            yield path, ""
            continue
        for label in _names(path, output, flag):
            folder = os.path.join(path, label)
            yield from ((os.path.join(folder, face), FACES) for face in _names(folder, output, flag))


def _names(folder: str, output: str, flag: str) -> list[str]:
    try:
        if folder != output and stat.S_ISLNK(os.lstat(folder).st_mode):
            raise _foreign(folder, output, flag)
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        if folder != output:
            raise _foreign(folder, output, flag) from error
        raise UsageError(f"{flag} {output} is a file; give a folder") from error
    except OSError as error:
        raise UsageError(f"{flag} {output}: {error.strerror}; give a folder that can be read and written") from error


def _stays(path: str, top: str, output: str, flag: str) -> bool:
    """Returns True for the lock, which stays; False for what a new rendering replaces.

    Raises:
        UsageError: no rendering wrote it.
    """
    name = os.path.basename(path)
    if name == LOCK and not top:
        return True
    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
        if regular and (is_temporary(name) or _is_marked(path, name, top)):
            return False
    except OSError as error:
        raise UsageError(f"{flag} {output}: {path} cannot be read: {error.strerror}; give another folder") from error
    raise _foreign(path, output, flag)


def _is_marked(path: str, name: str, top: str) -> bool:
    known = PHOTO.fullmatch(name) or (not top and (SHEET.fullmatch(name) or name == PICTURE_INDEX))
    if not known:
        return False
    with open(path, "rb") as file:
        start = file.read(MARK_WITHIN)
    return is_picture_index(start) if name == PICTURE_INDEX else is_marked(start)


def _foreign(path: str, output: str, flag: str) -> UsageError:
    return UsageError(
        f"{flag} {output}: {os.path.relpath(path, output)} lies there, and no rendering wrote it; give an empty folder"
    )
