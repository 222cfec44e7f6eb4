"""Matching, areas, curves and maps: literal tables, properties, and every small case against all ways to pair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.boxes import iou
from models.evaluation.box_map import BoxMap, fitted_map
from models.evaluation.detection import (
    Outcome,
    Photo,
    fit_map,
    judge,
    mapped,
    recall_at,
    recall_by_size,
)
from models.evaluation.matching import NONE, best_matching, grow_matching
from models.evaluation.regions import coverage

# --- matching ---------------------------------------------------------------------------------------------------------

overlaps = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=4).flatmap(
    lambda shape: hnp.arrays(
        np.float64, shape, elements=st.sampled_from([0.0, 0.0, 0.1, 0.3, 0.5, 0.55, 0.6, 0.9, 1.0])
    )
)


def largest_sum(overlap: np.ndarray) -> float:
    """All ways to pair rows with columns, tried."""
    rows, columns = overlap.shape
    best = 0.0
    for count in range(1, min(rows, columns) + 1):
        for chosen in itertools.combinations(range(rows), count):
            for places in itertools.permutations(range(columns), count):
                best = max(best, float(overlap[list(chosen), list(places)].sum()))
    return best


@given(overlaps)
def test_the_matching_of_every_prefix_is_the_best_there_is(overlap: np.ndarray) -> None:
    for last, owner in enumerate(grow_matching(overlap)):
        columns = np.flatnonzero(owner != NONE)
        assert len(set(owner[columns].tolist())) == len(columns)
        assert owner.max(initial=NONE) <= last
        assert (overlap[owner[columns], columns] > 0).all()
        assert overlap[owner[columns], columns].sum() == pytest.approx(largest_sum(overlap[: last + 1]))


@pytest.mark.parametrize(
    ("overlap", "owner"),
    [
        ([[0.6, 0.5]], [0, NONE]),
        ([[0.6, 0.5], [0.55, 0.0]], [1, 0]),  # from the surest on, the second box would find nothing
        ([[0.6], [0.7]], [1]),
        ([[0.0], [0.0]], [NONE]),
        ([[0.9, 0.8, 0.0], [0.8, 0.1, 0.0]], [1, 0, NONE]),
    ],
)
def test_the_sum_decides(overlap: list[list[float]], owner: list[int]) -> None:
    assert best_matching(np.array(overlap)).tolist() == owner


def test_nothing_known_and_nothing_found() -> None:
    assert best_matching(np.zeros((0, 3))).tolist() == [NONE] * 3
    assert [owner.tolist() for owner in grow_matching(np.zeros((2, 0)))] == [[], []]


# --- areas ------------------------------------------------------------------------------------------------------------


def counted(box: np.ndarray, ellipse: np.ndarray, cells: int = 800) -> float:
    """Intersection over union by counting cells."""
    reach = max(ellipse[0], ellipse[1])
    low = np.minimum(box[:2], ellipse[3:] - reach)
    high = np.maximum(box[:2] + box[2:], ellipse[3:] + reach)
    x = low[0] + (np.arange(cells) + 0.5) * (high[0] - low[0]) / cells
    y = low[1] + (np.arange(cells)[:, None] + 0.5) * (high[1] - low[1]) / cells
    cos, sin = np.cos(ellipse[2]), np.sin(ellipse[2])
    along = ((x - ellipse[3]) * cos + (y - ellipse[4]) * sin) / ellipse[0]
    across = ((y - ellipse[4]) * cos - (x - ellipse[3]) * sin) / ellipse[1]
    of_ellipse = along**2 + across**2 <= 1
    of_box = (x >= box[0]) & (x <= box[0] + box[2]) & (y >= box[1]) & (y <= box[1] + box[3])
    return float((of_ellipse & of_box).sum() / (of_ellipse | of_box).sum())


@pytest.mark.parametrize("seed", range(12))
def test_an_ellipse_and_a_box_share_what_counting_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ellipse = np.array([*rng.uniform(10, 60, 2), rng.uniform(-2, 2), *rng.uniform(40, 80, 2)])
    box = np.array([*rng.uniform(0, 60, 2), *rng.uniform(10, 90, 2)])
    found = coverage(box[None], np.zeros((1, 4)), ellipse[None])[0, 0]
    assert found == pytest.approx(counted(box, ellipse), abs=0.005)


@pytest.mark.parametrize(
    ("box", "ellipse", "expected"),
    [
        ((-1, -1, 2, 2), (1, 1, 0, 0, 0), np.pi / 4),  # a disc in its box
        ((-9, -9, 18, 18), (1, 1, 0.3, 0, 0), np.pi / 18**2),
        ((-0.1, -0.1, 0.2, 0.2), (5, 3, 0.3, 0, 0), 0.04 / (15 * np.pi)),  # inside
        ((0, -4, 4, 8), (2, 1, 0, 0, 0), np.pi / (32 + np.pi)),  # the right half of it
        ((0, -4, 4, 8), (2, 1, np.pi / 2, 0, 0), np.pi / (32 + np.pi)),
        ((10, 10, 5, 5), (2, 1, 0.7, 0, 0), 0),
        ((0, 0, 0, 5), (2, 1, 0.7, 0, 0), 0),  # no box at all
    ],
)
def test_areas_that_are_known(box: tuple[float, ...], ellipse: tuple[float, ...], expected: float) -> None:
    found = coverage(np.array([box], float), np.zeros((1, 4)), np.array([ellipse], float))
    assert found[0, 0] == pytest.approx(expected, abs=1e-12)


def test_the_angle_turns_from_x_to_y_which_points_down() -> None:
    falling = np.array([[10.0, 1.0, np.pi / 4, 0.0, 0.0]])
    boxes = np.array([[3.0, 3.0, 4.0, 4.0], [3.0, -7.0, 4.0, 4.0]])
    below, above = coverage(boxes, np.zeros((1, 4)), falling)[:, 0]
    assert below > 0.1
    assert above == pytest.approx(0, abs=1e-12)


def test_boxes_and_ellipses_stand_side_by_side() -> None:
    known = np.array([[0.0, 0.0, 4.0, 4.0], [10.0, 10.0, 2.0, 2.0]])
    ellipses = np.array([[np.nan] * 5, [1, 1, 0, 11, 11]])
    assert coverage(known, known, ellipses).tolist() == [[1, 0], [0, pytest.approx(np.pi / 4)]]
    assert (coverage(known, known) == iou(known, known)).all()
    assert coverage(np.zeros((0, 4)), known, ellipses).shape == (0, 2)


# --- what became of boxes and faces -----------------------------------------------------------------------------------


def photo(known: list, found: list, scores: list, ignored: list | None = None) -> Photo:
    return Photo(
        np.array(known, float).reshape(-1, 4),
        None,
        np.array(ignored if ignored is not None else [False] * len(known), bool),
        np.array(found, float).reshape(-1, 4),
        np.array(scores, float),
    )


FACE, OTHER, NOWHERE = [0, 0, 10, 10], [50, 0, 10, 10], [90, 90, 5, 5]


@pytest.mark.parametrize(
    ("known", "ignored", "found", "outcomes", "recall"),
    [
        ([FACE], [False], [FACE], [Outcome.HIT], 1),
        ([FACE], [False], [NOWHERE], [Outcome.FALSE_ALARM], 0),
        ([FACE], [False], [FACE, FACE], [Outcome.HIT, Outcome.FALSE_ALARM], 1),  # the second finds nothing new
        ([FACE], [True], [FACE], [Outcome.IGNORED], None),
        ([FACE], [True], [FACE, FACE], [Outcome.IGNORED, Outcome.IGNORED], None),
        ([FACE, OTHER], [False, True], [OTHER, FACE, NOWHERE], [2, 1, 0], 1),
        ([FACE, [1, 0, 10, 10]], [False, True], [[1, 0, 10, 10]], [Outcome.HIT], 1),  # the face that counts comes first
        ([FACE], [False], [[0, 0, 10, 5]], [Outcome.FALSE_ALARM], 0),  # half is not more than half
        ([], [], [FACE], [Outcome.FALSE_ALARM], None),
        ([FACE], [False], [], [], 0),
    ],
)
def test_what_became_of_boxes(known: list, ignored: list, found: list, outcomes: list, recall: float | None) -> None:
    scores = [1 - i / 10 for i in range(len(found))]
    judged = judge([photo(known, found, scores, ignored)])
    assert judged.outcome.tolist() == outcomes
    assert judged.recall == recall


def test_a_box_below_the_threshold_counts_in_the_curve_only() -> None:
    one = photo([FACE, OTHER], [FACE, OTHER, NOWHERE], [0.9, 0.4, 0.3])
    judged = judge([one], least_score=0.5)
    assert judged.recall == 0.5
    assert judged.outcome.tolist() == [Outcome.HIT]
    assert judged.finder.tolist() == [0, NONE]
    assert judged.curve.hits.tolist() == [1, 2, 2]
    assert judged.curve.false_alarms.tolist() == [0, 0, 1]


def test_rows_of_several_images_are_told_apart() -> None:
    judged = judge(
        [
            photo([FACE], [], []),
            photo([OTHER, FACE], [NOWHERE, FACE], [0.2, 0.8]),
            photo([], [NOWHERE], [0.5]),
        ]
    )
    assert judged.box_image.tolist() == [1, 1, 2]
    assert judged.box_row.tolist() == [1, 0, 0]
    assert judged.score.tolist() == [0.8, 0.2, 0.5]
    assert judged.outcome.tolist() == [Outcome.HIT, Outcome.FALSE_ALARM, Outcome.FALSE_ALARM]
    assert judged.box_face.tolist() == [2, NONE, NONE]
    assert judged.face_image.tolist() == [0, 1, 1]
    assert judged.face_row.tolist() == [0, 0, 1]
    assert judged.finder.tolist() == [NONE, NONE, 0]
    assert judged.false_alarms_an_image == pytest.approx(2 / 3)
    assert judged.mean_overlap == 1


# --- curves -----------------------------------------------------------------------------------------------------------


def test_the_curves_of_a_small_set() -> None:
    """Two images, three faces; scores from the highest down: hit, false alarm, hit (.6), false alarm."""
    first = photo([FACE], [FACE, NOWHERE], [0.9, 0.1])
    second = photo([FACE, OTHER], [NOWHERE, [50, 0, 10, 6]], [0.8, 0.7])
    curve = judge([first, second]).curve
    assert (curve.faces, curve.images) == (3, 2)
    assert curve.score.tolist() == [0.9, 0.8, 0.7, 0.1]
    assert curve.discrete().tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.continuous().tolist() == pytest.approx([1 / 3, 1 / 3, 1.6 / 3, 1.6 / 3])
    assert curve.false_alarms.tolist() == [0, 1, 1, 2]


def test_equal_scores_are_one_point() -> None:
    curve = judge([photo([FACE], [FACE], [0.5]), photo([], [NOWHERE], [0.5])]).curve
    assert curve.score.tolist() == [0.5]
    assert (curve.hits.tolist(), curve.false_alarms.tolist()) == ([1], [1])


@pytest.mark.parametrize(
    ("allowed", "recall", "false_alarms", "score", "at_end"),
    [
        (0, 1 / 3, 0.0, 0.9, False),
        (0.5, 2 / 3, 0.5, 0.7, False),
        (1, 2 / 3, 0.5, 0.7, True),
        (9, 2 / 3, 0.5, 0.7, True),
    ],
)
def test_recall_at_false_alarms(allowed: float, recall: float, false_alarms: float, score: float, at_end: bool) -> None:
    first = photo([FACE], [FACE, NOWHERE], [0.9, 0.1])
    second = photo([FACE, OTHER], [NOWHERE, [50, 0, 10, 6]], [0.8, 0.7])
    at = recall_at(judge([first, second]).curve, allowed)
    assert (at.recall, at.false_alarms, at.score, at.at_end) == (pytest.approx(recall), false_alarms, score, at_end)


def test_recall_where_even_the_surest_box_is_too_much() -> None:
    at = recall_at(judge([photo([FACE], [NOWHERE], [0.9])]).curve, 0.5)
    assert (at.recall, at.score, at.at_end) == (0.0, None, False)


boxes = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12))
photos = st.lists(
    st.tuples(
        st.lists(st.tuples(boxes, st.booleans()), max_size=4),
        st.lists(st.tuples(boxes, st.sampled_from([0.1, 0.2, 0.5, 0.9])), max_size=4),
    ).map(
        lambda both: photo(
            [box for box, _ in both[0]],
            [box for box, _ in both[1]],
            [score for _, score in both[1]],
            [ignored for _, ignored in both[0]],
        )
    ),
    max_size=3,
)


@given(photos, st.sampled_from([0.0, 0.3, 0.5]))
def test_every_point_of_a_curve_is_a_judgement_at_its_threshold(some: list[Photo], least: float) -> None:
    curve = judge(some, least_overlap=least).curve
    assert (np.diff(curve.score) < 0).all()
    assert sorted({float(s) for one in some for s in one.scores}, reverse=True) == curve.score.tolist()
    for row, score in enumerate(curve.score):
        alone = [Photo(p.known, None, p.ignored, p.found[p.scores >= score], p.scores[p.scores >= score]) for p in some]
        at = judge(alone, least_overlap=least)
        cut = judge(some, least_overlap=least, least_score=score)
        for judged in (at, cut):
            assert (judged.outcome == Outcome.HIT).sum() == judged.found.sum() == curve.hits[row]
            assert (judged.outcome == Outcome.FALSE_ALARM).sum() == curve.false_alarms[row]
        assert not (at.found & ~at.counts).any()
        assert curve.hits[row] <= curve.faces


@given(photos)
def test_boxes_that_are_the_faces_find_all_of_them(some: list[Photo]) -> None:
    perfect = [Photo(p.known, None, p.ignored, p.known, np.ones(len(p.known))) for p in some]
    judged = judge(perfect)
    assert judged.recall in (None, 1.0)
    if judged.curve.faces:
        assert judged.curve.continuous() == pytest.approx([1.0])  # areas of boxes at odd places are rounded
    assert fit_map(perfect) == BoxMap()


# --- sizes and maps ---------------------------------------------------------------------------------------------------


def test_recall_by_the_longer_side() -> None:
    one = photo([[0, 0, 6, 11], [50, 0, 12, 3], [0, 50, 40, 200], [90, 0, 9, 9]], [[50, 0, 12, 3], FACE], [0.9, 0.8],
                [False, False, False, True])  # fmt: skip
    bins = recall_by_size(judge([one]), (0, 12, 64))
    assert [(b.least_px, b.below_px, b.faces, b.found) for b in bins] == [
        (0, 12, 1, 1),
        (12, 64, 1, 1),
        (64, None, 1, 0),
    ]


@given(
    st.lists(boxes, min_size=1, max_size=5),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.5, 2), st.floats(0.5, 2)),
)
def test_a_map_is_found_again(found: list, numbers: tuple[float, ...]) -> None:
    box_map = BoxMap(*numbers)
    again = fitted_map(np.array(found), box_map(np.array(found)))
    assert (again.dx, again.dy, again.sw, again.sh) == pytest.approx(numbers, abs=1e-9)


def test_a_tight_box_is_right_after_the_map() -> None:
    whole_heads = [[100 * i, 0, 40, 60] for i in range(3)]
    tight = [[100 * i + 5, 18, 30, 36] for i in range(3)]
    some = [photo(whole_heads, [*tight, NOWHERE], [0.9, 0.8, 0.7, 0.6])]
    assert judge(some).recall == 0
    fitted = fit_map(some)
    assert (fitted.dx, fitted.dy, fitted.sw, fitted.sh) == pytest.approx((0, -1 / 6, 4 / 3, 5 / 3))
    judged = judge(mapped(some, fitted))
    assert judged.recall == 1
    assert judged.mean_overlap == pytest.approx(1)
    assert judged.false_alarms_an_image == 1


def test_no_pairs_no_map() -> None:
    assert fitted_map(np.zeros((0, 4)), np.zeros((0, 4))) == BoxMap()
    with pytest.raises(ValueError, match="width 0 or height 0"):
        fitted_map(np.array([[0, 0, 0, 1]]), np.array([[0, 0, 1, 1]]))
