"""Blocks to rows of parts: sorted, nested, nothing lost, contradictions refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.heads.output_spec import ClassOutput
from transforms.block import Block, Faces, PartInfo, Reason, Status
from transforms.formats.parts import PartMetadata, part_schema
from transforms.output_fields import part_fields
from transforms.part_rows import part_info_of, part_metadata, part_table

CLASSES = ("angry", "happy", "sad")
SPEC = ClassOutput(CLASSES)
REJECTING = ClassOutput(CLASSES, rejecting=True)


def block(ids: tuple[str, ...] = ("b.jpg", "a.jpg", "c.jpg"), **other: Any) -> Block:
    """Returns a block of three images with two, one and no faces."""
    plain = Block(
        key="k",
        position=100,
        ids=ids,
        sources=("in/" + ids[0], "in/" + ids[1], "in/" + ids[2]),
        labels=("happy", None, "holiday"),
        sizes=np.asarray([10, 20, 0]),
        digests=np.asarray([[1] * 32, [2] * 32, [0] * 32], np.uint8),
        data=(None,) * 3,
        same_as=np.arange(3, dtype=np.int32),
        cached=np.asarray([True, False, False]),
        width=np.asarray([640, 320, 0], np.int32),
        height=np.asarray([480, 240, 0], np.int32),
        status=(Status.LABELLED, Status.LABELLED, Status.REJECTED),
        reason=(None, None, Reason.EMPTY),
        faces=Faces(
            image=np.asarray([0, 0, 1], np.int32),
            box=np.asarray([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], np.int32),
            score=np.asarray([0.5, 0.25, 1.0], np.float32),
            answers=np.asarray([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.0, 0.000001, 0.999999]]),
        ),
    )
    return replace(plain, **other)


def face(box: list[int], score: float, index: int, p: list[float]) -> dict[str, Any]:
    x, y, width, height = box
    place = {"x": x, "y": y, "width": width, "height": height, "detection_score": score}
    return {**place, "labelled": True, "label_index": index, "confidence": p[index], "p": p}


def test_a_no_label_score_is_a_field_of_each_face() -> None:
    faces = replace(block().faces, answers=rejected([0.25, 0.5, 1.0]))
    table = part_table(block(faces=faces), spec=REJECTING)
    assert table.schema == part_schema(part_fields(REJECTING))
    found = {row["image_id"]: [f["no_label_score"] for f in row["faces"]] for row in table.to_pylist()}
    assert found == {"a.jpg": [1.0], "b.jpg": [0.25, 0.5], "c.jpg": []}
    plain, scored = (made["faces"].to_pylist() for made in (part_table(block(), spec=SPEC), table))
    assert plain == [[{k: v for k, v in face.items() if k != "no_label_score"} for face in faces] for faces in scored]


def rejected(scores: list[float]) -> np.ndarray:
    """Returns the answers of the block's faces with these reject scores."""
    return np.column_stack([np.asarray(block().faces.answers), scores])


@pytest.mark.parametrize("scores", [[0.1, 0.2, 1.1], [0.1, -0.1, 0], [0.1, np.nan, 0]])
def test_no_label_scores_that_do_not_fit_are_refused(scores: Any) -> None:
    faces = replace(block().faces, answers=rejected(scores))
    with pytest.raises(ValueError, match=r"are not finite rows of 4 numbers|must be numbers from 0 to 1"):
        part_table(block(faces=faces), spec=REJECTING)


def test_answers_without_the_no_label_score_and_with_an_unwanted_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\) are not finite rows of 4 numbers"):
        part_table(block(), spec=REJECTING)
    with pytest.raises(ValueError, match=r"\(3, 4\) are not finite rows of 3 numbers"):
        part_table(block(faces=replace(block().faces, answers=rejected([0, 0, 0]))), spec=SPEC)


def test_rows_of_a_block() -> None:
    table = part_table(block(), spec=SPEC)
    assert table.schema == part_schema(part_fields(SPEC))
    assert table.to_pylist() == [
        {
            "image_id": "a.jpg",
            "position": 101,
            "source": "in/a.jpg",
            "digest": b"\2" * 32,
            "bytes": 20,
            "width": 320,
            "height": 240,
            "status": "labelled",
            "stage": None,
            "reason": None,
            "true_label": None,
            "cached": False,
            "faces": [face([9, 10, 11, 12], 1.0, 2, [0.0, 0.000001, 0.999999])],
        },
        {
            "image_id": "b.jpg",
            "position": 100,
            "source": "in/b.jpg",
            "digest": b"\1" * 32,
            "bytes": 10,
            "width": 640,
            "height": 480,
            "status": "labelled",
            "stage": None,
            "reason": None,
            "true_label": "happy",
            "cached": True,
            "faces": [face([1, 2, 3, 4], 0.5, 1, [0.2, 0.5, 0.3]), face([5, 6, 7, 8], 0.25, 0, [0.4, 0.4, 0.2])],
        },
        {
            "image_id": "c.jpg",
            "position": 102,
            "source": "in/c.jpg",
            "digest": None,
            "bytes": 0,
            "width": 0,
            "height": 0,
            "status": "rejected",
            "stage": "decode",
            "reason": "empty",
            "true_label": "holiday",
            "cached": False,
            "faces": [],
        },
    ]


def test_a_face_that_is_not_labelled_is_marked() -> None:
    faces = replace(block().faces, labelled=np.asarray([False, True, True]))
    found = part_table(block(faces=faces), spec=SPEC).to_pylist()
    assert [[face["labelled"] for face in row["faces"]] for row in found] == [[True], [False, True], []]
    assert [row["status"] for row in found] == ["labelled", "labelled", "rejected"]


def test_an_image_whose_faces_are_all_too_small_says_so() -> None:
    small = block(
        status=(Status.LABELLED, Status.NO_FACE, Status.REJECTED),
        reason=(None, Reason.TOO_SMALL_TO_LABEL, Reason.EMPTY),
        faces=replace(block().faces, labelled=np.asarray([True, True, False])),
    )
    row = part_table(small, spec=SPEC).to_pylist()[0]
    assert (row["image_id"], row["status"], row["stage"], row["reason"]) == (
        *("a.jpg", "no_face", "label", "too_small_to_label"),
    )
    assert len(row["faces"]) == 1


def test_labels_that_are_no_classes_are_no_true_labels() -> None:
    table = part_table(block(), spec=SPEC, known_labels=CLASSES)
    assert table["true_label"].to_pylist() == [None, "happy", None]


def test_order_is_that_of_utf8_bytes_then_position() -> None:
    # UTF-16, and so many a language's own order, puts the second before the first.
    table = part_table(block(("\U0001f600", "\uffee", "\uffee")), spec=SPEC)
    assert table["image_id"].to_pylist() == ["\uffee", "\uffee", "\U0001f600"]
    assert table["position"].to_pylist() == [101, 102, 100]


def test_faces_given_out_of_order_stay_with_their_image() -> None:
    faces = block().faces
    turned = Faces(
        image=faces.image[[2, 0, 1]],
        box=faces.box[[2, 0, 1]],
        score=faces.score[[2, 0, 1]],
        answers=np.asarray(faces.answers)[[2, 0, 1]],
    )
    assert part_table(block(faces=turned), spec=SPEC).equals(part_table(block(), spec=SPEC))


def test_a_file_name_of_stray_bytes_is_stored() -> None:
    table = part_table(block(("b\udcff", "a", "c")), spec=SPEC)
    assert table["image_id"].to_pylist() == ["a", "b\\udcff", "c"]
    assert table["source"].to_pylist() == ["in/a", "in/b\\udcff", "in/c"]


def test_what_travels_on_and_what_the_footer_says() -> None:
    info = part_info_of(part_table(block(), spec=SPEC), "k.parquet", reused=True)
    assert info == PartInfo("k.parquet", "a.jpg", "c.jpg", images=3, faces=3, cached=1, reused=True)
    assert part_metadata(info, block_key="k", run_fingerprint="f") == PartMetadata("k", "f", "a.jpg", "c.jpg", 3, 3, 1)


def test_a_block_without_faces() -> None:
    nothing = block(
        status=(Status.NO_FACE,) * 3,
        reason=(None,) * 3,
        faces=Faces(np.zeros(0, np.int32), np.zeros((0, 4), np.int32), np.zeros(0, np.float32)),
    )
    table = part_table(nothing, spec=SPEC)
    assert table["faces"].to_pylist() == [[], [], []]
    assert part_info_of(table, "x").faces == 0


def test_a_block_without_images() -> None:
    empty = Block(
        key="k",
        position=0,
        ids=(),
        sources=(),
        labels=(),
        sizes=np.zeros(0, np.int64),
        digests=np.zeros((0, 32), np.uint8),
        data=(),
        same_as=np.zeros(0, np.int32),
        cached=np.zeros(0, bool),
        width=np.zeros(0, np.int32),
        height=np.zeros(0, np.int32),
        status=(),
        reason=(),
    )
    table = part_table(empty, spec=SPEC)
    assert part_info_of(table, "x") == PartInfo("x", "", "", images=0, faces=0, cached=0, reused=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": (Status.LABELLED, None, Status.REJECTED)},
        {"status": (Status.LABELLED, Status.NO_FACE, Status.REJECTED)},
        {"status": (Status.LABELLED, Status.LABELLED, Status.LABELLED), "reason": (None, None, None)},
        {"reason": (None, None, None)},
        {"reason": (Reason.EMPTY, None, Reason.EMPTY)},
        {"reason": (Reason.TOO_SMALL_TO_LABEL, None, Reason.EMPTY)},
        {"reason": (None, None, Reason.TOO_SMALL_TO_LABEL)},
        {"faces": replace(block().faces, labelled=np.asarray([False, False, True]))},
        {
            "status": (Status.NO_FACE, Status.LABELLED, Status.REJECTED),
            "reason": (Reason.TOO_SMALL_TO_LABEL, None, Reason.EMPTY),
            "faces": replace(block().faces, labelled=np.asarray([False, True, True])),
        },
        {
            "status": (Status.NO_FACE, Status.LABELLED, Status.REJECTED),
            "faces": replace(block().faces, labelled=np.asarray([False, False, True])),
        },
    ],
)
def test_outcomes_that_contradict_the_faces_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"image '.\.jpg' of block k"):
        part_table(block(**wrong), spec=SPEC)


def test_probabilities_that_are_missing_or_wrong_are_refused() -> None:
    faces = block().faces
    with pytest.raises(ValueError, match="no answers"):
        part_table(block(faces=replace(faces, answers=None)), spec=SPEC)
    with pytest.raises(ValueError, match="rows of 2 numbers"):
        part_table(block(), spec=ClassOutput(CLASSES[:2]))
    with pytest.raises(ValueError, match="2 rows of answers are not one for each of 3 faces"):
        part_table(block(faces=replace(faces, answers=np.zeros((2, 3)))), spec=SPEC)
    with pytest.raises(ValueError, match="finite"):
        part_table(block(faces=replace(faces, answers=np.full((3, 3), np.nan))), spec=SPEC)
