"""Metrics of a head on held-out rows, and the temperature that calibrates its probabilities.

With reject classes, accuracy and all metrics of the classes count only rows whose truth is an ordinary class, with
probabilities given that it is one. The reject score is measured by the area under its ROC curve over all held-out rows,
where positive rows are those whose truth is a reject class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from models.evaluation.metrics import area, balanced_accuracy, confusion_matrix, roc_curve
from models.heads.outputs import reject_share, softmax
from models.heads.registry import StoredHead
from models.training.head_data import Part

ECE_BINS = 15  # as in Guo et al. 2017 (arXiv:1706.04599), where temperature scaling comes from
TEMPERATURES = (0.05, 20.0)  # a separable held-out part would send the temperature to 0


def calibrated(
    head: StoredHead, held: Part, split: dict[str, Any], *, unit: float = 1.0, logits: np.ndarray | None = None
) -> tuple[StoredHead, dict[str, Any]]:
    """Returns the head with the temperature that fits the held-out part, and its metrics there.

    Args:
        unit: typical size, for scores that are not logits; temperatures are tried in this unit.
        logits: (n, k + r) of the held-out rows, by heads that have not seen them; None takes those of this head.
    """
    if logits is None:
        logits = np.concatenate([head.logits(step) for step in held.features.steps()])
    k, ordinary, y = len(head.classes), held.answers.ordinary, held.answers.y
    own, truth = logits[ordinary, :k], y[ordinary]
    temperature = temperature_of(logits, held, unit=unit)
    before = metrics_of(softmax(own), truth, head.classes)
    metrics = metrics_of(softmax(own / temperature), truth, head.classes)
    metrics |= {"ece_uncalibrated": before["ece"], "nll_uncalibrated": before["nll"]}
    if held.answers.shares is not None:
        metrics["truth"] = "most votes; ties go to the first column of the table"
    if head.reject:
        score = reject_share(logits / temperature, k)
        metrics["counted"] = "rows whose truth is not a reject class"
        metrics["reject"] = {"rows": int((~ordinary).sum()), "auc": area(roc_curve(score, ~ordinary))}
    return replace(head, temperature=temperature, metrics=metrics, split=split), metrics


def accuracy_of(logits: np.ndarray, part: Part) -> float:
    """Returns the share of rows labelled correctly by (n, k + r) logits, among those of an ordinary class."""
    ordinary = part.answers.ordinary
    predicted = logits[ordinary, : len(part.answers.classes)].argmax(axis=1)
    return float((predicted == part.answers.y[ordinary]).mean()) if ordinary.any() else 0.0


def balanced_accuracy_of(logits: np.ndarray, part: Part) -> float:
    """Returns the plain mean of that share over the classes that occur, so that each class counts equally."""
    ordinary, k = part.answers.ordinary, len(part.answers.classes)
    predicted = logits[ordinary, :k].argmax(axis=1)
    return float(balanced_accuracy(confusion_matrix(part.answers.y[ordinary], predicted, k)))


def temperature_of(logits: np.ndarray, held: Part, *, unit: float = 1.0) -> float:
    """Returns the temperature, to six digits, that fits (n, k + r) logits to rows whose truth is an ordinary class.

    Args:
        unit: as in `calibrated`.
    """
    ordinary, k = held.answers.ordinary, len(held.answers.classes)
    return float(f"{fit_temperature(logits[ordinary, :k] / unit, held.answers.y[ordinary]) * unit:.6g}")


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Returns the temperature, from 0.05 to 20, with the smallest cross-entropy of the truth under (n, k) logits.

    Args:
        truth: (n,) class indices, or (n, k) shares that sum to 1.
    """
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped,unused-ignore]

    found = minimize_scalar(
        lambda log_t: _nll_of_logits(logits / np.exp(log_t), truth), bounds=np.log(TEMPERATURES), method="bounded"
    )
    return float(np.round(np.exp(found.x), 6))


def _nll_of_logits(logits: np.ndarray, truth: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    of_truth = shifted[np.arange(len(truth)), truth] if truth.ndim == 1 else (shifted * truth).sum(axis=1)
    return float((np.log(np.exp(shifted).sum(axis=1)) - of_truth).mean())


def _nll(probabilities: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-12)).mean())


def metrics_of(probabilities: np.ndarray, y: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns metrics, fit for JSON.

    rows, accuracy, macro_f1 (over the classes that occur), majority_baseline, nll, ece, confusion (true by
    predicted, counts), and by_class: rows, precision, recall; None where nothing was predicted or nothing occurs.

    Args:
        probabilities: (n, k).
        y: (n,) true class indices.
    """
    k = len(classes)
    predicted = probabilities.argmax(axis=1)
    confusion = np.bincount(y * k + predicted, minlength=k * k).reshape(k, k)
    hits, occurs, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = 2 * hits / np.maximum(occurs + predicted, 1)
    by_class = {
        name: {"rows": int(occurs[i]), "precision": _ratio(hits[i], predicted[i]), "recall": _ratio(hits[i], occurs[i])}
        for i, name in enumerate(classes)
    }
    return {
        "rows": len(y),
        "accuracy": float(hits.sum() / len(y)),
        "macro_f1": float(f1[occurs > 0].mean()),
        "majority_baseline": float(occurs.max() / len(y)),
        "nll": _nll(probabilities, y),
        "ece": expected_calibration_error(probabilities, y),
        "by_class": by_class,
        "confusion": confusion.tolist(),
    }


def _ratio(part: np.integer[Any], whole: np.integer[Any]) -> float | None:
    return float(part / whole) if whole else None


def expected_calibration_error(probabilities: np.ndarray, y: np.ndarray, bins: int = ECE_BINS) -> float:
    """Returns the mean gap between confidence and accuracy over equal bins of confidence, weighted by rows."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # bins are open below: (0.2, 0.4]
    gaps = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(y))
