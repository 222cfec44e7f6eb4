"""Turns a failure that is not a bug into one of our errors, which is reported in one line."""

from __future__ import annotations

from models.backbones.backbone import BackboneError
from pipeline.errors import PipelineError, StoppedError, UsageError
from pipeline.memory_limit import lack_of_memory
from transforms.formats.records import FormatError


def as_ours(error: Exception) -> PipelineError | None:
    """Returns our error for one of a format, of memory or of storage; None for a bug."""
    if isinstance(error, PipelineError):
        return error
    if isinstance(error, BackboneError):
        return UsageError(str(error))
    if isinstance(error, FormatError):
        return StoppedError(str(error))
    if lack := lack_of_memory(error):
        return StoppedError(lack)
    if isinstance(error, OSError):
        return StoppedError(f"{error}; once that is fixed, run the same command to resume")
    return None
