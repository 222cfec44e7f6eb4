"""`train-backbone`: trains face_vgg on face crops with labels, soft labels or both; exports what the pipeline loads.

Reads any input that `label` reads; every image is one face, as `faces.detector=none` takes it. Training
itself is `models/training/engine.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from models.training.recipe import FaceVggShape, Recipe
from pipeline.errors import StoppedError, UsageError
from pipeline.held_out import digests_of
from pipeline.plan import Layout, make_plan
from pipeline.resume import OutputFolder
from pipeline.soft_labels import read_source
from transforms.formats.records import Limits
from transforms.formats.soft_labels import SoftLabels

if TYPE_CHECKING:
    from models.training.engine import Examples, Task
    from pipeline.cli import Command
    from pipeline.config import Settings, TrainSettings

HOLDOUT = 0.1  # of the images, where no validation input is given
SIDE = 48  # pixels, height and width of a crop
LABELS = "labels"  # the task of the hard labels; the first one, by which an epoch is judged
ENOUGH_MOMENTUM = 0.99  # of the normalisation's statistics, where the weights are not averaged


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Decoded crops: `images` (n, h, w, 1) uint8, `ids`, `labels`, `digests` of the encoded bytes.

    A label is None where soft labels alone know the image.
    """

    images: np.ndarray
    ids: list[str]
    labels: list[str | None]
    digests: list[bytes]

    def of(self, rows: Sequence[int]) -> LabelledImages:
        """Returns these rows."""
        return LabelledImages(
            self.images[list(rows)],
            [self.ids[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.digests[row] for row in rows],
        )

    def without(self, digests: set[bytes]) -> LabelledImages:
        """Returns the images whose bytes are none of these."""
        return self.of([row for row, digest in enumerate(self.digests) if digest not in digests])


@dataclass(frozen=True, slots=True)
class Data:
    """All that is learned from: images apart, the tasks, and how many images were left out and why."""

    train: LabelledImages
    validation: LabelledImages
    classes: tuple[str, ...]
    soft: Mapping[str, SoftLabels]
    left_out: Mapping[str, int]


def run(command: Command) -> int:
    """Trains, continuing from the output folder's checkpoint if there is one, and exports the weights."""
    from models.backbones import export_face_vgg
    from models.training.checkpoint import TrainingError
    from models.training.engine import fit

    options, settings = command.options, command.settings.train
    output = Path(options["output"])
    recipe, shape = recipe_of(settings), FaceVggShape(tuple(settings.widths), settings.convs)
    tensorboard = output / "tensorboard" if options.get("tensorboard") else None
    _check_tensorboard(tensorboard)
    start = _start_of(settings)
    data = read_data(options, command.settings)
    tasks = tasks_of(data, settings)
    train = examples_of(data.train, data, settings.reject)
    _check_soft_labels(train, data, settings.reject)
    validation = examples_of(data.validation, data, ())
    if len(train) < recipe.batch_size:
        raise UsageError(
            f"{len(train)} training images are fewer than one batch of {recipe.batch_size}; "
            "--input or --set train.batch_size decide that"
        )
    if silenced := int((train.weights[LABELS] == 0).sum()) - data.train.labels.count(None):
        print(f"labels not learned, as {', '.join(settings.reject)} leads: {silenced:,}", file=sys.stderr)
    made_of = _made_of(settings, shape, recipe, tasks, start, (train, validation))
    weights = output / WEIGHTS
    with OutputFolder(str(output)).locked():
        _refuse_other_recipe(output, made_of)
        network = _network(tasks, recipe, shape, start)
        try:
            with _Bar(recipe, len(train), output, tensorboard, quiet=bool(options["quiet"])) as bar:
                history = fit(network, train, validation, tasks, recipe, output, report=bar.epoch, step_done=bar.step)
        except TrainingError as error:
            raise UsageError(str(error)) from error
        export_face_vgg(network, shape, weights)
        _draw(history, output, tensorboard)
        _write_card(output, weights, data, made_of, history, labels_not_learned=silenced)
    print(f"weights: {weights} (use them with --set features.weights={weights})")
    return 0


def recipe_of(settings: TrainSettings) -> Recipe:
    """Returns the recipe that the settings describe."""
    values = {f.name: getattr(settings, f.name) for f in fields(Recipe)}
    values["frozen"] = tuple(settings.frozen)
    values["sides"] = tuple(settings.sides)
    values["rates"] = {name: float(factor) for name, _, factor in (text.partition("=") for text in settings.rates)}
    return Recipe(**values)


def _start_of(settings: TrainSettings) -> Path | None:
    """Returns the file of weights to start from, if any.

    Raises:
        UsageError: it is not there.
    """
    from models.backbones import BackboneError, backbone

    if settings.start is None:
        return None
    try:
        path = backbone("face_vgg").weights_path(settings.start)
    except BackboneError as error:
        raise UsageError(str(error).replace("features.weights", "train.start")) from error
    if path.suffix != ".npz":
        raise UsageError(f"train.start={settings.start}: give a face_vgg.npz, as train-backbone writes it")
    return path


def _network(tasks: Sequence[Task], recipe: Recipe, shape: FaceVggShape, start: Path | None = None) -> Any:
    from models.device import start_engine

    start_engine()
    import keras

    from models.backbones import BackboneError, start_from, trainable_face_vgg
    from models.training.augment import augmentation

    keras.utils.set_random_seed(recipe.seed)
    network = trainable_face_vgg(
        {task.name: len(task.classes) for task in tasks},
        shape,
        size=SIDE,
        dropout=recipe.dropout,
        top_dropout=recipe.top_dropout,
        statistics_momentum=max(ENOUGH_MOMENTUM, recipe.averaged),
        augment=augmentation(recipe),
        seed=recipe.seed,
        dtype=recipe.precision,
    )
    if start is not None:
        try:
            start_from(network, start)
        except BackboneError as error:
            raise UsageError(f"{error}; train.widths and train.convs must be those of train.start") from error
    names = [layer.name for layer in network.layers]
    for setting, beginnings in (("train.frozen", recipe.frozen), ("train.rates", recipe.rates)):
        if lost := [text for text in beginnings if not any(name.startswith(text) for name in names)]:
            raise UsageError(f"{setting}: no layer's name begins with {', '.join(lost)}; there are {', '.join(names)}")
    return network


# --- what is learned from -----------------------------------------------------------------------------------------


def read_data(options: Mapping[str, Any], settings: Settings) -> Data:
    """Returns images, classes and soft labels. Copies of images under test and pictures of one value are left out."""
    limits = Limits(settings.read.max_image_bytes, settings.read.max_pixels)
    soft = read_soft_labels(options.get("soft_labels") or ())
    read, passed_over = read_labelled(options["input"], (SIDE, SIDE), limits, soft=soft)
    held_out: set[bytes] = set()
    validation = None
    if options.get("validation"):
        validation, _ = read_labelled(options["validation"], (SIDE, SIDE), limits, "--validation")
        held_out.update(validation.digests)
    if options.get("exclude"):
        with tempfile.TemporaryDirectory() as folder:
            held_out |= digests_of(options["exclude"], folder, settings)
    train = read.without(held_out)
    if not train.labels:
        raise UsageError("--input holds nothing but copies of --validation and --exclude: nothing is left to train on")
    shown = [row for row, image in enumerate(train.images) if image.min() != image.max()]
    left_out = {
        "without labels or rejected": passed_over,
        "copies of validation or excluded images": len(read.labels) - len(train.labels),
        "pictures of one value": len(train.labels) - len(shown),
    }
    train = train.of(shown)
    taught = train.labels.count(None)
    also = f", {taught:,} of them by soft labels alone" if taught else ""
    print(f"{len(train.labels):,} images to learn from{also}; left out: {_counted(left_out)}", file=sys.stderr)
    if validation is None:
        train, validation = _split(train)
        if only := sorted(_named(validation) - _named(train)):
            raise UsageError(f"too few images of {', '.join(only)} to hold some out: add more, or give --validation")
    return Data(train, validation, _classes(train, validation), soft, left_out)


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
            f"--input has one class only ({', '.join(classes) or 'and no image of it'}); at least two are needed"
        )
    return classes


def read_labelled(
    patterns: Sequence[str],
    size: tuple[int, int],
    limits: Limits,
    flag: str = "--input",
    *,
    soft: Mapping[str, SoftLabels] = MappingProxyType({}),
) -> tuple[LabelledImages, int]:
    """Returns the images of the inputs that have labels or `soft` labels in plan order, and how many were passed over.

    Raises:
        UsageError: nothing there, or nothing with a label.
    """
    images, ids, labels, digests, passed_over = [], [], [], [], 0
    for image_id, label, digest, image in _decoded(patterns, size, limits, flag):
        known = label is not None or any(shares.of(image_id) is not None for shares in soft.values())
        if image is None or not known:
            passed_over += 1
            continue
        images.append(image)
        ids.append(image_id)
        labels.append(label)
        digests.append(digest)
    if all(label is None for label in labels):
        raise UsageError(f"{flag} {' '.join(patterns)}: no image with a label; labels come from class folders")
    return LabelledImages(np.stack(images)[..., None], ids, labels, digests), passed_over


def _decoded(
    patterns: Sequence[str], size: tuple[int, int], limits: Limits, flag: str
) -> Iterator[tuple[str, str | None, bytes, np.ndarray | None]]:
    """Yields id, label, digest and crop of every image; no crop where the image is rejected."""
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
                            image = contained(image_id, partial(_pixels, data or b"", size, limits))
                    except RejectedContent:
                        image = None
                    yield image_id, label, digest, image


def _pixels(data: bytes, size: tuple[int, int], limits: Limits) -> np.ndarray:
    """Returns (*size) uint8 grey of an encoded image."""
    from models.detectors.cropping import resized
    from transforms.formats.decode import decode

    return resized(decode(data, channels=1, limits=limits).image, size)


def _split(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Returns (training, validation), decided by the digest alone, so that copies stay on one side."""
    labelled = {d for d, label in zip(images.digests, images.labels, strict=True) if label is not None}
    held_out = {d for d in labelled if int.from_bytes(d[:8], "big") / 2**64 < HOLDOUT}
    judged = enumerate(zip(images.digests, images.labels, strict=True))
    rows = [row for row, (digest, label) in judged if digest in held_out and label is not None]
    if not rows or len(rows) == len(images.labels):
        raise StoppedError(f"{len(images.labels)} images are too few to hold some out: give --validation")
    return images.without(held_out), images.of(rows)


def read_soft_labels(sources: Sequence[str]) -> dict[str, SoftLabels]:
    """Returns the soft labels of `NAME=PATH` texts by name; a path is a CSV of votes or a finished run's folder.

    Raises:
        UsageError: a text is no NAME=PATH, a name stands twice, or nothing is there.
    """
    found: dict[str, SoftLabels] = {}
    for source in sources:
        name, equals, path = source.partition("=")
        if not equals or not name.isidentifier() or name in (LABELS, *found):
            raise UsageError(f"--soft-labels {source}: give NAME=PATH with a name of its own, such as votes=votes.csv")
        found[name] = read_source(path)
    return found


def tasks_of(data: Data, settings: TrainSettings) -> list[Task]:
    """Returns the task of the labels and one for each source of soft labels."""
    from models.training.engine import Task

    soft = [Task(name, labels.classes, settings.soft_weight, soft=True) for name, labels in data.soft.items()]
    return [Task(LABELS, data.classes), *soft]


def examples_of(images: LabelledImages, data: Data, reject: Sequence[str]) -> Examples:
    """Returns what the engine learns from.

    Args:
        reject: classes of soft labels; where one has the largest share, the hard label weighs nothing.

    """
    from models.training.engine import Examples, one_hot

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


def _check_soft_labels(train: Examples, data: Data, reject: Sequence[str]) -> None:
    """Raises UsageError if soft labels know none of the images, or have no class of a name in `reject`."""
    for name in data.soft:
        if not train.weights[name].any():
            raise UsageError(f"--soft-labels {name} knows none of the images, whose ids are like {data.train.ids[0]}")
    known = sorted({label for labels in data.soft.values() for label in labels.classes})
    if unknown := sorted(set(reject) - set(known)):
        raise UsageError(
            f"train.reject {', '.join(unknown)}: no --soft-labels have that class; known: {', '.join(known) or 'none'}"
        )


# --- progress and results -----------------------------------------------------------------------------------------


class _Bar:
    """Shows the steps of the present epoch, and a line for each epoch that is done."""

    def __init__(self, recipe: Recipe, images: int, output: Path, tensorboard: Path | None, *, quiet: bool) -> None:
        self.quiet, self.steps, self.epochs = quiet, images // recipe.batch_size, recipe.epochs
        self.output, self.tensorboard = output, tensorboard

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        shown = not self.quiet and sys.stderr.isatty()
        self.bar: Any = tqdm(total=self.steps, desc="epoch", unit="step", leave=False, disable=not shown)
        return self

    def step(self) -> None:
        self.bar.update()

    def epoch(self, row: dict[str, float]) -> None:
        self.bar.reset()
        if self.tensorboard is not None:
            self._show_curves(self.tensorboard)
        if not self.quiet:
            print(
                f"epoch {row['epoch']:.0f} of {self.epochs}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}, "
                f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}",
                file=sys.stderr,
                flush=True,
            )

    def _show_curves(self, tensorboard: Path) -> None:
        from models.training.checkpoint import HISTORY, read_history
        from models.training.curves import write_events

        write_events(read_history(self.output / HISTORY), tensorboard)

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def _check_tensorboard(folder: Path | None) -> None:
    from importlib.util import find_spec

    if folder is not None and find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard: pip install tensorboard, or leave the flag out")


def _draw(history: list[dict[str, float]], output: Path, tensorboard: Path | None) -> None:
    from models.training.curves import can_plot, plot_history, write_events

    if can_plot():
        plot_history(history, output / "history.svg")
    else:
        print("no history.svg: matplotlib is not installed; history.csv has the curves", file=sys.stderr)
    if tensorboard is not None:  # again: a finished training has no epoch left that would
        write_events(history, tensorboard)


RECIPE_JSON = "recipe.json"
WEIGHTS = "face_vgg.npz"


def _made_of(
    settings: TrainSettings,
    shape: FaceVggShape,
    recipe: Recipe,
    tasks: Sequence[Task],
    start: Path | None,
    examples: Sequence[Examples],
) -> dict[str, Any]:
    """Returns all that the weights depend on; images, labels and votes by digest."""
    made_of = {
        "recipe": asdict(recipe),
        "network": asdict(shape),
        "tasks": {task.name: list(task.classes) for task in tasks},
        "soft_weight": settings.soft_weight,
        "reject": list(settings.reject),
        "start": None if start is None else hashlib.sha256(start.read_bytes()).hexdigest(),
        "images_and_labels": [_digest(some) for some in examples],
    }
    return dict(json.loads(json.dumps(made_of)))


def _digest(examples: Examples) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(examples.inputs).tobytes())
    for arrays in (examples.targets, examples.weights):
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:32]


def _refuse_other_recipe(output: Path, present: Mapping[str, Any]) -> None:
    """Refuses to go on from a checkpoint made of something else: a mixture could not be made again."""
    from models.training.checkpoint import CHECKPOINT, HISTORY
    from pipeline.config import differences

    path = output / RECIPE_JSON
    trained = any((output / name).exists() for name in (CHECKPOINT, HISTORY, WEIGHTS))
    if path.exists() and trained:
        unsaid = json.loads(json.dumps(asdict(Recipe())))  # new fields of a recipe do nothing by default
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            before["recipe"] = unsaid | before["recipe"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is damaged ({error}); remove its folder to begin anew, or use another --output"
            ) from error
        if different := differences(before, present):
            raise UsageError(f"--output {output} holds a training with another recipe ({'; '.join(different[:5])})")
        return
    output.mkdir(parents=True, exist_ok=True)
    _write_json(path, present)


def _write_card(
    output: Path,
    weights: Path,
    data: Data,
    made_of: Mapping[str, Any],
    history: list[dict[str, float]],
    *,
    labels_not_learned: int,
) -> None:
    import keras

    row: Mapping[str, float] = history[-1] if history else {}
    if history and made_of["recipe"]["keep"] == "best":
        row = max(reversed(history), key=lambda one: one["val_accuracy"])  # of equals the last, as the engine keeps
    card = {
        "backbone": "face_vgg",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "classes": list(data.classes),
        "soft_labels": {name: list(labels.classes) for name, labels in data.soft.items()},
        "images": {
            "training": len(data.train.ids),
            "by_soft_labels_alone": data.train.labels.count(None),
            "validation": len(data.validation.ids),
        },
        "left_out": dict(data.left_out),
        "labels_not_learned": labels_not_learned,
        **{name: value for name, value in made_of.items() if name != "tasks"},
        "epoch": row.get("epoch"),
        "validation_accuracy": row.get("val_accuracy"),
        "versions": {"keras": keras.__version__, "backend": keras.backend.backend(), "numpy": np.__version__},
    }
    _write_json(output / "face_vgg.json", card)


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1) + os.linesep)
    os.replace(temporary, path)
