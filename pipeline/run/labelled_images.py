"""Decoded images and targets that a backbone learns from, without copies of held-out images.

Reads any input that `label` reads; every image is one face, as `faces.detector=none` takes it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from models.training.stored_rows import Rows, RowsWriter, some_rows
from pipeline.errors import StoppedError, UsageError
from pipeline.run.held_out import digests_of
from pipeline.run.identity import given_labels
from pipeline.run.notes import note
from pipeline.run.plan import Layout, make_plan
from pipeline.run.soft_labels import read_source
from transforms.formats.label_table import LABELS_COME, LabelTable
from transforms.formats.publish import storage_error
from transforms.formats.records import Limits
from transforms.formats.soft_labels import SoftLabels

if TYPE_CHECKING:
    from models.training.trainer import Examples, Task
    from pipeline.settings.schema import Settings
    from pipeline.settings.training import TrainSettings


HOLDOUT = 0.1  # of the images, if no validation input is given
LABELS = "labels"  # the task of the hard labels; it comes first, and epochs are judged by it


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Decoded crops: `images` (n, h, w, c) uint8, `ids`, `labels`, `digests` of the encoded bytes.

    A label is None if the image has only soft labels.
    """

    images: Rows
    ids: list[str]
    labels: list[str | None]
    digests: list[bytes]

    def of(self, rows: Sequence[int]) -> LabelledImages:
        """Returns these rows."""
        return LabelledImages(
            some_rows(self.images, rows),
            [self.ids[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.digests[row] for row in rows],
        )

    def without(self, digests: set[bytes]) -> LabelledImages:
        """Returns the images without those with these digests."""
        return self.of([row for row, digest in enumerate(self.digests) if digest not in digests])


@dataclass(frozen=True, slots=True)
class Form:
    """How images are read: (height, width) in pixels, 1 channel or 3, and the folder for a file of their pixels.

    Without a folder they stay in memory.
    """

    size: tuple[int, int]
    channels: int = 1
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """The training data: training and validation images, the tasks, and how many images were skipped and why."""

    train: LabelledImages
    validation: LabelledImages
    classes: tuple[str, ...]
    soft: Mapping[str, SoftLabels]
    left_out: Mapping[str, int]


def read_data(
    patterns: Sequence[str],
    settings: Settings,
    form: Form,
    *,
    validation: Sequence[str] = (),
    exclude_copies_of: Sequence[str] = (),
    soft_labels: Sequence[str] = (),
) -> Data:
    """Returns images, classes and soft labels.

    Skips copies of validation or excluded images, and images of a single colour.

    Args:
        patterns: of the images to learn from.
        form: size and channels of the crops, and where their pixels go.
        validation: patterns of images to choose by; without them a tenth of the images is held out.
        exclude_copies_of: patterns of images that must not be learned from.
        soft_labels: `NAME=PATH` texts.
    """
    limits = Limits(settings.read.max_image_bytes, settings.read.max_pixels)
    table = given_labels(settings)
    soft = read_soft_labels(soft_labels)
    read, passed_over = read_labelled(patterns, form, limits, soft=soft, table=table)
    held_out: set[bytes] = set()
    judged = None
    if validation:
        judged, _ = read_labelled(validation, form, limits, "--validation", table=table)
        held_out.update(judged.digests)
    if exclude_copies_of:
        with tempfile.TemporaryDirectory() as folder:
            held_out |= digests_of(exclude_copies_of, folder, settings)
    train = read.without(held_out)
    if not train.labels:
        raise UsageError(
            "--input has only copies of --validation and --exclude-copies-of, so nothing is left to train on"
        )
    shown = [row for row, image in enumerate(train.images) if image.min() != image.max()]
    left_out = {
        "without labels or rejected": passed_over,
        "copies of validation or excluded images": len(read.labels) - len(train.labels),
        "pictures of one value": len(train.labels) - len(shown),
    }
    train = train.of(shown)
    taught = train.labels.count(None)
    also = f", {taught:,} of them with soft labels only" if taught else ""
    note(f"{len(train.labels):,} images to learn from{also}; skipped: {_counted(left_out)}")
    if judged is None:
        train, judged = _split(train)
        if only := sorted(_named(judged) - _named(train)):
            raise UsageError(f"too few images of {', '.join(only)} to hold some out; add more, or give --validation")
    return Data(train, judged, _classes(train, judged), soft, left_out)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


def _named(images: LabelledImages) -> set[str]:
    return {label for label in images.labels if label is not None}


def _classes(train: LabelledImages, validation: LabelledImages) -> tuple[str, ...]:
    classes = tuple(sorted(_named(train)))
    unknown = sorted(_named(validation) - set(classes))
    if unknown:
        raise UsageError(f"--validation has classes that --input lacks: {', '.join(unknown)}")
    if len(classes) < 2:
        raise UsageError(
            f"--input has fewer than two classes ({', '.join(classes) or 'none'}); at least two are needed"
        )
    return classes


def read_labelled(
    patterns: Sequence[str],
    form: Form,
    limits: Limits,
    flag: str = "--input",
    *,
    soft: Mapping[str, SoftLabels] = MappingProxyType({}),
    table: LabelTable | None = None,
) -> tuple[LabelledImages, int]:
    """Returns the images of the inputs that have labels or `soft` labels in plan order, and how many were passed over.

    Args:
        table: labels by image id, instead of the inputs' labels.

    Raises:
        UsageError: there are no images, or none with a label.
        StorageError: the pixels cannot be written to the folder.
    """
    ids, labels, digests, passed_over = [], [], [], 0
    pixels = _InMemory() if form.folder is None else _InFile(form.folder)
    for image_id, label, digest, image in _decoded(patterns, form, limits, flag):
        if table is not None:
            label = table.of(image_id)
        known = label is not None or any(shares.of(image_id) is not None for shares in soft.values())
        if image is None or not known:
            passed_over += 1
            continue
        pixels.add(image)
        ids.append(image_id)
        labels.append(label)
        digests.append(digest)
    if all(label is None for label in labels):
        raise UsageError(f"{flag} {' '.join(patterns)}: no image with a label; {LABELS_COME}")
    return LabelledImages(pixels.rows(), ids, labels, digests), passed_over


class _InMemory:
    """Collects rows in memory, as `RowsWriter` does in a file."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []

    def add(self, row: np.ndarray) -> None:
        self._rows.append(row)

    def rows(self) -> np.ndarray:
        return np.stack(self._rows)


class _InFile:
    """Collects rows in a file of a folder; errors name the folder, since the file has no name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with self._named_errors():
            self._writer = RowsWriter(folder)

    def add(self, row: np.ndarray) -> None:
        with self._named_errors():
            self._writer.add(row)

    def rows(self) -> Rows:
        with self._named_errors():
            return self._writer.rows()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error("write", f"a temporary file in {self._folder}", error) from error


def _decoded(
    patterns: Sequence[str], form: Form, limits: Limits, flag: str
) -> Iterator[tuple[str, str | None, bytes, np.ndarray | None]]:
    """Yields id, label, digest and crop of every image; no crop if the image is rejected."""
    from transforms.containing import GATE, contained
    from transforms.formats.records import RejectedContent
    from transforms.read_blocks import PlannedBlock, read_block, stream_blocks

    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(patterns, folder, Layout(256, 64 * 2**20), limits, flag=flag)
        for _, line in plan.lines():
            planned = PlannedBlock.from_json(line)
            blocks = (
                stream_blocks(planned, limits, block_images=256, block_bytes=64 * 2**20, finished=set())
                if planned.streamed
                else [read_block(planned, limits)]
            )
            for block in blocks:
                for image_id, label, data in zip(block.ids, block.labels, block.data, strict=True):
                    digest = hashlib.sha256(data or b"").digest()
                    try:
                        with GATE.together():
                            image = contained(image_id, partial(_pixels, data or b"", form, limits))
                    except RejectedContent:
                        image = None
                    yield image_id, label, digest, image


def _pixels(data: bytes, form: Form, limits: Limits) -> np.ndarray:
    """Returns (height, width, channels) uint8 of an encoded image."""
    from models.detectors.cropping import resized
    from transforms.formats.decode import decode

    pixels = resized(decode(data, channels=form.channels, limits=limits).image, form.size)
    return pixels.reshape(*form.size, form.channels)


def _split(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Returns (training, validation), split by digest, so that copies stay together."""
    labelled = {d for d, label in zip(images.digests, images.labels, strict=True) if label is not None}
    held_out = {d for d in labelled if int.from_bytes(d[:8], "big") / 2**64 < HOLDOUT}
    judged = enumerate(zip(images.digests, images.labels, strict=True))
    rows = [row for row, (digest, label) in judged if digest in held_out and label is not None]
    if not rows or len(rows) == len(images.labels):
        raise StoppedError(f"{len(images.labels)} images are too few to hold some out; give --validation")
    return images.without(held_out), images.of(rows)


def read_soft_labels(sources: Sequence[str]) -> dict[str, SoftLabels]:
    """Returns the soft labels of `NAME=PATH` texts by name; a path is a CSV of votes or a finished run's folder.

    Raises:
        UsageError: a text is not NAME=PATH, a name occurs twice, or a path does not exist.
    """
    found: dict[str, SoftLabels] = {}
    for source in sources:
        name, equals, path = source.partition("=")
        if not equals or not name.isidentifier() or name in (LABELS, *found):
            raise UsageError(f"--soft-labels {source}: give NAME=PATH with a new name, such as votes=votes.csv")
        found[name] = read_source(path)
    return found


def tasks_of(data: Data, settings: TrainSettings) -> list[Task]:
    """Returns the task of the labels and one task per source of soft labels."""
    from models.training.trainer import Task

    soft = [Task(name, labels.classes, settings.soft_weight, soft=True) for name, labels in data.soft.items()]
    return [Task(LABELS, data.classes), *soft]


def examples_of(images: LabelledImages, data: Data, reject: Sequence[str]) -> Examples:
    """Returns what the trainer learns from.

    Args:
        reject: classes of soft labels; where one has the largest share, the hard label gets weight 0.

    """
    from models.training.trainer import Examples, one_hot

    labelled = np.array([label is not None for label in images.labels], bool)
    targets = {LABELS: np.zeros((len(labelled), len(data.classes)), np.float32)}
    targets[LABELS][labelled] = one_hot([label for label in images.labels if label is not None], data.classes)
    weights = {LABELS: labelled.astype(np.float32)}
    for name, labels in data.soft.items():
        rows = [labels.of(image_id) for image_id in images.ids]
        nothing = np.zeros(len(labels.classes), np.float32)
        targets[name] = np.stack([nothing if row is None else row for row in rows])
        weights[name] = np.asarray([row is not None for row in rows], np.float32)
        rejecting = [place for place, label in enumerate(labels.classes) if label in reject]
        leads = np.isin(targets[name].argmax(1), rejecting) & (weights[name] > 0)
        weights[LABELS][leads] = 0.0
    return Examples(images.images, targets, weights)


def check_soft_labels(train: Examples, data: Data, reject: Sequence[str]) -> None:
    """Raises UsageError if soft labels have none of the images, or lack a class in `reject`."""
    for name in data.soft:
        if not train.weights[name].any():
            raise UsageError(f"--soft-labels {name} knows none of the images, whose ids are like {data.train.ids[0]}")
    known = sorted({label for labels in data.soft.values() for label in labels.classes})
    if unknown := sorted(set(reject) - set(known)):
        raise UsageError(
            f"train.reject {', '.join(unknown)}: no --soft-labels has that class; known: {', '.join(known) or 'none'}"
        )
