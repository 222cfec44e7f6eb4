"""From the sorted parts of all blocks to the final tables and the submission, in bounded memory.

An external merge: at most 32 files are open, more are first joined in rounds. What comes out depends on the
rows alone, not on how they were cut into parts. Here ids that occur twice are resolved and images are counted.
Not here: what a part is (`formats/parts.py`), and what a submission looks like (`formats/submission.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.formats.parts import (
    REJECT_SCORE,
    DamagedPart,
    PartMetadata,
    PartReader,
    classes_of,
    close_part,
    is_rejecting,
    part_info,
    part_schema,
    part_writer,
    write_rows,
)
from transforms.formats.publish import StorageError, storage_error
from transforms.formats.records import Reason, Status
from transforms.formats.submission import (
    LabelledIds,
    Sample,
    SubmissionReport,
    SubmissionRules,
    choose_face,
    no_face_index,
    write_submission,
)
from transforms.stopping import check

FILES_OPEN = 32  # at once; a part being read takes a quarter of a megabyte, so 8,000 images fill what they may take
ROW_GROUP = 8_192  # rows of a final file that are held until they are written: half a kilobyte to one a row
OUTPUTS_OPEN = 2  # files being written while parts are read: of faces and of images
NOT_WANTED = -2  # in place of a label: the row of a duplicate, which no submission lists

_SCRATCH = ".merging"  # folder of the rounds' files
_UNFINISHED = re.compile(r"part-[0-9]{5,}\.unfinished", re.ASCII)
_FINAL = re.compile(r"part-[0-9]{5,}-of-[0-9]{5,}\.parquet", re.ASCII)


class AccountError(Exception):
    """The images that went in are not those that came out. Attributes: `expected` and `found` images."""

    def __init__(self, message: str, *, expected: int = 0, found: int = 0) -> None:
        super().__init__(message)
        self.expected, self.found = expected, found


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A final file: `name` below the output folder, `rows`, and the SHA-256 of its bytes in hex."""

    name: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a finished merge wrote, counted from the rows themselves.

    Attributes:
        counts: images, labelled, no_face, rejected, duplicate, faces.
        labels: faces of each class, in the order of the classes, zeros too.
        reasons: images of each reason (those rejected and the duplicates), sorted by reason.
        known: images whose true label is one of the classes, duplicates aside.
        correct: how many of these get their true label, by the face policy and the label stated for no face.
        files: of predictions, of images, and the submission.
        submission: what was written there, None where none was asked for.
    """

    counts: dict[str, int]
    labels: dict[str, int]
    reasons: dict[str, int]
    known: int
    correct: int
    files: tuple[OutputFile, ...]
    submission: SubmissionReport | None = None


def merge_parts(
    parts: Sequence[str],
    output: str,
    *,
    classes: Sequence[str],
    rejecting: bool = False,
    rows_per_file: int = 1_000_000,
    row_group: int = ROW_GROUP,
    max_open: int = FILES_OPEN,
    submission: SubmissionRules | None = None,
    sample: Sample | None = None,
    expected_images: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> MergeResult:
    """Writes `predictions/`, `images/` and `submission.csv` from all parts; doing it again gives the same bytes.

    Args:
        parts: paths, in any order.
        output: folder of the run; final files of an earlier merge there are replaced.
        classes: of the head, in the order of the probabilities.
        rejecting: the head gives a reject score, and `predictions/` has a column of it.
        rows_per_file, row_group: output file i holds the rows i·N … (i+1)·N−1, in row groups of exactly so many.
        max_open: files open at once, at least 4.
        submission: how `submission.csv` looks; None writes none and removes an old one.
        sample: to be followed; its rules stand above `submission`.
        expected_images: how many must come out.
        progress: called with the number of images merged so far.

    Raises:
        AccountError: images are missing, or too many; nothing is published.
        DamagedPart: a part cannot be read; nothing is published.
        SubmissionError: no submission can be written; the tables are published.
        StorageError: the output cannot be written.
    """
    rules = sample.rules if sample is not None else submission or SubmissionRules()
    account = _Account(tuple(classes), rules)
    images = RowFiles(os.path.join(output, "images"), IMAGE_SCHEMA, rows_per_file=rows_per_file, row_group=row_group)
    faces = RowFiles(
        os.path.join(output, "predictions"),
        face_schema(classes, rejecting=rejecting),
        rows_per_file=rows_per_file,
        row_group=row_group,
    )
    schema = part_schema(len(classes), rejecting=rejecting)
    with _storage(output), _scratch(output) as scratch, faces, images:
        _unlink(os.path.join(output, "submission.csv"))
        runs = _few_runs(parts, schema, scratch, max_open)
        for rows in _resolved(_merged(runs, schema, max_open - OUTPUTS_OPEN)):
            check()
            account.add(rows)
            images.add(image_rows(rows))
            faces.add(face_rows(rows, classes))
            if progress is not None:
                progress(account.images)
        account.refuse_unless(expected_images)
        files = [*faces.publish(), *(listed := images.publish())]
        report = None
        if submission is not None or sample is not None:
            batches = partial(_labelled_ids, [os.path.join(output, file.name) for file in listed], account.labels())
            path = os.path.join(output, "submission.csv")
            report = write_submission(path, batches, classes=classes, rules=rules, sample=sample)
            files.append(_output_file(path, output, report.rows))
    return replace(account.result(), files=tuple(files), submission=report)


# Sorted runs: parts, and what rounds make of them


@dataclass(frozen=True, slots=True)
class _Run:
    """A sorted file, and the range of ids inside."""

    path: str
    info: PartMetadata


def _few_runs(parts: Sequence[str], schema: pa.Schema, scratch: str, max_open: int) -> list[_Run]:
    """Returns runs of which at most `max_open` less the outputs overlap anywhere, joining runs where there are more."""
    width = max_open - OUTPUTS_OPEN
    if width < 2:
        raise ValueError(f"max_open={max_open} is too few: a merge needs {OUTPUTS_OPEN + 2} open files")
    runs = [run for run in (_Run(path, part_info(path)) for path in parts) if run.info.images]
    number = 0
    while _overlapping(runs) > width:
        runs.sort(key=lambda run: (run.info.first_id, run.path))
        joined = []
        for start in range(0, len(runs), width):
            path = os.path.join(scratch, f"{number:06d}.parquet")
            joined.append(_join(runs[start : start + width], path, schema))
            number += 1
        for run in runs:
            if run.path.startswith(scratch):
                os.unlink(run.path)
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
        for rows in _merged(runs, schema, len(runs)):
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
            hits=sum(info.hits for info in infos),
        )
        close_part(path, writer, info)
    return _Run(path, info)


class _Input:
    """An open run and the rows of it that are read and not yet given out."""

    def __init__(self, run: _Run, schema: pa.Schema) -> None:
        self._reader = PartReader(run.path)
        self._rows = self._reader.schema.empty_table()
        made_for = self._reader.schema
        if made_for != schema:
            self.close()
            raise DamagedPart(
                f"part {run.path} is of a head with {_head_of(made_for)}, not {_head_of(schema)}; "
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
        self._ids = _column(rows, "image_id")
        self._positions = _column(rows, "position")

    def _key(self, row: int) -> tuple[str, int]:
        return self._ids[row].as_py(), self._positions[row].as_py()


def _head_of(schema: pa.Schema) -> str:
    return f"{classes_of(schema)} classes" + (" and a reject score" if is_rejecting(schema) else "")


def _merged(runs: Sequence[_Run], schema: pa.Schema, width: int) -> Iterator[pa.Table]:
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


def _column(rows: pa.Table, name: str) -> pa.Array:
    """Returns a column in one piece."""
    column = rows[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


# From sorted rows to final ones


def _resolved(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yields the rows with every image whose id came before turned into a duplicate without faces."""
    before: str | None = None
    for rows in batches:
        ids = _column(rows, "image_id")
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
    faces = _column(rows, "faces")
    counts, values = _nested(faces)
    kept = values.filter(pa.array(np.repeat(~repeats, counts)))
    offsets = np.concatenate([[0], np.cumsum(np.where(repeats, 0, counts))]).astype(np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), kept, type=faces.type)
    return rows.set_column(rows.schema.get_field_index("faces"), rows.schema.field("faces"), column)


def _nested(faces: pa.ListArray) -> tuple[np.ndarray, pa.StructArray]:
    """Returns (n,) faces of each image, and the faces of all of them."""
    return pc.list_value_length(faces).to_numpy().astype(np.int64), faces.flatten()


IMAGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("digest", pa.string()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("faces", pa.int32(), nullable=False),
        pa.field("true_label", pa.string()),
    ]
)


def image_rows(rows: pa.Table) -> pa.Table:
    """Returns the rows of `images/` for some rows of parts."""
    columns = {name: rows[name] for name in rows.schema.names}
    columns["digest"] = _hex(_column(rows, "digest"))
    columns["faces"] = pc.list_value_length(rows["faces"])
    return pa.Table.from_arrays([columns[name] for name in IMAGE_SCHEMA.names], schema=IMAGE_SCHEMA)


def _hex(digests: pa.Array) -> pa.Array:
    """Returns (n,) strings of 64 hex digits, null where there is no digest."""
    raw = pc.fill_null(digests, bytes(32)).cast(pa.binary())
    letters = b"".join(raw.to_pylist()).hex().encode()
    offsets = pa.py_buffer(np.arange(0, 64 * len(digests) + 1, 64, dtype=np.int32).tobytes())
    texts = pa.StringArray.from_buffers(len(digests), offsets, pa.py_buffer(letters))
    return pc.if_else(digests.is_valid(), texts, pa.scalar(None, pa.string()))


def face_schema(classes: Sequence[str], *, rejecting: bool = False) -> pa.Schema:
    """Returns the columns of `predictions/`, with the reject score or without."""
    reject = [pa.field(REJECT_SCORE, pa.float64(), nullable=False)] if rejecting else []
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            *(pa.field(name, pa.int32(), nullable=False) for name in ("face", "x", "y", "width", "height")),
            pa.field("detection_score", pa.float32(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("label_index", pa.int32(), nullable=False),
            pa.field("confidence", pa.float64(), nullable=False),
            *reject,
            *(pa.field(f"p_{name}", pa.float64(), nullable=False) for name in classes),
        ]
    )


def face_rows(rows: pa.Table, classes: Sequence[str]) -> pa.Table:
    """Returns the rows of `predictions/` for some rows of parts; the faces of an image are numbered in their order."""
    counts, faces = _nested(_column(rows, "faces"))
    starts = np.cumsum(counts) - counts
    image = np.repeat(np.arange(len(counts)), counts)
    fields = dict(zip(faces.type.names, faces.flatten(), strict=True))
    p = fields["p"].flatten().to_numpy().reshape(-1, len(classes))
    columns = [
        _column(rows, "image_id").take(pa.array(image)),
        pa.array((np.arange(len(image)) - starts[image]).astype(np.int32)),
        *(fields[name] for name in ("x", "y", "width", "height", "detection_score")),
        pa.array(classes, pa.string()).take(fields["label_index"]),
        *(fields[name] for name in ("label_index", "confidence", REJECT_SCORE) if name in fields),
        *(pa.array(np.ascontiguousarray(p[:, index])) for index in range(len(classes))),
    ]
    return pa.Table.from_arrays(columns, schema=face_schema(classes, rejecting=REJECT_SCORE in fields))


class _Account:
    """Counts what is written, and keeps the label that the submission states for each image: four bytes an image."""

    def __init__(self, classes: tuple[str, ...], rules: SubmissionRules) -> None:
        self.images = 0
        self._classes = classes
        self._policy = rules.face_policy
        self._no_face = no_face_index(classes, rules)
        self._status: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._faces = np.zeros(len(classes), np.int64)
        self._known = self._correct = 0
        self._labels: list[np.ndarray] = []

    def add(self, rows: pa.Table) -> None:
        """Counts some rows of parts, duplicates resolved."""
        self.images += rows.num_rows
        self._status.update(_values(rows["status"]))
        self._reasons.update(_values(rows["reason"]))
        counts, faces = _nested(_column(rows, "faces"))
        fields = dict(zip(faces.type.names, faces.flatten(), strict=True))
        index = fields["label_index"].to_numpy()
        self._faces += np.bincount(index, minlength=len(self._classes))
        box = np.stack([fields[name].to_numpy() for name in ("x", "y", "width", "height")], axis=1)
        chosen = choose_face(counts, box=box, confidence=fields["confidence"].to_numpy(), policy=self._policy)
        label = np.full(len(counts), -1, np.int32)
        label[chosen >= 0] = index[chosen[chosen >= 0]]
        wanted = pc.not_equal(_column(rows, "status"), Status.DUPLICATE.value).to_numpy(zero_copy_only=False)
        self._compare(_column(rows, "true_label"), label, wanted)
        self._labels.append(np.where(wanted, label, np.int32(NOT_WANTED)))

    def _compare(self, true_label: pa.Array, label: np.ndarray, wanted: np.ndarray) -> None:
        true = pc.index_in(true_label, pa.array(self._classes, pa.string())).fill_null(-1).to_numpy()
        known = (true >= 0) & wanted
        self._known += int(known.sum())
        self._correct += int((known & (np.where(label < 0, self._no_face, label) == true)).sum())

    def labels(self) -> np.ndarray:
        """Returns (images,) int32 indices of classes, -1 for no label, `NOT_WANTED` for a duplicate."""
        return np.concatenate(self._labels) if self._labels else np.zeros(0, np.int32)

    def refuse_unless(self, expected: int | None) -> None:
        """Raises AccountError unless every image is accounted for."""
        ended = sum(self._status[status.value] for status in Status)
        if ended != self.images:
            raise AccountError(
                f"{self.images} images were merged, but {ended} have a known status; "
                "the parts are of another version: --overwrite starts anew",
                expected=self.images,
                found=ended,
            )
        if expected is not None and self.images != expected:
            raise AccountError(
                f"{expected} images were planned, but the parts hold {self.images}; give the same command again, "
                "or --overwrite to start anew",
                expected=expected,
                found=self.images,
            )

    def result(self) -> MergeResult:
        """Returns the counts, without files."""
        statuses = {status.value: self._status[status.value] for status in Status}
        return MergeResult(
            counts={"images": self.images, **statuses, "faces": int(self._faces.sum())},
            labels=dict(zip(self._classes, self._faces.tolist(), strict=True)),
            reasons=dict(sorted(self._reasons.items())),
            known=self._known,
            correct=self._correct,
            files=(),
        )


def _values(column: pa.ChunkedArray) -> dict[str, int]:
    """Returns how often each value occurs, nulls aside."""
    counts = pc.value_counts(column.drop_null())
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))


# Final files


class RowFiles:
    """Files of exactly so many rows, in row groups of exactly so many, whatever sizes the rows arrive in.

    They are written beside their final names, which hold their number and so are known only in the end:
    `publish` renames them. Leaving without that removes them.
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

    def __enter__(self) -> RowFiles:
        os.makedirs(self._folder, exist_ok=True)
        self._remove(_UNFINISHED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a full disk is reported by the write that met it
                self._writer.close()
        self._remove(_UNFINISHED)

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
            _put_in_place(self._temporary(index), final)
            files.append(_output_file(final, os.path.dirname(self._folder), rows))
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
        self._writer = pq.ParquetWriter(
            self._temporary(len(self._rows)),
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

    def _temporary(self, index: int) -> str:
        return os.path.join(self._folder, f"part-{index:05d}.unfinished")

    def _remove(self, pattern: re.Pattern[str], *, but: frozenset[str] = frozenset()) -> None:
        for name in os.listdir(self._folder):
            if pattern.fullmatch(name) and name not in but:
                _unlink(os.path.join(self._folder, name))


_REPETITIVE = ("label", "source", "status", "stage", "reason", "true_label")  # few values: a dictionary pays


def _labelled_ids(paths: Sequence[str], labels: np.ndarray) -> Iterator[LabelledIds]:
    """Yields the images of the final tables with their labels, duplicates left out."""
    start = 0
    for path in paths:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=["image_id"]):
                some = labels[start : start + batch.num_rows]
                start += batch.num_rows
                yield LabelledIds(batch.column(0).filter(pa.array(some != NOT_WANTED)), some[some != NOT_WANTED])


def _output_file(path: str, output: str, rows: int) -> OutputFile:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OutputFile(os.path.relpath(path, output).replace(os.sep, "/"), rows, digest)


def _put_in_place(temporary: str, final: str) -> None:
    """Flushes a file and gives it its final name."""
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, final)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@contextlib.contextmanager
def _scratch(output: str) -> Iterator[str]:
    """Gives an empty folder for the files of the rounds, and removes it."""
    folder = os.path.join(output, _SCRATCH)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    try:
        yield folder + os.sep
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _storage(output: str) -> Iterator[None]:
    """Turns faults of the output's storage into one line with the cure."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error("write", error.filename or output, error) from error
