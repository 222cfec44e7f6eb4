"""`compare`: its flags. `pipeline/actions/compare.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import flag_values
from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flags import Options, many, needed, parsed, position, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions(Options):
    """Two runs, and where to write the page."""

    a: str = position("A", "output folder of a finished run", required=True)
    b: str = position("B", "output folder of the run to compare with it", required=True)
    output: str = needed("DIR", "folder for the page and the differences")
    overwrite: bool = switch("replace the results of another comparison")
    images: tuple[str, ...] = many("PATTERN", "where the pictures are now, if not where the runs read them")
    head: tuple[str, ...] = many(
        "NAME", "of runs with several heads: the one to compare, or A's and B's; default the first"
    )
    rename_classes: tuple[str, ...] = many(
        "OTHER=CLASS", "B's label OTHER is A's label CLASS", parse=flag_values.class_text
    )
    min_iou: float | None = parsed(
        flag_values.fraction, "F", "overlap (IoU) below which two boxes of a face count as different; default 0.5"
    )
    seed: int | None = parsed(flag_values.seed, "N", "seed of the images shown and of the intervals; default 0")

    def __post_init__(self) -> None:
        if len(self.head) > 2:
            raise UsageError(f"--head takes one name, or A's and B's, not {len(self.head)}; drop the others")


COMMAND = Command(
    name="compare",
    summary="show what differs between two finished runs: pictures, tables and drift",
    example="compare out/haar out/one_shot --output out/compared",
    options=CompareOptions,
)
