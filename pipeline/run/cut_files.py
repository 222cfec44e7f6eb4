"""Cuts input files into shards, and shards into blocks.

Not here: how the files are found (`input_files.py`), and where the blocks are kept (`plan.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from pipeline.run.input_files import InputFile
from transforms.formats.records import Entry, Limits, NoImagesHere, Reason, ShardFormat
from transforms.formats.shards.loose_files import (
    NAMES_SHOWN,
    Skipped,
    cut_blocks,
    cut_runs,
    is_image_name,
    label_of,
    text_of,
)
from transforms.formats.shards.registry import FIRST_BYTES, NUMBERED, decided_by_bytes, format_of
from transforms.read_blocks import LOOSE, PlannedBlock, naming, told_what_it_skips
from transforms.storage.paths import is_object
from transforms.storage.store import InputFault, Kind, is_local, open_file

PLAN_VERSION = 3
STREAMED_OBJECTS = ("tar", "tfrecord")  # to list them is a request a member, or to read all of the object
SHARD_STRIDE = 1 << 40  # positions a shard: more images than any archive holds, and 2**23 shards fit an int64


@dataclass(frozen=True, slots=True)
class Layout:
    """How shards are cut into blocks; the first plan of an output folder fixes it."""

    block_images: int
    block_bytes: int


@dataclass
class Seen:
    """What was met on the way.

    Attributes:
        shards: how many, by kind.
        input_bytes: of the files that will be read.
        skipped: files and members that are no images by their name; `skipped_names` the first few.
    """

    shards: dict[str, int] = field(default_factory=dict)
    input_bytes: int = 0
    skipped: int = 0
    skipped_names: list[str] = field(default_factory=list)

    def add_shard(self, kind: str) -> None:
        """Counts one shard."""
        self.shards[kind] = self.shards.get(kind, 0) + 1

    def skip(self, name: str) -> None:
        """Counts something that is no image."""
        self.skipped += 1
        if len(self.skipped_names) < NAMES_SHOWN:
            self.skipped_names.append(text_of(os.fsencode(name)))


def cut(files: Sequence[InputFile], layout: Layout, limits: Limits, seen: Seen) -> Iterator[PlannedBlock]:
    """Yields the blocks of all files: loose images first, then archives and tables.

    Args:
        seen: is filled on the way.

    Raises:
        InputFault: a file cannot be read. FormatError: the images of a table cannot be found.
    """
    loose: list[InputFile] = []
    shards: list[tuple[InputFile, ShardFormat]] = []
    for file in files:
        if file.kind is Kind.LINKED_FOLDER:
            seen.skip(f"{file.id}/ (a linked folder)")
            continue
        kind = _format(file)
        if kind is not None:
            shards.append((file, kind))
        elif is_image_name(file.name) or file.asked_for:
            loose.append(file)
        else:
            seen.skip(file.id)
            continue
        seen.input_bytes += file.size
    loose.sort(key=lambda f: (f.root, f.prefix))  # stable: ids stay in order within a root
    for _, group in itertools.groupby(loose, key=lambda f: (f.root, f.prefix)):
        yield from _loose_blocks(list(group), layout, seen)
    for file, kind in shards:
        yield from _shard_blocks(file, kind, layout, limits, seen)


def _format(file: InputFile) -> ShardFormat | None:
    """Returns the format of an archive or table; most names need a look at the first bytes.

    Raises:
        InputFault: an archive by its name that is no file: nobody knows how many images are missing.
    """
    if file.kind is Kind.NOT_A_FILE:
        if format_of(file.name, b"") is None and not NUMBERED.search(file.name):
            return None
        raise InputFault(None, f"{file.path} cannot be read: a broken link or not a regular file; fix or remove it")
    head = b""
    if decided_by_bytes(file.name, remote=not is_local(file.path)):
        with open_file(file.path) as opened:
            head = opened.read(FIRST_BYTES)
    return format_of(file.name, head)


def _loose_blocks(files: list[InputFile], layout: Layout, seen: Seen) -> Iterator[PlannedBlock]:
    seen.add_shard(LOOSE)
    first = files[0]
    for run in cut_blocks(
        (f.id for f in files),
        (f.size for f in files),
        max_images=layout.block_images,
        max_bytes=layout.block_bytes,
    ):
        group = files[run.start : run.stop]
        entries = tuple(Entry(f.name, (), f.size, label_of(f.name), _fault(f)) for f in group)
        stamps = [[f.name, f.size, f.modified] for f in group]
        key = _key([LOOSE, first.root, first.prefix, stamps])
        yield PlannedBlock(key, LOOSE, first.root, first.prefix, run.start, entries)


def _fault(file: InputFile) -> Reason | None:
    return None if file.kind is Kind.FILE else Reason.NOT_A_FILE


def _shard_blocks(
    file: InputFile, kind: ShardFormat, layout: Layout, limits: Limits, seen: Seen
) -> Iterator[PlannedBlock]:
    prefix = file.id + "/"
    position = _first_position(file)
    stamp = [PLAN_VERSION, kind.name, file.path, prefix, file.size, file.modified]
    if not kind.sought or (is_object(file.path) and kind.name in STREAMED_OBJECTS):
        seen.add_shard(kind.name)
        yield PlannedBlock(_key([stamp, asdict(layout)]), kind.name, file.path, prefix, position, streamed=True)
        return
    skipped = Skipped()
    with open_file(file.path) as opened, naming(file.path):
        entries = told_what_it_skips(kind, skipped).list(opened, limits)
        try:
            first = list(itertools.islice(entries, 1))
        except NoImagesHere as fault:
            if file.asked_for:
                raise
            seen.skip(f"{file.id} ({fault})")
            seen.input_bytes -= file.size
            return
        seen.add_shard(kind.name)
        start = 0
        for group in _runs(itertools.chain(first, entries), layout):
            key = _key([stamp, start, [[e.name, e.where, e.size] for e in group]])
            yield PlannedBlock(key, kind.name, file.path, prefix, position + start, tuple(group))
            start += len(group)
    for name in skipped.names:
        seen.skip(prefix + name)
    seen.skipped += skipped.count - len(skipped.names)


def _runs(entries: Iterable[Entry], layout: Layout) -> Iterator[list[Entry]]:
    """Yields the entries block by block, holding no more than one block and the entry that did not fit it."""
    waiting: list[Entry] = []

    def sizes() -> Iterator[int]:
        for entry in entries:
            waiting.append(entry)
            yield entry.size

    for run in cut_runs(sizes(), max_images=layout.block_images, max_bytes=layout.block_bytes):
        yield waiting[: len(run)]
        del waiting[: len(run)]


def _first_position(file: InputFile) -> int:
    """Returns where a shard's positions start: after loose files, and nowhere else when other inputs come or go.

    Of two images of one id the lower position wins, and parts that are kept hold the positions they were made with.
    """
    digest = hashlib.sha256(json.dumps(file.id).encode()).digest()
    return (1 + int.from_bytes(digest[:4], "little") % (2**22 - 1)) * SHARD_STRIDE


def _key(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()[:32]
