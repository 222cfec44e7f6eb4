"""Compares what a run started with and what its stages load later, perhaps hours later or on another machine.

Files are named by path, results by digest. If a file were replaced in between, results would get the wrong digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from transforms.job import Job
from transforms.storage.faults import FileChanged

WEIGHTS, REVISION, DETECTOR, HEAD = "weights", "device revision", "detector", "head"
LABELS = "labels"


def provenance(values: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Returns the value of `Job.provenance`: (name, text) pairs."""
    return tuple((name, _text(value)) for name, value in values.items())


def refuse_another(job: Job, found: Mapping[str, object]) -> None:
    """Raises FileChanged if a stage has loaded something other than what the run started with.

    Args:
        found: what was loaded, by its name here; names that the job does not have are ignored.
    """
    begun_with = dict(job.provenance)
    for name, value in found.items():
        if name in begun_with and _text(value) != begun_with[name]:
            raise FileChanged(None, _fault(job, name))


def _fault(job: Job, name: str) -> str:
    if name == REVISION:
        return "a worker has another version of this program; install the same version everywhere"
    path = {
        WEIGHTS: job.features.weights,
        HEAD: job.head,
        LABELS: job.labels,
        DETECTOR: getattr(job.detector.options, "model", None) or job.detector.name,
    }[name]
    return f"{name} {path} has changed since the run started; restore the file"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
