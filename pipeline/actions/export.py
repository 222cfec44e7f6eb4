"""`export`: the faces of a finished run as CSV, COCO, labelme, FiftyOne or MegaDetector files.

Not here: the formats (`transforms/formats/exports/`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from pipeline.commands.command import Context
from pipeline.commands.export import ExportOptions
from pipeline.errors import UsageError
from pipeline.run.finished_run import finished_run
from pipeline.run.heads_of_run import RunHead, class_head_called, head_called, heads_of
from pipeline.run.output_folder import OutputFolder
from pipeline.run.own_files import LOCK, refuse_among_results
from pipeline.run.progress import counting_bar
from transforms.formats.exports.exported import MADE_BY, Exported, Run
from transforms.formats.exports.registry import EXPORTS, ExportFormat
from transforms.formats.publish import is_temporary

_START = 64  # bytes at the start of a file that contain our mark


def run(options: ExportOptions, context: Context) -> int:
    """Writes the export and prints a summary.

    Raises:
        UsageError: there is no finished run, it has no such head, or something else is at the output path.
    """
    folder, record = finished_run(options.run, flag="export")
    refuse_among_results(options.output, folder.path)
    form = EXPORTS[str(options.format)]
    head = _head(form, record, options)
    images = int(record["counts"]["images"])
    with counting_bar(images, "images", quiet=context.quiet) as done:
        exported = Run(
            folder.path,
            head.classes,
            str(record.get("run_fingerprint", "")),
            exact=options.exact_csv,
            done=done,
            prefix=head.prefix,
            answer=next(iter(head.columns)),
            columns=_columns(record, head) if options.head is not None else {},
        )
        summary = _into_folder(form, exported, options) if form.names is not None else _to_file(form, exported, options)
    if not context.quiet:
        print(_closing_words(form, summary, options.output))
    return 0


def _head(form: ExportFormat, record: Mapping[str, Any], options: ExportOptions) -> RunHead:
    if form.numbers:
        return head_called(record, options.head)
    return class_head_called(record, options.head, f"export --format {options.format}")


def _columns(record: Mapping[str, Any], chosen: RunHead) -> dict[str, str | None]:
    """Returns how a table shows the columns of all heads: those of one head as in a run of its own, no others."""
    others = {name: None for head in heads_of(record) for name in head.columns}
    return {**others, **chosen.columns}


def _to_file(form: ExportFormat, exported: Run, options: ExportOptions) -> Exported:
    path = options.output
    if os.path.isdir(path):
        raise UsageError(f"--output {path} is a folder, but {options.format} is one file; give a file name")
    if os.path.lexists(path) and not options.overwrite:
        raise UsageError(f"--output {path} already exists; give another name, or --overwrite")
    return form.write(exported, path)


def _into_folder(form: ExportFormat, exported: Run, options: ExportOptions) -> Exported:
    path = options.output
    assert form.names is not None
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UsageError(f"--output {path} is a file, but {options.format} needs a folder; give a folder")
    _own_files(path, form.names)
    with OutputFolder(path).locked():
        for name in _own_files(path, form.names):
            os.unlink(os.path.join(path, name))
        return form.write(exported, path)


def _own_files(folder: str, names: re.Pattern[str]) -> list[str]:
    """Returns the files of an earlier export.

    Raises:
        UsageError: the folder contains other files.
    """
    try:
        found = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"--output {folder}: {error.strerror}; give a readable and writable folder") from error
    for name in found:
        if name != LOCK and not is_temporary(name) and not (names.fullmatch(name) and _is_ours(folder, name)):
            raise UsageError(f"--output {folder} contains {name}, which no export wrote; give an empty folder")
    return [name for name in found if name != LOCK]


def _is_ours(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return False
    with open(path, "rb") as file:
        return MADE_BY.encode() in file.read(_START)


def _closing_words(form: ExportFormat, summary: Exported, output: str) -> str:
    lines = [f"{summary.faces:,} faces of {summary.images:,} images in {output}"]
    if summary.unlabelled:
        lines.append(f"{summary.unlabelled:,} of the faces have no label")
    if summary.left_out:
        lines.append(f"{summary.left_out:,} images are not included: {form.left_out}")
    return "\n".join(lines)
