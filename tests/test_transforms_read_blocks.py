"""From a line of the plan to bytes and digests."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import job, reads, references, through
from pictures import example, gradient, plain, png, tfrecord, write_folder, write_tar, write_zip

from pipeline.run.plan import Layout, make_plan
from transforms.block import Block
from transforms.formats.records import Entry, FormatError, Limits, Reason, Status
from transforms.read_blocks import (
    LOOSE,
    PlannedBlock,
    image_id,
    planned_block,
    read_block,
    stream_blocks,
    stream_key,
)
from transforms.storage import stopping
from transforms.storage import store as storage
from transforms.storage.store import InputFault
from transforms.stream_marks import StreamMark, read_mark
from transforms.tally import TALLY

A, B = png(gradient(8, 8)), png(plain(9, 9))


def loose(folder: Path, *names: str, prefix: str = "") -> PlannedBlock:
    entries = tuple(Entry(name, (), 1, "happy") for name in names)
    return PlannedBlock("k", LOOSE, f"{folder}/", prefix, 10, entries)


def planned(folder: Path, path: Path, *, images: int = 4) -> list[PlannedBlock]:
    plan = make_plan([str(path)], str(folder / "plan"), Layout(images, 2**20), Limits())
    return [PlannedBlock.from_json(line) for _, line in plan.lines()]


def test_a_block_of_loose_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x/a.png": A, "x/b.png": B})
    block = read_block(loose(tmp_path, "x/a.png", "x/b.png", prefix="train/"), Limits())
    assert (block.key, block.position, block.ids) == ("k", 10, ("train/x/a.png", "train/x/b.png"))
    assert block.sources == (f"{tmp_path}/x/a.png", f"{tmp_path}/x/b.png")
    assert (block.labels, block.data, block.sizes.tolist()) == (("happy",) * 2, (A, B), [len(A), len(B)])
    assert [bytes(row) for row in block.digests] == [hashlib.sha256(data).digest() for data in (A, B)]
    assert (block.status, block.reason) == ((None, None), (None, None))
    assert (block.same_as.tolist(), block.cached.tolist()) == ([0, 1], [False, False])
    assert (block.digests.dtype, block.sizes.dtype, block.same_as.dtype) == (np.uint8, np.int64, np.int32)


def test_the_same_bytes_twice_lead_to_the_first_of_them(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": A, "b": B, "c": A, "d": A, "e": B})
    block = read_block(loose(tmp_path, *"abcde"), Limits())
    assert block.same_as.tolist() == [0, 1, 0, 0, 1]


def test_an_empty_file_has_bytes_all_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": b"", "b": b""})
    block = read_block(loose(tmp_path, "a", "b"), Limits())
    assert (block.data, block.status, block.same_as.tolist()) == ((b"", b""), (None, None), [0, 0])
    assert bytes(block.digests[0]) == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("limit, reason", [(len(A), None), (len(A) - 1, Reason.TOO_MANY_BYTES)])
def test_a_file_with_too_many_bytes_is_rejected(tmp_path: Path, limit: int, reason: Reason | None) -> None:
    write_folder(tmp_path, {"a": A, "b": A})
    block = read_block(loose(tmp_path, "a", "b"), Limits(max_image_bytes=limit))
    assert block.reason == (reason, reason)
    assert block.same_as.tolist() == ([0, 1] if reason else [0, 0])
    if reason:
        assert (block.status, block.data, block.sizes.tolist()) == ((Status.REJECTED,) * 2, (None, None), [0, 0])
        assert not block.digests.any()


def test_a_planned_file_that_vanished_stops_the_run_naming_it(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": A})
    with pytest.raises(InputFault, match=r"/b\.png cannot be opened"):
        read_block(loose(tmp_path, "a.png", "b.png"), Limits())


def test_an_archive_that_vanished_stops_the_run_naming_it(tmp_path: Path) -> None:
    for name in ("a.tar", "a.tar.gz"):
        (block,) = planned(tmp_path, write_tar(tmp_path / name, {"a.png": A}))
        (tmp_path / name).unlink()
        with pytest.raises(InputFault, match=rf"/{name} cannot be opened"):
            list(
                stream_blocks(block, Limits(), block_images=2, block_bytes=99, finished=set())
            ) if block.streamed else (read_block(block, Limits()))


def test_faults_of_members_are_rejections_with_reasons(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"a.png": A, "../b.png": B, "big.png": bytes(5000), "c.png": B})
    data = archive.read_bytes()
    at = data.index(b"c.png") + 10
    archive.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    (planned_one,) = planned(tmp_path, archive)
    block = read_block(planned_one, Limits(max_image_bytes=4999))
    assert block.ids == ("a.zip/a.png", "a.zip/%2E%2E/b.png", "a.zip/big.png", "a.zip/c.png")
    assert block.reason == (None, Reason.UNSAFE_NAME, Reason.TOO_MANY_BYTES, Reason.DAMAGED_MEMBER)
    assert block.status == (None, Status.REJECTED, Status.REJECTED, Status.REJECTED)
    assert block.sources == (str(archive),) * 4


def test_a_truncated_archive_costs_one_row_with_the_archives_name(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", {"a.png": A, "b.png": bytes(3000)})
    archive.write_bytes(archive.read_bytes()[:2500])
    blocks = [read_block(block, Limits()) for block in planned(tmp_path, archive)]
    ids = {i: reason for block in blocks for i, reason in zip(block.ids, block.reason, strict=True)}
    assert ids["a.tar/a.png"] is None
    assert Reason.DAMAGED_ARCHIVE in ids.values() or Reason.TRUNCATED in ids.values()


def test_a_file_that_is_open_already_is_used(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", {"a.png": A})
    (block,) = planned(tmp_path, archive)
    with archive.open("rb") as file:
        assert read_block(replace(block, path="nowhere"), Limits(), file).data == (A,)


@pytest.mark.parametrize(
    "prefix, name, expected",
    [
        ("", "a.png", "a.png"),
        ("x/", "a.png", "x/a.png"),
        ("a.tar/", "", "a.tar"),
        ("\udcff/", "é.png", "%FF/é.png"),
        ("", "\udce9\udc80.png", "%E9%80.png"),
        ("", "\udcc3\udca9.png", "é.png"),  # two bytes that are one letter
    ],
)
def test_image_ids_are_text(prefix: str, name: str, expected: str) -> None:
    assert image_id(prefix, name) == expected


# --- streams ----------------------------------------------------------------------------------------------------------


def stream(tmp_path: Path, count: int) -> PlannedBlock:
    files = {f"{number:02d}.png": png(plain(8, 8 + number)) for number in range(count)}
    (block,) = planned(tmp_path, write_tar(tmp_path / "a.tar.gz", files))
    return block


def streamed(block: PlannedBlock, finished: set[str] | None = None, *, size: int = 2**20) -> list[Block]:
    return list(stream_blocks(block, Limits(), block_images=4, block_bytes=size, finished=finished or set()))


def test_a_stream_gives_the_blocks_that_an_archive_would(tmp_path: Path) -> None:
    block = stream(tmp_path, 10)
    blocks = streamed(block)
    assert [len(b) for b in blocks] == [4, 4, 2]
    assert [b.position - block.position for b in blocks] == [0, 4, 8]
    assert [b.key for b in blocks] == [stream_key(block.key, n) for n in range(3)]
    assert [i for b in blocks for i in b.ids] == [f"a.tar.gz/{n:02d}.png" for n in range(10)]


def test_a_stream_passes_over_finished_blocks_and_keeps_the_names_of_the_rest(tmp_path: Path) -> None:
    block = stream(tmp_path, 10)
    every = streamed(block)
    left = streamed(block, {every[1].key, "of another archive"})
    assert [b.key for b in left] == [every[0].key, every[2].key]
    assert [(b.ids, b.data, b.position) for b in left] == [
        (b.ids, b.data, b.position) for b in every if b is not every[1]
    ]


def test_a_stream_is_cut_by_bytes_too(tmp_path: Path) -> None:
    sizes = [len(png(plain(8, 8 + number))) for number in range(5)]
    blocks = streamed(stream(tmp_path, 5), size=sizes[0] + sizes[1])
    assert all(b.sizes.sum() <= sizes[0] + sizes[1] or len(b) == 1 for b in blocks)
    assert sum(map(len, blocks)) == 5


def test_a_damaged_stream_keeps_what_came_before(tmp_path: Path) -> None:
    block = stream(tmp_path, 6)
    packed = Path(block.path).read_bytes()
    Path(block.path).write_bytes(packed[: len(packed) - 40])
    blocks = streamed(block)
    reasons = [reason for b in blocks for reason in b.reason]
    assert reasons[0] is None
    assert reasons[-1] is Reason.DAMAGED_ARCHIVE
    assert reasons.count(Reason.DAMAGED_ARCHIVE) == 1
    assert blocks[-1].ids[-1] == "a.tar.gz"


def drained(block: PlannedBlock, finished: set[str], *, most: int | None = None) -> StreamMark | None:
    """Returns what a stream reports after its last block; None if it is left before."""
    blocks = stream_blocks(block, Limits(), block_images=4, block_bytes=2**20, finished=finished)
    try:
        for _ in range(99 if most is None else most):
            next(blocks)
    except StopIteration as end:
        return end.value
    return None


@pytest.mark.parametrize("finished", [(), (1,), (0, 1, 2)])
def test_a_stream_tells_what_was_seen_of_it_finished_or_not(tmp_path: Path, finished: tuple[int, ...]) -> None:
    block = stream(tmp_path, 10)
    assert drained(block, {stream_key(block.key, n) for n in finished}) == StreamMark(images=10, blocks=3)
    assert drained(block, set(), most=2) is None


@pytest.mark.parametrize("turn", [1, 2])
def test_a_stream_tells_what_it_passed_over(tmp_path: Path, turn: int) -> None:
    others = dict.fromkeys([f"x/{n}.txt" for n in range(7)], b"no image")
    (block,) = planned(tmp_path, write_tar(tmp_path / "a.tar.gz", {"a.png": A, **others, "b.png": B}))
    for _ in range(turn):  # a second stream starts from nothing
        reported = drained(block, set())
    assert reported == StreamMark(2, 1, 7, tuple(f"a.tar.gz/x/{n}.txt" for n in range(5)))


def test_a_stream_without_images_stops_and_names_the_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.tfrecord.gz": gzip.compress(tfrecord(example({"pixels": b"x"})))})
    plan = make_plan([str(tmp_path / "in")], str(tmp_path / "plan"), Layout(4, 2**20), Limits())
    (block,) = (PlannedBlock.from_json(line) for _, line in plan.lines())
    with pytest.raises(FormatError, match=r"in/a\.tfrecord\.gz: its first tf\.Example has no image .* it has pixels;"):
        streamed(block)


def test_a_damaged_stream_counts_the_row_of_its_damage(tmp_path: Path) -> None:
    block = stream(tmp_path, 6)
    packed = Path(block.path).read_bytes()
    Path(block.path).write_bytes(packed[: len(packed) - 40])
    reported = drained(block, set())
    assert reported is not None
    assert reported.images == sum(map(len, streamed(block)))


def test_storage_that_fails_in_the_midst_of_a_stream_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(7)  # what does not shrink is many reads
    (block,) = planned(tmp_path, write_tar(tmp_path / "a.tar.gz", {f"{n}.png": draw.bytes(500) for n in range(10)}))
    whole = [b.data for b in streamed(block)]
    for name in ("forward.CHUNK_BYTES", "gunzip._PACKED_BYTES"):  # many reads
        monkeypatch.setattr(f"transforms.formats.shards.{name}", 64)
    monkeypatch.setattr(storage, "BUFFER_BYTES", 64)
    real, reads = storage._opened, []

    def opened(path: str) -> Any:
        file = real(path)
        readinto = file.readinto

        class Shaky(io.RawIOBase):
            def readinto(self, buffer: Any) -> int:
                reads.append(1)
                if len(reads) % 5 == 0:
                    raise OSError(errno.ETIMEDOUT, "Connection timed out")
                return int(readinto(buffer))

            def seek(self, *given: int) -> int:
                return int(file.seek(*given))

            def fileno(self) -> int:
                return int(file.fileno())

        return Shaky()

    monkeypatch.setattr(storage, "_opened", opened)
    assert [b.data for b in streamed(block)] == whole
    assert len(reads) > 20


# --- the stage --------------------------------------------------------------------------------------------------------


def test_the_stage_gives_each_block_once_and_in_order(tmp_path: Path) -> None:
    files = {f"{number:02d}.png": png(plain(8, 8 + number)) for number in range(20)}
    lines = planned(tmp_path, write_tar(tmp_path / "a.tar", files))
    refs = references(tmp_path / "lines", lines)
    assert [planned_block(ref) for ref in refs] == lines
    TALLY.reset()
    blocks = through(reads(job(tmp_path)), refs)
    assert [b.key for b in blocks] == [line.key for line in lines]
    assert [data for b in blocks for data in b.data] == list(files.values())
    assert TALLY.totals().seconds["read"] > 0


def test_the_stage_streams_what_has_no_part_yet(tmp_path: Path) -> None:
    given = job(tmp_path)
    block = stream(tmp_path, 10)
    Path(given.writing.parts, stream_key(block.key, 1) + ".parquet").touch()
    (before,) = planned(tmp_path / "other", write_tar(tmp_path / "b.tar", {"a.png": A}))
    after = replace(before, key="0" * 32)
    blocks = through(reads(given), references(tmp_path / "lines", [before, block, after]))
    keys = [before.key, stream_key(block.key, 0), stream_key(block.key, 2), after.key]
    assert [b.key for b in blocks] == keys
    assert read_mark(given.writing.parts, block.key) == StreamMark(images=10, blocks=3)


def test_the_stage_hands_on_a_fault_of_reading(tmp_path: Path) -> None:
    refs = references(tmp_path / "lines", [loose(tmp_path, "gone.png")])
    with pytest.raises(InputFault, match=r"gone\.png"):
        through(reads(job(tmp_path)), refs)


def test_the_stage_stops_when_asked(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": A})
    refs = references(tmp_path / "lines", [loose(tmp_path, "a.png")])
    stopping.ask_to_stop()
    try:
        with pytest.raises(stopping.Stopped):
            through(reads(job(tmp_path)), refs)
    finally:
        stopping.forget()


def test_the_stage_tells_of_itself_where_workers_are_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TALLY, "_file", None)
    write_folder(tmp_path, {"a.png": A})
    refs = references(tmp_path / "lines", [loose(tmp_path, "a.png")])
    through(reads(job(tmp_path, heartbeat=str(tmp_path / "beats"))), refs)
    assert os.listdir(tmp_path / "beats") == [f"worker-{os.getpid()}.json"]
