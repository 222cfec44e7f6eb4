"""`compare`: shows what differs between two finished runs. It reads their outputs, their caches and a few pictures.

Not here: what a difference is, and what the page holds (`pipeline/report/two_runs/`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.commands.command import Context
from pipeline.commands.compare import CompareOptions
from pipeline.errors import UsageError
from pipeline.report.two_runs.comparison_report import (
    DIFFERENCES,
    NUMBERS,
    PAGE,
    Comparison,
    FinishedRun,
    write_comparison,
)
from pipeline.report.two_runs.differences import Kind
from pipeline.report.two_runs.pair_pictures import Source
from pipeline.run.claim import Work, asked, claim
from pipeline.run.finished_run import finished_run
from pipeline.run.heads_of_run import heads_of, refuse_numbers
from pipeline.run.inputs_again import inputs_again
from pipeline.run.output_folder import OutputFolder
from pipeline.run.rename_classes import class_pairs

MIN_IOU, SEED = 0.5, 0


def run(options: CompareOptions, context: Context) -> int:
    """Writes `comparison.html`, `comparison.json` and `differences.parquet` into the output folder.

    Raises:
        UsageError: a run is not finished, its files have changed, the output is one of the runs, --images
            finds nothing, --rename-classes names no label of B, or the output folder holds other results.
    """
    runs = [finished_run(path, flag="compare") for path in (options.a, options.b)]
    for _, record in runs:
        refuse_numbers(heads_of(record)[0], "compare")
    renamed = _renamed(options.rename_classes, runs[1][1]["head"]["classes"])
    output = OutputFolder(options.output)
    if any(os.path.realpath(output.path) == os.path.realpath(folder.path) for folder, _ in runs):
        raise UsageError(f"--output {options.output} is one of the runs; give another folder")
    with output.locked(), tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        a, b = (
            _finished(folder.path, record, options, os.path.join(scratch, name))
            for (folder, record), name in zip(runs, "ab", strict=True)
        )
        claim(output.path, _work(options, a.record, b.record), overwrite=options.overwrite)
        found = write_comparison(
            output.path,
            a,
            b,
            min_iou=MIN_IOU if options.min_iou is None else options.min_iou,
            seed=SEED if options.seed is None else options.seed,
            renamed=renamed,
        )
    if not context.quiet:
        print(closing_words(found, output.path))
    return 0


def _work(options: CompareOptions, *records: Mapping[str, Any]) -> Work:
    runs = [[record.get("run_fingerprint"), record.get("inputs_digest")] for record in records]
    identity = {"options": asked(options, besides=("a", "b", "images")), "runs": runs}
    return Work(command="compare", files=(PAGE, NUMBERS, DIFFERENCES), identity=identity, proof=NUMBERS)


def _renamed(given: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Returns A's name of a label by B's name of it.

    Raises:
        UsageError: a pair names a label that B lacks, or an empty label.
    """
    renamed = {}
    for other, name in class_pairs(given, "happiness=happy").items():
        if other not in classes:
            raise UsageError(
                f"--rename-classes {other}={name or ''}: B has no label {other}; its labels are {', '.join(classes)}"
            )
        if name is None:
            raise UsageError(f"--rename-classes {other}=: compare cannot exclude a label; give {other}=CLASS")
        renamed[other] = name
    return renamed


def _finished(folder: str, record: Mapping[str, Any], options: CompareOptions, scratch: str) -> FinishedRun:
    os.makedirs(scratch)
    inputs = inputs_again(folder, record, options.images, scratch)
    return FinishedRun(folder, record, Source(inputs.lines if inputs.blocks else None, inputs.limits, inputs.fault))


def closing_words(found: Comparison, output: str) -> str:
    """Returns a summary of a few lines."""
    images, faces = found.numbers["images"], found.numbers["faces"]
    kinds = {kind: counts["rows"] for kind, counts in found.numbers["differences"].items()}
    lines = [
        f"{images['both']:,} images in both runs, {kinds[Kind.IMAGE_ONLY_IN_A]:,} only in A, "
        f"{kinds[Kind.IMAGE_ONLY_IN_B]:,} only in B; {images['with_differences']:,} images differ",
        f"{faces['both']:,} faces in both, {kinds[Kind.FACE_ONLY_IN_A]:,} only in A, {kinds[Kind.FACE_ONLY_IN_B]:,} "
        f"only in B; {kinds[Kind.LABEL]:,} with another label, {kinds[Kind.BOX]:,} with another box",
    ]
    if found.pictures_missing:
        missing = found.pictures_missing
        what = "photo" if missing == 1 else "photos"
        lines.append(f"{missing:,} {what} could not be read again; give --images with their new place")
    return "\n".join([*lines, f"page: {os.path.join(output, PAGE)}"])
