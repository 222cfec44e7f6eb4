"""Training: the schedule, the order of images, and a resume that changes nothing."""

from __future__ import annotations

import csv
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.engine import (
    ImageSet,
    Recipe,
    augmentation,
    epoch_order,
    fit,
    learning_rate_at,
    load_checkpoint,
    save_checkpoint,
    write_history,
)

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.1, precision="float32")

# --- what needs no network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, rate",
    [
        (0, 0.02),  # one of five steps of the warm-up
        (3, 0.08),
        (4, 0.1),
        (5, 0.1),  # the peak, where the half cosine begins
        (10, 0.1 * 0.5 * (1 + math.cos(math.pi / 3))),
        (20, 0.0),
        (99, 0.0),
    ],
)
def test_the_rate_of_a_step(step: int, rate: float) -> None:
    recipe = Recipe(epochs=4, learning_rate=0.1, warmup_epochs=1.0)
    assert math.isclose(learning_rate_at(step, recipe, 5), rate, abs_tol=1e-12)


def test_without_a_warm_up_the_peak_comes_first() -> None:
    assert learning_rate_at(0, Recipe(epochs=2, learning_rate=0.1, warmup_epochs=0), 5) == 0.1


@given(st.integers(1, 40), st.integers(1, 50), st.floats(0, 3), st.floats(1e-4, 1))
def test_the_rate_rises_once_falls_once_and_stays_within_its_peak(
    epochs: int, steps: int, warmup: float, peak: float
) -> None:
    recipe = Recipe(epochs=epochs, learning_rate=peak, warmup_epochs=warmup)
    rates = [learning_rate_at(step, recipe, steps) for step in range(epochs * steps)]
    assert all(0 <= rate <= peak * (1 + 1e-9) for rate in rates)
    top = int(np.argmax(rates))
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates[top:]))


@given(st.integers(0, 200), st.integers(0, 2**31 - 1), st.integers(0, 300))
def test_the_order_of_an_epoch_is_each_image_once_and_always_the_same(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, epoch_order(count, seed, epoch))


def test_epochs_and_seeds_differ_in_order() -> None:
    orders = {epoch_order(100, seed, epoch).tobytes() for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize(
    "history, lines",
    [
        ([], ["epoch"]),
        ([{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}], ["epoch,loss", "1.0,0.5", "2.0,0.25"]),
    ],
)
def test_curves_are_a_table(tmp_path: Path, history: list[dict[str, float]], lines: list[str]) -> None:
    write_history(tmp_path / "history.csv", history)
    assert (tmp_path / "history.csv").read_text().splitlines() == lines


# --- a small network --------------------------------------------------------------------------------------------------


def network(recipe: Recipe = RECIPE, *, filters: int = 4, classes: int = 3, seed: int = 1) -> Any:
    """A network with everything a checkpoint has to know: normalisation, dropout, random changes of pixels."""
    import keras

    keras.utils.set_random_seed(seed)
    image = keras.Input((12, 12, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    for layer in augmentation(recipe):
        x = layer(x)
    x = keras.layers.Conv2D(filters, 3, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.2, seed=5)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes)(x))


def data(count: int, seed: int = 0) -> ImageSet:
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = draw.integers(0, 100, (count, 12, 12, 1)) + 60 * labels[:, None, None, None]
    return ImageSet(images.astype(np.uint8), labels)


def train(folder: Path, recipe: Recipe = RECIPE, **other: Any) -> list[dict[str, float]]:
    return fit(network(recipe, seed=other.pop("seed", 1)), data(27), data(9, 1), recipe, folder, **other)


RESUME = """
import sys
from pathlib import Path
from test_models_engine import train
whole, parts = Path(sys.argv[1]), Path(sys.argv[2])
train(whole)
train(parts, stop_after=1)
train(parts, seed=99)
"""


def test_two_epochs_are_one_and_a_resume_and_one_bit_for_bit(tmp_path: Path) -> None:
    # One thread: with several, TensorFlow's gradients differ in the last bits between any two runs.
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = [sys.executable, "-c", RESUME, str(whole), str(parts)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (whole / "checkpoint.npz").read_bytes() == (parts / "checkpoint.npz").read_bytes()
    assert (whole / "history.csv").read_bytes() == (parts / "history.csv").read_bytes()
    with (parts / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1.0", "2.0"]


def test_training_learns_reports_and_stops_where_the_recipe_ends(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=0.5, precision="float32", flip=False, shift=0, rotation=0)
    rows: list[dict[str, float]] = []
    history = train(tmp_path, recipe, report=rows.append)
    assert history == rows
    assert [row["epoch"] for row in history] == [1.0, 2.0, 3.0]
    assert history[-1]["loss"] < history[0]["loss"]
    assert 0 <= history[-1]["val_accuracy"] <= 1
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.npz", "history.csv"]
    assert train(tmp_path, recipe, report=lambda _: pytest.fail("it was finished")) == history


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    made = network()
    made.compile(optimizer="sgd")
    made.optimizer.build(made.trainable_variables)
    save_checkpoint(path, made, 0, [])
    assert load_checkpoint(path, made) == (0, [])
    for other, words in (
        (network(filters=5), "4.* there, .*5.* here"),
        (network(Recipe(flip=False)), "arrays, this network has"),
    ):
        other.compile(optimizer="sgd")
        other.optimizer.build(other.trainable_variables)
        with pytest.raises(ValueError, match=rf"checkpoint\.npz: .*{words}.*use another --output"):
            load_checkpoint(path, other)


def test_fewer_images_than_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="7 training images are fewer than one batch of 8"):
        fit(network(), data(7), data(3), RECIPE, tmp_path)


def test_a_recipe_without_changes_of_pixels_has_no_layers_for_them() -> None:
    assert augmentation(Recipe(flip=False, shift=0, rotation=0)) == []
    assert len(augmentation(Recipe())) == 3
