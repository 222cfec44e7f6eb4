"""`label-local`: the rows of `label` for a folder, without Beam, as Parquet and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pictures
import pyarrow.parquet as pq
import pytest
import runs
from test_pipeline_api_face_labeler import pictures as photos

from pipeline.actions.label_local import IMAGE_COLUMNS
from transforms.formats.row_table import arrow_schema
from transforms.merge.rows import IMAGE_SCHEMA

SETTINGS = ("features.runtime=onnx", "write.no_face_label=neutral", "write.report=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of several kinds, some that cannot be used, in two folders, one of them twice."""
    files = photos()
    some = {"happy/twice.png": files["a_portrait.png"], "happy/.hidden.png": b"", "happy/notes.txt": b"words"}
    return pictures.write_folder(tmp_path_factory.mktemp("photos"), {**files, **some})


@pytest.fixture(scope="module")
def known(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Ended:
    """What `label` says."""
    return label(folder, tmp_path_factory.mktemp("known") / "out")


def label(folder: Path, output: Path, *settings: str) -> runs.Ended:
    arguments = ["--runner=DirectRunner", "--input", str(folder), "--output", str(output)]
    return runs.run(*arguments, "--set", *SETTINGS, *settings, output=output).done()


def local(folder: Path, output: Path, *more: str) -> runs.Ended:
    return runs.run("label-local", "--input", str(folder), "--output", str(output), *more, output=output)


def table(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_rows_are_those_of_label(folder: Path, known: runs.Ended, tmp_path: Path) -> None:
    ended = local(folder, tmp_path / "out").done()
    assert "10 photos: " in ended.out and "rejected" in ended.out
    assert table(tmp_path / "out" / "predictions.parquet") == runs.predictions(known.output)
    assert table(tmp_path / "out" / "images.parquet") == list(runs.images(known.output).values())


def test_rows_of_another_head_and_of_limits_too(folder: Path, tmp_path: Path) -> None:
    chosen = ["read.max_image_bytes=200000", "head.path=bundled/ferplus", "faces.min_label_px=60"]
    theirs = label(folder, tmp_path / "theirs", *chosen).output
    local(folder, tmp_path / "ours", "--set", *chosen).done()
    assert table(tmp_path / "ours" / "predictions.parquet") == runs.predictions(theirs)
    assert table(tmp_path / "ours" / "images.parquet") == list(runs.images(theirs).values())


def test_rows_of_several_heads_too(folder: Path, tmp_path: Path) -> None:
    """Their columns are those of `label`, and a true label may be a class of any of them."""
    heads = ("--head", "bundled", "votes=bundled/ferplus")
    labelled = pictures.write_folder(tmp_path / "photos", {"happiness/a.png": photos()["a_portrait.png"]})
    for source in (folder, labelled):
        theirs, ours = tmp_path / f"theirs_{source.name}", tmp_path / f"ours_{source.name}"
        arguments = ("--runner=DirectRunner", "--input", str(source), "--output", str(theirs), *heads)
        run = runs.run(*arguments, "--set", *SETTINGS, output=theirs).done()
        local(source, ours, *heads).done()
        assert table(ours / "predictions.parquet") == runs.predictions(run.output)
        assert table(ours / "images.parquet") == list(runs.images(run.output).values())
    assert table(ours / "images.parquet")[0]["true_label"] == "happiness"


def test_csv_holds_the_same(folder: Path, known: runs.Ended, tmp_path: Path) -> None:
    local(folder, tmp_path / "out", "--table", "csv").done()
    with open(tmp_path / "out" / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = runs.predictions(known.output)
    assert list(rows[0]) == list(expected[0])
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in expected] == rows


def test_columns_are_those_of_label() -> None:
    assert arrow_schema(IMAGE_COLUMNS).equals(IMAGE_SCHEMA)


def test_neither_beam_nor_pyarrow_is_imported(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "heavy = {'apache_beam', 'tensorflow', 'keras', 'jax', 'sklearn', 'matplotlib', 'h5py', 'pyarrow'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    arguments = ["label-local", "--input", str(folder), "--output", str(tmp_path / "out"), "--table", "csv"]
    assert "heavy: []" in runs.finish(runs.start(*arguments, script=script), tmp_path).done().out


def test_tables_are_replaced_only_when_asked(folder: Path, tmp_path: Path) -> None:
    local(folder, tmp_path, "--table", "csv").done()
    before = runs.tree(tmp_path)
    refused = local(folder, tmp_path, "--table", "csv")
    assert refused.status == 2 and "predictions.csv already exists" in refused.line
    assert runs.tree(tmp_path) == before
    local(folder, tmp_path, "--table", "csv", "--overwrite").done()


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder"])
def test_what_is_no_folder_of_photos_is_refused(what: str, tmp_path: Path) -> None:
    place = tmp_path / "in"
    if what == "a file":
        place.write_bytes(b"words")
    elif what == "an empty folder":
        place.mkdir()
    refused = local(place, tmp_path / "out")
    assert refused.status == 2
    assert ("holds no photo" if what == "an empty folder" else "is not a folder") in refused.line
