"""`runtimes`: its flags. `pipeline/actions/runtimes.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import flag_values
from pipeline.commands.command import Command
from pipeline.flags import Options, parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimesOptions(Options):
    """How long to measure."""

    seconds: int | None = parsed(flag_values.count, "N", "measure each runtime for N seconds; default 4")


COMMAND = Command(
    name="runtimes",
    summary="time the runtimes on this machine and print the setting for the fastest",
    example="runtimes",
    options=RuntimesOptions,
    settings=("features",),
    settings_unused=("features.runtime", "features.precision"),
)
