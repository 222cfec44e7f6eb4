"""Inputs to shards to blocks: ids, what is read and what is passed over, and which keys stay when inputs change."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import example, gradient, png, tfrecord, write_folder, write_parquet, write_tar, write_tfrecord, write_zip

from pipeline.errors import UsageError
from pipeline.run.cut_files import SHARD_STRIDE
from pipeline.run.input_files import find_inputs, split_name
from pipeline.run.plan import Layout, Plan, head_of, make_plan, stored_layout, stored_plan
from transforms.formats.records import Entry, Limits, Reason
from transforms.formats.shards.loose_files import cut_blocks
from transforms.read_blocks import PlannedBlock, planned_block, read_block
from transforms.storage.store import InputFault, root_of

LAYOUT = Layout(block_images=4, block_bytes=2**20)
IMAGE = png(gradient(8, 8))


def plan_of(folder: Path, *patterns: Any, layout: Layout = LAYOUT) -> Plan:
    return make_plan([str(pattern) for pattern in patterns], str(folder / "plan"), layout, Limits())


def blocks_of(plan: Plan) -> list[PlannedBlock]:
    return [PlannedBlock.from_json(line) for _, line in plan.lines()]


def keys_of(plan: Plan) -> set[str]:
    return {head_of(line)[0] for _, line in plan.lines()}


@pytest.mark.parametrize(
    "pattern, root",
    [
        ("photos/*.jpg", "photos/"),
        ("photos/2020-*/a/*.jpg", "photos/"),
        ("photos/a/b/[ab]*.png", "photos/a/b/"),
        ("photos/??/x.png", "photos/"),
        ("photos/**", "photos/"),
        ("*.jpg", ""),
        ("/*", "/"),
        ("gs://bucket/a/*.tar", "gs://bucket/a/"),
    ],
)
def test_the_root_is_the_longest_folder_without_a_wildcard(pattern: str, root: str) -> None:
    assert root_of(pattern) == root


@pytest.mark.parametrize(
    "pattern, name, rest",
    [
        ("train=photos/*.jpg", "train/", "photos/*.jpg"),
        ("photos/a=b.jpg", "", "photos/a=b.jpg"),
        ("*=x", "", "*=x"),
        ("=x", "", "=x"),
        ("photos", "", "photos"),
    ],
)
def test_a_name_in_front_is_told_from_a_path_with_a_sign(pattern: str, name: str, rest: str) -> None:
    assert split_name(pattern) == (name, rest)


def test_a_path_that_exists_is_never_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path, {"a=b/x.png": IMAGE})
    assert [file.id for file in find_inputs(["a=b"])] == ["x.png"]


@pytest.mark.parametrize(
    "pattern, ids",
    [
        ("in", ["a.png", "b/a.png", "b/c/a.png"]),
        ("in/", ["a.png", "b/a.png", "b/c/a.png"]),
        ("in/**", ["a.png", "b/a.png", "b/c/a.png"]),
        ("in/*.png", ["a.png"]),
        ("in/b/*.png", ["a.png"]),
        ("in/*/a.png", ["b/a.png"]),
        ("in/b/c/a.png", ["a.png"]),
        ("own=in/*.png", ["own/a.png"]),
        ("own=in", ["own/a.png", "own/b/a.png", "own/b/c/a.png"]),
    ],
)
@pytest.mark.parametrize("absolute", [True, False])
def test_ids_are_paths_below_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, ids: list[str], absolute: bool
) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE, "b/a.png": IMAGE, "b/c/a.png": IMAGE})
    monkeypatch.chdir(tmp_path)
    name, sign, path = pattern.rpartition("=")
    pattern = f"{name}{sign}{tmp_path / path}" if absolute else pattern
    assert [file.id for file in find_inputs([pattern])] == ids
    plan = plan_of(tmp_path, pattern)
    assert list(plan.ids()) == ids
    assert [i for block in blocks_of(plan) for i in read_block(block, Limits()).ids] == ids


def test_the_current_folder_is_a_root_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"a.png": IMAGE, "b/a.png": IMAGE})
    monkeypatch.chdir(tmp_path)
    assert [file.id for file in find_inputs(["."])] == ["a.png", "b/a.png"]
    assert [file.id for file in find_inputs(["*.png"])] == ["a.png"]
    assert [file.id for file in find_inputs(["a.png"])] == ["a.png"]


def test_two_inputs_with_equal_ids_are_refused_naming_both(tmp_path: Path) -> None:
    write_folder(tmp_path, {"one/x.png": IMAGE, "two/x.png": IMAGE})
    with pytest.raises(UsageError, match=r"'x\.png': .*one/x\.png and .*two/x\.png; .*--input NAME=PATTERN"):
        plan_of(tmp_path, tmp_path / "one", tmp_path / "two")
    plan = plan_of(tmp_path, tmp_path / "one", f"two={tmp_path / 'two'}")
    assert list(plan.ids()) == ["x.png", "two/x.png"]


def test_a_file_under_two_patterns_is_one_image(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE, "b.png": IMAGE})
    plan = plan_of(tmp_path, tmp_path / "in", tmp_path / "in" / "*.png", tmp_path / "in" / "b.png")
    assert (plan.images, list(plan.ids())) == (2, ["a.png", "b.png"])


@pytest.mark.parametrize("pattern", ["nowhere", "in/*.tif", "in/[q]*"])
def test_a_pattern_that_finds_nothing_is_refused(tmp_path: Path, pattern: str) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE})
    with pytest.raises(UsageError, match="nothing is there"):
        plan_of(tmp_path, tmp_path / "in", tmp_path / pattern)


def test_inputs_without_an_image_are_refused_naming_what_was_seen(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"notes.txt": b"words", "run.py": b"code"})
    with pytest.raises(
        UsageError, match=r"no image and no archive of images there; passed over 2: notes\.txt, run\.py"
    ):
        plan_of(tmp_path, tmp_path / "in")
    assert stored_plan(str(tmp_path / "plan")) is None


def test_files_that_are_no_images_are_passed_over_and_counted(tmp_path: Path) -> None:
    others = {f"notes{number}.txt": b"words" for number in range(7)}
    write_folder(tmp_path / "in", {"a.png": IMAGE, ".hidden.png": IMAGE, "__MACOSX/a.png": IMAGE, **others})
    plan = plan_of(tmp_path, tmp_path / "in")
    assert (plan.images, plan.skipped) == (1, 9)
    assert plan.skipped_names == [".hidden.png", "__MACOSX/a.png", "notes0.txt", "notes1.txt", "notes2.txt"]
    assert plan.input_bytes == len(IMAGE)


@pytest.mark.parametrize("also", [[], ["in"]])
def test_a_file_that_was_asked_for_is_taken_whatever_its_suffix(tmp_path: Path, also: list[str]) -> None:
    write_folder(tmp_path / "in", {"picture.data": IMAGE})
    plan = plan_of(tmp_path, *(tmp_path / name for name in also), tmp_path / "in" / "picture.data")
    assert (list(plan.ids()), plan.skipped) == (["picture.data"], 0)


def test_names_that_are_no_text_are_planned_and_read(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "in" / "happy")
    os.makedirs(folder)
    with open(folder + b"/caf\xe9.png", "wb") as file:
        file.write(IMAGE)
    plan = plan_of(tmp_path, tmp_path / "in")
    block = read_block(blocks_of(plan)[0], Limits())
    assert list(plan.ids()) == list(block.ids) == ["happy/caf%E9.png"]
    assert (block.data, block.labels) == ((IMAGE,), ("happy",))
    assert block.sources[0].endswith("in/happy/caf%E9.png")


def test_a_folder_or_an_archive_whose_name_is_no_text_gives_ids_that_are(tmp_path: Path) -> None:
    packed = write_tar(tmp_path / "in" / "x.tar", {"a.png": IMAGE})
    os.rename(packed, os.fsencode(packed.parent) + b"/\xff.tar")
    block = read_block(blocks_of(plan_of(tmp_path, tmp_path / "in"))[0], Limits())
    assert block.ids == ("%FF.tar/a.png",)


@pytest.mark.parametrize("name", ["a[1].png", "what?.png", "star*.png"])
def test_wildcards_in_names_of_files_and_folders_mean_themselves(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "in [1]*", {name: IMAGE})
    for pattern in (tmp_path / "in [1]*", tmp_path / "in [1]*" / name):
        assert list(plan_of(tmp_path, pattern).ids()) == [name]


def test_a_folder_that_may_not_be_read_stops_planning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE, "closed/b.png": IMAGE})
    scan = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputFault, match="in/closed cannot be read: Permission denied"):
        plan_of(tmp_path, tmp_path / "in")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(
    "given, met", [("in", True), ("in/**", True), ("in/*/*.png", True), ("in/*.png", False), ("in/o*/*.png", False)]
)
def test_a_folder_without_permission_stops_planning(tmp_path: Path, given: str, met: bool) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE, "open/c.png": IMAGE, "closed/b.png": IMAGE})
    (tmp_path / "in" / "closed").chmod(0)
    try:
        if met:
            with pytest.raises(InputFault, match="in/closed cannot be read"):
                plan_of(tmp_path, tmp_path / given)
        else:
            assert plan_of(tmp_path, tmp_path / given).images == 1
    finally:
        (tmp_path / "in" / "closed").chmod(0o700)


@pytest.mark.parametrize("given", ["in", "in/**", "in/*.png"])
def test_a_link_that_leads_nowhere_and_a_pipe_are_images_that_are_rejected(tmp_path: Path, given: str) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE})
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "in" / "c.png").symlink_to("c.png")
    os.mkfifo(tmp_path / "in" / "d.png")
    plan = plan_of(tmp_path, tmp_path / given)
    found = {}
    for block in blocks_of(plan):
        read = read_block(block, Limits())  # a pipe that was opened would be waited for without an end
        found.update(zip(read.ids, read.reason, strict=True))
    assert found == {"a.png": None, **dict.fromkeys(["b.png", "c.png", "d.png"], Reason.NOT_A_FILE)}
    before = keys_of(plan)
    write_folder(tmp_path, {"gone.png": IMAGE})
    mended = plan_of(tmp_path, tmp_path / given)
    assert mended.inputs_digest != plan.inputs_digest
    assert keys_of(mended) != before


@pytest.mark.parametrize("name", ["b.tar", "b.parquet", "b.tfrecord", "train-00000-of-00010"])
def test_an_archive_that_is_a_link_to_nowhere_stops_planning(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE})
    (tmp_path / "in" / name).symlink_to(tmp_path / "gone")
    with pytest.raises(InputFault, match=rf"in/{name} cannot be read: a broken link or not a regular file; fix or"):
        plan_of(tmp_path, tmp_path / "in")


@pytest.mark.parametrize("given, reported", [("in", True), ("in/**", True), ("in/**.png", True), ("in/*.png", False)])
def test_a_linked_folder_is_passed_over_and_reported(tmp_path: Path, given: str, reported: bool) -> None:
    write_folder(tmp_path, {"in/a.png": IMAGE, "elsewhere/b.png": IMAGE})
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    plan = plan_of(tmp_path, tmp_path / given)
    assert plan.images == 1
    assert (plan.skipped, plan.skipped_names) == ((1, ["more/ (a linked folder)"]) if reported else (0, []))
    for nothing in ("in/*/nothing.png", "in/m*/b.png"):
        with pytest.raises(UsageError, match="nothing is there"):
            plan_of(tmp_path, tmp_path / nothing)


def test_a_link_to_nowhere_that_is_named_outright_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(tmp_path / "not_mounted")
    with pytest.raises(UsageError, match="photos: nothing is there; check the path"):
        plan_of(tmp_path, tmp_path / "photos")


def test_linked_folders_of_one_name_and_among_results_are_no_collision(tmp_path: Path) -> None:
    write_folder(tmp_path, {"one/a.png": IMAGE, "two/b.png": IMAGE, "elsewhere/c.png": IMAGE})
    for root in ("one", "two"):
        (tmp_path / root / "latest").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "one" / "out").mkdir()
    (tmp_path / "one" / "out" / "predictions").symlink_to(tmp_path / "elsewhere")
    inputs = [str(tmp_path / root) for root in ("one", "two")]
    out = str(tmp_path / "one" / "out")
    plan = make_plan(inputs, str(tmp_path / "plan"), LAYOUT, Limits(), own=(out, f"{out}/cache"))
    assert (plan.images, plan.skipped) == (2, 3)


def test_slashes_behind_a_folder_do_not_reach_the_ids(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE, "b/c.png": IMAGE})
    assert list(plan_of(tmp_path, f"{tmp_path}/in//").ids()) == ["a.png", "b/c.png"]


def test_one_more_file_in_two_thousand_changes_few_blocks(tmp_path: Path) -> None:
    layout = Layout(block_images=32, block_bytes=2**20)
    write_folder(tmp_path / "in", {f"{number * 37 % 2000:05d}.png": b"x" for number in range(2000)})
    before = keys_of(plan_of(tmp_path, tmp_path / "in", layout=layout))
    write_folder(tmp_path / "in", {"00777b.png": b"x"})
    after = keys_of(plan_of(tmp_path, tmp_path / "in", layout=layout))
    assert len(before) > 60
    assert len(before - after) <= 2
    assert len(after - before) <= 3


def test_blocks_of_a_folder_are_as_the_ids_are_cut(tmp_path: Path) -> None:
    names = [f"{number:03d}.png" for number in range(50)]
    write_folder(tmp_path / "in", dict.fromkeys(names, IMAGE))
    blocks = blocks_of(plan_of(tmp_path, tmp_path / "in"))
    runs = cut_blocks(names, [len(IMAGE)] * 50, max_images=4, max_bytes=2**20)
    assert [(b.position, len(b.entries)) for b in blocks] == [(run.start, len(run)) for run in runs]
    assert [entry.name for block in blocks for entry in block.entries] == names


def test_inputs_that_did_not_change_keep_their_plan_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE, "b.png": IMAGE})
    first = plan_of(tmp_path, tmp_path / "in")
    stamp = os.stat(first.blocks_file)
    again = plan_of(tmp_path, tmp_path / "in")
    assert again == first == stored_plan(str(tmp_path / "plan"))
    assert os.stat(first.blocks_file).st_ino == stamp.st_ino


def test_positions_of_an_archive_stay_when_other_inputs_come_and_go(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "b.tar", {f"{number}.png": IMAGE for number in range(6)})
    alone = {b.key: b.position for b in blocks_of(plan_of(tmp_path, tmp_path / "in"))}
    write_tar(tmp_path / "in" / "a.tar", {"x.png": IMAGE})
    write_folder(tmp_path / "in", {"loose.png": IMAGE})
    beside = {b.key: b.position for b in blocks_of(plan_of(tmp_path, tmp_path / "in"))}
    assert alone.items() <= beside.items()


@pytest.mark.parametrize("called, is_gzipped", [("a.tar", True), ("a.tar.gz", False), ("a.tgz", False)])
def test_a_tar_file_under_the_other_suffix_is_read_as_what_it_is(tmp_path: Path, called: str, is_gzipped: bool) -> None:
    made = write_tar(tmp_path / ("made.tar.gz" if is_gzipped else "made.tar"), {"x.png": IMAGE})
    (tmp_path / "in").mkdir()
    made.rename(tmp_path / "in" / called)
    plan = plan_of(tmp_path, tmp_path / "in")
    assert plan.shards == {"tar.gz" if is_gzipped else "tar": 1}
    assert (plan.images, plan.streamed) == ((0, 1) if is_gzipped else (1, 0))


def test_a_record_whose_length_looks_like_gzip_is_a_record(tmp_path: Path) -> None:
    lengths = range(0x8B1F - 200, 0x8B1F)
    made = (tfrecord(example({"image/encoded": IMAGE.ljust(length, b"\0")})) for length in lengths)
    data = next(record for record in made if record.startswith(b"\x1f\x8b"))
    write_folder(tmp_path / "in", {"a.tfrecord": data})
    assert plan_of(tmp_path, tmp_path / "in").shards == {"tfrecord": 1}


@pytest.mark.parametrize("called, is_gzipped", [("a.tfrecord", True), ("a.tfrecord.gz", False)])
def test_a_tfrecord_file_under_the_other_suffix_is_read_as_what_it_is(
    tmp_path: Path, called: str, is_gzipped: bool
) -> None:
    made = write_tfrecord(tmp_path / ("made.tfrecord.gz" if is_gzipped else "made.tfrecord"), {"x.png": IMAGE})
    (tmp_path / "in").mkdir()
    made.rename(tmp_path / "in" / called)
    assert plan_of(tmp_path, tmp_path / "in").shards == {"tfrecord.gz" if is_gzipped else "tfrecord": 1}


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data.replace(b"b.png", b"c.png"), None])
def test_damaged_lines_of_a_plan_are_written_again(tmp_path: Path, damage: Callable[[bytes], bytes] | None) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE, "b.png": IMAGE})
    first = plan_of(tmp_path, tmp_path / "in")
    lines = Path(first.blocks_file).read_bytes()
    if damage is None:
        os.unlink(first.blocks_file)
    else:
        Path(first.blocks_file).write_bytes(damage(lines))
    assert stored_plan(first.folder) is None
    assert stored_layout(first.folder) == LAYOUT  # the parts of the run that stands there were cut so
    assert plan_of(tmp_path, tmp_path / "in") == first
    assert Path(first.blocks_file).read_bytes() == lines


@pytest.mark.parametrize("how", ["size", "time", "more"])
def test_a_changed_input_changes_its_key_and_no_other(tmp_path: Path, how: str) -> None:
    for name in ("one", "two"):
        write_tar(tmp_path / "in" / f"{name}.tar", {"a.png": IMAGE})
        os.utime(tmp_path / "in" / f"{name}.tar", (1000, 1000))
    first = plan_of(tmp_path, tmp_path / "in")
    before = keys_of(first)
    changed = tmp_path / "in" / "one.tar"
    if how == "size":
        changed.write_bytes(changed.read_bytes() + bytes(512))
        os.utime(changed, (1000, 1000))
    elif how == "time":
        os.utime(changed, (2000, 2000))
    else:
        write_tar(changed, {"a.png": IMAGE, "b.png": IMAGE})
    second = plan_of(tmp_path, tmp_path / "in")
    assert second.inputs_digest != first.inputs_digest
    assert len(keys_of(second) & before) == 1
    assert len(keys_of(second)) == 2


def test_a_loose_file_of_another_time_changes_its_block(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"{number}.png": IMAGE for number in range(40)})
    before = keys_of(plan_of(tmp_path, tmp_path / "in"))
    os.utime(tmp_path / "in" / "7.png", (1000, 1000))
    after = keys_of(plan_of(tmp_path, tmp_path / "in"))
    assert len(after) == len(before)
    assert len(after - before) == 1


def test_another_layout_is_another_plan(tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", {f"{number}.png": IMAGE for number in range(8)})
    write_tar(tmp_path / "in.tar.gz", {"a.png": IMAGE})
    first = keys_of(plan_of(tmp_path, tmp_path / "in.tar*"))
    second = keys_of(plan_of(tmp_path, tmp_path / "in.tar*", layout=Layout(3, 2**20)))
    assert not first & second


def test_the_plan_of_other_inputs_never_stands_beside_blocks_that_are_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE})
    plan_of(tmp_path, tmp_path / "in")
    write_folder(tmp_path / "in", {"b.png": IMAGE})

    def killed(_: Plan) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.run.plan._write_plan", killed)
    with pytest.raises(KeyboardInterrupt):
        plan_of(tmp_path, tmp_path / "in")
    assert stored_plan(str(tmp_path / "plan")) is None


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"version": 99}', '{"version": 1, "colour": 3}'])
def test_a_plan_that_cannot_be_read_is_none(tmp_path: Path, text: str | None) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE})
    plan = plan_of(tmp_path, tmp_path / "in")
    stored = Path(plan.folder, "plan.json")
    stored.unlink() if text is None else stored.write_text(text)
    assert stored_plan(plan.folder) is None
    assert plan_of(tmp_path, tmp_path / "in") == plan


def test_archives_are_cut_into_runs_of_at_most_the_layout(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", {f"happy/{number:02d}.png": IMAGE for number in range(10)})
    write_zip(tmp_path / "in" / "b.zip", {"x.png": IMAGE, "y.txt": b"words"})
    write_folder(tmp_path / "in", {"loose.png": IMAGE})
    plan = plan_of(tmp_path, tmp_path / "in")
    blocks = blocks_of(plan)
    assert [(b.kind, b.prefix, len(b.entries), b.position % SHARD_STRIDE) for b in blocks] == [
        ("loose", "", 1, 0),
        ("tar", "a.tar/", 4, 0),
        ("tar", "a.tar/", 4, 4),
        ("tar", "a.tar/", 2, 8),
        ("zip", "b.zip/", 1, 0),
    ]
    loose, tar, *tars, packed = (b.position // SHARD_STRIDE for b in blocks)
    assert loose == 0 < min(tar, packed) and tars == [tar, tar] and tar != packed
    assert len({block.key for block in blocks}) == 5
    assert (plan.blocks, plan.images, plan.streamed) == (5, 12, 0)
    assert plan.shards == {"loose": 1, "tar": 1, "zip": 1}
    assert (plan.skipped, plan.skipped_names) == (1, ["b.zip/y.txt"])
    assert list(plan.ids())[:2] == ["loose.png", "a.tar/happy/00.png"]


def test_members_that_are_no_images_are_counted_and_the_first_few_named(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"x.png": IMAGE, **{f"{number}.txt": b"words" for number in range(8)}})
    plan = plan_of(tmp_path, tmp_path / "a.zip")
    assert (plan.images, plan.skipped) == (1, 8)
    assert plan.skipped_names == [f"a.zip/{number}.txt" for number in range(5)]


def test_archives_are_cut_by_bytes_too(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{number}.png": bytes(1000) for number in range(5)})
    plan = plan_of(tmp_path, tmp_path / "a.tar", layout=Layout(100, 2500))
    assert [len(block.entries) for block in blocks_of(plan)] == [2, 2, 1]


def test_an_archive_that_can_only_be_streamed_is_one_line_without_entries(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar.gz", {f"{number}.png": IMAGE for number in range(9)})
    plan = plan_of(tmp_path, tmp_path / "in")
    (block,) = blocks_of(plan)
    assert (block.streamed, block.entries, plan.streamed, plan.blocks, plan.images) == (True, (), 1, 1, 0)
    assert [head_of(line) for _, line in plan.lines()] == [(block.key, 0, True)]


@pytest.mark.parametrize(
    "write, name", [(write_zip, "a.zip"), (write_tfrecord, "a.tfrecord"), (write_parquet, "a.parquet")]
)
def test_every_format_that_can_be_sought_is_listed(tmp_path: Path, write: Any, name: str) -> None:
    files = {f"happy/{number}.png": png(gradient(8, 9 + number)) for number in range(6)}
    write(tmp_path / name, files)
    plan = plan_of(tmp_path, tmp_path / name)
    blocks = [read_block(block, Limits()) for block in blocks_of(plan)]
    assert [len(block) for block in blocks] == [4, 2]
    assert [data for block in blocks for data in block.data] == list(files.values())


def test_references_lead_to_their_lines(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"{number}.png": IMAGE for number in range(20)})
    plan = plan_of(tmp_path, tmp_path / "in")
    assert [planned_block(ref) for ref, _ in plan.lines()] == blocks_of(plan)
    assert all(os.path.isabs(ref.plan) for ref, _ in plan.lines())


texts = st.text(st.characters(codec="utf-8") | st.sampled_from([chr(0xDC80 + n) for n in (0, 1, 127)]), max_size=8)
entries = st.builds(
    Entry,
    name=texts,
    where=st.lists(st.integers(0, 2**60), max_size=3).map(tuple),
    size=st.integers(-1, 2**50),
    label=st.none() | texts,
    reason=st.none() | st.sampled_from(Reason),
)


@given(
    st.builds(
        PlannedBlock,
        key=st.text("0123456789abcdef", min_size=32, max_size=32),
        kind=st.sampled_from(["loose", "tar"]),
        path=texts,
        prefix=texts,
        position=st.integers(0, 2**62),
        entries=st.lists(entries, max_size=4).map(tuple),
        streamed=st.booleans(),
    )
)
def test_a_line_gives_back_its_block(block: PlannedBlock) -> None:
    line = block.to_json()
    assert line.isascii()
    assert "\n" not in line
    assert PlannedBlock.from_json(line) == PlannedBlock.from_json(line.encode()) == block
    assert head_of(line.encode()) == (block.key, len(block.entries), block.streamed)


def test_the_stored_plan_is_readable_text(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.png": IMAGE})
    plan = plan_of(tmp_path, tmp_path / "in")
    stored = json.loads(Path(plan.folder, "plan.json").read_text())
    assert (stored["images"], stored["layout"]) == (1, {"block_images": 4, "block_bytes": 2**20})


def test_planning_tells_how_far_it_is(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{number}.png": IMAGE for number in range(10)})
    seen: list[int] = []
    make_plan([str(tmp_path / "a.tar")], str(tmp_path / "plan"), LAYOUT, Limits(), progress=seen.append)
    assert seen == [4, 8, 10]


# --- when a plan that stands may be used ------------------------------------------------------------------------------


def test_a_plan_made_under_other_limits_is_made_anew(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"1.png": IMAGE})
    plan = [str(tmp_path / "a.zip")], str(tmp_path / "plan"), LAYOUT
    small, large = (make_plan(*plan, Limits(max_image_bytes=size)) for size in (3, 2**20))
    assert small.inputs_digest != large.inputs_digest
    assert [entry.reason for entry in blocks_of(large)[0].entries] == [None]


def test_the_same_files_below_another_root_are_another_input(tmp_path: Path) -> None:
    write_folder(tmp_path / "in" / "2020", {"1.png": IMAGE})
    outer, inner = plan_of(tmp_path, tmp_path / "in"), plan_of(tmp_path, tmp_path / "in" / "2020")
    assert outer.inputs_digest != inner.inputs_digest
    assert list(inner.ids()) == ["1.png"]
    shutil.copytree(tmp_path / "in", tmp_path / "copy")  # with the times
    assert plan_of(tmp_path, tmp_path / "copy").inputs_digest != outer.inputs_digest


def test_a_file_that_is_asked_for_is_another_input_than_one_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"1.png": IMAGE, "z.dat": IMAGE})
    found = plan_of(tmp_path, tmp_path / "in")
    asked = plan_of(tmp_path, tmp_path / "in", tmp_path / "in" / "z.dat")
    assert (found.images, asked.images) == (1, 2)


def test_a_table_that_does_not_fit_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [b"x"], "b": [b"y"]}), tmp_path / "odd.parquet")
    with pytest.raises(UsageError, match=r"odd\.parquet: a Parquet file has no column of images .* go on without it"):
        plan_of(tmp_path, tmp_path / "odd.parquet")


def test_a_table_without_images_beside_images_is_passed_over_and_reported(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_folder(tmp_path / "in", {"a.png": IMAGE})
    pq.write_table(pa.table({"file_name": ["a.png"], "text": ["x"]}), tmp_path / "in" / "metadata.parquet")
    plan = plan_of(tmp_path, tmp_path / "in")
    assert (plan.images, plan.skipped, plan.input_bytes) == (1, 1, len(IMAGE))
    assert plan.skipped_names == ["metadata.parquet (a table without images: file_name, text)"]
    assert plan.shards == {"loose": 1}
    for alone in (["in/metadata.parquet"], ["in", "in/metadata.parquet"]):
        with pytest.raises(UsageError, match=r"metadata\.parquet: a table without images: file_name, text"):
            plan_of(tmp_path, *(tmp_path / one for one in alone))
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(UsageError, match=r"no image and no archive .* passed over 1: metadata\.parquet \(a table"):
        plan_of(tmp_path, tmp_path / "in")
