"""Features and answers that a head learns from: through the stages of `label`, held-out copies left out.

What is learned is the labels of the inputs, shares of classes from elsewhere (`--soft-labels`), or both blended.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np

from models.training.groups import joined
from models.training.head_data import Blend, Labels, Rows, Votes
from pipeline.errors import UsageError
from pipeline.run import graph
from pipeline.run.classes_map import class_pairs
from pipeline.run.foreign_files import refuse_foreign_work
from pipeline.run.held_out import digests_of
from pipeline.run.identity import identity_of
from pipeline.run.output_folder import OutputFolder
from pipeline.run.plan import Layout, Plan, head_of, make_plan
from pipeline.run.prepare import make_job
from pipeline.run.running import heartbeat_folder, run_graph
from pipeline.run.soft_labels import read_source, renamed
from transforms.formats.label_table import LABELS_COME
from transforms.formats.soft_labels import SoftLabels
from transforms.read_blocks import STREAM_MARK
from transforms.training_rows import TrainingRows, WriteTrainingRows, read_rows

if TYPE_CHECKING:
    from pipeline.commands.command import Context
    from pipeline.commands.train_head import TrainHeadOptions
    from pipeline.run.identity import Identity
    from pipeline.settings.schema import Settings


WORK = "work"  # below the output folder: plans, features, checkpoints; removed in the end


@dataclass(frozen=True, slots=True)
class Labelled:
    """Features with their labels, votes or both; `groups` (n,) are equal for rows that stay together in a split."""

    features: Rows
    labels: Labels
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, slots=True)
class Shares:
    """What `--soft-labels` say.

    Attributes:
        learned: shares of the classes that count.
        given: all shares as they stand in the table.
        reject: classes of these; what one of them leads is not learned, though it has a label.
    """

    learned: SoftLabels
    given: SoftLabels
    reject: tuple[str, ...] = ()

    def silences(self, image_id: str) -> bool:
        """True if a class of `reject` leads an image's votes; a tie goes to the first class, as for a backbone."""
        row = self.given.of(image_id)
        return row is not None and self.given.classes[int(row.argmax())] in self.reject


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that is learned from, in one feature space. Its features lie in files that the context removes."""

    identity: Identity
    train: Labelled
    validation: Labelled | None


def read_shares(options: TrainHeadOptions, settings: Settings) -> Shares | None:
    """Returns the shares of `--soft-labels`, cut to the classes that count; None where the inputs' labels do.

    Raises:
        UsageError: a class of --names or --reject is none of theirs, or flags and `head.soft_share` contradict.
    """
    blended = is_blended(settings)
    if not options.soft_labels:
        if blended:
            raise UsageError("head.soft_share is about --soft-labels; give those, or drop it")
        return None
    source, names = read_source(options.soft_labels), class_pairs(options.classes_map, "happiness=happy")
    reject = options.reject
    if blended:
        _check_silencing(source, names, reject)
        names |= dict.fromkeys(reject)
    votes = renamed(source, names)
    named = {"names": options.names, "reject": reject}
    for flag, given in () if blended else named.items():  # blended, --names are those of the labels
        if unknown := sorted(set(given) - set(votes.classes)):
            raise UsageError(
                f"--{flag} {' '.join(unknown)}: --soft-labels have no such class; known: {', '.join(votes.classes)}"
            )
    silencing = reject if blended else ()
    if not options.names:
        return Shares(votes, source, silencing)
    kept = {*options.names, *reject}
    columns = [place for place, name in enumerate(votes.classes) if name in kept]
    if not columns:
        raise UsageError(f"--names {' '.join(options.names)}: --soft-labels have none of these classes")
    adding = np.eye(len(votes.classes), dtype=np.float32)[:, columns]
    return Shares(votes.added(tuple(votes.classes[place] for place in columns), adding), source, silencing)


def _check_silencing(source: SoftLabels, names: Mapping[str, str | None], reject: Sequence[str]) -> None:
    """Raises UsageError if classes to reject are none of the votes', stand for a class, or leave fewer than two."""
    if unknown := sorted(set(reject) - set(source.classes)):
        raise UsageError(
            f"--reject {' '.join(unknown)}: --soft-labels have no such class; known: {', '.join(source.classes)}"
        )
    if both := [name for name in reject if names.get(name)]:
        raise UsageError(f"--reject {both[0]}: --classes-map says that it is {names[both[0]]}; drop one of the two")
    if len(set(source.classes) - set(reject)) < 2:
        raise UsageError("--reject leaves fewer than two classes of --soft-labels; reject less")


def is_blended(settings: Settings) -> bool:
    """Returns whether a head learns labels and shares together."""
    return settings.head.soft_share < 1


@contextmanager
def gathered(options: TrainHeadOptions, context: Context, shares: Shares | None) -> Iterator[Gathered]:
    """Gives features and answers of training and validation, copies left out; removes their files behind it.

    The caller holds the output folder: another training in it would change features under this one.
    """
    unlabelled = shares is not None and not is_blended(context.settings)
    identity = identity_of(context.settings, None)
    work = os.path.join(os.path.abspath(options.output), WORK)
    refuse_foreign_work(work)
    try:
        train = features_of(options, context, identity, options.input, "training", unlabelled=unlabelled)
        validation = None
        if options.validation:
            validation = features_of(
                options, context, identity, options.validation, "validation", unlabelled=unlabelled
            )
        held_out = set() if validation is None else {digest.tobytes() for digest in validation.digests}
        if options.exclude:
            excluded = os.path.join(work, "excluded")
            held_out |= digests_of(options.exclude, excluded, context.settings)
            shutil.rmtree(excluded)
        of_training = partial(_answered, options=options, settings=context.settings, shares=shares)
        chosen = of_training(train, _without_copies(train, held_out))
        of_validation = partial(of_training, shares=shares if unlabelled else None, learned=False)
        held = None if validation is None else of_validation(validation, np.arange(len(validation)))
        yield Gathered(identity, chosen, held)
    finally:
        for name in ("training", "validation"):
            Path(work, f"{name}.npy").unlink(missing_ok=True)
        with suppress(OSError):  # what a killed training left there stays
            os.rmdir(work)


def features_of(
    options: TrainHeadOptions,
    context: Context,
    identity: Identity,
    patterns: Sequence[str],
    name: str,
    *,
    unlabelled: bool = False,
) -> TrainingRows:
    """Returns features and labels of all labelled images of these inputs that show a face, in plan order.

    Args:
        unlabelled: True to take images without a label too.

    Raises:
        UsageError: there is none.
    """
    settings = context.settings
    work = os.path.join(os.path.abspath(options.output), WORK)
    folder = OutputFolder(os.path.join(work, name))
    cache = options.cache or os.path.join(options.output, "cache")
    flag = f"--{'input' if name == 'training' else name}"
    with folder.locked():
        wanted = {**identity.parts, "purpose": name}
        if folder.identity() not in (None, wanted):
            folder.clear()  # left by a killed training on other features; the cache holds what was dear
        folder.prepare(wanted)
        heartbeat = heartbeat_folder(context.beam_options, folder.path)
        job = make_job(settings, identity, output=folder.path, cache=cache, head="", heartbeat=heartbeat)
        plan = make_plan(
            patterns, folder.plan, Layout(settings.read.block_images, settings.read.block_bytes), job.limits, flag=flag
        )
        refs = [ref for ref, _ in plan.lines()]

        def build(root: beam.Pipeline) -> Any:
            write = beam.ParDo(WriteTrainingRows(job, unlabelled=unlabelled))
            return graph.featured(root, refs, job) | "WriteTrainingRows" >> write

        run_graph(
            build,
            context.beam_options,
            heartbeat=heartbeat,
            total=None if plan.streamed else plan.images,
            done=0,
            quiet=context.quiet,
            verbose=context.verbose,
            go_on="features so far are in the cache: the same command goes on",
        )
        rows = read_rows(_in_plan_order(folder.parts, plan), os.path.join(work, f"{name}.npy"))
    if not len(rows):
        lacked = "with a face" if unlabelled else f"with a label and a face; {LABELS_COME}"
        raise UsageError(f"{flag} {' '.join(patterns)}: no image {lacked}")
    print(f"{name}: {len(rows):,} {'faces' if unlabelled else 'labelled faces'}", file=sys.stderr)
    shutil.rmtree(folder.path)
    return rows


def _in_plan_order(folder: str, plan: Plan) -> list[str]:
    """Returns the files of the plan's blocks, and none that an earlier run with other inputs left behind."""
    place = {head_of(line)[0]: number for number, (_, line) in enumerate(plan.lines())}
    keys = sorted(name.removesuffix(".npz") for name in os.listdir(folder) if name.endswith(".npz"))
    known = [key for key in keys if key.split(STREAM_MARK)[0] in place]
    ordered = sorted(known, key=lambda key: place[key.split(STREAM_MARK)[0]])  # stable: a stream's blocks by number
    return [os.path.join(folder, key + ".npz") for key in ordered]


def _without_copies(train: TrainingRows, held_out: Set[bytes]) -> np.ndarray:
    """Returns the rows whose digest is none of these; says how many were left out."""
    kept = np.asarray([digest.tobytes() not in held_out for digest in train.digests], bool)
    if not kept.all():
        print(f"{int((~kept).sum()):,} copies of validation or excluded images left out", file=sys.stderr)
    if not kept.any():
        raise UsageError("--input: every image stands in --validation or --exclude too; give others")
    return np.flatnonzero(kept)


def _answered(
    found: TrainingRows,
    rows: np.ndarray,
    *,
    options: TrainHeadOptions,
    settings: Settings,
    shares: Shares | None,
    learned: bool = True,
) -> Labelled:
    """Returns those of the rows that have a label that counts, or votes where they alone are learned.

    Args:
        learned: False for the rows of --validation, which may lack classes.
    """
    labels: Labels
    if shares is not None and not is_blended(settings):
        rows, labels = _voted(found, rows, shares.learned, options.reject)
    else:
        rows = _of_classes(found, rows, options.names, learned=learned)
        if shares is not None:
            rows = _not_silenced(found, rows, shares)
        labels = named = found.labels[rows].tolist()
        if shares is not None:
            share = settings.head.soft_share
            labels = _blended(found.ids[rows].tolist(), named, shares.learned, share)
    return Labelled(Rows(found.features, rows), labels, _groups(found, rows, options.group_by))


def _groups(found: TrainingRows, rows: np.ndarray, group_by: str | None) -> np.ndarray:
    """Returns (n,) group numbers: copies belong together, and so do ids that `group_by` finds alike."""
    digests = [digest.tobytes() for digest in found.digests[rows]]
    if group_by is None:
        return joined(digests)
    pattern = re.compile(group_by)
    return joined(digests, [group_key(pattern, image_id) for image_id in found.ids[rows].tolist()])


def group_key(pattern: re.Pattern[str], image_id: str) -> str:
    """Returns what an id is grouped by: the match, or its first group; an id without a match stands for itself."""
    match = pattern.search(image_id)
    if match is None:
        return image_id
    return (match[1] if pattern.groups else match[0]) or ""


def _blended(ids: Sequence[str], labels: Sequence[str], votes: SoftLabels, share: float) -> Blend:
    """Returns labels with votes beside them; says how many images have none.

    Raises:
        UsageError: votes for a class that no label names, or for none of the images.
    """
    if strange := sorted(set(votes.classes) - set(labels)):
        raise UsageError(
            f"--soft-labels have classes that no label names: {', '.join(strange)}; give --classes-map "
            f"{strange[0]}=CLASS for each, or {strange[0]}= to leave it out. Labels: {', '.join(sorted(set(labels)))}"
        )
    given = [votes.of(image_id) for image_id in ids]
    if all(row is None for row in given):
        raise UsageError(f"--soft-labels knows none of the images, whose ids are like {ids[0]}")
    if missing := sum(row is None for row in given):
        print(f"{missing:,} images without votes learn their label alone", file=sys.stderr)
    nothing = np.zeros(len(votes.classes), np.float32)
    shares = np.stack([nothing if row is None else row for row in given]).astype(np.float32)
    return Blend(labels, shares, votes.classes, share)


def _not_silenced(found: TrainingRows, rows: np.ndarray, shares: Shares) -> np.ndarray:
    """Returns the rows that may be learned from; says how many may not."""
    if not shares.reject or not len(rows):
        return rows
    kept = np.asarray([not shares.silences(image_id) for image_id in found.ids[rows].tolist()], bool)
    leading = " or ".join(shares.reject)
    if not kept.any():
        raise UsageError(f"--reject {' '.join(shares.reject)}: {leading} leads the votes of every image; reject less")
    if not kept.all():
        print(f"{int((~kept).sum()):,} images not learned, as {leading} leads their votes", file=sys.stderr)
    return np.asarray(rows[kept])


def _of_classes(found: TrainingRows, rows: np.ndarray, names: Sequence[str] | None, *, learned: bool) -> np.ndarray:
    """Returns the rows whose label is one of these names; all of them where no names are given.

    Raises:
        UsageError: a name is no label of what is learned, or none is one of what is validated on.
    """
    if not names:
        return rows
    known = set(found.labels[rows].tolist())
    unknown = sorted(set(names) - known)
    if learned and (copies := sorted(set(unknown) & set(found.labels.tolist()))):
        raise UsageError(f"--names {' '.join(copies)}: every such image stands in --validation or --exclude too")
    if unknown and (learned or len(unknown) == len(set(names))):
        where = "of --input" if learned else "of --validation"
        shown = ", ".join(sorted(known)[:20])
        raise UsageError(f"--names {' '.join(unknown)}: no image {where} has that label; known: {shown}")
    return rows[np.isin(found.labels[rows], list(names))]


def _voted(
    found: TrainingRows, rows: np.ndarray, votes: SoftLabels, reject: tuple[str, ...]
) -> tuple[np.ndarray, Votes]:
    """Returns the rows that have votes, and those; says how many have none."""
    given = [votes.of(image_id) for image_id in found.ids[rows].tolist()]
    kept = np.asarray([row is not None for row in given], bool)
    if not kept.any():
        raise UsageError(f"--soft-labels knows none of the images, whose ids are like {found.ids[rows[0]]}")
    if not kept.all():
        print(f"{int((~kept).sum()):,} images without votes left out", file=sys.stderr)
    shares = np.stack([row for row in given if row is not None]).astype(np.float32)
    return rows[kept], Votes(shares, votes.classes, reject)
