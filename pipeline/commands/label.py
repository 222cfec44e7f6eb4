"""`label`: its flags. `pipeline/actions/label.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.commands.head_flag import heads
from pipeline.flag_values import count, fraction
from pipeline.flags import Options, many, needed, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions(Options):
    """What to label, and where to write results."""

    input: tuple[str, ...] = many(
        "PATTERN", "folders, archives, tables or wildcards; NAME=PATTERN puts NAME/ before the ids", required=True
    )
    output: str = needed("DIR", "folder for the results")
    cache: str | None = one("DIR", "feature cache; default OUTPUT/cache")
    head: tuple[str, ...] = heads()
    sample_submission: str | None = one("FILE", "CSV whose columns, ids and order to follow")
    dry_run: bool = switch("show what would be read, then exit")
    overwrite: bool = switch("replace the results of another run")
    max_rejected: float | None = parsed(fraction, "F", "stop once this fraction of the images is rejected")
    render: int | None = parsed(count, "N", "also write N photos with boxes and labels to OUTPUT/rendered")
    keep_parts: bool = switch("keep the working files in plan/ and parts/", setting="write.keep_parts")


COMMAND = Command(
    name="label",
    summary="label every face (the default command)",
    example="label --input photos/ --output out/",
    options=LabelOptions,
    settings=("read", "faces", "features", "head.path", "head.more", "write", "beam"),
    beam=True,
)
