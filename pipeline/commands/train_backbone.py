"""`train-backbone`: what may be typed. The work is `pipeline/actions/train_backbone.py`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import flag_values
from pipeline.commands.command import Command
from pipeline.flags import Options, many, needed, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBackboneOptions(Options):
    """What to learn from, and where the weights go."""

    input: tuple[str, ...] = many(
        "PATTERN",
        "images with labels: a folder for each class, archives or tables; others learn --soft-labels alone",
        required=True,
    )
    output: str = needed("DIR", "folder of weights, curves and state")
    validation: tuple[str, ...] = many("PATTERN", "labelled images to choose by")
    exclude_copies_of: tuple[str, ...] = many("PATTERN", "images that must not be trained on")
    soft_labels: tuple[str, ...] = many(
        "NAME=PATH",
        "shares of classes learned beside the labels: a CSV of votes by image, or a finished run as teacher",
    )
    overwrite: bool = switch("start anew in the folder of another training")
    tensorboard: bool = switch("also write the curves for TensorBoard")
    epochs: int | None = parsed(flag_values.count, "N", "passes over the images", setting="train.epochs")
    seed: int | None = parsed(flag_values.seed, "N", "of first weights, order and random changes", setting="train.seed")


COMMAND = Command(
    name="train-backbone",
    summary="train the network that computes features",
    example="train-backbone --input photos/train --output backbone/ --epochs 60",
    options=TrainBackboneOptions,
    settings=("train", "read"),
    settings_unused=("read.block_images", "read.block_bytes", "read.threads"),
)
