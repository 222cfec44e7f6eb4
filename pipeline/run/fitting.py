"""Fits a head of any kind on gathered rows. The fits themselves are `models/training/fit_head.py` and `fit_mlp.py`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.training.fit_head import Fitted, fit_linear_head, fit_ridge_head, head_files
from models.training.folds import Folds, cross_validated
from models.training.head_data import Blend, FitError, Labels, Rows, Votes
from models.training.recipe import Recipe
from pipeline.errors import StoppedError
from pipeline.run.gathering import WORK, Gathered, Labelled, is_blended
from transforms.formats.publish import publish_bytes, storage_error

if TYPE_CHECKING:
    import numpy as np

    from pipeline.commands.command import Context
    from pipeline.commands.train_head import TrainHeadOptions
    from pipeline.settings.schema import HeadSettings
    from pipeline.settings.training import MlpSettings


HOLDOUT = 0.2  # of the images, where no validation input is given


def fit(options: TrainHeadOptions, context: Context, data: Gathered, head: HeadSettings, mlp: MlpSettings) -> Fitted:
    """Returns the fitted head: of its settings kind and imbalance count; those of dense layers for the kind mlp.

    Raises:
        StoppedError: the rows do not allow it.
    """
    of_mlp = partial(_fit_mlp, options, mlp)
    fits: dict[str, Any] = {"logistic": fit_linear_head, "ridge": fit_ridge_head, "mlp": of_mlp}
    swept = {"logistic": "cs", "ridge": "alphas"}
    strength = {swept[head.kind]: (head.strength,)} if head.strength and head.kind in swept else {}
    validation = data.validation
    try:
        fitted: Fitted = fits[head.kind](
            data.train.features,
            data.train.labels,
            imbalance=head.imbalance,
            validation=None if validation is None else (validation.features, validation.labels),
            holdout=options.holdout or HOLDOUT,
            groups=data.train.groups,
            seed=context.settings.features.seed,
            report=None if context.quiet else _report,
            **strength,
        )
    except FitError as error:
        raise StoppedError(str(error)) from error
    if not is_blended(context.settings):
        return fitted
    return replace(fitted, recipe={**fitted.recipe, "soft_share": context.settings.head.soft_share})


def cross_validate(options: TrainHeadOptions, context: Context, data: Gathered) -> Folds:
    """Returns what `options.folds` heads say about images whose groups they have not seen.

    Raises:
        StoppedError: the rows do not allow it.
    """
    bar = iter(range(1, (options.folds or 0) + 1))

    def fold(rows: Rows, labels: list[str], groups: np.ndarray) -> Fitted:
        if not context.quiet:
            print(f"fold {next(bar)} of {options.folds}", file=sys.stderr, flush=True)
        part = replace(data, train=Labelled(rows, labels, groups), validation=None)
        return fit(options, context, part, context.settings.head, context.settings.mlp)

    train = data.train
    if isinstance(train.labels, Votes | Blend):
        raise StoppedError("--folds judges labels, and these are votes")
    try:
        return cross_validated(
            fold,
            train.features,
            train.labels,
            train.groups,
            folds=options.folds or 0,
            seed=context.settings.features.seed,
        )
    except FitError as error:
        raise StoppedError(str(error)) from error


def _report(row: dict[str, Any]) -> None:
    words = (f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    print(", ".join(words), file=sys.stderr, flush=True)


def _fit_mlp(
    options: TrainHeadOptions, mlp: MlpSettings, features: Rows, labels: Labels, *, imbalance: str, **how: Any
) -> Fitted:
    from models.runtimes.registry import start_keras

    start_keras()
    from models.training.checkpoint import TrainingError
    from models.training.fit_mlp import fit_mlp_head

    folder = Path(os.path.abspath(options.output), WORK, "mlp")
    recipe = recipe_of(mlp, imbalance)
    try:
        fitted = fit_mlp_head(features, labels, layers=mlp.layers, recipe=recipe, folder=folder, **how)
    except TrainingError as error:
        raise StoppedError(str(error)) from error
    shutil.rmtree(folder)
    return replace(fitted, recipe={**mlp.model_dump(), "imbalance": imbalance})


def recipe_of(mlp: MlpSettings, imbalance: str) -> Recipe:
    """Returns the recipe of dense layers: what it says of pixels does not count."""
    from models.training.fit_mlp import recipe_of_features

    shared = {f.name: getattr(mlp, f.name) for f in fields(Recipe) if f.name in type(mlp).model_fields}
    return recipe_of_features(Recipe(**shared, imbalance=imbalance))


def save_head(folder: str | Path, fitted: Fitted, fingerprint: str, features_description: Mapping[str, Any]) -> None:
    """Publishes `head.npz` and then `head.json` in the folder; other files are left alone.

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
