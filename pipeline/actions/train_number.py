"""`train-head --kind number`: fits a head that gives a number, from labels that are numbers.

Not here: the fit (`models/training/fit_numbers.py`), and heads of classes (`train_head.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from models.evaluation.numbers import evaluate_numbers
from models.heads.output_spec import number_in
from models.training.fit_numbers import FittedNumber, cross_validated_numbers, fit_number_head, number_files
from models.training.head_data import FitError
from pipeline.actions.head_training import FOLDS, head_training, work_of_head
from pipeline.commands.command import Context
from pipeline.commands.train_head import TrainHeadOptions
from pipeline.errors import StoppedError, UsageError
from pipeline.report.number_evaluation import words_of
from pipeline.run.answers import Labelled
from pipeline.run.claim import claim
from pipeline.run.fitting import Fitting
from pipeline.run.gathering import Gathered, gathered
from pipeline.run.output_folder import OutputFolder
from pipeline.run.trained_on import write_trained_on
from transforms.formats.canonical import fingerprint_of
from transforms.formats.publish import publish_bytes

UNNAMED = "value"  # the number's name where no column of labels names it
OTHER_COLUMNS = ("image_id", "face_index", "x", "y", "width", "height", "detection_score")


def train_number(options: TrainHeadOptions, context: Context) -> int:
    """Fits a head of a number on the labelled input and writes it to the output folder."""
    _refuse(options, context)
    settings, output = context.settings, os.path.abspath(options.output)
    training, name = head_training(options, context), settings.read.label_column or UNNAMED
    if name in OTHER_COLUMNS:
        raise UsageError(f"read.label_column={name} would name the number like another column; rename the column")
    alphas = {"alphas": (settings.head.strength,)} if settings.head.strength else {}
    with OutputFolder(output).locked():
        claim(output, work_of_head(options, context), overwrite=options.overwrite)
        with gathered(training.sources, training.wanted, None) as data:
            try:
                fitted, folds = _fitted(name, data, training.fitting, options.folds, alphas)
            except FitError as error:
                raise StoppedError(str(error)) from error
            write_trained_on(output, data.train.digests)
        (Path(output) / FOLDS).unlink(missing_ok=True)
        if folds is not None:
            publish_bytes(Path(output) / FOLDS, (json.dumps(folds, indent=1) + "\n").encode())
        space = data.identity.feature_space
        for file, content in number_files(fitted, fingerprint_of(space), space).items():
            publish_bytes(Path(output) / file, content)
    if not context.quiet:
        print(_words(fitted, folds, output))
    return 0


def _refuse(options: TrainHeadOptions, context: Context) -> None:
    classes = {"classes": options.classes, "soft-labels": options.soft_labels, "tensorboard": options.tensorboard}
    if alien := [flag for flag, given in classes.items() if given]:
        raise UsageError(f"--{alien[0]} is for heads of classes; drop it, or another --kind than number")
    if options.repeats:
        raise UsageError("--repeats is for heads of classes; drop it, or another --kind than number")
    if context.settings.head.imbalance != "natural":
        raise UsageError("head.imbalance is for heads of classes; drop it, or another --kind than number")


def _fitted(
    name: str, data: Gathered, fitting: Fitting, folds: int | None, alphas: dict[str, Any]
) -> tuple[FittedNumber, dict[str, Any] | None]:
    train, judged = data.train, None
    values = numbers_of(train, "--input")
    given = (name, train.features, values, train.groups)
    how: dict[str, Any] = {
        **alphas,
        "seed": fitting.seed,
        "holdout": fitting.holdout,
        "select_folds": fitting.select_folds,
    }
    if folds:
        predicted, fold = cross_validated_numbers(*given, folds=folds, **how)
        some = (np.flatnonzero(fold == number) for number in range(folds))
        each = [evaluate_numbers(predicted[rows], values[rows], train.groups[rows]) for rows in some]
        judged = {"folds": each, "all_rows": evaluate_numbers(predicted, values, train.groups, seed=fitting.seed)}
    validation = None
    if data.validation is not None:
        held = data.validation
        validation = (held.features, numbers_of(held, "--validation"), held.groups)
    return fit_number_head(*given, validation=validation, **how), judged


def numbers_of(given: Labelled, source: str) -> np.ndarray:
    """Returns (n,) float64 of labels that are numbers.

    Raises:
        UsageError: one is not; the message names its image.
    """
    labels = cast("Sequence[str]", given.labels)  # votes are refused before
    return np.asarray([_number(label, given, row, source) for row, label in enumerate(labels)], np.float64)


def _number(label: str, given: Labelled, row: int, source: str) -> float:
    try:
        return number_in(label)
    except ValueError as error:
        of = f" of {given.ids[row]}" if given.ids is not None else ""
        raise UsageError(f"{source}: the label {label!r}{of} {error}; give numbers, or another --kind") from error


def _words(fitted: FittedNumber, folds: dict[str, Any] | None, output: str) -> str:
    split = fitted.head.split
    held = f"by {split['folds']} folds" if split.get("kind") == "folds" else "held out"
    lines: Sequence[str] = (
        f"ridge, alpha {fitted.alpha:g}, of {fitted.head.name}; {held}: {words_of(fitted.head.metrics)}",
        *([f"{len(folds['folds'])} folds: {words_of(folds['all_rows'])}; see {FOLDS}"] if folds else []),
        f"head: {output} (use it with --head {output})",
    )
    return "\n".join(lines)
