"""From run.json to the closing words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.run.summary import closing_words

PLAIN: dict[str, Any] = {
    "counts": {"images": 1234, "labelled": 1200, "no_face": 20, "rejected": 10, "duplicate": 4, "faces": 1500},
    "labels": {"angry": 100, "happy": 1200, "sad": 200, "fear": 0},
    "reasons": {},
    "accuracy": None,
    "cache": {"cached": 1000, "computed": 234, "damaged": 0},
    "resume": {"blocks_reused": 0, "blocks_redone": 0},
    "seconds": {"total": 61.25, "images_per_s": 98.7},
}


def unlabelled(faces: int) -> dict[str, Any]:
    """Returns what differs where so many faces are too small."""
    counts = {**PLAIN["counts"], "unlabelled_faces": faces}
    return {"counts": counts, "settings": {"faces": {"min_label_px": 24}}}


def words(folder: Path, **other: Any) -> list[str]:
    return closing_words({**PLAIN, **other}, str(folder)).splitlines()


def test_the_closing_words_of_a_plain_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "predictions").mkdir()
    (tmp_path / "plan").mkdir()
    lines = words(tmp_path)
    assert lines[0] == "1,234 images: 1,200 labelled, 20 without a face, 10 rejected, 4 with a duplicate id"
    assert lines[1] == "1,500 faces: happy 1,200, sad 200, angry 100"
    assert lines[2].startswith("61.2 s, 99 images/s ")
    assert lines[2].endswith(", 1,000 of 1,234 results from the cache")
    assert lines[3:] == [f"written: {tmp_path}/predictions, {tmp_path}/run.json"]


@pytest.mark.parametrize("values, said", [("index", "indices"), ("name", "names")])
def test_what_stands_for_a_class_is_said_with_the_order(tmp_path: Path, values: str, said: str) -> None:
    head = {"classes": ["angry", "disgust", "happy"]}
    line = f"submission.csv holds {said} of classes: 0=angry 1=disgust 2=happy"
    assert line in words(tmp_path, submission={"rows": 3, "values": values}, head=head)
    assert not any("submission.csv" in one for one in words(tmp_path, submission=None, head=head))


@pytest.mark.parametrize(
    "other, line",
    [
        ({"reasons": {"empty": 2, "truncated": 8}}, "reasons: truncated 8, empty 2"),
        ({"accuracy": {"known": 2000, "correct": 1500}}, "0.7500 of 2,000 known labels agree"),
        (
            {"skipped_files": {"count": 1200, "names": ["a.txt", "b.txt"]}},
            "skipped 1,200 files that are not images: a.txt, b.txt",
        ),
        ({"notes": ["keep this in mind"]}, "keep this in mind"),
        (
            {"reasons": {"empty": 2, "internal_error": 8}},
            "8 of the rejected images failed because of a bug in this program (internal_error): the warnings name "
            "them; they are not cached, and --overwrite tries them again",
        ),
        ({"labels": {}, "counts": {**PLAIN["counts"], "faces": 0}}, "0 faces"),
        (unlabelled(1200), "1,200 faces are smaller than 24 px and have no label"),
        (unlabelled(1), "1 face is smaller than 24 px and has no label"),
    ],
)
def test_what_is_said_only_where_there_is_something_to_say(tmp_path: Path, other: dict[str, Any], line: str) -> None:
    assert line in words(tmp_path, **other)
    assert line not in words(tmp_path)


@pytest.mark.parametrize(
    "other, clause",
    [
        ({"cache": {"cached": 0, "computed": 3, "damaged": 2}}, "2 damaged cache files moved aside and computed again"),
        ({"resume": {"blocks_reused": 5000, "blocks_redone": 0}}, "5,000 blocks reused from an earlier run"),
        (
            {"resume": {"blocks_reused": 0, "blocks_redone": 3}},
            "3 done again because an input changed or their part was damaged or had an internal_error",
        ),
    ],
)
def test_clauses_on_the_work(tmp_path: Path, other: dict[str, Any], clause: str) -> None:
    assert any(line.endswith(clause) for line in words(tmp_path, **other))
    assert not any(clause in line for line in words(tmp_path))


@pytest.mark.parametrize("rate", [None, 0])
def test_a_rate_that_is_not_known_is_not_told(tmp_path: Path, rate: float | None) -> None:
    assert "images/s" not in "\n".join(words(tmp_path, seconds={"total": 1.0, "images_per_s": rate}))
