"""Turns an error that no command caught into one of ours, for the command line and for callers of the API.

Imports neither Beam nor Arrow, as the command line loads it at its start.
Not here: why a graph or a worker process failed (`run/failures.py`).
"""

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
