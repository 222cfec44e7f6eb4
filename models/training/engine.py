"""The one training loop: any Keras classifier on arrays, one task or several, with checkpoint and exact resume.

Used by every command that trains a network, on Keras's TensorFlow and JAX backends alike. Knows no files of images
and no particular network. Resuming is exact because everything that the next epoch depends on is in the checkpoint
(weights, optimiser, running mean of the weights, random states) or a function of seed, epoch and history (the order
of the images, mixed pairs, the rate).
"""

from __future__ import annotations

import csv
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.npyio import NpzFile

from models.training.imbalance import balanced_weights, frequencies
from models.training.recipe import Recipe

if TYPE_CHECKING:
    import keras

logger = logging.getLogger("pipeline.training")

CHECKPOINT = "checkpoint.npz"
BEST = "best.npz"
HISTORY = "history.csv"

History = list[dict[str, float]]
Report = Callable[[dict[str, float]], None]


class TrainingError(ValueError):
    """A training cannot begin or go on; the message says what is wrong."""


@dataclass(frozen=True)
class Task:
    """One question that a network learns to answer.

    Attributes:
        name: also the name of the network's output.
        classes: in the order of the logits.
        weight: of its loss among the tasks'.
        soft: whether its targets are shares already (votes, another network's answers), which are not smoothed.
        loss: a Keras loss of (n, classes) targets and logits in place of the cross-entropy. Smoothing and logit
            adjustment are then its own affair; validation states the cross-entropy as ever, so that recipes compare.
            Who gives one notes it beside the recipe: a checkpoint does not know it.
    """

    name: str
    classes: tuple[str, ...]
    weight: float = 1.0
    soft: bool = False
    loss: keras.losses.Loss | None = None


@dataclass(frozen=True)
class Examples:
    """What is learned from, or validated on.

    Attributes:
        inputs: (n, h, w, c) uint8 images, or (n, d) features.
        targets: by task, (n, classes) float32 shares; a row sums to 1, or to 0 where nothing is known.
        weights: by task, (n,) float32; 0 where nothing is known. A task that is missing weighs every row 1.
    """

    inputs: np.ndarray
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
        KeyError: a label is no class.
    """
    place = {name: i for i, name in enumerate(classes)}
    return np.eye(len(classes), dtype=np.float32)[[place[label] for label in labels]]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the (count,) order of the images in one epoch: a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def fit(
    model: keras.Model,
    train: Examples,
    validation: Examples,
    tasks: Sequence[Task],
    recipe: Recipe,
    folder: Path,
    *,
    stop_after: int | None = None,
    report: Report | None = None,
    step_done: Callable[[], None] | None = None,
) -> History:
    """Trains `model` in place and returns its history; continues from `folder`'s checkpoint if there is one.

    Args:
        model: inputs -> dict of logits by task name.
        tasks: the first one is what `val_accuracy`, early stopping and `keep=best` look at.
        folder: receives `checkpoint.npz` and `history.csv` after every epoch.
        stop_after: epochs to do in this call at most (the schedule still spans `recipe.epochs`).
        report: called with each epoch's row.
        step_done: called after every step, for a progress bar.

    Raises:
        TrainingError: fewer images than a batch, or a checkpoint of another network, or a damaged one.
    """
    from models.training.optimisers import epochs_without_gain

    steps = len(train) // recipe.batch_size
    if steps == 0:
        raise TrainingError(f"{len(train)} training images are fewer than one batch of {recipe.batch_size}")
    folder.mkdir(parents=True, exist_ok=True)
    compiled = _Compiled(model, train, tasks, recipe, steps)
    done, history = 0, History()
    if (folder / CHECKPOINT).exists():
        done, history = load_checkpoint(folder / CHECKPOINT, model)
        write_history(folder / HISTORY, history)  # a kill may have come between the checkpoint and the curves
    last = recipe.epochs if stop_after is None else min(recipe.epochs, done + stop_after)
    for epoch in range(done, last):
        waited = epochs_without_gain([row["val_accuracy"] for row in history])
        if recipe.stop_patience and waited >= recipe.stop_patience:
            logger.info("no better validation for %d epochs: training ends", waited)
            break
        row = compiled.epoch(epoch, history, validation, step_done)
        history.append(row)
        if recipe.keep == "best" and row["val_accuracy"] >= max(r["val_accuracy"] for r in history):
            with compiled.averaged():
                save_arrays(folder / BEST, {f"v{i:04d}": w for i, w in enumerate(model.get_weights())})
        save_checkpoint(folder / CHECKPOINT, model, epoch + 1, history)
        write_history(folder / HISTORY, history)
        logger.info("epoch %d of %d: %s", epoch + 1, recipe.epochs, row)
        if report is not None:
            report(row)
    _keep(model, folder, recipe)
    return history


class _Compiled:
    """A model with its losses and optimiser; one epoch at a time."""

    def __init__(self, model: keras.Model, train: Examples, tasks: Sequence[Task], recipe: Recipe, steps: int) -> None:
        from models.training.losses import SoftCrossentropy
        from models.training.optimisers import optimiser, schedule

        self.model, self.tasks, self.recipe, self.steps = model, tasks, recipe, steps
        for layer in model.layers:
            if layer.name.startswith(recipe.frozen) and recipe.frozen:
                layer.trainable = False
        losses, weights = {}, {}
        for task in tasks:
            share = frequencies(train.targets[task.name], train.weight(task.name))
            offset = np.log(share) if recipe.imbalance == "logit_adjustment" else None
            smoothing = 0.0 if task.soft else recipe.label_smoothing
            own = SoftCrossentropy(label_smoothing=smoothing, offset=offset)
            losses[task.name] = own if task.loss is None else task.loss
            weights[task.name] = train.weight(task.name)
            if recipe.imbalance == "inverse_sqrt":
                weights[task.name] = balanced_weights(train.targets[task.name], weights[task.name])
        self.train = Examples(train.inputs, train.targets, weights)
        self.optimiser = optimiser(recipe, schedule(recipe, steps, []), model.trainable_variables)
        model.compile(
            optimizer=self.optimiser,
            loss=losses,
            loss_weights={task.name: task.weight for task in tasks},
            weighted_metrics={task.name: ["categorical_accuracy"] for task in tasks},
            jit_compile=_jit(),
        )

    def epoch(
        self, epoch: int, history: History, validation: Examples, step_done: Callable[[], None] | None
    ) -> dict[str, float]:
        """Trains one epoch and returns its row of the history."""
        import keras

        from models.training.optimisers import schedule

        rate = schedule(self.recipe, self.steps, history)
        if isinstance(rate, float):
            self.optimiser.learning_rate = rate
        self._reduce_to(self.recipe.side_in(epoch))
        callbacks = (
            [] if step_done is None else [keras.callbacks.LambdaCallback(on_train_batch_end=_ignoring(step_done))]
        )
        curves = self.model.fit(
            _batches(self.train, self.tasks, self.recipe, epoch),
            epochs=epoch + 1,
            initial_epoch=epoch,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        ).history
        first = self.tasks[0].name
        accuracy = curves.get(f"{first}_categorical_accuracy", curves.get("categorical_accuracy"))
        with self.averaged():
            scores = _validate(self.model, validation, self.tasks)
        return {
            "epoch": float(epoch + 1),
            "learning_rate": float(np.asarray(self.optimiser.learning_rate)),
            "loss": float(curves["loss"][-1]),
            "accuracy": float(accuracy[-1]),
            **scores,
        }

    def _reduce_to(self, side: int | None) -> None:
        """Sets the side of the images in training; a compiled function knows one, so another one is made."""
        if side is None:
            return
        from models.training.augment import TrainingSide

        for layer in self.model.layers:
            if isinstance(layer, TrainingSide) and layer.side != side:
                layer.side = side
                self.model.train_function = None

    def averaged(self) -> _Averaged:
        """Returns a context in which the model has its averaged weights, if the recipe averages."""
        return _Averaged(self.model, bool(self.recipe.averaged))


class _Averaged:
    """Within it the model's weights are their running mean; behind it they are what they were."""

    def __init__(self, model: keras.Model, active: bool) -> None:
        self.model, self.active = model, active

    def __enter__(self) -> None:
        if self.active:
            self.kept = [_copied(variable) for variable in self.model.trainable_variables]
            _take_averages(self.model)

    def __exit__(self, *_: object) -> None:
        if self.active:
            for variable, value in zip(self.model.trainable_variables, self.kept, strict=True):
                variable.assign(value)


def _keep(model: keras.Model, folder: Path, recipe: Recipe) -> None:
    """Leaves in the model the weights that the recipe keeps."""
    if recipe.keep == "best" and (folder / BEST).exists():
        with _stored(folder / BEST) as stored:
            model.set_weights([stored[name] for name in sorted(stored.files)])
    elif recipe.averaged:
        _take_averages(model)


def _take_averages(model: keras.Model) -> None:
    """Overwrites the trained weights by their running mean: as copies, for JAX gives away arrays that two share."""
    model.optimizer.take_averages(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(_copied(variable))


def _copied(variable: Any) -> np.ndarray:
    import keras

    return np.array(keras.ops.convert_to_numpy(variable.value))


def _jit() -> bool | str:
    """XLA is slower than oneDNN's kernels with TensorFlow on a CPU; JAX is XLA."""
    import keras

    return False if keras.backend.backend() == "tensorflow" else "auto"


def _ignoring(call: Callable[[], None]) -> Callable[..., None]:
    return lambda *_, **__: call()


def _batches(examples: Examples, tasks: Sequence[Task], recipe: Recipe, epoch: int) -> keras.utils.PyDataset:
    """Returns the batches of one epoch: a function of seed and epoch alone."""
    import keras

    order = epoch_order(len(examples), recipe.seed, epoch)
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
    """Returns each example mixed with another of its batch, pixels and targets alike (Zhang et al. 2018).

    Targets are mixed by share times weight: an example of weight 0, whose answer is not known, lends its pixels alone.
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


def predict_logits(model: keras.Model, inputs: np.ndarray, batch: int = 256) -> dict[str, np.ndarray]:
    """Returns by task the (n, classes) float32 logits of the inputs."""
    logits = model.predict(inputs, batch_size=batch, verbose=0)
    return {name: np.asarray(rows, dtype=np.float32) for name, rows in logits.items()}


def _validate(model: keras.Model, validation: Examples, tasks: Sequence[Task]) -> dict[str, float]:
    """Returns `val_loss` and `val_accuracy` of the first task, and those of the others with their names behind."""
    scores: dict[str, float] = {}
    logits = predict_logits(model, validation.inputs)
    for number, task in enumerate(tasks):
        if task.name not in validation.targets:
            continue
        rows, truth, weight = logits[task.name], validation.targets[task.name], validation.weight(task.name)
        likely = rows - rows.max(1, keepdims=True)
        likely -= np.log(np.exp(likely).sum(1, keepdims=True))
        total = max(float(weight.sum()), 1e-12)
        behind = f"_{task.name}" if number else ""
        scores[f"val_loss{behind}"] = float((-(truth * likely).sum(1) * weight).sum() / total)
        scores[f"val_accuracy{behind}"] = float(((rows.argmax(1) == truth.argmax(1)) * weight).sum() / total)
    return scores


# --- what is kept -------------------------------------------------------------------------------------------------


def _all_variables(model: keras.Model) -> list[Any]:
    """Weights, normalisation statistics, random states and the optimiser's, in a stable order."""
    seen: dict[int, Any] = {}
    for variable in [*model.variables, *model.optimizer.variables]:
        seen.setdefault(id(variable), variable)
    return list(seen.values())


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays under a temporary name, flushed, then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    named: dict[str, Any] = dict(arrays)  # any: what is named like a parameter of `savez` is none of ours
    with open(temporary, "wb") as out:
        np.savez(out, **named)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)


def save_checkpoint(path: Path, model: keras.Model, epoch: int, history: History) -> None:
    """Writes all that the next epoch depends on."""
    arrays = {f"v{i:04d}": np.asarray(v.value) for i, v in enumerate(_all_variables(model))}
    for key in history[0] if history else []:
        arrays[f"history_{key}"] = np.asarray([row[key] for row in history], dtype=np.float64)
    arrays["epoch"] = np.asarray(epoch)
    save_arrays(path, arrays)


@contextmanager
def _stored(path: Path) -> Iterator[NpzFile]:
    """Gives the arrays of a file of ours; a damaged one is a TrainingError that says what to do."""
    try:
        with np.load(path) as stored:
            yield stored
    except TrainingError:
        raise
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(
            f"{path} is damaged (no sound file of arrays); remove its folder to begin anew, or use another --output"
        ) from error


def load_checkpoint(path: Path, model: keras.Model) -> tuple[int, History]:
    """Restores a checkpoint into `model`; returns the epochs done and the history so far.

    Raises:
        TrainingError: the checkpoint is of another network, or damaged.
    """
    with _stored(path) as stored:
        variables = _all_variables(model)
        names = sorted(k for k in stored.files if k[0] == "v" and k[1:].isdigit())
        if len(names) != len(variables):
            raise TrainingError(f"{path}: {len(names)} arrays, this network has {len(variables)}; use another --output")
        for name, variable in zip(names, variables, strict=True):
            if stored[name].shape != tuple(variable.shape):
                raise TrainingError(
                    f"{path}: {variable.path} is {stored[name].shape} there, {tuple(variable.shape)} here; "
                    "use another --output"
                )
            variable.assign(stored[name])
        epoch = int(stored["epoch"])
        keys = [k.removeprefix("history_") for k in stored.files if k.startswith("history_")]
        history = [{k: float(stored[f"history_{k}"][i]) for k in keys} for i in range(epoch)]
    return epoch, history


def read_history(path: Path) -> History:
    """Returns the curves that `write_history` wrote."""
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def write_history(path: Path, history: History) -> None:
    """Writes the curves as CSV, one row an epoch, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(history[0]) if history else ["epoch"])
        writer.writeheader()
        writer.writerows(history)
    os.replace(temporary, path)
