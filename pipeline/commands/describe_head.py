"""`describe-head`: what may be typed. The work is `pipeline/actions/describe_head.py`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.flag_values import class_text
from pipeline.flags import Options, many, needed


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeHeadOptions(Options):
    """A model and what its outputs are."""

    head: str = needed("FILE.keras", "a Keras model from features to classes")
    classes: tuple[str, ...] = many("NAME", "in the order of the model's outputs", required=True, parse=class_text)


COMMAND = Command(
    name="describe-head",
    summary="write the head.json of a Keras model of your own",
    example="describe-head --head mine.keras --classes angry happy sad",
    options=DescribeHeadOptions,
    settings=("features",),
)
