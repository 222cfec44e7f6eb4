"""`label`, `train_head` and `evaluate` as functions, with the same results as the commands.

They raise the errors of `pipeline/errors.py` and never end the process. Runs in one process wait for each other.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.api.given import (
    PathLike,
    Paths,
    SettingsLike,
    head_settings,
    options_of,
    pairs,
    path_text,
    path_texts,
    settings_from,
)
from pipeline.api.results import Evaluation, Run, TrainedHead
from pipeline.beam_flags import without_warnings
from pipeline.commands.command import Context
from pipeline.commands.evaluate import EvaluateOptions
from pipeline.commands.label import LabelOptions
from pipeline.commands.registry import COMMANDS
from pipeline.commands.train_head import TrainHeadOptions
from pipeline.errors import StoppedError
from pipeline.flags import Options
from pipeline.run.interrupt import never_leaving
from pipeline.uncaught import as_ours

DIRECT = ("--runner=DirectRunner",)
_ONE_RUN = threading.Lock()  # progress and Ctrl-C belong to the whole process


def label(
    inputs: Paths,
    output: PathLike,
    *,
    head: Paths | None = None,
    settings: SettingsLike = None,
    cache: PathLike | None = None,
    sample_submission: PathLike | None = None,
    max_rejected: float | None = None,
    render: int | None = None,
    overwrite: bool = False,
    beam_options: Sequence[str] = DIRECT,
    quiet: bool = True,
) -> Run:
    """Labels every face of a collection, or resumes doing so, and returns the finished run.

    Args:
        inputs: folders, archives, tables or wildcards, one or several, as for `--input`.
        output: folder for the results. A stopped run there resumes.
        head: `bundled`, `bundled/ferplus`, `bundled/smile`, the folder of a head, or the result of `train_head`;
            several label each face, and the text `NAME=PATH` names one.
        settings: `Settings`, a mapping such as `{"faces.min_label_px": 0}`, or the path of a YAML file.
        cache: folder of the feature cache; None is `output/cache`.
        sample_submission: CSV whose columns, ids and order submission.csv follows.
        max_rejected: stop once this fraction of the images is rejected.
        render: also write this many photos with boxes and labels to `output/rendered`.
        overwrite: replace the results of another run.
        beam_options: flags of Apache Beam.
        quiet: no progress bar and no closing summary.

    Raises:
        UsageError: an argument or a setting is wrong; nothing was written.
        StoppedError: stopped by a limit or a storage error; the same call resumes.
        Interrupted: stopped by the user; the same call resumes.
    """
    options = options_of(
        LabelOptions,
        input=path_texts(inputs),
        output=path_text(output),
        cache=path_text(cache),
        sample_submission=path_text(sample_submission),
        max_rejected=max_rejected,
        render=render,
        overwrite=overwrite,
    )
    chosen = settings_from(settings, **head_settings(head))
    _act("label", options, Context(chosen, tuple(beam_options), quiet))
    return Run.open(output)


def train_head(
    inputs: Paths,
    output: PathLike,
    *,
    kind: str | None = None,
    validation: Paths = (),
    holdout: float | None = None,
    select_folds: int | None = None,
    folds: int | None = None,
    repeats: int | None = None,
    group_by: str | None = None,
    exclude_copies_of: Paths = (),
    classes: Iterable[str] = (),
    soft_labels: PathLike | None = None,
    rename_classes: Mapping[str, str] | None = None,
    reject: Iterable[str] = (),
    settings: SettingsLike = None,
    cache: PathLike | None = None,
    overwrite: bool = False,
    beam_options: Sequence[str] = DIRECT,
    quiet: bool = True,
) -> TrainedHead:
    """Trains a head on labelled images and returns it.

    Args:
        inputs: labelled images: folders with one folder per class, archives or tables.
        output: folder for the head.
        kind: `logistic`, `ridge` or `mlp`; None uses the settings.
        validation, holdout: labelled images to select by, or the fraction of the input to select by.
        select_folds: select by this many folds of the input instead, then train on all of it.
        folds: also cross-validate with this many heads.
        repeats: cross-validate this many times, with folds dealt anew.
        group_by: pattern; images whose ids give the same match stay together in every split.
        exclude_copies_of: images that must not be trained on.
        classes: classes to learn; () for all.
        soft_labels, rename_classes, reject: as `--soft-labels`, `--rename-classes` and `--reject`.
        settings, cache, beam_options, quiet: as for `label`.
        overwrite: replace the results of another training.

    Raises:
        UsageError: an argument or a setting is wrong.
        StoppedError, Interrupted: stopped; the same call resumes from the cache.
    """
    options = options_of(
        TrainHeadOptions,
        input=path_texts(inputs),
        output=path_text(output),
        cache=path_text(cache),
        overwrite=overwrite,
        kind=kind,
        validation=path_texts(validation),
        holdout=holdout,
        select_folds=select_folds,
        folds=folds,
        repeats=repeats,
        group_by=group_by,
        exclude_copies_of=path_texts(exclude_copies_of),
        classes=tuple(classes),
        soft_labels=path_text(soft_labels),
        rename_classes=pairs(rename_classes or {}),
        reject=tuple(reject),
    )
    _act("train-head", options, Context(settings_from(settings, head__kind=kind), tuple(beam_options), quiet))
    return TrainedHead.open(output)


def evaluate(
    inputs: Paths | Run,
    output: PathLike,
    *,
    head: PathLike | None = None,
    exclude_copies_of: Paths = (),
    images: Paths = (),
    soft_labels: PathLike | None = None,
    rename_classes: Mapping[str, str] | None = None,
    positive: Iterable[str] = (),
    positive_labels: Iterable[str] = (),
    seed: int | None = None,
    settings: SettingsLike = None,
    cache: PathLike | None = None,
    overwrite: bool = False,
    beam_options: Sequence[str] = DIRECT,
    quiet: bool = True,
) -> Evaluation:
    """Evaluates labels and returns the metrics; writes plots and a page to the output folder.

    Args:
        inputs: labelled images, or a finished run of `label` on labelled images.
        output: folder for metrics, plots and the page.
        head, settings, cache, beam_options, quiet: as for `label`, with one head. A finished run takes no cache, and as
            head the name of one of its heads.
        exclude_copies_of: images that must not count.
        images: where the pictures of a finished run are now.
        soft_labels, rename_classes, positive, positive_labels, seed: as the flags of those names.
        overwrite: replace the results of another evaluation.

    Raises:
        UsageError: an argument or a setting is wrong.
        StoppedError, Interrupted: stopped; the same call resumes from the cache.
    """
    finished = str(inputs.path) if isinstance(inputs, Run) else None
    options = options_of(
        EvaluateOptions,
        input=() if isinstance(inputs, Run) else path_texts(inputs),
        predictions=finished,
        output=path_text(output),
        cache=path_text(cache),
        overwrite=overwrite,
        head=path_text(head),
        exclude_copies_of=path_texts(exclude_copies_of),
        images=path_texts(images),
        soft_labels=path_text(soft_labels),
        rename_classes=pairs(rename_classes or {}),
        positive=tuple(positive),
        positive_labels=tuple(positive_labels),
        seed=seed,
    )
    _act("evaluate", options, Context(settings_from(settings, head__path=path_text(head)), tuple(beam_options), quiet))
    return Evaluation.open(Path(output))


def _act(name: str, options: Options, context: Context) -> None:
    """Runs a command in this process.

    Raises:
        PipelineError: the error that the command line would report.
    """
    with _ONE_RUN, never_leaving():
        try:
            with without_warnings():
                action = importlib.import_module(COMMANDS[name].module)
            status: int = action.run(options, context)
        except Exception as error:
            ours = as_ours(error)
            if ours is None or ours is error:
                raise
            raise ours from error
    if status:
        raise StoppedError(f"{name} ended with status {status}")
