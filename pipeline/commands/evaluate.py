"""`evaluate`: its flags. `pipeline/actions/evaluate.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import flag_values
from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flag_values import class_text
from pipeline.flags import Options, many, needed, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions(Options):
    """What to evaluate, against which truth, and where to write the page."""

    input: tuple[str, ...] = many("PATTERN", "labelled images: one folder per class, archives or tables")
    predictions: str | None = one("DIR", "instead of --input: output folder of a finished run")
    output: str = needed("DIR", "folder for metrics, plots and the page")
    cache: str | None = one("DIR", "feature cache; default OUTPUT/cache")
    head: str | None = one(
        "PATH",
        "the trained head: bundled (default), bundled/ferplus, bundled/smile or a folder; with --predictions the name "
        "of a head of that run",
        setting="head.path",
    )
    exclude_copies_of: tuple[str, ...] = many("PATTERN", "input images identical to these are excluded")
    images: tuple[str, ...] = many(
        "PATTERN", "with --predictions: where the pictures are now, if not where the run read them"
    )
    soft_labels: str | None = one(
        "PATH", "truth in place of the input's labels: the top class of a CSV of votes, or a finished run's labels"
    )
    rename_classes: tuple[str, ...] = many(
        "OTHER=CLASS", "OTHER in the input or the votes means CLASS; OTHER= excludes its images", parse=class_text
    )
    positive: tuple[str, ...] = many(
        "CLASS", "evaluate only these classes, together, against all others", parse=class_text
    )
    positive_labels: tuple[str, ...] = many(
        "LABEL", "labels that count as positive; default: those of --positive", parse=class_text
    )
    seed: int | None = parsed(flag_values.seed, "N", "seed of the bootstrap; default 0")
    overwrite: bool = switch("replace the results of another evaluation")
    exact_csv: bool = switch(
        "ids and labels in label_errors.csv unchanged; default: ' before = + - @, so that no spreadsheet runs them"
    )

    def __post_init__(self) -> None:
        if bool(self.input) == bool(self.predictions):
            raise UsageError(
                "evaluate needs exactly one of --input, labelled images, and --predictions, the output of a run"
            )
        alien = {"images": self.images} if self.input else {"cache": self.cache}
        if strangers := [flag for flag, given in alien.items() if given]:
            wanted = "--predictions" if self.input else "--input"
            raise UsageError(f"--{strangers[0]} goes with {wanted}; drop it, or give {wanted} instead")


COMMAND = Command(
    name="evaluate",
    summary="measure how good labels are: metrics, plots and a page",
    example="evaluate --input photos/test --head head/ --output quality/",
    options=EvaluateOptions,
    settings=("read", "faces", "features", "head.path", "beam"),
    beam=True,
)
