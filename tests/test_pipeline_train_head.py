"""`train-head`: what is kept out of a training, whose labels count, and the table of all kinds."""

from __future__ import annotations

import csv
from pathlib import Path

import pictures
import pytest
import runs

from transforms.formats.feature_cache import FeatureCache


def test_excluded_images_are_known_by_their_bytes_and_cost_no_features(tmp_path: Path) -> None:
    files = runs.faces(60)
    train = pictures.write_tar(tmp_path / "train.tar", files)
    unlabelled = {f"{i}.png": data for i, data in enumerate(list(files.values())[:20])}
    strange = {f"strange_{i}.png": data for i, data in enumerate(runs.faces(5, first=900).values())}
    held_out = pictures.write_tar(tmp_path / "held_out.tar.gz", {**unlabelled, **strange, "text.png": b"no image"})
    output = tmp_path / "head"
    given = ["--input", str(train), "--exclude", str(held_out), "--output", str(output), "--set", *runs.SMALL]
    ended = runs.run("train-head", "--runner=DirectRunner", *given, output=output).done()
    assert "excluded: 26 images, 26 of different bytes" in ended.err
    assert "20 copies of validation or excluded images left out" in ended.err
    assert len(FeatureCache.open(output / "cache")) == 60
    assert not (output / "work" / "excluded").exists()


def head(source: Path, output: Path, *more: str) -> runs.Ended:
    given = ["--input", str(source), "--output", str(output), "--set", *runs.SMALL]
    return runs.run("train-head", "--runner=DirectRunner", *given, *more, output=output)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.write_tar(tmp_path_factory.mktemp("source") / "train.tar", runs.faces(60))


VOTES = "id,happy,neutral,sad,NF\n" + "".join(f"{name},3,2,1,0\n" for name in runs.faces(30))


@pytest.mark.parametrize(
    "text, more, status, said",
    [
        (VOTES, ("--reject", "unknown"), 2, "--reject unknown: --soft-labels have no such class; known: happy"),
        (VOTES, ("--names", "bored"), 2, "--names bored: --soft-labels have no such class"),
        ("id,a,b\nelsewhere.png,1,0\n", (), 2, "--soft-labels knows none of the images, whose ids are like"),
        ("id,a,b\nx.png,1\n", (), 3, "votes.csv, line 2: 2 numbers from 0"),
        (VOTES, (), 3, "no training row has a vote for NF"),
    ],
)
def test_votes_that_do_not_fit_are_refused_in_one_line(
    source: Path, tmp_path: Path, text: str, more: tuple[str, ...], status: int, said: str
) -> None:
    (tmp_path / "votes.csv").write_text(text)
    ended = head(source, tmp_path / "head", "--soft-labels", str(tmp_path / "votes.csv"), "--quiet", *more)
    assert ended.status == status
    assert said in ended.err.splitlines()[-1]
    assert not (tmp_path / "head" / "head.json").exists()


def test_a_path_that_is_no_source_of_votes_is_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    ended = head(source, tmp_path / "head", "--soft-labels", str(tmp_path / "nowhere"))
    assert ended.status == 2
    assert "neither a CSV file nor the folder of a finished run" in ended.line
    assert not (tmp_path / "head").exists()


def test_names_of_votes_leave_the_others_out(source: Path, tmp_path: Path) -> None:
    lines = [f"{name},{number % 3},{(number + 1) % 3},5" for number, name in enumerate(runs.faces(60))]
    (tmp_path / "votes.csv").write_text("\n".join(["id,happy,sad,neutral", *lines]))
    votes = ("--soft-labels", str(tmp_path / "votes.csv"), "--names", "happy", "sad")
    ended = head(source, tmp_path / "head", *votes, "--kind", "ridge").done()
    assert '"classes": [\n  "happy",\n  "sad"\n ]' in (ended.output / "head.json").read_text()


def test_tensorboard_is_for_epochs(source: Path, tmp_path: Path) -> None:
    ended = head(source, tmp_path / "head", "--tensorboard")
    assert ended.status == 2
    assert "give --kind mlp or drop it" in ended.line


def test_the_table_of_all_kinds_has_one_split_and_keeps_no_head(source: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("mlp:\n  layers: [4]\n  epochs: 2\n  batch_size: 8\n")
    ended = head(source, tmp_path / "out", "--compare", str(recipe)).done()
    with open(ended.output / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    features = ["last block"] * 3 + ["all blocks"] * 3 + ["all blocks, mirrored"] * 3
    assert [(row["features"], row["head"]) for row in rows] == list(
        zip(features, ["logistic", "ridge", "tiny"] * 3, strict=True)
    )
    assert {row["width"] for row in rows} == {"256", "480"}
    assert {(row["train"], row["held_out"]) for row in rows} == {("48", "12")}
    assert {row["parameters"] for row in rows if row["head"] == "tiny"} == {str(n * 4 + 4 + 15) for n in (256, 480)}
    assert ended.out.count("\n| ") == len(rows)
    assert sorted(path.name for path in ended.output.iterdir()) == ["cache", "compare.csv"]
    assert len(list((ended.output / "cache").iterdir())) == 3


def test_recipes_of_one_name_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "r.yaml", tmp_path / "a" / "r.yaml"):
        path.write_text("mlp:\n  epochs: 1\n")
    ended = head(source, tmp_path / "out", "--compare", str(tmp_path / "r.yaml"), str(tmp_path / "a" / "r.yaml"))
    assert ended.status == 2
    assert "names of their own" in ended.line
