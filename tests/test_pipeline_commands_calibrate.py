"""`calibrate`: a temperature fitted on labelled images, written as a head that labels."""

from __future__ import annotations

import json
import re
import shutil
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


def test_votes_are_fitted_by_their_shares() -> None:
    """The temperature that the votes were drawn with is found again; that of their most frequent class is another."""
    draw = np.random.default_rng(0)
    right = draw.normal(0, 1.5, (4000, 3))
    votes = np.stack([draw.multinomial(10, row) for row in softmax(right)]) / 10
    found = calibrate(3 * right, votes, np.arange(4000), folds=4, seed=0)
    assert found.factor == pytest.approx(3, rel=0.03)
    assert np.allclose(found.by_fold, 3, rtol=0.05)
    assert found.metrics["ece"]["after"]["value"] < 0.03 < 0.1 < found.metrics["ece"]["before"]["value"]
    assert found.metrics["correlation"]["difference"]["low"] > 0
    assert found.metrics["nll"]["difference"]["high"] < 0
    of_leaders = calibrate(3 * right, votes.argmax(axis=1), np.arange(4000), folds=4, seed=0)
    assert of_leaders.factor < 2


def test_hard_votes_are_labels() -> None:
    draw = np.random.default_rng(1)
    logits, y = draw.normal(0, 2, (500, 4)), draw.integers(0, 4, 500)
    of_votes, of_labels = (calibrate(logits, truth, np.arange(500), folds=3, seed=0) for truth in (np.eye(4)[y], y))
    assert of_votes.factor == pytest.approx(of_labels.factor)
    for name in ("ece", "nll"):
        for when in ("before", "after", "difference"):
            assert of_votes.metrics[name][when] == pytest.approx(of_labels.metrics[name][when])


@pytest.fixture(scope="module")
def votes(bench: runs.Bench, done: runs.Ended) -> Path:
    """Votes as the head would give them at 2.5 times its temperature, with a class for what is no face."""
    labelled = bench.label(bench.path / "photos", "for_votes", "--cache", str(done.output / "cache")).done()
    lines = ["image,neutral,glad,sad,NF"]
    for row in runs.predictions(labelled.output):
        shares = np.array([row["p_neutral"], row["p_happy"], row["p_sad"]]) ** (1 / 2.5)
        lines.append(",".join([row["image_id"], *(f"{share:.6f}" for share in 100 * shares / shares.sum()), "0"]))
    lines[1] = lines[1].removesuffix(",0") + ",90"
    path = bench.path / "votes.csv"
    path.write_text("\n".join([*lines, ""]))
    return path


VOTES = ("--rename-classes", "glad=happy", "NF=")


def test_the_command_fits_to_votes(bench: runs.Bench, done: runs.Ended, votes: Path) -> None:
    cache = ("--cache", str(done.output / "cache"))
    ended = calibrated(bench, "voted", "--soft-labels", str(votes), *VOTES, *cache).done()
    about = json.loads((ended.output / "calibration.json").read_text())
    old, new = load_head(bench.head), load_head(ended.output)
    assert new.temperature == old.temperature and not old.intensity_temperature
    assert new.intensity_temperature == pytest.approx(2.5 * old.temperature, rel=1e-3)
    assert (about["rows"], about["soft_labels"], about["accuracy"]) == (119, str(votes), 1)
    assert about["ece"]["after"]["value"] < 1e-3 < about["ece"]["before"]["value"]
    assert about["correlation"]["after"]["value"] == pytest.approx(1, abs=1e-4)
    assert "correlation of intensity and share: 0." in ended.out
    assert "skipped, without votes or led by votes for no class of the head: 1 images" in ended.err


def test_probabilities_too_sharp_to_make_an_intensity_of_are_reported(
    bench: runs.Bench, done: runs.Ended, votes: Path, tmp_path: Path
) -> None:
    """The column is made of six decimals: where most probabilities are 0 or 1, little is left to make shares of."""
    cache, source = ("--cache", str(done.output / "cache")), bench.path / "photos"
    shutil.copytree(bench.head, tmp_path / "head")
    about = json.loads((tmp_path / "head" / "head.json").read_text())
    (tmp_path / "head" / "head.json").write_text(json.dumps({**about, "temperature": 0.001}))
    lines, wanted = ["image,happy,neutral,sad"], []
    for row in runs.predictions(bench.label(source, "mild", *cache).done().output):
        shares = np.array([row["p_happy"], row["p_neutral"], row["p_sad"]]) ** 100  # as by a temperature of 0.01
        wanted.append(shares.max() / shares.sum())
        lines.append(",".join([row["image_id"], *(f"{share:.6f}" for share in 100 * shares / shares.sum())]))
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    given = ("--soft-labels", str(tmp_path / "votes.csv"), "--head", str(tmp_path / "head"), *cache)
    ended = calibrated(bench, "sharp", *given).done()
    found = re.search(r"the intensity of a label differs by up to (0\.\d\d) from what was fitted", ended.err)
    rows = runs.predictions(bench.label(source, "sharply", "--head", str(ended.output), *cache).done().output)
    gap = np.abs([row["intensity"] for row in rows] - np.asarray(wanted)).max()
    assert found and float(found[1]) == pytest.approx(gap, abs=0.02) and gap > 0.1
    blunt = calibrated(bench, "blunt", "--soft-labels", str(votes), *VOTES, *cache).done()
    assert "differs by up to" not in blunt.err


def test_the_intensity_is_a_column_that_evaluate_judges(bench: runs.Bench, done: runs.Ended, votes: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'evaluate'")
    cache = ("--cache", str(done.output / "cache"))
    head = calibrated(bench, "with_intensity", "--soft-labels", str(votes), *VOTES, *cache).done().output
    source = bench.path / "photos"
    plain = runs.predictions(bench.label(source, "plain", *cache).done().output)
    run = bench.label(source, "degrees", "--head", str(head), *cache).done()
    rows = runs.predictions(run.output)
    assert list(rows[0])[9:11] == ["confidence", "intensity"]
    assert [{**row, "intensity": 0} for row in rows] == [{**row, "intensity": 0} for row in plain]
    for row in rows:
        shares = np.array([row["p_happy"], row["p_neutral"], row["p_sad"]]) ** (1 / 2.5)
        assert row["intensity"] == pytest.approx(shares.max() / shares.sum(), abs=1e-3)
    asked = ("--soft-labels", str(votes), *VOTES)
    of_run = runs.run(
        *("evaluate", "--predictions", str(run.output), "--output", str(bench.path / "judged"), *asked),
        output=bench.path / "judged",
    ).done()
    of_input = runs.run(
        *("evaluate", "--runner=DirectRunner", "--input", str(source), "--output", str(bench.path / "judged_again")),
        *("--head", str(head), *asked, *cache, "--set", *bench.settings),
        output=bench.path / "judged_again",
    ).done()
    found, again = (json.loads((e.output / "metrics.json").read_text())["degree"] for e in (of_run, of_input))
    assert found == again and found["of"] == "intensity"
    assert found["calibration_error"]["value"] < 1e-3 and "intensity as a share of the votes" in of_run.out
    page = (of_run.output / "evaluation.html").read_text()
    assert "intensity as a share of the votes" in page and "correlation of a class’s intensity with" in page
    itself = runs.run(
        *("evaluate", "--predictions", str(run.output), "--output", str(bench.path / "itself")),
        *("--soft-labels", str(run.output)),
        output=bench.path / "itself",
    ).done()
    of_itself = json.loads((itself.output / "metrics.json").read_text())["degree"]
    assert of_itself["calibration_error"]["value"] < 1e-5, (
        "the soft labels of a run are the shares that its head states"
    )


@pytest.mark.parametrize(
    "more, line",
    [
        ((), "--soft-labels has the class glad, which the head does not have (happy, neutral, sad); --rename"),
        (("--rename-classes", "glad="), "--soft-labels has the class NF, which the head does not have"),
        (("--rename-classes", "glad=", "NF="), "--soft-labels has no votes for happy, a class of the head"),
        (("--rename-classes", "gleeful=happy"), "--rename-classes gleeful=: --soft-labels has no such class; known: "),
    ],
)
def test_votes_of_other_classes_are_refused(bench: runs.Bench, votes: Path, more: tuple[str, ...], line: str) -> None:
    refused = calibrated(bench, "refused_votes", "--soft-labels", str(votes), *more)
    assert refused.status == 2
    assert refused.line.startswith(line)
    assert not (bench.path / "refused_votes").exists()


def test_copies_of_an_image_stay_in_one_fold() -> None:
    with pytest.raises(ValueError, match="3 folds need as many different images, there are 2"):
        calibrate(np.zeros((6, 2)), np.zeros(6, int), np.array([0, 0, 0, 1, 1, 1]), folds=3, seed=0)
