"""Faces too small to tell: they keep their boxes, get no label, decide nothing, and are counted."""

from __future__ import annotations

import cv2
import numpy as np
import pictures
import pytest
import runs

FOUND = ("faces.detector=haar", "write.no_face_label=neutral", "write.label_values=name")
PX = 60  # Haar finds the portrait's face larger than that, and in the portrait at half its size smaller
MADE_OF = ("label", "label_index", "confidence", "p_happy", "p_neutral", "p_sad")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("bench")
    bench = runs.Bench(place, runs.make_head(place / "head"))
    face = pictures.portrait()
    height, width = face.shape[:2]
    half = cv2.resize(face, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    framed = cv2.copyMakeBorder(half, 0, height - height // 2, 0, 0, cv2.BORDER_REPLICATE)
    files = {
        "large.png": pictures.png(face),
        "mixed.png": pictures.png(np.hstack([face, framed])),
        "none.png": pictures.png(pictures.quarters(200, 300)),
        "small.png": pictures.png(half),
    }
    pictures.write_folder(place / "photos", files)
    return bench


def label(bench: runs.Bench, output: str, px: int, *more: str) -> runs.Ended:
    cache = ("--cache", str(bench.path / "cache"))
    return bench.label(bench.path / "photos", output, *FOUND, f"faces.min_label_px={px}", *cache, *more)


@pytest.fixture(scope="module")
def every_face(bench: runs.Bench) -> runs.Ended:
    return label(bench, "every_face", 0).done()


@pytest.fixture(scope="module")
def large_faces(bench: runs.Bench, every_face: runs.Ended) -> runs.Ended:
    return label(bench, "large_faces", PX).done()


def small_rows(ended: runs.Ended) -> list[dict]:
    return [row for row in runs.predictions(ended.output) if max(row["width"], row["height"]) < PX]


def test_small_faces_keep_their_boxes_and_get_no_label(every_face: runs.Ended, large_faces: runs.Ended) -> None:
    small = small_rows(large_faces)
    assert {row["image_id"] for row in small} == {"mixed.png", "small.png"}
    before = runs.predictions(every_face.output)
    assert all(row["label"] for row in before)
    blank = [{**row, **(dict.fromkeys(MADE_OF) if row in small_rows(every_face) else {})} for row in before]
    assert runs.predictions(large_faces.output) == blank


def test_every_image_is_accounted_for(every_face: runs.Ended, large_faces: runs.Ended) -> None:
    before, after = runs.images(every_face.output), runs.images(large_faces.output)
    assert {name: row["status"] for name, row in after.items()} == {
        "large.png": "labelled",
        "mixed.png": "labelled",
        "none.png": "no_face",
        "small.png": "no_face",
    }
    small = after["small.png"]
    assert (small["stage"], small["reason"]) == ("label", "too_small_to_label")
    assert small["faces"] == small["unlabelled_faces"] == before["small.png"]["faces"] > 0
    assert after["mixed.png"]["unlabelled_faces"] > 0
    assert [before[name]["faces"] for name in before] == [after[name]["faces"] for name in after]
    assert {row["unlabelled_faces"] for row in before.values()} == {0}
    counts = large_faces.record["counts"]
    assert counts["images"] == 4 == counts["labelled"] + counts["no_face"] + counts["rejected"] + counts["duplicate"]
    assert counts["faces"] == len(runs.predictions(large_faces.output)) == every_face.record["counts"]["faces"]
    assert counts["unlabelled_faces"] == len(small_rows(large_faces))
    assert sum(large_faces.record["labels"].values()) == counts["faces"] - counts["unlabelled_faces"]
    assert large_faces.record["reasons"] == {"too_small_to_label": 1}


def test_the_closing_words_and_the_submission_tell(every_face: runs.Ended, large_faces: runs.Ended) -> None:
    count = len(small_rows(large_faces))
    reported = (
        "1 face is smaller than 60 px and has" if count == 1 else f"{count} faces are smaller than 60 px and have"
    )
    assert f"{reported} no label\n" in large_faces.out
    assert "smaller than" not in every_face.out
    labels = dict(line.split(",") for line in runs.submission(large_faces.output)[1:])
    assert labels["small.png"] == labels["none.png"] == "neutral"
    largest = max(
        (row for row in runs.predictions(large_faces.output) if row["image_id"] == "mixed.png"),
        key=lambda row: row["width"] * row["height"],
    )
    assert labels["mixed.png"] == largest["label"]


def test_features_are_those_of_before_and_labels_another_run(bench: runs.Bench, large_faces: runs.Ended) -> None:
    assert large_faces.record["cache"] == {"cached": 4, "computed": 0, "damaged": 0}
    refused = label(bench, "large_faces", 0)
    assert refused.status == 2
    assert "faces.min_label_px: 60 there, 0 here" in refused.line


def test_without_a_detector_every_image_is_labelled(bench: runs.Bench) -> None:
    ended = label(bench, "whole", 4096, "faces.detector=none").done()
    assert ended.record["counts"]["labelled"] == 4
    assert ended.record["counts"]["unlabelled_faces"] == 0
