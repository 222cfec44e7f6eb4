"""Training of one network of the cascade, with checkpoints from which it goes on exactly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from models.detectors.cascade.shapes import NetworkShape
from models.training.detection.cascade.networks import build

Batches = Callable[[int], tuple[np.ndarray, np.ndarray]]  # step to (windows, classes): a function of the step alone
Report = Callable[[dict[str, object]], None]


@dataclass(frozen=True)
class NetworkRecipe:
    """How a network is trained.

    Attributes:
        steps: batches.
        rate: of AdamW, at its highest; it rises for a twentieth of the steps and falls along half a cosine.
        weight_decay: of AdamW.
        every: steps between checkpoints, and between lines of the report.
        precision: a dtype policy of Keras.
        seed: of the first weights.
    """

    steps: int = 2000
    rate: float = 2e-3
    weight_decay: float = 1e-3
    every: int = 250
    precision: str = "float32"
    seed: int = 0


def train_network(
    name: str, shape: NetworkShape, batches: Batches, recipe: NetworkRecipe, folder: Path, report: Report
) -> dict[str, np.ndarray]:
    """Returns the weights of a trained network by layer and kind, and keeps them as `<name>.npz` in the folder.

    A network that is there is read. One that was interrupted goes on from its checkpoint, with the same result.
    """
    done = folder / f"{name}.npz"
    if not done.exists():
        with _precision(recipe.precision):
            weights = _trained(name, shape, batches, recipe, folder / f"{name}.checkpoint.npz", report)
        _write(done, weights)
        (folder / f"{name}.checkpoint.npz").unlink(missing_ok=True)
    with np.load(done, allow_pickle=False) as stored:
        return dict(stored)


def _trained(
    name: str, shape: NetworkShape, batches: Batches, recipe: NetworkRecipe, checkpoint: Path, report: Report
) -> dict[str, np.ndarray]:
    keras.utils.set_random_seed(recipe.seed)
    network = build(shape)
    optimiser = keras.optimizers.AdamW(_rate(recipe), weight_decay=recipe.weight_decay)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimiser, loss, metrics=["accuracy"], jit_compile=False)
    optimiser.build(network.trainable_variables)
    variables = [*network.variables, *optimiser.variables]
    for step in range(_restored(checkpoint, variables), recipe.steps):
        metrics = network.train_on_batch(*batches(step))
        if (step + 1) % recipe.every == 0:
            _write(checkpoint, {"step": np.asarray(step + 1), **_numbered(variables)})
            report({"network": name, "step": step + 1, "loss": float(metrics[0]), "accuracy": float(metrics[1])})
            network.reset_metrics()
    return weights_of(network)


def weights_of(network: keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights of a network by layer and kind."""
    return {weight.path: np.asarray(weight, np.float32) for weight in network.weights}


def _rate(recipe: NetworkRecipe) -> keras.optimizers.schedules.LearningRateSchedule:
    warm = max(1, recipe.steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, recipe.steps - warm), alpha=0.005, warmup_target=recipe.rate, warmup_steps=warm
    )


def _restored(checkpoint: Path, variables: list[keras.Variable]) -> int:
    """Puts a checkpoint's values into the variables; returns the step that comes next, 0 without a checkpoint."""
    if not checkpoint.exists():
        return 0
    with np.load(checkpoint, allow_pickle=False) as stored:
        for number, variable in enumerate(variables):
            variable.assign(stored[f"v{number:03}"])
        return int(stored["step"])


def _numbered(variables: list[keras.Variable]) -> dict[str, np.ndarray]:
    return {f"v{number:03}": np.asarray(variable) for number, variable in enumerate(variables)}


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(temporary, path)


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
