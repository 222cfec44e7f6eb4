"""The last step: limits, the merge, and run.json last of all."""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import FINGERPRINT, finished

from models.heads.output_spec import ClassOutput
from transforms import finish_run as module
from transforms.block import Block, Status, no_faces
from transforms.finish_run import FinishRun, MergeRequest, RunStopped, finish_run
from transforms.formats.parts import DamagedPart
from transforms.formats.publish import StorageError
from transforms.formats.submission.rules import SubmissionError, SubmissionRules
from transforms.merge.account import AccountError
from transforms.merge.merge_parts import merge_parts
from transforms.storage.stopping import Stopped
from transforms.stream_marks import StreamMark, write_mark
from transforms.tally import TALLY, Totals
from transforms.write_parts import write_block

SPEC = ClassOutput(("happy", "sad"))


def key(number: int) -> str:
    """Returns the key of a block, which names its part."""
    return f"{number:032x}"


def request(folder: Path, blocks: Sequence[Block], **other: Any) -> MergeRequest:
    """Writes the blocks as parts; returns what the last step is asked."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    for block in blocks:
        write_block(block, str(folder / "parts"), SPEC, FINGERPRINT)
    plain = MergeRequest(
        output=str(folder),
        parts=str(folder / "parts"),
        spec=SPEC,
        run_fingerprint=FINGERPRINT,
        rows_per_file=1000,
        submission=SubmissionRules(),
        sample_submission=None,
        max_rejected=None,
        expected_images=sum(map(len, blocks)),
        started=0.0,
        heartbeat="",
        record={"inputs": ["in"], "settings": {"a": 1}},
    )
    return replace(plain, **other)


def streams(folder: Path, *images: int, **other: Any) -> tuple[str, ...]:
    """Notes archives that were streamed to their end; returns their keys."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    keys = tuple(f"s{number}" for number in range(len(images)))
    for key, count in zip(keys, images, strict=True):
        write_mark(str(folder / "parts"), key, StreamMark(count, 1, **other))
    return keys


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))


def two_blocks() -> list[Block]:
    return [
        finished([1, 0], key=key(0), prefix="a/", cached=np.asarray([True, False]), labels=("sad", "sad")),
        finished([1, 1], key=key(1), prefix="b/"),
    ]


def test_everything_is_merged_and_recorded(tmp_path: Path) -> None:
    TALLY.reset()
    counts = finish_run(request(tmp_path, two_blocks()))
    parts_of_it = {"labelled": 4, "no_face": 0, "rejected": 0, "duplicate": 0}
    assert counts == {"images": 4, **parts_of_it, "faces": 4, "unlabelled_faces": 0}
    found = record(tmp_path)
    assert found["counts"] == counts
    assert (found["inputs"], found["settings"]) == (["in"], {"a": 1})
    assert found["labels"] == {"happy": 1, "sad": 3}
    assert found["accuracy"] == {"known": 2, "correct": 1}
    assert found["cache"] == {"cached": 1, "computed": 3, "damaged": 0}
    assert [part["path"] for part in found["parts"]] == [
        "predictions/part-00000-of-00001.parquet",
        "images/part-00000-of-00001.parquet",
        "submission.csv",
    ]
    for part in found["parts"]:
        data = (tmp_path / part["path"]).read_bytes()
        assert (part["bytes"], part["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_without_stated_labels_there_is_no_accuracy(tmp_path: Path) -> None:
    finish_run(request(tmp_path, [finished([1], key=key(0), labels=("holiday",))]))
    assert record(tmp_path)["accuracy"] is None


def test_doing_it_twice_changes_nothing(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    first = finish_run(asked)
    before = {part["path"]: part["sha256"] for part in record(tmp_path)["parts"]}
    assert finish_run(asked) == first
    assert {part["path"]: part["sha256"] for part in record(tmp_path)["parts"]} == before


def test_a_merge_that_fails_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageError(28, "cannot write: disk full")

    monkeypatch.setattr(module, "merge_parts", full)
    with pytest.raises(StorageError):
        finish_run(request(tmp_path, two_blocks()))
    assert not (tmp_path / "run.json").exists()


def test_the_record_is_written_behind_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standing: list[set[str]] = []

    def publish(path: str, write: Any) -> None:
        standing.append(set(os.listdir(tmp_path)))
        assert path == str(tmp_path / "run.json")

    monkeypatch.setattr(module, "publish", publish)
    finish_run(request(tmp_path, two_blocks()))
    assert standing == [{"parts", "predictions", "images", "submission.csv"}]


@pytest.mark.parametrize("expected", [3, 5])
def test_images_that_are_missing_or_too_many_stop_the_run(tmp_path: Path, expected: int) -> None:
    with pytest.raises(AccountError):
        finish_run(request(tmp_path, two_blocks(), expected_images=expected))
    assert not (tmp_path / "run.json").exists()
    assert not (tmp_path / "predictions").exists() or not os.listdir(tmp_path / "predictions")


@pytest.mark.parametrize("seen, planned", [((4,), 0), ((1, 1), 2)])
def test_images_of_streamed_archives_are_expected_too(tmp_path: Path, seen: tuple[int, ...], planned: int) -> None:
    asked = request(tmp_path, two_blocks(), expected_images=planned, streams=streams(tmp_path, *seen))
    assert finish_run(asked)["images"] == 4


@pytest.mark.parametrize("seen", [3, 5])
def test_a_streamed_image_that_is_missing_stops_the_run(tmp_path: Path, seen: int) -> None:
    with pytest.raises(AccountError, match=f"{seen} images were planned, but the parts hold 4"):
        finish_run(request(tmp_path, two_blocks(), expected_images=0, streams=streams(tmp_path, seen)))
    assert not (tmp_path / "run.json").exists()


def test_an_archive_that_was_not_streamed_to_its_end_stops_the_run(tmp_path: Path) -> None:
    given = (*streams(tmp_path, 4), "cut")
    with pytest.raises(AccountError, match="1 of 2 streamed archives were not read to their end"):
        finish_run(request(tmp_path, two_blocks(), expected_images=0, streams=given))
    assert sorted(os.listdir(tmp_path)) == ["parts"]


def test_what_was_passed_over_while_planning_and_while_streaming_is_added_up(tmp_path: Path) -> None:
    given = streams(tmp_path, 4, skipped=3, skipped_names=("a.tar.gz/x.txt", "a.tar.gz/y.txt", "a.tar.gz/z.txt"))
    skipped = {"count": 1000, "names": ["1.txt", "2.txt", "3.txt"]}
    asked = request(tmp_path, two_blocks(), expected_images=0, streams=given)
    finish_run(replace(asked, record={"skipped_files": skipped}))
    names = ["1.txt", "2.txt", "3.txt", "a.tar.gz/x.txt", "a.tar.gz/y.txt"]
    assert record(tmp_path)["skipped_files"] == {"count": 1003, "names": names}


def test_a_part_of_another_run_is_refused(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    write_block(finished([1], key=key(9)), asked.parts, SPEC, "0" * 64)
    with pytest.raises(DamagedPart, match=r"parts/0+9\.parquet belongs to another run"):
        finish_run(asked)
    assert sorted(os.listdir(tmp_path)) == ["parts"]


def cut_short(part: Path) -> None:
    part.write_bytes(b"PAR1")


def hurt_within(part: Path) -> None:
    """Changes a byte of the rows: the footer still reads well."""
    data = bytearray(part.read_bytes())
    data[data.index(b"/0.png")] ^= 0xFF
    part.write_bytes(data)


@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize("hurt", [cut_short, hurt_within])
def test_a_damaged_part_is_removed_so_that_its_block_is_done_again(
    tmp_path: Path, hurt: Callable[[Path], None], limit: float | None
) -> None:
    asked = request(tmp_path, two_blocks(), max_rejected=limit)
    hurt(tmp_path / "parts" / f"{key(1)}.parquet")
    reported = r"^part .*01\.parquet is damaged \(.*\), so it was removed, to be computed again$"
    with pytest.raises(DamagedPart, match=reported):
        finish_run(asked)
    assert os.listdir(tmp_path / "parts") == [f"{key(0)}.parquet"]
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("limit", [None, 0.5])
def test_all_damaged_parts_are_removed_at_one_go(tmp_path: Path, limit: float | None) -> None:
    blocks = [finished([1], key=key(number), prefix=f"{number}/") for number in range(6)]
    asked = request(tmp_path, blocks, max_rejected=limit)
    for number, hurt in ((1, hurt_within), (3, cut_short), (4, hurt_within)):
        hurt(tmp_path / "parts" / f"{key(number)}.parquet")
    with pytest.raises(DamagedPart, match=r"so it was removed, as were 2 others, to be computed again"):
        finish_run(asked)
    assert sorted(os.listdir(tmp_path / "parts")) == [f"{key(number)}.parquet" for number in (0, 2, 5)]


@pytest.mark.parametrize("name", ["part_info", "merge_parts", "publish"])
def test_storage_that_fails_once_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked = request(tmp_path, two_blocks())
    real, faults = getattr(module, name), [errno.EIO]

    def shaky(*given: Any, **named: Any) -> Any:
        if faults:
            raise StorageError(faults.pop(), "cannot: Input/output error")
        return real(*given, **named)

    monkeypatch.setattr(module, name, shaky)
    assert finish_run(asked)["images"] == 4
    assert (tmp_path / "run.json").exists()


def test_what_is_no_part_is_passed_over(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    (tmp_path / "parts" / "notes.txt").write_text("mine")
    assert finish_run(asked)["images"] == 4


@pytest.mark.parametrize("limit, stops", [(None, False), (0.0, True), (0.24, True), (0.25, False), (1.0, False)])
def test_too_many_rejections_stop_before_merging(tmp_path: Path, limit: float | None, stops: bool) -> None:
    blocks = [finished([1, None], key=key(0), prefix="a/"), finished([1, 1], key=key(1), prefix="b/")]
    asked = request(tmp_path, blocks, max_rejected=limit, submission=None)
    if not stops:
        assert finish_run(asked)["rejected"] == 1
        return
    with pytest.raises(RunStopped, match=r"1 of 4 images were rejected, more than --max-rejected .*nothing was merged"):
        finish_run(asked)
    assert os.listdir(tmp_path) == ["parts"]
    assert len(os.listdir(tmp_path / "parts")) == 2


def test_without_rejections_no_limit_is_passed(tmp_path: Path) -> None:
    assert finish_run(request(tmp_path, two_blocks(), max_rejected=0.0))["rejected"] == 0


def no_face() -> Block:
    return finished([1], key=key(0), status=(Status.NO_FACE,), faces=no_faces())


def test_an_image_without_a_label_is_left_out_of_the_submission(tmp_path: Path) -> None:
    finish_run(request(tmp_path, [no_face()]))
    assert (tmp_path / "submission.csv").read_text().splitlines() == ["id,label"]
    reported = record(tmp_path)["submission"]
    assert (reported["rows"], reported["left_out"], reported["left_out_names"]) == (0, 1, ["0.png"])


def test_an_image_of_a_sample_without_a_label_stops_after_the_tables(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("image,emotion\n0.png,happy\n")
    with pytest.raises(RunStopped, match=r"predictions/ and images/ are written"):
        finish_run(request(tmp_path, [no_face()], sample_submission=str(tmp_path / "sample.csv")))
    assert (tmp_path / "images" / "part-00000-of-00001.parquet").exists()
    assert not (tmp_path / "submission.csv").exists()
    assert not (tmp_path / "run.json").exists()


def test_a_stated_label_finishes_it(tmp_path: Path) -> None:
    asked = request(tmp_path, [no_face()], submission=SubmissionRules(no_face_label="sad"))
    assert finish_run(asked)["no_face"] == 1
    assert (tmp_path / "submission.csv").read_text().splitlines() == ["id,label", "0.png,1"]


def test_a_sample_is_followed(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("image,emotion\nb/1.png,happy\na/0.png,happy\n")
    asked = request(tmp_path, two_blocks(), sample_submission=str(tmp_path / "sample.csv"))
    finish_run(asked)
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines == ["image,emotion", "b/1.png,sad", "a/0.png,sad"]
    assert record(tmp_path)["submission"] is not None


def test_totals_of_worker_processes_enter_the_record(tmp_path: Path) -> None:
    TALLY.reset()
    (tmp_path / "beats").mkdir()
    for number in (1, 2):
        (tmp_path / "beats" / f"worker-{number}.json").write_text(
            json.dumps({"damaged": 1, "devices": [f"GPU {number}"]})
        )
    finish_run(request(tmp_path, two_blocks(), heartbeat=str(tmp_path / "beats")))
    assert record(tmp_path)["cache"]["damaged"] == 2
    assert record(tmp_path)["device"] == ["GPU 1", "GPU 2"]


def timed(**other: Any) -> Totals:
    given = {"images": 110, "images_in_first_block": 10, "blocks": 4, "first_block_at": 100.0, "last_block_at": 120.0}
    return Totals(**{**given, **other})


@pytest.mark.parametrize(
    "totals, rate",
    [
        (timed(), 5.0),
        (timed(blocks=3), None),
        (timed(last_block_at=100.0), None),
        (timed(began_at=90.0, runtime_s=8.0), 5.0),  # nothing is taken off
        (Totals(), None),
    ],
)
def test_the_rate_from_the_first_block_to_the_last(tmp_path: Path, totals: Totals, rate: float | None) -> None:
    (tmp_path / "beats").mkdir()
    (tmp_path / "beats" / "worker-1.json").write_text(json.dumps(asdict(totals)))
    finish_run(request(tmp_path, two_blocks(), heartbeat=str(tmp_path / "beats")))
    assert record(tmp_path)["seconds"]["images_per_s_first_to_last_block"] == rate


def test_the_stage_finishes_once_for_all_parts(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    assert [counts["images"] for counts in FinishRun().process(asked, iter([]))] == [4]


def test_two_attempts_at_once_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner may start the last stage again while the first attempt still works, here in threads."""
    blocks = [finished([1, 0], key=key(n), position=2 * n, ids=(f"a{n:02d}.png", f"b{n:02d}.png")) for n in range(12)]
    alone = finish_run(request(tmp_path / "alone", blocks))
    asked = request(tmp_path / "two", blocks)
    begun = threading.Barrier(2)
    plain = merge_parts

    def together(paths: Sequence[str], output: str, **named: Any) -> Any:
        waited = []

        def progress(_: int) -> None:
            if not waited:
                waited.append(begun.wait(30))

        return plain(paths, output, max_open=4, progress=progress, **named)

    monkeypatch.setattr(module, "merge_parts", together)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ended = [attempt.result() for attempt in [pool.submit(finish_run, asked) for _ in range(2)]]
    assert ended == [alone, alone]
    for folder in ("predictions", "images"):
        ones, twos = (sorted((tmp_path / name / folder).iterdir()) for name in ("alone", "two"))
        assert [path.name for path in ones] == [path.name for path in twos]
        assert [path.read_bytes() for path in ones] == [path.read_bytes() for path in twos]
    assert (tmp_path / "alone" / "submission.csv").read_bytes() == (tmp_path / "two" / "submission.csv").read_bytes()
    assert not (tmp_path / "two" / ".merging").exists()


def test_a_second_attempt_leaves_the_submission_of_the_first_until_it_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, there = request(tmp_path, two_blocks()), []
    finish_run(asked)
    put = os.replace

    def look(old: str, new: str) -> None:
        if new.endswith("submission.csv"):
            there.append(os.path.exists(new))
        put(old, new)

    monkeypatch.setattr(os, "replace", look)
    finish_run(asked)
    assert there == [True]


def test_an_attempt_that_is_stopped_leaves_the_submission_of_one_that_ended_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tmp_path, two_blocks())
    finish_run(asked)
    before = (tmp_path / "submission.csv").read_bytes()
    put = os.replace

    def stop(old: str, new: str) -> None:
        if new.endswith("submission.csv"):
            raise Stopped("a runner that has lost patience")
        put(old, new)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(Stopped):
        finish_run(asked)
    assert (tmp_path / "submission.csv").read_bytes() == before


def test_a_submission_that_cannot_be_written_leaves_none_of_an_earlier_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tmp_path, two_blocks())
    finish_run(asked)

    def refuse(*_: Any, **__: Any) -> Any:
        raise SubmissionError("refused")

    monkeypatch.setattr("transforms.formats.submission.write._write_all", refuse)
    with pytest.raises(SubmissionError):
        finish_run(asked)
    assert not (tmp_path / "submission.csv").exists()


def test_an_attempt_that_fails_takes_nothing_from_one_that_ended_well(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    finish_run(asked)
    before = (tmp_path / "submission.csv").read_bytes()
    (tmp_path / "parts" / f"{key(0)}.parquet").unlink()  # as the driver tidies up after a finished run
    with pytest.raises(AccountError):
        finish_run(asked)
    assert (tmp_path / "submission.csv").read_bytes() == before
