"""The base of every section of the settings: strict fields, each with a description and the results that it changes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Enters(StrEnum):
    """The results that a setting changes, and thus the fingerprint that it enters."""

    FEATURE_SPACE = "feature space"  # the features that a head is trained for; also the cache key and the run
    CACHE_KEY = "cache key"  # features, but a head still fits them; also the run
    RUN = "run"  # labels and files, but not features
    NOTHING = "nothing"  # only speed and memory


def setting(default: Any, description: str, *, enters: Enters, allowed: str = "", **limits: Any) -> Any:
    """Returns a pydantic field. `allowed` describes the values if type and limits do not."""
    extra: dict[str, Any] = {"enters": enters.value, "allowed": allowed}
    return Field(default, description=description, json_schema_extra=extra, validate_default=True, **limits)


class Section(BaseModel):
    """A section: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
