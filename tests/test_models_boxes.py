"""Arithmetic on boxes: literals for the rules that are stated, properties for the rest."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.boxes import clip_to_image, iou, order_faces, rescale, square_with_margin

box = st.tuples(st.integers(-500, 500), st.integers(-500, 500), st.integers(0, 500), st.integers(0, 500))
boxes_ = st.lists(box, max_size=8).map(lambda rows: np.array(rows, dtype=np.int32).reshape(-1, 4))


@given(st.lists(st.tuples(box, st.sampled_from([0.1, 0.5, 0.9])), max_size=8), st.randoms(use_true_random=False))
def test_order_is_the_same_for_any_order_that_comes_in(faces, random):
    def ordered(rows):
        boxes = np.array([b for b, _ in rows], dtype=np.int32).reshape(-1, 4)
        scores = np.array([s for _, s in rows], dtype=np.float32)
        index = order_faces(boxes, scores)
        return boxes[index].tolist(), scores[index].tolist()

    shuffled = list(faces)
    random.shuffle(shuffled)
    assert ordered(faces) == ordered(shuffled)


@pytest.mark.parametrize(
    ("rows", "scores", "order"),
    [
        ([[0, 0, 9, 9], [5, 5, 9, 9]], [0.1, 0.2], [1, 0]),  # score, descending
        ([[0, 7, 9, 9], [9, 3, 9, 9]], [0.5, 0.5], [1, 0]),  # then y
        ([[8, 3, 9, 9], [2, 3, 9, 9]], [0.5, 0.5], [1, 0]),  # then x
        ([[2, 3, 9, 9], [2, 3, 8, 9]], [0.5, 0.5], [1, 0]),  # then width
        ([], [], []),
    ],
)
def test_order_is_by_score_then_y_then_x(rows, scores, order):
    assert order_faces(np.array(rows), np.array(scores)).tolist() == order


@pytest.mark.parametrize(
    ("given_box", "clipped"),
    [
        ([2, 3, 4, 5], [2, 3, 4, 5]),
        ([-2, -3, 10, 10], [0, 0, 8, 7]),
        ([15, 5, 10, 10], [15, 5, 5, 5]),
        ([-50, 5, 10, 2], [0, 5, 0, 2]),
        ([500, 5, 10, 2], [20, 5, 0, 2]),
    ],
)
def test_clip_keeps_the_part_inside(given_box, clipped):
    result = clip_to_image(np.array([given_box], dtype=np.int32), height=10, width=20)
    assert result.tolist() == [clipped]
    assert result.dtype == np.int32


@given(boxes_, st.integers(1, 300), st.integers(1, 300))
def test_clipped_boxes_lie_inside_and_clipping_again_changes_nothing(boxes, height, width):
    clipped = clip_to_image(boxes, height, width)
    assert (clipped >= 0).all()
    assert (clipped[:, 0] + clipped[:, 2] <= width).all()
    assert (clipped[:, 1] + clipped[:, 3] <= height).all()
    assert np.array_equal(clip_to_image(clipped, height, width), clipped)


@pytest.mark.parametrize(
    ("a", "b", "overlap"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 10, 10], 1 / 3),
        ([0, 0, 10, 10], [10, 0, 10, 10], 0.0),  # touching is not overlapping
        ([0, 0, 0, 10], [0, 0, 0, 10], 0.0),
    ],
)
def test_iou_of_pairs_worked_out_by_hand(a, b, overlap):
    assert iou(np.array([a]), np.array([b]))[0, 0] == pytest.approx(overlap)


@given(boxes_, boxes_)
def test_iou_is_symmetric_and_between_0_and_1(boxes, others):
    overlaps = iou(boxes, others)
    assert overlaps.shape == (len(boxes), len(others))
    assert np.array_equal(overlaps, iou(others, boxes).T)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()


@pytest.mark.parametrize(
    ("given_box", "margin", "square"),
    [
        ([10, 10, 20, 40], 0.0, [0, 10, 40, 40]),
        ([10, 10, 20, 40], 0.25, [-10, 0, 60, 60]),
        ([0, 0, 5, 4], 0.1, [0, -1, 6, 6]),  # 6 wide from -0.5 and -1: half goes up
        ([0, 0, 25, 1], 0.01, [0, -12, 26, 26]),  # 25.5 goes up, and so do -0.5 and -12.5
        ([3, 4, 0, 0], 0.0, [3, 4, 1, 1]),
        ([0, 0, 10, 10], -0.25, [3, 3, 5, 5]),
    ],
)
def test_squares_worked_out_by_hand(given_box, margin, square):
    assert square_with_margin(np.array([given_box]), margin).tolist() == [square]


@given(boxes_, st.floats(0, 2))
def test_squares_keep_the_centre_and_hold_the_box(boxes, margin):
    squares = square_with_margin(boxes, margin)
    assert squares.dtype == np.int32
    assert (squares[:, 2] == squares[:, 3]).all()
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    assert (np.abs(squares[:, :2] + squares[:, 2:] / 2 - centres) <= 0.5).all()
    assert (squares[:, 2] >= boxes[:, 2:].max(axis=1, initial=0)).all()


@pytest.mark.parametrize("margin", [-0.5, float("nan"), float("inf")])
def test_a_margin_that_leaves_nothing_is_refused(margin):
    with pytest.raises(ValueError, match="margin"):
        square_with_margin(np.zeros((1, 4)), margin)


@pytest.mark.parametrize(
    ("given_box", "factor", "scaled"),
    [
        ([1, 2, 3, 4], 2, [2, 4, 6, 8]),
        ([1, 2, 3, 4], (2, 0.5), [2, 1, 6, 2]),
        ([1, 1, 2, 2], 0.5, [1, 1, 1, 1]),  # edges 0.5 and 1.5 go up to 1 and 2
        ([1, 1, 1, 1], 0.1, [0, 0, 1, 1]),  # never without pixels
    ],
)
def test_rescale_rounds_edges_half_up(given_box, factor, scaled):
    result = rescale(np.array([given_box]), factor)
    assert result.tolist() == [scaled]
    assert result.dtype == np.int32


@given(st.integers(-300, 300), st.integers(1, 300), st.integers(1, 300), st.floats(1, 5))
def test_boxes_that_touch_still_touch_when_enlarged(x, first, second, factor):
    scaled = rescale(np.array([[x, 0, first, 1], [x + first, 0, second, 1]]), factor)
    assert scaled[0, 0] + scaled[0, 2] == scaled[1, 0]


def test_numpy_is_all_it_imports():
    code = (
        "import sys, models.boxes; print([m for m in ('cv2', 'keras', 'apache_beam', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
