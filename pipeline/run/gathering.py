"""Features and targets that a head learns from: through the stages of `label`, without copies of held-out images.

Not here: the targets (`answers.py`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np

from pipeline.errors import UsageError
from pipeline.run import graph
from pipeline.run.answers import Labelled, Shares, Wanted, answered
from pipeline.run.drive import Execution, Ready, Task, drive
from pipeline.run.foreign_files import refuse_foreign_work
from pipeline.run.held_out import digests_of
from pipeline.run.identity import identity_of
from pipeline.run.notes import note
from pipeline.run.output_folder import OutputFolder
from pipeline.run.plan import Plan, head_of
from pipeline.run.prepare import make_job
from transforms.formats.label_table import LABELS_COME
from transforms.read_blocks import STREAM_MARK
from transforms.training_rows import TrainingRows, WriteTrainingRows, read_rows

if TYPE_CHECKING:
    from pipeline.run.identity import Identity
    from pipeline.settings.schema import Settings


WORK = "work"  # below the output folder: plans, features, checkpoints; removed at the end


@dataclass(frozen=True, slots=True)
class Gathered:
    """The training data in one feature space. Its features are in files that the context removes."""

    identity: Identity
    train: Labelled
    validation: Labelled | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where images come from, and where features go.

    Attributes:
        inputs, validation, exclude_copies_of: patterns to learn from, to select by, to exclude.
        work: folder for temporary files; removed at the end.
        cache: root of the feature cache.
        settings: of reading, faces and features.
        execution: of the graphs.
    """

    inputs: tuple[str, ...]
    validation: tuple[str, ...] = ()
    exclude_copies_of: tuple[str, ...] = ()
    work: str
    cache: str
    settings: Settings
    execution: Execution


@contextmanager
def gathered(sources: Sources, wanted: Wanted, shares: Shares | None) -> Iterator[Gathered]:
    """Yields features and targets of training and validation without copies; removes their files afterwards.

    The caller holds the output folder: another training in it would change features under this one.
    """
    alone = shares is not None and not wanted.is_blended
    identity = identity_of(sources.settings, None)
    refuse_foreign_work(sources.work)
    try:
        train = features_of(sources, identity, "training", unlabelled=alone)
        validation = features_of(sources, identity, "validation", unlabelled=alone) if sources.validation else None
        held_out = set() if validation is None else {digest.tobytes() for digest in validation.digests}
        if sources.exclude_copies_of:
            excluded = os.path.join(sources.work, "excluded")
            held_out |= digests_of(sources.exclude_copies_of, excluded, sources.settings)
            shutil.rmtree(excluded)
        chosen = answered(train, _without_copies(train, held_out), wanted, shares)
        held = None
        if validation is not None:
            rows = np.arange(len(validation))
            held = answered(validation, rows, wanted, shares if alone else None, learned=False)
        yield Gathered(identity, chosen, held)
    finally:
        for name in ("training", "validation"):
            Path(sources.work, f"{name}.npy").unlink(missing_ok=True)
        with suppress(OSError):  # a killed training leaves files
            os.rmdir(sources.work)


def features_of(sources: Sources, identity: Identity, name: str, *, unlabelled: bool = False) -> TrainingRows:
    """Returns features and labels of all labelled images of these inputs that have a face, in plan order.

    Args:
        name: training or validation.
        unlabelled: True to include images without a label.

    Raises:
        UsageError: there are none.
    """
    patterns, flag = (sources.inputs, "--input") if name == "training" else (sources.validation, "--validation")
    folder = OutputFolder(os.path.join(sources.work, name))
    with folder.locked():
        task = Task(
            folder=folder,
            identity={**identity.parts, "purpose": name},
            inputs=patterns,
            flag=flag,
            job=make_job(sources.settings, identity, output=folder.path, cache=sources.cache),
            replaces=True,
            go_on="run the same command to resume; computed features are cached",
        )

        def stages(root: beam.Pipeline, ready: Ready) -> Any:
            write = beam.ParDo(WriteTrainingRows(ready.job.writing.parts, unlabelled=unlabelled))
            return graph.featured(root, ready.progress.missing, ready.job) | "WriteTrainingRows" >> write

        plan = drive(task, stages, sources.execution).plan
        rows = read_rows(_in_plan_order(folder.parts, plan), os.path.join(sources.work, f"{name}.npy"))
    if not len(rows):
        lacked = "with a face" if unlabelled else f"with a label and a face; {LABELS_COME}"
        raise UsageError(f"{flag} {' '.join(patterns)}: no image {lacked}")
    note(f"{name}: {len(rows):,} {'faces' if unlabelled else 'labelled faces'}")
    shutil.rmtree(folder.path)
    return rows


def _in_plan_order(folder: str, plan: Plan) -> list[str]:
    """Returns the files of the plan's blocks, without files from an earlier run with other inputs."""
    place = {head_of(line)[0]: number for number, (_, line) in enumerate(plan.lines())}
    keys = sorted(name.removesuffix(".npz") for name in os.listdir(folder) if name.endswith(".npz"))
    known = [key for key in keys if key.split(STREAM_MARK)[0] in place]
    ordered = sorted(known, key=lambda key: place[key.split(STREAM_MARK)[0]])  # stable
    return [os.path.join(folder, key + ".npz") for key in ordered]


def _without_copies(train: TrainingRows, held_out: Set[bytes]) -> np.ndarray:
    """Returns the rows without these digests; reports how many were skipped."""
    kept = np.asarray([digest.tobytes() not in held_out for digest in train.digests], bool)
    if not kept.all():
        note(f"{int((~kept).sum()):,} copies of validation or excluded images skipped")
    if not kept.any():
        raise UsageError("--input: every image is also in --validation or --exclude-copies-of; give others")
    return np.flatnonzero(kept)
