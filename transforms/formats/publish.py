"""Publishes files atomically: a final name never shows a half-written file.

A file is written under a temporary name in the same folder, flushed to the disk and renamed. For an object
store it is written locally and passed to the caller's `upload`.
Not here: the content of the files, and the object stores themselves.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import itertools
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

__all__ = [
    "REFUSED",
    "StorageError",
    "Upload",
    "is_remote",
    "is_temporary",
    "process_has_ended",
    "process_name",
    "publish",
    "publish_bytes",
    "publish_file",
    "put_in_place",
    "remove_leftovers",
    "storage_error",
    "working_file",
]

Upload = Callable[[str, str], object]  # (local path, remote path): copies, and returns when the copy is complete

REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})  # errors of a place that may be read but not written
FOREIGN_LEFTOVER_S = 86_400  # no single file takes a day to write, so after that its writer elsewhere is dead
MAX_NAME_BYTES = 255  # of one path component, on every file system in common use

_CURES = {
    errno.ENOSPC: "free space there or choose another folder",
    errno.EDQUOT: "raise the quota or choose another folder",
    errno.EACCES: "get permission for it or choose another folder",
    errno.EPERM: "get permission for it or choose another folder",
    errno.EROFS: "choose a writable folder",
    errno.ENOENT: "create its folder first",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_OTHER_CURE = "check that storage, then run the same command again"
_LEFTOVER = re.compile(r"\.(?P<place>[0-9a-f]{8})-(?P<pid>[0-9]{1,10})-[0-9]+\.tmp(\.[a-z0-9]{1,8})?\Z", re.ASCII)

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

_serials = itertools.count()
_in_flight: set[str] = set()  # absolute temporary paths that this process is writing now


class StorageError(OSError):
    """The storage failed, not the content: a full disk, a missing permission, a time-out. One line: path and fix.

    Attributes:
        errno: the number of the underlying error, or None.
    """

    def __str__(self) -> str:
        return str(self.args[-1])


def storage_error(action: str, path: str, error: OSError) -> StorageError:
    """Returns the one-line error for a failed `action` ("read", "write") on `path`; raise it `from error`."""
    what = " ".join((error.strerror or str(error) or type(error).__name__).split())
    cure = _CURES.get(error.errno or 0, _OTHER_CURE)
    return StorageError(error.errno, f"cannot {action} {path}: {what}; {cure}")


def is_remote(path: str) -> bool:
    """Returns True for a path with a scheme (`gs://…`), which plain file operations cannot reach."""
    return "://" in path


def publish(
    path: str, write: Callable[[BinaryIO], object], *, upload: Upload | None = None, sync_folder: bool = False
) -> None:
    """Writes one file atomically: at any time `path` is absent, the old file, or the complete new file.

    Args:
        path: the final name; an existing file is replaced.
        write: writes all bytes to the open file that it gets.
        upload: copies a local file to a remote path; required if `path` has a scheme.
        sync_folder: True to flush the folder too, so that the new name survives a power cut.

    Raises:
        StorageError: the disk is full, or the folder is missing or forbidden; the temporary file is removed.
    """
    with publish_file(path, upload=upload, sync_folder=sync_folder) as temporary, open(temporary, "wb") as file:
        write(file)


def publish_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` as one file: `path` is either absent, the old file, or complete. Errors as for `publish`."""
    publish(os.fspath(path), lambda file: file.write(data))


@contextlib.contextmanager
def publish_file(path: str, *, upload: Upload | None = None, sync_folder: bool = False) -> Iterator[str]:
    """Yields a local path to write to; if the block succeeds, publishes that file as `path`.

    For libraries that need a path. The block must close what it opened. If the block raises, the temporary file is
    removed and `path` stays as it was. Arguments and errors as for `publish`.
    """
    if is_remote(path) and upload is None:
        raise ValueError(f"{path} is not local: publishing there needs an upload function")
    temporary = _temporary_name(path)
    try:
        with _being_written(temporary), _named_faults(path, temporary):
            yield temporary
            if upload is not None and is_remote(path):
                _flush(temporary)
                upload(temporary, path)
            else:
                put_in_place(temporary, path)
                if sync_folder:
                    _flush_folder(os.path.dirname(path) or ".")
    finally:
        with contextlib.suppress(OSError):  # already renamed; if removal fails, `remove_leftovers` finds it by name
            os.unlink(temporary)


@contextlib.contextmanager
def working_file(path: str, suffix: str = "") -> Iterator[str]:
    """Yields a unique temporary name next to `path`; a file left under it is removed afterwards.

    For a writer that learns the final name only at the end (`put_in_place`), and for scratch files. A killed writer's
    file is found by `remove_leftovers`.

    Args:
        suffix: how it ends, for libraries that go by that, such as `.avi`.
    """
    temporary = _temporary_name(path, suffix)
    try:
        with _being_written(temporary):
            yield temporary
    finally:
        with contextlib.suppress(OSError):  # put in place already
            os.unlink(temporary)


def put_in_place(temporary: str, path: str) -> None:
    """Flushes a finished file to the disk and gives it its final name, in the same folder.

    For a writer that learns the final name only at the end; every other one uses `publish`.
    """
    _flush(temporary)
    os.replace(temporary, path)


def remove_leftovers(folder: str) -> list[str]:
    """Removes temporary files that killed writers left in `folder`, and returns their names, sorted.

    Removes only files that this module wrote, in two cases. Files of this machine: their process has ended, or was
    an earlier one with our own number. Files of other machines, or from before this one started: older than a day.
    Files that a living process writes stay, so two runs may share the folder.

    Raises:
        StorageError: the folder exists but cannot be read or changed.
    """
    removed = []
    try:
        names = sorted(os.listdir(folder))
        for name in names:
            if _is_stale(os.path.join(folder, name)):
                with contextlib.suppress(FileNotFoundError):  # another run is cleaning up at the same time
                    os.unlink(os.path.join(folder, name))
                    removed.append(name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error("clean up", folder, error) from error
    return removed


def is_temporary(name: str) -> bool:
    """Returns True if `name` is a temporary name of `publish`."""
    return _LEFTOVER.search(name) is not None


def _temporary_name(path: str, ending: str = "") -> str:
    folder, name = os.path.split(path)
    if is_remote(path):
        folder = tempfile.gettempdir()
    suffix = f".{_place()}-{os.getpid()}-{next(_serials)}.tmp{ending}"  # the serial keeps threads apart
    return os.path.join(folder, _shortened(name, MAX_NAME_BYTES - len(suffix)) + suffix)


def _shortened(name: str, limit: int) -> str:
    raw = os.fsencode(name)
    return name if len(raw) <= limit else hashlib.sha256(raw).hexdigest()[:32]


@functools.cache
def _place() -> str:
    """Returns a name for the scope in which process numbers are unique: this boot of this machine, and its container.

    Cloned machines share a host name and the number of the first namespace, but each boot has its own id.
    """
    namespace = boot = ""
    with contextlib.suppress(OSError):  # not Linux
        namespace = os.readlink("/proc/self/ns/pid")
    with contextlib.suppress(OSError), open(_BOOT_ID, encoding="ascii") as file:
        boot = file.read().strip()
    return hashlib.sha256(f"{socket.gethostname()} {namespace} {boot}".encode()).hexdigest()[:8]


@contextlib.contextmanager
def _being_written(temporary: str) -> Iterator[None]:
    name = os.path.abspath(temporary)
    _in_flight.add(name)  # no lock: set operations are atomic, and a lock could be held across a fork
    try:
        yield
    finally:
        _in_flight.discard(name)


@contextlib.contextmanager
def _named_faults(path: str, temporary: str) -> Iterator[None]:
    """Turns storage errors of this file into one line; those of other files (a producer's input) pass unchanged."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.filename not in (None, path, temporary, os.path.dirname(path)):
            raise
        raise storage_error("write", path, error) from error


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: str) -> None:
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems cannot
            raise


def process_name() -> str:
    """Returns a name of this process: its number, and where such numbers are unique."""
    return f"{_place()}-{os.getpid()}"


def process_has_ended(name: str) -> bool:
    """Returns True if a process of this machine has that name and has ended; False if unknown."""
    place, _, pid = name.partition("-")
    return place == _place() and pid.isdigit() and int(pid) != os.getpid() and not _is_alive(int(pid))


def _is_stale(path: str) -> bool:
    found = _LEFTOVER.search(os.path.basename(path))
    if found is None:
        return False
    if found["place"] != _place():
        return _age_s(path) > FOREIGN_LEFTOVER_S
    pid = int(found["pid"])
    if pid == os.getpid():
        return os.path.abspath(path) not in _in_flight
    return not _is_alive(pid)


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # only POSIX lets signal 0 ask if a process lives
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
