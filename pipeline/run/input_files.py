"""The files that the patterns of `--input` find, each with the beginning of its image ids.

Not here: which of them are this program's own (`own_files.py`), and what is inside (`cut_files.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError
from transforms.storage.store import (
    WILDCARDS,
    FoundFile,
    Kind,
    escape,
    exists,
    found_file,
    is_folder,
    is_local,
    list_files,
    list_folder,
    root_of,
)


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that a pattern found.

    Attributes:
        root: folder that the name hangs below, with a final `/` ("" for the current one).
        prefix: `NAME/` of `--input NAME=PATTERN`, else "".
        name: path below the root.
        size: bytes. `modified`: seconds since the epoch, 0 where unknown.
        asked_for: True if the pattern was this very path.
        kind: what it is, where that is no file.
    """

    root: str
    prefix: str
    name: str
    size: int
    modified: float
    asked_for: bool = False
    kind: Kind = Kind.FILE

    @property
    def id(self) -> str:
        """Image id of a loose file, or what the ids of an archive's members begin with."""
        return self.prefix + self.name

    @property
    def path(self) -> str:
        """Where it lies."""
        return self.root + self.name


def find_inputs(patterns: Sequence[str], flag: str = "--input") -> list[InputFile]:
    """Returns the files of all patterns, in the order of the UTF-8 bytes of their ids.

    Args:
        flag: that the patterns came by, for errors.

    Raises:
        UsageError: a pattern finds nothing, or two files would get one id.
        InputFault: a folder cannot be listed.
    """
    found: list[InputFile] = []
    for pattern in patterns:
        here = list(_find(pattern))
        found += here
        if not here or (is_local(pattern) and all(f.kind is Kind.LINKED_FOLDER for f in here) and _is_pattern(pattern)):
            raise UsageError(f"{flag} {pattern}: nothing is there; check the path, and quote wildcards")
    # code points sort as UTF-8 bytes do; of one file under two patterns, the one that was asked for stays
    found.sort(key=lambda f: (f.id, not f.asked_for))
    return list(_without_repeats(found))


def _without_repeats(found: Iterable[InputFile]) -> Iterator[InputFile]:
    last: InputFile | None = None
    for item in found:
        if item.kind is Kind.LINKED_FOLDER:  # it gives no image, so no id
            yield item
            continue
        if last is not None and item.id == last.id:
            if os.path.abspath(item.path) == os.path.abspath(last.path):
                continue  # one file under two patterns is one image
            raise UsageError(
                f"two inputs give the image id {item.id!r}: {last.path} and {item.path}; "
                "give one of them a name: --input NAME=PATTERN"
            )
        last = item
        yield item


def split_name(pattern: str) -> tuple[str, str]:
    """Returns (`NAME/`, pattern) of `NAME=PATTERN`, else ("", pattern); a path that exists is never split."""
    name, sign, rest = pattern.partition("=")
    if not sign or not name or "/" in name or _is_pattern(name):
        return "", pattern
    return ("", pattern) if is_local(pattern) and os.path.exists(pattern) else (name + "/", rest)


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in WILDCARDS)


def _find(pattern: str) -> Iterator[InputFile]:
    prefix, path = split_name(pattern)
    path = os.path.expanduser(path) if is_local(path) else path
    if is_folder(path):
        root, files = path.rstrip("/") + "/", list_folder(path.rstrip("/") + "/")
    elif exists(path):
        root, files = path[: path.rfind("/") + 1], iter([_stat(path)])
    else:
        root, files = root_of(path), list_files(path)
    for file in files:
        below = file.path.startswith(root) and not file.path.startswith("./")
        name = file.path[len(root) :] if below else os.path.relpath(file.path, root or ".")
        yield InputFile(root, prefix, name, file.size, file.modified, file.path == path, file.kind)


def _stat(path: str) -> FoundFile:
    if is_local(path):
        return found_file(path)
    return next(iter(list_files(escape(path))))
