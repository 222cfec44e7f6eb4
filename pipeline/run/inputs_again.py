"""Finds the images of a finished run, to read a few of them again for pictures.

Not here: reading them (`transforms/read_again.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.run.plan import Layout, make_plan
from transforms.formats.records import Limits
from transforms.storage.stopping import check
from transforms.storage.store import InputFault

GONE = "the run's inputs cannot be found"


@dataclass(frozen=True, slots=True)
class InputsAgain:
    """A plan of a run's current inputs.

    Attributes:
        blocks: path of its lines; "" if the inputs cannot be found.
        limits: of the images, as in the run.
        fault: why there is no plan.
    """

    blocks: str
    limits: Limits
    fault: str = ""

    def lines(self) -> Iterator[bytes]:
        """Yields the lines of the plan; none if there is no plan."""
        if not self.blocks:
            return
        with open(self.blocks, "rb") as file:
            for line in file:
                check()
                yield line


def inputs_again(folder: str, record: Mapping[str, Any], images: Sequence[str], scratch: str) -> InputsAgain:
    """Plans the inputs of a finished run again.

    Args:
        folder: its output folder. `record`: its `run.json`.
        images: patterns to read instead of the run's inputs; empty for the run's inputs.
        scratch: folder for the plan.

    Raises:
        UsageError, InputFault: `images` cannot be read.
    """
    limits = _limits(record)
    layout = Layout(**record["layout"]) if "layout" in record else Layout(256, 64 * 2**20)
    own = (folder, str(record.get("cache_folder", "")) or os.path.join(folder, "cache"))
    try:
        plan = make_plan(
            tuple(images) or tuple(record.get("inputs", ())), scratch, layout, limits, flag="--images", own=own
        )
    except (UsageError, InputFault) as error:
        if images:
            raise
        return InputsAgain("", limits, str(error) if isinstance(error, InputFault) else GONE)
    return InputsAgain(plan.blocks_file, limits)


def _limits(record: Mapping[str, Any]) -> Limits:
    read = record.get("settings", {}).get("read", {})
    usual = Limits()
    return Limits(read.get("max_image_bytes", usual.max_image_bytes), read.get("max_pixels", usual.max_pixels))
