"""Metrics of probabilities against true classes: pure numpy, one function per metric.

Curves and kappa equal scikit-learn's (a test says so). They are not scikit-learn's own, because importing it takes 1.1
CPU seconds, which `evaluate` does without. Its log loss differs: see `SMALLEST_P`.

Shapes throughout: `probabilities` (n, k), rows that sum to about 1; `y` (n,) true class indices; `confusion`
(..., k, k) counts, true by predicted, with any leading axes, so that a thousand bootstrap draws are one call.
An undefined metric (of a class that never occurs) is None, and is left out of means.

Not here: plots of these metrics (`plots.py`), and labels that look wrong (`label_errors.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS = 1000  # of the bootstrap; the ends of a 95 % interval then vary by about a thirtieth of its width
INTERVAL = 0.95
NORMAL = 1.959964  # half the width of that interval, in standard errors of a normal distribution
BINS = 15  # of confidence, equal widths, as in Guo et al. 2017 (arXiv:1706.04599)
SMALLEST_P = 5e-7  # probabilities are stored to 1e-6, so 0 means less than half a step; avoids log(0)
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)

Figure = Callable[[np.ndarray], np.ndarray]


# --- from counts ------------------------------------------------------------------------------------------------------


def confusion_matrix(y: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns (classes, classes) int64 counts, true by predicted."""
    cells = y.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns (...) float64, the share of rows on the diagonal."""
    return np.asarray(_hits(confusion).sum(axis=-1) / confusion.sum(axis=(-2, -1)))


def f1(confusion: np.ndarray) -> np.ndarray:
    """Returns (..., k) float64, the harmonic mean of precision and recall; 0 for a class never predicted correctly."""
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.asarray(2 * _hits(confusion) / np.maximum(both, 1))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns (...) float64, the plain mean of F1 over the classes that occur."""
    return _mean_where(f1(confusion), confusion.sum(axis=-1) > 0)


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns (...) float64, the plain mean of recall over the classes that occur."""
    occurs = confusion.sum(axis=-1)
    return _mean_where(_hits(confusion) / np.maximum(occurs, 1), occurs > 0)


def cohen_kappa(confusion: np.ndarray) -> float | None:
    """Returns agreement beyond chance, 1 at best, 0 at chance (Cohen 1960); None if only one class occurs."""
    rows = confusion.sum()
    by_chance = float((confusion.sum(axis=0) * confusion.sum(axis=1)).sum() / rows**2)
    return None if by_chance == 1 else (float(accuracy(confusion)) - by_chance) / (1 - by_chance)


def bootstrap(
    confusion: np.ndarray, metrics: Mapping[str, Figure], *, seed: int, draws: int = DRAWS
) -> dict[str, tuple[float, float]]:
    """Returns the percentile interval of each metric over resampled rows.

    Counts of n rows drawn with replacement follow a multinomial distribution, so the counts are drawn directly. This is
    exact, and a thousand draws of ten million rows take as long as those of ten rows.

    Args:
        metrics: functions from (draws, k, k) counts to (draws,) values.
        seed: the same seed and counts give the same interval.
    """
    rows = int(confusion.sum())
    drawn = np.random.default_rng(seed).multinomial(rows, confusion.ravel() / rows, size=draws)
    drawn = drawn.reshape(draws, *confusion.shape)
    tails = [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]
    return {name: tuple(np.quantile(figure(drawn), tails).tolist()) for name, figure in metrics.items()}


def _hits(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _mean_where(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.asarray((values * counts).sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1))


# --- of one class against the rest ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a curve, each (m,) float64; `x` never decreases."""

    x: np.ndarray
    y: np.ndarray


def roc_curve(scores: np.ndarray, positive: np.ndarray) -> Curve | None:
    """Returns false positive rate and true positive rate, from (0, 0) to (1, 1); equal scores are one point.

    Args:
        scores: (n,).
        positive: (n,) bool. If all or none are positive, the result is None.
    """
    hits, kept = _by_threshold(scores, positive)
    if hits[-1] in (0, kept[-1]):
        return None
    misses = kept - hits
    return Curve(np.concatenate([[0.0], misses / misses[-1]]), np.concatenate([[0.0], hits / hits[-1]]))


def area(curve: Curve | None) -> float | None:
    """Returns the area under a curve, by trapezoids."""
    if curve is None:
        return None
    return float((np.diff(curve.x) * (curve.y[1:] + curve.y[:-1])).sum() / 2)


def area_interval(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float] | None:
    """Returns the ends of a 95 % interval of the area under the ROC curve.

    The variance is DeLong's (1988), which needs no draws. The interval is symmetric in the logit of the area, so it
    stays between 0 and 1. It is None if undefined: fewer than two positive or two negative rows, or an area of 0 or 1,
    whose variance is 0.

    Args:
        scores: (n,). positive: (n,) bool.
    """
    yes, no = np.sort(scores[positive]), np.sort(scores[~positive])
    if min(len(yes), len(no)) < 2:
        return None
    of_yes = (np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")) / (2 * len(no))
    of_no = 1 - (np.searchsorted(yes, no, "left") + np.searchsorted(yes, no, "right")) / (2 * len(yes))
    value = float(of_yes.mean())
    error = float(np.sqrt(of_yes.var(ddof=1) / len(yes) + of_no.var(ddof=1) / len(no)))
    if not (0 < value < 1 and error > 0):
        return None
    middle, reach = np.log(value / (1 - value)), NORMAL * error / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-(middle - reach))), 1 / (1 + np.exp(-(middle + reach)))
    return float(low), float(high)


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Returns the mean of precision over recall, by steps, not by trapezoids; None without positive rows."""
    hits, kept = _by_threshold(scores, positive)
    if hits[-1] == 0:
        return None
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / kept).sum() / hits[-1])


def _by_threshold(scores: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for each distinct score, descending, how many of `chosen` and of all rows reach it."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    return np.cumsum(chosen[order].astype(np.int64))[last_of_ties], last_of_ties + 1


# --- of probabilities -------------------------------------------------------------------------------------------------


def log_loss(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Returns the mean of -ln(probability of the true class), in nats."""
    return float(-np.log(np.maximum(of_true(probabilities, y), SMALLEST_P)).mean())


def brier(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Returns the mean squared distance to the true class, summed over the classes: 0 at best, 2 at worst."""
    return float(((probabilities**2).sum(axis=1) - 2 * of_true(probabilities, y) + 1).mean())


def of_true(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns (n,), each row's probability of its true class."""
    return np.asarray(probabilities[np.arange(len(y)), y])


@dataclass(frozen=True, slots=True)
class Reliability:
    """Rows by confidence, in bins of equal width, open below: (0.2, 0.4].

    Attributes:
        edges: (bins + 1,) float64 of confidence.
        count: (bins,) int64 rows.
        confidence, accuracy: (bins,) float64, means; NaN in an empty bin.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """The mean gap between confidence and accuracy, weighted by rows (expected calibration error)."""
        full = self.count > 0
        gaps = np.abs(self.confidence[full] - self.accuracy[full])
        return float((gaps * self.count[full]).sum() / self.count.sum())


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Returns the bins of (n,) confidences in the predictions and (n,) bool, whether each is right."""
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    rows = np.where(count, count, np.nan)
    return Reliability(
        np.linspace(0, 1, bins + 1),
        count,
        np.bincount(bin_of, weights=confidence, minlength=bins) / rows,
        np.bincount(bin_of, weights=right, minlength=bins) / rows,
    )


# --- accuracy if the least confident rows are left out ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selective:
    """Results of labelling only rows that reach a confidence; (m,) float64 each, from the highest threshold.

    Attributes:
        threshold: every confidence that occurs.
        coverage: share of the rows that reach it.
        accuracy: of these rows.
        area: area under the curve of risk against coverage (Geifman & El-Yaniv 2017, arXiv:1705.08500), which is the
            mean over the rows of the error rate at each row's own confidence. Uninformative confidences give the plain
            error rate.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    accuracy: np.ndarray
    area: float


def selective(confidence: np.ndarray, right: np.ndarray) -> Selective:
    """Returns accuracy by coverage; rows of equal confidence are kept or left out together.

    >>> curve = selective(np.array([0.9, 0.8, 0.8]), np.array([True, True, False]))
    >>> curve.coverage.round(3).tolist(), curve.accuracy.round(3).tolist()
    ([0.333, 1.0], [1.0, 0.667])
    """
    hits, kept = _by_threshold(confidence, right)
    at_each = hits / kept
    risk = float(((1 - at_each) * np.diff(kept, prepend=0)).sum() / len(confidence))
    return Selective(-np.unique(-confidence), kept / len(confidence), at_each, risk)


def at_coverages(curve: Selective, coverages: Sequence[float] = COVERAGES) -> list[dict[str, float]]:
    """Returns, for each coverage, the highest threshold that reaches it, the coverage there, and the accuracy."""
    rows = []
    for wanted in coverages:
        place = int(np.searchsorted(curve.coverage, wanted - 1e-12))  # 1e-12: 9/10 and 0.9 are one share
        row = {"threshold": curve.threshold, "coverage": curve.coverage, "accuracy": curve.accuracy}
        rows.append({"wanted": wanted, **{name: float(values[place]) for name, values in row.items()}})
    return rows


# --- all metrics ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All metrics, and the curves for plots.

    Attributes:
        classes: names of the columns.
        confusion: (k, k) counts, true by predicted.
        metrics: metrics, fit for JSON; see `evaluate`.
        roc: of each class against the rest, None if undefined.
        reliability, selective: of the most probable class.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    metrics: dict[str, Any]
    roc: tuple[Curve | None, ...]
    reliability: Reliability
    selective: Selective


def evaluate(probabilities: np.ndarray, y: np.ndarray, classes: Sequence[str], *, seed: int = 0) -> Evaluation:
    """Returns all metrics of (n, k) probabilities against (n,) true classes.

    `metrics` holds rows, correct, accuracy, macro_f1 and balanced_accuracy (value, and interval as low, high),
    majority_baseline and majority_class, cohen_kappa, auc_macro, log_loss, brier, expected_calibration_error,
    area_under_risk, coverage (see `at_coverages`), by_class (support, predicted, precision, recall, f1, auc and
    its interval, average_precision), confusion (lists), and bootstrap (draws, seed, interval).

    Args:
        seed: of the bootstrap.

    Raises:
        ValueError: there are no rows, shapes do not fit, or values are not probabilities.
    """
    _check(probabilities, y, len(classes))
    predicted = probabilities.argmax(axis=1)
    confidence, right = probabilities.max(axis=1), predicted == y
    confusion = confusion_matrix(y, predicted, len(classes))
    roc = tuple(roc_curve(probabilities[:, i], y == i) for i in range(len(classes)))
    bins, curve = reliability(confidence, right), selective(confidence, right)
    by_class = _by_class(probabilities, y, classes, confusion, roc)
    metrics: dict[str, Any] = {
        "rows": len(y),
        "correct": int(right.sum()),
        **_with_intervals(confusion, seed),
        "majority_baseline": float(confusion.sum(axis=1).max() / len(y)),
        "majority_class": classes[int(confusion.sum(axis=1).argmax())],
        "cohen_kappa": cohen_kappa(confusion),
        "auc_macro": _mean([row["auc"] for row in by_class.values()]),
        "log_loss": log_loss(probabilities, y),
        "brier": brier(probabilities, y),
        "expected_calibration_error": bins.expected_error,
        "area_under_risk": curve.area,
        "coverage": at_coverages(curve),
        "reliability": _bins_as_rows(bins),
        "by_class": by_class,
        "confusion": confusion.tolist(),
        "bootstrap": {"draws": DRAWS, "seed": seed, "interval": INTERVAL},
    }
    return Evaluation(tuple(classes), confusion, metrics, roc, bins, curve)


def _with_intervals(confusion: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    metrics: dict[str, Figure] = {
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "balanced_accuracy": balanced_accuracy,
    }
    intervals = bootstrap(confusion, metrics, seed=seed)
    return {
        name: {"value": float(figure(confusion)), "low": intervals[name][0], "high": intervals[name][1]}
        for name, figure in metrics.items()
    }


def _by_class(
    probabilities: np.ndarray,
    y: np.ndarray,
    classes: Sequence[str],
    confusion: np.ndarray,
    roc: Sequence[Curve | None],
) -> dict[str, dict[str, Any]]:
    hits, occurs, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    scores = f1(confusion)
    return {
        name: {
            "support": int(occurs[i]),
            "predicted": int(predicted[i]),
            "precision": _ratio(hits[i], predicted[i]),
            "recall": _ratio(hits[i], occurs[i]),
            "f1": float(scores[i]) if occurs[i] else None,
            "auc": area(roc[i]),
            "auc_interval": _low_and_high(area_interval(probabilities[:, i], y == i)),
            "average_precision": average_precision(probabilities[:, i], y == i),
        }
        for i, name in enumerate(classes)
    }


def _bins_as_rows(bins: Reliability) -> list[dict[str, Any]]:
    return [
        {
            "above": float(bins.edges[i]),
            "to": float(bins.edges[i + 1]),
            "rows": int(count),
            "confidence": float(bins.confidence[i]) if count else None,
            "accuracy": float(bins.accuracy[i]) if count else None,
        }
        for i, count in enumerate(bins.count)
    ]


def _low_and_high(ends: tuple[float, float] | None) -> dict[str, float] | None:
    return None if ends is None else {"low": ends[0], "high": ends[1]}


def _ratio(part: np.integer[Any], whole: np.integer[Any]) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _check(probabilities: np.ndarray, y: np.ndarray, classes: int) -> None:
    if probabilities.shape != (len(y), classes) or classes < 2 or not len(y):
        raise ValueError(f"probabilities of shape {probabilities.shape} do not fit {len(y)} rows of {classes} classes")
    if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError("probabilities must be between 0 and 1")
    if np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3:  # far above the rounding error of a thousand classes
        raise ValueError("the probabilities of each row must sum to 1")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"true classes must be indices below {classes}")
