"""Settings as a stage uses them on its own machine: with the copies there of files that only the driver had."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from models.detectors.registry import DetectorSpec
from transforms.merge_request import MergeRequest
from transforms.storage.staged_files import local_path


def detector_here(spec: DetectorSpec) -> DetectorSpec:
    """Returns the detector with its model on this machine.

    Raises:
        InputFault: a staged file is gone or damaged.
    """
    options: Any = spec.options
    model = getattr(options, "model", None)
    return spec if model is None else replace(spec, options=replace(options, model=local_path(model)))


def request_here(request: MergeRequest) -> MergeRequest:
    """Returns the request with its sample submission and its record on this machine.

    Raises:
        InputFault: a staged file is gone or damaged.
    """
    if request.sample_submission is not None:
        request = replace(request, sample_submission=local_path(request.sample_submission))
    if not request.staged_record:
        return request
    with open(local_path(request.staged_record), "rb") as file:
        return replace(request, record=json.load(file))
