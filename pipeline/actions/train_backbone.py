"""`train-backbone`: trains a network on images with labels, soft labels or both; exports what the pipeline loads.

Training itself is `models/training/trainer.py`; the images are read by `run/labelled_images.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.backbones.shape import FaceVggShape
from models.training.checkpoint import CHECKPOINT, HISTORY
from models.training.recipe import Recipe
from pipeline.actions.epoch_bar import EpochBar
from pipeline.commands.command import Context
from pipeline.commands.train_backbone import TrainBackboneOptions
from pipeline.errors import UsageError
from pipeline.run.claim import Work, claim
from pipeline.run.labelled_images import LABELS, Data, Form, check_soft_labels, examples_of, read_data, tasks_of
from pipeline.run.network_head import flags_for, save_network_head, settings_for
from pipeline.run.notes import note
from pipeline.run.output_folder import OutputFolder
from pipeline.run.recipe_file import hold_recipe, write_json
from transforms.formats.publish import publish_bytes

if TYPE_CHECKING:
    from models.training.trainer import Examples, Task
    from pipeline.settings.training import TrainSettings


ENOUGH_MOMENTUM = 0.99  # of the normalisation's statistics, if the weights are not averaged


def run(options: TrainBackboneOptions, context: Context) -> int:
    """Trains, continuing from the output folder's checkpoint if there is one; exports the weights and a head."""
    from models.backbones.backbone import BackboneError
    from models.backbones.registry import backbone
    from models.training.checkpoint import TrainingError
    from models.training.trainer import fit

    settings = context.settings.train
    output = Path(options.output)
    recipe, shape = recipe_of(settings), FaceVggShape(tuple(settings.widths), settings.convs)
    tensorboard = output / "tensorboard" if options.tensorboard else None
    _check_tensorboard(tensorboard)
    start = _start_of(settings)
    kind = backbone(settings.backbone)
    size = settings.input_size or kind.native_size
    try:
        kind.check_size(*size)
    except BackboneError as error:
        raise UsageError(str(error).replace("features.input_size", "train.input_size")) from error
    form = Form(size, kind.channels, _existing(output))
    data, train, validation = _read(options, context, form)
    tasks = tasks_of(data, settings)
    provenance = _provenance(settings, form, shape, recipe, tasks, start, (train, validation))
    names = Names(settings.backbone)
    weights = output / names.weights
    with OutputFolder(str(output)).locked():
        claim(
            str(output),
            Work(command="train-backbone", files=names.files, proof=RECIPE_JSON),
            overwrite=options.overwrite,
        )
        unsaid = json.loads(json.dumps(asdict(Recipe())))  # new fields of a recipe have no effect by default
        hold_recipe(output / RECIPE_JSON, provenance, (CHECKPOINT, HISTORY, names.weights), unsaid=unsaid)
        network = _network(tasks, recipe, settings.backbone, form, shape, start)
        try:
            steps = len(train) // recipe.batch_size
            with EpochBar(steps, recipe.epochs, _metrics, quiet=context.quiet) as bar:

                def report(row: dict[str, float]) -> None:
                    if tensorboard is not None:
                        _show_curves(output, tensorboard)
                    bar.epoch(row)

                history = fit(network, train, validation, tasks, recipe, output, report=report, step_done=bar.step)
        except TrainingError as error:
            raise UsageError(str(error)) from error
        try:
            publish_bytes(weights, kind.save(network))
        except BackboneError as error:
            raise UsageError(str(error)) from error
        _draw(history, output, tensorboard)
        row, silenced = _kept_row(history, recipe), _silenced(data, train)
        _write_card(output / names.card, weights, data, provenance, row, labels_not_learned=silenced)
        fitting = settings_for(context.settings, settings.backbone, weights, form.size)
        metrics = {name: row[name] for name in ("val_accuracy", "val_loss") if name in row}
        save_network_head(output / HEAD, network, LABELS, data.classes, fitting, metrics)
    if not context.quiet:
        print(f"weights: {weights}\nlabel with them: {flags_for(fitting, output / HEAD)}")
    return 0


def _read(options: TrainBackboneOptions, context: Context, form: Form) -> tuple[Data, Examples, Examples]:
    """Returns the data, and what is learned and what the network is chosen by.

    Raises:
        UsageError: there are fewer images than a batch, or the inputs cannot be used.
    """
    settings = context.settings.train
    data = read_data(
        options.input,
        context.settings,
        form,
        validation=options.validation,
        exclude_copies_of=options.exclude_copies_of,
        soft_labels=options.soft_labels,
    )
    train = examples_of(data.train, data, settings.reject)
    check_soft_labels(train, data, settings.reject)
    if len(train) < settings.batch_size:
        raise UsageError(
            f"{len(train)} training images are fewer than one batch of {settings.batch_size}; "
            "give more images or a smaller train.batch_size"
        )
    if silenced := _silenced(data, train):
        note(f"labels not learned because {', '.join(settings.reject)} leads: {silenced:,}")
    return data, train, examples_of(data.validation, data, ())


def _silenced(data: Data, train: Examples) -> int:
    """Returns how many hard labels are not learned, because a class of `train.reject` leads the votes."""
    return int((train.weights[LABELS] == 0).sum()) - data.train.labels.count(None)


def _kept_row(history: Sequence[Mapping[str, float]], recipe: Recipe) -> Mapping[str, float]:
    """Returns the row of the epoch whose weights are kept; {} if no epoch was run."""
    if not history:
        return {}
    if recipe.keep == "best":  # ties go to the last epoch, as in the trainer
        return max(reversed(history), key=lambda row: row["val_accuracy"])
    return history[-1]


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def recipe_of(settings: TrainSettings) -> Recipe:
    """Returns the recipe from the settings."""
    values = {f.name: getattr(settings, f.name) for f in fields(Recipe)}
    values["frozen"] = tuple(settings.frozen)
    values["progressive_sizes"] = tuple(settings.progressive_sizes)
    values["rates"] = {name: float(factor) for name, _, factor in (text.partition("=") for text in settings.rates)}
    return Recipe(**values)


def _start_of(settings: TrainSettings) -> Path | None:
    """Returns the file of weights to start from, if any.

    Raises:
        UsageError: it is missing.
    """
    from models.backbones.backbone import BackboneError
    from models.backbones.registry import backbone

    if settings.start is None:
        return None
    try:
        path = backbone(settings.backbone).weights_path(settings.start)
    except BackboneError as error:
        raise UsageError(str(error).replace("features.weights", "train.start")) from error
    if settings.backbone.startswith("face_vgg") and path.suffix != ".npz":
        raise UsageError(f"train.start={settings.start}: give a face_vgg.npz that train-backbone wrote")
    return path


def _network(
    tasks: Sequence[Task], recipe: Recipe, name: str, form: Form, shape: FaceVggShape, start: Path | None = None
) -> Any:
    from models.runtimes.registry import start_keras

    start_keras(recipe.seed)
    from models.backbones.backbone import BackboneError, TrainingOptions
    from models.backbones.registry import backbone
    from models.training.augment import augmentation

    kind = backbone(name)
    options = TrainingOptions(
        shape=shape,
        size=form.size,
        dropout=recipe.dropout,
        top_dropout=recipe.top_dropout,
        statistics_momentum=max(ENOUGH_MOMENTUM, recipe.ema_decay),
        augment=augmentation(recipe),
        seed=recipe.seed,
        dtype=recipe.precision,
    )
    try:
        network = kind.build_for_training({task.name: len(task.classes) for task in tasks}, options)
    except BackboneError as error:
        raise UsageError(str(error).replace("features.input_size", "train.input_size")) from error
    if start is not None:
        try:
            kind.start_from(network, start)
        except BackboneError as error:
            more = "; train.widths and train.convs must match train.start" if name.startswith("face_vgg") else ""
            raise UsageError(f"{error}{more}") from error
    names = [layer.name for layer in network.layers]
    for setting, beginnings in (("train.frozen", recipe.frozen), ("train.rates", recipe.rates)):
        if lost := [text for text in beginnings if not any(name.startswith(text) for name in names)]:
            raise UsageError(f"{setting}: no layer's name begins with {', '.join(lost)}; layers: {', '.join(names)}")
    return network


def _metrics(row: dict[str, float]) -> str:
    return (
        f"loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}, "
        f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
    )


def _show_curves(output: Path, tensorboard: Path) -> None:
    from models.training.checkpoint import read_history
    from models.training.curves import write_events

    write_events(read_history(output / HISTORY), tensorboard)


def _check_tensorboard(folder: Path | None) -> None:
    from importlib.util import find_spec

    if folder is not None and find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard: pip install tensorboard, or drop the flag")


def _draw(history: list[dict[str, float]], output: Path, tensorboard: Path | None) -> None:
    from models.training.curves import can_plot, history_plot, write_events

    if can_plot():
        publish_bytes(output / "history.svg", history_plot(history))
    else:
        note("no history.svg: matplotlib is not installed; history.csv has the curves")
    if tensorboard is not None:  # again, since a finished training has no epoch left to do it
        write_events(history, tensorboard)


RECIPE_JSON = "recipe.json"
HEAD = "head"  # folder of the network's own classifier
HEAD_FILES = (f"{HEAD}/head.npz", f"{HEAD}/head.json")


@dataclass(frozen=True)
class Names:
    """The files of a training: `backbone` names those of the weights and their card."""

    backbone: str

    @property
    def weights(self) -> str:
        """The file of the trained weights."""
        return f"{self.backbone}.npz"

    @property
    def card(self) -> str:
        """The file that says how they were trained."""
        return f"{self.backbone}.json"

    @property
    def files(self) -> tuple[str, ...]:
        """All files that a training may write."""
        return (
            RECIPE_JSON,
            "checkpoint.npz",
            "best.npz",
            "history.csv",
            "history.svg",
            self.weights,
            self.card,
            *HEAD_FILES,
        )


def _provenance(
    settings: TrainSettings,
    form: Form,
    shape: FaceVggShape,
    recipe: Recipe,
    tasks: Sequence[Task],
    start: Path | None,
    examples: Sequence[Examples],
) -> dict[str, Any]:
    """Returns everything that the weights depend on; images, labels and votes as digests."""
    provenance = {
        "recipe": asdict(recipe),
        "network": _network_of(settings, form, shape),
        "tasks": {task.name: list(task.classes) for task in tasks},
        "soft_weight": settings.soft_weight,
        "reject": list(settings.reject),
        "start": None if start is None else hashlib.sha256(start.read_bytes()).hexdigest(),
        "images_and_labels": [_digest(some) for some in examples],
    }
    return dict(json.loads(json.dumps(provenance)))


def _network_of(settings: TrainSettings, form: Form, shape: FaceVggShape) -> dict[str, Any]:
    """Returns what tells the network; a face_vgg at its own size is its shape alone, as it always was."""
    from models.backbones.face_vgg_places import FaceVggPlaces
    from models.backbones.registry import backbone

    if settings.backbone == "face_vgg":
        return asdict(shape) | ({} if settings.input_size is None else {"input_size": form.size})
    told: dict[str, Any] = {"backbone": settings.backbone, "input_size": form.size}
    kind = backbone(settings.backbone)
    if not isinstance(kind, FaceVggPlaces):
        return told
    found_by = None if kind.landmarks is None else hashlib.sha256(kind.landmarks.read_bytes()).hexdigest()
    return told | asdict(shape) | {"landmarks": found_by}


def _digest(examples: Examples) -> str:
    digest = hashlib.sha256()
    for at in range(0, len(examples), 1024):
        digest.update(np.ascontiguousarray(examples.inputs[at : at + 1024]).tobytes())
    for arrays in (examples.targets, examples.weights):
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:32]


def _write_card(
    path: Path,
    weights: Path,
    data: Data,
    provenance: Mapping[str, Any],
    row: Mapping[str, float],
    *,
    labels_not_learned: int,
) -> None:
    from models.runtimes.default import default_runtime

    card = {
        "backbone": path.stem,
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
        **{name: value for name, value in provenance.items() if name != "tasks"},
        "epoch": row.get("epoch"),
        "validation_accuracy": row.get("val_accuracy"),
        "versions": {"keras": version("keras"), "backend": default_runtime(), "numpy": np.__version__},
    }
    write_json(path, card)
