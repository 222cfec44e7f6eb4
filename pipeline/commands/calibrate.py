"""`calibrate`: its flags. `pipeline/actions/calibrate.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import flag_values
from pipeline.commands.command import Command
from pipeline.flag_values import class_text, fold_count
from pipeline.flags import Options, many, needed, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions(Options):
    """Labelled images to calibrate on, and where to write the head."""

    input: tuple[str, ...] = many(
        "PATTERN", "labelled images: one folder per class, archives or tables; any with --soft-labels", required=True
    )
    output: str = needed("DIR", "folder for the calibrated head")
    cache: str | None = one("DIR", "feature cache; default OUTPUT/cache")
    head: str | None = one(
        "PATH",
        "the head to calibrate: bundled (default), bundled/ferplus, bundled/smile or a folder",
        setting="head.path",
    )
    soft_labels: str | None = one(
        "PATH", "instead of labels: fit the intensity to shares of classes, from a CSV of votes or a finished run"
    )
    rename_classes: tuple[str, ...] = many(
        "OTHER=CLASS", "OTHER in the input or the votes means CLASS; OTHER= excludes its images", parse=class_text
    )
    folds: int | None = parsed(fold_count, "K", "folds of the cross-validation that measures the gain; default 5")
    seed: int | None = parsed(flag_values.seed, "N", "seed of the folds and of the bootstrap; default 0")
    overwrite: bool = switch("replace the results of another calibration")


COMMAND = Command(
    name="calibrate",
    summary="fit a head's probabilities to images like yours",
    example="calibrate --input photos/labelled --output heads/calibrated",
    options=CalibrateOptions,
    settings=("read", "faces", "features", "head.path", "beam"),
    beam=True,
)
