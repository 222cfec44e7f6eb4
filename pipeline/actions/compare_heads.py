"""`train-head --compare`: fits every kind of head on several features of the same images and writes one table.

Logistic regression has one row for each treatment of rare classes, all else being equal. Features of each setting are
computed once and cached; images, split and seed are the same in every row. Only the table is kept: `train-head` fits
the best head again from the cache in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.metrics import balanced_accuracy
from models.training.imbalance import WAYS
from pipeline.actions.head_training import head_training, work_of_head
from pipeline.commands.command import Context
from pipeline.commands.train_head import TrainHeadOptions
from pipeline.errors import UsageError
from pipeline.report.comparison import TABLE, as_markdown, write_table
from pipeline.run.answers import read_shares
from pipeline.run.claim import claim
from pipeline.run.fitting import CannotFit, Fitting, fit
from pipeline.run.gathering import Gathered, Sources, gathered
from pipeline.run.notes import note
from pipeline.run.output_folder import OutputFolder
from pipeline.settings.load import load_settings
from pipeline.settings.schema import FeaturesSettings, HeadSettings, Settings
from pipeline.settings.training import MlpSettings

FEATURES: dict[str, dict[str, Any]] = {  # settings of `features` by the name in the table
    "last block": {"pooling": "avg", "flip_average": False},
    "all blocks": {"pooling": "multi", "flip_average": False},
    "all blocks, mirrored": {"pooling": "multi", "flip_average": True},
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of the table: its name, and the settings of the head; `mlp` applies only to that kind."""

    name: str
    head: HeadSettings
    mlp: MlpSettings


def compare(options: TrainHeadOptions, context: Context) -> int:
    """Writes `compare.csv` into the output folder and prints it."""
    candidates = candidates_of(options.compare or (), context.settings)
    training = head_training(options, context)
    shares = read_shares(training.wanted)
    rows: list[dict[str, Any]] = []
    output = Path(options.output)
    with OutputFolder(str(output)).locked():
        claim(str(output), work_of_head(options, context), overwrite=options.overwrite)
        for name, features in FEATURES.items():
            chosen = context.settings.features.model_copy(update=features)
            with gathered(with_features(training.sources, chosen), training.wanted, shares) as data:
                rows += rows_of(data, name, candidates, training.fitting)
        write_table(output / TABLE, rows)
    if context.quiet:
        return 0
    print(as_markdown(rows))
    best = max(rows, key=lambda row: row["accuracy"])
    words = f"{best['head']} ({best['imbalance']}) on {best['features']}"
    print(f"\nbest accuracy: {words}; table: {output / TABLE}")
    return 0


def candidates_of(files: Sequence[str], settings: Settings) -> list[Candidate]:
    """Returns the heads: logistic with each treatment of rare classes, ridge, and an mlp for each file or the command.

    For ridge and the mlp, `head.imbalance` of the command or of the file decides the treatment of rare classes.

    Raises:
        UsageError: a file is not a settings file, two have the same name, or one has another head.soft_share.
    """
    named = {Path(file).stem: load_settings([file]) for file in files} if files else {"mlp": settings}
    if len(named) < len(files) or {"logistic", "ridge"} & named.keys():
        raise UsageError(f"--compare {' '.join(files)}: give files with distinct names, not logistic or ridge")

    share = settings.head.soft_share  # part of the training data, which is gathered once
    for name, chosen in named.items():
        if "soft_share" in chosen.head.model_fields_set and chosen.head.soft_share != share:
            raise UsageError(
                f"--compare: head.soft_share is {chosen.head.soft_share} in {name} but {share} in the command; "
                "all rows learn the same data, so set it only with --set or --config"
            )

    def candidate(name: str, chosen: Settings, **change: str) -> Candidate:
        return Candidate(name, chosen.head.model_copy(update=change), chosen.mlp)

    return [
        *(candidate("logistic", settings, kind="logistic", imbalance=way) for way in WAYS),
        candidate("ridge", settings, kind="ridge"),
        *(candidate(name, chosen, kind="mlp") for name, chosen in named.items()),
    ]


def with_features(sources: Sources, features: FeaturesSettings) -> Sources:
    """Returns the sources with different feature settings."""
    return replace(sources, settings=sources.settings.model_copy(update={"features": features}))


def rows_of(data: Gathered, features: str, candidates: Sequence[Candidate], how: Fitting) -> list[dict[str, Any]]:
    """Returns the rows of all heads on one kind of features; skips a head that has too little data.

    Raises:
        CannotFit: there is too little data for any of them.
    """
    rows: list[dict[str, Any]] = []
    fault: CannotFit | None = None
    for candidate in candidates:
        try:
            rows.append(row_of(data, features, candidate, how))
        except CannotFit as error:
            note(f"{features}: skipped {candidate.name}: {error}")
            fault = error
    if fault is not None and not rows:
        raise fault
    return rows


def row_of(data: Gathered, features: str, candidate: Candidate, how: Fitting) -> dict[str, Any]:
    """Returns the row of one head on one kind of features; its metrics are those of the held-out images."""
    imbalance = candidate.head.imbalance
    note(f"{features}: {candidate.name}, {imbalance}")
    began = time.process_time()  # of all threads: measures the cost even on a busy machine
    fitted = fit(data, candidate.head, candidate.mlp, how)
    seconds = time.process_time() - began
    metrics = fitted.metrics
    row = {
        "features": features,
        "width": data.train.features.shape[1],
        "head": candidate.name,
        "imbalance": imbalance,
        "parameters": fitted.head.parameters,
        "accuracy": metrics["accuracy"],
        "macro_f1": metrics["macro_f1"],
        "balanced_accuracy": float(balanced_accuracy(np.asarray(metrics["confusion"]))),
        "ece": metrics["ece"],
        "nll": metrics["nll"],
        "fit_cpu_s": seconds,
        "train": fitted.split["train"],
        "held_out": metrics["rows"],
    }
    if "reject" in metrics:
        row["reject_auc"] = metrics["reject"]["auc"]
    return row
