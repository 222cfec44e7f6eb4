"""`describe-head`: its flags. `pipeline/actions/describe_head.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.flag_values import class_text
from pipeline.flags import Options, many, needed


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeHeadOptions(Options):
    """A model and its classes."""

    head: str = needed("FILE.keras", "a Keras model from features to classes")
    classes: tuple[str, ...] = many(
        "NAME", "its classes, in the order of the model's outputs", required=True, parse=class_text
    )


COMMAND = Command(
    name="describe-head",
    summary="write head.json for your own Keras model",
    example="describe-head --head mine.keras --classes angry happy sad",
    options=DescribeHeadOptions,
    settings=("features",),
)
