"""`evaluate-detector`: what may be typed. The work is `pipeline/actions/evaluate_detector.py`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.flag_values import number, pixels
from pipeline.flags import Options, many, needed, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateDetectorOptions(Options):
    """Images, their known faces, and where the page goes."""

    images: tuple[str, ...] = many(
        "PATTERN", "folders, archives, tables or wildcards: images whose faces are known", required=True
    )
    boxes: tuple[str, ...] = many(
        "FILE",
        "the known faces: a CSV (image, x, y, w, h), FDDB's lists of ellipses or WIDER's lists of boxes",
        required=True,
    )
    output: str = needed("DIR", "folder of tables, metrics, plots and the page")
    ignore: tuple[str, ...] = many(
        "WORD", "faces that --boxes marks with this word, such as mask, count neither as found nor as missed"
    )
    min_face: float | None = parsed(pixels, "PX", "nor do faces whose longer side has fewer pixels; default 0")
    overwrite: bool = switch("start anew in the folder of another evaluation")
    threshold: float | None = parsed(number, "S", "boxes of a lower score count in the curves only; default all")
    by: tuple[str, ...] = many("COLUMN", "also recall by what this column of --boxes says: skin, age, sex, pose")
    changes: bool = switch("also search the photos turned, half-lit, small and grey")
    steps: bool = switch("also show what each step of the detector leaves and costs")
    explain: str | None = one("ID", "draw the detector at work on this image")


COMMAND = Command(
    name="evaluate-detector",
    summary="measure how well a detector finds known faces: curves, pictures and a page",
    example="evaluate-detector --images photos/ --boxes boxes.csv --output detector-quality/",
    options=EvaluateDetectorOptions,
    settings=("read", "faces", "features.backbone"),
    settings_unused=("read.threads", "read.labels", "read.label_column", "faces.margin", "faces.min_label_px"),
)
