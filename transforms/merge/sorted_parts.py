"""The external merge: rows of all parts in order, ids that occur twice resolved.

Parts of which few overlap are merged as they are. More than 30 that overlap are first rewritten as larger runs, all in
one scratch file: parts are read in groups that fill `RUN_BYTES`, and each group is sorted in memory. So every row is
read twice and written once, whatever the number of parts, up to `MERGED_AT_ONCE` runs: 4 GB of rows. Beyond that, runs
are joined in rounds.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.parts import GROUP_BYTES, DamagedPart, PartMetadata, PartReader, answers_in, part_info
from transforms.formats.records import Reason, Status
from transforms.merge.run_file import RunFile
from transforms.merge.scratch import Scratch
from transforms.storage.stopping import check

FILES_OPEN = 32  # at once; a part being read takes a quarter of a megabyte, so 8,000 images fill what they may take
OUTPUTS_OPEN = 2  # files being written while parts are read: of faces and of images
RUN_BYTES = 16 * 2**20  # of rows sorted in memory; twice that is held meanwhile
PIECE_BYTES = GROUP_BYTES // 4  # of a run: an input holds up to two
MERGED_AT_ONCE = 256  # runs; with their pieces, and the rows given out, they take 48 MB
MOST_AHEAD = 32  # pieces that an input holds if there are few runs, so that rows are given out in larger batches


class Reader(Protocol):
    """Gives out the rows of a run, some at a time."""

    groups_left: int

    def __next__(self) -> pa.Table: ...

    def close(self) -> None: ...


class Run(Protocol):
    """Sorted rows, and the range of ids inside; `name` sorts runs with equal first ids."""

    @property
    def first_id(self) -> str: ...

    @property
    def last_id(self) -> str: ...

    @property
    def name(self) -> str: ...

    def reader(self) -> Reader: ...


@dataclass(frozen=True, slots=True)
class _Part:
    """A part as a run."""

    name: str
    info: PartMetadata
    schema: pa.Schema

    @property
    def first_id(self) -> str:
        return self.info.first_id

    @property
    def last_id(self) -> str:
        return self.info.last_id

    def reader(self) -> PartReader:
        """Opens the part.

        Raises:
            DamagedPart: it is damaged, or of another head.
        """
        reader = PartReader(self.name)
        if reader.schema != self.schema:
            reader.close()
            raise DamagedPart(
                f"part {self.name} is of a head that gives {_output_of(reader.schema)}, not "
                f"{_output_of(self.schema)}; remove it, then give the same command again",
                path=self.name,
            )
        return reader


def rows_of(parts: Sequence[str], schema: pa.Schema, scratch: Scratch, max_open: int) -> Iterator[pa.Table]:
    """Yields the rows of all parts, sorted by image id (UTF-8 bytes), then position; opens at most `max_open` files.

    Raises:
        DamagedPart: a part cannot be read.
    """
    width = max_open - OUTPUTS_OPEN
    if width < 2:
        raise ValueError(f"max_open={max_open} is too few: a merge needs {OUTPUTS_OPEN + 2} open files")
    found = [_Part(path, info, schema) for path in parts if (info := part_info(path)).images]
    found.sort(key=_order)
    if _overlapping(found) <= width:
        yield from merged_rows(found, width)
        return
    with contextlib.ExitStack() as held:
        file = held.enter_context(RunFile(scratch.new(), schema))
        runs = [file.add(_in_pieces(rows)) for rows in _gathered(found)]
        while _overlapping(runs) > MERGED_AT_ONCE:
            runs.sort(key=_order)
            joined = held.enter_context(RunFile(scratch.new(), schema))
            runs = [
                joined.add(_in_pieces_across(merged_rows(runs[start : start + MERGED_AT_ONCE], MERGED_AT_ONCE)))
                for start in range(0, len(runs), MERGED_AT_ONCE)
            ]
            scratch.remove(file.path)
            file = joined
        yield from merged_rows(runs, MERGED_AT_ONCE, min(MOST_AHEAD, MERGED_AT_ONCE // len(runs)))


def _order(run: Run) -> tuple[str, str]:
    return run.first_id, run.name


def _gathered(parts: Sequence[_Part]) -> Iterator[pa.Table]:
    """Yields the rows of all parts in sorted pieces of about `RUN_BYTES`."""
    held: list[pa.Table] = []
    held_bytes = 0
    for part in parts:
        check()
        with part.reader() as reader:
            for rows in reader:
                held.append(rows)
                held_bytes += rows.nbytes
                if held_bytes >= RUN_BYTES:
                    yield _sorted(held)
                    held, held_bytes = [], 0
    if held:
        yield _sorted(held)


def _in_pieces(rows: pa.Table) -> Iterator[pa.Table]:
    """Yields the rows in pieces of about `PIECE_BYTES`."""
    size = max(1, rows.num_rows * PIECE_BYTES // max(rows.nbytes, 1))
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size)


def _in_pieces_across(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yields the rows of `batches`, which may be small, in pieces of about `PIECE_BYTES`."""
    held: list[pa.Table] = []
    held_bytes = 0
    for rows in batches:
        check()
        held.append(rows)
        held_bytes += rows.nbytes
        if held_bytes >= RUN_BYTES:
            yield from _in_pieces(pa.concat_tables(held))
            held, held_bytes = [], 0
    if held:
        yield from _in_pieces(pa.concat_tables(held))


def _overlapping(runs: Sequence[Run]) -> int:
    """Returns how many ranges of ids, ends included, share an id at most."""
    ends = [(run.first_id, 0) for run in runs] + [(run.last_id, 1) for run in runs]
    ends.sort()  # where one ends and another begins they overlap: beginnings (0) come first
    most = depth = 0
    for _, end in ends:
        depth += -1 if end else 1
        most = max(most, depth)
    return most


class _Input:
    """An open run and the rows of it that are read and not yet given out."""

    def __init__(self, run: Run, ahead: int) -> None:
        """Takes a run, and how many of the tables that its reader gives are held at least."""
        self._reader = run.reader()
        try:
            self._hold(next(self._reader))
        except BaseException:
            self.close()
            raise
        self._enough: int = self._rows.num_rows * ahead

    def fill(self) -> bool:
        """Reads on until enough rows are held. False at the end of the file, which is then closed.

        If each of many runs held only what the step before has left, one of them would soon be nearly empty, and all
        would have to be looked at for a few rows.
        """
        held = [self._rows]
        count: int = self._rows.num_rows
        while count < self._enough and not self.ends:
            held.append(next(self._reader))
            count += held[-1].num_rows
        if len(held) > 1:
            self._hold(pa.concat_tables(held))
        if count == 0:
            self.close()
        return count > 0

    @property
    def ends(self) -> bool:
        """True if no rows follow those held."""
        return bool(self._reader.groups_left == 0)

    @property
    def last_key(self) -> tuple[str, int]:
        """Of the rows held."""
        return self._key(self._rows.num_rows - 1)

    def take(self, last: tuple[str, int] | None, before: str | None) -> pa.Table:
        """Returns the rows held with a key up to `last` and an id below `before`, and lets go of them."""
        count = self._rows.num_rows
        places = range(count)
        if last is not None and self.last_key > last:
            count = bisect_right(places, last, key=self._key)
        if before is not None and self._ids[self._rows.num_rows - 1].as_py() >= before:
            count = min(count, bisect_left(places, before, key=lambda row: self._ids[row].as_py()))
        rows = self._rows.slice(0, count)
        self._hold(self._rows.slice(count))
        return rows

    def close(self) -> None:
        self._reader.close()

    def _hold(self, rows: pa.Table) -> None:
        self._rows = rows
        self._ids = text_column(rows, "image_id")
        self._positions = text_column(rows, "position")

    def _key(self, row: int) -> tuple[str, int]:
        return self._ids[row].as_py(), self._positions[row].as_py()


def _output_of(schema: pa.Schema) -> str:
    """Returns the answers of a head in words, such as `label_index, confidence, p (7)`."""
    sizes = {field.name: getattr(field.type, "list_size", None) for field in answers_in(schema)}
    return ", ".join(name if size is None else f"{name} ({size})" for name, size in sizes.items())


def merged_rows(runs: Sequence[Run], width: int, ahead: int = 1) -> Iterator[pa.Table]:
    """Yields the rows of all runs, sorted by image id (UTF-8 bytes), then position; opens at most `width` at once.

    No run is empty. Whatever is held can be given out up to the last row held of each run that goes on, and below the
    first id of the runs not opened yet. As at most `width` ranges overlap, that is always something.
    """
    waiting = deque(sorted(runs, key=_order))
    inputs: list[_Input] = []
    try:
        while True:
            inputs = [run for run in inputs if run.fill()]
            while waiting and len(inputs) < width:
                inputs.append(_Input(waiting.popleft(), ahead))
            if not inputs:
                return
            last = min((run.last_key for run in inputs if not run.ends), default=None)
            before = waiting[0].first_id if waiting else None
            yield _sorted([run.take(last, before) for run in inputs])
    finally:
        for run in inputs:
            run.close()


def _sorted(tables: Sequence[pa.Table]) -> pa.Table:
    filled = [table for table in tables if table.num_rows]
    if len(filled) == 1:
        return filled[0].combine_chunks()  # sorted already
    rows = pa.concat_tables(filled).combine_chunks()
    keys = rows.select(["image_id", "position"])
    return rows.take(pc.sort_indices(keys, sort_keys=[("image_id", "ascending"), ("position", "ascending")]))


def text_column(rows: pa.Table, name: str) -> pa.Array:
    """Returns a column in one piece."""
    column = rows[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def without_repeated_ids(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yields the rows with every image whose id came before turned into a duplicate without faces."""
    before: str | None = None
    for rows in batches:
        ids = text_column(rows, "image_id")
        repeats = np.zeros(len(ids), bool)
        repeats[0] = ids[0].as_py() == before
        repeats[1:] = pc.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        before = ids[-1].as_py()
        yield _as_duplicates(rows, repeats) if repeats.any() else rows


def _as_duplicates(rows: pa.Table, repeats: np.ndarray) -> pa.Table:
    mask = pa.array(repeats)
    for name, value in (
        ("status", Status.DUPLICATE),
        ("stage", Reason.DUPLICATE_ID.stage),
        ("reason", Reason.DUPLICATE_ID),
    ):
        column = pc.if_else(mask, value.value, rows[name])
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    faces = text_column(rows, "faces")
    counts, values = nested(faces)
    kept = values.filter(pa.array(np.repeat(~repeats, counts)))
    offsets = np.concatenate([[0], np.cumsum(np.where(repeats, 0, counts))]).astype(np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), kept, type=faces.type)
    return rows.set_column(rows.schema.get_field_index("faces"), rows.schema.field("faces"), column)


def nested(faces: pa.ListArray) -> tuple[np.ndarray, pa.StructArray]:
    """Returns (n,) faces of each image, and the faces of all of them."""
    return pc.list_value_length(faces).to_numpy().astype(np.int64), faces.flatten()
