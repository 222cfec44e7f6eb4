"""Exports of a run, read back by the rules of each format, not by our own code."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import CLASSES, HOSTILE, MadeUp, write_made_up

from transforms.formats.exports.exported import Exported, Image, Run, file_of
from transforms.formats.exports.registry import EXPORTS

ROOT = Path(__file__).parents[1]


def images() -> list[MadeUp]:
    """Returns images with two faces, one that is too small, none; a rejected one and a repeated id; hostile names."""
    return [
        MadeUp("two.jpg", [(10, 20, 100, 120, 1), (300, 40, 8, 9, -1)]),
        MadeUp("none.jpg", size=(100, 50)),
        MadeUp("bad.jpg", size=(0, 0), status="rejected", reason="truncated"),
        MadeUp("z/again.jpg", [(1, 2, 30, 40, 0)], size=(200, 100)),
        MadeUp("z/again.jpg", size=(0, 0), status="duplicate", reason="duplicate_id"),
        *(MadeUp(name, [(1, 2, 30, 40, 0)], size=(200, 100)) for name in HOSTILE),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    record = write_made_up(folder, images())
    return Run(str(folder), CLASSES, record["run_fingerprint"])


def exported(run: Run, form: str, folder: Path) -> Exported:
    """Exports into a folder, or to a file of the format's name in it."""
    return EXPORTS[form].write(run, str(folder if EXPORTS[form].names else folder / form))


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a dict, refusing a key that comes twice, which JSON's readers lose silently."""
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def read_json(path: Path) -> Any:
    path.read_bytes().decode("ascii")
    return json.loads(path.read_bytes(), object_pairs_hook=unique_keys, parse_constant=pytest.fail)


# --- COCO -------------------------------------------------------------------------------------------------------------


def check_coco(coco: dict[str, Any]) -> None:
    """Holds a file to COCO's data format for object detection."""
    assert {"info", "images", "annotations", "categories"} <= coco.keys()
    photos = {image["id"]: image for image in coco["images"]}
    categories = {category["id"]: category["name"] for category in coco["categories"]}
    assert len(photos) == len(coco["images"]) and len(categories) == len(coco["categories"])
    assert len(set(categories.values())) == len(categories)
    assert len({one["id"] for one in coco["annotations"]}) == len(coco["annotations"])
    for image in photos.values():
        assert image["width"] > 0 and image["height"] > 0 and isinstance(image["file_name"], str)
    for one in coco["annotations"]:
        assert one["category_id"] in categories and one["image_id"] in photos and one["iscrowd"] == 0
        assert one["area"] == one["bbox"][2] * one["bbox"][3] > 0


def test_coco_is_what_its_readers_expect(run: Run, tmp_path: Path) -> None:
    reported = exported(run, "coco", tmp_path)
    coco = read_json(tmp_path / "coco")
    check_coco(coco)
    by_id = {image["id"]: image for image in coco["images"]}
    by_name = {image["file_name"]: image for image in coco["images"]}
    assert by_name.keys() == {"two.jpg", "none.jpg", "z/again.jpg", *HOSTILE}
    assert [category["name"] for category in coco["categories"]] == [*CLASSES, "unlabelled_"]
    of_two = [one for one in coco["annotations"] if by_id[one["image_id"]]["file_name"] == "two.jpg"]
    assert [(one["bbox"], one["category_id"]) for one in of_two] == [([10, 20, 100, 120], 2), ([300, 40, 8, 9], 4)]
    assert [one["confidence"] for one in of_two] == [0.9, None] and of_two[1]["score"] == 0.99
    assert (reported.images, reported.faces, reported.left_out, reported.unlabelled) == (23, 23, 2, 1)


# --- MegaDetector -----------------------------------------------------------------------------------------------------


def check_megadetector(results: dict[str, Any]) -> None:
    """Holds a file to MegaDetector's output format, as its own validator does."""
    assert float(results["info"]["format_version"]) >= 1.3 and isinstance(results["info"]["format_version"], str)
    for table in ("detection_categories", "classification_categories"):
        assert all(int(key) >= 0 and name for key, name in results[table].items())
    assert results.keys() == {"info", "detection_categories", "classification_categories", "images"}
    for image in results["images"]:
        if "failure" in image:
            assert isinstance(image["failure"], str) and image["detections"] is None
            continue
        for one in image["detections"]:
            assert one["category"] in results["detection_categories"] and isinstance(one["conf"], float)
            x, y, width, height = one["bbox"]
            assert min(x, y) >= 0 and min(width, height) > 0 and x + width <= 1.000002 and y + height <= 1.000002
            sure = [sureness for _, sureness in one.get("classifications", [])]
            assert sure == sorted(sure, reverse=True)
            assert all(name in results["classification_categories"] for name, _ in one.get("classifications", []))


def test_megadetector_accounts_for_every_image(run: Run, tmp_path: Path) -> None:
    reported = exported(run, "megadetector", tmp_path)
    results = read_json(tmp_path / "megadetector")
    check_megadetector(results)
    found = {image["file"]: image for image in results["images"]}
    assert len(found) == len(results["images"]) == 24 == reported.images
    assert found["bad.jpg"] == {"file": "bad.jpg", "failure": "truncated", "detections": None}
    assert found["none.jpg"]["detections"] == []
    first, second = found["two.jpg"]["detections"]
    assert first["bbox"] == [0.015625, 0.041667, 0.15625, 0.25] and first["conf"] == 1.0
    assert first["classifications"][0] == ["1", 0.9] and "classifications" not in second


# --- labelme ----------------------------------------------------------------------------------------------------------


def test_labelme_has_a_file_for_each_photo(run: Run, tmp_path: Path) -> None:
    reported = exported(run, "labelme", tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 23 == reported.images
    found = {}
    for path in files:
        one = read_json(path)
        assert one.keys() >= {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
        assert one["imageData"] is None
        for shape in one["shapes"]:
            assert shape["shape_type"] == "rectangle" and isinstance(shape["label"], str) and shape["label"]
            (left, top), (right, bottom) = shape["points"]
            assert 0 <= left < right <= one["imageWidth"] and 0 <= top < bottom <= one["imageHeight"]
        found[one["imagePath"]] = one
    assert found.keys() == {"two.jpg", "none.jpg", "z/again.jpg", *HOSTILE}
    assert [shape["label"] for shape in found["two.jpg"]["shapes"]] == ["sad", "unlabelled_"]
    assert found["two.jpg"]["shapes"][0]["points"] == [[10.0, 20.0], [110.0, 140.0]]


# --- FiftyOne ---------------------------------------------------------------------------------------------------------


def test_fiftyone_finds_a_file_for_every_key(run: Run, tmp_path: Path) -> None:
    exported(run, "fiftyone", tmp_path)
    labels, data = read_json(tmp_path / "labels.json"), read_json(tmp_path / "data.json")
    assert labels["made_by"] == data.pop("made_by")  # which tells our files from the user's
    assert labels["labels"].keys() == data.keys()
    assert all("." not in key for key in data)  # FiftyOne cuts an ending off
    by_path = {path: labels["labels"][key] for key, path in data.items()}
    assert by_path.keys() == {f"data/{name}" for name in ("two.jpg", "none.jpg", "z/again.jpg", *HOSTILE)}
    assert [labels["classes"][one["label"]] for one in by_path["data/two.jpg"]] == ["sad", "unlabelled_"]
    assert by_path["data/two.jpg"][0]["bounding_box"] == [0.015625, 0.041667, 0.15625, 0.25]
    assert "confidence" not in by_path["data/two.jpg"][1] and by_path["data/none.jpg"] == []


def test_every_format_with_a_confidence_has_the_intensity_of_a_head_that_states_one(run: Run, tmp_path: Path) -> None:
    write_made_up(tmp_path / "run", images(), intensity_exponent=0.5)
    for name, made in (("with", Run(str(tmp_path / "run"), CLASSES)), ("without", run)):
        for form in ("coco", "labelme", "fiftyone"):
            (tmp_path / name / form).mkdir(parents=True, exist_ok=form != "coco")
            exported(made, form, tmp_path / name / form)
    found = {one["bbox"][0]: one for one in read_json(tmp_path / "with" / "coco" / "coco")["annotations"]}
    assert (found[10]["intensity"], found[300]["intensity"]) == (0.6, None)
    shapes = read_json(next((tmp_path / "with" / "labelme").glob("*-two.json")))["shapes"]
    descriptions = ["confidence 0.900000, intensity 0.600000, detection score 1.000000", "detection score 0.990000"]
    assert [shape["description"] for shape in shapes] == descriptions
    faces = [one for of in read_json(tmp_path / "with" / "fiftyone" / "labels.json")["labels"].values() for one in of]
    assert all(("intensity" in one["attributes"]) == ("confidence" in one) for one in faces)
    assert 0.6 in [one["attributes"].get("intensity") for one in faces]
    written = [path for path in (tmp_path / "without").rglob("*") if path.is_file()]
    assert written and not any(b"intensity" in path.read_bytes() for path in written)


@pytest.mark.parametrize(
    ("image_id", "source", "path"),
    [
        ("a/b.jpg", "/photos/a/b.jpg", (True, "/photos/a/b.jpg")),
        ("trip/a/b.jpg", "/photos/a/b.jpg", (True, "/photos/a/b.jpg")),
        ("a.tar/b.jpg", "/photos/a.tar", (False, "a.tar/b.jpg")),
        ("b.jpg", "gs://bucket/b.jpg", (True, "gs://bucket/b.jpg")),
    ],
)
def test_a_loose_file_has_a_path_and_a_member_its_id(image_id: str, source: str, path: tuple[bool, str]) -> None:
    assert file_of(Image(0, image_id, source, 1, 1, "no_face", None, None, ())) == path


# --- CSV --------------------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> list[dict[str, str]]:
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_csv_has_a_row_for_every_face(run: Run, tmp_path: Path) -> None:
    reported = exported(run, "csv", tmp_path)
    rows = read_csv(tmp_path / "csv")
    assert list(rows[0]) == [
        *(
            "image_id",
            "face_index",
            "x",
            "y",
            "width",
            "height",
            "detection_score",
            "label",
            "label_index",
            "confidence",
        ),
        *("p_happy", "p_sad", "p_unlabelled", "source", "image_width", "image_height", "true_label"),
    ]
    of_two = [row for row in rows if row["image_id"] == "two.jpg"]
    assert [(row["x"], row["label"], row["p_sad"], row["image_width"]) for row in of_two] == [
        ("10", "sad", "0.9", "640"),
        ("300", "", "", "640"),
    ]
    assert (reported.images, reported.faces, reported.left_out, reported.unlabelled) == (22, 23, 3, 1)
    assert {row["image_id"].removeprefix("'") for row in rows} == {"two.jpg", "z/again.jpg", *HOSTILE}


def test_csv_holds_no_formula_unless_asked(run: Run, tmp_path: Path) -> None:
    exported(run, "csv", tmp_path)
    ids = {row["image_id"] for row in read_csv(tmp_path / "csv")}
    assert {"'=cmd|' /C calc'!A0.png", "'@SUM(1+1).png", "'-rf"} <= ids
    assert not any(name[0] in "=+-@\t\r\n" for name in ids)
    EXPORTS["csv"].write(Run(run.folder, run.classes, exact=True), str(tmp_path / "exact"))
    assert {row["image_id"] for row in read_csv(tmp_path / "exact")} == {"two.jpg", "z/again.jpg", *HOSTILE}


def test_csv_brings_the_columns_of_exif_where_the_run_has_them(tmp_path: Path) -> None:
    more = {"taken_at": "2024-05-01T10:00:00", "latitude": 1.5}
    write_made_up(tmp_path, [MadeUp("a.jpg", [(1, 2, 3, 4, 0)], more=more)])
    EXPORTS["csv"].write(Run(str(tmp_path), CLASSES), str(tmp_path / "out.csv"))
    row = read_csv(tmp_path / "out.csv")[0]
    assert (row["taken_at"], row["latitude"]) == ("2024-05-01T10:00:00", "1.5")


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", EXPORTS)
def test_a_run_without_a_face_is_exported(form: str, tmp_path: Path) -> None:
    write_made_up(tmp_path / "run", [MadeUp("none.jpg")])
    reported = EXPORTS[form].write(
        Run(str(tmp_path / "run"), CLASSES), str(tmp_path if EXPORTS[form].names else tmp_path / form)
    )
    assert (reported.faces, reported.images + reported.left_out) == (0, 1)
    for path in tmp_path.glob("*.json"):
        read_json(path)


@pytest.mark.parametrize("form", EXPORTS)
def test_the_same_run_gives_the_same_bytes(form: str, run: Run, tmp_path: Path) -> None:
    def files(name: str) -> dict[str, bytes]:
        (tmp_path / name).mkdir()
        exported(run, form, tmp_path / name)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    assert files("one") == files("two")


PEAK = """
def peak():  # kB; getrusage would tell the parent's, from before exec
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
GROWTH = f"""{PEAK}
import sys
from transforms.formats.exports.exported import Run
from transforms.formats.exports.registry import EXPORTS
small, large, form, out = sys.argv[1:]
EXPORTS[form].write(Run(small, ("class 0000",)), out)
before = peak()
EXPORTS[form].write(Run(large, ("class 0000",)), out)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Runs of 8,192 and 40,960 images."""
    from made_runs import ROWS, write_run

    folder = tmp_path_factory.mktemp("sizes")
    for name, blocks in (("small", 1), ("large", 5)):
        write_run(folder / name, blocks * ROWS, classes=1)
    return str(folder / "small"), str(folder / "large")


@pytest.mark.parametrize("form", ["csv", "coco", "megadetector"])
def test_memory_does_not_grow_with_the_run(form: str, sizes: tuple[str, str], tmp_path: Path) -> None:
    arguments = [*sizes, form, str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", GROWTH, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 12_000  # kB, for 33,000 images and 66,000 faces more: their rows as objects take 60,000


MILLION = f"""{PEAK}
import sys, time
from transforms.formats.exports.exported import Run
from transforms.formats.exports.registry import EXPORTS
folder, form, out = sys.argv[1:]
before = peak()
reported = EXPORTS[form].write(Run(folder, ("class 0000",)), out)
print(form, reported, round(time.process_time()), "s CPU,", peak() // 1024, "MB in all,", end=" ")
print((peak() - before) // 1024, "MB more")
"""


@pytest.mark.slow  # `-m slow` runs it: a million images take a minute to make up
def test_a_million_images_fit_in_memory(tmp_path: Path) -> None:
    from made_runs import write_run

    write_run(tmp_path / "run", 1_000_000, classes=1)
    for form in ("csv", "coco", "megadetector", "fiftyone"):
        out = tmp_path / form
        if EXPORTS[form].names:
            out.mkdir()
        arguments = [sys.executable, "-c", MILLION, str(tmp_path / "run"), form, str(out)]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        size = sum(path.stat().st_size for path in ([out] if out.is_file() else out.iterdir()))
        print(done.stdout.strip(), f"{size / 1e6:.0f} MB written")
        assert int(done.stdout.split(" MB in all")[0].split()[-1]) < 400
