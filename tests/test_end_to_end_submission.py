"""The submission file: checked before it is written, following a sample where one is given, and never half done."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pictures
import pytest
import runs


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture
def bench(tmp_path: Path, head: Path) -> runs.Bench:
    return runs.Bench(tmp_path, head)


def labels(output: Path) -> dict[str, str]:
    """Returns the label of each image's first face by image id."""
    return {row["image_id"]: row["label"] for row in runs.predictions(output) if row["face_index"] == 0}


def test_without_more_it_has_a_line_an_image_and_the_alphabetical_index(bench: runs.Bench) -> None:
    source = pictures.write_folder(bench.path / "in", runs.faces(9))
    ended = bench.label(source).done()
    found = labels(ended.output)
    assert runs.submission(ended.output) == [
        "id,label",
        *(f"{image_id},{runs.CLASSES.index(found[image_id])}" for image_id in sorted(found)),
    ]
    assert len(found) == 9


def test_names_of_columns_values_and_ids_as_set(bench: runs.Bench) -> None:
    source = pictures.write_folder(bench.path / "in", runs.faces(9))
    settings = ("write.id_column=image", "write.label_column=emotion", "write.label_values=name")
    shorter = ("write.drop_folder=true", "write.drop_extension=true")
    ended = bench.label(source, "out", *settings, *shorter).done()
    found = labels(ended.output)
    lines = runs.submission(ended.output)
    assert lines[0] == "image,emotion"
    assert sorted(lines[1:]) == sorted(f"{Path(image_id).stem},{label}" for image_id, label in found.items())


def test_a_sample_fixes_ids_order_and_columns(bench: runs.Bench) -> None:
    extra = {"sad/extra.png": pictures.png(pictures.gradient(30, 30))}
    source = pictures.write_folder(bench.path / "in", {**runs.faces(8), **extra})
    stems = [f"{number:05d}" for number in (5, 3, 7, 0, 1, 2, 6, 4)]
    sample = bench.path / "sample.csv"
    sample.write_text("Usage,emotion,name\n" + "".join(f"Public,happy,{stem}\n" for stem in [*stems, "missing"]))

    settings = ("write.no_face_label=neutral", "write.id_column=name", "write.label_column=emotion")
    ended = bench.label(source, "out", *settings, "--sample-submission", str(sample)).done()

    found = {Path(image_id).stem: label for image_id, label in labels(ended.output).items()}
    with (ended.output / "submission.csv").open(newline="") as file:
        header, *table = csv.reader(file)
    assert header == ["Usage", "emotion", "name"]
    assert table == [["Public", found.get(stem, "neutral"), stem] for stem in [*stems, "missing"]]
    written = ended.record["submission"]
    assert written["rows"] == 9
    assert (written["sample"]["missing"], written["sample"]["missing_names"]) == (1, ["missing"])
    assert (written["sample"]["unexpected"], written["sample"]["unexpected_names"]) == (1, ["sad/extra.png"])
    assert "1 ids of the sample submission have no image: 'missing'" in ended.out
    assert "1 images are not in the sample submission" in ended.out


@pytest.mark.parametrize(
    "name, write, when",
    [
        ("in.tar", pictures.write_tar, "before anything is computed"),
        ("in.parquet", pictures.write_parquet, "when ids are known"),
    ],
)
def test_a_sample_of_other_images_is_refused(
    name: str, write: Callable[[Path, Mapping[str, bytes]], Path], when: str, bench: runs.Bench
) -> None:
    source = write(bench.path / name, runs.faces(4))
    sample = bench.path / "sample.csv"
    sample.write_text("id,label\nanother,0\n")
    ended = bench.label(source, "out", "--sample-submission", str(sample))
    assert ended.status == 2
    assert "'another'" in ended.line
    assert not (ended.output / "submission.csv").exists()
    assert bool(runs.parts(ended.output)) == (when == "when ids are known")


def test_another_sample_is_another_run(bench: runs.Bench) -> None:
    source = pictures.write_folder(bench.path / "in", runs.faces(4))
    bench.label(source).done()
    sample = bench.path / "sample.csv"
    sample.write_text("id,label\n00002,0\n00001,0\n")

    refused = bench.label(source, "out", "--sample-submission", str(sample))
    assert refused.status == 2
    assert "sample_submission" in refused.line

    ended = bench.label(source, "out", "--sample-submission", str(sample), "--overwrite").done()
    assert [line.split(",")[0] for line in runs.submission(ended.output)] == ["id", "00002", "00001"]
    assert ended.record["cache"]["computed"] == 0
    assert "nothing has changed since" in bench.label(source, "out", "--sample-submission", str(sample)).done().out


def test_ids_that_collide_are_named_before_anything_is_computed(bench: runs.Bench) -> None:
    picture = pictures.png(pictures.gradient(30, 30))
    source = pictures.write_folder(bench.path / "in", {"a/1.png": picture, "b/1.png": picture})
    refused = bench.label(source, "out", "write.drop_folder=true")
    assert refused.status == 2
    assert "a/1.png" in refused.line
    assert "b/1.png" in refused.line
    assert not runs.parts(refused.output)


def test_images_without_a_label_are_left_out_of_the_submission_and_named(bench: runs.Bench) -> None:
    blank = {f"blank/{side}.png": pictures.png(pictures.plain(side, side, 9)) for side in (40, 50)}
    portrait = {"face.png": pictures.png(pictures.portrait())}
    source = pictures.write_folder(bench.path / "in", {**portrait, **blank, "bad.png": b"no image"})
    ended = bench.label(source, "out", "faces.detector=haar").done()
    assert [line.split(",")[0] for line in runs.submission(ended.output)] == ["id", "face.png"]
    assert (ended.record["submission"]["rows"], ended.record["submission"]["left_out"]) == (1, 3)
    assert "3 images have no label and no row in submission.csv (bad.png, blank/40.png, blank/50.png)" in ended.out
    assert len(runs.images(ended.output)) == 4


def test_images_of_a_sample_without_a_label_end_the_run_with_the_tables(bench: runs.Bench) -> None:
    blank = {f"blank/{side}.png": pictures.png(pictures.plain(side, side, 9)) for side in (40, 50)}
    source = pictures.write_folder(bench.path / "in", {**runs.faces(20), **blank, "bad.png": b"no image"})
    rows = [f"{name},0" for name in [*runs.faces(20), *blank, "bad.png"]]
    (bench.path / "sample.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    settings = ("--sample-submission", str(bench.path / "sample.csv"), "faces.detector=haar", "read.block_images=8")

    stopped = bench.label(source, "out", *settings)

    assert stopped.status == 3
    assert "23 images have no label" in stopped.line
    assert "--set write.no_face_label=CLASS" in stopped.line
    assert len(runs.images(stopped.output)) == 23
    assert not (stopped.output / "submission.csv").exists()
    assert not (stopped.output / "run.json").exists()
    standing, known = runs.parts(stopped.output), runs.segments(stopped.output / "cache")

    finished = bench.label(source, "out", *settings, "write.no_face_label=neutral").done()

    assert finished.record["resume"] == {"blocks_reused": len(standing), "blocks_redone": 0}
    assert runs.segments(finished.output / "cache") == known
    assert set(runs.submission(finished.output)[1:]) == {f"{image_id},1" for image_id in runs.images(finished.output)}
    assert finished.record["submission"]["left_out"] == 0
    assert finished.record["counts"]["no_face"] == 22
    assert finished.record["submission"]["without_label"] == 23


@pytest.mark.parametrize("policy", ["largest", "confident", "first"])
def test_of_several_faces_the_stated_one_decides(policy: str, bench: runs.Bench) -> None:
    face = pictures.portrait()
    group = np.zeros((512, 768, 3), np.uint8)
    group[:, :512] = face
    group[256:, 512:] = face[::2, ::2]
    source = pictures.write_folder(bench.path / "in", {"group.png": pictures.png(group)})
    ended = bench.label(
        source, "out", "faces.detector=haar", "faces.haar.min_face_fraction=0.05", f"write.face_policy={policy}"
    ).done()
    faces = runs.predictions(ended.output)
    assert len(faces) >= 2
    picks = {
        "largest": max(faces, key=lambda row: row["width"] * row["height"]),
        "confident": max(faces, key=lambda row: row["confidence"]),
        "first": faces[0],
    }
    assert runs.submission(ended.output)[1] == f"group.png,{picks[policy]['label_index']}"
