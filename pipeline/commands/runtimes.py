"""`runtimes`: what may be typed. The work is `pipeline/actions/runtimes.py`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import flag_values
from pipeline.commands.command import Command
from pipeline.flags import Options, parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimesOptions(Options):
    """How long to measure."""

    seconds: int | None = parsed(flag_values.count, "N", "measure each runtime for so many seconds; default 4")


COMMAND = Command(
    name="runtimes",
    summary="time the runtimes on this machine, and print the line for the config",
    example="runtimes",
    options=RuntimesOptions,
    settings=("features",),
    settings_unused=("features.runtime", "features.precision"),
)
