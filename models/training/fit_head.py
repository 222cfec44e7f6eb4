"""Fits a head on features: logistic regression or ridge with a sweep of the regularisation; calibrates it.

The saved head is the measured one: it is trained only on the training part, not fitted again on everything, so its
temperature and metrics are its own. With `select_folds` it learns from all rows, and its temperature and metrics are
those of heads that learned from the other folds. What chose strength and temperature also measures them, so metrics are
slightly optimistic: quote metrics on a separate test set.

Not here: computing features, applying a head (`models/heads/registry.py`), dense layers (`fit_mlp.py`), the files
of a head (`head_files.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.heads.linear import LinearHead
from models.heads.registry import StoredHead
from models.training.folded import Folded, folded
from models.training.head_data import FitError, Labels, Part, Parts, Rows, parts_of, standardisation, standardised
from models.training.head_metrics import accuracy_of, balanced_accuracy_of, calibrated, temperature_of
from models.training.imbalance import WAYS, balanced_weights, frequencies

CS = (
    1e-4,
    1e-3,
    1e-2,
    1e-1,
    1.0,
    10.0,
)  # inverse strengths; scikit-learn sums the loss over rows, so more rows need a smaller C
ALPHAS = (100.0, 10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # of ridge, per row; a feature's variance is 1
MAX_ITERATIONS = 300  # for each C, starting where the previous C ended
TOLERANCE = 1e-4  # of the gradient of the mean loss: scikit-learn's
LARGEST_SQUARE = 16_384  # rows and columns of the matrix that ridge decomposes: 2 GB of float64

Report = Callable[[dict[str, Any]], None]
Sweep = Callable[[np.ndarray, Part, Sequence[float]], Iterator["_Line"]]  # standardised rows of a part, strengths


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained head and its metrics.

    Attributes:
        head: applies the stored numbers; not bound to features before `head_files`.
        kind: logistic, ridge or mlp.
        chosen: the choice made on the held-out part: {"c": …}, {"alpha": …} or {"epoch": …}.
        sweep: a row for each strength: c or alpha, train_accuracy, accuracy; for logistic also iterations, converged;
            unless `imbalance` is natural also balanced_accuracy.
        split: how the held-out part was made: kind, seed, rows, and the choice.
        metrics: on the held-out part, see `metrics_of`, with `ece_uncalibrated` and `nll_uncalibrated`.
        recipe: for dense layers, the settings of their training; for other kinds `imbalance`, unless it is natural.
        history: for dense layers, a row for each epoch.
    """

    head: StoredHead
    kind: str = "logistic"
    chosen: Mapping[str, float] = field(default_factory=dict)
    sweep: tuple[dict[str, Any], ...] = ()
    split: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    """The fit with one regularisation strength: `coef` (k + r, d) float32, `intercept` (k + r,) float64."""

    coef: np.ndarray
    intercept: np.ndarray
    row: dict[str, Any]


def fit_linear_head(
    features: np.ndarray | Rows,
    labels: Labels,
    *,
    validation: tuple[np.ndarray | Rows, Labels] | None = None,
    holdout: float = 0.2,
    select_folds: int | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    seed: int = 0,
    imbalance: str = "natural",
    cs: Sequence[float] = CS,
    max_iter: int = MAX_ITERATIONS,
    report: Report | None = None,
) -> Fitted:
    """Returns the logistic regression whose C labels the held-out part best; ties go to the smallest C.

    The same input gives the same bytes. With votes, alone or blended into labels, each row counts for every class
    according to its share.

    Unless `imbalance` is natural, the best C has the best balanced accuracy, the mean of the classes' recalls. By plain
    accuracy, the strength that undoes the correction would win, at worst one that always predicts the commonest class.
    In all cases, the temperature fits the held-out rows as they occur, neither weighted nor balanced.

    Args:
        features: (n, d) float16 or float32.
        labels: n class names; the classes are their sorted set. Or votes, or both in a `Blend`.
        validation: features and labels used to choose and calibrate, unchanged; None splits off a part.
        holdout: the fraction split off, class by class.
        select_folds: instead of both: choose and calibrate on so many parts in turn, each time by a head that learned
            from the others, and then learn from everything.
        groups: n keys; rows with the same key stay on one side. By default rows with equal features form a group, as
            copies of an image have equal features, whatever their names.
        imbalance: the correction for rare classes. Frequencies come from the training part, from votes if there are
            any. `natural`: none. `inverse_sqrt`: rows have weight 1 / sqrt(frequency of their class), with mean 1.
            `logit_adjustment`: the log frequencies are added to the logits in training (Menon et al. 2021,
            arXiv:2007.07314). Reject classes count as classes here.
        cs: inverse strengths to try.
        max_iter: most iterations for each C.
        report: called with each row of the sweep.

    Raises:
        FitError: labels are missing, there is one class only, a class is too small to split, or values are not finite.
    """
    _check_way(imbalance)
    _check_strengths("cs", cs)
    if max_iter < 1:
        raise FitError(f"max_iter must be at least 1, not {max_iter}")

    def sweep(x: np.ndarray, train: Part, strengths: Sequence[float]) -> Iterator[_Line]:
        lines = _of_labels if train.answers.shares is None else _of_shares
        return lines(x, train, strengths, max_iter, _weights(train, imbalance))

    how = _How("logistic", sweep, sorted(set(cs)), imbalance, report)
    if select_folds:
        return _best_by_folds(how, folded(features, labels, folds=select_folds, groups=groups, seed=seed))
    return _best(how, parts_of(features, labels, validation=validation, holdout=holdout, groups=groups, seed=seed))


def fit_ridge_head(
    features: np.ndarray | Rows,
    labels: Labels,
    *,
    validation: tuple[np.ndarray | Rows, Labels] | None = None,
    holdout: float = 0.2,
    select_folds: int | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    seed: int = 0,
    imbalance: str = "natural",
    alphas: Sequence[float] = ALPHAS,
    report: Report | None = None,
) -> Fitted:
    """Returns ridge regression on one-hot labels or shares: least squares with an L2 penalty, one decomposition.

    Scores become probabilities through a softmax with the temperature that fits the held-out part. Ties go to the
    largest alpha. Arguments and errors as in `fit_linear_head`; `alphas` are strengths per row.

    Least squares has no logits, so `logit_adjustment` is the post-hoc form of the same paper: each alpha's scores are
    calibrated on the held-out part, and the log frequencies are subtracted from those logits.
    """
    _check_way(imbalance)
    _check_strengths("alphas", alphas)

    def sweep(x: np.ndarray, train: Part, strengths: Sequence[float]) -> Iterator[_Line]:
        return _of_squares(x, train, strengths, _weights(train, imbalance))

    how = _How("ridge", sweep, sorted(set(alphas), reverse=True), imbalance, report)
    if select_folds:
        return _best_by_folds(how, folded(features, labels, folds=select_folds, groups=groups, seed=seed))
    return _best(how, parts_of(features, labels, validation=validation, holdout=holdout, groups=groups, seed=seed))


def _check_way(imbalance: str) -> None:
    if imbalance not in WAYS:
        raise FitError(f"imbalance must be one of {', '.join(WAYS)}, not {imbalance!r}")


def _check_strengths(name: str, values: Sequence[float]) -> None:
    if not values or not all(0 < value < np.inf for value in values):
        raise FitError(f"{name} must be one or more numbers above 0, not {tuple(values)}")


@dataclass(frozen=True, slots=True)
class _How:
    """What is fitted, with which strengths, the strongest first."""

    kind: str
    sweep: Sweep
    strengths: Sequence[float]
    imbalance: str
    report: Report | None

    @property
    def figure(self) -> str:
        """The row's figure by which the best strength is chosen."""
        return "accuracy" if self.imbalance == "natural" else "balanced_accuracy"

    def row(self, fit: Mapping[str, Any], known: float, new: np.ndarray, held: Part) -> dict[str, Any]:
        """Returns and reports the row of a strength: what its fit says, and its figures on the held-out part."""
        row = {**fit, "train_accuracy": known, "accuracy": accuracy_of(new, held)}
        if self.imbalance != "natural":
            row["balanced_accuracy"] = balanced_accuracy_of(new, held)
        if self.report is not None:
            self.report(row)
        return row

    def best(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Returns the place of the best row; ties go to the first."""
        return max(range(len(rows)), key=lambda place: (rows[place][self.figure], -place))

    def fitted(
        self,
        line: _Line,
        whole: Part,
        rows: Sequence[dict[str, Any]],
        held: Part,
        scaled: _Scaled,
        split: dict[str, Any],
        logits: np.ndarray | None = None,
    ) -> Fitted:
        """Returns the head of a line, calibrated and measured on the held-out part."""
        name = next(iter(line.row))
        chosen = {name: line.row[name]}
        answers = whole.answers
        head = LinearHead(answers.classes, line.coef, line.intercept, scaled.mean, scaled.scale, reject=answers.reject)
        split = split | chosen
        unit = _unit(self.kind, line, scaled.rows)
        measured, metrics = calibrated(head, held, split, unit=unit, logits=logits)
        recipe = {} if self.imbalance == "natural" else {"imbalance": self.imbalance}
        return Fitted(measured, self.kind, chosen, tuple(rows), split, metrics, recipe)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Standardised rows of a training part, and what standardises others."""

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, part: Part) -> _Scaled:
        """Returns those of a part."""
        mean, scale = standardisation(part.features)
        return cls(standardised(part.features, mean, scale), mean, scale)


def _best(how: _How, parts: Parts) -> Fitted:
    """Returns the best line of the sweep on the held-out part, calibrated and measured; ties go to the first."""
    scaled = _Scaled.of(parts.train)
    held = standardised(parts.held.features, scaled.mean, scaled.scale)
    lines, rows = [], []
    for found in how.sweep(scaled.rows, parts.train, how.strengths):
        line = found
        if how.imbalance == "logit_adjustment":
            line = _adjusted(found, parts.train, _logit_unit(how.kind, found, parts.held, scaled.rows, held))
        known, new = (values @ line.coef.T + line.intercept for values in (scaled.rows, held))
        lines.append(line)
        rows.append(how.row(line.row, accuracy_of(known, parts.train), new, parts.held))
    return how.fitted(lines[how.best(rows)], parts.train, rows, parts.held, scaled, parts.split)


def _best_by_folds(how: _How, given: Folded) -> Fitted:
    """Returns the fit on all rows with the strength that labels them best where each is labelled by the others."""
    outputs = len(given.whole.answers.classes) + len(given.whole.answers.reject)
    logits = np.zeros((len(how.strengths), len(given.whole), outputs))
    known, units = (np.zeros((given.split["folds"], len(how.strengths))) for _ in range(2))
    steps: list[list[Mapping[str, Any]]] = [[] for _ in how.strengths]
    for fold, (away, parts) in enumerate(given.parts()):
        scaled = _Scaled.of(parts.train)
        held = standardised(parts.held.features, scaled.mean, scaled.scale)
        for place, found in enumerate(how.sweep(scaled.rows, parts.train, how.strengths)):
            line = found
            if how.imbalance == "logit_adjustment":
                units[fold, place] = _logit_unit(how.kind, found, parts.held, scaled.rows, held)
                line = _adjusted(found, parts.train, units[fold, place])
            logits[place, away] = held @ line.coef.T + line.intercept
            known[fold, place] = accuracy_of(scaled.rows @ line.coef.T + line.intercept, parts.train)
            steps[place].append(line.row)
    rows = [
        how.row(_of_all_folds(each), float(known[:, place].mean()), logits[place], given.held)
        for place, each in enumerate(steps)
    ]
    place = how.best(rows)
    scaled = _Scaled.of(given.whole)
    (line,) = how.sweep(scaled.rows, given.whole, [how.strengths[place]])
    if how.imbalance == "logit_adjustment":
        line = _adjusted(line, given.whole, float(units[:, place].mean()))
    return how.fitted(line, given.whole, rows, given.held, scaled, given.split, logits[place])


def _of_all_folds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what the fits of a strength say together: most iterations, and whether all converged."""
    together = dict(rows[0])
    if "converged" in together:
        together["iterations"] = max(row["iterations"] for row in rows)
        together["converged"] = all(row["converged"] for row in rows)
    return together


def _unit(kind: str, line: _Line, x: np.ndarray) -> float:
    """Returns the unit of temperatures to try: scores of ridge are between 0 and 1, and shrink with alpha."""
    return 1.0 if kind == "logistic" else float((x @ line.coef.T).std()) or 1.0


# --- rare classes -----------------------------------------------------------------------------------------------------


def _weights(train: Part, imbalance: str) -> np.ndarray | None:
    """Returns (n,) float32 weights of mean 1, larger for rare classes; None if all rows count equally."""
    if imbalance != "inverse_sqrt":
        return None
    return balanced_weights(train.answers.targets, np.ones(len(train), np.float32))


def _adjusted(line: _Line, train: Part, unit: float) -> _Line:
    """Returns the line with the log frequencies of the classes subtracted from its logits, through the intercepts.

    For logistic regression this *equals* the fit with the log frequencies added to the logits in training: the penalty
    excludes intercepts, so that fit finds the same weights, and intercepts smaller by exactly these numbers.

    Example: classes with frequencies 0.8 and 0.2 have log frequencies -0.22 and -1.61. Equal logits 0 and 0 become 0.22
    and 1.61: the rare class wins.

    Args:
        unit: of the scores, see `_logit_unit`.
    """
    shares = frequencies(train.answers.targets, np.ones(len(train)))
    return replace(line, intercept=line.intercept - unit * np.log(shares))


def _logit_unit(kind: str, line: _Line, held: Part, x: np.ndarray, held_rows: np.ndarray) -> float:
    """Returns what a logit of 1 is in scores. Those of ridge become logits by the temperature that fits `held`.

    Raises:
        FitError: `held`, of scores of ridge, has no row of an ordinary class.
    """
    if kind == "logistic":
        return 1.0
    if not held.answers.ordinary.any():
        raise FitError("logit_adjustment: no held-out row has most votes for an ordinary class; use fewer folds")
    return temperature_of(held_rows @ line.coef.T + line.intercept, held, unit=_unit(kind, line, x))


# --- logistic regression ----------------------------------------------------------------------------------------------


def _of_labels(
    x: np.ndarray, train: Part, cs: Sequence[float], max_iter: int, weights: np.ndarray | None
) -> Iterator[_Line]:
    """Yields the fit of each C, strongest regularisation first; each starts where the previous one ended."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="lbfgs", max_iter=max_iter, warm_start=True)
    for c in cs:
        model.set_params(C=c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the row has `converged`
            model.fit(x, train.answers.y, sample_weight=weights)
        coef, intercept = _a_row_a_class(model.coef_, model.intercept_, len(train.answers.classes))
        iterations = int(np.max(model.n_iter_))
        yield _Line(coef, intercept, {"c": float(c), "iterations": iterations, "converged": iterations < max_iter})


def _a_row_a_class(coef: np.ndarray, intercept: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (k, d) float32 and (k,) float64; for two classes scikit-learn gives only the second's logit."""
    coef, intercept = np.atleast_2d(coef).astype(np.float32), intercept.astype(np.float64)
    if classes == 2:
        coef = np.concatenate([np.zeros_like(coef), coef])
        intercept = np.concatenate([np.zeros_like(intercept), intercept])
    return coef.copy(), intercept.copy()


def _of_shares(
    x: np.ndarray, train: Part, cs: Sequence[float], max_iter: int, weights: np.ndarray | None
) -> Iterator[_Line]:
    """Yields the same fits for shares, which scikit-learn does not take; one row per label would multiply the rows.

    The loss is scikit-learn's: the weighted mean of the cross-entropy over rows, plus 1 / (2 C n) times the sum of the
    squared weights without intercepts.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped,unused-ignore]

    shares = train.answers.targets
    n, d, k = len(x), x.shape[1], shares.shape[1]
    counts = np.ones((n, 1)) if weights is None else weights[:, None].astype(np.float64)

    def loss(values: np.ndarray, c: float) -> tuple[float, np.ndarray]:
        table = values.reshape(k, d + 1)
        coef, intercept = table[:, :d], table[:, d]
        logits = (x @ coef.astype(np.float32).T).astype(np.float64) + intercept
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        sums = powers.sum(axis=1, keepdims=True)
        mean = float((counts * (np.log(sums) - (shares * logits).sum(axis=1, keepdims=True))).sum()) / n
        error = counts * (powers / sums - shares) / n
        slope = np.concatenate([error.astype(np.float32).T @ x + coef / (c * n), error.sum(axis=0)[:, None]], axis=1)
        return mean + float((coef**2).sum()) / (2 * c * n), slope.ravel().astype(np.float64)

    values = np.zeros(k * (d + 1))
    options = {"maxiter": max_iter, "maxls": 50, "gtol": TOLERANCE, "ftol": 64 * np.finfo(float).eps}
    for c in cs:
        found = minimize(loss, values, args=(c,), jac=True, method="L-BFGS-B", options=options)
        values = found.x
        table = values.reshape(k, d + 1)
        yield _Line(
            table[:, :d].astype(np.float32),
            table[:, d].copy(),
            {"c": float(c), "iterations": int(found.nit), "converged": int(found.nit) < max_iter},
        )


# --- ridge ------------------------------------------------------------------------------------------------------------


def _of_squares(x: np.ndarray, train: Part, alphas: Sequence[float], weights: np.ndarray | None) -> Iterator[_Line]:
    """Yields the ridge regression of each alpha, from the eigenvectors of the smaller of xᵀx and x xᵀ."""
    n, d = x.shape
    if min(n, d) > LARGEST_SQUARE:
        raise FitError(
            f"ridge would decompose a matrix of side {min(n, d):,}, its limit is {LARGEST_SQUARE:,}; use the kind "
            "logistic or mlp, or a features.pooling with fewer features"
        )
    targets = train.answers.targets.astype(np.float64)
    given = _centred(x, targets) if weights is None else _weighed(x, targets, weights)
    rows, wanted, wide = given.rows, given.wanted, d > n
    values, vectors = np.linalg.eigh(_square(rows if wide else rows.T) / n)
    values = np.maximum(values, 0)  # rounding makes tiny eigenvalues negative
    seen = vectors.T @ (wanted if wide else rows.T @ wanted) / n
    for alpha in alphas:
        solved = vectors @ (seen / (values + alpha)[:, None])
        coef = rows.T @ solved if wide else solved
        intercept = given.mean - given.middle @ coef
        yield _Line(np.ascontiguousarray(coef.T.astype(np.float32)), intercept, {"alpha": float(alpha)})


@dataclass(frozen=True, slots=True)
class _Squares:
    """Centred rows and targets for least squares; the intercept restores the means.

    Attributes:
        rows: (n, d) float32.
        wanted: (n, k + r) float64, the targets.
        middle, mean: (d,) and (k + r,) float64, subtracted from rows and targets.
    """

    rows: np.ndarray
    wanted: np.ndarray
    middle: np.ndarray
    mean: np.ndarray


def _centred(x: np.ndarray, targets: np.ndarray) -> _Squares:
    mean = targets.mean(axis=0)
    return _Squares(x, targets - mean, np.zeros(x.shape[1]), mean)  # the mean of standardised rows is 0


def _weighed(x: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> _Squares:
    """Returns copies of rows and targets whose plain least squares are the weighted ones of the given arrays."""
    shares = weights / weights.sum(dtype=np.float64)
    middle, mean = shares.astype(np.float32) @ x, shares @ targets
    roots = np.sqrt(weights)[:, None]
    rows = x - middle
    rows *= roots
    return _Squares(rows, (targets - mean) * roots, middle.astype(np.float64), mean)


def _square(rows: np.ndarray) -> np.ndarray:
    """Returns (m, m) float64 rows rowsᵀ, with a few thousand columns in float64 at a time."""
    total = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], 4096):
        step = rows[:, start : start + 4096].astype(np.float64)
        total += step @ step.T
    return total
