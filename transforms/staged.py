"""What a stage works with on its own machine: staged files, in place of the paths that only the driver could open."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transforms.job import Job
from transforms.merge_request import MergeRequest

HEAD, WEIGHTS, DETECTOR, LABELS, SAMPLE, RECORD = "head", "weights", "detector", "labels", "sample", "record"
_SETTERS: dict[str, Callable[[Job, str], Job]] = {
    HEAD: lambda job, path: replace(job, head=path),
    WEIGHTS: lambda job, path: replace(job, features=replace(job.features, weights=path)),
    DETECTOR: lambda job, path: replace(
        job, detector=replace(job.detector, options=_with_model(job.detector.options, path))
    ),
    LABELS: lambda job, path: replace(job, labels=path),
}


def with_path(job: Job, role: str, path: str) -> Job:
    """Returns the job with another path of its head, weights, detector or labels."""
    return _SETTERS[role](job, path)


def _with_model(options: Any, path: str) -> Any:
    return replace(options, model=path)


def job_here(job: Job) -> Job:
    """Returns the job with the paths of its staged files on this machine; unchanged if nothing is staged.

    Raises:
        InputFault: a staged file is gone or damaged.
    """
    for role, files in job.staged:
        job = with_path(job, role, files.fetched())
    return job


def request_here(request: MergeRequest) -> MergeRequest:
    """Returns the request with its sample submission and its record on this machine; unchanged if nothing is staged.

    Raises:
        InputFault: a staged file is gone or damaged.
    """
    staged = dict(request.staged)
    if SAMPLE in staged:
        request = replace(request, sample_submission=staged[SAMPLE].fetched())
    if RECORD in staged:
        with open(staged[RECORD].fetched(), "rb") as file:
            request = replace(request, record=json.load(file))
    return request
