"""Reads blocks: from a line of the plan to a block with bytes and digests. The only stage that reads users' files.

Not here: assigning images to blocks (`pipeline/run/plan.py`), decoding (`crop_faces.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindows

from transforms import block_coder  # noqa: F401 - registers the coder for this stage's output
from transforms.ahead import Ahead, single
from transforms.block import Block, BlockRef
from transforms.formats.class_names import class_name
from transforms.formats.exif import NO_EXIF, read_exif
from transforms.formats.records import Entry, FormatError, Limits, Member, Reason, ShardFormat, Status
from transforms.formats.shards.loose_files import Skipped, text_of
from transforms.formats.shards.registry import format_named
from transforms.job import Reading
from transforms.known_labels import labels_of, relabelled
from transforms.provenance import Provenance
from transforms.standing_parts import finished_blocks_of
from transforms.storage.paths import is_object
from transforms.storage.retrying import with_retries
from transforms.storage.stopping import check
from transforms.storage.store import open_file, read_file
from transforms.stream_marks import StreamMark, write_mark
from transforms.tally import TALLY
from transforms.telling import telling

LOOSE = "loose"
OBJECTS_AT_ONCE = 16  # requests for the loose images of a block, where they are objects
BLOCKS_AHEAD = 2  # blocks whose bytes wait for the next stage
_NO_DIGEST = bytes(32)  # marks bytes that could not be read
STREAM_MARK = "-"  # between the key of a streamed archive and the number of a block of it


@dataclass(frozen=True, slots=True)
class PlannedBlock:
    """A line of the plan file: some images of one shard, or a whole archive that can only be streamed.

    Attributes:
        key: name of the part; for a stream, the start of the names of its parts.
        kind: name of the format, or `loose`.
        path: path of the shard; for loose files, the folder of the names, with a final `/`.
        prefix: text before the name in an image id.
        position: of the first image, in plan order.
        entries: the images; empty for a stream.
        streamed: True if the shard must be read from its start.
    """

    key: str
    kind: str
    path: str
    prefix: str
    position: int
    entries: tuple[Entry, ...] = ()
    streamed: bool = False

    def to_json(self) -> str:
        """Returns the block as one line."""
        rows = [[e.name, list(e.where), e.size, e.label, e.reason] for e in self.entries]
        head = [self.key, self.kind, self.path, self.prefix, self.position, self.streamed]
        return json.dumps([head, rows], ensure_ascii=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> PlannedBlock:
        """Returns the block that `to_json` wrote."""
        (key, kind, path, prefix, position, streamed), rows = json.loads(line)
        entries = tuple(
            Entry(name, tuple(where), size, label, Reason(reason) if reason else None)
            for name, where, size, label, reason in rows
        )
        return cls(key, kind, path, prefix, position, entries, streamed)


def planned_block(ref: BlockRef) -> PlannedBlock:
    """Returns the planned block that a reference points to."""
    return PlannedBlock.from_json(_line(ref))


def _line(ref: BlockRef) -> bytes:
    with open_file(ref.plan) as plan:
        plan.seek(ref.offset)
        return plan.read(ref.length)


def _is_streamed(line: bytes) -> bool:
    """True if `line` is a streamed archive, judged without parsing, as hundreds of entries are expensive to parse."""
    return line.rstrip().endswith(b",true],[]]")


def read_block(planned: PlannedBlock, limits: Limits, file: BinaryIO | None = None) -> Block:
    """Returns the block's images with their bytes and digests; images with damaged content become rejected rows.

    Args:
        file: the shard, opened; None opens it here (loose files are always opened one by one).

    Raises:
        InputFault: a planned file is missing or cannot be read.
    """
    if planned.kind == LOOSE:
        sources = tuple(text_of(os.fsencode(planned.path + entry.name)) for entry in planned.entries)
        return make_block(planned, _read_all_loose(planned, limits), planned.position, sources=sources)
    shard_format = format_named(planned.kind)
    if file is not None:
        return make_block(planned, list(shard_format.read(file, planned.entries, limits)), planned.position)
    with open_file(planned.path) as opened:
        return make_block(planned, list(shard_format.read(opened, planned.entries, limits)), planned.position)


def stream_blocks(
    planned: PlannedBlock, limits: Limits, *, block_images: int, block_bytes: int, finished: set[str]
) -> Generator[Block, None, StreamMark]:
    """Yields the blocks of an archive that can only be streamed, skipping finished ones.

    After the last block, it returns the totals of the archive.

    Args:
        finished: keys of blocks whose parts exist already.
    """
    skipped = Skipped()
    images = blocks = 0
    with open_file(planned.path, forward=True) as file, naming(planned.path):
        members = told_what_it_skips(format_named(planned.kind), skipped).stream(file, limits)
        for start, group in _cut_stream(members, block_images, block_bytes):
            key = stream_key(planned.key, blocks)
            if key not in finished:
                yield make_block(planned, group, planned.position + start, key=key)
            images, blocks = start + len(group), blocks + 1
    return StreamMark(images, blocks, skipped.count, tuple(image_id(planned.prefix, name) for name in skipped.names))


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Prefixes format errors with the path of the file."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def told_what_it_skips(shard_format: ShardFormat, skipped: Skipped) -> ShardFormat:
    """Returns the format, made to note in `skipped` the members that it skips because of their names.

    Rows of a table and records have no suffix, so such formats are returned unchanged.
    """
    return type(shard_format)(skipped) if hasattr(shard_format, "skipped") else shard_format  # type: ignore[call-arg]


def stream_key(shard_key: str, index: int) -> str:
    """Returns the key of one block of a streamed archive."""
    return f"{shard_key}{STREAM_MARK}{index:08d}"


def _cut_stream(members: Iterable[Member], images: int, size: int) -> Iterator[tuple[int, list[Member]]]:
    group: list[Member] = []
    start = weight = 0
    for member in members:
        cost = len(member.data or b"")
        if group and (len(group) >= images or weight + cost > size):
            yield start, group
            start, group, weight = start + len(group), [], 0
        group.append(member)
        weight += cost
    if group:
        yield start, group


def _read_all_loose(planned: PlannedBlock, limits: Limits) -> list[Member]:
    read = partial(_read_loose, planned, limits=limits)
    if not is_object(planned.path):
        return list(map(read, planned.entries))
    with ThreadPoolExecutor(OBJECTS_AT_ONCE, "read-objects") as pool:  # each waits some 30 ms for its answer
        return list(pool.map(read, planned.entries))


def _read_loose(planned: PlannedBlock, entry: Entry, limits: Limits) -> Member:
    name = text_of(os.fsencode(entry.name))  # a file name may be any bytes, an id is text
    if entry.reason is not None:
        return Member(name, None, entry.label, entry.reason)
    data = read_file(planned.path + entry.name, limits.max_image_bytes)
    if len(data) > limits.max_image_bytes:
        return Member(name, None, entry.label, Reason.TOO_MANY_BYTES)
    return Member(name, data, entry.label)


def make_block(
    planned: PlannedBlock,
    members: Sequence[Member],
    position: int,
    *,
    key: str | None = None,
    sources: tuple[str, ...] | None = None,
) -> Block:
    """Returns a block made from the members read: ids, digests, and the rows with the same bytes."""
    count = len(members)
    found = [b"" if member.data is None else hashlib.sha256(member.data).digest() for member in members]
    first_with: dict[bytes, int] = {}
    same_as = [first_with.setdefault(digest, row) if digest else row for row, digest in enumerate(found)]
    digests = np.frombuffer(b"".join(digest or _NO_DIGEST for digest in found), np.uint8)
    return Block(
        key=key or planned.key,
        position=position,
        ids=tuple(image_id(planned.prefix, m.name) for m in members),
        sources=sources or (planned.path,) * count,
        labels=tuple(class_name(m.label) for m in members),
        sizes=np.asarray([len(m.data or b"") for m in members], np.int64),
        digests=digests.reshape(count, len(_NO_DIGEST)),
        data=tuple(m.data for m in members),
        same_as=np.asarray(same_as, np.int32),
        cached=np.zeros(count, bool),
        width=np.zeros(count, np.int32),
        height=np.zeros(count, np.int32),
        status=tuple(None if m.reason is None else Status.REJECTED for m in members),
        reason=tuple(m.reason for m in members),
    )


def with_exif(block: Block) -> Block:
    """Returns a block that still has its bytes, with what the EXIF of each image says."""
    return replace(block, exif=tuple(NO_EXIF if data is None else read_exif(data) for data in block.data))


def _each_with_exif(blocks: Generator[Block, None, StreamMark]) -> Generator[Block, None, StreamMark]:
    while True:
        try:
            block = next(blocks)
        except StopIteration as end:
            mark: StreamMark = end.value
            return mark
        yield with_exif(block)


def image_id(prefix: str, name: str) -> str:
    """Returns an image's id: text, even if the path is not.

    The last row of a damaged archive has no name, so it gets the archive's.
    """
    path = prefix + name if name else prefix.rstrip("/")
    return path if path.isascii() else text_of(path.encode("utf-8", "surrogateescape"))


@beam.typehints.with_output_types(Block)  # otherwise finish_bundle makes Beam infer Any, and the coder is lost
class ReadBlocks(beam.DoFn):
    """Reads the referenced blocks, a few ahead of the next stage."""

    def __init__(self, reading: Reading, *, parts: str, heartbeat: str, provenance: Provenance) -> None:
        self._reading, self._parts = reading, parts
        self._heartbeat, self._provenance = heartbeat, provenance

    @telling
    def setup(self) -> None:
        self._ahead: Ahead[bytes, Block] = single(self._read, depth=BLOCKS_AHEAD)
        self._table = labels_of(self._reading, self._provenance)
        if self._heartbeat:
            TALLY.beat_into(self._heartbeat)

    def teardown(self) -> None:
        self._ahead.close()
        TALLY.flush()

    def process(self, ref: BlockRef) -> Iterator[Block]:
        check()
        TALLY.begin()
        for block in self._blocks(_line(ref)):
            yield relabelled(block, self._table)

    def _blocks(self, line: bytes) -> Iterator[Block]:
        if _is_streamed(line):
            yield from self._ahead.drain()
            yield from self._stream(PlannedBlock.from_json(line))
        else:
            yield from self._ahead.put(line)

    def finish_bundle(self) -> Iterator[Any]:
        for block in self._ahead.drain():
            yield GlobalWindows.windowed_value(relabelled(block, self._table))

    def _read(self, line: bytes) -> Block:
        with TALLY.clock("read"):
            block = read_block(PlannedBlock.from_json(line), self._reading.limits)
            return with_exif(block) if self._reading.exif else block

    def _stream(self, planned: PlannedBlock) -> Iterator[Block]:
        finished = with_retries(lambda: finished_blocks_of(self._parts, planned.key))
        blocks = stream_blocks(
            planned,
            self._reading.limits,
            block_images=self._reading.block_images,
            block_bytes=self._reading.block_bytes,
            finished=finished,
        )
        mark = yield from (_each_with_exif(blocks) if self._reading.exif else blocks)
        write_mark(self._parts, planned.key, mark)
