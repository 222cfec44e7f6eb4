"""The plan file that the graph's elements refer to: all blocks of a run, one a line.

Not here: how files are found (`input_files.py`) and cut (`cut_files.py`), how images are read
(`transforms/read_blocks.py`), and what resuming does with the plan (`output_folder.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.run.cut_files import PLAN_VERSION, Seen, cut
from pipeline.run.cut_files import Layout as Layout
from pipeline.run.input_files import InputFile, find_inputs
from pipeline.run.own_files import without_own
from transforms.block import BlockRef
from transforms.formats.publish import StorageError, publish_bytes, publish_file, storage_error
from transforms.formats.records import FormatError, Limits
from transforms.read_blocks import PlannedBlock, image_id
from transforms.storage.retrying import with_retries
from transforms.storage.store import (
    InputFault,
    Kind,
)

BLOCKS = "blocks.jsonl"  # the lines of a plan


@dataclass
class Plan:
    """What will be read.

    Attributes:
        folder: holds `plan.json` and `blocks.jsonl`.
        layout: how shards were cut.
        inputs_digest: of all names, sizes and stamps: equal means nothing has changed.
        shards: how many, by kind.
        blocks, images: planned. Archives that can only be streamed count as one block and no images.
        streamed: how many of those there are; `images` is then "at least".
        input_bytes: of the files that will be read.
        skipped: files and members that are no images by their name; `skipped_names` the first few.
        blocks_digest: of the bytes of `blocks.jsonl`.
    """

    folder: str
    layout: Layout
    inputs_digest: str = ""
    blocks_digest: str = ""
    shards: dict[str, int] = field(default_factory=dict)
    blocks: int = 0
    images: int = 0
    streamed: int = 0
    input_bytes: int = 0
    skipped: int = 0
    skipped_names: list[str] = field(default_factory=list)

    @property
    def blocks_file(self) -> str:
        """Path of the plan's lines."""
        return os.path.join(self.folder, BLOCKS)

    def lines(self) -> Iterator[tuple[BlockRef, bytes]]:
        """Yields a reference to each line of the plan, and the line."""
        offset = 0
        path = os.path.abspath(self.blocks_file)
        with open(path, "rb") as file:
            for line in file:
                yield BlockRef(path, offset, len(line)), line
                offset += len(line)

    def streams(self) -> Iterator[str]:
        """Yields the keys of the archives that can only be streamed."""
        if self.streamed:
            for _, line in self.lines():
                key, _, streamed = head_of(line)
                if streamed:
                    yield key

    def ids(self) -> Iterator[str]:
        """Yields the image ids that are known without reading images."""
        for _, line in self.lines():
            block = PlannedBlock.from_json(line)
            yield from (image_id(block.prefix, entry.name) for entry in block.entries if entry.name)


def head_of(line: bytes) -> tuple[str, int, bool]:
    """Returns (key, images, streamed) of a plan line without building its entries."""
    (key, _, _, _, _, streamed), rows = json.loads(line)
    return key, len(rows), streamed


def digest_of_inputs(files: Iterable[InputFile], layout: Layout, limits: Limits) -> str:
    """Returns a digest of all that a plan follows from: names, sizes, stamps, how files are cut, what is too large."""
    digest = hashlib.sha256(json.dumps([PLAN_VERSION, asdict(layout), asdict(limits)]).encode())
    for f in files:
        kind = [] if f.kind is Kind.FILE else [f.kind.value]
        digest.update(json.dumps([f.root, f.prefix, f.name, f.size, f.modified, f.asked_for, *kind]).encode())
    return digest.hexdigest()


def stored_plan(folder: str) -> Plan | None:
    """Returns the plan that stands in a folder, or None if there is none that can be read, or its lines are damaged."""
    plan = _read_plan(folder)
    if plan is None:
        return None
    try:
        with open(plan.blocks_file, "rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == plan.blocks_digest
    except OSError:
        return None
    return plan if whole else None


def stored_layout(folder: str) -> Layout | None:
    """Returns how the plan that stands in a folder is cut, also where its lines are damaged; None without one."""
    plan = _read_plan(folder)
    return None if plan is None else plan.layout


def _read_plan(folder: str) -> Plan | None:
    try:
        stored = json.loads(Path(folder, "plan.json").read_text())
        if stored.pop("version") != PLAN_VERSION:
            return None
        return Plan(**{**stored, "folder": folder, "layout": Layout(**stored["layout"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make_plan(
    patterns: Sequence[str],
    folder: str,
    layout: Layout,
    limits: Limits,
    *,
    progress: Callable[[int], None] | None = None,
    flag: str = "--input",
    own: tuple[str, str] | None = None,
) -> Plan:
    """Returns the plan of these inputs in `folder`; writes it unless one of exactly these inputs stands there.

    Args:
        progress: called with the number of images planned so far, now and then.
        flag: that the patterns came by, for errors.
        own: folders of results and of the cache, whose files are no input.

    Raises:
        UsageError: nothing to read, ids that collide, a table whose images cannot be identified, or images
            where results are written.
        InputFault: a file or folder cannot be read. StorageError: the plan cannot be written.
    """
    files = find_inputs(patterns, flag)
    if own is not None:
        files = without_own(files, *own, flag=flag)
    digest = digest_of_inputs(files, layout, limits)
    standing = stored_plan(folder)
    if standing is not None and standing.inputs_digest == digest:
        return standing
    try:
        plan = with_retries(lambda: _written(Plan(folder, layout, inputs_digest=digest), files, limits, progress))
    except FormatError as error:
        raise UsageError(f"{error}; to go on without it give a pattern such as 'photos/**.jpg'") from error
    if plan.blocks == 0:
        raise UsageError(_nothing(plan, patterns, flag))
    return plan


def _written(plan: Plan, files: Sequence[InputFile], limits: Limits, progress: Callable[[int], None] | None) -> Plan:
    """Returns the plan, filled and written to its folder; without a block it is not written."""
    try:
        os.makedirs(plan.folder, exist_ok=True)
        with publish_file(plan.blocks_file) as temporary:
            try:
                _write_blocks(temporary, plan, files, limits, progress)
            except InputFault as error:  # not the plan's file, which is what the writer would name
                raise _InputGone(error) from error
            Path(plan.folder, "plan.json").unlink(missing_ok=True)  # it speaks of the blocks that are replaced now
        _write_plan(plan)
    except _NoBlock:
        return plan
    except _InputGone as stopped:
        raise stopped.fault from stopped.fault.__cause__
    except StorageError:
        raise
    except OSError as error:
        raise storage_error("write", error.filename or plan.blocks_file, error) from error
    return plan


class _NoBlock(Exception):
    """There is nothing to plan, so no file is written."""


class _InputGone(Exception):
    """An input cannot be read. Attributes: `fault`, which says so."""

    def __init__(self, fault: InputFault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _write_blocks(
    path: str,
    plan: Plan,
    files: Sequence[InputFile],
    limits: Limits,
    progress: Callable[[int], None] | None,
) -> None:
    """Writes a line for each block and counts them in the plan.

    Raises:
        _NoBlock: there is none.
    """
    digest, seen = hashlib.sha256(), Seen()
    with open(path, "wb") as out:
        for block in cut(files, plan.layout, limits, seen):
            line = block.to_json().encode("ascii") + b"\n"
            digest.update(line)
            out.write(line)
            plan.blocks += 1
            plan.images += len(block.entries)
            plan.streamed += block.streamed
            if progress is not None:
                progress(plan.images)
    plan.blocks_digest = digest.hexdigest()
    plan.shards, plan.input_bytes = seen.shards, seen.input_bytes
    plan.skipped, plan.skipped_names = seen.skipped, seen.skipped_names
    if plan.blocks == 0:
        raise _NoBlock


def _nothing(plan: Plan, patterns: Sequence[str], flag: str) -> str:
    seen = f"; passed over {plan.skipped}: {', '.join(plan.skipped_names)}" if plan.skipped else ""
    return f"{flag} {' '.join(patterns)}: no image and no archive of images there{seen}"


def _write_plan(plan: Plan) -> None:
    record = {**asdict(plan), "version": PLAN_VERSION}
    del record["folder"]
    publish_bytes(Path(plan.folder, "plan.json"), json.dumps(record, indent=1, ensure_ascii=True).encode("ascii"))
