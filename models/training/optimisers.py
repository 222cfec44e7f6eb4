"""Optimisers with a learning-rate factor per layer, and schedules of the rate over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from models.training.recipe import Recipe

UNDECAYED = ("gamma", "beta", "bias")  # parts of names of variables: normalisation, and biases


def layer_factor(path: str, rates: Mapping[str, float]) -> float:
    """Returns the factor of the variable at `layer/variable`: that of the longest matching prefix, else 1.

    >>> layer_factor("block1_conv2/kernel", {"block1": 0.5, "block1_conv2": 0.1})
    0.1
    """
    fitting = [beginning for beginning in rates if path.startswith(beginning)]
    return rates[max(fitting, key=len)] if fitting else 1.0


def optimiser(recipe: Recipe, rate: Any, variables: Sequence[Any]) -> keras.optimizers.Optimizer:
    """Returns the recipe's optimiser.

    Args:
        rate: a number or a Keras schedule.
        variables: all variables to train.
    """
    common: dict[str, Any] = {"learning_rate": rate, "weight_decay": recipe.weight_decay or None}
    if recipe.clip_norm:
        common["global_clipnorm"] = recipe.clip_norm
    if recipe.ema_decay:
        common |= {"use_ema": True, "ema_momentum": recipe.ema_decay}
    own: dict[str, dict[str, Any]] = {
        "sgd": {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0},
        "adam": {},
        "rmsprop": {},
    }
    kinds = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
    made = _own(kinds[recipe.optimiser], recipe)(**own[recipe.optimiser], **common)
    made.exclude_from_weight_decay(
        var_list=[v for v in variables if not _decays(v.path) or _has_factor(v.path, recipe.rates)]
    )
    made.build(variables)
    return made


def _decays(path: str) -> bool:
    return not any(word in path for word in UNDECAYED)


def _has_factor(path: str, rates: Mapping[str, float]) -> bool:
    return any(path.startswith(name) for name in rates)


def _own(kind: Any, recipe: Recipe) -> Any:
    """Returns the optimiser class with a rate factor per variable, and with averages applied on demand."""

    class Own(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
            # with TensorFlow this is TensorFlow's own variable, whose name is its path
            path = getattr(variable, "path", variable.name)
            factor = layer_factor(path, recipe.rates)
            if _has_factor(path, recipe.rates) and _decays(path):
                # Keras would decay with the full rate
                self.assign_sub(variable, variable * recipe.weight_decay * learning_rate * factor)
            return super().update_step(gradient, variable, learning_rate * factor)

        def finalize_variable_values(self, var_list: Any) -> None:
            """Does nothing: Keras calls this after every `fit`, but training continues from the weights themselves."""

        def take_averages(self, variables: Sequence[Any]) -> None:
            """Overwrites the variables with their running mean."""
            super().finalize_variable_values(variables)

    return Own


def schedule(
    recipe: Recipe, steps_an_epoch: int, history: Sequence[Mapping[str, float]], judged: str = "val_accuracy"
) -> Any:
    """Returns the rate for the coming epoch: a Keras schedule over all steps, or a number that follows the history."""
    if recipe.schedule == "cosine":
        warmup = round(recipe.warmup_epochs * steps_an_epoch)
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else recipe.learning_rate,
            max(1, recipe.epochs * steps_an_epoch - warmup),
            warmup_target=recipe.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    rate = recipe.learning_rate * min(1.0, (len(history) + 1) / max(1.0, math.ceil(recipe.warmup_epochs)))
    if recipe.schedule == "plateau":
        rate *= recipe.plateau_factor ** plateaus([row[judged] for row in history], recipe.plateau_patience)
    return rate


def plateaus(scores: Sequence[float], patience: int) -> int:
    """Returns how often `patience` epochs in a row brought no better score, from the history alone, so it resumes."""
    best, waited, found = -math.inf, 0, 0
    for score in scores:
        if score > best:
            best, waited = score, 0
            continue
        waited += 1
        if waited >= patience:
            found, waited = found + 1, 0
    return found


def epochs_without_gain(scores: Sequence[float]) -> int:
    """Returns the epochs since the first one with the best score."""
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0
