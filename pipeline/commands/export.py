"""`export`: its flags. `pipeline/actions/export.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flag_values import one_of
from pipeline.flags import Options, needed, one, parsed, position, switch

FORMATS = ("csv", "coco", "labelme", "fiftyone", "megadetector")  # those of the registry of exports: a test compares


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions(Options):
    """A run, and the format to export its faces to."""

    run: str = position("RUN", "output folder of a finished run", required=True)
    format: str | None = parsed(one_of(*FORMATS), "FORMAT", ", ".join(FORMATS))
    output: str = needed("PATH", "the file to write; a folder for labelme and fiftyone")
    head: str | None = one("NAME", "of a run with several heads: the one to export; default all in csv, else the first")
    overwrite: bool = switch("replace an existing file")
    exact_csv: bool = switch("texts of csv unchanged; default: ' before = + - @, so that no spreadsheet runs them")

    def __post_init__(self) -> None:
        if self.format is None:
            raise UsageError(f"export needs --format, one of {', '.join(FORMATS)}; see --help")


COMMAND = Command(
    name="export",
    summary="write the faces of a finished run for other programs",
    example="export out/ --format csv --output faces.csv",
    options=ExportOptions,
)
