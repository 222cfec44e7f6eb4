"""A page of each kind, with hostile names and pictures of noise: for tests of what a browser or a validator says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import MadeImage, write_images
from pictures import jpeg

from models.detectors.detections import Detections
from models.evaluation.degree import degree
from models.evaluation.detection import Photo as DetectionPhoto
from models.evaluation.metrics import evaluate
from pipeline.report import detection_sheets, plots, run_pictures
from pipeline.report.detection_files import Given, write_detection
from pipeline.report.known_and_found import Compared
from pipeline.report.page import PageContent, Single, Suspect, page
from pipeline.report.run_report import RunReport
from pipeline.report.two_runs.comparison_report import FinishedRun, write_comparison
from pipeline.report.two_runs.pair_pictures import Source
from pipeline.run.search_faces import CpuSeconds, Searched
from transforms.formats.encode import as_webp
from transforms.formats.records import Limits

KINDS = ("run", "comparison", "evaluation", "detection")
CLASSES = ("happy", "neutral", "sad", "a label with a name that is longer than most")
HOSTILE = (
    "<img src=x onerror=alert(1)>.jpg",
    "a\u202eb\n.jpg",
    "x" * 4_000 + ".jpg",
    '"><script>alert(1)</script>.jpg',
)


def write_pages(folder: Path) -> dict[str, Path]:
    """Writes a page of each of `KINDS`: of a run, of two runs compared, of an evaluation, of a detector."""
    with pytest.MonkeyPatch.context() as patch:
        photo = jpeg(
            np.random.default_rng(1).integers(0, 256, (48, 64, 3)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
        )
        patch.setattr(
            run_pictures, "read_what_is_left", lambda _lines, wanted, *_, **__: [(one, photo) for one in [*wanted]]
        )
        (folder / "plan").write_text("one line\n")
        records = [write_images(folder / name, images_of(shift), CLASSES) for name, shift in (("a", 0), ("b", 25))]
        RunReport(str(folder / "a"), str(folder / "plan"), Limits())(records[0])
        source = Source(lambda: [b"one line"], Limits())
        runs = [FinishedRun(str(folder / name), record, source) for name, record in zip("ab", records, strict=True)]
        write_comparison(str(folder / "out"), *runs, min_iou=0.5, seed=0)
        patch.setattr(
            detection_sheets, "read_pictures", lambda _lines, wanted, *_, **__: [(one, photo) for one in [*wanted]]
        )
        write_detection(str(folder / "judged"), judged_boxes())
    (folder / "evaluation.html").write_bytes(evaluation_page())
    return {
        "run": folder / "a" / "report.html",
        "comparison": folder / "out" / "comparison.html",
        "evaluation": folder / "evaluation.html",
        "detection": folder / "judged" / "index.html",
    }


def images_of(shift: int) -> list[MadeImage]:
    def faces(at: int) -> list[Any]:
        return [
            ((30 + 90 * n, 100 + shift * (n % 2), 60, 60), CLASSES[(at + n + bool(shift and n == 2)) % 4], 0.6, 0.8)
            for n in range(at % 7)
        ]

    names = [f"photo {at:02d}.jpg" for at in range(40 - shift // 5)] + list(HOSTILE)
    images = [MadeImage(name, faces(at), digest=f"{at + 1:016x}".ljust(64, "0")) for at, name in enumerate(names)]
    return [*images, MadeImage("broken.jpg", status="rejected", reason="truncated")]


def judged_boxes() -> Given:
    """Returns boxes on images with hostile names: found, missed and false ones on each."""
    known = np.array([[40.0, 40, 60, 60], [200, 100, 80, 90], [400, 300, 30, 30]])
    found = np.array([[42.0, 41, 60, 60], [205, 110, 80, 90], [500, 20, 50, 50]])
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    boxes = Detections(found.astype(np.int32), scores)
    names = [*HOSTILE, *(f"photo {at}.jpg" for at in range(4))]
    images = [Searched(name, "00", 640, 480, None, boxes) for name in names]
    photos = [DetectionPhoto(known, None, np.zeros(3, bool), found, scores) for _ in images]
    words = [(frozenset({"blur", "<b>occluded</b>"}),) * 3] * len(images)
    cells = [(("<i>dark</i>",), ("light",), ("",))] * len(images)
    compared = Compared(images, photos, words, ("skin",), cells, Counter({"truncated": 2}), 1, 1, 0, 1, 1)
    about = {"images": ["photos"], "boxes": ["faces.csv"], "form": "csv", "detector": {"name": "<b>mine</b>"},
             "ignore": [], "min_face_px": 0.0}  # fmt: skip
    judged = {"recall": 0.5, "false_alarms_an_image": 0.1, "mean_overlap": 0.7}
    closer = {
        "by_change": [{"change": "half-lit", **judged}],
        "by_step": [{"step": "pass 1", "boxes_an_image": 9.0, "faces_covered": 0.9, "cpu_ms_an_image": 1.0}],
        "by_way": [{"way": "stride 4", "overlap": 0.5, **judged, "cpu_ms_an_image": 1.0}],
        "explained": HOSTILE[0],
    }
    explained = as_webp(np.full((200, 900, 3), 80, np.uint8), 50)
    return Given(compared, about, None, CpuSeconds(1, 1, 1, 8), (), Limits(), closer, explained)


def evaluation_page() -> bytes:
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.ones(4), 300)
    found = evaluate(probabilities, draw.integers(0, 4, 300), CLASSES)
    picture = as_webp(draw.integers(0, 256, (240, 240, 3)).astype(np.uint8), 50)
    singles = [Single(picture, "sad → happy", f"{at} % sure", HOSTILE[at % 4]) for at in range(9)]
    return page(
        PageContent(
            facts=[("images", "x" * 300)], notes=["3 images left out."], metrics=found.metrics, accuracy_of_all=0.5,
            pictures=plots.all_plots(found), suspects=[Suspect(name, "sad", "happy", -0.5) for name in HOSTILE],
            suspected=4, galleries={"mistakes": singles},
            degree=degree(probabilities, draw.dirichlet(np.ones(4), 300), CLASSES, seed=0),
        )
    )  # fmt: skip
