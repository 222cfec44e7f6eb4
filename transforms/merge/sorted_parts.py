"""The external merge: rows of all parts in order, ids that occur twice resolved.

At most 32 files are open, more are first joined in rounds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.parts import (
    GROUP_BYTES,
    DamagedPart,
    PartMetadata,
    PartReader,
    answers_in,
    close_part,
    part_info,
    part_writer,
    write_rows,
)
from transforms.formats.records import Reason, Status
from transforms.merge.scratch import Scratch
from transforms.storage.stopping import check

FILES_OPEN = 32  # at once; a part being read takes a quarter of a megabyte, so 8,000 images fill what they may take
JOINED_BYTES = 16 * GROUP_BYTES  # of rows gathered before they are written in a round
OUTPUTS_OPEN = 2  # files being written while parts are read: of faces and of images


@dataclass(frozen=True, slots=True)
class _Run:
    """A sorted file, and the range of ids inside."""

    path: str
    info: PartMetadata


def few_runs(parts: Sequence[str], schema: pa.Schema, scratch: Scratch, max_open: int) -> list[_Run]:
    """Returns runs of which at most `max_open` less the outputs overlap anywhere, joining runs where there are more."""
    width = max_open - OUTPUTS_OPEN
    if width < 2:
        raise ValueError(f"max_open={max_open} is too few: a merge needs {OUTPUTS_OPEN + 2} open files")
    runs = [run for run in (_Run(path, part_info(path)) for path in parts) if run.info.images]
    while _overlapping(runs) > width:
        runs.sort(key=lambda run: (run.info.first_id, run.path))
        joined = []
        for start in range(0, len(runs), width):
            joined.append(_join(runs[start : start + width], scratch.new(), schema))
        for run in runs:
            scratch.remove(run.path)
        runs = joined
    return runs


def _overlapping(runs: Sequence[_Run]) -> int:
    """Returns how many ranges of ids, ends included, share an id at most."""
    ends = [(run.info.first_id, 0) for run in runs] + [(run.info.last_id, 1) for run in runs]
    ends.sort()  # where one ends and another begins they overlap: beginnings (0) come first
    most = depth = 0
    for _, end in ends:
        depth += -1 if end else 1
        most = max(most, depth)
    return most


def _join(runs: Sequence[_Run], path: str, schema: pa.Schema) -> _Run:
    """Merges a few runs into one."""
    with part_writer(path, schema) as writer:
        for rows in _gathered(merged_rows(runs, schema, len(runs))):
            check()
            write_rows(writer, rows)
        infos = [run.info for run in runs]
        info = PartMetadata(
            block_key="",
            run_fingerprint="",
            first_id=min(info.first_id for info in infos),
            last_id=max(info.last_id for info in infos),
            images=sum(info.images for info in infos),
            faces=sum(info.faces for info in infos),
            cached=sum(info.cached for info in infos),
        )
        close_part(path, writer, info)
    return _Run(path, info)


def _gathered(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yields the rows of `batches` in larger pieces.

    Runs that overlap give out rows in batches of any size. Written one by one, small batches would become small row
    groups, from which the next round makes smaller batches still.
    """
    held: list[pa.Table] = []
    held_bytes = 0
    for rows in batches:
        held.append(rows)
        held_bytes += rows.nbytes
        if held_bytes >= JOINED_BYTES:
            yield pa.concat_tables(held).combine_chunks()
            held, held_bytes = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


class _Input:
    """An open run and the rows of it that are read and not yet given out."""

    def __init__(self, run: _Run, schema: pa.Schema) -> None:
        self._reader = PartReader(run.path)
        self._rows = self._reader.schema.empty_table()
        made_for = self._reader.schema
        if made_for != schema:
            self.close()
            raise DamagedPart(
                f"part {run.path} is of a head that gives {_output_of(made_for)}, not {_output_of(schema)}; "
                "remove it, then give the same command again",
                path=run.path,
            )

    def fill(self) -> bool:
        """Reads on if nothing is held. False at the end of the file, which is then closed."""
        if self._rows.num_rows == 0:
            rows = next(self._reader, None)
            if rows is None:
                self.close()
                return False
            self._hold(rows)
        return True

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


def merged_rows(runs: Sequence[_Run], schema: pa.Schema, width: int) -> Iterator[pa.Table]:
    """Yields the rows of all runs, sorted by image id (UTF-8 bytes), then position; opens at most `width` at once.

    Whatever is held can be given out up to the last row held of each run that goes on, and below the first id
    of the runs not opened yet. As at most `width` ranges overlap, that is always something.
    """
    waiting = deque(sorted(runs, key=lambda run: (run.info.first_id, run.path)))
    inputs: list[_Input] = []
    try:
        while True:
            inputs = [run for run in inputs if run.fill()]
            while waiting and len(inputs) < width:
                inputs.append(_Input(waiting.popleft(), schema))
                inputs[-1].fill()
            if not inputs:
                return
            last = min((run.last_key for run in inputs if not run.ends), default=None)
            before = waiting[0].info.first_id if waiting else None
            yield _sorted([run.take(last, before) for run in inputs])
    finally:
        for run in inputs:
            run.close()


def _sorted(tables: Sequence[pa.Table]) -> pa.Table:
    filled = [table for table in tables if table.num_rows]
    if len(filled) == 1:
        return filled[0]  # sorted already
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
