"""A head that gives a number: trained on labels that are numbers, judged, and beside a head of classes in one run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pictures
import pytest
import runs

from models.evaluation.numbers import evaluate_numbers, r_squared
from models.heads.registry import load_head
from models.training.fit_numbers import fit_number_head
from models.training.head_data import FitError, Rows

COUNT = 60


def bright(number: int) -> int:
    """Returns what the pictures' brightness follows."""
    return 4 * (number % COUNT)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("numbers")
    for name, first in (("train", 0), ("new", 1000)):
        files = {
            f"{number:05d}.png": pictures.png((runs.pattern(number, 24) // 8 + bright(number) // 2).astype(np.uint8))
            for number in range(first, first + COUNT)
        }
        pictures.write_folder(place / name, files)
        lines = [f"{file},{bright(int(file[:5])) / 10}" for file in files]
        (place / f"{name}.csv").write_text("\n".join(["id,glow", *lines, ""]))
    return runs.Bench(place, runs.make_head(place / "classes"))


def labels(bench: runs.Bench, name: str) -> list[str]:
    return [f"read.labels={bench.path / name}.csv", "read.label_column=glow"]


def trained_by(bench: runs.Bench, output: str, *more: str) -> runs.Ended:
    given = ["--input", str(bench.path / "train"), "--output", str(bench.path / output), "--kind", "number", *more]
    arguments = ["train-head", "--runner=DirectRunner", *given, "--set", *bench.settings, *labels(bench, "train")]
    return runs.run(*arguments, output=bench.path / output)


@pytest.fixture(scope="module")
def trained(bench: runs.Bench) -> runs.Ended:
    return trained_by(bench, "glow", "--folds", "4", "--group-by", r"\d{4}").done()


def test_training_says_how_well_groups_it_has_not_seen_are_predicted(trained: runs.Ended) -> None:
    about = json.loads((trained.output / "head.json").read_text())
    folds = json.loads((trained.output / "folds.json").read_text())
    assert (about["kind"], about["number"], about["classes"]) == ("number", "glow", [])
    assert about["split"]["train"] + about["split"]["held_out"] == COUNT
    assert folds["all_rows"]["rows"] == COUNT
    assert folds["all_rows"]["groups"] == COUNT / 10  # 00000 … 00009 share four digits
    assert folds["all_rows"]["r2"]["value"] > 0.5
    assert "4 folds: R² 0." in trained.out
    assert load_head(trained.output).output.label == "glow"


def test_it_labels_beside_a_head_of_classes_and_decides_the_submission(bench: runs.Bench, trained: runs.Ended) -> None:
    given = ("--head", str(bench.head), str(trained.output), "write.submission_head=glow", "write.label_column=glow")
    ended = bench.label(bench.path / "new", "both", *given).done()
    rows = runs.predictions(ended.output)
    assert list(rows[0])[-1] == "glow_glow"
    table = bench.path / "glow.csv"
    export = ("export", str(ended.output), "--format", "csv", "--head", "glow", "--output", str(table))
    runs.run(*export, output=table).done()
    with table.open(encoding="utf-8-sig") as file:
        written = list(csv.DictReader(file))
    assert list(written[0])[6:9] == ["detection_score", "glow", "source"]
    assert [float(row["glow"]) for row in written] == [row["glow_glow"] for row in rows]
    known = np.asarray([bright(int(row["image_id"][:5])) / 10 for row in rows])
    assert np.corrcoef(known, [row["glow_glow"] for row in rows])[0, 1] > 0.7
    assert runs.submission(ended.output)[1] == f"00000.png,{rows[0]['glow_glow']:.12g}".replace("00000", "01000")
    assert "glow: a number for each face" in ended.out


def test_evaluate_gives_r2_and_a_picture(bench: runs.Bench, trained: runs.Ended) -> None:
    pytest.importorskip("matplotlib")
    judged = bench.path / "judged"
    common = (
        "evaluate",
        "--runner=DirectRunner",
        "--output",
        str(judged),
        "--overwrite",
        "--head",
        str(trained.output),
    )
    inputs = ("--input", str(bench.path / "new"), "--set", *bench.settings, *labels(bench, "new"))
    ended = runs.run(*common, *inputs, output=judged).done()
    found = json.loads((judged / "metrics.json").read_text())
    assert found["r2"]["low"] <= found["r2"]["value"] <= found["r2"]["high"]
    assert (found["rows"], found["evaluated"]["counts"]["evaluated"]) == (COUNT, COUNT)
    assert (judged / "predicted.svg").read_bytes().startswith(b"<?xml")
    assert "mean error" in ended.out

    run = bench.label(bench.path / "new", "alone", "--head", str(trained.output), *labels(bench, "new")).done()
    assert not (run.output / "report.html").exists()  # a page needs classes
    other = bench.path / "judged_run"
    runs.run("evaluate", "--predictions", str(run.output), "--output", str(other), output=other).done()
    again = json.loads((other / "metrics.json").read_text())
    assert {name: again[name] for name in ("r2", "mae")} == {name: found[name] for name in ("r2", "mae")}
    for command in (
        ["report", str(run.output)],
        ["export", str(run.output), "--format", "coco", "--output", str(other)],
        ["render", str(run.output), "--output", str(other)],
        ["compare", *[str(run.output)] * 2, "--output", str(other)],
    ):
        refused = runs.run(*command, output=other)
        assert (refused.status, refused.line.partition(" needs ")[2]) == (
            2, "a head that chooses among classes, but that of this run gives a number",
        )  # fmt: skip
    numbers = bench.path / "numbers.csv"
    export = ["export", str(run.output), "--format", "csv", "--output", str(numbers)]
    assert runs.run(*export, output=numbers).done().out.startswith(f"{COUNT} faces of {COUNT} images")


def test_pictures_follow_the_first_head_of_classes(bench: runs.Bench, trained: runs.Ended) -> None:
    source = pictures.write_folder(bench.path / "few", runs.faces(3))
    heads = ("--head", str(trained.output), str(bench.head), "--render", "3")
    drawn = bench.label(source, "number_first", *heads).done()
    assert "rendered: 3 photos" in drawn.out
    index = (drawn.output / "rendered" / "index.csv").read_text(encoding="utf-8-sig")
    assert len(index.splitlines()) == 4
    refused = bench.label(source, "no_classes", *heads[:2], "--render", "3")
    assert (refused.status, refused.line) == (
        2, "--render draws labels of classes, but no head chooses among classes; drop --render",
    )  # fmt: skip


@pytest.mark.parametrize(
    "more, line",
    [
        (("--classes", "a", "b"), "--classes is for heads of classes; drop it, or another --kind than number"),
        (("--set", "head.imbalance=inverse_sqrt"), "head.imbalance is for heads of classes"),
        (("--set", "read.label_column=x"), "read.label_column=x would name the number like another column"),
    ],
)
def test_what_is_for_classes_is_refused(bench: runs.Bench, more: tuple[str, ...], line: str) -> None:
    (bench.path / "x.csv").write_text("id,x\n00000.png,1\n")
    given = ["--input", str(bench.path / "train"), "--output", str(bench.path / "no"), "--kind", "number"]
    settings = ["--set", *bench.settings, f"read.labels={bench.path / 'x.csv'}"]
    ended = runs.run("train-head", "--runner=DirectRunner", *given, *settings, *more, output=bench.path / "no")
    assert ended.status == 2
    assert ended.line.startswith(line)


@pytest.mark.parametrize("flag, image", [("--input", "00007.png"), ("--validation", "01007.png")])
@pytest.mark.parametrize("label", ["bright", "inf"])
def test_a_label_that_is_no_number_names_its_image(
    bench: runs.Bench, tmp_path: Path, flag: str, image: str, label: str
) -> None:
    lines = [*(bench.path / "train.csv").read_text().split(), *(bench.path / "new.csv").read_text().split()[1:]]
    words = tmp_path / "words.csv"
    words.write_text("\n".join(f"{image},{label}" if line.startswith(image) else line for line in lines))
    given = ["--input", str(bench.path / "train"), "--validation", str(bench.path / "new"), "--kind", "number"]
    settings = ["--set", *bench.settings, f"read.labels={words}", "read.label_column=glow"]
    folders = ["--output", str(tmp_path / "out"), "--cache", str(bench.path / "cache")]
    ended = runs.run("train-head", "--runner=DirectRunner", *given, *folders, *settings, output=tmp_path / "out")
    assert ended.status == 2
    assert ended.err.splitlines()[-1] == (
        f"pipeline: error: {flag}: the label '{label}' of {image} is not a number; give numbers, or another --kind"
    )


def test_metrics_against_their_definitions() -> None:
    draw = np.random.default_rng(3)
    true = draw.normal(5, 2, 500)
    predicted = true + draw.normal(0, 1, 500)
    found = evaluate_numbers(predicted, true, np.arange(500))
    expected = 1 - ((true - predicted) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    assert found["r2"]["value"] == pytest.approx(expected)
    assert found["mae"]["value"] == pytest.approx(np.abs(true - predicted).mean())
    assert found["correlation"]["value"] == pytest.approx(np.corrcoef(true, predicted)[0, 1])
    assert found["r2"]["low"] < expected < found["r2"]["high"]
    assert r_squared(np.full(500, true.mean()), true) == pytest.approx(0)
    assert evaluate_numbers(np.ones(3), np.full(3, 2.0), np.arange(3))["r2"] is None


def test_rows_of_a_group_are_drawn_together() -> None:
    draw = np.random.default_rng(4)
    true, predicted = np.repeat(draw.normal(0, 1, 20), 30), np.repeat(draw.normal(0, 1, 20), 30)
    grouped = np.repeat(np.arange(20), 30)
    wide, narrow = (evaluate_numbers(predicted, true, groups)["mae"] for groups in (grouped, np.arange(600)))
    assert wide["high"] - wide["low"] > 3 * (narrow["high"] - narrow["low"])


def test_the_fit_is_ridge_regression_and_too_few_rows_are_refused() -> None:
    draw = np.random.default_rng(5)
    x = draw.normal(0, 1, (200, 6)).astype(np.float32)
    y = x @ np.array([1, -2, 0, 0, 3, 0.5]) + 4
    fitted = fit_number_head("n", Rows(x), y, np.arange(200))
    assert fitted.alpha == 0.01  # no noise: the weakest
    assert np.abs(fitted.head.answers(x)[:, 0] - y).max() < 0.3
    with pytest.raises(FitError, match="at least 20 different labelled images"):
        fit_number_head("n", Rows(x[:10]), y[:10], np.arange(10))


def test_a_number_selected_by_folds_is_fitted_on_every_row_and_judged_by_the_others() -> None:
    draw = np.random.default_rng(6)
    x = draw.normal(0, 1, (90, 40)).astype(np.float32)
    y = x[:, 0] + draw.normal(0, 1, 90)
    groups = np.repeat(np.arange(30), 3)
    found = fit_number_head("n", Rows(x), y, groups, select_folds=3)
    whole = fit_number_head("n", Rows(x), y, groups, validation=(Rows(x), y, groups), alphas=(found.alpha,))
    assert np.array_equal(found.head.coef, whole.head.coef) and np.array_equal(
        found.head.intercept, whole.head.intercept
    )
    assert (found.head.split["kind"], found.head.split["train"], found.head.metrics["rows"]) == ("folds", 90, 90)
    seen, unseen = whole.head.metrics["mae"]["value"], found.head.metrics["mae"]["value"]
    assert seen < 0.9 * unseen, "40 features of 90 rows are remembered, so figures of rows that were seen flatter"
    chosen = next(row for row in found.sweep if row["alpha"] == found.alpha)
    assert chosen["mse"] == min(row["mse"] for row in found.sweep) and chosen["mae"] == pytest.approx(unseen)
    with pytest.raises(FitError, match="31 parts need a group each: there are 30 groups"):
        fit_number_head("n", Rows(x), y, groups, select_folds=31)
