"""`render`: what may be typed. The work is `pipeline/actions/render.py`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flag_values import count, margin, one_of, side
from pipeline.flags import Options, many, needed, one, parsed, position, switch

FORMATS = ("jpeg", "png")
USUAL_PHOTOS = 100  # where neither a number nor ids are given


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions(Options):
    """A run, which of its photos, and what is made of them."""

    run: str = position("RUN", "output folder of a finished run", required=True)
    output: str = needed("DIR", "folder of the pictures: new, empty, or of an earlier rendering, which is replaced")
    sample: int | None = parsed(count, "N", f"how many photos, drawn by the run's fingerprint; default {USUAL_PHOTOS}")
    ids: str | None = one("FILE", "only these images: an id a line, or a CSV with a column image_id")
    label: tuple[str, ...] = many("CLASS", "only photos with a face of one of these labels")
    crops: bool = switch("also the faces, in a folder for each label")
    margin: float | None = parsed(margin, "F", "around those, as a share of the face's side; default the run's own")
    sheets: bool = switch("also contact sheets")
    format: str | None = parsed(one_of(*FORMATS), "FORMAT", "jpeg (default) or png")
    size: int | None = parsed(side, "PX", "longer side of a picture, at most; default 1600")
    images: tuple[str, ...] = many("PATTERN", "where the photos are now, if not where the run read them")
    exact_csv: bool = switch("ids in index.csv as they are; default: a ' before = + - @, or a spreadsheet runs them")

    def __post_init__(self) -> None:
        if self.ids and (self.sample or self.label):
            raise UsageError(f"--ids names the photos; drop --{'sample' if self.sample else 'label'}")
        if self.margin is not None and not self.crops:
            raise UsageError("--margin is around the faces of --crops; give that too, or drop --margin")


COMMAND = Command(
    name="render",
    summary="write photos of a finished run with boxes and labels",
    example="render out/ --output pictures/ --sample 20 --sheets",
    options=RenderOptions,
)
