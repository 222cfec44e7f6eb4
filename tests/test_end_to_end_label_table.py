"""Labels from a CSV file in place of class folders: for labelling, training a head and training a network."""

from __future__ import annotations

from pathlib import Path

import pictures
import pyarrow.parquet as pq
import pytest
import runs

from pipeline.errors import UsageError
from pipeline.run.identity import given_labels
from pipeline.run.labelled_images import Form, read_labelled
from pipeline.settings.load import load_settings
from transforms.formats.records import Limits


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("bench")
    flat = {f"{number:05d}.png": data for number, data in enumerate(runs.faces(60).values())}
    pictures.write_tar(place / "images.tar", flat)
    rows = [f"{number:05d},48,{runs.CLASSES[number % 3]}" for number in range(50)]
    (place / "train.csv").write_text("\n".join(["Id,width,Expression", *rows, "00050,48,", "other,48,sad"]) + "\n")
    return runs.Bench(place, runs.make_head(place / "head"))


def labels(bench: runs.Bench, name: str = "train.csv") -> str:
    return f"read.labels={bench.path / name}"


def test_labels_of_a_table_are_the_true_labels(bench: runs.Bench) -> None:
    ended = bench.label(bench.path / "images.tar", "labelled", labels(bench)).done()
    found = pq.read_table(ended.output / "images").select(["image_id", "true_label"]).to_pylist()
    given = {row["image_id"].rpartition("/")[2]: row["true_label"] for row in found}
    assert given["00000.png"] == "happy" and given["00002.png"] == "sad" and given["00050.png"] is None
    assert sum(label is not None for label in given.values()) == ended.record["accuracy"]["known"] == 50


def test_another_table_is_another_run_on_the_same_cache(bench: runs.Bench) -> None:
    bench.label(bench.path / "images.tar", "first", labels(bench)).done()
    text = (bench.path / "train.csv").read_text()
    (bench.path / "other.csv").write_text(text.replace("00000,48,happy", "00000,48,sad"))
    refused = bench.label(bench.path / "images.tar", "first", labels(bench, "other.csv"))
    assert refused.status == 2 and "labels" in refused.line
    (bench.path / "moved.csv").write_text(text)
    again = bench.label(bench.path / "images.tar", "first", labels(bench, "moved.csv"))
    assert again.status == 0, "the same table under another name is the same run"


def test_blocks_of_a_streamed_archive_have_them_too(bench: runs.Bench) -> None:
    flat = {f"{number:05d}.png": data for number, data in enumerate(runs.faces(20).values())}
    streamed = pictures.write_tar(bench.path / "images.tar.gz", flat)
    ended = bench.label(streamed, "streamed", labels(bench), "read.block_images=8").done()
    assert ended.record["accuracy"]["known"] == 20


def test_a_head_learns_them(bench: runs.Bench) -> None:
    given = ["--input", str(bench.path / "images.tar"), "--output", str(bench.path / "trained"), "--holdout", "0.25"]
    more = ("--set", *bench.settings, labels(bench))
    ended = runs.run("train-head", "--runner=DirectRunner", *given, *more, output=bench.path / "trained").done()
    assert "held-out accuracy" in ended.out


def test_a_network_learns_them(bench: runs.Bench) -> None:
    table = given_labels(load_settings((), [labels(bench)]))
    read, passed_over = read_labelled([str(bench.path / "images.tar")], Form((16, 16)), Limits(), table=table)
    assert read.labels[:3] == ["happy", "neutral", "sad"] and len(read.labels) == 50 and passed_over == 10


@pytest.mark.parametrize(
    "settings, words",
    [
        (("read.labels=nowhere.csv",), "read.labels: .*nowhere.csv"),
        (("read.labels=train.csv", "read.label_column=mood"), "no column 'mood'.*Id, width, Expression"),
    ],
)
def test_a_table_that_cannot_be_used_stops_before_anything_is_read(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(bench.path)
    with pytest.raises(UsageError, match=words):
        given_labels(load_settings((), settings))
    refused = bench.label(Path("images.tar"), "refused", *settings)
    assert refused.status == 2 and not (bench.path / "refused" / "plan").exists()


def test_a_column_without_a_table_is_refused() -> None:
    with pytest.raises(UsageError, match=r"read\.label_column is a column of read\.labels"):
        load_settings((), ["read.label_column=class"])
