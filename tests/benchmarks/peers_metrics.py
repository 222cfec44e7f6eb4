"""Figures of merit for labels.py, by scikit-learn and plain numpy: none of the program's own code judges the program.

Shapes: `y` (n,) true class indices, `probabilities` (n, k). Classes that do not occur are left out of macro F1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15  # of confidence, of equal width, for the calibration error
DRAWS = 1000  # of the bootstrap
THRESHOLDS = np.linspace(0, 1, 51)  # those that are tried; as in the README beside the others' networks


@dataclass(frozen=True)
class Judged:
    """How good the labels of a set are.

    Attributes:
        images: how many.
        accuracy, low, high: share of right labels, and the ends of its 95 % bootstrap interval.
        macro_f1: mean over the classes that occur.
        calibration_error: expected calibration error of the confidence in the label given.
        by_class: F1 of each class, None where it does not occur.
    """

    images: int
    accuracy: float
    low: float
    high: float
    macro_f1: float
    calibration_error: float
    by_class: tuple[float | None, ...]

    @property
    def interval(self) -> str:
        return f"{self.low:.3f} … {self.high:.3f}"


def judge(probabilities: np.ndarray, y: np.ndarray) -> Judged:
    """Returns the figures of the most probable class against the true one; true classes may lie beyond k."""
    from sklearn.metrics import f1_score

    said = probabilities.argmax(axis=1)
    right = said == y
    classes = range(probabilities.shape[1])
    f1 = f1_score(y, said, labels=list(classes), average=None, zero_division=0)
    occurs = np.isin(list(classes), y)
    low, high = interval(right)
    return Judged(
        len(y),
        float(right.mean()),
        low,
        high,
        float(f1[occurs].mean()),
        calibration_error(probabilities.max(axis=1), right),
        tuple(float(value) if there else None for value, there in zip(f1, occurs, strict=True)),
    )


def interval(right: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of the mean over rows drawn with replacement.

    The number of right ones among n drawn rows is binomial, so that is what is drawn.
    """
    drawn = np.random.default_rng(seed).binomial(len(right), right.mean(), DRAWS) / len(right)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Returns the gap between confidence and accuracy, a mean over equal bins of confidence, weighted by rows."""
    edges = np.linspace(0, 1, BINS + 1)
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    gaps = [abs(confidence[bin_of == i].sum() - right[bin_of == i].sum()) for i in range(BINS)]
    return float(sum(gaps) / len(right))


@dataclass(frozen=True)
class YesOrNo:
    """How well one probability answers a yes-or-no question.

    Attributes:
        auc: chance that a yes gets more than a no.
        low, high: ends of its 95 % interval, by Hanley and McNeil's standard error.
        at_argmax: share of right answers if the most probable class decides.
        at_best: the same at the best of `THRESHOLDS`, chosen on these very images: flattering.
        threshold: that threshold.
    """

    auc: float
    low: float
    high: float
    at_argmax: float
    at_best: float
    threshold: float


def yes_or_no(probability: np.ndarray, said: np.ndarray, positive: np.ndarray) -> YesOrNo:
    """Returns the figures of (n,) probabilities and (n,) bool answers against (n,) bool truths."""
    from sklearn.metrics import roc_auc_score

    auc = float(roc_auc_score(positive, probability))
    right = [float(((probability >= threshold) == positive).mean()) for threshold in THRESHOLDS]
    best = int(np.argmax(right))
    half = 1.96 * _standard_error(auc, int(positive.sum()), int((~positive).sum()))
    at_argmax = float((said == positive).mean())
    return YesOrNo(auc, auc - half, min(1.0, auc + half), at_argmax, right[best], float(THRESHOLDS[best]))


def _standard_error(auc: float, yes: int, no: int) -> float:
    """Hanley and McNeil 1982."""
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (yes - 1) * (one - auc**2) + (no - 1) * (two - auc**2)) / (yes * no)
    return float(np.sqrt(variance))
