"""What the last stage has to know (`finish_run.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.heads.output_spec import OutputSpec
from transforms.formats.submission.rules import SubmissionRules


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What the last stage has to know.

    Attributes:
        output: folder of the run. `parts`: folder of its parts.
        spec: what the head says of a face.
        run_fingerprint: digest that every part must carry.
        rows_per_file: of the final Parquet files.
        submission: rules of submission.csv; None for none.
        sample_submission: path of the file to follow, or None.
        max_rejected: share of images from which the run stops before merging, or None.
        expected_images: as planned, without those of streamed archives.
        streams: keys of the streamed archives; their marks say how many images they hold.
        exif: the parts have the columns of EXIF.
        report: writes a page about the run, given `run.json` as far as it goes, and returns what that is to say of it;
            None for no page. It is sent to workers, so it must be picklable.
        started: seconds since the epoch at which the command began.
        heartbeat: folder of worker processes' totals, "" when they share this process.
        record: what of `run.json` is known beforehand; {} if it is staged.
        staged_record: where it is then (`storage/staged_files.py`); "" for a local run.
    """

    output: str
    parts: str
    spec: OutputSpec
    run_fingerprint: str
    rows_per_file: int
    expected_images: int
    started: float
    heartbeat: str
    record: dict[str, Any]
    submission: SubmissionRules | None = None
    sample_submission: str | None = None
    max_rejected: float | None = None
    streams: tuple[str, ...] = ()
    exif: bool = False
    report: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    staged_record: str = ""
