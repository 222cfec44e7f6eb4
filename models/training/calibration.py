"""One temperature for a head on other images than it was trained on, with what it brings there by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.degree import cross_entropy, degree_correlation, degree_error
from models.evaluation.metrics import log_loss
from models.heads.outputs import softmax
from models.training.head_metrics import expected_calibration_error, fit_temperature

DRAWS = 1000  # of the bootstrap
INTERVAL = (2.5, 97.5)  # percent

Metric = Callable[[np.ndarray, np.ndarray], float]  # of probabilities (n, k) against the truth
OF_CLASSES: dict[str, Metric] = {"ece": expected_calibration_error, "nll": log_loss}
OF_SHARES: dict[str, Metric] = {"ece": degree_error, "nll": cross_entropy, "correlation": degree_correlation}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a temperature brings.

    Attributes:
        factor: by which the head's own temperature is multiplied, fitted on all rows.
        by_fold: the same, fitted on the rows outside each fold.
        metrics: for JSON: `rows`, `accuracy`, and `ece` and `nll` before and after, each with its 95 % interval, and
            the interval of the difference. After is judged by cross-validation: each row by a factor that has not
            seen its group. Against shares, `accuracy` is that of the class with the largest share, `ece` the gap of
            confidence and the label's share, `nll` the cross-entropy; `correlation` is of confidence and that share.
    """

    factor: float
    by_fold: tuple[float, ...]
    metrics: dict[str, Any]


def calibrate(logits: np.ndarray, truth: np.ndarray, groups: np.ndarray, *, folds: int, seed: int) -> Calibration:
    """Returns the temperature with the smallest cross-entropy, and what it brings.

    Args:
        logits: (n, k), already divided by the head's own temperature.
        truth: (n,) true classes, or (n, k) shares of the classes that sum to 1.
        groups: (n,) numbers; copies of an image share one and stay in one fold.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    fold = _dealt(groups, folds, seed)
    factors = [fit_temperature(logits[fold != number], truth[fold != number]) for number in range(folds)]
    before = softmax(logits)
    after = softmax(logits / np.asarray(factors)[fold][:, None])
    y = truth if truth.ndim == 1 else truth.argmax(axis=1)
    metrics = {
        "rows": len(truth),
        "accuracy": float((before.argmax(axis=1) == y).mean()),
        **{
            name: _compared(before, after, truth, seed, metric)
            for name, metric in (OF_CLASSES if truth.ndim == 1 else OF_SHARES).items()
        },
    }
    return Calibration(fit_temperature(logits, truth), tuple(factors), metrics)


def _dealt(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns (n,) the fold of each row; groups stay whole."""
    names, number = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"{folds} folds need as many different images, there are {len(names)}")
    of_group = np.arange(len(names)) % folds
    np.random.default_rng(seed).shuffle(of_group)
    return np.asarray(of_group[number])


def _compared(before: np.ndarray, after: np.ndarray, truth: np.ndarray, seed: int, metric: Metric) -> dict[str, Any]:
    """Returns a metric of both, and their difference, with intervals over the same resampled rows."""
    draw = np.random.default_rng(seed)
    drawn = []
    for _ in range(DRAWS):
        rows = draw.integers(0, len(truth), len(truth))
        drawn.append((metric(before[rows], truth[rows]), metric(after[rows], truth[rows])))
    one, two = np.asarray(drawn).T
    values = {
        "before": (metric(before, truth), one),
        "after": (metric(after, truth), two),
        "difference": (metric(after, truth) - metric(before, truth), two - one),
    }
    return {name: _with_interval(value, many) for name, (value, many) in values.items()}


def _with_interval(value: float, drawn: Sequence[float] | np.ndarray) -> dict[str, float]:
    low, high = np.percentile(drawn, INTERVAL)
    return {"value": float(value), "low": float(low), "high": float(high)}
