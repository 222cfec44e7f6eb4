"""Users' files wherever they are: every path is opened and listed through Beam's FileSystems, local or remote.

Not here: publishing of output (`formats/publish.py`).
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems


class InputFault(OSError):
    """A file that was planned cannot be read now: not the fault of its content, so the run stops, resumable."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as listed: `path`, `size` in bytes, `modified` seconds since the epoch (0 where unknown)."""

    path: str
    size: int
    modified: float


def is_local(path: str) -> bool:
    """True if the path names no other file system."""
    return "://" not in path


def escape(path: str) -> str:
    """Returns a pattern that matches this path alone."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def exists(path: str) -> bool:
    """True if there is a file or folder of exactly this name."""
    return bool(FileSystems.exists(path))


def list_files(pattern: str) -> Iterator[FoundFile]:
    """Yields the files a pattern matches, in no particular order; `**` crosses folders.

    Raises:
        InputFault: the file system refuses.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Beam compiles escaped brackets to a set it warns about
            # without a folder Beam would look nowhere
            matches = FileSystems.match([pattern if "/" in pattern else "./" + pattern])
        for match in matches:
            for metadata in match.metadata_list:
                yield FoundFile(metadata.path, metadata.size_in_bytes, metadata.last_updated_in_seconds or 0.0)
    except (BeamIOError, OSError) as error:
        raise InputFault(f"{pattern} cannot be listed: {_first_line(error)}") from error


def list_folder(folder: str) -> Iterator[FoundFile]:
    """Yields all files below a folder, in no particular order.

    Local folders are walked here and not by Beam, which passes over folders it may not read without a word.

    Raises:
        InputFault: a folder below cannot be read.
    """
    if not is_local(folder):
        yield from list_files(escape(folder.rstrip("/")) + "/**")
        return
    for parent, _, names in os.walk(folder, onerror=_refuse):
        for name in names:
            path = os.path.join(parent, name)
            try:
                stat = os.stat(path)
            except OSError as error:
                _refuse(error)
            yield FoundFile(path, stat.st_size, stat.st_mtime)


def _refuse(error: OSError) -> None:
    raise InputFault(f"{error.filename} cannot be read: {error.strerror}") from error


def is_folder(path: str) -> bool:
    """True if the path is a folder, local or remote."""
    if is_local(path):
        return os.path.isdir(path)
    return any(True for _ in list_files(escape(path.rstrip("/")) + "/*"))


def open_file(path: str) -> BinaryIO:
    """Returns the raw bytes of a file as a seekable stream; nothing is decompressed.

    Raises:
        InputFault: it is gone, or may not be read.
    """
    try:
        stream = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    except (BeamIOError, OSError) as error:
        raise InputFault(f"{path} cannot be opened: {_first_line(error)}") from error
    return stream if isinstance(stream, io.IOBase) else io.BufferedReader(stream)  # type: ignore[return-value]


def read_file(path: str, limit: int) -> bytes:
    """Returns at most `limit` + 1 bytes of a file: enough to tell that it is too large.

    Raises:
        InputFault: it is gone, or may not be read.
    """
    with open_file(path) as stream:
        try:
            return stream.read(limit + 1)
        except OSError as error:
            raise InputFault(f"{path} cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
