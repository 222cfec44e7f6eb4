"""Kinds of values that several sections of the settings share."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

BackboneName = Literal[
    "face_vgg",
    "face_vgg_attention",
    "face_vgg_regions",
    "face_vgg_grid",
    "vgg16",
    "vgg19",
    "mobilenet",
    "mobilenet_v2",
    "resnet50",
]


def _parse_size(value: object) -> tuple[int, int] | None:
    """Returns (height, width) for a number, "HxW" or [h, w]."""
    if value is None or isinstance(value, bool):
        return value  # type: ignore[return-value]  # a bool is refused by the type behind this validator
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,6})(?:[x×](\d{1,6}))?", value.strip().lower())):
        return (int(found[1]), int(found[2] or found[1]))
    if isinstance(value, list | tuple) and len(value) == 2:
        return (value[0], value[1])
    raise PydanticCustomError("size", "not a size")


Side = Annotated[int, Field(ge=1, le=4096)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_parse_size)]
