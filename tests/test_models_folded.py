"""Choosing by folds: every row is held out once, and the head that is saved learned from all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.training import fit_head
from models.training.fit_head import Fitted, fit_linear_head, fit_ridge_head
from models.training.folded import folded
from models.training.head_data import Blend, FitError, Votes, standardisation, standardised
from models.training.head_metrics import fit_temperature

FITS = (fit_linear_head, fit_ridge_head)


def noisy(count: int = 120, width: int = 6, seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Returns features, labels of three classes, and groups of three rows each."""
    draw = np.random.default_rng(seed)
    y = np.repeat(np.arange(count // 3) % 3, 3)
    features = draw.normal(0, 1.5, (count, width))
    features[np.arange(count), y] += 2
    return features.astype(np.float32), [("a", "b", "c")[i] for i in y], np.repeat(np.arange(count // 3), 3)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("imbalance", ["natural", "inverse_sqrt", "logit_adjustment"])
def test_the_head_learned_from_every_row(fit: Any, imbalance: str) -> None:
    """With one strength it is the fit on everything: the same as with everything as validation too."""
    features, labels, groups = noisy()
    strength = {"cs": (0.1,)} if fit is fit_linear_head else {"alphas": (0.1,)}
    found: Fitted = fit(features, labels, groups=groups, select_folds=4, imbalance=imbalance, **strength)
    whole: Fitted = fit(features, labels, validation=(features, labels), imbalance=imbalance, **strength)
    assert np.array_equal(found.head.coef, whole.head.coef)
    if imbalance != "logit_adjustment" or fit is fit_linear_head:
        assert np.array_equal(found.head.intercept, whole.head.intercept)
    assert found.split["kind"] == "folds" and found.split["train"] == found.split["held_out"] == len(labels)


def test_choice_temperature_and_figures_are_those_of_rows_not_seen() -> None:
    features, labels, groups = noisy()
    cs = (0.001, 0.1, 10.0)
    found = fit_linear_head(features, labels, groups=groups, select_folds=4, seed=3, cs=cs)
    given = folded(features, labels, folds=4, groups=groups, seed=3)
    y = given.whole.answers.y
    expected = np.zeros((len(cs), len(y), 3))
    for number in range(4):
        rest, away = given.fold != number, given.fold == number
        assert not set(groups[rest]) & set(groups[away])
        mean, scale = standardisation(given.whole.features.of(np.flatnonzero(rest)))
        x, new = (standardised(given.whole.features.of(np.flatnonzero(rows)), mean, scale) for rows in (rest, away))
        model = LogisticRegression(max_iter=300, warm_start=True)
        for place, c in enumerate(cs):
            expected[place, away] = model.set_params(C=c).fit(x, y[rest]).decision_function(new)
    accuracies = [(scores.argmax(1) == y).mean() for scores in expected]
    assert [row["accuracy"] for row in found.sweep] == pytest.approx(accuracies)
    best = int(np.argmax(accuracies))
    assert found.chosen == {"c": cs[best]} and found.metrics["accuracy"] == pytest.approx(accuracies[best])
    assert found.head.temperature == pytest.approx(fit_temperature(expected[best], y), rel=1e-3)


def test_labels_that_say_nothing_score_by_chance() -> None:
    """A temperature or an accuracy of rows that a head has seen would be far from chance on 60 features of noise."""
    draw = np.random.default_rng(5)
    labels = np.asarray(["a", "b"] * 60)
    draw.shuffle(labels)
    found = fit_linear_head(draw.normal(0, 1, (120, 60)).astype(np.float32), labels.tolist(), select_folds=5, cs=(1.0,))
    assert 0.3 < found.metrics["accuracy"] < 0.65
    assert found.head.temperature > 5


def test_a_fit_that_ends_too_early_in_one_fold_is_reported() -> None:
    features, labels, groups = noisy()
    few, many = (
        fit_linear_head(features, labels, groups=groups, select_folds=3, cs=(10.0,), max_iter=most).sweep[0]
        for most in (2, 300)
    )
    assert (few["iterations"], few["converged"], many["converged"]) == (2, False, True)
    rows = [{"c": 1.0, "iterations": 9, "converged": False}, {"c": 1.0, "iterations": 4, "converged": True}]
    assert fit_head._of_all_folds(rows) == rows[0]


@pytest.mark.parametrize("fit", FITS)
def test_votes_and_blends_are_learned_and_labels_judge(fit: Any) -> None:
    features, labels, groups = noisy()
    shares = np.eye(3, dtype=np.float32)[["abc".index(label) for label in labels]] * 0.7 + np.float32(0.1)
    blend = fit(features, Blend(labels, shares, ("a", "b", "c"), 0.5), groups=groups, select_folds=3)
    votes = fit(features, Votes(shares, ("a", "b", "c")), groups=groups, select_folds=3)
    assert blend.metrics["rows"] == votes.metrics["rows"] == len(labels)
    assert "truth" not in blend.metrics and "most votes" in votes.metrics["truth"]


@pytest.mark.parametrize("fit", FITS)
def test_the_same_input_gives_the_same_head(fit: Any) -> None:
    features, labels, groups = noisy()
    one, two = (fit(features, labels, groups=groups, select_folds=3) for _ in range(2))
    assert one.head.coef.tobytes() == two.head.coef.tobytes() and one.metrics == two.metrics


@pytest.mark.parametrize(
    ("labels", "folds", "words"),
    [
        (["a"] * 9 + ["b"], 3, "without fold . nothing is left of b; add images or drop the class"),
        (["a", "b"] * 5, 11, "11 folds need 2 or more, and a group each: there are 10 groups"),
        (["a", "b", "c", "d", "e"] * 2, 3, "3 folds need 3 rows of a class, but the largest has 2; use fewer folds"),
    ],
)
def test_rows_that_cannot_be_dealt_are_refused(labels: list[str], folds: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(FitError, match=words):
        fit_linear_head(np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32), labels, select_folds=folds)


def test_ridge_scores_are_not_adjusted_by_a_fold_without_ordinary_rows() -> None:
    """Its temperature would be a number without meaning."""
    shares = np.full((12, 3), 0.2, np.float32)
    shares[np.arange(12), np.r_[0, 1, np.full(10, 2)]] = 0.6
    features = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    votes = Votes(shares, ("a", "b", "NF"), ("NF",))
    with pytest.raises(FitError, match=r"no held-out row .* ordinary class; use fewer folds"):
        fit_ridge_head(features, votes, select_folds=4, imbalance="logit_adjustment")
    assert fit_ridge_head(features, votes, select_folds=4).metrics["rows"] == 2
