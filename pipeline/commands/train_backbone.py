"""`train-backbone`: its flags. `pipeline/actions/train_backbone.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import flag_values
from pipeline.commands.command import Command
from pipeline.flags import Options, many, needed, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBackboneOptions(Options):
    """What to learn from, and where to write the weights."""

    input: tuple[str, ...] = many(
        "PATTERN",
        "images with labels: one folder per class, archives or tables; images without learn --soft-labels only",
        required=True,
    )
    output: str = needed("DIR", "folder for weights, curves and state")
    validation: tuple[str, ...] = many("PATTERN", "labelled images for validation")
    exclude_copies_of: tuple[str, ...] = many("PATTERN", "training images identical to these are excluded")
    soft_labels: tuple[str, ...] = many(
        "NAME=PATH",
        "shares of classes to learn in addition to labels: a CSV of votes per image, or a finished run as teacher",
    )
    overwrite: bool = switch("replace the results of another training")
    tensorboard: bool = switch("also write the curves for TensorBoard")
    epochs: int | None = parsed(flag_values.count, "N", "passes over the images", setting="train.epochs")
    seed: int | None = parsed(
        flag_values.seed, "N", "seed of initial weights, order and augmentation", setting="train.seed"
    )


COMMAND = Command(
    name="train-backbone",
    summary="train the network that computes features",
    example="train-backbone --input photos/train --output backbone/ --epochs 60",
    options=TrainBackboneOptions,
    settings=("train", "read"),
    settings_unused=("read.block_images", "read.block_bytes", "read.threads"),
)
