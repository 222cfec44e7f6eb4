"""Final Parquet files of a fixed number of rows, published together."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.formats.publish import put_in_place, remove_leftovers, working_file

ROW_GROUP = 8_192  # rows of a final file that are held until they are written: half a kilobyte to one a row
_UNFINISHED = re.compile(r"part-[0-9]{5,}\.unfinished", re.ASCII)  # left by earlier versions
_FINAL = re.compile(r"part-[0-9]{5,}-of-[0-9]{5,}\.parquet", re.ASCII)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A final file: `name` below the output folder, `rows`, and the SHA-256 of its bytes in hex."""

    name: str
    rows: int
    digest: str


class RowFiles:
    """Files of exactly so many rows, in row groups of exactly so many, whatever sizes the rows arrive in.

    They are written beside their final names, which hold their number and so are known only in the end:
    `publish` renames them. Leaving without that removes them. Their temporary names are this writer's alone, as a
    runner may start a second attempt while the first still works.
    """

    def __init__(self, folder: str, schema: pa.Schema, *, rows_per_file: int, row_group: int) -> None:
        if rows_per_file < 1 or row_group < 1:
            raise ValueError(f"rows_per_file={rows_per_file}, row_group={row_group}: both must be at least 1")
        self._folder, self._schema = folder, schema
        self._rows_per_file, self._row_group = rows_per_file, row_group
        self._held: list[pa.Table] = []
        self._held_rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[int] = []  # of each file begun
        self._temporary: list[str] = []  # of each file begun
        self._begun = contextlib.ExitStack()

    def __enter__(self) -> RowFiles:
        os.makedirs(self._folder, exist_ok=True)
        remove_leftovers(self._folder)
        self._remove(_UNFINISHED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a full disk is reported by the write that met it
                self._writer.close()
        self._begun.close()

    def add(self, rows: pa.Table) -> None:
        """Writes as many whole row groups as there are rows for."""
        if rows.num_rows:
            self._held.append(rows)
            self._held_rows += rows.num_rows
        if self._held_rows >= self._room():
            self._write_groups(whole=True)

    def publish(self) -> list[OutputFile]:
        """Ends the last file, puts all in place and removes those of an earlier merge; at least one file stands."""
        self._write_groups(whole=False)
        if not self._rows:
            self._begin()
        self._end()
        total = len(self._rows)
        names = [f"part-{index:05d}-of-{total:05d}.parquet" for index in range(total)]
        self._remove(_FINAL, but=frozenset(names))
        files = []
        for index, (name, rows) in enumerate(zip(names, self._rows, strict=True)):
            final = os.path.join(self._folder, name)
            put_in_place(self._temporary[index], final)
            files.append(output_file(final, os.path.dirname(self._folder), rows))
        return files

    def _room(self) -> int:
        """Rows that the next row group takes."""
        written = self._rows[-1] % self._rows_per_file if self._rows else 0
        return min(self._row_group, self._rows_per_file - written)

    def _write_groups(self, *, whole: bool) -> None:
        if not self._held:
            return
        rows = pa.concat_tables(self._held).combine_chunks()  # no version of Arrow may cut pages by how rows arrived
        start = 0
        while rows.num_rows - start >= (self._room() if whole else 1):
            group = rows.slice(start, self._room())
            start += group.num_rows
            self._write(group)
        rest = rows.slice(start)
        self._held, self._held_rows = ([rest] if rest.num_rows else []), rest.num_rows

    def _write(self, group: pa.Table) -> None:
        if self._writer is None:
            self._begin()
        assert self._writer is not None
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._rows[-1] += group.num_rows
        if self._rows[-1] == self._rows_per_file:
            self._end()

    def _begin(self) -> None:
        name = os.path.join(self._folder, f"part-{len(self._rows):05d}")
        self._temporary.append(self._begun.enter_context(working_file(name)))
        self._writer = pq.ParquetWriter(
            self._temporary[-1],
            self._schema,
            compression="zstd",
            use_dictionary=[n for n in _REPETITIVE if n in self._schema.names],
            write_page_checksum=True,
        )
        self._rows.append(0)

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _remove(self, pattern: re.Pattern[str], *, but: frozenset[str] = frozenset()) -> None:
        for name in os.listdir(self._folder):
            if pattern.fullmatch(name) and name not in but:
                unlink_if_there(os.path.join(self._folder, name))


_REPETITIVE = ("label", "source", "status", "stage", "reason", "true_label")  # few values: a dictionary pays


def output_file(path: str, output: str, rows: int) -> OutputFile:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OutputFile(os.path.relpath(path, output).replace(os.sep, "/"), rows, digest)


def unlink_if_there(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
