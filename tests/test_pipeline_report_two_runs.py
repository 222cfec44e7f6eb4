"""Two runs compared: images joined by id, faces matched, what counts as a difference, drift, and the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import MadeImage, write_images, write_run

from models.boxes import iou, iou_of_pairs
from models.evaluation.matching import NONE, best_matching
from pipeline.report.two_runs import matching
from pipeline.report.two_runs.comparison_report import DIFFERENCES, NUMBERS, PAGE, FinishedRun, write_comparison
from pipeline.report.two_runs.differences import SCHEMA
from pipeline.report.two_runs.feature_drift import DigestSample, feature_drift
from pipeline.report.two_runs.matching import SAME_FACE, match_faces
from pipeline.report.two_runs.pair_pictures import Source
from pipeline.report.two_runs.pairing import ABSENT, paired_batches
from transforms.formats.cache.contents import Contents, no_contents
from transforms.formats.records import Limits, Status
from transforms.formats.result_batches import result_batches

NOWHERE = Source(None, Limits())
CLASSES = ("angry", "happy", "sad")


def finished(folder: Path, record: dict[str, Any]) -> FinishedRun:
    return FinishedRun(str(folder), record, NOWHERE)


def compared(
    folder: Path, a: Sequence[MadeImage], b: Sequence[MadeImage], *, classes_b: Sequence[str] = CLASSES
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the numbers and the differences of two runs of these images."""
    runs = [
        finished(folder / name, write_images(folder / name, images, classes))
        for name, images, classes in (("a", a, CLASSES), ("b", b, classes_b))
    ]
    write_comparison(str(folder / "out"), *runs, min_iou=0.5, seed=0)
    rows = pq.read_table(folder / "out" / DIFFERENCES).to_pylist()
    return json.loads((folder / "out" / NUMBERS).read_text()), rows


def face(x: int, label: str | None = "happy", *, size: int = 100, sure: float = 0.75, score: float = 0.5) -> Any:
    return ((x, 20, size, size), label, sure, score)


# --- joining ----------------------------------------------------------------------------------------------------------

IDS = st.lists(st.text("ab/é\U0001f600", min_size=1, max_size=4), unique=True, max_size=40)


@settings(max_examples=40, deadline=None)
@given(ids_a=IDS, ids_b=IDS, batch=st.integers(1, 9))
def test_ids_are_joined_whatever_the_batches(
    ids_a: list[str], ids_b: list[str], batch: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("join")
    for name, ids in (("a", ids_a), ("b", ids_b)):
        write_images(folder / name, [MadeImage(one, [face(at)]) for at, one in enumerate(ids)], CLASSES)
    found = []
    for pair in paired_batches(str(folder / "a"), str(folder / "b"), batch=batch):
        assert pair.first == len(found)
        for one, row_a, row_b in zip(pair.ids().to_pylist(), pair.row_a.tolist(), pair.row_b.tolist(), strict=True):
            for ids, side, row in ((ids_a, pair.a, row_a), (ids_b, pair.b, row_b)):
                assert (row != ABSENT) == (one in ids)
                if row != ABSENT:
                    assert side.text("image_id")[row].as_py() == one
                    assert side.box[side.image == row].tolist() == [[ids.index(one), 20, 100, 100]]
            found.append(one)
    assert found == sorted({*ids_a, *ids_b}, key=str.encode)


def test_repeats_of_an_id_are_left_out(tmp_path: Path) -> None:
    images = [MadeImage("a", [face(0)]), MadeImage("a", status="duplicate", digest=None), MadeImage("b")]
    numbers, rows = compared(tmp_path, images, images)
    assert rows == [] and numbers["images"]["both"] == 2


# --- matching ---------------------------------------------------------------------------------------------------------

BOXES = st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2), max_size=6)


@settings(max_examples=150, deadline=None)
@given(images=st.lists(st.tuples(BOXES, BOXES), max_size=5), at_a_time=st.sampled_from([1, 7, 1 << 20]))
def test_faces_are_matched_as_one_image_at_a_time_would_be(images: list[tuple[Any, Any]], at_a_time: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_PAIRS_AT_A_TIME", at_a_time)
        sides = [[np.array(image[side], np.int64).reshape(-1, 4) for image in images] for side in (0, 1)]
        counts = [np.array([len(boxes) for boxes in side], np.int64) for side in sides]
        boxes = [np.concatenate([np.zeros((0, 4), np.int64), *side]) for side in sides]
        found = match_faces(boxes[0], counts[0], boxes[1], counts[1])
    sums = np.zeros(len(images))
    for at, (a, b) in enumerate(zip(*sides, strict=True)):
        overlap = iou(a, b)
        owner = best_matching(np.where(overlap >= SAME_FACE, overlap, 0))
        sums[at] = overlap[owner[owner != NONE], np.flatnonzero(owner != NONE)].sum()
    image_a, image_b = (np.repeat(np.arange(len(images)), count) for count in counts)
    assert (image_a[found.a] == image_b[found.b]).all()
    assert len(set(found.a.tolist())) == len(set(found.b.tolist())) == len(found.a)
    assert np.allclose(found.iou, iou_of_pairs(boxes[0][found.a], boxes[1][found.b]))
    assert np.allclose(np.bincount(image_a[found.a], found.iou, minlength=len(images)), sums)


# --- differences ------------------------------------------------------------------------------------------------------


def test_each_kind_of_difference_is_a_row(tmp_path: Path) -> None:
    a = [
        MadeImage("1 same", [face(10), face(200, "sad")]),
        MadeImage("2 only in a", [face(10)]),
        MadeImage("4 rejected in a", status="rejected", reason="truncated", digest=None),
        MadeImage("5 rejected in b", [face(10)]),
        MadeImage("6 rejected in both", status="rejected", reason="truncated"),
        MadeImage("7 changed", [face(10)], digest="01"),
        MadeImage("8 changed in size", [face(10)], digest="01"),
        MadeImage("9 faces", [face(10), face(200, "sad"), face(400, None)]),
    ]
    b = [
        MadeImage("1 same", [face(200, "sad", sure=0.5), face(12)]),
        MadeImage("3 only in b", [face(10)]),
        MadeImage("4 rejected in a", [face(10)]),
        MadeImage("5 rejected in b", status="rejected", reason="undecodable"),
        MadeImage("6 rejected in both", status="rejected", reason="undecodable"),
        MadeImage("7 changed", [face(10)], digest="02"),
        MadeImage("8 changed in size", [face(300)], digest="02", size=(100, 100)),
        MadeImage("9 faces", [face(60), face(200, "angry"), face(400, "happy"), face(500)]),
    ]
    numbers, rows = compared(tmp_path, a, b)
    assert [(row["image_id"], row["kind"], row["face_index_a"], row["face_index_b"]) for row in rows] == [
        ("2 only in a", "image_only_in_a", None, None),
        ("3 only in b", "image_only_in_b", None, None),
        ("4 rejected in a", "rejected_only_in_a", None, None),
        ("5 rejected in b", "rejected_only_in_b", None, None),
        ("7 changed", "content", None, None),
        ("8 changed in size", "content", None, None),
        ("9 faces", "face_only_in_b", None, 3),
        ("9 faces", "box", 0, 0),
        ("9 faces", "label", 1, 1),
        ("9 faces", "label", 2, 2),
    ]
    box, label, small = rows[-3:]
    assert (box["x_a"], box["x_b"], round(box["iou"], 3)) == (10, 60, 0.333)
    assert (label["label_a"], label["label_b"], label["iou"]) == ("sad", "angry", 1.0)
    assert (small["label_a"], small["confidence_a"], small["label_b"]) == (None, None, "happy")
    assert (rows[2]["status_a"], rows[2]["reason_a"], rows[2]["status_b"]) == ("rejected", "truncated", "labelled")
    assert rows[0]["status_b"] is None
    assert numbers["images"] == {"a": 8, "b": 8, "both": 7, "compared": 3, "with_differences": 7}
    found = {kind: count["rows"] for kind, count in numbers["differences"].items()}
    assert found == {kind: sum(row["kind"] == kind for row in rows) for kind in found}


def test_labels_are_compared_by_name(tmp_path: Path) -> None:
    images = [MadeImage("1", [face(10, "sad")]), MadeImage("2", [face(10, "happy")])]
    numbers, rows = compared(tmp_path, images, images, classes_b=("happy", "joy", "sad"))
    assert rows == []
    assert numbers["label_table"]["names"] == ["angry", "happy", "sad", "joy", "too small to label", "no such face"]
    assert numbers["faces"] == {"a": 2, "b": 2, "both": 2, "same_label": 2}


def test_a_table_of_labels_adds_up(tmp_path: Path) -> None:
    record = write_run(tmp_path / "a", 2_000)
    write_run(tmp_path / "b", 1_500)
    runs = [finished(tmp_path / name, record) for name in "ab"]
    numbers = write_comparison(str(tmp_path / "out"), *runs, min_iou=0.5, seed=0).numbers
    table = np.array(numbers["label_table"]["rows_a_columns_b"])
    both = np.array([[row[key] for key in ("same", "left", "came", "only_a", "only_b")] for row in numbers["labels"]])
    assert numbers["images"]["a"] == 2_000 and numbers["images"]["both"] == 1_500
    assert numbers["differences"]["image_only_in_a"]["rows"] == 500
    assert table[:-1, :-1].sum() == numbers["faces"]["both"]
    assert (both[:, [0, 1, 3]].sum(axis=1) == table[:-2].sum(axis=1)).all()
    assert (both[:, [0, 2, 4]].sum(axis=1) == table[:, :-2].sum(axis=0)).all()
    assert [row["faces_a"] for row in numbers["labels"]] == list(record["labels"].values())


def test_batches_of_any_size_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = write_run(tmp_path / "a", 3_000)
    write_run(tmp_path / "b", 2_000, faces=3)
    runs = [finished(tmp_path / name, record) for name in "ab"]

    def written(batch: int) -> tuple[Any, ...]:
        monkeypatch.setattr(
            "pipeline.report.two_runs.comparison_report.paired_batches",
            lambda a, b, **prefixes: paired_batches(a, b, batch=batch, **prefixes),
        )
        out = tmp_path / f"out {batch}"
        write_comparison(str(out), *runs, min_iou=0.5, seed=3)
        numbers = json.loads((out / NUMBERS).read_text())
        drift = numbers.pop("drift")
        return numbers, pq.read_table(out / DIFFERENCES), round(drift["mean_confidence"]["value"], 9)

    once = written(8_192)
    assert once[1].num_rows > 3_000
    assert written(701) == once


def test_runs_without_any_face_or_image_are_compared(tmp_path: Path) -> None:
    numbers, rows = compared(tmp_path, [MadeImage("1")], [])
    assert [row["kind"] for row in rows] == ["image_only_in_a"]
    assert numbers["drift"]["labels_total_variation"]["value"] is None
    assert pq.read_schema(tmp_path / "out" / DIFFERENCES).equals(SCHEMA)


# --- drift ------------------------------------------------------------------------------------------------------------


def images_with(labels: Sequence[str], *, score: float, size: int, prefix: str) -> list[MadeImage]:
    return [
        MadeImage(f"{prefix}{at:05d}", [face(10, label, size=size, score=score)]) for at, label in enumerate(labels)
    ]


def test_drift_is_seen_where_there_is_some_and_not_where_there_is_none(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    draw = [random.choice(CLASSES, 600, p=p).tolist() for p in ((0.2, 0.5, 0.3), (0.2, 0.5, 0.3), (0.5, 0.2, 0.3))]
    runs = [
        images_with(draw[0], score=0.5, size=100, prefix="a"),
        images_with(draw[1], score=0.5, size=100, prefix="b"),
        images_with(draw[2], score=0.75, size=200, prefix="b"),
    ]
    same = compared(tmp_path / "same", runs[0], runs[1])[0]["drift"]
    moved = compared(tmp_path / "moved", runs[0], runs[2])[0]["drift"]
    assert same["labels_total_variation"]["value"] < same["labels_total_variation"]["by_chance"]
    labels = moved["labels_total_variation"]
    assert labels["by_chance"] < labels["low"] < labels["value"] < labels["high"]
    assert labels["value"] == pytest.approx(0.3, abs=0.06)
    assert moved["mean_detection_score"] == {"a": 0.5, "b": 0.75, "value": 0.25, "low": 0.25, "high": 0.25}
    assert moved["face_side_ratio"]["value"] == pytest.approx(2.0)
    assert same["face_side_ratio"]["value"] == pytest.approx(1.0)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    from pipeline.report.two_runs.differences import Classes
    from pipeline.report.two_runs.drift import _LOOKED, _NO_FACE, Drift

    random, held = np.random.default_rng(1), 0
    for _ in range(200):
        drift = Drift(Classes.of(CLASSES, CLASSES), 0)
        for run, share in enumerate((0.3, 0.4)):
            groups = random.integers(0, 1024, 400)
            drift._sums[run, :, _LOOKED] = np.bincount(groups, minlength=1024)
            drift._sums[run, :, _NO_FACE] = np.bincount(groups[random.random(400) < share], minlength=1024)
        found = drift.result()["share_without_face"]
        held += found["low"] <= 0.1 <= found["high"]
    assert 180 <= held <= 199  # of 200, at 95 %


def contents_of(digests: np.ndarray, shift: float, seed: int) -> Contents:
    features = np.random.default_rng(seed).normal(size=(len(digests), 24)) + shift * np.eye(24)[3]
    blank = no_contents(24)
    count = len(digests)
    return Contents(
        digests, np.full(count, 9, np.int32), np.full(count, 9, np.int32), np.full(count, Status.LABELLED, object),
        np.full(count, "", object), np.arange(count, dtype=np.int32), np.zeros((count, 4), np.int32),
        np.zeros(count, np.float32), features.astype(np.float16), ("",) * count, blank.labels + (None,) * count,
    )  # fmt: skip


def drift_of_features(a: np.ndarray, b: np.ndarray, shift: float) -> dict[str, Any]:
    def lookup(seed: int, moved: float) -> Any:
        return lambda digests: (np.ones(len(digests), bool), contents_of(digests, moved, seed))

    return feature_drift(a, b, lookup(1, 0.0), lookup(1 if shift == 0 else 2, shift))


def digests_of(count: int, seed: int) -> np.ndarray:
    return np.unique(np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8), axis=0)


def test_features_that_moved_are_told_apart_and_others_are_not() -> None:
    a, b = digests_of(1_500, 1), digests_of(1_500, 2)
    moved, same = drift_of_features(a, b, 2.0), drift_of_features(a, b, 1e-9)
    assert moved["area"] > 0.9 and moved["low"] > 0.85
    assert same["low"] < 0.5 < same["high"]
    assert moved["images_a"] == 1_500 and moved["shared_images"] == 0


def test_the_same_contents_need_no_features() -> None:
    a = digests_of(100, 1)
    assert "same contents" in drift_of_features(a, a, 0.0)["why_not"]
    assert "too few cached faces" in drift_of_features(a[:30], a[20:], 0.0)["why_not"]


def test_two_runs_draw_the_same_of_what_both_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report.two_runs.feature_drift.IMAGES", 50)
    write_run(tmp_path, 300)
    drawn = []
    for batch in (17, 8_192):
        sample = DigestSample.empty()
        for some in result_batches(str(tmp_path), batch=batch):
            sample.add(some)
        drawn.append(sample.digests().tolist())
    assert drawn[0] == drawn[1] and len(drawn[0]) == 50


# --- the page ---------------------------------------------------------------------------------------------------------


def test_hostile_names_are_inert_and_the_page_is_small(tmp_path: Path) -> None:
    hostile = ['<script>alert("x")</script>', "a\u202eb\n", "&'\"" * 1_300]
    classes = (*CLASSES, "<b>'\"&")
    images = [MadeImage(name, [face(10, "<b>'\"&")]) for name in hostile]
    record = write_images(tmp_path / "a", images, classes)
    other = write_images(tmp_path / "b", [MadeImage("<img src=x>", [face(10)])], CLASSES)
    runs = [finished(tmp_path / "a", record), finished(tmp_path / "b", other)]
    write_comparison(str(tmp_path / "out"), *runs, min_iou=0.5, seed=0)
    page = (tmp_path / "out" / PAGE).read_text()
    assert "<script>alert" not in page and "<img" not in page and "<b>'" not in page and "\u202e" not in page
    assert page.count("<script>") == 1 and len(page) < 100_000
    assert "could not be read again" in page


def test_two_runs_give_the_same_bytes_each_time(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 500), write_run(tmp_path / "b", 400, faces=3)
    runs = [finished(tmp_path / "a", a), finished(tmp_path / "b", b)]
    outs = [tmp_path / name for name in ("one", "two")]
    for out in outs:
        write_comparison(str(out), *runs, min_iou=0.5, seed=0)
    for name in (PAGE, NUMBERS, DIFFERENCES):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
