"""The table of export formats. A new format is a file in this folder and a line here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from transforms.formats.exports import fiftyone, labelme
from transforms.formats.exports.coco import write_coco
from transforms.formats.exports.exported import Exported, Run
from transforms.formats.exports.flat_csv import write_csv
from transforms.formats.exports.megadetector import write_megadetector


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A line of the table.

    Attributes:
        write: writes the run to a path: a file, or into a folder that exists.
        left_out: what the format has no place for, in words.
        names: of the files in its folder; None if it writes one file.
        numbers: it has a place for a head that gives a number.
    """

    write: Callable[[Run, str], Exported]
    left_out: str
    names: re.Pattern[str] | None = None
    numbers: bool = False


_NOT_SEARCHED = "rejected images and repeated ids"
EXPORTS = {
    "csv": ExportFormat(write_csv, "images without a face", numbers=True),
    "coco": ExportFormat(write_coco, _NOT_SEARCHED),
    "labelme": ExportFormat(labelme.write_labelme, _NOT_SEARCHED, labelme.NAME),
    "fiftyone": ExportFormat(fiftyone.write_fiftyone, _NOT_SEARCHED, re.compile("|".join(sorted(fiftyone.FILES)))),
    "megadetector": ExportFormat(write_megadetector, "repeated ids"),
}
