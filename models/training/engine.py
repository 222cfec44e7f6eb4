"""Trains a Keras classifier on arrays: schedule, checkpoint at every epoch, exact resume, history as CSV.

Used by every command that trains a network. Knows no files of images and no particular network.
Resuming is exact because everything that the next epoch depends on is either in the checkpoint
(weights, optimiser, random states) or a function of seed and epoch (the order of the images).
"""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

logger = logging.getLogger("pipeline.training")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Rates are per step; `epochs` are passes over the training images."""

    epochs: int = 26
    batch_size: int = 128
    learning_rate: float = 0.05  # the peak, reached after the warm-up; then a half cosine to zero
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    dropout: float = 0.1
    top_dropout: float = 0.3
    flip: bool = True
    shift: float = 0.1  # of the side, either way
    rotation: float = 10.0  # degrees, either way
    seed: int = 0
    precision: str = "mixed_bfloat16"


@dataclass(frozen=True)
class ImageSet:
    """Labelled crops: `images` (n, h, w, c) uint8, `labels` (n,) class indices."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def augmentation(recipe: Recipe) -> list[Any]:
    """Returns the recipe's random pixel changes as Keras layers (active in training alone)."""
    import keras

    layers: list[Any] = []
    common: dict[str, Any] = {"dtype": "float32"}
    if recipe.flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=recipe.seed + 101, **common))
    if recipe.shift:
        layers.append(
            keras.layers.RandomTranslation(
                recipe.shift, recipe.shift, fill_mode="nearest", seed=recipe.seed + 102, **common
            )
        )
    if recipe.rotation:
        layers.append(
            keras.layers.RandomRotation(recipe.rotation / 360, fill_mode="nearest", seed=recipe.seed + 103, **common)
        )
    return layers


def learning_rate_at(step: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """Returns the rate of a step: linear warm-up to the peak, then a half cosine that ends at zero."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    total = recipe.epochs * steps_per_epoch
    if step < warmup:
        return min(recipe.learning_rate, recipe.learning_rate * (step + 1) / warmup)
    done = (step - warmup) / max(1.0, total - warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the (count,) order of the images in one epoch: a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _all_variables(model: keras.Model) -> list[Any]:
    """Weights, normalisation statistics, random states and the optimiser's, in a stable order."""
    seen: dict[int, Any] = {}
    for variable in [*model.variables, *model.optimizer.variables]:
        seen.setdefault(id(variable), variable)
    return list(seen.values())


def save_checkpoint(path: Path, model: keras.Model, epoch: int, history: list[dict[str, float]]) -> None:
    """Writes all that the next epoch depends on, under a temporary name and then renamed."""
    arrays = {f"v{i:04d}": np.asarray(v.value) for i, v in enumerate(_all_variables(model))}
    for key in history[0] if history else []:
        arrays[f"history_{key}"] = np.asarray([row[key] for row in history], dtype=np.float64)
    arrays["epoch"] = np.asarray(epoch)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as out:
        np.savez(out, **arrays)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path, model: keras.Model) -> tuple[int, list[dict[str, float]]]:
    """Restores a checkpoint into `model`; returns the epochs done and the history so far.

    Raises:
        ValueError: the checkpoint is of another network.
    """
    with np.load(path) as stored:
        variables = _all_variables(model)
        names = sorted(k for k in stored.files if k[0] == "v" and k[1:].isdigit())
        if len(names) != len(variables):
            raise ValueError(f"{path}: {len(names)} arrays, this network has {len(variables)}; use another --output")
        for name, variable in zip(names, variables, strict=True):
            if stored[name].shape != tuple(variable.shape):
                raise ValueError(
                    f"{path}: {variable.path} is {stored[name].shape} there, {tuple(variable.shape)} here; "
                    "use another --output"
                )
            variable.assign(stored[name])
        epoch = int(stored["epoch"])
        keys = [k.removeprefix("history_") for k in stored.files if k.startswith("history_")]
        history = [{k: float(stored[f"history_{k}"][i]) for k in keys} for i in range(epoch)]
    return epoch, history


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Writes the curves as CSV, one row an epoch."""
    with open(path, "w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(history[0]) if history else ["epoch"])
        writer.writeheader()
        writer.writerows(history)


def predict_logits(model: keras.Model, images: np.ndarray, batch: int = 256) -> np.ndarray:
    """Returns (n, classes) float32 logits of (n, h, w, c) uint8 images."""
    return np.asarray(model.predict(images, batch_size=batch, verbose=0), dtype=np.float32)


def fit(
    model: keras.Model,
    train: ImageSet,
    validation: ImageSet,
    recipe: Recipe,
    folder: Path,
    *,
    stop_after: int | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Trains `model` in place and returns its history; continues from `folder`'s checkpoint if there is one.

    Args:
        model: (n, h, w, c) uint8 -> (n, classes) logits.
        folder: receives `checkpoint.npz` and `history.csv` after every epoch.
        stop_after: epochs to do in this call at most (the schedule still spans `recipe.epochs`).
        report: called with each epoch's row.
    """
    import keras

    steps = len(train) // recipe.batch_size
    if steps == 0:
        raise ValueError(f"{len(train)} training images are fewer than one batch of {recipe.batch_size}")
    classes = model.output_shape[-1]
    optimizer = keras.optimizers.SGD(
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"], jit_compile=False)
    optimizer.build(model.trainable_variables)
    checkpoint = folder / "checkpoint.npz"
    folder.mkdir(parents=True, exist_ok=True)
    done, history = load_checkpoint(checkpoint, model) if checkpoint.exists() else (0, [])
    targets = np.eye(classes, dtype=np.float32)[train.labels]
    last = recipe.epochs if stop_after is None else min(recipe.epochs, done + stop_after)
    for epoch in range(done, last):
        order = epoch_order(len(train), recipe.seed, epoch)
        totals = np.zeros(2)
        for step in range(steps):
            optimizer.learning_rate.assign(learning_rate_at(epoch * steps + step, recipe, steps))
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            # train_on_batch keeps running means, the last of an epoch is the epoch's
            result = model.train_on_batch(train.images[rows], targets[rows], return_dict=True)
            totals = np.asarray([float(result["loss"]), float(result["accuracy"])])
        model.reset_metrics()
        logits = predict_logits(model, validation.images)
        row = {
            "epoch": float(epoch + 1),
            "learning_rate": learning_rate_at((epoch + 1) * steps - 1, recipe, steps),
            "loss": float(totals[0]),
            "accuracy": float(totals[1]),
            "val_accuracy": float((logits.argmax(1) == validation.labels).mean()),
        }
        history.append(row)
        save_checkpoint(checkpoint, model, epoch + 1, history)
        write_history(folder / "history.csv", history)
        logger.info("epoch %d of %d: %s", epoch + 1, recipe.epochs, row)
        if report is not None:
            report(row)
    return history
