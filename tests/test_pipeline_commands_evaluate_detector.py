"""`evaluate-detector` as it is typed: on pictures made by code with a detector that takes every image for a face."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pictures
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.report.detection_files import ALWAYS

pytest.importorskip("matplotlib", reason="needs the evaluate extra")
SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "faces" / "samples.tar"

BOXES = """image,x,y,w,h,occlusion
whole.png,0,0,40,40,none
part.png,0,0,10,12,none
masked.png,0,0,40,40,mask
nobody.png,,,,,
broken.png,1,1,20,20,none
away.png,1,1,20,20,none
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two good faces, one masked, one image without, one broken, one that the table does not name."""
    good = pictures.png(pictures.plain(40, 40))
    names = ("whole", "part", "masked", "nobody", "stranger")
    files = {f"{name}.png": pictures.png(pictures.plain(40, 40, (60 * i, 9, 9))) for i, name in enumerate(names)}
    pictures.write_tar(tmp_path / "photos.tar", {**files, "broken.png": good[: len(good) // 2]})
    (tmp_path / "boxes.csv").write_text(BOXES)
    return tmp_path


def evaluate(place: Path, *more: str, output: str = "out", boxes: str = "boxes.csv") -> int:
    return main(
        [
            "evaluate-detector", "--images", str(place / "photos.tar"), "--boxes", str(place / boxes), "--output",
            str(place / output), "--set", "faces.detector=none", *more,
        ]
    )  # fmt: skip


def metrics_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "detection.json").read_text())


def test_every_image_is_accounted_for_and_every_face_judged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(place, "--ignore", "mask") == 0
    metrics = metrics_in(place / "out")
    assert metrics["account"] == {
        "judged": 4,
        "rejected": {"truncated": 1},
        "faces_on_rejected": 1,
        "not_in_table": 1,
        "repeated": 0,
        "only_in_table": 1,
        "faces_only_in_table": 1,
        "ignored_faces": 1,
    }
    for score in metrics["scores"]:
        if not score["mapped"]:
            assert (score["hits"], score["faces"], score["false_alarms"], score["ignored_boxes"]) == (1, 2, 2, 1)
            assert score["recall"] == 0.5
            assert score["mean_overlap"] == 1
    said = capsys.readouterr().out
    assert "0.500 of 2 faces found, 0.500 false alarms an image" in said
    assert "1 image could not be read (1 truncated); 1 known face on them" in said
    assert "1 image not named by the table" in said


def test_the_tables_say_what_became_of_boxes_and_faces(place: Path) -> None:
    evaluate(place, "--ignore", "mask")
    boxes = pq.read_table(place / "out" / "detections.parquet").to_pylist()
    assert [(row["image_id"], row["outcome"], row["face"]) for row in boxes] == [
        ("photos.tar/whole.png", "hit", 0),
        ("photos.tar/part.png", "false_alarm", 1),  # paired, with too little overlap
        ("photos.tar/masked.png", "ignored", 2),
        ("photos.tar/nobody.png", "false_alarm", None),
    ]
    assert boxes[1]["overlap"] == pytest.approx(120 / 1600)
    assert (boxes[0]["x"], boxes[0]["width"], boxes[0]["score"]) == (0, 40, 1)
    faces = pq.read_table(place / "out" / "known_faces.parquet").to_pylist()
    assert [(row["words"], row["counts"], row["found"], row["detection"]) for row in faces] == [
        ("", True, True, 0),
        ("", True, False, None),
        ("mask", False, False, None),
    ]
    images = pq.read_table(place / "out" / "images.parquet").to_pylist()
    assert [(row["faces"], row["found"], row["false_alarms"]) for row in images] == [
        (1, 1, 0),
        (1, 0, 1),
        (0, 0, 0),
        (0, 0, 1),
    ]


def test_masked_faces_count_unless_they_are_ignored(place: Path) -> None:
    evaluate(place)
    assert metrics_in(place / "out")["scores"][0]["hits"] == 2


def test_small_faces_may_be_left_out(place: Path) -> None:
    evaluate(place, "--min-face", "13")
    metrics = metrics_in(place / "out")
    assert (metrics["scores"][0]["faces"], metrics["account"]["ignored_faces"]) == (2, 1)


def test_a_threshold_leaves_boxes_to_the_curves(place: Path) -> None:
    evaluate(place, "--threshold", "1.5")
    score = metrics_in(place / "out")["scores"][0]
    assert (score["hits"], score["false_alarms"]) == (0, 0)
    assert score["curve"]["false_alarms"] == [2]


def test_the_page_loads_nothing_and_every_picture_has_words(place: Path) -> None:
    evaluate(place, "--ignore", "mask")
    page = (place / "out" / "index.html").read_text()
    assert "prefers-color-scheme:dark" in page
    pictures_in_it = re.findall(r'<img src="data:image/(svg\+xml|webp);base64,[^>]* alt="([^"]+)"', page)
    assert len(pictures_in_it) == page.count("<img") == 2 + 1 + 1 + 2  # plots; a hit, a miss, two false alarms
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "could not be read (1 truncated)" in page
    assert {path.name for path in (place / "out").iterdir()} == {*ALWAYS, "command.json"}


def test_the_same_input_gives_the_same_bytes_but_for_times(place: Path) -> None:
    for output in ("one", "two"):
        evaluate(place, "--ignore", "mask", output=output)
    for name in set(ALWAYS) - {"index.html", "detection.json"}:
        assert (place / "one" / name).read_bytes() == (place / "two" / name).read_bytes(), name
    one, two = (metrics_in(place / output) for output in ("one", "two"))
    assert one.pop("cpu_ms_an_image").keys() == two.pop("cpu_ms_an_image").keys() == {"read", "decode", "detect"}
    assert one == two


@pytest.mark.parametrize(
    ("boxes", "more", "reported"),
    [
        (BOXES, ("--ignore", "masks"), "--ignore masks: --boxes says that of no face; it says mask"),
        ("image,x,y,w,h\nother.png,1,1,2,2\n", (), "none of 6 images is named by --boxes, which names other.png"),
        ("image,width,height,x,y,w,h\nwhole.png,80,80,1,1,9,9\n", (), "has 40×40 pixels, --boxes says 80×80"),
        ("image,x,y\n", (), "needs image, x, y, w and h"),
        ("image,x,y,w,h\nbroken.png,1,1,2,2\n", (), "every image that --boxes names was rejected: 1 truncated"),
        (BOXES, ("--set", "faces.detector=yunet"), "faces.yunet.model"),
        (BOXES, ("--min-face", "-1"), "not a number of pixels"),
        (BOXES, ("--threshold", "nan"), "not a number"),
        (BOXES, ("--runner=DirectRunner",), "unknown flag"),
    ],
)
def test_faults_are_one_line(
    place: Path, boxes: str, more: tuple[str, ...], reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "boxes.csv").write_text(boxes)
    assert evaluate(place, *more) in (2, 3)
    said = capsys.readouterr().err
    assert reported in said
    assert said.count("\n") == 1
    assert not (place / "out" / "index.html").exists()


def test_a_table_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(place, boxes="none.csv") == 2
    assert f"--boxes {place / 'none.csv'}: no such file" in capsys.readouterr().err


def test_two_images_by_one_name_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures.write_tar(
        place / "photos.tar", {f"{folder}/whole.png": pictures.png(pictures.plain(40, 40)) for folder in "ab"}
    )
    assert evaluate(place) == 2
    assert "photos.tar/a/whole.png and photos.tar/b/whole.png are both whole.png" in capsys.readouterr().err


def test_real_photos_with_their_own_lists(tmp_path: Path) -> None:
    if not SAMPLES.exists():
        pytest.skip("needs the sample set with FDDB's and WIDER's own lists")
    with tarfile.open(SAMPLES) as archive:
        archive.extractall(tmp_path, filter="data")
    folds = sorted(map(str, (tmp_path / "fddb" / "FDDB-folds").glob("*ellipseList.txt")))
    lists = sorted(map(str, (tmp_path / "widerface" / "wider_face_split").glob("*bbx_gt.txt")))
    for tables, photos, faces in ((folds, tmp_path / "fddb", 11), (lists, tmp_path / "widerface", 174)):
        output = tmp_path / f"out_{photos.name}"
        arguments = ["--images", str(photos), "--boxes", *tables, "--output", str(output)]
        assert main(["evaluate-detector", *arguments, "--set", "faces.detector=haar", "--quiet"]) == 0
        metrics = metrics_in(output)
        assert metrics["evaluated"]["form"] == ("fddb" if photos.name == "fddb" else "wider")
        half, third = metrics["scores"][:2]
        assert half["faces"] == faces
        assert metrics["account"]["only_in_table"] == 0
        assert 0 < half["recall"] <= third["recall"] < 1
        assert half["curve"]["continuous"][-1] < third["curve"]["discrete"][-1]


# --- a second look ----------------------------------------------------------------------------------------------------


def test_without_being_asked_nothing_is_looked_at_again(place: Path) -> None:
    evaluate(place)
    metrics = metrics_in(place / "out")
    assert (metrics["by_group"], metrics["by_change"], metrics["by_step"], metrics["by_way"]) == ([], [], [], [])
    assert metrics["explained"] is None


def test_recall_is_shown_by_the_values_of_a_column(place: Path) -> None:
    (place / "skin.csv").write_text("image,x,y,w,h,skin\nwhole.png,0,0,40,40,dark\npart.png,0,0,10,12,light\n")
    assert evaluate(place, "--by", "skin", boxes="skin.csv") == 0
    groups = metrics_in(place / "out")["by_group"]
    assert [(one["column"], one["value"], one["faces"], one["found"]) for one in groups] == [
        ("skin", "dark", 1, 1),
        ("skin", "light", 1, 0),
    ]
    assert "<td><bdi>light</bdi></td>" in (place / "out" / "index.html").read_text()


def test_harder_photos_are_judged_with_the_faces_moved_along(place: Path) -> None:
    (place / "one.csv").write_text("image,x,y,w,h\nwhole.png,0,0,40,40\n")
    assert evaluate(place, "--changes", boxes="one.csv") == 0
    changes = {one["change"]: one for one in metrics_in(place / "out")["by_change"]}
    assert list(changes) == ["as they are", "turned by +20°", "turned by −20°", "half-lit", "24 px", "grey"]
    assert changes["24 px"]["mean_overlap"] == changes["grey"]["mean_overlap"] == 1
    # the photo grows by a quarter of 40 pixels on each side before it is turned: 40² of 60²
    assert changes["turned by +20°"]["mean_overlap"] == pytest.approx(1600 / 3600)


@pytest.mark.parametrize(
    ("more", "reported"),
    [
        (("--by", "age"), "boxes.csv has no column age; it has image, x, y, w, h, occlusion"),
        (("--steps",), "--steps: detector none does not show its steps; use bundled or cascade"),
        (("--explain", "whole.png"), "--explain: detector none does not show its steps"),
    ],
)
def test_a_second_look_that_cannot_be_had_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], reported: str
) -> None:
    assert evaluate(place, *more) == 2
    assert reported in capsys.readouterr().err


def test_a_column_with_a_value_for_every_face_is_no_group(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"whole.png,0,0,40,40,{number}\n" for number in range(51))
    (place / "many.csv").write_text(f"image,x,y,w,h,number\n{rows}")
    assert evaluate(place, "--by", "number", boxes="many.csv") == 2
    assert "--by number: that column has 51 values; give one with at most 50" in capsys.readouterr().err


def test_the_steps_of_the_bundled_detector_are_shown_and_explained(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--set", "faces.detector=bundled", "--steps", "--explain", "whole.png")
    assert evaluate(place, *more) == 0
    metrics = metrics_in(place / "out")
    assert [one["step"] for one in metrics["by_step"]] == ["pass 1", "without overlaps", "in company"]
    assert metrics["by_way"] == []
    assert metrics["explained"] == "photos.tar/whole.png"
    assert (place / "out" / "explained.webp").read_bytes()[8:12] == b"WEBP"
    assert "data:image/webp;base64," in (place / "out" / "index.html").read_text()
    assert evaluate(place, "--set", "faces.detector=bundled", "--explain", "nowhere.png", "--overwrite") == 2
    assert "--explain nowhere.png: no judged image has that id; give one like photos.tar/" in capsys.readouterr().err


def test_the_cascade_is_also_judged_without_calibration_and_at_twice_the_stride(place: Path) -> None:
    (place / "one.csv").write_text("image,x,y,w,h\nwhole.png,0,0,40,40\n")
    assert evaluate(place, "--set", "faces.detector=cascade", "--steps", boxes="one.csv") == 0
    metrics = metrics_in(place / "out")
    assert [one["step"] for one in metrics["by_step"]][0::9] == ["classify 1", "global filter"]
    ways = [one["way"] for one in metrics["by_way"] if one["overlap"] == 0.5]
    assert ways == [f"{how}, stride {stride}" for stride in (4, 8) for how in ("calibrated", "not calibrated")]
