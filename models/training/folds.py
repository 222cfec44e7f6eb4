"""Cross-validation of a head: every row is judged once, by a head that has not seen its group.

Each fold chooses strength, epoch and temperature on rows held out from its own training rows, as a final head does.
So nothing about a judged row is known to the head that judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.metrics import evaluate
from models.training.fit_head import Fitted
from models.training.groups import dealt
from models.training.head_data import FitError, Rows

Fit = Callable[[Rows, list[str], np.ndarray], Fitted]


@dataclass(frozen=True, slots=True)
class Folds:
    """What the folds found.

    Attributes:
        classes: k names, alphabetical.
        y: (n,) the true class of each row, an index.
        fold: (n,) the fold that judged the row, from 0.
        probabilities: (n, k) float64 of the head that has not seen the row's group.
        chosen: what each fold chose, such as {"c": 0.01}.
    """

    classes: tuple[str, ...]
    y: np.ndarray
    fold: np.ndarray
    probabilities: np.ndarray
    chosen: tuple[dict[str, float], ...]

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """Returns metrics for JSON: over all rows with 95 % intervals, and a row per fold."""
        right = self.probabilities.argmax(axis=1) == self.y
        each = [
            {"fold": number, "rows": len(judged), "accuracy": float(judged.mean()), "chosen": chosen}
            for number, chosen in enumerate(self.chosen)
            if len(judged := right[self.fold == number])
        ]
        accuracies = np.asarray([right[self.fold == row["fold"]].mean() for row in each], np.float64)
        return {
            "folds": each,
            "accuracy_mean": float(accuracies.mean()),
            "accuracy_sd": float(accuracies.std(ddof=1)),
            "all_rows": evaluate(self.probabilities, self.y, self.classes, seed=seed).metrics,
        }


@dataclass(frozen=True, slots=True)
class Deals:
    """Cross-validations of the same rows. Each deals them into other folds, since one deal alone may be lucky.

    Attributes:
        seeds: of each deal.
        found: what the folds of each deal found.
    """

    seeds: tuple[int, ...]
    found: tuple[Folds, ...]

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """Returns that of the first deal for JSON; with more deals also `repeats`, see below.

        `repeats` has `deals`, a row for each with seed, accuracy and auc_macro, and of both figures mean, low and high:
        the smallest and largest of a deal. No interval follows from them: all deals judge the same rows.
        """
        each = [found.summary(seed) for found in self.found]
        if len(each) == 1:
            return each[0]
        figures = {
            "accuracy": [row["all_rows"]["accuracy"]["value"] for row in each],
            "auc_macro": [row["all_rows"]["auc_macro"] for row in each],
        }
        deals = [
            {"seed": of, "accuracy": accuracy, "auc_macro": area}
            for of, accuracy, area in zip(self.seeds, *figures.values(), strict=True)
        ]
        spread = {
            name: {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}
            for name, values in figures.items()
        }
        return {**each[0], "repeats": {"deals": deals, **spread}}


def cross_validated(
    fit: Fit, features: Rows, labels: Sequence[str], groups: np.ndarray, *, folds: int, seed: int
) -> Folds:
    """Returns what `folds` heads say about rows whose groups they have not seen.

    Args:
        fit: (rows, labels, groups) -> the fitted head; called once per fold.
        features: (n, d).
        labels: n class names.
        groups: (n,) group numbers.

    Raises:
        FitError: the rows cannot be dealt into folds, or a fold cannot be fitted.
    """
    classes = tuple(sorted(set(labels)))
    place = {name: number for number, name in enumerate(classes)}
    y = np.asarray([place[name] for name in labels], np.int64)
    fold = dealt(y, groups, folds, seed)
    probabilities, chosen = np.zeros((len(y), len(classes))), []
    for number in range(folds):
        train, judged = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        fitted = fit(features.of(train), [labels[int(row)] for row in train], groups[train])
        if fitted.head.classes != classes:
            raise FitError(f"fold {number} learned {', '.join(fitted.head.classes)}, not all classes; use fewer folds")
        steps = features.of(judged).steps()
        probabilities[judged] = np.concatenate([fitted.head.probabilities(step) for step in steps])
        chosen.append(dict(fitted.chosen))
    return Folds(classes, y, fold, probabilities, tuple(chosen))
