"""Rows for choosing by folds: each is held out once, and the final head learns from all of them.

Few images are too few to hold some back for good. Not here: testing a head by folds (`folds.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.training.groups import fold_of
from models.training.head_data import FitError, Labels, Part, Parts, Rows, Votes, group_of, whole_part


@dataclass(frozen=True, slots=True)
class Folded:
    """Rows dealt into folds.

    Attributes:
        whole: all rows, with what is learned.
        held: all rows, as they are judged.
        fold: (n,) the fold that holds a row out, from 0.
        split: the same in words, for the record.
    """

    whole: Part
    held: Part
    fold: np.ndarray
    split: dict[str, Any]

    def parts(self) -> Iterator[tuple[np.ndarray, Parts]]:
        """Yields, fold by fold, the rows held out, and training and held-out part."""
        for number in range(self.split["folds"]):
            held, rest = np.flatnonzero(self.fold == number), np.flatnonzero(self.fold != number)
            yield held, Parts(self.whole.of(rest), self.held.of(held), self.split)


def folded(
    features: np.ndarray | Rows,
    labels: Labels,
    *,
    folds: int,
    groups: Sequence[Any] | np.ndarray | None,
    seed: int,
) -> Folded:
    """Returns the rows dealt into folds; see `fit_head.fit_linear_head` for the arguments.

    Raises:
        FitError: as `head_data.parts_of`, or there are too few groups, or a class is in one fold alone.
    """
    whole = whole_part(features, labels)
    held = whole.judged(by_labels=not isinstance(labels, Votes))
    fold = fold_of(whole.answers.y, group_of(whole.features, groups), folds, seed)
    names = (*whole.answers.classes, *whole.answers.reject)
    targets = whole.answers.targets
    for number in range(folds):
        given = targets[fold != number].sum(axis=0)
        if alone := [name for name, share in zip(names, given, strict=True) if share <= 0]:
            raise FitError(f"without fold {number} nothing is left of {', '.join(alone)}; add images or drop the class")
    if not held.answers.ordinary.any():
        raise FitError("no row has most votes for an ordinary class, so nothing can be chosen; add images")
    grouped = "equal features" if groups is None else "given"
    split = {"kind": "folds", "folds": folds, "seed": seed, "groups": grouped}
    return Folded(whole, held, fold, split | {"train": len(whole), "held_out": len(whole)})
