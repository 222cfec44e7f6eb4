"""`train-head`: its flags. `pipeline/actions/train_head.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flag_values import class_text, fold_count, pattern, proper_fraction
from pipeline.flags import Options, any_number, many, needed, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainHeadOptions(Options):
    """What to learn from, and where to write the head."""

    input: tuple[str, ...] = many("PATTERN", "labelled images: one folder per class, archives or tables", required=True)
    output: str = needed("DIR", "folder for the trained head")
    cache: str | None = one("DIR", "feature cache; default OUTPUT/cache")
    overwrite: bool = switch("replace the results of another training")
    validation: tuple[str, ...] = many("PATTERN", "labelled images to select the best head by")
    exclude_copies_of: tuple[str, ...] = many("PATTERN", "training images identical to these are excluded")
    holdout: float | None = parsed(proper_fraction, "F", "instead: select by this fraction of the input")
    select_folds: int | None = parsed(
        fold_count, "K", "instead: select by K folds of the input, then train on all of it; not for mlp"
    )
    folds: int | None = parsed(
        fold_count, "K", "also cross-validate: K heads, each tested on images of groups it has not seen"
    )
    repeats: int | None = parsed(
        fold_count, "R", "with --folds: deal the images into folds R times, and give the mean of all deals"
    )
    group_by: str | None = parsed(
        pattern,
        "REGEX",
        "images whose ids give the same match (or first group, if any) stay together in every split",
    )
    classes: tuple[str, ...] = many("CLASS", "classes to learn; default all", parse=class_text)
    kind: str | None = one("KIND", "logistic, ridge, mlp, or number for labels that are numbers", setting="head.kind")
    soft_labels: str | None = one(
        "PATH",
        "shares of classes instead of the input's labels, or blended with them (head.soft_share): a CSV of votes per "
        "image, or a finished run as teacher",
    )
    rename_classes: tuple[str, ...] = many(
        "OTHER=CLASS", "OTHER in --soft-labels means CLASS; OTHER= excludes it", parse=class_text
    )
    reject: tuple[str, ...] = many(
        "CLASS",
        'classes of --soft-labels that mean "no label"; with labels, images where one leads are excluded',
        parse=class_text,
    )
    tensorboard: bool = switch("with mlp: also write the curves for TensorBoard")
    compare: tuple[str, ...] | None = any_number(
        "FILE", "fit every kind on several features; writes a table, no head; each FILE of settings adds one mlp"
    )

    def __post_init__(self) -> None:
        ways = {"validation": self.validation, "holdout": self.holdout, "select-folds": self.select_folds}
        if len(given := [f"--{name}" for name, value in ways.items() if value]) > 1:
            raise UsageError(f"{given[0]} and {given[1]} exclude each other; give only one")
        if self.select_folds and self.compare is not None:
            raise UsageError("--select-folds trains one head; drop it, or drop --compare")
        if self.repeats and not self.folds:
            raise UsageError("--repeats deals folds anew; give --folds too, or drop --repeats")
        if self.folds and (self.validation or self.soft_labels or self.compare is not None):
            other = "validation" if self.validation else "soft-labels" if self.soft_labels else "compare"
            raise UsageError(f"--folds tests every labelled image of --input; drop it, or drop --{other}")
        if self.reject and not self.soft_labels:
            raise UsageError("--reject names classes of --soft-labels; give --soft-labels, or drop --reject")
        if self.rename_classes and not self.soft_labels:
            raise UsageError(
                "--rename-classes names classes of --soft-labels; give --soft-labels, or drop --rename-classes"
            )
        if self.compare is not None and (self.kind or self.tensorboard):
            raise UsageError(
                f"--compare fits every kind and keeps no head; drop --{'kind' if self.kind else 'tensorboard'}"
            )


COMMAND = Command(
    name="train-head",
    summary="train the small classifier on features",
    example="train-head --input photos/train --output head/",
    options=TrainHeadOptions,
    settings=("read", "faces", "features", "head", "mlp", "beam"),
    settings_unused=("head.path", "head.more"),
    beam=True,
)
