"""A page of each kind, with hostile names and pictures of noise: for tests of what a browser or a validator says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import MadeImage, write_images
from pictures import jpeg

from models.evaluation.metrics import evaluate
from pipeline.report import plots, run_pictures
from pipeline.report.page import PageContent, Single, Suspect, page
from pipeline.report.run_report import RunReport
from pipeline.report.two_runs.comparison_report import FinishedRun, write_comparison
from pipeline.report.two_runs.pair_pictures import Source
from transforms.formats.encode import as_webp
from transforms.formats.records import Limits

KINDS = ("run", "comparison", "evaluation")
CLASSES = ("happy", "neutral", "sad", "a label with a name that is longer than most")
HOSTILE = (
    "<img src=x onerror=alert(1)>.jpg",
    "a\u202eb\n.jpg",
    "x" * 4_000 + ".jpg",
    '"><script>alert(1)</script>.jpg',
)


def write_pages(folder: Path) -> dict[str, Path]:
    """Writes a page of each of `KINDS`: of a run, of two runs compared, of an evaluation."""
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
    (folder / "evaluation.html").write_bytes(evaluation_page())
    return {
        "run": folder / "a" / "report.html",
        "comparison": folder / "out" / "comparison.html",
        "evaluation": folder / "evaluation.html",
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


def evaluation_page() -> bytes:
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.ones(4), 300)
    found = evaluate(probabilities, draw.integers(0, 4, 300), CLASSES)
    picture = as_webp(draw.integers(0, 256, (240, 240, 3)).astype(np.uint8), 50)
    singles = [Single(picture, "sad → happy", f"{at} % sure", HOSTILE[at % 4]) for at in range(9)]
    return page(
        PageContent(
            facts=[("images", "x" * 300)], notes=["3 images left out."], figures=found.figures, accuracy_of_all=0.5,
            pictures=plots.all_plots(found), suspects=[Suspect(name, "sad", "happy", -0.5) for name in HOSTILE],
            suspected=4, galleries={"mistakes": singles},
        )
    )  # fmt: skip
