"""One store behind every path of output and cache: a folder of this machine, or the objects below a prefix.

Objects are whole or absent, and so are files: both are published from a finished local file.
Not here: users' inputs (`store.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from transforms.formats.publish import is_temporary, publish_bytes, publish_file, storage_error
from transforms.storage.objects import ObjectStore, Stored, Version, fault_without_package
from transforms.storage.paths import is_object
from transforms.storage.stopping import check

FETCHED_AT_ONCE = 32  # objects; each waits some 30 ms for its answer
_GUARD = ".guard"  # locked while a local file is replaced on a condition


class Store(Protocol):
    """Files below a root, by names with `/`. Errors are one line with the whole path; threads may share it.

    Attributes:
        root: folder, or `s3://bucket/prefix`.
    """

    root: str

    def path(self, name: str) -> str:
        """Returns the whole path of a file."""
        ...

    def list(self, folder: str = "", *, after: str = "") -> Iterator[Stored]:
        """Yields the files below a folder, in no particular order; nothing if there is no such folder.

        Args:
            folder: below the root; "" for all.
            after: only names greater than this one, by their bytes.
        """
        ...

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes, None if there is none."""
        ...

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Returns the bytes from `start` up to `stop`, fewer at the end."""
        ...

    def get(self, name: str) -> tuple[bytes, Version] | None:
        """Returns a file's bytes and version, None if there is none."""
        ...

    def put(self, name: str, local: str) -> None:
        """Publishes a finished local file, in place of an older one."""
        ...

    def put_bytes(self, name: str, data: bytes) -> None:
        """Publishes a small file, in place of an older one."""
        ...

    def put_if_absent(self, name: str, data: bytes) -> Version | None:
        """Publishes a file unless there is one; returns its version, None if there was one."""
        ...

    def put_if_same(self, name: str, data: bytes, version: Version) -> Version | None:
        """Publishes a file in place of this version; returns the new one, None if another one was there."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Removes files; those that are gone already are no error."""
        ...


def store_of(path: str) -> Store:
    """Returns the store whose root is a local folder or an s3:// or gs:// prefix.

    Raises:
        NoSuchStorage: the package for object stores is not installed.
    """
    if not is_object(path):
        return LocalStore(path)
    try:
        return ObjectStore(path)
    except ImportError as error:
        raise fault_without_package(path, "opened") from error


def upload(local: str, path: str) -> None:
    """Publishes a finished local file as the object `path`; for `publish(…, upload=upload)`."""
    folder, _, name = path.rpartition("/")
    store_of(folder).put(name, local)


def fetch(store: Store, names: Mapping[str, str], folder: str) -> None:
    """Copies files of a store into a local folder, many at once; those that are gone are left out.

    Args:
        store: has the files.
        names: in the store -> in the folder.
        folder: scratch, which nobody else reads.

    Raises:
        StorageError, InputFault: one is gone or cannot be copied. Stopped: the user asked to stop.
    """
    os.makedirs(folder, exist_ok=True)
    with ThreadPoolExecutor(FETCHED_AT_ONCE, "fetch") as pool:
        for _ in pool.map(partial(_fetch, store), names, (os.path.join(folder, name) for name in names.values())):
            check()


def _fetch(store: Store, name: str, path: str) -> None:
    found = store.get(name)
    if found is not None:
        with open(path, "wb") as file:
            file.write(found[0])


class LocalStore:
    """A folder of this machine. Temporary files of writers are not listed."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def path(self, name: str) -> str:
        """Returns the whole path of a file."""
        return os.path.join(self.root, name) if name else self.root

    def list(self, folder: str = "", *, after: str = "") -> Iterator[Stored]:
        """Yields the files below a folder."""
        top = self.path(folder)
        for place, _, names in os.walk(top):
            for name in names:
                path = os.path.join(place, name)
                below = os.path.relpath(path, self.root).replace(os.sep, "/")
                if is_temporary(name) or name == _GUARD or (after and below <= after):
                    continue
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found = os.stat(path)
                    yield Stored(below, found.st_size, found.st_mtime)

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes, None if there is none."""
        try:
            return os.path.getsize(self.path(name))
        except FileNotFoundError:
            return None

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Returns the bytes from `start` up to `stop`, fewer at the end."""
        try:
            with open(self.path(name), "rb") as file:
                file.seek(start)
                return file.read(max(0, stop - start))
        except OSError as error:
            raise storage_error("read", self.path(name), error) from error

    def get(self, name: str) -> tuple[bytes, Version] | None:
        """Returns a file's bytes and version, None if there is none."""
        try:
            with open(self.path(name), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("read", self.path(name), error) from error
        return data, _version(data)

    def put(self, name: str, local: str) -> None:
        """Publishes a copy of a finished file."""
        with self._made(name) as path, publish_file(path) as temporary:
            shutil.copyfile(local, temporary)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Publishes a small file."""
        with self._made(name) as path:
            publish_bytes(path, data)

    def put_if_absent(self, name: str, data: bytes) -> Version | None:
        """Publishes a file unless there is one."""
        return self._put_if(name, data, None)

    def put_if_same(self, name: str, data: bytes, version: Version) -> Version | None:
        """Publishes a file in place of this version."""
        return self._put_if(name, data, version)

    def _put_if(self, name: str, data: bytes, version: Version | None) -> Version | None:
        import fcntl

        with self._made(_GUARD) as guard, open(guard, "a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            found = self.get(name)
            if (None if found is None else found[1]) != version:
                return None
            self.put_bytes(name, data)
        return _version(data)

    def delete(self, names: Iterable[str]) -> None:
        """Removes files."""
        for name in names:
            try:
                os.unlink(self.path(name))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise storage_error("remove", self.path(name), error) from error

    @contextlib.contextmanager
    def _made(self, name: str) -> Iterator[str]:
        """Gives the path of a file whose folder stands."""
        path = self.path(name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise storage_error("create", os.path.dirname(path), error) from error
        yield path


def _version(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())
