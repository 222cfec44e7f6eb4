"""Dense layers on features: what is trained is what is stored, from memory or from a file, from labels or votes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.heads.registry import load_head
from models.training import trainer
from models.training.fit_head import Fitted
from models.training.fit_mlp import _dense_arrays, dense_network, fit_mlp_head, recipe_of_features
from models.training.head_data import FitError, Rows, Votes
from models.training.imbalance import WAYS
from models.training.losses import ClassLoss
from models.training.recipe import Recipe
from models.training.trainer import Examples, one_hot
from pipeline.run.fitting import save_head

FINGERPRINT = "0123456789abcdef" * 4
NAMES = ("happy", "angry", "sad")
QUICK = recipe_of_features(
    Recipe(
        epochs=6, batch_size=20, optimiser="adam", learning_rate=1e-2, schedule="constant", warmup_epochs=0,
        weight_decay=0, ema_decay=0, label_smoothing=0, dropout=0.2, keep="best",
    )
)  # fmt: skip


def clouds(count: int = 300, width: int = 6, spread: float = 0.5, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, width)) * 5 + 20
    y = np.arange(count) % 3
    return (centres[y] + spread * rng.normal(size=(count, width))).astype(np.float16), [NAMES[i] for i in y]


def fitted(folder: Path, *data: Any, recipe: Recipe = QUICK, layers: tuple[int, ...] = (8,), **more: Any) -> Fitted:
    features, labels = data or clouds()
    return fit_mlp_head(features, labels, layers=layers, recipe=recipe, folder=folder, **more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fitted(tmp_path_factory.mktemp("trained"))


def test_clouds_are_told_apart(trained: Fitted) -> None:
    assert trained.head.classes == ("angry", "happy", "sad")
    assert trained.metrics["accuracy"] == 1.0
    features, labels = clouds(30, seed=7)
    said = trained.head.probabilities(features).argmax(axis=1)
    assert [trained.head.classes[i] for i in said] == labels
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4, 5, 6]
    assert (trained.split["train"], trained.split["held_out"], trained.kind) == (240, 60, "mlp")


def test_the_same_input_gives_the_same_bytes(trained: Fitted, tmp_path: Path) -> None:
    again = fitted(tmp_path / "work")
    for name, one in (("a", trained), ("b", again)):
        save_head(tmp_path / name, one, FINGERPRINT, {})
    for file in ("head.npz", "head.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_keras_computed_is_what_numpy_computes() -> None:
    features, _ = clouds(40)
    mean, scale = features.mean(0).astype(np.float64), features.std(0).astype(np.float64)
    network = dense_network(mean, scale, (8, 5), 3, QUICK)
    from models.heads.mlp import MlpHead

    kernels, biases = _dense_arrays(network)
    assert [kernel.shape for kernel in kernels] == [(6, 8), (8, 5), (5, 3)]
    head = MlpHead(("a", "b", "c"), kernels, biases, mean, scale)
    expected = trainer.predict_logits(network, features.astype(np.float32))["labels"]
    assert np.abs(head.logits(features) - expected).max() < 1e-4


def test_rows_of_a_file_give_the_head_that_rows_in_memory_give(trained: Fitted, tmp_path: Path) -> None:
    features, labels = clouds()
    shuffled = np.random.default_rng(1).permutation(300)
    stored = np.lib.format.open_memmap(tmp_path / "f.npy", mode="w+", dtype=np.float16, shape=features.shape)
    stored[shuffled] = features
    rows = Rows(np.load(tmp_path / "f.npy", mmap_mode="r"), shuffled)
    found = fitted(tmp_path / "work", rows, labels)
    assert found.head.digest == trained.head.digest


def test_training_rows_are_fetched_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    fetch = Rows.__getitem__

    def watched(self: Rows, rows: Any) -> np.ndarray:
        found = fetch(self, rows)
        if not isinstance(rows, slice):
            asked.append(len(found))
        return found

    monkeypatch.setattr(Rows, "__getitem__", watched)
    fitted(tmp_path, recipe=replace(QUICK, epochs=1))
    assert set(asked) == {20}


def test_two_classes_are_trained_by_binary_cross_entropy() -> None:
    logits = np.array([[0.3, 1.5], [2.0, -1.0]], np.float32)
    truth = one_hot(["yes", "yes"], ("no", "yes"))
    difference = (logits[:, 1] - logits[:, 0]).astype(np.float64)
    assert np.asarray(ClassLoss().call(truth, logits)) == pytest.approx(np.log1p(np.exp(-difference)), rel=1e-5)


def votes_of(labels: list[str], doubt: float) -> Votes:
    """Most votes for the label, the rest for NF; every tenth image has no face at all."""
    classes = (*NAMES, "NF")
    shares = (1 - doubt) * one_hot(labels, classes) + doubt * one_hot(["NF"] * len(labels), classes)
    shares[::10] = [0, 0, 0, 1]
    return Votes(shares, classes, ("NF",))


def test_votes_are_learned_as_shares_and_reject_classes_get_a_score(tmp_path: Path) -> None:
    features, labels = clouds(600)
    features[::10] = np.random.default_rng(3).normal(size=(60, 6)) - 20  # far from every cloud
    recipe = replace(QUICK, epochs=12, dropout=0.0)
    found = fitted(tmp_path, features, votes_of(labels, 0.25), recipe=recipe)
    assert (found.head.classes, found.head.reject) == (("angry", "happy", "sad"), ("NF",))
    assert found.metrics["accuracy"] == 1.0
    assert found.metrics["reject"]["auc"] == 1.0
    assert found.metrics["rows"] + found.metrics["reject"]["rows"] == found.split["held_out"]
    shares = np.exp(found.head.logits(features[1:10]))
    assert (shares[:, 3] / shares.sum(axis=1)).mean() == pytest.approx(0.25, abs=0.1)
    save_head(tmp_path / "head", found, FINGERPRINT, {})
    loaded = load_head(tmp_path / "head")
    about = json.loads((tmp_path / "head" / "head.json").read_text())
    assert (about["kind"], about["reject"], about["classes"]) == ("mlp", ["NF"], ["angry", "happy", "sad"])
    score = loaded.answers(features)[:, -1]
    assert score[::10].min() > score[1:10].max()


def test_the_best_epoch_is_kept_and_waiting_ends_the_training(tmp_path: Path) -> None:
    recipe = replace(QUICK, epochs=50, stop_patience=2)
    found = fitted(tmp_path, recipe=recipe)
    scores = [row["val_accuracy"] for row in found.history]
    assert len(scores) < 50
    assert found.chosen["epoch"] == len(scores) - scores[::-1].index(max(scores))
    assert found.metrics["accuracy"] == pytest.approx(max(scores))


def test_killed_it_goes_on_and_ends_the_same(trained: Fitted, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill_after_three(row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        fitted(tmp_path, report=kill_after_three)
    rows: list[dict[str, float]] = []
    found = fitted(tmp_path, report=rows.append)
    assert [row["epoch"] for row in rows] == [4, 5, 6]
    assert found.head.digest == trained.head.digest


@pytest.mark.parametrize("change", ["recipe", "layers", "rows", "labels"])
def test_another_training_in_the_same_folder_starts_anew(tmp_path: Path, change: str) -> None:
    fitted(tmp_path, recipe=replace(QUICK, epochs=2))
    features, labels = clouds()
    if change == "rows":
        features = features + np.float16(1)
    if change == "labels":
        labels = [NAMES[(NAMES.index(name) + 1) % 3] for name in labels]
    recipe = replace(QUICK, epochs=2, seed=1 if change == "recipe" else 0)
    rows: list[dict[str, float]] = []
    fitted(tmp_path, features, labels, recipe=recipe, layers=(4,) if change == "layers" else (8,), report=rows.append)
    assert [row["epoch"] for row in rows] == [1, 2]


def unequal(seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Returns clouds that overlap, of 480, 72 and 48 rows: rare ones are overlooked."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(3), [480, 72, 48]))
    centres = np.random.default_rng(99).normal(size=(3, 6))
    return (centres[y] + 1.5 * rng.normal(size=(600, 6))).astype(np.float16), [NAMES[i] for i in y]


@pytest.mark.parametrize("votes", [False, True], ids=["labels", "votes"])
def test_rare_classes_are_found_more_often_if_the_recipe_says_so(tmp_path: Path, votes: bool) -> None:
    (features, labels), (held, truth) = unequal(), unequal(seed=1)
    shares, held_shares = (Votes(one_hot(said, NAMES), NAMES) if votes else said for said in (labels, truth))
    recalls = {}
    for way in WAYS:
        recipe = replace(QUICK, imbalance=way, keep="last", batch_size=60, learning_rate=0.03)
        given = {"recipe": recipe, "layers": (16,), "validation": (held, held_shares)}
        by_class = fitted(tmp_path / way, features, shares, **given).metrics["by_class"]
        recalls[way] = np.mean([row["recall"] for row in by_class.values()])
    assert recalls["natural"] + 0.05 < recalls["inverse_sqrt"]
    assert recalls["natural"] + 0.05 < recalls["logit_adjustment"]


def test_features_may_be_learned_as_they_are(tmp_path: Path) -> None:
    found = fitted(tmp_path, standardise=False)
    assert not found.head.mean.any() and (found.head.scale == 1).all()
    assert found.metrics["accuracy"] > 0.9
    features, _ = clouds(30, seed=7)
    kernels, biases = found.head.kernels, found.head.biases
    hidden = np.maximum(features.astype(np.float64) @ kernels[0] + biases[0], 0)
    assert found.head.logits(features) == pytest.approx(hidden @ kernels[1] + biases[1], abs=1e-6)


def test_no_hidden_layer_is_a_linear_head(tmp_path: Path) -> None:
    found = fitted(tmp_path, layers=(), recipe=replace(QUICK, epochs=2))
    assert [kernel.shape for kernel in found.head.kernels] == [(6, 3)]


def test_fewer_rows_than_a_batch_are_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"24 training rows are fewer than one batch of 64; lower mlp\.batch_size"):
        fitted(tmp_path, *clouds(30), recipe=replace(QUICK, batch_size=64))


def test_examples_of_the_loop_may_be_anything_that_gives_rows() -> None:
    given = Examples(Rows(clouds(9)[0]), {}, {})  # type: ignore[arg-type]
    assert len(given) == 9
