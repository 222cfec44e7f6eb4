"""Writes the page of a run and its numbers: `report.html` and `report.json`.

The same code at the end of a run and later, for `report RUN`: with the same tables and the same inputs, the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from pipeline.report.near_misses import NearMisses, Searching
from pipeline.report.overlay import label_of
from pipeline.report.photo import Face, Photo
from pipeline.report.repeats import Repeats
from pipeline.report.run_metrics import RunMetrics
from pipeline.report.run_page import RunContent, run_page
from pipeline.report.run_pictures import Pictures, read_run_pictures
from pipeline.report.run_quality import Sizes, picture_flags
from pipeline.report.run_samples import Chooser, Samples
from pipeline.report.similar_faces import Similar, SimilarFaces
from pipeline.run.cache_of_run import cache_of_run
from pipeline.run.heads_of_run import about_head, head_called
from pipeline.run.own_files import NUMBERS, PAGE
from transforms.formats.publish import StorageError, publish
from transforms.formats.records import FormatError, Limits
from transforms.formats.result_batches import ResultBatch, result_batches
from transforms.storage.retrying import with_retries
from transforms.storage.stopping import check
from transforms.storage.store import open_file

VERSION = 2  # of `report.json`
SIMILAR_UP_TO = 50_000  # faces: two or three CPU seconds; more would add much to a run that has all in its cache


@dataclass(frozen=True, slots=True)
class RunReport:
    """Writes the page of a run.

    Attributes:
        output: folder of the run, whose tables stand.
        blocks: path of the lines of a plan of its inputs, "" where there is none.
        limits: of images that are read again.
        fault: why there is no plan.
        searching: how the run looked for faces.
        head: name of the head that the page is about; None for the first that chooses among classes.
        similar_up_to: faces up to which near-duplicates are looked for; None looks whatever it takes.
    """

    output: str
    blocks: str
    limits: Limits
    fault: str = ""
    searching: Searching = Searching(None, why_not="the detector of the run is unavailable")  # noqa: RUF009 - frozen
    similar_up_to: int | None = SIMILAR_UP_TO
    head: str | None = None

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
        chosen = head_called(record, self.head)
        record = {**record, "head": about_head(record, chosen)}
        classes = chosen.classes
        metrics, repeats, sizes = RunMetrics(classes), Repeats(), Sizes()
        chooser = Chooser(classes, str(record.get("run_fingerprint", "")))
        similar, why_not = self._similar(record)
        for batch in self._again(chosen.prefix):
            check()
            metrics.add(batch)
            repeats.add(batch)
            sizes.add(batch)
            chooser.add(batch)
            for each in similar:
                each.add(batch)
        again = partial(self._again, chosen.prefix)
        found = similar[0].result(again) if similar else Similar({"why_not": why_not})
        samples = replace(chooser.result(), similar=found.groups)
        near = NearMisses(self.searching, self.limits)
        pictures = self._pictures(samples, near)
        photos = {photo.row: photo for photo in samples.photos()}
        quality = {
            **sizes.result(),
            **picture_flags(pictures.quality, photos),
            "pictures_measured": len(pictures.quality),
        }
        return RunContent(
            record,
            metrics.result(),
            repeats.result(again()),
            found.numbers,
            quality,
            near.result(pictures.candidates),
            samples,
            pictures,
        )

    def _again(self, prefix: str) -> Iterator[ResultBatch]:
        return result_batches(self.output, prefix=prefix)

    def _similar(self, record: Mapping[str, Any]) -> tuple[list[SimilarFaces], str]:
        """Returns what looks for near-duplicates, or nothing and why."""
        faces, most = record["counts"]["faces"], self.similar_up_to
        if most is not None and faces > most:
            return [], f"the run has more than {most:,} faces; “python -m pipeline report RUN --similar” looks at all"
        try:
            return [SimilarFaces(cache_of_run(self.output, record).lookup)], ""
        except (FormatError, StorageError) as error:
            return [], f"the features are unavailable: {error}"

    def _pictures(self, samples: Samples, near: NearMisses) -> Pictures:
        lines = partial(_lines, self.blocks) if self.blocks else None
        return read_run_pictures(samples, lines, self.limits, fault=self.fault, near=near)

    def _publish(self, name: str, data: bytes) -> dict[str, Any]:
        with_retries(lambda: publish(os.path.join(self.output, name), lambda file: file.write(data)))
        return {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _lines(path: str) -> Iterator[bytes]:
    with open_file(path, forward=True) as file:
        for line in file:
            check()
            yield line


def _as_json(content: RunContent) -> bytes:
    """Returns the numbers of the page, and which photos and faces it shows."""
    record, samples = content.record, content.samples
    report = {
        "version": VERSION,
        "run_fingerprint": record.get("run_fingerprint"),
        "counts": record["counts"],
        "seconds": record.get("seconds"),
        "device": record.get("device"),
        **content.metrics,
        "repeats": content.repeats or None,
        "similar_faces": content.similar,
        "quality": content.quality,
        "near_misses": content.near_misses,
        "shown": {
            "most_faces": [_photo(photo) for photo in samples.most_faces],
            "sample": [_photo(photo) for photo in samples.sample],
            "no_face": [
                {**_photo(photo), "candidates": [asdict(one) for one in content.pictures.candidates.get(photo.row, ())]}
                for photo in samples.no_face
            ],
            "least_certain": list(_faces(samples.least_certain, content.classes)),
            "labels": {
                content.classes[index]: list(_faces(faces, content.classes))
                for index, faces in samples.galleries.items()
            },
            "similar": [list(_faces(group, content.classes)) for group in samples.similar],
            "photos_read": len(content.pictures.photos),
            "photos_missing": content.pictures.missing,
        },
    }
    return (json.dumps(report, indent=1, ensure_ascii=True) + "\n").encode()


def _photo(photo: Photo) -> dict[str, Any]:
    return {"image_id": photo.image_id, "faces": photo.face_count}


def _faces(faces: Iterable[tuple[Photo, Face]], classes: list[str]) -> Iterator[dict[str, Any]]:
    for photo, face in faces:
        entry = asdict(face)
        yield {"image_id": photo.image_id, "face_index": entry.pop("number"), **entry, "label": label_of(face, classes)}
