"""Suspected labels: which are found, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.label_errors import find_label_errors


def test_a_label_is_suspected_past_the_threshold_of_the_other_class() -> None:
    p = np.asarray([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.75, 0.25]])
    y = np.asarray([0, 0, 1, 1, 1])
    found = find_label_errors(p, y)
    assert found.thresholds.tolist() == pytest.approx([0.8, 0.55])
    assert len(found) == 0  # 0.75 of class 0 is much, but rows of class 0 have 0.8 on average

    p[4] = [0.95, 0.05]
    found = find_label_errors(p, y)
    assert found.row.tolist() == [4]
    assert found.suggested.tolist() == [0]
    assert found.self_confidence.tolist() == pytest.approx([0.05])
    assert found.margin.tolist() == pytest.approx([-0.9])
    assert found.joint.tolist() == [[1, 0], [1, 2]]  # row 1 is confident of nothing


def test_a_timid_class_is_forgiven() -> None:
    """0.4 is much for a class that is never given more, and little for one that is."""
    p = np.asarray([[0.9, 0.05, 0.05]] * 4 + [[0.5, 0.35, 0.15]] * 4 + [[0.5, 0.4, 0.1]])
    y = np.asarray([0] * 4 + [1] * 4 + [0])
    found = find_label_errors(p, y)
    assert found.row.tolist() == [8]
    assert found.suggested.tolist() == [1]


def test_the_likeliest_error_comes_first_and_ties_by_row() -> None:
    p = np.asarray([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9], [0.1, 0.9]])
    found = find_label_errors(p, np.asarray([0, 0, 0, 0, 0, 1]))
    assert found.row.tolist() == [2, 4]  # 0.8 falls short of the threshold 0.9
    assert found.margin.tolist() == pytest.approx([-0.8, -0.8])


def test_a_class_that_does_not_occur_is_never_suggested() -> None:
    found = find_label_errors(np.asarray([[0.3, 0.1, 0.6], [0.1, 0.3, 0.6]]), np.asarray([0, 1]))
    assert np.isnan(found.thresholds[2])
    assert 2 not in found.suggested.tolist()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), min_size=1))
def test_counts_and_order_hold(rows: list[tuple[int, int, int, int]]) -> None:
    p = np.asarray([weights for _, *weights in rows], float)
    p /= p.sum(1, keepdims=True)
    y = np.asarray([label for label, *_ in rows])
    found = find_label_errors(p, y)
    assert found.joint.sum() - np.trace(found.joint) == len(found)
    assert (np.diff(found.margin) >= 0).all()
    assert (found.suggested != y[found.row]).all()
    assert (p[found.row, found.suggested] >= found.thresholds[found.suggested]).all()
