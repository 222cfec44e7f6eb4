"""The last step: limits, the merge, and run.json last of all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import FINGERPRINT, finished

from transforms import finish_run as module
from transforms.block import Block, Status, no_faces
from transforms.finish_run import FinishRun, MergeRequest, RunStopped, finish_run
from transforms.formats.parts import DamagedPart
from transforms.formats.publish import StorageError
from transforms.formats.submission import SubmissionRules
from transforms.merge_parts import AccountError
from transforms.tally import TALLY
from transforms.write_parts import write_block

CLASSES = ("happy", "sad")


def request(folder: Path, blocks: Sequence[Block], **other: Any) -> MergeRequest:
    """Writes the blocks as parts; returns what the last step is asked."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    for block in blocks:
        write_block(block, str(folder / "parts"), CLASSES, FINGERPRINT)
    plain = MergeRequest(
        output=str(folder),
        parts=str(folder / "parts"),
        classes=CLASSES,
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


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))


def two_blocks() -> list[Block]:
    return [
        finished([1, 0], key="k0", prefix="a/", cached=np.asarray([True, False]), labels=("sad", "sad")),
        finished([1, 1], key="k1", prefix="b/"),
    ]


def test_everything_is_merged_and_recorded(tmp_path: Path) -> None:
    TALLY.reset()
    counts = finish_run(request(tmp_path, two_blocks()))
    assert counts == {"images": 4, "labelled": 4, "no_face": 0, "rejected": 0, "duplicate": 0, "faces": 4}
    found = record(tmp_path)
    assert found["counts"] == counts
    assert (found["inputs"], found["settings"]) == (["in"], {"a": 1})
    assert found["labels"] == {"happy": 1, "sad": 3}
    assert found["accuracy"] == {"known": 2, "correct": 1}
    assert found["cache"] == {"hits": 1, "misses": 3, "damaged": 0}
    assert [part["path"] for part in found["parts"]] == [
        "predictions/part-00000-of-00001.parquet",
        "images/part-00000-of-00001.parquet",
        "submission.csv",
    ]
    for part in found["parts"]:
        data = (tmp_path / part["path"]).read_bytes()
        assert (part["bytes"], part["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_without_stated_labels_there_is_no_accuracy(tmp_path: Path) -> None:
    finish_run(request(tmp_path, [finished([1], labels=("holiday",))]))
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


def test_a_stream_does_not_tell_how_many_to_expect(tmp_path: Path) -> None:
    assert finish_run(request(tmp_path, two_blocks(), expected_images=None))["images"] == 4


def test_a_part_of_another_run_is_refused(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    write_block(finished([1], key="alien"), asked.parts, CLASSES, "0" * 64)
    with pytest.raises(DamagedPart, match=r"parts/alien\.parquet belongs to another run"):
        finish_run(asked)
    assert sorted(os.listdir(tmp_path)) == ["parts"]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    (tmp_path / "parts" / "k1.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedPart, match=r"k1\.parquet"):
        finish_run(asked)
    assert not (tmp_path / "run.json").exists()


def test_a_part_that_is_damaged_within_is_removed_so_that_its_block_is_done_again(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    part = tmp_path / "parts" / "k1.parquet"
    data = bytearray(part.read_bytes())
    data[data.index(b"b/0.png")] ^= 0xFF
    part.write_bytes(data)
    with pytest.raises(DamagedPart, match=r"k1\.parquet"):
        finish_run(asked)
    assert os.listdir(tmp_path / "parts") == ["k0.parquet"]
    assert not (tmp_path / "run.json").exists()


def test_what_is_no_part_is_passed_over(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    (tmp_path / "parts" / "notes.txt").write_text("mine")
    assert finish_run(asked)["images"] == 4


@pytest.mark.parametrize("limit, stops", [(None, False), (0.0, True), (0.24, True), (0.25, False), (1.0, False)])
def test_too_many_rejections_stop_before_merging(tmp_path: Path, limit: float | None, stops: bool) -> None:
    blocks = [finished([1, None], key="k0", prefix="a/"), finished([1, 1], key="k1", prefix="b/")]
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
    return finished([1], status=(Status.NO_FACE,), faces=no_faces())


def test_an_image_without_a_face_and_without_a_label_stops_behind_the_tables(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match=r"predictions/ and images/ are written"):
        finish_run(request(tmp_path, [no_face()]))
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


def test_the_stage_finishes_once_for_all_parts(tmp_path: Path) -> None:
    asked = request(tmp_path, two_blocks())
    assert [counts["images"] for counts in FinishRun().process(asked, iter([]))] == [4]
