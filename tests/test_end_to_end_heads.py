"""Training a head and labelling with it; a head of the user's own; both refuse features they were not made for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pictures
import pytest
import runs

from transforms.formats.feature_cache import FeatureCache


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("bench")
    return runs.Bench(place, runs.make_head(place / "head"))


def easy_faces(count: int, *, first: int = 0) -> dict[str, bytes]:
    """Returns PNG files whose class shows: dark, grey or light squares."""
    files = {}
    for number in range(first, first + count):
        shade = runs.pattern(number, 24) // 5 + 90 * (number % 3)
        files[f"{runs.CLASSES[number % 3]}/{number:05d}.png"] = pictures.png(shade.astype(np.uint8))
    return files


def train(bench: runs.Bench, source: Path, output: str, *more: str) -> runs.Ended:
    given = ["--input", str(source), "--output", str(bench.path / output), "--set", *bench.settings, *more]
    return runs.run("train-head", "--runner=DirectRunner", *given, output=bench.path / output)


@pytest.fixture(scope="module")
def trained(bench: runs.Bench) -> runs.Ended:
    source = pictures.write_tar(bench.path / "train.tar", easy_faces(120))
    return train(bench, source, "trained", "--holdout", "0.25").done()


def test_a_trained_head_labels_what_it_has_not_seen(bench: runs.Bench, trained: runs.Ended) -> None:
    assert "held-out accuracy" in trained.out
    about = json.loads((trained.output / "head.json").read_text())
    assert about["classes"] == list(runs.CLASSES)
    assert about["features_fingerprint"] == runs.fingerprint_of_space(bench.settings)

    unseen = pictures.write_folder(bench.path / "unseen", easy_faces(60, first=1000))
    ended = bench.label(unseen, "labelled", "--head", str(trained.output)).done()

    accuracy = ended.record["accuracy"]
    assert accuracy["known"] == 60
    assert accuracy["correct"] >= 48
    assert ended.record["head"]["classes"] == list(runs.CLASSES)


def test_training_again_gives_the_same_head_from_the_cache(bench: runs.Bench, trained: runs.Ended) -> None:
    cache = ("--cache", str(trained.output / "cache"))
    more = ("read.block_images=16", "features.batch_size=8")
    again = train(bench, bench.path / "train.tar", "again", *more, "--holdout", "0.25", *cache).done()
    assert (again.output / "head.npz").read_bytes() == (trained.output / "head.npz").read_bytes()
    assert not list((again.output).rglob("*.h5"))


def test_training_fills_a_cache_that_labelling_uses(bench: runs.Bench, trained: runs.Ended) -> None:
    cache = ("--cache", str(trained.output / "cache"))
    ended = bench.label(bench.path / "train.tar", "known", "--head", str(trained.output), *cache).done()
    assert ended.record["cache"] == {"hits": 120, "misses": 0, "damaged": 0}


def test_images_without_classes_cannot_be_trained_on(bench: runs.Bench) -> None:
    flat = {name.replace("/", "_"): data for name, data in easy_faces(6).items()}
    source = pictures.write_folder(bench.path / "flat", flat)
    refused = train(bench, source, "no_labels")
    assert refused.status == 2
    assert "labels come from class folders" in refused.line


def test_a_trained_head_refuses_other_features(bench: runs.Bench, trained: runs.Ended) -> None:
    refused = bench.label(bench.path / "train.tar", "refused", "--head", str(trained.output), "features.pooling=multi")
    assert refused.status == 2
    assert runs.fingerprint_of_space(bench.settings)[:16] in refused.line
    assert "pooling: head avg, here multi" in refused.line
    assert not refused.output.exists()


def test_a_keras_head_of_the_users_own(bench: runs.Bench) -> None:
    import keras

    source = pictures.write_folder(bench.path / "faces", runs.faces(20))
    keras.utils.set_random_seed(3)
    own = keras.Sequential([keras.Input((256,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    folder = bench.path / "own"
    folder.mkdir()
    own.save(folder / "own.keras")
    about = {"classes": ["smiling", "other"], "features_fingerprint": runs.fingerprint_of_space(bench.settings)}
    (folder / "head.json").write_text(json.dumps(about))

    ended = bench.label(source, "own_out", "--head", str(folder / "own.keras")).done()

    cache = FeatureCache.open(ended.output / "cache")
    expected = dict(zip(cache.face_ids, own(cache.features.astype(np.float32)).numpy(), strict=True))
    rows = runs.predictions(ended.output)
    assert len(rows) == 20
    for row in rows:
        smiling, other = expected[row["image_id"]]
        assert row["p_smiling"] == pytest.approx(smiling, abs=2e-6)
        assert row["p_other"] == pytest.approx(other, abs=2e-6)
        assert row["label"] == ("smiling" if smiling > other else "other")
        assert row["label_index"] == ["other", "smiling"].index(row["label"])

    cut = bench.label(source, "own_cut", "--head", str(folder / "own.keras"), "features.batch_size=8").done()
    assert runs.results(cut.output) == runs.results(ended.output)
    refused = bench.label(source, "own_refused", "--head", str(folder), "features.seed=1")
    assert refused.status == 2
    assert about["features_fingerprint"][:16] in refused.line


def test_a_damaged_head_is_refused(bench: runs.Bench, trained: runs.Ended) -> None:
    damaged = bench.path / "damaged"
    damaged.mkdir()
    (damaged / "head.json").write_bytes((trained.output / "head.json").read_bytes())
    data = bytearray((trained.output / "head.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / "head.npz").write_bytes(data)
    refused = bench.label(bench.path / "train.tar", "damaged_out", "--head", str(damaged))
    assert refused.status == 2
    assert "head.npz is damaged" in refused.line
