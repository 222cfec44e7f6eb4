"""Confidence as a degree: metrics against their definitions, and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.degree import cross_entropy, degree, degree_correlation, degree_error
from models.heads.outputs import softmax

CLASSES = ("a", "b", "c")


def voted(rows: int, *, sure: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities, `sure` times too sure, and the shares of ten votes by the right ones."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, (rows, 3))
    votes = np.stack([draw.multinomial(10, row) for row in softmax(logits)]) / 10
    return softmax(sure * logits), votes


def test_metrics_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    shares = np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])
    assert degree_error(p, shares) == pytest.approx((2 * abs(0.9 - 0.8) + abs(0.7 - 0.5)) / 3)
    assert degree_correlation(p, shares) == pytest.approx(np.corrcoef([0.9, 0.9, 0.7], [1, 0.6, 0.5])[0, 1])
    first, second = -np.log(0.9), -(0.6 * np.log(0.9) + 0.4 * np.log(0.1))
    assert cross_entropy(p, shares) == pytest.approx((first + second - np.log(0.3 * 0.7) / 2) / 3)
    assert np.isnan(degree_correlation(p[:2], shares[:2]))


@pytest.mark.parametrize("rows", [700, 5000])
def test_all_of_it_is_the_same_with_intervals(rows: int) -> None:
    p, shares = voted(rows, sure=2)
    found = degree(p, shares, CLASSES, seed=1)
    functions = {"calibration_error": degree_error, "correlation": degree_correlation, "cross_entropy": cross_entropy}
    for name, figure in functions.items():
        value = found[name]
        assert value["value"] == pytest.approx(figure(p, shares))
        assert value["low"] < value["high"] and abs(value["high"] + value["low"] - 2 * value["value"]) < 0.05
    assert found["rows"] == rows
    for i, name in enumerate(CLASSES):
        own = found["by_class"][name]
        assert own["correlation"] == pytest.approx(np.corrcoef(p[:, i], shares[:, i])[0, 1])
        assert (own["mean_probability"], own["mean_share"]) == pytest.approx((p[:, i].mean(), shares[:, i].mean()))
    assert found == degree(p, shares, CLASSES, seed=1)


def test_the_interval_is_as_wide_as_that_of_resampled_rows() -> None:
    p, shares = voted(4000, sure=2)
    draw = np.random.default_rng(2)
    drawn = [degree_correlation(p[rows], shares[rows]) for rows in draw.integers(0, 4000, (400, 4000))]
    found = degree(p, shares, CLASSES, seed=1)["correlation"]
    assert found["high"] - found["low"] == pytest.approx(np.ptp(np.quantile(drawn, [0.025, 0.975])), rel=0.2)


def test_probabilities_that_are_shares_have_no_error_beyond_chance() -> None:
    right, too_sure = (degree(*voted(20_000, sure=sure), CLASSES, seed=0) for sure in (1, 3))
    assert right["calibration_error"]["value"] < 0.01 < 0.1 < too_sure["calibration_error"]["value"]
    assert right["correlation"]["value"] > too_sure["correlation"]["value"]


def test_what_does_not_vary_has_no_correlation() -> None:
    found = degree(np.full((4, 2), 0.5), np.eye(2)[[0, 1, 0, 1]], ("a", "b"), seed=0)
    assert found["correlation"] is None
    assert found["by_class"]["a"]["correlation"] is None
    assert found["calibration_error"]["value"] == 0


def test_the_label_that_was_given_counts_where_another_class_has_the_larger_share() -> None:
    """Of two classes, one of them a sum, probabilities can prefer one and intensities the other."""
    stated, shares = np.array([[0.6, 0.4], [0.7, 0.3]]), np.array([[0.5, 0.5], [0.8, 0.2]])
    found = degree(stated, shares, ("not happy", "happy"), seed=0, of="intensity", labels=np.array([1, 0]))
    assert (found["mean_confidence"], found["mean_share"]) == pytest.approx((0.55, 0.65))
    assert found["calibration_error"]["value"] == pytest.approx(0.1)
