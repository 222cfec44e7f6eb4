"""`report`: its flags. `pipeline/actions/report.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.flags import Options, many, one, position, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions(Options):
    """A run, and where its pictures are."""

    run: str = position("RUN", "output folder of a finished run", required=True)
    images: tuple[str, ...] = many("PATTERN", "where the pictures are now, if not where the run read them")
    head: str | None = one("NAME", "of a run with several heads: the one that the page is about; default the first")
    similar: bool = switch("look for near-duplicates even among more than 50,000 faces")


COMMAND = Command(
    name="report",
    summary="write the page of a finished run, including older runs",
    example="report out/",
    options=ReportOptions,
)
