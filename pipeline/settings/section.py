"""What every section of the settings is made of: strict fields, each with words for the user and what it changes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Enters(StrEnum):
    """The results that a setting changes, so the fingerprint that it enters."""

    FEATURE_SPACE = "feature space"  # what a head is trained for, and with it the cache key and the run
    CACHE_KEY = "cache key"  # features, but not what a head is trained for; and with them the run
    RUN = "run"  # labels and files, but not features
    NOTHING = "nothing"  # speed and memory alone


def setting(default: Any, description: str, *, enters: Enters, allowed: str = "", **limits: Any) -> Any:
    """Returns a pydantic field. `allowed` says in words what is allowed where type and limits do not."""
    extra: dict[str, Any] = {"enters": enters.value, "allowed": allowed}
    return Field(default, description=description, json_schema_extra=extra, validate_default=True, **limits)


class Section(BaseModel):
    """A section: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
