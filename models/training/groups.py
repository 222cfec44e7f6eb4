"""Which rows belong together, as all rows of a group train or none does, and how groups are dealt into folds."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence

import numpy as np

from models.training.head_data import FitError


def joined(*keys: Sequence[Hashable]) -> np.ndarray:
    """Returns (n,) group numbers, by first appearance: rows belong together if they share any key, also through others.

    Example: `joined([1, 1, 2, 3], ["a", "b", "b", "c"])` is `[0, 0, 0, 1]`: rows 0 and 1 share 1, rows 1 and 2 share
    "b", so 0 and 2 belong together too.

    Args:
        keys: one or more sequences of n keys.
    """
    from scipy.sparse import coo_array  # type: ignore[import-untyped,unused-ignore]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped,unused-ignore]

    rows = len(keys[0])
    numbers: dict[Hashable, int] = {}
    ends = [numbers.setdefault((place, key), rows + len(numbers)) for place, of in enumerate(keys) for key in of]
    starts = np.tile(np.arange(rows), len(keys))
    nodes = rows + len(numbers)
    edges = coo_array((np.ones(len(ends), np.int8), (starts, np.asarray(ends, np.int64))), shape=(nodes, nodes))
    found = connected_components(edges, directed=False)[1][:rows]
    first: dict[int, int] = {}
    return np.asarray([first.setdefault(int(component), len(first)) for component in found], np.int64)


def dealt(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns (n,) the fold of each row, from 0: groups stay whole, and folds have about the same share of classes.

    Raises:
        FitError: there are fewer groups than folds, or a class is missing from a fold or from the rest.
    """
    fold = fold_of(y, groups, folds, seed)
    classes = np.unique(y)
    for number in range(folds):
        here, rest = np.unique(y[fold == number]), np.unique(y[fold != number])
        if len(here) < len(classes) or len(rest) < len(classes):
            raise FitError(f"{folds} folds leave fold {number} or the rest without a class; use fewer folds")
    return fold


def fold_of(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns (n,) the fold of each row as `dealt` does, where a fold may lack a class.

    Raises:
        FitError: there are fewer groups than folds, or every class has fewer rows.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    count = len(np.unique(groups))
    if folds < 2 or count < folds:
        raise FitError(f"{folds} folds need 2 or more, and a group each: there are {count} groups")
    if folds > (most := int(np.unique(y, return_counts=True)[1].max())):
        raise FitError(f"{folds} folds need {folds} rows of a class, but the largest has {most}; use fewer folds")
    fold = np.empty(len(y), np.int64)
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class has fewer rows than there are folds
        for number, (_, judged) in enumerate(splits):
            fold[judged] = number
    return fold
