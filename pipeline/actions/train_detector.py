"""`train-detector`: trains the one-shot detector on photos with known faces; exports it for `faces.one_shot.model`.

A recipe of several parts is trained part by part, each in a separate folder, starting from the weights of the last.

The loop is `models/training/loop.py`, as for backbones; the lesson is `models/training/detection/lesson.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from models.detectors.one_shot.shape import OneShotShape
from models.training.checkpoint import CHECKPOINT
from models.training.recipe import Recipe
from pipeline.actions.epoch_bar import EpochBar
from pipeline.commands.command import Context
from pipeline.commands.train_detector import TrainDetectorOptions
from pipeline.errors import UsageError
from pipeline.run.claim import Work, claim
from pipeline.run.detection_sets import DetectionData, counted, read_sets
from pipeline.run.notes import note
from pipeline.run.output_folder import OutputFolder
from pipeline.run.recipe_file import hold_recipe, write_json
from pipeline.settings.detector_recipe import DetectorRecipe, load_recipe
from transforms.formats.publish import publish, publish_bytes

if TYPE_CHECKING:
    from models.evaluation.detection import AtFalseAlarms
    from models.training.checkpoint import History

MODEL, WEIGHTS, CARD = "one_shot.onnx", "weights.npz", "one_shot.json"
RECIPE_JSON, CURVES = "recipe.json", "history.svg"
FILES = (RECIPE_JSON, "checkpoint.npz", "best.npz", "history.csv", CURVES, MODEL, WEIGHTS, CARD)
WORK = Work(command="train-detector", files=FILES, proof=RECIPE_JSON)
ENOUGH_MOMENTUM = 0.99  # of the normalisation's statistics, if the weights are not averaged


def run(options: TrainDetectorOptions, context: Context) -> int:
    """Trains, resuming from the output folder's checkpoint if there is one, and exports the model."""
    if find_spec("onnx") is None:
        raise UsageError("train-detector writes ONNX: pip install onnx")
    parts = load_recipe(Path(options.recipe), epochs=options.epochs, seed=options.seed)
    start, output = _start(options.start), Path(options.output)
    sets = read_sets(parts[0].sets, Path(options.data))  # faulty sets must not claim the folder
    folders = [output / f"part-{number}" for number in range(1, len(parts))] + [output]
    with OutputFolder(str(output)).locked():
        for folder in reversed(folders):  # refuse before the earlier parts are trained
            claim(str(folder), WORK, overwrite=options.overwrite)
        for number, (recipe, folder) in enumerate(zip(parts, folders, strict=True), 1):
            if len(parts) > 1:
                note(f"part {number} of {len(parts)}")
            if number > 1:
                sets, start = read_sets(recipe.sets, Path(options.data)), _start(str(folders[number - 2] / WEIGHTS))
            _train_part(recipe, folder, start, sets, quiet=context.quiet)
    if not context.quiet:
        print(f"detector: {output / MODEL} (use it with --set faces.one_shot.model={output / MODEL})")
    return 0


def _train_part(recipe: DetectorRecipe, folder: Path, start: Start | None, sets: DetectionData, *, quiet: bool) -> None:
    note(", ".join(counted(sets)))
    provenance = {**json.loads(recipe.model_dump_json()), "start": start.digest if start else None}
    hold_recipe(folder / RECIPE_JSON, provenance, (CHECKPOINT, MODEL))
    trained = _trained(recipe, sets, folder, start, quiet=quiet)
    _export(trained, recipe, folder)
    _draw(trained.history, folder)
    _write_card(folder, provenance, trained)


@dataclass(frozen=True, slots=True)
class Start:
    """Initial weights, and the SHA-256 of their file."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a part.

    Attributes:
        network: in Keras, with its averaged weights.
        history: one row per epoch.
        at: recall and threshold at the false alarms in `scores`; None without it.
    """

    network: Any
    history: History
    at: AtFalseAlarms | None


def _start(given: str | None) -> Start | None:
    if given is None:
        return None
    try:
        return Start(Path(given), hashlib.sha256(Path(given).read_bytes()).hexdigest())
    except OSError as error:
        raise UsageError(f"--start {given} cannot be read: {error.strerror or error}") from error


def _trained(recipe: DetectorRecipe, data: DetectionData, output: Path, start: Start | None, *, quiet: bool) -> Trained:
    from models.runtimes.registry import start_keras

    start_keras(recipe.training.seed)
    from models.training.checkpoint import TrainingError
    from models.training.detection.lesson import Detection
    from models.training.detection.network import start_from, untrained
    from models.training.detection.scenes import SceneRecipe
    from models.training.loop import train

    numbers, training = recipe.training, recipe_of(recipe)
    lesson = Detection(
        data.material,
        SceneRecipe(**recipe.scenes.model_dump()),
        data.validation,
        training,
        an_epoch=numbers.scenes_an_epoch,
        mine_every=numbers.mine_every,
    )
    network = untrained(
        shape_of(recipe),
        precision=numbers.precision,
        seed=numbers.seed,
        statistics_momentum=max(ENOUGH_MOMENTUM, numbers.ema_decay),
    )
    try:
        if start is not None:
            start_from(network, start.path)
    except ValueError as error:
        raise UsageError(f"--start: {error}") from error
    try:
        with EpochBar(lesson.steps, numbers.epochs, _metrics, quiet=quiet) as bar:
            history = train(network, lesson, training, output, report=bar.epoch, step_done=bar.step)
    except TrainingError as error:
        raise UsageError(str(error)) from error
    at = lesson.recall_at(network, recipe.scores.false_alarms) if recipe.scores else None
    return Trained(network, history, at)


def _metrics(row: dict[str, float]) -> str:
    return f"loss {row['loss']:.4f}, recall {row['val_recall']:.4f} at the threshold {row['val_threshold']:.2f}"


def shape_of(recipe: DetectorRecipe) -> OneShotShape:
    """Returns the shape of the network."""
    shape = recipe.network
    return OneShotShape(
        stem=(shape.stem[0], shape.stem[1]),
        widths=(shape.widths[0], shape.widths[1], shape.widths[2]),
        depths=(shape.depths[0], shape.depths[1], shape.depths[2]),
        join=shape.join,
    )


def recipe_of(recipe: DetectorRecipe) -> Recipe:
    """Returns the training values for the loop; those about pixels do not apply."""
    own = recipe.training.model_dump(exclude={"scenes_an_epoch", "mine_every"})
    return Recipe(**own, schedule="cosine", keep="last")


def _export(trained: Trained, recipe: DetectorRecipe, output: Path) -> None:
    from models.detectors.one_shot.export import shifted, to_onnx
    from models.training.detection.network import weights_of

    weights = weights_of(trained.network)
    at = trained.at.score if trained.at else None
    moved = shifted(weights, at, recipe.scores.score) if at and recipe.scores else weights
    model = to_onnx(moved, shape_of(recipe))
    publish(str(output / MODEL), lambda out: out.write(model))
    publish(str(output / WEIGHTS), lambda out: np.savez(out, **cast("dict[str, Any]", weights)))


def _draw(history: History, output: Path) -> None:
    from models.training.curves import can_plot, history_plot

    if can_plot():
        publish_bytes(output / CURVES, history_plot(history, ("loss", "recall")))


def _write_card(output: Path, provenance: Mapping[str, Any], trained: Trained) -> None:
    from models.runtimes.default import default_runtime

    last: Mapping[str, float] = trained.history[-1] if trained.history else {}
    card = {
        "detector": "one_shot",
        "sha256": hashlib.sha256((output / MODEL).read_bytes()).hexdigest(),
        "recipe": dict(provenance),
        "epoch": last.get("epoch"),
        "validation_recall": last.get("val_recall"),
        "validation_threshold": last.get("val_threshold"),
        "scores_from": asdict(trained.at) if trained.at else None,
        "versions": {"keras": version("keras"), "backend": default_runtime(), "onnx": version("onnx")},
    }
    write_json(output / CARD, card)
