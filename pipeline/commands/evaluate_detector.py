"""`evaluate-detector`: its flags. `pipeline/actions/evaluate_detector.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.flag_values import number, pixels
from pipeline.flags import Options, many, needed, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateDetectorOptions(Options):
    """Images, their known faces, and where to write the page."""

    images: tuple[str, ...] = many(
        "PATTERN", "folders, archives, tables or wildcards: images whose faces are known", required=True
    )
    boxes: tuple[str, ...] = many(
        "FILE",
        "the known faces: a CSV (image, x, y, w, h), FDDB's lists of ellipses or WIDER's lists of boxes",
        required=True,
    )
    output: str = needed("DIR", "folder for tables, metrics, plots and the page")
    ignore: tuple[str, ...] = many(
        "WORD", "faces that --boxes marks with this word, such as mask, count as neither found nor missed"
    )
    min_face: float | None = parsed(
        pixels, "PX", "faces with a longer side below PX pixels count as neither; default 0"
    )
    overwrite: bool = switch("replace the results of another evaluation")
    threshold: float | None = parsed(number, "S", "boxes of a lower score count only in the curves; default: all count")
    by: tuple[str, ...] = many("COLUMN", "also recall for each value of this column of --boxes: skin, age, sex, pose")
    changes: bool = switch("also search the photos rotated, half-lit, reduced and in grey")
    steps: bool = switch("also show what each step of the detector keeps and costs")
    explain: str | None = one("ID", "draw the detector at work on this image")


COMMAND = Command(
    name="evaluate-detector",
    summary="measure how well a detector finds known faces: curves, pictures and a page",
    example="evaluate-detector --images photos/ --boxes boxes.csv --output detector-quality/",
    options=EvaluateDetectorOptions,
    settings=("read", "faces", "features.backbone"),
    settings_unused=("read.threads", "read.labels", "read.label_column", "faces.margin", "faces.min_label_px"),
)
