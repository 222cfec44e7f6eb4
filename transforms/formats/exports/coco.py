"""COCO: one JSON file with images, annotations and categories, boxes as x, y, width, height in pixels.

Images that were rejected, and repeated ids, have no size and are excluded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transforms.formats.exports.exported import MADE_BY, Exported, Image, Run, images_of
from transforms.formats.exports.json_stream import JsonStream
from transforms.formats.publish import publish_file
from transforms.formats.safe_names import unlabelled_name


def write_coco(run: Run, path: str) -> Exported:
    """Writes the file; reads the tables twice, as COCO lists all images before the first face.

    Raises:
        ResultsError: the tables do not match. StorageError: a file cannot be read or written.
    """
    summary = Exported()
    with publish_file(path) as temporary, open(temporary, "wb") as file:
        stream = JsonStream(file)
        stream.value("made_by", MADE_BY)
        stream.value("info", {"description": "faces and their labels", "run": run.fingerprint})
        stream.array("images", _images(run, summary))
        stream.array("annotations", _annotations(run))
        names = [*run.classes, *([unlabelled_name(run.classes)] if summary.unlabelled else [])]
        categories = [{"id": at, "name": name, "supercategory": "face"} for at, name in enumerate(names, 1)]
        stream.array("categories", categories)
        stream.close()
    return summary


def _images(run: Run, summary: Exported) -> Iterator[dict[str, Any]]:
    for image in images_of(run):
        if not image.has_pixels:
            summary.left_out += 1
            continue
        summary.add(image)
        yield {"id": image.row + 1, "file_name": image.image_id, "width": image.width, "height": image.height}


def _annotations(run: Run) -> Iterator[dict[str, Any]]:
    number = 0
    for image in images_of(run):
        for annotation in _of(image, len(run.classes)):
            number += 1
            yield {"id": number, **annotation}


def _of(image: Image, classes: int) -> Iterator[dict[str, Any]]:
    for face in image.faces if image.has_pixels else ():
        yield {
            "image_id": image.row + 1,
            "category_id": (classes if face.label_index is None else face.label_index) + 1,
            "bbox": list(face.box),
            "area": face.box[2] * face.box[3],
            "iscrowd": 0,
            "score": face.score,
            "confidence": face.confidence,
            **({"intensity": face.intensity} if face.states_intensity else {}),
        }
