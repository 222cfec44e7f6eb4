"""Writes the page of a run and its numbers: `report.html` and `report.json`.

The same code at the end of a run and later, for `report RUN`: with the same tables and the same inputs, the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pipeline.report.overlay import label_of
from pipeline.report.repeats import Repeats
from pipeline.report.run_metrics import RunMetrics
from pipeline.report.run_page import RunContent, run_page
from pipeline.report.run_pictures import Pictures, read_run_pictures
from pipeline.report.run_samples import Chooser, Face, Photo, Samples
from pipeline.run.own_files import NUMBERS, PAGE
from transforms.formats.publish import publish
from transforms.formats.records import Limits
from transforms.formats.result_batches import result_batches
from transforms.storage.stopping import check
from transforms.storage.store import open_file

VERSION = 1  # of `report.json`


@dataclass(frozen=True, slots=True)
class RunReport:
    """Writes the page of a run.

    Attributes:
        output: folder of the run, whose tables stand.
        blocks: path of the lines of a plan of its inputs, "" where there is none.
        limits: of images that are read again.
        fault: why there is no plan.
    """

    output: str
    blocks: str
    limits: Limits
    fault: str = ""

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the page and its numbers; returns what `run.json` says of them.

        Args:
            record: `run.json`, as far as it goes.

        Raises:
            ResultsError: the tables do not fit. StorageError: a file cannot be read or written.
        """
        known = json.loads(json.dumps({key: value for key, value in record.items() if key != "report"}, default=str))
        content = self._content(known)
        written = [
            self._publish(PAGE, run_page(content)),
            self._publish(NUMBERS, _as_json(content)),
        ]
        return {"files": written, "photos": len(content.pictures.photos), "photos_missing": content.pictures.missing}

    def _content(self, record: dict[str, Any]) -> RunContent:
        classes = record["head"]["classes"]
        metrics, repeats = RunMetrics(classes), Repeats()
        chooser = Chooser(classes, str(record.get("run_fingerprint", "")))
        for batch in result_batches(self.output):
            check()
            metrics.add(batch)
            repeats.add(batch)
            chooser.add(batch)
        samples = chooser.result()
        pictures = self._pictures(samples)
        return RunContent(record, metrics.result(), repeats.result(result_batches(self.output)), samples, pictures)

    def _pictures(self, samples: Samples) -> Pictures:
        lines = partial(_lines, self.blocks) if self.blocks else None
        return read_run_pictures(samples, lines, self.limits, fault=self.fault)

    def _publish(self, name: str, data: bytes) -> dict[str, Any]:
        publish(os.path.join(self.output, name), lambda file: file.write(data))
        return {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _lines(path: str) -> Iterator[bytes]:
    with open_file(path, forward=True) as file:
        for line in file:
            check()
            yield line


def _as_json(content: RunContent) -> bytes:
    """Returns the numbers of the page, and which photos and faces it shows."""
    record, samples = content.record, content.samples
    told = {
        "version": VERSION,
        "run_fingerprint": record.get("run_fingerprint"),
        "counts": record["counts"],
        "seconds": record.get("seconds"),
        "device": record.get("device"),
        **content.metrics,
        "repeats": content.repeats or None,
        "shown": {
            "most_faces": [_photo(photo) for photo in samples.most_faces],
            "sample": [_photo(photo) for photo in samples.sample],
            "no_face": [_photo(photo) for photo in samples.no_face],
            "least_certain": list(_faces(samples.least_certain, content.classes)),
            "labels": {
                content.classes[index]: list(_faces(faces, content.classes))
                for index, faces in samples.galleries.items()
            },
            "photos_read": len(content.pictures.photos),
            "photos_missing": content.pictures.missing,
        },
    }
    return (json.dumps(told, indent=1, ensure_ascii=True) + "\n").encode()


def _photo(photo: Photo) -> dict[str, Any]:
    return {"image_id": photo.image_id, "faces": photo.face_count}


def _faces(faces: Iterable[tuple[Photo, Face]], classes: list[str]) -> Iterator[dict[str, Any]]:
    for photo, face in faces:
        told = asdict(face)
        yield {"image_id": photo.image_id, "face": told.pop("number"), **told, "label": label_of(face, classes)}
