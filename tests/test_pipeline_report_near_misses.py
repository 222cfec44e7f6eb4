"""What the page shows of photos without a face: what almost was one, and photos that cannot be read again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pictures
import pytest
import runs
from made_runs import MadeImage, write_images
from parsed_page import Page

from models.detectors.options import OneShotOptions
from models.detectors.registry import DetectorSpec
from pipeline.cli import main
from pipeline.report.near_misses import WEAKEST, NearMisses, Searching
from pipeline.report.run_report import RunReport
from pipeline.run.plan import Layout, make_plan
from transforms.formats.records import Limits

STRICT = 0.99  # a threshold that no face of the portrait reaches


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> runs.Ended:
    """A run whose detector takes nothing for a face: of a portrait, and of a plain ground."""
    place = tmp_path_factory.mktemp("strict")
    files = {
        "portrait.jpg": pictures.jpeg(pictures.portrait()),
        "plain.png": pictures.png(np.full((300, 400, 3), 90, np.uint8)),
    }
    source = pictures.write_folder(place / "in", files)
    settings = ("faces.detector=bundled", f"faces.one_shot.score_threshold={STRICT}", "write.no_face_label=neutral")
    head = runs.make_head(place / "head")
    return runs.Bench(place, head).label(source, "out", *settings).done()


def shown(ended: runs.Ended) -> dict[str, list[dict[str, object]]]:
    reported = json.loads((ended.output / "report.json").read_text())["shown"]["no_face"]
    return {photo["image_id"]: photo["candidates"] for photo in reported}


def test_the_best_boxes_below_the_threshold_are_shown_with_their_scores(strict: runs.Ended) -> None:
    assert strict.record["counts"]["no_face"] == 2
    candidates = shown(strict)
    assert candidates["plain.png"] == []
    best, *_ = candidates["portrait.jpg"]
    assert WEAKEST * STRICT <= best["score"] < STRICT
    x, y, width, height = best["box"]
    assert 150 < x + width / 2 < 300 and 60 < y + height / 2 < 200  # the astronaut's face
    page = Page(strict.output / "report.html")
    assert "Almost a face" in page.text and "Nothing like a face" in page.text
    assert f"best candidate {best['score']:.2f}" in page.text.replace("candidates", "candidate")
    assert "threshold of 0.99, down to 0.33" in page.text and "faces.one_shot.score_threshold" in page.text
    weak = [rect for rect in page.all("rect") if "weak" in rect.get("class", "")]
    assert len(weak) == len(candidates["portrait.jpg"])
    near = json.loads((strict.output / "report.json").read_text())["near_misses"]
    assert (near["photos_searched"], near["photos_with_candidates"]) == (2, 1)


def test_report_finds_the_same_candidates(strict: runs.Ended) -> None:
    before = (strict.output / "report.html").read_bytes()
    assert main(["report", str(strict.output), "--quiet"]) == 0
    assert (strict.output / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda record: record["identity"]["features"]["faces"].update(model="00"), "the detector has changed since"),
        (lambda record: record["settings"].update(faces={"gone": 1}), "those of another version"),
        (lambda record: record["settings"]["faces"]["one_shot"].update(model="/gone.onnx"), "/gone.onnx"),
    ],
)
def test_without_the_detector_of_the_run_the_page_says_why_it_shows_none(
    strict: runs.Ended, tmp_path: Path, change, why: str
) -> None:
    from pipeline.run.detector_of_run import detector_of_run

    record = strict.record
    assert detector_of_run(record).detector is not None
    change(record)
    searching = detector_of_run(record)
    assert searching.detector is None and why in searching.why_not
    near = NearMisses(searching, Limits())
    assert near.of("a.png", pictures.png(np.zeros((40, 40, 3), np.uint8))) == ()
    assert why in near.result({})["why_not"]


def test_a_detector_without_a_threshold_has_none() -> None:
    near = NearMisses(Searching(DetectorSpec("haar")), Limits())
    assert near.result({}) == {"why_not": "the detector haar has no threshold of scores"}


def test_a_model_that_cannot_be_loaded_costs_the_candidates_alone(tmp_path: Path) -> None:
    spec = DetectorSpec("one_shot", OneShotOptions(model=str(tmp_path / "gone.onnx")))
    near = NearMisses(Searching(spec), Limits())
    assert near.of("a.png", pictures.png(np.zeros((40, 40, 3), np.uint8))) == ()
    assert "gone.onnx" in near.result({})["why_not"]


def test_a_face_that_is_too_small_to_label_is_not_called_no_face(tmp_path: Path) -> None:
    data = pictures.png(np.full((60, 80, 3), 90, np.uint8))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "crowd.png").write_bytes(data)
    image = MadeImage(
        "crowd.png", [((5, 5, 9, 9), None, 0.0, 0.8)], "no_face", hashlib.sha256(data).hexdigest(), (80, 60)
    )
    record = write_images(tmp_path / "run", [image], ("happy", "sad"))
    RunReport(str(tmp_path / "run"), plan_of(tmp_path), Limits())(record)
    page = Page(tmp_path / "run" / "report.html")
    assert "Only faces that are too small to label" in page.text and "Nothing like a face" not in page.text


# --- photos that are gone ---------------------------------------------------------------------------------------------


def plan_of(place: Path) -> str:
    return make_plan([str(place / "in")], str(place / "plan"), Layout(256, 2**26), Limits()).blocks_file


def test_a_photo_that_went_after_the_plan_costs_itself_alone(tmp_path: Path) -> None:
    files = {f"{at}.png": pictures.png(np.full((40, 60, 3), at * 20, np.uint8)) for at in range(8)}
    source = pictures.write_folder(tmp_path / "in", files)
    images = [
        MadeImage(name, [((5, 5, 20, 20), "sad", 0.7, 0.9)], "", hashlib.sha256(data).hexdigest(), (60, 40))
        for name, data in files.items()
    ]
    record = write_images(tmp_path / "run", images, ("happy", "sad"))
    plan = plan_of(tmp_path)
    (source / "3.png").unlink()
    reported = RunReport(str(tmp_path / "run"), plan, Limits())(record)
    assert (reported["photos"], reported["photos_missing"]) == (7, 1)
    page = Page(tmp_path / "run" / "report.html")
    assert len(page.all("image")) == 7
    assert "1 photo chosen for this page could not be read again unchanged" in page.text and "3.png" in page.text
