"""`render`, `label --render` and `export`: what may be typed, what is written, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pictures
import pytest
import runs

from pipeline.commands.export import FORMATS
from transforms.formats.exports.registry import EXPORTS


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    """A run of 12 photos and a broken one, each a face."""
    place = tmp_path_factory.mktemp("bench")
    pictures.write_folder(place / "in", {**runs.faces(12), "happy/broken.png": b"no image"})
    bench = runs.Bench(place, runs.make_head(place / "head"), (*runs.SMALL, "write.no_face_label=sad"))
    bench.label(place / "in", "run", "--render", "4").done()
    return bench


def pipeline(bench: runs.Bench, command: str, *arguments: str, run: str = "run") -> runs.Ended:
    return runs.run(command, str(bench.path / run), *arguments, output=bench.path / "pictures")


def index_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "index.csv").read_bytes().decode("utf-8-sig"), newline="")))


def test_label_renders_a_sample_at_its_end(bench: runs.Bench) -> None:
    folder = bench.path / "run" / "rendered"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 6 and names[-2:] == ["index.csv", "sheet-0001.jpg"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = bench.label(bench.path / "in", "run", "--render", "4").done()
    assert "already finished" in again.out and "rendered: 4 photos and 1 contact sheet" in again.out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    bench.label(bench.path / "in", "run", "--render", "2").done()
    assert len(list(folder.iterdir())) == 4  # those of before are gone


def test_pictures_of_a_run_go_with_it(bench: runs.Bench, tmp_path: Path) -> None:
    shutil.copytree(bench.path / "run", tmp_path / "run")
    folder = tmp_path / "run" / "rendered"
    (folder / "mine.jpg").write_bytes(b"mine")
    arguments = bench.arguments(bench.path / "in", "run", "--overwrite")
    arguments[arguments.index("--output") + 1] = str(tmp_path / "run")
    refused = runs.run(*arguments, output=tmp_path / "run")
    assert refused.status == 2 and "rendered/mine.jpg is where results are written" in refused.line
    (folder / "mine.jpg").unlink()
    runs.run(*arguments, output=tmp_path / "run").done()
    assert not folder.exists()


def test_render_writes_what_it_says(bench: runs.Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = pipeline(bench, "render", "--output", str(out), "--sample", "5", "--crops", "--sheets").done()
    assert ended.out == f"5 photos of 12 that match, 5 faces, 1 contact sheet in {out}\n"
    rows = index_of(out)
    assert [row["kind"] for row in rows].count("photo") == 5 and len(rows) == 10
    assert all((out / row["file"]).is_file() for row in rows)
    ended = pipeline(bench, "render", "--output", str(out), "--format", "png", "--quiet").done()
    assert ended.out == "" and {path.suffix for path in out.iterdir()} == {".png", ".csv", ""}  # the lock has none
    assert len(index_of(out)) == 12


def test_render_by_label_and_by_id(bench: runs.Bench, tmp_path: Path) -> None:
    labels = {row["image_id"]: row["label"] for row in runs.predictions(bench.path / "run")}
    wanted = sorted(set(labels.values()))[0]
    pipeline(bench, "render", "--output", str(tmp_path / "a"), "--label", wanted).done()
    assert {row["image_id"] for row in index_of(tmp_path / "a")} == {
        i for i, label in labels.items() if label == wanted
    }
    first, second, *_ = labels
    (tmp_path / "ids.txt").write_text(f"{first}\r\n{second}\nhappy/broken.png\nnowhere.png\n")
    ended = pipeline(bench, "render", "--output", str(tmp_path / "b"), "--ids", str(tmp_path / "ids.txt")).done()
    assert {row["image_id"] for row in index_of(tmp_path / "b")} == {first, second}
    assert "without a picture: 1 of --ids" in ended.out
    assert "not in the run: 1 of --ids, such as 'nowhere.png'" in ended.out
    index = str(tmp_path / "b" / "index.csv")  # an index names images too
    pipeline(bench, "render", "--output", str(tmp_path / "c"), "--ids", index).done()
    assert index_of(tmp_path / "c") == index_of(tmp_path / "b")


def test_photos_that_are_gone_are_counted_and_none_is_an_error(bench: runs.Bench, tmp_path: Path) -> None:
    shutil.copytree(bench.path / "in", tmp_path / "in")
    moved = ("--images", str(tmp_path / "in"))
    (tmp_path / "in" / "happy" / "00000.png").unlink()
    ended = pipeline(bench, "render", "--output", str(tmp_path / "out"), *moved).done()
    assert "11 photos in" in ended.out and "1 photo could not be read again; give --images" in ended.out
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    for path in (tmp_path / "in").rglob("*.png"):
        path.write_bytes(pictures.png(pictures.plain(9, 9)))
    ended = pipeline(bench, "render", "--output", str(tmp_path / "out"), *moved)
    assert ended.status == 3 and "none of 12 photos could be read again" in ended.line
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_a_run_whose_inputs_are_gone(bench: runs.Bench, tmp_path: Path) -> None:
    shutil.copytree(bench.path / "run", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "inputs": [str(tmp_path / "nowhere")]}))
    ended = runs.run("render", str(tmp_path / "run"), "--output", str(tmp_path / "out"), output=tmp_path)
    assert ended.status == 3 and "the run's inputs cannot be found" in ended.line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "0"], "'0' is not a whole number of at least 1"),
        (["--label", "hapy"], "--label hapy is not a label of this run; nearest is happy"),
        (["--ids", "{tmp}/none.txt"], "No such file or directory; give a readable file"),
        (["--ids", "{tmp}/empty.txt"], "contains no ids"),
        (["--ids", "{tmp}/other.txt"], "none of its 1 ids, such as 'x.png', is in the run"),
        (["--ids", "{tmp}/other.txt", "--sample", "3"], "--ids names the photos; drop --sample"),
        (["--margin", "0.2"], "give both, or drop --margin"),
        (["--crops", "--margin", "7"], "'7' is not a share from 0 to 2"),
        (["--format", "jpg"], "'jpg' is not one of jpeg, png; nearest is jpeg"),
        (["--size", "9"], "not a number of pixels from 64"),
        (["--images", "{tmp}/nowhere"], "--images"),
        (["--output", "{run}/images/mine"], "is among the results of"),
        (["--output", "{run}"], "lies there, and no rendering wrote it"),
        (["--output", "s3://bucket/pictures"], "is not a local path"),
        (["--output", "{tmp}/mine"], "notes.txt lies there, and no rendering wrote it; give an empty folder"),
        (["--output", "{tmp}/empty.txt"], "is a file; give a folder"),
    ],
)
def test_what_render_refuses(bench: runs.Bench, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.txt").write_text("x.png\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    run = bench.path / "run"
    given = [argument.format(tmp=tmp_path, run=run) for argument in arguments]
    output = [] if "--output" in given else ["--output", str(tmp_path / "out")]
    before = runs.tree(run), runs.tree(tmp_path)
    ended = pipeline(bench, "render", *given, *output)
    assert ended.status == 2 and message in ended.line
    assert runs.tree(run) == before[0]
    after = {name: stat for name, stat in runs.tree(tmp_path).items() if name not in ("out", "out/.lock")}
    assert after == before[1]


def test_render_of_no_run(tmp_path: Path) -> None:
    ended = runs.run("render", str(tmp_path), "--output", str(tmp_path / "out"), output=tmp_path)
    assert ended.status == 2 and "has no run.json" in ended.line


# --- export -----------------------------------------------------------------------------------------------------------


def test_the_command_offers_every_format() -> None:
    assert tuple(EXPORTS) == FORMATS


@pytest.mark.parametrize("form", FORMATS)
def test_export_writes_and_says_what(bench: runs.Bench, form: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    ended = pipeline(bench, "export", "--format", form, "--output", str(path)).done()
    assert ended.out.startswith(f"12 faces of {13 if form == 'megadetector' else 12} images in {path}\n")
    assert ("1 images are not included" in ended.out) == (form != "megadetector")
    again = pipeline(bench, "export", "--format", form, "--output", str(path))
    if EXPORTS[form].names:
        assert again.status == 0  # a folder of ours is replaced
        (path / "mine.txt").write_text("mine")
        refused = pipeline(bench, "export", "--format", form, "--output", str(path))
        assert refused.status == 2 and "contains mine.txt, which no export wrote" in refused.line
    else:
        assert again.status == 2 and "already exists; give another name, or --overwrite" in again.line
        pipeline(bench, "export", "--format", form, "--output", str(path), "--overwrite").done()


def test_files_that_were_edited_are_not_replaced(bench: runs.Bench, tmp_path: Path) -> None:
    pipeline(bench, "export", "--format", "labelme", "--output", str(tmp_path)).done()
    path = next(tmp_path.glob("*.json"))
    edited = json.loads(path.read_text())
    made_by = edited.pop("made_by")
    path.write_text(json.dumps({**edited, "made_by": made_by}, indent=2))  # as labelme saves it: other keys come last
    refused = pipeline(bench, "export", "--format", "labelme", "--output", str(tmp_path))
    assert refused.status == 2 and f"contains {path.name}, which no export wrote" in refused.line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.csv"], "export needs --format, one of csv, coco"),
        (["--format", "cocoa", "--output", "x"], "nearest is coco"),
        (["--format", "csv"], "export needs --output"),
        (["--format", "csv", "--output", "{tmp}"], "is a folder, but csv is one file"),
        (["--format", "csv", "--output", "gs://bucket/faces.csv"], "is not a local path"),
        (["--format", "labelme", "--output", "{tmp}/file"], "is a file, but labelme needs a folder"),
        (["--format", "csv", "--output", "{run}/submission.csv", "--overwrite"], "is among the results of"),
    ],
)
def test_what_export_refuses(bench: runs.Bench, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    given = [argument.format(tmp=tmp_path, run=bench.path / "run") for argument in arguments]
    ended = pipeline(bench, "export", *given)
    assert ended.status == 2 and message in ended.line
    assert (tmp_path / "file").read_text() == "mine"
