"""Storage of another scheme, as Beam sees object stores: `nearby://bucket/...` lies in a folder of this machine.

Names are flat, as there: a "folder" is the start of names, and nothing is listed but files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

SCHEME = "nearby://"


class Nearby(FileSystem):
    """Reads below `base`; Beam finds it by its being a subclass. Nothing is written through it."""

    base: ClassVar[Path]

    @classmethod
    def scheme(cls) -> str:
        return "nearby"

    def _local(self, path: str) -> str:
        return os.path.join(self.base, path.removeprefix(SCHEME))

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for folder, _, names in os.walk(self.base):
            for name in names:
                path = os.path.join(folder, name)
                whole = SCHEME + os.path.relpath(path, self.base)
                if whole.startswith(dir_or_prefix):
                    yield self._metadata(whole)

    def exists(self, path: str) -> bool:
        return os.path.isfile(self._local(path))

    def open(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO, **_: Any) -> BinaryIO:
        assert compression_type == CompressionTypes.UNCOMPRESSED
        try:
            return open(self._local(path), "rb")
        except OSError as error:
            raise BeamIOError("Open failed", {path: error}) from error

    def metadata(self, path: str) -> FileMetadata:
        return self._metadata(path)

    def _metadata(self, path: str) -> FileMetadata:
        stat = os.stat(self._local(path))
        return FileMetadata(path, stat.st_size, stat.st_mtime)

    def size(self, path: str) -> int:
        return int(self._metadata(path).size_in_bytes)

    def last_updated(self, path: str) -> float:
        return float(self._metadata(path).last_updated_in_seconds)

    def checksum(self, path: str) -> str:
        return str(self.size(path))

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is written here")

    mkdirs = create = copy = rename = delete = _refuse
