"""A scratch file that holds many sorted runs, each as a row of small pieces that are read one by one.

Parquet would need an open file and a footer a run, and more time. A piece is a record batch of Arrow, compressed, and
checked by its CRC-32 when it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

import pyarrow as pa

from transforms.formats.publish import StorageError

_CODEC = pa.Codec("lz4")


@dataclass(frozen=True, slots=True)
class Piece:
    """Where rows of a run are: `start` and `length` in the file, `size` in memory (bytes), and the CRC-32."""

    start: int
    length: int
    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Run:
    """Sorted rows of a `RunFile`.

    Attributes:
        first_id, last_id: range of image ids.
        name: sorts runs with equal first ids.
    """

    file: RunFile
    pieces: tuple[Piece, ...]
    first_id: str
    last_id: str
    name: str

    def reader(self) -> RunReader:
        """Returns an iterator over the rows."""
        return RunReader(self)


class RunFile:
    """A new scratch file; leaving closes it. Attributes: `path`."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        """Takes the path of an existing, empty file."""
        self.path, self._schema = path, schema
        self._runs = 0

    def __enter__(self) -> RunFile:
        self._file = open(self.path, "r+b", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, tables: Iterable[pa.Table]) -> Run:
        """Appends a run of sorted rows, a piece a table; none may be empty.

        Raises:
            OSError: the disk is full.
        """
        pieces, first, last = [], None, ""
        for table in tables:
            ids = table["image_id"]
            first = ids[0].as_py() if first is None else first
            last = ids[-1].as_py()
            pieces.append(self._append(table))
        assert first is not None  # who adds a run has rows
        self._runs += 1
        return Run(self, tuple(pieces), first, last, f"{self._runs:08d}")

    def _append(self, table: pa.Table) -> Piece:
        (batch,) = table.combine_chunks().to_batches()
        plain = batch.serialize()
        packed = _CODEC.compress(plain, asbytes=True)
        start, left = self._file.seek(0, 2), memoryview(packed)
        while left:  # a write without a buffer may take a part
            left = left[self._file.write(left) :]
        return Piece(start, len(packed), plain.size, zlib.crc32(packed))

    def read(self, piece: Piece) -> pa.Table:
        """Returns the rows of a piece.

        Raises:
            StorageError: the disk has lost or changed them. OSError: it cannot be read.
        """
        self._file.seek(piece.start)
        packed = b""
        while len(packed) < piece.length and (more := self._file.read(piece.length - len(packed))):
            packed += more
        if len(packed) != piece.length or zlib.crc32(packed) != piece.checksum:
            raise StorageError(None, f"the disk has changed the scratch file {self.path}; run the same command again")
        plain = _CODEC.decompress(packed, decompressed_size=piece.size)
        return pa.Table.from_batches([pa.ipc.read_record_batch(plain, self._schema)])


class RunReader:
    """Iterates over the rows of a run, a piece at a time; looks like a `PartReader`.

    Attributes:
        groups_left: pieces not read yet.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.groups_left = len(run.pieces)

    def __iter__(self) -> RunReader:
        return self

    def __next__(self) -> pa.Table:
        if not self.groups_left:
            raise StopIteration
        piece = self._run.pieces[-self.groups_left]
        self.groups_left -= 1
        return self._run.file.read(piece)

    def close(self) -> None:
        """Does nothing: the file belongs to all of its runs."""
