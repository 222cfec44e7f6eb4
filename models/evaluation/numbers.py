"""Metrics of predicted numbers against true ones, with 95 % intervals over resampled groups."""

from __future__ import annotations

from typing import Any

import numpy as np

DRAWS = 1000
INTERVAL = (2.5, 97.5)  # percent


def evaluate_numbers(predicted: np.ndarray, true: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Returns metrics for JSON.

    rows, groups; `r2`: the share of the variance that the predictions explain, 1 at best, 0 for always the mean of
    these rows; `mae` and `rmse`, in the numbers' unit; `correlation` (Pearson); `mae_of_median`: of always the median.
    The first four have a 95 % interval. One that is undefined, as all true numbers are equal, is None.

    Args:
        predicted, true: (n,), n > 0. groups: (n,) numbers; rows of a group are drawn together.
    """
    sums = _sums_by_group(predicted, true, groups)
    draw = np.random.default_rng(seed)
    drawn = [_metrics(sums[draw.integers(0, len(sums), len(sums))].sum(axis=0)) for _ in range(DRAWS)]
    found = _metrics(sums.sum(axis=0))
    return {
        "rows": len(true),
        "groups": len(sums),
        **{name: _with_interval(found[name], [one[name] for one in drawn]) for name in found},
        "mae_of_median": float(np.abs(true - np.median(true)).mean()),
    }


def r_squared(predicted: np.ndarray, true: np.ndarray) -> float | None:
    """Returns 1 less the squared errors as a share of the squared distances from the mean."""
    return _metrics(_sums_by_group(predicted, true, np.zeros(len(true), np.int64))[0])["r2"]


def _sums_by_group(predicted: np.ndarray, true: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns (groups, 8) sums over each group's rows, from which all metrics follow."""
    centre = true.mean()  # sums of squares then lose no digits
    p, t = predicted - centre, true - centre
    columns = (np.ones(len(t)), t, t * t, p, p * p, p * t, np.abs(p - t), (p - t) ** 2)
    number = np.unique(groups, return_inverse=True)[1]
    return np.stack([np.bincount(number, column) for column in columns], axis=1)


def _metrics(sums: np.ndarray) -> dict[str, float | None]:
    n, t, tt, p, pp, pt, away, squared = sums.tolist()
    of_true, of_predicted = tt - t * t / n, pp - p * p / n
    both = of_true * of_predicted
    return {
        "r2": 1 - squared / of_true if of_true > 0 else None,
        "mae": away / n,
        "rmse": (squared / n) ** 0.5,
        "correlation": (pt - p * t / n) / both**0.5 if both > 0 else None,
    }


def _with_interval(value: float | None, drawn: list[float | None]) -> dict[str, float] | None:
    known = [one for one in drawn if one is not None]
    if value is None or not known:
        return None
    low, high = np.percentile(known, INTERVAL)
    return {"value": value, "low": float(low), "high": float(high)}
