"""Opens and lists users' files. Local folders are walked here; s3:// and gs:// are read by exact ranges (`objects.py`);
any other scheme goes through Beam's FileSystems.

Transient storage errors are retried (`retrying.py`), also in the middle of a file.
Not here: publishing of output (`formats/publish.py`).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems

from transforms.storage.faults import FileChanged as FileChanged  # they belong to what this module offers
from transforms.storage.faults import InputFault as InputFault
from transforms.storage.faults import NoSuchStorage as NoSuchStorage
from transforms.storage.objects import ObjectStore, Reader, fault_without_package
from transforms.storage.paths import SCHEMES, is_object
from transforms.storage.paths import is_local as is_local
from transforms.storage.ranges import RangeFile
from transforms.storage.retrying import with_retries

BUFFER_BYTES = 64 * 2**10  # per open file: readers here request much more at once, or only headers
WILDCARDS = "*?["
EXTRAS = {"azfs": "azure", "hdfs": "hadoop"}  # of apache-beam, by the scheme of a path


class Kind(Enum):
    """The kind of a listed name."""

    FILE = "file"
    NOT_A_FILE = "not_a_file"  # a broken link, a pipe, a socket, a device: nothing to open
    LINKED_FOLDER = "linked_folder"  # not followed, as it may lead back here or give an image two ids


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as listed: `path`, `size` in bytes, `modified` seconds since the epoch (0 if unknown)."""

    path: str
    size: int
    modified: float
    kind: Kind = Kind.FILE


def escape(path: str) -> str:
    """Returns a pattern that matches only this path."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def exists(path: str) -> bool:
    """True if there is a file or folder of exactly this name."""

    if is_object(path):
        store, name = _object(path, "looked for")
        return bool(name) and with_retries(lambda: store.size(name)) is not None

    def ask() -> bool:
        with _named(path, "looked for"):
            return bool(FileSystems.exists(path))

    return with_retries(ask)


def list_files(pattern: str) -> Iterator[FoundFile]:
    """Yields the files that a pattern matches, in no particular order; `**` crosses folders.

    Local folders are walked here, not by Beam (see `list_folder`).

    Raises:
        InputFault: the file system refuses access.
    """
    if is_local(pattern):
        yield from _list_local(pattern)
        return
    if is_object(pattern):
        yield from _list_objects(pattern)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Beam compiles escaped brackets to a set it warns about
        matches = with_retries(lambda: _match(pattern))
    for match in matches:
        for metadata in match.metadata_list:
            yield FoundFile(metadata.path, metadata.size_in_bytes, metadata.last_updated_in_seconds or 0.0)


def _object(path: str, action: str) -> tuple[ObjectStore, str]:
    """Returns the bucket of an object, and its name there.

    Raises:
        NoSuchStorage: the package for object stores is not installed.
    """
    scheme, _, rest = path.partition("://")
    bucket, _, name = rest.partition("/")
    try:
        return ObjectStore(f"{scheme}://{bucket}"), name
    except ImportError as error:
        raise fault_without_package(path, action) from error


def _list_objects(pattern: str) -> Iterator[FoundFile]:
    """Yields the objects that a pattern matches; the empty objects by which consoles show folders are left out."""
    store, _ = _object(pattern, "listed")
    root = root_of(pattern)
    matches = _matcher(pattern)
    below = root.removeprefix(store.root).strip("/")
    for found in store.list(below):
        path = store.path(found.name)
        stands_for_folder = found.size == 0 and "." not in path.rpartition("/")[2]
        if matches(path) and not stands_for_folder:
            yield FoundFile(path, found.size, found.modified)


def _match(pattern: str) -> list[Any]:
    with _named(pattern, "listed"):
        return list(FileSystems.match([pattern]))


def _list_local(pattern: str) -> Iterator[FoundFile]:
    if not any(sign in pattern for sign in WILDCARDS):
        if os.path.exists(pattern) and not os.path.isdir(pattern):
            yield found_file(pattern)
        return
    if pattern.endswith("/"):  # as Beam does
        pattern += "*"
    if not root_of(pattern):
        pattern = "./" + pattern
    root = root_of(pattern)
    if os.path.isdir(root):
        yield from _walk(root, _matcher(pattern), _enterer(root, pattern[len(root) :]))


def _matcher(pattern: str) -> Callable[[str], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Beam compiles escaped brackets to a set it warns about
        return re.compile(FileSystem.translate_pattern(pattern)).match


def _enterer(root: str, rest: str) -> Callable[[str], object]:
    """Returns a function that is True for folders with possible matches below; other folders are not opened."""
    if re.search(r"\[[^\]]*/", rest):  # a set with a slash in it: where a name ends is unknown
        return lambda path: True
    parts = rest.split("/")[:-1]
    deep = next((level for level, part in enumerate(rest.split("/")) if "**" in part), None)
    levels = [_matcher(root + "/".join(parts[: level + 1])) for level in range(len(parts) if deep is None else deep)]

    def enters(path: str) -> object:
        level = path.count("/", len(root))
        return levels[level](path) if level < len(levels) else deep is not None

    return enters


def root_of(pattern: str) -> str:
    """Returns the longest folder of a pattern without a wildcard, with a final `/` ("" for the current one)."""
    wild = min((pattern.index(c) for c in WILDCARDS if c in pattern), default=len(pattern))
    return pattern[: pattern[:wild].rfind("/") + 1]


def list_folder(folder: str) -> Iterator[FoundFile]:
    """Yields all files and other entries below a folder, except folders, in no particular order.

    Local folders are walked here, because Beam silently skips broken links and folders without read permission.

    Raises:
        InputFault: a folder below cannot be read.
    """
    if not is_local(folder):
        yield from list_files(escape(folder.rstrip("/")) + "/**")
        return
    yield from _walk(folder, lambda path: True, lambda path: True)


def _walk(top: str, matches: Callable[[str], object], enters: Callable[[str], object]) -> Iterator[FoundFile]:
    """Yields the files that match, and the links to folders that would be entered if they were real folders."""
    waiting = [top]
    while waiting:
        below, linked, others = with_retries(partial(_scan, waiting.pop()))
        waiting += filter(enters, below)
        yield from map(found_file, chain(filter(enters, linked), filter(matches, others)))


def _scan(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Returns the paths in a local folder: folders, links to folders, and all others."""
    below, linked, others = [], [], []
    with _named(folder, "read"), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            elif _is_folder(entry):
                linked.append(entry.path)
            else:
                others.append(entry.path)
    return below, linked, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself or through a file; opening it reports the error
        return False


def found_file(path: str) -> FoundFile:
    """Returns the entry for a local file, or for what is in its place.

    Raises:
        InputFault: it is gone, or its folder cannot be searched.
    """
    return with_retries(partial(_found, path))


def _found(path: str) -> FoundFile:
    with _named(path, "read"):
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR) or not os.path.islink(path):
                raise
            return FoundFile(path, 0, os.lstat(path).st_mtime, Kind.NOT_A_FILE)
    if stat.S_ISREG(found.st_mode):
        return FoundFile(path, found.st_size, found.st_mtime)
    return FoundFile(path, 0, found.st_mtime, Kind.LINKED_FOLDER if stat.S_ISDIR(found.st_mode) else Kind.NOT_A_FILE)


def is_folder(path: str) -> bool:
    """True if the path is a folder, local or remote."""
    if is_local(path):
        return os.path.isdir(path)
    return any(True for _ in list_files(escape(path.rstrip("/")) + "/**"))  # it may hold folders alone


def open_file(path: str, *, forward: bool = False) -> BinaryIO:
    """Returns the raw bytes of a file as a seekable stream; nothing is decompressed.

    After a transient error, the file is opened again and reading resumes. Lasting errors are an `InputFault` too.
    Of an object, only the ranges that are read are fetched; what is gone shows at the first read.

    Args:
        forward: True if the file will be read from first to last, so that an object is fetched in large pieces, ahead.

    Raises:
        InputFault: it is gone, or cannot be read.
    """
    if is_object(path):
        reader = Reader(*_object(path, "opened"))
        return cast(BinaryIO, RangeFile(reader.read, reader.size, forward=forward))
    return io.BufferedReader(_Reopening(path), BUFFER_BYTES)


def read_file(path: str, limit: int) -> bytes:
    """Returns at most `limit` + 1 bytes of a file, which is enough to see that it is too large.

    Raises:
        InputFault: it is gone, or cannot be read.
    """

    if is_object(path):
        store, name = _object(path, "opened")
        return store.read_range(name, 0, limit + 1)

    def read() -> bytes:
        with _opened(path) as stream, _named(path, "read"):
            return bytes(stream.read(limit + 1))

    return with_retries(read)


class _Reopening(io.RawIOBase):
    """A file that is opened again when reading fails, and resumed at the same place."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._at = 0
        self._stream: Any = with_retries(lambda: _opened(path))
        self._stamp = _stamp(self._stream)

    def readinto(self, buffer: Any, /) -> int:
        """Fills the buffer with one read and returns the number of bytes, 0 at the end."""
        count = self._again_and_again(lambda stream: int(stream.readinto(buffer) or 0))
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Moves to another offset and returns it."""
        if whence == io.SEEK_CUR:
            offset, whence = offset + self._at, io.SEEK_SET
        self._at = self._again_and_again(lambda stream: int(stream.seek(offset, whence)))
        return self._at

    def tell(self) -> int:
        """Returns the offset of the next byte."""
        return self._at

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True, as it restores its own offset after opening again."""
        return True

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if not self.closed and self._stream is not None:
            self._stream.close()
        super().close()

    def _again_and_again(self, step: Callable[[Any], int]) -> int:
        def attempt() -> int:
            if self._stream is None:
                self._stream = self._opened_again()
            try:
                with _named(self._path, "read"):
                    return step(self._stream)
            except InputFault:
                with contextlib.suppress(OSError):
                    self._stream.close()
                self._stream = None
                raise

        return with_retries(attempt)

    def _opened_again(self) -> Any:
        stream = _opened(self._path)
        if _stamp(stream) != self._stamp:
            stream.close()
            raise FileChanged(None, f"{self._path} was changed while it was read; run the same command again")
        with _named(self._path, "read"):
            stream.seek(self._at)
        return stream


def _stamp(stream: Any) -> tuple[int, int] | None:
    """Returns size and change time of an open local file; None for others, which nobody changes in place."""
    try:
        found = os.fstat(stream.fileno())
    except OSError:  # not a file of this machine
        return None
    return found.st_size, found.st_mtime_ns


def _opened(path: str) -> Any:
    with _named(path, "opened"):
        stream = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return stream if isinstance(stream, io.IOBase) else io.BufferedReader(stream)


@contextlib.contextmanager
def _named(path: str, action: str) -> Iterator[None]:
    """Turns a storage error into one line with the path."""
    try:
        yield
    except InputFault:
        raise
    except OSError as error:
        if any(isinstance(inner, ImportError) for inner in _inner(error)):
            raise NoSuchStorage(None, f"{path} cannot be {action}: {_missing(path)}") from error
        text = _first_line(error) if isinstance(error, BeamIOError) else error.strerror or _first_line(error)
        raise InputFault(_number(error), f"{path} cannot be {action}: {text}") from error
    except ValueError as error:
        if not str(error).startswith("Unable to get filesystem"):  # from Beam, which has no class for this error
            raise
        raise NoSuchStorage(None, f"{path} cannot be {action}: {_missing(path)}") from error


def _missing(path: str) -> str:
    scheme = path.partition("://")[0]
    if scheme in EXTRAS:
        return f"{scheme}:// needs pip install 'apache-beam[{EXTRAS[scheme]}]'"
    return f"{scheme}:// is not a known kind of storage (known: {', '.join([*SCHEMES, *EXTRAS])})"


def _number(error: OSError) -> int | None:
    """Returns the number of an error; in Beam's errors it is in the wrapped ones."""
    for inner in _inner(error):
        if isinstance(inner, OSError) and inner.errno is not None:
            return inner.errno
    return error.errno


def _inner(error: OSError) -> list[object]:
    """Returns the errors that one of Beam's errors wraps."""
    return list((getattr(error, "exception_details", None) or {}).values())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
