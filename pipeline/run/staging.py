"""Which files of this machine travel with a run: head, weights, a detector's model, labels, a sample submission.

Bundled ones travel by name, and objects are opened where they are. Not here: how a worker gets the files
(`transforms/storage/staged_files.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from models.backbones.registry import backbone
from models.heads.registry import BUNDLED_HEADS, files_of_head
from pipeline.errors import StoppedError
from transforms.job import Job
from transforms.merge_request import MergeRequest
from transforms.staged import DETECTOR, HEAD, LABELS, RECORD, SAMPLE, WEIGHTS, with_path
from transforms.storage.paths import is_local
from transforms.storage.staged_files import FAILURE, FOLDER, StagedFiles
from transforms.storage.stores import Store, store_of

SHIPPED = ("bundled", "random")  # weights that every worker has


class Staging:
    """Puts files of this machine beside the plan of a run, under their digests."""

    def __init__(self, place: str) -> None:
        """Takes the output folder, or the prefix in a store, as workers see it."""
        self._place = f"{place.rstrip('/')}/{FOLDER}"
        self._store: Store = store_of(self._place)

    def job(self, job: Job) -> Job:
        """Returns the job with staged files in place of this machine's paths.

        Raises:
            StoppedError: a file cannot be read. StorageError: one cannot be sent.
        """
        staged: list[tuple[str, StagedFiles]] = []
        for role, folder, names, main in _own_files(job):
            staged.append((role, self._sent(folder, names, main)))
            job = with_path(job, role, f"{FOLDER}:{role}")
        return replace(job, staged=tuple(staged), tell=self._place)

    def forget(self) -> None:
        """Removes what workers of an earlier job said."""
        self._store.delete([FAILURE])

    def complaint(self) -> str:
        """Returns why a worker could not start, as a traceback ends; "" if none did."""
        try:
            found = self._store.get(FAILURE)
        except OSError:  # asked again soon
            return ""
        return "" if found is None else found[0].decode(errors="replace")

    def request(self, request: MergeRequest) -> MergeRequest:
        """Returns the request with its sample submission and its record staged: both state paths of this machine."""
        text = json.dumps(request.record, default=str).encode()
        staged = [(RECORD, self._sent_bytes("record.json", text))]
        sample = request.sample_submission
        if sample is not None and is_local(sample):
            folder, name = os.path.split(os.path.abspath(sample))
            staged.append((SAMPLE, self._sent(folder, [name], name)))
            request = replace(request, sample_submission=f"{FOLDER}:{SAMPLE}")
        return replace(request, record={}, staged=tuple(staged))

    def _sent(self, folder: str, names: Sequence[str], main: str) -> StagedFiles:
        return StagedFiles(self._place, tuple((name, self._put(os.path.join(folder, name))) for name in names), main)

    def _put(self, path: str) -> str:
        """Sends a file unless it is there already, and returns its digest."""
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if self._store.size(digest) != os.path.getsize(path):
                self._store.put(digest, path)
        except FileNotFoundError as error:
            raise StoppedError(f"{path} is gone; put it back and run the same command again") from error
        return digest

    def _sent_bytes(self, name: str, data: bytes) -> StagedFiles:
        with tempfile.TemporaryDirectory(prefix="facelabel-") as folder:
            path = os.path.join(folder, name)
            with open(path, "wb") as file:
                file.write(data)
            return self._sent(folder, [name], name)


def _own_files(job: Job) -> list[tuple[str, str, list[str], str]]:
    """Returns role, folder, names and main name of each group of files that only this machine has."""
    found: list[tuple[str, str, list[str], str]] = []
    if job.head and job.head not in BUNDLED_HEADS:
        folder, names, main = files_of_head(job.head)
        found.append((HEAD, str(folder), list(names), main))
    weights = job.features.weights
    if weights not in SHIPPED:
        found.append(_one(WEIGHTS, str(backbone(job.features.backbone).weights_path(weights))))
    model = getattr(job.detector.options, "model", None)
    if model:
        found.append(_one(DETECTOR, model))
    if job.labels and is_local(job.labels):
        found.append(_one(LABELS, job.labels))
    return found


def _one(role: str, path: str) -> tuple[str, str, list[str], str]:
    folder, name = os.path.split(os.path.abspath(path))
    return role, folder, [name], name
