"""The cascade's arithmetic: pyramid, calibration, overlap filter. Literals for the rules, properties for the rest."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.boxes import iou
from models.detectors.cascade.calibration import CLASSES, PATTERNS, calibrated, displaced, mean_pattern
from models.detectors.cascade.overlaps import filtered, overlap
from models.detectors.cascade.pyramid import MARGIN, WINDOW, padding, pyramid, squares_at

sides = st.integers(1, 2000)
square = st.tuples(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32), st.floats(1, 60, width=32))
squares_ = st.lists(square, max_size=12).map(lambda rows: np.array(rows, np.float32).reshape(-1, 3))


def boxes_of(squares: np.ndarray) -> np.ndarray:
    return squares[:, (0, 1, 2, 2)]


# --- pyramid ------------------------------------------------------------------------------------------------------


@given(sides, sides, st.floats(12, 100), st.floats(1.1, 2))
def test_the_pyramid_goes_from_the_smallest_face_to_the_shorter_side(height, width, smallest, step):
    levels = pyramid(height, width, smallest, step)
    assert levels[0].side == smallest
    assert all(level.side < max(smallest + 1e-6, min(height, width)) for level in levels)
    assert levels[-1].side * step >= min(height, width)  # nothing is left out at the upper end
    ratios = [after.side / before.side for before, after in pairwise(levels)]
    assert ratios == pytest.approx([step] * len(ratios))


@given(sides, sides, st.floats(12, 100))
def test_a_level_is_the_image_reduced_until_a_window_has_twelve_pixels(height, width, smallest):
    level = pyramid(height, width, smallest, 1.3)[0]
    assert level.height == max(1, round(height * WINDOW / smallest))
    assert level.height * level.y_scale == pytest.approx(height)
    assert level.width * level.x_scale == pytest.approx(width)


@given(st.integers(1, 500), st.sampled_from([2, 4, 8]))
def test_padding_lets_whole_windows_reach_the_margin(pixels, stride):
    before, behind = padding(pixels, stride)
    whole = before + pixels + behind
    assert before == MARGIN
    assert whole >= WINDOW and (whole - WINDOW) % stride == 0  # the last window ends where the padded row ends
    assert behind >= MARGIN
    assert behind < MARGIN + max(stride, WINDOW)


def test_windows_of_a_score_map_lie_where_the_network_looked():
    level = pyramid(120, 240, 24, 1.5)[0]  # reduced by two
    squares = squares_at(level, np.array([0, 3]), np.array([0, 5]), stride=4)
    assert squares.tolist() == [[-8, -8, 24], [(20 - 4) * 2, (12 - 4) * 2, 24]]


# --- calibration --------------------------------------------------------------------------------------------------


def test_there_are_45_patterns_and_one_of_them_moves_nothing():
    assert len(PATTERNS) == CLASSES == 45
    assert len({tuple(row) for row in PATTERNS.tolist()}) == 45
    assert PATTERNS[22].tolist() == [1, 0, 0]


@given(squares_, st.integers(0, 44))
def test_calibration_undoes_what_a_pattern_did(squares, number):
    patterns = np.repeat(PATTERNS[number : number + 1], len(squares), axis=0)
    assert np.allclose(calibrated(displaced(squares, patterns), patterns), squares, atol=1e-3)


def test_a_window_is_put_right_as_worked_out_by_hand():
    # A face at (100, 100) of 50 pixels; the window is 1.21 times as large, its centre 0.17 faces to the right.
    window = displaced(np.array([[100, 100, 50]], np.float32), np.array([[1.21, 0.17, 0]], np.float32))
    assert window == pytest.approx(np.array([[125 + 8.5 - 30.25, 125 - 30.25, 60.5]]))
    assert calibrated(window, np.array([[1.0, 0, 0]], np.float32)) == pytest.approx(window)


def example() -> np.ndarray:
    """Returns probabilities of five patterns, two of which are under 1/45 and drop out."""
    probabilities = np.zeros((1, CLASSES), np.float32)
    for (scale, x, y), share in (
        ((1.21, 0.17, 0.0), 0.5),
        ((1.0, 0.17, 0.0), 0.3),
        ((1.0, 0.0, -0.17), 0.16),
        ((0.83, -0.17, 0.17), 0.02),
        ((0.83, -0.17, -0.17), 0.02),
    ):
        number = np.flatnonzero(np.isclose(PATTERNS, (scale, x, y)).all(axis=1))[0]
        probabilities[0, number] = share
    return probabilities


def test_the_sum_of_the_text_as_worked_out_by_hand():
    found = mean_pattern(example(), "sum")
    assert found == pytest.approx(np.array([[1 + 0.5 * 0.21, 0.8 * 0.17, -0.16 * 0.17]]), abs=1e-6)


def test_the_division_of_the_code_as_worked_out_by_hand():
    found = mean_pattern(example(), "share")
    assert found == pytest.approx(
        np.array([[1 + 0.5 * 0.21, 0.8 * 0.17, -0.16 * 0.17]]) / 0.96 + [[1 - 1 / 0.96, 0, 0]]
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from(["sum", "share"]))
def test_averages_stay_within_the_patterns_and_know_no_company(seed, averaging):
    probabilities = np.random.default_rng(seed).dirichlet(np.full(CLASSES, 0.1), 7).astype(np.float32)
    found = mean_pattern(probabilities, averaging)
    assert (found <= PATTERNS.max(axis=0) + 1e-5).all() and (found >= PATTERNS.min(axis=0) - 1e-5).all()
    assert np.array_equal(found[3], mean_pattern(probabilities[3:4], averaging)[0])


def test_where_nothing_is_sure_nothing_moves():
    even = np.full((1, CLASSES), 1 / 46, np.float32)  # all under 1/45
    assert mean_pattern(even, "share").tolist() == mean_pattern(even, "sum").tolist() == [[1, 0, 0]]


# --- overlaps -----------------------------------------------------------------------------------------------------


@given(squares_, squares_)
def test_overlap_is_that_of_boxes(squares, others):
    assert np.allclose(overlap(squares, others), iou(boxes_of(squares), boxes_of(others)), atol=1e-4)


@given(squares_, st.randoms(use_true_random=False), st.floats(0.05, 0.95))
def test_what_stays_is_apart_and_what_goes_overlaps_a_better_one(squares, random, limit):
    scores = np.array([random.choice([0.2, 0.5, 0.9]) for _ in squares], np.float32)
    stay = filtered(squares, scores, limit)
    between = overlap(squares, squares)
    for number in range(len(squares)):
        others = [index for index in stay if index != number]
        if number in stay:
            assert all(between[number, index] <= limit for index in others)
        else:
            assert any(between[number, index] > limit and scores[index] >= scores[number] for index in others)
    order = list(range(len(squares)))
    random.shuffle(order)
    again = filtered(squares[order], scores[order], limit)
    assert squares[order][again].tolist() == squares[stay].tolist()


def test_windows_of_other_groups_are_left_alone():
    squares = np.array([[0, 0, 10], [1, 0, 10], [0, 1, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert filtered(squares, scores, 0.3).tolist() == [0]
    assert filtered(squares, scores, 0.3, np.array([0, 1, 1])).tolist() == [0, 1]
    assert filtered(squares, scores, 1.0).tolist() == [0, 1, 2]


def test_the_arithmetic_knows_neither_opencv_nor_networks():
    program = (
        "import sys, models.detectors.cascade.pyramid, models.detectors.cascade.calibration\n"
        "import models.detectors.cascade.overlaps, models.detectors.cascade.batching\n"
        "print(sorted({'cv2', 'keras', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
