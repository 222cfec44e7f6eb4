"""The training loop: any lesson for any Keras network, epoch by epoch, with checkpoints and exact resume.

Every command that trains uses it, with Keras's TensorFlow and JAX backends. Images and labels are the business of a
`Lesson`. Resuming is exact: everything that the next epoch depends on is in the checkpoint (weights, optimiser, running
average of the weights, random states, the lesson's own state) or depends only on seed, epoch and history (batches,
learning rate).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from models.training.checkpoint import (
    BEST,
    CHECKPOINT,
    HISTORY,
    History,
    load_checkpoint,
    save_arrays,
    save_checkpoint,
    stored_arrays,
    write_history,
)
from models.training.recipe import Recipe

if TYPE_CHECKING:
    import keras

logger = logging.getLogger("pipeline.training")

Report = Callable[[dict[str, float]], None]


class Lesson(Protocol):
    """What a network learns, and how an epoch is validated.

    Attributes:
        steps: batches per epoch.
        judged: the key of `validate` that early stopping and `keep=best` use; higher is better.
        state: by name, arrays that the next epoch depends on besides seed and epoch. May change in `epoch_done`;
            restored in place when a training resumes.
    """

    steps: int
    judged: str
    state: dict[str, np.ndarray]

    def compile(self, model: keras.Model, optimiser: keras.optimizers.Optimizer) -> None:
        """Compiles the network with the losses of the lesson."""
        ...

    def before_epoch(self, model: keras.Model, epoch: int) -> None:
        """Prepares the network for an epoch, counted from 0."""
        ...

    def batches(self, epoch: int) -> keras.utils.PyDataset:
        """Returns the batches of an epoch; they depend only on seed, epoch and `state`."""
        ...

    def curves(self, history: Mapping[str, Any]) -> dict[str, float]:
        """Returns an epoch's values from Keras's history, under the names of the curves."""
        ...

    def validate(self, model: keras.Model) -> dict[str, float]:
        """Returns the scores of the network with the weights that would be kept."""
        ...

    def epoch_done(self, model: keras.Model, epoch: int) -> None:
        """Called after an epoch, with the weights that would be kept."""
        ...


def train(
    model: keras.Model,
    lesson: Lesson,
    recipe: Recipe,
    folder: Path,
    *,
    stop_after: int | None = None,
    report: Report | None = None,
    step_done: Callable[[], None] | None = None,
) -> History:
    """Trains `model` in place and returns its history; resumes from the checkpoint in `folder`, if any.

    Args:
        folder: receives `checkpoint.npz` and `history.csv` after every epoch.
        stop_after: most epochs in this call (the schedule still spans `recipe.epochs`).
        report: called with each epoch's row.
        step_done: called after every step, for a progress bar.

    Raises:
        TrainingError: the checkpoint is damaged, or belongs to another network.
    """
    from models.training.optimisers import epochs_without_gain

    folder.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(model, lesson, recipe)
    done, history = 0, History()
    if (folder / CHECKPOINT).exists():
        done, history = load_checkpoint(folder / CHECKPOINT, model, lesson.state)
        write_history(folder / HISTORY, history)  # in case of a kill between checkpoint and curves
    last = recipe.epochs if stop_after is None else min(recipe.epochs, done + stop_after)
    for epoch in range(done, last):
        waited = epochs_without_gain([row[lesson.judged] for row in history])
        if recipe.stop_patience and waited >= recipe.stop_patience:
            logger.info("no better validation for %d epochs, so training ends", waited)
            break
        row = trainer.epoch(epoch, history, step_done)
        history.append(row)
        if recipe.keep == "best" and row[lesson.judged] >= max(r[lesson.judged] for r in history):
            with trainer.averaged():
                save_arrays(folder / BEST, {f"v{i:04d}": w for i, w in enumerate(model.get_weights())})
        save_checkpoint(folder / CHECKPOINT, model, epoch + 1, history, lesson.state)
        write_history(folder / HISTORY, history)
        logger.info("epoch %d of %d: %s", epoch + 1, recipe.epochs, row)
        if report is not None:
            report(row)
    _keep(model, folder, recipe)
    return history


class _Trainer:
    """Trains a compiled model, one epoch at a time."""

    def __init__(self, model: keras.Model, lesson: Lesson, recipe: Recipe) -> None:
        from models.training.optimisers import optimiser, schedule

        self.model, self.lesson, self.recipe = model, lesson, recipe
        for layer in model.layers:
            if layer.name.startswith(recipe.frozen) and recipe.frozen:
                layer.trainable = False
        self.optimiser = optimiser(recipe, schedule(recipe, lesson.steps, [], lesson.judged), model.trainable_variables)
        lesson.compile(model, self.optimiser)

    def epoch(self, epoch: int, history: History, step_done: Callable[[], None] | None) -> dict[str, float]:
        """Trains one epoch and returns its row of the history."""
        import keras

        from models.training.optimisers import schedule

        rate = schedule(self.recipe, self.lesson.steps, history, self.lesson.judged)
        if isinstance(rate, float):
            self.optimiser.learning_rate = rate
        self.lesson.before_epoch(self.model, epoch)
        callbacks = (
            [] if step_done is None else [keras.callbacks.LambdaCallback(on_train_batch_end=_ignoring(step_done))]
        )
        curves = self.model.fit(
            self.lesson.batches(epoch),
            epochs=epoch + 1,
            initial_epoch=epoch,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        ).history
        with self.averaged():
            scores = self.lesson.validate(self.model)
            self.lesson.epoch_done(self.model, epoch)
        return {
            "epoch": float(epoch + 1),
            "learning_rate": float(np.asarray(self.optimiser.learning_rate)),
            **self.lesson.curves(curves),
            **scores,
        }

    def averaged(self) -> _Averaged:
        """Returns a context in which the model has its averaged weights, if the recipe averages."""
        return _Averaged(self.model, bool(self.recipe.ema_decay))


class _Averaged:
    """A context in which the model's weights are their running average; they are restored afterwards."""

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
    """Sets the model's weights to those that the recipe keeps."""
    if recipe.keep == "best" and (folder / BEST).exists():
        with stored_arrays(folder / BEST) as stored:
            model.set_weights([stored[name] for name in sorted(stored.files)])
    elif recipe.ema_decay:
        _take_averages(model)


def _take_averages(model: keras.Model) -> None:
    """Overwrites the trained weights with copies of their running average, as JAX donates shared arrays."""
    model.optimizer.take_averages(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(_copied(variable))


def _copied(variable: Any) -> np.ndarray:
    import keras

    return np.array(keras.ops.convert_to_numpy(variable.value))


def jit() -> bool | str:
    """Returns the `jit_compile` for Keras. With TensorFlow on a CPU, oneDNN's kernels beat XLA's; JAX is XLA."""
    import keras

    return False if keras.backend.backend() == "tensorflow" else "auto"


def _ignoring(call: Callable[[], None]) -> Callable[..., None]:
    return lambda *_, **__: call()
