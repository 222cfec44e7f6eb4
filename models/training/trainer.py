"""The lesson for classifiers: images or features in memory, one or several tasks. The loop is in `loop.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.training.checkpoint import History, TrainingError
from models.training.imbalance import balanced_draws, balanced_weights, frequencies
from models.training.loop import Report, jit, train
from models.training.recipe import Recipe
from models.training.stored_rows import Rows

if TYPE_CHECKING:
    import keras


CALLS = 16  # batches that validation reads at a time


@dataclass(frozen=True)
class Task:
    """One classification that a network learns.

    Attributes:
        name: also the name of the network's output.
        classes: in the order of the logits.
        weight: of its loss, relative to other tasks.
        soft: True if its targets are already shares (votes, another network's answers), which are not smoothed.
        loss: a Keras loss of (n, classes) targets and logits that replaces that of the recipe. Smoothing and logit
            adjustment are then up to this loss. Validation still reports the cross-entropy, so recipes stay comparable.
            The caller must store it beside the recipe, as a checkpoint does not.
    """

    name: str
    classes: tuple[str, ...]
    weight: float = 1.0
    soft: bool = False
    loss: keras.losses.Loss | None = None


@dataclass(frozen=True)
class Examples:
    """Training or validation data.

    Attributes:
        inputs: (n, h, w, c) uint8 images, in memory or in a file, or (n, d) features.
        targets: by task, (n, classes) float32 shares; a row sums to 1, or to 0 if unknown.
        weights: by task, (n,) float32; 0 if unknown. A missing task has weight 1 in every row.
    """

    inputs: Rows
    targets: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.inputs)

    def weight(self, task: str) -> np.ndarray:
        """Returns the (n,) float32 weights of a task."""
        return self.weights[task] if task in self.weights else np.ones(len(self), np.float32)


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Returns (n, classes) float32 rows with a one at each label.

    Raises:
        KeyError: a label is not a class.
    """
    place = {name: i for i, name in enumerate(classes)}
    return np.eye(len(classes), dtype=np.float32)[[place[label] for label in labels]]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the (count,) order of the images in one epoch; depends only on seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def fit(
    model: keras.Model,
    train_on: Examples,
    validation: Examples,
    tasks: Sequence[Task],
    recipe: Recipe,
    folder: Path,
    *,
    stop_after: int | None = None,
    report: Report | None = None,
    step_done: Callable[[], None] | None = None,
) -> History:
    """Trains a classifier in place and returns its history; resumes from the checkpoint in `folder`, if any.

    Args:
        model: inputs -> dict of logits by task name.
        tasks: `val_accuracy`, early stopping and `keep=best` use the first one.
        folder, stop_after, report, step_done: as in `loop.train`.

    Raises:
        TrainingError: there are fewer images than a batch, or the checkpoint is damaged or of another network.
    """
    lesson = Classification(train_on, validation, tasks, recipe)
    return train(model, lesson, recipe, folder, stop_after=stop_after, report=report, step_done=step_done)


class Classification:
    """The lesson for a classifier: arrays in memory, one or several tasks."""

    judged = "val_accuracy"

    def __init__(self, examples: Examples, validation: Examples, tasks: Sequence[Task], recipe: Recipe) -> None:
        self.tasks, self.recipe, self.validation = tasks, recipe, validation
        self.steps = len(examples) // recipe.batch_size
        if self.steps == 0:
            raise TrainingError(f"{len(examples)} training images are fewer than one batch of {recipe.batch_size}")
        self.state: dict[str, np.ndarray] = {}
        self._given = examples
        weights = {}
        for task in tasks:
            weights[task.name] = examples.weight(task.name)
            if recipe.imbalance == "inverse_sqrt":
                weights[task.name] = balanced_weights(examples.targets[task.name], weights[task.name])
        self.examples = Examples(examples.inputs, examples.targets, weights)

    def compile(self, model: keras.Model, optimiser: keras.optimizers.Optimizer) -> None:
        """Compiles the network with each task's own loss, or else its cross-entropy."""
        model.compile(
            optimizer=optimiser,
            loss={task.name: self._loss(task) for task in self.tasks},
            loss_weights={task.name: task.weight for task in self.tasks},
            weighted_metrics={task.name: ["categorical_accuracy"] for task in self.tasks},
            jit_compile=jit(),
        )

    def _loss(self, task: Task) -> keras.losses.Loss:
        from models.training.losses import ClassLoss

        if task.loss is not None:
            return task.loss
        share = frequencies(self._given.targets[task.name], self._given.weight(task.name))
        offset = np.log(share) if self.recipe.imbalance == "logit_adjustment" else None
        smoothing = 0.0 if task.soft else self.recipe.label_smoothing
        return ClassLoss(self.recipe.loss, label_smoothing=smoothing, offset=offset)

    def before_epoch(self, model: keras.Model, epoch: int) -> None:
        """Sets the side of training images; if it changes, a new function is compiled."""
        side = self.recipe.side_in(epoch)
        if side is None:
            return
        from models.training.augment import TrainingSide

        for layer in model.layers:
            if isinstance(layer, TrainingSide) and layer.side != side:
                layer.side = side
                model.train_function = None

    def batches(self, epoch: int) -> keras.utils.PyDataset:
        """Returns the batches of one epoch; they depend only on seed and epoch."""
        return _batches(self.examples, self.tasks, self.recipe, epoch)

    def curves(self, history: Mapping[str, Any]) -> dict[str, float]:
        """Returns loss and accuracy of the first task in training."""
        first = self.tasks[0].name
        accuracy = history.get(f"{first}_categorical_accuracy", history.get("categorical_accuracy", [np.nan]))
        return {"loss": float(history["loss"][-1]), "accuracy": float(accuracy[-1])}

    def validate(self, model: keras.Model) -> dict[str, float]:
        """Returns `val_loss` and `val_accuracy` of the first task, and those of others with their names appended."""
        return _validate(model, self.validation, self.tasks)

    def epoch_done(self, model: keras.Model, epoch: int) -> None:
        """Does nothing: a classifier's next epoch does not depend on its results."""


def _batches(examples: Examples, tasks: Sequence[Task], recipe: Recipe, epoch: int) -> keras.utils.PyDataset:
    """Returns the batches of one epoch; they depend only on seed and epoch."""
    import keras

    order = epoch_order(len(examples), recipe.seed, epoch)
    if recipe.imbalance == "balanced_draws":
        first = tasks[0].name
        order = balanced_draws(examples.targets[first], examples.weight(first), (recipe.seed, epoch))
    weights = {task.name: examples.weight(task.name) for task in tasks}

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(order) // recipe.batch_size

        def __getitem__(self, step: int) -> Any:
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            inputs = examples.inputs[rows]
            targets = {task.name: examples.targets[task.name][rows] for task in tasks}
            weight = {name: values[rows] for name, values in weights.items()}
            if recipe.mixup:
                draw = np.random.default_rng([recipe.seed, epoch, step])
                return mixed(inputs, targets, weight, share=float(draw.beta(recipe.mixup, recipe.mixup)), draw=draw)
            return inputs, targets, weight

    return Batches()


def mixed(
    inputs: np.ndarray,
    targets: dict[str, np.ndarray],
    weights: dict[str, np.ndarray],
    *,
    share: float,
    draw: np.random.Generator,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns each example mixed with another of its batch, both pixels and targets (Zhang et al. 2018).

    Targets are mixed by share times weight, so an example of weight 0, whose answer is unknown, adds only its pixels.
    """
    other = draw.permutation(len(inputs))
    pixels = share * inputs.astype(np.float32) + (1 - share) * inputs[other].astype(np.float32)
    whole = np.issubdtype(inputs.dtype, np.integer)
    made, weigh = {}, {}
    for name, rows in targets.items():
        own, lent = share * weights[name], (1 - share) * weights[name][other]
        weigh[name] = own + lent
        known = np.where(weigh[name] > 0, weigh[name], 1)[:, None]
        made[name] = (own[:, None] * rows + lent[:, None] * rows[other]) / known
    return np.rint(pixels).astype(inputs.dtype) if whole else pixels.astype(inputs.dtype), made, weigh


def predict_logits(model: keras.Model, inputs: Rows, batch: int = 256) -> dict[str, np.ndarray]:
    """Returns the (n, classes) float32 logits of the inputs, by task; holds some thousand inputs in memory."""
    step = batch * CALLS
    logits = [model.predict(inputs[at : at + step], batch_size=batch, verbose=0) for at in range(0, len(inputs), step)]
    return {name: np.concatenate([np.asarray(one[name], np.float32) for one in logits]) for name in logits[0]}


def _validate(model: keras.Model, validation: Examples, tasks: Sequence[Task]) -> dict[str, float]:
    """Returns `val_loss` and `val_accuracy` of the first task, and those of others with their names appended."""
    scores: dict[str, float] = {}
    logits = predict_logits(model, validation.inputs)
    for number, task in enumerate(tasks):
        if task.name not in validation.targets:
            continue
        rows, truth, weight = logits[task.name], validation.targets[task.name], validation.weight(task.name)
        likely = rows - rows.max(1, keepdims=True)
        likely -= np.log(np.exp(likely).sum(1, keepdims=True))
        total = max(float(weight.sum()), 1e-12)
        suffix = f"_{task.name}" if number else ""
        scores[f"val_loss{suffix}"] = float((-(truth * likely).sum(1) * weight).sum() / total)
        scores[f"val_accuracy{suffix}"] = float(((rows.argmax(1) == truth.argmax(1)) * weight).sum() / total)
    return scores
