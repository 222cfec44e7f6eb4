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
from typing import Any

from models.backbones.registry import backbone
from models.heads.registry import BUNDLED_HEADS, files_of_head
from pipeline.errors import StoppedError
from transforms.job import Job
from transforms.merge_request import MergeRequest
from transforms.provenance import Provenance, Source
from transforms.storage.paths import is_local
from transforms.storage.staged_files import FAILURE, FOLDER, StagedFiles
from transforms.storage.stores import Store, store_of

SHIPPED = ("bundled", "random")  # weights that every worker has


class Staging:
    """Puts files of this machine beside the plan of a run, under their digests.

    Attributes:
        place: folder or prefix of the files, as workers see it.
    """

    def __init__(self, place: str) -> None:
        """Takes the output folder, or the prefix in a store, as workers see it."""
        self.place = f"{place.rstrip('/')}/{FOLDER}"
        self._store: Store = store_of(self.place)

    def job(self, job: Job) -> Job:
        """Returns the job with staged files in place of this machine's paths.

        Raises:
            StoppedError: a file cannot be read. StorageError: one cannot be sent.
        """
        features, detecting, reading, labelling = job.features, job.detecting, job.reading, job.labelling
        if features.weights not in SHIPPED:
            path = backbone(features.backbone).weights_path(features.weights)
            features = replace(features, weights=self._file(str(path)))
        options: Any = detecting.detector.options
        if getattr(options, "model", None):
            spec = replace(detecting.detector, options=replace(options, model=self._file(options.model)))
            detecting = replace(detecting, detector=spec)
        if reading.labels and is_local(reading.labels):
            reading = replace(reading, labels=self._file(reading.labels))
        if labelling is not None:
            more = tuple(map(self._head, labelling.more))
            labelling = replace(labelling, head=self._head(labelling.head), more=more)
        return replace(
            job,
            features=features,
            detecting=detecting,
            reading=reading,
            labelling=labelling,
            provenance=Provenance(tuple(map(_without_folder, job.provenance.sources)), self.place),
        )

    def request(self, request: MergeRequest) -> MergeRequest:
        """Returns the request with its sample submission and its record staged: both state paths of this machine."""
        sample = request.sample_submission
        if sample is not None and is_local(sample):
            request = replace(request, sample_submission=self._file(sample))
        with tempfile.TemporaryDirectory(prefix="facelabel-") as folder:
            path = os.path.join(folder, "record.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(request.record, file, default=str)
            return replace(request, record={}, staged_record=self._file(path))

    def _head(self, path: str) -> str:
        """Sends the files of a head; returns what stands for its path. Workers have bundled ones."""
        if path in BUNDLED_HEADS:
            return path
        folder, names, main = files_of_head(path)
        return self._sent(str(folder), names, main).as_path()

    def _file(self, path: str) -> str:
        """Sends a file; returns what stands for its path."""
        folder, name = os.path.split(os.path.abspath(path))
        return self._sent(folder, [name], name).as_path()

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

    def _sent(self, folder: str, names: Sequence[str], main: str) -> StagedFiles:
        return StagedFiles(self.place, tuple((name, self._put(os.path.join(folder, name))) for name in names), main)

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


def _without_folder(source: Source) -> Source:
    """Returns the source under its name alone, which messages show, where its path is one of this machine."""
    return replace(source, path=os.path.basename(source.path)) if os.path.isabs(source.path) else source
