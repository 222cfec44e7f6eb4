"""`train-head`: what may be typed. The work is `pipeline/actions/train_head.py`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flag_values import class_text, fold_count, pattern, proper_fraction
from pipeline.flags import Options, any_number, many, needed, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainHeadOptions(Options):
    """What to learn from, and where the head goes."""

    input: tuple[str, ...] = many(
        "PATTERN", "labelled images: a folder for each class, archives or tables", required=True
    )
    output: str = needed("DIR", "folder of the trained head")
    cache: str | None = one("DIR", "feature cache; default OUTPUT/cache")
    overwrite: bool = switch("start anew in the folder of another training")
    validation: tuple[str, ...] = many("PATTERN", "labelled images to choose by")
    exclude_copies_of: tuple[str, ...] = many("PATTERN", "images that must not be trained on")
    holdout: float | None = parsed(proper_fraction, "F", "fraction of the input to choose by instead")
    folds: int | None = parsed(
        fold_count, "K", "also cross-validate: K heads, each judged on images whose groups it has not seen"
    )
    group_by: str | None = parsed(
        pattern,
        "REGEX",
        "images whose ids give the same match (of its first group, if it has one) stay together in every split",
    )
    classes: tuple[str, ...] = many("CLASS", "classes that count; default all", parse=class_text)
    kind: str | None = one("KIND", "logistic, ridge or mlp", setting="head.kind")
    soft_labels: str | None = one(
        "PATH",
        "shares in place of the input's labels, or beside them (head.soft_share): a CSV of votes by image, or a "
        "finished run as teacher",
    )
    rename_classes: tuple[str, ...] = many(
        "OTHER=CLASS", "OTHER of --soft-labels is CLASS of the labels; OTHER= leaves it out", parse=class_text
    )
    reject: tuple[str, ...] = many(
        "CLASS",
        "classes of --soft-labels that say that there is no label; beside labels, images that one leads are left out",
        parse=class_text,
    )
    tensorboard: bool = switch("with mlp: also write the curves for TensorBoard")
    compare: tuple[str, ...] | None = any_number(
        "FILE", "fit every kind on several features and write a table, no head; each FILE of settings is one more mlp"
    )

    def __post_init__(self) -> None:
        if self.validation and self.holdout:
            raise UsageError("--validation and --holdout exclude each other; give one of them")
        if self.folds and (self.validation or self.soft_labels or self.compare is not None):
            other = "validation" if self.validation else "soft-labels" if self.soft_labels else "compare"
            raise UsageError(f"--folds judges every labelled image of --input; it does not go with --{other}")
        if self.reject and not self.soft_labels:
            raise UsageError("--reject names classes of --soft-labels; give those, or drop it")
        if self.rename_classes and not self.soft_labels:
            raise UsageError("--rename-classes names classes of --soft-labels; give those, or drop it")
        if self.compare is not None and (self.kind or self.tensorboard):
            raise UsageError(
                f"--compare fits every kind and keeps none; drop --{'kind' if self.kind else 'tensorboard'}"
            )


COMMAND = Command(
    name="train-head",
    summary="train the small classifier on features",
    example="train-head --input photos/train --output head/",
    options=TrainHeadOptions,
    settings=("read", "faces", "features", "head", "mlp", "beam"),
    settings_unused=("head.path",),
    beam=True,
)
