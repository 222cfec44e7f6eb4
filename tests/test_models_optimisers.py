"""The course of the rate, plateaus, and factors by layer."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.optimisers import epochs_without_gain, layer_factor, plateaus, schedule
from models.training.recipe import Recipe


def rate(recipe: Recipe, step: int, steps: int) -> float:
    return float(np.asarray(schedule(recipe, steps, [])(step)))


@pytest.mark.parametrize(
    "step, expected",
    [
        (0, 0.0),
        (1, 0.02),  # one of five steps of the warm-up
        (5, 0.1),  # the peak, where the half cosine begins
        (10, 0.1 * 0.5 * (1 + math.cos(math.pi / 3))),
        (20, 0.0),
        (99, 0.0),
    ],
)
def test_the_rate_of_a_step(step: int, expected: float) -> None:
    recipe = Recipe(epochs=4, learning_rate=0.1, warmup_epochs=1.0)
    assert rate(recipe, step, 5) == pytest.approx(expected, abs=1e-7)


def test_without_a_warm_up_the_peak_comes_first() -> None:
    assert rate(Recipe(epochs=2, learning_rate=0.1, warmup_epochs=0), 0, 5) == pytest.approx(0.1)


@given(st.integers(1, 10), st.integers(1, 10), st.floats(0, 3), st.floats(1e-4, 1))
def test_the_rate_rises_once_falls_once_and_stays_within_its_peak(
    epochs: int, steps: int, warmup: float, peak: float
) -> None:
    recipe = Recipe(epochs=epochs, learning_rate=peak, warmup_epochs=warmup)
    course = schedule(recipe, steps, [])
    rates = [float(np.asarray(course(step))) for step in range(epochs * steps)]
    assert all(0 <= r <= peak * (1 + 1e-5) for r in rates)
    top = int(np.argmax(rates))
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-6 for a, b in itertools.pairwise(rates[top:]))


@pytest.mark.parametrize(
    "scores, patience, found",
    [([], 2, 0), ([0.1, 0.2, 0.3], 2, 0), ([0.3, 0.2, 0.2], 2, 1), ([0.3, 0.2, 0.2, 0.4, 0.3, 0.3, 0.1, 0.1], 2, 3)],
)
def test_plateaus_are_counted_from_the_history(scores: list[float], patience: int, found: int) -> None:
    assert plateaus(scores, patience) == found


def test_a_plateau_lowers_the_rate_and_the_warm_up_raises_it_by_epoch() -> None:
    recipe = Recipe(schedule="plateau", learning_rate=0.1, warmup_epochs=2, plateau_factor=0.5, plateau_patience=1)
    rows = [{"val_accuracy": score} for score in (0.5, 0.5, 0.6)]
    assert [schedule(recipe, 5, rows[:done]) for done in range(4)] == pytest.approx([0.05, 0.1, 0.05, 0.05])


@pytest.mark.parametrize("scores, waited", [([], 0), ([0.1], 0), ([0.3, 0.1, 0.3], 2), ([0.1, 0.2], 0)])
def test_epochs_without_gain(scores: list[float], waited: int) -> None:
    assert epochs_without_gain(scores) == waited


@pytest.mark.parametrize(
    "path, factor",
    [("block1_conv1/kernel", 0.0), ("block2_conv1/kernel", 0.5), ("block2_conv2/kernel", 0.1), ("labels/bias", 1.0)],
)
def test_the_longest_beginning_decides_the_factor(path: str, factor: float) -> None:
    assert layer_factor(path, {"block1": 0.0, "block2": 0.5, "block2_conv2": 0.1}) == factor
