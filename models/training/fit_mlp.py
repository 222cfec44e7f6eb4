"""Fits dense layers on features with the shared training loop, and returns them as plain arrays.

Rows of a memory map are fetched one batch at a time, so features may be larger than memory. Those of the held-out part
are in memory, as float32. Standardisation, if asked for, is the network's first layer, in training and afterwards.

Two classes are two outputs: softmax cross-entropy of their difference is the binary cross-entropy of one sigmoid.

Not here: the loop itself (`trainer.py`), and applying the result (`models/heads/registry.py`, without Keras).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.heads.mlp import MlpHead
from models.training.checkpoint import BEST, CHECKPOINT, HISTORY
from models.training.fit_head import Fitted
from models.training.head_data import FitError, Labels, Part, Parts, Rows, parts_of, standardisation
from models.training.head_metrics import calibrated
from models.training.recipe import Recipe
from models.training.trainer import Examples, Task, fit, one_hot

if TYPE_CHECKING:
    import keras

TASK = "labels"
STATE = "training.json"  # identifies the training of the checkpoint beside it


def fit_mlp_head(
    features: np.ndarray | Rows,
    labels: Labels,
    *,
    layers: Sequence[int],
    recipe: Recipe,
    folder: Path,
    standardise: bool = True,
    validation: tuple[np.ndarray | Rows, Labels] | None = None,
    holdout: float = 0.2,
    groups: Sequence[Any] | np.ndarray | None = None,
    seed: int = 0,
    report: Callable[[dict[str, float]], None] | None = None,
    step_done: Callable[[], None] | None = None,
) -> Fitted:
    """Returns dense layers with relu and dropout between them, trained by the recipe.

    With votes, or labels with votes blended in, the targets are the shares, which are not smoothed. The held-out part
    decides which epoch is best (`keep`, `stop_patience`), by the rows whose truth is an ordinary class. It also fits
    the temperature and gives the metrics.

    Args:
        features, labels, validation, holdout, groups, seed: as in `fit_head.fit_linear_head`.
        layers: outputs of each hidden layer; an empty list makes a linear head.
        recipe: `dropout` is the rate after each hidden layer; settings about pixels are ignored.
        standardise: False to learn features as they are, as published heads often did; large ones learn fast.
        folder: receives `history.csv` and the checkpoint. After a kill, the same call resumes; any other starts again.
        report: called with each epoch's row. step_done: after each step.

    Raises:
        FitError: as in `fit_linear_head`, or there are fewer rows than a batch.
    """
    parts = parts_of(features, labels, validation=validation, holdout=holdout, groups=groups, seed=seed)
    mean, scale = standardisation(parts.train.features)
    if not standardise:
        mean, scale = np.zeros_like(mean), np.ones_like(scale)
    _clear_another(folder, parts, {"layers": list(layers), "standardise": standardise, "recipe": asdict(recipe)})
    answers = parts.train.answers
    names = (*answers.classes, *answers.reject)
    network = dense_network(mean, scale, layers, len(names), recipe)
    task = Task(TASK, names, soft=answers.shares is not None)
    held = parts.held
    examples = Examples(_Fetched(parts.train.features), {TASK: answers.targets}, {})  # type: ignore[arg-type]
    judged = Examples(
        held.features[:].astype(np.float32),
        {TASK: one_hot([names[i] for i in held.answers.y], names)},
        {TASK: held.answers.ordinary.astype(np.float32)},
    )
    if len(parts.train) < recipe.batch_size:
        raise FitError(
            f"{len(parts.train)} training rows are fewer than one batch of {recipe.batch_size}; "
            "lower mlp.batch_size or add images"
        )
    history = fit(network, examples, judged, [task], recipe, folder, report=report, step_done=step_done)
    kernels, biases = _dense_arrays(network)
    head = MlpHead(answers.classes, kernels, biases, mean, scale, reject=answers.reject)
    chosen = {"epoch": _kept_epoch(history, recipe), "epochs": float(len(history))}
    measured, metrics = calibrated(head, held, parts.split | chosen)
    return Fitted(measured, "mlp", chosen, (), parts.split | chosen, metrics, history=tuple(history))


class _Fetched:
    """Rows for the training loop: one batch at a time, as float32, since no kernel of the runtime takes float16."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._rows[rows].astype(np.float32)


def dense_network(
    mean: np.ndarray, scale: np.ndarray, layers: Sequence[int], outputs: int, recipe: Recipe
) -> keras.Model:
    """Returns (n, d) features -> {"labels": (n, outputs) logits}: standardised, then dense layers with dropout."""
    import keras

    keras.utils.set_random_seed(recipe.seed)
    given = keras.Input((len(mean),), name="features")
    x = keras.layers.Normalization(mean=mean, variance=scale**2, dtype="float32", name="standardised")(given)
    for number, width in enumerate(layers):
        x = keras.layers.Dense(width, activation="relu", dtype="float32", name=f"dense{number}")(x)
        if recipe.dropout:
            x = keras.layers.Dropout(recipe.dropout, seed=recipe.seed + number, name=f"dropout{number}")(x)
    logits = keras.layers.Dense(outputs, dtype="float32", name=TASK)(x)
    return keras.Model(given, {TASK: logits}, name="mlp_head")


def _dense_arrays(network: keras.Model) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Returns kernels and biases of the dense layers, in order."""
    pairs = [layer.get_weights() for layer in network.layers if layer.name.startswith("dense") or layer.name == TASK]
    return tuple(kernel for kernel, _ in pairs), tuple(bias for _, bias in pairs)


def _kept_epoch(history: Sequence[dict[str, float]], recipe: Recipe) -> float:
    """Returns the epoch, counted from 1, whose weights are kept; ties go to the last, as in the training loop."""
    if recipe.keep != "best":
        return float(len(history))
    best = max(row["val_accuracy"] for row in history)
    return max(row["epoch"] for row in history if row["val_accuracy"] == best)


def _clear_another(folder: Path, parts: Parts, about: dict[str, Any]) -> None:
    """Removes the files of another training: only one with the same rows and answers, taught alike, may resume."""
    about["rows"] = [_digest(parts.train), _digest(parts.held)]
    text = json.dumps(about, indent=1, sort_keys=True) + "\n"
    state = folder / STATE
    if state.exists() and state.read_text() == text:
        return
    for name in (STATE, CHECKPOINT, BEST, HISTORY):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    state.write_text(text)


def _digest(part: Part) -> str:
    digest = hashlib.sha256(json.dumps([*part.answers.classes, *part.answers.reject]).encode())
    for step in part.features.steps():
        digest.update(np.ascontiguousarray(step).tobytes())
    digest.update(part.answers.y.tobytes() + part.answers.targets.tobytes())
    return digest.hexdigest()


def recipe_of_features(recipe: Recipe) -> Recipe:
    """Returns the recipe without its settings of pixels and convolutions, which rows of features do not have."""
    still: dict[str, Any] = {
        "top_dropout": 0.0, "crop": 0, "progressive_sizes": (), "flip": False, "shift": 0.0, "rotation": 0.0,
        "scale": 0.0, "shrink": 0.0, "contrast": 0.0, "brightness": 0.0, "blur": 0.0, "zoom_out": 0.0,
        "compress": 0.0, "erase": 0.0, "frozen": (), "rates": {}, "precision": "float32",
    }  # fmt: skip
    return replace(recipe, **still)
