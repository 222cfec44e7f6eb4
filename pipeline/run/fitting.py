"""Fits a head of any kind on gathered rows. The fits themselves are `models/training/fit_head.py` and `fit_mlp.py`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.training.fit_head import Fitted, fit_linear_head, fit_ridge_head
from models.training.folds import Deals, cross_validated
from models.training.head_data import Blend, FitError, Labels, Rows, Votes
from models.training.head_files import head_files
from models.training.recipe import Recipe
from pipeline.errors import StoppedError
from pipeline.run.answers import Labelled
from pipeline.run.notes import note
from transforms.formats.publish import publish_bytes, storage_error

if TYPE_CHECKING:
    import numpy as np

    from pipeline.run.gathering import Gathered
    from pipeline.settings.schema import HeadSettings
    from pipeline.settings.training import MlpSettings


class CannotFit(StoppedError):
    """There is too little data for a head of this kind; another kind may work."""


HOLDOUT = 0.2  # of the images, if no validation input is given


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """How heads are fitted, whatever their kind.

    Attributes:
        holdout: fraction of the images to select by, if no validation input is given.
        select_folds: select by so many folds instead, and learn from all images; None holds a part out.
        seed: of the split and of first weights.
        work: folder for the checkpoint of dense layers; removed at the end.
        soft_share: how much of an answer the shares are, for the record; 1 if they or the labels are learned alone.
        quiet: True for no progress lines.
    """

    holdout: float = HOLDOUT
    select_folds: int | None = None
    seed: int
    work: Path
    soft_share: float = 1.0
    quiet: bool = False


def fit(data: Gathered, head: HeadSettings, mlp: MlpSettings, how: Fitting) -> Fitted:
    """Returns the fitted head.

    Args:
        data: the training data.
        head: of these settings kind, strength and imbalance count.
        mlp: for the kind mlp alone.
        how: the same for every kind.

    Raises:
        CannotFit: there is too little data. StoppedError: a checkpoint is damaged.
    """
    of_mlp = partial(_fit_mlp, how.work / "mlp", mlp)
    fits: dict[str, Any] = {"logistic": fit_linear_head, "ridge": fit_ridge_head, "mlp": of_mlp}
    swept = {"logistic": "cs", "ridge": "alphas"}
    strength = {swept[head.kind]: (head.strength,)} if head.strength and head.kind in swept else {}
    by_folds = {"select_folds": how.select_folds} if how.select_folds else {}
    validation = data.validation
    try:
        fitted: Fitted = fits[head.kind](
            data.train.features,
            data.train.labels,
            imbalance=head.imbalance,
            validation=None if validation is None else (validation.features, validation.labels),
            holdout=how.holdout,
            groups=data.train.groups,
            seed=how.seed,
            report=None if how.quiet else _report,
            **strength,
            **by_folds,
        )
    except FitError as error:
        raise CannotFit(str(error)) from error
    if how.soft_share == 1:
        return fitted
    return replace(fitted, recipe={**fitted.recipe, "soft_share": how.soft_share})


def cross_validate(
    data: Gathered, head: HeadSettings, mlp: MlpSettings, how: Fitting, folds: int, repeats: int = 1
) -> Deals:
    """Cross-validates: returns the predictions of heads for images of groups that they have not seen.

    Args:
        data, head, mlp, how: as for `fit`. The first deal has the seed of `how`, each further one the next seed.
        folds: heads of each deal.
        repeats: deals.

    Raises:
        StoppedError: there is too little data.
    """
    train = data.train
    if isinstance(train.labels, Votes | Blend):
        raise StoppedError("--folds tests labels, but these are votes")
    found = []
    for repeat in range(repeats):
        numbers = iter(range(1, folds + 1))
        deal = replace(how, seed=how.seed + repeat)

        def fold(
            rows: Rows, labels: list[str], groups: np.ndarray, numbers: Iterator[int] = numbers, deal: Fitting = deal
        ) -> Fitted:
            more = f", repeat {deal.seed - how.seed + 1} of {repeats}" if repeats > 1 else ""
            note(f"fold {next(numbers)} of {folds}{more}")
            part = replace(data, train=Labelled(rows, labels, groups), validation=None)
            return fit(part, head, mlp, deal)

        try:
            found.append(cross_validated(fold, train.features, train.labels, train.groups, folds=folds, seed=deal.seed))
        except FitError as error:
            raise StoppedError(str(error)) from error
    return Deals(tuple(how.seed + repeat for repeat in range(repeats)), tuple(found))


def _report(row: dict[str, Any]) -> None:
    words = (f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    print(", ".join(words), file=sys.stderr, flush=True)


def _fit_mlp(folder: Path, mlp: MlpSettings, features: Rows, labels: Labels, *, imbalance: str, **how: Any) -> Fitted:
    from models.runtimes.registry import start_keras

    start_keras()
    from models.training.checkpoint import TrainingError
    from models.training.fit_mlp import fit_mlp_head

    recipe = recipe_of(mlp, imbalance)
    try:
        fitted = fit_mlp_head(
            features, labels, layers=mlp.layers, recipe=recipe, folder=folder, standardise=mlp.standardise, **how
        )
    except TrainingError as error:
        raise StoppedError(str(error)) from error
    shutil.rmtree(folder)
    return replace(fitted, recipe={**mlp.model_dump(), "imbalance": imbalance})


def recipe_of(mlp: MlpSettings, imbalance: str) -> Recipe:
    """Returns the recipe of dense layers; its values about pixels do not apply."""
    from models.training.fit_mlp import recipe_of_features

    shared = {f.name: getattr(mlp, f.name) for f in fields(Recipe) if f.name in type(mlp).model_fields}
    return recipe_of_features(Recipe(**shared, imbalance=imbalance))


def save_head(folder: str | Path, fitted: Fitted, fingerprint: str, features_description: Mapping[str, Any]) -> None:
    """Publishes `head.npz` and then `head.json` in the folder; does not touch other files.

    Args:
        fingerprint: of the feature space, hex digits. `features_description`: the same in words, nested mappings.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error("create", str(folder), error) from error
    for name, data in head_files(fitted, fingerprint, features_description).items():
        publish_bytes(folder / name, data)
