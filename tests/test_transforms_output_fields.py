"""Every output goes through all stages after the head: a number, and two heads side by side."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import runs
from blocks import FINGERPRINT, finished
from pictures import write_tar

from models.heads.output_spec import ClassOutput, NumberOutput, OutputSpec
from models.heads.outputs import Head
from models.heads.registry import load_head
from models.heads.side_by_side import SideBySide
from pipeline.run import prepare
from transforms import apply_head as apply_head_stage
from transforms.block import Faces
from transforms.finish_run import MergeRequest, finish_run
from transforms.formats.parts import read_part
from transforms.formats.submission.rules import SubmissionError, SubmissionRules
from transforms.formats.submission.sample import read_sample
from transforms.label_faces import apply_head, leave_small_unlabelled
from transforms.merge.merge_parts import merge_parts
from transforms.write_parts import write_block

AGES = [31.5, 4.0, 70.25, 33.0]  # of the faces below, by their first feature


class TakesFeatures:
    """A head whose answers are the first features of a face."""

    def __init__(self, output: Any) -> None:
        self.output = output

    def answers(self, features: np.ndarray) -> np.ndarray:
        return features[:, : self.output.width].astype(np.float64)


def parts_of(folder: Path, output: Any, features: np.ndarray) -> list[str]:
    """Labels four faces in three photos (one of two faces, one too small, one without) and writes their parts."""
    box = np.array([[0, 0, 9, 9], [0, 0, 20, 20], [0, 0, 2, 2], [0, 0, 30, 30]], np.int32)
    faces = Faces(np.array([0, 0, 1, 3], np.int32), box, np.ones(4, np.float32), features=features)
    found = finished([0, 0, None, 0], faces=faces, labels=("7", None, None, "7"))
    block = leave_small_unlabelled(apply_head(found, TakesFeatures(output)), 5)  # type: ignore[arg-type]
    (folder / "parts").mkdir()
    info = write_block(block, str(folder / "parts"), output, FINGERPRINT)
    return [str(folder / "parts" / info.name)]


def merged(folder: Path, parts: list[str], spec: Any, **other: Any) -> list[dict[str, Any]]:
    """Merges the parts and returns the rows of `predictions/`."""
    merge_parts(parts, str(folder), spec=spec, **other)
    return [row for path in sorted((folder / "predictions").iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def ages(tmp_path: Path) -> list[str]:
    return parts_of(tmp_path, NumberOutput("age"), np.array(AGES, np.float32)[:, None])


def test_a_number_has_its_field_in_parts_and_its_column_in_the_tables(tmp_path: Path, ages: list[str]) -> None:
    stored = read_part(ages[0])
    assert [face["age"] for faces in stored["faces"].to_pylist() for face in faces] == AGES
    assert stored["true_label"].to_pylist() == ["7", None, None, "7"]  # no classes by which to drop some
    rows = merged(tmp_path, ages, NumberOutput("age"))
    plain = ["image_id", "face_index", "x", "y", "width", "height", "detection_score"]
    assert [list(row) for row in rows] == [[*plain, "age"]] * 4
    assert [row["age"] for row in rows] == [31.5, 4.0, None, 33.0]  # the third face is too small


@pytest.mark.parametrize(
    "policy, default, lines",
    [
        ("largest", None, ["0.png,4", "3.png,33"]),
        ("first", "18", ["0.png,31.5", "1.png,18", "2.png,18", "3.png,33"]),
        ("confident", None, ["0.png,31.5", "3.png,33"]),  # nothing to compare, so the first
    ],
)
def test_the_face_that_decides_gives_its_number(
    tmp_path: Path, ages: list[str], policy: Any, default: str | None, lines: list[str]
) -> None:
    rules = SubmissionRules(face_policy=policy, no_face_label=default, label_column="age")
    merged(tmp_path, ages, NumberOutput("age"), submission=rules)
    assert (tmp_path / "submission.csv").read_text().splitlines() == ["id,age", *lines]


def test_a_sample_with_numbers_is_followed(tmp_path: Path, ages: list[str]) -> None:
    spec, rules = NumberOutput("age"), SubmissionRules(no_face_label="0.5")
    sample = read_sample(io.BytesIO(b"id,age\n3,12.5\n1,1\n0,\n"), classes=spec.classes, rules=rules)
    merged(tmp_path, ages, spec, sample=sample)
    assert (tmp_path / "submission.csv").read_text().splitlines() == ["id,age", "3,33", "1,0.5", "0,4"]


def test_a_default_that_is_no_number_is_refused(tmp_path: Path, ages: list[str]) -> None:
    rules = SubmissionRules(no_face_label="happy")
    with pytest.raises(SubmissionError, match=r"write\.no_face_label=happy is not a number"):
        merged(tmp_path, ages, NumberOutput("age"), submission=rules)


def test_the_last_stage_counts_faces_without_classes(tmp_path: Path, ages: list[str]) -> None:
    request = MergeRequest(
        output=str(tmp_path),
        parts=str(tmp_path / "parts"),
        spec=NumberOutput("age"),
        run_fingerprint=FINGERPRINT,
        rows_per_file=10,
        expected_images=4,
        started=0.0,
        heartbeat="",
        record={},
    )
    renamed(ages)
    counts = finish_run(replace(request, submission=SubmissionRules()))
    assert (counts["faces"], counts["unlabelled_faces"], counts["labelled"]) == (4, 1, 2)


def renamed(parts: list[str]) -> None:
    """Gives the parts of test blocks names that a run has."""
    for number, path in enumerate(parts):
        Path(path).rename(Path(path).with_name(f"{number:032x}.parquet"))


def test_two_heads_side_by_side(tmp_path: Path) -> None:
    spec: OutputSpec = SideBySide(("own", "person"), (ClassOutput(("no", "yes")), NumberOutput("age")))
    features = np.array([[0.25, 0.75, 31.5], [1, 0, 4], [0.5, 0.5, 70.25], [0, 1, 33]], np.float32)
    rows = merged(tmp_path, parts_of(tmp_path, spec, features), spec, submission=SubmissionRules(values="name"))
    predicted = ["label", "label_index", "confidence", "p_no", "p_yes", "person_age"]
    assert [[row[name] for name in predicted] for row in rows] == [
        ["yes", 1, 0.75, 0.25, 0.75, 31.5],
        ["no", 0, 1.0, 1.0, 0.0, 4.0],
        [None] * 6,
        ["yes", 1, 1.0, 0.0, 1.0, 33.0],
    ]
    assert (tmp_path / "submission.csv").read_text().splitlines() == ["id,label", "0.png,no", "3.png,yes"]


class NumberHead(TakesFeatures):
    """A head of one number for the features that another head was trained for."""

    classes = reject = ()
    digest = "d" * 64
    features: ClassVar[dict[str, Any]] = {}

    def __init__(self, like: Head) -> None:
        super().__init__(NumberOutput("age"))
        self.feature_space = like.feature_space


def test_a_whole_run_with_a_head_of_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = runs.Bench(tmp_path, runs.make_head(tmp_path / "head"))
    head = NumberHead(load_head(bench.head))
    for module in (prepare, apply_head_stage):
        monkeypatch.setattr(module, "load_head", lambda path: head)
    source = write_tar(tmp_path / "photos.tar", runs.faces(5))
    ended = bench.label(source, "out", "write.report=false", "write.label_column=age", "write.no_face_label=18").done()
    rows = runs.predictions(ended.output)
    assert len(rows) == 5
    assert len({row["age"] for row in rows}) > 1
    assert runs.submission(ended.output) == ["id,age", *(f"{row['image_id']},{row['age']:.12g}" for row in rows)]
    assert ended.record["counts"]["faces"] == 5
    assert ended.record["labels"] == {}
    assert "of classes" not in ended.out
    refused = bench.label(source, "other", "write.no_face_label=happy")
    assert (refused.status, refused.line) == (2, "write.no_face_label=happy is not a number")
