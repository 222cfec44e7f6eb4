"""What an earlier run left: whose it is, which of its blocks stand, and the lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import FINGERPRINT, finished
from pictures import gradient, png, write_folder, write_tar

from models.heads.output_spec import ClassOutput
from pipeline.errors import StoppedError, UsageError
from pipeline.run.output_folder import OutputFolder
from pipeline.run.plan import Layout, Plan, head_of, make_plan
from transforms.formats.canonical import fingerprint_of
from transforms.formats.records import Limits
from transforms.read_blocks import stream_key
from transforms.stream_marks import StreamMark, write_mark
from transforms.write_parts import write_block

ROOT = Path(__file__).parents[1]
IMAGE = png(gradient(8, 8))
WHOSE = {"features": {"space": {"backbone": "face_vgg"}}, "head": "abc"}


def planned(folder: OutputFolder, *patterns: Path) -> Plan:
    return make_plan([str(pattern) for pattern in patterns], folder.plan, Layout(2, 2**20), Limits())


def put_part(folder: OutputFolder, key: str, images: int) -> Path:
    write_block(finished([0] * images, key=key), folder.parts, ClassOutput(("a", "b")), FINGERPRINT)
    return Path(folder.parts, f"{key}.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(str(tmp_path / "out"))
    folder.prepare(WHOSE)
    return folder


@pytest.fixture
def plan(tmp_path: Path, folder: OutputFolder) -> Plan:
    """Three blocks: of two images, two images and one."""
    return planned(folder, write_tar(tmp_path / "in.tar", {f"{number}.png": IMAGE for number in range(5)}))


def keys(plan: Plan) -> list[str]:
    return [head_of(line)[0] for _, line in plan.lines()]


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_one_run_a_folder(tmp_path: Path) -> None:
    with OutputFolder(str(tmp_path / "out")).locked():
        with (
            pytest.raises(StoppedError, match="out: another run is using this folder"),
            OutputFolder(str(tmp_path / "out")).locked(),
        ):
            pass
        with OutputFolder(str(tmp_path / "other")).locked():
            pass
    with OutputFolder(str(tmp_path / "out")).locked():
        pass


def test_the_lock_of_a_run_that_was_killed_is_free(tmp_path: Path) -> None:
    script = "import fcntl, os, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    (tmp_path / "out").mkdir()
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out" / ".lock")], check=False)
    assert ended.returncode == -9
    with OutputFolder(str(tmp_path / "out")).locked():
        pass


def test_an_output_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with (
        pytest.raises(UsageError, match=r"--output .*out: .*give a writable folder"),
        OutputFolder(str(tmp_path / "out")).locked(),
    ):
        pass


# --- whose run --------------------------------------------------------------------------------------------------------


def test_the_same_run_goes_on_and_another_is_refused(folder: OutputFolder) -> None:
    folder.prepare(WHOSE)
    other = {"features": {"space": {"backbone": "vgg16"}}, "head": "abc"}
    with pytest.raises(UsageError, match=r"features\.space\.backbone: face_vgg there, vgg16 here.*--overwrite"):
        folder.prepare(other)
    assert folder.identity() == WHOSE


def test_a_refusal_lists_six_differences_at_most(folder: OutputFolder) -> None:
    with pytest.raises(UsageError) as refused:
        folder.refuse_another({str(n): 0 for n in range(9)}, {str(n): 1 for n in range(9)})
    assert str(refused.value).count(" there, ") == 6


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_damaged_note_is_no_note(folder: OutputFolder, text: str) -> None:
    Path(folder.identity_file).write_text(text)
    Path(folder.record_file).write_text(text)
    assert (folder.identity(), folder.record()) == (None, None)
    folder.prepare(WHOSE)
    assert folder.identity() == WHOSE


@pytest.mark.parametrize("text", ["", "{", "garbage", '{"features": "fit'])
@pytest.mark.parametrize("name", ["identity_file", "record_file"])
def test_what_says_whose_run_it_is_is_refused_where_it_is_damaged(folder: OutputFolder, name: str, text: str) -> None:
    folder.refuse_damaged()  # there is nothing yet
    folder.prepare(WHOSE)
    folder.refuse_damaged()
    path = Path(getattr(folder, name))
    path.write_text(text)
    reported = rf"--output .*: {path.relative_to(folder.path)} is damaged, .*; --overwrite starts over .*another folder"
    with pytest.raises(UsageError, match=reported):
        folder.refuse_damaged()


def test_a_flipped_bit_is_damage_and_not_another_setting(folder: OutputFolder) -> None:
    folder.prepare(WHOSE)
    path = Path(folder.identity_file)
    path.write_text(path.read_text().replace("face_vgg", "face_vgf"))
    with pytest.raises(UsageError, match=r"plan/identity\.json is damaged"):
        folder.refuse_damaged()
    record = {"identity": WHOSE, "run_fingerprint": fingerprint_of(WHOSE)}
    path.unlink()
    Path(folder.record_file).write_text(json.dumps(record))
    folder.refuse_damaged()
    Path(folder.record_file).write_text(json.dumps(record).replace("face_vgg", "face_vgf"))
    with pytest.raises(UsageError, match=r"run\.json is damaged"):
        folder.refuse_damaged()


def test_preparing_makes_the_run_unfinished(folder: OutputFolder) -> None:
    Path(folder.record_file).write_text('{"counts": {}}')
    assert folder.record() == {"counts": {}}
    folder.prepare(WHOSE)
    assert folder.record() is None
    folder.forget_record()  # a second time is no fault


def test_a_refusal_leaves_the_record_where_it_is(folder: OutputFolder) -> None:
    Path(folder.record_file).write_text('{"counts": {}}')
    with pytest.raises(UsageError):
        folder.prepare({"features": {}, "head": "other"})
    assert folder.record() == {"counts": {}}


def test_preparing_removes_what_a_killed_run_was_writing(folder: OutputFolder) -> None:
    write = "from transforms.formats.publish import publish; import os, sys\n"
    write += "publish(sys.argv[1], lambda file: os.kill(os.getpid(), 9))"
    for parent in (folder.path, folder.parts, folder.plan):
        subprocess.run([sys.executable, "-c", write, os.path.join(parent, "x.parquet")], check=False, cwd=ROOT)
    assert sum(name.endswith(".tmp") for _, _, names in os.walk(folder.path) for name in names) == 3
    folder.prepare(WHOSE)
    assert [name for _, _, names in os.walk(folder.path) for name in names if name.endswith(".tmp")] == []


def test_clearing_removes_what_is_ours_and_nothing_else(folder: OutputFolder) -> None:
    ours = {"run.json": b"{}", "submission.csv": b"", "predictions/part-00000-of-00001.parquet": b""}
    ours |= {"plan/plan.json": b"{}", "parts/0123456789abcdef0123456789abcdef-00000003.parquet": b""}
    kept = {"cache/0123/segment.h5": b"", "notes.txt": b"", "models/mine.npz": b"", "images/holiday.jpg": b"mine"}
    write_folder(Path(folder.path), {**ours, **kept})
    folder.clear()
    left = [path for path in Path(folder.path).rglob("*") if path.is_file()]
    assert {path.relative_to(folder.path).as_posix() for path in left} == set(kept)


def test_tidying_leaves_results(folder: OutputFolder) -> None:
    Path(folder.record_file).write_text("{}")
    folder.tidy()
    assert os.listdir(folder.path) == ["run.json"]


@pytest.mark.parametrize("fault", ["", "gone", "short"])
def test_a_finished_run_is_whole_if_its_files_stand(folder: OutputFolder, fault: str) -> None:
    file = Path(folder.path, "predictions", "part.parquet")
    write_folder(Path(folder.path), {"predictions/part.parquet": b"12345"})
    record = {"parts": [{"path": "predictions/part.parquet", "bytes": 5}]}
    if fault == "gone":
        file.unlink()
    if fault == "short":
        file.write_bytes(b"1234")
    assert folder.is_whole(record) == (not fault)


# --- finished blocks --------------------------------------------------------------------------------------------------


def test_without_parts_everything_is_missing(folder: OutputFolder, plan: Plan) -> None:
    progress = folder.progress(plan)
    assert progress.missing == [ref for ref, _ in plan.lines()]
    assert (progress.reused, progress.redone, progress.images_done) == (0, 0, 0)


def test_parts_that_stand_are_reused(folder: OutputFolder, plan: Plan) -> None:
    refs = [ref for ref, _ in plan.lines()]
    put_part(folder, keys(plan)[0], 2)
    put_part(folder, keys(plan)[2], 1)
    progress = folder.progress(plan)
    assert (progress.missing, progress.reused, progress.redone, progress.images_done) == ([refs[1]], 2, 0, 3)


@pytest.mark.parametrize("damage", [b"", b"PAR1 and nothing else"])
def test_a_damaged_part_is_removed_and_its_block_done_again(folder: OutputFolder, plan: Plan, damage: bytes) -> None:
    part = put_part(folder, keys(plan)[1], 2)
    part.write_bytes(damage)
    progress = folder.progress(plan)
    assert progress.missing == [ref for ref, _ in plan.lines()]
    assert (progress.reused, progress.redone) == (0, 1)
    assert not part.exists()


def test_a_part_that_holds_other_images_than_planned_is_done_again(folder: OutputFolder, plan: Plan) -> None:
    part = put_part(folder, keys(plan)[1], 1)
    progress = folder.progress(plan)
    assert progress.missing == [ref for ref, _ in plan.lines()]
    assert (progress.reused, progress.redone) == (0, 1)
    assert not part.exists()


def test_a_part_of_an_input_that_changed_is_removed_and_counted(
    tmp_path: Path, folder: OutputFolder, plan: Plan
) -> None:
    for key, images in zip(keys(plan), (2, 2, 1), strict=True):
        put_part(folder, key, images)
    os.utime(tmp_path / "in.tar", (1000, 1000))
    progress = folder.progress(planned(folder, tmp_path / "in.tar"))
    assert (len(progress.missing), progress.reused, progress.redone, progress.images_done) == (3, 0, 3, 0)
    assert os.listdir(folder.parts) == []


def test_what_is_no_part_is_left_alone(folder: OutputFolder, plan: Plan) -> None:
    write_folder(Path(folder.parts), {"notes.txt": b"mine"})
    assert folder.progress(plan).redone == 0
    assert os.listdir(folder.parts) == ["notes.txt"]


def test_a_stream_is_asked_again_and_its_finished_blocks_count(tmp_path: Path, folder: OutputFolder) -> None:
    plan = planned(folder, write_tar(tmp_path / "in.tar.gz", {"a.png": IMAGE}))
    (key,) = keys(plan)
    put_part(folder, stream_key(key, 0), 2)
    put_part(folder, stream_key(key, 5), 1)
    put_part(folder, stream_key(key, 7), 1).write_bytes(b"damaged")
    put_part(folder, stream_key("0" * 32, 0), 1)
    progress = folder.progress(plan)
    assert progress.missing == [ref for ref, _ in plan.lines()]
    assert (progress.reused, progress.redone, progress.images_done) == (2, 2, 3)
    assert sorted(os.listdir(folder.parts)) == [f"{stream_key(key, n)}.parquet" for n in (0, 5)]


@pytest.mark.parametrize(
    "mark, asked, kept",
    [
        (None, True, True),
        (StreamMark(images=3, blocks=2), False, True),
        (StreamMark(images=4, blocks=2), True, False),  # one of them lost an image
        (StreamMark(images=3, blocks=3), True, True),
    ],
)
def test_a_stream_is_not_asked_again_when_all_its_blocks_stand(
    mark: StreamMark | None, asked: bool, kept: bool, tmp_path: Path, folder: OutputFolder
) -> None:
    plan = planned(folder, *(write_tar(tmp_path / name, {"a.png": IMAGE}) for name in ("a.tar", "b.tar.gz", "c.tar")))
    refs, key = [ref for ref, _ in plan.lines()], keys(plan)[1]
    put_part(folder, stream_key(key, 0), 2)
    put_part(folder, stream_key(key, 1), 1)
    if mark is not None:
        write_mark(folder.parts, key, mark)
    progress = folder.progress(plan)
    assert progress.missing == (refs if asked else [refs[0], refs[2]])
    assert (progress.reused, progress.redone, progress.images_done) == ((2, 0, 3) if kept else (0, 2, 0))


def test_a_note_on_an_archive_that_changed_goes(tmp_path: Path, folder: OutputFolder) -> None:
    plan = planned(folder, write_tar(tmp_path / "in.tar.gz", {"a.png": IMAGE}))
    write_mark(folder.parts, keys(plan)[0], StreamMark(1, 1))
    os.utime(tmp_path / "in.tar.gz", (1000, 1000))
    folder.progress(planned(folder, tmp_path / "in.tar.gz"))
    assert os.listdir(folder.parts) == []


def test_the_note_says_whose_run_it_is_in_readable_text(folder: OutputFolder) -> None:
    assert folder.identity() == WHOSE
