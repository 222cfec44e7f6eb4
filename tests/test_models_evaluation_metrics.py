"""Figures of merit: against numbers worked out by hand, against scikit-learn, and against their definitions."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from models.evaluation import metrics
from models.training.head_metrics import expected_calibration_error, metrics_of

CLASSES = ("happy", "neutral", "sad")
TWO_OF_THREE = np.asarray([[2, 0, 1], [0, 3, 0], [1, 1, 2]])  # 7 of 10 right


def made(seed: int, rows: int = 60, classes: int = 3, *, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities that know something, and true classes; coarse ones have many ties."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, classes, rows)
    logits = draw.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[y]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if coarse:
        p = np.round(p * 4) + 0.25
        p /= p.sum(1, keepdims=True)
    return p, y


CASES = [made(seed, rows, classes, coarse=coarse) for seed, rows, classes, coarse in
         [(0, 60, 3, False), (1, 60, 3, True), (2, 500, 7, False), (3, 40, 2, True), (4, 9, 5, False)]]  # fmt: skip


# --- from counts


def test_confusion_is_true_by_predicted() -> None:
    found = metrics.confusion_matrix(np.asarray([0, 0, 1, 2]), np.asarray([0, 2, 1, 1]), 3)
    assert found.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_figures_of_a_small_table() -> None:
    assert metrics.accuracy(TWO_OF_THREE) == pytest.approx(0.7)
    assert metrics.f1(TWO_OF_THREE).tolist() == pytest.approx([2 / 3, 6 / 7, 4 / 7])
    assert metrics.macro_f1(TWO_OF_THREE) == pytest.approx((2 / 3 + 6 / 7 + 4 / 7) / 3)
    assert metrics.balanced_accuracy(TWO_OF_THREE) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    by_chance = (3 * 3 + 3 * 4 + 4 * 3) / 100
    assert metrics.cohen_kappa(TWO_OF_THREE) == pytest.approx((0.7 - by_chance) / (1 - by_chance))


def test_a_class_that_does_not_occur_is_left_out_of_means() -> None:
    table = np.asarray([[1, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert metrics.macro_f1(table) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert metrics.balanced_accuracy(table) == pytest.approx(0.75)


def test_kappa_of_one_class_is_not_defined() -> None:
    assert metrics.cohen_kappa(np.asarray([[5, 0], [0, 0]])) is None


@pytest.mark.parametrize("figure", [metrics.accuracy, metrics.macro_f1, metrics.balanced_accuracy])
def test_many_tables_at_once_are_each_on_its_own(figure) -> None:
    tables = np.random.default_rng(0).integers(0, 9, (4, 3, 3))
    assert figure(tables).tolist() == pytest.approx([float(figure(table)) for table in tables])


@pytest.mark.parametrize(("p", "y"), CASES)
def test_counts_agree_with_scikit_learn(p: np.ndarray, y: np.ndarray) -> None:
    said = p.argmax(1)
    table = metrics.confusion_matrix(y, said, p.shape[1])
    there = np.unique(y)
    assert table.tolist() == sk.confusion_matrix(y, said, labels=range(p.shape[1])).tolist()
    assert metrics.accuracy(table) == pytest.approx(sk.accuracy_score(y, said))
    assert metrics.macro_f1(table) == pytest.approx(sk.f1_score(y, said, labels=there, average="macro"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that classes were said that do not occur
        assert metrics.balanced_accuracy(table) == pytest.approx(sk.balanced_accuracy_score(y, said))
    assert metrics.cohen_kappa(table) == pytest.approx(sk.cohen_kappa_score(y, said))


# --- the bootstrap


def test_the_interval_is_that_of_resampled_rows() -> None:
    y = np.repeat([0, 1], [300, 100])
    said = np.where(np.arange(400) % 5 == 0, 1 - y, y)  # 80 % right
    low, high = metrics.bootstrap(metrics.confusion_matrix(y, said, 2), {"a": metrics.accuracy}, seed=0)["a"]
    draw = np.random.default_rng(1)
    rows = draw.integers(0, 400, (4000, 400))
    by_rows = np.quantile((y == said)[rows].mean(1), [0.025, 0.975])
    assert [low, high] == pytest.approx(by_rows.tolist(), abs=0.006)
    assert low < 0.8 < high


def test_the_same_seed_gives_the_same_interval() -> None:
    one, same, other = (
        metrics.bootstrap(TWO_OF_THREE * 9, {"f": metrics.macro_f1}, seed=seed)["f"] for seed in (1, 1, 2)
    )
    assert one == same != other


def test_without_a_mistake_the_interval_is_a_point() -> None:
    found = metrics.bootstrap(np.diag([3, 4]), {"a": metrics.accuracy}, seed=0)
    assert found == {"a": (1.0, 1.0)}


# --- of one class against the rest


@pytest.mark.parametrize(
    ("scores", "positive", "area"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], 0.5),  # ties are worth half
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 0.875),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 0.75),
    ],
)
def test_area_under_the_roc_curve_is_the_share_of_pairs_in_order(scores, positive, area) -> None:
    curve = metrics.roc_curve(np.asarray(scores), np.asarray(positive, bool))
    assert metrics.area(curve) == pytest.approx(area)
    assert curve is not None
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_without_a_pair_there_is_no_curve(positive: list[bool]) -> None:
    assert metrics.roc_curve(np.asarray([0.1, 0.9]), np.asarray(positive)) is None
    assert metrics.area(None) is None


def test_the_interval_of_an_area_is_delongs() -> None:
    draw = np.random.default_rng(3)
    positive = draw.random(60) < 0.4
    scores = np.round(draw.normal(positive * 1.0, 1), 1)  # with ties
    yes, no = scores[positive], scores[~positive]
    wins = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
    variance = wins.mean(1).var(ddof=1) / len(yes) + wins.mean(0).var(ddof=1) / len(no)
    middle, value = np.log(wins.mean() / (1 - wins.mean())), wins.mean()
    reach = 1.959964 * np.sqrt(variance) / (value * (1 - value))
    found = metrics.area_interval(scores, positive)
    assert found == pytest.approx([1 / (1 + np.exp(-(middle + side * reach))) for side in (-1, 1)])
    assert metrics.area(metrics.roc_curve(scores, positive)) == pytest.approx(value)


def test_the_interval_of_an_area_holds_the_true_one_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(4)
    true = 0.9213504  # of two normal distributions that lie two standard deviations apart: Phi(2 / sqrt(2))
    held = 0
    for _ in range(1000):
        positive = np.arange(300) < 100
        low, high = metrics.area_interval(draw.normal(2.0 * positive, 1), positive) or (1.0, 0.0)
        held += low <= true <= high
    assert 930 <= held <= 970


@pytest.mark.parametrize("scores, positive", [([0.1, 0.9, 0.8], [0, 1, 1]), ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])])
def test_an_area_of_too_few_or_of_no_variance_has_no_interval(scores: list[float], positive: list[int]) -> None:
    assert metrics.area_interval(np.asarray(scores), np.asarray(positive, bool)) is None


def test_average_precision_by_hand() -> None:
    found = metrics.average_precision(np.asarray([0.9, 0.8, 0.7, 0.6]), np.asarray([True, False, True, False]))
    assert found == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert metrics.average_precision(np.asarray([0.9]), np.asarray([False])) is None


@pytest.mark.parametrize(("p", "y"), CASES)
def test_curves_agree_with_scikit_learn(p: np.ndarray, y: np.ndarray) -> None:
    for c in range(p.shape[1]):
        if 0 < (y == c).sum() < len(y):
            curve = metrics.roc_curve(p[:, c], y == c)
            assert curve is not None
            x, tpr, _ = sk.roc_curve(y == c, p[:, c], drop_intermediate=False)
            assert curve.x.tolist() == pytest.approx(x.tolist())
            assert curve.y.tolist() == pytest.approx(tpr.tolist())
            assert metrics.area(curve) == pytest.approx(sk.roc_auc_score(y == c, p[:, c]))
            assert metrics.average_precision(p[:, c], y == c) == pytest.approx(
                sk.average_precision_score(y == c, p[:, c])
            )


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_that_are_in_order(rows: list[tuple[int, bool]]) -> None:
    scores = np.asarray([score for score, _ in rows], float)
    positive = np.asarray([chosen for _, chosen in rows])
    found = metrics.area(metrics.roc_curve(scores, positive))
    if positive.all() or not positive.any():
        assert found is None
        return
    gaps = scores[positive][:, None] - scores[~positive][None]
    assert found == pytest.approx(((gaps > 0) + 0.5 * (gaps == 0)).mean())


# --- of probabilities


def test_log_loss_and_brier_by_hand() -> None:
    p, y = np.asarray([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]), np.asarray([0, 1])
    assert metrics.log_loss(p, y) == pytest.approx(-(np.log(0.7) + np.log(0.25)) / 2)
    assert metrics.brier(p, y) == pytest.approx(((0.09 + 0.04 + 0.01) + (0.0625 + 0.5625 + 0.25)) / 2)


def test_a_stored_zero_is_less_than_half_a_step_and_not_nothing() -> None:
    assert metrics.log_loss(np.asarray([[1.0, 0.0]]), np.asarray([1])) == pytest.approx(-np.log(5e-7))


@pytest.mark.parametrize(("p", "y"), CASES)
def test_losses_agree_with_scikit_learn(p: np.ndarray, y: np.ndarray) -> None:
    labels = list(range(p.shape[1]))
    assert metrics.log_loss(p, y) == pytest.approx(sk.log_loss(y, p, labels=labels))
    scaled = sk.brier_score_loss(np.eye(p.shape[1])[y].argmax(1), p, labels=labels, scale_by_half=False)
    assert metrics.brier(p, y) == pytest.approx(scaled)


def test_reliability_by_hand() -> None:
    confidence = np.asarray([0.2, 0.21, 0.4, 0.9, 1.0])
    found = metrics.reliability(confidence, np.asarray([True, False, True, True, True]), bins=5)
    assert found.count.tolist() == [1, 2, 0, 0, 2]  # open below: 0.2 is in the first bin, 0.21 and 0.4 in the second
    assert found.accuracy[[0, 1, 4]].tolist() == pytest.approx([1, 0.5, 1])
    assert found.confidence[[0, 1, 4]].tolist() == pytest.approx([0.2, 0.305, 0.95])
    assert np.isnan(found.accuracy[2])
    assert found.expected_error == pytest.approx((0.8 + 2 * 0.195 + 2 * 0.05) / 5)


@pytest.mark.parametrize(("p", "y"), CASES)
def test_the_calibration_error_is_the_one_that_training_reports(p: np.ndarray, y: np.ndarray) -> None:
    found = metrics.evaluate(p, y, [f"c{i}" for i in range(p.shape[1])]).metrics
    trained = metrics_of(p, y, [f"c{i}" for i in range(p.shape[1])])
    assert found["expected_calibration_error"] == pytest.approx(expected_calibration_error(p, y))
    assert found["accuracy"]["value"] == pytest.approx(trained["accuracy"])
    assert found["macro_f1"]["value"] == pytest.approx(trained["macro_f1"])


# --- what abstaining buys


def test_accuracy_by_coverage_by_hand() -> None:
    found = metrics.selective(np.asarray([0.9, 0.8, 0.8, 0.3]), np.asarray([True, True, False, False]))
    assert found.threshold.tolist() == [0.9, 0.8, 0.3]
    assert found.coverage.tolist() == [0.25, 0.75, 1.0]
    assert found.accuracy.tolist() == pytest.approx([1, 2 / 3, 0.5])
    assert found.area == pytest.approx((0 + 1 / 3 + 1 / 3 + 0.5) / 4)


def test_thresholds_keep_at_least_what_is_wanted() -> None:
    curve = metrics.selective(np.linspace(1, 0.1, 10), np.asarray([True] * 5 + [False] * 5))
    rows = metrics.at_coverages(curve, (1.0, 0.9, 0.55, 0.5))
    assert [row["coverage"] for row in rows] == pytest.approx([1.0, 0.9, 0.6, 0.5])
    assert [row["threshold"] for row in rows] == pytest.approx([0.1, 0.2, 0.5, 0.6])
    assert [row["accuracy"] for row in rows] == pytest.approx([0.5, 5 / 9, 5 / 6, 1.0])


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_coverage_does_not_depend_on_the_order_of_rows(rows: list[tuple[int, bool]], random) -> None:
    shuffled = random.sample(rows, len(rows))
    one, other = (
        metrics.selective(np.asarray([c / 6 for c, _ in some]), np.asarray([right for _, right in some]))
        for some in (rows, shuffled)
    )
    assert one.area == pytest.approx(other.area)
    assert one.accuracy.tolist() == pytest.approx(other.accuracy.tolist())
    assert one.coverage[-1] == 1
    assert one.accuracy[-1] == pytest.approx(np.mean([right for _, right in rows]))


def test_confidence_that_tells_nothing_buys_nothing() -> None:
    found = metrics.selective(np.full(10, 0.5), np.arange(10) < 7)
    assert found.area == pytest.approx(0.3)
    assert [row["coverage"] for row in metrics.at_coverages(found)] == [1.0] * 5


# --- all of it


def test_all_figures_can_be_stored_as_json() -> None:
    p, y = made(0)
    found = metrics.evaluate(p, y, CLASSES, seed=3)
    again = json.loads(json.dumps(found.metrics, allow_nan=False))
    assert again == json.loads(json.dumps(metrics.evaluate(p, y, CLASSES, seed=3).metrics))
    assert again["bootstrap"] == {"draws": 1000, "seed": 3, "interval": 0.95}
    assert again["rows"] == 60
    assert sum(map(sum, again["confusion"])) == sum(row["support"] for row in again["by_class"].values()) == 60
    assert again["correct"] == sum(again["confusion"][i][i] for i in range(3))
    assert again["accuracy"]["low"] <= again["accuracy"]["value"] <= again["accuracy"]["high"]


def test_a_class_that_does_not_occur_has_no_figures_and_spoils_none() -> None:
    p, y = made(0)
    found = metrics.evaluate(np.insert(p, 1, 0.0, axis=1), y + (y > 0), ("a", "b", "c", "d")).metrics
    assert found["by_class"]["b"] == {
        "support": 0, "predicted": 0, "precision": None, "recall": None, "f1": None, "auc": None, "auc_interval": None,
        "average_precision": None,
    }  # fmt: skip
    assert found["macro_f1"] == metrics.evaluate(p, y, CLASSES).metrics["macro_f1"]
    assert found["auc_macro"] == pytest.approx(metrics.evaluate(p, y, CLASSES).metrics["auc_macro"])


def test_the_majority_is_named() -> None:
    found = metrics.evaluate(np.full((4, 3), 1 / 3), np.asarray([2, 2, 0, 2]), CLASSES).metrics
    assert (found["majority_class"], found["majority_baseline"]) == ("sad", 0.75)


@pytest.mark.parametrize(
    ("p", "y", "words"),
    [
        (np.zeros((0, 3)), [], "0 rows"),
        (np.full((2, 3), 1 / 3), [0], "shape"),
        (np.full((2, 2), 0.5), [0, 1], "shape"),
        (np.asarray([[0.5, 0.5, np.nan]]), [0], "between 0 and 1"),
        (np.asarray([[1.5, -0.5, 0.0]]), [0], "between 0 and 1"),
        (np.asarray([[0.5, 0.2, 0.2]]), [0], "sum to 1"),
        (np.full((1, 3), 1 / 3), [3], "indices below 3"),
    ],
)
def test_what_is_no_probability_is_refused(p: np.ndarray, y: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.evaluate(p, np.asarray(y, int), CLASSES)
