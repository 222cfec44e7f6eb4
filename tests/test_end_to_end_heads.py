"""Training a head and labelling with it; a head of the user's own; both refuse features they were not made for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pictures
import pytest
import runs

from transforms.formats.cache.feature_cache import FeatureCache


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
    assert about["feature_space"] == runs.fingerprint_of_space(bench.settings)

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
    assert ended.record["cache"] == {"cached": 120, "computed": 0, "damaged": 0}


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


def describe(model: Path, settings: Sequence[str], *classes: str) -> runs.Ended:
    """Writes the head.json of a Keras model."""
    names = classes or ("smiling", "other")
    return runs.run("describe-head", "--head", str(model), "--classes", *names, "--set", *settings, output=model.parent)


def test_a_keras_head_of_the_users_own(bench: runs.Bench) -> None:
    import keras

    source = pictures.write_folder(bench.path / "faces", runs.faces(20))
    keras.utils.set_random_seed(3)
    own = keras.Sequential([keras.Input((384,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    folder = bench.path / "own"
    folder.mkdir()
    own.save(folder / "own.keras")
    described = describe(folder / "own.keras", bench.settings)
    described.done()
    about = json.loads((folder / "head.json").read_text())
    assert about["feature_space"] == runs.fingerprint_of_space(bench.settings)

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
    assert about["feature_space"][:16] in refused.line

    assert "lists 3 classes" in describe(folder / "own.keras", bench.settings, "a", "b", "c").line
    wider = describe(folder / "own.keras", [*bench.settings, "features.pooling=multi"])
    assert "takes features of width 384, not 864" in wider.line
    assert "give a .keras file" in describe(bench.head, bench.settings).line
    assert "cannot be read: No such file" in describe(folder / "gone.keras", bench.settings).line
    assert json.loads((folder / "head.json").read_text()) == about  # what was refused has changed nothing


def test_a_keras_model_beside_another_head_is_not_described(bench: runs.Bench) -> None:
    folder = shutil.copytree(bench.head, bench.path / "both")
    before = (folder / "head.json").read_bytes()
    (folder / "own.keras").write_bytes(b"any")
    refused = describe(folder / "own.keras", bench.settings)
    assert refused.status == 2
    assert "describes another head; move own.keras to a separate folder" in refused.line
    assert (folder / "head.json").read_bytes() == before


DENSE = ("mlp.layers=[16]", "mlp.epochs=12", "mlp.batch_size=16", "mlp.learning_rate=0.01")


@pytest.fixture(scope="module")
def dense(bench: runs.Bench, trained: runs.Ended) -> runs.Ended:
    more = ("--holdout", "0.25", "--kind", "mlp", "--cache", str(trained.output / "cache"))
    return train(bench, bench.path / "train.tar", "dense", *DENSE, *more).done()


def test_dense_layers_label_what_they_have_not_seen(bench: runs.Bench, dense: runs.Ended) -> None:
    about = json.loads((dense.output / "head.json").read_text())
    assert (about["kind"], about["fitted_by"], about["recipe"]["layers"]) == ("mlp", "mlp", [16])
    assert len((dense.output / "history.csv").read_text().splitlines()) == 13
    assert sorted(path.name for path in dense.output.iterdir() if path.suffix in (".json", ".npz", ".csv")) == [
        "command.json", "head.json", "head.npz", "history.csv",
    ]  # fmt: skip
    assert not (dense.output / "work").exists()
    unseen = pictures.write_folder(bench.path / "unseen_by_dense", easy_faces(60, first=1000))
    ended = bench.label(unseen, "labelled_by_dense", "--head", str(dense.output)).done()
    assert ended.record["accuracy"]["known"] == 60
    assert ended.record["accuracy"]["correct"] >= 48


def test_labelling_again_with_dense_layers_decodes_nothing_and_loads_no_engine(
    bench: runs.Bench, trained: runs.Ended, dense: runs.Ended
) -> None:
    script = (
        "import runpy, sys\n"
        "from transforms.formats import decode\n"
        "decode.decode = None\n"  # whoever decodes fails
        "try:\n    runpy.run_module('pipeline', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    print('loaded:', sorted({'tensorflow', 'keras', 'jax'} & set(sys.modules)), file=sys.stderr)\n"
        "    raise\n"
    )
    cache = ("--cache", str(trained.output / "cache"))
    arguments = bench.arguments(bench.path / "train.tar", "again_dense", "--head", str(dense.output), *cache)
    ended = runs.finish(runs.start(*arguments, script=script), bench.path / "again_dense").done()
    assert ended.err.splitlines()[-1] == "loaded: []"
    assert ended.record["cache"] == {"cached": 120, "computed": 0, "damaged": 0}
    cut = bench.label(
        bench.path / "train.tar", "cut_dense", "--head", str(dense.output), *cache, "read.block_images=7"
    ).done()
    assert runs.results(cut.output) == runs.results(ended.output)


def test_a_linear_head_in_place_of_dense_layers_removes_their_curves(
    bench: runs.Bench, trained: runs.Ended, dense: runs.Ended
) -> None:
    cache = ("--cache", str(trained.output / "cache"))
    train(bench, bench.path / "train.tar", "dense_before", *DENSE, "mlp.epochs=1", "--kind", "mlp", *cache).done()
    assert (bench.path / "dense_before" / "history.csv").exists()
    ended = train(bench, bench.path / "train.tar", "dense_before", "--kind", "ridge", "--overwrite", *cache).done()
    assert ended.out.startswith("ridge, alpha ")
    assert not list(ended.output.glob("history.*"))


def votes_file(folder: Path, files: dict[str, bytes]) -> Path:
    """Ten votes an image: nine for its class and one for another, or all for NF where the number ends in 5."""
    lines = ["member,sad,neutral,happy,NF,unknown"]
    for name in files:
        label, number = name.split("/")[0], int(name[-9:-4])
        counts = dict.fromkeys(("sad", "neutral", "happy", "NF", "unknown"), 0)
        if number % 10 == 5:
            counts |= {"NF": 8, "unknown": 2}
        else:
            counts[label] += 9
            counts["unknown"] += 1
        lines.append(",".join([name, *map(str, counts.values())]))
    (folder / "votes.csv").write_text("\n".join(lines) + "\n")
    return folder / "votes.csv"


def test_a_head_by_votes_gives_a_no_label_score_that_labelling_writes(bench: runs.Bench) -> None:
    files = easy_faces(240)
    unlabelled = {f"{name.replace('/', '_')}": data for name, data in files.items()}  # no class folders
    source = pictures.write_tar(bench.path / "voted.tar", unlabelled)
    votes = votes_file(bench.path, files)
    text = votes.read_text().splitlines()
    votes.write_text("\n".join([text[0], *(line.replace("/", "_", 1) for line in text[1:-1])]) + "\n")
    more = ("--soft-labels", str(votes), "--reject", "unknown", "NF")
    trained = train(bench, source, "by_votes", *more).done()
    assert "training: 240 faces" in trained.err
    assert "1 images without votes skipped" in trained.err
    assert "AUC of the reject score" in trained.out
    about = json.loads((trained.output / "head.json").read_text())
    assert (about["classes"], about["reject"]) == (["happy", "neutral", "sad"], ["NF", "unknown"])
    assert about["metrics"]["reject"]["rows"] + about["metrics"]["rows"] == about["split"]["held_out"]

    ended = bench.label(source, "with_score", "--head", str(trained.output)).done()
    assert ended.record["head"]["reject"] == ["NF", "unknown"]
    rows = runs.predictions(ended.output)
    assert list(rows[0])[9:11] == ["confidence", "no_label_score"]
    assert sorted(name for name in rows[0] if name.startswith("p_")) == ["p_happy", "p_neutral", "p_sad"]
    assert all(0 <= row["no_label_score"] <= 1 for row in rows)
    cut = bench.label(source, "with_score_cut", "--head", str(trained.output), "read.block_images=9").done()
    assert runs.results(cut.output) == runs.results(ended.output)
    plain = bench.label(source, "without_score").done()
    assert "no_label_score" not in runs.predictions(plain.output)[0]
    assert "reject" not in plain.record["head"]


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
