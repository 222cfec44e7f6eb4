"""`label-local`: its flags. `pipeline/actions/label_local.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.commands.head_flag import heads
from pipeline.flag_values import one_of
from pipeline.flags import Options, needed, parsed, switch

TABLES = ("parquet", "csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLocalOptions(Options):
    """Which folder, and where its tables go."""

    input: str = needed("FOLDER", "photos, also in folders below it")
    output: str = needed("DIR", "folder of the tables predictions and images")
    head: tuple[str, ...] = heads()
    table: str | None = parsed(
        one_of(*TABLES), "FORMAT", "parquet or csv; default parquet where pyarrow is installed, else csv"
    )
    overwrite: bool = switch("replace tables that already exist")


COMMAND = Command(
    name="label-local",
    summary="label the photos of one folder without Beam: small, no cache, no resuming",
    example="label-local --input photos/ --output out/",
    options=LabelLocalOptions,
    settings=("faces", "features", "head.path", "head.more", "read.max_image_bytes", "read.max_pixels"),
    settings_unused=("features.batch_size",),
    defaults={"features.runtime": "onnx"},
)
