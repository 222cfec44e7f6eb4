"""Turns the options of `train-head` into the arguments of gathering and fitting; `--compare` uses it too."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.command import Context
from pipeline.commands.train_head import TrainHeadOptions
from pipeline.run.answers import Wanted
from pipeline.run.claim import Work, asked
from pipeline.run.drive import execution_of
from pipeline.run.fitting import HOLDOUT, Fitting
from pipeline.run.gathering import WORK, Sources
from pipeline.run.identity import identity_of
from pipeline.run.trained_on import TRAINED_ON

FOLDS = "folds.json"  # results of cross-validation
HEAD_FILES = ("head.json", "head.npz", TRAINED_ON, FOLDS, "history.csv", "history.svg", "compare.csv")


@dataclass(frozen=True, slots=True)
class HeadTraining:
    """What is read, which targets count, and how heads are fitted."""

    sources: Sources
    wanted: Wanted
    fitting: Fitting


def head_training(options: TrainHeadOptions, context: Context) -> HeadTraining:
    """Returns all arguments of a training of heads."""
    output, settings = os.path.abspath(options.output), context.settings
    work = os.path.join(output, WORK)
    share = settings.head.soft_share
    return HeadTraining(
        Sources(
            inputs=options.input,
            validation=options.validation,
            exclude_copies_of=options.exclude_copies_of,
            work=work,
            cache=options.cache or os.path.join(output, "cache"),
            settings=settings,
            execution=execution_of(context),
        ),
        Wanted(
            soft_labels=options.soft_labels,
            classes=options.classes,
            rename_classes=options.rename_classes,
            reject=options.reject,
            soft_share=share,
            group_by=options.group_by,
        ),
        Fitting(
            holdout=options.holdout or HOLDOUT,
            select_folds=options.select_folds,
            seed=settings.features.seed,
            work=Path(work),
            soft_share=share,
            quiet=context.quiet,
        ),
    )


def work_of_head(options: TrainHeadOptions, context: Context) -> Work:
    """Returns the work in the output folder: a head, or the table of all kinds."""
    settings = context.settings
    identity = {
        "options": asked(options, besides=("tensorboard",)),
        "head": settings.head.model_dump(mode="json", exclude={"path", "more"}),
        "mlp": settings.mlp.model_dump(mode="json"),
        "features": identity_of(settings, None).parts,
    }
    return Work(command="train-head", files=HEAD_FILES, identity=identity)
