"""How well a head says the degree of a label: how far its confidence is the share of the votes for that label.

Shapes throughout: `probabilities` (n, k) and `shares` (n, k), rows that sum to about 1. The label of a row is its most
probable class, its confidence the probability of that class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.evaluation.metrics import BINS, DRAWS, INTERVAL, SMALLEST_P, reliability

GROUPS = 1024  # of rows, by chance, that are drawn together: memory and time of the bootstrap do not follow the rows


def share_of_label(probabilities: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Returns (n,), each row's share of the votes for its label."""
    return np.asarray(shares[np.arange(len(shares)), probabilities.argmax(axis=1)])


def degree_error(probabilities: np.ndarray, shares: np.ndarray) -> float:
    """Returns the mean gap between confidence and that share over equal bins of the confidence, weighted by rows."""
    return reliability(probabilities.max(axis=1), share_of_label(probabilities, shares)).expected_error


def degree_correlation(probabilities: np.ndarray, shares: np.ndarray) -> float:
    """Returns Pearson's correlation of confidence and that share; NaN if one of them does not vary."""
    return _pearson(probabilities.max(axis=1), share_of_label(probabilities, shares))


def cross_entropy(probabilities: np.ndarray, shares: np.ndarray) -> float:
    """Returns the mean of -sum(share × ln(probability)) over the classes, in nats."""
    return float(_cross_entropies(probabilities, shares).mean())


def degree(
    probabilities: np.ndarray,
    shares: np.ndarray,
    classes: Sequence[str],
    *,
    seed: int,
    of: str = "confidence",
    labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns metrics for JSON; one that is not defined is None.

    of: the column whose values these are. rows, mean_confidence and mean_share; calibration_error, correlation and
    cross_entropy, each with its 95 % interval over resampled rows (value, low, high); by_class: mean_probability,
    mean_share, and their correlation.

    Args:
        of: `confidence`, or `intensity` where the probabilities are shares that a head states.
        labels: (n,) indices of the labels that were given; None takes the most probable classes. Intensities of several
            classes add up to another sum than their probabilities, so the larger one of two need not be the label.
    """
    rows, given = np.arange(len(shares)), probabilities.argmax(axis=1) if labels is None else labels
    confidence, share = probabilities[rows, given], shares[rows, given]
    draw = np.random.default_rng(seed)
    sums = _sums_by_group(confidence, share, _cross_entropies(probabilities, shares), draw)
    groups = len(sums)
    drawn = draw.multinomial(groups, np.full(groups, 1 / groups), size=DRAWS) @ sums
    figures = {"calibration_error": _error, "correlation": _correlation, "cross_entropy": _mean_cross_entropy}
    return {
        "of": of,
        "rows": len(shares),
        "mean_confidence": float(confidence.mean()),
        "mean_share": float(share.mean()),
        **{name: _with_interval(figure(sums.sum(axis=0)), figure(drawn)) for name, figure in figures.items()},
        "by_class": {
            name: {
                "mean_probability": float(probabilities[:, i].mean()),
                "mean_share": float(shares[:, i].mean()),
                "correlation": _number(_pearson(probabilities[:, i], shares[:, i])),
            }
            for i, name in enumerate(classes)
        },
    }


def _cross_entropies(probabilities: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return np.asarray(-(shares * np.log(np.maximum(probabilities, SMALLEST_P))).sum(axis=1))


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one - one.mean(), other - other.mean()
    both = float((a * a).sum() * (b * b).sum()) ** 0.5
    return float((a * b).sum()) / both if both > 0 else float("nan")


# --- from (..., 7 + BINS) sums: rows, confidence, square, share, square, product, cross-entropy; then gaps by bin -----


def _sums_by_group(
    confidence: np.ndarray, share: np.ndarray, cross_entropies: np.ndarray, draw: np.random.Generator
) -> np.ndarray:
    """Returns (groups, columns) sums over rows; rows are dealt by chance, equally many to each group."""
    count = min(GROUPS, len(share))
    group = draw.permutation(len(share)) % count
    c, s = confidence - confidence.mean(), share - share.mean()  # sums of squares then lose no digits
    columns = (np.ones(len(s)), c, c * c, s, s * s, c * s, cross_entropies)
    bin_of = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(group * BINS + bin_of, confidence - share, count * BINS).reshape(count, BINS)
    return np.column_stack([*(np.bincount(group, column, count) for column in columns), gaps])


def _error(sums: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(sums[..., 7:]).sum(axis=-1) / sums[..., 0])


def _correlation(sums: np.ndarray) -> np.ndarray:
    n, c, cc, s, ss, cs = (sums[..., i] for i in range(6))
    both = (cc - c * c / n) * (ss - s * s / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(both > 0, (cs - c * s / n) / np.sqrt(np.maximum(both, 0)), np.nan))


def _mean_cross_entropy(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 6] / sums[..., 0])


def _with_interval(value: np.ndarray, drawn: np.ndarray) -> dict[str, float] | None:
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return {"value": float(value), "low": float(low), "high": float(high)}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
