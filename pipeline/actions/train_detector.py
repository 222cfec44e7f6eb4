"""`train-detector`: trains the one-shot detector on photos with known faces; exports what `faces.one_shot.model` takes.

The loop is `models/training/loop.py`, as for networks of features; the lesson is `models/training/detection/lesson.py`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from models.detectors.one_shot.shape import OneShotShape
from models.training.recipe import Recipe
from pipeline.actions.epoch_bar import EpochBar
from pipeline.commands.command import Context
from pipeline.commands.train_detector import TrainDetectorOptions
from pipeline.errors import UsageError
from pipeline.run.claim import Work, claim
from pipeline.run.detection_sets import DetectionData, counted, read_sets
from pipeline.run.output_folder import OutputFolder
from pipeline.settings.detector_recipe import DetectorRecipe, load_recipe
from transforms.formats.publish import publish, publish_bytes

if TYPE_CHECKING:
    from models.training.checkpoint import History

MODEL, WEIGHTS, CARD = "one_shot.onnx", "weights.npz", "one_shot.json"
RECIPE_JSON, CURVES = "recipe.json", "history.svg"
FILES = (RECIPE_JSON, "checkpoint.npz", "best.npz", "history.csv", CURVES, MODEL, WEIGHTS, CARD)
ENOUGH_MOMENTUM = 0.99  # of the normalisation's statistics, where the weights are not averaged


def run(options: TrainDetectorOptions, context: Context) -> int:
    """Trains, continuing from the output folder's checkpoint if there is one, and exports the model."""
    if find_spec("onnx") is None:
        raise UsageError("train-detector writes ONNX: pip install onnx")
    recipe = load_recipe(Path(options.recipe), epochs=options.epochs, seed=options.seed)
    data = read_sets(recipe.sets, Path(options.data))
    start = _start(options.start)
    if not context.quiet:
        print(", ".join(counted(data)), file=sys.stderr)
    output = Path(options.output)
    with OutputFolder(str(output)).locked():
        made_of = {**json.loads(recipe.model_dump_json()), "start": start.digest if start else None}
        claim(str(output), Work(command="train-detector", files=FILES, proof=RECIPE_JSON), overwrite=options.overwrite)
        refuse_another_recipe(output, made_of)
        network, history = _trained(recipe, data, output, start, quiet=context.quiet)
        _export(network, recipe, output)
        _draw(history, output)
        _write_card(output, made_of, history)
    if not context.quiet:
        print(f"detector: {output / MODEL} (use it with --set faces.one_shot.model={output / MODEL})")
    return 0


@dataclass(frozen=True, slots=True)
class Start:
    """Weights that training starts from, and the SHA-256 of their file."""

    path: Path
    digest: str


def _start(given: str | None) -> Start | None:
    if given is None:
        return None
    try:
        return Start(Path(given), hashlib.sha256(Path(given).read_bytes()).hexdigest())
    except OSError as error:
        raise UsageError(f"--start {given} cannot be read: {error.strerror or error}") from error


def _trained(
    recipe: DetectorRecipe, data: DetectionData, output: Path, start: Start | None, *, quiet: bool
) -> tuple[Any, History]:
    from models.runtimes.device import start_engine

    start_engine(recipe.training.seed)
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
        statistics_momentum=max(ENOUGH_MOMENTUM, numbers.averaged),
    )
    try:
        if start is not None:
            start_from(network, start.path)
    except ValueError as error:
        raise UsageError(f"--start: {error}") from error
    try:
        with EpochBar(lesson.steps, numbers.epochs, _figures, quiet=quiet) as bar:
            return network, train(network, lesson, training, output, report=bar.epoch, step_done=bar.step)
    except TrainingError as error:
        raise UsageError(str(error)) from error


def _figures(row: dict[str, float]) -> str:
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
    """Returns the numbers of the training as the loop takes them; what it says of pixels does not count."""
    own = recipe.training.model_dump(exclude={"scenes_an_epoch", "mine_every"})
    return Recipe(**own, schedule="cosine", keep="last")


def refuse_another_recipe(output: Path, present: Mapping[str, Any]) -> None:
    """Refuses to go on from a checkpoint of another recipe: a mixture could not be made again."""
    from models.training.checkpoint import CHECKPOINT
    from pipeline.settings.differences import differences

    path = output / RECIPE_JSON
    if path.exists() and ((output / CHECKPOINT).exists() or (output / MODEL).exists()):
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{path} is damaged ({error}); remove its folder to begin anew, or use another --output"
            ) from error
        if different := differences(before, present):
            raise UsageError(
                f"--output {output} holds a training with another recipe ({'; '.join(different[:5])}); "
                "give another folder, or --overwrite to start anew"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    _write_json(path, present)


def _export(network: Any, recipe: DetectorRecipe, output: Path) -> None:
    from models.detectors.one_shot.export import to_onnx
    from models.training.detection.network import weights_of

    weights = weights_of(network)
    model = to_onnx(weights, shape_of(recipe))
    publish(str(output / MODEL), lambda out: out.write(model))
    publish(str(output / WEIGHTS), lambda out: np.savez(out, **cast("dict[str, Any]", weights)))


def _draw(history: History, output: Path) -> None:
    from models.training.curves import can_plot, history_plot

    if can_plot():
        publish_bytes(output / CURVES, history_plot(history, ("loss", "recall")))


def _write_card(output: Path, made_of: Mapping[str, Any], history: History) -> None:
    from models.runtimes.device import backend

    last: Mapping[str, float] = history[-1] if history else {}
    card = {
        "detector": "one_shot",
        "sha256": hashlib.sha256((output / MODEL).read_bytes()).hexdigest(),
        "recipe": dict(made_of),
        "epoch": last.get("epoch"),
        "validation_recall": last.get("val_recall"),
        "validation_threshold": last.get("val_threshold"),
        "versions": {"keras": version("keras"), "backend": backend(), "onnx": version("onnx")},
    }
    _write_json(output / CARD, card)


def _write_json(path: Path, value: Any) -> None:
    text = (json.dumps(value, indent=1) + "\n").encode()
    publish(str(path), lambda out: out.write(text))
