"""`report`: writes the page of a finished run, including runs of earlier versions or with moved photos.

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
from pipeline.report.run_report import SIMILAR_UP_TO, RunReport
from pipeline.run.detector_of_run import detector_of_run
from pipeline.run.finished_run import finished_run
from pipeline.run.heads_of_run import class_head_called
from pipeline.run.inputs_again import inputs_again
from pipeline.run.output_folder import OutputFolder
from pipeline.run.own_files import PAGE
from transforms.formats.publish import publish
from transforms.storage.retrying import with_retries


def run(options: ReportOptions, context: Context) -> int:
    """Writes `report.html` and `report.json` into the run's folder, and adds them to its `run.json`.

    Raises:
        UsageError: there is no finished run, its files have changed, or --images finds nothing.
    """
    folder, record = finished_run(options.run, flag="report")
    class_head_called(record, options.head, "report")
    with folder.locked():
        folder, record = finished_run(folder.path, flag="report")
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="report-") as scratch:
            entry = with_retries(lambda: _report(options, folder, record, scratch)(record))
        spent = round(time.perf_counter() - started, 3)
        _note(folder, {**record, "report": {**entry, "seconds": spent}})
    if not context.quiet:
        print(f"written: {os.path.join(folder.path, PAGE)}")
        if entry["photos_missing"]:
            print(f"{entry['photos_missing']:,} photos could not be read again; give --images with their new place")
    return 0


def _report(options: ReportOptions, folder: OutputFolder, record: dict[str, Any], scratch: str) -> RunReport:
    """Returns the writer of the page; without pictures if the inputs cannot be found.

    Raises:
        UsageError, InputFault: --images cannot be read.
    """
    inputs = inputs_again(folder.path, record, options.images, scratch)
    similar_up_to = None if options.similar else SIMILAR_UP_TO
    return RunReport(
        folder.path,
        inputs.blocks,
        inputs.limits,
        fault=inputs.fault,
        searching=detector_of_run(record),
        similar_up_to=similar_up_to,
        head=options.head,
    )


def _note(folder: OutputFolder, record: dict[str, Any]) -> None:
    text = (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
    with_retries(lambda: publish(folder.record_file, lambda file: file.write(text)))
