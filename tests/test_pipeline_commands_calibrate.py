"""`calibrate`: a temperature fitted on labelled images, written as a head that labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pictures
import pytest
import runs

from models.heads.outputs import softmax
from models.heads.registry import load_head
from models.training.calibration import calibrate


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("calibrate")
    pictures.write_folder(place / "photos", runs.faces(120))
    return runs.Bench(place, runs.make_head(place / "head"))


def calibrated(bench: runs.Bench, output: str, *more: str, source: str = "photos") -> runs.Ended:
    given = ["--input", str(bench.path / source), "--output", str(bench.path / output), "--head", str(bench.head)]
    arguments = ["calibrate", "--runner=DirectRunner", *given, "--set", *bench.settings, *more]
    return runs.run(*arguments, output=bench.path / output)


@pytest.fixture(scope="module")
def done(bench: runs.Bench) -> runs.Ended:
    return calibrated(bench, "out").done()


def test_the_copy_differs_by_its_temperature_alone(bench: runs.Bench, done: runs.Ended) -> None:
    old, new = load_head(bench.head), load_head(done.output)
    about = json.loads((done.output / "calibration.json").read_text())
    assert (done.output / "head.npz").read_bytes() == (bench.head / "head.npz").read_bytes()
    assert new.temperature == about["temperature"] != old.temperature == about["temperature_before"]
    assert len(about["temperature_by_fold"]) == 5
    assert about["nll"]["after"]["value"] < about["nll"]["before"]["value"]  # a head of random numbers is too sure
    for name in ("ece", "nll"):
        assert all(v["low"] <= v["high"] for v in about[name].values())
    assert sorted(path.name for path in done.output.iterdir()) == [
        *(".lock", "cache", "calibration.json", "command.json", "head.json", "head.npz"),
    ]


def test_it_labels_with_the_same_labels_and_other_probabilities(bench: runs.Bench, done: runs.Ended) -> None:
    cache = ("--cache", str(done.output / "cache"))
    source = bench.path / "photos"
    before = runs.predictions(bench.label(source, "before", *cache).done().output)
    ended = bench.label(source, "after", "--head", str(done.output), *cache).done()
    after = runs.predictions(ended.output)
    assert [row["label"] for row in before] == [row["label"] for row in after]
    assert [row["confidence"] for row in before] != [row["confidence"] for row in after]
    assert ended.record["cache"]["computed"] == 0


@pytest.mark.parametrize(
    "more, status, line",
    [
        ((), 3, "calibrate needs at least 100 labelled images with a face, --input has 6"),
        (("--rename-classes", "sad="), 3, "calibrate needs at least 100 labelled images with a face, --input has 4"),
        (("--rename-classes", "sad=blue"), 2, "--input has the label blue, which is not a class of the head"),
    ],
)
def test_too_few_images_and_strange_labels_are_refused(
    bench: runs.Bench, tmp_path: Path, more: tuple[str, ...], status: int, line: str
) -> None:
    pictures.write_folder(bench.path / "few", runs.faces(6))
    ended = calibrated(bench, "refused", *more, "--overwrite", source="few")
    assert ended.status == status
    assert ended.err.splitlines()[-1].startswith(f"pipeline: error: {line}")
    assert not (bench.path / "refused" / "head.json").exists()


def test_the_head_itself_is_not_overwritten(bench: runs.Bench) -> None:
    refused = calibrated(bench, "head")
    assert (refused.status, refused.line.partition(" is ")[2]) == (2, "the head itself; give another folder")


def test_the_factor_undoes_what_made_logits_too_large() -> None:
    draw = np.random.default_rng(0)
    right = draw.normal(0, 1.5, (4000, 3))
    y = np.asarray([draw.choice(3, p=row) for row in softmax(right)])
    found = calibrate(3 * right, y, np.arange(4000), folds=4, seed=0)
    assert found.factor == pytest.approx(3, rel=0.1)
    assert np.allclose(found.by_fold, 3, rtol=0.15)
    ece = found.metrics["ece"]
    assert ece["after"]["value"] < 0.03 < 0.1 < ece["before"]["value"]
    assert ece["difference"]["high"] < 0


def test_copies_of_an_image_stay_in_one_fold() -> None:
    with pytest.raises(ValueError, match="3 folds need as many different images, there are 2"):
        calibrate(np.zeros((6, 2)), np.zeros(6, int), np.array([0, 0, 0, 1, 1, 1]), folds=3, seed=0)
