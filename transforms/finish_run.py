"""The last stage: refuses a run with too many rejections, merges the parts, and writes `run.json`, last of all.

Inside the graph and idempotent, so that a runner may do it twice, also at once: temporary names are an attempt's own,
final names and bytes are the same, and an attempt that fails (its parts are gone) changes nothing. The merge itself is
`merge_parts.py`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.compute as pc

from transforms.block import PartInfo
from transforms.finish_in_store import RECORD, as_json, finish_in_store
from transforms.formats.parts import DamagedPart, PartMetadata, PartReader, is_part_name, part_info, read_part
from transforms.formats.publish import StorageError, publish
from transforms.formats.records import Status
from transforms.formats.shards.loose_files import NAMES_SHOWN
from transforms.formats.submission.sample import Sample, read_sample
from transforms.formats.submission.write import UnlabelledImages
from transforms.merge.account import AccountError, MergeResult
from transforms.merge.merge_parts import merge_parts
from transforms.merge_request import MergeRequest as MergeRequest
from transforms.staged import request_here
from transforms.storage.paths import is_object
from transforms.storage.retrying import with_retries
from transforms.storage.stopping import Stopped, check
from transforms.storage.store import open_file
from transforms.stream_marks import StreamMark, read_mark
from transforms.tally import TALLY, Totals, read_heartbeats, sum_of_totals

logger = logging.getLogger("pipeline.report")

RATED_BLOCKS = 4  # below it the first block is too much of the whole to be left out of a rate


class RunStopped(RuntimeError):
    """The run ends without its last step: a limit was passed or the submission cannot be made. Resumable."""


class FinishRun(beam.DoFn):
    """Runs once, when every part stands; yields the counts."""

    def process(self, request: MergeRequest, finished: Iterable[PartInfo]) -> Iterator[dict[str, int]]:
        worker_totals = [info.worker for info in finished]  # the parts themselves are on disk
        yield finish_run(request, worker_totals)


def finish_run(request: MergeRequest, worker_totals: Iterable[str] = ()) -> dict[str, int]:
    """Merges all parts of the run and writes `run.json`; returns its counts.

    Args:
        request: what there is to do.
        worker_totals: totals of the processes that wrote the parts (`Tally.as_text`).

    Raises:
        RunStopped: past `max_rejected`, or no submission can be written (Parquet is kept).
        DamagedPart: a part is damaged; it is removed, so that the same command does its block again.
        AccountError: images are missing. StorageError: the output cannot be written.
        InputFault: a staged file is gone.
    """
    request = request_here(request)
    if is_object(request.output):
        return finish_in_store(request, lambda here: _finished(here, worker_totals))
    record = _finished(request, worker_totals)
    with_retries(lambda: publish(os.path.join(request.output, RECORD), lambda file: file.write(as_json(record))))
    counts: dict[str, int] = record["counts"]
    return counts


def _finished(request: MergeRequest, worker_totals: Iterable[str]) -> dict[str, Any]:
    """Merges the parts of a local folder and writes all but `run.json`, which it returns."""
    names = with_retries(lambda: os.listdir(request.parts))
    paths = [os.path.join(request.parts, name) for name in sorted(names) if is_part_name(name)]
    with _damaged_removed(paths):
        cached = sum(_info(path, request.run_fingerprint).cached for path in paths)
        marks = _marks(request)
        _refuse_rejected(request.max_rejected, paths)
        with TALLY.clock("merge"):
            result = with_retries(lambda: _merge(request, paths, sum(mark.images for mark in marks)))
    TALLY.flush()
    totals = read_heartbeats(request.heartbeat) if request.heartbeat else sum_of_totals(worker_totals)
    record = _record(request, result, cached, marks, totals)
    if request.report is not None:
        record = _with_report(request.report, record, request.started)
    return record


@contextmanager
def _damaged_removed(paths: Sequence[str]) -> Iterator[None]:
    """Removes every damaged part as soon as one is met, so that the same command makes all of them anew."""
    try:
        yield
    except DamagedPart as error:
        if error.path not in paths:
            raise
        _remove(error.path)
        others = [path for path in paths if path != error.path and _is_damaged(path)]
        for path in others:
            _remove(path)
        message = str(error).rpartition("; remove it")[0] or str(error)
        more = f", as were {len(others)} others" if others else ""
        raise DamagedPart(f"{message}, so it was removed{more}, to be computed again", path=error.path) from error


def _remove(path: str) -> None:
    with_retries(lambda: Path(path).unlink(missing_ok=True))


def _is_damaged(path: str) -> bool:
    try:
        with PartReader(path) as reader:
            for _ in reader:
                check()
    except DamagedPart:
        return True
    return False


def _info(path: str, run_fingerprint: str) -> PartMetadata:
    info = with_retries(lambda: part_info(path))
    if info.run_fingerprint != run_fingerprint:
        raise DamagedPart(f"{path} belongs to another run; remove it, and the same command does its block again")
    return info


def _marks(request: MergeRequest) -> list[StreamMark]:
    """Returns what was seen of each streamed archive.

    Raises:
        AccountError: one was not read to its end.
    """
    found = [read_mark(request.parts, key) for key in request.streams]
    marks = [mark for mark in found if mark is not None]
    if len(marks) < len(found):
        raise AccountError(
            f"{len(found) - len(marks)} of {len(found)} streamed archives were not read to their end, so images "
            "may be missing"
        )
    return marks


def _refuse_rejected(limit: float | None, paths: Iterable[str]) -> None:
    if limit is None:
        return
    images = rejected = 0
    for path in paths:
        status = with_retries(partial(read_part, path))["status"]
        images += len(status)
        rejected += pc.sum(pc.equal(status, Status.REJECTED.value)).as_py() or 0
    if images and rejected / images > limit:
        raise RunStopped(
            f"{rejected:,} of {images:,} images were rejected, more than --max-rejected {limit:g}; nothing was merged: "
            "raise the limit, or fix the input"
        )


def _merge(request: MergeRequest, paths: list[str], streamed_images: int) -> MergeResult:
    try:
        return merge_parts(
            paths,
            request.output,
            spec=request.spec,
            exif=request.exif,
            rows_per_file=request.rows_per_file,
            submission=request.submission,
            sample=_sample(request),
            expected_images=request.expected_images + streamed_images,
        )
    except UnlabelledImages as error:
        raise RunStopped(f"{error}; predictions/ and images/ are written") from error


def _sample(request: MergeRequest) -> Sample | None:
    if request.submission is None or request.sample_submission is None:
        return None
    with open_file(request.sample_submission) as file:
        return read_sample(file, classes=request.spec.classes, rules=request.submission, name=request.sample_submission)


def _with_report(
    write: Callable[[Mapping[str, Any]], dict[str, Any]], record: dict[str, Any], started: float
) -> dict[str, Any]:
    """Returns the record with what it says of the page; a page that fails costs no run its results.

    Raises:
        StorageError, Stopped: the page cannot be written, so `run.json` cannot either; or the run is to end.
    """
    before = time.perf_counter()
    try:
        report = with_retries(lambda: write(record))
    except (StorageError, Stopped):
        raise
    except Exception as error:  # noqa: BLE001 - days of work stand, and `report` makes the page later
        logger.warning("no page was written: unforeseen %s: %s", type(error).__name__, " ".join(str(error).split()))
        report = {"files": [], "fault": f"{type(error).__name__}: {error}"}
    spent = time.perf_counter() - before
    return {**record, "report": {**report, "seconds": round(spent, 3), "seconds_with_page": time.time() - started}}


def _record(
    request: MergeRequest, result: MergeResult, cached: int, marks: Sequence[StreamMark], totals: Totals
) -> dict[str, Any]:
    """Returns `run.json`, without what it says of the page."""
    counts, written = result.counts, result.submission
    return {
        **request.record,
        "skipped_files": _skipped(request.record.get("skipped_files", {}), marks),
        "counts": counts,
        "labels": result.labels,
        **({"more_labels": result.more_labels} if result.more_labels else {}),
        "reasons": result.reasons,
        "accuracy": {"known": result.known, "correct": result.correct} if result.known else None,
        "cache": {"cached": cached, "computed": counts["images"] - cached, "damaged": totals.damaged},
        "device": totals.devices,
        "seconds": _seconds(request, totals),
        "parts": [
            {
                "path": file.name,
                "rows": file.rows,
                "bytes": os.path.getsize(os.path.join(request.output, file.name)),
                "sha256": file.digest,
            }
            for file in result.files
        ],
        "submission": None if written is None else asdict(written),
        "notes": written.sample.notes() if written is not None and written.sample is not None else [],
    }


def _skipped(planned: Mapping[str, Any], marks: Sequence[StreamMark]) -> dict[str, Any]:
    """Returns number and first names of all that was passed over: seen while planning, and while streaming."""
    names = [*planned.get("names", ()), *(name for mark in marks for name in mark.skipped_names)]
    return {"count": planned.get("count", 0) + sum(mark.skipped for mark in marks), "names": names[:NAMES_SHOWN]}


def _seconds(request: MergeRequest, totals: Totals) -> dict[str, Any]:
    """Returns wall and CPU times, and two rates.

    `images_per_s` is that of all blocks, from the first byte read to the last part written, without the start of the
    runtime. `images_per_s_first_to_last_block` takes nothing off: the images of all blocks but the first, by the time
    from the moment the first block had its features to the last part written; None with too few blocks to tell.
    """
    between = totals.last_block_at - totals.first_block_at
    rated = totals.blocks >= RATED_BLOCKS and between > 0
    work = totals.last_block_at - totals.began_at - totals.runtime_s if totals.blocks else 0.0
    return {
        "total": time.time() - request.started,
        "to_first_block": max(0.0, totals.first_block_at - request.started) if totals.first_block_at else None,
        "first_to_last_block": between,
        "first_to_last_block_cpu": totals.last_block_cpu - totals.first_block_cpu,
        "work": work,
        "work_cpu": totals.last_block_cpu - totals.began_cpu - totals.runtime_cpu if totals.blocks else 0.0,
        "runtime_start": totals.runtime_s,
        "images_per_s": totals.images / work if work > 0 else None,
        "images_per_s_first_to_last_block": (totals.images - totals.images_in_first_block) / between if rated else None,
        "by_stage": {stage: round(spent, 3) for stage, spent in sorted(totals.seconds.items())},
        "by_stage_cpu": {stage: round(spent, 3) for stage, spent in sorted(totals.cpu.items())},
    }
