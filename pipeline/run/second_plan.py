"""A plan of what a finished run read, made again later: to look at its photos a second time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.run.plan import Layout, make_plan
from transforms.formats.records import Limits
from transforms.storage.store import InputFault


@dataclass(frozen=True, slots=True)
class SecondPlan:
    """Where the photos of a run are now.

    Attributes:
        blocks: path of the lines of the plan; "" if there is none.
        limits: of images that are read again.
        fault: why there is no plan.
    """

    blocks: str
    limits: Limits
    fault: str = ""

    def lines(self) -> Iterator[bytes]:
        """Yields the lines of the plan; none if there is no plan."""
        if self.blocks:
            with open(self.blocks, "rb") as file:
                yield from file


def plan_again(folder: str, record: Mapping[str, Any], images: tuple[str, ...], scratch: str) -> SecondPlan:
    """Returns a plan of the inputs of a finished run; one without lines if they are no longer there.

    Args:
        folder: of the run. `record`: its `run.json`.
        images: patterns to read in place of the run's inputs; () reads those.
        scratch: an empty folder for the plan.

    Raises:
        UsageError, InputFault: `images` name what cannot be read.
    """
    limits = _limits(record)
    layout = Layout(**record["layout"]) if "layout" in record else Layout(256, 64 * 2**20)
    own = (folder, str(record.get("cache_folder", "")) or os.path.join(folder, "cache"))
    try:
        plan = make_plan(images or tuple(record.get("inputs", ())), scratch, layout, limits, flag="--images", own=own)
    except (UsageError, InputFault) as error:
        if images:
            raise
        return SecondPlan("", limits, str(error) if isinstance(error, InputFault) else GONE)
    return SecondPlan(plan.blocks_file, limits)


GONE = "the inputs of the run are not there"


def _limits(record: Mapping[str, Any]) -> Limits:
    read = record.get("settings", {}).get("read", {})
    usual = Limits()
    return Limits(read.get("max_image_bytes", usual.max_image_bytes), read.get("max_pixels", usual.max_pixels))
