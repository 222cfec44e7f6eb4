"""Inputs to shards, shards to blocks: the plan file that the graph's elements refer to.

Not here: reading images (`transforms/read_blocks.py`), and what resuming does with the plan (`output_folder.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.run.own_files import without_own
from transforms.block import BlockRef
from transforms.formats.publish import StorageError, publish_bytes, publish_file, storage_error
from transforms.formats.records import Entry, FormatError, Limits, NoImagesHere, Reason, ShardFormat
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
from transforms.read_blocks import LOOSE, PlannedBlock, image_id, naming, told_what_it_skips
from transforms.storage.paths import is_object
from transforms.storage.retrying import with_retries
from transforms.storage.store import (
    WILDCARDS,
    FoundFile,
    InputFault,
    Kind,
    escape,
    exists,
    found_file,
    is_folder,
    is_local,
    list_files,
    list_folder,
    open_file,
    root_of,
)

PLAN_VERSION = 3
BLOCKS = "blocks.jsonl"  # the lines of a plan
STREAMED_OBJECTS = ("tar", "tfrecord")  # to list them is a request a member, or to read all of the object
SHARD_STRIDE = 1 << 40  # positions a shard: more images than any archive holds, and 2**23 shards fit an int64


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that a pattern found.

    Attributes:
        root: folder that the name hangs below, with a final `/` ("" for the current one).
        prefix: `NAME/` of `--input NAME=PATTERN`, else "".
        name: path below the root.
        size: bytes. `modified`: seconds since the epoch, 0 where unknown.
        asked_for: True if the pattern was this very path.
        kind: what it is, where that is no file.
    """

    root: str
    prefix: str
    name: str
    size: int
    modified: float
    asked_for: bool = False
    kind: Kind = Kind.FILE

    @property
    def id(self) -> str:
        """Image id of a loose file, or what the ids of an archive's members begin with."""
        return self.prefix + self.name

    @property
    def path(self) -> str:
        """Where it lies."""
        return self.root + self.name


@dataclass(frozen=True, slots=True)
class Layout:
    """How shards are cut into blocks; the first plan of an output folder fixes it."""

    block_images: int
    block_bytes: int


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


def find_inputs(patterns: Sequence[str], flag: str = "--input") -> list[InputFile]:
    """Returns the files of all patterns, in the order of the UTF-8 bytes of their ids.

    Args:
        flag: that the patterns came by, for errors.

    Raises:
        UsageError: a pattern finds nothing, or two files would get one id.
        InputFault: a folder cannot be listed.
    """
    found: list[InputFile] = []
    for pattern in patterns:
        here = list(_find(pattern))
        found += here
        if not here or (is_local(pattern) and all(f.kind is Kind.LINKED_FOLDER for f in here) and _is_pattern(pattern)):
            raise UsageError(f"{flag} {pattern}: nothing is there; check the path, and quote wildcards")
    # code points sort as UTF-8 bytes do; of one file under two patterns, the one that was asked for stays
    found.sort(key=lambda f: (f.id, not f.asked_for))
    return list(_without_repeats(found))


def _without_repeats(found: Iterable[InputFile]) -> Iterator[InputFile]:
    last: InputFile | None = None
    for item in found:
        if item.kind is Kind.LINKED_FOLDER:  # it gives no image, so no id
            yield item
            continue
        if last is not None and item.id == last.id:
            if os.path.abspath(item.path) == os.path.abspath(last.path):
                continue  # one file under two patterns is one image
            raise UsageError(
                f"two inputs give the image id {item.id!r}: {last.path} and {item.path}; "
                "give one of them a name: --input NAME=PATTERN"
            )
        last = item
        yield item


def split_name(pattern: str) -> tuple[str, str]:
    """Returns (`NAME/`, pattern) of `NAME=PATTERN`, else ("", pattern); a path that exists is never split."""
    name, sign, rest = pattern.partition("=")
    if not sign or not name or "/" in name or _is_pattern(name):
        return "", pattern
    return ("", pattern) if is_local(pattern) and os.path.exists(pattern) else (name + "/", rest)


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in WILDCARDS)


def _find(pattern: str) -> Iterator[InputFile]:
    prefix, path = split_name(pattern)
    path = os.path.expanduser(path) if is_local(path) else path
    if is_folder(path):
        root, files = path.rstrip("/") + "/", list_folder(path.rstrip("/") + "/")
    elif exists(path):
        root, files = path[: path.rfind("/") + 1], iter([_stat(path)])
    else:
        root, files = root_of(path), list_files(path)
    for file in files:
        below = file.path.startswith(root) and not file.path.startswith("./")
        name = file.path[len(root) :] if below else os.path.relpath(file.path, root or ".")
        yield InputFile(root, prefix, name, file.size, file.modified, file.path == path, file.kind)


def _stat(path: str) -> FoundFile:
    if is_local(path):
        return found_file(path)
    return next(iter(list_files(escape(path))))


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
    digest = hashlib.sha256()
    with open(path, "wb") as out:
        for block in _blocks(files, plan, limits):
            line = block.to_json().encode("ascii") + b"\n"
            digest.update(line)
            out.write(line)
            plan.blocks += 1
            plan.images += len(block.entries)
            plan.streamed += block.streamed
            if progress is not None:
                progress(plan.images)
    plan.blocks_digest = digest.hexdigest()
    if plan.blocks == 0:
        raise _NoBlock


def _nothing(plan: Plan, patterns: Sequence[str], flag: str) -> str:
    seen = f"; passed over {plan.skipped}: {', '.join(plan.skipped_names)}" if plan.skipped else ""
    return f"{flag} {' '.join(patterns)}: no image and no archive of images there{seen}"


def _write_plan(plan: Plan) -> None:
    record = {**asdict(plan), "version": PLAN_VERSION}
    del record["folder"]
    publish_bytes(Path(plan.folder, "plan.json"), json.dumps(record, indent=1, ensure_ascii=True).encode("ascii"))


def _blocks(files: Sequence[InputFile], plan: Plan, limits: Limits) -> Iterator[PlannedBlock]:
    loose: list[InputFile] = []
    shards: list[tuple[InputFile, ShardFormat]] = []
    for file in files:
        if file.kind is Kind.LINKED_FOLDER:
            _skip(plan, f"{file.id}/ (a linked folder)")
            continue
        kind = _format(file)
        if kind is not None:
            shards.append((file, kind))
        elif is_image_name(file.name) or file.asked_for:
            loose.append(file)
        else:
            _skip(plan, file.id)
            continue
        plan.input_bytes += file.size
    loose.sort(key=lambda f: (f.root, f.prefix))  # stable: ids stay in order within a root
    for _, group in itertools.groupby(loose, key=lambda f: (f.root, f.prefix)):
        yield from _loose_blocks(list(group), plan)
    for file, kind in shards:
        yield from _shard_blocks(file, kind, plan, limits)


def _skip(plan: Plan, name: str) -> None:
    plan.skipped += 1
    if len(plan.skipped_names) < NAMES_SHOWN:
        plan.skipped_names.append(text_of(os.fsencode(name)))


def _format(file: InputFile) -> ShardFormat | None:
    """Returns the format of an archive or table; most names need a look at the first bytes.

    Raises:
        InputFault: an archive by its name that is no file: nobody knows how many images are missing.
    """
    if file.kind is Kind.NOT_A_FILE:
        if format_of(file.name, b"") is None and not NUMBERED.search(file.name):
            return None
        raise InputFault(None, f"{file.path} cannot be read: a link that leads nowhere, or no file; mend or remove it")
    head = b""
    if decided_by_bytes(file.name, remote=not is_local(file.path)):
        with open_file(file.path) as opened:
            head = opened.read(FIRST_BYTES)
    return format_of(file.name, head)


def _loose_blocks(files: list[InputFile], plan: Plan) -> Iterator[PlannedBlock]:
    plan.shards[LOOSE] = plan.shards.get(LOOSE, 0) + 1
    first = files[0]
    for run in cut_blocks(
        (f.id for f in files),
        (f.size for f in files),
        max_images=plan.layout.block_images,
        max_bytes=plan.layout.block_bytes,
    ):
        group = files[run.start : run.stop]
        entries = tuple(Entry(f.name, (), f.size, label_of(f.name), _fault(f)) for f in group)
        stamps = [[f.name, f.size, f.modified] for f in group]
        key = _key([LOOSE, first.root, first.prefix, stamps])
        yield PlannedBlock(key, LOOSE, first.root, first.prefix, run.start, entries)


def _fault(file: InputFile) -> Reason | None:
    return None if file.kind is Kind.FILE else Reason.NOT_A_FILE


def _shard_blocks(file: InputFile, kind: ShardFormat, plan: Plan, limits: Limits) -> Iterator[PlannedBlock]:
    prefix = file.id + "/"
    position = _first_position(file)
    stamp = [PLAN_VERSION, kind.name, file.path, prefix, file.size, file.modified]
    if not kind.sought or (is_object(file.path) and kind.name in STREAMED_OBJECTS):
        plan.shards[kind.name] = plan.shards.get(kind.name, 0) + 1
        layout = asdict(plan.layout)
        yield PlannedBlock(_key([stamp, layout]), kind.name, file.path, prefix, position, streamed=True)
        return
    skipped = Skipped()
    with open_file(file.path) as opened, naming(file.path):
        entries = told_what_it_skips(kind, skipped).list(opened, limits)
        try:
            first = list(itertools.islice(entries, 1))
        except NoImagesHere as fault:
            if file.asked_for:
                raise
            _skip(plan, f"{file.id} ({fault})")
            plan.input_bytes -= file.size
            return
        plan.shards[kind.name] = plan.shards.get(kind.name, 0) + 1
        start = 0
        for group in _runs(itertools.chain(first, entries), plan.layout):
            key = _key([stamp, start, [[e.name, e.where, e.size] for e in group]])
            yield PlannedBlock(key, kind.name, file.path, prefix, position + start, tuple(group))
            start += len(group)
    for name in skipped.names:
        _skip(plan, prefix + name)
    plan.skipped += skipped.count - len(skipped.names)


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
