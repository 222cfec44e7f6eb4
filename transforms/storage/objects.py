"""Objects of S3 and Google Cloud Storage, through obstore: whole objects, exact ranges, conditional writes.

obstore retries by itself: server errors, dropped connections and, where reading, time-outs. What remains is one line.
An object appears whole or not at all: it is sent from a finished file, never written as a stream.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from transforms.formats.publish import StorageError
from transforms.storage.faults import FileChanged, InputFault, NoSuchStorage
from transforms.storage.options import gcs_settings, s3_settings
from transforms.storage.paths import SCHEMES
from transforms.storage.retrying import with_retries

REQUEST_S, CONNECT_S = 30, 5  # a request is 8 MB at most, so 30 s are 270 kB/s; one that stalls is sent again
RETRIES, RETRY_S = 8, 90  # with pauses of 0.1 to 5 s: a store that is away for a minute stops no run
RANGE_BYTES = 8 * 2**20  # of one request; a larger range is fetched in pieces
MULTIPART_BYTES = 16 * 2**20  # from here on an object is sent in pieces, and is there when all of them are
LISTED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as listed: `name` below the store's root, `size` in bytes, `modified` seconds since the epoch."""

    name: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Version:
    """Which of the contents that an object had over time: equal versions are equal bytes."""

    e_tag: str | None = None
    version: str | None = None

    def as_mode(self) -> dict[str, str]:
        """Returns it as obstore's condition on a write."""
        return {name: value for name, value in (("e_tag", self.e_tag), ("version", self.version)) if value is not None}


class ObjectStore:
    """The objects whose names start with a root such as `s3://bucket/some/folder`.

    Names below it use `/`. Methods raise one-line errors with the whole path; they are safe to call from any thread.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        scheme, _, rest = self.root.partition("://")
        bucket, _, prefix = rest.partition("/")
        self._prefix = prefix + "/" if prefix else ""
        self._client = _client(scheme, bucket)

    def path(self, name: str) -> str:
        """Returns the whole path of an object."""
        return f"{self.root}/{name}" if name else self.root

    def list(self, folder: str = "", *, after: str = "") -> Iterator[Stored]:
        """Yields the objects below a folder, with their sizes, in no particular order; a thousand a request.

        Args:
            folder: below the root; "" for all.
            after: only names greater than this one, by their bytes.
        """
        below = (self._prefix + folder).rstrip("/")
        offset = self._prefix + after if after else None
        with self._named(folder, "listed"):
            for some in _obstore().list(self._client, prefix=below or None, offset=offset, chunk_size=LISTED_AT_ONCE):
                for found in some:
                    name = found["path"][len(self._prefix) :]
                    yield Stored(name, found["size"], found["last_modified"].timestamp())

    def size(self, name: str) -> int | None:
        """Returns an object's size in bytes, None if there is no such object."""
        with self._named(name, "looked for"):
            try:
                return int(_obstore().head(self._client, self._prefix + name)["size"])
            except FileNotFoundError:
                return None

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Returns the bytes from `start` up to `stop`, fewer at the end of the object."""
        return Reader(self, name).read(start, stop)

    def get(self, name: str) -> tuple[bytes, Version] | None:
        """Returns an object's bytes and version, None if there is no such object."""
        return with_retries(partial(self._got, name))

    def _got(self, name: str) -> tuple[bytes, Version] | None:
        with self._named(name, "read"):
            try:
                found = _obstore().get(self._client, self._prefix + name)
                return bytes(found.bytes()), _version(found.meta)
            except FileNotFoundError:
                return None

    def put(self, name: str, local: str) -> None:
        """Sends a finished file as one object, in place of an older one; until all is sent, nothing changes."""
        with self._named(name, "written"):
            large = os.path.getsize(local) >= MULTIPART_BYTES
            content: Any = Path(local) if large else Path(local).read_bytes()
            _obstore().put(self._client, self._prefix + name, content, use_multipart=large)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Sends a small object, in place of an older one."""
        with self._named(name, "written"):
            _obstore().put(self._client, self._prefix + name, data, use_multipart=False)

    def put_if_absent(self, name: str, data: bytes) -> Version | None:
        """Sends an object unless there is one; returns its version, None if it was refused.

        A lost answer makes the store refuse the second try, so the caller looks whether the object there is its own.
        """
        return self._put_on_condition(name, data, "create")

    def put_if_same(self, name: str, data: bytes, version: Version) -> Version | None:
        """Sends an object if the one there still has this version; returns the new version, None if it was refused."""
        return self._put_on_condition(name, data, version.as_mode())

    def _put_on_condition(self, name: str, data: bytes, mode: Any) -> Version | None:
        refused = _obstore().exceptions
        with self._named(name, "written"):
            try:
                return _version(_obstore().put(self._client, self._prefix + name, data, mode=mode, use_multipart=False))
            except (refused.AlreadyExistsError, refused.PreconditionError):
                return None

    def delete(self, names: Iterable[str]) -> None:
        """Removes objects; those that are gone already are no error."""
        gone = [self._prefix + name for name in names]
        for start in range(0, len(gone), LISTED_AT_ONCE):
            some = gone[start : start + LISTED_AT_ONCE]
            with self._named(some[0][len(self._prefix) :], "removed"):
                try:
                    _obstore().delete(self._client, some)
                except FileNotFoundError:
                    continue

    @contextmanager
    def _named(self, name: str, action: str) -> Iterator[None]:
        """Turns an error of obstore into one line with the path."""
        try:
            yield
        except (InputFault, StorageError):
            raise
        except Exception as error:
            if not type(error).__module__.startswith("obstore") and not isinstance(error, OSError | ValueError):
                raise
            raise _fault(self.path(name), action, error) from error


class Reader:
    """Reads ranges of one object, all of the same version.

    Raises:
        FileChanged: the object was replaced meanwhile.
        InputFault: it is gone, or cannot be read.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._name = store, name
        self._size: int | None = None
        self._version: Version | None = None

    def size(self) -> int:
        """Returns the size of the object in bytes."""
        if self._size is None:
            with self._store._named(self._name, "read"):
                self._pin(_obstore().head(self._store._client, self._store._prefix + self._name))
        assert self._size is not None
        return self._size

    def read(self, start: int, stop: int) -> bytes:
        """Returns the bytes from `start` up to `stop`, fewer at the end."""
        pieces = [
            with_retries(partial(self._piece, at, min(at + RANGE_BYTES, stop)))
            for at in range(start, stop, RANGE_BYTES)
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, start: int, stop: int) -> bytes:
        if self._size is not None:
            stop = min(stop, self._size)
            if start >= stop:
                return b""
        with self._store._named(self._name, "read"):
            options: dict[str, Any] = {"range": (start, stop)}
            if self._version is not None and self._version.e_tag:
                options["if_match"] = self._version.e_tag
            try:
                found = _obstore().get(self._store._client, self._store._prefix + self._name, options=options)
                data = bytes(found.bytes())
                self._pin(found.meta)
                return data
            except _obstore().exceptions.PreconditionError as error:
                path = self._store.path(self._name)
                raise FileChanged(None, f"{path} was changed while it was read; run the same command again") from error
            except Exception:
                if self._size is None and start >= self.size():  # beyond the end, which stores refuse
                    return b""
                raise

    def _pin(self, meta: Any) -> None:
        self._size = int(meta["size"])
        self._version = self._version or _version(meta)


def _version(meta: Any) -> Version:
    return Version(meta.get("e_tag"), meta.get("version"))


@functools.cache
def _client(scheme: str, bucket: str) -> Any:
    """Returns the process's client of a bucket."""
    from obstore.store import GCSStore, S3Store

    settings = s3_settings() if scheme == "s3" else gcs_settings()
    common: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=REQUEST_S),
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "allow_http": True,  # for stores within a private network
        },
        "retry_config": {
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_S),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        },
    }
    return S3Store(bucket, **settings, **common) if scheme == "s3" else GCSStore(bucket, **settings, **common)


def _obstore() -> Any:
    import obstore

    return obstore


def forget_clients() -> None:
    """Makes later stores read keys and addresses again."""
    _client.cache_clear()


def fault_without_package(path: str, action: str) -> NoSuchStorage:
    """Returns the error for an object store without the package that serves it."""
    scheme = path.partition("://")[0]
    cure = f"{scheme}:// needs pip install 'facelabel-pipeline[{SCHEMES[scheme]}]'"
    return NoSuchStorage(None, f"{path} cannot be {action}: {cure}")


_BROKEN = "response body error"
_CURES: Sequence[tuple[str, str]] = (  # by words in obstore's messages; the first that fits
    ("/latest/", "there are no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the --s3_ flags"),
    ("metadata.google", "there are no credentials; run gcloud auth application-default login"),
    ("403", "access is refused; check the keys and the bucket's policy"),
    ("401", "access is refused; check the keys"),
    ("NoSuchBucket", "there is no such bucket"),
    ("Path", "the store holds a name that cannot be used, with // or /./ or a control character in it; rename it"),
)


def _fault(path: str, action: str, error: Exception) -> OSError:
    """Returns the one-line error for a failed request; the store has been asked several times already."""
    text = str(error)
    first = " ".join(text.split("\n\nDebug source")[0].split())
    if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
        what = "there is no such object"
    else:
        what = next((cure for words, cure in _CURES if words in first), first)
    message = f"{path} cannot be {action}: {what}"
    fault = StorageError(None, message) if action in ("written", "removed") else InputFault(None, message)
    # read by `retrying.may_heal`: obstore has retried all but a connection that breaks within an answer
    vars(fault)["heals"] = _BROKEN in text
    return fault
