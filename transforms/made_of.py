"""What a run was begun with, held against what its stages load later, perhaps hours later or on another machine.

Files are named by paths, results by digests: a file that was replaced in between would be kept under the wrong digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from transforms.job import Job
from transforms.storage.store import FileChanged

WEIGHTS, BACKEND, REVISION, DETECTOR, HEAD = "weights", "backend", "device revision", "detector", "head"


def made_of(values: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Returns what `Job.made_of` holds: names and one text each."""
    return tuple((name, _text(value)) for name, value in values.items())


def refuse_another(job: Job, found: Mapping[str, object]) -> None:
    """Raises FileChanged if something a stage has loaded is not what the run was begun with.

    Args:
        found: what was loaded, by its name here; what the job does not name is not looked at.
    """
    begun_with = dict(job.made_of)
    for name, value in found.items():
        if name in begun_with and _text(value) != begun_with[name]:
            raise FileChanged(None, _fault(job, name, _text(value), begun_with[name]))


def _fault(job: Job, name: str, found: str, before: str) -> str:
    if name == BACKEND:
        return (
            f"Keras computes with {found} where the run was begun with {before}: set KERAS_BACKEND={before} there too"
        )
    if name == REVISION:
        return "a worker has another version of this program: install the same one everywhere"
    path = {
        WEIGHTS: job.features.weights,
        HEAD: job.head,
        DETECTOR: getattr(job.detector.options, "model", None) or job.detector.name,
    }[name]
    return f"{name} {path} changed since the run was begun: put the file back"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
