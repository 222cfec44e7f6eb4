"""Fits a head that gives a number: ridge regression on features, its strength chosen on held-out groups.

As with heads of classes, the saved head is the measured one: it is trained on the training part alone. With
`select_folds` it learns from all rows, and the figures are those of heads that learned from the other folds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.evaluation.numbers import evaluate_numbers
from models.heads.folder import FORMAT_VERSION, HEAD_JSON, HEAD_NPZ
from models.heads.number import NumberHead
from models.training.head_data import FitError, Rows, standardisation, standardised
from models.training.head_files import npz_bytes

ALPHAS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # per row; a feature's variance is 1
FEWEST = 20  # rows


@dataclass(frozen=True, slots=True)
class FittedNumber:
    """A trained head of a number.

    Attributes:
        head: not bound to features before `number_files`.
        alpha: the strength chosen on the held-out part.
        sweep: a row for each strength: alpha, train_mae, mae.
    """

    head: NumberHead
    alpha: float
    sweep: tuple[dict[str, float], ...]


def fit_number_head(
    name: str,
    features: Rows,
    values: np.ndarray,
    groups: np.ndarray,
    *,
    validation: tuple[Rows, np.ndarray, np.ndarray] | None = None,
    holdout: float = 0.2,
    select_folds: int | None = None,
    seed: int = 0,
    alphas: Sequence[float] = ALPHAS,
) -> FittedNumber:
    """Returns the ridge regression whose strength has the smallest squared error on the held-out part.

    Ties go to the strongest. The same input gives the same bytes.

    Args:
        name: of the number.
        features: (n, d). values: (n,) finite. groups: (n,) numbers; rows with the same one stay on one side.
        validation: features, values and groups used to choose and measure; None splits off a part.
        select_folds: instead: choose and measure on so many parts in turn, each by a head that learned from the others,
            and then learn from everything.

    Raises:
        FitError: there are too few rows or groups, or all values are equal.
    """
    if select_folds:
        return _fitted_by_folds(name, features, values, groups, folds=select_folds, seed=seed, alphas=alphas)
    if validation is None:
        held = _held_out(groups, holdout, seed)
        rows, away = np.flatnonzero(~held), np.flatnonzero(held)
        (x, y), (new, truth) = ((features.of(some), values[some]) for some in (rows, away))
        new_groups = groups[away]
        split: dict[str, Any] = {"kind": "holdout", "holdout": holdout, "seed": seed, "groups": "given"}
    else:
        (x, y), (new, truth, new_groups) = (features, values), validation
        split = {"kind": "given"}
    _check_values(y)
    mean, scale = standardisation(x)
    known, unseen = (standardised(rows, mean, scale) for rows in (x, new))
    sweep, heads = [], []
    for alpha, coef in _ridge(known, y, sorted(set(alphas), reverse=True)):
        head = NumberHead(name, coef[None].astype(np.float32), np.array([y.mean()]), mean, scale)
        errors = [rows @ head.coef[0] + y.mean() - wanted for rows, wanted in ((known, y), (unseen, truth))]
        mae, mse = ([float(power(e).mean()) for e in errors] for power in (np.abs, np.square))
        sweep.append({"alpha": alpha, "train_mae": mae[0], "mae": mae[1], "mse": mse[1]})
        heads.append(head)
    best = min(range(len(heads)), key=lambda place: sweep[place]["mse"])
    alpha = sweep[best]["alpha"]
    metrics = evaluate_numbers(unseen @ heads[best].coef[0] + y.mean(), truth, new_groups, seed=seed)
    split |= {"train": len(y), "held_out": len(truth), "alpha": alpha}
    return FittedNumber(replace(heads[best], metrics=metrics, split=split), alpha, tuple(sweep))


def _check_values(y: np.ndarray) -> None:
    if len(y) < FEWEST or np.ptp(y) == 0:
        raise FitError(f"a head of numbers needs at least {FEWEST} different labelled images, and labels that differ")


def _fitted_by_folds(
    name: str,
    features: Rows,
    values: np.ndarray,
    groups: np.ndarray,
    *,
    folds: int,
    seed: int,
    alphas: Sequence[float],
) -> FittedNumber:
    """Returns the fit on all rows with the strength that predicts them best where each is predicted by the others."""
    _check_values(values)
    strengths = sorted(set(alphas), reverse=True)
    fold = _dealt(groups, folds, seed)
    predicted, known = np.zeros((len(strengths), len(values))), np.zeros(len(strengths))
    for number in range(folds):
        rest, away = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        y = values[rest]
        _check_values(y)
        mean, scale = standardisation(features.of(rest))
        x, new = (standardised(features.of(rows), mean, scale) for rows in (rest, away))
        for place, (_, coef) in enumerate(_ridge(x, y, strengths)):
            predicted[place, away] = new @ coef + y.mean()
            known[place] += np.abs(x @ coef + y.mean() - y).mean() / folds
    errors = predicted - values
    sweep = [
        {"alpha": alpha, "train_mae": float(seen), "mae": float(np.abs(e).mean()), "mse": float(np.square(e).mean())}
        for alpha, seen, e in zip(strengths, known, errors, strict=True)
    ]
    best = min(range(len(sweep)), key=lambda place: sweep[place]["mse"])
    mean, scale = standardisation(features)
    ((alpha, coef),) = _ridge(standardised(features, mean, scale), values, [strengths[best]])
    head = NumberHead(name, coef[None].astype(np.float32), np.array([values.mean()]), mean, scale)
    split = {"kind": "folds", "folds": folds, "seed": seed, "groups": "given", "train": len(values)}
    split |= {"held_out": len(values), "alpha": alpha}
    metrics = evaluate_numbers(predicted[best], values, groups, seed=seed)
    return FittedNumber(replace(head, metrics=metrics, split=split), alpha, tuple(sweep))


def cross_validated_numbers(
    name: str, features: Rows, values: np.ndarray, groups: np.ndarray, *, folds: int, seed: int, **how: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (n,) what heads say that have not seen a row's group, and (n,) the fold of each row.

    Raises:
        FitError: there are fewer groups than folds, or a fold cannot be fitted.
    """
    fold = _dealt(groups, folds, seed)
    predicted = np.zeros(len(values))
    for number in range(folds):
        train, judged = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        fitted = fit_number_head(name, features.of(train), values[train], groups[train], seed=seed, **how)
        predicted[judged] = fitted.head.answers(features[judged])[:, 0]
    return predicted, fold


def number_files(fitted: FittedNumber, fingerprint: str, features_description: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns the files of a head by name, in the order in which they are to be published; as `head_files` does."""
    head = fitted.head
    arrays = npz_bytes(head.arrays)
    about = {
        "format_version": FORMAT_VERSION,
        "kind": "number",
        "fitted_by": "ridge",
        "number": head.name,
        "classes": [],
        "feature_space": fingerprint,
        "features": features_description,
        "split": head.split,
        "metrics": head.metrics,
        "sweep": list(fitted.sweep),
        "sha256": hashlib.sha256(arrays).hexdigest(),
    }
    text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return {HEAD_NPZ: arrays, HEAD_JSON: text.encode()}


def _ridge(x: np.ndarray, y: np.ndarray, alphas: Sequence[float]) -> list[tuple[float, np.ndarray]]:
    """Returns each alpha with its (d,) coefficients, from the eigenvectors of the smaller of xᵀx and x xᵀ."""
    rows, wanted = x.astype(np.float64), y - y.mean()
    n, d = rows.shape
    wide = d > n
    values, vectors = np.linalg.eigh((rows @ rows.T if wide else rows.T @ rows) / n)
    values = np.maximum(values, 0)  # rounding makes tiny eigenvalues negative
    seen = vectors.T @ (wanted if wide else rows.T @ wanted) / n
    found = []
    for alpha in alphas:
        solved = vectors @ (seen / (values + alpha))
        found.append((float(alpha), rows.T @ solved if wide else solved))
    return found


def _dealt(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns (n,) the fold of each row; groups stay whole, and folds hold about equally many rows."""
    names, number, size = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise FitError(f"{folds} parts need a group each: there are {len(names)} groups")
    order = np.random.default_rng(seed).permutation(len(names))
    of_group, filled = np.empty(len(names), np.int64), np.zeros(folds)
    for group in order[np.argsort(-size[order], kind="stable")]:
        of_group[group] = fold = int(filled.argmin())
        filled[fold] += size[group]
    return np.asarray(of_group[number])


def _held_out(groups: np.ndarray, holdout: float, seed: int) -> np.ndarray:
    """Returns (n,) bool, True for about this share of the rows; groups stay whole."""
    names, number, size = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    share = np.cumsum(size[order]) / len(groups)
    chosen = np.zeros(len(names), bool)
    chosen[order[: max(1, int((share <= holdout).sum()))]] = True
    if len(names) < 2:
        raise FitError("all images belong to one group, so none can be held out; give --validation")
    return np.asarray(chosen[number])
