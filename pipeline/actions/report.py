"""`report`: the page of a finished run, also of one that an earlier version made, or whose photos have moved.

Not here: what the page holds (`pipeline/report/`). At the end of `label` the same page is written.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from typing import Any

from pipeline.commands.command import Context
from pipeline.commands.report import ReportOptions
from pipeline.errors import UsageError
from pipeline.report.run_report import RunReport
from pipeline.run.finished_run import finished_run
from pipeline.run.output_folder import OutputFolder
from pipeline.run.own_files import PAGE
from pipeline.run.plan import Layout, make_plan
from transforms.formats.publish import publish
from transforms.formats.records import Limits
from transforms.storage.retrying import patiently
from transforms.storage.store import InputFault


def run(options: ReportOptions, context: Context) -> int:
    """Writes `report.html` and `report.json` into the folder of the run, and notes them in its `run.json`.

    Raises:
        UsageError: there is no finished run, its files are not those it wrote, or --images finds nothing.
    """
    folder, _ = finished_run(options.run, flag="report")
    with folder.locked():
        folder, record = finished_run(folder.path, flag="report")
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="report-") as scratch:
            told = patiently(lambda: _report(options.images, folder, record, scratch)(record))
        spent = round(time.perf_counter() - started, 3)
        _note(folder, {**record, "report": {**told, "seconds": spent}})
    if not context.quiet:
        print(f"written: {os.path.join(folder.path, PAGE)}")
        if told["photos_missing"]:
            print(f"{told['photos_missing']:,} photos could not be read again: --images says where they lie now")
    return 0


def _report(images: tuple[str, ...], folder: OutputFolder, record: dict[str, Any], scratch: str) -> RunReport:
    """Returns what writes the page; where the inputs cannot be found, without pictures.

    Raises:
        UsageError, InputFault: --images names what cannot be read.
    """
    limits = _limits(record)
    layout = Layout(**record["layout"]) if "layout" in record else Layout(256, 64 * 2**20)
    own = (folder.path, str(record.get("cache_folder", "")) or os.path.join(folder.path, "cache"))
    try:
        plan = make_plan(images or tuple(record.get("inputs", ())), scratch, layout, limits, flag="--images", own=own)
    except (UsageError, InputFault) as error:
        if images:
            raise
        fault = str(error) if isinstance(error, InputFault) else "the inputs of the run are not there"
        return RunReport(folder.path, "", limits, fault=fault)
    return RunReport(folder.path, plan.blocks_file, limits)


def _limits(record: dict[str, Any]) -> Limits:
    read = record.get("settings", {}).get("read", {})
    usual = Limits()
    return Limits(read.get("max_image_bytes", usual.max_image_bytes), read.get("max_pixels", usual.max_pixels))


def _note(folder: OutputFolder, record: dict[str, Any]) -> None:
    text = (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
    patiently(lambda: publish(folder.record_file, lambda file: file.write(text)))
