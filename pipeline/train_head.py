"""`train-head`: fills the feature cache through the same stages as `label`, and fits a classifier on the features."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np

from models.training.fit_head import FitError, Fitted, fit_linear_head, save_head
from pipeline import graph
from pipeline.config import fingerprint
from pipeline.errors import StoppedError, UsageError
from pipeline.plan import Layout, Plan, head_of, make_plan
from pipeline.prepare import identity_of, make_job
from pipeline.resume import OutputFolder
from pipeline.running import heartbeat_folder, run_graph
from transforms.read_blocks import STREAM_MARK
from transforms.training_rows import TrainingRows, WriteTrainingRows, read_rows

if TYPE_CHECKING:
    from pipeline.cli import Command
    from pipeline.prepare import Identity

HOLDOUT = 0.2  # of the images, where no validation input is given


def run(command: Command) -> int:
    """Fits a head on the labelled inputs and writes it to the output folder."""
    options = command.options
    identity = identity_of(command.settings, None)
    output = os.path.abspath(options["output"])
    train = features_of(command, identity, options["input"], "training")
    validation = None
    if options.get("validation"):
        validation = features_of(command, identity, options["validation"], "validation")
    held_out = [] if validation is None else [validation]
    if options.get("exclude"):
        held_out.append(features_of(command, identity, options["exclude"], "excluded"))
    train = _without_copies(train, held_out)
    fitted = _fit(
        train,
        validation,
        holdout=options["holdout"],
        seed=command.settings.features.seed,
        quiet=bool(options["quiet"]),
    )
    save_head(output, fitted, fingerprint(identity.space), identity.space)
    print(_words(fitted, output))
    return 0


def features_of(command: Command, identity: Identity, patterns: Sequence[str], name: str) -> TrainingRows:
    """Returns features and labels of all labelled images of these inputs that show a face, in plan order.

    Raises:
        UsageError: none has a label.
    """
    options, settings = command.options, command.settings
    folder = OutputFolder(os.path.join(options["output"], "work", name))
    cache = options.get("cache") or os.path.join(options["output"], "cache")
    with folder.locked():
        folder.prepare({**identity.parts, "purpose": name})
        heartbeat = heartbeat_folder(command.beam_options, folder.path)
        job = make_job(settings, identity, output=folder.path, cache=cache, head="", heartbeat=heartbeat)
        plan = make_plan(
            patterns, folder.plan, Layout(settings.read.block_images, settings.read.block_bytes), job.limits
        )
        refs = [ref for ref, _ in plan.lines()]

        def build(root: beam.Pipeline) -> Any:
            return graph.featured(root, refs, job) | "WriteTrainingRows" >> beam.ParDo(WriteTrainingRows(job))

        run_graph(
            build,
            command.beam_options,
            heartbeat=heartbeat,
            total=None if plan.streamed else plan.images,
            done=0,
            quiet=bool(options["quiet"]),
            verbose=bool(options["verbose"]),
            go_on="features so far are in the cache: the same command goes on",
        )
        rows = read_rows(_in_plan_order(folder.parts, plan))
    if not len(rows):
        raise UsageError(f"{' '.join(patterns)}: no image with a label and a face; labels come from class folders")
    print(f"{name}: {len(rows):,} labelled faces", file=sys.stderr)
    shutil.rmtree(folder.path)
    return _of_classes(rows, options["names"])


def _in_plan_order(folder: str, plan: Plan) -> list[str]:
    """Returns the files of the plan's blocks, and none that an earlier run with other inputs left behind."""
    place = {head_of(line)[0]: number for number, (_, line) in enumerate(plan.lines())}
    keys = sorted(name.removesuffix(".npz") for name in os.listdir(folder) if name.endswith(".npz"))
    known = [key for key in keys if key.split(STREAM_MARK)[0] in place]
    ordered = sorted(known, key=lambda key: place[key.split(STREAM_MARK)[0]])  # stable: a stream's blocks by number
    return [os.path.join(folder, key + ".npz") for key in ordered]


def _fit(
    train: TrainingRows, validation: TrainingRows | None, *, holdout: float | None, seed: int, quiet: bool
) -> Fitted:
    def report(row: dict[str, Any]) -> None:
        if not quiet:
            print(
                ", ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
                file=sys.stderr,
            )

    try:
        return fit_linear_head(
            train.features,
            train.labels.tolist(),
            validation=None if validation is None else (validation.features, validation.labels.tolist()),
            holdout=holdout or HOLDOUT,
            groups=[digest.tobytes() for digest in train.digests],
            seed=seed,
            report=report,
        )
    except FitError as error:
        raise StoppedError(str(error)) from error


def _without_copies(train: TrainingRows, held_out: Sequence[TrainingRows]) -> TrainingRows:
    """Returns the rows whose bytes stand in none of the others; says how many were left out."""
    digests = {digest.tobytes() for rows in held_out for digest in rows.digests}
    kept = np.asarray([digest.tobytes() not in digests for digest in train.digests], bool)
    if not kept.all():
        print(f"{int((~kept).sum()):,} copies of validation or excluded images left out", file=sys.stderr)
    if not kept.any():
        raise UsageError("--input: every image stands in --validation or --exclude too; give others")
    return TrainingRows(train.ids[kept], train.labels[kept], train.digests[kept], train.features[kept])


def _of_classes(rows: TrainingRows, names: Sequence[str] | None) -> TrainingRows:
    """Returns the rows whose label is one of these names; all of them where no names are given."""
    if not names:
        return rows
    unknown = sorted(set(names) - set(rows.labels.tolist()))
    if unknown:
        raise UsageError(f"--names {' '.join(unknown)}: no image has that label; known: {_known(rows)}")
    kept = np.isin(rows.labels, list(names))
    return TrainingRows(rows.ids[kept], rows.labels[kept], rows.digests[kept], rows.features[kept])


def _known(rows: TrainingRows) -> str:
    return ", ".join(sorted(set(rows.labels.tolist()))[:20])


def _words(fitted: Fitted, output: str) -> str:
    metrics = fitted.metrics
    return (
        f"C {fitted.c:g}: held-out accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['macro_f1']:.4f}, "
        f"majority baseline {metrics['majority_baseline']:.4f}\n"
        f"head: {output} (use it with --head {output})"
    )
