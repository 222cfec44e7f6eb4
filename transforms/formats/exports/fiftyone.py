"""FiftyOne's `FiftyOneImageDetectionDataset`: a folder with `labels.json`, and `data.json` that names the files.

Its keys are numbers of images: FiftyOne cuts the ending off a key, so two ids could become one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from transforms.formats.exports.exported import MADE_BY, Exported, Image, Run, file_of, images_of
from transforms.formats.exports.json_stream import JsonStream
from transforms.formats.publish import publish_file
from transforms.formats.safe_names import unlabelled_name

LABELS, DATA = "labels.json", "data.json"
UNPACKED = "data"  # folder next to `data.json` for members of archives, found by their ids
FILES = frozenset({LABELS, DATA})


def write_fiftyone(run: Run, folder: str) -> Exported:
    """Writes both files into an existing folder, `data.json` first.

    Raises:
        ResultsError: the tables do not match. StorageError: a file cannot be read or written.
    """
    with publish_file(os.path.join(folder, DATA)) as temporary, open(temporary, "wb") as file:
        stream = JsonStream(file)
        stream.value("made_by", MADE_BY)  # one more key: no label names it, so FiftyOne looks for no such file
        for image in images_of(run):
            if image.has_pixels:
                stream.value(_key(image), _path(image))
        stream.close()
    summary = Exported()
    with publish_file(os.path.join(folder, LABELS)) as temporary, open(temporary, "wb") as file:
        stream = JsonStream(file)
        stream.value("made_by", MADE_BY)
        stream.object("labels", _labels(run, summary))
        stream.value("classes", [*run.classes, *([unlabelled_name(run.classes)] if summary.unlabelled else [])])
        stream.close()
    return summary


def _key(image: Image) -> str:
    return f"{image.row + 1:09d}"


def _path(image: Image) -> str:
    is_file, path = file_of(image)
    return path if is_file else f"{UNPACKED}/{path}"


def _labels(run: Run, summary: Exported) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for image in images_of(run):
        if not image.has_pixels:
            summary.left_out += 1
            continue
        summary.add(image)
        yield _key(image), list(_detections(image, len(run.classes)))


def _detections(image: Image, classes: int) -> Iterator[dict[str, Any]]:
    for face in image.faces:
        found: dict[str, Any] = {
            "label": classes if face.label_index is None else face.label_index,
            "bounding_box": image.relative(face.box),
        }
        if face.confidence is not None:
            found["confidence"] = face.confidence
        intensity = {} if face.intensity is None else {"intensity": face.intensity}
        yield {**found, "attributes": {"face_index": face.number, "detection_score": face.score, **intensity}}
