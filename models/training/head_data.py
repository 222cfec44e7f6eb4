"""The data for fitting a head: rows of features, their labels, and the split into training and held-out part.

Features may be a memory map: `Rows` fetches only requested rows, so data larger than memory can be streamed.
Not here: fitting (`fit_head.py`, `fit_mlp.py`), and metrics (`head_metrics.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ROWS_A_STEP = 4096  # most rows in float64 at a time
VALUES_A_STEP = 2**21  # most values in float64 at a time, 16 MB, however wide the rows
FEWEST_ROWS = 64


class FitError(ValueError):
    """A head cannot be fitted on this input; the message names the fault and the cure."""


class Rows:
    """Some rows of an array, which may be a memory map: fetched on request, never all at once.

    Args:
        array: (n, d) floats, or (n,) text.
        rows: the selected rows, in order; None selects all.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray | None = None) -> None:
        self._array, self._rows = array, rows

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._array.shape[1:])

    def __len__(self) -> int:
        return len(self._array) if self._rows is None else len(self._rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Returns these rows (a slice or indices) as a plain array."""
        return np.asarray(self._array[rows if self._rows is None else self._rows[rows]])

    def of(self, rows: np.ndarray) -> Rows:
        """Returns some of these rows, still not fetched."""
        return Rows(self._array, rows if self._rows is None else self._rows[rows])

    @property
    def step(self) -> int:
        """The number of rows that `steps` yields at a time."""
        return min(ROWS_A_STEP, max(FEWEST_ROWS, VALUES_A_STEP // max((1, *self.shape[1:]))))

    def steps(self) -> Iterator[np.ndarray]:
        """Yields all rows in order, a few thousand at a time, or fewer if rows are wide."""
        for start in range(0, len(self), self.step):
            yield self[start : start + self.step]


@dataclass(frozen=True, slots=True)
class Votes:
    """Labels as shares: annotators' votes, or another network's answer.

    Attributes:
        shares: (n, c) float32, rows that sum to 1.
        classes: c names, in the order of the table; ties in votes go to the first.
        reject: those of them that mean "no label".
    """

    shares: np.ndarray
    classes: tuple[str, ...]
    reject: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Blend:
    """True labels with shares blended in for learning: votes soften noisy labels.

    Attributes:
        labels: n names.
        shares: (n, c) float32, rows that sum to 1, or to 0 if only the label is known.
        classes: c names, each of them a label.
        weight: of the shares in the targets, from 0 to 1; the label has the rest.
    """

    labels: Sequence[str]
    shares: np.ndarray
    classes: tuple[str, ...]
    weight: float


Labels = Sequence[str] | Votes | Blend


@dataclass(frozen=True, slots=True)
class Answers:
    """The labels of rows.

    Attributes:
        classes: k names, alphabetical.
        reject: r names, alphabetical.
        y: (n,) the truth, an index into classes followed by reject: the label, or the class with most votes.
        shares: (n, k + r) float32, the targets; None if these are just the labels.
    """

    classes: tuple[str, ...]
    reject: tuple[str, ...]
    y: np.ndarray
    shares: np.ndarray | None

    def of(self, rows: np.ndarray) -> Answers:
        """Returns the labels of these rows."""
        return Answers(self.classes, self.reject, self.y[rows], None if self.shares is None else self.shares[rows])

    @property
    def ordinary(self) -> np.ndarray:
        """(n,) bool: True if the truth is not a reject class."""
        return np.asarray(self.y < len(self.classes))

    @property
    def targets(self) -> np.ndarray:
        """(n, k + r) float32 shares; one-hot labels if there are no shares."""
        if self.shares is not None:
            return self.shares
        return np.asarray(np.eye(len(self.classes) + len(self.reject), dtype=np.float32)[self.y])


@dataclass(frozen=True, slots=True)
class Part:
    """Rows and their labels."""

    features: Rows
    answers: Answers

    def __len__(self) -> int:
        return len(self.features)

    def of(self, rows: np.ndarray) -> Part:
        """Returns these rows, still not fetched."""
        return Part(self.features.of(rows), self.answers.of(rows))

    def judged(self, *, by_labels: bool) -> Part:
        """Returns the part as it is judged: by its labels, whatever shares were learned, if it has any."""
        return replace(self, answers=replace(self.answers, shares=None)) if by_labels else self


@dataclass(frozen=True, slots=True)
class Parts:
    """The training part, the held-out part for choices and metrics, and a description of the split."""

    train: Part
    held: Part
    split: dict[str, Any]


def parts_of(
    features: np.ndarray | Rows,
    labels: Labels,
    *,
    validation: tuple[np.ndarray | Rows, Labels] | None,
    holdout: float,
    groups: Sequence[Any] | np.ndarray | None,
    seed: int,
) -> Parts:
    """Returns training and held-out part; see `fit_head.fit_linear_head` for the arguments.

    Raises:
        FitError: labels are missing, there is one class only, a class is too small to split, or values are not finite.
    """
    whole = whole_part(features, labels)
    if not 0 < holdout < 1:
        raise FitError(f"holdout must be between 0 and 1, not {holdout}")
    if validation is None:
        labelled = not isinstance(labels, Votes)
        train_rows, held_rows = _dealt(whole, holdout=holdout, groups=groups, seed=seed, hard=labelled)
        grouped = "equal features" if groups is None else "given"
        split = {"kind": "holdout", "holdout": holdout, "seed": seed, "groups": grouped}
        train, held = whole.of(train_rows), whole.of(held_rows).judged(by_labels=labelled)
    else:
        held_features = validation[0] if isinstance(validation[0], Rows) else Rows(validation[0])
        train, held = whole, Part(held_features, _known_answers(validation[1], whole.answers, len(held_features)))
        _check_features(held_features, "validation features")
        width = whole.features.shape[1]
        if held_features.shape[1] != width:
            raise FitError(f"validation features have width {held_features.shape[1]}, training has {width}")
        split = {"kind": "given"}
    _check_votes(train, held)
    return Parts(train, held, split | {"train": len(train), "held_out": len(held)})


def whole_part(features: np.ndarray | Rows, labels: Labels) -> Part:
    """Returns all rows and their labels.

    Raises:
        FitError: labels are missing, there is one class only, or values are not finite.
    """
    rows = features if isinstance(features, Rows) else Rows(features)
    answers = _answers(labels, len(rows))
    _check_features(rows, "features")
    return Part(rows, answers)


# --- answers ----------------------------------------------------------------------------------------------------------


def _answers(labels: Labels, rows: int) -> Answers:
    if isinstance(labels, Votes):
        return _answers_of_votes(labels, rows)
    if isinstance(labels, Blend):
        return _blended(_answers(labels.labels, rows), labels, rows)
    _check_labels(labels, rows, "labels")
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise FitError(f"all {rows} labels are {classes[0]!r}; a head needs two classes or more")
    return Answers(classes, (), _indices(labels, classes), None)


def _blended(answers: Answers, blend: Blend, rows: int) -> Answers:
    """Returns the labels with the shares blended in."""
    if not 0 <= blend.weight <= 1:
        raise FitError(f"the weight of the shares must be from 0 to 1, not {blend.weight}")
    if blend.shares.shape != (rows, len(blend.classes)):
        raise FitError(f"shares have shape {blend.shares.shape}, expected {(rows, len(blend.classes))}")
    if unknown := sorted(set(blend.classes) - set(answers.classes)):
        raise FitError(f"shares have classes that no label has: {', '.join(unknown)}")
    sums = blend.shares.sum(axis=1)
    known = sums > 0
    if not np.isfinite(sums).all() or (blend.shares < 0).any() or np.abs(sums[known] - 1).max(initial=0) > 1e-3:
        raise FitError("shares must sum to 1 in every row, or to 0")
    weights = np.where(known, np.float32(blend.weight), np.float32(0))[:, None]
    targets = answers.targets * (1 - weights)
    places = [answers.classes.index(name) for name in blend.classes]
    targets[:, places] += blend.shares * weights
    return replace(answers, shares=targets.astype(np.float32))


def _known_answers(labels: Labels, train: Answers, rows: int) -> Answers:
    """Returns the labels of validation rows, whose classes must occur in training."""
    if isinstance(labels, Votes):
        found = _answers_of_votes(labels, rows)
        if (found.classes, found.reject) != (train.classes, train.reject):
            raise FitError("validation has votes for other classes than training; use the same table for both")
        return found
    if isinstance(labels, Blend):
        labels = labels.labels
    _check_labels(labels, rows, "labels")
    if unknown := sorted(set(labels) - set(train.classes)):
        raise FitError(f"validation has classes that training does not have: {', '.join(unknown)}")
    return Answers(train.classes, train.reject, _indices(labels, train.classes), None)


def _answers_of_votes(votes: Votes, rows: int) -> Answers:
    if rows == 0:
        raise FitError("there are no rows to train on or to choose by; add images")
    if votes.shares.shape != (rows, len(votes.classes)):
        raise FitError(f"votes have shape {votes.shares.shape}, expected {(rows, len(votes.classes))}")
    if not np.isfinite(votes.shares).all() or np.abs(votes.shares.sum(axis=1) - 1).max() > 1e-3:
        raise FitError("votes must be shares that sum to 1 in every row")
    classes = tuple(sorted(set(votes.classes) - set(votes.reject)))
    if unknown := sorted(set(votes.reject) - set(votes.classes)):
        raise FitError(f"the votes have no class {', '.join(unknown)} to reject; known: {', '.join(votes.classes)}")
    if len(classes) < 2:
        raise FitError("the votes have fewer than two classes besides the reject classes; a head needs two")
    reject = tuple(sorted(set(votes.reject)))
    places = [votes.classes.index(name) for name in (*classes, *reject)]
    new_place = np.argsort(places)  # the new index of each column of the table
    leading = votes.shares.argmax(axis=1)  # ties go to the first in the table's order
    return Answers(classes, reject, new_place[leading].astype(np.int64), votes.shares[:, places].astype(np.float32))


def _indices(labels: Sequence[str], classes: tuple[str, ...]) -> np.ndarray:
    place = {name: i for i, name in enumerate(classes)}
    return np.asarray([place[name] for name in labels], dtype=np.int64)


def _check_labels(labels: Sequence[str], rows: int, what: str) -> None:
    if rows == 0:
        raise FitError("there are no rows to train on or to choose by; add images")
    if len(labels) != rows:
        raise FitError(f"{len(labels)} {what} for {rows} rows of features")
    missing = [row for row, label in enumerate(labels) if not isinstance(label, str) or not label]
    if missing:
        raise FitError(f"{len(missing)} of {rows} {what} are missing (the first in row {missing[0]}); drop those rows")


def _check_votes(train: Part, held: Part) -> None:
    if not held.answers.ordinary.any():
        raise FitError("no held-out row has most votes for an ordinary class, so nothing can be chosen; add images")
    if train.answers.shares is None:
        return
    names = (*train.answers.classes, *train.answers.reject)
    given = train.answers.shares.sum(axis=0)
    if silent := [name for name, votes in zip(names, given, strict=True) if votes <= 0]:
        raise FitError(f"no training row has a vote for {', '.join(silent)}; drop that class or add images")


def _check_features(features: Rows, what: str) -> None:
    if len(features.shape) != 2 or features.shape[1] == 0 or features.dtype.kind != "f":
        raise FitError(f"{what} must be floats of shape (rows, width), not {features.dtype} {features.shape}")
    for number, values in enumerate(features.steps()):
        sound = np.isfinite(values).all(axis=1)
        if not sound.all():
            row = number * features.step + int(np.argmin(sound))
            raise FitError(f"row {row} of the {what} is not finite; drop it or compute it again")


# --- the split --------------------------------------------------------------------------------------------------------


def _dealt(
    whole: Part, *, holdout: float, groups: Sequence[Any] | np.ndarray | None, seed: int, hard: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the training part and of the held-out part, ascending. Groups are split, not rows.

    A group belongs to the class of its first row. If only one group belongs to a class, that group is trained on; if
    every row has a label, such a class is refused.
    """
    from sklearn.model_selection import train_test_split

    y, names = whole.answers.y, (*whole.answers.classes, *whole.answers.reject)
    group = group_of(whole.features, groups)
    first_row = np.unique(group, return_index=True)[1]
    kind = y[first_row]
    sizes = np.bincount(kind, minlength=len(names))
    small = [name for name, size in zip(names, sizes, strict=True) if size < 2]
    if small and hard:
        raise FitError(
            f"fewer than two different examples of {', '.join(small)}, but one must train and another validate; "
            "add images, drop the class, or give a validation set"
        )
    dealt = np.flatnonzero(sizes[kind] > 1)
    try:
        _, held = train_test_split(dealt, test_size=holdout, random_state=seed, stratify=kind[dealt])
    except ValueError as e:
        examples = f"{len(first_row)} different examples of {len(names)} classes"
        raise FitError(f"{examples} cannot be split at holdout {holdout}; add images or give a validation set") from e
    is_held = np.isin(group, held)
    train = np.flatnonzero(~is_held)
    lost = [name for i, name in enumerate(names) if sizes[i] and not (y[train] == i).any()]
    if lost:
        raise FitError(f"no example of {', '.join(lost)} is left to train on; use a smaller holdout or add images")
    return train, np.flatnonzero(is_held)


def group_of(features: Rows, groups: Sequence[Any] | np.ndarray | None) -> np.ndarray:
    """Returns (n,) group numbers, counted by first appearance."""
    if groups is not None and len(groups) != len(features):
        raise FitError(f"{len(groups)} groups for {len(features)} rows of features")
    rows = (row for step in features.steps() for row in step) if groups is None else groups
    keys = (row.tobytes() if isinstance(row, np.ndarray) else row for row in rows)
    numbers: dict[Any, int] = {}
    return np.asarray([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


# --- standardisation --------------------------------------------------------------------------------------------------


def standardisation(features: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and scale, (d,) float64; the scale of a constant feature is 1."""
    mean = sum(step.astype(np.float64).sum(axis=0) for step in features.steps()) / len(features)
    squares = sum(((step.astype(np.float64) - mean) ** 2).sum(axis=0) for step in features.steps())
    scale = np.sqrt(squares / len(features))
    # a scale below float16's resolution is rounding, not information; Keras divides by 1e-7 at least
    return mean, np.where(scale > 1e-6 * np.maximum(1.0, np.abs(mean)), scale, 1.0)


def standardised(features: Rows, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Returns (n, d) float32, all in memory.

    Compared with float64: half the memory, 0.6 of the time, and the same labels on 28,709 rows.
    """
    out = np.empty(features.shape, np.float32)
    start = 0
    for step in features.steps():
        out[start : start + len(step)] = step
        start += len(step)
    out -= mean.astype(np.float32)
    out /= scale.astype(np.float32)
    return out
