"""`render`: its flags. `pipeline/actions/render.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flag_values import count, margin, one_of, side
from pipeline.flags import Options, many, needed, one, parsed, position, switch

FORMATS = ("jpeg", "png")
USUAL_PHOTOS = 100  # if neither a number nor ids are given


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions(Options):
    """A run, which of its photos to render, and how."""

    run: str = position("RUN", "output folder of a finished run", required=True)
    output: str = needed("DIR", "folder for the pictures: new, empty, or of an earlier rendering, which is replaced")
    sample: int | None = parsed(count, "N", f"how many photos; each run always gets the same; default {USUAL_PHOTOS}")
    ids: str | None = one("FILE", "only these images: one id per line, or a CSV with a column image_id")
    head: str | None = one("NAME", "of a run with several heads: the one whose labels are drawn; default the first")
    label: tuple[str, ...] = many("CLASS", "only photos with a face that has one of these labels")
    crops: bool = switch("also write the faces, one folder per label")
    margin: float | None = parsed(
        margin, "F", "margin around these faces, as a share of the face's side; default: that of the run"
    )
    sheets: bool = switch("also write contact sheets")
    format: str | None = parsed(one_of(*FORMATS), "FORMAT", "jpeg (default) or png")
    size: int | None = parsed(side, "PX", "maximum longer side of a picture; default 1600")
    images: tuple[str, ...] = many("PATTERN", "where the photos are now, if not where the run read them")
    exact_csv: bool = switch("ids in index.csv unchanged; default: ' before = + - @, so that no spreadsheet runs them")

    def __post_init__(self) -> None:
        if self.ids and (self.sample or self.label):
            raise UsageError(f"--ids names the photos; drop --{'sample' if self.sample else 'label'}")
        if self.margin is not None and not self.crops:
            raise UsageError("--margin needs --crops, the faces that it surrounds; give both, or drop --margin")


COMMAND = Command(
    name="render",
    summary="draw boxes and labels on photos of a finished run",
    example="render out/ --output pictures/ --sample 20 --sheets",
    options=RenderOptions,
)
