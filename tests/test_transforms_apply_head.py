"""The head's stage: probabilities for every face, a label for those that are large enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from blocks import finished
from hypothesis import given
from hypothesis import strategies as st

from models.heads.linear import LinearHead
from transforms.block import Block, Faces, Reason, Status, no_faces
from transforms.label_faces import apply_head, leave_small_unlabelled
from transforms.part_rows import part_table

CLASSES = ("happy", "sad")
HEAD = LinearHead(
    classes=CLASSES,
    coef=np.ones((2, 3), np.float32),
    intercept=np.zeros(2),
    mean=np.zeros(3),
    scale=np.ones(3),
)


def block(*sides: list[tuple[int, int]] | None) -> Block:
    """Returns a block with faces of these widths and heights in each image, `None` for a rejected image."""
    rows = [row for row, faces in enumerate(sides) for _ in faces or ()]
    box = [[7, 7, *face] for faces in sides for face in faces or ()]
    count = len(rows)
    found = Faces(
        image=np.asarray(rows, np.int32),
        box=np.asarray(box, np.int32).reshape(-1, 4),
        score=np.ones(count, np.float32),
        features=np.zeros((count, 3), np.float16),
    )
    status = [Status.REJECTED if s is None else Status.LABELLED if s else Status.NO_FACE for s in sides]
    reason = [Reason.EMPTY if s is None else None for s in sides]
    plain = finished([None] * len(sides))
    return replace(plain, status=tuple(status), reason=tuple(reason), faces=found if count else no_faces())


def outcome(given: Block, px: int) -> tuple[list[Status | None], list[Reason | None], list[bool]]:
    labelled = leave_small_unlabelled(apply_head(given, HEAD), px)
    assert labelled.faces.labelled is not None
    return list(labelled.status), list(labelled.reason), labelled.faces.labelled.tolist()


def test_the_longer_side_decides_and_an_image_of_small_faces_alone_counts_as_one_without() -> None:
    photos = block([(15, 16), (15, 15)], [(15, 15), (3, 4)], [], None, [(16, 2)])
    status, reason, labelled = outcome(photos, 16)
    assert labelled == [True, False, False, False, True]
    assert status == [Status.LABELLED, Status.NO_FACE, Status.NO_FACE, Status.REJECTED, Status.LABELLED]
    assert reason == [None, Reason.TOO_SMALL_TO_LABEL, None, Reason.EMPTY, None]


def test_zero_labels_all() -> None:
    photos = block([(0, 0)], [(1, 1)])
    assert outcome(photos, 0) == ([Status.LABELLED] * 2, [None] * 2, [True] * 2)


@pytest.mark.parametrize("sides", [[], [[]], [None, []]])
def test_blocks_without_faces(sides: list[list[tuple[int, int]] | None]) -> None:
    photos = block(*sides)
    assert outcome(photos, 16) == (list(photos.status), list(photos.reason), [])


FACES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=4)


@given(st.lists(st.none() | FACES, max_size=6), st.integers(0, 31))
def test_any_block_is_accounted_for(sides: list[list[tuple[int, int]] | None], px: int) -> None:
    labelled = leave_small_unlabelled(apply_head(block(*sides), HEAD), px)
    rows = part_table(labelled, spec=HEAD.output).to_pylist()  # refuses outcomes that contradict the faces
    for row, faces in zip(rows, sides, strict=True):
        reported = [max(face) >= px for face in faces or ()]
        assert [face["labelled"] for face in row["faces"]] == reported
        assert (row["status"] == "labelled") == any(reported)
        assert (row["reason"] == "too_small_to_label") == (bool(reported) and not any(reported))
