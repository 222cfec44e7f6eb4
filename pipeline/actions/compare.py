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
from pipeline.run.heads_of_run import RunHead, about_head, class_head_called, heads_of
from pipeline.run.inputs_again import inputs_again
from pipeline.run.output_folder import OutputFolder
from pipeline.run.rename_classes import class_pairs

MIN_IOU, SEED = 0.5, 0


def run(options: CompareOptions, context: Context) -> int:
    """Writes `comparison.html`, `comparison.json` and `differences.parquet` into the output folder.

    Raises:
        UsageError: a run is not finished, its files have changed, it has no such head, the output is one of the runs,
            --images finds nothing, --rename-classes names no label of B, or the output folder holds other results.
    """
    runs = [finished_run(path, flag="compare") for path in (options.a, options.b)]
    heads = _heads(options.head, [record for _, record in runs])
    renamed = _renamed(options.rename_classes, heads[1].classes)
    output = OutputFolder(options.output)
    if any(os.path.realpath(output.path) == os.path.realpath(folder.path) for folder, _ in runs):
        raise UsageError(f"--output {options.output} is one of the runs; give another folder")
    with output.locked(), tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        a, b = (
            _finished(folder.path, record, head, options, os.path.join(scratch, name))
            for (folder, record), head, name in zip(runs, heads, "ab", strict=True)
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


def _heads(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[RunHead]:
    """Returns the compared head of A and of B; one name chooses in the runs that have several heads.

    Raises:
        UsageError: a run has no such head, or it gives a number.
    """
    of_a, of_b = (names or (None,))[0], (names or (None,))[-1]
    several = [len(heads_of(record)) > 1 for record in records]
    if len(names) == 1 and any(several):
        of_a, of_b = (names[0] if choice else None for choice in several)
    return [class_head_called(record, name, "compare") for record, name in zip(records, (of_a, of_b), strict=True)]


def _finished(
    folder: str, record: Mapping[str, Any], head: RunHead, options: CompareOptions, scratch: str
) -> FinishedRun:
    os.makedirs(scratch)
    inputs = inputs_again(folder, record, options.images, scratch)
    source = Source(inputs.lines if inputs.blocks else None, inputs.limits, inputs.fault)
    return FinishedRun(folder, {**record, "head": about_head(record, head)}, source, head.prefix)


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
