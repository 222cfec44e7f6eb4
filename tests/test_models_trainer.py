"""Training: the schedule, the order of images, and a resume that changes nothing."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.backbones.normalisation import FusedBatchNormalization
from models.training.augment import augmentation
from models.training.checkpoint import TrainingError, load_checkpoint, save_checkpoint, write_history
from models.training.optimisers import optimiser, schedule
from models.training.recipe import Recipe
from models.training.trainer import Examples, Task, epoch_order, fit, mixed, one_hot

ROOT = Path(__file__).parents[1]
PLAIN: dict[str, Any] = {  # a recipe with no random changes, for a network of 12 pixels
    "batch_size": 8,
    "precision": "float32",
    "warmup_epochs": 0.0,
    "crop": 0,
    "flip": False,
    "shift": 0.0,
    "rotation": 0.0,
    "scale": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "blur": 0.0,
    "erase": 0.0,
}
RECIPE = Recipe(
    epochs=2, batch_size=8, learning_rate=0.1, precision="float32", crop=8, ema_decay=0.9, mixup=0.2, zoom_out=0.5,
    compress=0.5, progressive_sizes=(6, 8),
)  # fmt: skip
CLASSES = ("a", "b", "c")
SWAPS = 3  # a seed that mixes each of two with the other
TASKS = (Task("labels", CLASSES), Task("votes", ("x", "y"), weight=0.5, soft=True))

# --- what needs no network --------------------------------------------------------------------------------------------


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
    assert os.listdir(tmp_path) == ["history.csv"]


def test_labels_become_rows() -> None:
    assert one_hot(["b", "a"], ("a", "b", "c")).tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(KeyError):
        one_hot(["d"], ("a",))


def test_mixing_mixes_pixels_targets_and_weights_alike() -> None:
    images, whole = np.asarray([[0], [100]], np.uint8), {"t": np.eye(2, dtype=np.float32)}

    def each_with_the_other(weights: list[float]) -> tuple[list[int], list[list[float]], list[float]]:
        draw = np.random.default_rng(SWAPS)
        inputs, targets, weigh = mixed(images, whole, {"t": np.asarray(weights)}, share=0.75, draw=draw)
        assert inputs.dtype == np.uint8
        return inputs.ravel().tolist(), targets["t"].tolist(), weigh["t"].tolist()

    assert np.random.default_rng(SWAPS).permutation(2).tolist() == [1, 0]
    assert each_with_the_other([1, 1]) == ([25, 75], [[0.75, 0.25], [0.25, 0.75]], [1, 1])
    # the second one's answer weighs nothing, so it teaches nothing
    assert each_with_the_other([1, 0]) == ([25, 75], [[1, 0], [1, 0]], [0.75, 0.25])
    assert each_with_the_other([0, 0]) == ([25, 75], [[0, 0], [0, 0]], [0, 0])


# --- a small network --------------------------------------------------------------------------------------------------


def network(recipe: Recipe = RECIPE, *, filters: int = 4, seed: int = 1) -> Any:
    """A network with everything a checkpoint has to know: normalisation, dropout, random changes of pixels."""
    import keras

    keras.utils.set_random_seed(seed)
    image = keras.Input((12, 12, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    for layer in augmentation(recipe):
        x = layer(x)
    x = keras.layers.Conv2D(filters, 3, use_bias=False, name="first")(x)
    x = FusedBatchNormalization(momentum=0.9, name="first_bn")(x)
    x = keras.layers.Dropout(0.2, seed=5)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, {task.name: keras.layers.Dense(len(task.classes), name=task.name)(x) for task in TASKS})


def data(count: int, seed: int = 0) -> Examples:
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = draw.integers(0, 100, (count, 12, 12, 1)) + 60 * labels[:, None, None, None]
    votes = np.stack([labels / 2, 1 - labels / 2], 1).astype(np.float32)
    return Examples(images.astype(np.uint8), {"labels": np.eye(3, dtype=np.float32)[labels], "votes": votes}, {})


def train(folder: Path, recipe: Recipe = RECIPE, **other: Any) -> list[dict[str, float]]:
    made = other.pop("model", None) or network(recipe, seed=other.pop("seed", 1))
    examples = other.pop("examples", None) or data(27)
    return fit(made, examples, data(9, 1), TASKS, recipe, folder, **other)


RESUME = """
import sys
from pathlib import Path
import numpy as np
from test_models_trainer import RECIPE, network, train
whole, parts = Path(sys.argv[1]), Path(sys.argv[2])
one, two = network(), network(seed=99)
train(whole, model=one)
train(parts, stop_after=1)
train(parts, model=two)
(parts / "history.csv").write_text("epoch\\n1.0\\n")  # as if killed before the last curves were written
train(parts, model=two)
assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True)), "weights"
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_epochs_are_one_and_a_resume_and_one_bit_for_bit(tmp_path: Path, backend: str) -> None:
    pytest.importorskip(backend)
    # One thread: with several, TensorFlow's gradients may differ in the last bits between any two runs.
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    threads |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
    environment = {**os.environ, **threads, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = [sys.executable, "-c", RESUME, str(whole), str(parts)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (whole / "checkpoint.npz").read_bytes() == (parts / "checkpoint.npz").read_bytes()
    assert (whole / "history.csv").read_bytes() == (parts / "history.csv").read_bytes()
    with (parts / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1.0", "2.0"]


def test_each_epoch_trains_on_the_side_that_is_its_turn(tmp_path: Path) -> None:
    import keras

    seen: list[int] = []

    class Noting(keras.layers.Layer):
        """Notes the side of what passes, whenever a function is made of it."""

        def call(self, images: Any, training: bool = False) -> Any:
            if training and images.shape[1] is not None:
                seen.append(images.shape[1])
            return images

    recipe = replace(RECIPE, epochs=4, crop=0, progressive_sizes=(6, 12))

    def made() -> Any:
        image = keras.Input((12, 12, 1), dtype="uint8")
        x = keras.layers.Rescaling(1 / 255)(image)
        for layer in [*augmentation(recipe), Noting()]:
            x = layer(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(image, {t.name: keras.layers.Dense(len(t.classes), name=t.name)(x) for t in TASKS})

    sides = []
    for epochs in (1, 1, 1, 1):  # each resumed by a network that begins with the first side
        seen.clear()
        train(tmp_path, recipe, model=made(), stop_after=epochs)
        sides.append(set(seen))
    assert sides == [{6}, {6}, {12}, {12}]
    seen.clear()
    train(tmp_path / "at once", recipe, model=made())
    assert sorted(set(seen)) == [6, 12] and seen == sorted(seen)


def test_training_learns_reports_and_stops_where_the_recipe_ends(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, learning_rate=0.5, ema_decay=0.0, **PLAIN)
    rows: list[dict[str, float]] = []
    steps: list[int] = []
    history = train(tmp_path, recipe, report=rows.append, step_done=lambda: steps.append(1))
    assert history == rows
    assert len(steps) == 3 * 3  # three batches of 8 in 27
    assert [row["epoch"] for row in history] == [1.0, 2.0, 3.0]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["learning_rate"] == pytest.approx(0.0, abs=1e-6)
    assert {"val_loss", "val_accuracy", "val_loss_votes", "val_accuracy_votes"} <= set(history[0])
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.npz", "history.csv"]
    assert train(tmp_path, recipe, report=lambda _: pytest.fail("it was finished")) == history


def test_a_task_may_have_a_loss_of_its_own_and_validation_stays_comparable(tmp_path: Path) -> None:
    import keras

    class Asked(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            asked.append(tuple(y_true.shape[1:]))
            return 0.0 * keras.ops.sum(y_pred, axis=-1) + 5.0

    asked: list[tuple[int, ...]] = []
    recipe = Recipe(epochs=1, learning_rate=0.5, ema_decay=0.0, weight_decay=0.0, **PLAIN)
    tasks = (Task("labels", CLASSES, loss=Asked()), replace(TASKS[1], weight=0.0))
    made = network(recipe)
    top = made.get_layer("labels").get_weights()[0]
    row = fit(made, data(27), data(9), tasks, recipe, tmp_path)[0]
    assert set(asked) == {(len(CLASSES),)}
    assert row["loss"] == pytest.approx(5.0)
    assert np.array_equal(top, made.get_layer("labels").get_weights()[0])  # a constant teaches nothing
    assert 0 < row["val_loss"] < 5


@pytest.mark.parametrize("damage", ["cut", "text", "flipped"])
def test_a_damaged_checkpoint_is_one_line_that_names_it(tmp_path: Path, damage: str) -> None:
    train(tmp_path, Recipe(epochs=1, ema_decay=0.0, **PLAIN))
    path = tmp_path / "checkpoint.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes({"cut": bytes(data[:300]), "text": b"no arrays", "flipped": bytes(data)}[damage])
    with pytest.raises(TrainingError, match=r"^[^\n]*checkpoint\.npz is damaged \([^\n]*use another --output$"):
        train(tmp_path, Recipe(epochs=2, ema_decay=0.0, **PLAIN))


def test_the_averaged_weights_are_kept_and_training_goes_on_from_the_others(tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, learning_rate=0.5, ema_decay=0.5, **PLAIN)
    made = network(recipe)
    train(tmp_path, recipe, model=made)
    kept = made.get_layer("first").get_weights()[0]
    again = network(recipe)
    again.compile(optimizer=optimiser(recipe, schedule(recipe, 3, []), again.trainable_variables))
    load_checkpoint(tmp_path / "checkpoint.npz", again)
    assert not np.array_equal(again.get_layer("first").get_weights()[0], kept)
    again.optimizer.take_averages(again.trainable_variables)
    assert np.array_equal(again.get_layer("first").get_weights()[0], kept)


def test_rows_of_weight_nothing_teach_nothing(tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, learning_rate=0.5, ema_decay=0.0, weight_decay=0.0, **PLAIN)
    examples = data(27)
    nothing = {task.name: np.zeros(27, np.float32) for task in TASKS}
    made = network(recipe)
    before = made.get_layer("labels").get_weights()[0]
    train(tmp_path, recipe, model=made, examples=Examples(examples.inputs, examples.targets, nothing))
    assert np.array_equal(before, made.get_layer("labels").get_weights()[0])


def test_frozen_layers_stay_and_a_factor_of_zero_is_one_that_stays(tmp_path: Path) -> None:
    for name, change in (("frozen", {"frozen": ("first",)}), ("rates", {"rates": {"first": 0.0}})):
        recipe = Recipe(epochs=1, learning_rate=0.5, ema_decay=0.0, **PLAIN, **change)  # type: ignore[arg-type]
        made = network(recipe)
        before, top = made.get_layer("first").get_weights()[0], made.get_layer("labels").get_weights()[0]
        train(tmp_path / name, recipe, model=made)
        assert np.array_equal(before, made.get_layer("first").get_weights()[0])
        assert not np.array_equal(top, made.get_layer("labels").get_weights()[0])


def test_training_ends_early_without_gain_and_the_best_is_kept(tmp_path: Path) -> None:
    flat = {"epochs": 9, "learning_rate": 1e-12, "weight_decay": 0.0, "ema_decay": 0.0, "schedule": "constant"}
    recipe = Recipe(stop_patience=2, keep="best", **flat, **PLAIN)  # type: ignore[arg-type]
    assert len(train(tmp_path, recipe)) == 3
    assert (tmp_path / "best.npz").exists()
    assert len(train(tmp_path, recipe)) == 3


@pytest.mark.parametrize("imbalance", ["inverse_sqrt", "logit_adjustment", "balanced_draws"])
@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_every_kind_trains(tmp_path: Path, imbalance: str, optimiser: str) -> None:
    more: dict[str, Any] = {"clip_norm": 1.0, "schedule": "plateau"}
    recipe = Recipe(epochs=6, optimiser=optimiser, imbalance=imbalance, learning_rate=0.01, **more, **PLAIN)
    history = train(tmp_path, recipe)
    assert history[-1]["loss"] < history[0]["loss"]


def test_one_task_alone_trains_on_features_as_well_as_on_pictures(tmp_path: Path) -> None:
    import keras

    rows = data(27)
    features = rows.inputs.mean((1, 2)).astype(np.float16)
    vector = keras.Input((1,))
    made = keras.Model(vector, {"labels": keras.layers.Dense(3, name="labels")(vector)})
    task = TASKS[:1]
    examples = Examples(features, {"labels": rows.targets["labels"]}, {})
    recipe = Recipe(epochs=5, optimiser="adam", learning_rate=0.01, ema_decay=0.0, mixup=0.1, **PLAIN)
    history = fit(made, examples, examples, task, recipe, tmp_path)
    assert history[-1]["val_loss"] < history[0]["val_loss"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    made = network()
    made.compile(optimizer="sgd")
    made.optimizer.build(made.trainable_variables)
    save_checkpoint(path, made, 0, [])
    assert load_checkpoint(path, made) == (0, [])
    for other, words in (
        (network(filters=5), "has shape .*4.*, this network .*5"),
        (network(Recipe(**PLAIN)), "arrays, this network has"),
    ):
        other.compile(optimizer="sgd")
        other.optimizer.build(other.trainable_variables)
        with pytest.raises(ValueError, match=rf"checkpoint\.npz: .*{words}.*use another --output"):
            load_checkpoint(path, other)


def test_fewer_images_than_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="7 training images are fewer than one batch of 8"):
        train(tmp_path, examples=data(7))
